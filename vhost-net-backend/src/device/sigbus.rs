//! (in work)

/// A guarded range.
#[derive(Debug)]
pub struct Guarded {}

impl Guarded {
    /// Whether pages vanished.
    pub fn vanished(&self) -> bool {
        false
    }
}

/// Guards a range.
pub fn guard(_addr: *const u8, _len: usize) -> std::io::Result<Guarded> {
    Ok(Guarded {})
}
