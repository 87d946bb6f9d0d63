//! (in work)

/// A ring that runs: a value that exactly one worker owns.
#[derive(Debug)]
pub struct RunningRing {}
