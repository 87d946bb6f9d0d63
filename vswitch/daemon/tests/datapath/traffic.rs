//! Two honest drivers that exchange numbered frames while others misbehave, so that a frame lost is a frame missed.

use crate::lab::{DEADLINE, Lab, frame, mac, send};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};
use vhost_net_backend::driver::{Config, Driver};
use vswitch_core::mac::MacAddr;
use vswitchd::control::protocol::Snapshot;

/// Frames in flight at most: the receiver has four times as many buffers.
const BURST: u64 = 64;

/// Two drivers and how many frames each sent the other.
pub(crate) struct Pair {
    places: [usize; 2],
    guests: [Driver; 2],
    sent: u64,
}

impl Pair {
    /// Attaches drivers to these two ports, which hear of each other.
    pub(crate) fn new(lab: &Lab, places: [usize; 2]) -> Self {
        let guests = places.map(|place| lab.attach(place, &Config::default()));
        let mut pair = Self { places, guests, sent: 0 };
        for (here, place) in places.into_iter().enumerate() {
            send(&mut pair.guests[here], &frame(MacAddr::BROADCAST, mac(place), 60, 0));
            let heard = lab.wait(|seen| seen.ports[place].counters.from_port.frames > 0);
            assert_eq!(heard.ports[place].counters.from_port.flooded, 1);
        }
        pair
    }

    /// Sends `BURST` frames each way and receives every one of them, in order. Frames of others are left aside.
    pub(crate) fn exchange(&mut self) {
        for (from, to) in [(0, 1), (1, 0)] {
            let (source, target) = (mac(self.places[from]), mac(self.places[to]));
            let numbered = |number: u64| frame(target, source, 60 + (number % 1400) as usize, number);
            let numbers = self.sent..self.sent + BURST;
            for number in numbers.clone() {
                assert!(self.guests[from].pair().transmit(&numbered(number)), "the ring is full");
            }
            self.guests[from].pair().flush();
            let mut expected = numbers.clone();
            let end = Instant::now() + DEADLINE;
            while !expected.is_empty() {
                assert!(
                    Instant::now() < end,
                    "of the neighbours' frames {numbers:?}, {expected:?} are missing"
                );
                self.guests[to].pair().receive(|_, arrived| {
                    if arrived[6..12] == source.octets() && arrived[..6] == target.octets() {
                        let number = expected.next().expect("no frame of a neighbour comes twice");
                        assert!(
                            arrived == numbered(number),
                            "a neighbour's frame {number} arrived otherwise"
                        );
                    }
                });
                std::thread::yield_now();
            }
        }
        self.sent += BURST;
    }

    /// Goes on exchanging on a thread of its own.
    pub(crate) fn start(mut self) -> Running {
        let (stop, bursts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), bursts.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                self.exchange();
                counted.fetch_add(1, Ordering::Release);
            }
            self
        });
        Running { stop, bursts, thread }
    }

    /// The switch says the same: each frame was delivered, none was dropped, neither port was ever stopped.
    pub(crate) fn lost_nothing(&self, snapshot: &Snapshot) {
        for place in self.places {
            let counters = &snapshot.ports[place].counters;
            assert!(counters.from_port.frames > self.sent, "port {place} sent: {counters:#?}");
            assert!(counters.to_port.delivered >= self.sent, "port {place} received: {counters:#?}");
            assert!(counters.from_port.dropped.is_empty(), "port {place} sent: {counters:#?}");
            assert!(counters.to_port.dropped.is_empty(), "port {place} received: {counters:#?}");
            assert_eq!(counters.faults, 0, "port {place}");
        }
    }
}

/// A pair that exchanges frames until it is told to stop.
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    bursts: Arc<AtomicU64>,
    thread: JoinHandle<Pair>,
}

impl Running {
    /// Waits until the pair has begun and ended a burst from now on: frames flow.
    pub(crate) fn flows(&self) {
        let (before, end) = (self.bursts.load(Ordering::Acquire), Instant::now() + DEADLINE);
        while self.bursts.load(Ordering::Acquire) < before + 2 {
            assert!(Instant::now() < end && !self.thread.is_finished(), "the neighbours' frames stopped");
            std::thread::yield_now();
        }
    }

    /// Ends the traffic; a frame that was lost panics here.
    pub(crate) fn stop(self) -> Pair {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the neighbours lost nothing")
    }
}
