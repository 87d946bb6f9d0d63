//! What a guest may say of itself: anti-spoof, the guards of DHCP and router advertisements, and what passes without a rule.

use super::{H1, PC1, PC2, addresses, link, open_office, to_all, udp, v4, v6};
use crate::support::lab::{Bench, mac};
use std::net::{Ipv4Addr, Ipv6Addr};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    decide::Fate,
    drop_reason::DropReason,
    mac::MacAddr,
};

/// Why the guest at `pc1`, which is station 2, may not send the frame; none if it may.
fn refused(bench: &mut Bench, frame: &[u8]) -> Option<DropReason> {
    match bench.send(PC1, frame).0 {
        Fate::Dropped(reason) => Some(reason),
        _ => None,
    }
}

/// A message of ICMPv6 with this hop limit; link-layer addresses among the options are whatever `message` says.
fn icmpv6(link: Ethernet, (src, dst): (Ipv6Addr, Ipv6Addr), hops: u8, message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, message.len() as u8, 58, hops];
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(message);
    build::raw(link, 0x86dd, &packet)
}

/// A neighbour solicitation (135) or advertisement (136) about `target`, with one option.
fn neighbour(kind: u8, target: Ipv6Addr, option: u8, mac: MacAddr) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([option, 1]);
    message.extend(mac.octets());
    message
}

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn link_local(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
}

#[test]
fn a_guest_speaks_for_itself_only() {
    let mut bench = open_office();
    let spoof = Some(DropReason::AntiSpoof);
    let (own, foreign) = (mac(2), mac(9));
    let unspecified = Ipv4Addr::UNSPECIFIED;
    let from = |src| Ethernet { src, ..link(2, 3) };
    let arp = |src, sender_mac: MacAddr, sender| {
        let mut frame = build::arp_request(Ethernet { src, ..to_all(2) }, sender, v4(3));
        frame[22..28].copy_from_slice(&sender_mac.octets());
        frame
    };
    let gratuitous = |sender| build::arp_reply(to_all(2), sender, sender);
    let ip4 = |src, address| build::udp(from(src), Addresses::V4(address, v4(3)), (5, 9), b"");
    let ip6 = |src, address| build::udp(from(src), Addresses::V6(address, v6(3)), (5, 9), b"");
    let cases = [
        ("ARP", arp(own, own, v4(2)), None),
        ("ARP probe", arp(own, own, unspecified), None),
        ("ARP of another's address", arp(own, own, v4(1)), spoof),
        ("ARP naming another MAC", arp(own, foreign, v4(2)), spoof),
        ("ARP from another MAC", arp(foreign, own, v4(2)), spoof),
        ("gratuitous ARP", gratuitous(v4(2)), None),
        ("gratuitous ARP of another's address", gratuitous(v4(1)), spoof),
        ("ARP reply of nobody", gratuitous(unspecified), spoof),
        ("IPv4", ip4(own, v4(2)), None),
        ("IPv4 from another MAC", ip4(foreign, v4(2)), spoof),
        ("IPv4 from another's address", ip4(own, v4(1)), spoof),
        ("IPv4 from nobody", ip4(own, unspecified), spoof),
        ("IPv4 from a group", ip4(own, Ipv4Addr::new(224, 0, 0, 1)), spoof),
        ("IPv6", ip6(own, v6(2)), None),
        ("IPv6 link-local", ip6(own, link_local(77)), None),
        ("IPv6 from another's address", ip6(own, v6(1)), spoof),
        ("IPv6 from nobody", ip6(own, Ipv6Addr::UNSPECIFIED), spoof),
        ("IPv6 from another MAC", ip6(foreign, v6(2)), spoof),
        ("no IP, from another MAC", build::raw(from(foreign), 0x88b5, &[0; 46]), spoof),
    ];
    for (what, frame, expected) in cases {
        assert_eq!(refused(&mut bench, &frame), expected, "{what}: {}", bench.story());
    }
}

#[test]
fn neighbour_discovery_is_about_oneself_and_valid() {
    let mut bench = open_office();
    let (spoof, invalid) = (Some(DropReason::AntiSpoof), Some(DropReason::NdGuard));
    let send = |src, hops, message: &[u8]| icmpv6(to_all(2), (src, ALL_NODES), hops, message);
    let mut zero_length = neighbour(SOLICITATION, v6(3), 1, mac(2));
    zero_length[25] = 0;
    let mut too_long = neighbour(SOLICITATION, v6(3), 1, mac(2));
    too_long[25] = 2;
    let cut = &neighbour(ADVERTISEMENT, v6(2), 2, mac(2))[..20];
    let cases = [
        ("question", send(v6(2), 255, &neighbour(SOLICITATION, v6(3), 1, mac(2))), None),
        ("question naming another MAC", send(v6(2), 255, &neighbour(SOLICITATION, v6(3), 1, mac(9))), spoof),
        ("question from afar", send(v6(2), 64, &neighbour(SOLICITATION, v6(3), 1, mac(2))), invalid),
        (
            "duplicate detection",
            send(Ipv6Addr::UNSPECIFIED, 255, &neighbour(SOLICITATION, v6(2), 14, mac(9))),
            None,
        ),
        (
            "duplicate detection, link-local",
            send(Ipv6Addr::UNSPECIFIED, 255, &neighbour(SOLICITATION, link_local(7), 14, mac(9))),
            None,
        ),
        (
            "duplicate detection of another's",
            send(Ipv6Addr::UNSPECIFIED, 255, &neighbour(SOLICITATION, v6(1), 14, mac(9))),
            spoof,
        ),
        ("answer", send(v6(2), 255, &neighbour(ADVERTISEMENT, v6(2), 2, mac(2))), None),
        ("answer for another", send(v6(2), 255, &neighbour(ADVERTISEMENT, v6(1), 2, mac(2))), spoof),
        ("answer with another MAC", send(v6(2), 255, &neighbour(ADVERTISEMENT, v6(2), 2, mac(9))), spoof),
        ("an option of no length", send(v6(2), 255, &zero_length), invalid),
        ("an option past the end", send(v6(2), 255, &too_long), invalid),
        ("an answer that is cut", send(v6(2), 255, cut), invalid),
        (
            "router advertisement",
            send(link_local(2), 255, &[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]),
            Some(DropReason::RaGuard),
        ),
        ("redirect", send(link_local(2), 255, &[137; 40]), Some(DropReason::RaGuard)),
        ("listener query", send(link_local(2), 1, &[130; 24]), Some(DropReason::RaGuard)),
        (
            "router solicitation of nobody",
            send(Ipv6Addr::UNSPECIFIED, 255, &[133, 0, 0, 0, 0, 0, 0, 0]),
            None,
        ),
    ];
    for (what, frame, expected) in cases {
        assert_eq!(refused(&mut bench, &frame), expected, "{what}: {}", bench.story());
    }
    // RFC 6980: a fragment header in front of it, even an atomic one.
    let mut message = vec![58, 0, 0, 0, 0, 0, 0, 1];
    message.extend(neighbour(SOLICITATION, v6(3), 1, mac(2)));
    let mut fragment = send(v6(2), 255, &message);
    fragment[20] = 44;
    assert_eq!(refused(&mut bench, &fragment), invalid);
}

#[test]
fn only_a_router_advertises_itself_and_only_a_server_answers_for_dhcp() {
    let advertisement = |n| {
        icmpv6(
            to_all(n),
            (link_local(n.into()), ALL_NODES),
            255,
            &[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        )
    };
    let nobody = Addresses::V4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    let question = build::udp(to_all(2), nobody, (68, 67), b"discover");
    let answer = |n| build::udp(to_all(n), Addresses::V4(v4(n), Ipv4Addr::BROADCAST), (67, 68), b"offer");
    let v6_answer =
        |n| build::udp(to_all(n), Addresses::V6(link_local(n.into()), ALL_NODES), (547, 546), b"");
    let mut bench = open_office();
    assert_eq!(refused(&mut bench, &question), None);
    for ports in [(67, 68), (67, 9), (9, 68)] {
        assert_eq!(refused(&mut bench, &udp(2, 3, ports)), Some(DropReason::DhcpGuard));
    }
    assert_eq!(refused(&mut bench, &v6_answer(2)), Some(DropReason::DhcpGuard));
    // From whom has no firewall both reach guests that let nothing else in.
    for frame in [answer(3), v6_answer(3), advertisement(3)] {
        let (_, copies) = bench.send(H1, &frame);
        assert!(copies.iter().all(|copy| copy.outcome.is_ok()), "{}", bench.story());
    }
    // A question is for servers only.
    let asked =
        |bench: &mut Bench| bench.send(H1, &build::udp(to_all(3), nobody, (68, 67), b"")).1[2].outcome.err();
    assert_eq!(asked(&mut bench), Some(DropReason::PolicyIngress));
    let mut lab = super::office();
    let firewall = lab.description.ports[usize::from(PC2)].as_mut().and_then(|port| port.firewall.as_mut());
    let firewall = firewall.expect("it has one");
    (firewall.dhcp_server, firewall.router) = (true, true);
    bench.adopt(&lab);
    assert_eq!(asked(&mut bench), None);
    for frame in [answer(4), v6_answer(4), advertisement(4)] {
        assert_eq!(bench.send(PC2, &frame).0, Fate::Flooded, "{}", bench.story());
    }
}

#[test]
fn what_a_link_needs_passes_unless_a_rule_drops_it() {
    use super::{Action, Direction, Match, Rule, allow, office};
    let mut lab = office();
    // An egress rule that allows: what no rule allows may not leave.
    lab.description.groups[1].rules = vec![allow(Direction::Egress, super::to_port(6, 80))];
    let mut bench = lab.bench();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
    let igmp = |kind| {
        let mut frame = build::udp(to_all(2), addresses(2, 3), (0, 0), &[]);
        (frame[23], frame[34]) = (2, kind);
        frame
    };
    let denied = Some(DropReason::PolicyEgress);
    let cases = [
        ("ARP", build::arp_request(to_all(2), v4(2), v4(3)), None),
        ("ND", build::neighbour_solicitation(link(2, 3), v6(2), v6(3)), None),
        ("DHCP", build::udp(to_all(2), Addresses::V4(v4(2), Ipv4Addr::BROADCAST), (68, 67), b""), None),
        ("MLD", icmpv6(to_all(2), (link_local(2), group), 1, &[143, 0, 0, 0, 0, 0, 0, 0]), None),
        ("IGMP report", igmp(0x16), None),
        ("IGMP query", igmp(0x11), denied),
        ("UDP", udp(2, 3, (9, 9)), denied),
        ("another EtherType", build::raw(link(2, 3), 0x88b5, &[0; 46]), denied),
        (
            "reverse ARP",
            {
                let mut frame = build::arp_request(to_all(2), v4(2), v4(3));
                frame[21] = 3;
                frame
            },
            denied,
        ),
    ];
    for (what, frame, expected) in &cases {
        assert_eq!(refused(&mut bench, frame), *expected, "{what}: {}", bench.story());
    }
    lab.description.groups[1].rules =
        vec![Rule { action: Action::Drop, ..allow(Direction::Egress, Match::default()) }];
    let mut bench = lab.bench();
    for (what, frame, _) in &cases {
        assert_eq!(refused(&mut bench, frame), denied, "a rule drops it: {what}");
    }
}

#[test]
fn without_an_identity_a_guest_calls_itself_what_it_likes() {
    let mut lab = super::office();
    for port in lab.description.ports.iter_mut().flatten() {
        if let Some(firewall) = &mut port.firewall {
            firewall.identity = None;
        }
    }
    let mut bench = lab.bench();
    let other = Ethernet { src: mac(9), ..link(2, 3) };
    assert_eq!(refused(&mut bench, &build::udp(other, Addresses::V4(v4(9), v4(3)), (5, 9), b"")), None);
    assert_eq!(refused(&mut bench, &build::arp_reply(other, v4(1), v4(3))), None);
    assert_eq!(
        refused(&mut bench, &udp(2, 3, (67, 68))),
        Some(DropReason::DhcpGuard),
        "that is another matter"
    );
}
