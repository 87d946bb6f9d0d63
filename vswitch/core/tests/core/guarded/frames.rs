//! Frames that hide what they are, are cut, or are parts: they pass no firewall that would stop the whole.

use super::{H1, PC1, TCP, UDP, addresses, allow, link, meet, office, outcome, syn, to_port, udp, v4};
use crate::support::{
    frames::{Random, random_frame},
    lab::mac,
};
use vswitch_core::{
    build::{self, Ethernet},
    decide::Fate,
    drop_reason::DropReason,
    firewall::policy::{Direction, Match, Protocol},
};

/// VU#855201: what a filter does not see behind LLC, wrong lengths, priority tags and further tags, a receiver may.
#[test]
fn nothing_hides_behind_tags_and_lengths() {
    let mut bench = super::open_office();
    let lie = build::arp_reply(link(2, 3), v4(1), v4(3));
    let (addresses, payload) = (&lie[..12], &lie[14..]);
    let behind = |headers: &[&[u8]]| [&[addresses], headers, &[payload]].concat().concat();
    let (arp, priority, tag, service) = ([8, 6], [0x81, 0, 0, 0], [0x81, 0, 0, 10], [0x88, 0xa8, 0, 0]);
    let snap = [0xaa, 0xaa, 3, 0, 0, 0, 8, 6];
    let cases: [(&str, &[&[u8]], DropReason); 12] = [
        ("itself", &[&arp], DropReason::AntiSpoof),
        ("a priority tag", &[&priority, &arp], DropReason::AntiSpoof),
        ("two priority tags", &[&priority, &priority, &arp], DropReason::UnparsedEgress),
        ("three", &[&priority, &priority, &priority, &arp], DropReason::UnparsedEgress),
        ("four", &[&priority, &priority, &priority, &priority, &arp], DropReason::UnparsedEgress),
        ("a priority tag and one of a VLAN", &[&priority, &tag, &arp], DropReason::UnparsedEgress),
        ("one of a VLAN", &[&tag, &arp], DropReason::TaggedOnAccess),
        ("a service tag", &[&service, &arp], DropReason::UnparsedEgress),
        ("SNAP", &[&[0, 36], &snap], DropReason::UnparsedEgress),
        ("SNAP of a wrong length", &[&[0, 9], &snap], DropReason::UnparsedEgress),
        ("SNAP, priority-tagged", &[&priority, &[0, 36], &snap], DropReason::UnparsedEgress),
        ("neither length nor type", &[&[5, 0xf0], &snap], DropReason::UnparsedEgress),
    ];
    for (what, headers, reason) in cases {
        let frame = behind(headers);
        assert_eq!(outcome(bench.send(PC1, &frame)), Err(reason), "{what}");
        // Nor does it reach a guest behind a firewall from where there is none.
        let mut from_h1 = frame;
        from_h1[6..12].copy_from_slice(&mac(3).octets());
        from_h1[..6].copy_from_slice(&mac(2).octets());
        if reason == DropReason::UnparsedEgress {
            assert_eq!(outcome(bench.send(H1, &from_h1)), Err(DropReason::UnparsedIngress), "{what}");
        }
    }
}

/// However much of a frame is there, it does not pass where the whole does not (K26); a part that passes, passes as what it is.
#[test]
fn a_cut_frame_passes_nowhere_that_the_whole_does_not() {
    let mut lab = office();
    let dns = Match { protocol: Protocol::Number(UDP), ..to_port(UDP, 53) };
    lab.description.groups[2].rules =
        vec![allow(Direction::Ingress, dns), allow(Direction::Ingress, to_port(TCP, 80))];
    let whole = [
        syn(3, 4, (9, 22)),
        udp(3, 4, (9, 54)),
        udp(3, 4, (9, 53)),
        syn(3, 4, (9, 80)),
        build::echo(link(3, 4), addresses(3, 4), build::Echo::Request, 1, 1, b"hello"),
    ];
    for frame in whole {
        let mut bench = lab.bench();
        meet(&mut bench);
        for len in 0..frame.len() {
            let result = bench.send(H1, &frame[..len]);
            if len < 14 {
                assert_eq!(result.0, Fate::Dropped(DropReason::Runt));
            } else {
                assert_eq!(outcome(result), Err(DropReason::UnparsedIngress), "{len} bytes of {frame:x?}");
            }
        }
    }
}

#[test]
fn a_fragment_passes_if_no_rule_would_ask_for_its_ports() {
    let any = |protocol| Match { protocol: Protocol::Number(protocol), ..Match::default() };
    let rules = [
        allow(Direction::Ingress, to_port(UDP, 53)),
        allow(Direction::Ingress, any(UDP)),
        allow(Direction::Ingress, any(TCP)),
        allow(Direction::Ingress, to_port(TCP, 80)),
        allow(Direction::Ingress, to_port(132, 80)),
    ];
    let mut lab = office();
    lab.description.groups[2].rules = rules.to_vec();
    let mut bench = lab.bench();
    meet(&mut bench);
    let fragment = |mut frame: Vec<u8>, protocol, offset: u8| {
        (frame[20], frame[21], frame[23]) = (0, offset, protocol);
        frame
    };
    let later = |protocol| fragment(udp(3, 4, (9, 53)), protocol, 4);
    assert_eq!(outcome(bench.send(H1, &later(TCP))), Ok(()), "the rule for all ports comes first");
    assert_eq!(
        outcome(bench.send(H1, &later(UDP))),
        Err(DropReason::FragmentIngress),
        "one port comes first"
    );
    assert_eq!(outcome(bench.send(H1, &later(132))), Err(DropReason::FragmentIngress));
    assert_eq!(outcome(bench.send(H1, &later(47))), Err(DropReason::FragmentIngress), "nothing allows it");
    // Without rules egress allows anything, but not to lie.
    let mut egress = fragment(udp(2, 3, (9, 53)), UDP, 4);
    assert_eq!(outcome(bench.send(PC1, &egress)), Ok(()));
    egress[29] = 1;
    assert_eq!(outcome(bench.send(PC1, &egress)), Err(DropReason::AntiSpoof));
    // A first fragment that is too short for its ports.
    let mut tiny = fragment(udp(3, 4, (9, 53)), UDP, 0);
    (tiny[17], tiny[20]) = (24, 0x20);
    assert_eq!(outcome(bench.send(H1, &tiny)), Err(DropReason::FragmentMalformedIngress));
}

#[test]
fn what_is_not_ip_needs_a_rule_of_its_own_in_both_directions() {
    use vswitch_core::firewall::policy::Family;
    let frame = |from, to| build::raw(link(from, to), 0x88b5, &[0; 46]);
    let mut lab = office();
    let mut bench = super::open_office();
    assert_eq!(outcome(bench.send(PC1, &frame(2, 3))), Err(DropReason::PolicyEgress));
    let experiment = Match { family: Family::EtherType(0x88b5), ..Match::default() };
    lab.description.groups[1].rules =
        [Direction::Egress, Direction::Ingress].map(|direction| allow(direction, experiment.clone())).into();
    bench.adopt(&lab);
    assert_eq!(outcome(bench.send(PC1, &frame(2, 3))), Ok(()));
    assert_eq!(outcome(bench.send(H1, &frame(3, 2))), Ok(()));
}

/// Whatever is sent, in whatever order: a guest without rules gets nothing but what it has asked for and what a link needs.
#[test]
fn nothing_random_gets_past_a_closed_door() {
    let mut random = Random::new(7);
    let mut bench = super::open_office();
    let mut passed = 0;
    for _ in 0..50_000 {
        let mut frame = random_frame(&mut random);
        if frame.len() >= 12 {
            let Ethernet { src, dst, .. } = link(3, 4);
            frame[..6].copy_from_slice(&dst.octets());
            frame[6..12].copy_from_slice(&src.octets());
        }
        let (fate, copies) = bench.send(H1, &frame);
        if fate == Fate::Unicast && copies[0].outcome.is_ok() {
            passed += 1;
            let needs_none = bench.steps.iter().any(|step| step.contains("takes no rule"));
            assert!(needs_none, "{frame:x?}\n{}", bench.story());
        }
    }
    assert!(passed > 1000, "ARP and neighbour discovery are among them: {passed}");
}
