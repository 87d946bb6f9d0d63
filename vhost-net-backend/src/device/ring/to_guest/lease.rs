//! Room that was claimed in a receiveq: written, then published.

use super::{ToGuest, claim::NoRoom};
use crate::{
    device::{fault::PortFault, memory::Segment, ring::Payload},
    net_header::{self, NetHeader},
};
use std::{num::NonZeroU16, slice};

/// How much got room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Granted {
    /// Frames.
    pub frames: u32,
    /// Their bytes, from the destination address on.
    pub bytes: u64,
}

/// What a lease holds; reused, so that a turn allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) frames: Vec<Room>,
    pub(super) segments: Vec<Segment>,
    /// Those of the frame that is being claimed.
    pub(super) chains: Vec<Chain>,
    pub(super) granted: Granted,
}

/// A claimed chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    pub(super) head: u16,
    pub(super) bytes: u32,
}

/// A frame's room.
#[derive(Debug)]
pub(super) enum Room {
    /// One chain, in one piece.
    One(Segment),
    /// Several, or in several: the store's segments from `first` to before `end`.
    Many { chains: NonZeroU16, first: usize, end: usize },
    /// None.
    No(NoRoom),
}

impl Store {
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.segments.clear();
        self.chains.clear();
        self.granted = Granted::default();
    }

    /// The header of what waits in room `place` is written, and where the frame goes is returned.
    #[inline(always)]
    fn begin(&self, place: usize) -> Result<Scatter<'_>, NoRoom> {
        let (segments, chains) = match self.frames.get(place) {
            Some(Room::One(segment)) => (slice::from_ref(segment), 1),
            Some(Room::Many { chains, first, end }) => (&self.segments[*first..*end], chains.get()),
            Some(Room::No(why)) => return Err(*why),
            None => return Err(NoRoom::Empty),
        };
        let mut scatter = Scatter { segments, offset: 0 };
        let header = NetHeader::plain(chains).to_bytes();
        match segments.first() {
            Some(first) if first.len() >= net_header::LEN as u32 => {
                // The same header stands there nearly always: who does not write leaves the line in the guest's cache.
                first.write_if_unlike(&header);
                scatter.advance(first.len(), net_header::LEN as u32);
            }
            _ => scatter.put(&header),
        }
        Ok(scatter)
    }
}

/// Claimed room in a receiveq: write every frame that got room, then publish. Dropped unpublished (a panic), it is
/// published as it is, with a true header, so that no gap stays in the used ring.
#[derive(Debug)]
#[must_use = "buffers that are claimed must be published"]
pub struct Lease<'r> {
    ring: &'r ToGuest,
    /// Taken when the lease ends.
    store: Store,
    number: u64,
    /// Rooms that nothing was written to yet.
    unwritten: u32,
    ended: bool,
}

impl<'r> Lease<'r> {
    pub(super) fn new(ring: &'r ToGuest, store: Store, number: u64) -> Self {
        Self { ring, number, unwritten: store.granted.frames, store, ended: false }
    }

    /// How much got room.
    pub fn granted(&self) -> Granted {
        self.store.granted
    }

    /// Whether frame `place` got room.
    pub fn room(&self, place: usize) -> Result<(), NoRoom> {
        match self.store.frames.get(place) {
            Some(Room::One(_) | Room::Many { .. }) => Ok(()),
            Some(Room::No(why)) => Err(*why),
            None => Err(NoRoom::Empty),
        }
    }

    /// Writes frame `place`, if it got room: `head`, then `payload`. Its length must be what was reserved; what is too
    /// long is cut, and what is missing stays as it was in the guest's buffer.
    #[inline(always)]
    pub fn write(&mut self, place: usize, head: &[u8], payload: Payload<'_>) -> Result<(), NoRoom> {
        if let Some(Room::One(segment)) = self.store.frames.get(place)
            && payload.is_empty()
            && head.len() + net_header::LEN <= segment.len() as usize
        {
            // Nearly every short frame: the rest of this function, made short.
            segment.write_if_unlike(&const { NetHeader::plain(1).to_bytes() });
            segment.write(net_header::LEN as u32, head);
            self.unwritten = self.unwritten.saturating_sub(1);
            return Ok(());
        }
        self.write_any(place, head, payload)
    }

    #[inline(never)]
    fn write_any(&mut self, place: usize, head: &[u8], payload: Payload<'_>) -> Result<(), NoRoom> {
        self.store.begin(place)?.put_all(head, payload);
        self.unwritten = self.unwritten.saturating_sub(1);
        Ok(())
    }

    /// Hands the written frames to the guest and tells it, if it wants to know. Fails if its memory vanished meanwhile, or
    /// its eventfd held us up.
    pub fn publish(mut self) -> Result<(), PortFault> {
        self.end()?;
        if self.ring.ring.memory().vanished() { Err(PortFault::MemoryVanished) } else { Ok(()) }
    }

    fn end(&mut self) -> Result<(), PortFault> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let mut store = std::mem::take(&mut self.store);
        if self.unwritten > 0 {
            // A driver that joins merged buffers needs a true count, whatever the frame holds. Those that were written have it.
            (0..store.frames.len()).for_each(|place| drop(store.begin(place)));
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
    fn put_all(&mut self, head: &[u8], payload: Payload<'_>) {
        self.put(head);
        match payload {
            Payload::Ours(bytes) => self.put(bytes),
            Payload::Guest { segments, mut skip } => {
                for segment in segments {
                    self.put_segment(segment, skip);
                    skip = 0;
                }
            }
        }
    }

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
