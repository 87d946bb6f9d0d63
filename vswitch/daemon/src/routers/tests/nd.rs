//! Neighbour discovery: RFC 4861 §7.1, §7.2.

use super::{Bench, Lost, ROUTER, mac, read_icmp, to_all, to_router, v6};
use std::net::{IpAddr, Ipv6Addr};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    mac::MacAddr,
};

const GATEWAY: &str = "2001:db8:10::1";
const HOST: &str = "2001:db8:10::7";
const LOCAL: &str = "fe80::ff:fe00:fe";

/// A message of neighbour discovery, whatever it says.
fn message(
    link: Ethernet,
    ends: (&str, &str),
    hops: u8,
    start: [u8; 8],
    target: &str,
    options: &[u8],
) -> Vec<u8> {
    let message = [&start[..], &v6(target).octets(), options].concat();
    build::ip(link, Addresses::V6(v6(ends.0), v6(ends.1)), 58, hops, message, 2)
}

fn option(kind: u8, mac: MacAddr) -> Vec<u8> {
    [&[kind, 1], &mac.octets()[..]].concat()
}

fn advertisement(flags: u8, who: u8) -> Vec<u8> {
    let start = [136, 0, 0, 0, flags, 0, 0, 0];
    message(to_router(10, 7), (HOST, GATEWAY), 255, start, HOST, &option(2, mac(who)))
}

/// Makes station 7 known.
fn introduce(bench: &mut Bench) {
    bench.hear(&build::neighbour_solicitation(to_all(10, 7), v6(HOST), v6(GATEWAY))).one();
    assert_eq!(bench.knows(10, v6(HOST)), Some(mac(7)));
}

/// Source, destination, flags, target and option of an advertisement of the routers'.
fn read(frame: &[u8]) -> (IpAddr, IpAddr, u8, Ipv6Addr) {
    let (src, dst, hops, message) = read_icmp(frame, 10);
    assert_eq!((hops, &message[..2], message.len()), (255, &[136, 0][..], 32));
    assert_eq!(message[24..], option(2, ROUTER));
    let target: [u8; 16] = message[8..24].try_into().expect("sixteen bytes");
    (src, dst, message[4], target.into())
}

#[test]
fn who_solicits_a_gateway_is_answered_and_known() {
    let mut bench = Bench::new();
    bench.hear(&build::neighbour_solicitation(to_all(10, 7), v6(HOST), v6(GATEWAY)));
    let said = bench.one();
    assert_eq!(said[..6], mac(7).octets());
    assert_eq!(read(&said), (v6(GATEWAY).into(), v6(HOST).into(), 0xe0, v6(GATEWAY)));
    assert_eq!(bench.knows(10, v6(HOST)), Some(mac(7)));
}

#[test]
fn the_link_local_address_is_a_gateways_where_there_is_ipv6() {
    let mut bench = Bench::new();
    bench.hear(&build::neighbour_solicitation(to_all(10, 7), v6("fe80::7"), v6(LOCAL)));
    assert_eq!(read(&bench.one()), (v6(LOCAL).into(), v6("fe80::7").into(), 0xe0, v6(LOCAL)));
    // No frame is routed to a link-local address.
    assert_eq!(bench.knows(10, v6("fe80::7")), None);
    bench.silent_after(&build::neighbour_solicitation(to_all(40, 7), v6("fe80::7"), v6(LOCAL)));
}

#[test]
fn an_address_of_the_gateways_is_defended_against_who_would_take_it() {
    let mut bench = Bench::new();
    bench.hear(&build::ip(
        Ethernet { dst: MacAddr::new([0x33, 0x33, 0xff, 0, 0, 1]), ..to_all(10, 7) },
        Addresses::V6(Ipv6Addr::UNSPECIFIED, v6("ff02::1:ff00:1")),
        58,
        255,
        [&[135, 0, 0, 0, 0, 0, 0, 0], &v6(GATEWAY).octets()[..]].concat(),
        2,
    ));
    let said = bench.one();
    assert_eq!(said[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(read(&said), (v6(GATEWAY).into(), v6("ff02::1").into(), 0xa0, v6(GATEWAY)));
    // One that took it already.
    let start = [136, 0, 0, 0, 0x20, 0, 0, 0];
    let claim = message(to_all(10, 7), (GATEWAY, "ff02::1"), 255, start, GATEWAY, &option(2, mac(7)));
    bench.hear(&claim).hear(&claim);
    assert_eq!(read(&bench.one()), (v6(GATEWAY).into(), v6("ff02::1").into(), 0xa0, v6(GATEWAY)));
    assert_eq!(bench.speaker.counts().conflicts, 2);
}

#[test]
fn invalid_solicitations_are_not_heard() {
    let mut bench = Bench::new();
    let group = "ff02::1:ff00:1";
    let start = [135, 0, 0, 0, 0, 0, 0, 0];
    let from_7 = option(1, mac(7));
    let say = |ends, hops, start, target, options: &[u8]| {
        message(to_router(10, 7), ends, hops, start, target, options)
    };
    let good = say((HOST, group), 255, start, GATEWAY, &from_7);
    let mut garbled = good.clone();
    garbled[18 + 40 + 2] ^= 1;
    let wrong = [
        ("hop limit", say((HOST, group), 254, start, GATEWAY, &from_7)),
        ("checksum", garbled),
        ("code", say((HOST, group), 255, [135, 1, 0, 0, 0, 0, 0, 0], GATEWAY, &from_7)),
        ("an option of no length", say((HOST, group), 255, start, GATEWAY, &[1, 0, 2, 0, 0, 0, 0, 7])),
        ("an option that ends too late", say((HOST, group), 255, start, GATEWAY, &[1, 2, 2, 0, 0, 0, 0, 7])),
        ("half an option", say((HOST, group), 255, start, GATEWAY, &[1])),
        ("a group is asked for", say((HOST, group), 255, start, "ff02::1", &from_7)),
        ("from nobody, with an option", say(("::", group), 255, start, GATEWAY, &from_7)),
        ("from nobody, to one", say(("::", GATEWAY), 255, start, GATEWAY, &[])),
        ("from a group", say(("ff02::1", group), 255, start, GATEWAY, &from_7)),
        ("the router's MAC address", say((HOST, group), 255, start, GATEWAY, &option(1, ROUTER))),
        ("a group's MAC address", say((HOST, group), 255, start, GATEWAY, &option(1, MacAddr::BROADCAST))),
    ];
    for (count, (what, frame)) in wrong.into_iter().enumerate() {
        bench.hear(&frame);
        assert!(bench.said().is_empty(), "{what}");
        assert_eq!(bench.lost(Lost::Malformed), count as u64 + 1, "{what}");
    }
    // Options that nobody knows are passed over.
    let options = [&[14, 1, 1, 2, 3, 4, 5, 6], &from_7[..]].concat();
    bench.hear(&say((HOST, group), 255, start, GATEWAY, &options)).one();
    assert_eq!(bench.knows(10, v6(HOST)), Some(mac(7)));
}

#[test]
fn an_advertisement_overrides_only_if_it_says_so() {
    let mut bench = Bench::new();
    introduce(&mut bench);
    // Neither solicited nor overriding: who is known is asked whether it is so.
    bench.hear(&advertisement(0, 17));
    let said = bench.one();
    assert_eq!(said[..6], mac(7).octets());
    let (_, to, hops, message) = read_icmp(&said, 10);
    assert_eq!((to, hops, message[0], &message[24..]), (v6(HOST).into(), 255, 135, &option(1, ROUTER)[..]));
    assert_eq!(bench.knows(10, v6(HOST)), Some(mac(7)));
    bench.hear(&advertisement(0x20, 17));
    assert_eq!(bench.knows(10, v6(HOST)), Some(mac(17)));
}

#[test]
fn only_a_solicited_advertisement_says_that_a_neighbour_is_there() {
    let mut bench = Bench::new();
    introduce(&mut bench);
    let heard = |bench: &Bench| bench.neighbours.list(bench.now)[0].heard_secs;
    bench.now = bench.now + std::time::Duration::from_secs(20);
    bench.hear(&advertisement(0x20, 7));
    assert_eq!(heard(&bench), 20);
    bench.hear(&advertisement(0x40, 7));
    assert_eq!(heard(&bench), 0);
}

#[test]
fn an_advertisement_that_nobody_asked_for_teaches_nothing() {
    let mut bench = Bench::new();
    bench.silent_after(&advertisement(0x60, 7));
    assert_eq!(bench.knows(10, v6(HOST)), None);
    introduce(&mut bench);
    let start = [136, 0, 0, 0, 0x60, 0, 0, 0];
    let to_all_nodes = message(to_all(10, 7), (HOST, "ff02::1"), 255, start, HOST, &option(2, mac(17)));
    bench.silent_after(&to_all_nodes);
    assert_eq!(bench.knows(10, v6(HOST)), Some(mac(7)), "to a group, and yet solicited");
}

#[test]
fn router_solicitations_are_not_answered() {
    let mut bench = Bench::new();
    let link = Ethernet { dst: MacAddr::new([0x33, 0x33, 0, 0, 0, 2]), ..to_all(10, 7) };
    let ends = Addresses::V6(v6("fe80::7"), v6("ff02::2"));
    bench.silent_after(&build::ip(link, ends, 58, 255, vec![133, 0, 0, 0, 0, 0, 0, 0], 2));
}

#[test]
fn rfc_4861_8_1_neither_redirects_nor_other_routers_teach_anything() {
    let mut bench = Bench::new();
    introduce(&mut bench);
    // A redirect from the neighbour that it would be about, and an advertisement of another router with its MAC address.
    let redirect =
        [&[137, 0, 0, 0, 0, 0, 0, 0], &v6(HOST).octets()[..], &v6(HOST).octets(), &option(2, mac(17))];
    let advertisement = [&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &option(1, mac(17))];
    for (ends, said) in
        [((HOST, GATEWAY), redirect.concat()), (("fe80::7", "ff02::1"), advertisement.concat())]
    {
        let link = if ends.1 == GATEWAY { to_router(10, 7) } else { to_all(10, 7) };
        bench.silent_after(&build::ip(link, Addresses::V6(v6(ends.0), v6(ends.1)), 58, 255, said, 2));
        assert_eq!(bench.knows(10, v6(HOST)), Some(mac(7)));
    }
    assert_eq!((bench.lost(Lost::NotOurs), bench.neighbours.list(bench.now).len()), (2, 1));
}
