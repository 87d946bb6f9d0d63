//! VU#855201 (CVE-2021-27853, -27854, -27861, -27862): what a guard would refuse, hidden from it (K6, K7, K20, K21).

use super::{
    super::{H1, PC1, PC2, UDP, pieces, to_all, v4, v6},
    ALL_NODES, NOBODY, Packet, Row, anything, hold, link_local, of_lab, verdict,
};
use crate::support::lab::{Bench, Lab, access, trunk};
use std::net::{Ipv4Addr, Ipv6Addr};
use vswitch_core::{
    build::{self, Addresses},
    drop_reason::DropReason::{
        self, AntiSpoof, DhcpGuard, FragmentMalformedEgress, NdGuard, RaGuard, TaggedOnAccess,
        UnparsedEgress, UnparsedIngress, UntaggedOnTrunk, VlanNotMember,
    },
    firewall::policy::Direction,
};

fn icmpv6(src: Ipv6Addr, hops: u8, message: &[u8]) -> Vec<u8> {
    Packet::new(to_all(2), src.into(), ALL_NODES.into(), 58).hops(hops).of(message)
}

fn advertisement() -> Vec<u8> {
    vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// A neighbour advertisement about that address.
fn neighbour(target: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(target.octets());
    message
}

/// What station 2 must not say, why, and something alike that it may.
fn lies() -> Vec<(&'static str, Vec<u8>, DropReason, Vec<u8>)> {
    let dhcp = |src, ports| build::udp(to_all(2), Addresses::V4(src, Ipv4Addr::BROADCAST), ports, b"dhcp");
    let dhcp6 = |ports| build::udp(to_all(2), Addresses::V6(link_local(2), ALL_NODES), ports, b"dhcp");
    let solicitation = icmpv6(link_local(2), 255, &[133, 0, 0, 0, 0, 0, 0, 0]);
    vec![
        (
            "ARP",
            build::arp_reply(to_all(2), v4(1), v4(3)),
            AntiSpoof,
            build::arp_reply(to_all(2), v4(2), v4(3)),
        ),
        (
            "neighbour",
            icmpv6(v6(2), 255, &neighbour(v6(1))),
            AntiSpoof,
            icmpv6(v6(2), 255, &neighbour(v6(2))),
        ),
        ("router", icmpv6(link_local(2), 255, &advertisement()), RaGuard, solicitation.clone()),
        ("redirect", icmpv6(link_local(2), 255, &[137; 40]), RaGuard, solicitation),
        (
            "listener query",
            icmpv6(link_local(2), 1, &[130; 24]),
            RaGuard,
            icmpv6(
                link_local(2),
                1,
                &[131, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
        ),
        ("DHCP", dhcp(v4(2), (67, 68)), DhcpGuard, dhcp(NOBODY, (68, 67))),
        ("DHCP from elsewhere", dhcp(v4(2), (9, 68)), DhcpGuard, dhcp(v4(2), (68, 67))),
        ("DHCPv6", dhcp6((547, 546)), DhcpGuard, dhcp6((546, 547))),
    ]
}

/// `frame` with what stands between its addresses and its EtherType put there.
fn behind(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    [&frame[..12], &tags.concat(), &frame[12..]].concat()
}

/// `frame` with LLC and SNAP in place of its EtherType; its length field is `more` than it should be.
fn snap(frame: &[u8], tags: &[[u8; 4]], more: i32) -> Vec<u8> {
    let len = (frame.len() as i32 - 14 + 8 + more) as u16;
    let llc = [0xaa, 0xaa, 3, 0, 0, 0];
    [&frame[..12], &tags.concat(), &len.to_be_bytes(), &llc, &frame[12..]].concat()
}

fn anything_goes(lab: &mut Lab) {
    let rules = [anything(Direction::Egress), anything(Direction::Ingress)];
    lab.description.groups[1].rules = rules.to_vec();
    lab.description.groups[2].rules = rules.to_vec();
}

/// The guest may send anything, and `pc2` lets in anything.
fn bench() -> Bench {
    of_lab(anything_goes)
}

/// Every pile of at most four tags, of three TPIDs and of no VLAN, its own, another and the reserved one, before DIX, SNAP, and SNAP of wrong lengths.
fn piles() -> Vec<Vec<[u8; 4]>> {
    let tags: Vec<[u8; 4]> = [[0x81, 0], [0x88, 0xa8], [0x91, 0]]
        .into_iter()
        .flat_map(|tpid| [0u16, 10, 20, 4095].map(|vid| [tpid[0], tpid[1], (vid >> 8) as u8, vid as u8]))
        .collect();
    let mut piles: Vec<Vec<[u8; 4]>> = vec![vec![]];
    let mut last = piles.clone();
    for depth in 1..=4 {
        // Of the deep ones every third tag is enough: what they are of is in the first two.
        let step = if depth <= 2 { 1 } else { 4 };
        last = last
            .iter()
            .flat_map(|pile| tags.iter().step_by(step).map(|tag| [&pile[..], &[*tag]].concat()))
            .collect();
        piles.extend(last.clone());
    }
    piles
}

/// Why an interface does not take such tags at all; none if it does.
fn refused_by_vlan(pile: &[[u8; 4]], is_access: bool) -> Option<DropReason> {
    let vid =
        pile.first().filter(|tag| tag[..2] == [0x81, 0]).map(|tag| u16::from_be_bytes([tag[2], tag[3]]));
    match (vid, is_access) {
        (Some(4095), _) => Some(VlanNotMember),
        (Some(10 | 20), true) => Some(TaggedOnAccess),
        (Some(20), false) => Some(VlanNotMember),
        (None | Some(0), false) => Some(UntaggedOnTrunk),
        _ => None,
    }
}

#[test]
fn what_a_guard_refuses_hides_behind_no_tag_and_no_length() {
    let trunk_lab = || {
        let mut lab = Lab::new()
            .group("web", &[])
            .group("admin", &[])
            .group("none", &[])
            .switch("sw1")
            .port("web1", 0, access(10))
            .port("pc1", 0, trunk(&[10], None))
            .guarded(2, &[1])
            .port("h1", 0, access(10));
        anything_goes(&mut lab);
        lab.bench()
    };
    let mut count = 0;
    for is_access in [true, false] {
        let mut bench = if is_access { bench() } else { trunk_lab() };
        for (what, lie, why, honest) in lies() {
            for pile in piles() {
                let by_vlan = refused_by_vlan(&pile, is_access);
                let is_plain = pile.is_empty() || pile.len() == 1 && pile[0][..2] == [0x81, 0];
                let expected = by_vlan.unwrap_or(if is_plain { why } else { UnparsedEgress });
                let got = verdict(&mut bench, (PC1, H1), &behind(&lie, &pile));
                assert_eq!(got, Err(expected), "{what} behind {pile:x?}: {}", bench.story());
                // Its honest neighbour passes where it can be read, and nowhere else.
                let got = verdict(&mut bench, (PC1, H1), &behind(&honest, &pile));
                let expected = if by_vlan.is_none() && is_plain {
                    Ok(())
                } else {
                    Err(by_vlan.unwrap_or(UnparsedEgress))
                };
                assert_eq!(got, expected, "honest {what} behind {pile:x?}: {}", bench.story());
                for more in [0, -9, 7, 300] {
                    let got = verdict(&mut bench, (PC1, H1), &snap(&lie, &pile, more));
                    assert_eq!(
                        got,
                        Err(by_vlan.unwrap_or(UnparsedEgress)),
                        "{what}, SNAP behind {pile:x?}, {more}"
                    );
                }
                count += 1;
            }
        }
    }
    assert!(count > 2 * 8 * 150, "{count}");
}

/// Nor does a guest behind a firewall get it from where there is none.
#[test]
fn what_is_hidden_enters_nowhere() {
    let lie = build::arp_reply(super::super::link(3, 4), v4(1), v4(4));
    let mut bench = bench();
    for pile in piles() {
        let by_vlan = refused_by_vlan(&pile, true);
        let is_plain = pile.is_empty() || pile.len() == 1 && pile[0][..2] == [0x81, 0];
        let got = verdict(&mut bench, (H1, PC2), &behind(&lie, &pile));
        let hidden = Err(by_vlan.unwrap_or(UnparsedIngress));
        assert_eq!(got, if is_plain && by_vlan.is_none() { Ok(()) } else { hidden }, "{pile:x?}");
        assert_eq!(verdict(&mut bench, (H1, PC2), &snap(&lie, &pile, 0)), hidden, "SNAP, {pile:x?}");
    }
}

/// RFC 7113, RFC 6980, RFC 7112: behind extension headers and in fragments.
#[test]
fn what_a_guard_refuses_hides_in_no_extension_header_and_no_fragment() {
    let options = |next: u8, len: usize| {
        let mut header = vec![next, (len / 8 - 1) as u8, 1, (len - 4) as u8];
        header.resize(len, 0);
        header
    };
    let fragment = |next: u8, word: u16| {
        let [o0, o1] = word.to_be_bytes();
        vec![next, 0, o0, o1, 0, 0, 0, 9]
    };
    let routing = |next: u8, kind: u8| [vec![next, 2, kind, 0], vec![0; 20]].concat();
    let wrapped = |first: u8, src: Ipv6Addr, parts: &[&[u8]]| {
        Packet::new(to_all(2), src.into(), ALL_NODES.into(), first).hops(255).of(&parts.concat())
    };
    let all = [
        ("router", link_local(2), advertisement(), RaGuard, vec![133, 0, 0, 0, 0, 0, 0, 0]),
        ("redirect", link_local(2), vec![137; 40], RaGuard, vec![133, 0, 0, 0, 0, 0, 0, 0]),
        ("neighbour", v6(2), neighbour(v6(1)), AntiSpoof, neighbour(v6(2))),
    ];
    for (what, src, lie, why, truth) in all {
        let eight = [options(60, 8).repeat(7), options(58, 8)].concat();
        let nine = [options(60, 8).repeat(8), options(58, 8)].concat();
        let far = options(58, 168);
        // A fragment is no neighbour discovery that anybody may take, so its guard may refuse it first.
        let in_fragment = if why == RaGuard { RaGuard } else { NdGuard };
        let wraps: [(&str, u8, Vec<u8>, DropReason); 9] = [
            ("hop-by-hop options", 0, options(58, 8), why),
            ("destination options", 60, options(58, 8), why),
            ("eight of them", 60, eight, why),
            ("nine", 60, nine, UnparsedEgress),
            ("so long that it is not copied", 60, far, UnparsedEgress),
            ("a routing header", 43, routing(58, 2), why),
            ("an atomic fragment", 44, fragment(58, 0), in_fragment),
            ("a first fragment", 44, fragment(58, 1), in_fragment),
            ("options in a first fragment", 44, [fragment(60, 1), options(58, 8)].concat(), in_fragment),
        ];
        let rows = wraps.map(|(wrap, first, headers, because)| {
            let honest = match because {
                NdGuard | UnparsedEgress => wrapped(58, src, &[&truth]),
                _ if first == 44 => wrapped(58, src, &[&truth]),
                _ => wrapped(first, src, &[&headers, &truth]),
            };
            Row::new(
                format!("{what} in {wrap}"),
                (PC1, H1),
                (wrapped(first, src, &[&headers, &lie]), because),
                honest,
            )
        });
        hold(bench, rows);
        // The message itself in the second fragment: of the first nobody knows what it is.
        let first = wrapped(44, src, &[&fragment(60, 1), &options(58, 24)]);
        let rest = wrapped(44, src, &[&fragment(60, 8), &lie]);
        let honest = wrapped(58, src, &[&truth]);
        let rows = [first, rest].map(|refused| {
            Row::new(
                format!("{what}, cut before it"),
                (PC1, H1),
                (refused, FragmentMalformedEgress),
                honest.clone(),
            )
        });
        hold(bench, rows);
    }
}

/// A DHCP server's answer in fragments: its first one is refused for its ports, so that whoever gets the rest can make nothing of it.
#[test]
fn a_servers_answer_in_fragments_is_refused_where_its_ports_are() {
    let rows = pieces::Sender::families(2, 3, UDP).map(|sender| {
        let ports = |is_answer: bool| match (sender.is_v6(), is_answer) {
            (false, true) => (67, 68),
            (false, false) => (68, 67),
            (true, true) => (547, 546),
            (true, false) => (546, 547),
        };
        let first = |is_answer| sender.piece(0, true, &pieces::udp_start(ports(is_answer), 96, 48));
        // A first one with the same number would be its double.
        let honest = sender.id(8).piece(0, false, &pieces::udp_start(ports(false), 48, 48));
        Row::new(format!("{sender:?}"), (PC1, H1), (first(true), DhcpGuard), honest)
    });
    hold(bench, rows);
}
