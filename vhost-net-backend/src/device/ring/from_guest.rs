//! A transmitq: frames come from the guest, batch by batch, and their chains are completed in order.

use super::{
    Common, RingParts,
    chain::{self, Direction},
    raw::{self, RawRing},
};
use crate::{
    device::{fault::PortFault, memory::Segment},
    features, net_header,
};
use std::os::fd::BorrowedFd;

/// The most chains that one harvest takes.
pub const MAX_BATCH: usize = 64;

/// How much of a frame is copied out of guest memory to be judged: through 20 bytes of TCP behind two VLAN tags and an
/// IPv6 header with extension headers (DESIGN §2, law 1).
pub const HEAD_BYTES: usize = 192;

/// The longest frame that virtio-net carries: 65,535 bytes of IP behind an Ethernet header (virtio 1.2 §5.1.6.3.1).
pub const MAX_FRAME: u32 = 65_550;

/// Descriptors (or pieces of their buffers) that one harvest reads before it stops early, so that long chains cannot stretch a turn.
const DESCRIPTOR_BUDGET: u32 = 2048;

/// What makes a chain no frame although virtio allows the chain. It is completed like any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Longer than [`MAX_FRAME`].
    Oversize,
    /// It has a buffer that the device is to write.
    BadDirection,
    /// The net header asks for a checksum or for segmentation, which were not negotiated (virtio 1.2 §5.1.6.2).
    BadNetHeader,
}

/// Where the bytes behind a frame's head are.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// In the sending guest's buffers, for this turn.
    Guest {
        /// Its buffers, in order.
        segments: &'a [Segment],
        /// Bytes of the first segment that belong to the head.
        skip: u32,
    },
    /// In a buffer of ours.
    Ours(&'a [u8]),
}

/// A frame of the current batch.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Its first bytes, at most [`HEAD_BYTES`]: private, fixed, what is judged and what is sent.
    pub head: &'a [u8],
    /// Its length, from the destination address on.
    pub len: u32,
    /// What follows the head.
    pub payload: Payload<'a>,
    /// Why it is no frame.
    pub defect: Option<Defect>,
}

/// Net header and head of one frame, as they stood in the guest's buffers.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Slot([u8; net_header::LEN + HEAD_BYTES]);

#[derive(Debug, Clone, Copy, Default)]
struct Chain {
    head: u16,
    /// Bytes of all its buffers.
    bytes: u32,
    /// Its segments' places in `Batch::segments`.
    segments: (u32, u32),
    /// The segment, and the byte in it, where the payload begins.
    payload: (u32, u32),
    defect: Option<Defect>,
}

/// A running transmitq.
#[derive(Debug)]
pub struct FromGuest {
    ring: RawRing,
    common: Common,
    next_avail: u16,
    next_used: u16,
    /// `next_used` when the driver was last told.
    told: u16,
    region_hint: usize,
    batch: Vec<Chain>,
    segments: Vec<Segment>,
    slots: Box<[Slot; MAX_BATCH]>,
    /// For each head, the harvest that last saw it: finds a head that is given twice.
    seen: Box<[u32]>,
    harvest: u32,
}

impl FromGuest {
    pub(super) fn new(ring: RawRing, parts: RingParts) -> Self {
        let (next_avail, next_used) = (parts.next_avail, parts.next_used);
        let common = Common::new(parts);
        ring.suppress_kicks(common.has(features::EVENT_IDX));
        Self {
            seen: vec![0; usize::from(common.size.entries())].into(),
            ring,
            common,
            next_avail,
            next_used,
            told: next_used,
            region_hint: 0,
            batch: Vec::with_capacity(MAX_BATCH),
            segments: Vec::with_capacity(DESCRIPTOR_BUDGET as usize),
            slots: Box::new([Slot([0; net_header::LEN + HEAD_BYTES]); MAX_BATCH]),
            harvest: 0,
        }
    }

    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    /// The ring's index in the device.
    pub fn index(&self) -> u16 {
        self.common.index
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.common.size.entries()
    }

    pub(super) fn next_avail(&self) -> u16 {
        self.next_avail.wrapping_sub(self.batch.len() as u16)
    }

    pub(super) fn next_used(&self) -> u16 {
        self.next_used
    }

    /// Takes up to `max` chains off the ring and copies their heads; returns how many.
    ///
    /// What the last harvest took and [`FromGuest::finish`] did not end goes back first. An error says what the guest
    /// did that no driver may do; the port is then to be stopped.
    pub fn harvest(&mut self, max: usize) -> Result<usize, PortFault> {
        self.wind_back();
        self.harvest_now(max).map_err(|fault| self.ring.cause(fault))
    }

    fn harvest_now(&mut self, max: usize) -> Result<usize, PortFault> {
        let available = self.ring.avail_index().wrapping_sub(self.next_avail);
        if available > self.common.size.entries() {
            return Err(self.common.fault("avail.idx jumped by more than the ring's size"));
        }
        let count = usize::from(available).min(max).min(MAX_BATCH);
        if count == 0 {
            return Ok(0);
        }
        let taken = self.take(count);
        match taken {
            Ok(()) => self.next_avail = self.next_avail.wrapping_add(self.batch.len() as u16),
            // Nothing was taken: the index that GET_VRING_BASE answers must not move.
            Err(_) => self.forget_batch(),
        }
        taken.map(|()| self.batch.len())
    }

    fn take(&mut self, count: usize) -> Result<(), PortFault> {
        self.take_heads(count)?;
        self.walk_chains()?;
        self.copy_heads();
        if self.ring.memory().vanished() { Err(PortFault::MemoryVanished) } else { Ok(()) }
    }

    fn take_heads(&mut self, count: usize) -> Result<(), PortFault> {
        self.harvest = self.harvest.wrapping_add(1);
        if self.harvest == 0 {
            self.seen.fill(0);
            self.harvest = 1;
        }
        for place in 0..count {
            let head = self.ring.avail_entry(self.next_avail.wrapping_add(place as u16));
            let Some(seen) = self.seen.get_mut(usize::from(head)) else {
                return Err(self.common.fault("the head of a chain is outside of the descriptor table"));
            };
            if *seen == self.harvest {
                return Err(self.common.fault("a chain was made available twice"));
            }
            *seen = self.harvest;
            self.ring.table().prefetch(head);
            self.batch.push(Chain { head, ..Chain::default() });
        }
        Ok(())
    }

    fn walk_chains(&mut self) -> Result<(), PortFault> {
        let mut budget = DESCRIPTOR_BUDGET;
        for place in 0..self.batch.len() {
            if budget == 0 {
                self.batch.truncate(place);
                break;
            }
            let first = self.segments.len();
            let chain = &mut self.batch[place];
            let walked = chain::walk(
                &self.ring,
                chain.head,
                Direction::DeviceReads,
                &mut self.region_hint,
                &mut self.segments,
            )
            .map_err(|what| self.common.fault(what))?;
            let kept = (self.segments.len() - first) as u32;
            budget = budget.saturating_sub(kept.max(u32::from(walked.descriptors)));
            chain.bytes = walked.bytes;
            chain.segments = (first as u32, self.segments.len() as u32);
            if !walked.direction_ok {
                chain.defect = Some(Defect::BadDirection);
            } else if walked.bytes > MAX_FRAME + net_header::LEN as u32 {
                chain.defect = Some(Defect::Oversize);
            }
            if let Some(segment) = self.segments.get(first) {
                raw::prefetch(segment.host());
            }
        }
        Ok(())
    }

    fn copy_heads(&mut self) {
        for (chain, slot) in self.batch.iter_mut().zip(self.slots.iter_mut()) {
            let mut wanted = (chain.bytes as usize).min(slot.0.len());
            let mut at = 0;
            let (mut place, end) = chain.segments;
            let mut offset = 0;
            while wanted > 0 && place < end {
                let segment = &self.segments[place as usize];
                let here = wanted.min(segment.len() as usize);
                segment.read(0, &mut slot.0[at..at + here]);
                at += here;
                wanted -= here;
                offset = here as u32;
                if offset == segment.len() {
                    place += 1;
                    offset = 0;
                }
            }
            chain.payload = (place, offset);
            let (flags, gso_type) = (slot.0[0], slot.0[1]);
            if chain.defect.is_none() && (flags & net_header::F_NEEDS_CSUM != 0 || gso_type != 0) && at >= 2 {
                chain.defect = Some(Defect::BadNetHeader);
            }
        }
    }

    /// Frame `place` of the current batch.
    #[inline(always)]
    pub fn frame(&self, place: usize) -> Frame<'_> {
        let chain = &self.batch[place];
        let len = chain.bytes.saturating_sub(net_header::LEN as u32);
        let head = (len as usize).min(HEAD_BYTES);
        let (first, skip) = chain.payload;
        Frame {
            head: &self.slots[place].0[net_header::LEN..net_header::LEN + head],
            len,
            payload: Payload::Guest {
                segments: &self.segments[first as usize..chain.segments.1 as usize],
                skip,
            },
            defect: chain.defect,
        }
    }

    /// Frames in the current batch.
    pub fn batch_len(&self) -> usize {
        self.batch.len()
    }

    /// Ends the current batch: its first `decided` chains are completed, in order; the others go back on the ring.
    pub fn finish(&mut self, decided: usize) {
        let decided = decided.min(self.batch.len());
        if let Some(last) = decided.checked_sub(1) {
            if self.common.has(features::IN_ORDER) {
                // One element for the batch, at its first place, naming its last chain (virtio 1.2 §2.7.8).
                self.ring.write_used(self.next_used, self.batch[last].head, 0);
            } else {
                for (place, chain) in self.batch[..decided].iter().enumerate() {
                    self.ring.write_used(self.next_used.wrapping_add(place as u16), chain.head, 0);
                }
            }
            self.next_used = self.next_used.wrapping_add(decided as u16);
            self.ring.store_used_index(self.next_used);
        }
        let left = self.batch.len() - decided;
        self.next_avail = self.next_avail.wrapping_sub(left as u16);
        self.forget_batch();
    }

    fn forget_batch(&mut self) {
        self.batch.clear();
        self.segments.clear();
    }

    fn wind_back(&mut self) {
        self.finish(0);
    }

    /// Tells the driver of what was completed since the last time, if it wants to know. Fails if the driver's eventfd
    /// held us up.
    pub fn notify(&mut self) -> Result<(), PortFault> {
        let told = std::mem::replace(&mut self.told, self.next_used);
        self.common.notify(&self.ring, told, self.next_used)
    }

    /// Asks for a kick at the next frame. True if a frame is there already: then poll, do not sleep.
    pub fn arm(&self) -> bool {
        self.ring.request_kick(self.common.has(features::EVENT_IDX), self.next_avail());
        self.has_work()
    }

    /// Whether the driver has made chains available that were not taken.
    #[inline(always)]
    pub fn has_work(&self) -> bool {
        self.ring.avail_index() != self.next_avail()
    }

    /// Asks for no more kicks.
    pub fn disarm(&self) {
        self.ring.suppress_kicks(self.common.has(features::EVENT_IDX));
    }

    /// What the driver writes when it kicks. Edge-triggered: wait for it, never read it.
    pub fn kick_fd(&self) -> Option<BorrowedFd<'_>> {
        self.common.kick_fd()
    }
}
