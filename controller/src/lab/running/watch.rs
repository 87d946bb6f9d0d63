//! The processes of a running lab, watched: what dies is told, and what the lab cannot be without is started again.

use super::{Lab, NodeStatus, STATIONS, SWITCH, going_down};
use crate::{
    api::types::{LabState, NodeState},
    failure::Failure,
    lab::{
        child::{self, ShortLives},
        events::{Events, What},
        guests, link,
        switch::{self, Switch},
        ways_out,
    },
    probing::Line,
};
use std::{
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::process::Child;
use topology::plan::{Interface, Node, NodeKind, Plan, Vmm};
use vswitchd::control::{client::Client, protocol::PortState};

/// How long after the line to a node broke its end is told at the latest, if it ended.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// How often a link that is to be down is looked at after the switch came back. QEMU tries once a second.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How often leases are kept at most, however many are given.
const KEPT_APART: Duration = Duration::from_secs(1);

/// What a lab cannot be without.
#[derive(Debug, Clone, Copy)]
enum Kept<'a> {
    Switch,
    Stations,
    WayOut(&'a Node),
}

impl Lab {
    /// Waits for the end of the switch, and starts it again, as often as it takes.
    pub(super) async fn watch_switch(self, mut child: Child) {
        let mut lives = ShortLives::default();
        loop {
            let born = Instant::now();
            let why = ended(child.wait().await);
            let restarts = {
                let mut state = self.state();
                if state.phase == LabState::Stopping {
                    return;
                }
                state.switch_pid = None;
                state.restarts += 1;
                state.restarts
            };
            self.tell(What::SwitchLost { why, restarts });
            let again = self.start_again(Kept::Switch, &mut lives, born).await;
            let Some(started) = again else { return };
            child = started;
        }
    }

    /// Keeps what the switch says of leases, whenever they change, once a second at most.
    pub(super) async fn watch_leases(self) {
        let changes = match self.inner.leases.changes() {
            Ok(changes) => changes,
            Err(why) => return self.note(vec![format!("leases are forgotten if the switch ends: {why}")]),
        };
        while changes.readable().await.is_ok() {
            // However often it was said: what is asked for is the latest.
            while changes.try_read(&mut [0; 1024]).is_ok_and(|heard| heard > 0) {}
            let Some(switch) = self.state().switch.clone() else { return };
            let leases = self.inner.leases.clone();
            // A panic was printed, and leaves them as they were.
            self.note(tokio::task::spawn_blocking(move || leases.keep(&switch)).await.unwrap_or_default());
            tokio::time::sleep(KEPT_APART).await;
        }
    }

    /// A switch process in the place of the one that ended; none in a lab that went down.
    async fn restart_switch(&self) -> Result<Option<Child>, Failure> {
        let (plan, ports, shared) = {
            let state = self.state();
            let (Some(plan), Some(ports), Some(shared)) = (&state.plan, &state.ports, &state.switch) else {
                return Ok(None);
            };
            (plan.clone(), ports.clone(), shared.clone())
        };
        let born = |child: &Child| self.record(SWITCH, child);
        let leases = &self.inner.leases;
        let started = Switch::start(&plan, (&ports, leases), &self.inner.dir, true, born).await?;
        self.state().switch_pid = Some(started.pid);
        self.tell(What::SwitchReady { pid: started.pid });
        switch::replace(&shared, started.client);
        leases.ring();
        for (node, interface) in
            plan.nodes.iter().flat_map(|node| node.interfaces.iter().map(move |one| (node, one)))
        {
            if matches!(&node.kind, NodeKind::Vm(vm) if vm.vmm == Vmm::Qemu) {
                tokio::spawn(self.clone().keep_link_down(node.clone(), interface.clone(), started.pid));
            }
        }
        Ok(Some(started.child))
    }

    /// Sets a link that is to be down so again when QEMU has set it up: it does so whenever it finds a switch, and the switch hears of it
    /// by the rings of the driver. Ends with the switch of this process id.
    async fn keep_link_down(self, node: Node, interface: Interface, switch: u32) {
        loop {
            let ours = {
                let state = self.state();
                state.switch_pid == Some(switch) && state.links_down.contains(&interface.port)
            };
            let Some(running) = self.started().filter(|_| ours) else { return };
            let Ok(snapshot) = running.switch(Client::snapshot).await else { return };
            let mut ports = snapshot.ports.iter();
            if ports.any(|view| view.port == interface.port && view.state == PortState::Up) {
                let name = format!("{}:{}", node.name, interface.name);
                let text = match link::set(&node, &interface, false, &self.inner.dir).await {
                    Ok(()) => {
                        format!("{name}: its link is down again; QEMU sets links up when it finds a switch")
                    }
                    Err(why) => format!("{why}; its link may be up"),
                };
                return self.tell(What::Note { text });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Starts what ended, ever slower if it does not live long or cannot be started; none if the lab goes down meanwhile.
    async fn start_again(&self, what: Kept<'_>, lives: &mut ShortLives, born: Instant) -> Option<Child> {
        let mut life = born.elapsed();
        loop {
            tokio::time::sleep(lives.pause_after(life)).await;
            if self.stopping() {
                return None;
            }
            let started = match what {
                Kept::Switch => self.restart_switch().await,
                Kept::Stations => self.restart_stations().await,
                Kept::WayOut(node) => self.start_way_out(node).await.map(Some),
            };
            match started {
                Ok(started) => return started,
                Err(_) if self.stopping() => return None,
                Err(failure) => {
                    self.tell(What::Note { text: format!("{failure}; it is tried again") });
                    life = Duration::ZERO;
                }
            }
        }
    }

    /// Waits for the end of the process of all stations, and starts it again, as often as it takes.
    pub(super) async fn watch_stations(self, mut child: Child) {
        let mut lives = ShortLives::default();
        loop {
            let born = Instant::now();
            let status = ended(child.wait().await);
            if self.stopping() {
                return;
            }
            let Some(plan) = self.state().plan.clone() else { return };
            self.stations_are(&plan, NodeState::Ended, &format!("{status}; is started again"));
            self.tell(What::NodeEnded { node: STATIONS.into(), status });
            let Some(again) = self.start_again(Kept::Stations, &mut lives, born).await else { return };
            child = again;
            // Not waited for: a process that ends at once is to be noticed at once.
            tokio::spawn(self.clone().greet_stations(plan));
        }
    }

    /// A process of all stations in the place of the one that ended; none in a lab that went down.
    async fn restart_stations(&self) -> Result<Option<Child>, Failure> {
        let Some(plan) = self.state().plan.clone() else { return Ok(None) };
        guests::start_stations(&plan, &self.inner.dir, |child: &Child| self.record(STATIONS, child)).await
    }

    /// Notes what all stations do. While they do not answer they have no line.
    fn stations_are(&self, plan: &Plan, now: NodeState, detail: &str) {
        let mut state = self.state();
        for node in plan.nodes.iter().filter(|node| node.kind == NodeKind::Station) {
            state.lines.remove(&node.name);
            state
                .nodes
                .insert(node.name.clone(), NodeStatus { state: now, detail: detail.into(), pid: None });
        }
    }

    /// Starts the process of a way out.
    pub(super) async fn start_way_out(&self, node: &Node) -> Result<Child, Failure> {
        let born = |child: &Child| self.record(&node.name, child);
        let (child, how) = ways_out::start(node, &self.inner.dir, born).await?;
        let status = NodeStatus { state: NodeState::Running, detail: how.clone(), pid: child.id() };
        self.state().nodes.insert(node.name.clone(), status);
        self.tell(What::NodeStarted { node: node.name.clone(), how });
        Ok(child)
    }

    /// Waits for the end of the process of a way out, and starts it again, as often as it takes. It ends with the switch, too.
    pub(super) async fn watch_way_out(self, node: Node, mut child: Child) {
        let mut lives = ShortLives::default();
        loop {
            let born = Instant::now();
            let status = ended(child.wait().await);
            if self.stopping() {
                return;
            }
            let detail = format!("{status}; is started again");
            let now = NodeStatus { state: NodeState::Ended, detail, pid: None };
            self.state().nodes.insert(node.name.clone(), now);
            self.tell(What::NodeEnded { node: node.name.clone(), status });
            let again = self.start_again(Kept::WayOut(&node), &mut lives, born).await;
            let Some(started) = again else { return };
            child = started;
        }
    }

    async fn greet_stations(self, plan: Arc<Plan>) {
        self.stations_are(&plan, NodeState::Starting, "starts");
        for node in plan.nodes.iter().filter(|node| node.kind == NodeKind::Station) {
            match guests::ask_station(&node.name, &self.inner.dir).await {
                Ok(line) => self.station_answers(&node.name, line),
                Err(failure) => self.tell(What::Note { text: failure.to_string() }),
            }
        }
    }

    /// Notes that a station answers.
    pub(super) fn station_answers(&self, node: &str, line: Line) {
        let mut state = self.state();
        state.lines.insert(node.into(), line);
        let status = NodeStatus { state: NodeState::Ready, detail: "answers".into(), pid: None };
        state.nodes.insert(node.into(), status);
    }

    /// Waits for the end of a virtual machine's process, and says so, with the last line of its log if it `says_why`, from that byte on. Who
    /// wants it back says `up` again.
    pub(super) async fn watch_vm(self, node: String, mut child: Child, says_why: Option<u64>) {
        let mut status = ended(child.wait().await);
        if let Some(why) = says_why.and_then(|from| child::last_line(&self.inner.dir.log(&node), from)) {
            status = format!("{status}: {why}");
        }
        if self.stopping() {
            return;
        }
        let mut state = self.state();
        state.lines.remove(&node);
        state.nodes.insert(node.clone(), NodeStatus::gone(&status));
        drop(state);
        self.tell(What::NodeEnded { node, status });
    }
}

/// What becomes of a question in which `ends` take part, or, from event `from` on, that one of them ended: who talks to a node
/// that is gone would wait for its answer for as long as it may take.
pub(super) async fn while_alive<T>(
    events: &Events,
    from: u64,
    ends: [&Node; 2],
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut ended = std::pin::pin!(end_of(events, from, ends));
    let answer = tokio::select! {
        answer = asked => answer,
        failure = &mut ended => return Err(failure),
    };
    match answer {
        // A line breaks before the end of the process behind it is told, and does not know why.
        Err(silent) if silent.code == "silent-node" => {
            Err(tokio::time::timeout(TOLD_WITHIN, ended).await.unwrap_or(silent))
        }
        answer => answer,
    }
}

/// Waits for the end of one of `ends`, or of the lab.
async fn end_of(events: &Events, mut from: u64, ends: [&Node; 2]) -> Failure {
    while let Some(event) = events.from(from).await {
        from = event.number + 1;
        let (role, status) = match event.what {
            What::NodeEnded { node, status } => (node, status),
            What::Stopping => break,
            _ => continue,
        };
        let station = |node: &Node| node.kind == NodeKind::Station;
        let process = |node: &Node| if station(node) { STATIONS.to_owned() } else { node.name.clone() };
        if let Some(node) = ends.into_iter().find(|node| role == process(node)) {
            let failure = Failure::failed("node-ended", format!("{} ended: it {status}", node.name));
            return failure.mend(if station(node) {
                "stations are started again by themselves: try again".to_owned()
            } else {
                format!(
                    "`vnet logs {}` says what it said last; `vnet up` of the same file starts it again",
                    node.name
                )
            });
        }
    }
    going_down()
}

fn ended(status: std::io::Result<ExitStatus>) -> String {
    status.map_or_else(|why| why.to_string(), child::ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use vswitch_core::description::Origin;

    fn node(name: &str, kind: NodeKind) -> Node {
        Node { name: name.into(), kind, interfaces: vec![], origin: Origin { line: 1, column: 1 } }
    }

    fn killed(node: &str) -> What {
        What::NodeEnded { node: node.into(), status: "was killed by signal 9".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn who_talks_to_a_node_that_ends_is_told_at_once_which_and_why() {
        let (tap, station) = (node("vm1", NodeKind::Tap { interface: None }), node("pc1", NodeKind::Station));
        let ends = [&tap, &station];
        let events = Events::default();
        // Of a life before: it is started again since.
        events.tell(killed("vm1"));
        let from = events.next();
        let waiting = while_alive(&events, from, ends, pending::<Result<(), _>>());
        let told = async {
            tokio::task::yield_now().await;
            events.tell(killed("vm2"));
            events.tell(killed("vm1"));
        };
        let (why, ()) = tokio::join!(waiting, told);
        assert_eq!(why.unwrap_err().message, "vm1 ended: it was killed by signal 9");

        let silent = Failure::failed("silent-node", "the probe line to pc1 broke");
        let broken = while_alive(&events, events.next(), ends, ready(Err::<(), _>(silent.clone())));
        let told = async {
            tokio::task::yield_now().await;
            events.tell(killed(STATIONS));
        };
        let (why, ()) = tokio::join!(broken, told);
        assert_eq!(why.unwrap_err().message, "pc1 ended: it was killed by signal 9");

        let broken = while_alive(&events, events.next(), ends, ready(Err::<(), _>(silent.clone()))).await;
        assert_eq!(broken, Err(silent), "nothing ended");
        assert_eq!(while_alive(&events, events.next(), ends, ready(Ok(7))).await, Ok(7));
    }
}
