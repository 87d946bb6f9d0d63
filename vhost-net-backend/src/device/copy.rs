//! The only places where bytes cross between our memory and a guest's.
//!
//! A guest may write the bytes while we copy them. What we then hold is arbitrary but fixed: each copy out of guest memory
//! passes an empty `asm!` that may have changed it as far as the compiler knows, so it can neither read a guest's
//! bytes twice nor join two copies into one that skips our private bytes (DESIGN §2, law 1).
#![expect(unsafe_code, reason = "copies through raw pointers into guest memory")]

use checksum::Sum;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as x86;
use std::{arch::asm, ptr};

/// Tells the compiler that any memory may have changed.
#[inline(always)]
fn settle() {
    // SAFETY: no instruction; the default clobber of memory is the point.
    unsafe { asm!("", options(nostack, preserves_flags)) }
}

/// What one instruction moves: 16 bytes anywhere, 32 in a function that was compiled for AVX2.
pub(super) trait Lane: Copy {
    /// The same bytes, which as far as the compiler knows are no longer those that were read.
    fn settled(self) -> Self;

    /// No bit set.
    fn zero() -> Self;

    /// Adds the 32-bit words of the lane, every other one to either of two lanes of 64-bit sums.
    fn add_to(self, sums: [Self; 2]) -> [Self; 2];
}

/// 16 bytes.
#[cfg(target_arch = "x86_64")]
pub(super) type Narrow = x86::__m128i;
#[cfg(not(target_arch = "x86_64"))]
pub(super) type Narrow = [u64; 2];

#[cfg(target_arch = "x86_64")]
impl Lane for Narrow {
    #[inline(always)]
    fn settled(mut self) -> Self {
        // SAFETY: no instruction.
        unsafe { asm!("/* {0} */", inout(xmm_reg) self, options(nomem, nostack, preserves_flags)) };
        self
    }

    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: every x86-64 has SSE2.
        unsafe { x86::_mm_setzero_si128() }
    }

    #[inline(always)]
    fn add_to(self, [low, high]: [Self; 2]) -> [Self; 2] {
        // SAFETY: every x86-64 has SSE2.
        unsafe {
            let lower = x86::_mm_and_si128(self, x86::_mm_set1_epi64x(0xffff_ffff));
            [x86::_mm_add_epi64(low, lower), x86::_mm_add_epi64(high, x86::_mm_srli_epi64::<32>(self))]
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Lane for Narrow {
    #[inline(always)]
    fn settled(self) -> Self {
        self.map(settled_word)
    }

    #[inline(always)]
    fn zero() -> Self {
        [0; 2]
    }

    #[inline(always)]
    fn add_to(self, [low, high]: [Self; 2]) -> [Self; 2] {
        let [a, b] = self;
        [[low[0] + (a & 0xffff_ffff), low[1] + (b & 0xffff_ffff)], [high[0] + (a >> 32), high[1] + (b >> 32)]]
    }
}

/// 32 bytes. Private: only [`by_widest_lane`] names it, where the CPU has AVX2.
#[cfg(target_arch = "x86_64")]
type Wide = x86::__m256i;

#[cfg(target_arch = "x86_64")]
impl Lane for Wide {
    #[inline(always)]
    fn settled(self) -> Self {
        #[target_feature(enable = "avx2")]
        #[inline]
        fn settled(mut lane: Wide) -> Wide {
            // SAFETY: no instruction.
            unsafe { asm!("/* {0} */", inout(ymm_reg) lane, options(nomem, nostack, preserves_flags)) };
            lane
        }
        // SAFETY: the CPU has AVX2; see `Wide`.
        unsafe { settled(self) }
    }

    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: the CPU has AVX2; see `Wide`.
        unsafe { x86::_mm256_setzero_si256() }
    }

    #[inline(always)]
    fn add_to(self, [low, high]: [Self; 2]) -> [Self; 2] {
        // SAFETY: the CPU has AVX2; see `Wide`.
        unsafe {
            let lower = x86::_mm256_and_si256(self, x86::_mm256_set1_epi64x(0xffff_ffff));
            [
                x86::_mm256_add_epi64(low, lower),
                x86::_mm256_add_epi64(high, x86::_mm256_srli_epi64::<32>(self)),
            ]
        }
    }
}

/// The same of eight bytes.
#[inline(always)]
fn settled_word(mut word: u64) -> u64 {
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", inout(reg) word, options(nomem, nostack, preserves_flags)) };
    word
}

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

/// Copies one lane, and adds what was copied to the sums.
///
/// # Safety
/// `from` must be valid for reads and `to` for writes of a lane.
#[inline(always)]
unsafe fn summed<L: Lane>(from: *const u8, to: *mut u8, sums: [L; 2]) -> [L; 2] {
    // SAFETY: the caller's promise.
    let lane = unsafe { load::<L>(from) }.settled();
    // SAFETY: the caller's promise.
    unsafe { store(to, lane) };
    lane.add_to(sums)
}

/// As [`guest_to_guest`]; returns the sum of what was written. Each byte is read once, so that is what was read, whatever the guests write
/// meanwhile. Where the ranges overlap, what is read may be what was just written.
///
/// # Safety
/// `from` must be valid for reads and `to` for writes of `len` bytes (guest memory of live epochs).
#[inline(always)]
pub(super) unsafe fn guest_to_guest_summed<L: Lane>(from: *const u8, to: *mut u8, len: usize) -> Sum {
    let (mut at, lane) = (0, size_of::<L>());
    let [mut some, mut others] = [[L::zero(); 2]; 2];
    // SAFETY: the caller's promise; all that is read and written lies before `len`.
    unsafe {
        while len - at >= 4 * lane {
            let (from, to) = (from.add(at), to.add(at));
            some = summed(from, to, some);
            others = summed(from.add(lane), to.add(lane), others);
            some = summed(from.add(2 * lane), to.add(2 * lane), some);
            others = summed(from.add(3 * lane), to.add(3 * lane), others);
            at += 4 * lane;
        }
        while len - at >= lane {
            some = summed(from.add(at), to.add(at), some);
            at += lane;
        }
    }
    // No frame has so many words of four bytes that 64 bits overflow.
    let mut words = [[0u64; 4]; 4];
    for (words, lane) in words.iter_mut().zip([some, others].as_flattened()) {
        // SAFETY: no lane is longer.
        unsafe { store(words.as_mut_ptr().cast(), *lane) };
    }
    let mut sum = Sum::ZERO.add_words(words.as_flattened().iter().sum());
    // SAFETY: as above.
    unsafe {
        while len - at >= 8 {
            let word = settled_word(from.add(at).cast::<u64>().read_unaligned());
            to.add(at).cast::<u64>().write_unaligned(word);
            sum = sum.add_words(word);
            at += 8;
        }
        if at < len {
            let mut rest = [0; 8];
            let rest = &mut rest[..len - at];
            from_guest::<Narrow>(from.add(at), rest);
            to_guest::<Narrow>(rest, to.add(at));
            sum = sum.add_bytes(rest);
        }
    }
    sum
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
