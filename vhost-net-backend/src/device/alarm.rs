//! An alarm for a thread that must never wait for a guest: while it is set, ticks end any system call that blocks.
//!
//! An eventfd is shared with its frontend, and so is its O_NONBLOCK flag: a frontend can clear the flag behind our back and fill
//! the counter, and the next write would wait for ever. Linux has no write to an eventfd that cannot wait (RWF_NOWAIT is refused),
//! so a thread that signals frontends sets an alarm, and takes EINTR for what it is: it can only come from a write that waited.

#![expect(unsafe_code, reason = "POSIX timers and a signal handler that does nothing")]

use std::{io, marker::PhantomData, sync::OnceLock, time::Duration};

/// How long a system call may wait while an alarm is set. A hostile frontend costs its neighbours this once, and then its port;
/// a busy worker pays some hundred signals a second for it, about 0.02 % of its time.
pub const TICK: Duration = Duration::from_millis(10);

static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();

/// A timer that interrupts the thread that made it, and no other.
#[derive(Debug)]
pub struct Alarm {
    timer: libc::timer_t,
    set: bool,
    /// It belongs to the thread that made it.
    _thread: PhantomData<*const ()>,
}

impl Alarm {
    /// An alarm for the calling thread, not set yet. Fails if the kernel has no timer left for this user (RLIMIT_SIGPENDING).
    pub fn new() -> io::Result<Self> {
        INSTALLED
            .get_or_init(|| install().map_err(|error| error.raw_os_error().unwrap_or(0)))
            .map_err(io::Error::from_raw_os_error)?;
        let mut timer = std::ptr::null_mut();
        // SAFETY: the structures are plain data, for which zeros are valid, and live across the calls that read them; the mask
        // is this thread's own.
        unsafe {
            let mut mask: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut mask);
            libc::sigaddset(&mut mask, libc::SIGALRM);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &mask, std::ptr::null_mut());
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGALRM;
            event.sigev_notify_thread_id = libc::gettid();
            if libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self { timer, set: false, _thread: PhantomData })
    }

    /// Ticks come from now on.
    #[inline(always)]
    pub fn set(&mut self) {
        if !self.set {
            self.every(TICK);
            self.set = true;
        }
    }

    /// No more ticks: before the thread waits on purpose.
    pub fn clear(&mut self) {
        if self.set {
            self.every(Duration::ZERO);
            self.set = false;
        }
    }

    #[cold]
    fn every(&self, interval: Duration) {
        let interval =
            libc::timespec { tv_sec: 0, tv_nsec: libc::c_long::from(interval.subsec_nanos().cast_signed()) };
        let both = libc::itimerspec { it_interval: interval, it_value: interval };
        // SAFETY: the timer is ours until drop, and the structure lives across the call.
        let done = unsafe { libc::timer_settime(self.timer, 0, &both, std::ptr::null_mut()) };
        debug_assert_eq!(done, 0, "a timer of ours takes any interval below a second");
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: the timer is ours, and nobody uses it after this.
        unsafe { libc::timer_delete(self.timer) };
    }
}

fn install() -> io::Result<()> {
    // SAFETY: the structure is plain data, for which zeros are valid; the handler has the signature that is asked for and does
    // nothing. No SA_RESTART: that the call ends is the point.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_tick as *const () as usize;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn on_tick(_signal: libc::c_int) {}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    #[test]
    fn a_write_to_a_full_eventfd_that_blocks_ends_with_eintr() {
        let full = eventfd(0, EventfdFlags::empty()).unwrap();
        rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let mut alarm = Alarm::new().unwrap();
        for _ in 0..3 {
            alarm.set();
            assert_eq!(rustix::io::write(&full, &1u64.to_ne_bytes()), Err(rustix::io::Errno::INTR));
            alarm.clear();
        }
    }

    #[test]
    fn a_cleared_alarm_leaves_a_wait_alone() {
        let empty = eventfd(0, EventfdFlags::empty()).unwrap();
        let mut alarm = Alarm::new().unwrap();
        alarm.set();
        alarm.clear();
        let mut polled = [rustix::event::PollFd::new(&empty, rustix::event::PollFlags::IN)];
        let patience = rustix::event::Timespec { tv_sec: 0, tv_nsec: 30_000_000 };
        assert_eq!(rustix::event::poll(&mut polled, Some(&patience)), Ok(0), "it waited to the end");
    }
}
