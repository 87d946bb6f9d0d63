//! Which places of a used ring may be shown to the driver: those of leases that ended, up to the oldest that did not.

use crate::device::ring::flag::Flagged;
#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
use std::collections::VecDeque;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// Leases that may be open at once: as many as there can be workers, each of which holds one of a ring at a time.
const MAX_OPEN: usize = 64;

/// The number of the oldest open lease, for all to read. Nobody but its holder may store the used index: all places before its own are
/// shown, and it need not wait for the flag, behind which the CPU waits until all that was written is in the guest's memory.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Oldest(AtomicU64);

impl Oldest {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Ends lease `number`, which the caller holds, in the leases that `find` finds behind the `flag`; `end` is the used index behind its
    /// places, if it has any. `store` puts an index into the used ring. Returns the indices between which the driver is to be told.
    #[inline(always)]
    pub(super) fn end<T>(
        &self,
        flag: &Flagged<T>,
        find: impl FnOnce(&mut T) -> &mut Leases,
        (number, end): (u64, Option<u16>),
        store: impl Fn(u16),
    ) -> (u16, u16) {
        // The oldest: whoever was before has stored its index. So the driver sees the frames a flag earlier.
        let shown = end.filter(|_| self.0.load(Ordering::Acquire) == number);
        if let Some(index) = shown {
            store(index);
        }
        flag.with(|state| {
            let leases = find(state);
            let told = leases.end(number, |index| {
                if shown != Some(index) {
                    store(index);
                }
            });
            self.0.store(leases.oldest, Ordering::Release);
            told
        })
    }
}

/// The open leases of a ring, oldest first, and how far it is published.
#[derive(Debug)]
pub(super) struct Leases {
    /// What `used.idx` says.
    published: u16,
    /// `published` when the driver was last told.
    told: u16,
    /// Places taken, and whether they are written.
    open: VecDeque<(u16, bool)>,
    /// The number of the oldest open lease.
    oldest: u64,
}

impl Leases {
    /// None are open, and the next place to publish is `next_used`.
    pub(super) fn new(next_used: u16) -> Self {
        Self { published: next_used, told: next_used, open: VecDeque::with_capacity(MAX_OPEN), oldest: 0 }
    }

    /// What `used.idx` says.
    pub(super) fn published(&self) -> u16 {
        self.published
    }

    /// Whether there may be no further one before one ends.
    #[inline(always)]
    pub(super) fn all_open(&self) -> bool {
        self.open.len() >= MAX_OPEN
    }

    /// Opens a lease of the next `places`; returns its number.
    #[inline(always)]
    pub(super) fn open(&mut self, places: u16) -> u64 {
        let number = self.oldest + self.open.len() as u64;
        self.open.push_back((places, false));
        number
    }

    /// Ends lease `number`, whose places are written. If it was the oldest, it and all behind it that ended are published:
    /// `store` puts the index into the used ring. Returns the indices between which the driver is to be told.
    #[inline(always)]
    pub(super) fn end(&mut self, number: u64, store: impl FnOnce(u16)) -> (u16, u16) {
        if let Some(lease) = self.open.get_mut((number - self.oldest) as usize) {
            lease.1 = true;
        }
        while let Some((places, true)) = self.open.front().copied() {
            self.open.pop_front();
            self.published = self.published.wrapping_add(places);
            self.oldest += 1;
        }
        let old = self.told;
        self.told = self.published;
        if old != self.published {
            store(self.published);
        }
        (old, self.published)
    }
}
