//! Completions that are held back from a driver that polls: the last few, while more frames come.
//!
//! DPDK's virtio driver takes buffers back when its ring is nearly full of completed ones: then all of them at once, which for a large
//! ring are more than its pool keeps at hand, so that its frames wander through the whole of the pool, out of both CPUs' caches. As
//! long as a few chains are not completed it takes back as many as it needs, and uses the same buffers again.

use crate::layout::RingSize;

/// Chains that are held back at least, where the ring is large: DPDK's driver looks whether fewer are left than this.
const FEW: u16 = 32;

/// How many completed chains the driver does not see yet.
#[derive(Debug)]
pub(super) struct Held {
    few: u16,
    /// Of batches that ended before those of `newer`.
    older: u16,
    /// Fewer than `few`.
    newer: u16,
}

impl Held {
    pub(super) fn new(size: RingSize) -> Self {
        // At most three times as many are held: the driver keeps five eighths of its ring.
        Self { few: FEW.min(size.entries() / 8), older: 0, newer: 0 }
    }

    /// How many of a batch of `completed` chains are to be held back: its last ones.
    #[inline(always)]
    pub(super) fn keep(&self, completed: usize) -> usize {
        completed.min(self.few.into())
    }

    /// Holds back `count` more chains, which [`Held::keep`] said; returns how many of those held before are shown for them.
    /// What is shown ends where a batch did.
    #[inline(always)]
    pub(super) fn hold(&mut self, count: usize) -> u16 {
        self.newer += count as u16;
        if self.newer < self.few {
            return 0;
        }
        std::mem::replace(&mut self.older, std::mem::take(&mut self.newer))
    }

    /// Holds nothing back any more; returns how many were held.
    #[inline(always)]
    pub(super) fn release(&mut self) -> u16 {
        std::mem::take(&mut self.older) + std::mem::take(&mut self.newer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the batches: while they come, `few` or more are held, never more than three eighths of the ring, and what is
        /// shown ends with a batch or where one was cut.
        #[test]
        fn a_few_are_held_and_never_many(bits in 3u32..=15, batches in prop::collection::vec(1usize..=64, 1..200)) {
            let size = RingSize::new(1 << bits).expect("a power of two");
            let mut held = Held::new(size);
            let (mut completed, mut shown, mut ends) = (0usize, 0usize, vec![0]);
            for batch in batches {
                let batch = batch.min(usize::from(size.entries()));
                let keep = held.keep(batch);
                if batch > keep {
                    shown += usize::from(held.release()) + batch - keep;
                    ends.push(completed + batch - keep);
                }
                completed += batch;
                ends.push(completed);
                shown += usize::from(held.hold(keep));
                prop_assert!(ends.contains(&shown));
                prop_assert!(completed - shown <= usize::from(size.entries()) * 3 / 8);
                prop_assert!(completed - shown >= usize::from(held.few).min(completed));
            }
            prop_assert_eq!(shown + usize::from(held.release()), completed);
            prop_assert_eq!(held.release(), 0);
        }
    }
}
