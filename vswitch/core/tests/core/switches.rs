//! Several switches: floods reach each of them once, known addresses take one way.

use crate::support::lab::{Lab, access, copy, dropped, mac, trunk};
use std::time::Duration;
use vswitch_core::{
    decide::{Fate, TagEdit},
    drop_reason::DropReason,
    fdb::Target,
};

/// sw0 in the middle of four others; port `n` is on switch `n`, all in VLAN 10.
fn star() -> Lab {
    let mut lab = Lab::new().switch("sw0").switch("sw1").switch("sw2").switch("sw3").switch("sw4");
    for leaf in 1..=4 {
        lab = lab.join(leaf, 0, trunk(&[10, 20], None));
    }
    (0..=4).fold(lab, |lab, switch| lab.port(&format!("pc{switch}"), switch, access(10)))
}

#[test]
fn a_broadcast_reaches_every_switch_once() {
    let mut bench = star().bench();
    for from in 0..=4 {
        let mut heard = bench.broadcast(from, 1, None);
        heard.sort_unstable();
        let others: Vec<u16> = (0..=4).filter(|port| *port != from).collect();
        assert_eq!(heard, others);
    }
}

#[test]
fn every_switch_on_the_way_learns() {
    let mut bench = star().bench();
    bench.broadcast(1, 1, None);
    let mut seen: Vec<_> =
        bench.fdb.rows(&bench.world, bench.now).map(|row| (row.switch.index(), row.target)).collect();
    seen.sort_by_key(|(switch, _)| *switch);
    assert_eq!(seen.len(), 5);
    assert!(matches!(seen[1].1, Target::Port(id) if id.index() == 1));
    assert!(matches!(seen[0].1, Target::Trunk(to) if to.index() == 1));
    assert!(matches!(seen[4].1, Target::Trunk(to) if to.index() == 0));
    assert_eq!(bench.pass(3, 3, 1, None), (Fate::Unicast, vec![copy(1, TagEdit::Keep)]));
}

#[test]
fn a_chain_of_the_longest_kind_is_walked_to_its_end() {
    let mut lab = Lab::new();
    for n in 0..4096u16 {
        lab = lab.switch(&format!("sw{n}"));
        if n > 0 {
            lab = lab.join(n - 1, n, trunk(&[10], None));
        }
    }
    let mut bench = lab.port("first", 0, access(10)).port("last", 4095, access(10)).bench();
    assert_eq!(bench.broadcast(0, 1, None), [1]);
    let crossed = bench.steps.iter().filter(|step| step.starts_with("crossed")).count();
    assert_eq!(crossed, 4095);
}

#[test]
fn a_hub_of_the_widest_kind_is_flooded() {
    let mut lab = Lab::new().switch("hub");
    for n in 1..4096u16 {
        lab = lab.switch(&format!("sw{n}")).join(0, n, trunk(&[10], None));
    }
    let lab = (1..4096u16).fold(lab, |lab, n| lab.port(&format!("pc{n}"), n, access(10)));
    assert_eq!(lab.bench().broadcast(0, 1, None).len(), 4094);
}

#[test]
fn a_vlan_ends_where_no_trunk_carries_it() {
    let lab = Lab::new().switch("a").switch("b").join(0, 1, trunk(&[10], None));
    let mut bench = lab.port("pc1", 0, access(20)).port("pc2", 1, access(20)).bench();
    assert_eq!(bench.pass(0, 1, 2, None), dropped(DropReason::NoReceiver));
}

#[test]
fn priority_survives_every_trunk() {
    let lab = Lab::new().switch("a").switch("b").join(0, 1, access(10));
    let mut bench = lab.port("pc1", 0, access(10)).port("up", 1, trunk(&[10], None)).bench();
    let rewrite = TagEdit::Rewrite(vswitch_core::vlan::Tci::from_bits(0xe00a));
    assert_eq!(bench.pass(0, 1, 2, Some(0xe000)), (Fate::Flooded, vec![copy(1, rewrite)]));
}

#[test]
fn a_limit_at_the_door_holds_on_every_switch() {
    let lab = Lab::new().switch("a").switch("b").join(0, 1, trunk(&[10], None));
    let mut bench =
        lab.port("flooder", 0, access(10)).but(|port| port.mac_limit = 2).port("pc", 1, access(10)).bench();
    for station in 1..=50 {
        bench.pass(0, station, 200, None);
    }
    let counts = bench.fdb.counts(bench.now);
    assert_eq!((counts.entries, counts.refused), (4, 48), "two addresses, on each of two switches");
}

#[test]
fn a_stated_address_cannot_be_claimed_on_any_switch() {
    let lab = Lab::new().switch("a").switch("b").switch("c");
    let lab = lab.join(0, 1, trunk(&[10], None)).join(1, 2, trunk(&[10], None));
    let mut bench = lab
        .port("owner", 0, access(10))
        .but(|port| port.mac = Some(mac(1)))
        .port("thief", 2, access(10))
        .bench();
    bench.broadcast(1, 1, None);
    assert!(bench.story().contains("c did not learn 02:00:00:00:00:01 on thief:eth0"), "{}", bench.story());
    assert_eq!(bench.pass(1, 9, 1, None), (Fate::Unicast, vec![copy(0, TagEdit::Keep)]));
    bench.now = bench.now + Duration::from_secs(1_000_000);
    assert_eq!(
        bench.pass(1, 9, 1, None),
        (Fate::Unicast, vec![copy(0, TagEdit::Keep)]),
        "it does not age either"
    );
}
