//! Which worker serves which transmitq: each as many as the others, give or take one.

use std::collections::BTreeSet;
use vswitch_core::id::PortId;

/// A transmitq: its port, and its index there.
pub(super) type Transmitq = (PortId, u16);

/// What each worker serves.
#[derive(Debug)]
pub(super) struct Spread(Vec<BTreeSet<Transmitq>>);

/// A ring that another worker should serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) ring: Transmitq,
    pub(super) from: usize,
    pub(super) to: usize,
}

impl Spread {
    /// Nothing yet, over so many workers, of which there is at least one.
    pub(super) fn new(workers: usize) -> Self {
        Self(vec![BTreeSet::new(); workers])
    }

    /// Gives `ring` to the worker that serves the fewest, which is returned.
    pub(super) fn add(&mut self, ring: Transmitq) -> usize {
        let (_, to) = self.ends();
        self.0[to].insert(ring);
        to
    }

    /// The worker that serves `ring`.
    pub(super) fn worker_of(&self, ring: Transmitq) -> Option<usize> {
        self.0.iter().position(|served| served.contains(&ring))
    }

    /// Nobody serves `ring` any longer; the ring that is to move for that, if one is.
    pub(super) fn remove(&mut self, ring: Transmitq) -> Option<Move> {
        for served in &mut self.0 {
            served.remove(&ring);
        }
        let (from, to) = self.ends();
        if self.0[from].len() <= self.0[to].len() + 1 {
            return None;
        }
        let ring = self.0[from].pop_last()?;
        self.0[to].insert(ring);
        Some(Move { ring, from, to })
    }

    /// The worker that serves the most, and the one that serves the fewest; the first of those that are alike.
    fn ends(&self) -> (usize, usize) {
        let by = |sign: isize| {
            let served =
                self.0.iter().enumerate().min_by_key(|(_, served)| sign * served.len().cast_signed());
            served.map_or(0, |(worker, _)| worker)
        };
        (by(-1), by(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_never_differ_by_more_than_one_and_every_ring_has_one_worker(
            workers in 1usize..9,
            comings_and_goings in prop::collection::vec((0u16..40, any::<bool>()), 0..200),
        ) {
            let mut spread = Spread::new(workers);
            let mut model = BTreeSet::new();
            for (port, comes) in comings_and_goings {
                let ring = (PortId::new(port, 0), 1);
                if comes && model.insert(ring) {
                    let worker = spread.add(ring);
                    prop_assert_eq!(spread.worker_of(ring), Some(worker));
                } else if !comes {
                    model.remove(&ring);
                    let moved = spread.remove(ring);
                    prop_assert!(moved.is_none_or(|moved| spread.worker_of(moved.ring) == Some(moved.to)));
                    prop_assert_eq!(spread.worker_of(ring), None);
                }
                let counts = || spread.0.iter().map(BTreeSet::len);
                prop_assert!(counts().max().unwrap() <= counts().min().unwrap() + 1);
                prop_assert_eq!(counts().sum::<usize>(), model.len());
                prop_assert!(model.iter().all(|ring| spread.worker_of(*ring).is_some()));
            }
        }
    }
}
