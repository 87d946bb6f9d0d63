//! Claiming room in a receiveq, frame by frame.

use super::{
    State, ToGuest,
    lease::{Car, Chain, Odd, Room, Rooms},
};
use crate::{
    device::{
        memory::Segment,
        ring::{
            LONGEST, MAX_FRAME,
            chain::{self, Direction},
            raw::{place, stretch},
            seen::Row,
        },
    },
    features, net_header, prefetch,
};
use std::{iter, num::NonZeroU16};

/// Descriptors that one `reserve` reads before it stops claiming.
const DESCRIPTOR_BUDGET: u32 = 4096;

/// Chains that one frame may be spread over with MRG_RXBUF. A frame of 64 KiB in buffers of 1.5 KiB takes 44.
const MAX_MERGED: usize = 128;

/// Why a frame got no buffer. The ring is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// The guest has not made enough buffers available.
    Empty,
    /// The frame does not fit a buffer (without MRG_RXBUF), would take more buffers than a frame may, or is longer than
    /// [`MAX_FRAME`](super::super::MAX_FRAME).
    TooSmall,
}

/// Room being claimed in a receiveq.
#[derive(Debug)]
pub struct Claim<'r> {
    ring: &'r ToGuest,
    state: &'r mut State,
    rooms: &'r mut Rooms,
    /// Where the claim began.
    first: u16,
    row: Row,
    /// Chains that the guest had made available when the claim began.
    offered: u16,
    /// Of these, what may still be claimed.
    available: u16,
    /// A frame found none.
    short: bool,
    /// Descriptors that may still be read.
    budget: u32,
    /// What the guest did that no driver may do.
    broken: Option<&'static str>,
}

impl<'r> Claim<'r> {
    #[inline(always)]
    pub(super) fn begin(
        ring: &'r ToGuest,
        state: &'r mut State,
        rooms: &'r mut Rooms,
        (sender, count): (u16, usize),
    ) -> Self {
        rooms.begin(count);
        let first = state.next_avail;
        let asked = ring.ring.avail_index().wrapping_sub(first);
        let broken =
            (asked > ring.common.size.entries()).then_some("avail.idx jumped by more than the ring's size");
        let (offered, available) = if broken.is_none() && !state.leases.all_open() {
            (asked, state.shares.of(sender, asked))
        } else {
            (0, 0)
        };
        let wanted = available.min(u16::try_from(count).unwrap_or(u16::MAX));
        ring.ring.prefetch(stretch(ring.ring.avail(), first, wanted));
        let row = state.seen.begin(place(ring.ring.avail(), first).head());
        Self {
            ring,
            state,
            rooms,
            first,
            row,
            offered,
            available,
            short: false,
            budget: DESCRIPTOR_BUDGET,
            broken,
        }
    }

    /// Ends the claim, which was for `sender`. What the guest did that no driver may do, if it did: then the claim is void.
    #[inline(always)]
    pub(super) fn end(self, sender: u16) -> Option<&'static str> {
        let taken = self.state.next_avail.wrapping_sub(self.first);
        if self.broken.is_none() {
            self.state.shares.took(sender, self.offered, taken, self.short);
        }
        self.broken
    }

    /// Asks for room for a frame of each of these lengths (without net header). [`Lease::room`](super::Lease::room) tells
    /// whether there was any.
    #[inline(always)]
    pub fn frames(&mut self, mut lengths: impl Iterator<Item = u32> + Clone) {
        while let Some(len) = lengths.clone().next() {
            if self.available == 0 {
                return self.no_buffers(lengths);
            }
            let (taken, left) = self.direct_frames(lengths);
            lengths = left;
            if taken == 0 {
                lengths.next();
                self.one_frame(len);
            }
        }
    }

    #[inline(never)]
    fn one_frame(&mut self, len: u32) {
        let first = self.rooms.segments.len();
        self.rooms.chains.clear();
        match self.any_buffers(len) {
            Ok(car) => self.rooms.put(Odd::Many(car)),
            Err(why) => {
                self.rooms.chains.iter().for_each(|chain| self.state.seen.give_back(chain.head));
                self.rooms.segments.truncate(first);
                self.rooms.refuse(why);
            }
        }
    }

    /// Asks for room for one frame that is cut into `count` frames of these lengths: for all of them, or none.
    #[inline(never)]
    pub fn train(&mut self, count: u16, mut lengths: impl Iterator<Item = u32> + Clone) {
        // Each takes one chain at least.
        if count > self.ring.common.size.entries() {
            return self.rooms.refuse(NoRoom::TooSmall);
        }
        if count > self.available {
            self.short = true;
            return self.rooms.refuse(NoRoom::Empty);
        }
        let (before, segments) =
            ((self.state.next_avail, self.state.next_used, self.available), self.rooms.segments.len());
        let (granted, first) = (self.rooms.granted, self.rooms.cars.len());
        self.rooms.chains.clear();
        while let Some(len) = lengths.clone().next().filter(|_| self.broken.is_none()) {
            let (taken, left) = self.direct_cars(lengths);
            lengths = left;
            if taken > 0 {
                continue;
            }
            lengths.next();
            match self.any_buffers(len) {
                Ok(car) => self.rooms.cars.push(car),
                Err(why) => {
                    self.row =
                        self.state.seen.broken(self.row, self.state.next_avail.wrapping_sub(self.first));
                    self.rooms.chains.iter().for_each(|chain| self.state.seen.give_back(chain.head));
                    (self.state.next_avail, self.state.next_used, self.available) = before;
                    self.rooms.segments.truncate(segments);
                    self.rooms.cars.truncate(first);
                    self.rooms.granted = granted;
                    return self.rooms.refuse(why);
                }
            }
        }
        self.rooms.granted.frames = granted.frames + 1;
        self.rooms.put(Odd::Train { first, end: self.rooms.cars.len() });
    }

    /// Claims room while frame after frame fits a chain that is one buffer in one piece, as nearly every one does, and the rings go
    /// on. How many, and the lengths that are left. A function of its own, so that it has the registers for itself.
    #[inline(never)]
    fn direct_frames<L: Iterator<Item = u32> + Clone>(&mut self, lengths: L) -> (u16, L) {
        let Self { ring, state, rooms, first, row, available, .. } = self;
        let before = state.next_avail.wrapping_sub(*first);
        let places = rooms.unfilled();
        let put = |place: &mut Room, _, segment| *place = Room::One(segment);
        let (taken, bytes, left) = direct(ring, state, (row, before, *available), lengths, places, put);
        rooms.grant(taken.into(), bytes);
        self.take(taken);
        (taken, left)
    }

    /// The same of the frames that one is cut into.
    #[inline(never)]
    fn direct_cars<L: Iterator<Item = u32> + Clone>(&mut self, lengths: L) -> (u16, L) {
        let Self { ring, state, rooms, first, row, available, .. } = self;
        let before = state.next_avail.wrapping_sub(*first);
        let Rooms { cars, segments, chains, granted, .. } = &mut **rooms;
        let put = |(), head, segment: Segment| {
            chains.push(Chain { head, bytes: segment.len() });
            let first = segments.len();
            segments.push(segment);
            cars.push(Car { chains: NonZeroU16::MIN, first, end: first + 1 });
        };
        let places = iter::repeat(());
        let (taken, bytes, left) = direct(ring, state, (row, before, *available), lengths, places, put);
        granted.bytes += bytes;
        self.take(taken);
        (taken, left)
    }

    fn take(&mut self, chains: u16) {
        self.available -= chains;
        self.state.next_avail = self.state.next_avail.wrapping_add(chains);
        self.state.next_used = self.state.next_used.wrapping_add(chains);
    }

    /// None of these frames finds room, and nothing of the ring need be looked at to say so.
    #[cold]
    fn no_buffers(&mut self, lengths: impl Iterator<Item = u32>) {
        self.short = true;
        let why = |len| if len > MAX_FRAME { NoRoom::TooSmall } else { NoRoom::Empty };
        lengths.for_each(|len| self.rooms.refuse(why(len)));
    }

    /// Claims room for one frame in as many chains as it takes, of any shape. Those that are taken join the rooms' chains, also if it
    /// gets none; then they are to be given back.
    #[inline(never)]
    fn any_buffers(&mut self, len: u32) -> Result<Car, NoRoom> {
        self.row = self.state.seen.broken(self.row, self.state.next_avail.wrapping_sub(self.first));
        let total = len.saturating_add(net_header::LEN as u32);
        let (first, before) = (self.rooms.segments.len(), self.rooms.chains.len());
        let chains = match self.take_chains(total) {
            Ok(taken) => taken.inspect_err(|why| self.short |= *why == NoRoom::Empty)?,
            Err(what) => {
                self.broken = self.broken.or(Some(what));
                // The claim is void, whatever is said of this frame.
                return Err(NoRoom::Empty);
            }
        };
        let mut left = total;
        for (n, chain) in (0..).zip(&self.rooms.chains[before..]) {
            let here = left.min(chain.bytes);
            place(self.ring.ring.used(), self.state.next_used.wrapping_add(n)).write(chain.head, here);
            left -= here;
        }
        self.rooms.granted.frames += 1;
        self.rooms.granted.bytes += u64::from(len);
        self.take(chains.get());
        Ok(Car { chains, first, end: self.rooms.segments.len() })
    }

    /// Takes chains until they hold `total` bytes; how many. Those that were taken are in the rooms, whatever comes of it.
    fn take_chains(&mut self, total: u32) -> Result<Result<NonZeroU16, NoRoom>, &'static str> {
        let Self { ring, state, rooms, available, budget, row, .. } = self;
        let mergeable = ring.common.has(features::NET_MRG_RXBUF);
        if total > LONGEST {
            return Ok(Err(NoRoom::TooSmall));
        }
        let mut room = 0u32;
        let mut taken = 0u16;
        loop {
            // First: what does not fit will not fit either once there are more buffers.
            if usize::from(taken) == MAX_MERGED || (taken > 0 && !mergeable) {
                return Ok(Err(NoRoom::TooSmall));
            }
            if taken == *available || *budget == 0 {
                return Ok(Err(NoRoom::Empty));
            }
            let head = place(ring.ring.avail(), state.next_avail.wrapping_add(taken)).head();
            *row = state.seen.take(*row, 0, head).ok_or_else(|| state.seen.why_not(head))?;
            let hint = &mut state.region_hint;
            let walked = chain::walk(&ring.ring, head, Direction::DeviceWrites, hint, &mut rooms.segments)?;
            if !walked.direction_ok {
                return Err("a receive buffer is not writable for the device");
            }
            *budget = budget.saturating_sub(u32::from(walked.descriptors));
            rooms.chains.push(Chain { head, bytes: walked.bytes });
            taken += 1;
            room = room.saturating_add(walked.bytes);
            // The header lies whole in the first chain (virtio 1.2 §5.1.6.3.1).
            if taken == 1 && (walked.bytes as usize) < net_header::LEN {
                return Ok(Err(NoRoom::TooSmall));
            }
            if let Some(chains) = NonZeroU16::new(taken).filter(|_| room >= total) {
                return Ok(Ok(chains));
            }
        }
    }
}

/// Claims chains that are one buffer in one piece, while they are and the rings go on: one for each of `lengths` and `places`. How many, the
/// bytes of the frames that go there, and the lengths that are left.
#[inline(always)]
fn direct<L: Iterator<Item = u32> + Clone, P>(
    ToGuest { ring, .. }: &ToGuest,
    state: &mut State,
    (row, before, available): (&mut Row, u16, u16),
    mut lengths: L,
    places: impl Iterator<Item = P>,
    mut put: impl FnMut(P, u16, Segment),
) -> (u16, u64, L) {
    let avail = stretch(ring.avail(), state.next_avail, available);
    let used = stretch(ring.used(), state.next_used, available);
    let (descriptors, window) = (ring.descriptors(), ring.memory().window(state.region_hint));
    let (mut taken, mut bytes, mut heads) = (0u16, 0u64, *row);
    for ((entry, element), place) in avail.iter().zip(used).zip(places) {
        let mut ahead = lengths.clone();
        let Some(len) = ahead.next().filter(|len| *len <= MAX_FRAME) else { break };
        let total = len + net_header::LEN as u32;
        let head = entry.head();
        let Some(segment) = chain::direct(descriptors, head, Direction::DeviceWrites, window, total) else {
            break;
        };
        let Some(row) = state.seen.take(heads, before.wrapping_add(taken), head) else { break };
        heads = row;
        // The driver does not look at this place before the lease is published.
        element.write(head, total);
        // The lines of header and head; what follows comes in a run that the CPU foresees.
        prefetch::to_write(segment.host());
        put(place, head, segment);
        taken += 1;
        bytes += u64::from(len);
        lengths = ahead;
    }
    *row = heads;
    (taken, bytes, lengths)
}
