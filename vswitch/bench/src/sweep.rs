//! A series: the same benchmark of several labs that differ in one thing, in turn, so that what disturbs one disturbs all.

use crate::{
    course::{Course, Rig},
    machine::{self, Machine},
    plan::Plan,
    report::{Row, Settings, median, spread},
    run::{BenchError, Progress, Switch, take_cpu},
};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, atomic::AtomicBool};

/// A series' result; snake_case JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepReport {
    /// What it ran on.
    pub machine: Machine,
    /// How it ran, in the first column; the others differ in `swept` only.
    pub settings: Settings,
    /// `macs`, `vlans` or `ports`.
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
    /// How many MACs, VLANs or ports.
    pub value: u32,
    /// What was measured.
    pub row: Row,
    /// Cycles of a frame in parts of the first column's: the median over the rounds.
    pub cycles_ratio: Option<f64>,
    /// Largest less smallest round, in parts of that median; none: there was one round.
    pub cycles_ratio_spread: Option<f64>,
    /// Cycles of a frame more than in the first column: the median over the rounds.
    pub cycles_more: Option<f64>,
}

/// Runs each plan on its switch, one repetition of each in turn, on the calling thread. `columns` are the values of `swept` with
/// their plans, which differ in nothing else. No limits of the machine are measured.
///
/// # Errors
/// As [`crate::run`].
pub fn sweep(
    swept: &str,
    columns: &mut [(u32, Plan, &mut dyn Switch)],
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
        let mut courses: Vec<(u32, Rig<'_>, Course, &mut dyn Switch)> = Vec::new();
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
        let cycles: Vec<Vec<Option<f64>>> = courses.iter().map(|(_, _, course, _)| cycles(course)).collect();
        let mut told = Vec::new();
        for ((value, rig, course, _), own) in courses.into_iter().zip(&cycles) {
            let (row, remarked) = rig.end(course);
            remarks.extend(remarked.into_iter().map(|remark| format!("{value} {swept}: {remark}")));
            told.push(column(value, row, own, &cycles[0]));
        }
        series.push(Series { frame_size: size.to_string(), columns: told });
    }
    let settings = first.settings(huge_pages);
    Ok(Some(SweepReport { machine, settings, swept: swept.into(), remarks, series }))
}

/// Cycles of a frame in each round.
fn cycles(course: &Course) -> Vec<Option<f64>> {
    let cycles = |rep: &crate::report::Repetition| rep.work?.cycles_per_frame();
    course.repetitions().iter().map(cycles).collect()
}

/// Compares round by round, with what was measured beside it.
fn column(value: u32, row: Row, own: &[Option<f64>], first: &[Option<f64>]) -> Column {
    let pairs = || own.iter().zip(first).filter_map(|(own, first)| Some(((*own)?, (*first)?)));
    let ratios: Vec<f64> =
        pairs().filter(|(_, first)| *first > 0.0).map(|(own, first)| own / first).collect();
    let ratio = median(ratios.iter().copied());
    Column {
        value,
        row,
        cycles_ratio: ratio,
        cycles_ratio_spread: ratio.and_then(|middle| spread(&ratios, middle)),
        cycles_more: median(pairs().map(|(own, first)| own - first)),
    }
}
