//! Where vCPUs pass between two runs of the guest: they go on, are held, or leave for good.

use crate::devices::lock;
use std::{
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const OVER: u8 = 2;

/// The gate of one machine.
#[derive(Default)]
pub(crate) struct Gate {
    /// What vCPUs look at each time.
    wanted: AtomicU8,
    /// How many are held.
    held: Mutex<usize>,
    changed: Condvar,
}

/// What a vCPU does at the gate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// It goes on.
    Straight,
    /// It was held, and goes on.
    Held,
    /// It leaves.
    Over,
}

impl Gate {
    /// A vCPU comes by.
    pub(crate) fn pass(&self) -> Passed {
        match self.wanted.load(Ordering::Acquire) {
            OPEN => return Passed::Straight,
            OVER => return Passed::Over,
            _ => {}
        }
        let mut held = lock(&self.held);
        *held += 1;
        self.changed.notify_all();
        while self.wanted.load(Ordering::Acquire) == CLOSED {
            held = self.changed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        *held -= 1;
        if self.wanted.load(Ordering::Acquire) == OVER { Passed::Over } else { Passed::Held }
    }

    /// Whoever comes by is held from now on.
    pub(crate) fn close(&self) {
        self.set(CLOSED);
    }

    /// All go on.
    pub(crate) fn open(&self) {
        self.set(OPEN);
    }

    /// All leave.
    pub(crate) fn end(&self) {
        self.set(OVER);
    }

    /// Nobody may pass now.
    pub(crate) fn is_closed(&self) -> bool {
        self.wanted.load(Ordering::Acquire) == CLOSED
    }

    /// How many are held, as soon as there is another, or after `limit`.
    pub(crate) fn held_within(&self, limit: Duration) -> usize {
        let held = lock(&self.held);
        let before = *held;
        let waited = self.changed.wait_timeout_while(held, limit, |held| *held == before);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn set(&self, wanted: u8) {
        // Under the lock: who is about to wait has not looked yet, or is woken.
        let _held = lock(&self.held);
        self.wanted.store(wanted, Ordering::Release);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn all_are_held_until_it_opens_or_ends() {
        for (release, passed) in [(Gate::open as fn(&Gate), Passed::Held), (Gate::end, Passed::Over)] {
            let gate = Gate::default();
            assert_eq!(gate.pass(), Passed::Straight);
            gate.close();
            assert!(gate.is_closed());
            thread::scope(|scope| {
                let vcpus = [(); 3].map(|()| scope.spawn(|| gate.pass()));
                let mut held = 0;
                while held < vcpus.len() {
                    held = gate.held_within(Duration::from_millis(1)).max(held);
                }
                release(&gate);
                for vcpu in vcpus {
                    assert_eq!(vcpu.join().unwrap(), passed);
                }
            });
            assert_eq!(*lock(&gate.held), 0);
        }
    }
}
