//! What gateways do for hosts: addresses, names, advertisements.

use super::{Bench, Lost, ROUTER, mac, read, read_arp, read_icmp, to_all, to_router, v4, v6};
use crate::routers::{
    dhcp::tests::message,
    tests::lab::{gateway, serving, vlan, world},
};
use etherparse::TransportSlice;
use simple_dns::{CLASS, Name, Packet, Question, RCODE, TYPE};
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr};
use std::{net::Ipv4Addr, time::Duration};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    description::{Gateway, Router},
    mac::MacAddr,
    vlan::Tci,
};

fn bench() -> Bench {
    let mut bench = Bench::silent(serving());
    bench.pass(40);
    bench.said();
    bench
}

fn asks(kind: DhcpMessageType, wanted: Option<Ipv4Addr>) -> Vec<u8> {
    let message = message(7, kind, |repr| repr.requested_ip = wanted);
    build::udp(to_all(10, 7), Addresses::V4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST), (68, 67), &message)
}

/// The datagram in a frame: its ports, and what it carries.
fn datagram(frame: &[u8], number: u16) -> ((u16, u16), Vec<u8>) {
    let Some(TransportSlice::Udp(udp)) = read(frame, number).transport else { panic!("no datagram") };
    ((udp.source_port(), udp.destination_port()), udp.payload().to_vec())
}

#[test]
fn a_host_gets_an_address_from_its_gateway() {
    let mut bench = bench();
    let mut reply = |kind, wanted| {
        bench.hear(&asks(kind, wanted));
        if kind == DhcpMessageType::Discover {
            let arp = read_arp(&bench.one(), 10);
            assert_eq!(arp.sender_protocol_addr(), [10, 0, 10, 1]);
            bench.pass(1);
        }
        let said = bench.one();
        let (ports, payload) = datagram(&said, 10);
        assert_eq!((ports, &said[..6]), ((67, 68), &mac(7).octets()[..]));
        let packet = DhcpPacket::new_checked(&payload[..]).expect("a message");
        let repr = DhcpRepr::parse(&packet).expect("a message");
        assert_eq!((repr.router, repr.server_identifier), (Some(v4("10.0.10.1")), Some(v4("10.0.10.1"))));
        (repr.message_type, repr.your_ip)
    };
    let (kind, address) = reply(DhcpMessageType::Discover, None);
    assert_eq!(kind, DhcpMessageType::Offer);
    assert_eq!(reply(DhcpMessageType::Request, Some(address)), (DhcpMessageType::Ack, address));
    let leases = bench.speaker.leases(bench.now).rows;
    assert_eq!((leases[0].vlan, leases[0].address, leases[0].mac), (vlan(10), address, mac(7)));
    // A checksum that is wrong, a VLAN that gives none.
    let mut garbled = asks(DhcpMessageType::Discover, None);
    *garbled.last_mut().expect("bytes") ^= 1;
    bench.silent_after(&garbled);
    let mut elsewhere = asks(DhcpMessageType::Discover, None);
    elsewhere[15] = 20;
    bench.silent_after(&elsewhere);
    assert_eq!((bench.lost(Lost::Malformed), bench.lost(Lost::NotOurs)), (1, 1));
}

#[test]
fn an_address_that_a_neighbour_uses_is_not_given() {
    let wish = asks(DhcpMessageType::Discover, Some(v4("10.0.10.60")));
    let offered = |bench: &mut Bench| {
        bench.pass(1);
        let payload = datagram(&bench.one(), 10).1;
        DhcpPacket::new_checked(&payload[..]).expect("a message").your_ip()
    };
    // Nobody answers.
    let mut bench = bench();
    bench.hear(&wish);
    assert_eq!(read_arp(&bench.one(), 10).target_protocol_addr(), [10, 0, 10, 60]);
    assert_eq!(offered(&mut bench), v4("10.0.10.60"));
    // One that is known, and one that answers.
    let mut bench = self::bench();
    bench.neighbours.set(vlan(10), v4("10.0.10.60").into(), mac(9), bench.now);
    bench.hear(&wish);
    let other: Ipv4Addr =
        <[u8; 4]>::try_from(read_arp(&bench.one(), 10).target_protocol_addr()).expect("four").into();
    assert_ne!(other, v4("10.0.10.60"));
    bench.hear(&build::arp_reply(to_router(10, 9), other, v4("10.0.10.1")));
    let third: Ipv4Addr =
        <[u8; 4]>::try_from(read_arp(&bench.one(), 10).target_protocol_addr()).expect("four").into();
    assert!(third != other && third != v4("10.0.10.60"));
    assert_eq!(offered(&mut bench), third);
    assert_eq!(bench.knows(10, other), Some(mac(9)));
}

#[test]
fn who_makes_up_clients_without_end_is_heard_at_a_rate() {
    let mut bench = bench();
    let storm = |bench: &mut Bench| {
        let before = bench.speaker.counts().lost.get(&Lost::Rate).copied().unwrap_or_default();
        for n in 0x10000..0x10000 + 10_000_u32 {
            let mut frame = asks(DhcpMessageType::Discover, None);
            // Each from another station.
            frame[8..12].copy_from_slice(&n.to_be_bytes());
            bench.hear(&frame);
        }
        10_000 - (bench.speaker.counts().lost.get(&Lost::Rate).copied().unwrap_or_default() - before)
    };
    // 64 for each of 32 shares.
    let heard = storm(&mut bench);
    assert!((2000..=2048).contains(&heard), "{heard}");
    bench.pass(1);
    let heard = storm(&mut bench);
    assert!((2000..=2048).contains(&heard), "{heard}");
}

#[test]
fn an_address_that_only_an_old_neighbour_speaks_of_is_given() {
    let mut bench = bench();
    for n in 0..=255 {
        bench.neighbours.set(vlan(10), Ipv4Addr::new(10, 0, 10, n).into(), mac(9), bench.now);
    }
    bench.hear(&asks(DhcpMessageType::Discover, Some(v4("10.0.10.60"))));
    assert_eq!(read_arp(&bench.one(), 10).target_protocol_addr(), [10, 0, 10, 60]);
    bench.pass(1);
    let payload = datagram(&bench.one(), 10).1;
    assert_eq!(DhcpPacket::new_checked(&payload[..]).expect("a message").your_ip(), v4("10.0.10.60"));
}

#[test]
fn names_are_told_over_both_versions() {
    let mut bench = bench();
    let question = |name: &'static str| {
        let mut packet = Packet::new_query(9);
        let question = Question::new(Name::new_unchecked(name), TYPE::A.into(), CLASS::IN.into(), false);
        packet.questions.push(question);
        packet.build_bytes_vec().expect("a question")
    };
    for (host, own) in [("10.0.10.7", "10.0.10.1"), ("10.0.10.7", "10.0.20.1")] {
        let addresses = Addresses::V4(v4(host), v4(own));
        bench.hear(&build::udp(
            to_router(10, 7),
            addresses,
            (5353, 53),
            &question("gateway.v20.test.internal"),
        ));
        let (ports, payload) = datagram(&bench.one(), 10);
        assert_eq!(ports, (53, 5353));
        let reply = Packet::parse(&payload).expect("a message");
        assert_eq!((reply.rcode(), reply.answers.len()), (RCODE::NoError, 1));
    }
    let addresses = Addresses::V6(v6("2001:db8:10::7"), v6("2001:db8:10::1"));
    bench.hear(&build::udp(to_router(10, 7), addresses, (5353, 53), &question("nobody.test.internal")));
    let payload = datagram(&bench.one(), 10).1;
    assert_eq!(Packet::parse(&payload).expect("a message").rcode(), RCODE::NameError);
    // Nobody is told what he did not ask.
    bench.silent_after(&build::udp(to_router(10, 7), addresses, (5353, 53), b"nonsense"));
    // Any other port is closed still.
    bench.hear(&build::udp(to_router(10, 7), addresses, (5353, 54), b"x"));
    assert_eq!(read_icmp(&bench.one(), 10).3[..2], [1, 4]);
}

/// A router solicitation of station 7.
fn solicitation(number: u16, src: &str, options: &[u8]) -> Vec<u8> {
    let link = Ethernet {
        src: mac(7),
        dst: MacAddr::new([0x33, 0x33, 0, 0, 0, 2]),
        tag: Some(Tci::from_bits(number)),
    };
    let message = [&[133, 0, 0, 0, 0, 0, 0, 0], options].concat();
    build::ip(link, Addresses::V6(v6(src), v6("ff02::2")), 58, 255, message, 2)
}

#[test]
fn rfc_4861_6_2_6_who_solicits_is_told_of_router_prefixes_and_names() {
    let mut bench = bench();
    bench.hear(&solicitation(10, "fe80::7", &[1, 1, 2, 0, 0, 0, 0, 7]));
    let said = bench.one();
    let (src, dst, hops, message) = read_icmp(&said, 10);
    assert_eq!((src, dst, hops), (v6("fe80::ff:fe00:fe").into(), v6("fe80::7").into(), 255));
    assert_eq!(said[..6], mac(7).octets());
    assert_eq!((&message[..2], &message[4..16]), (&[134, 0][..], &[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..]));
    let mut options = &message[16..];
    let mut told = vec![];
    while let [kind, units, ..] = *options {
        let (option, rest) = options.split_at(usize::from(units) * 8);
        told.push((kind, option.to_vec()));
        options = rest;
    }
    let prefix = |len: u8, flags: u8, address: &str| {
        [&[3, 4, len, flags, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40, 0, 0, 0, 0], &v6(address).octets()[..]]
            .concat()
    };
    let expected = [
        (1, [&[1, 1], &ROUTER.octets()[..]].concat()),
        (3, prefix(64, 0xc0, "2001:db8:10::")),
        // No address can be made of it (RFC 4862 §5.5.3).
        (3, prefix(48, 0x80, "2001:db8:11::")),
        (25, [&[25, 3, 0, 0, 0, 0, 7, 8], &v6("2001:db8:10::1").octets()[..]].concat()),
        (31, [&[31, 3, 0, 0, 0, 0, 7, 8][..], b"\x04test\x08internal\x00\x00"].concat()),
    ];
    assert_eq!(told, expected);
    // To all if it does not say who it is; not where nobody is to be told.
    bench.hear(&solicitation(10, "::", &[]));
    assert_eq!((bench.one()[..6].to_vec(), bench.now), (vec![0x33, 0x33, 0, 0, 0, 1], bench.now));
    bench.silent_after(&solicitation(20, "fe80::7", &[]));
    bench.silent_after(&solicitation(40, "fe80::7", &[]));
}

#[test]
fn rfc_4861_4_6_2_the_link_local_network_is_not_advertised() {
    for (addresses, expected) in [
        (&["fe80::1/64", "2001:db8:10::1/64"][..], &[(1, 8), (3, 32), (25, 24), (31, 24)][..]),
        (&["fe80::1/64"], &[(1, 8), (25, 24), (31, 24)]),
    ] {
        let advertised = Gateway { ra: true, ..gateway(10, addresses) };
        let router = Router {
            name: "default".into(),
            gateways: vec![advertised],
            routes: vec![],
            nat: vec![],
            nameservers: vec![],
        };
        let mut bench = Bench::silent(world(vec![router]));
        bench.pass(40);
        bench.said();
        bench.hear(&solicitation(10, "fe80::7", &[1, 1, 2, 0, 0, 0, 0, 7]));
        let message = read_icmp(&bench.one(), 10).3;
        let mut options = &message[16..];
        let mut told = vec![];
        while let [kind, units, ..] = *options {
            let (option, rest) = options.split_at(usize::from(units) * 8);
            told.push((kind, option.len()));
            options = rest;
            if kind == 25 {
                assert_eq!(
                    option[8..],
                    v6(addresses.last().and_then(|own| own.split('/').next()).expect("one")).octets()
                );
            }
        }
        assert_eq!(told, expected, "{addresses:?}");
    }
}

#[test]
fn rfc_4861_6_1_1_a_solicitation_that_is_not_valid_is_not_answered() {
    let mut bench = bench();
    let good = solicitation(10, "fe80::7", &[]);
    let mut far = good.clone();
    far[18 + 7] = 254;
    let mut code = good.clone();
    (code[58 + 1], code[58 + 3]) = (1, code[58 + 3].wrapping_sub(1));
    let mut sum = good;
    sum[58 + 3] ^= 1;
    for (what, frame) in [
        ("from behind a router", far),
        ("of another code", code),
        ("with a wrong checksum", sum),
        ("from nobody with an address", solicitation(10, "::", &[1, 1, 2, 0, 0, 0, 0, 7])),
        ("with an option of no length", solicitation(10, "fe80::7", &[1, 0, 2, 0, 0, 0, 0, 7])),
        ("with half an option", solicitation(10, "fe80::7", &[1, 2, 2, 0, 0, 0, 0, 7])),
    ] {
        let before = bench.lost(Lost::Malformed);
        bench.silent_after(&frame);
        assert_eq!(bench.lost(Lost::Malformed), before + 1, "{what}");
    }
}

#[test]
fn a_gateway_advertises_itself_at_once_then_soon_then_now_and_then() {
    let mut bench = Bench::silent(serving());
    let begin = bench.now;
    let mut at = vec![];
    while at.len() < 12 {
        bench.pass(1);
        let is_one = |frame: &Vec<u8>| frame[16..18] == [0x86, 0xdd] && frame[58] == 134;
        let said = bench.said();
        assert!(said.iter().filter(|frame| is_one(frame)).all(|frame| frame[15] == 10), "only there");
        at.extend(said.iter().filter(|frame| is_one(frame)).map(|_| bench.now.since(begin).as_secs()));
    }
    assert_eq!(at[..3], [1, 16, 32]);
    let gaps: Vec<_> = at[2..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (199..=601).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap != gaps[0]), "{gaps:?}");
    // A changed lab is told at once.
    bench.speaker.adopt(serving());
    bench.now = bench.now + Duration::from_secs(1);
    bench.speaker.tick(bench.now);
    assert!(bench.said().iter().any(|frame| frame[16..18] == [0x86, 0xdd] && frame[58] == 134));
}
