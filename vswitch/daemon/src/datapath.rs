//! The datapath as a whole: which ports there are, which World decides, and what was counted.

use crate::{
    capture::Captures,
    control::protocol::{
        Attachment, AttachmentKind, CaptureSettings, ConnectionRow, ConnectionTable, DatapathSettings,
        FdbRow, FdbTable, FdbView, Journey, Kept, KeptLease, LeaseTable, NeighbourTable, PortState, PortView,
        Records, RecordsWanted, RouteRow, RuleHits, Sighting, Snapshot, Watch,
    },
    grower::Grower,
    host::Host,
    ports::{
        adapter::{Adapter, AdapterState},
        pcap::Replay,
        peers::Meeting,
        routers::Voice,
    },
    recorder::{PIECE, Record, journal::Journal},
    routers::{Lost, rows},
    rule_log::RuleLog,
    tracking::Tracking,
    worker::{
        Tables,
        mailbox::{Message, PortTally},
        ports::Healths,
    },
    workers::Workers,
};
use anyhow::{Context, anyhow, bail, ensure};
use std::{
    collections::BTreeMap,
    iter,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::Arc,
    time::Instant,
};
use vhost_net_backend::device::port::{Port, PortConfig};
use vswitch_core::{
    clock,
    decide::{Fate, Switch},
    description::{Description, Port as PortDescription},
    drop_reason::DropReason,
    fdb::{Fdb, Row, Target},
    firewall::connections::{self, MAX_CAPACITY, MIN_CAPACITY},
    head::{FrameView, HEAD_BYTES, LinkHeader},
    id::PortId,
    route::Neighbours,
    trace::{Recorder, Step},
    world::{self, World},
};

/// Buckets that the FDB starts with, in 1 MiB. It grows at 32 Ki addresses to 8 MiB, at 256 Ki to 64 MiB: room for a million
/// on each side of a switch.
const FDB_BUCKETS: usize = 1 << 14;

/// Addresses that one answer shows at most.
const FDB_ROWS: usize = 16 << 10;

/// Connections that one answer shows at most.
const CONNECTION_ROWS: usize = 16 << 10;

/// The most workers that a datapath may have.
const MAX_WORKERS: u16 = 64;

/// One datapath. Dropped, it gives every ring back and ends its threads.
pub struct Datapath {
    origin: Instant,
    /// Closed before the workers end: a port that closes asks them for its rings.
    ports: BTreeMap<PortId, Attached>,
    running: Option<Running>,
    /// Whether another switch had the first lab before.
    resumes: bool,
    /// What routers of before gave, and how changes of that are told.
    remembered: (Vec<KeptLease>, Option<OwnedFd>),
    journal: Arc<Journal>,
    /// What waited for a neighbour of the routers who did not answer.
    unanswered: Arc<Journal>,
    watches: u32,
    captures: Captures,
}

/// What there is from the first apply on.
struct Running {
    world: Arc<World>,
    tables: Tables,
    /// Goes with it.
    _grower: Grower,
    tracking: Tracking,
    settings: DatapathSettings,
    workers: Arc<Workers>,
    /// Behind the workers: it writes what they left to the end.
    rule_log: RuleLog,
    /// Of all ports of the World.
    healths: Healths,
}

/// A port and what stands around it. The port goes first: what it delivered until then its adapter, if there is one, still gives outside.
struct Attached {
    attachment: Attachment,
    port: Port,
    adapter: Option<Adapter>,
    /// That of the routers, if it is their port.
    voice: Option<Arc<Voice>>,
    host: Arc<Host>,
}

impl Attached {
    /// The port's state, why, and the features in force.
    fn state(&self, running: bool) -> (PortState, String, u64) {
        if let Some(AdapterState::Ended(why)) = self.adapter.as_ref().map(Adapter::state) {
            return (PortState::Faulted, why.to_string(), 0);
        }
        if let Some(why) = self.host.health().fault() {
            return (PortState::Faulted, why.to_string(), 0);
        }
        if let Some(AdapterState::Waiting(why)) = self.adapter.as_ref().map(Adapter::state) {
            return (PortState::Waiting, why, 0);
        }
        let (state, mut detail, features) = self.host.state(running);
        if state != PortState::Up
            && let Some(refusal) = self.port.refusals().last()
        {
            detail = format!("{detail}; last refused: {refusal}");
        }
        if let Some(adapter) = self.adapter.as_ref().filter(|adapter| adapter.refused() > 0) {
            detail = format!("{detail}; the {} refused {} frames", adapter.what(), adapter.refused());
        }
        let told = [
            (Lost::Unreachable, "frames were lost for neighbours that do not answer"),
            (
                Lost::HoldFull,
                "frames were lost while a neighbour was asked for: the latest three wait for it",
            ),
            (Lost::QueueFull, "frames were lost that found no room to be sent"),
            (
                Lost::Rate,
                "answers and errors were left out: more than 1000 a second for a share of the stations",
            ),
            (Lost::TooMany, "frames and questions were lost of stations for which too much waits"),
        ];
        for (why, what) in told {
            if let Some(lost) = self.voice.as_ref().map(|voice| voice.lost(why)).filter(|lost| *lost > 0) {
                detail = format!("{detail}; {lost} {what}");
            }
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
        let origin = Instant::now();
        Self {
            origin,
            ports: BTreeMap::new(),
            running: None,
            resumes: false,
            remembered: (Vec::new(), None),
            journal: Arc::new(Journal::new(origin)),
            unanswered: Arc::new(Journal::new(origin)),
            watches: 0,
            captures: Captures::default(),
        }
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
    /// The description cannot be compiled, the settings cannot be or cannot change while the workers run, or a port cannot start.
    pub fn apply(
        &mut self,
        description: &Description,
        attachments: Vec<Attachment>,
        descriptors: Vec<OwnedFd>,
        settings: DatapathSettings,
    ) -> anyhow::Result<()> {
        let world = Arc::new(match &self.running {
            Some(running) => World::compile_after(description, &running.world)?,
            None => World::compile(description)?,
        });
        check(&settings)?;
        let wanted: usize = attachments.iter().map(|new| new.kind.descriptors()).sum();
        ensure!(wanted <= descriptors.len(), "an attachment came without its descriptor");
        let run_already = self.resumes || self.running.is_some();
        let mut running = match self.running.take() {
            Some(running) if running.settings != settings => {
                self.running = Some(running);
                bail!("`datapath` settings cannot change while the lab runs");
            }
            Some(running) => running,
            None => self.start(world.clone(), settings)?,
        };
        if let Err(why) = running.tracking.admit(&world, self.origin, run_already) {
            self.running = Some(running);
            return Err(why);
        }
        // What is gone gives its rings back before the World that knows it is.
        self.ports.retain(|_, attached| attachments.contains(&attached.attachment));
        running.tables.fdb.install(&world);
        let health = |id| running.healths.get(&id).cloned().unwrap_or_default();
        let healths: Healths = world.ports().map(|port| (port.id, health(port.id))).collect();
        running.workers.adopt(&world, running.tracking.table(), &healths);
        running.tables.fdb.settle(&world);
        running.tables.neighbours.settle(world.routing());
        running.tracking.forget_others(&world);
        if let Err(why) = running.rule_log.follow(&world) {
            tracing::error!("what rules decide is not logged: no thread for it: {why}");
        }
        self.journal.apply(world.epoch(), world.ports().map(|port| port.id));
        self.unanswered.follow(world.epoch(), world.ports().map(|port| port.id));
        if let Some(voice) = self.voice() {
            voice.adopt(world.clone(), running.tracking.table().clone());
        }
        self.running = Some(Running { world, healths, ..running });
        let mut descriptors = descriptors.into_iter();
        for attachment in attachments {
            let its = descriptors.by_ref().take(attachment.kind.descriptors()).collect();
            if !self.ports.contains_key(&attachment.port) {
                self.attach(attachment, its)?;
            }
        }
        Ok(())
    }

    /// The first lab was another switch's before: connections run already.
    pub const fn resume(&mut self) {
        self.resumes = true;
    }

    /// Before the first lab: these addresses were given by routers of before, and whenever other ones are to be remembered, a byte is sent into `bell`.
    ///
    /// # Errors
    /// A lab was applied already.
    pub fn remember(&mut self, leases: Vec<KeptLease>, bell: OwnedFd) -> anyhow::Result<()> {
        ensure!(self.running.is_none(), "a lab was applied already");
        self.remembered = (leases, Some(bell));
        Ok(())
    }

    fn start(&self, world: Arc<World>, settings: DatapathSettings) -> anyhow::Result<Running> {
        let [seed, secret @ ..] = random().context("no random seed for the FDB")?;
        let fdb = Arc::new(Fdb::new(seed, FDB_BUCKETS));
        let grower = Grower::start(&fdb).context("a thread for the FDB")?;
        let tracking = Tracking::none(settings.connections);
        let tables = Tables { fdb, neighbours: Arc::new(Neighbours::new(secret)) };
        let workers = Workers::start(&settings, &world, &tables, tracking.table(), self.origin);
        let workers = workers.context("a worker")?;
        Ok(Running {
            world,
            tables,
            _grower: grower,
            tracking,
            settings,
            workers: Arc::new(workers),
            rule_log: RuleLog::none(self.origin),
            healths: Healths::new(),
        })
    }

    fn attach(&mut self, attachment: Attachment, mut descriptors: Vec<OwnedFd>) -> anyhow::Result<()> {
        let running = self.running()?;
        let described = describe(&running.world, attachment.port).context("an attachment names no port")?;
        if !running.world.port(attachment.port.index()).is_some_and(|port| port.up) {
            return Ok(());
        }
        let name = described.name();
        let health = running.healths.get(&attachment.port).cloned().unwrap_or_default();
        let host =
            Host::new(attachment.port, name.clone(), health, running.workers.clone(), self.journal.clone());
        let mut config = PortConfig::new(&name);
        config.queue_pairs = described.queues;
        config.mtu = described.mtu;
        config.sealed_memory = described.sealed_memory;
        let (mut adapter, mut voice) = (None, None);
        let port = match &attachment.kind {
            AttachmentKind::VhostUserListen => {
                let socket =
                    descriptors.pop().with_context(|| format!("{name}: no descriptor came along"))?;
                Port::listen(UnixListener::from(socket), config, host.clone())
            }
            AttachmentKind::VhostUserConnect { path } => {
                Port::connect(PathBuf::from(path), config, host.clone())
            }
            AttachmentKind::Tap { uso, .. } => {
                let (ours, theirs) = UnixStream::pair().with_context(|| name.clone())?;
                let started = Adapter::tap(&name, descriptors, *uso, theirs);
                adapter = Some(started.with_context(|| name.clone())?);
                Port::adopt(ours, config, host.clone())
            }
            AttachmentKind::Pcap { replay, record, paced } => {
                let mut descriptors = descriptors.into_iter();
                let mut next =
                    || descriptors.next().with_context(|| format!("{name}: no descriptor came along"));
                let replay = if *replay {
                    Some(Replay { file: next()?, begin: next()?, paced: *paced })
                } else {
                    None
                };
                let record = if *record { Some(next()?) } else { None };
                let (ours, theirs) = UnixStream::pair().with_context(|| name.clone())?;
                adapter = Some(Adapter::pcap(&name, replay, record, theirs).with_context(|| name.clone())?);
                Port::adopt(ours, config, host.clone())
            }
            AttachmentKind::Routers => {
                let (ours, theirs) = UnixStream::pair().with_context(|| name.clone())?;
                let (leases, bell) = std::mem::take(&mut self.remembered);
                let its = Voice::new(self.unanswered.clone(), leases, bell).with_context(|| name.clone())?;
                let running = self.running()?;
                its.adopt(running.world.clone(), running.tracking.table().clone());
                let hears = (its.clone(), self.origin);
                let started = Adapter::routers(&name, running.tables.neighbours.clone(), hears, theirs);
                adapter = Some(started.with_context(|| name.clone())?);
                voice = Some(its);
                Port::adopt(ours, config, host.clone())
            }
            AttachmentKind::Nic { interface } => {
                let socket =
                    descriptors.pop().with_context(|| format!("{name}: no descriptor came along"))?;
                let (ours, theirs) = UnixStream::pair().with_context(|| name.clone())?;
                adapter = Some(Adapter::nic(&name, interface, socket, theirs).with_context(|| name.clone())?);
                Port::adopt(ours, config, host.clone())
            }
            AttachmentKind::StreamListen
            | AttachmentKind::StreamConnect { .. }
            | AttachmentKind::Dgram { .. } => {
                let meeting = match &attachment.kind {
                    AttachmentKind::StreamConnect { path } => Meeting::Connect(PathBuf::from(path)),
                    kind => {
                        let socket = descriptors.pop();
                        let socket = socket.with_context(|| format!("{name}: no descriptor came along"))?;
                        match kind {
                            AttachmentKind::Dgram { remote } => {
                                Meeting::Datagrams { local: socket.into(), remote: PathBuf::from(remote) }
                            }
                            _ => Meeting::Listen(socket.into()),
                        }
                    }
                };
                let (ours, theirs) = UnixStream::pair().with_context(|| name.clone())?;
                let started = Adapter::peers(&name, meeting, theirs);
                adapter = Some(started.with_context(|| name.clone())?);
                Port::adopt(ours, config, host.clone())
            }
        }
        .with_context(|| name.clone())?;
        host.health().tell(port.fault_handle());
        self.ports.insert(attachment.port, Attached { attachment, adapter, voice, port, host });
        Ok(())
    }

    /// Everything countable. The accounting law holds in it at any moment.
    ///
    /// # Errors
    /// No lab was applied yet.
    pub fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let running = self.running()?;
        let counted = running.workers.counted();
        let described = running.world.description().ports.iter().flatten();
        let ports =
            described.map(|port| self.port_view(running, port, counted.ports.get(&port.id))).collect();
        let switches = &running.world.description().switches;
        let counts = running.tables.fdb.counts(self.now());
        let names = switches.iter().map(|switch| switch.name.clone());
        let by_switch = counts.by_switch.into_iter().chain(iter::repeat(0));
        let fdb = FdbView {
            entries: counts.entries,
            by_switch: names.zip(by_switch).collect(),
            learned: counts.learned,
            moves: counts.moves,
            refused: counts.refused,
        };
        Ok(Snapshot { epoch: Some(running.world.epoch()), ports, workers: counted.workers, fdb })
    }

    fn port_view(
        &self,
        Running { world, tracking, .. }: &Running,
        described: &PortDescription,
        tally: Option<&PortTally>,
    ) -> PortView {
        let rings: BTreeMap<u16, u16> = tally.map(PortTally::rings).unwrap_or_default();
        // A frame flows both ways only with a ring for each direction.
        let both = rings.keys().any(|index| index % 2 == 0) && rings.keys().any(|index| index % 2 == 1);
        let fault = world.port(described.id.index()).and_then(|port| port.fault());
        let (state, detail, features) = match (fault, self.ports.get(&described.id)) {
            (Some(fault), _) => {
                (PortState::Down, format!("down: its firewall cannot be compiled ({fault})"), 0)
            }
            (None, Some(attached)) => attached.state(both),
            (None, None) if !described.up => {
                (PortState::Down, "down by configuration (`state: down`)".into(), 0)
            }
            (None, None) => (PortState::Waiting, "it has no attachment".into(), 0),
        };
        PortView {
            port: described.id,
            node: described.node.clone(),
            interface: described.interface.clone(),
            state,
            detail,
            features,
            rings,
            ring_frames: tally.map(|tally| tally.counters.by_ring()).unwrap_or_default(),
            counters: tally.map(|tally| tally.counters.view()).unwrap_or_default(),
            connections: tracking.counts(described.id),
        }
    }

    /// The learned and static addresses; with `port` only those that are there. Of more than 16 Ki it shows so many, and says
    /// how many there are.
    ///
    /// # Errors
    /// No lab was applied yet.
    pub fn fdb(&self, port: Option<PortId>) -> anyhow::Result<FdbTable> {
        let running = self.running()?;
        let is_there = |row: &Row| port.is_none_or(|port| row.target == Target::Port(port));
        let mut found = running.tables.fdb.rows(&running.world, self.now()).filter(is_there);
        let rows: Vec<_> = found.by_ref().take(FDB_ROWS).map(|row| fdb_row(&running.world, row)).collect();
        Ok(FdbTable { entries: (rows.len() + found.count()) as u64, rows })
    }

    /// How often rules decided.
    ///
    /// # Errors
    /// No lab was applied yet.
    pub fn rule_hits(&self) -> anyhow::Result<RuleHits> {
        let world = &self.running()?.world;
        let defaults = |port: &world::Port| Some((port.id, port.firewall.as_ref()?.defaults.counts()));
        Ok(RuleHits {
            epoch: world.epoch(),
            rules: world.rule_hits().collect(),
            defaults: world.ports().filter_map(defaults).collect(),
        })
    }

    /// The connections that the firewalls of `ports` have allowed; of all, if there are none. Of more than 16 Ki it shows so many,
    /// and says how many there are.
    ///
    /// # Errors
    /// No lab was applied yet.
    pub fn connections(&self, ports: &[PortId]) -> anyhow::Result<ConnectionTable> {
        let Running { world, tracking, .. } = self.running()?;
        let (mut found, mut entries) = (Vec::new(), 0);
        tracking.table().list(0, usize::MAX, self.now(), |row| {
            if ports.is_empty() || ports.contains(&row.port) {
                entries += 1;
                if found.len() < CONNECTION_ROWS {
                    found.push(row);
                }
            }
        });
        found.sort_by_key(|row| (row.port.index(), row.idle_secs, row.age_secs));
        let rows = found.into_iter().map(|row| connection_row(world, &row)).collect();
        Ok(ConnectionTable { entries, rows })
    }

    /// That of the routers, if the lab has any.
    fn voice(&self) -> Option<&Arc<Voice>> {
        self.ports.values().find_map(|attached| attached.voice.as_ref())
    }

    /// The neighbours that routers know.
    ///
    /// # Errors
    /// No lab was applied yet.
    pub fn neighbours(&self) -> anyhow::Result<NeighbourTable> {
        let running = self.running()?;
        let sought = self.voice().map(|voice| voice.sought(self.now())).unwrap_or_default();
        Ok(NeighbourTable {
            rows: rows::neighbours(&running.tables.neighbours, sought, self.now()),
            counts: self.voice().map(|voice| voice.counts()).unwrap_or_default(),
        })
    }

    /// The addresses that gateways have given.
    ///
    /// # Errors
    /// No lab was applied yet.
    pub fn leases(&self) -> anyhow::Result<LeaseTable> {
        self.running()?;
        Ok(self.voice().map(|voice| voice.leases(self.now())).unwrap_or_default())
    }

    /// What is to be remembered of these; none as long as that is not known.
    ///
    /// # Errors
    /// No lab was applied yet.
    pub fn kept(&self) -> anyhow::Result<Option<Kept>> {
        self.running()?;
        Ok(self.voice().and_then(|voice| voice.kept(self.now())))
    }

    /// The routes of all routers.
    ///
    /// # Errors
    /// No lab was applied yet.
    pub fn routes(&self) -> anyhow::Result<Vec<RouteRow>> {
        Ok(self.running()?.world.routing().map(rows::routes).unwrap_or_default())
    }

    /// What would become of `frame` if it came in on `port` now. Nothing is learned or sent. A copy for a port that is not up is
    /// lost there.
    ///
    /// # Errors
    /// There is no such port.
    pub fn trace(&self, port: PortId, frame: &[u8]) -> anyhow::Result<Journey> {
        let running = self.running()?;
        describe(&running.world, port).context("there is no such port")?;
        let head = &frame[..frame.len().min(HEAD_BYTES)];
        let len = u32::try_from(frame.len()).context("the frame is too long")?;
        let switch = Switch {
            world: &running.world,
            fdb: &running.tables.fdb,
            connections: running.tracking.table(),
            neighbours: &running.tables.neighbours,
            now: self.now(),
            learning: false,
        };
        let (mut copies, mut recorder) = (Vec::new(), Recorder::default());
        let fate = match LinkHeader::parse(head, len) {
            Ok(link) => {
                let frame = FrameView { link: &link, bytes: head, len, wire_len: len };
                let fate = switch.decide(port.index(), &frame, &mut copies, &mut recorder);
                let answer = switch.answer(port.index(), &frame, fate, &copies);
                let sender = running.world.port(port.index());
                recorder
                    .steps
                    .extend(answer.zip(sender).map(|(answer, to)| Step::answered(to, answer.kind())));
                fate
            }
            Err(reason) => Fate::Dropped(reason),
        };
        let dropped = if let Fate::Dropped(reason) = fate { Some(reason) } else { None };
        let mut journey = Journey { steps: recorder.steps, dropped, copies: Vec::new(), lost: Vec::new() };
        let counted = running.workers.counted();
        for copy in &copies {
            let Some(port) = running.world.port(copy.to) else { continue };
            let mut lost = copy.outcome.err();
            let described = describe(&running.world, port.id);
            let state =
                described.map(|port| self.port_view(running, port, counted.ports.get(&port.id)).state);
            if lost.is_none() && state != Some(PortState::Up) {
                lost = Some(DropReason::PortDown);
                journey.steps.push(Step::lost(port, DropReason::PortDown));
            }
            journey.copies.push(port.id);
            journey.lost.push(lost);
        }
        Ok(journey)
    }

    /// Notes the fates of frames like these from now on; returns the watch's number.
    ///
    /// # Errors
    /// No lab was applied yet.
    pub fn watch(&mut self, watch: &Watch) -> anyhow::Result<u32> {
        self.watches += 1;
        let number = self.watches;
        self.running()?.workers.watch(number, watch);
        Ok(number)
    }

    /// What watch `number` saw since the last time; with `end` the watch goes.
    ///
    /// # Errors
    /// There is no such watch.
    pub fn sightings(&self, number: u32, end: bool) -> anyhow::Result<(Vec<Sighting>, u64)> {
        let seen = self.running()?.workers.sightings(number, end);
        seen.with_context(|| format!("there is no watch {number}"))
    }

    /// Captures frames of a port into `to`, a stream socket, until [`Datapath::end_capture`], or until `to` is closed at its
    /// other end; returns the capture's number.
    ///
    /// # Errors
    /// There is no such port, or there are too many captures.
    pub fn capture(&mut self, settings: &CaptureSettings, to: OwnedFd) -> anyhow::Result<u32> {
        let running = self.running.as_ref().context("no lab was applied yet")?;
        let port = describe(&running.world, settings.port).context("there is no such port")?;
        self.captures.start(settings, port.name(), to, &running.workers.mailboxes(), self.origin)
    }

    /// Ends a capture, if it did not end yet: what it has is still written.
    ///
    /// # Errors
    /// No lab was applied yet.
    pub fn end_capture(&self, number: u32) -> anyhow::Result<()> {
        let workers = self.running()?.workers.mailboxes();
        workers.iter().for_each(|worker| worker.send(Message::EndCapture { number }));
        Ok(())
    }

    /// Some of what was recorded, at most some thousand records, from where `wanted` goes on.
    ///
    /// # Errors
    /// No lab was applied yet.
    pub fn records(&self, wanted: &RecordsWanted) -> anyhow::Result<Records> {
        let workers = &self.running()?.workers;
        let since = clock::Instant::from_nanos(self.now().as_nanos().saturating_sub(wanted.last_nanos));
        let mut from = wanted.from.iter().copied();
        let mut pieces: Vec<_> = [&self.journal, &self.unanswered]
            .map(|journal| journal.piece(from.next().unwrap_or(0), since, Vec::with_capacity(PIECE)))
            .into();
        pieces.extend(workers.records(from, since));
        let next = pieces.iter().map(|piece| piece.next).collect();
        let more = pieces.iter().any(|piece| !piece.records.is_empty());
        let is_wanted = |record: &Record| match record.event.port() {
            Some(_) if !wanted.ports.is_empty() => {
                wanted.ports.iter().any(|port| record.event.concerns(*port))
            }
            _ => true,
        };
        Ok(Records {
            // Not before the workers answered: what they had recorded until then is not of the future.
            now: self.now(),
            whole_since: pieces.iter().map(|piece| piece.whole_since).max().unwrap_or_default(),
            records: pieces.into_iter().flat_map(|piece| piece.records).filter(is_wanted).collect(),
            next: more.then_some(next),
        })
    }

    /// Makes the worker panic over the next frame of `port`: a test's proof that it stays there.
    ///
    /// # Errors
    /// No lab was applied yet.
    #[cfg(feature = "injection")]
    pub fn inject_panic(&self, port: PortId) -> anyhow::Result<()> {
        self.running()?.workers.inject_panic(port);
        Ok(())
    }
}

/// Words that nobody outside can guess.
fn random() -> rustix::io::Result<[u64; 3]> {
    let mut bytes = [0; 24];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let (words, _) = bytes.as_chunks();
    Ok(std::array::from_fn(|n| u64::from_ne_bytes(words[n])))
}

/// Whether there can be such workers; the topology file was checked for the same.
fn check(settings: &DatapathSettings) -> anyhow::Result<()> {
    let DatapathSettings { workers, cpus, poll: _, connections } = settings;
    if !(1..=MAX_WORKERS).contains(workers) {
        bail!("a datapath has 1 to {MAX_WORKERS} workers, not {workers}");
    }
    if !cpus.is_empty() && cpus.len() != usize::from(*workers) {
        bail!("workers are pinned to a CPU each, or not at all: {workers} workers, CPUs {cpus:?}");
    }
    if !(MIN_CAPACITY..=MAX_CAPACITY).contains(connections) {
        bail!("a datapath tracks {MIN_CAPACITY} to {MAX_CAPACITY} connections, not {connections}");
    }
    Ok(())
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
        is_sticky: row.is_sticky,
        age_secs: row.age_secs,
    }
}

fn connection_row(world: &World, row: &connections::Row) -> ConnectionRow {
    let (inside, outside) = row.hosts.pair();
    let port = world.port(row.port.index()).filter(|port| port.id == row.port);
    ConnectionRow {
        interface: port.map(|port| port.name.clone()).unwrap_or_default(),
        vlan: row.vlan,
        protocol: row.protocol,
        inside,
        outside,
        ends: row.ends,
        opener: row.opener,
        state: row.state,
        age_secs: row.age_secs,
        idle_secs: row.idle_secs,
        left_secs: row.left_secs,
        inverse: row.inverse,
    }
}

fn describe(world: &World, id: PortId) -> Option<&PortDescription> {
    world.description().ports.get(usize::from(id.index()))?.as_ref().filter(|port| port.id == id)
}
