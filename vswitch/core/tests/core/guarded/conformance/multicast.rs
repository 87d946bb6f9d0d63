//! IGMP and MLD under rules that allow nothing (the fixed list of `docs/firewall.md`): a host tells its groups, and is asked for them.

use super::{
    super::{H1, PC1, TCP, UDP, allow, pieces::Sender, to_all, to_port, v4},
    Packet, Row, datagram, hold, link_local, pc1_with,
};
use crate::support::lab::Bench;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::{
    build::Ethernet,
    drop_reason::DropReason::{
        self, FragmentEgress, FragmentIngress, PolicyEgress, PolicyIngress, RaGuard, UnparsedEgress,
        UnparsedIngress,
    },
    firewall::policy::Direction,
    mac::MacAddr,
};

const IGMP: u8 = 2;
const ICMPV6: u8 = 58;
const TO_PC1: (u16, u16) = (H1, PC1);
const FROM_PC1: (u16, u16) = (PC1, H1);

/// `pc1` may open TCP to port 80, and nothing else.
fn bench() -> Bench {
    pc1_with(&[allow(Direction::Egress, to_port(TCP, 80))])
}

fn igmp(from: u8, kind: u8) -> Vec<u8> {
    let dst = Ipv4Addr::new(224, 0, 0, 22).into();
    // With router alert, as hosts send them (RFC 3376 §4).
    Packet::new(group(from), v4(from).into(), dst, IGMP)
        .hops(1)
        .options(&[148, 4, 0, 0])
        .of(&[kind, 0, 0, 0, 0, 0, 0, 0])
}

fn group(from: u8) -> Ethernet {
    Ethernet { dst: MacAddr::new([1, 0, 0x5e, 0, 0, 22]), ..to_all(from) }
}

fn group_6() -> Ipv6Addr {
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16)
}

/// A message behind hop-by-hop options with router alert (RFC 2711), as all of MLD is.
fn mld(from: u8, kind: u8, hops: u8) -> Vec<u8> {
    let alert = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat();
    let src = IpAddr::from(link_local(from.into()));
    Packet::new(group(from), src, group_6().into(), 0).hops(hops).of(&[&alert[..], &message].concat())
}

#[test]
fn a_host_tells_its_igmp_groups_and_is_asked_for_them() {
    const QUERY: u8 = 0x11;
    let reports = [0x12, 0x16, 0x17, 0x22];
    // DVMRP, PIM version 1, multicast router discovery (RFC 4286), and numbers that are nothing.
    let others = [0x00, 0x13, 0x14, 0x15, 0x1e, 0x1f, 0x30, 0x31, 0x32, 0xff];
    let row = |what: String, ports, refused, because: DropReason, honest| {
        Row::new(what, ports, (refused, because), honest)
    };
    let leaves = others.into_iter().chain([QUERY]).zip(reports.into_iter().cycle()).map(|(kind, report)| {
        row(format!("{kind:#x} from a guest"), FROM_PC1, igmp(2, kind), PolicyEgress, igmp(2, report))
    });
    let enters = others.into_iter().chain(reports).map(|kind| {
        row(format!("{kind:#x} to a guest"), TO_PC1, igmp(3, kind), PolicyIngress, igmp(3, QUERY))
    });
    let packet = |from: u8| Packet::new(group(from), v4(from).into(), v4(9).into(), IGMP).hops(1);
    let piece = |from: u8| Sender::v4(from, if from == 2 { 3 } else { 2 }, IGMP).piece(8, true, &[0x16; 8]);
    let first = |from: u8, kind| {
        let data = [[kind, 0, 0, 0, 0, 0, 0, 0], [0; 8]].concat();
        Sender::v4(from, if from == 2 { 3 } else { 2 }, IGMP).piece(0, true, &data)
    };
    let empty = |from: u8, kind| [packet(from).of(&[]), vec![kind; 26]].concat();
    let cut = |from: u8, kind| [packet(from).of(&[kind; 7]), vec![0; 19]].concat();
    let shapes = [
        row("a type in the padding".into(), FROM_PC1, empty(2, 0x16), PolicyEgress, igmp(2, 0x16)),
        row("too short for a report".into(), FROM_PC1, cut(2, 0x16), PolicyEgress, igmp(2, 0x16)),
        row("a query in the padding".into(), TO_PC1, empty(3, QUERY), PolicyIngress, igmp(3, QUERY)),
        row("too short for a query".into(), TO_PC1, cut(3, QUERY), PolicyIngress, igmp(3, QUERY)),
        row("the first fragment of a report".into(), FROM_PC1, first(2, 0x16), PolicyEgress, igmp(2, 0x16)),
        row("that of a query".into(), TO_PC1, first(3, QUERY), PolicyIngress, igmp(3, QUERY)),
        row("a later fragment".into(), FROM_PC1, piece(2), FragmentEgress, igmp(2, 0x16)),
        row("a later fragment of a query".into(), TO_PC1, piece(3), FragmentIngress, igmp(3, QUERY)),
    ];
    hold(bench, leaves.chain(enters).chain(shapes));
}

/// RFC 2710 §3, RFC 3810 §5: from a link-local address, one hop far, whole; a query is a router's.
#[test]
fn a_host_tells_its_mld_groups_and_is_asked_for_them() {
    const QUERY: u8 = 130;
    let reports = [131, 132, 143];
    let row = |what: String, ports, refused, because: DropReason, honest| {
        Row::new(what, ports, (refused, because), honest)
    };
    let whole = |from: u8, kind: u8| [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &[from; 16]].concat();
    let atomic = |from: u8, kind: u8| {
        let payload = [&[ICMPV6, 0, 0, 0, 0, 0, 0, 9][..], &whole(from, kind)].concat();
        let src = IpAddr::from(link_local(from.into()));
        Packet::new(group(from), src, group_6().into(), 44).hops(1).of(&payload)
    };
    let mut rows = vec![
        row("a query from a guest".into(), FROM_PC1, mld(2, QUERY, 1), RaGuard, mld(2, 143, 1)),
        row("a query from afar".into(), TO_PC1, mld(3, QUERY, 64), PolicyIngress, mld(3, QUERY, 1)),
        row("a query in a fragment".into(), TO_PC1, atomic(3, QUERY), PolicyIngress, mld(3, QUERY, 1)),
    ];
    for report in reports {
        let what = |what| format!("{report} {what}");
        rows.push(row(what("to a guest"), TO_PC1, mld(3, report, 1), PolicyIngress, mld(3, QUERY, 1)));
        rows.push(row(what("from afar"), FROM_PC1, mld(2, report, 2), PolicyEgress, mld(2, report, 1)));
        rows.push(row(what("in a fragment"), FROM_PC1, atomic(2, report), PolicyEgress, mld(2, report, 1)));
    }
    for kind in [144, 151, 152, 153, 200] {
        rows.push(row(
            format!("{kind} from a guest"),
            FROM_PC1,
            mld(2, kind, 1),
            PolicyEgress,
            mld(2, 143, 1),
        ));
        rows.push(row(
            format!("{kind} to a guest"),
            TO_PC1,
            mld(3, kind, 1),
            PolicyIngress,
            mld(3, QUERY, 1),
        ));
    }
    // Without what it begins with nothing is read of it.
    let cut = |from: u8, kind: u8| {
        let src = IpAddr::from(link_local(from.into()));
        Packet::new(group(from), src, group_6().into(), ICMPV6).hops(1).of(&[kind, 0, 0, 0])
    };
    rows.push(row("a report that is cut".into(), FROM_PC1, cut(2, 143), UnparsedEgress, mld(2, 143, 1)));
    rows.push(row("a query that is cut".into(), TO_PC1, cut(3, QUERY), UnparsedIngress, mld(3, QUERY, 1)));
    hold(bench, rows);
}

/// Neighbour discovery that is a fragment: a receiver must ignore it (RFC 6980 §5), so it is nothing that a link needs, wherever it comes from.
#[test]
fn neighbour_discovery_in_a_fragment_needs_a_rule() {
    let rows = [(133, 8), (134, 16), (135, 24), (136, 24)].into_iter().flat_map(|(kind, len)| {
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        message.resize(len, 0);
        let of = |next, payload: &[u8]| {
            Packet::new(group(3), link_local(3).into(), super::ALL_NODES.into(), next).hops(255).of(payload)
        };
        let honest = of(ICMPV6, &[&[134, 0, 0, 0, 0, 0, 0, 0][..], &[0; 8]].concat());
        [0u8, 1].map(|more| {
            let fragment = of(44, &[&[ICMPV6, 0, 0, more, 0, 0, 0, 9][..], &message].concat());
            Row::new(format!("type {kind}, more {more}"), TO_PC1, (fragment, PolicyIngress), honest.clone())
        })
    });
    hold(bench, rows);
}

/// A group that was joined gets what rules let in: data has no place in the list.
#[test]
fn data_to_a_group_needs_a_rule() {
    let data = |from: u8, port| {
        Packet::new(group(from), v4(from).into(), Ipv4Addr::new(239, 1, 1, 1).into(), UDP)
            .of(&datagram((9, port)))
    };
    let allowed = allow(Direction::Ingress, to_port(UDP, 5000));
    let rows = [5353u16, 5355, 1900, 5001].map(|port| {
        Row::new(format!("to port {port}"), TO_PC1, (data(3, port), PolicyIngress), data(3, 5000))
    });
    hold(|| pc1_with(std::slice::from_ref(&allowed)), rows);
    let rows = [5353u16, 5355, 1900].map(|port| {
        Row::new(
            format!("from a guest to port {port}"),
            FROM_PC1,
            (data(2, port), PolicyEgress),
            igmp(2, 0x16),
        )
    });
    hold(bench, rows);
}
