//! Frames of established connections pass firewalls in rows; what comes of each is what comes of it by itself.

use super::{ACK, H1, PC1, PC2, SYN_ACK, WEB1, addresses, link, open_office, segment, syn, udp, v4, v6};
use crate::{conservation::fates, support::lab::Bench};
use proptest::prelude::*;
use std::time::Duration;
use vswitch_core::{
    build::{self, Addresses},
    decide::{Copy, Fate},
};

const PSH_ACK: u8 = 0x18;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;

fn connections(bench: &Bench) -> Vec<String> {
    let mut rows = Vec::new();
    assert_eq!(bench.connections.list(0, 4096, bench.now, |row| rows.push(format!("{row:?}"))), None);
    rows.sort();
    rows
}

/// One frame between two of the stations.
#[derive(Debug, Clone)]
enum Said {
    Segment {
        flags: u8,
        seq: u32,
        ack: u32,
        port: u16,
    },
    Datagram {
        ports: (u16, u16),
    },
    Six {
        ports: (u16, u16),
    },
    Ping,
    /// By the address of another.
    Lie,
}

fn frame(from: u8, to: u8, said: &Said) -> Vec<u8> {
    let ports = |port: u16| if from < to { (port, 80) } else { (80, port) };
    match *said {
        Said::Segment { flags, seq, ack, port } => segment(syn(from, to, ports(port)), flags, seq, ack),
        Said::Datagram { ports } => udp(from, to, ports),
        Said::Six { ports } => build::udp(link(from, to), Addresses::V6(v6(from), v6(to)), ports, b"hello"),
        Said::Ping => build::echo(link(from, to), addresses(from, to), build::Echo::Request, 1, 1, b"x"),
        Said::Lie => build::udp(link(from, to), Addresses::V4(v4(9), v4(to)), (4000, 53), b"hello"),
    }
}

fn said() -> impl Strategy<Value = Said> {
    let ports = || prop::sample::select(&[53u16, 67, 68, 546, 547, 4000][..]);
    let flags = prop::sample::select(&[2, SYN_ACK, ACK, ACK, ACK, PSH_ACK, FIN_ACK, RST][..]);
    let number = || prop::sample::select(&[1000u32, 1001, 1001, 1001, 1002, 90_000][..]);
    prop_oneof![
        6 => (flags, number(), number(), 4000u16..4002)
            .prop_map(|(flags, seq, ack, port)| Said::Segment { flags, seq, ack, port }),
        4 => (ports(), ports()).prop_map(|ports| Said::Datagram { ports }),
        2 => (ports(), ports()).prop_map(|ports| Said::Six { ports }),
        1 => Just(Said::Ping),
        1 => Just(Said::Lie),
    ]
}

proptest! {
    #[test]
    fn a_batch_through_firewalls_comes_to_what_its_frames_come_to_one_by_one(
        batches in prop::collection::vec(
            (0u16..4, 1u8..5, 0u64..40, prop::collection::vec((said(), 1usize..4), 1..10)), 1..30),
    ) {
        let (mut single, mut batched) = (open_office(), open_office());
        for (port, to, seconds, said) in batches {
            single.now = single.now + Duration::from_secs(seconds / 4);
            batched.now = single.now;
            let from = port as u8 + 1;
            let frames: Vec<_> = said.iter().flat_map(|(said, times)| {
                std::iter::repeat_n(frame(from, to, said), *times)
            }).collect();
            let expected: Vec<_> = frames.iter().map(|frame| single.send(port, frame)).collect();
            prop_assert_eq!(expected, fates(&batched, port, &frames).0);
            prop_assert_eq!(connections(&single), connections(&batched));
        }
        prop_assert_eq!(single.fdb.counts(single.now), batched.fdb.counts(batched.now));
    }
}

/// What spares a decision is used: else the law above would hold of nothing.
#[test]
fn frames_of_established_connections_have_their_way_without_a_decision_and_no_others() {
    let mut bench = open_office();
    let ports = (4000, 80);
    let pass = |bench: &mut Bench, port, frame: &[u8]| {
        let (fate, copies) = bench.send(port, frame);
        assert!(fate == Fate::Unicast && copies[0].outcome.is_ok(), "{}", bench.story());
    };
    // Both ends of this one have firewalls, and know it.
    pass(&mut bench, PC1, &syn(2, 1, ports));
    pass(&mut bench, WEB1, &segment(syn(1, 2, (80, 4000)), SYN_ACK, 7000, 1001));
    pass(&mut bench, PC1, &segment(syn(2, 1, ports), ACK, 1001, 7001));
    let more = segment(syn(2, 1, ports), ACK, 1001, 7001);
    let way = |to| (Fate::Unicast, vec![Copy { to, outcome: Ok(vswitch_core::decide::TagEdit::Keep) }]);
    assert_eq!(fates(&bench, PC1, &vec![more.clone(); 5]), (vec![way(WEB1); 5], vec![]));
    // One of its frames that is not plain, and one of no connection, are decided; the others are not.
    let (fin, other) = (segment(syn(2, 1, ports), FIN_ACK, 1001, 7001), syn(2, 1, (4001, 22)));
    let batch = [more.clone(), other, more.clone(), fin];
    let (came_to, single) = fates(&bench, PC1, &batch);
    assert!(came_to.iter().all(|(fate, copies)| *fate == Fate::Unicast && copies[0].outcome.is_ok()));
    assert_eq!(single, [1, 3]);
    // A firewall at one end only: the sender's, and the receiver's.
    pass(&mut bench, PC2, &udp(4, 3, (9, 53)));
    assert_eq!(
        fates(&bench, PC2, &vec![udp(4, 3, (9, 53)); 2]),
        (vec![way(H1); 2], vec![]),
        "not answered yet"
    );
    assert_eq!(fates(&bench, H1, &[udp(3, 4, (53, 9))]).1, [0], "the first answer changes it");
    assert_eq!(fates(&bench, H1, &vec![udp(3, 4, (53, 9)); 2]), (vec![way(PC2); 2], vec![]));
    assert_eq!(fates(&bench, PC2, &vec![udp(4, 3, (9, 53)); 2]), (vec![way(H1); 2], vec![]));
    // By another's address.
    let mut lie = udp(4, 3, (9, 53));
    lie[29] = 9;
    assert_eq!(fates(&bench, PC2, &[lie]).1, [0]);
}

/// Connections that are under way between two stations with firewalls.
const MANY: u16 = 40;

fn with_many() -> Bench {
    let mut bench = open_office();
    for port in 4000..4000 + MANY {
        let answer = segment(syn(1, 2, (80, port)), SYN_ACK, 7000, 1001);
        let opened = segment(syn(2, 1, (port, 80)), ACK, 1001, 7001);
        for (from, frame) in [(PC1, syn(2, 1, (port, 80))), (WEB1, answer), (PC1, opened)] {
            assert!(bench.send(from, &frame).1[0].outcome.is_ok(), "{}", bench.story());
        }
    }
    bench
}

fn of_many(port: u16, (flags, seq): (u8, u32)) -> Vec<u8> {
    segment(syn(2, 1, (port, 80)), flags, seq, 7001)
}

/// Frames that follow none of their own connection are looked up many at a time, however many they are.
#[test]
fn frames_of_many_connections_have_their_way_without_a_decision() {
    let bench = with_many();
    let plain = |n: u16| of_many(4000 + n % MANY, (ACK, 1001));
    for frames in [2, 31, 32, 33, 64, 65] {
        let batch: Vec<_> = (0..frames).map(plain).collect();
        assert_eq!(fates(&bench, PC1, &batch).1, [0; 0], "{frames} frames");
    }
    // What is not plain is decided, and what is behind it has its way.
    let mut batch: Vec<_> = (0..64).map(plain).collect();
    batch[30] = of_many(4030, (FIN_ACK, 1001));
    batch[40] = of_many(4040, (ACK, 1001));
    batch[41] = of_many(4001, (ACK, 900_000));
    batch[42][29] = 9;
    let (came_to, single) = fates(&bench, PC1, &batch);
    assert_eq!(single, [30, 40, 41, 42]);
    let passed = |n: &usize| came_to[*n].1.first().is_some_and(|copy| copy.outcome.is_ok());
    assert_eq!((0..64).filter(|n| !passed(n)).collect::<Vec<_>>(), [40, 41, 42]);
}

proptest! {
    #[test]
    fn a_batch_of_many_connections_comes_to_what_its_frames_come_to_one_by_one(
        batches in prop::collection::vec(prop::collection::vec(
            (0..MANY + 2, prop::option::weighted(0.04, (
                prop::sample::select(&[ACK, PSH_ACK, FIN_ACK, RST][..]),
                prop::sample::select(&[1000u32, 1001, 1002, 90_000][..]),
            )), 1usize..3), 1..50), 1..4),
    ) {
        let (mut single, batched) = (with_many(), with_many());
        for said in batches {
            let frames: Vec<_> = said.iter().flat_map(|(n, other, times)| {
                std::iter::repeat_n(of_many(4000 + n, other.unwrap_or((ACK, 1001))), *times)
            }).collect();
            let expected: Vec<_> = frames.iter().map(|frame| single.send(PC1, frame)).collect();
            prop_assert_eq!(expected, fates(&batched, PC1, &frames).0);
            prop_assert_eq!(connections(&single), connections(&batched));
        }
    }
}
