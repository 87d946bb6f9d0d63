//! Connections across firewalls: imagined frames, changed policies, limits, rules without state.

use super::{
    ACK, H1, PC1, SYN_ACK, TCP, UDP, WEB1, addresses, allow, link, meet, office, open_office, outcome,
    segment, syn, to_port, udp, v4,
};
use crate::support::lab::{Bench, Lab, trunk};
use std::time::Duration;
use vswitch_core::{
    build::{self, Addresses, Echo, Ethernet},
    description::Link,
    drop_reason::DropReason,
    firewall::policy::{Action, Direction, Family, IcmpType, Match, Protocol, Rule},
    id::{Epoch, PortId},
    vlan::Tci,
};

fn held(bench: &Bench, port: u16) -> u64 {
    bench.connections.counts_of(port).held
}

#[test]
fn a_frame_that_is_imagined_opens_nothing_and_ends_nothing() {
    let mut bench = open_office();
    let (question, answer) = (udp(2, 3, (53, 53)), udp(3, 2, (53, 53)));
    bench.learning = false;
    assert_eq!(outcome(bench.send(PC1, &question)), Ok(()));
    assert_eq!(outcome(bench.send(H1, &answer)), Err(DropReason::PolicyIngress), "nobody has asked");
    assert_eq!(held(&bench, PC1), 0);
    bench.learning = true;
    assert_eq!(outcome(bench.send(PC1, &question)), Ok(()));
    bench.learning = false;
    assert_eq!(outcome(bench.send(H1, &answer)), Ok(()));
    assert!(bench.story().contains("its guest opened (replied)"), "{}", bench.story());
    bench.learning = true;
    bench.send(PC1, &question);
    assert!(
        bench.story().contains("its guest opened (unreplied)"),
        "the answer was imagined: {}",
        bench.story()
    );
    assert_eq!(held(&bench, PC1), 1);
}

/// The office in which `web1` lets in nothing but this.
fn with_web(rules: &[Rule], epoch: u64) -> Lab {
    let mut lab = office();
    lab.description.epoch = Epoch::new(epoch);
    lab.description.groups[0].rules = rules.to_vec();
    lab
}

fn handshake(bench: &mut Bench) {
    for (port, frame) in [
        (PC1, syn(2, 1, (4000, 80))),
        (WEB1, segment(syn(1, 2, (80, 4000)), SYN_ACK, 5000, 1001)),
        (PC1, segment(syn(2, 1, (4000, 80)), ACK, 1001, 5001)),
    ] {
        assert_eq!(outcome(bench.send(port, &frame)), Ok(()));
    }
}

#[test]
fn a_changed_policy_judges_what_runs_by_the_frame_that_opened_it() {
    let there = segment(syn(2, 1, (4000, 80)), ACK, 1001, 5001);
    let back = segment(syn(1, 2, (80, 4000)), ACK, 5001, 1001);
    let web = |port| allow(Direction::Ingress, to_port(TCP, port));
    // The answer comes first: it leaves, and egress allows anything, but what counts is who opened the connection.
    for first in [(WEB1, &back), (PC1, &there)] {
        let mut bench = open_office();
        handshake(&mut bench);
        bench.adopt(&with_web(&[web(443), web(80)], 2));
        assert_eq!(outcome(bench.send(first.0, first.1)), Ok(()), "another rule allows it");
        assert_eq!(held(&bench, WEB1), 1);
        bench.adopt(&with_web(&[web(443)], 3));
        bench.learning = false;
        assert!(outcome(bench.send(first.0, first.1)).is_err());
        assert_eq!(held(&bench, WEB1), 1, "an imagined frame ends nothing");
        bench.learning = true;
        let reason = if first.0 == WEB1 { DropReason::PolicyEgress } else { DropReason::PolicyIngress };
        assert_eq!(outcome(bench.send(first.0, first.1)), Err(reason), "{}", bench.story());
        assert_eq!(held(&bench, WEB1), 0);
        bench.adopt(&with_web(&[web(80)], 4));
        assert!(outcome(bench.send(PC1, &there)).is_err(), "it is over");
    }
}

/// Whether the connection could be ended at once or not, for it is only imagined or another worker is at it: its frames are judged without it.
#[test]
fn a_connection_that_rules_without_state_allow_is_none_any_more() {
    let web = Rule { stateful: false, ..allow(Direction::Ingress, to_port(TCP, 80)) };
    let there = (PC1, segment(syn(2, 1, (4000, 80)), ACK, 1001, 5001));
    let back = (WEB1, segment(syn(1, 2, (80, 4000)), ACK, 5001, 1001));
    for order in [[&there, &back], [&back, &there]] {
        let mut bench = open_office();
        handshake(&mut bench);
        bench.adopt(&with_web(std::slice::from_ref(&web), 2));
        for learning in [false, true] {
            bench.learning = learning;
            for (port, frame) in order {
                // No rule lets an answer out that answers nothing.
                let expected = if *port == PC1 { Ok(()) } else { Err(DropReason::InvalidEgress) };
                assert_eq!(outcome(bench.send(*port, frame)), expected, "{learning}: {}", bench.story());
            }
        }
        assert_eq!(held(&bench, WEB1), 0);
    }
}

#[test]
fn a_change_elsewhere_judges_nothing_anew() {
    let mut bench = open_office();
    handshake(&mut bench);
    let mut lab = office();
    lab.description.epoch = Epoch::new(2);
    lab.description.groups[2].rules.push(allow(Direction::Ingress, to_port(UDP, 53)));
    bench.adopt(&lab);
    let epoch =
        |port| bench.world.port(port).and_then(|port| port.firewall.as_ref()).map(|firewall| firewall.epoch);
    assert_eq!([0, 1, 3].map(epoch), [1, 1, 2].map(|number| Some(Epoch::new(number))));
}

#[test]
fn a_port_has_no_more_connections_than_it_may() {
    let mut bench = open_office();
    bench.connections.admit(PortId::new(PC1, 0), 2);
    // Both ends are heard: what is in use makes no room.
    for port in [1, 2] {
        assert_eq!(outcome(bench.send(PC1, &udp(2, 3, (port, 9)))), Ok(()));
        assert_eq!(outcome(bench.send(H1, &udp(3, 2, (9, port)))), Ok(()));
    }
    assert_eq!(outcome(bench.send(PC1, &udp(2, 3, (3, 9)))), Err(DropReason::ConnectionLimitEgress));
    assert_eq!(outcome(bench.send(PC1, &udp(2, 3, (2, 9)))), Ok(()));
    bench.now = bench.now + Duration::from_secs(121);
    assert_eq!(outcome(bench.send(PC1, &udp(2, 3, (3, 9)))), Ok(()), "the others are over");
}

#[test]
fn rules_without_state_judge_every_frame() {
    let stateless = |direction, matches| Rule { stateful: false, ..allow(direction, matches) };
    let any_tcp = || Match { protocol: Protocol::Number(TCP), ..Match::default() };
    let rules = [stateless(Direction::Ingress, to_port(TCP, 80)), stateless(Direction::Egress, any_tcp())];
    let mut bench = with_web(&rules, 1).bench();
    meet(&mut bench);
    // No handshake was seen, and none is asked for.
    assert_eq!(outcome(bench.send(H1, &segment(syn(3, 1, (4000, 80)), ACK, 1, 1))), Ok(()));
    assert_eq!(outcome(bench.send(WEB1, &segment(syn(1, 3, (80, 4000)), ACK, 1, 1))), Ok(()));
    assert_eq!(held(&bench, WEB1), 0);
    assert_eq!(
        outcome(bench.send(H1, &segment(syn(3, 1, (80, 4000)), ACK, 1, 1))),
        Err(DropReason::InvalidIngress),
        "an answer, but to nothing that is known"
    );
}

#[test]
fn who_is_rejected_is_dropped_under_that_name() {
    let reject = Rule { action: Action::Reject, ..allow(Direction::Ingress, to_port(TCP, 80)) };
    let mut bench = with_web(&[reject], 1).bench();
    meet(&mut bench);
    assert_eq!(outcome(bench.send(H1, &syn(3, 1, (4000, 80)))), Err(DropReason::RejectIngress));
}

#[test]
fn an_error_comes_back_for_what_was_sent_and_for_nothing_else() {
    let mut bench = open_office();
    let sent = udp(2, 3, (4000, 9));
    assert_eq!(outcome(bench.send(PC1, &sent)), Ok(()));
    // RFC 792: destination unreachable, port; it quotes the IP header and eight bytes.
    let unreachable = |quoted: &[u8]| {
        let mut frame = build::echo(link(3, 2), addresses(3, 2), Echo::Reply, 0, 0, &quoted[14..42]);
        (frame[34], frame[35]) = (3, 3);
        frame
    };
    assert_eq!(outcome(bench.send(H1, &unreachable(&sent))), Ok(()));
    let other = udp(2, 3, (4001, 9));
    assert_eq!(outcome(bench.send(H1, &unreachable(&other))), Err(DropReason::InvalidIngress));
    let ping = |from, to, half| build::echo(link(from, to), addresses(from, to), half, 7, 1, b"");
    assert_eq!(outcome(bench.send(H1, &ping(3, 2, Echo::Request))), Err(DropReason::PolicyIngress));
    assert_eq!(outcome(bench.send(H1, &ping(3, 2, Echo::Reply))), Err(DropReason::InvalidIngress));
    assert_eq!(outcome(bench.send(PC1, &ping(2, 3, Echo::Request))), Ok(()));
    assert_eq!(outcome(bench.send(H1, &ping(3, 2, Echo::Reply))), Ok(()));
}

#[test]
fn running_connections_are_picked_up_in_the_direction_that_the_rules_allow() {
    let mut bench = open_office();
    bench.connections.pick_up_until(bench.now + Duration::from_secs(60));
    // An answer of the web server, to a client of before the restart: egress would allow it, and so would ingress the question.
    let there = segment(syn(3, 1, (4000, 80)), ACK, 1001, 5001);
    assert_eq!(outcome(bench.send(H1, &there)), Ok(()));
    // To the client, which lets in nothing: it must have asked.
    let back = segment(syn(3, 2, (80, 4000)), ACK, 5001, 1001);
    assert_eq!(outcome(bench.send(H1, &back)), Ok(()));
    assert!(held(&bench, PC1) == 1);
    bench.now = bench.now + Duration::from_secs(60);
    assert!(outcome(bench.send(H1, &segment(syn(3, 2, (81, 4000)), ACK, 1, 1))).is_err());
}

#[test]
fn a_vlan_of_a_trunk_is_a_world_of_its_own() {
    let stations = trunk(&[10, 20], None);
    let mut bench = Lab::new()
        .group("none", &[])
        .switch("sw1")
        .port("guest", 0, stations.clone())
        .guarded(1, &[0])
        .port("other", 0, stations)
        .bench();
    let tagged = |from, to, tag, ports| {
        let link = Ethernet { tag: Some(Tci::from_bits(tag)), ..link(from, to) };
        build::udp(link, addresses(from, to), ports, b"hello")
    };
    bench.send(1, &tagged(2, 9, 10, (9, 9)));
    bench.send(1, &tagged(2, 9, 20, (9, 9)));
    assert_eq!(outcome(bench.send(0, &tagged(1, 2, 20, (6, 53)))), Ok(()), "it is known in both");
    assert_eq!(outcome(bench.send(0, &tagged(1, 2, 10, (5, 53)))), Ok(()));
    assert_eq!(outcome(bench.send(1, &tagged(2, 1, 20, (53, 5)))), Err(DropReason::PolicyIngress));
    assert_eq!(outcome(bench.send(1, &tagged(2, 1, 10, (53, 5)))), Ok(()));
}

#[test]
fn a_wire_may_have_a_firewall_at_either_end() {
    let wire = |peer| Link::Wire { peer: PortId::new(peer, 0) };
    let lab = Lab::new().group("none", &[]).linked("a", wire(1)).guarded(1, &[0]).linked("b", wire(0));
    let mut bench = lab.bench();
    assert_eq!(outcome(bench.send(1, &udp(2, 1, (9, 9)))), Err(DropReason::PolicyIngress));
    assert_eq!(outcome(bench.send(0, &udp(1, 2, (9, 9)))), Ok(()));
    assert_eq!(outcome(bench.send(1, &udp(2, 1, (9, 9)))), Ok(()));
    let lie = build::udp(link(1, 2), Addresses::V4(v4(7), v4(2)), (9, 9), b"");
    assert_eq!(outcome(bench.send(0, &lie)), Err(DropReason::AntiSpoof));
}

#[test]
fn a_group_of_types_lets_in_that_type_only() {
    let unreachable = Match {
        family: Family::Ipv4,
        protocol: Protocol::Icmp,
        icmp: Some(IcmpType { kind: 8, code: None }),
        ..Match::default()
    };
    let mut bench = with_web(&[allow(Direction::Ingress, unreachable)], 1).bench();
    meet(&mut bench);
    let ping = |half| build::echo(link(3, 1), addresses(3, 1), half, 7, 1, b"");
    assert_eq!(outcome(bench.send(H1, &ping(Echo::Request))), Ok(()));
    let mut redirect = ping(Echo::Request);
    redirect[34] = 5;
    assert_eq!(outcome(bench.send(H1, &redirect)), Err(DropReason::PolicyIngress));
}
