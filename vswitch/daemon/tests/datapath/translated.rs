//! What guests leave to others, at a router that translates: a checksum that is not computed yet, and segments that are not cut, arrive as the receiver takes them,
//! with the router's address in them and right by etherparse.

use crate::{
    description::{access, description, vlan},
    lab::{Lab, mac, send},
    offloads::{finished, receive_with_headers, transmit},
};
use checksum::Sum;
use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vhost_net_backend::{
    driver::{Config, Driver},
    features,
    net_header::{F_NEEDS_CSUM, NetHeader},
};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    description::{Description, Gateway, Link, Nat, NatRule, Origin, Router, Routing},
    id::PortId,
    mac::MacAddr,
};
use vswitchd::control::protocol::PortState;

const PC: usize = 0;
const NET: usize = 1;
const ROUTERS: usize = 2;
const ROUTER: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 0xfe]);
const HERE: Origin = Origin { line: 1, column: 1 };
const TCP: u8 = 6;
const SYN: u8 = 2;
const ACK: u8 = 16;
/// Payload bytes of a segment.
const SIZE: usize = 1000;

/// `pc` in VLAN 10 and `net` in VLAN 20, into which the router masquerades.
fn network() -> Description {
    let mut lab = description(&[access(10), access(20), Link::Routers]);
    lab.ports[ROUTERS].as_mut().unwrap().mac = Some(ROUTER);
    let gateway = |number, own: [&str; 2]| Gateway {
        vlan: vlan(number),
        addresses: own.map(|own| own.parse().unwrap()).into(),
        dhcp: None,
        ra: false,
        neigh_suppress: false,
        origin: HERE,
    };
    lab.routing = Some(Routing {
        port: PortId::new(ROUTERS as u16, 0),
        routers: vec![Router {
            name: "default".into(),
            gateways: vec![
                gateway(10, ["10.0.10.1/24", "fd10::1/64"]),
                gateway(20, ["192.0.2.2/24", "fd20::2/64"]),
            ],
            routes: vec![],
            nat: vec![Nat { rule: NatRule::Masquerade { vlan: vlan(20) }, origin: HERE }],
            nameservers: vec![],
        }],
        hosts: vec![],
        ssh_keys: vec![],
    });
    lab
}

/// From `pc` to `net`, as the former says it, and the address that the latter is to see.
fn versions() -> [(Addresses, IpAddr); 2] {
    let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap();
    [
        (Addresses::V4([10, 0, 10, 7].into(), [192, 0, 2, 1].into()), Ipv4Addr::new(192, 0, 2, 2).into()),
        (Addresses::V6(v6("fd10::7"), v6("fd20::9")), v6("fd20::2").into()),
    ]
}

fn up(src: usize) -> Ethernet {
    Ethernet { src: mac(src), dst: ROUTER, tag: None }
}

/// A lab whose router knows both, and of which `net` takes of large and unfinished frames what is said.
fn lab(taken: u64) -> (Lab, Driver, Driver) {
    let lab = Lab::of(&network());
    lab.wait(|seen| seen.ports[ROUTERS].state == PortState::Up);
    let leaves = features::NET_CSUM | features::NET_HOST_TSO4 | features::NET_HOST_TSO6;
    let config = |offloads| Config { features: Config::default().features | offloads, ..Config::default() };
    let (mut pc, mut net) = (lab.attach(PC, &config(leaves)), lab.attach(NET, &config(taken)));
    for (place, guest, own, own6, gateway, gateway6, last) in [
        (PC, &mut pc, [10, 0, 10, 7], "fd10::7", [10, 0, 10, 1], "fd10::1", 1),
        (NET, &mut net, [192, 0, 2, 1], "fd20::9", [192, 0, 2, 2], "fd20::2", 2),
    ] {
        let all = Ethernet { dst: MacAddr::BROADCAST, ..up(place) };
        send(guest, &build::arp_request(all, own.into(), gateway.into()));
        let group = Ethernet { dst: MacAddr::new([0x33, 0x33, 0xff, 0, 0, last]), ..up(place) };
        let [own6, gateway6] = [own6, gateway6].map(|address| address.parse().unwrap());
        send(guest, &build::neighbour_solicitation(group, own6, gateway6));
    }
    lab.wait(|_| lab.datapath.neighbours().unwrap().rows.iter().filter(|row| row.mac.is_some()).count() == 4);
    (lab, pc, net)
}

fn segment(addresses: Addresses, (flags, sequence): (u8, u32), payload: &[u8]) -> Vec<u8> {
    let mut segment = [4000_u16.to_be_bytes(), 80_u16.to_be_bytes()].concat();
    segment.extend(sequence.to_be_bytes());
    segment.extend(if flags & ACK == 0 { [0; 4] } else { 701_u32.to_be_bytes() });
    segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    build::ip(up(PC), addresses, TCP, 64, segment, 16)
}

/// Where the transport header of such a frame begins.
const fn start(addresses: &Addresses) -> usize {
    match addresses {
        Addresses::V4(..) => 34,
        Addresses::V6(..) => 54,
    }
}

/// What a driver hands over that leaves the checksum, which stands `offset` bytes behind the transport header, and the cutting to others.
fn left_to_others(
    (frame, addresses): (&[u8], Addresses),
    (protocol, offset): (u16, usize),
    size: Option<usize>,
) -> (NetHeader, Vec<u8>) {
    let start = start(&addresses);
    let is_v4 = matches!(addresses, Addresses::V4(..));
    let mut bytes = frame.to_vec();
    let ends = if is_v4 { start - 8..start } else { start - 32..start };
    let len = (bytes.len() - start) as u16;
    let sum = Sum::ZERO.add_bytes(&bytes[ends]).add_word(protocol).add_word(len);
    bytes[start + offset..start + offset + 2].copy_from_slice(&sum.fold().to_ne_bytes());
    let header = NetHeader {
        flags: F_NEEDS_CSUM,
        gso_type: size.map_or(0, |_| if is_v4 { 1 } else { 4 }),
        gso_size: size.unwrap_or(0) as u16,
        hdr_len: size.map_or(0, |_| (start + 20) as u16),
        csum_start: start as u16,
        csum_offset: offset as u16,
        ..NetHeader::plain(0)
    };
    (header, bytes)
}

/// Its source, if its checksums are right, and its payload.
fn read(frame: &[u8]) -> (IpAddr, Vec<u8>) {
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a whole packet");
    let payload = headers.payload.slice();
    let (src, sums) = match (headers.net.expect("IP"), headers.transport.expect("TCP or UDP")) {
        (NetHeaders::Ipv4(ip, _), transport) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "the header's checksum");
            let sums = match transport {
                TransportHeader::Udp(udp) => (udp.checksum, udp.calc_checksum_ipv4(&ip, payload)),
                TransportHeader::Tcp(tcp) => (tcp.checksum, tcp.calc_checksum_ipv4(&ip, payload)),
                other => panic!("{other:?}"),
            };
            (Ipv4Addr::from(ip.source).into(), sums)
        }
        (NetHeaders::Ipv6(ip, _), transport) => {
            let sums = match transport {
                TransportHeader::Udp(udp) => (udp.checksum, udp.calc_checksum_ipv6(&ip, payload)),
                TransportHeader::Tcp(tcp) => (tcp.checksum, tcp.calc_checksum_ipv6(&ip, payload)),
                other => panic!("{other:?}"),
            };
            (Ipv6Addr::from(ip.source).into(), sums)
        }
        (other, _) => panic!("{other:?}"),
    };
    assert_eq!(Ok(sums.0), sums.1.map_err(|_| "too long"), "the checksum");
    (src, payload.to_vec())
}

/// Packets that come to a guest by the router: what a correct receiver makes of each, and whether it had to.
fn heard(guest: &mut Driver, count: usize) -> Vec<(bool, Vec<u8>)> {
    let mut frames = Vec::new();
    while frames.len() < count {
        let came = receive_with_headers(guest, 1);
        assert!(!came.is_empty(), "the frame never came");
        // Whoever speaks of neighbours is not meant.
        let packets = came.iter().filter(|(_, frame)| frame[12..14] != [8, 6] && frame.get(54) != Some(&136));
        frames.extend(packets.map(|(header, frame)| {
            (header.flags & F_NEEDS_CSUM != 0 || header.gso_type != 0, finished(header, frame))
        }));
    }
    frames
}

#[test]
fn a_checksum_that_is_left_to_others_is_of_the_addresses_outside() {
    for taken in [0, features::NET_GUEST_CSUM] {
        let (lab, mut pc, mut net) = lab(taken);
        for (addresses, wan) in versions() {
            for n in 0..3_u8 {
                let frame = build::udp(up(PC), addresses, (4000, 53), &[n; 37]);
                let (header, bytes) = left_to_others((&frame, addresses), (17, 6), None);
                transmit(&mut pc, &header, &bytes);
                let (unfinished, came) = heard(&mut net, 1).remove(0);
                assert_eq!(unfinished, taken != 0, "as it takes them");
                assert_eq!(read(&came), (wan, vec![n; 37]), "{addresses:?}");
            }
        }
        lab.lawful();
    }
}

#[test]
fn segments_that_are_cut_or_stay_whole_are_all_from_the_routers_address() {
    for taken in [0, features::NET_GUEST_CSUM, features::NET_GUEST_OFFLOADS] {
        let (lab, mut pc, mut net) = lab(taken);
        let payload: Vec<u8> = (0..SIZE * 5 / 2).map(|n| (n * 7 % 251) as u8).collect();
        for (addresses, wan) in versions() {
            for (says, payload, size) in [((SYN, 100), &[][..], None), ((ACK, 101), &payload[..], Some(SIZE))]
            {
                if says.0 == ACK {
                    answer((&mut net, &mut pc), &addresses, wan);
                }
                let frame = segment(addresses, says, payload);
                let (header, bytes) = left_to_others((&frame, addresses), (TCP.into(), 16), size);
                transmit(&mut pc, &header, &bytes);
                let whole = taken == features::NET_GUEST_OFFLOADS || size.is_none();
                let came = heard(&mut net, if whole { 1 } else { payload.len().div_ceil(SIZE) });
                let read: Vec<_> = came.iter().map(|(_, frame)| read(frame)).collect();
                assert!(read.iter().all(|(src, _)| *src == wan), "{read:?}");
                assert_eq!(read.into_iter().flat_map(|(_, part)| part).collect::<Vec<_>>(), payload);
                assert!(came.iter().all(|(unfinished, _)| *unfinished == (taken != 0)), "as it takes them");
            }
        }
        lab.lawful();
    }
}

/// `net` takes the connection, and `pc` hears of it.
fn answer((net, pc): (&mut Driver, &mut Driver), addresses: &Addresses, wan: IpAddr) {
    let back = match (addresses, wan) {
        (Addresses::V4(_, net), IpAddr::V4(wan)) => Addresses::V4(*net, wan),
        (Addresses::V6(_, net), IpAddr::V6(wan)) => Addresses::V6(*net, wan),
        _ => unreachable!("of one version"),
    };
    let ports = [80_u16.to_be_bytes(), 4000_u16.to_be_bytes()].concat();
    let says =
        [&700_u32.to_be_bytes()[..], &101_u32.to_be_bytes(), &[5 << 4, SYN | ACK, 0xff, 0xff, 0, 0, 0, 0]];
    send(net, &build::ip(up(NET), back, TCP, 64, [ports, says.concat()].concat(), 16));
    heard(pc, 1);
}
