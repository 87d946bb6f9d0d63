//! What a benchmark says: medians and spreads over its repetitions, and ratios to what was measured in the same minute.

use crate::{
    frames::Payload,
    histogram::Histogram,
    load::Outcome,
    machine::{Clock, Disturbance, Machine},
    offload::{Kind, Offload},
    path::Path,
    ringcopy::Work,
    sink::Tally,
};
use serde::{Deserialize, Serialize};

/// A benchmark's result; snake_case JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What it ran on.
    pub machine: Machine,
    /// How it ran.
    pub settings: Settings,
    /// What could not be measured, and why.
    pub left_out: Vec<String>,
    /// What else is to be known to read the figures.
    pub remarks: Vec<String>,
    /// Nanoseconds that a cache line takes from core to core.
    pub hand_over_ns: Option<f64>,
    /// One row for each size of frames, and what is left to the switch of them.
    pub results: Vec<Row>,
}

/// How a benchmark ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What was measured: a lab of its own, two ports, two sockets.
    pub device: String,
    /// Ports attached.
    pub ports: usize,
    /// Ports with traffic.
    pub busy_ports: usize,
    /// 1 or 2.
    pub directions: u8,
    /// Flows of each stream.
    pub flows: u32,
    /// MAC addresses behind each port.
    pub macs: u32,
    /// VLANs; 0: untagged.
    pub vlans: u16,
    /// What the switch did with frames.
    #[serde(default)]
    pub path: Path,
    /// What was done with what stands behind the heads.
    pub payload: Payload,
    /// Whether receive buffers could be merged (MRG_RXBUF).
    pub mergeable: bool,
    /// Whether the guests' memory was of huge pages.
    pub huge_pages: bool,
    /// Seconds of each repetition.
    pub seconds: f64,
    /// Repetitions.
    pub repetitions: u32,
}

/// What came of one kind of frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// As it was asked for: 64 to 1518 with FCS, larger ones without, or `imix`.
    pub frame_size: String,
    /// What the switch was left to do with each frame, for a receiver that takes none of it. Frames and bytes are those that were sent: a frame
    /// that is cut counts once all of its segments arrived, without their headers.
    pub offload: Offload,
    /// Bytes on the ring, the mean.
    pub ring_bytes: f64,
    /// Entries of each ring; of a sender's where frames are cut.
    pub ring_size: u16,
    /// `closed loop, window 960`, `open loop, 1 Mpps`, `ndr` or `pdr`.
    pub mode: String,
    /// Millions of frames a second that arrived, of all streams together.
    pub mpps: f64,
    /// Millions of frames a second that were asked for, of all streams together; none: the switch set the rate.
    pub offered_mpps: Option<f64>,
    /// Largest less smallest repetition, in parts of the median; none: one repetition has no spread.
    pub mpps_spread: Option<f64>,
    /// Gigabits a second: the frames as they lie on the ring.
    pub gbps: f64,
    /// What the switch says that a frame took of its core; none: it does not say.
    pub cycles_per_frame: Option<f64>,
    /// Gigabits a second of the time in which the switch was busy: what it could do if neither generator nor sink were slower.
    pub busy_gbps: Option<f64>,
    /// Mpps of the same rings and copies without a switch.
    pub ringcopy_mpps: Option<f64>,
    /// Cycles that a frame took there.
    pub ringcopy_cycles_per_frame: Option<f64>,
    /// `mpps` in parts of `ringcopy_mpps`: the median of the pairs.
    pub ratio_to_ringcopy: Option<f64>,
    /// Gigabits a second of one copy from core to core, in pieces of this size.
    pub memcpy_gbps: Option<f64>,
    /// `gbps` in parts of `memcpy_gbps`: the median of the pairs. The memory copied there was just written by the other core; a
    /// frame's payload was only with `payload.dirty`.
    pub ratio_to_memcpy: Option<f64>,
    /// `busy_gbps` in parts of `memcpy_gbps`, which also counts the copying core's time only: the median of the pairs.
    pub busy_ratio_to_memcpy: Option<f64>,
    /// Frames sent, in all repetitions, warm-up included.
    pub sent: u64,
    /// Frames that were due besides and not sent: the generator was not that fast, or the switch did not take them. Only what was sent
    /// can be lost or late.
    pub not_sent: u64,
    /// Frames sent that arrived.
    pub received: u64,
    /// Frames that did not. A search loses frames on purpose; these are those of the trials that it settled on.
    pub lost: u64,
    /// Frames that came behind a later one.
    pub reordered: u64,
    /// Frames that came twice.
    pub duplicated: u64,
    /// Frames that came damaged.
    pub corrupt: u64,
    /// Frames that came to a port that they were not for.
    pub strayed: u64,
    /// Frames that came and were of no generator.
    pub foreign: u64,
    /// Frames of the ports measured that the switch flooded while it was measured; none: it does not say. Then the figures are those of flooding.
    pub flooded: Option<u64>,
    /// From sending to receiving: what waited to be sent did so before.
    pub latency_us: Latency,
    /// The same without a switch.
    pub ringcopy_latency_us: Option<Latency>,
    /// What took CPUs away meanwhile.
    #[serde(flatten)]
    pub disturbance: Disturbance,
    /// Of a search: in how many repetitions no rate held. They are no part of any figure; if it was none in all, the figures are 0.
    pub no_rate_held: u32,
    /// Mpps of each repetition.
    pub repetitions: Vec<f64>,
}

/// Microseconds from sending to receiving.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Half of all frames took no longer.
    pub p50: f64,
    /// 9 of 10.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// None took longer.
    pub max: f64,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram, clock: Clock) -> Self {
        let at = |quantile| histogram.quantile(quantile).map_or(0.0, |cycles| clock.micros(cycles));
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }

    /// Of each quantile the median.
    pub(crate) fn median(each: &[Self]) -> Self {
        let of = |quantile: fn(&Self) -> f64| median(each.iter().map(quantile)).unwrap_or(0.0);
        Self {
            p50: of(|one| one.p50),
            p90: of(|one| one.p90),
            p99: of(|one| one.p99),
            p999: of(|one| one.p999),
            max: of(|one| one.max),
        }
    }
}

/// One repetition: what was measured back to back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Repetition {
    pub(crate) outcome: Outcome,
    /// Frames a second that were asked for.
    pub(crate) offered: Option<f64>,
    /// It searched, and no rate held: there is no outcome.
    pub(crate) no_rate_held: bool,
    /// What the switch says that it did, and took for it.
    pub(crate) work: Option<Work>,
    /// Frames that it flooded, if it says.
    pub(crate) flooded: Option<u64>,
    pub(crate) ringcopy: Option<(Outcome, Work)>,
    /// Bytes a second.
    pub(crate) memcpy: Option<f64>,
    pub(crate) disturbance: Disturbance,
}

/// What a row is about.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    pub(crate) ring_size: u16,
    pub(crate) mode: String,
}

/// Sums repetitions up.
pub(crate) fn row(subject: Subject, repetitions: &[Repetition], clock: Clock) -> Row {
    let ring_bytes = subject.kind.size.mean_on_ring();
    let no_rate_held = repetitions.iter().filter(|rep| rep.no_rate_held).count() as u32;
    let repetitions: Vec<&Repetition> = repetitions.iter().filter(|rep| !rep.no_rate_held).collect();
    let mpps = |outcome: &Outcome| outcome.rate() / 1e6;
    let bits = |outcome: &Outcome| outcome.bytes as f64 * 8.0 / outcome.seconds / 1e9;
    let busy = |rep: &Repetition| {
        let cycles = rep.work?.cycles_per_frame().filter(|cycles| *cycles > 0.0)?;
        Some(ring_bytes * 8.0 * clock.hertz() / cycles / 1e9)
    };
    let over =
        |value: &dyn Fn(&Repetition) -> Option<f64>| median(repetitions.iter().copied().filter_map(value));
    let ringcopy = |each: &dyn Fn(&Outcome, Work) -> Option<f64>| {
        over(&|rep| rep.ringcopy.as_ref().and_then(|(outcome, work)| each(outcome, *work)))
    };
    let rates: Vec<f64> = repetitions.iter().map(|rep| mpps(&rep.outcome)).collect();
    let middle = median(rates.iter().copied()).unwrap_or(0.0);
    let mut tally = Tally::default();
    let mut latency = Histogram::default();
    let mut copied: Option<Histogram> = None;
    for rep in &repetitions {
        tally.add(&rep.outcome.tally);
        latency.merge(&rep.outcome.latency);
        if let Some((outcome, _)) = &rep.ringcopy {
            copied.get_or_insert_default().merge(&outcome.latency);
        }
    }
    Row {
        frame_size: subject.kind.size.to_string(),
        offload: subject.kind.offload,
        ring_bytes,
        ring_size: subject.ring_size,
        mode: subject.mode,
        mpps: middle,
        offered_mpps: over(&|rep| rep.offered.map(|rate| rate / 1e6)),
        mpps_spread: spread(&rates, middle),
        gbps: over(&|rep| Some(bits(&rep.outcome))).unwrap_or(0.0),
        cycles_per_frame: over(&|rep| rep.work.and_then(Work::cycles_per_frame)),
        busy_gbps: over(&busy),
        ringcopy_mpps: ringcopy(&|outcome, _| Some(mpps(outcome))),
        ringcopy_cycles_per_frame: ringcopy(&|_, work| work.cycles_per_frame()),
        ratio_to_ringcopy: over(&|rep| ratio(rep.outcome.rate(), rep.ringcopy.as_ref()?.0.rate())),
        memcpy_gbps: over(&|rep| rep.memcpy.map(|bytes| bytes * 8.0 / 1e9)),
        ratio_to_memcpy: over(&|rep| ratio(bits(&rep.outcome), rep.memcpy? * 8.0 / 1e9)),
        busy_ratio_to_memcpy: over(&|rep| ratio(busy(rep)?, rep.memcpy? * 8.0 / 1e9)),
        sent: repetitions.iter().map(|rep| rep.outcome.sent).sum(),
        not_sent: repetitions.iter().map(|rep| rep.outcome.not_sent()).sum(),
        received: tally.received,
        lost: repetitions.iter().map(|rep| rep.outcome.lost()).sum(),
        reordered: tally.reordered,
        duplicated: tally.duplicated,
        corrupt: tally.corrupt,
        strayed: tally.strayed,
        foreign: tally.foreign,
        flooded: repetitions.iter().map(|rep| rep.flooded).sum(),
        latency_us: Latency::of(&latency, clock),
        ringcopy_latency_us: copied.map(|histogram| Latency::of(&histogram, clock)),
        disturbance: Disturbance {
            steal_percent: over(&|rep| Some(rep.disturbance.steal_percent)).unwrap_or(0.0),
            involuntary_switches: repetitions.iter().map(|rep| rep.disturbance.involuntary_switches).sum(),
        },
        no_rate_held,
        repetitions: rates,
    }
}

fn ratio(of: f64, to: f64) -> Option<f64> {
    (to > 0.0).then(|| of / to)
}

/// Largest less smallest in parts of the median, of two or more.
pub(crate) fn spread(values: &[f64], middle: f64) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let (low, high) = values.iter().fold((f64::MAX, 0.0_f64), |(low, high), v| (low.min(*v), high.max(*v)));
    Some(if middle > 0.0 { (high - low) / middle } else { 0.0 })
}

/// The value in the middle; of an even number the mean of both.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    let upper = *values.get(half)?;
    Some(if values.len().is_multiple_of(2) { f64::midpoint(values[half - 1], upper) } else { upper })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::FrameSize;

    fn repetition(mpps: f64, copied_mpps: f64, lost: u64) -> Repetition {
        let outcome = |mpps: f64, lost: u64| {
            let frames = (mpps * 1e6) as u64;
            let tally = Tally { received: frames, bytes: frames * 60, ..Tally::default() };
            let mut latency = Histogram::default();
            latency.record(2000, frames);
            let bytes = tally.bytes;
            let (due, sent) = (frames + lost, frames + lost);
            Outcome { seconds: 1.0, frames, bytes, due, sent, tally, latency, ..Outcome::default() }
        };
        let work = Work { frames: 1000, busy_cycles: 150_000 };
        Repetition {
            outcome: outcome(mpps, lost),
            work: Some(work),
            flooded: Some(lost),
            ringcopy: Some((outcome(copied_mpps, 0), Work { frames: 1000, busy_cycles: 100_000 })),
            memcpy: Some(1e9),
            disturbance: Disturbance { steal_percent: mpps, involuntary_switches: 2 },
            no_rate_held: false,
            offered: None,
        }
    }

    fn subject() -> Subject {
        Subject { kind: FrameSize::Fixed(64).into(), ring_size: 256, mode: "closed loop".into() }
    }

    #[test]
    fn a_row_has_medians_of_pairs_and_sums_of_faults() {
        let clock = Clock::of(2e9);
        let row = row(
            subject(),
            &[repetition(8.0, 16.0, 0), repetition(10.0, 10.0, 3), repetition(9.0, 12.0, 0)],
            clock,
        );
        assert_eq!((row.mpps, row.ringcopy_mpps, row.lost), (9.0, Some(12.0), 3));
        assert_eq!(row.ratio_to_ringcopy, Some(0.75), "the median of 0.5, 1 and 0.75");
        assert!(row.mpps_spread.is_some_and(|spread| (spread - 2.0 / 9.0).abs() < 1e-9));
        assert_eq!((row.cycles_per_frame, row.ringcopy_cycles_per_frame), (Some(150.0), Some(100.0)));
        assert!((row.gbps - 9.0 * 60.0 * 8.0 / 1000.0).abs() < 1e-9);
        assert_eq!((row.memcpy_gbps, row.flooded), (Some(8.0), Some(3)));
        assert_eq!(row.busy_gbps, Some(60.0 * 8.0 * 2.0 / 150.0));
        assert_eq!(row.busy_ratio_to_memcpy, row.busy_gbps.map(|gbps| gbps / 8.0));
        assert_eq!((row.latency_us.p50, row.disturbance.involuntary_switches), (1.0, 6));
    }

    #[test]
    fn a_search_that_found_nothing_is_counted_and_is_no_figure() {
        let none = || Repetition { no_rate_held: true, ..Repetition::default() };
        let some = row(subject(), &[none(), repetition(8.0, 16.0, 0)], Clock::of(2e9));
        assert_eq!((some.mpps, some.no_rate_held, some.repetitions.len()), (8.0, 1, 1));
        let nothing = row(subject(), &[none(), none()], Clock::of(2e9));
        assert_eq!((nothing.mpps, nothing.no_rate_held, nothing.sent), (0.0, 2, 0));
    }

    #[test]
    fn what_was_not_measured_is_null_and_the_names_are_those_promised() {
        let bare = Repetition { outcome: repetition(1.0, 1.0, 0).outcome, ..Repetition::default() };
        let json = serde_json::to_value(row(subject(), &[bare], Clock::of(2e9))).expect("JSON");
        let names = [
            "mpps",
            "gbps",
            "cycles_per_frame",
            "ringcopy_mpps",
            "ratio_to_ringcopy",
            "memcpy_gbps",
            "ratio_to_memcpy",
            "lost",
            "latency_us",
            "mpps_spread",
            "steal_percent",
            "involuntary_switches",
        ];
        for name in names {
            assert!(json.get(name).is_some(), "{name}");
        }
        assert!(json["mpps_spread"].is_null(), "one repetition has none");
        assert!(json["ringcopy_mpps"].is_null() && json["cycles_per_frame"].is_null());
        assert!(json["latency_us"]["p50"].is_number() && json["latency_us"]["p99"].is_number());
        let back: Row = serde_json::from_value(json).expect("a row");
        assert_eq!(back.mpps, 1.0);
    }

    #[test]
    fn the_median_of_nothing_is_nothing() {
        assert_eq!(median([].into_iter()), None);
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
    }
}
