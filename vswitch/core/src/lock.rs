//! Locks over buckets that workers only try: who does not get one goes on without.

use std::sync::atomic::{AtomicBool, Ordering};

/// A fixed number of locks, each for the buckets whose low bits it shares.
#[derive(Debug)]
pub(crate) struct Locks(Box<[AtomicBool]>);

/// Holds one lock until it is dropped.
pub(crate) struct Guard<'a>(&'a AtomicBool);

impl Locks {
    /// So many locks; a power of two.
    pub(crate) fn new(locks: usize) -> Self {
        Self(std::iter::repeat_with(AtomicBool::default).take(locks).collect())
    }

    /// All of them: nothing changes until they are given back. Only for the control thread, and for one at a time.
    pub(crate) fn all(&self) -> Vec<Guard<'_>> {
        (0..self.0.len()).map(|number| self.lock(number)).collect()
    }

    /// The lock of a bucket, if nobody holds it.
    pub(crate) fn try_lock(&self, bucket: usize) -> Option<Guard<'_>> {
        let lock = &self.0[bucket & (self.0.len() - 1)];
        // Lazily: a guard that is made for nothing gives back, when it is dropped, what somebody else holds.
        (!lock.swap(true, Ordering::Acquire)).then(|| Guard(lock))
    }

    /// The lock of a bucket. Only for the control thread: it waits for a worker, which holds it for some
    /// nanoseconds. A worker never waits.
    pub(crate) fn lock(&self, bucket: usize) -> Guard<'_> {
        loop {
            if let Some(guard) = self.try_lock(bucket) {
                return guard;
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_get_a_lock_leaves_it_to_its_holder() {
        let locks = Locks::new(2);
        let held = locks.try_lock(5);
        assert!(held.is_some());
        assert!(locks.try_lock(1).is_none());
        assert!(locks.try_lock(3).is_none(), "the first that asked in vain has not given it back");
        assert!(locks.try_lock(2).is_some(), "the other lock is free");
        drop(held);
        assert_eq!(locks.all().len(), 2);
    }
}
