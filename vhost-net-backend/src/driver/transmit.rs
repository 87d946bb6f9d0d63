//! The transmitq: frames copied into the arena, made available in batches, taken back when sent.

use super::arena::{Arena, MAX_PIECES, Window};
use super::error::DeviceFault;
use super::plan::{CACHE_LINE, PAGE, Slots};
use super::ring::{Descriptor, Ring};
use crate::layout::{DESC_INDIRECT, DESC_NEXT, DESC_SIZE};
use crate::net_header::{self, NetHeader};
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// The longest frame with its header that virtio-net knows (virtio 1.2 §5.1.6.3: 65550 and the header, for GSO).
pub(super) const MAX_CHAIN: usize = 65550 + net_header::LEN;

/// Slots that the longest frame can take, at 1 KiB each, the smallest.
pub(super) const MAX_SLOTS: usize = MAX_CHAIN.div_ceil(1024);

/// What came of an attempt to carry one frame between a ring and a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// One went over.
    Frame,
    /// There is none now.
    Nothing,
    /// There is no room for one now.
    NoRoom,
}

/// How a test wants one frame to lie in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The buffers, in order: each takes that much of header and frame, the last takes what is left (if it is more).
    /// Buffers for which nothing is left have length 0.
    pub pieces: Vec<Piece>,
    /// From this piece on the descriptors stand in an indirect table (0: all of them). Needs INDIRECT_DESC.
    pub indirect_from: Option<usize>,
}

/// One buffer of a [`Shape`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Bytes.
    pub len: u32,
    /// Where it lies.
    pub place: Place,
}

/// Where a buffer lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Right behind the one before, one byte between: so at any alignment.
    Near,
    /// Half on one page, half on the next.
    AcrossPage,
    /// Half in one memory region, half in the next; across a page where no further region begins.
    AcrossRegion,
}

/// A transmit buffer that is being filled. It keeps what was written to it in earlier rounds, so only what changes needs
/// writing. Offsets count from the net header on.
#[derive(Debug)]
pub struct TransmitBuffer<'a> {
    window: Window<'a>,
    number: u16,
    end: usize,
}

impl TransmitBuffer<'_> {
    /// Which buffer of the ring this is: 0 up to the ring's size.
    #[inline(always)]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Writes `bytes` at `at`.
    ///
    /// # Panics
    /// If they leave the buffer ([`super::Config::buffer_size`]).
    #[inline(always)]
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        self.window.write(at, bytes);
    }

    /// Says that the frame ends at `end`, its net header counted. What lies beyond the buffer is not sent.
    #[inline(always)]
    pub fn set_end(&mut self, end: usize) {
        self.end = end;
    }
}

/// The driver's side of a transmitq.
#[derive(Debug)]
pub(super) struct TransmitQueue {
    pub(super) ring: Ring,
    memory: Arc<Arena>,
    slots: Slots,
    /// The room for shaped frames, how far it is taken, and how many chains lie there.
    shaped: Range<usize>,
    cursor: usize,
    shaped_in_flight: Vec<u16>,
    /// A frame found no room since the last `arm`.
    starved: bool,
}

impl TransmitQueue {
    pub(super) fn new(memory: Arc<Arena>, ring: Ring, slots: Slots, shaped: Range<usize>) -> Self {
        let cursor = shaped.start;
        Self { ring, memory, slots, shaped, cursor, shaped_in_flight: Vec::new(), starved: false }
    }

    pub(super) fn slots(&self) -> Slots {
        self.slots
    }

    /// Queues one frame in as many slots as it needs. Ok(false): no room, or longer than a ring can hold.
    #[inline]
    pub(super) fn transmit(
        &mut self,
        header: &[u8; net_header::LEN],
        frame: &[u8],
    ) -> Result<bool, DeviceFault> {
        let Some(count) = self.slots_for(frame.len()) else { return Ok(false) };
        if self.ring.free() < count {
            self.reap()?;
            if self.ring.free() < count {
                self.starved = true;
                return Ok(false);
            }
        }
        if count == 1 {
            let slot = self.slots.offset(self.ring.next_free(0));
            self.memory.write(slot, header);
            self.memory.write(slot + net_header::LEN, frame);
            let len = (net_header::LEN + frame.len()) as u32;
            self.ring.add(&[Descriptor { addr: self.memory.guest_address(slot), len, flags: 0, next: 0 }]);
        } else {
            self.transmit_in_slots(header, frame, count);
        }
        Ok(true)
    }

    /// Queues at most `limit` frames of one buffer each, which `fill` writes where they lie. The first `touched` bytes of
    /// each buffer are fetched into the cache before, for the whole burst: to be written, since a store that has to wait
    /// for the other core's line holds up all stores behind it.
    #[inline]
    pub(super) fn transmit_in_place(
        &mut self,
        limit: usize,
        touched: usize,
        mut fill: impl FnMut(&mut TransmitBuffer<'_>),
    ) -> Result<usize, DeviceFault> {
        if usize::from(self.ring.free()) < limit {
            self.reap()?;
        }
        let count = self.ring.free().min(u16::try_from(limit).unwrap_or(u16::MAX));
        for place in 0..count {
            let slot = self.slots.offset(self.ring.next_free(place));
            for line in (0..touched.min(self.slots.len)).step_by(CACHE_LINE) {
                self.memory.prefetch_for_write(slot + line);
            }
        }
        for _ in 0..count {
            let number = self.ring.next_free(0);
            let offset = self.slots.offset(number);
            let window = self.memory.window(offset, self.slots.len);
            let mut buffer = TransmitBuffer { window, number, end: net_header::LEN };
            fill(&mut buffer);
            let len = buffer.end.min(self.slots.len) as u32;
            self.ring.add_one(number, self.memory.guest_address(offset), len);
        }
        Ok(usize::from(count))
    }

    /// Reads one frame from `fd`, a [short](net_header::SHORT_LEN) net header before it, right into slots. The error is that of
    /// the descriptor; one that ended says `UnexpectedEof`.
    pub(super) fn transmit_from(&mut self, fd: BorrowedFd<'_>) -> Result<io::Result<Moved>, DeviceFault> {
        let most = MAX_CHAIN.div_ceil(self.slots.len);
        if usize::from(self.ring.free()) < most {
            self.reap()?;
            if usize::from(self.ring.free()) < most {
                self.starved = true;
                return Ok(Ok(Moved::NoRoom));
            }
        }
        let mut pieces = [(0, 0); MAX_PIECES];
        let mut count = 0;
        for place in 0..most {
            let slot = self.slots.offset(self.ring.next_free(place as u16));
            if place == 0 {
                pieces[0] = (slot, net_header::SHORT_LEN);
                pieces[1] = (slot + net_header::LEN, self.slots.len - net_header::LEN);
                count = 2;
            } else {
                pieces[count] = (slot, self.slots.len);
                count += 1;
            }
        }
        let read = match self.memory.read_from(fd, &pieces[..count]) {
            Ok(0) => return Ok(Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => read,
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(Ok(Moved::Nothing)),
            Err(why) => return Ok(Err(why)),
        };
        let mut left = read.saturating_sub(net_header::SHORT_LEN) + net_header::LEN;
        let mut buffers = [Descriptor::default(); MAX_SLOTS];
        let mut used = 0;
        while left > 0 {
            let slot = self.slots.offset(self.ring.next_free(used as u16));
            let len = left.min(self.slots.len);
            let addr = self.memory.guest_address(slot);
            buffers[used] = Descriptor { addr, len: len as u32, flags: 0, next: 0 };
            used += 1;
            left -= len;
        }
        self.ring.add(&buffers[..used]);
        Ok(Ok(Moved::Frame))
    }

    /// How many slots a frame takes; None if it is longer than any frame, or than the ring.
    fn slots_for(&self, frame: usize) -> Option<u16> {
        let bytes = frame.checked_add(net_header::LEN).filter(|bytes| *bytes <= MAX_CHAIN)?;
        let count = u16::try_from(bytes.div_ceil(self.slots.len)).ok()?;
        (count <= self.ring.places().size.entries()).then_some(count)
    }

    #[cold]
    fn transmit_in_slots(&mut self, header: &[u8; net_header::LEN], frame: &[u8], count: u16) {
        let mut buffers = [Descriptor::default(); MAX_SLOTS];
        let (first, rest) = frame.split_at(self.slots.len - net_header::LEN);
        let parts = std::iter::once(first).chain(rest.chunks(self.slots.len));
        for ((place, part), buffer) in (0..count).zip(parts).zip(&mut buffers) {
            let slot = self.slots.offset(self.ring.next_free(place));
            let lead = if place == 0 { net_header::LEN } else { 0 };
            self.memory.write(slot, &header[..lead]);
            self.memory.write(slot + lead, part);
            let len = (lead + part.len()) as u32;
            *buffer = Descriptor { addr: self.memory.guest_address(slot), len, flags: 0, next: 0 };
        }
        self.ring.add(&buffers[..usize::from(count)]);
    }

    /// Queues one frame as `shape` says. Ok(false): no room for it now, or ever.
    pub(super) fn transmit_shaped(
        &mut self,
        header: &[u8; net_header::LEN],
        frame: &[u8],
        shape: &Shape,
    ) -> Result<bool, DeviceFault> {
        self.reap()?;
        let bytes = [header.as_slice(), frame].concat();
        let cursor = self.cursor;
        let Some(head) = self.place_and_add(&bytes, shape) else {
            self.cursor = cursor;
            self.starved = true;
            return Ok(false);
        };
        self.shaped_in_flight.push(head);
        Ok(true)
    }

    fn place_and_add(&mut self, bytes: &[u8], shape: &Shape) -> Option<u16> {
        let mut buffers = self.place(bytes, &shape.pieces)?;
        let direct = shape.indirect_from.map_or(buffers.len(), |from| from.min(buffers.len()));
        if direct < buffers.len() {
            let table = self.take((buffers.len() - direct) * DESC_SIZE, Place::Near)?;
            let last = buffers.len() - 1;
            for (place, buffer) in buffers.iter_mut().enumerate().skip(direct) {
                let index = place - direct;
                if place < last {
                    buffer.flags = DESC_NEXT;
                    buffer.next = u16::try_from(index + 1).ok()?;
                }
                self.memory.write(table + index * DESC_SIZE, &buffer.to_bytes());
            }
            let len = u32::try_from((buffers.len() - direct) * DESC_SIZE).ok()?;
            buffers.truncate(direct);
            let addr = self.memory.guest_address(table);
            buffers.push(Descriptor { addr, len, flags: DESC_INDIRECT, next: 0 });
        }
        self.ring.add(&buffers)
    }

    /// Copies `bytes` into the shaped room, piece by piece.
    fn place(&mut self, mut bytes: &[u8], pieces: &[Piece]) -> Option<Vec<Descriptor>> {
        let mut buffers = Vec::with_capacity(pieces.len());
        for (index, piece) in pieces.iter().enumerate() {
            let last = index + 1 == pieces.len();
            let len = if last { bytes.len() } else { bytes.len().min(piece.len as usize) };
            let (part, rest) = bytes.split_at(len);
            let offset = self.take(len, piece.place)?;
            self.memory.write(offset, part);
            let addr = self.memory.guest_address(offset);
            buffers.push(Descriptor { addr, len: u32::try_from(len).ok()?, flags: 0, next: 0 });
            bytes = rest;
        }
        Some(buffers)
    }

    /// Takes `len` bytes of the shaped room.
    fn take(&mut self, len: usize, place: Place) -> Option<usize> {
        let earliest = self.cursor + 1;
        let half = len / 2;
        let across_page = (earliest + half).next_multiple_of(PAGE) - half;
        let start = match place {
            Place::Near => earliest,
            Place::AcrossPage => across_page,
            Place::AcrossRegion => {
                let regions = self.memory.regions().iter().map(|region| region.offset);
                let next =
                    regions.filter(|begin| *begin >= earliest + half && *begin > self.shaped.start).min();
                next.map_or(across_page, |begin| begin - half)
            }
        };
        let end = start.checked_add(len).filter(|end| *end < self.shaped.end)?;
        self.cursor = end;
        Some(start)
    }

    /// Takes back what the device is done with; how many frames.
    #[inline]
    pub(super) fn reap(&mut self) -> Result<usize, DeviceFault> {
        let mut reaped = 0;
        while let Some(done) = self.ring.take_done()? {
            if !self.shaped_in_flight.is_empty() {
                self.shaped_in_flight.retain(|head| *head != done);
            }
            self.ring.release(done);
            reaped += 1;
        }
        if self.shaped_in_flight.is_empty() {
            self.cursor = self.shaped.start;
        }
        Ok(reaped)
    }

    /// If frames found no room: asks for an interrupt once half of those in flight are sent; true if they are.
    pub(super) fn arm(&mut self) -> bool {
        std::mem::take(&mut self.starved) && self.ring.arm((self.ring.chains_in_flight() / 2).max(1))
    }
}

/// The header of a frame that asks for nothing (virtio 1.2 §5.1.6.2: the driver sets `num_buffers` to 0).
pub(super) const PLAIN: [u8; net_header::LEN] = NetHeader::plain(0).to_bytes();
