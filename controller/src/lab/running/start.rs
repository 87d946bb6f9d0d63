//! How a lab becomes what its file says: ports, switch, stations, guests, in this order; and back if one of them cannot be.

use super::{Lab, NodeStatus, STATIONS, SWITCH, going_down};
use crate::{
    api::types::{LabState, NodeState, TopologyFile},
    failure::{Exit, Failure},
    lab::{
        events::What,
        guests::{self, Guest, Nursery},
        ports::{self, Ports},
        precheck,
        switch::{self, Switch},
    },
    probing::Line,
    vm::choice,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::process::Child;
use topology::plan::{ForeignSocket, Node, NodeKind, Plan, SocketRole};
use vswitchd::control::{client::Client, protocol::PortState};

/// How long the driver of a node that answers may take to run.
const DRIVER_PATIENCE: Duration = Duration::from_secs(10);

/// How often the switch is asked while drivers start.
const ASK_AGAIN: Duration = Duration::from_millis(5);

impl Lab {
    /// Brings up what `file` says; where that is up already, starts again what ended.
    pub(super) async fn become_what_is_said(&self, file: TopologyFile) -> Result<(), Failure> {
        let Ok(_one) = self.inner.changing.try_lock() else {
            return Err(Failure::new(Exit::Busy, "busy", format!("lab {} is changing", self.inner.name)));
        };
        if self.stopping() {
            return Err(going_down());
        }
        // A private copy is as the lab would be that it is of.
        let name = (!file.private_copy).then(|| self.inner.name.as_str());
        let loaded = topology::load_as(name, &file.text, &file.name, &file.base)
            .map_err(|report| Failure::invalid("invalid-file", report.render(false)))?;
        let mut plan = loaded.plan;
        precheck::check(&plan)?;
        choice::settle(&mut plan);
        let nobody_at = if file.private_copy { make_private(&mut plan) } else { BTreeSet::new() };
        let running = self.state().plan.clone();
        if let Some(running) = running {
            if *running == plan {
                tokio::select! {
                    started = self.start_ended(&running) => started?,
                    () = self.inner.going_down.notified() => return Err(going_down()),
                }
                return Ok(());
            }
            let failure = Failure::new(Exit::Busy, "apply", "changing a running lab is not supported yet");
            return Err(failure.mend("take it down and up again: vnet down && vnet up"));
        }
        self.note(self.inner.leases.begin(&self.inner.name, &file, &plan));
        {
            let mut state = self.state();
            state.phase = LabState::Starting;
            state.file = Some(file);
            state.nobody_at = nobody_at;
        }
        let brought_up = tokio::select! {
            brought_up = self.bring_up(Arc::new(plan)) => brought_up,
            () = self.inner.going_down.notified() => return Err(going_down()),
        };
        if let Err(failure) = brought_up {
            self.tear_down().await;
            // Whoever asked is told by the answer.
            tracing::error!("{failure}");
            // Who follows need not wait for more.
            self.inner.events.close();
            self.inner.done.notify_one();
            return Err(failure);
        }
        self.state().phase = LabState::Running;
        self.tell(What::Ready);
        Ok(())
    }

    async fn bring_up(&self, plan: Arc<Plan>) -> Result<(), Failure> {
        self.tell(What::Starting { file: plan.description.file.clone() });
        precheck::cpus(&plan)?;
        precheck::vmms(&plan)?;
        let ports = Arc::new(Ports::open(&plan, &self.inner.dir)?);
        for node in &plan.nodes {
            for interface in &node.interfaces {
                if let Some((SocketRole::Listen, path)) = ports::socket(node, interface, &self.inner.dir) {
                    let port = format!("{}:{}", node.name, interface.name);
                    self.tell(What::Listening { port, socket: path.display().to_string() });
                }
            }
        }
        let born = |child: &Child| self.record(SWITCH, child);
        let leases = &self.inner.leases;
        let started = Switch::start(&plan, (&ports, leases), &self.inner.dir, false, born).await?;
        self.tell(What::SwitchReady { pid: started.pid });
        {
            let mut state = self.state();
            state.plan = Some(plan.clone());
            state.ports = Some(ports);
            state.switch = Some(Arc::new(Mutex::new(started.client)));
            state.switch_pid = Some(started.pid);
            let interfaces = plan.nodes.iter().flat_map(|node| &node.interfaces);
            state.links_down = interfaces.filter(|one| one.link_down).map(|one| one.port).collect();
            state.nodes = plan.nodes.iter().map(|node| (node.name.clone(), foreign(&node.kind))).collect();
        }
        tokio::spawn(self.clone().watch_switch(started.child));
        tokio::spawn(self.clone().watch_leases());
        let born = |child: &Child| self.record(STATIONS, child);
        if let Some(child) = guests::start_stations(&plan, &self.inner.dir, born).await? {
            tokio::spawn(self.clone().watch_stations(child));
        }
        self.start_guests(&plan).await?;
        self.wait_for_ports(&plan).await?;
        if let Some(ports) = &self.state().ports {
            ports.begin_replays();
        }
        Ok(())
    }

    /// Waits until frames can flow at every port whose node answers, or is one of the switch's own: a node may answer before its
    /// driver runs.
    async fn wait_for_ports(&self, plan: &Plan) -> Result<(), Failure> {
        let answering: Vec<_> = {
            let state = self.state();
            let own = |node: &Node| {
                matches!(
                    node.kind,
                    NodeKind::Tap { .. } | NodeKind::Nic { .. } | NodeKind::Pcap { .. } | NodeKind::User
                )
            };
            let nodes = plan.nodes.iter().filter(|node| own(node) || state.lines.contains_key(&node.name));
            let ports = nodes.flat_map(|node| &node.interfaces).map(|interface| interface.port);
            // A driver need not run where it sees no carrier.
            ports.filter(|port| !state.links_down.contains(port)).collect()
        };
        let of_files = |port| {
            let mut files = plan.nodes.iter().filter(|node| matches!(node.kind, NodeKind::Pcap { .. }));
            files.any(|node| node.interfaces.iter().any(|own| own.port == port))
        };
        let end = Instant::now() + DRIVER_PATIENCE;
        loop {
            let Some(running) = self.started() else { return Ok(()) };
            let snapshot = running.switch(Client::snapshot).await?;
            let waits = snapshot.ports.iter().find(|view| {
                // A nic whose interface is down has its rings all the same.
                let both = [0, 1].iter().all(|way| view.rings.keys().any(|ring| ring % 2 == *way));
                let waits = !both && !matches!(view.state, PortState::Up | PortState::Down);
                // A replay that broke off comes to nothing more.
                let waits = waits && !(view.state == PortState::Faulted && of_files(view.port));
                answering.contains(&view.port) && waits
            });
            let Some(waits) = waits else { return Ok(()) };
            if Instant::now() >= end {
                let text = format!("{}:{} is not up: {}", waits.node, waits.interface, waits.detail);
                return Err(Failure::failed("port-not-up", text));
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Starts all guests at once and waits until each answers; the first failure is the lab's.
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

    /// Opens again the interfaces of this machine that broke; one that cannot be opened holds up no other.
    async fn open_broken(&self, plan: &Arc<Plan>) -> Result<(), Failure> {
        let Some(running) = self.started() else { return Ok(()) };
        let snapshot = running.switch(Client::snapshot).await?;
        let faulted = snapshot.ports.iter().filter(|view| view.state == PortState::Faulted);
        let broken: Vec<_> = faulted.map(|view| view.port).collect();
        let Some(ports) = self.state().ports.clone() else { return Ok(()) };
        let (again, opened, failures) = ports.opened_again(plan, &broken, &self.inner.dir);
        if !opened.is_empty() {
            let again = Arc::new(again);
            // First, so that a switch that is started again meanwhile has them too.
            self.state().ports = Some(again.clone());
            let plan = plan.clone();
            running.switch(move |client| switch::apply(client, &plan, &again)).await?;
            self.tell(What::Note { text: format!("opened again: {}", opened.join(", ")) });
        }
        let said: Vec<_> = failures.iter().map(|failure| failure.message.clone()).collect();
        failures.into_iter().next().map_or(Ok(()), |first| Err(Failure { message: said.join("\n"), ..first }))
    }

    /// Opens the ports that broke again and starts the virtual machines that ended, at once, and waits for each; one that cannot be
    /// started holds up no other.
    async fn start_ended(&self, plan: &Arc<Plan>) -> Result<(), Failure> {
        let mut all = self.open_broken(plan).await;
        let mut starting = Vec::new();
        for (place, node) in plan.nodes.iter().enumerate() {
            let mut state = self.state();
            // A way out is started again by itself.
            let is_gone =
                |now: &&mut NodeStatus| now.state == NodeState::Ended && node.kind != NodeKind::User;
            let Some(status) = state.nodes.get_mut(&node.name).filter(is_gone) else {
                continue;
            };
            *status = foreign(&node.kind);
            let (lab, plan) = (self.clone(), plan.clone());
            starting.push(tokio::spawn(async move {
                let started = lab.start_node(&plan, place).await;
                if let Err(failure) = &started {
                    lab.state()
                        .nodes
                        .insert(plan.nodes[place].name.clone(), NodeStatus::gone(&failure.to_string()));
                }
                started
            }));
        }
        for started in starting {
            all = all.and(started.await.unwrap_or_else(|why| Err(Failure::failed("internal", why))));
        }
        all?;
        self.wait_for_ports(plan).await
    }

    async fn start_node(&self, plan: &Plan, place: usize) -> Result<(), Failure> {
        let node = &plan.nodes[place];
        let begin = Instant::now();
        let line = match &node.kind {
            NodeKind::Station => Some(guests::ask_station(&node.name, &self.inner.dir).await?),
            NodeKind::Vm(vm) => {
                let image = {
                    // One builds it, and the others find it.
                    let _one = self.inner.building.lock().await;
                    guests::image(vm, &self.inner.events).await?
                };
                let born = |child: &Child| self.record(&node.name, child);
                let nursery = Nursery { dir: &self.inner.dir, events: &self.inner.events, born: &born };
                // One that is started again finds its links as they were left.
                let mut node = node.clone();
                let links_down = self.state().links_down.clone();
                for interface in &mut node.interfaces {
                    interface.link_down = links_down.contains(&interface.port);
                }
                let guest = guests::start_vm(&node, vm, image.as_ref(), &nursery).await?;
                self.guest_runs(&node, guest)
            }
            NodeKind::Netns { namespace } => {
                let born = |child: &Child| self.record(&node.name, child);
                let nursery = Nursery { dir: &self.inner.dir, events: &self.inner.events, born: &born };
                let guest = guests::start_agent(node, namespace.as_deref(), &nursery).await?;
                self.guest_runs(node, guest)
            }
            NodeKind::User => {
                let child = self.start_way_out(node).await?;
                tokio::spawn(self.clone().watch_way_out(node.clone(), child));
                return Ok(());
            }
            NodeKind::VhostUser(_)
            | NodeKind::Stream(_)
            | NodeKind::Dgram { .. }
            | NodeKind::Tap { .. }
            | NodeKind::Nic { .. }
            | NodeKind::Pcap { .. } => {
                return Ok(());
            }
        };
        if let Some(line) = line {
            match &node.kind {
                NodeKind::Station => self.station_answers(&node.name, line),
                _ => drop(self.state().lines.insert(node.name.clone(), line)),
            }
            let after = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.tell(What::NodeReady { node: node.name.clone(), after });
        }
        Ok(())
    }
}

impl Lab {
    /// Notes that a guest runs, and watches it; the line to it.
    fn guest_runs(&self, node: &Node, guest: Guest) -> Option<Line> {
        let Guest { child, line, how, says_why } = guest;
        let state = if line.is_some() { NodeState::Ready } else { NodeState::Running };
        let status = NodeStatus { state, detail: how, pid: child.id() };
        self.state().nodes.insert(node.name.clone(), status);
        tokio::spawn(self.clone().watch_vm(node.name.clone(), child, says_why));
        line
    }
}

fn foreign(kind: &NodeKind) -> NodeStatus {
    let (state, detail) = match kind {
        NodeKind::Station | NodeKind::Vm(_) | NodeKind::Netns { .. } | NodeKind::User => {
            (NodeState::Starting, "starts")
        }
        NodeKind::VhostUser(_) => (NodeState::Foreign, "a VMM of yours; addresses are for `expect` only"),
        NodeKind::Pcap { .. } => (NodeState::Foreign, "capture files; `vnet show ports` counts their frames"),
        NodeKind::Nic { .. } => {
            (NodeState::Foreign, "an interface of this machine; addresses are for `expect` only")
        }
        NodeKind::Tap { .. } => {
            (NodeState::Foreign, "a tap of this machine; addresses are for `expect` only")
        }
        NodeKind::Dgram { .. } => {
            (NodeState::Foreign, "a datagram peer of yours; addresses are for `expect` only")
        }
        NodeKind::Stream(_) => {
            (NodeState::Foreign, "a stream peer of yours; addresses are for `expect` only")
        }
    };
    NodeStatus { state, detail: detail.into(), pid: None }
}

/// A copy for testing: sockets of the file's own move to the run directory, network namespaces and taps are made, nothing is recorded, and
/// nothing goes out to an interface or the network of the host: what is behind it may be in use, with the very addresses of the copy. The nodes that
/// have nobody behind them for that.
fn make_private(plan: &mut Plan) -> BTreeSet<String> {
    let outside = |node: &&Node| {
        matches!(
            node.kind,
            NodeKind::Tap { .. } | NodeKind::Nic { .. } | NodeKind::Pcap { .. } | NodeKind::User
        )
    };
    let nobody_at = plan.nodes.iter().filter(outside).map(|node| node.name.clone()).collect();
    for node in &mut plan.nodes {
        match &mut node.kind {
            NodeKind::VhostUser(socket) | NodeKind::Stream(socket) => socket.path = None,
            NodeKind::Netns { namespace } => *namespace = None,
            NodeKind::Tap { interface } => *interface = None,
            // Nobody attaches there.
            NodeKind::Nic { .. } | NodeKind::User => {
                let (role, path, mode, group) = (SocketRole::Listen, None, None, None);
                node.kind = NodeKind::VhostUser(ForeignSocket { role, path, mode, group });
            }
            NodeKind::Pcap { record, .. } => *record = None,
            NodeKind::Dgram { local, remote } => {
                local.path = None;
                // In the lab's folder, where the switch works: nobody is there.
                *remote = format!("{}.peer", node.name).into();
            }
            _ => {}
        }
    }
    nobody_at
}
