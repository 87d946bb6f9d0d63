//! The heap: all memory behind the image.
#![expect(unsafe_code, reason = "memory that belongs to nobody is given to the allocator")]

use core::ops::Range;
use linked_list_allocator::LockedHeap;

#[global_allocator]
static HEAP: LockedHeap = LockedHeap::empty();

/// Gives `free` to the allocator.
///
/// # Safety
///
/// It is mapped memory that nobody uses, and this is called once.
pub(crate) unsafe fn give(free: Range<usize>) {
    let start = core::ptr::with_exposed_provenance_mut(free.start);
    // SAFETY: the caller's promise.
    unsafe { HEAP.lock().init(start, free.len()) }
}
