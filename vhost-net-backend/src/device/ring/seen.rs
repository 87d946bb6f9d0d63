//! Which chains a batch holds: one that is made available twice at once would be completed twice.
//!
//! A driver mostly hands out its descriptors in turn, and heads that follow each other are unlike without a look at any
//! list: only what breaks the row is looked up.

use crate::layout::RingSize;

/// The batch that last held each descriptor as a chain's head. A new batch is one more number, so nothing is cleared.
#[derive(Debug)]
pub(super) struct Seen {
    batch_of: Box<[u32]>,
    batch: u32,
    /// Sizes are powers of two (virtio 1.2 §2.7): the size less one.
    mask: u32,
    /// The first head of the row.
    first: u16,
}

/// The head that would go on with a batch's row, if each of its heads follows the one before. Kept apart from [`Seen`], so that
/// it stays in a register. Behind the last descriptor it is that of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row(u32);

impl Row {
    /// The heads do not follow each other: those that were taken are marked.
    const BROKEN: Self = Self(u32::MAX);
}

impl Seen {
    pub(super) fn new(size: RingSize) -> Self {
        let entries = size.entries();
        Self {
            batch_of: vec![0; usize::from(entries)].into(),
            batch: 0,
            mask: u32::from(entries) - 1,
            first: 0,
        }
    }

    /// A new batch begins, probably with the chain at `head`.
    #[inline(always)]
    pub(super) fn begin(&mut self, head: u16) -> Row {
        self.batch = self.batch.wrapping_add(1);
        if self.batch == 0 {
            self.batch_of.fill(0);
            self.batch = 1;
        }
        self.first = head & self.mask as u16;
        Row(self.first.into())
    }

    /// The batch, which took `taken` chains so far, takes the chain at `head` too. None: no driver may do that.
    #[inline(always)]
    pub(super) fn take(&mut self, row: Row, taken: u16, head: u16) -> Option<Row> {
        if row.0 == u32::from(head) { Some(Row(row.0 + 1)) } else { self.take_odd(row, taken, head) }
    }

    #[inline(never)]
    fn take_odd(&mut self, row: Row, taken: u16, head: u16) -> Option<Row> {
        if usize::from(head) >= self.batch_of.len() {
            return None;
        }
        if head == 0 && row.0 == self.mask + 1 {
            // The table's end: the row goes on at its beginning.
            return Some(Row(1));
        }
        let row = self.broken(row, taken);
        let before = std::mem::replace(&mut self.batch_of[usize::from(head)], self.batch);
        (before != self.batch).then_some(row)
    }

    /// What is wrong with a head that was not taken.
    pub(super) fn why_not(&self, head: u16) -> &'static str {
        if usize::from(head) < self.batch_of.len() {
            "a chain was made available twice"
        } else {
            "the head of a chain is outside of the descriptor table"
        }
    }

    /// Marks the `taken` heads of a row, if it was none before, so that single ones can be [given back](Self::give_back).
    pub(super) fn broken(&mut self, row: Row, taken: u16) -> Row {
        if row != Row::BROKEN {
            let row = (0..u32::from(taken)).map(|n| (u32::from(self.first) + n) & self.mask);
            row.for_each(|head| self.batch_of[head as usize] = self.batch);
        }
        Row::BROKEN
    }

    /// The batch does not hold it after all.
    pub(super) fn give_back(&mut self, head: u16) {
        if let Some(batch) = self.batch_of.get_mut(usize::from(head)) {
            *batch = 0;
        }
    }
}
