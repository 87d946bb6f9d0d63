//! The bucket: against the definition in exact numbers, and its two promises, by one thread and by several.

use proptest::prelude::*;
use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use vswitch_core::{clock::Instant, limits::Bucket};

const SECOND: u64 = 1_000_000_000;

fn bucket(rate: u64, burst_nanos: u64) -> Bucket {
    Bucket::new(NonZeroU64::new(rate).expect("a rate"), Duration::from_nanos(burst_nanos))
}

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

/// The definition: tokens drop in at the rate and what does not fit is lost; whoever wants some takes them all or leaves them. Counted in
/// parts of a token of which `rate` come in a nanosecond, so that nothing is ever rounded.
struct Model {
    rate: u128,
    full: i128,
    level: i128,
    now: u64,
}

impl Model {
    fn new(rate: u64, burst_nanos: u64) -> Self {
        let full = i128::from(rate) * i128::from(burst_nanos);
        Self { rate: rate.into(), full, level: full, now: 0 }
    }

    fn take(&mut self, amount: u64, now: u64) -> bool {
        let come = self.rate * u128::from(now - self.now);
        (self.level, self.now) = (self.full.min(self.level + come as i128), now);
        let wanted = i128::from(amount) * i128::from(SECOND);
        // What is larger than the bucket takes all of it, and goes into debt.
        let passes = self.level >= wanted || self.level == self.full;
        self.level -= if passes { wanted } else { 0 };
        passes
    }
}

/// Pauses and amounts: of frames, of crumbs and of nothing, at once and after a while.
fn asked() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let pause = prop_oneof![Just(0), 0u64..1000, 0u64..10_000_000, 0u64..3 * SECOND];
    let amount = prop_oneof![Just(1), 0u64..100, (60u64..=65_550).prop_map(|bytes| bytes * 8)];
    prop::collection::vec((pause, amount), 1..200)
}

fn burst() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1u64..1000, 1_000_000u64..=10 * SECOND]
}

proptest! {
    #[test]
    fn it_is_a_bucket_into_which_tokens_drop(
        // Rates of which a token takes a whole number of ticks.
        (twos, fives) in (0u32..=13, 0u32..=9),
        burst in burst(),
        asked in asked(),
    ) {
        let rate = 2u64.pow(twos) * 5u64.pow(fives);
        let (bucket, mut model, mut now) = (bucket(rate, burst), Model::new(rate, burst), 0);
        for (pause, amount) in asked {
            now += pause;
            prop_assert_eq!(bucket.has(amount, at(now)), bucket.has(amount, at(now)), "to ask takes nothing");
            let foreseen = bucket.has(amount, at(now));
            let taken = bucket.take(amount, at(now));
            prop_assert_eq!((foreseen, taken), (taken, model.take(amount, now)), "{} of {} at {}", amount, rate, now);
        }
    }

    #[test]
    fn in_no_window_more_passes_than_the_rate_and_the_burst(
        rate in prop_oneof![1u64..100, 1u64..1_000_000, 1u64..=100_000_000_000],
        burst in burst(),
        asked in asked(),
        given_back in prop::collection::vec(any::<bool>(), 200),
    ) {
        let (bucket, mut now, mut passed) = (bucket(rate, burst), 0, Vec::new());
        for ((pause, amount), back) in asked.into_iter().zip(given_back) {
            now += pause;
            if bucket.take(amount, at(now)) {
                if back { bucket.give_back(amount) } else { passed.push((now, u128::from(amount))) }
            }
        }
        let most = passed.iter().map(|(_, amount)| amount * u128::from(SECOND)).max().unwrap_or(0);
        let at_once = most.max(u128::from(rate) * u128::from(burst));
        for first in 0..passed.len() {
            let mut sum = 0;
            for (now, amount) in &passed[first..] {
                sum += amount * u128::from(SECOND);
                let come = u128::from(rate) * u128::from(now - passed[first].0);
                prop_assert!(sum <= come + at_once, "{sum} in {}", now - passed[first].0);
            }
        }
    }

    #[test]
    fn of_pieces_there_are_at_once_all_that_come_in_the_burst_and_no_more(
        rate in 1u64..=1000,
        micros in 0u64..=1_000_000,
        pauses in prop::collection::vec(0u64..SECOND, 1..20),
    ) {
        let bucket = Bucket::of_pieces(NonZeroU64::new(rate).unwrap(), Duration::from_micros(micros));
        let at_once = (rate * micros / 1_000_000).max(1);
        let (mut now, mut sum) = (0, 0);
        let drain = |now| (0..2000).take_while(|_| bucket.take(1, at(now))).count() as u64;
        prop_assert_eq!(drain(0), at_once);
        for pause in pauses {
            now += pause;
            sum += drain(now);
            let come = u128::from(rate) * u128::from(now) / u128::from(SECOND);
            prop_assert!(u128::from(sum) <= come + 1, "{sum} of {come}");
        }
    }

    #[test]
    fn who_always_has_more_gets_the_rate(
        rate in 1_000_000u64..=100_000_000_000,
        bytes in 60u64..=9000,
        micros in 1u64..1000,
    ) {
        // A burst that holds what comes between two tries, and a frame.
        let (bits, step) = (bytes * 8, micros * 1000);
        let frame = bits * SECOND / rate + 1;
        let (bucket, tries, mut sum) = (bucket(rate, step + frame), 500, 0u128);
        for n in 0..tries {
            while bucket.take(bits, at(n * step)) {
                sum += u128::from(bits);
            }
        }
        let come = u128::from(rate) * u128::from((tries - 1) * step) / u128::from(SECOND);
        // A frame's time is rounded up by less than a 64th of a nanosecond.
        let rounded = come / 300 + 1;
        prop_assert!(sum + rounded >= come, "{sum} of {come}");
    }
}

/// Four threads ask as fast as they can, each at its own moment of a clock that they drive together, and give some back.
#[test]
fn several_threads_get_the_rate_together_and_no_more() {
    const STEP: u64 = 100;
    for (rate, amount, burst) in [(1_000_000, 1, SECOND / 1000), (1_000_000_000, 12_000, SECOND / 100)] {
        let (bucket, clock) = (bucket(rate, burst), AtomicU64::new(0));
        let sum = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (bucket, clock, sum) = (&bucket, &clock, &sum);
                scope.spawn(move || {
                    for n in 0..200_000u64 {
                        let now = clock.fetch_add(STEP, Ordering::Relaxed);
                        if bucket.take(amount, at(now)) {
                            if n % 7 == thread {
                                bucket.give_back(amount);
                            } else {
                                sum.fetch_add(amount, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        let (sum, end) = (sum.into_inner(), clock.into_inner());
        let come = rate * end / SECOND;
        let at_once = rate * burst / SECOND;
        assert!(sum <= come + at_once + amount, "{sum} of {come} and {at_once}");
        // The last tries may have been refused for what was then given back.
        assert!(sum + 4 * amount >= come, "{sum} of {come}");
    }
}

#[test]
fn what_is_larger_than_the_burst_is_late_and_not_lost() {
    let bucket = bucket(1000, SECOND / 10);
    assert!(bucket.take(5000, at(0)), "the bucket is full");
    assert!(!bucket.take(1, at(SECOND)), "it is in debt for five seconds");
    assert!(!bucket.take(5000, at(5 * SECOND - 1)));
    assert!(bucket.take(5000, at(5 * SECOND)));
}

#[test]
fn the_end_of_time_stops_nobody() {
    let bucket = bucket(1, 10 * SECOND);
    for _ in 0..100 {
        assert!(bucket.take(u64::MAX, at(u64::MAX)));
    }
}
