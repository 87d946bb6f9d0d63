//! A whole benchmark: for each size of frames the switch, ringcopy and memcpy in turn, again and again.

use crate::{
    frames::{FrameSize, Variety},
    load::{Load, LoadError, Outcome, Pace, Trial, ways},
    machine::{self, Clock, Machine, Watch},
    memcpy,
    report::{self, Repetition, Report, Row, Settings, Subject},
    ringcopy::{RingCopy, Work},
    search::{Goal, Search},
};
use std::{
    io,
    os::unix::net::UnixStream,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};
use thiserror::Error;
use vhost_net_backend::{
    driver::{Config, Driver, DriverError, MemoryConfig},
    features,
    layout::RingSize,
    net_header,
};

/// Buffers are no smaller: what guests post.
const SMALLEST_BUFFER: usize = 2048;
/// A ring's buffers are to stay in the cache of one core: with larger frames the default ring is smaller.
const DEFAULT_RINGS: [(usize, u16); 3] = [(2048, 1024), (16 << 10, 256), (usize::MAX, 64)];
/// A search begins so far above what a closed loop reached.
const HEADROOM: f64 = 1.1;
/// How long a port may turn connections away.
const TURNED_AWAY: Duration = Duration::from_secs(2);
/// The part of a repetition that warms up.
const WARM_UP: f64 = 0.2;

/// What to measure.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What the switch is, in words.
    pub device: String,
    /// Sizes of frames, one row each.
    pub sizes: Vec<FrameSize>,
    /// Entries of each ring; none: 1024, with frames over 2 KiB 256, over 16 KiB 64.
    pub ring_size: Option<RingSize>,
    /// How frames differ.
    pub variety: Variety,
    /// Ports attached, 2 or more.
    pub ports: usize,
    /// Ports with traffic, in pairs: 2 to `ports`.
    pub busy_ports: usize,
    /// Whether frames go both ways.
    pub two_directions: bool,
    /// What is looked for.
    pub mode: Mode,
    /// How long a trial measures.
    pub measured: Duration,
    /// Repetitions, 1 or more.
    pub repetitions: u32,
    /// Whether this machine's limits are measured, too.
    pub limits: bool,
    /// Whether receive buffers can be merged (MRG_RXBUF).
    pub mergeable: bool,
    /// The CPU of generator and sink.
    pub generator_cpu: u16,
    /// The CPU of the switch, on which the limits are measured; none: there is only one.
    pub switch_cpu: Option<u16>,
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// The rate that sets itself.
    Closed {
        /// Frames of each stream on their way; none: a sixteenth less than the ring holds.
        window: Option<u32>,
    },
    /// What comes through at a rate.
    Open {
        /// Frames a second, of all streams together.
        rate: f64,
    },
    /// The highest rate that is borne.
    Search(Goal),
}

/// A switch under test, by its sockets.
pub trait Switch {
    /// A new connection to port `port`, as the VMM's side.
    ///
    /// # Errors
    /// The port is not there.
    fn connect(&mut self, port: usize) -> io::Result<UnixStream>;

    /// What the switch did so far, if it says.
    fn work(&mut self) -> Option<Work>;

    /// How often it refused to learn a station so far, if it says.
    fn refused(&mut self) -> Option<u64>;
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
    #[error("port {port}: {source}")]
    Socket {
        /// Which port.
        port: usize,
        /// Why.
        source: io::Error,
    },
    /// The handshake failed.
    #[error("port {port}: {source}")]
    Driver {
        /// Which port.
        port: usize,
        /// Why.
        source: DriverError,
    },
    /// The machine's limits could not be measured.
    #[error("the limits of this machine: {0}")]
    Limits(io::Error),
    /// A trial ended early.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Nothing arrives.
    #[error("of {sent} frames none came through; are both ports in the same VLAN?")]
    Silent {
        /// Frames sent.
        sent: u64,
    },
}

/// Runs `plan` on the calling thread, which stays bound to the generator's CPU. `cancel` ends it early.
///
/// # Errors
/// The switch is gone, lets nothing through or breaks a ring; the machine lacks something; `cancel` was set.
pub fn run(
    plan: &Plan,
    switch: &mut dyn Switch,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Result<Report, BenchError> {
    let cpu = plan.generator_cpu;
    let cpus = machine::cpus().map_or(1, |cpus| cpus.len());
    machine::pin(cpu).map_err(|source| BenchError::Cpu { cpu, source })?;
    let clock = Clock::measure();
    let huge_pages = plan.huge_bytes() * 2 <= machine::free_huge_bytes();
    let mut bench = Bench { plan, clock, huge_pages, cancel, progress, done: 0, remarks: Vec::new() };
    let hand_over_ns = match plan.switch_cpu.filter(|_| plan.limits) {
        Some(cpu) => Some(memcpy::hand_over(Some(cpu), clock).map_err(BenchError::Limits)?),
        None => None,
    };
    let results: Vec<_> =
        plan.sizes.iter().map(|size| bench.size(*size, switch)).collect::<Result<_, _>>()?;
    Ok(Report {
        machine: Machine {
            cpu: machine::cpu_name(),
            cpus,
            tsc_mhz: clock.hertz() / 1e6,
            generator_cpu: plan.generator_cpu,
            switch_cpu: plan.switch_cpu,
        },
        settings: plan.settings(huge_pages),
        left_out: plan.left_out(),
        remarks: bench.remarks,
        hand_over_ns,
        results,
    })
}

impl Plan {
    fn ring_size(&self, size: FrameSize) -> RingSize {
        self.ring_size.unwrap_or_else(|| {
            let buffer = buffer_size(size);
            let entries =
                DEFAULT_RINGS.iter().find(|(most, _)| buffer <= *most).map_or(64, |(_, ring)| *ring);
            RingSize::new(entries).expect("the table holds powers of two")
        })
    }

    fn limits_run(&self) -> bool {
        self.limits && self.switch_cpu.is_some()
    }

    fn driver(&self, size: FrameSize, huge_pages: bool) -> Config {
        let base = Config::default();
        let merge = if self.mergeable { features::NET_MRG_RXBUF } else { 0 };
        Config {
            features: base.features & !features::NET_MRG_RXBUF | merge,
            ring_size: self.ring_size(size),
            memory: MemoryConfig { huge_pages, shaped_bytes: 0, ..MemoryConfig::default() },
            buffer_size: buffer_size(size) as u32,
            ..base
        }
    }

    /// Bytes of the memory of all guests, about, if it is of huge pages; those of ringcopy count too.
    fn huge_bytes(&self) -> u64 {
        let bytes = |size: &FrameSize| {
            let entries = u64::from(self.ring_size(*size).entries());
            // Two rings of buffers, their strides, and what is rounded up.
            2 * entries * (buffer_size(*size) as u64 + 256) + (8 << 20)
        };
        (self.ports as u64 + 2) * self.sizes.iter().map(bytes).max().unwrap_or(0)
    }

    fn settings(&self, huge_pages: bool) -> Settings {
        Settings {
            device: self.device.clone(),
            ports: self.ports,
            busy_ports: self.busy_ports,
            directions: if self.two_directions { 2 } else { 1 },
            flows: self.variety.flows,
            macs: self.variety.macs,
            vlans: self.variety.vlans,
            mergeable: self.mergeable,
            huge_pages,
            seconds: self.measured.as_secs_f64(),
            repetitions: self.repetitions,
        }
    }

    fn left_out(&self) -> Vec<String> {
        let mut left_out = Vec::new();
        if self.switch_cpu.is_none() {
            left_out.push(
                "this machine's limits (ringcopy, memcpy): with one CPU, generator and switch take turns on it, and no \
                 rate says much"
                    .into(),
            );
        } else if !self.limits {
            left_out.push("this machine's limits (ringcopy, memcpy): not asked for".into());
        }
        left_out
    }
}

fn buffer_size(size: FrameSize) -> usize {
    (size.longest_on_ring() + net_header::LEN).max(SMALLEST_BUFFER)
}

/// What all repetitions have in common.
struct Bench<'a> {
    plan: &'a Plan,
    clock: Clock,
    huge_pages: bool,
    cancel: &'a AtomicBool,
    progress: &'a mut dyn FnMut(Progress),
    /// Repetitions that are done.
    done: u32,
    remarks: Vec<String>,
}

/// The copier, and the generator that drives it.
struct Limit {
    load: Load,
    copier: RingCopy,
}

impl Bench<'_> {
    fn size(&mut self, size: FrameSize, switch: &mut dyn Switch) -> Result<Row, BenchError> {
        let plan = self.plan;
        self.say(size, 0.0);
        let mut limit = if plan.limits_run() { Some(self.limit(size)?) } else { None };
        let mut load = self.attach(size, switch)?;
        let refused = switch.refused();
        load.teach(self.cancel)?;
        if let Some(unknown) =
            refused.zip(switch.refused()).map(|(before, now)| now.saturating_sub(before)).filter(|n| *n > 0)
        {
            self.remarks.push(format!(
                "frames of {size}: the switch refused {unknown} times to learn a station: frames to those are flooded"
            ));
        }
        let mut repetitions = Vec::new();
        for _ in 0..plan.repetitions {
            let watch = Watch::start();
            let before = switch.work();
            let outcome = self.switch_trial(size, &mut load)?;
            if outcome.tally.received == 0 && outcome.sent > 0 {
                return Err(BenchError::Silent { sent: outcome.sent });
            }
            let work = before.zip(switch.work()).map(|(before, after)| after.since(before));
            let disturbance = watch.end();
            self.say(size, 0.5);
            let ringcopy = limit.as_mut().map(|limit| self.limit_trial(size, limit)).transpose()?;
            let memcpy = if plan.limits_run() { Some(self.memcpy(size)?) } else { None };
            repetitions.push(Repetition { outcome, work, ringcopy, memcpy, disturbance });
            self.done += 1;
            self.say(size, 0.0);
        }
        let subject = Subject {
            frame_size: size.to_string(),
            ring_bytes: size.mean_on_ring(),
            ring_size: plan.ring_size(size).entries(),
            mode: self.mode(size),
        };
        Ok(report::row(subject, &repetitions, self.clock))
    }

    fn say(&mut self, size: FrameSize, part: f64) {
        let all = self.plan.repetitions as usize * self.plan.sizes.len();
        let limits = if part > 0.0 && self.plan.limits_run() { ": this machine's limits" } else { "" };
        (self.progress)(Progress {
            done: (f64::from(self.done) + part) / all.max(1) as f64,
            doing: format!("frames of {size}{limits}"),
        });
    }

    fn mode(&self, size: FrameSize) -> String {
        match self.plan.mode {
            Mode::Closed { .. } => format!("closed loop, window {}", self.window(size)),
            Mode::Open { rate } => format!("open loop, {} Mpps", rate / 1e6),
            Mode::Search(goal) => goal.to_string(),
        }
    }

    fn window(&self, size: FrameSize) -> u32 {
        let entries = u32::from(self.plan.ring_size(size).entries());
        match self.plan.mode {
            Mode::Closed { window: Some(window) } => window,
            _ => (entries - entries / 16).max(1),
        }
    }

    /// Attaches all ports of the switch.
    fn attach(&self, size: FrameSize, switch: &mut dyn Switch) -> Result<Load, BenchError> {
        let config = self.plan.driver(size, self.huge_pages);
        let port = |port| {
            let begin = Instant::now();
            loop {
                let stream = switch.connect(port).map_err(|source| BenchError::Socket { port, source })?;
                match Driver::connect(stream, &config) {
                    Ok(driver) => return Ok(driver),
                    // A switch that has not seen yet that the last connection ended turns the next one away.
                    Err(DriverError::Handshake { .. }) if begin.elapsed() < TURNED_AWAY => {}
                    Err(source) => return Err(BenchError::Driver { port, source }),
                }
            }
        };
        let ports = (0..self.plan.ports).map(port).collect::<Result<_, _>>()?;
        Ok(self.load(size, ports, self.plan.busy_ports))
    }

    fn limit(&self, size: FrameSize) -> Result<Limit, BenchError> {
        let (copier, ends) = RingCopy::start(self.plan.switch_cpu).map_err(BenchError::Limits)?;
        let config = self.plan.driver(size, self.huge_pages);
        let connect = |(port, stream)| {
            Driver::connect(stream, &config).map_err(|source| BenchError::Driver { port, source })
        };
        let ports = ends.into_iter().enumerate().map(connect).collect::<Result<_, _>>()?;
        let mut load = self.load(size, ports, 2);
        copier.set_running(true);
        load.teach(self.cancel)?;
        copier.set_running(false);
        Ok(Limit { load, copier })
    }

    fn load(&self, size: FrameSize, ports: Vec<Driver>, busy: usize) -> Load {
        let plan = self.plan;
        let ways = ways(busy, plan.two_directions);
        let ring_size = plan.ring_size(size).entries();
        Load::new(ports, &ways, (size, plan.variety), ring_size, (self.clock, plan.switch_cpu.is_none()))
    }

    fn trial(&self, pace: Pace) -> Trial {
        Trial { pace, warm_up: self.plan.measured.mul_f64(WARM_UP), measured: self.plan.measured }
    }

    fn switch_trial(&mut self, size: FrameSize, load: &mut Load) -> Result<Outcome, BenchError> {
        let pace = match self.plan.mode {
            Mode::Closed { .. } => Pace::Closed { window: self.window(size) },
            Mode::Open { rate } => Pace::Open { rate },
            Mode::Search(goal) => return self.search(goal, size, load),
        };
        Ok(load.run(&self.trial(pace), self.cancel)?)
    }

    /// The outcome at the highest rate that is borne; of a rate that is not, if none is.
    fn search(&mut self, goal: Goal, size: FrameSize, load: &mut Load) -> Result<Outcome, BenchError> {
        let closed = self.trial(Pace::Closed { window: self.window(size) });
        let ceiling = load.run(&closed, self.cancel)?.rate() * HEADROOM;
        let mut search = Search::new(goal, ceiling);
        let mut best = None;
        let mut last = Outcome::default();
        while let Some(rate) = search.next_rate() {
            self.say(size, search.progress() / 2.0);
            last = load.run(&self.trial(Pace::Open { rate }), self.cancel)?;
            if search.record(last.loss_ratio()) {
                best = Some(last.clone());
            }
        }
        Ok(best.unwrap_or(last))
    }

    fn limit_trial(&self, size: FrameSize, limit: &mut Limit) -> Result<(Outcome, Work), BenchError> {
        let before = limit.copier.work();
        limit.copier.set_running(true);
        let trial = self.trial(Pace::Closed { window: self.window(size) });
        let outcome = limit.load.run(&trial, self.cancel);
        limit.copier.set_running(false);
        Ok((outcome?, limit.copier.work().since(before)))
    }

    fn memcpy(&self, size: FrameSize) -> Result<f64, BenchError> {
        let bytes = size.mean_on_ring() as usize;
        let time = self.plan.measured.mul_f64(WARM_UP);
        memcpy::measure(bytes, self.plan.switch_cpu, time, self.clock).map_err(BenchError::Limits)
    }
}
