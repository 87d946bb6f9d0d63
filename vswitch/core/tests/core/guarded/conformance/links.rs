//! Ethernet: lengths, addresses, EtherTypes, ARP (K1 to K6, K10).

use super::{
    super::{H1, PC1, PC2, link, open_office, to_all, v4},
    Row, anything, hold, pc2_with, verdict,
};
use crate::support::lab::{Lab, access, frame, mac};
use vswitch_core::{
    build::{self, Ethernet},
    drop_reason::DropReason,
    firewall::policy::Direction,
    mac::MacAddr,
};

/// Two ports without firewalls, the second with an MTU of 1500.
fn open() -> Lab {
    Lab::new()
        .switch("sw1")
        .port("a", 0, access(10))
        .port("b", 0, access(10))
        .but(|port| port.mtu = Some(1500))
        .port("c", 0, access(10))
}

#[test]
fn a_frame_is_neither_shorter_than_its_header_nor_longer_than_any_link() {
    let mut bench = open().bench();
    let whole = build::raw(link(1, 2), 0x88b5, &vec![0; 65_600]);
    let (to_b, to_c) = ((0, 1), (0, 2));
    for len in 0..14 {
        assert_eq!(verdict(&mut bench, to_b, &whole[..len]), Err(DropReason::Runt), "{len}");
    }
    for len in (14..64).chain([1513, 1514]) {
        assert_eq!(verdict(&mut bench, to_b, &whole[..len]), Ok(()), "{len}");
    }
    assert_eq!(verdict(&mut bench, to_b, &whole[..1515]), Err(DropReason::MtuExceeded));
    for len in [1515, 9014, 65_550] {
        assert_eq!(verdict(&mut bench, to_c, &whole[..len]), Ok(()), "{len}");
    }
    assert_eq!(verdict(&mut bench, to_c, &whole[..65_551]), Err(DropReason::Oversize));
}

#[test]
fn no_group_is_a_sender_and_no_reserved_group_is_reached() {
    let from = |src| frame(src, mac(2), None);
    let to = |dst| frame(mac(1), dst, None);
    let group = |last| MacAddr::new([1, 0x80, 0xc2, 0, 0, last]);
    let senders = [MacAddr::BROADCAST, MacAddr::new([1, 0, 0x5e, 0, 0, 1]), MacAddr::new([0; 6])];
    let senders = senders.map(|src| (from(src), DropReason::BadSource));
    let reserved = (0..16).map(|last| (to(group(last)), DropReason::ReservedMulticast));
    let rows = senders.into_iter().chain(reserved).map(|refused| {
        let what = format!("{:x?}", &refused.0[..12]);
        Row::new(what, (0, 1), refused, to(group(16)))
    });
    hold(|| open().bench(), rows);
    // Who was refused is not learned.
    let mut bench = open().bench();
    assert_eq!(verdict(&mut bench, (0, 1), &from(group(16))), Err(DropReason::BadSource));
    assert_eq!(bench.pass(1, 2, 1, None).1.len(), 2, "it is flooded");
}

/// All 65,536: what is no EtherType, announces a tag or LLC, or is IP and is not, passes no firewall that lets in anything.
#[test]
fn of_all_ethertypes_those_that_hide_something_pass_nowhere() {
    let mut bench = pc2_with(&[anything(Direction::Ingress)]);
    let arp = build::arp_reply(link(3, 4), v4(3), v4(4));
    // Behind it the ARP message reads as a tag of VLAN 1, which an access port does not take in the first place.
    let is_tag = |ethertype: &u16| *ethertype == 0x8100;
    let refused: Vec<u16> = (0..=u16::MAX)
        .filter(|ethertype| !is_tag(ethertype))
        .filter(|ethertype| {
            let mut frame = arp.clone();
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
            match verdict(&mut bench, (H1, PC2), &frame) {
                Ok(()) => false,
                why => {
                    assert_eq!(why, Err(DropReason::UnparsedIngress), "{ethertype:#x}");
                    true
                }
            }
        })
        .collect();
    let hidden = [0x0800, 0x86dd, 0x8870, 0x88a8, 0x9100, 0x9200, 0x9300];
    let expected: Vec<u16> = (0..0x600).chain(hidden).collect();
    assert_eq!(refused, expected);
}

#[test]
fn arp_is_of_ethernet_and_ipv4_and_about_its_sender() {
    let request = build::arp_request(to_all(2), v4(2), v4(3));
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = request.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let unparsed = |frame| (frame, DropReason::UnparsedEgress);
    let spoof = |frame| (frame, DropReason::AntiSpoof);
    let reply = |sender_mac: MacAddr, sender| {
        let mut frame = build::arp_reply(link(2, 3), sender, v4(3));
        frame[22..28].copy_from_slice(&sender_mac.octets());
        frame
    };
    let mut rows = vec![
        ("hardware type", unparsed(with(14, &[0, 6]))),
        ("protocol type", unparsed(with(16, &[0x86, 0xdd]))),
        ("hardware length 0", unparsed(with(18, &[0]))),
        ("hardware length 8", unparsed(with(18, &[8]))),
        ("protocol length 0", unparsed(with(19, &[0]))),
        ("protocol length 16", unparsed(with(19, &[16]))),
        ("cut", unparsed(request[..41].to_vec())),
        ("another's address", spoof(with(28, &v4(1).octets()))),
        ("another's MAC address", spoof(with(22, &mac(1).octets()))),
        ("a probe with another's MAC address", {
            let mut probe = build::arp_request(to_all(2), super::NOBODY, v4(2));
            probe[22..28].copy_from_slice(&mac(1).octets());
            spoof(probe)
        }),
        ("a group as its MAC address", spoof(with(22, &MacAddr::BROADCAST.octets()))),
        ("a group as its address", spoof(with(28, &[224, 0, 0, 1]))),
        ("the broadcast address as its own", spoof(with(28, &[255; 4]))),
        ("an answer of nobody", spoof(reply(mac(2), super::NOBODY))),
        ("an answer of another", spoof(reply(mac(2), v4(1)))),
        ("an answer with another's MAC address", spoof(reply(mac(1), v4(2)))),
        (
            "from another station",
            spoof(build::arp_request(Ethernet { src: mac(1), ..to_all(2) }, v4(2), v4(3))),
        ),
    ];
    // Reverse, dynamic reverse and inverse ARP are no part of what a link needs.
    rows.extend(
        [0u8, 3, 4, 5, 8, 9, 25].map(|op| ("operation", (with(21, &[op]), DropReason::PolicyEgress))),
    );
    let honest = [
        request.clone(),
        reply(mac(2), v4(2)),
        build::arp_reply(to_all(2), v4(2), v4(2)),
        build::arp_request(to_all(2), super::NOBODY, v4(2)),
        [&request[..], &[0; 18]].concat(),
    ];
    let rows = rows
        .into_iter()
        .enumerate()
        .map(|(n, (what, refused))| Row::new(what, (PC1, H1), refused, honest[n % honest.len()].clone()));
    hold(open_office, rows);
}
