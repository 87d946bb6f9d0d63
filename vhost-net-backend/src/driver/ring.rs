//! The driver's side of one split ring (virtio 1.2 §2.7): descriptors handed out, made available, taken back.
//!
//! What the driver decides on is kept here, in private memory; of the shared ring it reads only what the device
//! writes (`used`, `avail_event`), once, and checks it.

use super::arena::Arena;
use super::error::DeviceFault;
use crate::layout::{
    AVAIL_NO_INTERRUPT, DESC_NEXT, DESC_SIZE, RingSize, USED_ELEM_SIZE, USED_NO_NOTIFY, need_event,
};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// Where a ring's three parts lie in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingPlaces {
    /// Entries.
    pub size: RingSize,
    /// Offset of the descriptor table.
    pub desc: usize,
    /// Offset of the avail ring.
    pub avail: usize,
    /// Offset of the used ring.
    pub used: usize,
}

impl RingPlaces {
    pub(super) fn desc_at(&self, index: u16) -> usize {
        self.desc + usize::from(index) * DESC_SIZE
    }

    pub(super) fn avail_flags(&self) -> usize {
        self.avail
    }

    pub(super) fn avail_idx(&self) -> usize {
        self.avail + 2
    }

    pub(super) fn avail_entry(&self, index: u16) -> usize {
        self.avail + 4 + usize::from(self.size.wrap(index)) * 2
    }

    pub(super) fn used_event(&self) -> usize {
        self.avail + 4 + usize::from(self.size.entries()) * 2
    }

    pub(super) fn used_flags(&self) -> usize {
        self.used
    }

    pub(super) fn used_idx(&self) -> usize {
        self.used + 2
    }

    pub(super) fn used_entry(&self, index: u16) -> usize {
        self.used + 4 + usize::from(self.size.wrap(index)) * USED_ELEM_SIZE
    }

    pub(super) fn avail_event(&self) -> usize {
        self.used + 4 + usize::from(self.size.entries()) * USED_ELEM_SIZE
    }
}

/// One descriptor (virtio 1.2 §2.7.5: struct virtq_desc).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// Guest-physical address of the buffer.
    pub addr: u64,
    /// Bytes of the buffer.
    pub len: u32,
    /// `DESC_…` bits.
    pub flags: u16,
    /// The next descriptor of the chain, with `DESC_NEXT`.
    pub next: u16,
}

impl Descriptor {
    /// As it stands in the table.
    pub fn to_bytes(self) -> [u8; DESC_SIZE] {
        let mut bytes = [0; DESC_SIZE];
        bytes[..8].copy_from_slice(&self.addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// A chain that the device is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) head: u16,
    /// Bytes that the device wrote; none: it used the buffers completely (virtio 1.2 §2.7.9: skipped in a batch).
    pub(super) written: Option<u32>,
}

/// The driver's side of one split ring.
#[derive(Debug)]
pub(super) struct Ring {
    memory: Arc<Arena>,
    places: RingPlaces,
    event_idx: bool,
    in_order: bool,
    /// Free descriptors, first freed first taken: so they go round the table in order when the device does
    /// (virtio 1.2 §2.7.8: what IN_ORDER demands of a driver).
    free: Box<[u16]>,
    free_head: u16,
    free_tail: u16,
    /// What the descriptor table says: an entry that is to stay as it is need not be written again, and the device
    /// keeps its line of it.
    table: Box<[Descriptor]>,
    /// The chain behind each descriptor, from the head on.
    next: Box<[u16]>,
    /// Descriptors in the chain that starts here, while the device has it; else 0.
    in_flight: Box<[u16]>,
    /// The head that was made available at each place, and the index at which each head was.
    head_at: Box<[u16]>,
    index_of: Box<[u16]>,
    /// The next avail index, and how far the device was told.
    avail: u16,
    published: u16,
    /// The next used index to take, and how far the device is known to be.
    used: u16,
    used_seen: u16,
    /// With IN_ORDER: the last chain of the batch being taken, as (used index, bytes written).
    batch: Option<(u16, u32)>,
}

impl Ring {
    /// An empty ring; the shared part must be zero.
    pub(super) fn new(memory: Arc<Arena>, places: RingPlaces, event_idx: bool, in_order: bool) -> Self {
        let entries = places.size.entries();
        let zeros = || vec![0u16; usize::from(entries)].into_boxed_slice();
        let ring = Self {
            memory,
            places,
            event_idx,
            in_order,
            free: (0..entries).collect(),
            free_head: 0,
            free_tail: entries,
            table: vec![Descriptor::default(); usize::from(entries)].into(),
            next: zeros(),
            in_flight: zeros(),
            head_at: zeros(),
            index_of: zeros(),
            avail: 0,
            published: 0,
            used: 0,
            used_seen: 0,
            batch: None,
        };
        ring.disarm();
        ring
    }

    pub(super) fn places(&self) -> &RingPlaces {
        &self.places
    }

    #[inline(always)]
    fn slot(&self, index: u16) -> usize {
        usize::from(self.places.size.wrap(index))
    }

    /// Descriptors that can be taken.
    #[inline(always)]
    pub(super) fn free(&self) -> u16 {
        self.free_tail.wrapping_sub(self.free_head)
    }

    /// Chains that the device has, or will have after `publish`.
    pub(super) fn chains_in_flight(&self) -> u16 {
        self.avail.wrapping_sub(self.used)
    }

    /// The descriptor that the next chain takes for its `place`th buffer. `place < free()`.
    #[inline(always)]
    pub(super) fn next_free(&self, place: u16) -> u16 {
        self.free[self.slot(self.free_head.wrapping_add(place))]
    }

    /// Makes a chain of `buffers` (their `next` is filled in here) and puts it into the avail ring, unpublished.
    /// None if there are too few free descriptors, or no buffer.
    #[inline]
    pub(super) fn add(&mut self, buffers: &[Descriptor]) -> Option<u16> {
        let count = u16::try_from(buffers.len()).ok().filter(|n| (1..=self.free()).contains(n))?;
        let head = self.next_free(0);
        let mut id = head;
        for (place, buffer) in (1..=count).zip(buffers) {
            let mut entry = *buffer;
            let next = if place < count { self.next_free(place) } else { 0 };
            if place < count {
                entry.flags |= DESC_NEXT;
                entry.next = next;
            }
            let said = &mut self.table[usize::from(id)];
            if *said != entry {
                *said = entry;
                self.memory.write(self.places.desc_at(id), &entry.to_bytes());
            }
            self.next[usize::from(id)] = next;
            id = next;
        }
        self.free_head = self.free_head.wrapping_add(count);
        self.offer(head, count);
        Some(head)
    }

    /// The same for a chain of the one buffer of `len` bytes at `addr`, which the device reads; `head` is `next_free(0)`.
    #[inline(always)]
    pub(super) fn add_one(&mut self, head: u16, addr: u64, len: u32) {
        let entry = Descriptor { addr, len, flags: 0, next: 0 };
        let said = &mut self.table[usize::from(head)];
        if *said != entry {
            *said = entry;
            self.memory.write(self.places.desc_at(head), &entry.to_bytes());
        }
        self.free_head = self.free_head.wrapping_add(1);
        self.offer(head, 1);
    }

    /// Makes the chain at `head`, `count` descriptors long and unchanged since it was used, available again.
    #[inline(always)]
    pub(super) fn offer(&mut self, head: u16, count: u16) {
        self.in_flight[usize::from(head)] = count;
        let place = self.slot(self.avail);
        self.index_of[usize::from(head)] = self.avail;
        // When chains come back in order, every place names the head that it named a round ago.
        if self.head_at[place] != head {
            self.head_at[place] = head;
            self.memory.store_u16(self.places.avail_entry(self.avail), head, Ordering::Relaxed);
        }
        self.avail = self.avail.wrapping_add(1);
    }

    /// Tells the device of everything added so far; true if it wants a kick for that (virtio 1.2 §2.7.13.4).
    #[inline]
    pub(super) fn publish(&mut self) -> bool {
        if self.avail == self.published {
            return false;
        }
        let old = std::mem::replace(&mut self.published, self.avail);
        self.memory.store_u16(self.places.avail_idx(), self.avail, Ordering::Release);
        // The index must be out before the device's wish is read, or both sides could go to sleep.
        fence(Ordering::SeqCst);
        if self.event_idx {
            need_event(self.memory.load_u16(self.places.avail_event(), Ordering::Relaxed), self.avail, old)
        } else {
            self.memory.load_u16(self.places.used_flags(), Ordering::Relaxed) & USED_NO_NOTIFY == 0
        }
    }

    /// The next chain that the device is done with. It is the caller's to `release` or `offer` again.
    #[inline(always)]
    pub(super) fn take_used(&mut self) -> Result<Option<Used>, DeviceFault> {
        if self.used == self.used_seen && !self.look_for_used()? {
            return Ok(None);
        }
        let used = match self.batch {
            Some(batch) => self.take_of_batch(batch),
            None => {
                let (id, written) = self.used_element(self.used);
                let head = self.head_in_flight(id)?;
                // In rounds: a ring that was turned over notes no new index.
                let ahead = self.places.size.wrap(self.index_of[usize::from(head)].wrapping_sub(self.used));
                if self.in_order && ahead > 0 {
                    if ahead >= self.used_seen.wrapping_sub(self.used) {
                        return Err(DeviceFault::OutOfOrder { head });
                    }
                    self.take_of_batch((self.used.wrapping_add(ahead), written))
                } else {
                    Used { head, written: Some(written) }
                }
            }
        };
        self.used = self.used.wrapping_add(1);
        Ok(Some(used))
    }

    /// The head of the next chain that the device is done with, whatever it wrote there. With IN_ORDER the index alone
    /// says which one that is (virtio 1.2 §2.7.9), so no used element is read.
    #[inline(always)]
    pub(super) fn take_done(&mut self) -> Result<Option<u16>, DeviceFault> {
        if !self.in_order {
            return Ok(self.take_used()?.map(|used| used.head));
        }
        if self.used == self.used_seen && !self.look_for_used()? {
            return Ok(None);
        }
        let head = self.head_at[self.slot(self.used)];
        self.used = self.used.wrapping_add(1);
        Ok(Some(head))
    }

    /// Makes all chains available again, as they are, that the device is done with; how many. Where they come back in order and none is
    /// free, every place names the head that it named a round ago: nothing is done for each, and only the index is written to shared
    /// memory, by [`Self::publish`].
    pub(super) fn turn_over(&mut self) -> Result<usize, DeviceFault> {
        if self.in_order && self.free() == 0 && self.batch.is_none() {
            self.look_for_used()?;
            let chains = self.used_seen.wrapping_sub(self.used);
            self.used = self.used_seen;
            self.avail = self.avail.wrapping_add(chains);
            return Ok(chains.into());
        }
        let mut chains = 0;
        while let Some(head) = self.take_done()? {
            let count = self.land(head);
            self.offer(head, count);
            chains += 1;
        }
        Ok(chains)
    }

    /// One chain of a batch of which only the last has a used element (virtio 1.2 §2.7.9).
    fn take_of_batch(&mut self, (last, written): (u16, u32)) -> Used {
        let head = self.head_at[self.slot(self.used)];
        self.batch = (self.used != last).then_some((last, written));
        Used { head, written: (self.used == last).then_some(written) }
    }

    /// Chains that the device is known to be done with and that were not taken: what [`Self::likely_used`] can tell.
    /// Looks at the ring only if there are none.
    #[inline]
    pub(super) fn used_ahead(&mut self) -> Result<u16, DeviceFault> {
        if self.used == self.used_seen {
            self.look_for_used()?;
        }
        Ok(self.used_seen.wrapping_sub(self.used))
    }

    /// Reads `used.idx`; true if it moved on.
    fn look_for_used(&mut self) -> Result<bool, DeviceFault> {
        let index = self.memory.load_u16(self.places.used_idx(), Ordering::Acquire);
        let (done, given) = (index.wrapping_sub(self.used), self.published.wrapping_sub(self.used));
        if done > given {
            return Err(DeviceFault::UsedIndex { index, expected: self.used, given });
        }
        self.used_seen = index;
        Ok(done > 0)
    }

    #[inline(always)]
    fn used_element(&self, index: u16) -> (u32, u32) {
        let mut bytes = [0; USED_ELEM_SIZE];
        self.memory.read(self.places.used_entry(index), &mut bytes);
        let [i0, i1, i2, i3, l0, l1, l2, l3] = bytes;
        (u32::from_le_bytes([i0, i1, i2, i3]), u32::from_le_bytes([l0, l1, l2, l3]))
    }

    #[inline(always)]
    fn head_in_flight(&self, id: u32) -> Result<u16, DeviceFault> {
        u16::try_from(id)
            .ok()
            .filter(|head| self.in_flight.get(usize::from(*head)).is_some_and(|count| *count > 0))
            .ok_or(DeviceFault::UnknownHead { id })
    }

    /// The head that will probably be used `ahead` chains from now, to fetch its buffer early; a guess, unchecked.
    #[inline(always)]
    pub(super) fn likely_used(&self, ahead: u16) -> Option<u16> {
        if ahead >= self.used_seen.wrapping_sub(self.used) {
            return None;
        }
        let (id, _) = self.used_element(self.used.wrapping_add(ahead));
        u16::try_from(id).ok().filter(|head| *head < self.places.size.entries())
    }

    /// Whether the device used more than was taken; no check yet of what it says.
    pub(super) fn has_used(&self) -> bool {
        self.used != self.used_seen
            || self.memory.load_u16(self.places.used_idx(), Ordering::Acquire) != self.used
    }

    /// Ends a used chain: it is not in flight any longer. Returns how many descriptors it had.
    #[inline(always)]
    pub(super) fn land(&mut self, head: u16) -> u16 {
        std::mem::take(&mut self.in_flight[usize::from(head)])
    }

    /// Ends a used chain and frees its descriptors.
    #[inline(always)]
    pub(super) fn release(&mut self, head: u16) {
        let mut id = head;
        for _ in 0..self.land(head) {
            let place = self.slot(self.free_tail);
            self.free[place] = id;
            self.free_tail = self.free_tail.wrapping_add(1);
            id = self.next[usize::from(id)];
        }
    }

    /// Asks for an interrupt once `after` more chains are used; true if they are already (so do not sleep).
    pub(super) fn arm(&self, after: u16) -> bool {
        if self.event_idx {
            let event = self.used.wrapping_add(after).wrapping_sub(1);
            self.memory.store_u16(self.places.used_event(), event, Ordering::Relaxed);
        } else {
            self.memory.store_u16(self.places.avail_flags(), 0, Ordering::Relaxed);
        }
        // The wish must be out before the index is read, or both sides could go to sleep.
        fence(Ordering::SeqCst);
        let index = self.memory.load_u16(self.places.used_idx(), Ordering::Acquire);
        index.wrapping_sub(self.used) >= after
    }

    /// Asks for no interrupts. With EVENT_IDX that is the event furthest away, so one may still come per 65535 chains.
    pub(super) fn disarm(&self) {
        if self.event_idx {
            let event = self.used.wrapping_sub(1);
            self.memory.store_u16(self.places.used_event(), event, Ordering::Relaxed);
        } else {
            self.memory.store_u16(self.places.avail_flags(), AVAIL_NO_INTERRUPT, Ordering::Relaxed);
        }
    }

    /// What the device should start from, if it has to start anew: nothing before this index is owed any longer.
    pub(super) fn resume_index(&self) -> u16 {
        self.memory.load_u16(self.places.used_idx(), Ordering::Acquire)
    }
}
