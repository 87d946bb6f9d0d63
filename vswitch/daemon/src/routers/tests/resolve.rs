//! Frames wait while their neighbour is asked for, go on in order, or come back as an error; and neighbours are seen to be there.

use super::{
    Bench, Lost,
    lab::{ROUTER, gateway, vlan, world},
    mac, read_arp, read_icmp, to_all, to_router, v4, v6,
};
use etherparse::ArpOperation;
use std::{net::Ipv4Addr, time::Duration};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    description::Router,
    mac::MacAddr,
};

/// A datagram from station 7 in VLAN 10 with this number.
fn datagram(to: &str, number: u8) -> Vec<u8> {
    build::udp(to_router(10, 7), Addresses::V4(v4("10.0.10.7"), v4(to)), (1, 2), &[number])
}

fn reply(from: &str) -> Vec<u8> {
    build::arp_reply(to_router(20, 8), v4(from), v4("10.0.20.1"))
}

/// The numbers of datagrams that went to the workers again, as they had come.
fn numbers(bench: &mut Bench) -> Vec<u8> {
    let number = |frame: &Vec<u8>| {
        assert_eq!((&frame[..6], &frame[6..12]), (&ROUTER.octets()[..], &mac(7).octets()[..]));
        // Behind the headers of link, IPv4 and UDP.
        frame[18 + 20 + 8]
    };
    bench.said().iter().map(number).collect()
}

#[test]
fn frames_wait_for_a_neighbour_and_go_on_in_order() {
    let mut bench = Bench::new();
    bench.hear(&datagram("10.0.20.8", 1)).hear(&datagram("10.0.20.8", 2));
    let said = bench.one();
    assert_eq!(said[..6], MacAddr::BROADCAST.octets());
    let arp = read_arp(&said, 20);
    assert_eq!((arp.operation, arp.sender_protocol_addr()), (ArpOperation::REQUEST, &[10, 0, 20, 1][..]));
    assert_eq!(arp.target_protocol_addr(), [10, 0, 20, 8]);
    bench.hear(&reply("10.0.20.8"));
    assert_eq!(numbers(&mut bench), [1, 2]);
    assert_eq!(bench.knows(20, v4("10.0.20.8")), Some(mac(8)));
    bench.hear(&datagram("10.0.20.8", 3));
    assert_eq!(numbers(&mut bench), [3]);
    let counts = bench.speaker.counts();
    assert_eq!((counts.asked, counts.resolved, counts.held, counts.forwarded), (1, 1, 2, 3));
}

#[test]
fn the_latest_three_wait() {
    let mut bench = Bench::new();
    (1..=5).for_each(|number| {
        bench.hear(&datagram("10.0.20.8", number));
    });
    bench.one();
    bench.hear(&reply("10.0.20.8"));
    assert_eq!(numbers(&mut bench), [3, 4, 5]);
    assert_eq!(bench.lost(Lost::HoldFull), 2);
    let noted = bench.speaker.unanswered();
    assert!(noted.iter().all(|lost| lost.crowded && lost.vlan == vlan(20)), "{noted:?}");
    let heads = noted.into_iter().map(|lost| lost.head).collect::<Vec<_>>();
    assert_eq!(heads, [1, 2].map(|number| datagram("10.0.20.8", number)), "those that went, as they came");
}

#[test]
fn a_static_route_asks_for_its_router() {
    let mut bench = Bench::new();
    bench.hear(&datagram("192.0.2.77", 1));
    assert_eq!(read_arp(&bench.one(), 20).target_protocol_addr(), [10, 0, 20, 9]);
    bench.hear(&reply("10.0.20.9"));
    assert_eq!(numbers(&mut bench), [1]);
}

#[test]
fn a_frame_goes_on_as_it_came() {
    let mut bench = Bench::new();
    let mut frame = datagram("10.0.20.8", 1);
    frame[14] |= 0b1010_0000;
    bench.hear(&frame).hear(&reply("10.0.20.8"));
    assert_eq!(bench.said()[1], frame);
}

#[test]
fn what_the_switch_answers_to_it_is_its_senders() {
    let mut bench = Bench::new();
    let too_big = build::ip(
        Ethernet { src: ROUTER, dst: mac(7), tag: to_router(10, 7).tag },
        Addresses::V4(v4("10.0.10.1"), v4("10.0.10.7")),
        1,
        64,
        vec![3, 4, 0, 0, 5, 0, 0, 0],
        2,
    );
    bench.hear(&too_big);
    assert_eq!(bench.one(), too_big);
}

#[test]
fn a_neighbour_of_ipv6_is_solicited() {
    let mut bench = Bench::new();
    let ends = Addresses::V6(v6("2001:db8:10::7"), v6("2001:db8:20::8"));
    let asks = build::udp(to_router(10, 7), ends, (1, 2), b"x");
    bench.hear(&asks);
    let said = bench.one();
    assert_eq!(said[..6], [0x33, 0x33, 0xff, 0, 0, 8]);
    let (src, dst, hops, message) = read_icmp(&said, 20);
    assert_eq!((src, dst, hops), (v6("2001:db8:20::1").into(), v6("ff02::1:ff00:8").into(), 255));
    assert_eq!((message[0], &message[8..24]), (135, &v6("2001:db8:20::8").octets()[..]));
    let answer =
        [&[136, 0, 0, 0, 0x60, 0, 0, 0], &v6("2001:db8:20::8").octets()[..], &[2, 1], &mac(8).octets()]
            .concat();
    let ends = Addresses::V6(v6("2001:db8:20::8"), v6("2001:db8:20::1"));
    bench.hear(&build::ip(to_router(20, 8), ends, 58, 255, answer, 2));
    assert_eq!(bench.one(), asks);
}

#[test]
fn a_neighbour_that_does_not_answer_is_asked_three_times_and_each_sender_told() {
    let mut bench = Bench::new();
    bench.hear(&datagram("10.0.20.8", 1)).hear(&datagram("10.0.20.8", 2));
    bench.pass(2);
    let said = bench.said();
    assert_eq!(said.len(), 3);
    assert!(said.iter().all(|frame| read_arp(frame, 20).target_protocol_addr() == [10, 0, 20, 8]));
    bench.pass(1);
    let said = bench.said();
    assert_eq!(said.len(), 2);
    for (frame, number) in said.iter().zip([1, 2]) {
        assert_eq!(frame[..6], mac(7).octets());
        let (src, dst, _, message) = read_icmp(frame, 10);
        assert_eq!((src, dst, &message[..2]), (v4("10.0.10.1").into(), v4("10.0.10.7").into(), &[3, 1][..]));
        assert_eq!(message[8..], datagram("10.0.20.8", number)[18..], "it quotes the packet as it came");
    }
    assert_eq!((bench.speaker.counts().failed, bench.lost(Lost::Unreachable)), (1, 2));
    let noted = |bench: &mut Bench| {
        let lost = bench.speaker.unanswered();
        assert!(lost.iter().all(|lost| !lost.crowded && lost.vlan == vlan(20)), "where nobody answered");
        lost.into_iter().map(|lost| lost.head).collect::<Vec<_>>()
    };
    assert_eq!(noted(&mut bench), [1, 2].map(|number| datagram("10.0.20.8", number)), "as they came");
    // For some seconds nobody is asked, and who sends is told at once.
    bench.hear(&datagram("10.0.20.8", 3));
    assert_eq!(noted(&mut bench), [datagram("10.0.20.8", 3)]);
    assert_eq!(read_icmp(&bench.one(), 10).3[..2], [3, 1]);
    bench.pass(5);
    bench.hear(&datagram("10.0.20.8", 4));
    read_arp(&bench.one(), 20);
    // One that speaks is there, whatever it did before.
    bench.pass(3);
    bench.said();
    bench.hear(&build::arp_request(to_all(20, 8), v4("10.0.20.8"), v4("10.0.20.1"))).one();
    bench.hear(&datagram("10.0.20.8", 5));
    assert_eq!(numbers(&mut bench), [5]);
}

#[test]
fn an_ipv6_address_that_nobody_has_is_told_to_be_unreachable() {
    let mut bench = Bench::new();
    let ends = Addresses::V6(v6("2001:db8:10::7"), v6("2001:db8:20::8"));
    bench.hear(&build::udp(to_router(10, 7), ends, (1, 2), &[7; 3000]));
    bench.pass(3);
    let said = bench.said();
    assert_eq!(said.len(), 4);
    let (src, _, _, message) = read_icmp(&said[3], 10);
    assert_eq!((src, &message[..2]), (v6("2001:db8:10::1").into(), &[1, 3][..]));
    assert_eq!(said[3].len() - 18, 1280, "no more than any link can carry");
}

#[test]
fn nobody_is_told_about_errors() {
    let mut bench = Bench::new();
    let ends = Addresses::V4(v4("10.0.10.7"), v4("10.0.20.8"));
    let error = build::ip(to_router(10, 7), ends, 1, 64, vec![3, 3, 0, 0, 0, 0, 0, 0], 2);
    bench.hear(&error);
    bench.pass(3);
    assert!(bench.said().iter().all(|frame| frame[16..18] == [8, 6]), "questions only");
    bench.silent_after(&error);
}

#[test]
fn a_scan_in_one_vlan_leaves_room_for_others_and_has_an_end() {
    let mut bench = Bench::new();
    let to = |host: u8| Ipv4Addr::new(10, 4, 1, host);
    for host in 0..=250 {
        bench.hear(&build::udp(to_router(10, 7), Addresses::V4(v4("10.0.10.7"), to(host)), (1, 2), b""));
    }
    assert_eq!(bench.speaker.waiting().1, 64);
    assert_eq!(bench.lost(Lost::TooMany), 251 - 64);
    let ends = Addresses::V4(v4("10.0.20.7"), to(200));
    bench.said();
    bench.hear(&build::udp(to_router(20, 9), ends, (1, 2), b""));
    assert_eq!(read_arp(&bench.one(), 40).target_protocol_addr(), to(200).octets());
    bench.pass(4);
    assert_eq!(bench.speaker.waiting().1, 0);
    assert_eq!(bench.speaker.counts().failed, 65);
    let errors = bench.said().iter().filter(|frame| frame[16..18] == [8, 0]).count();
    assert_eq!(errors, 65);
}

#[test]
fn if_all_ask_too_much_the_greediest_gives_way() {
    let networks: Vec<String> = (1..=9).map(|n| format!("10.{n}.0.1/16")).collect();
    let gateways = networks.iter().zip(1..).map(|(network, n)| gateway(n * 10, &[network]));
    let router = Router {
        name: "default".into(),
        gateways: gateways.collect(),
        routes: Vec::new(),
        nat: Vec::new(),
        nameservers: Vec::new(),
    };
    let mut bench = Bench::silent(world(vec![router]));
    bench.pass(10);
    bench.said();
    let scan = |bench: &mut Bench, n: u8, hosts: u8| {
        for host in 2..2 + hosts {
            let ends = Addresses::V4([10, n, 0, 7].into(), [10, 9, n, host].into());
            bench.hear(&build::udp(to_router(u16::from(n) * 10, 7), ends, (1, 2), b""));
        }
        bench.said();
    };
    (1..=5).for_each(|n| scan(&mut bench, n, 64));
    assert_eq!(bench.speaker.waiting().1, 256, "four take all, and the fifth a part of theirs");
    let before = bench.lost(Lost::TooMany);
    scan(&mut bench, 6, 1);
    assert_eq!((bench.speaker.waiting().1, bench.lost(Lost::TooMany)), (256, before + 1));
    let reply = build::arp_reply(to_router(90, 8), [10, 9, 6, 2].into(), v4("10.9.0.1"));
    bench.hear(&reply);
    assert_eq!(bench.one()[..6], ROUTER.octets());
}

#[test]
fn who_is_used_and_not_heard_is_asked_and_then_forgotten() {
    let mut bench = Bench::new();
    bench.hear(&datagram("10.0.20.8", 1)).hear(&reply("10.0.20.8")).said();
    // Thirty seconds, and the round of the table that finds it.
    bench.pass(29);
    assert!(bench.said().is_empty());
    let said = (1..=1 + 8).find_map(|_| {
        bench.pass(1);
        bench.said().pop()
    });
    let said = said.expect("it is asked");
    assert_eq!(said[..6], mac(8).octets(), "it is asked itself, and nobody else");
    assert_eq!(read_arp(&said, 20).target_protocol_addr(), [10, 0, 20, 8]);
    bench.hear(&reply("10.0.20.8"));
    bench.pass(35);
    assert!(bench.said().is_empty(), "it was not used since");
    bench.hear(&datagram("10.0.20.8", 2));
    assert_eq!(numbers(&mut bench), [2]);
    bench.pass(8 + 3);
    let said = bench.said();
    assert_eq!(said.len(), 3);
    assert!(said.iter().all(|frame| frame[..6] == mac(8).octets()));
    assert_eq!(bench.knows(20, v4("10.0.20.8")), None);
    assert_eq!(bench.speaker.counts().gone, 1);
}

#[test]
fn who_is_not_used_is_forgotten_unasked_and_then_nothing_is_due() {
    let mut bench = Bench::new();
    bench.hear(&build::arp_request(to_all(20, 8), v4("10.0.20.8"), v4("10.0.20.1"))).said();
    bench.pass(599);
    assert_eq!(bench.knows(20, v4("10.0.20.8")), Some(mac(8)));
    bench.pass(9);
    assert_eq!(bench.knows(20, v4("10.0.20.8")), None);
    assert!(bench.said().is_empty());
    bench.pass(16);
    assert_eq!(bench.speaker.next_due(), None);
}

#[test]
fn another_world_takes_what_is_not_true_in_it() {
    let mut bench = Bench::new();
    bench.hear(&datagram("10.0.20.8", 1)).hear(&datagram("10.4.0.8", 2));
    for (number, host) in [(10, "10.0.10.7"), (20, "10.0.20.7"), (40, "10.4.0.7")] {
        let own = if number == 40 { "10.4.0.1".into() } else { format!("10.0.{number}.1") };
        bench.hear(&build::arp_request(to_all(number, 7), v4(host), v4(&own)));
    }
    bench.said();
    let gateways = vec![
        gateway(10, &["10.0.10.1/24", "2001:db8:10::1/64"]),
        // The network is another half of what it was.
        gateway(40, &["10.4.0.1/29"]),
    ];
    bench.speaker.adopt(world(vec![Router {
        name: "default".into(),
        gateways,
        routes: Vec::new(),
        nat: Vec::new(),
        nameservers: Vec::new(),
    }]));
    assert_eq!(bench.knows(10, v4("10.0.10.7")), Some(mac(7)));
    assert_eq!(bench.knows(20, v4("10.0.20.7")), None);
    assert_eq!(bench.knows(40, v4("10.4.0.7")), None, "the broadcast address now");
    assert_eq!(bench.speaker.waiting(), (0, 0, 0));
    assert_eq!(bench.lost(Lost::Changed), 2);
    bench.silent_after(&build::arp_request(to_all(20, 7), v4("10.0.20.7"), v4("10.0.20.1")));
    bench.now = bench.now + Duration::from_secs(100);
    bench.speaker.tick(bench.now);
    assert!(bench.said().is_empty(), "no address is new");
}

#[test]
fn what_no_worker_would_have_left_is_lost() {
    let mut bench = Bench::new();
    let from = |src: &str, dst: &str, hops| {
        build::ip(
            to_router(10, 7),
            Addresses::V4(v4(src), v4(dst)),
            17,
            hops,
            vec![0, 1, 0, 2, 0, 8, 0, 0],
            6,
        )
    };
    for (why, frame) in [
        (Lost::TtlExceeded, from("10.0.10.7", "10.0.20.8", 1)),
        (Lost::NoRoute, from("10.0.10.7", "203.0.113.1", 64)),
        (Lost::NoRoute, from("10.0.10.7", "198.51.100.1", 64)),
        (Lost::NoRoute, from("10.0.10.7", "10.0.20.255", 64)),
        (Lost::Martian, from("10.0.20.7", "10.0.20.8", 64)),
        (Lost::Martian, from("10.0.10.1", "10.0.20.8", 64)),
        (Lost::Martian, from("127.0.0.1", "10.0.20.8", 64)),
        (Lost::Martian, from("10.0.10.7", "224.0.0.5", 64)),
    ] {
        let before = bench.lost(why);
        bench.silent_after(&frame);
        assert_eq!(bench.lost(why), before + 1, "{why}: {frame:x?}");
    }
    // What came to all is for nobody.
    let mut to_everybody = from("10.0.10.7", "10.0.20.8", 64);
    to_everybody[..6].fill(0xff);
    bench.silent_after(&to_everybody);
    assert_eq!(bench.speaker.waiting().1, 0);
}
