//! The lab's state machine: empty, starting, running, stopping; and its processes, watched while it runs.

use super::{
    child,
    events::{Events, What},
    guests::{self, Guest, Nursery},
    ports::{self, Ports},
    processes::Ledger,
    rundir::{Claim, LabDir},
    switch::{self, Switch},
    views,
};
use crate::{
    api::{
        server::{Question, Service},
        types::{LabState, LabView, NodeState, TestReport, TopologyFile},
    },
    expect::run::Running,
    failure::{Context, Exit, Failure},
    probing::Line,
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    process::ExitStatus,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{process::Child, sync::Notify};
use topology::plan::{NodeKind, Plan, SocketRole};
use vswitchd::control::{client::Client, protocol::PortState};

/// How long a process has to end by itself when the lab goes down.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the driver of a node that answers may take to run.
const DRIVER_PATIENCE: Duration = Duration::from_secs(10);

/// How often the switch is asked while drivers start.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// The role under which the process of all stations is known.
const STATIONS: &str = "stations";

/// A lab and its controller's part in it. Clones are the same.
#[derive(Clone)]
pub struct Lab {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    dir: LabDir,
    events: Events,
    state: Mutex<State>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    /// Told when the controller is to end.
    done: Notify,
}

/// What is known of the lab at this moment.
struct State {
    phase: LabState,
    file: Option<TopologyFile>,
    plan: Option<Arc<Plan>>,
    ports: Option<Arc<Ports>>,
    switch: Option<switch::Shared>,
    switch_pid: u32,
    restarts: u32,
    lines: BTreeMap<String, Line>,
    nodes: BTreeMap<String, NodeStatus>,
    ledger: Ledger,
}

/// What a node is doing.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// Its state.
    pub state: NodeState,
    /// In words.
    pub detail: String,
    /// Its process.
    pub pid: Option<u32>,
}

impl Lab {
    /// An empty lab in the folder that was claimed for it. What an earlier controller left there is ended first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn new(name: &str, claim: &Claim) -> Result<Self, Failure> {
        let dir = claim.dir().clone();
        let mut ledger = Ledger::read(&dir)?;
        let events = Events::default();
        let left = ledger.entries().len();
        if left > 0 {
            ledger.end_all(PATIENCE);
            events.tell(What::CleanedUp { processes: left });
        }
        ledger.record("controller", std::process::id())?;
        let state = State {
            phase: LabState::Empty,
            file: None,
            plan: None,
            ports: None,
            switch: None,
            switch_pid: 0,
            restarts: 0,
            lines: BTreeMap::new(),
            nodes: BTreeMap::new(),
            ledger,
        };
        let inner = Inner {
            name: name.into(),
            dir,
            events,
            state: Mutex::new(state),
            changing: tokio::sync::Mutex::new(()),
            done: Notify::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Waits until the lab was taken down.
    pub async fn done(&self) {
        self.inner.done.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, what: What) {
        self.inner.events.tell(what);
    }

    /// Writes a process down before anything else is done with it.
    fn record(&self, role: &str, child: &Child) -> Result<(), Failure> {
        match child.id() {
            Some(pid) => self.state().ledger.record(role, pid),
            None => Err(Failure::failed("spawn", format!("the process of {role} ended at once"))),
        }
    }

    fn stopping(&self) -> bool {
        self.state().phase == LabState::Stopping
    }

    async fn bring_up(&self, plan: Arc<Plan>) -> Result<(), Failure> {
        self.tell(What::Starting { file: plan.description.file.clone() });
        let ports = Arc::new(Ports::open(&plan, &self.inner.dir)?);
        for node in &plan.nodes {
            for interface in &node.interfaces {
                if let Some((SocketRole::Listen, path)) = ports::socket(node, interface, &self.inner.dir) {
                    let port = format!("{}:{}", node.name, interface.name);
                    self.tell(What::Listening { port, socket: path.display().to_string() });
                }
            }
        }
        let started = Switch::start(&plan, &ports, &self.inner.dir).await?;
        self.record("switch", &started.child)?;
        self.tell(What::SwitchReady { pid: started.pid });
        {
            let mut state = self.state();
            state.plan = Some(plan.clone());
            state.ports = Some(ports);
            state.switch = Some(Arc::new(Mutex::new(started.client)));
            state.switch_pid = started.pid;
            state.nodes = plan.nodes.iter().map(|node| (node.name.clone(), foreign(&node.kind))).collect();
        }
        tokio::spawn(self.clone().watch_switch(started.child));
        if let Some(child) = guests::start_stations(&plan, &self.inner.dir)? {
            self.record(STATIONS, &child)?;
            tokio::spawn(self.clone().watch_stations(child));
        }
        self.start_guests(&plan).await?;
        self.wait_for_ports(&plan).await
    }

    /// Waits until frames can flow at every port whose node answers: a node may answer before its driver runs.
    async fn wait_for_ports(&self, plan: &Plan) -> Result<(), Failure> {
        let answering: Vec<_> = {
            let state = self.state();
            let nodes = plan.nodes.iter().filter(|node| state.lines.contains_key(&node.name));
            nodes.flat_map(|node| &node.interfaces).map(|interface| interface.port).collect()
        };
        let end = Instant::now() + DRIVER_PATIENCE;
        loop {
            let Some(running) = self.started() else { return Ok(()) };
            let snapshot = running.switch(Client::snapshot).await?;
            let waits = snapshot.ports.iter().find(|view| {
                answering.contains(&view.port) && !matches!(view.state, PortState::Up | PortState::Down)
            });
            let Some(waits) = waits else { return Ok(()) };
            if Instant::now() >= end {
                let text = format!("{}:{} is not up: {}", waits.node, waits.interface, waits.detail);
                return Err(Failure::failed("port-not-up", text));
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Starts all guests at once and waits until each answers.
    async fn start_guests(&self, plan: &Arc<Plan>) -> Result<(), Failure> {
        let mut starting = tokio::task::JoinSet::new();
        for place in 0..plan.nodes.len() {
            let (lab, plan) = (self.clone(), plan.clone());
            starting.spawn(async move { lab.start_node(&plan, place).await });
        }
        while let Some(started) = starting.join_next().await {
            started.map_err(|why| Failure::failed("internal", why))??;
        }
        Ok(())
    }

    async fn start_node(&self, plan: &Plan, place: usize) -> Result<(), Failure> {
        let node = &plan.nodes[place];
        let begin = Instant::now();
        let line = match &node.kind {
            NodeKind::Station => Some(guests::ask_station(&node.name, &self.inner.dir).await?),
            NodeKind::Vm(vm) => {
                let image = guests::image(vm, &self.inner.events).await?;
                let born = |child: &Child| self.record(&node.name, child);
                let nursery = Nursery { dir: &self.inner.dir, events: &self.inner.events, born: &born };
                let guest = guests::start_vm(node, vm, image.as_ref(), &nursery).await?;
                let Guest { child, line, how } = guest;
                let state = if line.is_some() { NodeState::Ready } else { NodeState::Running };
                let status = NodeStatus { state, detail: how, pid: child.id() };
                self.state().nodes.insert(node.name.clone(), status);
                tokio::spawn(self.clone().watch_vm(node.name.clone(), child));
                line
            }
            NodeKind::VhostUser(_) | NodeKind::Tap { .. } => return Ok(()),
        };
        if let Some(line) = line {
            let mut state = self.state();
            state.lines.insert(node.name.clone(), line);
            if node.kind == NodeKind::Station {
                let status = NodeStatus { state: NodeState::Ready, detail: "answers".into(), pid: None };
                state.nodes.insert(node.name.clone(), status);
            }
            drop(state);
            let after = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.tell(What::NodeReady { node: node.name.clone(), after });
        }
        Ok(())
    }

    async fn watch_switch(self, mut child: Child) {
        loop {
            let why = ended(child.wait().await);
            if self.stopping() {
                return;
            }
            let (plan, ports, shared, restarts) = {
                let mut state = self.state();
                state.restarts += 1;
                let (Some(plan), Some(ports), Some(shared)) =
                    (state.plan.clone(), state.ports.clone(), state.switch.clone())
                else {
                    return;
                };
                (plan, ports, shared, state.restarts)
            };
            self.tell(What::SwitchLost { why, restarts });
            tokio::time::sleep(switch::pause(restarts - 1)).await;
            match Switch::start(&plan, &ports, &self.inner.dir).await {
                Ok(started) => {
                    if let Err(failure) = self.record("switch", &started.child) {
                        self.tell(What::Note { text: failure.to_string() });
                    }
                    self.state().switch_pid = started.pid;
                    self.tell(What::SwitchReady { pid: started.pid });
                    switch::replace(&shared, started.client);
                    child = started.child;
                }
                Err(failure) => {
                    self.tell(What::Note { text: format!("the switch cannot be started again: {failure}") });
                    return;
                }
            }
        }
    }

    async fn watch_stations(self, mut child: Child) {
        loop {
            let status = ended(child.wait().await);
            let Some(plan) = self.state().plan.clone() else { return };
            if self.stopping() {
                return;
            }
            self.tell(What::NodeEnded { node: STATIONS.into(), status });
            match guests::start_stations(&plan, &self.inner.dir) {
                Ok(Some(again)) => {
                    child = again;
                    if let Err(failure) = self.record(STATIONS, &child) {
                        self.tell(What::Note { text: failure.to_string() });
                    }
                    self.greet_stations(&plan).await;
                }
                Ok(None) => return,
                Err(failure) => return self.tell(What::Note { text: failure.to_string() }),
            }
        }
    }

    async fn greet_stations(&self, plan: &Plan) {
        for node in plan.nodes.iter().filter(|node| node.kind == NodeKind::Station) {
            match guests::ask_station(&node.name, &self.inner.dir).await {
                Ok(line) => {
                    self.state().lines.insert(node.name.clone(), line);
                }
                Err(failure) => self.tell(What::Note { text: failure.to_string() }),
            }
        }
    }

    async fn watch_vm(self, node: String, mut child: Child) {
        let status = ended(child.wait().await);
        if self.stopping() {
            return;
        }
        let mut state = self.state();
        state.lines.remove(&node);
        let gone = NodeStatus { state: NodeState::Ended, detail: status.clone(), pid: None };
        state.nodes.insert(node.clone(), gone);
        drop(state);
        self.tell(What::NodeEnded { node, status });
    }

    /// Ends everything that was started, whatever state it is in.
    async fn tear_down(&self) {
        self.state().phase = LabState::Stopping;
        self.tell(What::Stopping);
        let (switch, ledger) = {
            let mut state = self.state();
            state.lines.clear();
            let empty = Ledger::new(self.inner.dir.clone());
            (state.switch.take(), std::mem::replace(&mut state.ledger, empty))
        };
        let own = std::process::id();
        let ended = tokio::task::spawn_blocking(move || {
            // Guests first: what they see last is a network, not its end.
            let all = ledger.entries().iter().filter(|entry| entry.identity.pid != own);
            let (switches, guests): (Vec<_>, Vec<_>) = all.partition(|entry| entry.role == "switch");
            guests.iter().for_each(|entry| entry.identity.end(PATIENCE));
            if let Some(switch) = switch {
                // One that does not answer is ended below.
                let _ = switch.lock().unwrap_or_else(PoisonError::into_inner).stop();
            }
            switches.iter().for_each(|entry| entry.identity.end(PATIENCE));
        });
        if let Err(why) = ended.await {
            self.tell(What::Note { text: why.to_string() });
        }
        let mut state = self.state();
        state.ports = None;
        state.plan = None;
        state.nodes.clear();
    }

    /// The lab as far as probing needs it; none while it has no switch.
    fn started(&self) -> Option<Running> {
        let state = self.state();
        let (plan, switch) = (state.plan.clone()?, state.switch.clone()?);
        Some(Running { plan, lines: state.lines.clone(), switch })
    }

    /// The same of a lab that is up.
    ///
    /// # Errors
    /// It is not up.
    fn running(&self) -> Result<Running, Failure> {
        let up = self.state().phase == LabState::Running;
        let started = self.started().filter(|_| up);
        started
            .ok_or_else(|| Failure::new(Exit::Busy, "not-up", format!("lab {} is not up", self.inner.name)))
    }
}

fn foreign(kind: &NodeKind) -> NodeStatus {
    let (state, detail) = match kind {
        NodeKind::Station | NodeKind::Vm(_) => (NodeState::Starting, "starts"),
        NodeKind::VhostUser(_) => (NodeState::Foreign, "a VMM of yours; addresses are for `expect` only"),
        NodeKind::Tap { .. } => {
            (NodeState::Foreign, "a tap of this machine; addresses are for `expect` only")
        }
    };
    NodeStatus { state, detail: detail.into(), pid: None }
}

fn ended(status: std::io::Result<ExitStatus>) -> String {
    status.map_or_else(|why| why.to_string(), child::ended)
}

impl Service for Lab {
    fn name(&self) -> &str {
        &self.inner.name
    }

    async fn put(&self, file: TopologyFile) -> Result<LabView, Failure> {
        let Ok(_one) = self.inner.changing.try_lock() else {
            return Err(Failure::new(Exit::Busy, "busy", format!("lab {} is changing", self.inner.name)));
        };
        let loaded = topology::load(&file.text, &file.name, &file.base)
            .map_err(|report| Failure::invalid("invalid-file", report.render(false)))?;
        let mut plan = loaded.plan;
        if file.private_copy {
            make_private(&mut plan);
        }
        let running = self.state().plan.clone();
        if let Some(running) = running {
            if *running == plan {
                return Ok(self.view().await);
            }
            let failure = Failure::new(Exit::Busy, "apply", "changing a running lab is not supported yet");
            return Err(failure.mend("take it down and up again: vnet down && vnet up"));
        }
        {
            let mut state = self.state();
            state.phase = LabState::Starting;
            state.file = Some(file);
        }
        if let Err(failure) = self.bring_up(Arc::new(plan)).await {
            self.tear_down().await;
            self.tell(What::Note { text: failure.to_string() });
            self.inner.done.notify_one();
            return Err(failure);
        }
        self.state().phase = LabState::Running;
        self.tell(What::Ready);
        Ok(self.view().await)
    }

    async fn view(&self) -> LabView {
        let state = self.state();
        let plan = state.plan.as_ref();
        LabView {
            lab: self.inner.name.clone(),
            file: state.file.as_ref().map(|file| file.name.clone()),
            state: state.phase,
            pid: std::process::id(),
            nodes: plan.map_or(0, |plan| plan.nodes.len()),
            ports: plan.map_or(0, |plan| plan.description.ports.iter().flatten().count()),
            switch_restarts: state.restarts,
        }
    }

    async fn delete(&self) -> Result<LabView, Failure> {
        self.tear_down().await;
        self.inner.events.close();
        self.inner.done.notify_one();
        Ok(self.view().await)
    }

    async fn ask(&self, question: Question) -> Result<serde_json::Value, Failure> {
        let running = self.running()?;
        let plan = running.plan.clone();
        match question {
            Question::Ports => {
                let snapshot = running.switch(Client::snapshot).await?;
                json(views::ports(&plan, &snapshot, &self.inner.dir))
            }
            Question::Drops => json(views::drops(&running.switch(Client::snapshot).await?)),
            Question::Datapath => {
                let snapshot = running.switch(Client::snapshot).await?;
                let (pid, restarts) = {
                    let state = self.state();
                    (state.switch_pid, state.restarts)
                };
                json(views::datapath(snapshot, pid, restarts))
            }
            Question::Fdb => json(running.switch(Client::fdb).await?),
            Question::Nodes => {
                let nodes = self.state().nodes.clone();
                json(views::nodes(&plan, &nodes))
            }
            Question::Links => json(views::links(&plan)),
            Question::Vlans => json(views::vlans(&plan)),
            Question::Test => {
                let (lab, file) = (self.inner.name.clone(), plan.description.file.clone());
                json(TestReport { lab, file, rows: running.test().await? })
            }
            Question::Pingall => json(running.pingall().await),
            Question::Trace(request) => json(running.trace(&request).await?),
            Question::Export(request) => json(views::export(&plan, &request, &self.inner.dir)?),
            Question::Exec(request) => json(running.exec(&request).await?),
        }
    }

    fn events(&self) -> Events {
        self.inner.events.clone()
    }
}

/// An answer as it travels.
fn json(answer: impl Serialize) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(answer).context("json", || "an answer".into())
}

/// A copy for testing: sockets of the file's own move to the run directory.
fn make_private(plan: &mut Plan) {
    for node in &mut plan.nodes {
        if let NodeKind::VhostUser(socket) = &mut node.kind {
            socket.path = None;
        }
    }
}
