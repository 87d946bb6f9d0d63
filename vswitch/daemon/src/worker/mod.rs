//! A worker: it owns running rings and takes turns over them. A turn needs no thread and no clock of its own.
//!
//! ```text
//! turn: messages -> for each transmitq: harvest -> parse -> decide -> deliver -> count -> finish   (batch)
//! ```

mod batch;
mod budget;
mod captures;
pub(crate) mod health;
#[cfg(feature = "injection")]
mod injection;
mod letterbox;
mod losses;
pub(crate) mod mailbox;
mod patience;
pub(crate) mod ports;
mod sources;
pub(crate) mod thread;
mod watches;

use crate::control::protocol::PortCounters;
use crate::recorder::{Event, Moment, Record, Recorder, WORKER_RECORDS};
use crate::tracking;
use batch::Batch;
use captures::Captures;
use mailbox::{Mailbox, Message, Tally};
use ports::{Healths, Ports};
use sources::Due;
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};
use vhost_net_backend::{
    cycles,
    device::{fault::PortFault, ring::RunningRing},
};
use vswitch_core::{
    clock::Instant, decide::Switch, drop_reason::DropReason, fdb::Fdb, firewall::connections::Connections,
    id::PortId, route::Neighbours, world::World,
};
use watches::Watches;

/// Buckets of the FDB that are looked through at one go for what is too old.
const SWEEP: usize = 16;

/// How often that is done while there is traffic.
const SWEEP_EVERY: Duration = Duration::from_micros(100);

/// What a turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It moved this many frames: none, where all who may have some waited for their share.
    Busy(usize),
    /// There was nothing to move.
    Idle,
    /// It was told to stop.
    Stopped,
}

/// What is learned for as long as the process lives.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    /// Where stations are.
    pub(crate) fdb: Arc<Fdb>,
    /// Whom routers know.
    pub(crate) neighbours: Arc<Neighbours>,
}

/// One worker's state.
pub struct Worker {
    mailbox: Arc<Mailbox>,
    world: Arc<World>,
    tables: Tables,
    connections: Arc<Connections>,
    ports: Ports,
    batch: Batch,
    watches: Watches,
    captures: Captures,
    next_sweep: Instant,
    recorder: Recorder,
    busy_turns: u64,
    frames: u64,
    busy_cycles: u64,
    /// When the last turn began, if it moved frames: it has lasted until the next one begins.
    busy_since: Option<Instant>,
    busy: Duration,
    sleeps: u64,
    panics: u64,
}

impl Worker {
    pub(crate) fn new(
        mailbox: Arc<Mailbox>,
        registry: mio::Registry,
        world: Arc<World>,
        tables: Tables,
        connections: Arc<Connections>,
        origin: std::time::Instant,
    ) -> Self {
        Self {
            mailbox,
            world,
            tables,
            connections,
            ports: Ports::new(registry),
            batch: Batch::default(),
            watches: Watches::new(origin),
            captures: Captures::default(),
            next_sweep: Instant::ZERO,
            recorder: Recorder::new(WORKER_RECORDS),
            busy_turns: 0,
            frames: 0,
            busy_cycles: 0,
            busy_since: None,
            busy: Duration::ZERO,
            sleeps: 0,
            panics: 0,
        }
    }

    /// A worker without a thread, for whoever takes its turns: tests, fuzzing, counting of instructions. If there are firewalls they track so
    /// many `connections` together.
    ///
    /// # Errors
    /// The process has no descriptor left, or there is no randomness.
    pub fn alone(world: Arc<World>, fdb: Arc<Fdb>, connections: u32) -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let mailbox = Arc::new(Mailbox::new(&poll, thread::WAKE)?);
        let connections = Arc::new(tracking::of(&world, connections)?);
        let (registry, origin) = (poll.registry().try_clone()?, std::time::Instant::now());
        let tables = Tables { fdb, neighbours: Arc::new(Neighbours::new([0; 2])) };
        let mut worker = Self::new(mailbox, registry, world.clone(), tables, connections, origin);
        let healths = world.ports().map(|port| (port.id, Arc::default())).collect();
        worker.adopt(world, healths);
        Ok(worker)
    }

    /// Whom the routers know.
    pub fn neighbours(&self) -> &Neighbours {
        &self.tables.neighbours
    }

    /// From now on there is a new recorder of so many records; one of 0 keeps nothing. What the recorder costs is the difference.
    pub fn record(&mut self, records: usize) {
        self.recorder = Recorder::new(records);
        self.recorder.adopt(self.ports.lives.len());
    }

    /// Serves `ring` of `port` from the next turn on.
    pub fn attach(&mut self, port: PortId, ring: RunningRing) {
        self.ports.attach(port, ring);
    }

    /// Decides by `world` from the next turn on, with the connections that there are: what a datapath tells its workers, for a worker that is
    /// alone. Ports that have a firewall only now have no room in the table of connections.
    pub fn follow(&mut self, world: Arc<World>) {
        let health = |id| self.ports.lives.iter().flatten().find(|life| life.id == id);
        let healths = world
            .ports()
            .map(|port| (port.id, health(port.id).map(|life| life.health.clone()).unwrap_or_default()));
        let (healths, connections) = (healths.collect(), self.connections.clone());
        // Nobody waits for the answer.
        let (answer, _) = std::sync::mpsc::channel();
        self.mailbox.send(Message::Adopt { world, connections, healths, answer });
    }

    /// What was counted of `port` so far. None if there is no such port.
    pub fn counters(&self, port: PortId) -> Option<PortCounters> {
        self.ports.lives.iter().flatten().find(|life| life.id == port).map(|life| life.counters.view())
    }

    /// Why `port` was stopped, if it was.
    pub fn fault(&self, port: PortId) -> Option<PortFault> {
        self.ports.lives.iter().flatten().find(|life| life.id == port)?.health.fault()
    }

    /// The connections that firewalls track.
    pub const fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// What was recorded from `since` on, in order of time: at most some thousand records.
    pub fn records(&self, since: Instant) -> Vec<Record> {
        self.recorder.records(since)
    }

    fn adopt(&mut self, world: Arc<World>, healths: Healths) {
        self.ports.adopt(healths);
        self.captures.adopt(&world);
        self.recorder.adopt(self.ports.lives.len());
        self.world = world;
    }

    /// One round over all rings at the moment `now`: at most one batch from each.
    pub fn turn(&mut self, now: Instant) -> Turn {
        let begin = cycles::now();
        if let Some(since) = self.busy_since.take() {
            self.busy += now.since(since);
        }
        if self.mailbox.waiting() {
            self.batch.tell(&mut self.ports);
            if !self.read_mail() {
                return Turn::Stopped;
            }
        }
        let (mut frames, mut waits) = (0, false);
        self.ports.sources.look_around();
        let mut which = 0;
        while which < self.ports.sources.active()
            && let Some(port) = self.ports.sources.get_mut(which).map(|source| source.port)
        {
            if self.ports.sources.waits(which) {
                waits = true;
                which += 1;
                continue;
            }
            match self.batch(now, which) {
                Ok(_) if self.batch.waits() => {
                    waits = true;
                    which += 1;
                }
                Ok(moved) => {
                    frames += moved;
                    let had = (moved, self.batch.work());
                    match self.ports.sources.note(which, had, self.batch.was_much(), now) {
                        Due::Nothing => {}
                        Due::Tell => self.batch.tell_source(which),
                        Due::Quiet => {
                            self.batch.tell(&mut self.ports);
                            if self.ports.sources.quiet(which) {
                                continue;
                            }
                        }
                    }
                    which += 1;
                }
                // It leaves the list, and another one is in its place.
                Err(why) => {
                    self.batch.tell(&mut self.ports);
                    self.ports.stop(port, why);
                }
            }
        }
        if frames == 0 {
            self.batch.tell(&mut self.ports);
            return if waits { Turn::Busy(0) } else { Turn::Idle };
        }
        if now >= self.next_sweep {
            self.tables.fdb.sweep(now, SWEEP);
            self.next_sweep = now + SWEEP_EVERY;
        }
        self.busy_turns += 1;
        self.busy_since = Some(now);
        self.frames += frames as u64;
        self.busy_cycles += cycles::now().wrapping_sub(begin);
        Turn::Busy(frames)
    }

    /// One batch; a panic in it is caught, counted, and stops the port whose frames these were (DESIGN §2, law 5).
    fn batch(&mut self, now: Instant, which: usize) -> Result<usize, PortFault> {
        let switch = Switch {
            world: &self.world,
            fdb: &self.tables.fdb,
            connections: &self.connections,
            neighbours: &self.tables.neighbours,
            now,
            learning: true,
        };
        let Self { batch, ports, watches, captures, recorder, .. } = self;
        let outcome =
            catch_unwind(AssertUnwindSafe(|| batch.run(&switch, ports, which, watches, captures, recorder)));
        outcome.unwrap_or_else(|_| {
            self.panics += 1;
            self.batch.tell(&mut self.ports);
            self.batch.end();
            self.watches.abandon();
            if let Some(source) = self.ports.sources.get_mut(which) {
                let (port, ring, frames) = (source.port, source.ring.index(), source.ring.batch_len());
                let bytes: u64 = source.ring.frames(0..frames).map(|frame| u64::from(frame.len())).sum();
                if let Some(described) = self.world.port(port) {
                    let moment = Moment { at: now, epoch: self.world.epoch() };
                    let event = Event::Dropped { port: described.id, reason: DropReason::Internal };
                    // Not the frames themselves: what panicked may have been the look at one.
                    self.recorder.event(moment, event, frames);
                }
                source.ring.finish(frames);
                if let Some(life) = self.ports.life(port) {
                    life.counters.frames += frames as u64;
                    life.counters.through(ring, frames as u64);
                    life.counters.bytes += bytes;
                    life.counters.dropped_in.count(DropReason::Internal, frames as u64);
                }
            }
            Err(PortFault::Internal)
        })
    }

    /// Answers all messages; false if one says to stop.
    fn read_mail(&mut self) -> bool {
        let mut go_on = true;
        for message in self.mailbox.take() {
            match message {
                Message::Attach { port, ring } => self.attach(port, ring),
                Message::Detach { port, index, answer } => {
                    let _ = answer.send(self.ports.detach(port, index));
                }
                Message::Adopt { world, connections, healths, answer } => {
                    self.connections = connections;
                    self.adopt(world, healths);
                    let _ = answer.send(());
                }
                Message::Count { answer } => {
                    let _ = answer.send(self.tally());
                }
                Message::Watch { number, watch, answer } => {
                    self.watches.add(number, watch);
                    let _ = answer.send(());
                }
                Message::Sightings { number, end, answer } => {
                    let _ = answer.send(self.watches.sightings(number, end));
                }
                Message::Capture { intake, answer } => {
                    self.captures.add(*intake);
                    let _ = answer.send(());
                }
                Message::EndCapture { number } => self.captures.end(number),
                Message::Records { from, since, records, answer } => {
                    let _ = answer.send(self.recorder.piece(from, since, records));
                }
                #[cfg(feature = "injection")]
                Message::Panic { port, answer } => {
                    injection::ask(&mut self.ports, port);
                    let _ = answer.send(());
                }
                Message::Stop => go_on = false,
            }
        }
        go_on
    }

    fn tally(&self) -> Tally {
        Tally {
            ports: self.ports.tally(),
            busy_turns: self.busy_turns,
            frames: self.frames,
            busy_cycles: self.busy_cycles,
            busy: self.busy,
            sleeps: self.sleeps,
            panics: self.panics,
            captures: self.captures.count(),
        }
    }

    /// Asks every driver for a kick at its next frame, and holds nothing back from any. True if there is something to do already.
    fn arm(&mut self) -> bool {
        for which in 0..self.ports.sources.active() {
            if self.ports.sources.get_mut(which).is_some_and(|source| source.ring.release()) {
                self.batch.tell_source(which);
            }
        }
        self.batch.tell(&mut self.ports);
        self.ports.sources.arm() || self.mailbox.waiting()
    }

    fn disarm(&self) {
        self.ports.sources.disarm();
    }

    /// Whether some driver gave no kick descriptor: it expects its ring to be polled.
    fn must_poll(&self) -> bool {
        self.ports.sources.iter().any(|source| source.ring.kick_fd().is_none())
    }
}
