//! A split ring's three parts in guest memory, by address: every field is read and written here and nowhere else.
#![expect(unsafe_code, reason = "ring fields are read and written through pointers into guest memory")]

use super::RingParts;
use crate::{
    device::{copy, fault::PortFault, memory::GuestMemory},
    layout::{self, DESC_SIZE, RingSize, USED_ELEM_SIZE},
    prefetch,
};
use std::{
    marker::PhantomData,
    slice,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU32, Ordering, fence},
    },
};

/// A descriptor, copied out of guest memory once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) addr: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    pub(super) next: u16,
}

/// A table of descriptors, resolved: the ring's own, or an indirect one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    base: *const u8,
    entries: u16,
}

impl Table {
    pub(super) fn entries(self) -> u16 {
        self.entries
    }

    /// The descriptor in place `index`; None outside of the table.
    #[inline(always)]
    pub(super) fn get(self, index: u16) -> Option<Descriptor> {
        // SAFETY: inside the table.
        (index < self.entries).then(|| unsafe { self.read(index) })
    }

    /// The one look that we take at a descriptor.
    ///
    /// # Safety
    /// `index` must be inside the table, which was resolved in the ring's memory epoch.
    #[inline(always)]
    unsafe fn read(self, index: u16) -> Descriptor {
        // SAFETY: the caller's promise.
        let (addr, len, rest) = unsafe { copy::descriptor(self.base.add(usize::from(index) * DESC_SIZE)) };
        Descriptor { addr, len, flags: rest as u16, next: (rest >> 16) as u16 }
    }
}

/// A ring's own table, which has a power of two of places (virtio 1.2 §2.7).
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptors<'r> {
    table: Table,
    mask: u16,
    _ring: PhantomData<&'r RawRing>,
}

impl Descriptors<'_> {
    /// The descriptor at `head`, of which only as many bits are looked at as there are places.
    #[inline(always)]
    pub(super) fn at(self, head: u16) -> Descriptor {
        // SAFETY: the masked head is inside the table, which the ring keeps.
        unsafe { self.table.read(head & self.mask) }
    }
}

/// An entry of the avail ring: the head of a chain.
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct AvailEntry(AtomicU16);

impl AvailEntry {
    #[inline(always)]
    pub(super) fn head(&self) -> u16 {
        u16::from_le(self.0.load(Ordering::Relaxed))
    }
}

/// An element of the used ring (virtio 1.2 §2.7.8).
#[derive(Debug)]
#[repr(C)]
pub(super) struct UsedElement {
    id: AtomicU32,
    len: AtomicU32,
}

impl UsedElement {
    /// The driver does not look before `used.idx` is stored.
    #[inline(always)]
    pub(super) fn write(&self, head: u16, len: u32) {
        self.id.store(u32::from(head).to_le(), Ordering::Relaxed);
        self.len.store(len.to_le(), Ordering::Relaxed);
    }
}

/// The place of the free-running `index` in a ring of a power of two places (virtio 1.2 §2.7).
#[inline(always)]
pub(super) fn place<T>(ring: &[T], index: u16) -> &T {
    &ring[usize::from(index) & (ring.len() - 1)]
}

/// At most `most` places that follow each other, from that of the free-running `index` to the ring's end.
#[inline(always)]
pub(super) fn stretch<T>(ring: &[T], index: u16, most: u16) -> &[T] {
    let behind = &ring[usize::from(index) & (ring.len() - 1)..];
    &behind[..behind.len().min(usize::from(most))]
}

/// The resolved ring. Holds the memory epoch, so its pointers stay valid.
#[derive(Debug)]
pub(super) struct RawRing {
    table: Table,
    avail: *const u8,
    used: *mut u8,
    size: RingSize,
    memory: Arc<GuestMemory>,
}

// SAFETY: the pointers are into mappings that `memory` keeps, and every access expects the guest to race with it.
unsafe impl Send for RawRing {}
// SAFETY: as above; who may write which used slot when is settled by `ToGuest` and `FromGuest`.
unsafe impl Sync for RawRing {}

impl RawRing {
    /// Resolves the addresses of `parts`; each part must be aligned (virtio 1.2 §2.7) and lie in one region.
    pub(super) fn resolve(parts: &RingParts, memory: Arc<GuestMemory>) -> Result<Self, PortFault> {
        let fault = |what| PortFault::Ring { ring: parts.index, what };
        let size = parts.size;
        let table = memory
            .contiguous(parts.desc, size.desc_bytes(), 16)
            .ok_or(fault("the descriptor table is unaligned or leaves guest memory"))?;
        let avail = memory
            .contiguous(parts.avail, size.avail_bytes(), 2)
            .ok_or(fault("the avail ring is unaligned or leaves guest memory"))?;
        let used = memory
            .contiguous(parts.used, size.used_bytes(), 4)
            .ok_or(fault("the used ring is unaligned or leaves guest memory"))?;
        Ok(Self { table: Table { base: table, entries: size.entries() }, avail, used, size, memory })
    }

    pub(super) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// What is behind `fault`: zeros in the place of memory that vanished look like a driver's mistake.
    #[cold]
    pub(super) fn cause(&self, fault: PortFault) -> PortFault {
        if self.memory.vanished() { PortFault::MemoryVanished } else { fault }
    }

    pub(super) fn table(&self) -> Table {
        self.table
    }

    /// An indirect table of `len` bytes at `addr` (virtio 1.2 §2.7.5.3); None if it is no table or not in one region.
    pub(super) fn indirect(&self, addr: u64, len: u32) -> Option<Table> {
        let bytes = len as usize;
        let entries =
            u16::try_from(bytes / DESC_SIZE).ok().filter(|n| *n > 0 && bytes.is_multiple_of(DESC_SIZE))?;
        // The specification asks for no alignment here.
        let base = self.memory.contiguous(addr, bytes, 1)?;
        Some(Table { base, entries })
    }

    fn u16_at(&self, base: *const u8, offset: usize) -> &AtomicU16 {
        // SAFETY: callers give offsets of 16-bit fields inside the part, which is aligned to 2 and outlives `self`.
        unsafe { AtomicU16::from_ptr(base.add(offset).cast_mut().cast()) }
    }

    /// `avail.idx`, before everything that the driver wrote behind it (acquire).
    #[inline(always)]
    pub(super) fn avail_index(&self) -> u16 {
        u16::from_le(self.u16_at(self.avail, 2).load(Ordering::Acquire))
    }

    /// The entries of the avail ring.
    #[inline(always)]
    pub(super) fn avail(&self) -> &[AvailEntry] {
        // SAFETY: the entries lie behind flags and idx inside the avail ring, which is aligned to 2 and outlives `self`. Others
        // write to them while we look, hence atomics.
        unsafe { slice::from_raw_parts(self.avail.add(4).cast(), usize::from(self.size.entries())) }
    }

    /// The elements of the used ring.
    #[inline(always)]
    pub(super) fn used(&self) -> &[UsedElement] {
        // SAFETY: as for `avail`; the used ring is aligned to 4. Where a guest lays one ring over another, atomics of two sizes
        // meet, and it hurts itself.
        unsafe { slice::from_raw_parts(self.used.add(4).cast(), usize::from(self.size.entries())) }
    }

    /// The ring's own table, at hand while a batch is taken.
    #[inline(always)]
    pub(super) fn descriptors(&self) -> Descriptors<'_> {
        Descriptors { table: self.table, mask: self.table.entries - 1, _ring: PhantomData }
    }

    /// Asks the CPU for the descriptors at these heads. Four of them share a line, and a driver mostly hands them out in turn.
    #[inline(always)]
    pub(super) fn prefetch(&self, entries: &[AvailEntry]) {
        let at = |head: u16| self.table.base.wrapping_add(usize::from(head) * DESC_SIZE);
        // Not `step_by`, which takes twice as many instructions: this is done for every batch on both sides.
        let mut next = 0;
        while let Some(entry) = entries.get(next) {
            prefetch::to_read(at(entry.head()));
            next += 4;
        }
    }

    /// Asks the CPU for the line of `avail.idx`.
    #[inline(always)]
    pub(super) fn prefetch_avail_index(&self) {
        prefetch::to_read(self.avail);
    }

    /// Stores `used.idx`, behind everything that was written before (release).
    #[inline(always)]
    pub(super) fn store_used_index(&self, index: u16) {
        self.u16_at(self.used, 2).store(index.to_le(), Ordering::Release);
    }

    /// Whether the driver wants a call now that `used.idx` went from `old` to `new` (virtio 1.2 §2.7.7.2), which must be
    /// [visible](super::make_visible) before its wish is read, or both sides may miss each other.
    pub(super) fn driver_wants_call(&self, event_idx: bool, old: u16, new: u16) -> bool {
        if event_idx {
            let offset = 4 + usize::from(self.size.entries()) * 2;
            let event = u16::from_le(self.u16_at(self.avail, offset).load(Ordering::Relaxed));
            layout::need_event(event, new, old)
        } else {
            !self.driver_polls(false)
        }
    }

    /// Whether the driver asks for no calls at all: it looks by itself. With EVENT_IDX it always names one that it wants.
    #[inline(always)]
    pub(super) fn driver_polls(&self, event_idx: bool) -> bool {
        !event_idx
            && u16::from_le(self.u16_at(self.avail, 0).load(Ordering::Relaxed)) & layout::AVAIL_NO_INTERRUPT
                != 0
    }

    /// Asks the driver for no kicks. With EVENT_IDX there is nothing to write: an `avail_event` that was passed long
    /// ago asks for none.
    pub(super) fn suppress_kicks(&self, event_idx: bool) {
        if !event_idx {
            self.u16_at(self.used, 0).store(layout::USED_NO_NOTIFY.to_le(), Ordering::Relaxed);
        }
    }

    /// Asks the driver for a kick when it makes the buffer at `next_avail` available. The caller must look at
    /// `avail.idx` once more afterwards.
    pub(super) fn request_kick(&self, event_idx: bool, next_avail: u16) {
        if event_idx {
            let offset = 4 + usize::from(self.size.entries()) * USED_ELEM_SIZE;
            self.u16_at(self.used, offset).store(next_avail.to_le(), Ordering::Relaxed);
        } else {
            self.u16_at(self.used, 0).store(0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }
}
