//! A transmitq: frames come from the guest, batch by batch, and their chains are completed in order.

use super::{
    Common, LONGEST, RingParts,
    chain::{self, Direction},
    raw::RawRing,
    seen::Seen,
};
use crate::{
    device::{fault::PortFault, memory::Segment},
    features, net_header, prefetch,
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

impl Payload<'_> {
    /// Whether the head was all.
    #[inline(always)]
    pub(super) fn is_empty(self) -> bool {
        matches!(self, Self::Guest { segments: [], .. } | Self::Ours([]))
    }
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

/// What is judged of a frame.
#[derive(Debug, Clone, Copy)]
pub struct FrameHead<'a> {
    /// Its first bytes, at most [`HEAD_BYTES`].
    pub bytes: &'a [u8],
    /// Its length, from the destination address on.
    pub len: u32,
    /// Why it is no frame.
    pub defect: Option<Defect>,
}

/// Bytes of net header and head.
const SLOT: usize = net_header::LEN + HEAD_BYTES;

/// Net header and head of one frame, as they stood in the guest's buffers.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Slot([u8; SLOT]);

#[derive(Debug)]
struct Chain {
    head: u16,
    /// Bytes of all its buffers.
    bytes: u32,
    pieces: Pieces,
    defect: Option<Defect>,
}

/// Where a chain's bytes are.
#[derive(Debug)]
enum Pieces {
    /// In one piece: nearly every chain.
    One(Segment),
    /// In those of `FromGuest::segments` from `first` to before `end`.
    Many {
        first: u16,
        end: u16,
        /// The piece, counted from `first`, and the byte in it, where the payload begins.
        payload: (u16, u16),
    },
}

/// Walks a chain that is not in one piece.
#[inline(never)]
fn walk(
    ring: &RawRing,
    head: u16,
    hint: &mut usize,
    segments: &mut Vec<Segment>,
    budget: &mut u32,
) -> Result<Chain, &'static str> {
    let first = segments.len() as u16;
    let walked = chain::walk(ring, head, Direction::DeviceReads, hint, segments)?;
    let end = segments.len() as u16;
    *budget = budget.saturating_sub((end - first).max(walked.descriptors).into());
    segments.get(usize::from(first)).into_iter().for_each(fetch);
    let defect = if !walked.direction_ok {
        Some(Defect::BadDirection)
    } else if walked.bytes > LONGEST {
        Some(Defect::Oversize)
    } else {
        None
    };
    Ok(Chain { head, bytes: walked.bytes, pieces: Pieces::Many { first, end, payload: (0, 0) }, defect })
}

/// Asks the CPU for the lines of net header and addresses, which may be two.
#[inline(always)]
fn fetch(segment: &Segment) {
    prefetch::to_read(segment.host());
    prefetch::to_read(segment.host().wrapping_add(64));
}

/// Copies the first `to.len()` bytes of `segments`, which have as many; returns the segment, and the byte in it, that follow.
fn gather(segments: &[Segment], to: &mut [u8]) -> (u16, u16) {
    let mut at = 0;
    for (place, segment) in (0..).zip(segments) {
        let here = (to.len() - at).min(segment.len() as usize);
        segment.read(0, &mut to[at..at + here]);
        at += here;
        if here < segment.len() as usize {
            return (place, here as u16);
        }
    }
    (segments.len() as u16, 0)
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
    seen: Seen,
}

impl FromGuest {
    pub(super) fn new(ring: RawRing, parts: RingParts) -> Self {
        let (next_avail, next_used) = (parts.next_avail, parts.next_used);
        let common = Common::new(parts);
        ring.suppress_kicks(common.has(features::EVENT_IDX));
        Self {
            seen: Seen::new(common.size),
            ring,
            common,
            next_avail,
            next_used,
            told: next_used,
            region_hint: 0,
            batch: Vec::with_capacity(MAX_BATCH),
            segments: Vec::with_capacity(DESCRIPTOR_BUDGET as usize),
            slots: Box::new([Slot([0; SLOT]); MAX_BATCH]),
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
        self.walk_chains(count as u16)?;
        self.copy_heads();
        if self.ring.memory().vanished() { Err(PortFault::MemoryVanished) } else { Ok(()) }
    }

    fn walk_chains(&mut self, count: u16) -> Result<(), PortFault> {
        let (avail, table, memory) = (self.ring.avail(), self.ring.table(), self.ring.memory());
        let first = self.next_avail;
        // Four descriptors share a line, and a driver mostly hands them out in turn.
        for place in (0..count).step_by(4) {
            table.prefetch(avail.entry(first.wrapping_add(place)));
        }
        let mut window = memory.window(self.region_hint);
        let mut budget = DESCRIPTOR_BUDGET;
        self.seen.begin();
        for place in 0..count {
            let head = avail.entry(first.wrapping_add(place));
            self.seen.take(head).map_err(|what| self.common.fault(what))?;
            if let Some(segment) = chain::direct(table, head, Direction::DeviceReads, window) {
                fetch(&segment);
                let defect = if segment.len() > LONGEST { Some(Defect::Oversize) } else { None };
                self.batch.push(Chain { head, bytes: segment.len(), pieces: Pieces::One(segment), defect });
            } else if budget > 0 {
                let chain = walk(&self.ring, head, &mut self.region_hint, &mut self.segments, &mut budget)
                    .map_err(|what| self.common.fault(what))?;
                self.batch.push(chain);
                window = memory.window(self.region_hint);
            } else {
                break;
            }
        }
        Ok(())
    }

    fn copy_heads(&mut self) {
        for (chain, slot) in self.batch.iter_mut().zip(self.slots.iter_mut()) {
            let head = &mut slot.0[..(chain.bytes as usize).min(SLOT)];
            match &mut chain.pieces {
                // Most heads lie in one piece.
                Pieces::One(segment) => segment.read(0, head),
                Pieces::Many { first, end, payload } => {
                    *payload = gather(&self.segments[usize::from(*first)..usize::from(*end)], head);
                }
            }
            if let [flags, gso_type, ..] = head
                && (*flags & net_header::F_NEEDS_CSUM != 0 || *gso_type != 0)
            {
                chain.defect = chain.defect.or(Some(Defect::BadNetHeader));
            }
        }
    }

    /// Frame `place` of the current batch.
    #[inline(always)]
    pub fn frame(&self, place: usize) -> Frame<'_> {
        let FrameHead { bytes: head, len, defect } = self.head(place);
        Frame { head, len, payload: self.payload(place), defect }
    }

    /// What is judged of frame `place` of the current batch.
    #[inline(always)]
    pub fn head(&self, place: usize) -> FrameHead<'_> {
        let chain = &self.batch[place];
        let len = chain.bytes.saturating_sub(net_header::LEN as u32);
        let head = (len as usize).min(HEAD_BYTES);
        let bytes = &self.slots[place].0[net_header::LEN..net_header::LEN + head];
        FrameHead { bytes, len, defect: chain.defect }
    }

    /// The length of frame `place` of the current batch.
    #[inline(always)]
    pub fn len(&self, place: usize) -> u32 {
        self.batch[place].bytes.saturating_sub(net_header::LEN as u32)
    }

    /// What follows the head of frame `place` of the current batch.
    #[inline(always)]
    pub fn payload(&self, place: usize) -> Payload<'_> {
        let chain = &self.batch[place];
        match &chain.pieces {
            Pieces::One(_) if chain.bytes as usize <= SLOT => Payload::Guest { segments: &[], skip: 0 },
            Pieces::One(segment) => {
                Payload::Guest { segments: std::slice::from_ref(segment), skip: SLOT as u32 }
            }
            Pieces::Many { first, end, payload: (piece, skip) } => Payload::Guest {
                segments: &self.segments[usize::from(first + piece)..usize::from(*end)],
                skip: (*skip).into(),
            },
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
                self.ring.used().write(self.next_used, self.batch[last].head, 0);
            } else {
                for (place, chain) in self.batch[..decided].iter().enumerate() {
                    self.ring.used().write(self.next_used.wrapping_add(place as u16), chain.head, 0);
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
