//! Room that was claimed in a receiveq: written, then published.

use super::{
    ToGuest,
    claim::NoRoom,
    scatter::{MakeHead, Scatter, Stream},
};
use crate::{
    device::{
        copy::{ByLane, Lane, Narrow, by_widest_lane},
        fault::PortFault,
        memory::Segment,
        ring::{Frame, Payload, make_visible},
    },
    net_header::{self, NetHeader},
};
use checksum::Sum;
use std::{num::NonZeroU16, slice};

/// How much got room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Granted {
    /// Frames.
    pub frames: u32,
    /// Their bytes, from the destination address on.
    pub bytes: u64,
}

/// Used indices that were published, and of which the driver was not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a driver may be waiting"]
pub struct Published {
    pub(super) old: u16,
    pub(super) new: u16,
}

/// What a lease is kept in. Who reserves keeps it, so that a turn allocates nothing.
#[derive(Debug, Default)]
pub struct Rooms {
    /// Each frame's; behind the first `filled` ones they are old.
    frames: Vec<Room>,
    filled: usize,
    odd: Vec<Odd>,
    /// Those of frames that are cut.
    pub(super) cars: Vec<Car>,
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
    /// That in this place of `Rooms::odd`.
    Odd(u32),
}

/// A room that is not one chain in one piece.
#[derive(Debug)]
pub(super) enum Odd {
    /// Several chains, or in several pieces.
    Many(Car),
    /// Of a frame that is cut: the rooms' cars from `first` to before `end`.
    Train { first: usize, end: usize },
    /// None.
    No(NoRoom),
}

/// Room of any shape for one frame: the rooms' segments from `first` to before `end`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Car {
    pub(super) chains: NonZeroU16,
    pub(super) first: usize,
    pub(super) end: usize,
}

impl Rooms {
    /// Whether the frame that was asked for in place `place` got room, as of the last claim.
    #[cold]
    pub fn got(&self, place: usize) -> bool {
        match self.frames().get(place) {
            Some(Room::One(_)) => true,
            Some(Room::Odd(at)) => !matches!(self.odd.get(*at as usize), None | Some(Odd::No(_))),
            None => false,
        }
    }

    /// A claim for about `count` frames begins.
    #[inline(always)]
    pub(super) fn begin(&mut self, count: usize) {
        self.filled = 0;
        self.odd.clear();
        self.cars.clear();
        self.segments.clear();
        self.granted = Granted::default();
        if self.frames.len() < count {
            self.frames.resize_with(count, || Room::Odd(0));
        }
    }

    /// Places for rooms, of which [`Rooms::grant`] says how many were filled.
    #[inline(always)]
    pub(super) fn unfilled(&mut self) -> slice::IterMut<'_, Room> {
        self.frames[self.filled..].iter_mut()
    }

    /// The next `frames` places were filled with rooms for `bytes` bytes.
    #[inline(always)]
    pub(super) fn grant(&mut self, frames: usize, bytes: u64) {
        self.filled += frames;
        self.granted.frames += frames as u32;
        self.granted.bytes += bytes;
    }

    /// The next frame gets no room.
    pub(super) fn refuse(&mut self, why: NoRoom) {
        self.put(Odd::No(why));
    }

    /// Fills the next place.
    pub(super) fn put(&mut self, odd: Odd) {
        let room = Room::Odd(self.odd.len() as u32);
        self.odd.push(odd);
        match self.frames.get_mut(self.filled) {
            Some(place) => *place = room,
            None => self.frames.push(room),
        }
        self.filled += 1;
    }

    #[inline(always)]
    fn frames(&self) -> &[Room] {
        &self.frames[..self.filled]
    }

    /// The rooms of a frame: one, or those of the frames that it is cut into.
    fn cars<'a>(&'a self, room: &'a Room) -> Result<(&'a [Segment], &'a [Car]), NoRoom> {
        match room {
            Room::One(segment) => Ok((slice::from_ref(segment), &[])),
            Room::Odd(place) => match &self.odd[*place as usize] {
                Odd::Many(car) => Ok((&[], slice::from_ref(car))),
                Odd::Train { first, end } => Ok((&[], &self.cars[*first..*end])),
                Odd::No(why) => Err(*why),
            },
        }
    }

    /// The header of what waits in `room` is written, and where the frame goes is returned.
    #[inline(always)]
    fn begin_frame<'a>(&'a self, room: &'a Room) -> Result<Scatter<'a>, NoRoom> {
        let (segments, chains) = match self.cars(room)? {
            (one, []) => (one, 1),
            (_, [car, ..]) => (&self.segments[car.first..car.end], car.chains.get()),
        };
        Ok(Scatter::begin(segments, &NetHeader::plain(chains)))
    }

    #[inline(never)]
    fn write_made(
        &self,
        room: &Room,
        head: &mut [u8],
        frame: &mut Stream<'_>,
        make: &dyn MakeHead,
    ) -> Result<(), NoRoom> {
        let (one, cars) = self.cars(room)?;
        let one = one.first().map(|_| (one, 1)).into_iter();
        let cars = cars.iter().map(|car| (&self.segments[car.first..car.end], car.chains.get()));
        for (number, (segments, chains)) in (0..).zip(one.chain(cars)) {
            // The net header and the head come last: only then is all of the sum known.
            let mut begin = Scatter { segments, offset: 0 };
            let mut behind = begin;
            behind.skip(head.len() as u32);
            let (len, summed) = make.payload(number);
            let sum = if summed {
                frame.copy_summed(len, &mut behind)
            } else {
                frame.copy(len, &mut behind);
                Sum::ZERO
            };
            if let Some((room, head)) = head.split_first_chunk_mut::<{ net_header::LEN }>() {
                let header = make.head(number, sum, head);
                *room = NetHeader { num_buffers: chains, ..header }.to_bytes();
            }
            begin.put(head);
        }
        Ok(())
    }

    #[inline(never)]
    fn write_any(&self, room: &Room, head: &[u8], payload: Payload<'_>) -> Result<(), NoRoom> {
        self.begin_frame(room)?.put_all(head, payload);
        Ok(())
    }
}

/// A room that is one buffer, if it holds a frame whose `head` is all of it.
#[inline(always)]
fn room_of<'r, 'h>(room: &'r Room, head: Option<&'h [u8]>) -> Option<(&'r Segment, &'h [u8])> {
    let (Room::One(segment), Some(head)) = (room, head) else { return None };
    (head.len() + net_header::LEN <= segment.len() as usize).then_some((segment, head))
}

/// Writes a frame whose `head` is all of it into a room that is one buffer. False if it is not so.
#[inline(always)]
fn write_short<L: Lane>(room: &Room, head: Option<&[u8]>) -> bool {
    let Some((segment, head)) = room_of(room, head) else { return false };
    segment.write_if_unlike(&const { NetHeader::plain(1).to_bytes() });
    segment.write::<L>(net_header::LEN as u32, head);
    true
}

/// A change of frames in front. A trait, as a closure is not always inlined.
pub trait FrontChange<const N: usize> {
    /// From where on a frame is written as it came, before the [front](Self::front).
    fn same_from(&self) -> usize;

    /// Puts what stands before that into the room of a frame that begins so, and what else changes. False if [all](Self::all) of the head is to be
    /// written instead.
    fn front(&self, head: &[u8], room: &Front<'_>) -> bool;

    /// Writes to the start of `out` what is to be sent instead of a head; returns how many bytes that are.
    fn all(&self, head: &[u8], out: &mut [u8; N]) -> usize;
}

/// A frame's room, while it is written.
#[derive(Debug)]
pub struct Front<'r>(&'r Segment);

impl Front<'_> {
    /// Writes a few bytes where they stand in the frame.
    #[inline(always)]
    pub fn put(&self, at: usize, bytes: &[u8]) {
        self.0.write::<Narrow>((net_header::LEN + at) as u32, bytes);
    }
}

/// Claimed room in a receiveq: write every frame that got room, then publish. Dropped unpublished (a panic), it is
/// published as it is, with a true header, so that no gap stays in the used ring.
#[derive(Debug)]
#[must_use = "buffers that are claimed must be published"]
pub struct Lease<'r> {
    ring: &'r ToGuest,
    rooms: &'r mut Rooms,
    number: u64,
    /// The used index behind its places.
    end: u16,
    /// Rooms that nothing was written to yet.
    unwritten: u32,
    ended: bool,
}

impl<'r> Lease<'r> {
    #[inline(always)]
    pub(super) fn new(ring: &'r ToGuest, rooms: &'r mut Rooms, number: u64, end: u16) -> Self {
        Self { ring, number, end, unwritten: rooms.granted.frames, rooms, ended: false }
    }

    /// How much got room.
    pub fn granted(&self) -> Granted {
        self.rooms.granted
    }

    /// Whether frame `place` got room.
    pub fn room(&self, place: usize) -> Result<(), NoRoom> {
        match self.rooms.frames().get(place) {
            Some(Room::One(_)) => Ok(()),
            Some(Room::Odd(place)) => match self.rooms.odd[*place as usize] {
                Odd::Many(_) | Odd::Train { .. } => Ok(()),
                Odd::No(why) => Err(why),
            },
            None => Err(NoRoom::Empty),
        }
    }

    /// Writes frame `place`, if it got room: `head`, then `payload`. Its length must be what was reserved; what is too
    /// long is cut, and what is missing stays as it was in the guest's buffer.
    pub fn write(&mut self, place: usize, head: &[u8], payload: Payload<'_>) -> Result<(), NoRoom> {
        let room = self.rooms.frames().get(place).ok_or(NoRoom::Empty)?;
        self.rooms.write_any(room, head, payload)?;
        self.unwritten = self.unwritten.saturating_sub(1);
        Ok(())
    }

    /// Writes frame `place`, if it got room: once, or once for each frame that it is cut into, a net header and a head that `make` makes in
    /// `head`, which is room for the net header and then the head; and behind them what it takes off `frame`.
    pub fn write_made(
        &mut self,
        place: usize,
        head: &mut [u8],
        mut frame: Stream<'_>,
        make: &dyn MakeHead,
    ) -> Result<(), NoRoom> {
        let room = self.rooms.frames().get(place).ok_or(NoRoom::Empty)?;
        self.rooms.write_made(room, head, &mut frame, make)?;
        self.unwritten = self.unwritten.saturating_sub(1);
        Ok(())
    }

    /// As [`Lease::write`], the frames from `place` on. Of each that got no room, `lost` is told why.
    #[inline(always)]
    pub fn write_frames<'f>(
        &mut self,
        place: usize,
        frames: impl Iterator<Item = Frame<'f>>,
        lost: impl FnMut(NoRoom),
    ) {
        by_widest_lane(WriteFrames { lease: self, place, frames, lost });
    }

    /// The same of frames that are changed: `edit` writes to the start of the room for it what is to be sent instead of a head, and returns how many
    /// bytes that are. What got no room is asked [later](Self::room). What stands in `edited` does not matter.
    #[inline(always)]
    pub fn write_edited<'f, const N: usize>(
        &mut self,
        place: usize,
        frames: impl Iterator<Item = Frame<'f>>,
        edit: impl Fn(&[u8], &mut [u8; N]) -> usize,
        edited: &mut Edited<N>,
    ) {
        by_widest_lane(WriteEdited { lease: self, place, frames, edit, edited });
    }

    /// The same of frames that change only in front.
    #[inline(always)]
    pub fn write_fronts<'f, const N: usize>(
        &mut self,
        place: usize,
        frames: impl Iterator<Item = Frame<'f>>,
        change: &impl FrontChange<N>,
        edited: &mut Edited<N>,
    ) {
        by_widest_lane(WriteFronts { lease: self, place, frames, change, edited });
    }

    /// Hands the written frames to the guest, which is to be [told](ToGuest::notify) of it. Fails if its memory vanished meanwhile.
    #[inline(always)]
    pub fn publish(mut self) -> Result<Published, PortFault> {
        let published = self.end();
        if self.ring.ring.memory().vanished() { Err(PortFault::MemoryVanished) } else { Ok(published) }
    }

    #[inline(always)]
    fn end(&mut self) -> Published {
        self.ended = true;
        if self.unwritten > 0 {
            self.true_headers();
        }
        self.ring.end(self.number, (self.rooms.granted.frames > 0).then_some(self.end))
    }

    /// A driver that joins merged buffers needs a true count, whatever the frame holds. Those that were written have it.
    #[cold]
    fn true_headers(&self) {
        for room in self.rooms.frames() {
            let Ok((one, cars)) = self.rooms.cars(room) else { continue };
            let cars = cars.iter().map(|car| (&self.rooms.segments[car.first..car.end], car.chains.get()));
            for (segments, chains) in one.first().map(|_| (one, 1)).into_iter().chain(cars) {
                Scatter::begin(segments, &NetHeader::plain(chains));
            }
        }
    }
}

/// Frames that are edited before the first of them is written: what is written byte by byte can be read in wide words only after a while.
const EDITED: usize = 8;

/// Where [edited](Lease::write_edited) heads stand meanwhile.
#[derive(Debug)]
pub struct Edited<const N: usize>([[u8; N]; EDITED]);

impl<const N: usize> Default for Edited<N> {
    fn default() -> Self {
        Self([[0; N]; EDITED])
    }
}

/// Writes frames into the rooms from `place` on.
struct WriteFrames<'l, 'r, I, F> {
    lease: &'l mut Lease<'r>,
    place: usize,
    frames: I,
    lost: F,
}

impl<'f, I: Iterator<Item = Frame<'f>>, F: FnMut(NoRoom)> ByLane for WriteFrames<'_, '_, I, F> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { lease, place, frames, mut lost } = self;
        let mut rooms = lease.rooms.frames()[place..].iter();
        let (before, mut unwritten) = (rooms.len(), 0);
        for frame in frames {
            let Some(room) = rooms.next() else { break };
            if !write_short::<L>(room, frame.short())
                && let Err(why) = lease.rooms.write_any(room, frame.head(), frame.payload())
            {
                lost(why);
                unwritten += 1;
            }
        }
        let written = before - rooms.len() - unwritten;
        lease.unwritten = lease.unwritten.saturating_sub(written as u32);
    }
}

/// Writes frames whose heads are changed into the rooms from `place` on.
struct WriteEdited<'l, 'r, I, F, const N: usize> {
    lease: &'l mut Lease<'r>,
    place: usize,
    frames: I,
    edit: F,
    edited: &'l mut Edited<N>,
}

impl<'f, I, F, const N: usize> ByLane for WriteEdited<'_, '_, I, F, N>
where
    I: Iterator<Item = Frame<'f>>,
    F: Fn(&[u8], &mut [u8; N]) -> usize,
{
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { lease, place, mut frames, edit, edited } = self;
        let (mut rooms, mut written) = (lease.rooms.frames()[place..].iter(), 0);
        loop {
            let mut held = [None; EDITED];
            for ((held, edited), frame) in held.iter_mut().zip(&mut edited.0).zip(&mut frames) {
                *held = Some((edit(frame.head(), edited), frame));
            }
            for (held, edited) in held.iter().zip(&edited.0) {
                let (Some((len, frame)), Some(room)) = (held, rooms.next()) else { break };
                let head = edited.get(..*len).unwrap_or_default();
                let is_whole = frame.short().is_some();
                let done = write_short::<L>(room, is_whole.then_some(head))
                    || lease.rooms.write_any(room, head, frame.payload()).is_ok();
                written += u32::from(done);
            }
            if held[EDITED - 1].is_none() {
                break;
            }
        }
        lease.unwritten = lease.unwritten.saturating_sub(written);
    }
}

/// Writes frames that change in front into the rooms from `place` on.
struct WriteFronts<'l, 'r, I, C, const N: usize> {
    lease: &'l mut Lease<'r>,
    place: usize,
    frames: I,
    change: &'l C,
    edited: &'l mut Edited<N>,
}

impl<'f, I, C, const N: usize> ByLane for WriteFronts<'_, '_, I, C, N>
where
    I: Iterator<Item = Frame<'f>>,
    C: FrontChange<N>,
{
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { lease, place, frames, change, edited } = self;
        let (same_from, mut written) = (change.same_from(), 0);
        for (room, frame) in lease.rooms.frames()[place..].iter().zip(frames) {
            let done = room_of(room, frame.short()).is_some_and(|(segment, head)| {
                let Some(same) = head.get(same_from..) else { return false };
                segment.write_if_unlike(&const { NetHeader::plain(1).to_bytes() });
                segment.write::<L>((net_header::LEN + same_from) as u32, same);
                change.front(head, &Front(segment))
            });
            let done = done || {
                let [edited, ..] = &mut edited.0;
                let len = change.all(frame.head(), edited);
                let head = edited.get(..len).unwrap_or_default();
                lease.rooms.write_any(room, head, frame.payload()).is_ok()
            };
            written += u32::from(done);
        }
        lease.unwritten = lease.unwritten.saturating_sub(written);
    }
}

impl Drop for Lease<'_> {
    /// A lease that is not published (a panic came in between) ends all the same; the ring's next user meets what is wrong.
    fn drop(&mut self) {
        if !self.ended {
            let published = self.end();
            make_visible();
            let _ = self.ring.notify(published);
        }
    }
}
