//! Whole benchmarks of a switch that is known: the copier itself, behind the sockets of a switch.

use bench::{
    BenchError, Dropped, Mode, Plan, Progress, Switch,
    frames::{FrameSize, Payload, Variety},
    machine,
    offload::Offload,
    path::Route,
    report::Report,
    ringcopy::{RingCopy, Work},
    search::Goal,
    sweep::Value,
};
use std::{io, os::unix::net::UnixStream, sync::Arc, time::Duration};

/// A copier for each time that ports are attached.
#[derive(Default)]
struct Copier {
    copier: Option<RingCopy>,
    ends: Vec<UnixStream>,
    deaf: bool,
    refused: u64,
    /// By how much what it flooded has grown each time that it is asked, and how much it is.
    floods: Vec<u64>,
    flooded: u64,
    sleeps: u64,
    dropped: u64,
    /// What it had done each time that it was asked.
    asked: Vec<Work>,
}

impl Switch for Copier {
    fn connect(&mut self, port: usize) -> io::Result<UnixStream> {
        if port == 0 {
            let (copier, ends) = RingCopy::start(None)?;
            copier.set_running(!self.deaf);
            self.ends = ends.into();
            self.copier = Some(copier);
        }
        Ok(self.ends.remove(0))
    }

    fn cpus(&mut self) -> Option<Vec<Option<u16>>> {
        Some(vec![None])
    }

    fn work(&mut self) -> Option<Work> {
        let work = self.copier.as_ref().map(RingCopy::work);
        self.asked.extend(work);
        work
    }

    /// As if it slept 10 times more each time that somebody asks.
    fn sleeps(&mut self) -> Option<u64> {
        self.sleeps += 10;
        Some(self.sleeps)
    }

    /// Nothing, of a switch that forwards; else 8 frames more each time that somebody asks.
    fn dropped(&mut self) -> Option<Vec<Dropped>> {
        self.dropped += 8;
        let one = || Dropped { port: "a".into(), reason: "mtu-exceeded".into(), frames: self.dropped };
        Some(self.deaf.then(one).into_iter().collect())
    }

    /// As if one more were refused each time that somebody asks.
    fn refused(&mut self) -> Option<u64> {
        self.refused += 1;
        Some(self.refused)
    }

    fn flooded(&mut self) -> Option<u64> {
        self.flooded += self.floods.pop().unwrap_or(0);
        Some(self.flooded)
    }
}

fn plan(mode: Mode) -> Plan {
    let generator_cpu = machine::cpus().expect("the kernel says")[0];
    Plan {
        device: "a copier".into(),
        sizes: vec![FrameSize::Fixed(64)],
        offloads: vec![Offload::None],
        ring_size: None,
        variety: Variety::default(),
        route: Route::default(),
        payload: Payload::default(),
        ports: 2,
        busy_ports: 2,
        two_directions: false,
        mode,
        measured: Duration::from_millis(40),
        repetitions: 2,
        limits: false,
        mergeable: false,
        generator_cpu,
        // Tests share their CPUs with others: nobody has one alone.
        switch_cpu: None,
    }
}

fn run(plan: &Plan) -> (Result<Report, BenchError>, Vec<Progress>) {
    let mut seen = Vec::new();
    let mut switch = Copier::default();
    let result = bench::run(plan, &mut switch, &mut |progress| seen.push(progress), &Arc::default());
    (result, seen)
}

#[test]
fn a_closed_loop_is_summed_up_for_every_size() {
    let mut plan = plan(Mode::Closed { window: None });
    plan.sizes = vec![FrameSize::Fixed(64), FrameSize::Fixed(9000), FrameSize::Imix];
    plan.mergeable = true;
    let (report, seen) = run(&plan);
    let report = report.expect("the copier copies");
    let rings: Vec<_> = report.results.iter().map(|row| (row.frame_size.as_str(), row.ring_size)).collect();
    assert_eq!(rings, [("64", 1024), ("9000", 256), ("imix", 1024)]);
    for row in &report.results {
        assert!(row.received > 0 && row.cycles_per_frame.is_some(), "{row:?}");
        assert_eq!([row.lost, row.corrupt, row.reordered, row.duplicated], [0; 4], "{row:?}");
        assert_eq!((row.sent, row.repetitions.len()), (row.received, 2));
        assert!(row.ringcopy_mpps.is_none(), "not without a CPU of its own");
    }
    assert!(report.left_out.iter().any(|line| line.contains("one CPU")), "{:?}", report.left_out);
    assert_eq!(
        report.remarks.len(),
        3,
        "a switch that does not learn is told for every size: {:?}",
        report.remarks
    );
    assert!(seen.windows(2).all(|pair| pair[0].done <= pair[1].done), "progress goes on: {seen:?}");
    assert_eq!(seen.last().map(|progress| progress.done), Some(1.0));
}

#[test]
fn stations_are_introduced_until_nothing_is_flooded_and_what_is_flooded_later_is_told() {
    let plan = Plan { repetitions: 1, ..plan(Mode::Closed { window: None }) };
    // It is asked before and after each lesson, and before and after the trial.
    let flooded = |answers: &[u64]| {
        let floods = answers.iter().rev().copied().collect();
        let mut switch = Copier { floods, ..Copier::default() };
        let report = bench::run(&plan, &mut switch, &mut |_| {}, &Arc::default());
        assert!(switch.floods.is_empty(), "so many questions");
        report.expect("the copier copies").results[0].flooded
    };
    assert_eq!(flooded(&[0, 9, 0, 3, 0, 0, 0, 0]), Some(0), "the third lesson was heard");
    assert_eq!(flooded(&[0, 9, 0, 3, 0, 3, 0, 7]), Some(7), "the third taught no more: measured, and told");
}

#[test]
fn a_series_is_measured_round_by_round_and_compared_within_each() {
    let plan = plan(Mode::Closed { window: Some(32) });
    let (mut one, mut other) = (Copier::default(), Copier::default());
    let mut seen = Vec::new();
    let mut columns: Vec<(Value, Plan, &mut dyn Switch)> =
        vec![(Value::Number(1), plan.clone(), &mut one), (Value::Number(64), plan, &mut other)];
    let mut progress = |now: Progress| seen.push(now.doing);
    let report = bench::sweep::sweep("macs", &mut columns, &mut progress, &Arc::default());
    let report = report.expect("the copiers copy").expect("two columns");
    let measured: Vec<_> = seen.iter().filter(|doing| !doing.contains("learning")).collect();
    let round = ["frames of 64, 1 macs", "frames of 64, 64 macs"];
    assert_eq!(measured, [round, round].concat().iter().collect::<Vec<_>>());
    let [one, other] = &report.series[0].columns[..] else { panic!("two columns: {report:?}") };
    assert_eq!((one.value, one.cycles_ratio, one.cycles_more), (Value::Number(1), Some(1.0), Some(0.0)));
    assert!(one.mpps_ratio == Some(1.0) && other.mpps_ratio.is_some_and(|ratio| ratio > 0.0));
    assert!(other.cycles_ratio.is_some_and(|ratio| ratio > 0.0) && other.cycles_ratio_spread.is_some());
    assert_eq!((one.row.lost, other.row.lost, other.row.repetitions.len()), (0, 0, 2));
    let json = serde_json::to_value(&report).expect("JSON");
    let value = |column: usize| &json["series"][0]["columns"][column]["value"];
    assert_eq!((value(0).as_u64(), value(1).as_u64()), (Some(1), Some(64)));
    assert!(json["series"][0]["columns"][1]["cycles_more"].is_number(), "{json}");
}

#[test]
fn limits_are_measured_with_the_same_generator() {
    let mut plan = plan(Mode::Closed { window: Some(32) });
    (plan.limits, plan.switch_cpu) = (true, machine::cpus().expect("the kernel says").last().copied());
    plan.repetitions = 1;
    let report = run(&plan).0.expect("the copier copies");
    assert_eq!(
        (report.machine.limits_cpu, &report.machine.switch_cpus),
        (plan.switch_cpu, &Some(vec![None]))
    );
    let row = &report.results[0];
    assert!(
        report.hand_over_ns.is_some_and(|time| time > 0.0) && row.memcpy_gbps.is_some_and(|rate| rate > 0.0)
    );
    assert!(row.ringcopy_mpps.is_some() && row.ringcopy_latency_us.is_some(), "{row:?}");
    assert_eq!(row.mode, "closed loop, window 32");
}

#[test]
fn a_search_settles_on_a_rate_that_loses_no_more_than_it_may() {
    for goal in [Goal::Ndr, Goal::Pdr] {
        let mut plan = plan(Mode::Search(goal));
        (plan.repetitions, plan.two_directions) = (1, true);
        let row = &run(&plan).0.expect("the copier copies").results[0];
        let loss = row.lost as f64 / row.sent as f64;
        assert!(row.mpps == 0.0 || loss <= goal.loss_ratio(), "{row:?}");
        assert_eq!(row.mode, goal.to_string());
    }
}

#[test]
fn the_switchs_work_is_that_of_the_trial_that_is_reported_and_of_none_before() {
    for mode in [Mode::Part { of_closed: 0.5 }, Mode::Search(Goal::Pdr)] {
        let plan = Plan { repetitions: 1, ..plan(mode) };
        let mut switch = Copier::default();
        let report = bench::run(&plan, &mut switch, &mut |_| {}, &Arc::default()).expect("the copier copies");
        let row = &report.results[0];
        let trials: Vec<u64> = switch.asked.chunks(2).map(|pair| pair[1].since(pair[0]).frames).collect();
        assert!(trials.contains(&row.received) || row.no_rate_held == 1, "{trials:?}: {row:?}");
        if let Mode::Part { .. } = mode {
            assert_eq!(trials.len(), 1, "the closed loop before is none");
        }
    }
}

#[test]
fn what_was_asked_for_and_not_sent_is_no_loss_and_is_told() {
    let row = |rate| {
        let plan = Plan { repetitions: 1, ..plan(Mode::Open { rate }) };
        run(&plan).0.expect("the copier copies").results.remove(0)
    };
    let far_too_much = row(900e6);
    assert_eq!(far_too_much.offered_mpps, Some(900.0));
    assert!(far_too_much.lost < far_too_much.not_sent, "what was not sent is not lost: {far_too_much:?}");
    assert!(far_too_much.not_sent > far_too_much.sent, "{far_too_much:?}");
    let part = Plan { repetitions: 1, ..plan(Mode::Part { of_closed: 0.01 }) };
    let part = run(&part).0.expect("the copier copies").results.remove(0);
    assert!(part.offered_mpps.is_some_and(|mpps| mpps > 0.0), "{part:?}");
    assert_eq!(run(&plan(Mode::Closed { window: None })).0.expect("it copies").results[0].offered_mpps, None);
}

#[test]
fn a_switch_that_forwards_nothing_is_told_so() {
    let mut switch = Copier { deaf: true, ..Copier::default() };
    let plan = Plan { repetitions: 1, ..plan(Mode::Closed { window: Some(8) }) };
    let error = bench::run(&plan, &mut switch, &mut |_| {}, &Arc::default()).expect_err("nothing came");
    let said = "of 8 frames none came through; the switch dropped 8 at a: mtu-exceeded";
    assert_eq!(error.to_string(), said, "what it dropped before is not meant");
    let unknown = BenchError::Silent { sent: 8, dropped: None };
    assert!(unknown.to_string().ends_with("in the same VLAN?"), "{unknown}");
}

#[test]
fn frames_and_bare_wake_ups_are_measured_in_turn() {
    let plan = plan(Mode::Closed { window: None });
    let mut switch = Copier::default();
    let report = bench::wake::wake(&plan, &mut switch, &mut |_| {}, &Arc::default()).expect("a report");
    let [row] = report.results.as_slice() else { panic!("one size: {report:#?}") };
    assert_eq!((row.frame_size.as_str(), row.lost), ("64", 0));
    // Twice 2000 a second, in 40 ms and the warm-up before.
    assert!(row.slept.is_some_and(|share| (0.05..0.2).contains(&share)), "{row:#?}");
    assert!(row.latency_us.p50 > 0.0 && row.eventfd_us.p50 > 0.0, "{row:#?}");
}
