//! A value behind a short flag: held for a few dozen instructions, never across a copy, a call or a wait.
#![expect(unsafe_code, reason = "the flag makes the cell's value exclusive")]

use std::{
    cell::UnsafeCell,
    fmt, hint,
    sync::atomic::{AtomicBool, Ordering},
};

/// `T` behind a flag. Who finds it up spins: whoever holds it is a running worker in the middle of a few instructions.
pub(super) struct Flagged<T> {
    up: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `with` gives the value to one thread at a time, so it is as shareable as it is sendable.
unsafe impl<T: Send> Sync for Flagged<T> {}

impl<T> Flagged<T> {
    pub(super) const fn new(value: T) -> Self {
        Self { up: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Runs `work` on the value while no other thread can.
    #[inline(always)]
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        /// Lowers the flag, also when `work` panics.
        struct Lower<'a>(&'a AtomicBool);
        impl Drop for Lower<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }
        while self.up.swap(true, Ordering::Acquire) {
            hint::spin_loop();
        }
        let _lower = Lower(&self.up);
        // SAFETY: the flag was down and we raised it, so no other reference to the value exists until `Lower` drops.
        work(unsafe { &mut *self.value.get() })
    }
}

impl<T> fmt::Debug for Flagged<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flagged").finish_non_exhaustive()
    }
}
