//! Isolation: a pair that offers half of its maximum, alone and beside neighbours, again and again in turn.

use crate::{
    course::{Course, Rig},
    histogram::Histogram,
    load::{Outcome, Pace},
    machine::{Clock, Disturbance, Machine, Watch},
    neighbours::Beside,
    plan::Plan,
    report::{Latency, Settings, median},
    run::{BenchError, Progress, Switch},
    sink::Tally,
};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, atomic::AtomicBool};

/// What the pair offers, in parts of what it reaches alone.
const OFFERED: f64 = 0.5;

/// What came of it; snake_case JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BesideReport {
    /// What it ran on.
    pub machine: Machine,
    /// How it ran.
    pub settings: Settings,
    /// What went on beside the pair.
    pub beside: Beside,
    /// One row for each size of frames.
    pub results: Vec<Kept>,
}

/// What a pair kept of its rate and latency. Figures are medians of the repetitions, also each quantile: one in which the generator was
/// made to wait decides nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// As it was asked for.
    pub frame_size: String,
    /// Entries of each ring.
    pub ring_size: u16,
    /// Mpps that the pair reaches alone, in a closed loop.
    pub solo_max_mpps: f64,
    /// Mpps that it offers: half of that.
    pub offered_mpps: f64,
    /// Mpps of this that arrive alone, and beside its neighbours.
    pub solo_mpps: f64,
    /// See there.
    pub beside_mpps: f64,
    /// The second in parts of the first: the median of the pairs.
    pub kept: f64,
    /// From sending to receiving, alone.
    pub solo_latency_us: Latency,
    /// And beside its neighbours.
    pub beside_latency_us: Latency,
    /// The 99th percentile beside neighbours in parts of that alone: the median of the pairs.
    pub p99_ratio: f64,
    /// From one round of the one thread that drives all ports to the next, alone: latencies contain it.
    pub solo_round_us: Latency,
    /// And beside neighbours.
    pub beside_round_us: Latency,
    /// Frames of the pair that were sent and did not arrive, alone and beside.
    pub solo_lost: u64,
    /// See there.
    pub beside_lost: u64,
    /// Frames of the pair that were sent, alone and beside.
    pub solo_sent: u64,
    /// See there.
    pub beside_sent: u64,
    /// Frames of the pair that were due besides and not sent, alone and beside.
    pub solo_not_sent: u64,
    /// See there.
    pub beside_not_sent: u64,
    /// Millions of frames a second that the neighbours sent, and that those of them received which take any.
    pub neighbours_sent_mpps: f64,
    /// See there.
    pub neighbours_received_mpps: f64,
    /// Frames of the pair that came damaged, twice or late.
    pub faults: u64,
    /// What took CPUs away meanwhile.
    #[serde(flatten)]
    pub disturbance: Disturbance,
}

/// One repetition: three trials back to back.
struct Repetition {
    maximum: f64,
    solo: Outcome,
    beside: Outcome,
    disturbance: Disturbance,
}

/// Runs `plan`, whose ports are those that `beside` takes, on the calling thread.
///
/// # Errors
/// As [`crate::run`].
pub fn beside(
    plan: &Plan,
    beside: Beside,
    switch: &mut dyn Switch,
    progress: &mut dyn FnMut(Progress),
    cancel: &Arc<AtomicBool>,
) -> Result<BesideReport, BenchError> {
    let (rig, machine) = Rig::take(plan, switch, cancel)?;
    let mut results = Vec::new();
    let all = (plan.sizes.len() * plan.repetitions as usize) as f64;
    let mut done = 0.0;
    for size in &plan.sizes {
        let mut course = rig.begin_beside(*size, &beside.neighbours(), switch)?;
        let mut repetitions = Vec::new();
        for _ in 0..plan.repetitions {
            let repetition = repeat(&rig, &mut course);
            repetitions.extend(repetition.map_err(|error| course.explained(error, switch))?);
            done += 1.0;
            progress(Progress { done: done / all, doing: format!("frames of {size}, beside {beside}") });
        }
        if repetitions.is_empty() {
            return Err(BenchError::Silent { sent: 0, dropped: None });
        }
        results.push(kept((size.to_string(), plan.ring_size(*size).entries()), &repetitions, rig.clock));
    }
    Ok(BesideReport { machine, settings: plan.settings(rig.huge_pages), beside, results })
}

/// One repetition; none if the machine took its CPU away for all of a trial.
fn repeat(rig: &Rig<'_>, course: &mut Course) -> Result<Option<Repetition>, BenchError> {
    let watch = Watch::start();
    let mut trial = |pace, flooding| {
        let outcome = course.load.run_beside(&rig.plan.trial(pace), flooding, rig.cancel)?;
        if outcome.tally.received == 0 && outcome.sent > 0 {
            return Err(BenchError::Silent { sent: outcome.sent, dropped: None });
        }
        Ok(outcome)
    };
    let maximum = trial(Pace::Closed { window: rig.plan.window(course.kind) }, false)?.rate();
    let pace = Pace::Open { rate: maximum * OFFERED };
    let (solo, beside) = (trial(pace, false)?, trial(pace, true)?);
    let measured = solo.frames > 0 && beside.frames > 0;
    Ok(measured.then(|| Repetition { maximum, solo, beside, disturbance: watch.end() }))
}

fn kept((frame_size, ring_size): (String, u16), repetitions: &[Repetition], clock: Clock) -> Kept {
    let over = |of: &dyn Fn(&Repetition) -> f64| median(repetitions.iter().map(of)).unwrap_or(0.0);
    let p99 = |outcome: &Outcome| outcome.latency.quantile(0.99).unwrap_or(0) as f64;
    let mut faults = Tally::default();
    for repetition in repetitions {
        faults.add(&repetition.solo.tally);
        faults.add(&repetition.beside.tally);
    }
    let quantiles = |of: &dyn Fn(&Repetition) -> &Histogram| {
        let each: Vec<Latency> = repetitions.iter().map(|rep| Latency::of(of(rep), clock)).collect();
        Latency::median(&each)
    };
    let sum = |of: &dyn Fn(&Repetition) -> u64| repetitions.iter().map(of).sum();
    let maximum = over(&|rep| rep.maximum / 1e6);
    Kept {
        frame_size,
        ring_size,
        solo_max_mpps: maximum,
        offered_mpps: maximum * OFFERED,
        solo_mpps: over(&|rep| rep.solo.rate() / 1e6),
        beside_mpps: over(&|rep| rep.beside.rate() / 1e6),
        kept: over(&|rep| rep.beside.rate() / rep.solo.rate()),
        solo_latency_us: quantiles(&|rep| &rep.solo.latency),
        beside_latency_us: quantiles(&|rep| &rep.beside.latency),
        p99_ratio: over(&|rep| p99(&rep.beside) / p99(&rep.solo).max(1.0)),
        solo_round_us: quantiles(&|rep| &rep.solo.rounds),
        beside_round_us: quantiles(&|rep| &rep.beside.rounds),
        solo_lost: sum(&|rep| rep.solo.lost()),
        beside_lost: sum(&|rep| rep.beside.lost()),
        solo_sent: sum(&|rep| rep.solo.sent),
        beside_sent: sum(&|rep| rep.beside.sent),
        solo_not_sent: sum(&|rep| rep.solo.not_sent()),
        beside_not_sent: sum(&|rep| rep.beside.not_sent()),
        neighbours_sent_mpps: over(&|rep| rep.beside.neighbours.0 as f64 / rep.beside.seconds / 1e6),
        neighbours_received_mpps: over(&|rep| rep.beside.neighbours.1 as f64 / rep.beside.seconds / 1e6),
        faults: faults.corrupt + faults.duplicated + faults.reordered,
        disturbance: Disturbance {
            steal_percent: over(&|rep| rep.disturbance.steal_percent),
            involuntary_switches: repetitions.iter().map(|rep| rep.disturbance.involuntary_switches).sum(),
        },
    }
}
