//! The only places where bytes cross between our memory and a guest's.
//!
//! A guest may write the bytes while we copy them. What we then hold is arbitrary but fixed: each copy ends in an
//! empty `asm!` that may have changed all of memory as far as the compiler knows, so it can neither read a guest's
//! bytes twice nor join two copies into one that skips our private bytes (DESIGN §2, law 1).
#![expect(unsafe_code, reason = "copies through raw pointers into guest memory")]

use std::{arch::asm, ptr};

/// Tells the compiler that any memory may have changed.
#[inline(always)]
fn settle() {
    // SAFETY: no instruction; the default clobber of memory is the point.
    unsafe { asm!("", options(nostack, preserves_flags)) }
}

/// Copies `to.len()` bytes out of guest memory.
///
/// # Safety
/// `from` must be valid for reads of `to.len()` bytes (guest memory of a live epoch), and not overlap `to`.
#[inline(always)]
pub(super) unsafe fn from_guest(from: *const u8, to: &mut [u8]) {
    // SAFETY: the caller's promise; `to` is ours alone.
    unsafe { ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
    settle();
}

/// Copies `from` into guest memory.
///
/// # Safety
/// `to` must be valid for writes of `from.len()` bytes (guest memory of a live epoch), and not overlap `from`.
#[inline(always)]
pub(super) unsafe fn to_guest(from: &[u8], to: *mut u8) {
    // SAFETY: the caller's promise; `from` is ours.
    unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
    settle();
}

/// Copies `len` bytes from one guest's memory into another's. Two guests may be given the same memory by one VMM, so
/// the ranges may overlap.
///
/// # Safety
/// `from` must be valid for reads and `to` for writes of `len` bytes (guest memory of live epochs).
#[inline(always)]
pub(super) unsafe fn guest_to_guest(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { ptr::copy(from, to, len) };
    settle();
}
