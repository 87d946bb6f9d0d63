//! A descriptor that is rung by one side and waited for by the other: a call, a kick, an interrupt line.
#![expect(unsafe_code, reason = "the rust-vmm crates' eventfd lends its descriptor as a number only")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// A non-blocking eventfd, in the type that the rust-vmm crates take.
#[derive(Debug)]
pub(crate) struct Event(EventFd);

impl Event {
    pub(crate) fn new() -> io::Result<Self> {
        EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map(Self)
    }

    /// Another owner of the same eventfd.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Signals. A counter that is full is as good as signalled, so no error matters.
    pub(crate) fn ring(&self) {
        let _ = self.0.write(1);
    }

    /// Takes back all signals so far.
    pub(crate) fn drain(&self) {
        let _ = self.0.read();
    }

    pub(crate) fn as_event_fd(&self) -> &EventFd {
        &self.0
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to `self`, which outlives what is returned.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

impl vm_superio::Trigger for Event {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        self.ring();
        Ok(())
    }
}
