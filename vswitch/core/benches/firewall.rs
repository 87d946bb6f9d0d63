//! What asking the rules costs, and compiling them: `cargo bench -p vswitch-core --bench firewall [-- WORD]`, of the sets whose names
//! hold the word.
//!
//! In nanoseconds a frame: *warm* is one frame over and over, *mixed* 4096 frames one after the other; *L2* each frame after something
//! else filled a core's own caches, *all* after it filled the shared one as well (medians, without what reading a clock then takes).
//! The last line says what the same does to a load, and to a chain of them.

#[path = "../tests/core/firewall/sets.rs"]
mod sets;

use ipnet::IpNet;
use sets::{KINDS, Set};
use std::{
    hint::black_box,
    net::IpAddr,
    time::{Duration, Instant},
};
use vswitch_core::firewall::{
    classify::{Classifier, Source},
    policy::{Direction, Protocol, Remote},
    tuple::{IpTuple, Service, Tuple},
};

fn main() {
    let word = std::env::args().skip(1).find(|word| !word.starts_with("--")).unwrap_or_default();
    let mut caches = Caches::new();
    println!(
        "{:24} {:>6} {:>9} {:>9} {:>6} {:>6} {:>6} {:>6}",
        "rules", "count", "compile", "memory", "warm", "mixed", "L2", "all"
    );
    for (name, kind) in KINDS.iter().filter(|(name, _)| name.contains(&word)) {
        for count in [0, 10, 100, 1000, 10_000] {
            measure(name, count, &kind(count), &mut caches);
        }
    }
    for (what, lines) in [("a core's own caches", OWN_LINES), ("all caches", LINES)] {
        let [one, eight] = [1, 8].map(|loads| caches.chain(lines, loads));
        println!(
            "after {what} were filled, a load takes {one} ns, 8 of which each needs the last {eight} ns"
        );
    }
}

fn measure(name: &str, count: usize, set: &Set, caches: &mut Caches) {
    let mut compiled = Vec::new();
    for _ in 0..7 {
        let begin = Instant::now();
        let source = Source::new(Direction::Ingress, set.rules.iter(), &set.members).expect("sound rules");
        let classifier = Classifier::compile(&source).expect("within the limits");
        compiled.push((begin.elapsed(), classifier));
    }
    compiled.sort_by_key(|(time, _)| *time);
    let (compile, classifier) = compiled.swap_remove(3);
    let tuples = tuples(set);
    let warm = each(1_000_000, |_| classifier.decide(black_box(&tuples[0])));
    let mixed = each(1_000_000, |n| classifier.decide(black_box(&tuples[n % tuples.len()])));
    let [near, far] =
        [OWN_LINES, LINES].map(|lines| caches.cold(lines, &tuples, |tuple| classifier.decide(tuple)));
    println!(
        "{name:24} {count:6} {:6.2} ms {:6} KiB {warm:6.1} {mixed:6.1} {near:6} {far:6}",
        compile.as_secs_f64() * 1000.0,
        classifier.bytes() / 1024,
    );
}

/// Frames such as the rules are about, in no order.
fn tuples(set: &Set) -> Vec<Tuple> {
    let number = |n: usize| (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let tuple = |n: usize| {
        let rule = (!set.rules.is_empty()).then(|| &set.rules[number(n) as usize % set.rules.len()].matches);
        let network = rule.and_then(|rule| match &rule.remote {
            Remote::Any => None,
            Remote::Networks(networks) => networks.first(),
            Remote::Group(group) => {
                let members = &set.members[usize::from(group.index())];
                members.get(number(n + 7) as usize % members.len())
            }
        });
        let src = network.map_or(IpAddr::from([10, 1, 2, 3]), IpNet::addr);
        let dst = rule.and_then(|rule| rule.ports.first()).map_or(80, |range| range.first);
        let protocol = match rule.map(|rule| rule.protocol) {
            Some(Protocol::Number(number)) => number,
            _ => 6,
        };
        Tuple::Ip(IpTuple { src, dst: src, protocol, service: Service::Ports { src: 40_000, dst } })
    };
    (0..4096).map(tuple).collect()
}

/// Nanoseconds that each of so many calls takes.
fn each<R>(times: usize, mut call: impl FnMut(usize) -> R) -> f64 {
    let begin = Instant::now();
    (0..times).for_each(|n| _ = black_box(call(n)));
    begin.elapsed().as_secs_f64() * 1e9 / times as f64
}

/// More memory than the caches hold.
struct Caches {
    lines: Vec<[u64; 8]>,
}

/// 64 MiB.
const LINES: usize = 1 << 20;

/// 4 MiB: more than a core's own caches hold.
const OWN_LINES: usize = 1 << 16;

impl Caches {
    fn new() -> Self {
        // Each line says which is next: a walk over all of them (a linear congruential generator of full period).
        let line = |n: usize| [(n as u64 * 0x5851_f42d + 0x14_057b) % OWN_LINES as u64, 0, 0, 0, 0, 0, 0, 0];
        Self { lines: (0..LINES).map(line).collect() }
    }

    /// Nanoseconds of one call after so many lines were written.
    fn cold<T, R>(&mut self, lines: usize, of: &[T], mut call: impl FnMut(&T) -> R) -> u64 {
        let mut times = |call: &mut dyn FnMut(&T)| {
            let mut times: Vec<u64> = of[..201]
                .iter()
                .map(|one| {
                    self.lines[..lines].iter_mut().for_each(|line| line[1] += 1);
                    elapsed(|| call(one))
                })
                .collect();
            times.sort_unstable();
            times[times.len() / 2]
        };
        let with = times(&mut |one| _ = black_box(call(one)));
        with.saturating_sub(times(&mut |one| _ = black_box(one)))
    }

    /// Nanoseconds of so many loads, each of which needs the last.
    fn chain(&mut self, lines: usize, loads: usize) -> u64 {
        let starts: Vec<usize> = (0..201).map(|n| n * 4099 % OWN_LINES).collect();
        // Of what was not filled: in the shared cache, or not.
        let next = self.lines.clone();
        self.cold(lines, &starts, |start| {
            let mut at = *start;
            (0..loads).for_each(|_| at = next[at][0] as usize);
            at
        })
    }
}

/// Nanoseconds of a call.
fn elapsed(call: impl FnOnce()) -> u64 {
    let begin = Instant::now();
    call();
    Duration::as_nanos(&begin.elapsed()) as u64
}
