//! The only places where bytes cross between our memory and a guest's.
//!
//! A guest may write the bytes while we copy them. What we then hold is arbitrary but fixed: each copy out of guest memory
//! passes an empty `asm!` that may have changed it as far as the compiler knows, so it can neither read a guest's
//! bytes twice nor join two copies into one that skips our private bytes (DESIGN §2, law 1).
#![expect(unsafe_code, reason = "copies through raw pointers into guest memory")]

use std::{arch::asm, ptr};

/// Tells the compiler that any memory may have changed.
#[inline(always)]
fn settle() {
    // SAFETY: no instruction; the default clobber of memory is the point.
    unsafe { asm!("", options(nostack, preserves_flags)) }
}

/// What one instruction moves: 16 bytes anywhere, 32 in a function that was compiled for AVX2.
pub(super) trait Lane: Copy {}

/// 16 bytes.
#[cfg(target_arch = "x86_64")]
pub(super) type Narrow = std::arch::x86_64::__m128i;
#[cfg(not(target_arch = "x86_64"))]
pub(super) type Narrow = u128;
impl Lane for Narrow {}

/// 32 bytes.
#[cfg(target_arch = "x86_64")]
type Wide = std::arch::x86_64::__m256i;
#[cfg(target_arch = "x86_64")]
impl Lane for Wide {}

/// Work on many short copies, which can be done by lanes of either width.
pub(super) trait ByLane {
    /// Does it. To be inlined always: so it becomes part of a function that is compiled for the width.
    fn run<L: Lane>(self);
}

/// Does `work` by the widest lanes that this CPU has.
#[inline(always)]
pub(super) fn by_widest_lane<W: ByLane>(work: W) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn wide<W: ByLane>(work: W) {
            work.run::<Wide>();
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the CPU has AVX2.
            return unsafe { wide(work) };
        }
    }
    narrow(work);
}

#[inline(never)]
fn narrow<W: ByLane>(work: W) {
    work.run::<Narrow>();
}

/// Reads one lane.
///
/// # Safety
/// `from` must be valid for reads of a lane.
#[inline(always)]
unsafe fn load<L: Lane>(from: *const u8) -> L {
    // SAFETY: the caller's promise.
    unsafe { from.cast::<L>().read_unaligned() }
}

/// Writes one lane.
///
/// # Safety
/// `to` must be valid for writes of a lane.
#[inline(always)]
unsafe fn store<L: Lane>(to: *mut u8, lane: L) {
    // SAFETY: the caller's promise.
    unsafe { to.cast::<L>().write_unaligned(lane) };
}

// Short copies (most heads are) without a call: as many lanes from the front as from the back, which may overlap. All are read before
// one is written, so source and destination may overlap too. Written out, lane by lane: as arrays they went over the stack in
// some of our executables and not in others, in pieces that the CPU does not forward from a store to a load, at 60 cycles a frame.

/// Copies `len` bytes by two lanes.
///
/// # Safety
/// `from` must be valid for reads and `to` for writes of `len` bytes, which are between one and two lanes.
#[inline(always)]
unsafe fn by_two<L: Lane>(from: *const u8, to: *mut u8, len: usize) {
    let back = len - size_of::<L>();
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (load::<L>(from), load::<L>(from.add(back)));
        store(to, a);
        store(to.add(back), b);
    }
}

/// Copies `len` bytes by four lanes.
///
/// # Safety
/// `from` must be valid for reads and `to` for writes of `len` bytes, which are between two and four lanes.
#[inline(always)]
unsafe fn by_four<L: Lane>(from: *const u8, to: *mut u8, len: usize) {
    let (lane, back) = (size_of::<L>(), len - 2 * size_of::<L>());
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (load::<L>(from), load::<L>(from.add(lane)));
        let (c, d) = (load::<L>(from.add(back)), load::<L>(from.add(back + lane)));
        store(to, a);
        store(to.add(lane), b);
        store(to.add(back), c);
        store(to.add(back + lane), d);
    }
}

/// Copies `len` bytes by eight lanes.
///
/// # Safety
/// `from` must be valid for reads and `to` for writes of `len` bytes, which are between four and eight lanes.
#[inline(always)]
unsafe fn by_eight<L: Lane>(from: *const u8, to: *mut u8, len: usize) {
    let (lane, back) = (size_of::<L>(), len - 4 * size_of::<L>());
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (load::<L>(from), load::<L>(from.add(lane)));
        let (c, d) = (load::<L>(from.add(2 * lane)), load::<L>(from.add(3 * lane)));
        let (e, f) = (load::<L>(from.add(back)), load::<L>(from.add(back + lane)));
        let (g, h) = (load::<L>(from.add(back + 2 * lane)), load::<L>(from.add(back + 3 * lane)));
        store(to, a);
        store(to.add(lane), b);
        store(to.add(2 * lane), c);
        store(to.add(3 * lane), d);
        store(to.add(back), e);
        store(to.add(back + lane), f);
        store(to.add(back + 2 * lane), g);
        store(to.add(back + 3 * lane), h);
    }
}

/// Copies `len` bytes between places that may overlap.
///
/// # Safety
/// `from` must be valid for reads and `to` for writes of `len` bytes.
#[inline(always)]
unsafe fn short<L: Lane>(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's promise, and the lengths that each arm is for.
    unsafe {
        let lane = size_of::<L>();
        if (lane..=2 * lane).contains(&len) {
            by_two::<L>(from, to, len);
        } else if (2 * lane..=4 * lane).contains(&len) {
            by_four::<L>(from, to, len);
        } else if (4 * lane..=8 * lane).contains(&len) {
            by_eight::<L>(from, to, len);
        } else if (16..=32).contains(&len) {
            by_two::<Narrow>(from, to, len);
        } else {
            ptr::copy(from, to, len);
        }
    }
}

/// Copies `to.len()` bytes out of guest memory.
///
/// # Safety
/// `from` must be valid for reads of `to.len()` bytes (guest memory of a live epoch), and not overlap `to`.
#[inline(always)]
pub(super) unsafe fn from_guest<L: Lane>(from: *const u8, to: &mut [u8]) {
    // SAFETY: the caller's promise; `to` is ours alone.
    unsafe { short::<L>(from, to.as_mut_ptr(), to.len()) };
    settle();
}

/// A descriptor in guest memory, wherever it lies: address, length, and flags and next in one word.
///
/// # Safety
/// `from` must be valid for reads of 16 bytes (guest memory of a live epoch).
#[inline(always)]
pub(super) unsafe fn descriptor(from: *const u8) -> (u64, u32, u32) {
    // SAFETY: the caller's promise.
    let (mut addr, mut len, mut rest) = unsafe {
        (
            from.cast::<u64>().read_unaligned(),
            from.add(8).cast::<u32>().read_unaligned(),
            from.add(12).cast::<u32>().read_unaligned(),
        )
    };
    // SAFETY: no instruction. What comes out is no longer what was read, for all the compiler knows: it cannot be read again.
    unsafe {
        asm!("/* {0} {1:e} {2:e} */", inout(reg) addr, inout(reg) len, inout(reg) rest,
            options(pure, nomem, nostack, preserves_flags));
    }
    (u64::from_le(addr), u32::from_le(len), u32::from_le(rest))
}

/// Copies `from` into guest memory.
///
/// # Safety
/// `to` must be valid for writes of `from.len()` bytes (guest memory of a live epoch), and not overlap `from`.
#[inline(always)]
pub(super) unsafe fn to_guest<L: Lane>(from: &[u8], to: *mut u8) {
    // SAFETY: the caller's promise; `from` is ours.
    unsafe { short::<L>(from.as_ptr(), to, from.len()) };
}

/// Copies `len` bytes from one guest's memory into another's. Two guests may be given the same memory by one VMM, so
/// the ranges may overlap.
///
/// # Safety
/// `from` must be valid for reads and `to` for writes of `len` bytes (guest memory of live epochs).
#[inline(always)]
pub(super) unsafe fn guest_to_guest(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { short::<Narrow>(from, to, len) };
}

/// Makes `N` bytes of guest memory say `from`, writing only if they say something else: what nobody writes stays in both
/// caches.
///
/// # Safety
/// `to` must be valid for reads and writes of `N` bytes (guest memory of a live epoch).
#[inline(always)]
pub(super) unsafe fn to_guest_if_unlike<const N: usize>(from: &[u8; N], to: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        if to.cast::<[u8; N]>().read_unaligned() != *from {
            to.cast::<[u8; N]>().write_unaligned(*from);
        }
    }
}
