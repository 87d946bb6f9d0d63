//! One epoch of a guest's memory: what was mapped by one memory table, for as long as anyone uses it.
#![expect(unsafe_code, reason = "guest addresses become pointers here")]

use super::{
    copy::{self, Lane},
    fault::PortFault,
    sigbus::{self, Guarded},
};
use checksum::Sum;
use std::{any::Any, fmt, marker::PhantomData, ptr::NonNull, sync::Arc};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// A guest's memory under one memory table. Immutable; a new table is a new epoch.
///
/// Its mappings live as long as the value: a worker that holds it can use addresses that it resolved, whatever the
/// frontend does meanwhile. If the guest's file shrinks, its pages turn to zeros and [`GuestMemory::vanished`] to true.
pub struct GuestMemory {
    /// Ascending by `start`.
    regions: Box<[Region]>,
    /// Owns the mappings.
    _keeper: Arc<dyn Any + Send + Sync>,
}

struct Region {
    /// Guest-physical.
    start: u64,
    len: u64,
    host: NonNull<u8>,
    guard: Guarded,
}

// SAFETY: the pointers are to shared mappings that `_keeper` owns; all access to them is by copies (see `copy`), which
// expect others to write at the same time.
unsafe impl Send for GuestMemory {}
// SAFETY: as above; the value itself is never written after it was made.
unsafe impl Sync for GuestMemory {}

/// A run of bytes in a guest's memory, contiguous for us.
///
/// Deliberately neither `Copy` nor `Clone`: it can only be borrowed from the ring that resolved it, and so cannot
/// outlive the memory epoch which that ring holds.
#[derive(Debug)]
pub struct Segment {
    host: NonNull<u8>,
    len: u32,
}

// SAFETY: a pointer into a shared mapping that its ring's memory epoch keeps; see `GuestMemory`.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    /// Bytes; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn host(&self) -> *mut u8 {
        self.host.as_ptr()
    }

    /// Copies `to.len()` bytes from `offset` on. The range must lie inside; else nothing is copied.
    #[inline(always)]
    pub(super) fn read<L: Lane>(&self, offset: u32, to: &mut [u8]) {
        if to.len() as u64 + u64::from(offset) <= u64::from(self.len) {
            // SAFETY: inside the segment, which was resolved in an epoch that the borrower's ring keeps alive.
            unsafe { copy::from_guest::<L>(self.host().add(offset as usize), to) };
        }
    }

    /// Copies `from` to `offset` on. The range must lie inside; else nothing is copied.
    #[inline(always)]
    pub(super) fn write<L: Lane>(&self, offset: u32, from: &[u8]) {
        if from.len() as u64 + u64::from(offset) <= u64::from(self.len) {
            // SAFETY: inside the segment, which was resolved in an epoch that the borrower's ring keeps alive.
            unsafe { copy::to_guest::<L>(from, self.host().add(offset as usize)) };
        }
    }

    /// Makes the first `N` bytes say `from`. They must lie inside; else nothing is written.
    #[inline(always)]
    pub(super) fn write_if_unlike<const N: usize>(&self, from: &[u8; N]) {
        if N as u64 <= u64::from(self.len) {
            // SAFETY: inside the segment, which was resolved in an epoch that the borrower's ring keeps alive.
            unsafe { copy::to_guest_if_unlike(from, self.host()) };
        }
    }

    /// Copies `len` bytes from `offset` on to `at` in `to`. Both ranges must lie inside; else nothing is copied.
    #[inline(always)]
    pub(super) fn copy_to(&self, offset: u32, to: &Segment, at: u32, len: u32) {
        if self.has(offset, len) && to.has(at, len) {
            // SAFETY: inside both segments; each was resolved in an epoch that its borrower's ring keeps alive.
            unsafe {
                copy::guest_to_guest(
                    self.host().add(offset as usize),
                    to.host().add(at as usize),
                    len as usize,
                );
            };
        }
    }

    /// The same; returns the sum of what was written.
    #[inline(always)]
    pub(super) fn copy_summed_to<L: Lane>(&self, offset: u32, to: &Segment, at: u32, len: u32) -> Sum {
        if !(self.has(offset, len) && to.has(at, len)) {
            return Sum::ZERO;
        }
        // SAFETY: inside both segments; each was resolved in an epoch that its borrower's ring keeps alive.
        unsafe {
            copy::guest_to_guest_summed::<L>(
                self.host().add(offset as usize),
                to.host().add(at as usize),
                len as usize,
            )
        }
    }

    /// Whether `len` bytes from `offset` on lie inside.
    #[inline(always)]
    fn has(&self, offset: u32, len: u32) -> bool {
        u64::from(offset) + u64::from(len) <= u64::from(self.len)
    }
}

/// No buffer of a frame is longer: 64 KiB, and headers.
const FRAME_BYTES: u32 = 0x1_0100;

/// One region, at hand while a batch of buffers is resolved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'m> {
    start: u64,
    /// Offsets below have [`FRAME_BYTES`] behind them.
    roomy: u64,
    host: NonNull<u8>,
    _memory: PhantomData<&'m GuestMemory>,
}

impl Window<'_> {
    /// A buffer of at least `least` bytes, which are not 0, that lies within the region. None of one that does not, or that is longer
    /// than any frame's or close to the region's end: then [`GuestMemory::resolve`] knows.
    #[inline(always)]
    pub(super) fn resolve(self, addr: u64, len: u32, least: u32) -> Option<Segment> {
        let offset = addr.wrapping_sub(self.start);
        if len < least || len > FRAME_BYTES || offset >= self.roomy {
            return None;
        }
        // SAFETY: `offset .. offset + len` is inside the region's mapping: there is room for as many as `FRAME_BYTES`.
        Some(Segment { host: unsafe { self.host.add(offset as usize) }, len })
    }
}

impl GuestMemory {
    /// The epoch of these mappings. Fails if the process has no room to guard them against SIGBUS.
    pub fn new(map: Arc<GuestMemoryMmap<()>>) -> Result<Arc<Self>, PortFault> {
        // SAFETY: a map owns its mappings; those of others are not to be had without `unsafe`.
        unsafe { Self::kept_by(&map.clone(), map) }
    }

    /// The same, of mappings that belong to `keeper`.
    ///
    /// # Safety
    /// What `map` points to must stay mapped as long as `keeper` lives.
    pub(crate) unsafe fn kept_by(
        map: &GuestMemoryMmap<()>,
        keeper: Arc<dyn Any + Send + Sync>,
    ) -> Result<Arc<Self>, PortFault> {
        let unmapped = || PortFault::Memory("a region is not mapped".into());
        let mut regions = Vec::with_capacity(map.num_regions());
        for region in map.iter() {
            let host = NonNull::new(region.as_ptr()).ok_or_else(unmapped)?;
            let len = region.len();
            let guard = sigbus::guard(host.as_ptr(), region.size())
                .map_err(|why| PortFault::Memory(why.to_string()))?;
            regions.push(Region { start: region.start_addr().raw_value(), len, host, guard });
        }
        Ok(Arc::new(Self { regions: regions.into(), _keeper: keeper }))
    }

    /// Whether pages of it vanished (the file was truncated or punched) and were replaced by zeros.
    pub fn vanished(&self) -> bool {
        self.regions.iter().any(|region| region.guard.vanished())
    }

    fn region_of(&self, addr: u64) -> Option<usize> {
        let after = self.regions.partition_point(|region| region.start <= addr);
        let place = after.checked_sub(1)?;
        (addr - self.regions[place].start < self.regions[place].len).then_some(place)
    }

    /// The host address of `len` bytes at guest-physical `addr`, if they lie in one region and are aligned to `align`.
    pub(super) fn contiguous(&self, addr: u64, len: usize, align: usize) -> Option<*mut u8> {
        let region = &self.regions[self.region_of(addr)?];
        let offset = addr - region.start;
        let fits = (len as u64) <= region.len - offset;
        // SAFETY: `offset` is inside the region's mapping.
        let host = unsafe { region.host.add(offset as usize) };
        (fits && host.addr().get().is_multiple_of(align)).then_some(host.as_ptr())
    }

    /// The region in place `hint`, to resolve buffers in; an empty one if there is none.
    #[inline(always)]
    pub(super) fn window(&self, hint: usize) -> Window<'_> {
        match self.regions.get(hint) {
            Some(Region { start, len, host, .. }) => {
                let roomy = len.saturating_sub(FRAME_BYTES.into());
                Window { start: *start, roomy, host: *host, _memory: PhantomData }
            }
            None => Window { start: 0, roomy: 0, host: NonNull::dangling(), _memory: PhantomData },
        }
    }

    /// Resolves a buffer and hands each contiguous piece to `piece`. False if any byte lies outside of guest memory;
    /// then some pieces may have been handed over, and are not to be used. `hint` becomes the last region that was looked at.
    pub(super) fn resolve(
        &self,
        mut addr: u64,
        len: u32,
        hint: &mut usize,
        mut piece: impl FnMut(Segment),
    ) -> bool {
        let mut left = u64::from(len);
        while left > 0 {
            let Some(place) = self.region_of(addr) else { return false };
            *hint = place;
            let region = &self.regions[place];
            let offset = addr - region.start;
            let here = left.min(region.len - offset);
            // SAFETY: `offset .. offset + here` is inside the region's mapping; `here` is at most a u32's `left`.
            piece(Segment { host: unsafe { region.host.add(offset as usize) }, len: here as u32 });
            left -= here;
            match addr.checked_add(here) {
                Some(next) => addr = next,
                None => return left == 0,
            }
        }
        true
    }
}

impl fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.regions.iter().map(|r| format!("{:#x}+{:#x}", r.start, r.len))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestAddress;

    fn memory(ranges: &[(u64, usize)]) -> Arc<GuestMemory> {
        let ranges: Vec<_> = ranges.iter().map(|(addr, len)| (GuestAddress(*addr), *len)).collect();
        GuestMemory::new(Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap())).unwrap()
    }

    fn pieces(memory: &GuestMemory, addr: u64, len: u32) -> Option<Vec<u32>> {
        let mut found = Vec::new();
        memory.resolve(addr, len, &mut 0, |segment| found.push(segment.len())).then_some(found)
    }

    #[test]
    fn a_buffer_may_cross_regions_that_touch_and_must_not_leave_memory() {
        let memory = memory(&[(0x0, 0x2000), (0x2000, 0x1000), (0x8000, 0x1000)]);
        assert_eq!(pieces(&memory, 0x10, 0x20), Some(vec![0x20]));
        assert_eq!(pieces(&memory, 0x1fff, 0x800), Some(vec![1, 0x7ff]));
        assert_eq!(pieces(&memory, 0x2fff, 1), Some(vec![1]));
        for (addr, len) in
            [(0x2fff, 2), (0x3000, 1), (0x7fff, 2), (0x8fff, 2), (u64::MAX, 1), (u64::MAX - 3, 8)]
        {
            assert_eq!(pieces(&memory, addr, len), None, "{addr:#x}+{len}");
        }
        assert_eq!(pieces(&memory, 0x10, 0), Some(vec![]));
    }

    #[test]
    fn a_ring_lies_in_one_region_and_is_aligned() {
        let memory = memory(&[(0x0, 0x2000), (0x2000, 0x1000)]);
        assert!(memory.contiguous(0x1000, 0x1000, 16).is_some());
        assert!(memory.contiguous(0x1000, 0x1001, 16).is_none(), "crosses into the next region");
        assert!(memory.contiguous(0x1008, 16, 16).is_none(), "not aligned");
        assert!(memory.contiguous(0x3000, 2, 2).is_none(), "outside");
    }
}
