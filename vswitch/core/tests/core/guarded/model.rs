//! Fragments against a naive model: a map of datagrams, each with a list of which units were seen.

use super::{
    H1, UDP, allow, meet, office, outcome,
    pieces::{Sender, udp_start},
    to_port,
};
use crate::support::lab::Lab;
use proptest::prelude::*;
use std::{collections::BTreeMap, time::Duration};
use vswitch_core::{
    drop_reason::DropReason,
    firewall::{
        fragments::LIFETIME,
        policy::{Direction, Match, Protocol},
    },
    id::Epoch,
};

/// Units of the largest datagram here, and bytes of one: more than the header that no later fragment may be in.
const UNITS: usize = 16;
const BLOCK: usize = 24;
/// Parts that do not touch each other, at most.
const RUNS: usize = 4;

/// What is known of a datagram.
#[derive(Debug, Clone)]
struct Datagram {
    born: u64,
    seen: [bool; UNITS],
    total: Option<usize>,
    overlapped: bool,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A fragment of the datagram with this number: units from, how many, and whether it is the last.
    Fragment { id: u32, from: usize, units: usize, is_last: bool },
    /// Milliseconds pass.
    Wait(u64),
    /// The rules change.
    Change,
}

fn step() -> impl Strategy<Value = Step> {
    let fragment = (0u32..4, 0usize..12, 1usize..5, prop::bool::weighted(0.2));
    let fragment =
        fragment.prop_map(|(id, from, units, is_last)| Step::Fragment { id, from, units, is_last });
    prop_oneof![
        16 => fragment,
        // In order, so that datagrams are completed.
        8 => (0u32..4, 0usize..4).prop_map(|(id, n)| Step::Fragment { id, from: 4 * n, units: 4, is_last: n == 3 }),
        2 => (1u64..9000).prop_map(Step::Wait),
        1 => Just(Step::Change),
    ]
}

/// What the switch is to say. `known`: no rule asks for ports, so that what comes before the first passes.
fn expected(
    datagrams: &mut BTreeMap<u32, Datagram>,
    fragment: (u32, usize, usize, bool),
    now: u64,
    known: bool,
) -> Result<(), DropReason> {
    let (id, from, units, is_last) = fragment;
    datagrams.retain(|_, datagram| u128::from(now - datagram.born) <= LIFETIME.as_nanos());
    let overlap = Err(DropReason::FragmentOverlapIngress);
    let lone = Err(DropReason::FragmentIngress);
    if from == 0 && is_last {
        return Ok(());
    }
    let new = Datagram { born: now, seen: [false; UNITS], total: None, overlapped: false };
    let mut after = datagrams.get(&id).cloned().unwrap_or(new);
    let has_first = after.seen[0];
    if after.overlapped {
        return overlap;
    }
    if from > 0 && !has_first && !known {
        return lone;
    }
    let part = from..from + units;
    if after.seen[part.clone()].iter().all(|seen| *seen) {
        return overlap;
    }
    let crosses = after.seen[part.clone()].iter().any(|seen| *seen);
    let past = after.total.is_some_and(|total| part.end > total);
    let short = is_last && after.seen[part.end..].iter().any(|seen| *seen);
    if crosses || past || short {
        after.overlapped = true;
        datagrams.insert(id, after);
        return overlap;
    }
    after.seen[part.clone()].fill(true);
    after.total = if is_last { Some(part.end) } else { after.total };
    let begins = |n: &usize| after.seen[*n] && (*n == 0 || !after.seen[n - 1]);
    if (0..UNITS).filter(begins).count() > RUNS {
        // It cannot be noted.
        return if has_first { lone } else { Ok(()) };
    }
    if after.total.is_some_and(|total| after.seen[..total].iter().all(|seen| *seen)) {
        datagrams.remove(&id);
    } else {
        datagrams.insert(id, after);
    }
    Ok(())
}

/// The office, in which `pc1` lets in UDP: to port 53, or to any. Under every other number there is one rule more.
fn lab(known: bool, epoch: u64) -> Lab {
    let udp = Match { protocol: Protocol::Number(UDP), ..Match::default() };
    let udp = if known { udp } else { to_port(UDP, 53) };
    let mut lab = office();
    let more = allow(Direction::Ingress, to_port(UDP, 5353));
    lab.description.epoch = Epoch::new(epoch);
    lab.description.groups[1].rules =
        [vec![allow(Direction::Ingress, udp)], vec![more; epoch as usize % 2]].concat();
    lab
}

fn run(sender: Sender, known: bool, steps: &[Step]) {
    let mut epoch = 1;
    let mut bench = lab(known, epoch).bench();
    meet(&mut bench);
    let mut datagrams = BTreeMap::new();
    for step in steps {
        bench.now = bench.now + Duration::from_nanos(1);
        match *step {
            Step::Wait(millis) => bench.now = bench.now + Duration::from_millis(millis),
            Step::Change => {
                epoch += 1;
                bench.adopt(&lab(known, epoch));
                datagrams.clear();
            }
            Step::Fragment { id, from, units, is_last } => {
                let len = units * BLOCK - if is_last { 3 } else { 0 };
                let data = if from == 0 { udp_start((9, 53), 8, len) } else { vec![0; len] };
                let frame = sender.id(id).piece((from * BLOCK) as u16, !is_last, &data);
                let fragment = (id, from, units, is_last);
                let expected = expected(&mut datagrams, fragment, bench.now.as_nanos(), known);
                let actual = outcome(bench.send(H1, &frame));
                assert_eq!(actual, expected, "{step:?}: {}", bench.story());
            }
        }
    }
}

proptest! {
    #[test]
    fn fragments_follow_as_in_a_naive_model(
        is_v6 in any::<bool>(),
        known in any::<bool>(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let sender = Sender::families(3, 2, UDP)[usize::from(is_v6)];
        run(sender, known, &steps);
    }
}
