//! How captured frames get from a worker to a writer: a ring of bytes, and a bell for a writer that sleeps.

use rtrb::{Consumer, Producer, RingBuffer};
use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
};
use vswitch_core::drop_reason::DropReason;

/// Bytes that wait for a writer at most, in the rings of all workers together; and how small a ring may be: several of the
/// longest frames.
const RING_BYTES: usize = 4 << 20;
const SMALLEST_RING: usize = 256 << 10;

/// Which way a frame went, seen from the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The guest sent it.
    FromPort,
    /// The guest got it.
    ToPort,
}

/// What is known of a captured frame besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// When its turn began, in nanoseconds since the worker's origin.
    pub(super) at_nanos: u64,
    /// Frames that this worker did not capture so far, for want of room in its ring.
    pub(super) missed: u64,
    /// The frame's length.
    pub(super) len: u32,
    /// How much of it was captured.
    pub(super) captured: u32,
    pub(super) direction: Direction,
    /// Why the switch dropped it, if it did.
    pub(super) dropped: Option<DropReason>,
}

/// Bytes of a record in front of the frame's.
pub(super) const FACTS_BYTES: usize = 26;

impl Facts {
    pub(super) fn to_bytes(self) -> [u8; FACTS_BYTES] {
        let mut bytes = [0; FACTS_BYTES];
        bytes[..8].copy_from_slice(&self.at_nanos.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.missed.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.len.to_ne_bytes());
        bytes[20..24].copy_from_slice(&self.captured.to_ne_bytes());
        bytes[24] = self.direction as u8;
        bytes[25] = self.dropped.map_or(u8::MAX, |reason| reason.index() as u8);
        bytes
    }

    fn from_bytes(bytes: &[u8; FACTS_BYTES]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, m0, m1, m2, m3, m4, m5, m6, m7, rest @ ..] = *bytes;
        let [l0, l1, l2, l3, c0, c1, c2, c3, direction, dropped] = rest;
        Self {
            at_nanos: u64::from_ne_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            missed: u64::from_ne_bytes([m0, m1, m2, m3, m4, m5, m6, m7]),
            len: u32::from_ne_bytes([l0, l1, l2, l3]),
            captured: u32::from_ne_bytes([c0, c1, c2, c3]),
            direction: if direction == Direction::FromPort as u8 {
                Direction::FromPort
            } else {
                Direction::ToPort
            },
            dropped: DropReason::ALL.get(usize::from(dropped)).copied(),
        }
    }
}

/// What all ends see.
struct Shared {
    /// The writer sleeps, or is about to.
    asleep: AtomicBool,
    /// What wakes it; never blocks.
    bell: OwnedFd,
    missed: AtomicU64,
}

/// A worker's end.
pub(crate) struct Sender {
    // The order matters: the reader is woken by the second field when the first says that nothing more comes.
    ring: Producer<u8>,
    wake: Wake,
    missed: u64,
}

/// Wakes the writer, also when it goes.
struct Wake(Arc<Shared>);

/// The writer's end.
pub(super) struct Receiver {
    lanes: Vec<Lane>,
    shared: Arc<Shared>,
}

/// What comes from one worker.
struct Lane {
    ring: Consumer<u8>,
    /// Of the record whose bytes come next.
    next: Option<Facts>,
    /// [`Facts::missed`] of the record before.
    missed: u64,
}

/// A ring for each of so many workers. Fails if the process has no descriptor left.
pub(super) fn records(workers: usize) -> io::Result<(Vec<Sender>, Receiver)> {
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let shared = Arc::new(Shared { asleep: AtomicBool::new(false), bell, missed: AtomicU64::new(0) });
    let bytes = (RING_BYTES / workers.max(1)).max(SMALLEST_RING);
    let ring = |_| {
        let (producer, consumer) = RingBuffer::new(bytes);
        let sender = Sender { ring: producer, wake: Wake(shared.clone()), missed: 0 };
        (sender, Lane { ring: consumer, next: None, missed: 0 })
    };
    let (senders, lanes) = (0..workers).map(ring).unzip();
    Ok((senders, Receiver { lanes, shared }))
}

impl Sender {
    /// Frames that found no room so far.
    pub(super) fn missed(&self) -> u64 {
        self.missed
    }

    /// Leaves a whole record, or counts it as missed.
    pub(super) fn send(&mut self, record: &[u8]) {
        if self.ring.push_entire_slice(record).is_err() {
            self.missed += 1;
            self.wake.0.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Wakes the writer if it sleeps: once for all that was sent before.
    pub(super) fn wake(&self) {
        self.wake.ring();
    }
}

impl Wake {
    fn ring(&self) {
        // Either the writer sees what was sent before this, or we see that it is about to sleep.
        fence(Ordering::SeqCst);
        if self.0.asleep.swap(false, Ordering::Relaxed) {
            // A counter that is full rings already.
            let _ = rustix::io::write(&self.0.bell, &1_u64.to_ne_bytes());
        }
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.ring();
    }
}

impl Lane {
    fn peek(&mut self) {
        let mut facts = [0; FACTS_BYTES];
        if self.next.is_none() && self.ring.pop_entire_slice(&mut facts).is_ok() {
            self.next = Some(Facts::from_bytes(&facts));
        }
    }
}

impl Receiver {
    /// The oldest record that there is: its facts, the frame's bytes in `bytes`, and how many frames were missed since the one
    /// before. None: there is none now. What different workers sent can be out of order by about a turn.
    pub(super) fn next(&mut self, bytes: &mut Vec<u8>) -> Option<(Facts, u64)> {
        self.lanes.iter_mut().for_each(Lane::peek);
        let oldest = self.lanes.iter_mut().filter(|lane| lane.next.is_some());
        let lane = oldest.min_by_key(|lane| lane.next.map(|facts| facts.at_nanos))?;
        let facts = lane.next.take()?;
        bytes.resize(facts.captured as usize, 0);
        // A record is sent whole.
        lane.ring.pop_entire_slice(bytes).ok()?;
        let before = std::mem::replace(&mut lane.missed, facts.missed);
        Some((facts, facts.missed - before))
    }

    /// Whether nothing comes any more. What was sent before that can still be there.
    pub(super) fn ended(&self) -> bool {
        self.lanes.iter().all(|lane| lane.ring.is_abandoned())
    }

    /// Frames that found no room.
    pub(super) fn missed(&self) -> u64 {
        self.shared.missed.load(Ordering::Relaxed)
    }

    /// What becomes readable when there is something to do, after [`Receiver::about_to_sleep`] said that there is nothing.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }

    /// Announces that the writer will sleep. False: there is something to do already.
    pub(super) fn about_to_sleep(&self) -> bool {
        self.shared.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.lanes.iter().all(|lane| lane.ring.is_empty()) && !self.ended()
    }

    /// The writer is awake again.
    pub(super) fn awake(&self) -> Result<(), Errno> {
        self.shared.asleep.store(false, Ordering::Relaxed);
        match rustix::io::read(&self.shared.bell, &mut [0; 8]) {
            Err(Errno::AGAIN) | Ok(_) => Ok(()),
            Err(why) => Err(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_received_is_what_was_sent(
            numbers in any::<(u64, u64, u32)>(), frame in prop::collection::vec(any::<u8>(), 0..300), from in any::<bool>(),
            reason in prop::option::of(prop::sample::select(DropReason::ALL)),
        ) {
            let (mut senders, mut receiver) = records(1).unwrap();
            let direction = if from { Direction::FromPort } else { Direction::ToPort };
            let captured = frame.len() as u32;
            let sent = Facts { at_nanos: numbers.0, missed: numbers.1, len: numbers.2, captured, direction, dropped: reason };
            senders[0].send(&[sent.to_bytes().as_slice(), &frame].concat());
            let mut bytes = vec![1, 2, 3];
            prop_assert_eq!(receiver.next(&mut bytes), Some((sent, sent.missed)));
            prop_assert_eq!(bytes, frame);
        }
    }

    #[test]
    fn a_full_ring_misses_whole_records_and_counts_them() {
        let (mut senders, mut receiver) = records(1).unwrap();
        let facts = Facts {
            at_nanos: 0,
            missed: 0,
            len: 1000,
            captured: 1000,
            direction: Direction::ToPort,
            dropped: None,
        };
        let record = [facts.to_bytes().as_slice(), &[7; 1000]].concat();
        let fit = RING_BYTES / record.len();
        (0..fit + 10).for_each(|_| senders[0].send(&record));
        assert_eq!((senders[0].missed(), receiver.missed()), (10, 10));
        let mut bytes = Vec::new();
        let got = std::iter::from_fn(|| receiver.next(&mut bytes)).count();
        assert_eq!(got, fit);
    }

    #[test]
    fn what_several_workers_sent_is_received_by_its_time() {
        let (mut senders, mut receiver) = records(3).unwrap();
        let record = |at_nanos, missed| Facts {
            at_nanos,
            missed,
            len: 0,
            captured: 0,
            direction: Direction::FromPort,
            dropped: None,
        };
        for (worker, at_nanos, missed) in [(2, 5, 0), (0, 1, 4), (0, 7, 6), (1, 3, 1), (2, 6, 2)] {
            senders[worker].send(&record(at_nanos, missed).to_bytes());
        }
        let mut bytes = Vec::new();
        let got = std::iter::from_fn(|| receiver.next(&mut bytes));
        let got: Vec<_> = got.map(|(facts, missed)| (facts.at_nanos, missed)).collect();
        assert_eq!(
            got,
            [(1, 4), (3, 1), (5, 0), (6, 2), (7, 2)],
            "each with what its worker missed before it"
        );
    }

    #[test]
    fn the_end_wakes_a_writer_that_sleeps() {
        let (senders, receiver) = records(2).unwrap();
        assert!(receiver.about_to_sleep(), "nothing to do");
        drop(senders);
        assert_eq!(rustix::io::read(receiver.bell(), &mut [0; 8]), Ok(8), "the bell rang");
        assert!(receiver.ended());
    }
}
