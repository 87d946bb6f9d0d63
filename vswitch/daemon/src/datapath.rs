//! The datapath as a whole: which ports there are, which World decides, and what was counted.

use crate::{
    control::protocol::{
        Attachment, AttachmentKind, DatapathSettings, FdbRow, FdbView, Journey, PortState, PortView,
        Sighting, Snapshot, Watch, WorkerView,
    },
    host::Host,
    ports::tap::{TapAdapter, TapState},
    worker::{
        mailbox::{Message, PortTally},
        thread::WorkerThread,
    },
};
use anyhow::{Context, anyhow, bail};
use std::{
    collections::{BTreeMap, VecDeque},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::Arc,
    time::Instant,
};
use vhost_net_backend::device::{
    fault::PortFault,
    port::{Port, PortConfig},
};
use vswitch_core::{
    clock,
    decide::{Fate, Switch},
    description::{Description, Port as PortDescription},
    fdb::{Fdb, Row, Target},
    head::{FrameView, HEAD_BYTES, LinkHeader},
    id::PortId,
    trace::Recorder,
    world::World,
};

/// Buckets of the FDB: room for 64 Ki addresses in 1 MiB.
const FDB_BUCKETS: usize = 1 << 14;

/// One datapath. Dropped, it gives every ring back and ends its threads.
pub struct Datapath {
    origin: Instant,
    /// Closed before the worker ends: a port that closes asks the worker for its rings.
    ports: BTreeMap<PortId, Attached>,
    running: Option<Running>,
    watches: u32,
}

/// What there is from the first apply on.
struct Running {
    world: Arc<World>,
    fdb: Arc<Fdb>,
    settings: DatapathSettings,
    worker: WorkerThread,
}

/// A port and what stands around it. The adapter, if there is one, goes first.
struct Attached {
    kind: AttachmentKind,
    adapter: Option<TapAdapter>,
    port: Port,
    host: Arc<Host>,
}

impl Attached {
    /// The port's state, why, and the features in force.
    fn state(&self, running: bool, fault: Option<&PortFault>) -> (PortState, String, u64) {
        if let Some(TapState::Ended(why)) = self.adapter.as_ref().map(TapAdapter::state) {
            return (PortState::Faulted, why.to_string(), 0);
        }
        if let Some(why) = fault {
            return (PortState::Faulted, why.to_string(), 0);
        }
        let (state, mut detail, features) = self.host.state(running);
        if state != PortState::Up
            && let Some(refusal) = self.port.refusals().last()
        {
            detail = format!("{detail}; last refused: {refusal}");
        }
        if let Some(refused @ 1..) = self.adapter.as_ref().map(TapAdapter::refused) {
            detail = format!("{detail}; the tap refused {refused} frames");
        }
        (state, detail, features)
    }
}

impl Default for Datapath {
    fn default() -> Self {
        Self::new()
    }
}

impl Datapath {
    /// A datapath that is nothing yet.
    pub fn new() -> Self {
        Self { origin: Instant::now(), ports: BTreeMap::new(), running: None, watches: 0 }
    }

    fn now(&self) -> clock::Instant {
        clock::Instant::ZERO + self.origin.elapsed()
    }

    fn running(&self) -> anyhow::Result<&Running> {
        self.running.as_ref().ok_or_else(|| anyhow!("no lab was applied yet"))
    }

    /// Becomes the lab that is described. `descriptors` are the attachments', in order. If it fails, nothing changed but
    /// that ports which are new in this lab may be missing.
    ///
    /// # Errors
    /// The description cannot be compiled, a setting cannot change while the worker runs, or a port cannot start.
    pub fn apply(
        &mut self,
        description: &Description,
        attachments: Vec<Attachment>,
        descriptors: Vec<OwnedFd>,
        settings: DatapathSettings,
    ) -> anyhow::Result<()> {
        let world = Arc::new(World::compile(description)?);
        if settings.workers != 1 {
            bail!("this version runs one worker, not {}", settings.workers);
        }
        let running = match self.running.take() {
            Some(running) if running.settings != settings => {
                self.running = Some(running);
                bail!("`datapath` settings cannot change while the lab runs");
            }
            Some(running) => running,
            None => self.start(world.clone(), settings)?,
        };
        // What is gone gives its rings back before the World that knows it is.
        let keeps = |id: &PortId, attached: &Attached| {
            attachments.iter().any(|new| new.port == *id && new.kind == attached.kind)
        };
        self.ports.retain(|id, attached| keeps(id, attached));
        running.fdb.install(&world);
        running.worker.mailbox.ask(|answer| Message::Adopt { world: world.clone(), answer });
        self.running = Some(Running { world, ..running });
        let mut descriptors = VecDeque::from(descriptors);
        for attachment in attachments {
            let descriptor = match attachment.kind {
                AttachmentKind::VhostUserConnect { .. } => None,
                AttachmentKind::VhostUserListen | AttachmentKind::Tap => {
                    Some(descriptors.pop_front().context("an attachment came without its descriptor")?)
                }
            };
            if !self.ports.contains_key(&attachment.port) {
                self.attach(attachment, descriptor)?;
            }
        }
        Ok(())
    }

    fn start(&self, world: Arc<World>, settings: DatapathSettings) -> anyhow::Result<Running> {
        let mut seed = [0; 8];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
            .context("no random seed for the FDB")?;
        let fdb = Arc::new(Fdb::new(u64::from_ne_bytes(seed), FDB_BUCKETS));
        let cpu = settings.cpus.first().copied();
        let worker = WorkerThread::start(0, cpu, settings.poll, world.clone(), fdb.clone(), self.origin)
            .context("a worker")?;
        Ok(Running { world, fdb, settings, worker })
    }

    fn attach(&mut self, attachment: Attachment, descriptor: Option<OwnedFd>) -> anyhow::Result<()> {
        let running = self.running()?;
        let described = describe(&running.world, attachment.port).context("an attachment names no port")?;
        if !described.up {
            return Ok(());
        }
        let name = described.name();
        let mailbox = running.worker.mailbox.clone();
        let host = Host::new(attachment.port, name.clone(), mailbox.clone());
        let mut config = PortConfig::new(&name);
        config.queue_pairs = described.queues;
        config.mtu = described.mtu;
        config.sealed_memory = described.sealed_memory;
        let mut adapter = None;
        let port = match (&attachment.kind, descriptor) {
            (AttachmentKind::VhostUserListen, Some(fd)) => {
                Port::listen(UnixListener::from(fd), config, host.clone())
            }
            (AttachmentKind::VhostUserConnect { path }, _) => {
                Port::connect(PathBuf::from(path), config, host.clone())
            }
            (AttachmentKind::Tap, Some(tap)) => {
                let (ours, theirs) = UnixStream::pair().with_context(|| name.clone())?;
                adapter = Some(TapAdapter::start(&name, tap, theirs).with_context(|| name.clone())?);
                Port::adopt(ours, config, host.clone())
            }
            (AttachmentKind::VhostUserListen | AttachmentKind::Tap, None) => {
                bail!("{name}: no descriptor came along")
            }
        }
        .with_context(|| name.clone())?;
        mailbox.send(Message::Handle { port: attachment.port, handle: port.fault_handle() });
        self.ports.insert(attachment.port, Attached { kind: attachment.kind, adapter, port, host });
        Ok(())
    }

    /// Everything countable, consistent at one moment between two turns.
    ///
    /// # Errors
    /// No lab was applied yet.
    pub fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let running = self.running()?;
        let tally = running.worker.mailbox.ask(|answer| Message::Count { answer });
        let described = running.world.description().ports.iter().flatten();
        let ports = described.map(|port| self.port_view(port, tally.ports.get(&port.id))).collect();
        let cycles = if tally.frames == 0 { 0.0 } else { tally.busy_cycles as f64 / tally.frames as f64 };
        let worker = WorkerView {
            worker: 0,
            cpu: running.worker.cpu,
            busy_turns: tally.busy_turns,
            frames: tally.frames,
            busy_cycles: tally.busy_cycles,
            cycles_per_frame: cycles,
            sleeps: tally.sleeps,
            panics: tally.panics,
        };
        let counts = running.fdb.counts(self.now());
        let fdb = FdbView {
            entries: counts.entries,
            learned: counts.learned,
            moves: counts.moves,
            refused: counts.refused,
        };
        Ok(Snapshot { epoch: Some(running.world.epoch()), ports, workers: vec![worker], fdb })
    }

    fn port_view(&self, described: &PortDescription, tally: Option<&PortTally>) -> PortView {
        let rings = tally.map(|tally| tally.rings.clone()).unwrap_or_default();
        // A frame flows both ways only with a ring for each direction.
        let both = rings.keys().any(|index| index % 2 == 0) && rings.keys().any(|index| index % 2 == 1);
        let fault = tally.and_then(|tally| tally.fault.as_ref());
        let (state, detail, features) = match self.ports.get(&described.id) {
            Some(attached) => attached.state(both, fault),
            None if !described.up => (PortState::Down, "down by configuration (`state: down`)".into(), 0),
            None => (PortState::Waiting, "it has no attachment".into(), 0),
        };
        PortView {
            port: described.id,
            node: described.node.clone(),
            interface: described.interface.clone(),
            state,
            detail,
            features,
            rings,
            counters: tally.map(|tally| tally.counters.view()).unwrap_or_default(),
        }
    }

    /// The learned and static addresses.
    ///
    /// # Errors
    /// No lab was applied yet.
    pub fn fdb(&self) -> anyhow::Result<Vec<FdbRow>> {
        let running = self.running()?;
        let rows = running.fdb.rows(&running.world, self.now());
        Ok(rows.into_iter().map(|row| fdb_row(&running.world, row)).collect())
    }

    /// What would become of `frame` if it came in on `port` now. Nothing is learned or sent.
    ///
    /// # Errors
    /// There is no such port.
    pub fn trace(&self, port: PortId, frame: &[u8]) -> anyhow::Result<Journey> {
        let running = self.running()?;
        describe(&running.world, port).context("there is no such port")?;
        let head = &frame[..frame.len().min(HEAD_BYTES)];
        let len = u32::try_from(frame.len()).context("the frame is too long")?;
        let switch = Switch { world: &running.world, fdb: &running.fdb, now: self.now(), learning: false };
        let (mut copies, mut recorder) = (Vec::new(), Recorder::default());
        let fate = match LinkHeader::parse(head, len) {
            Ok(link) => {
                let frame = FrameView { link: &link, bytes: head, len };
                switch.decide(port.index(), &frame, &mut copies, &mut recorder)
            }
            Err(reason) => Fate::Dropped(reason),
        };
        Ok(Journey {
            steps: recorder.steps,
            dropped: if let Fate::Dropped(reason) = fate { Some(reason) } else { None },
            copies: copies
                .iter()
                .filter_map(|copy| running.world.port(copy.to))
                .map(|port| port.id)
                .collect(),
        })
    }

    /// Notes the fates of frames like these from now on; returns the watch's number.
    ///
    /// # Errors
    /// No lab was applied yet.
    pub fn watch(&mut self, watch: Watch) -> anyhow::Result<u32> {
        self.watches += 1;
        let number = self.watches;
        self.running()?.worker.mailbox.ask(|answer| Message::Watch { number, watch, answer });
        Ok(number)
    }

    /// What watch `number` saw since the last time; with `end` the watch goes.
    ///
    /// # Errors
    /// There is no such watch.
    pub fn sightings(&self, number: u32, end: bool) -> anyhow::Result<(Vec<Sighting>, u64)> {
        let seen = self.running()?.worker.mailbox.ask(|answer| Message::Sightings { number, end, answer });
        seen.with_context(|| format!("there is no watch {number}"))
    }

    /// Makes the worker panic over the next frame of `port`: a test's proof that it stays there.
    ///
    /// # Errors
    /// No lab was applied yet.
    #[cfg(feature = "injection")]
    pub fn inject_panic(&self, port: PortId) -> anyhow::Result<()> {
        self.running()?.worker.mailbox.ask(|answer| Message::Panic { port, answer });
        Ok(())
    }
}

fn fdb_row(world: &World, row: Row) -> FdbRow {
    let switch = |id| world.switch(id).map(|switch| switch.name.clone()).unwrap_or_default();
    FdbRow {
        switch: switch(row.switch),
        vlan: row.vlan,
        mac: row.mac,
        port: match row.target {
            Target::Port(id) => world.port(id.index()).map(|port| port.name.clone()).unwrap_or_default(),
            Target::Trunk(neighbour) => switch(neighbour),
        },
        is_static: row.is_static,
        age_secs: row.age_secs,
    }
}

fn describe(world: &World, id: PortId) -> Option<&PortDescription> {
    world.description().ports.get(usize::from(id.index()))?.as_ref().filter(|port| port.id == id)
}
