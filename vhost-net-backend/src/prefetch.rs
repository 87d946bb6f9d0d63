//! Hints to the CPU that a cache line will be wanted. They never fault, whatever the address.
#![expect(unsafe_code, reason = "prefetch instructions")]

/// Asks for a line that will be read.
#[inline(always)]
pub(crate) fn to_read(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, and SSE is part of every x86-64; any address is allowed.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks for a line that will be written, and for the one behind it: the other core's copies of them go.
///
/// By its instruction: for baseline x86-64 the intrinsic becomes a prefetch for reading, and the store waits all the same. CPUs that
/// lack it take it for a no-op.
#[inline(always)]
pub(crate) fn to_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    #[expect(clippy::pointers_in_nomem_asm_block, reason = "a hint reads and writes nothing")]
    // SAFETY: a hint; any address is allowed.
    unsafe {
        std::arch::asm!("prefetchw [{0}]", "prefetchw [{0} + 64]", in(reg) at, options(nostack, preserves_flags, nomem));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
