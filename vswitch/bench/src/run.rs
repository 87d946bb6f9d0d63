//! A whole benchmark: for each kind of frames the switch, ringcopy and memcpy in turn, again and again.

use crate::{
    course::Rig,
    load::LoadError,
    machine::{self, Clock, Machine},
    memcpy,
    offload::Offload,
    plan::Plan,
    report::Report,
    ringcopy::Work,
};
use std::{
    io,
    os::unix::net::UnixStream,
    sync::{Arc, atomic::AtomicBool},
};
use thiserror::Error;
use vhost_net_backend::driver::DriverError;

/// A switch under test, by its sockets.
pub trait Switch {
    /// A new connection to port `port`, as the VMM's side.
    ///
    /// # Errors
    /// The port is not there.
    fn connect(&mut self, port: usize) -> io::Result<UnixStream>;

    /// What port `port` is called in an error.
    fn name(&self, port: usize) -> String {
        format!("port {port}")
    }

    /// The CPU of each of its workers, if it says; none in it: not bound to one.
    fn cpus(&mut self) -> Option<Vec<Option<u16>>>;

    /// What the switch did so far, if it says.
    fn work(&mut self) -> Option<Work>;

    /// How often its workers went to sleep so far, if it says.
    fn sleeps(&mut self) -> Option<u64>;

    /// How often it refused to learn a station so far, if it says.
    fn refused(&mut self) -> Option<u64>;

    /// What it dropped so far of what these ports sent and were to get, if it says.
    fn dropped(&mut self) -> Option<Vec<Dropped>>;

    /// How many frames of these ports it flooded so far, if it says.
    fn flooded(&mut self) -> Option<u64>;
}

/// Frames that a switch dropped at one port for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Where.
    pub port: String,
    /// Why, in a word.
    pub reason: String,
    /// How many.
    pub frames: u64,
}

/// How far a benchmark is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// 0 to 1.
    pub done: f64,
    /// What is being done.
    pub doing: String,
}

/// Why there is no result.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The generator cannot have its CPU.
    #[error("CPU {cpu} cannot be had: {source}")]
    Cpu {
        /// Which.
        cpu: u16,
        /// Why.
        source: io::Error,
    },
    /// There is no socket.
    #[error("{port}: {source}")]
    Socket {
        /// Which port.
        port: String,
        /// Why.
        source: io::Error,
    },
    /// The handshake failed.
    #[error("{port}: {source}")]
    Driver {
        /// Which port.
        port: String,
        /// Why.
        source: DriverError,
    },
    /// The switch does not do what is to be left to it.
    #[error("{port}: the switch takes no frames of which the {offload} are left to it")]
    NoOffload {
        /// Which port.
        port: String,
        /// What.
        offload: Offload,
    },
    /// The machine's limits could not be measured.
    #[error("the limits of this machine: {0}")]
    Limits(io::Error),
    /// A trial ended early.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Nothing arrives.
    #[error("of {sent} frames none came through{}", became(dropped.as_deref()))]
    Silent {
        /// Frames sent.
        sent: u64,
        /// What the switch dropped meanwhile, if it says.
        dropped: Option<Vec<Dropped>>,
    },
}

/// What became of frames that did not come through, as far as the switch says.
fn became(dropped: Option<&[Dropped]>) -> String {
    match dropped {
        None => "; are both ports in the same VLAN?".into(),
        Some([]) => ", and the switch dropped none".into(),
        Some(dropped) => {
            let told = dropped.iter().map(|one| format!("{} at {}: {}", one.frames, one.port, one.reason));
            format!("; the switch dropped {}", told.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Runs `plan` on the calling thread, which stays bound to the generator's CPU. `cancel` ends it early.
///
/// # Errors
/// The switch is gone, lets nothing through or breaks a ring; the machine lacks something; `cancel` was set.
pub fn run(
    plan: &Plan,
    switch: &mut dyn Switch,
    progress: &mut dyn FnMut(Progress),
    cancel: &Arc<AtomicBool>,
) -> Result<Report, BenchError> {
    let (rig, machine) = Rig::take(plan, switch, cancel)?;
    let hand_over_ns = match plan.switch_cpu.filter(|_| plan.limits) {
        Some(cpu) => Some(memcpy::hand_over(Some(cpu), rig.clock).map_err(BenchError::Limits)?),
        None => None,
    };
    let (mut results, mut remarks) = (Vec::new(), Vec::new());
    let kinds = plan.kinds();
    for (place, kind) in kinds.iter().enumerate() {
        let mut say = |repetition: u32, part: f64| {
            let all = plan.repetitions as usize * kinds.len();
            let done = place as f64 * f64::from(plan.repetitions) + f64::from(repetition) + part;
            let limits = if part > 0.5 && plan.limits_run() { ": this machine's limits" } else { "" };
            progress(Progress { done: done / all.max(1) as f64, doing: format!("frames of {kind}{limits}") });
        };
        say(0, 0.0);
        let mut course = rig.begin(*kind, switch)?;
        for repetition in 0..plan.repetitions {
            rig.repeat(&mut course, switch, &mut |part| say(repetition, part))?;
            say(repetition + 1, 0.0);
        }
        let (row, told) = rig.end(course);
        results.push(row);
        remarks.extend(told);
    }
    Ok(Report {
        machine,
        settings: plan.settings(rig.huge_pages),
        left_out: plan.left_out(),
        remarks,
        hand_over_ns,
        results,
    })
}

/// Binds the calling thread to the generator's CPU, and sets a clock there; says what machine it is, and where the switch runs.
pub(crate) fn take_cpu(plan: &Plan, switch: &mut dyn Switch) -> Result<(Clock, Machine), BenchError> {
    let cpu = plan.generator_cpu;
    let cpus = machine::cpus().map_or(1, |cpus| cpus.len());
    machine::pin(cpu).map_err(|source| BenchError::Cpu { cpu, source })?;
    let clock = Clock::measure();
    let machine = Machine {
        cpu: machine::cpu_name(),
        cpus,
        tsc_mhz: clock.hertz() / 1e6,
        generator_cpu: cpu,
        limits_cpu: plan.switch_cpu,
        switch_cpus: switch.cpus(),
    };
    Ok((clock, machine))
}
