//! A guest that rewrites what it shares with the switch while the switch looks at it: on a thread of its own, as fast as it can.
//!
//! It gains nothing by it (DESIGN §2, law 1): what a receiver gets is what was judged, no byte outside of the buffers changes, and
//! every frame is counted. The switch sees each guest's memory between pages that nobody may touch, so an escape ends the process.

mod descriptors;
mod heads;
mod offloads;
mod outside;
mod rings;

use crate::{lab::DEADLINE, rig::Rig};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};
use vhost_net_backend::{device::fault::PortFault, driver::misbehave::RawRing};
use vswitch_core::id::PortId;
use vswitchd::{control::protocol::PortCounters, counters::check_law};

/// The guest that attacks, by its place.
const ATTACKER: usize = 0;

/// Chains that the attacker makes available for one turn.
const BURST: u16 = 64;

/// Turns within which a worker has taken what was offered.
const TURNS_TO_TAKE: usize = 1000;

/// A thread that does the same over and over, until it is ended.
struct Attacker {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Attacker {
    /// Begins, and has done it once when this returns; `attack` is told how often it has been done.
    fn start(mut attack: impl FnMut(u64) + Send + 'static) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, done) = (stop.clone(), rounds.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                attack(done.load(Ordering::Relaxed));
                done.fetch_add(1, Ordering::Release);
            }
        });
        let end = Instant::now() + DEADLINE;
        while rounds.load(Ordering::Acquire) == 0 {
            assert!(Instant::now() < end && !thread.is_finished(), "the attacker does nothing");
            std::thread::yield_now();
        }
        Self { stop, rounds, thread }
    }

    /// Ends it; how often it was done.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the attacker stays within its own memory");
        self.rounds.load(Ordering::Relaxed)
    }
}

/// Makes the chains at the next `BURST` heads available, in turn `count` heads.
fn offer_burst(ring: &RawRing, count: u16) {
    let index = ring.avail_index();
    for n in 0..BURST {
        let place = index.wrapping_add(n);
        ring.set_avail(place, place % count);
    }
    ring.set_avail_index(index.wrapping_add(BURST));
}

impl Rig {
    fn counters_of(&self, place: usize) -> PortCounters {
        self.worker.counters(port(place)).expect("it is there")
    }

    fn fault_of(&self, place: usize) -> Option<PortFault> {
        self.worker.fault(port(place))
    }

    /// Frames that came from port `place` so far.
    fn taken_from(&self, place: usize) -> u64 {
        self.counters_of(place).from_port.frames
    }

    /// Takes turns until `all` frames came from port `place`. A worker may leave a ring alone for a turn.
    fn take(&mut self, place: usize, all: u64) {
        for _ in 0..TURNS_TO_TAKE {
            if self.taken_from(place) == all {
                return;
            }
            self.turn();
        }
        panic!("{} of {all} frames were taken; {:?}", self.taken_from(place), self.fault_of(place));
    }

    /// A burst of the attacker's chains has one fate each, and all come back.
    fn burst(&mut self, ring: &RawRing, count: u16) {
        let (taken, used) = (self.taken_from(ATTACKER), ring.used_index());
        offer_burst(ring, count);
        self.take(ATTACKER, taken + u64::from(BURST));
        assert_eq!(ring.used_index(), used.wrapping_add(BURST), "each chain goes back");
        self.lawful();
    }

    /// The accounting law holds.
    fn lawful(&self) {
        let counters: Vec<_> = (0..self.guests.len()).map(|place| self.counters_of(place)).collect();
        check_law(&counters).unwrap();
    }
}

fn port(place: usize) -> PortId {
    PortId::new(place as u16, 0)
}
