//! What a router translates: where packets go on, how they look then, and how what answers them finds back.

mod limits;

use super::{GATEWAY, link, v4, v6};
use crate::support::lab::{Bench, Lab, access, mac, router, vlan};
use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use proptest::prelude::*;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use vswitch_core::{
    build::{self, Addresses, Echo},
    clock::Instant,
    decide::{Change, Edit, Fate, Ingress, Rows, Untagged},
    description::{self, Nat, NatRule, Origin},
    drop_reason::DropReason,
    head::{FrameView, HEAD_BYTES, LinkHeader, TAG_LEN},
    id::Epoch,
    route::Translations,
    trace::Recorder,
};

/// Places of the ports: users, servers, and what is outside.
const PC1: u16 = 0;
const PC2: u16 = 1;
const WEB1: u16 = 2;
const WEB2: u16 = 3;
const NET: u16 = 4;
const ROUTERS: u16 = 5;

/// Stations by the place of their port.
fn station(port: u16) -> u8 {
    port as u8 + 1
}

const WAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const WAN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// Somebody far outside.
const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xfa7, 0, 0, 0, 0, 7);
/// What pc2 is outside.
const PC2_OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

fn rules() -> Vec<NatRule> {
    let web1: IpAddr = v4(20, 3).into();
    vec![
        NatRule::Masquerade { vlan: vlan(30) },
        NatRule::Forward { protocol: 6, port: 8080, host: web1, host_port: 80 },
        NatRule::Forward { protocol: 17, port: 8053, host: web1, host_port: 53 },
        NatRule::Static { outside: PC2_OUTSIDE.into(), vlan: vlan(10), host: v4(10, 2).into() },
    ]
}

/// `pc1`, `pc2` in VLAN 10, `web1`, `web2` in VLAN 20, and `net` in VLAN 30, by which everything else is reached.
fn lab(wan: [&str; 2], rules: Vec<NatRule>) -> Lab {
    let gateways: &[(u16, &[&str])] =
        &[(10, &["10.0.10.254/24", "fd10::fe/64"]), (20, &["10.0.20.254/24", "fd20::fe/64"]), (30, &wan)];
    let routes = ["0.0.0.0/0 via 192.0.2.1", "::/0 via 2001:db8::1"];
    let origin = Origin { line: 300, column: 1 };
    let nat = rules.into_iter().map(|rule| Nat { rule, origin }).collect();
    Lab::new()
        .switch("sw1")
        .port("pc1", 0, access(10))
        .port("pc2", 0, access(10))
        .port("web1", 0, access(20))
        .port("web2", 0, access(20))
        .port("net", 0, access(30))
        .routed(|routing| {
            routing.routers.push(description::Router { nat, ..router("default", gateways, &routes) });
        })
}

fn usual() -> Lab {
    lab(["192.0.2.2/24", "2001:db8::2/64"], rules())
}

/// All stations are known, to the switch and to the router.
fn open(lab: &Lab) -> Bench {
    let mut bench = lab.bench();
    for (port, vlan_id) in [(PC1, 10), (PC2, 10), (WEB1, 20), (WEB2, 20), (NET, 30)] {
        let n = station(port);
        let hello = build::arp_request(link(n, GATEWAY), v4(vlan_id, n), v4(vlan_id, 254));
        assert_eq!(bench.send(port, &hello).0, Fate::Unicast, "{}", bench.story());
        let (own, own6) = match port {
            NET => (Ipv4Addr::new(192, 0, 2, 1), "2001:db8::1".parse().unwrap()),
            _ => (v4(vlan_id, n), v6(vlan_id, n)),
        };
        bench.neighbours.set(vlan(vlan_id), own.into(), mac(n), bench.now);
        bench.neighbours.set(vlan(vlan_id), own6.into(), mac(n), bench.now);
    }
    bench
}

/// Where a frame goes, and how it looks then, or why it does not.
type Left = Result<(u16, Vec<u8>), DropReason>;

/// Where a frame goes that comes in there, and how it looks then; its checksums are right, as etherparse computes them.
fn pass(bench: &mut Bench, port: u16, frame: &[u8]) -> Left {
    let (to, left) = pass_any(bench, port, frame)?;
    if to != ROUTERS {
        assert_sound(&left);
    }
    Ok((to, left))
}

/// The same of one whose checksums were never right.
fn pass_any(bench: &mut Bench, port: u16, frame: &[u8]) -> Left {
    let bytes = &frame[..frame.len().min(HEAD_BYTES)];
    let len = frame.len() as u32;
    let link = LinkHeader::parse(bytes, len)?;
    let view = FrameView { link: &link, bytes, len, wire_len: len };
    let (mut copies, mut recorder) = (vec![], Recorder::default());
    let decision = bench.switch().judge(port, &view, &mut copies, &mut recorder);
    bench.steps = recorder.steps.iter().map(ToString::to_string).collect();
    if let Fate::Dropped(reason) = decision.fate {
        return Err(reason);
    }
    assert_eq!(copies.len(), 1, "{}", bench.story());
    let edit = Edit { tag: copies[0].outcome?, rewrite: decision.rewrite };
    Ok((copies[0].to, changed(Change::of(edit, decision.translation.as_ref()), frame)))
}

/// A frame after a change: the same computed once for many, if it is of that kind.
fn changed(change: Change<'_>, frame: &[u8]) -> Vec<u8> {
    let judged = &frame[..frame.len().min(HEAD_BYTES)];
    let mut head = [0; HEAD_BYTES + TAG_LEN];
    let length = change.apply(judged, &mut head);
    if let Some(untagged) = Untagged::of(&change) {
        let mut other = [0; HEAD_BYTES + TAG_LEN];
        let same = untagged.same_from()..length;
        other[same.clone()].copy_from_slice(&judged[same]);
        assert!(untagged.front(judged, |at, bytes| other[at..at + bytes.len()].copy_from_slice(bytes)));
        assert_eq!(head[..length], other[..length]);
    }
    [&head[..length], &frame[judged.len()..]].concat()
}

/// The same of one that passes.
fn only(bench: &mut Bench, port: u16, frame: &[u8]) -> (u16, Vec<u8>) {
    pass(bench, port, frame).unwrap_or_else(|why| panic!("{why:?}: {}", bench.story()))
}

fn assert_sound(frame: &[u8]) {
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a whole packet");
    let payload = headers.payload.slice();
    match (headers.net.expect("IP"), headers.transport) {
        (NetHeaders::Ipv4(ip, _), transport) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "the header's checksum");
            match transport {
                Some(TransportHeader::Udp(udp)) => {
                    assert_eq!(udp.checksum, udp.calc_checksum_ipv4(&ip, payload).unwrap());
                }
                Some(TransportHeader::Tcp(tcp)) => {
                    assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(&ip, payload).unwrap());
                }
                Some(TransportHeader::Icmpv4(icmp)) => {
                    assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(payload));
                }
                _ => {}
            }
        }
        (NetHeaders::Ipv6(ip, _), transport) => match transport {
            Some(TransportHeader::Udp(udp)) => {
                assert_eq!(udp.checksum, udp.calc_checksum_ipv6(&ip, payload).unwrap());
            }
            Some(TransportHeader::Tcp(tcp)) => {
                assert_eq!(tcp.checksum, tcp.calc_checksum_ipv6(&ip, payload).unwrap());
            }
            Some(TransportHeader::Icmpv6(icmp)) => {
                let expected = icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload).unwrap();
                assert_eq!(icmp.checksum, expected);
            }
            _ => {}
        },
        (NetHeaders::Arp(_), _) => panic!("ARP"),
    }
}

/// Source and destination; of a query both ports are its identifier.
fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a whole packet");
    let (src, dst): (IpAddr, IpAddr) = match headers.net.expect("IP") {
        NetHeaders::Ipv4(ip, _) => (Ipv4Addr::from(ip.source).into(), Ipv4Addr::from(ip.destination).into()),
        NetHeaders::Ipv6(ip, _) => (Ipv6Addr::from(ip.source).into(), Ipv6Addr::from(ip.destination).into()),
        NetHeaders::Arp(_) => panic!("ARP"),
    };
    let (from, to) = match headers.transport {
        Some(TransportHeader::Udp(udp)) => (udp.source_port, udp.destination_port),
        Some(TransportHeader::Tcp(tcp)) => (tcp.source_port, tcp.destination_port),
        Some(TransportHeader::Icmpv4(_)) => (id_at(frame, 38), id_at(frame, 38)),
        Some(TransportHeader::Icmpv6(_)) => (id_at(frame, 58), id_at(frame, 58)),
        _ => (0, 0),
    };
    (SocketAddr::new(src, from), SocketAddr::new(dst, to))
}

fn id_at(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn socket(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

fn both(src: SocketAddr, dst: SocketAddr) -> (Addresses, (u16, u16)) {
    let addresses = match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Addresses::V4(src, dst),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Addresses::V6(src, dst),
        _ => panic!("of one version"),
    };
    (addresses, (src.port(), dst.port()))
}

/// From the station at a port, by the gateway.
fn udp(port: u16, src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    let (addresses, ports) = both(src, dst);
    build::udp(link(station(port), GATEWAY), addresses, ports, b"hello")
}

fn tcp(port: u16, src: SocketAddr, dst: SocketAddr, (flags, seq, ack): (u8, u32, u32)) -> Vec<u8> {
    let (addresses, (from, to)) = both(src, dst);
    let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    build::ip(link(station(port), GATEWAY), addresses, 6, 64, segment, 16)
}

fn ping(port: u16, src: SocketAddr, dst: SocketAddr, half: Echo) -> Vec<u8> {
    let (addresses, (id, _)) = both(src, dst);
    build::echo(link(station(port), GATEWAY), addresses, half, id, 1, b"hello")
}

const SYN: u8 = 2;
const ACK: u8 = 16;

#[test]
fn questions_for_names_have_ports_from_which_no_router_asks() {
    let mut bench = open(&usual());
    for (own, dst, keeps) in
        [(60_000, socket(FAR, 53), false), (60_000, socket(FAR, 54), true), (5000, socket(FAR, 53), true)]
    {
        let (_, frame) = only(&mut bench, PC1, &udp(PC1, socket(v4(10, 1), own), dst));
        let (src, _) = ends(&frame);
        assert_eq!(src.ip(), IpAddr::from(WAN));
        assert_eq!((src.port() == own, src.port() < 49152), (keeps, dst.port() == 53), "{own} to {dst}");
    }
}

#[test]
fn what_goes_out_has_the_routers_address_and_answers_find_back() {
    let mut bench = open(&usual());
    let hosts: [(IpAddr, IpAddr, IpAddr); 2] =
        [(v4(10, 1).into(), FAR.into(), WAN.into()), (v6(10, 1).into(), FAR6.into(), WAN6.into())];
    for (pc1, far, wan) in hosts {
        let (inside, outside) = (socket(pc1, 4000), socket(far, 53));
        let (to, left) = only(&mut bench, PC1, &udp(PC1, inside, outside));
        assert_eq!((to, ends(&left)), (NET, (socket(wan, 4000), outside)), "{}", bench.story());
        let (to, left) = only(&mut bench, NET, &udp(NET, outside, socket(wan, 4000)));
        assert_eq!((to, ends(&left)), (PC1, (outside, inside)), "{}", bench.story());

        let web = socket(far, 80);
        let segments = [
            (PC1, inside, web, (SYN, 100, 0)),
            (NET, web, socket(wan, 4000), (SYN | ACK, 700, 101)),
            (PC1, inside, web, (ACK, 101, 701)),
        ];
        for (port, src, dst, says) in segments {
            let (to, left) = only(&mut bench, port, &tcp(port, src, dst, says));
            let expected = if port == PC1 { (NET, (socket(wan, 4000), web)) } else { (PC1, (web, inside)) };
            assert_eq!((to, ends(&left)), expected, "{}", bench.story());
        }

        let (inside, outside) = (socket(pc1, 77), socket(far, 77));
        let (to, left) = only(&mut bench, PC1, &ping(PC1, inside, outside, Echo::Request));
        assert_eq!((to, ends(&left)), (NET, (socket(wan, 77), outside)), "{}", bench.story());
        let (to, left) = only(&mut bench, NET, &ping(NET, outside, socket(wan, 77), Echo::Reply));
        assert_eq!((to, ends(&left)), (PC1, (outside, inside)), "{}", bench.story());
    }
}

#[test]
fn each_step_of_the_way_is_told() {
    let mut bench = open(&usual());
    only(&mut bench, PC1, &udp(PC1, socket(v4(10, 1), 4000), socket(FAR, 53)));
    insta::assert_snapshot!(bench.story(), @r"
    came in at pc1:eth0 (line 2), 47 bytes, 02:00:00:00:00:01 -> 02:00:00:00:00:63, IPv4 10.0.10.1 > 203.0.113.7 UDP 4000 > 53
    admitted by sw1 to VLAN users (10) as untagged
    FDB of sw1: 02:00:00:00:00:63 is on @routers:eth0, as the topology file says
    router default: the route to 0.0.0.0/0 (line 201) leads to 192.0.2.1 (02:00:00:00:00:05) in VLAN guests (30)
    translated: goes on from 192.0.2.2:4000 to 203.0.113.7:53
    FDB of sw1: 02:00:00:00:00:05 is on net:eth0
    ");
    only(&mut bench, NET, &udp(NET, socket(FAR, 53), socket(WAN, 4000)));
    insta::assert_snapshot!(bench.story(), @r"
    came in at net:eth0 (line 6), 47 bytes, 02:00:00:00:00:05 -> 02:00:00:00:00:63, IPv4 203.0.113.7 > 192.0.2.2 UDP 53 > 4000
    admitted by sw1 to VLAN guests (30) as untagged
    FDB of sw1: 02:00:00:00:00:63 is on @routers:eth0, as the topology file says
    translated: goes on from 203.0.113.7:53 to 10.0.10.1:4000
    router default: the route to 10.0.10.0/24 (line 101) leads to 10.0.10.1 (02:00:00:00:00:01) in VLAN users (10)
    FDB of sw1: 02:00:00:00:00:01 is on pc1:eth0
    ");
}

#[test]
fn what_stays_inside_is_not_translated() {
    let mut bench = open(&usual());
    let (pc1, web1) = (socket(v4(10, 1), 4000), socket(v4(20, 3), 53));
    let (to, left) = only(&mut bench, PC1, &udp(PC1, pc1, web1));
    assert_eq!((to, ends(&left)), (WEB1, (pc1, web1)));
    assert_eq!(bench.connections.counts().opened, 0, "and takes no room");
}

#[test]
fn who_comes_in_by_an_address_inside_is_answered_from_it() {
    let mut bench = open(&usual());
    let far = socket(FAR, 7000);
    for (inside, to) in [(socket(v4(10, 1), 80), PC1), (socket(v4(20, 3), 80), WEB1)] {
        for (asks, answers) in [
            (udp(NET, far, inside), udp(to, inside, far)),
            (tcp(NET, far, inside, (SYN, 1, 0)), tcp(to, inside, far, (SYN | ACK, 1, 2))),
        ] {
            let (port, left) = only(&mut bench, NET, &asks);
            assert_eq!((port, ends(&left)), (to, (far, inside)), "{}", bench.story());
            let (port, left) = only(&mut bench, to, &answers);
            assert_eq!((port, ends(&left)), (NET, (inside, far)), "{}", bench.story());
        }
        let (own, query) = (SocketAddr::new(inside.ip(), 3), socket(FAR, 3));
        only(&mut bench, NET, &ping(NET, query, own, Echo::Request));
        let (port, left) = only(&mut bench, to, &ping(to, own, query, Echo::Reply));
        assert_eq!((port, ends(&left)), (NET, (own, query)), "{}", bench.story());
    }
    // And what it begins itself goes out by the router's address, to the same.
    let (_, left) = only(&mut bench, PC1, &udp(PC1, socket(v4(10, 1), 81), far));
    assert_eq!(ends(&left).0, socket(WAN, 81));
}

#[test]
fn two_hosts_with_one_port_have_two_outside() {
    let rules = vec![NatRule::Masquerade { vlan: vlan(30) }];
    let mut bench = open(&lab(["192.0.2.2/24", "2001:db8::2/64"], rules));
    let far = socket(FAR, 53);
    let mut ports = BTreeSet::new();
    for (port, host) in [(PC1, v4(10, 1)), (PC2, v4(10, 2)), (WEB1, v4(20, 3)), (WEB2, v4(20, 4))] {
        let (_, left) = only(&mut bench, port, &udp(port, socket(host, 4000), far));
        let (outside, _) = ends(&left);
        assert!(outside.ip() == WAN && ports.insert(outside.port()), "{outside} is taken");
        let (to, left) = only(&mut bench, NET, &udp(NET, far, outside));
        assert_eq!((to, ends(&left)), (port, (far, socket(host, 4000))), "{}", bench.story());
    }
    assert!(ports.contains(&4000), "the first keeps its own");
    assert!(ports.iter().all(|port| *port >= 1024));
}

#[test]
fn what_came_by_a_forwarded_port_before_the_switch_began_goes_on_by_it() {
    let mut bench = open(&usual());
    bench.connections.pick_up_until(bench.now + Duration::from_secs(60));
    let (web1, far, published) = (socket(v4(20, 3), 80), socket(FAR, 45316), socket(WAN, 8080));
    let (to, left) = pass(&mut bench, WEB1, &tcp(WEB1, web1, far, (ACK, 7, 1))).expect("it goes on");
    assert_eq!((to, ends(&left)), (NET, (published, far)), "{}", bench.story());
    let (to, left) = pass(&mut bench, NET, &tcp(NET, far, published, (ACK, 1, 8))).expect("it goes on");
    assert_eq!((to, ends(&left)), (WEB1, (far, web1)), "{}", bench.story());
    // Others keep their port, and what begins now is a connection of the host's own.
    let own = tcp(WEB1, socket(v4(20, 3), 81), far, (ACK, 7, 1));
    assert_eq!(ends(&pass(&mut bench, WEB1, &own).expect("it goes on").1).0, socket(WAN, 81));
    let begins = tcp(WEB1, web1, socket(FAR, 1), (SYN, 7, 0));
    assert_eq!(ends(&pass(&mut bench, WEB1, &begins).expect("it goes on").1).0, socket(WAN, 80));
}

#[test]
fn a_forwarded_port_leads_to_its_host_from_outside_from_inside_and_from_beside() {
    let mut bench = open(&usual());
    let (web1, published) = (socket(v4(20, 3), 80), socket(WAN, 8080));
    for (port, client) in [(NET, socket(FAR, 5000)), (PC1, socket(v4(10, 1), 5000))] {
        let (to, left) = only(&mut bench, port, &tcp(port, client, published, (SYN, 1, 0)));
        assert_eq!((to, ends(&left)), (WEB1, (client, web1)), "{}", bench.story());
        let (to, left) = only(&mut bench, WEB1, &tcp(WEB1, web1, client, (SYN | ACK, 1, 2)));
        assert_eq!((to, ends(&left)), (port, (published, client)), "{}", bench.story());
    }
    // From its own network: by the router there and back, else it would answer to whom nobody asked.
    let client = socket(v4(20, 4), 5000);
    let (to, left) = only(&mut bench, WEB2, &tcp(WEB2, client, published, (SYN, 1, 0)));
    let (seen, dst) = ends(&left);
    assert_eq!((to, seen.ip(), dst), (WEB1, v4(20, 254).into(), web1), "{}", bench.story());
    let (to, left) = only(&mut bench, WEB1, &tcp(WEB1, web1, seen, (SYN | ACK, 1, 2)));
    assert_eq!((to, ends(&left)), (WEB2, (published, client)), "{}", bench.story());
    // Other ports, and other protocols, are the router's own.
    for frame in [
        tcp(NET, socket(FAR, 5000), socket(WAN, 8081), (SYN, 1, 0)),
        udp(NET, socket(FAR, 5000), published),
        ping(NET, socket(FAR, 9), socket(WAN, 9), Echo::Request),
    ] {
        assert_eq!(only(&mut bench, NET, &frame).0, ROUTERS, "{}", bench.story());
    }
    // Inside there are none.
    let inside = tcp(PC1, socket(v4(10, 1), 5001), socket(v4(10, 254), 8080), (SYN, 1, 0));
    assert_eq!(only(&mut bench, PC1, &inside).0, ROUTERS, "{}", bench.story());
}

#[test]
fn a_host_with_an_address_outside_has_it_both_ways_and_for_all() {
    let mut bench = open(&usual());
    let (pc2, far) = (socket(v4(10, 2), 6), socket(FAR, 6));
    let outside = socket(PC2_OUTSIDE, 6);
    let (to, left) = only(&mut bench, NET, &ping(NET, far, outside, Echo::Request));
    assert_eq!((to, ends(&left)), (PC2, (far, pc2)), "{}", bench.story());
    let (to, left) = only(&mut bench, PC2, &ping(PC2, pc2, far, Echo::Reply));
    assert_eq!((to, ends(&left)), (NET, (outside, far)), "{}", bench.story());
    let (_, left) = only(&mut bench, PC2, &udp(PC2, pc2, far));
    assert_eq!(ends(&left), (outside, far), "{}", bench.story());
    // From a neighbour of its own network, too.
    let pc1 = socket(v4(10, 1), 7);
    let (to, left) = only(&mut bench, PC1, &udp(PC1, pc1, outside));
    let (seen, dst) = ends(&left);
    assert_eq!((to, seen.ip(), dst), (PC2, v4(10, 254).into(), pc2), "{}", bench.story());
    let (to, left) = only(&mut bench, PC2, &udp(PC2, pc2, seen));
    assert_eq!((to, ends(&left)), (PC1, (outside, pc1)), "{}", bench.story());
}

/// An ICMP error about a packet, from this address, as the station at a port sends it by the gateway.
fn error(port: u16, from: IpAddr, about: &[u8], kind: [u8; 2]) -> Vec<u8> {
    let (src, _) = ends(about);
    let mut message = [&kind[..], &[0; 6]].concat();
    message.extend(&about[14..]);
    let (addresses, _) = both(SocketAddr::new(from, 0), src);
    let protocol = if from.is_ipv4() { 1 } else { 58 };
    build::ip(link(station(port), GATEWAY), addresses, protocol, 64, message, 2)
}

/// The packet that an error quotes.
fn quoted(frame: &[u8]) -> &[u8] {
    let header = if frame[14] >> 4 == 4 { 20 } else { 40 };
    &frame[14 + header + 8..]
}

/// The packet in a frame with the hops, and of IPv4 the checksum, that it had on the way.
fn packet_as(frame: &[u8], on_its_way: &[u8]) -> Vec<u8> {
    let mut packet = frame[14..].to_vec();
    if packet[0] >> 4 == 4 {
        packet[8] = on_its_way[8];
        packet[10..12].copy_from_slice(&on_its_way[10..12]);
    } else {
        packet[7] = on_its_way[7];
    }
    packet
}

#[test]
fn errors_about_translated_packets_reach_who_sent_them_as_they_were_sent() {
    let mut bench = open(&usual());
    let hosts: [(IpAddr, IpAddr, IpAddr, [u8; 2]); 2] = [
        (v4(10, 1).into(), FAR.into(), Ipv4Addr::new(198, 51, 100, 1).into(), [11, 0]),
        (v6(10, 1).into(), FAR6.into(), "2001:db8:99::1".parse().unwrap(), [3, 0]),
    ];
    for (pc1, far, hop, kind) in hosts {
        let syn = tcp(PC1, socket(pc1, 4000), socket(far, 80), (SYN, 100, 0));
        let packets = [
            udp(PC1, socket(pc1, 4000), socket(far, 53)),
            ping(PC1, socket(pc1, 5), socket(far, 5), Echo::Request),
            syn,
        ];
        for sent in packets {
            let (_, left) = only(&mut bench, PC1, &sent);
            let (to, told) = only(&mut bench, NET, &error(NET, hop, &left, kind));
            let (src, dst) = ends(&told);
            assert_eq!((to, src.ip(), dst.ip()), (PC1, hop, pc1), "{}", bench.story());
            let inner = quoted(&told);
            assert_eq!(inner, packet_as(&sent, inner), "as it was sent");
        }
        // About what nobody sent: it is for the router, who has no use for it.
        let never = udp(PC1, socket(bench_wan(pc1), 4999), socket(far, 53));
        assert_eq!(only(&mut bench, NET, &error(NET, hop, &never, kind)).0, ROUTERS);
    }
}

fn bench_wan(of: IpAddr) -> IpAddr {
    if of.is_ipv4() { WAN.into() } else { WAN6.into() }
}

#[test]
fn an_error_from_inside_does_not_tell_who_is_there() {
    let mut bench = open(&usual());
    let client = socket(FAR, 5000);
    let asks = udp(NET, client, socket(WAN, 8053));
    let (_, left) = only(&mut bench, NET, &asks);
    let (to, told) = only(&mut bench, WEB1, &error(WEB1, v4(20, 3).into(), &left, [3, 3]));
    let (src, dst) = ends(&told);
    assert_eq!((to, src.ip(), dst.ip()), (NET, WAN.into(), client.ip()), "{}", bench.story());
    let inner = quoted(&told);
    assert_eq!(inner, packet_as(&asks, inner));
}

#[test]
fn what_belongs_to_no_connection_is_not_translated() {
    let mut bench = open(&usual());
    let (pc1, far) = (socket(v4(10, 1), 4000), socket(FAR, 80));
    let cases = [
        (tcp(PC1, pc1, far, (ACK, 5, 5)), DropReason::NatInvalid),
        (ping(PC1, pc1, far, Echo::Reply), DropReason::NatInvalid),
        (error(PC1, v4(10, 1).into(), &udp(NET, far, pc1), [3, 3]), DropReason::NatInvalid),
    ];
    for (frame, why) in cases {
        assert_eq!(pass(&mut bench, PC1, &frame), Err(why), "{}", bench.story());
    }
    let mut first = udp(PC1, pc1, far);
    // "More fragments" (RFC 791 §3.1), and the checksum of a header in which 0x2000 was added.
    first[20] |= 0x20;
    let before = u16::from_be_bytes([first[24], first[25]]);
    let sum = u32::from(!before) + 0x2000;
    first[24..26].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    assert_eq!(pass(&mut bench, PC1, &first), Err(DropReason::NatFragment), "{}", bench.story());
}

#[test]
fn a_protocol_without_ports_has_one_host_for_each_address_outside() {
    let rules = vec![NatRule::Masquerade { vlan: vlan(30) }];
    let mut bench = open(&lab(["192.0.2.2/24", "2001:db8::2/64"], rules));
    const GRE: u8 = 47;
    let gre = |port: u16, src, dst| {
        build::ip(link(station(port), GATEWAY), Addresses::V4(src, dst), GRE, 64, vec![0; 8], 6)
    };
    let sound = |bench: &mut Bench, port, frame: &[u8]| pass(bench, port, frame).map(|(to, _)| to);
    assert_eq!(sound(&mut bench, PC1, &gre(PC1, v4(10, 1), FAR)), Ok(NET));
    assert_eq!(sound(&mut bench, PC2, &gre(PC2, v4(10, 2), FAR)), Err(DropReason::NatExhausted));
    assert_eq!(sound(&mut bench, NET, &gre(NET, FAR, WAN)), Ok(PC1), "{}", bench.story());
    // When the first has been silent for long the other may.
    bench.now = Instant::from_nanos(3_600_000_000_000);
    bench.neighbours.set(vlan(30), Ipv4Addr::new(192, 0, 2, 1).into(), mac(station(NET)), bench.now);
    assert_eq!(sound(&mut bench, PC2, &gre(PC2, v4(10, 2), FAR)), Ok(NET), "{}", bench.story());
}

#[test]
fn a_connection_goes_on_under_other_rules_if_these_say_the_same() {
    let mut bench = open(&usual());
    let (pc1, far) = (socket(v4(10, 1), 4000), socket(FAR, 53));
    only(&mut bench, PC1, &udp(PC1, pc1, far));
    let again = |epoch, mut lab: Lab| {
        lab.description.epoch = Epoch::new(epoch);
        lab
    };
    let mut fewer = rules();
    fewer.truncate(1);
    bench.adopt(&again(2, lab(["192.0.2.2/24", "2001:db8::2/64"], fewer.clone())));
    let (to, left) = only(&mut bench, NET, &udp(NET, far, socket(WAN, 4000)));
    assert_eq!((to, ends(&left)), (PC1, (far, pc1)), "{}", bench.story());
    // The router has another address now: what comes for the one before is nobody's.
    bench.adopt(&again(3, lab(["192.0.2.3/24", "2001:db8::2/64"], fewer)));
    let late = pass(&mut bench, NET, &udp(NET, far, socket(WAN, 4000)));
    assert!(!matches!(late, Ok((PC1, _))), "{}", bench.story());
    let (_, left) = only(&mut bench, PC1, &udp(PC1, pc1, far));
    assert_eq!(ends(&left), (socket(Ipv4Addr::new(192, 0, 2, 3), 4000), far), "{}", bench.story());
}

#[test]
fn what_is_only_imagined_opens_nothing() {
    let mut bench = open(&usual());
    bench.learning = false;
    let (to, left) = only(&mut bench, PC1, &udp(PC1, socket(v4(10, 1), 4000), socket(FAR, 53)));
    assert_eq!((to, ends(&left).0), (NET, socket(WAN, 4000)), "{}", bench.story());
    assert_eq!(bench.connections.counts().opened, 0);
}

#[test]
fn a_packet_that_waits_opens_nothing_until_it_goes_on() {
    let mut bench = open(&usual());
    bench.neighbours.forget(vlan(30), Ipv4Addr::new(192, 0, 2, 1).into());
    let frame = udp(PC1, socket(v4(10, 1), 4000), socket(FAR, 53));
    assert_eq!(only(&mut bench, PC1, &frame).0, ROUTERS, "{}", bench.story());
    assert_eq!(bench.connections.counts().opened, 0);
    bench.neighbours.set(vlan(30), Ipv4Addr::new(192, 0, 2, 1).into(), mac(station(NET)), bench.now);
    // As the routers' port says it again: with the tag of its VLAN.
    let mut again = frame[..12].to_vec();
    again.extend([0x81, 0, 0, 10]);
    again.extend(&frame[12..]);
    let (to, left) = only(&mut bench, ROUTERS, &again);
    assert_eq!((to, ends(&left).0), (NET, socket(WAN, 4000)), "{}", bench.story());
    assert_eq!(bench.connections.counts().opened, 1);
}

/// What leaves of each frame of a batch, and how many of them were decided by themselves.
fn pass_all(bench: &mut Bench, port: u16, frames: &[Vec<u8>]) -> (Vec<Left>, usize) {
    let (mut left, mut alone, mut rows) = (vec![], 0, Rows::default());
    let mut translations = Translations::default();
    Ingress::new(bench.switch(), port)
        .read(|at| frames[at..].iter().map(|frame| (frame.first_chunk(), frame.len() as u32)), &mut rows);
    Ingress::new(bench.switch(), port).place(&mut rows);
    loop {
        let from = |at: usize| {
            frames[at..].iter().map(|frame| (&frame[..frame.len().min(HEAD_BYTES)], frame.len() as u32))
        };
        let mut ways = vec![];
        Ingress::new(bench.switch(), port).ways(&mut rows, from, &mut translations, |way, places| {
            ways.push((way, places));
        });
        for (way, places) in ways {
            assert_eq!(places.start, left.len(), "in order");
            let translation = translations.of(way.edit.rewrite.as_ref());
            let change = Change::of(way.edit, translation);
            left.extend(frames[places].iter().map(|frame| Ok((way.to, changed(change, frame)))));
        }
        if rows.is_done() {
            return (left, alone);
        }
        left.push(pass_any(bench, port, &frames[left.len()]));
        alone += 1;
        rows.skip();
    }
}

/// Ten connections from pc1 and pc2 that are established, with what they are outside.
fn established(bench: &mut Bench) -> Vec<(u16, SocketAddr, SocketAddr, SocketAddr, bool)> {
    let mut all = vec![];
    for n in 0..10 {
        let (port, host) = if n % 2 == 0 { (PC1, v4(10, 1)) } else { (PC2, v4(10, 2)) };
        let (inside, far) = (socket(host, 5000 + n / 4), socket(FAR, 80 + n % 4));
        let is_tcp = n % 3 != 0;
        let asks = if is_tcp { tcp(port, inside, far, (SYN, 1, 0)) } else { udp(port, inside, far) };
        let (outside, _) = ends(&only(bench, port, &asks).1);
        let answers = if is_tcp { tcp(NET, far, outside, (SYN | ACK, 1, 2)) } else { udp(NET, far, outside) };
        only(bench, NET, &answers);
        if is_tcp {
            only(bench, port, &tcp(port, inside, far, (ACK, 2, 2)));
        }
        all.push((port, inside, far, outside, is_tcp));
    }
    all
}

#[test]
fn packets_of_established_connections_need_no_decision_each() {
    let mut bench = open(&usual());
    let all = established(&mut bench);
    for (port, inside, far, outside, is_tcp) in all {
        let asks = if is_tcp { tcp(port, inside, far, (ACK, 2, 2)) } else { udp(port, inside, far) };
        let answers = if is_tcp { tcp(NET, far, outside, (ACK, 2, 2)) } else { udp(NET, far, outside) };
        for (port, frame) in [(port, asks), (NET, answers)] {
            let (left, alone) = pass_all(&mut bench, port, &vec![frame; 40]);
            assert_eq!((left.len(), alone), (40, 0), "{inside} {far}");
            left.iter().for_each(|left| assert_sound(&left.as_ref().expect("it goes on").1));
        }
    }
}

#[test]
fn datagrams_that_nobody_answers_need_no_decision_each_and_their_first_answer_does() {
    let mut bench = open(&usual());
    let (inside, far) = (socket(v4(10, 1), 5000), socket(FAR, 514));
    let asks = udp(PC1, inside, far);
    let (outside, _) = ends(&only(&mut bench, PC1, &asks).1);
    let (left, alone) = pass_all(&mut bench, PC1, &vec![asks; 40]);
    assert_eq!((left.len(), alone), (40, 0));
    left.iter().for_each(|left| assert_sound(&left.as_ref().expect("it goes on").1));
    let answers = vec![udp(NET, far, outside); 40];
    assert_eq!(pass_all(&mut bench, NET, &answers).1, 1, "it is answered from then on");
    assert_eq!(pass_all(&mut bench, NET, &answers).1, 0);
}

proptest! {
    /// In whatever order, with whatever else between: what leaves of a batch, and what stays of it in the table, is what comes of each by itself.
    #[test]
    fn a_batch_is_translated_as_its_frames_are_one_by_one(
        batches in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec((0..13usize, 1..5usize, prop::option::of((14..60usize, any::<u8>()))), 1..12)),
            1..6,
        ),
    ) {
        let (mut rule, mut bench) = (open(&usual()), open(&usual()));
        let all = established(&mut rule);
        prop_assert_eq!(&established(&mut bench), &all);
        for (inward, picked) in batches {
            let mut frames = vec![];
            let port = if inward { NET } else { PC1 };
            for (which, times, flip) in picked {
                let mut frame = match all.get(which).copied() {
                    Some((_, _, far, outside, true)) if inward => tcp(NET, far, outside, (ACK, 2, 2)),
                    Some((_, _, far, outside, false)) if inward => udp(NET, far, outside),
                    Some((PC1, inside, far, _, true)) => tcp(PC1, inside, far, (ACK, 2, 2)),
                    Some((PC1, inside, far, _, false)) => udp(PC1, inside, far),
                    // What nobody forwards, what stays inside, what is new.
                    _ if inward => udp(NET, socket(FAR, 9), socket(WAN, 9)),
                    _ if which % 2 == 0 => udp(PC1, socket(v4(10, 1), 9), socket(v4(20, 3), 9)),
                    _ => udp(PC1, socket(v4(10, 1), 9), socket(FAR, 9)),
                };
                if let Some((at, with)) = flip
                    && let Some(byte) = frame.get_mut(at)
                {
                    *byte = with;
                }
                frames.extend(vec![frame; times]);
            }
            let (left, _) = pass_all(&mut bench, port, &frames);
            let expected: Vec<_> = frames.iter().map(|frame| pass_any(&mut rule, port, frame)).collect();
            prop_assert_eq!(left, expected);
        }
        let rows = |bench: &Bench| {
            let mut rows = vec![];
            bench.connections.list(0, usize::MAX, bench.now, |row| rows.push(row));
            rows
        };
        prop_assert_eq!(rows(&bench), rows(&rule));
    }
}

proptest! {
    /// Whoever speaks with whom: an answer comes to who asked, as an answer to what was asked, and no two share what they are outside.
    #[test]
    fn every_translated_flow_has_one_inverse(
        flows in proptest::collection::vec((0..4usize, 1000..1004u16, 0..3u8, 0..2u16, 0..3usize), 1..60),
    ) {
        let mut bench = open(&usual());
        let hosts = [(PC1, 10), (PC2, 10), (WEB1, 20), (WEB2, 20)];
        let mut seen = std::collections::BTreeMap::new();
        for (who, from, far, to, kind) in flows {
            let (port, vlan_id) = hosts[who];
            let own = socket(v4(vlan_id, station(port)), from);
            let far = socket(Ipv4Addr::new(203, 0, 113, far), if kind == 2 { from } else { 80 + to });
            let asks = match kind {
                0 => udp(port, own, far),
                1 => tcp(port, own, far, (SYN, 1, 0)),
                _ => ping(port, own, far, Echo::Request),
            };
            let (at, left) = only(&mut bench, port, &asks);
            let (outside, to) = ends(&left);
            prop_assert_eq!(at, NET);
            let far = if kind == 2 { SocketAddr::new(far.ip(), outside.port()) } else { far };
            prop_assert_eq!(to, far);
            let before = seen.insert((kind, outside, far), own);
            prop_assert!(before.is_none_or(|before| before == own), "{:?} and {:?} are both {}", before, own, outside);
            let answers = match kind {
                0 => udp(NET, far, outside),
                1 => tcp(NET, far, outside, (SYN | ACK, 1, 2)),
                _ => ping(NET, far, outside, Echo::Reply),
            };
            let (at, back) = only(&mut bench, NET, &answers);
            prop_assert_eq!((at, ends(&back).1), (port, own));
            prop_assert_eq!(ends(&back).0.ip(), far.ip());
        }
    }
}
