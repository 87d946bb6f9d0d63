//! The machine: its CPUs, its clock, and what disturbed a measurement.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    time::{Duration, Instant},
};
use vhost_net_backend::cycles;

/// How long the clock is compared with the system's.
const COMPARED: Duration = Duration::from_millis(20);

/// The rate of the time stamp counter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clock {
    hertz: f64,
}

impl Clock {
    /// Compares the time stamp counter with the system's clock; takes 20 ms.
    pub fn measure() -> Self {
        let (begin, from) = (Instant::now(), cycles::now());
        while begin.elapsed() < COMPARED {
            std::hint::spin_loop();
        }
        let cycles = cycles::now().wrapping_sub(from);
        Self { hertz: cycles as f64 / begin.elapsed().as_secs_f64() }
    }

    /// A clock of so many cycles a second.
    pub fn of(hertz: f64) -> Self {
        Self { hertz }
    }

    /// Cycles a second.
    pub fn hertz(self) -> f64 {
        self.hertz
    }

    /// A time in cycles.
    pub fn cycles(self, time: Duration) -> u64 {
        (time.as_secs_f64() * self.hertz) as u64
    }

    /// Cycles in seconds.
    pub fn seconds(self, cycles: u64) -> f64 {
        cycles as f64 / self.hertz
    }

    /// Cycles in microseconds.
    pub fn micros(self, cycles: u64) -> f64 {
        self.seconds(cycles) * 1e6
    }
}

/// Binds the calling thread to a CPU.
///
/// # Errors
/// There is no such CPU, or it may not be used.
pub fn pin(cpu: u16) -> io::Result<()> {
    if usize::from(cpu) >= CpuSet::MAX_CPU {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no CPU {cpu}")));
    }
    let mut set = CpuSet::new();
    set.set(usize::from(cpu));
    Ok(sched_setaffinity(None, &set)?)
}

/// The CPUs that this process may use, in order.
///
/// # Errors
/// The kernel does not say.
pub fn cpus() -> io::Result<Vec<u16>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).map(|cpu| cpu as u16).collect())
}

/// What took CPUs away from a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Disturbance {
    /// The share of time, in percent, that the hypervisor gave to others (`steal` in /proc/stat), of all CPUs.
    pub steal_percent: f64,
    /// How often the generator's thread was made to wait for another one.
    pub involuntary_switches: u64,
}

/// Watches for disturbances of the calling thread.
#[derive(Debug)]
pub struct Watch {
    ticks: (u64, u64),
    switches: u64,
}

impl Watch {
    /// From now on.
    pub fn start() -> Self {
        Self { ticks: ticks_now(), switches: switches_now() }
    }

    /// What came since the start.
    pub fn end(&self) -> Disturbance {
        let (stolen, all) = ticks_now();
        let (stolen, all) = (stolen.saturating_sub(self.ticks.0), all.saturating_sub(self.ticks.1));
        let steal_percent = if all == 0 { 0.0 } else { stolen as f64 * 100.0 / all as f64 };
        Disturbance { steal_percent, involuntary_switches: switches_now().saturating_sub(self.switches) }
    }
}

fn ticks_now() -> (u64, u64) {
    fs::read_to_string("/proc/stat").ok().and_then(|stat| ticks(&stat)).unwrap_or_default()
}

/// Stolen ticks and all ticks (proc(5): user, nice, system, idle, iowait, irq, softirq, steal; guest time counts as user).
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let numbers = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks: Vec<u64> = numbers.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    Some((*ticks.get(7)?, ticks.iter().sum()))
}

fn switches_now() -> u64 {
    fs::read_to_string("/proc/thread-self/status").ok().and_then(|status| switches(&status)).unwrap_or(0)
}

fn switches(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

/// What was measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The CPU's name.
    pub cpu: String,
    /// CPUs that may be used.
    pub cpus: usize,
    /// The rate of the time stamp counter, in MHz.
    pub tsc_mhz: f64,
    /// The CPU of generator and sink.
    pub generator_cpu: u16,
    /// The CPU on which the limits are measured; none: there is only one.
    pub limits_cpu: Option<u16>,
    /// The CPU that each worker of the switch is bound to, none where it is bound to none; no list: the switch does not say.
    pub switch_cpus: Option<Vec<Option<u16>>>,
}

/// Bytes of free huge pages of 2 MiB, from /proc/meminfo.
pub fn free_huge_bytes() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let number = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let of_2_mib = number("Hugepagesize:") == Some(2048);
    if of_2_mib { number("HugePages_Free:").unwrap_or(0) * (2 << 20) } else { 0 }
}

/// The name of the CPU, from /proc/cpuinfo.
pub fn cpu_name() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| "unknown".into(), |(_, name)| name.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read_as_proc_5_says() {
        assert_eq!(ticks("cpu  10 20 30 40 50 60 70 80 5 5\ncpu0 1 1\n"), Some((80, 360)));
        assert_eq!((ticks("cpu 1 2\n"), ticks("intr 1\n")), (None, None));
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t9\nnonvoluntary_ctxt_switches:\t4\n";
        assert_eq!(switches(status), Some(4));
    }

    #[test]
    fn a_thread_is_bound_where_it_may_run_and_nowhere_else() {
        let all = cpus().expect("the kernel says");
        let last = *all.last().expect("this one");
        std::thread::spawn(move || {
            pin(last).expect("it may be used");
            assert_eq!(cpus().expect("the kernel says"), [last]);
            assert!(pin(u16::MAX).is_err());
        })
        .join()
        .expect("no panic");
    }

    #[test]
    fn the_clock_turns_times_into_cycles_and_back() {
        let clock = Clock::of(2e9);
        assert_eq!(clock.cycles(Duration::from_micros(3)), 6000);
        assert_eq!((clock.micros(6000), clock.seconds(2_000_000_000)), (3.0, 1.0));
        assert!(Clock::measure().hertz() > 1e6);
    }
}
