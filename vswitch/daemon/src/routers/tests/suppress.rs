//! A gateway answers for neighbours, where its VLAN says so.

use super::{
    Bench, ROUTER,
    lab::{description, gateway, vlan},
    mac, read_arp, read_icmp, to_all, to_router, v4, v6,
};
use etherparse::ArpOperation;
use std::sync::Arc;
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    description::{Gateway, Host, Router},
    mac::MacAddr,
    world::World,
};

/// Of station 9 the topology file states that it has 10.0.10.9.
fn bench(neigh_suppress: bool) -> Bench {
    let mut said = description(vec![Router {
        name: "default".into(),
        gateways: vec![Gateway { neigh_suppress, ..gateway(10, &["10.0.10.1/24", "2001:db8:10::1/64"]) }],
        routes: vec![],
        nat: vec![],
        nameservers: vec![],
    }]);
    let address = "10.0.10.9/24".parse().expect("an address");
    let host = Host { vlan: vlan(10), name: "pc9".into(), mac: Some(mac(9)), addresses: vec![address] };
    said.routing.as_mut().expect("routers").hosts = vec![host];
    let mut bench = Bench::silent(Arc::new(World::compile(&said).expect("it fits together")));
    bench.pass(10);
    bench.said();
    bench
}

/// Station `n` asks all who has an address.
fn asks(n: u8, sender: &str, target: &str) -> Vec<u8> {
    build::arp_request(to_all(10, n), v4(sender), v4(target))
}

#[test]
fn who_is_known_is_told_of_as_that_would_tell_itself() {
    let mut bench = bench(true);
    // Whoever asks is known.
    bench.silent_after(&asks(7, "10.0.10.7", "10.0.10.8"));
    bench.hear(&asks(8, "10.0.10.8", "10.0.10.7"));
    let said = bench.one();
    assert_eq!((&said[..6], &said[6..12]), (&mac(8).octets()[..], &mac(7).octets()[..]));
    let arp = etherparse::ArpPacketSlice::from_slice(&said[18..]).expect("ARP");
    assert_eq!((arp.operation(), arp.sender_hw_addr()), (ArpOperation::REPLY, &mac(7).octets()[..]));
    assert_eq!(
        (arp.sender_protocol_addr(), arp.target_protocol_addr()),
        (&[10, 0, 10, 7][..], &[10, 0, 10, 8][..])
    );
    assert_eq!(bench.speaker.counts().answered_for, 1);
    // One that looks whether an address is free is told that it is not, but not its owner.
    bench.hear(&asks(5, "0.0.0.0", "10.0.10.7"));
    let arp = bench.one();
    assert_eq!(arp[..6], mac(5).octets());
    bench.silent_after(&asks(7, "0.0.0.0", "10.0.10.7"));
    // Who says anew whose address it is has it.
    bench.silent_after(&asks(6, "10.0.10.7", "10.0.10.7"));
    assert_eq!(bench.knows(10, v4("10.0.10.7")), Some(mac(6)));
}

#[test]
fn of_ipv6_the_same() {
    let mut bench = bench(true);
    let asks = |n, src, target| build::neighbour_solicitation(to_all(10, n), v6(src), v6(target));
    bench.silent_after(&asks(7, "2001:db8:10::7", "2001:db8:10::8"));
    bench.hear(&asks(8, "2001:db8:10::8", "2001:db8:10::7"));
    let mut said = bench.one();
    assert_eq!((&said[..6], &said[6..12]), (&mac(8).octets()[..], &mac(7).octets()[..]));
    // Of a node, and no router: solicited, to be taken instead of what was known.
    said[6..12].copy_from_slice(&ROUTER.octets());
    let (src, dst, hops, message) = read_icmp(&said, 10);
    assert_eq!((src, dst, hops), (v6("2001:db8:10::7").into(), v6("2001:db8:10::8").into(), 255));
    assert_eq!((message[0], message[4]), (136, 0x60));
    assert_eq!(
        (&message[8..24], &message[24..]),
        (&v6("2001:db8:10::7").octets()[..], &[2, 1, 2, 0, 0, 0, 0, 7][..])
    );
    // One that looks whether the address is free hears with all others that it is not.
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &v6("2001:db8:10::7").octets()].concat();
    let group = Ethernet { dst: MacAddr::new([0x33, 0x33, 0xff, 0, 0, 7]), ..to_all(10, 5) };
    let ends = Addresses::V6(v6("::"), v6("ff02::1:ff00:7"));
    bench.hear(&build::ip(group, ends, 58, 255, message, 2));
    let said = bench.one();
    assert_eq!(said[..6], [0x33, 0x33, 0, 0, 0, 1]);
    // An address of the link alone may be a router's.
    bench.silent_after(&asks(7, "fe80::7", "fe80::8"));
    bench.silent_after(&asks(8, "fe80::8", "fe80::7"));
}

#[test]
fn who_is_stated_is_asked_for_when_somebody_asks_and_answered_for_then() {
    let mut bench = bench(true);
    bench.hear(&asks(7, "10.0.10.7", "10.0.10.9"));
    let said = bench.one();
    assert_eq!(
        (&said[..6], read_arp(&said, 10).target_protocol_addr()),
        (&MacAddr::BROADCAST.octets()[..], &[10, 0, 10, 9][..])
    );
    bench.silent_after(&build::arp_reply(to_router(10, 9), v4("10.0.10.9"), v4("10.0.10.1")));
    bench.pass(2);
    bench.hear(&asks(7, "10.0.10.7", "10.0.10.9"));
    assert_eq!(bench.one()[6..12], mac(9).octets());
    // It was used: after a while it is asked whether it is still there, and forgotten if it is not.
    bench.pass(30 + 8);
    let said = bench.said();
    assert!(said.iter().any(|frame| frame[..6] == mac(9).octets()), "{said:x?}");
    bench.pass(10);
    assert_eq!(bench.knows(10, v4("10.0.10.9")), None);
}

#[test]
fn where_nothing_is_said_nobody_is_answered_for() {
    let mut bench = bench(false);
    bench.neighbours.set(vlan(10), v4("10.0.10.7").into(), mac(7), bench.now);
    bench.silent_after(&asks(8, "10.0.10.8", "10.0.10.7"));
    bench.silent_after(&asks(8, "10.0.10.8", "10.0.10.9"));
    assert_eq!(bench.knows(10, v4("10.0.10.8")), None);
}
