//! One batch of frames from one ring: parse, decide, deliver, count. Each stage runs over the whole batch.
//!
//! The counters are computed last, from what the stages left, so that a batch is counted wholly or not at all.

use super::{
    ports::{Life, Ports, Source},
    watches::Watches,
};
use std::ops::Range;
use vhost_net_backend::device::{
    fault::PortFault,
    ring::{Defect, Frame, FromGuest, MAX_BATCH, NoRoom, ToGuest},
};
use vswitch_core::{
    decide::{Copy, Fate, Switch, TagEdit},
    drop_reason::DropReason,
    head::{self, HEAD_BYTES, Head},
    trace::NoTrace,
};

// The backend copies as much of a frame as the switch may judge.
const _: () = assert!(HEAD_BYTES == vhost_net_backend::device::ring::HEAD_BYTES);

/// Copies that one batch may make before it is cut: 64 frames flooded to 512 ports would be 32,768.
const COPY_BUDGET: usize = 2048;

/// Bytes that one batch may deliver before it is cut: about 0.4 ms of copying.
const BYTE_BUDGET: u64 = 4 << 20;

/// A copy of frame `frame` that waits for delivery.
#[derive(Debug, Clone, Copy)]
struct Ticket {
    frame: u16,
    copy: u32,
    edit: TagEdit,
}

/// What the stages leave for each other; kept, so that a turn allocates nothing.
#[derive(Default)]
pub(super) struct Batch {
    heads: Vec<Result<Head, DropReason>>,
    fates: Vec<(Fate, Range<u32>)>,
    copies: Vec<Copy>,
    /// For each copy: why it was not delivered.
    lost: Vec<Option<DropReason>>,
    /// By place of the destination port.
    tickets: Vec<Vec<Ticket>>,
    /// Destinations that have tickets.
    touched: Vec<u16>,
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
        self.parse(ring);
        self.decide(switch, port, ring, watches);
        self.deliver(ring, &ports.destinations);
        let decided = self.fates.len();
        watches.close(&self.lost);
        self.count(ring, port, &mut ports.lives);
        ring.finish(decided);
        self.faults.extend(ring.notify().err().map(|why| (port, why)));
        for (port, why) in self.faults.drain(..) {
            ports.stop(port, why);
        }
        Ok(decided)
    }

    /// Forgets a batch that a panic cut short.
    pub(super) fn clear(&mut self, ports: usize) {
        self.heads.clear();
        self.fates.clear();
        self.copies.clear();
        self.lost.clear();
        for port in self.touched.drain(..) {
            self.tickets[usize::from(port)].clear();
        }
        self.faults.clear();
        self.tickets.resize_with(ports.max(self.tickets.len()), Vec::new);
    }

    fn parse(&mut self, ring: &FromGuest) {
        for place in 0..ring.batch_len() {
            let frame = ring.frame(place);
            self.heads.push(match frame.defect {
                None => Head::parse(frame.head, frame.len),
                Some(Defect::Oversize) => Err(DropReason::Oversize),
                Some(Defect::BadDirection) => Err(DropReason::BadDirection),
                Some(Defect::BadNetHeader) => Err(DropReason::BadNetHeader),
            });
        }
    }

    fn decide(&mut self, switch: &Switch<'_>, port: u16, ring: &FromGuest, watches: &mut Watches) {
        let mut bytes = 0;
        for (place, head) in self.heads.iter().enumerate() {
            if self.copies.len() >= COPY_BUDGET || bytes >= BYTE_BUDGET {
                break;
            }
            let len = ring.frame(place).len;
            let first = self.copies.len() as u32;
            let fate = match head {
                Err(reason) => Fate::Dropped(*reason),
                Ok(head) if watches.any() => {
                    watches.decide(switch, port, head, &ring.frame(place), &mut self.copies)
                }
                Ok(head) => switch.decide(port, head, len, &mut self.copies, &mut NoTrace),
            };
            let copies = first..self.copies.len() as u32;
            bytes += u64::from(len) * u64::from(copies.end - copies.start);
            self.fates.push((fate, copies));
        }
    }

    fn deliver(&mut self, ring: &FromGuest, destinations: &[Vec<ToGuest>]) {
        for (frame, (_, copies)) in self.fates.iter().enumerate() {
            for at in copies.clone() {
                let copy = &self.copies[at as usize];
                self.lost.push(copy.outcome.err());
                let Ok(edit) = copy.outcome else { continue };
                let waiting = &mut self.tickets[usize::from(copy.to)];
                if waiting.is_empty() {
                    self.touched.push(copy.to);
                }
                waiting.push(Ticket { frame: frame as u16, copy: at, edit });
            }
        }
        for at in 0..self.touched.len() {
            let port = self.touched[at];
            let tickets = &self.tickets[usize::from(port)];
            // Receive queues beyond the first wait for a guest that spreads its flows over them.
            let outcome = match destinations.get(usize::from(port)).and_then(|rings| rings.first()) {
                Some(to) => fill(to, ring, tickets, &mut self.lost),
                None => Err(None),
            };
            if let Err(fault) = outcome {
                for ticket in tickets {
                    self.lost[ticket.copy as usize] = Some(DropReason::PortDown);
                }
                self.faults.extend(fault.map(|why| (port, why)));
            }
        }
    }

    fn count(&self, ring: &FromGuest, port: u16, lives: &mut [Option<Life>]) {
        let mut bytes = 0;
        for (place, (fate, copies)) in self.fates.iter().enumerate() {
            let len = u64::from(ring.frame(place).len);
            bytes += len;
            for at in copies.clone() {
                let copy = &self.copies[at as usize];
                let Some(Some(life)) = lives.get_mut(usize::from(copy.to)) else { continue };
                life.counters.copies += 1;
                match (self.lost[at as usize], copy.outcome) {
                    (None, Ok(edit)) => {
                        life.counters.delivered += 1;
                        life.counters.delivered_bytes += u64::from(edit.frame_len(len as u32));
                    }
                    (Some(reason), _) | (None, Err(reason)) => life.counters.dropped_out.count(reason),
                }
            }
            let Some(Some(life)) = lives.get_mut(usize::from(port)) else { continue };
            match fate {
                Fate::Unicast => life.counters.unicast += 1,
                Fate::Flooded => {
                    life.counters.flooded += 1;
                    life.counters.flood_copies += u64::from(copies.end - copies.start);
                }
                Fate::Consumed => life.counters.consumed += 1,
                Fate::Dropped(reason) => life.counters.dropped_in.count(*reason),
            }
        }
        if let Some(Some(life)) = lives.get_mut(usize::from(port)) {
            life.counters.frames += self.fates.len() as u64;
            life.counters.bytes += bytes;
        }
    }
}

/// Writes the tickets' frames into one ring, notes what got no room, and tells the guest. An error with a fault means
/// that the destination is broken, one without that it is not there.
fn fill(
    to: &ToGuest,
    from: &FromGuest,
    tickets: &[Ticket],
    lost: &mut [Option<DropReason>],
) -> Result<(), Option<PortFault>> {
    let lengths =
        tickets.iter().map(|ticket| ticket.edit.frame_len(from.frame(usize::from(ticket.frame)).len));
    let mut lease = to.reserve(lengths).map_err(Some)?;
    for (place, ticket) in tickets.iter().enumerate() {
        let Frame { head, payload, .. } = from.frame(usize::from(ticket.frame));
        match lease.room(place) {
            Ok(()) if ticket.edit == TagEdit::Keep => lease.write(place, head, payload),
            Ok(()) => {
                let mut edited = [0; HEAD_BYTES + head::TAG_LEN];
                let length = ticket.edit.apply(head, &mut edited);
                lease.write(place, &edited[..length], payload);
            }
            Err(NoRoom::Empty) => lost[ticket.copy as usize] = Some(DropReason::NoBuffer),
            Err(NoRoom::TooSmall) => lost[ticket.copy as usize] = Some(DropReason::BufferTooSmall),
        }
    }
    lease.publish().map_err(Some)
}
