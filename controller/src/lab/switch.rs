//! The switch process of a lab: started, told what to be, and started again when it dies.

use super::{child, ports::Ports, rundir::LabDir};
use crate::failure::{Context, Failure};
use std::{
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::process::Child;
use topology::plan::Plan;
use vswitchd::control::{
    client::Client,
    protocol::{DatapathSettings, PollMode},
};

/// How long the switch may take to answer one request.
const DEADLINE: Duration = Duration::from_secs(10);

/// A switch that lived for as long was a good one: if it dies, pauses start anew.
const LONG_LIFE: Duration = Duration::from_secs(1);

/// How long to wait before a switch that died is started again, by the times in a row that it did not live for long.
const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// A switch process that took its configuration.
#[derive(Debug)]
pub(super) struct Switch {
    /// The process.
    pub(super) child: Child,
    /// Its process id.
    pub(super) pid: u32,
    /// The line to it.
    pub(super) client: Client,
}

impl Switch {
    /// Starts the switch, has it written down by `born`, and makes it become `plan`.
    ///
    /// # Errors
    /// It cannot be started, or refuses.
    pub(super) async fn start(
        plan: &Arc<Plan>,
        ports: &Arc<Ports>,
        dir: &LabDir,
        born: impl FnOnce(&mut Child) -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let (ours, theirs) = UnixStream::pair().context("switch", || "a control socket".into())?;
        let mut child = child::spawn_role("vswitchd", theirs.into(), dir)?;
        born(&mut child)?;
        let (plan, ports) = (plan.clone(), ports.clone());
        let applied = tokio::task::spawn_blocking(move || {
            let mut client = Client::new(ours, DEADLINE)?;
            client.apply(&plan.description, ports.attachments(), &ports.descriptors(), settings(&plan))?;
            Ok::<_, vswitchd::control::client::ClientError>(client)
        });
        let client = applied
            .await
            .map_err(|why| Failure::failed("switch", why))?
            .context("switch", || "the switch did not take its configuration".into())?;
        Ok(Self { child, pid: client.pid(), client })
    }
}

/// The line to whichever switch process runs now.
pub(super) type Shared = Arc<Mutex<Client>>;

/// Puts the line to a new switch in the place of the old one.
pub(super) fn replace(shared: &Shared, client: Client) {
    *shared.lock().unwrap_or_else(PoisonError::into_inner) = client;
}

/// Switches that died soon after they had started, in a row.
#[derive(Debug, Default)]
pub(super) struct ShortLives(usize);

impl ShortLives {
    /// How long to wait before the next one is started, after one that lived for `life`.
    pub(super) fn pause_after(&mut self, life: Duration) -> Duration {
        if life >= LONG_LIFE {
            self.0 = 0;
        }
        let pause = PAUSES[self.0.min(PAUSES.len() - 1)];
        self.0 += 1;
        pause
    }
}

fn settings(plan: &Plan) -> DatapathSettings {
    DatapathSettings {
        workers: plan.datapath.workers,
        cpus: plan.datapath.cpus.clone(),
        poll: if plan.datapath.always_poll { PollMode::Always } else { PollMode::Adaptive },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_that_dies_at_once_is_started_ever_slower_and_one_that_lived_at_once() {
        let mut lives = ShortLives::default();
        let short = LONG_LIFE - Duration::from_millis(1);
        assert_eq!(
            [short; 6].map(|life| lives.pause_after(life).as_millis()),
            [0, 50, 200, 1000, 5000, 5000]
        );
        assert_eq!([LONG_LIFE, LONG_LIFE, short].map(|life| lives.pause_after(life).as_millis()), [0, 0, 50]);
    }
}
