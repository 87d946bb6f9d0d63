//! One batch of frames from one ring: decide, deliver, count. Each stage runs over the whole batch.
//!
//! The counters are computed last, from what the stages left, so that a batch is counted wholly or not at all.

use super::{
    ports::{Life, Ports, Source},
    watches::Watches,
};
use std::ops::Range;
use vhost_net_backend::device::{
    fault::PortFault,
    ring::{Claim, Defect, Frame, FrameHead, FromGuest, Granted, Lease, MAX_BATCH, NoRoom, ToGuest},
};
use vswitch_core::{
    decide::{Copy, Fate, Ingress, Switch, TagEdit},
    drop_reason::DropReason,
    head::{self, HEAD_BYTES},
};

// The backend copies as much of a frame as the switch may judge.
const _: () = assert!(HEAD_BYTES == vhost_net_backend::device::ring::HEAD_BYTES);

/// Copies that one batch may make before it is cut: 64 frames flooded to 512 ports would be 32,768.
const COPY_BUDGET: usize = 2048;

/// Bytes that one batch may deliver before it is cut: about 0.4 ms of copying.
const BYTE_BUDGET: u64 = 4 << 20;

/// Frames in a row of which a copy each waits for delivery, all in the same way.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: u16,
    count: u16,
    /// The place in `Batch::copies` of the first one's copy.
    copy: u32,
    edit: TagEdit,
}

impl Run {
    #[inline(always)]
    fn frames(self) -> Range<usize> {
        usize::from(self.first)..usize::from(self.first) + usize::from(self.count)
    }
}

/// What became of the batch's frames.
#[derive(Debug, Default)]
struct Fates {
    /// Frames that had one, the first of the batch, and their bytes.
    frames: usize,
    bytes: u64,
    unicast: u64,
    flooded: u64,
    flood_copies: u64,
    consumed: u64,
    dropped: Vec<DropReason>,
}

impl Fates {
    fn add(&mut self, fate: Fate, copies: usize) {
        match fate {
            Fate::Unicast => self.unicast += 1,
            Fate::Flooded => {
                self.flooded += 1;
                self.flood_copies += copies as u64;
            }
            Fate::Consumed => self.consumed += 1,
            Fate::Dropped(reason) => self.dropped.push(reason),
        }
    }

    fn clear(&mut self) {
        let mut dropped = std::mem::take(&mut self.dropped);
        dropped.clear();
        *self = Self { dropped, ..Self::default() };
    }
}

/// What waits for one destination, and then what came of it.
#[derive(Debug, Default)]
struct Heap {
    runs: Vec<Run>,
    frames: usize,
    delivered: Granted,
}

/// What the stages leave for each other; kept, so that a turn allocates nothing.
#[derive(Default)]
pub(super) struct Batch {
    fates: Fates,
    /// Those of frames that were decided, not of those that were like the one before. Why one was lost is noted here for the
    /// watches, under which every frame is decided.
    copies: Vec<Copy>,
    /// By place of the destination port.
    heaps: Vec<Heap>,
    /// Destinations whose heaps have runs.
    touched: Vec<u16>,
    /// Copies that are not delivered: where to, and why.
    lost: Vec<(u16, DropReason)>,
    /// Ports that turned out to be broken.
    faults: Vec<(u16, PortFault)>,
}

impl Batch {
    /// Takes a batch off `sources[which]` and moves it; returns how many frames had a fate. An error stops the source.
    pub(super) fn run(
        &mut self,
        switch: &Switch<'_>,
        ports: &mut Ports,
        which: usize,
        watches: &mut Watches,
    ) -> Result<usize, PortFault> {
        self.clear(ports.destinations.len());
        let Source { port, ring } = &mut ports.sources[which];
        let port = *port;
        if ring.harvest(MAX_BATCH)? == 0 {
            return Ok(0);
        }
        #[cfg(feature = "injection")]
        super::injection::panic_if_asked(&mut ports.lives, port);
        self.decide(switch, port, ring, watches);
        self.deliver(ring, &ports.destinations);
        watches.close(&self.copies);
        self.count(port, &mut ports.lives);
        ring.finish(self.fates.frames);
        self.faults.extend(ring.notify().err().map(|why| (port, why)));
        for (port, why) in self.faults.drain(..) {
            ports.stop(port, why);
        }
        Ok(self.fates.frames)
    }

    /// Forgets the last batch, also one that a panic cut short.
    pub(super) fn clear(&mut self, ports: usize) {
        self.fates.clear();
        self.copies.clear();
        for port in self.touched.drain(..) {
            let heap = &mut self.heaps[usize::from(port)];
            heap.runs.clear();
            heap.frames = 0;
            heap.delivered = Granted::default();
        }
        self.lost.clear();
        self.faults.clear();
        self.heaps.resize_with(ports.max(self.heaps.len()), Heap::default);
    }

    /// Decides about the batch, until a budget is used up, and puts each copy on its destination's heap.
    fn decide(&mut self, switch: &Switch<'_>, port: u16, ring: &FromGuest, watches: &mut Watches) {
        let mut ingress = Ingress::new(*switch, port);
        let watched = watches.any();
        let (mut place, mut copies, mut copied) = (0, 0, 0);
        while place < ring.batch_len() && copies < COPY_BUDGET && copied < BYTE_BUDGET {
            let FrameHead { bytes, len, defect } = ring.head(place);
            let first = self.copies.len();
            let fate = match defect.map(drop_reason) {
                Some(reason) => Fate::Dropped(reason),
                None if watched => watches.decide(switch, port, bytes, len, &mut self.copies),
                None => ingress.decide(bytes, len, &mut self.copies),
            };
            self.fates.bytes += u64::from(len);
            self.fates.add(fate, self.copies.len() - first);
            copies += self.copies.len() - first;
            copied += u64::from(len) * (self.copies.len() - first) as u64;
            // What is like this one needs no decision of its own.
            let mut count = 1;
            while defect.is_none()
                && let next = place + count
                && next < ring.batch_len()
                && copied < BYTE_BUDGET
                && let FrameHead { bytes, len, defect: None } = ring.head(next)
                && ingress.repeats(bytes, len)
            {
                self.fates.bytes += u64::from(len);
                copied += u64::from(len);
                count += 1;
            }
            copies += count - 1;
            self.fates.unicast += count as u64 - 1;
            self.heap(first, place, count);
            place += count;
        }
        self.fates.frames = place;
    }

    /// Puts the copies from `first` on, of the `count` frames from `place` on, on their destinations' heaps.
    #[inline(always)]
    fn heap(&mut self, first: usize, place: usize, count: usize) {
        for (at, copy) in self.copies.iter().enumerate().skip(first) {
            match copy.outcome {
                Ok(edit) => {
                    let heap = &mut self.heaps[usize::from(copy.to)];
                    if heap.runs.is_empty() {
                        self.touched.push(copy.to);
                    }
                    heap.runs.push(Run { first: place as u16, count: count as u16, copy: at as u32, edit });
                    heap.frames += count;
                }
                Err(reason) => self.lost.push((copy.to, reason)),
            }
        }
    }

    fn deliver(&mut self, ring: &FromGuest, destinations: &[Vec<ToGuest>]) {
        for &port in &self.touched {
            let heap = &mut self.heaps[usize::from(port)];
            let lost_before = self.lost.len();
            // Receive queues beyond the first wait for a guest that spreads its flows over them.
            let outcome = match destinations.get(usize::from(port)).and_then(|rings| rings.first()) {
                Some(to) => fill(to, ring, heap, |run, reason| {
                    self.copies[run.copy as usize].outcome = Err(reason);
                    self.lost.push((port, reason));
                }),
                None => Err(None),
            };
            match outcome {
                Ok(granted) => heap.delivered = granted,
                Err(fault) => {
                    self.lost.truncate(lost_before);
                    self.lost.extend(std::iter::repeat_n((port, DropReason::PortDown), heap.frames));
                    for run in &heap.runs {
                        self.copies[run.copy as usize].outcome = Err(DropReason::PortDown);
                    }
                    self.faults.extend(fault.map(|why| (port, why)));
                }
            }
        }
    }

    fn count(&self, port: u16, lives: &mut [Option<Life>]) {
        for &to in &self.touched {
            let Some(Some(life)) = lives.get_mut(usize::from(to)) else { continue };
            let Granted { frames, bytes } = self.heaps[usize::from(to)].delivered;
            life.counters.copies += u64::from(frames);
            life.counters.delivered += u64::from(frames);
            life.counters.delivered_bytes += bytes;
        }
        for (to, reason) in &self.lost {
            let Some(Some(life)) = lives.get_mut(usize::from(*to)) else { continue };
            life.counters.copies += 1;
            life.counters.dropped_out.count(*reason);
        }
        let Some(Some(life)) = lives.get_mut(usize::from(port)) else { return };
        let Fates { frames, bytes, unicast, flooded, flood_copies, consumed, dropped } = &self.fates;
        life.counters.frames += *frames as u64;
        life.counters.bytes += bytes;
        life.counters.unicast += unicast;
        life.counters.flooded += flooded;
        life.counters.flood_copies += flood_copies;
        life.counters.consumed += consumed;
        dropped.iter().for_each(|reason| life.counters.dropped_in.count(*reason));
    }
}

/// Writes a heap's frames into one ring, says what got no room, and tells the guest. An error with a fault means that the
/// destination is broken, one without that it is not there.
#[inline(always)]
fn fill(
    to: &ToGuest,
    from: &FromGuest,
    heap: &Heap,
    mut lost: impl FnMut(&Run, DropReason),
) -> Result<Granted, Option<PortFault>> {
    let ask = |room: &mut Claim<'_>| {
        for run in &heap.runs {
            match run.edit {
                TagEdit::Keep => room.frames(run.frames().map(|frame| from.len(frame))),
                edit => room.frames(run.frames().map(|frame| edit.frame_len(from.len(frame)))),
            }
        }
    };
    let mut lease = to.reserve(heap.frames, ask).map_err(Some)?;
    let mut place = 0;
    for run in &heap.runs {
        for frame in run.frames() {
            let written = match run.edit {
                TagEdit::Keep => lease.write(place, from.head(frame).bytes, from.payload(frame)),
                edit => write_edited(&mut lease, place, &from.frame(frame), edit),
            };
            match written {
                Ok(()) => {}
                Err(NoRoom::Empty) => lost(run, DropReason::NoBuffer),
                Err(NoRoom::TooSmall) => lost(run, DropReason::BufferTooSmall),
            }
            place += 1;
        }
    }
    let granted = lease.granted();
    lease.publish().map(|()| granted).map_err(Some)
}

#[inline(never)]
fn write_edited(lease: &mut Lease<'_>, place: usize, frame: &Frame<'_>, edit: TagEdit) -> Result<(), NoRoom> {
    let mut edited = [0; HEAD_BYTES + head::TAG_LEN];
    let length = edit.apply(frame.head, &mut edited);
    lease.write(place, &edited[..length], frame.payload)
}

/// What makes a chain no frame, in the switch's words.
fn drop_reason(defect: Defect) -> DropReason {
    match defect {
        Defect::Oversize => DropReason::Oversize,
        Defect::BadDirection => DropReason::BadDirection,
        Defect::BadNetHeader => DropReason::BadNetHeader,
    }
}
