//! Buffers that are lent to a device: numbered pieces of memory, each from a cache line of its own on.
#![expect(unsafe_code, reason = "memory that a device writes to")]

use alloc::alloc::{Layout, alloc, handle_alloc_error};
use core::{arch::asm, ops::Range, ptr::NonNull};

const LINE: usize = 64;

/// So many buffers of one size. They are never given back: a device may hold them to the end.
pub(crate) struct Buffers {
    start: NonNull<u8>,
    count: u16,
    size: usize,
}

impl Buffers {
    /// `count` buffers of `size` bytes at least. Nothing is written to them, so memory that is never used costs nobody
    /// anything.
    pub(crate) fn new(count: u16, size: usize) -> Self {
        let size = size.checked_next_multiple_of(LINE).expect("a frame is not that long");
        let all = usize::from(count).checked_mul(size).expect("some hundred KiB");
        let layout = Layout::from_size_align(all, LINE).expect("some hundred KiB");
        assert!(layout.size() > 0, "buffers have a size");
        // SAFETY: the layout has a size.
        let start = NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        // From here on it is the device's as much as ours: what is in it, anybody may have written.
        start.expose_provenance();
        Self { start, count, size }
    }

    /// Bytes of each.
    #[inline(always)]
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    #[inline(always)]
    fn offset(&self, number: u16) -> usize {
        assert!(number < self.count, "buffers have numbers below their count");
        usize::from(number) * self.size
    }

    /// Where a buffer is.
    #[inline(always)]
    pub(crate) fn address(&self, number: u16) -> u64 {
        (self.start.addr().get() + self.offset(number)) as u64
    }

    /// These bytes of a buffer that no device has.
    #[inline(always)]
    pub(crate) fn bytes(&mut self, number: u16, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.size, "a range of the buffer");
        // SAFETY: within what was allocated, and borrowed like `self`. The device, to which the memory is exposed, may have
        // written to any byte of it.
        unsafe {
            let start = self.start.add(self.offset(number) + range.start);
            core::slice::from_raw_parts_mut(start.as_ptr(), range.len())
        }
    }

    /// Fetches the first line of a buffer, to be written: a store that has to wait for the other core's line holds up all
    /// stores behind it.
    #[inline(always)]
    pub(crate) fn prefetch(&self, number: u16) {
        let address = self.address(number);
        // SAFETY: a hint to the CPU; any address is allowed.
        unsafe { asm!("prefetchw [{0}]", in(reg) address, options(nostack, preserves_flags, nomem)) }
    }
}
