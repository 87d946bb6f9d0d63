//! Waking up: frames so far apart that a worker sleeps between them, and beside them the bare wake-up of a thread by an eventfd, from
//! the same CPU on the same CPU.

use crate::{
    course::Rig,
    histogram::Histogram,
    load::{LoadError, Pace},
    machine::{self, Clock, Disturbance, Machine, Watch},
    plan::Plan,
    report::{Latency, Settings, median},
    run::{BenchError, Progress, Switch},
};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::{Errno, read, write},
};
use serde::{Deserialize, Serialize};
use std::{
    hint, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use vhost_net_backend::cycles;

/// Wake-ups a second: ten times as far apart as a worker spins before it sleeps.
const RATE: f64 = 2000.0;
/// What ends the thread that is woken.
const END: u64 = u64::MAX;

/// How long it takes to wake the switch; snake_case JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WakeReport {
    /// What it ran on.
    pub machine: Machine,
    /// How it ran.
    pub settings: Settings,
    /// Frames a second.
    pub rate: f64,
    /// One row for each size of frames.
    pub results: Vec<Woken>,
}

/// What came of one size of frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Woken {
    /// As it was asked for.
    pub frame_size: String,
    /// The share of frames before which the switch slept, by its own count; none: it does not say, and may have been awake.
    pub slept: Option<f64>,
    /// From sending to receiving a frame.
    pub latency_us: Latency,
    /// From writing an eventfd until a thread that slept on it has answered in shared memory.
    pub eventfd_us: Latency,
    /// The switch's median less that of the eventfd: the median of the pairs.
    pub p50_above_us: f64,
    /// The same of the 99th percentiles.
    pub p99_above_us: f64,
    /// Frames that did not arrive.
    pub lost: u64,
    /// What took CPUs away meanwhile.
    #[serde(flatten)]
    pub disturbance: Disturbance,
}

/// Runs `plan` at its own rate on the calling thread: frames and bare wake-ups in turn.
///
/// # Errors
/// As [`crate::run`].
pub fn wake(
    plan: &Plan,
    switch: &mut dyn Switch,
    progress: &mut dyn FnMut(Progress),
    cancel: &Arc<AtomicBool>,
) -> Result<WakeReport, BenchError> {
    let (rig, machine) = Rig::take(plan, switch, cancel)?;
    let mut results = Vec::new();
    let all = (plan.sizes.len() * plan.repetitions as usize) as f64;
    let mut done = 0.0;
    for size in &plan.sizes {
        let mut course = rig.begin((*size).into(), switch)?;
        let (mut frames, mut bare, mut lost) = (Vec::new(), Vec::new(), 0);
        let (mut sent, mut sleeps) = (0, Some(0));
        let watch = Watch::start();
        for _ in 0..plan.repetitions {
            let before = switch.sleeps();
            let outcome = course.load.run(&plan.trial(Pace::Open { rate: RATE }), cancel)?;
            let slept = before.zip(switch.sleeps()).map(|(before, after)| after.saturating_sub(before));
            sleeps = sleeps.zip(slept).map(|(sum, slept)| sum + slept);
            sent += outcome.sent;
            if outcome.tally.received == 0 {
                let silent = BenchError::Silent { sent: outcome.sent, dropped: None };
                return Err(course.explained(silent, switch));
            }
            lost += outcome.lost();
            frames.push(outcome.latency);
            bare.push(wake_a_thread(plan.switch_cpu, plan.measured, rig.clock, cancel)?);
            done += 1.0;
            progress(Progress { done: done / all, doing: format!("frames of {size}: waking up") });
        }
        let above = |quantile| {
            let at = |histogram: &Histogram| histogram.quantile(quantile).unwrap_or(0);
            let pairs = frames.iter().zip(&bare);
            median(pairs.map(|(frames, bare)| rig.clock.micros(at(frames)) - rig.clock.micros(at(bare))))
                .unwrap_or(0.0)
        };
        results.push(Woken {
            frame_size: size.to_string(),
            // It is woken by questions as well.
            slept: sleeps.map(|sleeps| (sleeps as f64 / sent.max(1) as f64).min(1.0)),
            latency_us: quantiles(&frames, rig.clock),
            eventfd_us: quantiles(&bare, rig.clock),
            p50_above_us: above(0.5),
            p99_above_us: above(0.99),
            lost,
            disturbance: watch.end(),
        });
    }
    Ok(WakeReport { machine, settings: plan.settings(rig.huge_pages), rate: RATE, results })
}

/// Of each quantile the median of the repetitions.
fn quantiles(repetitions: &[Histogram], clock: Clock) -> Latency {
    let each: Vec<Latency> = repetitions.iter().map(|histogram| Latency::of(histogram, clock)).collect();
    Latency::median(&each)
}

/// Wakes a thread on `cpu` again and again for about `time`: cycles until it has answered.
fn wake_a_thread(
    cpu: Option<u16>,
    time: Duration,
    clock: Clock,
    cancel: &AtomicBool,
) -> Result<Histogram, BenchError> {
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|errno| BenchError::Limits(errno.into()))?;
    // What the thread was told last, and how far it answered.
    let (told, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    let ring = || match write(&bell, &1u64.to_ne_bytes()) {
        Ok(_) => Ok(()),
        Err(errno) => Err(BenchError::Limits(errno.into())),
    };
    let answer = || {
        let number = told.load(Ordering::Acquire);
        answered.store(number, Ordering::Release);
        number
    };
    let sleeper = || -> io::Result<()> {
        cpu.map_or(Ok(()), machine::pin)?;
        loop {
            match poll(&mut [PollFd::new(&bell, PollFlags::IN)], None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            answer();
            let _ = read(&bell, &mut [0; 8]);
            // What rang before that does not ring again.
            if answer() == END {
                return Ok(());
            }
        }
    };
    thread::scope(|scope| {
        let thread = scope.spawn(sleeper);
        let period = (clock.hertz() / RATE) as u64;
        let mut waited = Histogram::default();
        let begin = cycles::now();
        let mut outcome = Ok(());
        for number in 1..(time.as_secs_f64() * RATE) as u64 + 1 {
            wait_until(cpu, || cycles::now().wrapping_sub(begin) >= number * period);
            told.store(number, Ordering::Release);
            let now = cycles::now();
            outcome = ring();
            wait_until(cpu, || answered.load(Ordering::Acquire) == number || thread.is_finished());
            waited.record(cycles::now().wrapping_sub(now), 1);
            if outcome.is_err() || thread.is_finished() {
                break;
            }
            if cancel.load(Ordering::Relaxed) {
                outcome = Err(BenchError::Load(LoadError::Interrupted));
                break;
            }
        }
        told.store(END, Ordering::Release);
        ring()?;
        let ended =
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread to be woken panicked")));
        ended.map_err(BenchError::Limits)?;
        outcome.map(|()| waited)
    })
}

/// Spins until `so`; without a CPU for the other thread that lets it run.
fn wait_until(cpu: Option<u16>, so: impl Fn() -> bool) {
    while !so() {
        if cpu.is_some() { hint::spin_loop() } else { thread::yield_now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_woken_as_often_as_it_is_told() {
        let (clock, cancel) = (Clock::measure(), AtomicBool::new(false));
        let woken = wake_a_thread(None, Duration::from_millis(20), clock, &cancel).expect("a second thread");
        assert_eq!(woken.total(), 40);
        cancel.store(true, Ordering::Relaxed);
        assert!(wake_a_thread(None, Duration::from_secs(3600), clock, &cancel).is_err());
    }
}
