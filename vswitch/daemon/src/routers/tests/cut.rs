//! Packets that are longer than where they go on, and may be cut, leave in pieces.

use super::{
    Bench, Lost,
    lab::{ROUTER, description, gateway, vlan},
    mac, to_router, v4,
};
use crate::tracking;
use checksum::Sum;
use etherparse::NetSlice;
use std::{net::Ipv4Addr, sync::Arc};
use vswitch_core::{
    build::{self, Addresses},
    description::{Link, Membership, Nat, NatRule, Origin, Port, Router},
    id::{PortId, SwitchId},
    world::World,
};

const MTU: u16 = 600;

/// VLANs 10 and 20, in which somebody takes packets of [`MTU`] bytes only; whoever is in 20 is outside if the router `masquerades`.
fn bench(masquerades: bool) -> Bench {
    let origin = Origin { line: 1, column: 1 };
    let nat = masquerades.then_some(Nat { rule: NatRule::Masquerade { vlan: vlan(20) }, origin });
    let mut said = description(vec![Router {
        name: "default".into(),
        gateways: vec![gateway(10, &["10.0.10.1/24"]), gateway(20, &["10.0.20.1/24"])],
        routes: vec![],
        nat: nat.into_iter().collect(),
        nameservers: vec![],
    }]);
    let routers = said.ports[0].clone().expect("the routers' port");
    let port = |place, number, mtu| Port {
        id: PortId::new(place, 0),
        node: format!("pc{place}"),
        mac: None,
        mtu,
        link: Link::Switch { switch: SwitchId::new(0), vlans: Membership::Access(vlan(number)) },
        ..routers.clone()
    };
    said.ports.extend([port(1, 20, Some(MTU)), port(2, 20, Some(1400)), port(3, 10, Some(100))].map(Some));
    let world = Arc::new(World::compile(&said).expect("it fits together"));
    let mut bench = Bench::silent(world.clone());
    bench.speaker.translate_by(Arc::new(tracking::of(&world, 1000).expect("a random secret")));
    bench.pass(10);
    bench.said();
    bench.neighbours.set(vlan(20), v4("10.0.20.8").into(), mac(8), bench.now);
    bench
}

/// A datagram of so many bytes, its header included, from station 7 in VLAN 10, that must not be cut.
fn whole(len: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..len - 28).map(|n| n as u8).collect();
    build::udp(to_router(10, 7), Addresses::V4(v4("10.0.10.7"), v4("10.0.20.8")), (4000, 53), &data)
}

/// The same that may be.
fn datagram(len: usize) -> Vec<u8> {
    let mut frame = whole(len);
    let header = &mut frame[18..38];
    (header[6], header[10], header[11]) = (0, 0, 0);
    let checksum = Sum::ZERO.add_bytes(header).checksum();
    header[10..12].copy_from_slice(&checksum);
    frame
}

/// The pieces that were said in VLAN 20 to station 8: their source, hops, offset, whether more follow, and data.
fn pieces(bench: &mut Bench) -> Vec<(Ipv4Addr, u8, u16, bool, Vec<u8>)> {
    let read = |frame: &Vec<u8>| {
        assert_eq!(frame[..6], mac(8).octets());
        assert!(frame.len() <= usize::from(MTU) + 18);
        let packet = etherparse::SlicedPacket::from_ethernet(frame).expect("a frame");
        assert_eq!(frame[6..12], ROUTER.octets());
        let Some(NetSlice::Ipv4(ip)) = packet.net else { panic!("IPv4") };
        let header = ip.header();
        assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
        let (offset, more) = (header.fragments_offset().value(), header.more_fragments());
        (header.source_addr(), header.ttl(), offset, more, ip.payload().payload.to_vec())
    };
    bench.said().iter().map(read).collect()
}

#[test]
fn rfc_1812_4_2_2_7_what_may_be_cut_goes_on_in_pieces() {
    let mut bench = bench(false);
    let frame = datagram(1500);
    bench.hear(&frame);
    let pieces = pieces(&mut bench);
    let seen: Vec<_> = pieces
        .iter()
        .map(|(src, hops, offset, more, data)| (*src, *hops, *offset, *more, data.len()))
        .collect();
    let src = v4("10.0.10.7");
    assert_eq!(seen, [(src, 63, 0, true, 576), (src, 63, 72, true, 576), (src, 63, 144, false, 328)]);
    assert_eq!(pieces.into_iter().flat_map(|piece| piece.4).collect::<Vec<_>>(), frame[18 + 20..]);
    assert_eq!(bench.speaker.counts().cut, 1);
    // What fits, or may not be cut, goes to the workers as it came: these tell the sender.
    for frame in [datagram(usize::from(MTU)), whole(1500)] {
        bench.hear(&frame);
        assert_eq!(bench.one(), frame);
    }
    assert_eq!((bench.speaker.counts().cut, bench.speaker.counts().forwarded), (1, 2));
}

#[test]
fn what_waited_for_its_neighbour_is_cut_when_that_is_known() {
    let mut bench = bench(false);
    bench.neighbours.forget(vlan(20), v4("10.0.20.8").into());
    bench.hear(&datagram(1500));
    bench.one();
    bench.hear(&build::arp_reply(to_router(20, 8), v4("10.0.20.8"), v4("10.0.20.1")));
    assert_eq!(pieces(&mut bench).len(), 3);
}

#[test]
fn what_is_translated_is_cut_behind_that() {
    let mut bench = bench(true);
    bench.hear(&datagram(1500));
    let pieces = pieces(&mut bench);
    assert_eq!(pieces.len(), 3);
    assert!(pieces.iter().all(|(src, ..)| *src == v4("10.0.20.1")), "{pieces:?}");
    // Its own checksum is right for the addresses that it has now.
    let data: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.4).collect();
    let whole = build::ip(
        to_router(20, 8),
        Addresses::V4(v4("10.0.20.1"), v4("10.0.20.8")),
        17,
        63,
        {
            let mut data = data.clone();
            data[6..8].fill(0);
            data
        },
        6,
    );
    assert_eq!(whole[18 + 20..], data);
}

#[test]
fn who_sends_too_much_that_must_be_cut_has_a_rate() {
    let mut bench = bench(false);
    let frame = datagram(700);
    let mut heard = 0;
    for _ in 0..3000 {
        bench.hear(&frame);
        heard += pieces(&mut bench).len() / 2;
    }
    assert_eq!((heard as u64, bench.lost(Lost::Rate)), (1000, 2000));
}
