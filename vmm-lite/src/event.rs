//! What the kernel tells by a descriptor or a signal: a descriptor that is rung by one side and waited for by the other (a
//! call, a kick, an interrupt line), and the signal of a system call that was refused.
#![expect(
    unsafe_code,
    reason = "the rust-vmm crates' eventfd lends its descriptor as a number only; a signal is described behind a pointer"
)]

use crate::confine;
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

/// `siginfo_t` of a SIGSYS, as the kernel lays it out (sigaction(2): si_call_addr, si_syscall, si_arch).
#[repr(C)]
struct Refused {
    signal: [libc::c_int; 3],
    address: *const libc::c_void,
    call: libc::c_int,
    architecture: libc::c_uint,
}

/// The handler of SIGSYS.
pub(crate) extern "C" fn refused(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel calls a handler of SIGSYS with a `siginfo_t` that is there until the handler returns; it is longer
    // than `Refused`, all of whose fields are valid whatever is in them.
    let told = unsafe { info.cast::<Refused>().read() };
    confine::refused(told.call);
}
