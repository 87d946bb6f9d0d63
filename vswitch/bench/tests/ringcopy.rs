//! The generator and the sink, over the real handshake, through the copier: every frame arrives, once, in order.

use bench::{
    frames::{FrameSize, Payload, Variety},
    load::{Load, Outcome, Pace, Trial, ways},
    machine::Clock,
    path::Route,
    ringcopy::RingCopy,
};
use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};
use vhost_net_backend::{
    driver::{Config, Driver},
    layout::RingSize,
};

struct Case {
    size: FrameSize,
    variety: Variety,
    payload: Payload,
    two_directions: bool,
    pace: Pace,
    ring: u16,
}

fn run(case: &Case) -> (Outcome, f64) {
    // No CPU is asked for: other tests run beside this one, and what is measured here is not how fast it goes.
    let (copier, ends) = RingCopy::start(None).expect("two ports");
    let buffer_size = (case.size.longest_on_ring() as u32 + 12).max(2048);
    let ring_size = RingSize::new(case.ring).expect("a power of two");
    let config = Config { ring_size, buffer_size, ..Config::default() };
    let ports = ends.map(|end| Driver::connect(end, &config).expect("a handshake"));
    let ways = ways(2, case.two_directions);
    let kind = (case.size.into(), case.variety, case.payload);
    let mut load =
        Load::new(ports.into(), &ways, (kind, Route::default()), case.ring, (Clock::measure(), true));
    copier.set_running(true);
    let cancel = AtomicBool::new(false);
    load.teach(&cancel).expect("the copier is there");
    let before = copier.work();
    let quick = Duration::from_millis(50);
    let trial = Trial { pace: case.pace, warm_up: quick, measured: quick };
    let outcome = load.run(&trial, &cancel).expect("the copier is there");
    copier.set_running(false);
    let work = copier.work().since(before);
    assert!(work.frames >= outcome.tally.received, "the copier moved what arrived");
    (outcome, work.cycles_per_frame().expect("frames were moved"))
}

#[test]
fn a_closed_loop_loses_nothing_whatever_the_frames() {
    let sizes = ["64", "1518", "imix", "9000", "65535"].map(|size| size.parse().expect("a size"));
    for size in sizes {
        let many = Variety { flows: 5000, macs: 100, vlans: 30 };
        let whole = Payload { dirty: true, read: true };
        for (variety, payload) in [(Variety::default(), Payload::default()), (many, whole)] {
            let case = Case {
                size,
                variety,
                payload,
                two_directions: true,
                pace: Pace::Closed { window: 48 },
                ring: 64,
            };
            let (outcome, cycles) = run(&case);
            let tally = outcome.tally;
            assert!(tally.received > 0 && cycles > 0.0, "{size}: {outcome:?}");
            assert_eq!(outcome.lost(), 0, "{size}: {tally:?}");
            let wrong = [tally.reordered, tally.duplicated, tally.corrupt, tally.strayed, tally.foreign];
            assert_eq!(wrong, [0; 5], "{size} {variety:?}");
            assert_eq!(outcome.latency.total(), outcome.frames, "every frame measured has a latency");
        }
    }
}

#[test]
fn an_open_loop_sends_at_the_rate_that_was_asked_for() {
    let size = "64".parse().expect("a size");
    let pace = Pace::Open { rate: 1000.0 };
    let case = Case {
        size,
        variety: Variety::default(),
        payload: Payload::default(),
        two_directions: false,
        pace,
        ring: 256,
    };
    let begin = Instant::now();
    let (outcome, _) = run(&case);
    // At least 100 ms of sending; a thread that others keep from its CPU may fall behind, but is never ahead.
    let most = (begin.elapsed().as_secs_f64() * 1000.0) as u64 + 1;
    assert!((1..=most).contains(&outcome.due), "{} due, at most {most}", outcome.due);
    assert_eq!((outcome.sent, outcome.lost()), (outcome.due, 0));
    assert!(outcome.loss_ratio() < 1e-9);
}

#[test]
fn a_switch_that_hangs_up_is_told_and_an_interrupt_is_heard() {
    let (copier, ends) = RingCopy::start(None).expect("two ports");
    let ports = ends.map(|end| Driver::connect(end, &Config::default()).expect("a handshake"));
    let kind = (FrameSize::Fixed(64).into(), Variety::default(), Payload::default());
    let mut load =
        Load::new(ports.into(), &ways(2, false), (kind, Route::default()), 256, (Clock::measure(), true));
    copier.set_running(true);
    let trial = Trial {
        pace: Pace::Closed { window: 8 },
        warm_up: Duration::ZERO,
        measured: Duration::from_secs(60),
    };
    // Not one of many rounds without work comes before the interrupt is seen: the copier is resting.
    copier.set_running(false);
    let error = load.run(&trial, &AtomicBool::new(true)).expect_err("it was interrupted");
    assert_eq!(error.to_string(), "interrupted");
    drop(copier);
    let error = load.run(&trial, &AtomicBool::new(false)).expect_err("nobody is there");
    assert!(error.to_string().contains("closed the connection"), "{error}");
}
