//! The head parser: byte tables, its inverse, and a second opinion.

use crate::support::{
    differential::{Explained, compare},
    frames::{Random, random_frame},
};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};
use vswitch_core::{
    build::{self, Addresses, Echo, Ethernet},
    drop_reason::DropReason,
    head::{HEAD_BYTES, Head, Network, TagKind, TcpFlags, Transport, Unparsed},
    mac::MacAddr,
    vlan::Tci,
};

const A4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn link(tag: Option<u16>) -> Ethernet {
    Ethernet {
        src: MacAddr::new([2, 0, 0, 0, 0, 1]),
        dst: MacAddr::new([2, 0, 0, 0, 0, 2]),
        tag: tag.map(Tci::from_bits),
    }
}

fn parse(frame: &[u8]) -> Head {
    Head::parse(&frame[..frame.len().min(HEAD_BYTES)], frame.len() as u32).expect("neither runt nor oversize")
}

#[test]
fn only_runts_and_giants_are_errors() {
    assert_eq!(Head::parse(&[0; 13], 13), Err(DropReason::Runt));
    assert!(Head::parse(&[0; 14], 14).is_ok());
    assert!(Head::parse(&[0; 192], 65_550).is_ok());
    assert_eq!(Head::parse(&[0; 192], 65_551), Err(DropReason::Oversize));
}

#[test]
fn tags_are_told_apart() {
    let tail = |tags: &[u16]| {
        let mut frame = vec![2; 12];
        tags.iter().for_each(|half| frame.extend(half.to_be_bytes()));
        frame.extend([0; 46]);
        parse(&frame)
    };
    let c = tail(&[0x8100, 0xa00a, 0x0800]);
    assert_eq!(c.link.c_tag(), Ok(Some(Tci::from_bits(0xa00a))));
    assert_eq!((c.link.ethertype, c.link.len, c.link.hides_c_tag()), (0x0800, 18, false));

    let service = tail(&[0x88a8, 10, 0x8100, 20, 0x0800]);
    assert_eq!(service.link.c_tag(), Ok(None), "an S-tag is payload to a C-VLAN bridge");
    assert_eq!(service.link.outer.map(|tag| tag.kind), Some(TagKind::Service));
    assert_eq!(service.link.inner.map(|tag| tag.tci.vid()), Some(20));

    let stack = tail(&[0x8100, 0, 0x8100, 20, 0x8100, 30, 0x0800]);
    assert_eq!((stack.link.ethertype, stack.link.len), (0x8100, 22));
    assert_eq!(stack.network, Network::Unparsed(Unparsed::TooManyTags));
    assert!(stack.link.hides_c_tag());
}

#[test]
fn a_tag_that_is_cut_is_a_fact_and_no_tag() {
    for len in 14..18 {
        let frame = [[2; 12].as_slice(), &[0x81, 0, 0, 10, 8]].concat();
        let head = parse(&frame[..len.min(frame.len())]);
        assert_eq!(head.network, Network::Unparsed(Unparsed::Truncated));
        assert_eq!(head.link.c_tag(), Err(DropReason::Runt));
    }
}

#[test]
fn what_was_built_is_what_is_read() {
    for tag in [None, Some(0xa00a)] {
        let l2 = if tag.is_some() { 18 } else { 14 };
        let request = parse(&build::arp_request(link(tag), A4, B4));
        let Network::Arp(arp) = request.network else { panic!("{request:?}") };
        assert_eq!((arp.operation, arp.sender, arp.target), (1, A4, B4));
        assert_eq!((arp.sender_mac, arp.target_mac), (link(tag).src, MacAddr::default()));

        let v6 = Addresses::V6(Ipv6Addr::LOCALHOST, "2001:db8::2".parse().unwrap());
        for (addresses, ip_len) in [(Addresses::V4(A4, B4), 20), (v6, 40)] {
            let udp = parse(&build::udp(link(tag), addresses, (53, 1024), b"hello"));
            assert_eq!(udp.transport, Transport::Udp { src: 53, dst: 1024 });
            assert_eq!((udp.link.len, udp.transport_at), (l2, Some(l2 + ip_len)));
            let tcp = parse(&build::tcp_syn(link(tag), addresses, (40000, 80), 7));
            assert_eq!(tcp.transport, Transport::Tcp { src: 40000, dst: 80, flags: TcpFlags::SYN });
        }
        let ping = parse(&build::echo(link(tag), Addresses::V4(A4, B4), Echo::Request, 1, 2, &[0; 56]));
        assert_eq!(ping.transport, Transport::Icmpv4 { kind: 8, code: 0 });
        let pong = parse(&build::echo(link(tag), v6, Echo::Reply, 1, 2, &[0; 56]));
        assert_eq!(pong.transport, Transport::Icmpv6 { kind: 129, code: 0 });
        let who = parse(&build::neighbour_solicitation(
            link(tag),
            Ipv6Addr::LOCALHOST,
            "fe80::1:2".parse().unwrap(),
        ));
        assert_eq!(who.link.dst, MacAddr::new([0x33, 0x33, 0xff, 1, 0, 2]));
        assert_eq!(who.transport, Transport::Icmpv6 { kind: 135, code: 0 });
    }
}

#[test]
fn what_was_built_has_right_checksums() {
    let v6 = Addresses::V6(Ipv6Addr::LOCALHOST, "2001:db8::2".parse().unwrap());
    for addresses in [Addresses::V4(A4, B4), v6] {
        for frame in [
            build::udp(link(None), addresses, (53, 1024), b"odd"),
            build::tcp_syn(link(None), addresses, (1, 2), 3),
            build::echo(link(None), addresses, Echo::Request, 1, 2, b"odd"),
        ] {
            let packet = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
            let payload = packet.payload.slice();
            let said = packet.transport.unwrap();
            let mut right = said.clone();
            match packet.net.unwrap() {
                etherparse::NetHeaders::Ipv4(ip, _) => {
                    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                    right.update_checksum_ipv4(&ip, payload).unwrap();
                }
                etherparse::NetHeaders::Ipv6(ip, _) => right.update_checksum_ipv6(&ip, payload).unwrap(),
                other => panic!("{other:?}"),
            }
            assert_eq!(said, right);
        }
    }
}

#[test]
fn a_later_fragment_has_no_ports() {
    let mut frame = build::udp(link(None), Addresses::V4(A4, B4), (53, 1024), &[0; 64]);
    frame[20..22].copy_from_slice(&[0x20, 0]);
    assert_eq!(parse(&frame).transport, Transport::Udp { src: 53, dst: 1024 }, "the first fragment has them");
    frame[20..22].copy_from_slice(&[0x20, 1]);
    let later = parse(&frame);
    assert_eq!((later.transport, later.transport_at), (Transport::LaterFragment, None));
}

#[test]
fn sctp_has_its_ports_where_its_whole_common_header_is() {
    let packet = |payload: &[u8], fragment: u8| {
        let total = 20 + payload.len() as u8;
        let header = [0x45, 0, 0, total, 0, 7, fragment, 0, 64, 132, 0, 0];
        parse(&build::raw(link(None), 0x0800, &[&header, &A4.octets()[..], &B4.octets(), payload].concat()))
    };
    let common = [0x9c, 0x40, 0x0b, 0x59, 0, 0, 0, 1, 0, 0, 0, 0];
    for fragment in [0, 0x20] {
        let head = packet(&common, fragment);
        assert_eq!(head.transport, Transport::Sctp { src: 40_000, dst: 2905 });
        assert_eq!((head.transport_at, head.to_string().ends_with("SCTP 40000 > 2905")), (Some(34), true));
    }
    assert_eq!(packet(&common[..11], 0).transport, Transport::Unparsed(Unparsed::Truncated));
}

#[test]
fn a_header_behind_the_head_is_never_read() {
    // Of four destination-option headers of 48 bytes the last starts behind byte 192, at 198.
    let mut packet = vec![0x60, 0, 0, 0, 0, 200, 60, 64];
    packet.extend([1; 32]);
    for next in [60, 60, 60, 17] {
        packet.extend([next, 5]);
        packet.extend([0; 46]);
    }
    packet.extend([0, 53, 0, 53, 0, 8, 0, 0]);
    let head = parse(&build::raw(link(None), 0x86dd, &packet));
    assert_eq!(head.transport, Transport::Unparsed(Unparsed::BehindHead));
    assert!(matches!(head.network, Network::Ipv6(ip) if (ip.extensions, ip.protocol) == (3, 60)));
}

#[test]
fn every_truncation_is_read_without_panic_and_never_as_more_than_the_whole() {
    let whole = build::tcp_syn(link(Some(10)), Addresses::V4(A4, B4), (1, 2), 3);
    for len in 14..whole.len() {
        assert!(!matches!(parse(&whole[..len]).transport, Transport::Tcp { .. }), "cut at {len}");
    }
}

/// 20,000 frames, or as many as `VNET_DIFFERENTIAL_FRAMES` says.
#[test]
fn etherparse_agrees_or_the_difference_has_a_name() {
    let frames =
        std::env::var("VNET_DIFFERENTIAL_FRAMES").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let mut random = Random::new(7);
    let mut seen = BTreeMap::<Explained, u32>::new();
    for _ in 0..frames {
        let frame = random_frame(&mut random);
        match compare(&frame) {
            Ok(None) => {}
            Ok(Some(why)) => *seen.entry(why).or_default() += 1,
            Err(what) => panic!("{what}\nframe {frame:02x?}"),
        }
    }
    if frames >= 20_000 {
        assert_eq!(seen.len(), 11, "every named difference happens: {seen:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_alike(frame in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(compare(&frame).is_ok(), "{:?}", compare(&frame));
    }

    #[test]
    fn any_mutation_is_read_alike(seed: u64, flips in proptest::collection::vec((0usize..120, any::<u8>()), 0..6)) {
        let mut frame = random_frame(&mut Random::new(seed));
        for (at, byte) in flips {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        prop_assert!(compare(&frame).is_ok(), "{:?}", compare(&frame));
    }
}
