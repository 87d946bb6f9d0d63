//! Questions that are not the lab's: they are asked of the router's name servers.

use super::{
    Bench, Lost,
    lab::{gateway, vlan, world},
    mac, read, read_arp, read_icmp, to_router, v4,
};
use etherparse::{NetSlice, TransportSlice};
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, Question, RCODE, ResourceRecord, TYPE,
    rdata::{A, RData},
};
use vswitch_core::{
    build::{self, Addresses},
    description::{Nat, NatRule, Origin, Route, Router, Via},
};

/// A host of VLAN 20, and one that is reached by another router there.
const NEAR: &str = "10.0.20.53";
const FAR: &str = "203.0.113.53";
const NEXT: &str = "10.0.20.254";

/// VLANs 10 and 20 of a router that asks these two; VLAN 30 is another's.
fn bench() -> Bench {
    let route = Route {
        to: "0.0.0.0/0".parse().expect("a network"),
        via: Via::Routers(vec![v4(NEXT).into()]),
        origin: Origin { line: 1, column: 1 },
    };
    let router = |name: &str, gateways, nameservers| Router {
        name: name.into(),
        gateways,
        routes: vec![],
        nat: vec![],
        nameservers,
    };
    let gateways = vec![gateway(10, &["10.0.10.1/24"]), gateway(20, &["10.0.20.1/24"])];
    let asks =
        Router { routes: vec![route], ..router("default", gateways, vec![v4(NEAR).into(), v4(FAR).into()]) };
    let other = router("red", vec![gateway(30, &["10.0.20.1/24"])], vec![]);
    let mut bench = Bench::silent(world(vec![asks, other]));
    bench.pass(10);
    bench.said();
    bench
}

fn message(name: &str, id: u16) -> Vec<u8> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new_unchecked(name).into_owned();
    packet.questions.push(Question::new(name, TYPE::A.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().expect("a question")
}

/// Station `n` of VLAN 10 asks, from this port.
fn asks(n: u8, port: u16, message: &[u8]) -> Vec<u8> {
    let addresses = Addresses::V4([10, 0, 10, n].into(), v4("10.0.10.1"));
    build::udp(to_router(10, n), addresses, (port, 53), message)
}

/// What a name server in this VLAN says to that question: the address 192.0.2.99.
fn reply(number: u16, from: &str, port: u16, question: &[u8]) -> Vec<u8> {
    let asked = Packet::parse(question).expect("a question");
    let mut reply = Packet::new_reply(asked.id());
    reply.questions.clone_from(&asked.questions);
    let data = RData::A(A { address: v4("192.0.2.99").to_bits() });
    reply.answers.push(ResourceRecord::new(asked.questions[0].qname.clone(), CLASS::IN, 60, data));
    says(number, from, port, &reply.build_bytes_vec().expect("an answer"))
}

fn says(number: u16, from: &str, port: u16, message: &[u8]) -> Vec<u8> {
    build::udp(to_router(number, 8), Addresses::V4(v4(from), v4("10.0.20.1")), (53, port), message)
}

/// To whom a datagram goes, its ports, and what it carries.
fn datagram(frame: &[u8], number: u16) -> (String, (u16, u16), Vec<u8>) {
    let packet = read(frame, number);
    let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("no IPv4") };
    let Some(TransportSlice::Udp(udp)) = &packet.transport else { panic!("no datagram") };
    let ports = (udp.source_port(), udp.destination_port());
    (ip.header().destination_addr().to_string(), ports, udp.payload().to_vec())
}

/// Who is asked for in VLAN 20, and says that it is there.
fn finds(bench: &mut Bench, address: &str) {
    let arp = bench.one();
    assert_eq!(read_arp(&arp, 20).target_protocol_addr(), v4(address).octets());
    bench.hear(&build::arp_reply(to_router(20, 8), v4(address), v4("10.0.20.1")));
}

/// The only question that was asked, of whom, and from which port.
fn asked(bench: &mut Bench) -> (String, u16, Vec<u8>) {
    let (to, (port, 53), message) = datagram(&bench.one(), 20) else { panic!("not for a name server") };
    (to, port, message)
}

/// The only answer, which is for station 7 and its question 9 from port 5353.
fn answered(bench: &mut Bench) -> (RCODE, usize) {
    let frame = bench.one();
    assert_eq!(frame[..6], mac(7).octets());
    let (to, ports, payload) = datagram(&frame, 10);
    assert_eq!((&to[..], ports), ("10.0.10.7", (53, 5353)));
    let reply = Packet::parse(&payload).expect("a message");
    assert_eq!((reply.id(), reply.questions[0].qname.to_string()), (9, "example.com".into()));
    (reply.rcode(), reply.answers.len())
}

#[test]
fn what_is_not_of_the_lab_is_asked_of_a_name_server_and_its_answer_passed_on() {
    let mut bench = bench();
    let question = message("example.com", 9);
    bench.hear(&asks(7, 5353, &question));
    finds(&mut bench, NEAR);
    let (to, port, said) = asked(&mut bench);
    assert_eq!((&to[..], port >= 49152), (NEAR, true));
    assert_eq!(said[2..], question[2..], "all but its number");
    // Asked once more, it is the same question, and goes out again after a second.
    bench.silent_after(&asks(7, 5353, &question));
    bench.pass(1);
    bench.hear(&asks(7, 5353, &question));
    assert_eq!(asked(&mut bench), (to, port, said.clone()));
    // Under the same number it may ask for something else meanwhile.
    bench.hear(&asks(7, 5353, &message("example.org", 9)));
    assert_ne!(asked(&mut bench).1, port);
    bench.hear(&reply(20, NEAR, port, &said));
    assert_eq!(answered(&mut bench), (RCODE::NoError, 1));
    // Only once.
    bench.hear(&reply(20, NEAR, port, &said));
    assert!(bench.said().iter().all(|frame| frame[..6] != mac(7).octets()));
}

#[test]
fn what_is_of_the_lab_is_asked_of_nobody() {
    let mut bench = bench();
    for name in ["nobody", "nobody.test.internal", "7.10.0.10.in-addr.arpa", "internal"] {
        bench.hear(&asks(7, 5353, &message(name, 9)));
        let (_, ports, payload) = datagram(&bench.one(), 10);
        assert_eq!(ports, (53, 5353), "{name}");
        assert_eq!(Packet::parse(&payload).expect("a message").rcode(), RCODE::NameError, "{name}");
    }
    // Who asks for no recursion, and who is at another router.
    let mut plain = message("example.com", 9);
    plain[2] = 0;
    bench.hear(&asks(7, 5353, &plain));
    let payload = datagram(&bench.one(), 10).2;
    assert_eq!(Packet::parse(&payload).expect("a message").rcode(), RCODE::Refused);
    let addresses = Addresses::V4(v4("10.0.20.7"), v4("10.0.20.1"));
    bench.hear(&build::udp(to_router(30, 7), addresses, (5353, 53), &message("example.com", 9)));
    let payload = datagram(&bench.one(), 30).2;
    assert_eq!(Packet::parse(&payload).expect("a message").rcode(), RCODE::Refused);
}

#[test]
fn rfc_5452_9_only_the_answer_to_what_was_asked_is_passed_on() {
    let mut bench = bench();
    bench.hear(&asks(7, 5353, &message("example.com", 9)));
    finds(&mut bench, NEAR);
    let (_, port, said) = asked(&mut bench);
    let with = |at: usize, bit: u8| {
        let mut other = said.clone();
        other[at] ^= bit;
        other
    };
    for (what, frame) in [
        ("another server", reply(20, "10.0.20.54", port, &said)),
        ("one that was not asked yet", reply(20, FAR, port, &said)),
        ("another router's", reply(30, NEAR, port, &said)),
        ("another number", reply(20, NEAR, port, &with(0, 1))),
        ("another question", reply(20, NEAR, port, &with(14, 1))),
        ("a question", says(20, NEAR, port, &said)),
        ("nothing", says(20, NEAR, port, &[])),
        ("half of it", says(20, NEAR, port, &said[..20])),
        ("of a port that nothing is asked from", reply(20, NEAR, port ^ 1, &said)),
    ] {
        bench.hear(&frame);
        assert_eq!(bench.said(), Vec::<Vec<u8>>::new(), "{what}");
    }
    assert!(bench.lost(Lost::NotOurs) >= 7);
    // In other letters it is the same question.
    bench.hear(&reply(20, NEAR, port, &with(14, 0x20)));
    assert_eq!(bench.said().len(), 1);
}

#[test]
fn who_does_not_answer_or_refuses_is_followed_by_the_next_and_at_last_the_asker_is_told() {
    let mut bench = bench();
    // The next router is known.
    bench.hear(&build::arp_reply(to_router(20, 8), v4(NEXT), v4("10.0.20.1")));
    let begin = |bench: &mut Bench| {
        bench.hear(&asks(7, 5353, &message("example.com", 9)));
        if bench.knows(20, v4(NEAR)).is_none() {
            finds(bench, NEAR);
        }
        asked(bench)
    };
    let (_, port, said) = begin(&mut bench);
    bench.pass(1);
    assert!(bench.said().is_empty());
    bench.pass(1);
    assert_eq!(asked(&mut bench), (FAR.into(), port, said.clone()));
    // Both may answer now.
    bench.hear(&reply(20, NEAR, port, &said));
    assert_eq!(answered(&mut bench), (RCODE::NoError, 1));

    // A failure, a kind of question that it does not know, a refusal.
    for code in [2, 4, 5] {
        let (_, port, said) = begin(&mut bench);
        let mut refused = said.clone();
        (refused[2], refused[3]) = (0x81, code);
        bench.hear(&says(20, NEAR, port, &refused));
        bench.pass(0);
        assert_eq!(asked(&mut bench), (FAR.into(), port, said));
        bench.pass(2);
        assert_eq!(answered(&mut bench), (RCODE::ServerFailure, 0));
    }
}

#[test]
fn a_name_server_that_is_not_there_is_followed_by_the_next() {
    let mut bench = bench();
    bench.hear(&build::arp_reply(to_router(20, 8), v4(NEXT), v4("10.0.20.1")));
    bench.hear(&asks(7, 5353, &message("example.com", 9)));
    assert_eq!(read_arp(&bench.one(), 20).target_protocol_addr(), v4(NEAR).octets());
    bench.pass(2);
    let to_far = |frame: &Vec<u8>| frame[16..18] == [8, 0];
    let said = bench.said();
    let frame = said.iter().find(|frame| to_far(frame)).expect("it is asked");
    let (to, (port, _), question) = datagram(frame, 20);
    assert_eq!(to, FAR);
    // From where it cannot come nobody answers for it.
    bench.silent_after(&reply(10, FAR, port, &question));
    bench.hear(&reply(20, FAR, port, &question));
    assert_eq!(answered(&mut bench), (RCODE::NoError, 1));
    // Known to be silent, it is left out at once.
    bench.pass(2);
    bench.said();
    bench.hear(&asks(7, 5353, &message("example.com", 9)));
    assert_eq!(asked(&mut bench).0, FAR);
}

#[test]
fn who_refuses_late_does_not_end_what_another_is_asked() {
    let mut bench = bench();
    bench.hear(&build::arp_reply(to_router(20, 8), v4(NEXT), v4("10.0.20.1")));
    bench.hear(&asks(7, 5353, &message("example.com", 9)));
    finds(&mut bench, NEAR);
    let (_, port, said) = asked(&mut bench);
    bench.pass(2);
    assert_eq!(asked(&mut bench).0, FAR);
    let mut refused = said.clone();
    (refused[2], refused[3]) = (0x81, 2);
    bench.silent_after(&says(20, NEAR, port, &refused));
    bench.hear(&reply(20, FAR, port, &said));
    assert_eq!(answered(&mut bench), (RCODE::NoError, 1));
}

#[test]
fn a_station_may_ask_16_questions_at_a_time_and_others_theirs() {
    let mut bench = bench();
    bench.hear(&asks(7, 1, &message("example.com", 9)));
    finds(&mut bench, NEAR);
    (2..=60).for_each(|port| {
        bench.hear(&asks(7, port, &message("example.com", 9)));
    });
    let (asked_for, told): (Vec<_>, Vec<_>) =
        bench.said().into_iter().partition(|frame| frame[..6] != mac(7).octets());
    assert_eq!((asked_for.len(), told.len(), bench.lost(Lost::TooMany)), (16, 44, 44));
    bench.hear(&asks(6, 1, &message("example.com", 9)));
    asked(&mut bench);
    // Their time ends, and it may ask again.
    bench.pass(10);
    bench.said();
    bench.hear(&asks(7, 300, &message("example.com", 9)));
    asked(&mut bench);
}

#[test]
fn of_domains_of_the_first_level_others_know_what_is_no_address() {
    let mut bench = bench();
    let mut servers = message("com", 9);
    let at = servers.len() - 3;
    servers[at] = 2;
    bench.hear(&asks(7, 5353, &servers));
    finds(&mut bench, NEAR);
    asked(&mut bench);
}

#[test]
fn where_no_way_leads_the_asker_is_told_at_once() {
    let router = Router {
        name: "default".into(),
        gateways: vec![gateway(10, &["10.0.10.1/24"])],
        routes: vec![],
        nat: vec![],
        nameservers: vec![v4(FAR).into()],
    };
    let mut bench = Bench::silent(world(vec![router]));
    bench.pass(10);
    bench.said();
    bench.hear(&asks(7, 5353, &message("example.com", 9)));
    assert_eq!(answered(&mut bench), (RCODE::ServerFailure, 0));
}

#[test]
fn who_is_outside_is_told_no_names() {
    let origin = Origin { line: 1, column: 1 };
    let router = Router {
        name: "default".into(),
        gateways: vec![gateway(10, &["10.0.10.1/24"]), gateway(20, &["10.0.20.1/24"])],
        routes: vec![],
        nat: vec![Nat { rule: NatRule::Masquerade { vlan: vlan(20) }, origin }],
        nameservers: vec![],
    };
    let mut bench = Bench::silent(world(vec![router]));
    bench.pass(10);
    bench.said();
    let question = message("nobody", 9);
    let asks = |number: u16, src, own| {
        build::udp(to_router(number, 7), Addresses::V4(v4(src), v4(own)), (5353, 53), &question)
    };
    bench.hear(&asks(20, "10.0.20.7", "10.0.20.1"));
    assert_eq!(read_icmp(&bench.one(), 20).3[..2], [3, 3], "nobody listens there");
    // Also not by the other address; and who is inside may ask by either.
    bench.hear(&asks(20, "10.0.20.7", "10.0.10.1"));
    assert_eq!(read_icmp(&bench.one(), 20).3[..2], [3, 3]);
    for own in ["10.0.10.1", "10.0.20.1"] {
        bench.hear(&asks(10, "10.0.10.7", own));
        assert_eq!(datagram(&bench.one(), 10).1, (53, 5353));
    }
}
