//! What is told of neighbours that are not there.

use super::{Bench, mac, to_all, to_router, v4};
use crate::{
    control::protocol::{NeighbourRow, NeighbourState},
    routers::rows,
};
use vswitch_core::build::{self, Addresses};

/// All that is told: the address, its MAC address if it is known, the state, for how long.
fn told(bench: &Bench) -> Vec<(String, bool, NeighbourState, u32)> {
    let rows = rows::neighbours(&bench.neighbours, bench.speaker.sought(bench.now), bench.now);
    let row = |row: NeighbourRow| (row.address.to_string(), row.mac.is_some(), row.state, row.age_secs);
    rows.into_iter().map(row).collect()
}

fn send(bench: &mut Bench, to: &str) {
    let ends = Addresses::V4(v4("10.0.10.7"), v4(to));
    bench.hear(&build::udp(to_router(10, 7), ends, (1, 2), b"x"));
}

#[test]
fn who_is_asked_for_and_who_did_not_answer_is_told() {
    let mut bench = Bench::new();
    send(&mut bench, "10.0.20.8");
    bench.pass(1);
    send(&mut bench, "10.0.20.9");
    let row = |host: &str, known, state, secs| (format!("10.0.20.{host}"), known, state, secs);
    let (asked, failed) = (NeighbourState::Incomplete, NeighbourState::Failed);
    assert_eq!(told(&bench), [row("8", false, asked, 1), row("9", false, asked, 0)]);
    // One of them answers, the other is given up.
    bench.hear(&build::arp_reply(to_router(20, 9), v4("10.0.20.9"), v4("10.0.20.1")));
    bench.pass(4);
    assert_eq!(told(&bench), [row("8", false, failed, 2), row("9", true, NeighbourState::Reachable, 4)]);
    assert_eq!(bench.knows(20, v4("10.0.20.9")), Some(mac(9)));
    // It is there after all.
    bench.hear(&build::arp_request(to_all(20, 8), v4("10.0.20.8"), v4("10.0.20.1")));
    assert!(told(&bench).iter().all(|(_, known, _, _)| *known));
    // Of a scan a few are told, the latest; and after five seconds none.
    for host in 100..200 {
        send(&mut bench, &format!("10.0.20.{host}"));
        if host % 50 == 49 {
            bench.pass(3);
        }
    }
    let rows = told(&bench);
    assert_eq!(rows.iter().filter(|(_, _, state, _)| *state == failed).count(), 64);
    assert!(rows.iter().any(|(host, _, _, _)| host == "10.0.20.199"));
    bench.pass(5);
    assert_eq!(told(&bench).len(), 2);
}
