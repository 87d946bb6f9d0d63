//! A value behind a short flag: held for a few dozen instructions, never across a copy, a call or a wait.
#![expect(unsafe_code, reason = "the flag makes the cell's value exclusive")]

#[cfg(loom)]
use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, Ordering},
};
use std::fmt;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering};

/// How often who finds the flag up looks again before it gives up its CPU: whoever holds it may have been taken off that very one.
#[cfg(not(loom))]
const LOOKS: u32 = 100;

/// `T` behind a flag. Who finds it up spins: whoever holds it is a worker in the middle of a few instructions. What only changes
/// behind the flag has lines of its own, so that what stands beside it stays in every worker's cache.
#[repr(align(64))]
pub(super) struct Flagged<T> {
    up: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `with` gives the value to one thread at a time, so it is as shareable as it is sendable.
unsafe impl<T: Send> Sync for Flagged<T> {}

impl<T> Flagged<T> {
    pub(super) fn new(value: T) -> Self {
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
        if !self.raise() {
            self.wait();
        }
        let _lower = Lower(&self.up);
        // SAFETY: the flag was down and we raised it, so no other reference to the value exists until `Lower` drops.
        self.value.with_mut(|value| work(unsafe { &mut *value }))
    }

    /// Raises the flag, if it is down.
    #[inline(always)]
    fn raise(&self) -> bool {
        self.up.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Until the flag was down, and is up for us.
    #[cold]
    fn wait(&self) {
        let mut pause = Pause::default();
        while self.up.load(Ordering::Relaxed) || !self.raise() {
            pause.next();
        }
    }
}

impl<T> fmt::Debug for Flagged<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flagged").finish_non_exhaustive()
    }
}

/// What lies between two looks at a flag that is up.
#[derive(Default)]
struct Pause {
    #[cfg(not(loom))]
    looks: u32,
}

#[cfg(not(loom))]
impl Pause {
    fn next(&mut self) {
        self.looks += 1;
        if self.looks < LOOKS { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
}

#[cfg(loom)]
impl Pause {
    fn next(&mut self) {
        loom::thread::yield_now();
    }
}

/// The standard cell, with the face of loom's.
#[cfg(not(loom))]
struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    fn with_mut<R>(&self, work: impl FnOnce(*mut T) -> R) -> R {
        work(self.0.get())
    }
}
