//! What is passed on, and how it looks then.

use super::*;
use crate::conservation::fates;
use etherparse::{NetHeaders, PacketHeaders};
use vswitch_core::{mac::MacAddr, vlan::Tci};

/// Source, destination and hops of a packet whose checksums are right.
fn read(frame: &[u8]) -> (u8, u8, u8) {
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a whole packet");
    let ethernet = headers.link.clone().and_then(etherparse::LinkHeader::ethernet2).expect("Ethernet");
    let hops = match headers.net.expect("IP") {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "the header's checksum");
            ip.time_to_live
        }
        NetHeaders::Ipv6(ip, _) => ip.hop_limit,
        NetHeaders::Arp(_) => panic!("ARP"),
    };
    (ethernet.source[5], ethernet.destination[5], hops)
}

#[test]
fn a_packet_goes_from_vlan_to_vlan_with_one_hop_less() {
    let mut bench = open_office();
    for frame in [datagram(1, v4(10, 1), v4(20, 2)), datagram(1, v6(10, 1), v6(20, 2))] {
        let (to, left) = only(&mut bench, PC1, &frame);
        assert_eq!((to, read(&left)), (WEB1, (GATEWAY, 2, read(&frame).2 - 1)), "{}", bench.story());
        // All else is as it was: the payload, and the transport's checksum, which no hop is part of.
        assert_eq!(left[34..], frame[34..]);
    }
}

#[test]
fn each_step_of_the_way_is_told() {
    let mut bench = open_office();
    only(&mut bench, PC1, &datagram(1, v4(10, 1), v4(20, 2)));
    insta::assert_snapshot!(bench.story(), @r"
    came in at pc1:eth0 (line 2), 47 bytes, 02:00:00:00:00:01 -> 02:00:00:00:00:63, IPv4 10.0.10.1 > 10.0.20.2 UDP 4000 > 53
    admitted by sw1 to VLAN users (10) as untagged
    FDB of sw1: 02:00:00:00:00:63 is on @routers:eth0, as the topology file says
    router default: the route to 10.0.20.0/24 (line 102) leads to 10.0.20.2 (02:00:00:00:00:02) in VLAN servers (20)
    FDB of sw1: 02:00:00:00:00:02 is on web1:eth0
    ");
    only(&mut bench, PC1, &datagram(1, v6(10, 1), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77)));
    assert!(bench.story().contains("fe80::77 is of this link alone"), "{}", bench.story());
    only(&mut bench, PC1, &datagram(1, v4(10, 1), v4(10, 254)));
    insta::assert_snapshot!(bench.story(), @r"
    came in at pc1:eth0 (line 2), 47 bytes, 02:00:00:00:00:01 -> 02:00:00:00:00:63, IPv4 10.0.10.1 > 10.0.10.254 UDP 4000 > 53
    admitted by sw1 to VLAN users (10) as untagged
    FDB of sw1: 02:00:00:00:00:63 is on @routers:eth0, as the topology file says
    router default: 10.0.10.254 is its own; it answers
    leaves @routers:eth0 (line 5) with tag 10 priority 0
    ");
}

#[test]
fn the_longest_route_holds_and_its_router_is_the_next() {
    let mut bench = open_office();
    let (to, left) = only(&mut bench, PC1, &datagram(1, v4(10, 1), Ipv4Addr::new(192, 0, 2, 77)));
    assert_eq!((to, read(&left).1), (WEB1, 2));
    // The default route leads back into the VLAN that it came from, to a router that is not known yet: the routers keep it, and ask.
    let far = datagram(2, v4(20, 2), Ipv4Addr::new(8, 8, 8, 8));
    assert_eq!(only(&mut bench, WEB1, &far).0, ROUTERS, "{}", bench.story());
    bench.neighbours.set(vlan(10), v4(10, 3).into(), mac(3), bench.now);
    // Known to the router, but not to the switch: to all in that VLAN, the routers' port not among them.
    let left = out(&mut bench, WEB1, &far).expect("it goes on");
    let ports: Vec<_> = left.iter().map(|(port, _)| *port).collect();
    assert_eq!(ports, [PC1, BOX], "{}", bench.story());
    assert!(left.iter().all(|(_, frame)| frame[..6] == mac(3).octets()));
}

#[test]
fn tags_are_of_the_vlan_that_it_goes_to() {
    let mut bench = open_office();
    let tagged = |vlan_id: u16, priority: u16| Ethernet {
        src: mac(3),
        dst: mac(GATEWAY),
        tag: Some(Tci::from_bits(priority << 13 | vlan_id)),
    };
    let udp = |link, src, dst| build::udp(link, Addresses::V4(src, dst), (1, 2), b"x");
    let (to, left) = only(&mut bench, BOX, &udp(tagged(10, 5), v4(10, 3), v4(20, 2)));
    assert_eq!((to, read(&left)), (WEB1, (GATEWAY, 2, 63)));
    bench.neighbours.set(vlan(10), v4(10, 3).into(), mac(3), bench.now);
    let (to, left) = only(&mut bench, WEB1, &datagram(2, v4(20, 2), v4(10, 3)));
    assert_eq!((to, &left[12..16]), (BOX, &[0x81, 0, 0, 10][..]));
    // Back by the port it came from, in the other VLAN: a router on a stick. Its priority stays.
    bench.neighbours.set(vlan(20), v4(20, 3).into(), mac(4), bench.now);
    bench.send(BOX, &build::arp_request(Ethernet { src: mac(4), ..tagged(20, 0) }, v4(20, 3), v4(20, 254)));
    let (to, left) = only(&mut bench, BOX, &udp(tagged(10, 5), v4(10, 3), v4(20, 3)));
    assert_eq!((to, &left[12..16]), (BOX, &[0x81, 0, 0xa0, 20][..]), "{}", bench.story());
    assert_eq!(read(&left), (GATEWAY, 4, 63));
}

#[test]
fn what_is_the_routers_own_or_no_packet_goes_to_their_port_with_the_vlan() {
    let mut bench = open_office();
    let tag = |vlan: u8| [0x81, 0, 0, vlan];
    let own = [
        datagram(1, v4(10, 1), v4(10, 254)),
        // The gateway of another VLAN is the same router's.
        datagram(1, v4(10, 1), v4(20, 254)),
        datagram(1, v6(10, 1), v6(20, 254)),
        datagram(1, v6(10, 1), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
        // A neighbour asks whether the gateway is still there (RFC 4861 §7.3.3).
        datagram(1, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7), v6(10, 254)),
        build::arp_request(link(1, GATEWAY), v4(10, 1), v4(10, 254)),
    ];
    for frame in own {
        let (to, left) = only(&mut bench, PC1, &frame);
        assert_eq!((to, &left[12..16]), (ROUTERS, &tag(10)[..]), "{}", bench.story());
        assert_eq!((&left[..12], &left[16..]), (&frame[..12], &frame[12..]), "it is not changed");
    }
    // A packet behind a second tag, which would be the first where it came out.
    let tagged = build::udp(
        Ethernet { tag: Some(Tci::from_bits(10)), ..link(3, GATEWAY) },
        Addresses::V4(v4(10, 3), v4(20, 2)),
        (1, 2),
        b"x",
    );
    for kind in [[0x81, 0], [0x88, 0xa8]] {
        let double = [&tagged[..16], &kind, &[0, 20], &tagged[16..]].concat();
        let (to, left) = only(&mut bench, BOX, &double);
        assert_eq!((to, left), (ROUTERS, double), "{}", bench.story());
        let hidden = [&tagged[..12], &[0x88, 0xa8, 0, 20], &tagged[16..]].concat();
        let left = only(&mut bench, PC1, &hidden);
        assert_eq!(left.0, ROUTERS, "{}", bench.story());
    }
    // What is for all in the VLAN is for the router, too.
    let question =
        build::arp_request(Ethernet { dst: MacAddr::BROADCAST, ..link(2, 0) }, v4(20, 2), v4(20, 254));
    let left = out(&mut bench, WEB1, &question).expect("flooded");
    assert_eq!(left.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [BOX, ROUTERS]);
}

#[test]
fn what_routers_say_goes_to_whom_it_is_for_and_teaches_nothing() {
    let mut bench = open_office();
    let said = Ethernet { src: mac(GATEWAY), dst: mac(2), tag: Some(Tci::from_bits(20)) };
    let (to, left) = only(&mut bench, ROUTERS, &build::arp_reply(said, v4(20, 254), v4(20, 2)));
    assert_eq!((to, &left[12..14]), (WEB1, &[8, 6][..]));
    assert!(!bench.story().contains("learned"), "{}", bench.story());
    // In a VLAN without a gateway they say nothing.
    let nowhere = Ethernet { tag: Some(Tci::from_bits(30)), ..said };
    let frame = build::arp_reply(nowhere, v4(20, 254), v4(20, 2));
    assert_eq!(out(&mut bench, ROUTERS, &frame), Err(DropReason::VlanNotMember));
    assert_eq!(
        out(&mut bench, ROUTERS, &datagram(GATEWAY, v4(20, 254), v4(20, 2))),
        Err(DropReason::UntaggedOnTrunk)
    );
}

#[test]
fn frames_of_a_batch_are_routed_as_each_by_itself() {
    let mut bench = open_office();
    let frames = [
        datagram(1, v4(10, 1), v4(20, 2)),
        datagram(1, v4(10, 1), v4(20, 2)),
        datagram(1, v4(10, 1), v4(10, 254)),
        datagram(1, v4(20, 7), v4(20, 2)),
        datagram(1, v6(10, 1), v6(20, 2)),
    ];
    let expected: Vec<_> = frames.iter().map(|frame| bench.send(PC1, frame)).collect();
    let (came_to, alone) = fates(&bench, PC1, &frames);
    // What is the router's own and what it does not pass on is decided by itself.
    assert_eq!((came_to, alone), (expected, vec![2, 3]));
}

#[test]
fn a_gateway_is_wherever_its_vlan_is() {
    // Two switches, VLAN 20 only on the second; VLAN 10 on both.
    let gateways: &[(u16, &[&str])] = &[(10, &["10.0.10.254/24"]), (20, &["10.0.20.254/24"])];
    let mut bench = Lab::new()
        .switch("sw1")
        .switch("sw2")
        .port("pc1", 0, access(10))
        .port("web1", 1, access(20))
        .port("pc2", 1, access(10))
        .routed(|routing| routing.routers.push(router("default", gateways, &[])))
        .join(0, 1, trunk(&[10], None))
        .bench();
    for (port, n, vlan_id) in [(0, 1, 10), (1, 2, 20), (2, 3, 10)] {
        let hello = build::arp_request(link(n, GATEWAY), v4(vlan_id, n), v4(vlan_id, 254));
        assert_eq!(only(&mut bench, port, &hello).0, 3, "{}", bench.story());
        bench.neighbours.set(vlan(vlan_id), v4(vlan_id, n).into(), mac(n), bench.now);
    }
    let (to, left) = only(&mut bench, 0, &datagram(1, v4(10, 1), v4(20, 2)));
    assert_eq!((to, read(&left)), (1, (GATEWAY, 2, 63)), "{}", bench.story());
    // pc1 said nothing behind the trunk: there it is flooded, and crosses it once.
    let left = out(&mut bench, 1, &datagram(2, v4(20, 2), v4(10, 1))).expect("it goes on");
    assert_eq!(left.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [2, 0], "{}", bench.story());
}

#[test]
fn equal_routes_share_flows_and_keep_each_on_its_way() {
    let gateways: &[(u16, &[&str])] = &[(10, &["10.0.10.254/24"]), (20, &["10.0.20.254/24"])];
    let routes = ["0.0.0.0/0 via 10.0.20.11,10.0.20.12,10.0.20.13"];
    let mut bench = Lab::new()
        .switch("sw1")
        .port("pc1", 0, access(10))
        .port("up", 0, access(20))
        .routed(|routing| routing.routers.push(router("default", gateways, &routes)))
        .bench();
    for n in 11..14 {
        bench.neighbours.set(vlan(20), v4(20, n).into(), mac(n), bench.now);
    }
    let mut ways = [0; 3];
    for port in 0..300 {
        let frame = |payload: &[u8]| {
            let addresses = Addresses::V4(v4(10, 1), Ipv4Addr::new(8, 8, 8, 8));
            build::udp(link(1, GATEWAY), addresses, (10_000 + port, 53), payload)
        };
        let way = only(&mut bench, PC1, &frame(b"one")).1[5];
        assert_eq!(only(&mut bench, PC1, &frame(b"another")).1[5], way, "one flow, one way");
        ways[usize::from(way - 11)] += 1;
    }
    assert!(ways.iter().all(|flows| *flows > 60), "{ways:?}");
}
