//! A mapping between two pages that nobody may touch: a device that leaves its guest's memory is killed on the spot, instead of
//! reading or writing whatever happens to be mapped beside it.
#![expect(unsafe_code, reason = "maps a file over addresses that were reserved for it")]

use super::plan::PAGE;
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

/// A shared mapping of a file, and a page without rights before and behind it.
#[derive(Debug)]
pub(super) struct Fenced {
    reserved: NonNull<u8>,
    len: usize,
}

// SAFETY: the addresses belong to this value alone; it only keeps them mapped, and never looks at what is there.
unsafe impl Send for Fenced {}
// SAFETY: as above.
unsafe impl Sync for Fenced {}

impl Fenced {
    /// Maps `len` bytes, whole pages, of `file` from `offset` on. Errors are the kernel's; huge pages are one (EINVAL).
    pub(super) fn map(file: BorrowedFd<'_>, offset: usize, len: usize) -> io::Result<Self> {
        let all = len + 2 * PAGE;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing of ours is replaced.
        let reserved = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), all, ProtFlags::empty(), MapFlags::PRIVATE)?
        };
        let reserved = NonNull::new(reserved.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let fenced = Self { reserved, len };
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: replaces part of what was reserved above, which nobody knows of yet.
        unsafe {
            let at = fenced.start().cast();
            rustix::mm::mmap(at, len, rights, MapFlags::SHARED | MapFlags::FIXED, file, offset as u64)?;
        }
        Ok(fenced)
    }

    /// The first byte of the mapping.
    pub(super) fn start(&self) -> *mut u8 {
        // SAFETY: one page into what was reserved, which is longer.
        unsafe { self.reserved.as_ptr().add(PAGE) }
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` reserved; whoever uses the mapping keeps this value. It cannot fail for such a range.
        let unmapped = unsafe { rustix::mm::munmap(self.reserved.as_ptr().cast(), self.len + 2 * PAGE) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}
