//! What is for a router itself.

use super::{
    Bench, Lost,
    lab::{gateway, vlan, world},
    mac, read, read_icmp, to_all, to_router, v4, v6,
};
use crate::tracking;
use etherparse::TransportSlice;
use std::{sync::Arc, time::Duration};
use vswitch_core::{
    build::{self, Addresses, Echo},
    description::{Nat, NatRule, Origin, Router},
};

fn to_gateway() -> Addresses {
    Addresses::V4(v4("10.0.10.7"), v4("10.0.10.1"))
}

#[test]
fn echoes_come_back_whole() {
    let mut bench = Bench::new();
    let v6_ends = Addresses::V6(v6("2001:db8:10::7"), v6("2001:db8:10::1"));
    let locals = Addresses::V6(v6("fe80::7"), v6("fe80::ff:fe00:fe"));
    // The gateway's address in another VLAN is the router's, too.
    let other = Addresses::V4(v4("10.0.10.7"), v4("10.0.20.1"));
    for (ends, kind) in [(to_gateway(), 0), (other, 0), (v6_ends, 129), (locals, 129)] {
        for len in [0, 1, 56, 1472, 8972] {
            let data: Vec<u8> = (0..len).map(|n| n as u8).collect();
            bench.hear(&build::echo(to_router(10, 7), ends, Echo::Request, 77, 3, &data));
            let said = bench.one();
            assert_eq!(said[..6], mac(7).octets());
            let (src, dst, hops, message) = read_icmp(&said, 10);
            let (from, to) = match ends {
                Addresses::V4(src, dst) => (src.into(), dst.into()),
                Addresses::V6(src, dst) => (src.into(), dst.into()),
            };
            assert_eq!((src, dst, hops), (to, from, 64));
            assert_eq!((&message[..2], &message[4..8]), (&[kind, 0][..], &[0, 77, 0, 3][..]));
            assert_eq!(message[8..], data);
        }
    }
}

#[test]
fn echoes_that_are_not_right_are_not_answered() {
    let mut bench = Bench::new();
    let echo = |link, ends| build::echo(link, ends, Echo::Request, 1, 1, b"data");
    let good = echo(to_router(10, 7), to_gateway());
    let mut garbled = good.clone();
    *garbled.last_mut().expect("data") ^= 1;
    let mut fragment = good.clone();
    fragment[18 + 6] = 0x20;
    // The header's checksum goes with it: RFC 1624, one word less by 0x4000 and more by 0x2000.
    let sum = u16::from_be_bytes([fragment[28], fragment[29]]).wrapping_add(0x2000);
    fragment[28..30].copy_from_slice(&sum.to_be_bytes());
    let ends = |src: &str, dst: &str| Addresses::V4(v4(src), v4(dst));
    for (why, frame) in [
        (Lost::Malformed, garbled),
        (Lost::Fragment, fragment),
        (Lost::NotOurs, echo(to_all(10, 7), to_gateway())),
        (Lost::Martian, echo(to_router(10, 7), ends("10.0.20.7", "10.0.10.1"))),
        (Lost::Martian, echo(to_router(10, 7), ends("10.0.10.1", "10.0.10.1"))),
        (Lost::Martian, echo(to_router(10, 7), ends("0.0.0.0", "10.0.10.1"))),
        (Lost::Martian, echo(to_router(10, 7), ends("10.0.10.255", "10.0.10.1"))),
        (Lost::NotOurs, echo(to_router(10, 7), Addresses::V6(v6("fe80::7"), v6("fe80::1")))),
        (Lost::NotOurs, echo(to_router(40, 7), Addresses::V6(v6("fe80::7"), v6("fe80::ff:fe00:fe")))),
        (Lost::NotOurs, build::echo(to_router(10, 7), to_gateway(), Echo::Reply, 1, 1, b"")),
    ] {
        let before = bench.lost(why);
        bench.silent_after(&frame);
        assert_eq!(bench.lost(why), before + 1, "{why}: {frame:x?}");
    }
    bench.hear(&good).one();
}

#[test]
fn a_datagram_and_an_unknown_protocol_are_told_that_nobody_is_there() {
    let mut bench = Bench::new();
    let v6_ends = Addresses::V6(v6("2001:db8:10::7"), v6("2001:db8:20::1"));
    let other = Addresses::V4(v4("10.0.10.7"), v4("10.0.20.1"));
    let ipv6 = |protocol| build::ip(to_router(10, 7), v6_ends, protocol, 64, vec![0; 8], 4);
    let ipv4 = |protocol| build::ip(to_router(10, 7), other, protocol, 64, vec![0; 8], 4);
    for (frame, said) in [
        // Traceroute ends at the address that it is for.
        (build::udp(to_router(10, 7), other, (40_000, 33_434), b"trace"), [3, 3]),
        (build::udp(to_router(10, 7), v6_ends, (40_000, 33_434), b"trace"), [1, 4]),
        (ipv4(89), [3, 2]),
        (ipv6(89), [4, 1]),
    ] {
        bench.hear(&frame);
        let (src, _, _, message) = read_icmp(&bench.one(), 10);
        assert_eq!(message[..2], said);
        assert_eq!(message[8..], frame[18..], "it quotes the packet");
        assert!([v4("10.0.20.1").into(), v6("2001:db8:20::1").into()].contains(&src));
        if said == [4, 1] {
            assert_eq!(message[4..8], [0, 0, 0, 6], "where the protocol's number stands");
        }
    }
    bench.silent_after(&ipv6(59));
    assert_eq!(bench.speaker.counts().errors, 4);
}

#[test]
fn rfc_1812_4_3_2_3_an_error_quotes_what_fits_into_576_bytes() {
    let mut bench = Bench::new();
    let v6_ends = Addresses::V6(v6("2001:db8:10::7"), v6("2001:db8:20::1"));
    // RFC 4443 §2.4 (c): into 1280.
    for (ends, most) in [(to_gateway(), 576), (v6_ends, 1280)] {
        let frame = build::udp(to_router(10, 7), ends, (40_000, 33_434), &[7; 1400]);
        bench.hear(&frame);
        let said = bench.one();
        assert_eq!(said.len() - 18, most);
        let message = read_icmp(&said, 10).3;
        assert!(frame[18..].starts_with(&message[8..]), "from the packet's first byte on");
    }
}

#[test]
fn connections_are_refused() {
    let mut bench = Bench::new();
    bench.hear(&build::tcp_syn(to_router(10, 7), to_gateway(), (4000, 22), 41));
    let said = bench.one();
    assert_eq!(said[..6], mac(7).octets());
    let Some(TransportSlice::Tcp(tcp)) = read(&said, 10).transport else { panic!("no segment: {said:x?}") };
    assert!(tcp.rst() && tcp.ack() && !tcp.syn());
    assert_eq!((tcp.source_port(), tcp.destination_port(), tcp.acknowledgment_number()), (22, 4000, 42));
    // What it says is not answered in turn.
    let mut reset = build::tcp_syn(to_router(10, 7), to_gateway(), (4000, 22), 41);
    let flags = 18 + 20 + 13;
    reset[flags] = 4;
    // The checksum of a word that is less by two.
    let sum = u16::from_be_bytes([reset[flags + 3], reset[flags + 4]]).wrapping_sub(2);
    reset[flags + 3..flags + 5].copy_from_slice(&sum.to_be_bytes());
    bench.silent_after(&reset);
}

#[test]
fn who_is_outside_is_not_told_that_what_began_before_the_switch_is_no_connection() {
    let origin = Origin { line: 1, column: 1 };
    let world = world(vec![Router {
        name: "default".into(),
        gateways: vec![gateway(10, &["10.0.10.1/24"]), gateway(20, &["10.0.20.1/24"])],
        routes: vec![],
        nat: vec![Nat { rule: NatRule::Masquerade { vlan: vlan(10) }, origin }],
        nameservers: vec![],
    }]);
    let mut bench = Bench::silent(world.clone());
    let connections = Arc::new(tracking::of(&world, 1000).expect("a random secret"));
    bench.speaker.translate_by(connections.clone());
    bench.pass(10);
    bench.said();
    let ends = |number, own| Addresses::V4(v4(&format!("10.0.{number}.7")), v4(own));
    let goes_on = |number, own| {
        let segment =
            [&4000_u16.to_be_bytes()[..], &[0, 22, 0, 0, 0, 7, 0, 0, 0, 9, 5 << 4, 16, 255, 255, 0, 0, 0, 0]];
        build::ip(to_router(number, 7), ends(number, own), 6, 64, segment.concat(), 16)
    };
    assert_eq!(bench.hear(&goes_on(10, "10.0.10.1")).said().len(), 1, "it is reset, as ever");
    connections.pick_up_until(bench.now + Duration::from_secs(60));
    bench.silent_after(&goes_on(10, "10.0.10.1"));
    // What begins is refused, and so is who is inside.
    let begins = build::tcp_syn(to_router(10, 7), ends(10, "10.0.10.1"), (4000, 22), 41);
    assert_eq!(bench.hear(&begins).said().len(), 1);
    assert_eq!(bench.hear(&goes_on(20, "10.0.20.1")).said().len(), 1);
    bench.pass(61);
    bench.said();
    assert_eq!(bench.hear(&goes_on(10, "10.0.10.1")).said().len(), 1);
}

#[test]
fn errors_of_a_vlan_have_a_rate() {
    let mut bench = Bench::new();
    for _ in 0..300 {
        bench.hear(&build::udp(to_router(10, 7), to_gateway(), (1, 2), b""));
    }
    assert_eq!(bench.said().len(), 100);
    assert_eq!(bench.lost(Lost::Rate), 200);
    let blue = build::udp(to_router(30, 7), to_gateway(), (1, 2), b"");
    read_icmp(&bench.hear(&blue).one(), 30);
}
