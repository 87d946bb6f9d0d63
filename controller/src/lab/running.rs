//! The lab's state machine: empty, starting, running, stopping; and its processes, watched while it runs.

mod start;
mod watch;

use super::{
    claim::Claim,
    events::{Events, What},
    exits, firewalls,
    leases::Leases,
    link,
    metrics::{self, Applies},
    name::LabName,
    ports::Ports,
    processes::{Ledger, end_all, end_left},
    rundir::LabDir,
    switch, views,
};
use crate::{
    api::{
        capture::Capturing,
        client,
        server::{Question, Service},
        types::{BenchRequest, CaptureRequest, LabState, LabView, NodeState, TestReport, TopologyFile},
    },
    benching,
    expect::run::Running,
    failure::{Context, Exit, Failure},
    probing::Line,
};
use bench::report::Report;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{process::Child, sync::Notify};
use topology::plan::Plan;
use vswitch_core::id::PortId;
use vswitchd::control::client::Client;

/// How long a process has to end by itself when the lab goes down.
const PATIENCE: Duration = Duration::from_secs(2);

/// The role under which the switch's process is known.
const SWITCH: &str = "switch";

/// The role under which the process of all stations is known.
const STATIONS: &str = "stations";

/// A lab and its controller's part in it. Clones are the same.
#[derive(Clone)]
pub struct Lab {
    inner: Arc<Inner>,
}

struct Inner {
    name: LabName,
    dir: LabDir,
    events: Events,
    leases: Arc<Leases>,
    state: Mutex<State>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    /// One image at a time.
    building: tokio::sync::Mutex<()>,
    /// One benchmark at a time.
    benching: Arc<tokio::sync::Mutex<()>>,
    /// Told when a change that is under way is to be given up, since the lab goes down.
    going_down: Notify,
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
    /// None while it is started again.
    switch_pid: Option<u32>,
    restarts: u32,
    applies: Applies,
    lines: BTreeMap<String, Line>,
    nodes: BTreeMap<String, NodeStatus>,
    /// The links of virtual machines that are set down: by the file, or since.
    links_down: BTreeSet<PortId>,
    /// Nodes of a private copy that stand for what is outside of the lab, and have nobody behind them.
    nobody_at: BTreeSet<String>,
    ledger: Ledger,
}

impl State {
    /// What the lab is doing, as it is shown.
    fn seen(&self) -> LabState {
        let ended = || self.nodes.values().any(|node| node.state == NodeState::Ended);
        match self.phase {
            LabState::Running if self.switch_pid.is_none() || ended() => LabState::Degraded,
            phase => phase,
        }
    }
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

impl NodeStatus {
    /// A virtual machine that is not there any more, and what brings it back.
    fn gone(why: &str) -> Self {
        let detail = format!("{why}; `vnet up` of the same file starts it again");
        Self { state: NodeState::Ended, detail, pid: None }
    }
}

impl Lab {
    /// An empty lab in the folder that was claimed for it. What an earlier controller left there is ended first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn new(name: &LabName, claim: &Claim) -> Result<Self, Failure> {
        let dir = claim.dir().clone();
        let events = Events::default();
        let left = end_left(&dir, PATIENCE);
        if left > 0 {
            events.tell(What::CleanedUp { processes: left });
        }
        let mut ledger = Ledger::new(dir.clone());
        ledger.record("controller", std::process::id())?;
        let state = State {
            phase: LabState::Empty,
            file: None,
            plan: None,
            ports: None,
            switch: None,
            switch_pid: None,
            restarts: 0,
            applies: Applies::default(),
            lines: BTreeMap::new(),
            nodes: BTreeMap::new(),
            links_down: BTreeSet::new(),
            nobody_at: BTreeSet::new(),
            ledger,
        };
        let inner = Inner {
            name: name.clone(),
            dir,
            events,
            leases: Arc::new(Leases::new()?),
            state: Mutex::new(state),
            changing: tokio::sync::Mutex::new(()),
            building: tokio::sync::Mutex::new(()),
            benching: Arc::default(),
            going_down: Notify::new(),
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

    fn note(&self, said: Vec<String>) {
        said.into_iter().for_each(|text| self.tell(What::Note { text }));
    }

    /// Writes a process down before anything else is done with it. A lab that goes down takes no new ones: what is not in
    /// the list that it ends is killed by who started it, as is what cannot be written down.
    fn record(&self, role: &str, child: &Child) -> Result<(), Failure> {
        let mut state = self.state();
        if state.phase == LabState::Stopping {
            return Err(going_down());
        }
        match child.id() {
            Some(pid) => state.ledger.record(role, pid),
            None => Err(Failure::failed("spawn", format!("the process of {role} ended at once"))),
        }
    }

    fn stopping(&self) -> bool {
        self.state().phase == LabState::Stopping
    }

    /// Ends everything that was started, whatever state it is in.
    async fn tear_down(&self) {
        self.tell(What::Stopping);
        let (switch, ledger) = {
            let mut state = self.state();
            // In one step with taking the list, so that no process comes between.
            state.phase = LabState::Stopping;
            state.lines.clear();
            let empty = Ledger::new(self.inner.dir.clone());
            (state.switch.take(), std::mem::replace(&mut state.ledger, empty))
        };
        let (own, dir, leases) = (std::process::id(), self.inner.dir.clone(), self.inner.leases.clone());
        let ended = tokio::task::spawn_blocking(move || {
            // Guests first: what they see last is a network, not its end.
            let all = ledger.entries().iter().filter(|entry| entry.identity.pid != own);
            let (switches, guests): (Vec<_>, Vec<_>) = all.partition(|entry| entry.role == SWITCH);
            end_all(guests.iter().map(|entry| entry.identity), PATIENCE);
            let said = switch.as_ref().map(|switch| leases.keep(switch)).unwrap_or_default();
            if let Some(switch) = switch {
                // One that does not answer is ended below.
                let _ = switch.lock().unwrap_or_else(PoisonError::into_inner).stop();
            }
            end_all(switches.iter().map(|entry| entry.identity), PATIENCE);
            // What was started in network namespaces, and left its agent.
            end_left(&dir, PATIENCE);
            said
        });
        match ended.await {
            Ok(said) => self.note(said),
            Err(why) => self.tell(What::Note { text: why.to_string() }),
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
        let (lines, links_down) = (state.lines.clone(), state.links_down.clone());
        Some(Running { plan, lines, switch, links_down, nobody_at: state.nobody_at.clone() })
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

impl Lab {
    /// Measures between two ports.
    async fn bench(&self, request: &BenchRequest) -> Result<Report, Failure> {
        let only = self.inner.benching.clone().try_lock_owned().map_err(|_| {
            Failure::new(Exit::Busy, "bench-busy", "another benchmark of this lab is under way")
                .mend("wait until it is done: two at once would measure each other")
        })?;
        let api = client::Client::new(&self.inner.dir.api_socket(), self.inner.name.as_str());
        benching::between(api, request, only).await
    }
}

fn going_down() -> Failure {
    Failure::new(Exit::Failed, "going-down", "the lab goes down")
}

impl Service for Lab {
    fn name(&self) -> &str {
        self.inner.name.as_str()
    }

    async fn put(&self, file: TopologyFile) -> Result<LabView, Failure> {
        // On a task of its own: a client that goes away leaves nothing half done.
        let lab = self.clone();
        let applied = tokio::spawn(async move { lab.become_what_is_said(file).await })
            .await
            .unwrap_or_else(|why| Err(Failure::failed("internal", why)));
        self.state().applies.count(&applied);
        applied?;
        Ok(self.view().await)
    }

    async fn view(&self) -> LabView {
        let state = self.state();
        let plan = state.plan.as_ref();
        LabView {
            lab: self.inner.name.to_string(),
            file: state.file.as_ref().map(|file| file.name.clone()),
            state: state.seen(),
            pid: std::process::id(),
            nodes: plan.map_or(0, |plan| plan.nodes.len()),
            ports: plan.map_or(0, |plan| plan.nodes.iter().map(|node| node.interfaces.len()).sum()),
            switch_restarts: state.restarts,
            events: self.inner.events.next(),
        }
    }

    async fn delete(&self) -> Result<LabView, Failure> {
        // A change that is under way ends at its next await, and then it is our turn.
        self.state().phase = LabState::Stopping;
        self.inner.going_down.notify_one();
        let _one = self.inner.changing.lock().await;
        self.tear_down().await;
        self.inner.events.close();
        self.inner.done.notify_one();
        Ok(self.view().await)
    }

    async fn ask(&self, question: Question) -> Result<serde_json::Value, Failure> {
        // Taken first: the end of a node that has a line below is told later than this.
        let from = self.inner.events.next();
        let running = self.running()?;
        let plan = running.plan.clone();
        match question {
            Question::Ports => {
                let snapshot = running.switch(Client::snapshot).await?;
                let nodes = self.state().nodes.clone();
                json(views::ports(&plan, &snapshot, (&nodes, &running.links_down), &self.inner.dir))
            }
            Question::Drops => json(views::drops(&running.switch(Client::snapshot).await?)),
            Question::Datapath => {
                let asked = running.switch(|client| Ok((client.pid(), client.snapshot()?))).await;
                let (pid, snapshot) = asked?;
                json(views::datapath(snapshot, pid, self.state().restarts))
            }
            Question::Fdb => json(running.switch(|client| client.fdb(None)).await?),
            Question::Rules(request) => {
                let hits = running.switch(Client::rule_hits).await?;
                json(firewalls::rules(&plan, &hits, request.interface.as_deref())?)
            }
            Question::Connections(request) => {
                // Of all ports is as well of those that the switch alone knows.
                let ports = match request.interface.as_deref() {
                    None => Vec::new(),
                    said => firewalls::ports_of(&plan, said)?,
                };
                json(running.switch(move |client| client.connections(ports)).await?)
            }
            Question::Routes => json(running.switch(Client::routes).await?),
            Question::Neighbours => json(running.switch(Client::neighbours).await?),
            Question::Leases => json(running.switch(Client::leases).await?),
            Question::Nodes => {
                let state = self.state();
                json(views::nodes(&plan, &state.nodes, state.ports.as_deref()))
            }
            Question::Exits => json(exits::rows(&plan, &self.inner.dir).await),
            Question::Links => json(views::links(&plan)),
            Question::Vlans => json(views::vlans(&plan)),
            Question::Test => {
                let (lab, file) = (self.inner.name.to_string(), plan.description.file.clone());
                json(TestReport { lab, file, rows: running.test().await? })
            }
            Question::Pingall => json(running.pingall().await?),
            Question::Trace(request) => json(running.trace(&request).await?),
            Question::Why(request) => json(running.why(&request).await?),
            Question::Export(request) => json(views::export(&plan, &request, &self.inner.dir)?),
            Question::Transfer(request) => {
                let ends = [running.interface(&request.src)?.0, running.interface(&request.dst)?.0];
                json(watch::while_alive(&self.inner.events, from, ends, running.transfer(&request)).await?)
            }
            Question::Bench(request) => json(self.bench(&request).await?),
            Question::Exec(request) => json(running.exec(&request).await?),
            Question::SetLink(request) => {
                let (node, interface) = running.interface(&request.interface)?;
                link::set(node, interface, request.up, &self.inner.dir).await?;
                let (port, mut state) = (interface.port, self.state());
                let _ =
                    if request.up { state.links_down.remove(&port) } else { state.links_down.insert(port) };
                json(())
            }
        }
    }

    async fn capture(&self, request: CaptureRequest) -> Result<Capturing, Failure> {
        self.running()?.capture(request).await
    }

    async fn end_capture(&self, number: u32) -> Result<(), Failure> {
        self.running()?.switch(move |client| client.end_capture(number)).await
    }

    async fn metrics(&self) -> Result<String, Failure> {
        let snapshot = match self.started() {
            Some(started) => started.switch(Client::snapshot).await.ok(),
            None => None,
        };
        let (plan, applies) = {
            let state = self.state();
            (state.plan.clone(), state.applies)
        };
        let description = plan.as_ref().map(|plan| &plan.description);
        metrics::text(self.inner.name.as_str(), description, snapshot.as_ref(), applies)
    }

    fn events(&self) -> Events {
        self.inner.events.clone()
    }
}

/// An answer as it travels.
fn json(answer: impl Serialize) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(answer).context("json", || "an answer".into())
}
