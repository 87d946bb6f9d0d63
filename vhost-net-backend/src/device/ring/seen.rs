//! Which chains a batch holds: one that is made available twice at once would be completed twice.

use crate::layout::RingSize;

/// The batch that last held each descriptor as a chain's head. A new batch is one more number, so nothing is cleared.
#[derive(Debug)]
pub(super) struct Seen {
    batch_of: Box<[u32]>,
    batch: u32,
}

impl Seen {
    pub(super) fn new(size: RingSize) -> Self {
        Self { batch_of: vec![0; usize::from(size.entries())].into(), batch: 0 }
    }

    /// A new batch begins.
    pub(super) fn begin(&mut self) {
        self.batch = self.batch.wrapping_add(1);
        if self.batch == 0 {
            self.batch_of.fill(0);
            self.batch = 1;
        }
    }

    /// The batch takes the chain at `head`; an error names what no driver may do.
    #[inline(always)]
    pub(super) fn take(&mut self, head: u16) -> Result<(), &'static str> {
        match self.batch_of.get_mut(usize::from(head)) {
            None => Err("the head of a chain is outside of the descriptor table"),
            Some(batch) if *batch == self.batch => Err("a chain was made available twice"),
            Some(batch) => {
                *batch = self.batch;
                Ok(())
            }
        }
    }

    /// The batch does not hold it after all.
    pub(super) fn give_back(&mut self, head: u16) {
        if let Some(batch) = self.batch_of.get_mut(usize::from(head)) {
            *batch = 0;
        }
    }
}
