//! The switch process of a lab: started, told what to be, and started again when it dies.

use super::{child, leases::Leases, ports::Ports, rundir::LabDir};
use crate::failure::{Context, Failure};
use std::{
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::process::Child;
use topology::plan::Plan;
use vswitchd::control::{
    client::{Client, ClientError},
    protocol::{DatapathSettings, PollMode},
};

/// How long the switch may take to answer one request.
const DEADLINE: Duration = Duration::from_secs(10);

/// How much longer for each connection that it has room for: the table's memory is written once, and a machine may have to find it first.
const FOR_A_CONNECTION: Duration = Duration::from_micros(2);

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
    /// Starts the switch, has it written down by `born`, and makes it become `plan`, with these leases; which another was before, if it `resumes`.
    ///
    /// # Errors
    /// It cannot be started, or refuses.
    pub(super) async fn start(
        plan: &Arc<Plan>,
        (ports, leases): (&Arc<Ports>, &Arc<Leases>),
        dir: &LabDir,
        resumes: bool,
        born: impl FnOnce(&Child) -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let (ours, theirs) = UnixStream::pair().context("switch", || "a control socket".into())?;
        let child = child::spawn_role("vswitchd", theirs.into(), dir)?;
        let told = match born(&child) {
            Ok(()) => configure(ours, plan.clone(), (ports.clone(), leases.clone()), resumes).await,
            Err(failure) => Err(failure),
        };
        let (child, client) = child::kept(child, told).await?;
        Ok(Self { child, pid: client.pid(), client })
    }
}

/// Makes the switch at the other end of `ours` become `plan`.
async fn configure(
    ours: UnixStream,
    plan: Arc<Plan>,
    (ports, leases): (Arc<Ports>, Arc<Leases>),
    resumes: bool,
) -> Result<Client, Failure> {
    let applied = tokio::task::spawn_blocking(move || {
        let deadline = DEADLINE + FOR_A_CONNECTION * plan.datapath.connections;
        let mut client = Client::new(ours, deadline)?;
        if resumes {
            client.resume()?;
        }
        leases.tell(&mut client)?;
        apply(&mut client, &plan, &ports)?;
        Ok::<_, ClientError>(client)
    });
    applied
        .await
        .map_err(|why| Failure::failed("switch", why))?
        .context("switch", || "the switch did not take its configuration".into())
}

/// Makes the switch become `plan` with these `ports`.
pub(super) fn apply(client: &mut Client, plan: &Plan, ports: &Ports) -> Result<(), ClientError> {
    client.apply(&plan.description, ports.attachments(), &ports.descriptors(), settings(plan))
}

/// The line to whichever switch process runs now.
pub(super) type Shared = Arc<Mutex<Client>>;

/// Puts the line to a new switch in the place of the old one.
pub(super) fn replace(shared: &Shared, client: Client) {
    *shared.lock().unwrap_or_else(PoisonError::into_inner) = client;
}

fn settings(plan: &Plan) -> DatapathSettings {
    DatapathSettings {
        workers: plan.datapath.workers,
        cpus: plan.datapath.cpus.iter().map(|cpu| cpu.number).collect(),
        poll: if plan.datapath.always_poll { PollMode::Always } else { PollMode::Adaptive },
        connections: plan.datapath.connections,
    }
}
