//! ARP: who asks is answered, who speaks to us is known, who claims our address is contradicted.

use super::{
    Bench, Lost, ROUTER,
    lab::{gateway, usual, world},
    mac, read_arp, to_all, to_router, v4,
};
use etherparse::ArpOperation;
use vswitch_core::{
    build::{self, Addresses},
    description::Router,
    mac::MacAddr,
};

#[test]
fn who_asks_for_a_gateway_is_answered_and_known() {
    let mut bench = Bench::new();
    bench.hear(&build::arp_request(to_all(10, 7), v4("10.0.10.7"), v4("10.0.10.1")));
    let said = bench.one();
    assert_eq!(said[..6], mac(7).octets());
    let arp = read_arp(&said, 10);
    assert_eq!(arp.operation, ArpOperation::REPLY);
    assert_eq!(
        (arp.sender_hw_addr(), arp.sender_protocol_addr()),
        (&ROUTER.octets()[..], &[10, 0, 10, 1][..])
    );
    assert_eq!(
        (arp.target_hw_addr(), arp.target_protocol_addr()),
        (&mac(7).octets()[..], &[10, 0, 10, 7][..])
    );
    assert_eq!(bench.knows(10, v4("10.0.10.7")), Some(mac(7)));
    assert_eq!(bench.speaker.counts().answered, 1);
}

#[test]
fn routers_with_the_same_addresses_stay_apart() {
    let mut bench = Bench::new();
    bench.hear(&build::arp_request(to_all(30, 8), v4("10.0.10.7"), v4("10.0.10.1")));
    read_arp(&bench.one(), 30);
    assert_eq!((bench.knows(30, v4("10.0.10.7")), bench.knows(10, v4("10.0.10.7"))), (Some(mac(8)), None));
    bench.hear(&build::arp_request(to_all(10, 7), v4("10.0.10.7"), v4("10.0.10.1")));
    read_arp(&bench.one(), 10);
    assert_eq!(
        (bench.knows(30, v4("10.0.10.7")), bench.knows(10, v4("10.0.10.7"))),
        (Some(mac(8)), Some(mac(7)))
    );
    // What is for a network of another router is held for nobody.
    let ends = build::Addresses::V4(v4("10.0.10.7"), v4("10.0.20.7"));
    bench.silent_after(&build::udp(to_router(30, 8), ends, (1, 2), b""));
    assert_eq!(bench.lost(Lost::NoRoute), 1);
}

#[test]
fn a_probe_for_a_gateway_is_answered_and_teaches_nothing() {
    let mut bench = Bench::new();
    bench.hear(&build::arp_request(to_all(10, 7), v4("0.0.0.0"), v4("10.0.10.1")));
    let arp = read_arp(&bench.one(), 10);
    assert_eq!((arp.operation, arp.sender_protocol_addr()), (ArpOperation::REPLY, &[10, 0, 10, 1][..]));
    assert_eq!(bench.knows(10, v4("0.0.0.0")), None);
    assert_eq!(bench.speaker.counts().conflicts, 0);
}

#[test]
fn who_claims_a_gateways_address_is_contradicted_once_in_ten_seconds() {
    let mut bench = Bench::new();
    let claim = build::arp_request(to_all(10, 7), v4("10.0.10.1"), v4("10.0.10.1"));
    bench.hear(&claim).hear(&claim);
    let said = bench.one();
    assert_eq!(said[..6], MacAddr::BROADCAST.octets());
    let arp = read_arp(&said, 10);
    assert_eq!(arp.operation, ArpOperation::REQUEST);
    assert_eq!(
        (arp.sender_protocol_addr(), arp.target_protocol_addr()),
        (&[10, 0, 10, 1][..], &[10, 0, 10, 1][..])
    );
    bench.pass(9);
    bench.silent_after(&claim);
    bench.pass(1);
    bench.hear(&claim).one();
    assert_eq!((bench.speaker.counts().conflicts, bench.knows(10, v4("10.0.10.1"))), (4, None));
}

#[test]
fn what_is_between_others_teaches_nothing_of_who_is_not_known() {
    let mut bench = Bench::new();
    let between = |n| build::arp_request(to_all(10, n), v4("10.0.10.7"), v4("10.0.10.8"));
    bench.silent_after(&between(7));
    assert_eq!(bench.knows(10, v4("10.0.10.7")), None);
    bench.hear(&build::arp_request(to_all(10, 7), v4("10.0.10.7"), v4("10.0.10.1"))).one();
    // RFC 826: the merge flag.
    bench.silent_after(&between(17));
    assert_eq!(bench.knows(10, v4("10.0.10.7")), Some(mac(17)));
}

#[test]
fn who_asks_in_the_name_of_an_address_elsewhere_is_answered_and_not_known() {
    let mut bench = Bench::new();
    bench.hear(&build::arp_request(to_all(10, 7), v4("203.0.113.80"), v4("10.0.10.1")));
    assert_eq!(bench.one()[..6], mac(7).octets());
    assert!(bench.neighbours.list(bench.now).is_empty());
}

#[test]
fn what_cannot_be_is_neither_answered_nor_learned() {
    let mut bench = Bench::new();
    let good = build::arp_request(to_all(10, 7), v4("10.0.10.7"), v4("10.0.10.1"));
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    // Behind addresses, tag and EtherType, at 18, the message begins.
    let wrong = [
        ("hardware type", with(18, &[0, 6])),
        ("protocol type", with(20, &[8, 6])),
        ("hardware length", with(22, &[8])),
        ("operation", with(24, &[0, 3])),
        ("sender is a group", with(26, &[1])),
        ("sender is the router", with(26, &ROUTER.octets())),
        ("sender is nobody", with(26, &[0; 6])),
        ("a frame from the router", with(6, &ROUTER.octets())),
        ("a group", with(32, &[224, 0, 0, 5])),
        ("the network's broadcast address", with(32, &[10, 0, 10, 255])),
        ("the network's own address", with(32, &[10, 0, 10, 0])),
        ("the other VLAN's gateway", with(42, &[10, 0, 20, 1])),
        ("no gateway", with(14, &[0, 50])),
        ("VLAN 0", with(14, &[0, 0])),
        ("cut", good[..40].to_vec()),
        ("untagged", [&good[..12], &good[16..]].concat()),
        ("to another station", with(0, &mac(9).octets())),
    ];
    for (what, frame) in wrong {
        bench.hear(&frame);
        assert!(bench.said().is_empty(), "{what}");
        assert!(bench.neighbours.list(bench.now).is_empty(), "{what}");
    }
    bench.hear(&good).one();
}

#[test]
fn new_addresses_are_announced_twice_and_old_ones_not_again() {
    let mut bench = Bench::silent(usual());
    bench.speaker.tick(bench.now);
    let said = bench.said();
    // Of four IPv4 and two IPv6 addresses, and the link-local one in both VLANs that have IPv6.
    assert_eq!(said.len(), 4 + 2 + 2);
    let arps: Vec<_> = said.iter().filter(|frame| frame[16..18] == [8, 6]).collect();
    assert!(arps.iter().all(|frame| frame[..6] == [0xff; 6] && frame[32..36] == frame[42..46]));
    bench.pass(1);
    assert!(bench.said().is_empty());
    bench.pass(1);
    assert_eq!(bench.said().len(), 8);
    bench.pass(100);
    assert!(bench.said().is_empty());
    let gateways = vec![
        gateway(10, &["10.0.10.1/24", "2001:db8:10::1/64"]),
        gateway(20, &["10.0.20.2/24", "2001:db8:20::1/64"]),
    ];
    bench.speaker.adopt(world(vec![Router {
        name: "default".into(),
        gateways,
        routes: Vec::new(),
        nat: Vec::new(),
        nameservers: Vec::new(),
    }]));
    bench.pass(0);
    let arp = read_arp(&bench.one(), 20);
    assert_eq!(arp.sender_protocol_addr(), [10, 0, 20, 2]);
}

#[test]
fn answers_have_a_rate_and_who_asks_too_often_takes_it_from_few() {
    let mut bench = Bench::new();
    let ask = build::arp_request(to_all(10, 7), v4("10.0.10.7"), v4("10.0.10.1"));
    (0..500).for_each(|_| {
        bench.hear(&ask);
    });
    assert_eq!(bench.said().len(), 100);
    assert_eq!(bench.lost(Lost::Rate), 400);
    bench.hear(&build::arp_request(to_all(20, 8), v4("10.0.20.8"), v4("10.0.20.1")));
    read_arp(&bench.one(), 20);
    // What else it asks is another matter, and nearly all others are told still.
    bench.hear(&build::udp(to_router(10, 7), Addresses::V4(v4("10.0.10.7"), v4("10.0.10.1")), (1, 2), b""));
    bench.one();
    (10..210).for_each(|n| {
        bench.hear(&build::arp_request(to_all(10, n), [10, 0, 10, n].into(), v4("10.0.10.1")));
    });
    assert!((150..200).contains(&bench.said().len()));
}

#[test]
fn a_vlan_cannot_fill_the_table() {
    let mut bench = Bench::new();
    for host in 0..10_000_u16 {
        let [a, b] = (host + 256).to_be_bytes();
        let from = [10, 4, a, b].into();
        bench.hear(&build::arp_request(to_all(40, 7), from, v4("10.4.0.1")));
        bench.said();
    }
    let known = bench.neighbours.list(bench.now).len();
    assert!((1800..=2048).contains(&known), "{known} of 2048, but for those whose places are others'");
    assert_eq!(bench.lost(Lost::TooMany), 10_000 - 2048);
    bench.hear(&build::arp_request(to_all(10, 7), v4("10.0.10.7"), v4("10.0.10.1")));
    assert_eq!(bench.knows(10, v4("10.0.10.7")), Some(mac(7)));
}
