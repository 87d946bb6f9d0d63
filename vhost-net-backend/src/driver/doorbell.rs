//! A kick or call descriptor: a non-blocking eventfd.
#![expect(
    unsafe_code,
    reason = "the vhost crate takes eventfds of its own type, which only raw descriptors become"
)]

use rustix::event::EventfdFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use vmm_sys_util::eventfd::EventFd;

/// An eventfd that is rung by one side and waited for by the other.
#[derive(Debug)]
pub(super) struct Doorbell(OwnedFd);

impl Doorbell {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }

    /// Signals. A counter that is full is as good as signalled, so no error matters.
    pub(super) fn ring(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Takes back all signals so far.
    pub(super) fn drain(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }

    /// The same eventfd, as the vhost crate takes it.
    pub(super) fn to_event_fd(&self) -> io::Result<EventFd> {
        let raw = self.0.try_clone()?.into_raw_fd();
        // SAFETY: `raw` is a descriptor that nobody else owns: it was duplicated and released on the line above.
        Ok(unsafe { EventFd::from_raw_fd(raw) })
    }

    /// Another owner of the same eventfd.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
