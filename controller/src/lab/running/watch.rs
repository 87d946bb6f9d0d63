//! The processes of a running lab, watched: what dies is told, and what the lab cannot be without is started again.

use super::{Lab, NodeStatus, STATIONS, SWITCH};
use crate::{
    api::types::{LabState, NodeState},
    failure::Failure,
    lab::{
        child::{self, ShortLives},
        events::What,
        guests,
        switch::{self, Switch},
    },
    probing::Line,
};
use std::{
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::process::Child;
use topology::plan::{NodeKind, Plan};

/// What a lab cannot be without.
#[derive(Debug, Clone, Copy)]
enum Kept {
    Switch,
    Stations,
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

    /// A switch process in the place of the one that ended; none in a lab that went down.
    async fn restart_switch(&self) -> Result<Option<Child>, Failure> {
        let (plan, ports, shared) = {
            let state = self.state();
            let (Some(plan), Some(ports), Some(shared)) = (&state.plan, &state.ports, &state.switch) else {
                return Ok(None);
            };
            (plan.clone(), ports.clone(), shared.clone())
        };
        let born = |child: &mut Child| self.record(SWITCH, child);
        let started = Switch::start(&plan, &ports, &self.inner.dir, born).await?;
        self.state().switch_pid = Some(started.pid);
        self.tell(What::SwitchReady { pid: started.pid });
        switch::replace(&shared, started.client);
        Ok(Some(started.child))
    }

    /// Starts what ended, ever slower if it does not live long or cannot be started; none if the lab goes down meanwhile.
    async fn start_again(&self, what: Kept, lives: &mut ShortLives, born: Instant) -> Option<Child> {
        let mut life = born.elapsed();
        loop {
            tokio::time::sleep(lives.pause_after(life)).await;
            if self.stopping() {
                return None;
            }
            let started = match what {
                Kept::Switch => self.restart_switch().await,
                Kept::Stations => self.restart_stations(),
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
    fn restart_stations(&self) -> Result<Option<Child>, Failure> {
        let Some(plan) = self.state().plan.clone() else { return Ok(None) };
        guests::start_stations(&plan, &self.inner.dir, |child| self.record(STATIONS, child))
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

    /// Waits for the end of a virtual machine's process, and says so. Who wants it back says `up` again.
    pub(super) async fn watch_vm(self, node: String, mut child: Child) {
        let status = ended(child.wait().await);
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

fn ended(status: std::io::Result<ExitStatus>) -> String {
    status.map_or_else(|why| why.to_string(), child::ended)
}
