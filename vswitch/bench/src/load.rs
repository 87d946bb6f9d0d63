//! Load: one thread drives all ports of a device, sends on some and receives on others, for one trial after the other.

use crate::{
    frames::{FrameSize, Payload, Stream, Variety},
    generator::Generator,
    histogram::Histogram,
    lane::{Lane, LanePace},
    machine::Clock,
    neighbours::{self, Neighbour},
    offload::Kind,
    path::{self, ARP_HEAD, Route},
    sink::Tally,
};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use thiserror::Error;
use vhost_net_backend::{
    cycles,
    driver::{DeviceFault, Driver},
};

/// Frames of a burst: what DPDK's testpmd sends at once.
pub(crate) const BURST: usize = 32;
/// Once the device is done with all that was sent, what has not come after this time is lost.
const SETTLING: Duration = Duration::from_millis(50);
/// A device that is not done and lets no frame through for so long is waited for no longer.
const PATIENCE: Duration = Duration::from_secs(3);
/// So often receivers say to their gateway in a trial that they are there: it asks after 30 s whether they are.
const ANNOUNCED_EVERY: Duration = Duration::from_secs(1);
/// Frames on their way while a device learns.
const LESSON: u64 = 64;
/// Rounds without work after which a thread that has no CPU of its own lets others run.
const POLITE: u32 = 16;

/// When frames are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many frames of each stream are on their way at most: the device sets the rate.
    Closed {
        /// How many.
        window: u32,
    },
    /// So many frames a second, of all streams together.
    Open {
        /// How many.
        rate: f64,
    },
}

/// One trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// When frames are sent.
    pub pace: Pace,
    /// Sent before, for caches and learning; lost frames count here too.
    pub warm_up: Duration,
    /// What is measured.
    pub measured: Duration,
}

/// What came of a trial.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// How long was measured, in seconds.
    pub seconds: f64,
    /// Frames received in that time.
    pub frames: u64,
    /// Their bytes, without net header.
    pub bytes: u64,
    /// Frames that were due in the whole trial; in a closed loop those that were sent.
    pub due: u64,
    /// Frames sent in the whole trial.
    pub sent: u64,
    /// What was received in the whole trial.
    pub tally: Tally,
    /// Cycles from sending to receiving, of the frames measured.
    pub latency: Histogram,
    /// Cycles from round to round of the thread that drives all ports, if there are neighbours: latencies contain it.
    pub rounds: Histogram,
    /// Frames that neighbours sent and received while it was measured.
    pub neighbours: (u64, u64),
}

impl Outcome {
    /// Frames that were sent and never came.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.tally.received)
    }

    /// The share of frames due that did not come: lost, or not even taken by the device.
    pub fn loss_ratio(&self) -> f64 {
        if self.due == 0 {
            0.0
        } else {
            self.due.saturating_sub(self.tally.received) as f64 / self.due as f64
        }
    }

    /// Frames that were due and not sent.
    pub fn not_sent(&self) -> u64 {
        self.due.saturating_sub(self.sent)
    }

    /// Frames a second.
    pub fn rate(&self) -> f64 {
        self.frames as f64 / self.seconds
    }
}

/// Why a trial ended early.
#[derive(Debug, Error)]
pub enum LoadError {
    /// It was asked to.
    #[error("interrupted")]
    Interrupted,
    /// The device closed its socket.
    #[error("port {port}: the switch closed the connection")]
    Gone {
        /// Which.
        port: usize,
    },
    /// The device broke a ring.
    #[error("port {port}: the switch broke a ring: {fault}")]
    Fault {
        /// Which.
        port: usize,
        /// How.
        fault: DeviceFault,
    },
}

/// Who sends to whom: ports by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The sender.
    pub from: usize,
    /// The receiver.
    pub to: usize,
}

/// The ways of `busy` ports: 0 to 1, 2 to 3 and so on; with two directions also back.
pub fn ways(busy: usize, two_directions: bool) -> Vec<Way> {
    let pairs = (0..busy / 2).map(|pair| Way { from: 2 * pair, to: 2 * pair + 1 });
    pairs
        .flat_map(|way| {
            let back = two_directions.then_some(Way { from: way.to, to: way.from });
            std::iter::once(way).chain(back)
        })
        .collect()
}

/// All ports of a device and the streams between them.
pub struct Load {
    ports: Vec<Driver>,
    lanes: Vec<Lane>,
    route: Route,
    /// When receivers announce themselves to their gateway; none: there is no gateway.
    announce_at: Option<u64>,
    ring_size: usize,
    neighbours: Vec<Neighbour>,
    /// Whether they send.
    flooding: bool,
    rounds: Histogram,
    clock: Clock,
    /// There is no CPU for the device alone.
    polite: bool,
}

impl Load {
    /// Streams of frames of such a kind, variety and payload along `ways` and such a route between `ports`, which have rings of `ring_size`. A `polite` load
    /// lets others run when it has nothing to do.
    pub fn new(
        ports: Vec<Driver>,
        ways: &[Way],
        (frames, route): ((Kind, Variety, Payload), Route),
        ring_size: u16,
        (clock, polite): (Clock, bool),
    ) -> Self {
        let lanes = ways.iter().map(|way| Lane::new(*way, frames, route)).collect();
        Self {
            ports,
            lanes,
            route,
            announce_at: route.announcement(0).map(|_| 0),
            ring_size: usize::from(ring_size),
            neighbours: Vec::new(),
            flooding: false,
            rounds: Histogram::default(),
            clock,
            polite,
        }
    }

    /// Ports that send, when asked to, beside what is measured.
    pub(crate) fn add_neighbours(&mut self, neighbours: impl Iterator<Item = Neighbour>) {
        self.neighbours.extend(neighbours);
    }

    /// Lets the device learn every station: each receiver sends one frame from each, or announces itself to its gateway, and then each
    /// sender sends as it will.
    ///
    /// # Errors
    /// The device is gone or broken, or `cancel` was set.
    pub fn teach(&mut self, cancel: &AtomicBool) -> Result<(), LoadError> {
        let begin = cycles::now();
        let variety = self.lanes.first().map_or_else(Variety::default, |lane| lane.generator.variety());
        let lanes = self.lanes.iter().map(|lane| lane.way);
        let ways: Vec<Way> = lanes.chain(self.neighbours.iter().map(|neighbour| neighbour.way)).collect();
        for Way { from, to } in ways {
            // A port may be attached a moment after its handshake: then nothing comes through, and it is said again.
            if self.announce_at.is_some() {
                self.be_known(to, begin, cancel)?;
                // Another answer is none of the frames that come next.
                while self.discard(to) > 0 {}
            } else {
                let back = Way { from: to, to: from };
                while self.introduce(back, variety, cancel)? == 0
                    && !self.silent(begin, cycles::now(), PATIENCE)
                {}
            }
            while self.introduce(Way { from, to }, variety, cancel)? == 0
                && !self.silent(begin, cycles::now(), PATIENCE)
            {}
        }
        // Unknown stations are flooded to: no copy of that is to meet the first trial.
        while !self.is_settled() && !self.silent(begin, cycles::now(), PATIENCE) {
            self.look_around(cancel, false)?;
        }
        while (0..self.ports.len()).map(|port| self.discard(port)).sum::<u64>() > 0 {}
        Ok(())
    }

    /// A receiver announces itself until its gateway answers, if there is one; not for ever since `begin`.
    fn be_known(&mut self, receiver: usize, begin: u64, cancel: &AtomicBool) -> Result<(), LoadError> {
        while !self.is_known(receiver, cancel)? && !self.silent(begin, cycles::now(), PATIENCE) {}
        Ok(())
    }

    /// Whether its gateway answers a receiver that announces itself, or there is none. What else waits there is discarded.
    fn is_known(&mut self, receiver: usize, cancel: &AtomicBool) -> Result<bool, LoadError> {
        let begin = cycles::now();
        let Some(announcement) = self.announce(receiver) else { return Ok(true) };
        let mut is_known = false;
        while !is_known {
            if self.silent(begin, cycles::now(), SETTLING) {
                return Ok(false);
            }
            let pair = self.ports[receiver].pair();
            pair.receive_in_place(BURST, ARP_HEAD, |frame| {
                let mut head = [0; ARP_HEAD];
                is_known |= frame.read(0, &mut head) && path::is_answer(&announcement, &head);
            });
            pair.flush();
            self.look_around(cancel, !is_known)?;
        }
        Ok(true)
    }

    /// The ports that something is sent to.
    fn receivers(&self) -> Vec<usize> {
        self.lanes.iter().map(|lane| lane.way.to).collect()
    }

    /// Says to the gateway that this receiver is there, if there is one; what it said.
    fn announce(&mut self, receiver: usize) -> Option<[u8; 60]> {
        let frame = self.route.announcement(receiver as u16)?;
        let pair = self.ports[receiver].pair();
        // If there is no room, it was not long ago that others were sent.
        pair.transmit(&frame);
        pair.flush();
        Some(frame)
    }

    #[cold]
    fn announce_all(&mut self, now: u64) {
        for receiver in self.receivers() {
            self.announce(receiver);
        }
        self.announce_at = Some(now + self.clock.cycles(ANNOUNCED_EVERY));
    }

    /// One frame from each station of a way's sender to its receiver; how many came.
    fn introduce(&mut self, way: Way, variety: Variety, cancel: &AtomicBool) -> Result<u64, LoadError> {
        let stream = Stream::sent(way.from as u16, way.to as u16, FrameSize::Fixed(64), variety, self.route);
        let stations = u64::from(variety.stations());
        // Should one come late, its number is none of a trial's.
        let mut generator = Generator::starting_at(0u32.wrapping_sub(variety.stations()), stream);
        let (mut sent, mut came) = (0, 0);
        let mut last = cycles::now();
        while came < stations {
            let now = cycles::now();
            let settled = self.silent(last, now, SETTLING) && self.is_settled();
            let room = (BURST as u64).min(stations - sent).min((LESSON + came).saturating_sub(sent));
            sent += generator.send(self.ports[way.from].pair(), room as usize, now) as u64;
            self.ports[way.from].pair().flush();
            let mut arrived = 0;
            for port in 0..self.ports.len() {
                let taken = self.discard(port);
                arrived += if port == way.to { taken } else { 0 };
            }
            if arrived > 0 {
                (came, last) = (came + arrived, now);
            } else if settled || self.silent(last, now, PATIENCE) {
                // What is still unknown will be flooded, and the strays counted.
                break;
            }
            self.look_around(cancel, arrived == 0)?;
        }
        Ok(came)
    }

    /// Takes what came to a port and looks at none of it; how many frames.
    fn discard(&mut self, port: usize) -> u64 {
        let pair = self.ports[port].pair();
        let taken = pair.receive_in_place(BURST, 0, |_| {});
        pair.flush();
        taken as u64
    }

    /// Runs one trial, its neighbours `flooding` from beginning to end or silent.
    ///
    /// # Errors
    /// As [`Load::run`].
    pub(crate) fn run_beside(
        &mut self,
        trial: &Trial,
        flooding: bool,
        cancel: &AtomicBool,
    ) -> Result<Outcome, LoadError> {
        self.flooding = flooding;
        self.neighbours.iter_mut().for_each(|neighbour| neighbour.begin(self.ring_size));
        let outcome = self.run(trial, cancel);
        self.flooding = false;
        outcome
    }

    /// Runs one trial.
    ///
    /// # Errors
    /// The device is gone or broken, or `cancel` was set.
    pub fn run(&mut self, trial: &Trial, cancel: &AtomicBool) -> Result<Outcome, LoadError> {
        // Nothing was said since the last trial.
        let begin = cycles::now();
        for receiver in self.receivers() {
            self.be_known(receiver, begin, cancel)?;
        }
        self.lanes.iter_mut().for_each(Lane::begin);
        let pace = self.lane_pace(trial.pace);
        let start = cycles::now();
        self.round_until(start + self.clock.cycles(trial.warm_up), start, pace, cancel)?;
        let measured_from = cycles::now();
        self.rounds.clear();
        let before = self.neighbours_moved();
        for lane in &mut self.lanes {
            lane.sink.forget_latency();
            let tally = lane.sink.tally();
            lane.before = (tally.received, tally.bytes);
        }
        self.round_until(measured_from + self.clock.cycles(trial.measured), start, pace, cancel)?;
        let mut outcome =
            Outcome { seconds: self.clock.seconds(cycles::now() - measured_from), ..Outcome::default() };
        let after = self.neighbours_moved();
        outcome.neighbours = (after.0 - before.0, after.1 - before.1);
        outcome.rounds = self.rounds.clone();
        // What is on its way arrives without them.
        self.flooding = false;
        for lane in &self.lanes {
            let tally = lane.sink.tally();
            outcome.frames += tally.received - lane.before.0;
            outcome.bytes += tally.bytes - lane.before.1;
            outcome.latency.merge(lane.sink.latency());
        }
        self.drain(cancel)?;
        for lane in &self.lanes {
            outcome.tally.add(&lane.sink.tally());
            outcome.sent += lane.sent;
            outcome.due += lane.due;
        }
        Ok(outcome)
    }

    /// Frames that neighbours sent and received.
    fn neighbours_moved(&self) -> (u64, u64) {
        self.neighbours.iter().fold((0, 0), |sum, one| (sum.0 + one.sent, sum.1 + one.received))
    }

    fn lane_pace(&self, pace: Pace) -> LanePace {
        match pace {
            Pace::Closed { window } => LanePace::Closed { window },
            Pace::Open { rate } => LanePace::Open {
                per_cycle: rate / self.lanes.len().max(1) as f64 / self.clock.hertz(),
                backlog: self.ring_size,
            },
        }
    }

    /// Rounds of sending and receiving, until the time `end`.
    fn round_until(
        &mut self,
        end: u64,
        start: u64,
        pace: LanePace,
        cancel: &AtomicBool,
    ) -> Result<(), LoadError> {
        let mut last = cycles::now();
        let mut round = last;
        let mut idle = 0;
        let looked_after = self.clock.cycles(neighbours::ROUND);
        loop {
            let now = cycles::now();
            if now >= end {
                return Ok(());
            }
            if self.announce_at.is_some_and(|at| now >= at) {
                self.announce_all(now);
            }
            if !self.neighbours.is_empty() {
                self.rounds.record(now.wrapping_sub(round), 1);
                round = now;
            }
            if self.flooding {
                let Self { neighbours, ports, .. } = self;
                neighbours.iter_mut().for_each(|neighbour| neighbour.go_on(ports, now, looked_after));
            }
            for lane in &mut self.lanes {
                lane.offer(&mut self.ports, pace, now, now.wrapping_sub(start));
            }
            if self.receive() > 0 {
                (last, idle) = (now, 0);
                continue;
            }
            idle += 1;
            if self.silent(last, now, SETTLING) {
                last = now;
                self.look_around(cancel, true)?;
                // Received from after that: what waits here unseen is not lost.
                if self.is_settled() && self.receive() == 0 {
                    // A lost frame must not end a closed loop.
                    for lane in &mut self.lanes {
                        lane.written_off = lane.generator.next_number();
                    }
                }
            }
            if idle >= POLITE {
                self.look_around(cancel, false)?;
            }
        }
    }

    /// Takes a burst from each port; how many frames.
    #[inline]
    fn receive(&mut self) -> usize {
        let now = cycles::now();
        let mut taken = 0;
        for lane in &mut self.lanes {
            let pair = self.ports[lane.way.to].pair();
            taken += lane.sink.take(pair, BURST, now);
            pair.flush();
        }
        taken
    }

    /// Waits for the frames that are on their way.
    fn drain(&mut self, cancel: &AtomicBool) -> Result<(), LoadError> {
        let mut last = cycles::now();
        while !self.lanes.iter().all(|lane| lane.sink.tally().received >= lane.sent) {
            let now = cycles::now();
            let settled = self.silent(last, now, SETTLING) && self.is_settled();
            let over = settled || self.silent(last, now, PATIENCE);
            // Looked at after the device was seen to be done: else what came while this thread waited for its CPU is lost.
            if self.receive() > 0 {
                last = now;
            } else if over {
                break;
            } else {
                self.look_around(cancel, false)?;
            }
        }
        self.look_around(cancel, true)
    }

    /// Whether the device is done with everything that was sent.
    fn is_settled(&mut self) -> bool {
        self.ports.iter_mut().all(|port| {
            port.pair().reap();
            port.pair().in_flight() == 0
        })
    }

    fn silent(&self, last: u64, now: u64, patience: Duration) -> bool {
        now.wrapping_sub(last) > self.clock.cycles(patience)
    }

    /// When there is nothing to do: whether to go on, and with `closely` whether the device is there and honest.
    #[cold]
    fn look_around(&mut self, cancel: &AtomicBool, closely: bool) -> Result<(), LoadError> {
        if cancel.load(Ordering::Relaxed) {
            return Err(LoadError::Interrupted);
        }
        if closely {
            for (port, driver) in self.ports.iter_mut().enumerate() {
                if let Some(fault) = driver.pair().fault() {
                    return Err(LoadError::Fault { port, fault: fault.clone() });
                }
                if !driver.is_connected() {
                    return Err(LoadError::Gone { port });
                }
            }
        }
        if self.polite {
            std::thread::yield_now();
        }
        Ok(())
    }
}
