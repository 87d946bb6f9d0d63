//! The processes of a running lab, watched: what dies is told, and what the lab cannot be without is started again.

use super::{Lab, NodeStatus, STATIONS, SWITCH};
use crate::lab::{
    child::{self, ShortLives},
    events::What,
    guests,
    switch::{self, Switch},
};
use std::{process::ExitStatus, time::Instant};
use tokio::process::Child;
use topology::plan::{NodeKind, Plan};

impl Lab {
    /// Waits for the end of the switch, and starts it again.
    pub(super) async fn watch_switch(self, mut child: Child) {
        let mut lives = ShortLives::default();
        loop {
            let born = Instant::now();
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
            tokio::time::sleep(lives.pause_after(born.elapsed())).await;
            let born = |child: &mut Child| self.record(SWITCH, child);
            match Switch::start(&plan, &ports, &self.inner.dir, born).await {
                Ok(started) => {
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

    /// Waits for the end of the process of all stations, and starts it again.
    pub(super) async fn watch_stations(self, mut child: Child) {
        let mut lives = ShortLives::default();
        loop {
            let born = Instant::now();
            let status = ended(child.wait().await);
            let Some(plan) = self.state().plan.clone() else { return };
            if self.stopping() {
                return;
            }
            self.tell(What::NodeEnded { node: STATIONS.into(), status });
            tokio::time::sleep(lives.pause_after(born.elapsed())).await;
            let born = |child: &mut Child| self.record(STATIONS, child);
            match guests::start_stations(&plan, &self.inner.dir, born) {
                Ok(Some(again)) => {
                    child = again;
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
