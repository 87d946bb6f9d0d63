//! What no router passes on, and by which name it is lost.

use super::*;
use vswitch_core::checksum::Sum;

fn refused(bench: &mut Bench, port: u16, frame: &[u8]) -> Option<DropReason> {
    out(bench, port, frame).err()
}

/// The frame with another byte in its IPv4 header, whose checksum is made right.
fn with_byte(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[14 + at] = byte;
    frame[24..26].fill(0);
    let checksum = Sum::ZERO.add_bytes(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&checksum);
    frame
}

#[test]
fn hops_end_at_the_gateway_but_not_for_the_gateway() {
    let mut bench = open_office();
    let there = datagram(1, v4(10, 1), v4(20, 2));
    for ttl in [0, 1] {
        assert_eq!(
            refused(&mut bench, PC1, &with_byte(there.clone(), 8, ttl)),
            Some(DropReason::TtlExceeded)
        );
    }
    assert_eq!(only(&mut bench, PC1, &with_byte(there, 8, 2)).0, WEB1);
    let own = with_byte(datagram(1, v4(10, 1), v4(10, 254)), 8, 1);
    assert_eq!(only(&mut bench, PC1, &own).0, ROUTERS);
    let mut six = datagram(1, v6(10, 1), v6(20, 2));
    six[14 + 7] = 1;
    assert_eq!(refused(&mut bench, PC1, &six), Some(DropReason::TtlExceeded));
}

#[test]
fn rfc_1812_5_2_2_a_wrong_header_is_lost() {
    let mut bench = open_office();
    let there = datagram(1, v4(10, 1), v4(20, 2));
    let mut flipped = there.clone();
    flipped[24] ^= 1;
    assert_eq!(refused(&mut bench, PC1, &flipped), Some(DropReason::BadIpHeader));
    // A version that the EtherType does not say, a header that is too short, one longer than the packet.
    for first in [0x65, 0x44, 0x4f] {
        assert_eq!(
            refused(&mut bench, PC1, &with_byte(there.clone(), 0, first)),
            Some(DropReason::BadIpHeader)
        );
    }
    assert_eq!(refused(&mut bench, PC1, &there[..30]), Some(DropReason::BadIpHeader));
}

#[test]
fn rfc_1812_5_3_7_martians_are_lost() {
    let mut bench = open_office();
    let martian = |src: [u8; 4], dst: [u8; 4]| datagram(1, Ipv4Addr::from(src), Ipv4Addr::from(dst));
    let (own, there) = ([10, 0, 10, 1], [10, 0, 20, 2]);
    for src in [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [240, 0, 0, 1],
        [255, 255, 255, 255],
        [169, 254, 7, 7],
        // The gateways' own, all of a network, and one of another VLAN's.
        [10, 0, 10, 254],
        [10, 0, 20, 254],
        [10, 0, 10, 255],
        [10, 0, 10, 0],
        [10, 0, 20, 7],
    ] {
        assert_eq!(refused(&mut bench, PC1, &martian(src, there)), Some(DropReason::Martian), "{src:?}");
    }
    let nowhere = [[0, 0, 0, 1], [127, 0, 0, 1], [224, 0, 0, 5], [255, 255, 255, 255], [250, 1, 1, 1]];
    for dst in nowhere.into_iter().chain([[169, 254, 7, 7], [169, 254, 169, 254]]) {
        assert_eq!(refused(&mut bench, PC1, &martian(own, dst)), Some(DropReason::Martian), "{dst:?}");
    }
    // From behind a router of the VLAN it may come.
    assert_eq!(only(&mut bench, PC1, &martian([172, 16, 0, 1], there)).0, WEB1);
    let six = |src: Ipv6Addr, dst: Ipv6Addr| datagram(1, src, dst);
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    for src in [
        Ipv6Addr::UNSPECIFIED,
        Ipv6Addr::LOCALHOST,
        "ff02::1".parse().expect("a group"),
        link_local,
        v6(20, 7),
    ] {
        assert_eq!(refused(&mut bench, PC1, &six(src, v6(20, 2))), Some(DropReason::Martian), "{src}");
    }
    assert_eq!(
        refused(&mut bench, PC1, &six(v6(10, 1), "ff05::2".parse().expect("a group"))),
        Some(DropReason::Martian)
    );
}

#[test]
fn routes_that_lead_nowhere_are_told_apart() {
    let mut bench = open_office();
    let to = |dst: [u8; 4]| datagram(1, v4(10, 1), Ipv4Addr::from(dst));
    assert_eq!(refused(&mut bench, PC1, &to([198, 51, 100, 9])), Some(DropReason::Blackhole));
    assert_eq!(
        refused(&mut bench, PC1, &datagram(1, v6(10, 1), "2001:db8::1".parse::<Ipv6Addr>().expect("one"))),
        Some(DropReason::NoRoute)
    );
    for dst in [[10, 0, 20, 255], [10, 0, 20, 0], [10, 0, 10, 255]] {
        assert_eq!(
            refused(&mut bench, PC1, &to(dst)),
            Some(DropReason::DirectedBroadcast),
            "RFC 2644: {dst:?}"
        );
    }
}

#[test]
fn a_route_of_the_senders_own_is_not_followed() {
    let mut bench = open_office();
    // Loose source route (RFC 791 §3.1), 3 bytes and padding: 6 words of header.
    let plain = datagram(1, v4(10, 1), v4(20, 2));
    let mut frame = [&plain[..34], &[131, 3, 4, 0], &plain[34..]].concat();
    frame[14] = 0x46;
    let len = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    frame[24..26].fill(0);
    let checksum = Sum::ZERO.add_bytes(&frame[14..38]).checksum();
    frame[24..26].copy_from_slice(&checksum);
    assert_eq!(refused(&mut bench, PC1, &frame), Some(DropReason::SourceRoute));
}

#[test]
fn nobody_else_has_the_gateways_address() {
    let mut bench = open_office();
    let lie = build::arp_request(link(GATEWAY, 1), v4(20, 254), v4(20, 2));
    assert_eq!(refused(&mut bench, WEB1, &lie), Some(DropReason::GatewaySource));
    assert_eq!(only(&mut bench, PC1, &datagram(1, v4(10, 1), v4(20, 2))).0, WEB1);
    // Also not where its VLAN has no gateway: whoever says that is one of ours.
    let mut bench = office().port("h1", 0, access(30)).bench();
    assert_eq!(refused(&mut bench, 4, &lie), Some(DropReason::GatewaySource));
}

#[test]
fn firewalls_judge_on_both_sides_of_a_gateway() {
    let guarded = |port| closed(port).bench();
    for (guarded_port, expected) in [(WEB1, Some(DropReason::PolicyIngress)), (PC1, None)] {
        let mut bench = guarded(guarded_port);
        bench.neighbours.set(vlan(20), v4(20, 2).into(), mac(2), bench.now);
        bench.send(WEB1, &build::arp_request(link(2, GATEWAY), v4(20, 2), v4(20, 254)));
        assert_eq!(
            refused(&mut bench, PC1, &datagram(1, v4(10, 1), v4(20, 2))),
            expected,
            "{}",
            bench.story()
        );
    }
    // And what the router itself says to a closed interface.
    let mut bench = guarded(PC1);
    let said = Ethernet { src: mac(GATEWAY), dst: mac(1), tag: Some(vswitch_core::vlan::Tci::from_bits(10)) };
    let ping = build::udp(said, Addresses::V4(v4(10, 254), v4(10, 1)), (1, 2), b"x");
    bench.send(PC1, &build::arp_request(link(1, GATEWAY), v4(10, 1), v4(10, 254)));
    assert_eq!(refused(&mut bench, ROUTERS, &ping), Some(DropReason::PolicyIngress), "{}", bench.story());
}
