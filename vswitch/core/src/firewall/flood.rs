//! K22: who chooses tuples, and knows all of the switch but its secret, cannot choose where they stand.

use super::{
    connections::{Config, Connections, Digest, Ends, Hosts, Key, Scope, Secret, Timeouts},
    policy::Direction,
};
use crate::{id::PortId, vlan::VlanId};
use std::net::{Ipv4Addr, Ipv6Addr};

const LINES: usize = 1024;

/// A table with the secret of one boot.
fn boot(number: u64) -> Connections {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let secret = Secret::new(std::array::from_fn(|_| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }));
    Connections::new(Config { capacity: 0, ports: 0, timeouts: Timeouts::DEFAULT }, secret)
}

fn key(hosts: Hosts, ends: Ends) -> Key {
    let vlan = VlanId::new(10).expect("it is one");
    Key::new(Scope { port: PortId::new(1, 0), vlan }, hosts, 6, ends)
}

/// The `n`th of an attacker's tuples in the plainest of orders: every port, then the next address.
fn tuple(n: u32) -> Key {
    let hosts = Hosts::V4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::from(0x0a01_0000 + (n >> 16)));
    key(hosts, Ends::Ports { inside: 80, outside: n as u16 })
}

/// How many of the keys stand in the fullest line, by either of the two lines that each may stand in.
fn fullest(table: &Connections, keys: &[Key]) -> usize {
    let of = |line: fn(Digest) -> usize| {
        let mut held = vec![0; LINES];
        keys.iter().for_each(|key| held[line(table.digest(key)) % LINES] += 1);
        held.into_iter().max().unwrap_or(0)
    };
    let second = |digest: Digest| {
        let [place, check] = digest.words();
        (place ^ (check | 1)) as usize
    };
    of(Digest::first).max(of(second))
}

/// Tuples that all stand in one line under a secret that the attacker knows, say that of the last boot, are spread under another.
#[test]
fn tuples_that_fill_one_line_are_spread_in_another_boot() {
    let known = boot(1);
    let chosen: Vec<Key> = (0..400_000)
        .map(tuple)
        .filter(|key| known.digest(key).first().is_multiple_of(LINES))
        .take(256)
        .collect();
    assert_eq!(fullest(&known, &chosen), 256, "the attack works where the secret is known");
    for other in 2..50 {
        let held = fullest(&boot(other), &chosen);
        assert!(held <= 8, "boot {other}: {held} of 256 in one of {LINES} lines");
    }
}

/// No pattern that needs no secret fills a line either: ports in a row, addresses in a row, single bits, the ends of the space.
#[test]
fn no_pattern_of_tuples_fills_a_line() {
    let port = |outside| Ends::Ports { inside: 80, outside };
    let v4 = |outside: u32| Hosts::V4(Ipv4Addr::new(10, 0, 0, 1), outside.into());
    let v6 = |outside: u128| Hosts::V6(Ipv6Addr::from(0xfd00 << 112 | 1u128), outside.into());
    let count = 4 * LINES as u32;
    let patterns: [(&str, Vec<Key>); 7] = [
        ("ports", (0..count).map(|n| key(v4(0x0a00_0002), port(n as u16))).collect()),
        ("every sixteenth port", (0..count).map(|n| key(v4(2), port((n << 4) as u16))).collect()),
        ("addresses", (0..count).map(|n| key(v4(0x0a00_0002 + n), port(1024))).collect()),
        ("networks", (0..count).map(|n| key(v4(n.rotate_right(12)), port(1024))).collect()),
        ("addresses of IPv6", (0..count).map(|n| key(v6(u128::from(n)), port(1024))).collect()),
        ("networks of IPv6", (0..count).map(|n| key(v6(u128::from(n) << 64), port(1024))).collect()),
        ("identifiers", {
            let ends = |n| Ends::Query { id: n as u16, kind: 8, asked: Direction::Ingress };
            (0..count).map(|n| key(v4(2), ends(n))).collect()
        }),
    ];
    for (what, keys) in patterns {
        for number in 1..30 {
            let held = fullest(&boot(number), &keys);
            assert!(held <= 32, "{what}, boot {number}: {held} of {count} in one of {LINES} lines");
        }
    }
}
