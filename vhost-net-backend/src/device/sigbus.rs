//! The SIGBUS guard: guest memory that vanishes under us (its file was truncated, or a hole punched in huge pages)
//! costs its own port a fault and nobody else anything.
//!
//! One handler for the process. A fault inside a guarded range gets an anonymous zero page mapped over the missing one, so that
//! the interrupted copy goes on, and the range is marked as vanished; a fault anywhere else is our own and goes to whoever handled
//! SIGBUS before, or ends the process.

#![expect(unsafe_code, reason = "a signal handler, and mmap over a range that the caller owns")]

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// Ranges that can be guarded at once: 128 ports with every memory slot in use.
const SLOTS: usize = 8192;
/// Size of a base page.
const PAGE: usize = 4096;
/// Sizes that x86-64 maps in one piece, largest first is tried last: a range of huge pages cannot be mapped over by less.
const PAGE_SIZES: [usize; 3] = [PAGE, 2 << 20, 1 << 30];

/// One guarded range. `end` is stored last and cleared first, so a range that is seen at all is seen whole: a
/// handler that reads `end != 0` reads the `start` that belongs to it, and it runs only for addresses whose guard its thread can see.
struct Slot {
    taken: AtomicBool,
    start: AtomicUsize,
    end: AtomicUsize,
    vanished: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        vanished: AtomicBool::new(false),
    }
}; SLOTS];
/// Slots at and above this were never taken; the handler looks no further.
static HIGH: AtomicUsize = AtomicUsize::new(0);
/// What handled SIGBUS before us; leaked once, so that the handler can read it without a lock.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());
static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();

/// A guarded range; it must be dropped before the range is unmapped.
#[derive(Debug)]
pub struct Guarded {
    slot: usize,
}

/// Guards the mapping of `len` bytes at `addr`. Errors: the table of ranges is full, or the handler cannot be installed.
pub fn guard(addr: *const u8, len: usize) -> io::Result<Guarded> {
    INSTALLED
        .get_or_init(|| install().map_err(|error| error.raw_os_error().unwrap_or(0)))
        .map_err(io::Error::from_raw_os_error)?;
    let free =
        |slot: &Slot| slot.taken.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    let slot = TABLE.iter().position(free).ok_or_else(|| {
        io::Error::other(format!("more than {SLOTS} regions of guest memory in one process"))
    })?;
    HIGH.fetch_max(slot + 1, Ordering::AcqRel);
    TABLE[slot].vanished.store(false, Ordering::Relaxed);
    TABLE[slot].start.store(addr as usize, Ordering::Release);
    TABLE[slot].end.store((addr as usize).saturating_add(len), Ordering::Release);
    Ok(Guarded { slot })
}

impl Guarded {
    /// Whether a page of the range was missing when it was touched. It reads as zeros since.
    pub fn vanished(&self) -> bool {
        TABLE[self.slot].vanished.load(Ordering::Acquire)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let slot = &TABLE[self.slot];
        slot.end.store(0, Ordering::Release);
        slot.start.store(0, Ordering::Release);
        slot.taken.store(false, Ordering::Release);
    }
}

fn install() -> io::Result<()> {
    // SAFETY: both structures are plain data, for which zeros are valid; `on_sigbus` has the signature that SA_SIGINFO asks for
    // and calls only async-signal-safe functions; the box is leaked, so the pointer stays valid for the handler.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as usize;
        // On the alternate stack where a thread has one, and re-entrant: mmap itself raises no SIGBUS.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        let previous = Box::into_raw(Box::new(std::mem::zeroed::<libc::sigaction>()));
        PREVIOUS.store(previous, Ordering::Release);
        if libc::sigaction(libc::SIGBUS, &action, previous) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo; SIGBUS by a fault carries its address (si_code > 0), one sent by
    // kill(2) does not. errno is this thread's own.
    let (address, errno) = unsafe {
        let sent_by_kernel = (*info).si_code > 0;
        (if sent_by_kernel { (*info).si_addr() as usize } else { 0 }, *libc::__errno_location())
    };
    let high = HIGH.load(Ordering::Acquire);
    let hit = TABLE[..high].iter().find(|slot| {
        let end = slot.end.load(Ordering::Acquire);
        address < end && address >= slot.start.load(Ordering::Acquire)
    });
    if hit.is_some_and(|slot| patch(slot, address)) {
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
        return;
    }
    pass_on(signal, info, context);
}

/// Maps zeros over the page at `address`; over the whole huge page where the range consists of such.
fn patch(slot: &Slot, address: usize) -> bool {
    let (start, end) = (slot.start.load(Ordering::Acquire), slot.end.load(Ordering::Acquire));
    slot.vanished.store(true, Ordering::Release);
    PAGE_SIZES.iter().any(|size| {
        let page = address & !(size - 1);
        if page < start & !(PAGE - 1) || page.saturating_add(*size) > end.next_multiple_of(PAGE) {
            return false;
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // SAFETY: the page lies within a range that its owner guards and has mapped; replacing it by zeros is what the guard is
        // for. mmap is async-signal-safe on Linux (a bare system call). Too small a page within a huge one is EINVAL and changes nothing.
        let at =
            unsafe { libc::mmap(page as *mut _, *size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        at != libc::MAP_FAILED
    })
}

/// Not ours: to the handler that was there before, or the default action when the instruction faults again.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: `PREVIOUS` was set before the handler was installed and is never freed; what it holds was a valid action of this
    // process, called as its own flags say.
    unsafe {
        let previous = &*PREVIOUS.load(Ordering::Acquire);
        match previous.sa_sigaction {
            libc::SIG_DFL | libc::SIG_IGN => {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &action, std::ptr::null_mut());
                libc::raise(signal);
            }
            handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
                let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                    std::mem::transmute(handler);
                handler(signal, info, context);
            }
            handler => {
                let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
                handler(signal);
            }
        }
    }
}

#[cfg(test)]
#[path = "sigbus_tests.rs"]
mod tests;
