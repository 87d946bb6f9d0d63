//! A series: the same benchmark of several labs that differ in one thing, in turn, so that what disturbs one disturbs all.

use crate::{
    course::{Course, Rig},
    machine::{self, Machine},
    path::Path,
    plan::Plan,
    report::{Repetition, Row, Settings, median, spread},
    ringcopy::Work,
    run::{BenchError, Progress, Switch, take_cpu},
};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
};

/// A series' result; snake_case JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepReport {
    /// What it ran on.
    pub machine: Machine,
    /// How it ran, in the first column; the others differ in `swept` only.
    pub settings: Settings,
    /// `macs`, `vlans`, `ports` or `path`.
    pub swept: String,
    /// What else is to be known to read the figures.
    pub remarks: Vec<String>,
    /// One series for each size of frames.
    pub series: Vec<Series>,
}

/// Frames of one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Their size.
    pub frame_size: String,
    /// In the order asked for.
    pub columns: Vec<Column>,
}

/// One value of what is swept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// How many MACs, VLANs or ports, or which path.
    pub value: Value,
    /// What was measured.
    pub row: Row,
    /// Frames a second in parts of the first column's: the median over the rounds.
    pub mpps_ratio: Option<f64>,
    /// Largest less smallest round, in parts of that median; none: there was one round.
    pub mpps_ratio_spread: Option<f64>,
    /// Cycles of a frame in parts of the first column's: the median over the rounds.
    pub cycles_ratio: Option<f64>,
    /// Largest less smallest round, in parts of that median; none: there was one round.
    pub cycles_ratio_spread: Option<f64>,
    /// Cycles of a frame more than in the first column: the median over the rounds.
    pub cycles_more: Option<f64>,
}

/// What a column differs from the others in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// How many.
    Number(u32),
    /// What is done with frames.
    Path(Path),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Path(path) => path.fmt(f),
        }
    }
}

/// Runs each plan on its switch, one repetition of each in turn, on the calling thread. `columns` are the values of `swept` with
/// their plans, which differ in nothing else. No limits of the machine are measured.
///
/// # Errors
/// As [`crate::run`].
pub fn sweep(
    swept: &str,
    columns: &mut [(Value, Plan, &mut dyn Switch)],
    progress: &mut dyn FnMut(Progress),
    cancel: &Arc<AtomicBool>,
) -> Result<Option<SweepReport>, BenchError> {
    let Some((_, first, switch)) = columns.first_mut() else { return Ok(None) };
    let first = first.clone();
    let (clock, machine) = take_cpu(&first, &mut **switch)?;
    let wanted: u64 = columns.iter().map(|(_, plan, _)| plan.huge_bytes()).sum();
    let huge_pages = wanted <= machine::free_huge_bytes();
    let (mut series, mut remarks) = (Vec::new(), Vec::new());
    let all = (first.sizes.len() * columns.len() * first.repetitions as usize) as f64;
    let mut done = 0.0;
    for size in &first.sizes {
        let mut courses: Vec<(Value, Rig<'_>, Course, &mut dyn Switch)> = Vec::new();
        for (value, plan, switch) in columns.iter_mut() {
            progress(Progress {
                done: done / all,
                doing: format!("frames of {size}: learning {value} {swept}"),
            });
            let rig = Rig { plan, clock, huge_pages, cancel };
            let course = rig.begin((*size).into(), &mut **switch)?;
            courses.push((*value, rig, course, &mut **switch));
        }
        for _ in 0..first.repetitions {
            for (value, rig, course, switch) in &mut courses {
                rig.repeat(course, &mut **switch, &mut |_| {})?;
                done += 1.0;
                progress(Progress { done: done / all, doing: format!("frames of {size}, {value} {swept}") });
            }
        }
        let rounds: Vec<Vec<Round>> = courses
            .iter()
            .map(|(_, _, course, _)| course.repetitions().iter().map(Round::of).collect())
            .collect();
        let mut told = Vec::new();
        for ((value, rig, course, _), own) in courses.into_iter().zip(&rounds) {
            let (row, remarked) = rig.end(course);
            remarks.extend(remarked.into_iter().map(|remark| format!("{value} {swept}: {remark}")));
            told.push(column(value, row, own, &rounds[0]));
        }
        series.push(Series { frame_size: size.to_string(), columns: told });
    }
    let settings = first.settings(huge_pages);
    Ok(Some(SweepReport { machine, settings, swept: swept.into(), remarks, series }))
}

/// What a column is compared by in each round.
struct Round {
    rate: f64,
    /// Cycles of a frame, if the switch says.
    cycles: Option<f64>,
}

impl Round {
    fn of(repetition: &Repetition) -> Self {
        let cycles = repetition.work.and_then(Work::cycles_per_frame);
        Self { rate: repetition.outcome.rate(), cycles }
    }
}

/// Compares round by round, with what was measured beside it.
fn column(value: Value, row: Row, own: &[Round], first: &[Round]) -> Column {
    let pairs = || own.iter().zip(first);
    let of_cycles = || pairs().filter_map(|(own, first)| Some((own.cycles?, first.cycles?)));
    let (mpps_ratio, mpps_ratio_spread) = ratio(pairs().map(|(own, first)| (own.rate, first.rate)));
    let (cycles_ratio, cycles_ratio_spread) = ratio(of_cycles());
    Column {
        value,
        row,
        mpps_ratio,
        mpps_ratio_spread,
        cycles_ratio,
        cycles_ratio_spread,
        cycles_more: median(of_cycles().map(|(own, first)| own - first)),
    }
}

/// The median of ratios, and their spread.
fn ratio(pairs: impl Iterator<Item = (f64, f64)>) -> (Option<f64>, Option<f64>) {
    let ratios: Vec<f64> = pairs.filter(|(_, first)| *first > 0.0).map(|(own, first)| own / first).collect();
    let middle = median(ratios.iter().copied());
    (middle, middle.and_then(|middle| spread(&ratios, middle)))
}
