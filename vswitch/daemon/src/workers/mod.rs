//! All workers together, as control threads see them: who serves which ring, and what they counted and saw as a whole.
//!
//! A transmitq has one worker, so its frames keep their order; a receiveq is delivered to by all. Each change of a ring goes the
//! same way: every worker that holds it is told, acknowledges between two of its turns, and only then the ring comes back.

mod spread;

use crate::{
    control::protocol::{DatapathSettings, Sighting, Watch, WorkerView},
    recorder::{PIECE, Piece},
    worker::{
        Tables,
        mailbox::{Answer, Mailbox, Message, PortTally, Tally},
        ports::Healths,
        thread::WorkerThread,
    },
};
use spread::{Move, Spread};
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Sender},
    time::Instant,
};
use vhost_net_backend::device::ring::RunningRing;
use vswitch_core::{clock, firewall::connections::Connections, id::PortId, world::World};

/// How many sightings one answer has at most.
const SIGHTINGS: usize = 64;

/// The workers of a datapath. Dropped, their threads end.
pub(crate) struct Workers {
    threads: Vec<WorkerThread>,
    /// Held while a transmitq is handed over, so that nobody looks for one that is on its way between two workers. No worker takes
    /// it: who waits for a worker may hold it.
    spread: Mutex<Spread>,
}

/// What all workers counted together.
pub(crate) struct Counted {
    pub(crate) ports: BTreeMap<PortId, PortTally>,
    pub(crate) workers: Vec<WorkerView>,
}

impl Workers {
    /// Starts them.
    pub(crate) fn start(
        settings: &DatapathSettings,
        world: &Arc<World>,
        tables: &Tables,
        connections: &Arc<Connections>,
        origin: Instant,
    ) -> io::Result<Self> {
        let start = |number: u16| {
            let cpu = settings.cpus.get(usize::from(number)).copied();
            let (world, tables, connections) = (world.clone(), tables.clone(), connections.clone());
            WorkerThread::start(number, cpu, settings.poll, world, tables, connections, origin)
        };
        let threads = (0..settings.workers).map(start).collect::<io::Result<Vec<_>>>()?;
        let spread = Mutex::new(Spread::new(threads.len()));
        Ok(Self { threads, spread })
    }

    /// Serves `ring` of `port` from each worker's next turn on.
    pub(crate) fn attach(&self, port: PortId, ring: RunningRing) {
        match ring {
            RunningRing::From(_) => {
                let mut spread = self.spread();
                let worker = spread.add((port, ring.index()));
                self.threads[worker].mailbox.send(Message::Attach { port, ring });
            }
            RunningRing::To(ring) => {
                for worker in &self.threads {
                    let ring = RunningRing::To(ring.clone());
                    worker.mailbox.send(Message::Attach { port, ring });
                }
            }
        }
    }

    /// Ring `index` of `port`, once no worker uses it. None if none had it.
    pub(crate) fn detach(&self, port: PortId, index: u16) -> Option<RunningRing> {
        // Even is a receiveq (virtio 1.2 §5.1.2).
        if index.is_multiple_of(2) {
            let held = self.ask_all(|answer| Message::Detach { port, index, answer });
            return held.into_iter().flatten().next();
        }
        let mut spread = self.spread();
        let worker = spread.worker_of((port, index))?;
        let ring = self.take(worker, port, index);
        if let Some(Move { ring: (port, index), from, to }) = spread.remove((port, index))
            && let Some(ring) = self.take(from, port, index)
        {
            self.threads[to].mailbox.send(Message::Attach { port, ring });
        }
        ring
    }

    fn take(&self, worker: usize, port: PortId, index: u16) -> Option<RunningRing> {
        self.threads[worker].mailbox.ask(|answer| Message::Detach { port, index, answer })
    }

    fn spread(&self) -> MutexGuard<'_, Spread> {
        self.spread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets every worker decide by `world`, which has these ports, with these connections.
    pub(crate) fn adopt(&self, world: &Arc<World>, connections: &Arc<Connections>, healths: &Healths) {
        self.ask_all(|answer| Message::Adopt {
            world: world.clone(),
            connections: connections.clone(),
            healths: healths.clone(),
            answer,
        });
    }

    /// What was counted. Each worker's part is taken between two of its turns and obeys the accounting law by itself, since a frame
    /// and all its copies are counted by one worker; so does the sum, although the parts are not of the same moment.
    pub(crate) fn counted(&self) -> Counted {
        let tallies = self.ask_all(|answer| Message::Count { answer });
        let views = (0..).zip(&self.threads).zip(&tallies);
        let workers = views.map(|((number, thread), tally)| view(number, thread.cpu, tally)).collect();
        let mut tallies = tallies.into_iter().map(|tally| tally.ports);
        let mut ports = tallies.next().unwrap_or_default();
        for (id, more) in tallies.flatten() {
            ports.entry(id).or_default().add(&more);
        }
        Counted { ports, workers }
    }

    /// Notes the fates of frames like these from now on.
    pub(crate) fn watch(&self, number: u32, watch: &Watch) {
        self.ask_all(|answer| Message::Watch { number, watch: watch.clone(), answer });
    }

    /// What watch `number` saw, oldest first, and how many it saw more; with `end` the watch goes. None: there is no such watch.
    pub(crate) fn sightings(&self, number: u32, end: bool) -> Option<(Vec<Sighting>, u64)> {
        let mut all = (Vec::new(), 0);
        for seen in self.ask_all(|answer| Message::Sightings { number, end, answer }) {
            let (mut sightings, lost) = seen?;
            all.0.append(&mut sightings);
            all.1 += lost;
        }
        all.0.sort_by_key(|sighting| sighting.at_nanos);
        all.1 += all.0.len().saturating_sub(SIGHTINGS) as u64;
        all.0.truncate(SIGHTINGS);
        Some(all)
    }

    /// How each worker is reached.
    pub(crate) fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        self.threads.iter().map(|worker| worker.mailbox.clone()).collect()
    }

    /// Of what each worker recorded not before `since`, the next piece: from record number `from` on, which is 0 where none is given. All
    /// together they are at most [`PIECE`] records.
    pub(crate) fn records(&self, mut from: impl Iterator<Item = u64>, since: clock::Instant) -> Vec<Piece> {
        let room = PIECE.div_ceil(self.threads.len());
        self.ask_all(|answer| {
            let (from, records) = (from.next().unwrap_or(0), Vec::with_capacity(room));
            Message::Records { from, since, records, answer }
        })
    }

    /// Makes the worker that serves `port` panic over its next frame.
    #[cfg(feature = "injection")]
    pub(crate) fn inject_panic(&self, port: PortId) {
        let worker = self.spread().worker_of((port, 1)).unwrap_or(0);
        self.threads[worker].mailbox.ask(|answer| Message::Panic { port, answer });
    }

    /// Leaves each worker a message and waits until all have answered.
    fn ask_all<T>(&self, mut make: impl FnMut(Sender<T>) -> Message) -> Vec<T> {
        let asked: Vec<Answer<T>> =
            self.threads.iter().map(|worker| worker.mailbox.question(&mut make)).collect();
        asked.into_iter().map(Answer::wait).collect()
    }
}

impl PortTally {
    /// Adds another worker's. A receiveq runs once all deliver to it, a transmitq once it has its one.
    fn add(&mut self, other: &Self) {
        self.counters.add(&other.counters);
        self.sources.extend(&other.sources);
        self.destinations.retain(|index, _| other.destinations.contains_key(index));
    }
}

fn view(number: u16, cpu: Option<u16>, tally: &Tally) -> WorkerView {
    let cycles = if tally.frames == 0 { 0.0 } else { tally.busy_cycles as f64 / tally.frames as f64 };
    WorkerView {
        worker: number,
        cpu,
        rings: tally.ports.values().map(|port| port.sources.len() as u16).sum(),
        busy_turns: tally.busy_turns,
        frames: tally.frames,
        busy_cycles: tally.busy_cycles,
        busy_nanos: u64::try_from(tally.busy.as_nanos()).unwrap_or(u64::MAX),
        cycles_per_frame: cycles,
        sleeps: tally.sleeps,
        panics: tally.panics,
        captures: tally.captures,
    }
}
