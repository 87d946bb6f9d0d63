//! A receiveq: frames go to the guest, in three steps that several workers may take at once.
//!
//! `reserve` (behind a short flag) claims buffers and places in the used ring; `write` (no flag) fills them; `publish`
//! (behind the flag) marks the lease finished, and whoever closes the oldest gap stores the used index for all that is
//! finished, so the guest sees buffers in the order in which they were claimed.

use super::{
    Common, MAX_FRAME, Payload, RingParts,
    chain::{self, Direction},
    flag::Flagged,
    raw::RawRing,
};
use crate::{
    device::{fault::PortFault, memory::Segment},
    features,
    net_header::{self, NetHeader},
};
use std::{collections::VecDeque, ops::Range};

/// Descriptors that one `reserve` reads before it stops claiming.
const DESCRIPTOR_BUDGET: u32 = 4096;

/// Chains that one frame may be spread over with MRG_RXBUF. A frame of 64 KiB in buffers of 1.5 KiB takes 44.
const MAX_MERGED: usize = 128;

/// Leases that may be open at once: far more than there are workers.
const MAX_LEASES: usize = 64;

/// Why a frame got no buffer. The ring is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// The guest has not made enough buffers available.
    Empty,
    /// The frame does not fit a buffer (without MRG_RXBUF), would take more buffers than a frame may, or is longer than
    /// [`MAX_FRAME`].
    TooSmall,
}

#[derive(Debug)]
struct State {
    next_avail: u16,
    /// The next place in the used ring to give away.
    next_used: u16,
    /// What `used.idx` says.
    published: u16,
    /// `published` when the driver was last told.
    told: u16,
    region_hint: usize,
    /// Open leases, oldest first: places taken, and whether they are written.
    open: VecDeque<(u16, bool)>,
    /// The number of the oldest open lease.
    oldest: u64,
    /// Lease stores that are not in use.
    spare: Vec<Store>,
    seen: Box<[u32]>,
    round: u32,
}

/// What a lease holds; reused, so that a turn allocates nothing.
#[derive(Debug, Default)]
struct Store {
    frames: Vec<Result<Room, NoRoom>>,
    buffers: Vec<Buffer>,
    segments: Vec<Segment>,
}

impl Store {
    fn clear(&mut self) {
        self.frames.clear();
        self.buffers.clear();
        self.segments.clear();
    }
}

/// A claimed chain.
#[derive(Debug, Clone, Copy)]
struct Buffer {
    head: u16,
    bytes: u32,
}

/// A frame's room.
#[derive(Debug, Clone)]
struct Room {
    /// How many chains: `num_buffers` of its header.
    buffers: u16,
    segments: Range<u32>,
    written: bool,
}

impl Room {
    /// Where the frame goes, behind its header, which is written here.
    #[inline(always)]
    fn begin<'a>(&self, segments: &'a [Segment]) -> Scatter<'a> {
        let segments = &segments[self.segments.start as usize..self.segments.end as usize];
        let mut scatter = Scatter { segments, offset: 0 };
        scatter.put(&NetHeader::plain(self.buffers).to_bytes());
        scatter
    }
}

/// A running receiveq.
#[derive(Debug)]
pub struct ToGuest {
    ring: RawRing,
    common: Common,
    state: Flagged<State>,
}

impl ToGuest {
    pub(super) fn new(ring: RawRing, parts: RingParts) -> Self {
        let (next_avail, next_used) = (parts.next_avail, parts.next_used);
        let common = Common::new(parts);
        // We look at this ring when there is something to put into it; a kick tells us nothing.
        ring.suppress_kicks(common.has(features::EVENT_IDX));
        let state = State {
            next_avail,
            next_used,
            published: next_used,
            told: next_used,
            region_hint: 0,
            open: VecDeque::with_capacity(MAX_LEASES),
            oldest: 0,
            spare: Vec::with_capacity(MAX_LEASES),
            seen: vec![0; usize::from(common.size.entries())].into(),
            round: 0,
        };
        Self { ring, common, state: Flagged::new(state) }
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
        self.state.with(|state| state.next_avail)
    }

    pub(super) fn next_used(&self) -> u16 {
        self.state.with(|state| state.published)
    }

    /// Claims room for frames of these lengths (without net header), as many as there is room for.
    ///
    /// An error says what the guest did that no driver may do; nothing is claimed then, and the port is to be stopped.
    pub fn reserve(&self, lengths: impl IntoIterator<Item = u32>) -> Result<Lease<'_>, PortFault> {
        self.state.with(|state| {
            let mut store = state.spare.pop().unwrap_or_default();
            let before = (state.next_avail, state.next_used);
            if let Err(what) = self.claim(state, &mut store, lengths) {
                (state.next_avail, state.next_used) = before;
                store.clear();
                state.spare.push(store);
                return Err(self.ring.cause(self.common.fault(what)));
            }
            let number = state.oldest + state.open.len() as u64;
            state.open.push_back((state.next_used.wrapping_sub(before.1), false));
            Ok(Lease { ring: self, store: Some(store), number })
        })
    }

    fn claim(
        &self,
        state: &mut State,
        store: &mut Store,
        lengths: impl IntoIterator<Item = u32>,
    ) -> Result<(), &'static str> {
        let mut available = self.ring.avail_index().wrapping_sub(state.next_avail);
        if available > self.common.size.entries() {
            return Err("avail.idx jumped by more than the ring's size");
        }
        if state.open.len() >= MAX_LEASES {
            available = 0;
        }
        state.round = state.round.wrapping_add(1);
        if state.round == 0 {
            state.seen.fill(0);
            state.round = 1;
        }
        let mut budget = DESCRIPTOR_BUDGET;
        for len in lengths {
            let total = len.saturating_add(net_header::LEN as u32);
            let (first_buffer, first_segment) = (store.buffers.len(), store.segments.len());
            let outcome = self.claim_one(state, store, total, available, &mut budget)?;
            let taken = (store.buffers.len() - first_buffer) as u16;
            if let Err(no_room) = outcome {
                for buffer in store.buffers.drain(first_buffer..) {
                    state.seen[usize::from(buffer.head)] = 0;
                }
                store.segments.truncate(first_segment);
                store.frames.push(Err(no_room));
                continue;
            }
            // The driver does not look at these places before the lease is published.
            let mut left = total;
            for (place, buffer) in store.buffers[first_buffer..].iter().enumerate() {
                let here = left.min(buffer.bytes);
                self.ring.write_used(state.next_used.wrapping_add(place as u16), buffer.head, here);
                left -= here;
            }
            let segments = first_segment as u32..store.segments.len() as u32;
            store.frames.push(Ok(Room { buffers: taken, segments, written: false }));
            available -= taken;
            state.next_avail = state.next_avail.wrapping_add(taken);
            state.next_used = state.next_used.wrapping_add(taken);
        }
        Ok(())
    }

    /// Claims chains for one frame of `total` bytes; the caller gives them back if there was no room.
    fn claim_one(
        &self,
        state: &mut State,
        store: &mut Store,
        total: u32,
        available: u16,
        budget: &mut u32,
    ) -> Result<Result<(), NoRoom>, &'static str> {
        let mergeable = self.common.has(features::NET_MRG_RXBUF);
        if total > MAX_FRAME + net_header::LEN as u32 {
            return Ok(Err(NoRoom::TooSmall));
        }
        let mut room = 0u32;
        let mut taken = 0u16;
        while room < total {
            // First: what does not fit will not fit either once there are more buffers.
            if usize::from(taken) == MAX_MERGED || (taken > 0 && !mergeable) {
                return Ok(Err(NoRoom::TooSmall));
            }
            if taken == available || *budget == 0 {
                return Ok(Err(NoRoom::Empty));
            }
            let head = self.ring.avail_entry(state.next_avail.wrapping_add(taken));
            let seen = state
                .seen
                .get_mut(usize::from(head))
                .ok_or("the head of a chain is outside of the descriptor table")?;
            if *seen == state.round {
                return Err("a chain was made available twice");
            }
            *seen = state.round;
            let walked = chain::walk(
                &self.ring,
                head,
                Direction::DeviceWrites,
                &mut state.region_hint,
                &mut store.segments,
            )?;
            if !walked.direction_ok {
                return Err("a receive buffer is not writable for the device");
            }
            *budget = budget.saturating_sub(u32::from(walked.descriptors));
            store.buffers.push(Buffer { head, bytes: walked.bytes });
            taken += 1;
            room = room.saturating_add(walked.bytes);
            // The header lies whole in the first chain (virtio 1.2 §5.1.6.3.1).
            if taken == 1 && (walked.bytes as usize) < net_header::LEN {
                return Ok(Err(NoRoom::TooSmall));
            }
        }
        Ok(Ok(()))
    }

    /// Ends lease `number`; returns the used indices between which the driver is to be told.
    fn end(&self, number: u64, store: Store) -> (u16, u16) {
        self.state.with(|state| {
            if let Some(lease) = state.open.get_mut((number - state.oldest) as usize) {
                lease.1 = true;
            }
            while let Some((places, true)) = state.open.front().copied() {
                state.open.pop_front();
                state.published = state.published.wrapping_add(places);
                state.oldest += 1;
            }
            state.spare.push(store);
            let old = state.told;
            state.told = state.published;
            if old != state.published {
                self.ring.store_used_index(state.published);
            }
            (old, state.published)
        })
    }
}

/// Claimed room in a receiveq: write every frame that got room, then publish. Dropped unpublished (a panic), it is
/// published as it is, with a true header, so that no gap stays in the used ring.
#[derive(Debug)]
#[must_use = "buffers that are claimed must be published"]
pub struct Lease<'r> {
    ring: &'r ToGuest,
    /// There until the lease ends.
    store: Option<Store>,
    number: u64,
}

impl Lease<'_> {
    /// Whether frame `place` got room.
    pub fn room(&self, place: usize) -> Result<(), NoRoom> {
        match self.store.as_ref().and_then(|store| store.frames.get(place)) {
            Some(Ok(_)) => Ok(()),
            Some(Err(no_room)) => Err(*no_room),
            None => Err(NoRoom::Empty),
        }
    }

    /// Writes frame `place`: `head`, then `payload`. Its length must be what was reserved; what is too long is cut, and
    /// what is missing stays as it was in the guest's buffer.
    #[inline(always)]
    pub fn write(&mut self, place: usize, head: &[u8], payload: Payload<'_>) {
        let Some(store) = &mut self.store else { return };
        let Some(Ok(room)) = store.frames.get_mut(place) else { return };
        room.written = true;
        let mut scatter = room.begin(&store.segments);
        scatter.put(head);
        match payload {
            Payload::Ours(bytes) => scatter.put(bytes),
            Payload::Guest { segments, mut skip } => {
                for segment in segments {
                    scatter.put_segment(segment, skip);
                    skip = 0;
                }
            }
        }
    }

    /// Hands the written frames to the guest and tells it, if it wants to know. Fails if its memory vanished meanwhile, or
    /// its eventfd held us up.
    pub fn publish(mut self) -> Result<(), PortFault> {
        self.end()?;
        if self.ring.ring.memory().vanished() { Err(PortFault::MemoryVanished) } else { Ok(()) }
    }

    fn end(&mut self) -> Result<(), PortFault> {
        let Some(mut store) = self.store.take() else { return Ok(()) };
        for room in store.frames.iter().flatten().filter(|room| !room.written) {
            // A driver that joins merged buffers needs a true count, whatever the frame holds.
            room.begin(&store.segments);
        }
        store.clear();
        let (old, new) = self.ring.end(self.number, store);
        self.ring.common.notify(&self.ring.ring, old, new)
    }
}

impl Drop for Lease<'_> {
    /// A lease that is not published (a panic came in between) ends all the same; the ring's next user meets what is wrong.
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Writes bytes one after the other into a frame's segments.
struct Scatter<'a> {
    segments: &'a [Segment],
    offset: u32,
}

impl Scatter<'_> {
    #[inline(always)]
    fn put(&mut self, mut bytes: &[u8]) {
        while let Some(segment) = self.segments.first().filter(|_| !bytes.is_empty()) {
            let (now, later) = bytes.split_at(bytes.len().min((segment.len() - self.offset) as usize));
            segment.write(self.offset, now);
            self.advance(segment.len(), now.len() as u32);
            bytes = later;
        }
    }

    #[inline(always)]
    fn put_segment(&mut self, from: &Segment, mut skip: u32) {
        while let Some(segment) = self.segments.first().filter(|_| skip < from.len()) {
            let here = (from.len() - skip).min(segment.len() - self.offset);
            from.copy_to(skip, segment, self.offset, here);
            self.advance(segment.len(), here);
            skip += here;
        }
    }

    #[inline(always)]
    fn advance(&mut self, segment_len: u32, by: u32) {
        self.offset += by;
        if self.offset == segment_len {
            self.segments = &self.segments[1..];
            self.offset = 0;
        }
    }
}
