//! Two guests on one wire: neighbours, raw frames, and interfaces that go and come back.

use crate::lab::{Guest, MACS, connect};
use probe::{
    Answer, Mac, Request,
    answer::{Contact, InterfaceReport, Received, Refusal, Unreachable},
    ask::{Connect, Marker, Ping, Resolve, SendFrame, Source, UdpEcho},
};
use std::{net::SocketAddr, time::Duration};

const TIMEOUT: Duration = Duration::from_secs(10);
/// For what does not come.
const SHORT: Duration = Duration::from_millis(500);

fn ping(dst: &str, from: Source, timeout: Duration) -> Request {
    let dst = dst.parse().expect("an address");
    Request::Ping(Ping { dst, from, count: 1, payload: 56, interval: Duration::ZERO, timeout })
}

fn answered(answer: &Answer) -> bool {
    matches!(answer, Answer::Ping(Ok(echoes)) if echoes.received() == 1)
}

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), 7)
}

#[test]
fn guests_reach_each_other_from_wherever_is_asked() {
    let [mut one, _other] = Guest::pair();
    for (dst, own) in [("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1")] {
        for from in
            [Source::Any, Source::Interface(MACS[0]), Source::Address(own.parse().expect("an address"))]
        {
            one.ask_until(&ping(dst, from, TIMEOUT), answered);
            let dst = at(dst);
            let connected = one.ask(Request::Connect(Connect { dst, from, timeout: TIMEOUT }));
            assert!(matches!(connected, Answer::Connect(Contact::Answered(_))), "{from:?}: {connected:?}");
            let echo =
                one.ask(Request::UdpEcho(UdpEcho { dst, from, payload: vec![7; 4000], timeout: TIMEOUT }));
            assert!(matches!(echo, Answer::UdpEcho(Contact::Answered(_))), "{from:?}: {echo:?}");
        }
    }
    let nobodys = Source::Interface(Mac::new([2, 0, 0, 0, 0, 9]));
    assert_eq!(one.ask(ping("10.0.0.2", nobodys, TIMEOUT)), Answer::Refused(Refusal::NoSuchInterface));
}

#[test]
fn a_neighbour_is_asked_anew() {
    let [mut one, other] = Guest::pair();
    let resolve = |dst: &str, from| {
        Request::Resolve(Resolve {
            dst: dst.parse().expect("an address"),
            from,
            timeout: Duration::from_secs(4),
        })
    };
    for dst in ["10.0.0.2", "fd00::2"] {
        for from in [Source::Any, Source::Interface(MACS[0])] {
            one.ask_until(&resolve(dst, from), |answer| *answer == Answer::Resolved(Some(MACS[1])));
        }
    }
    let moved = Mac::new([2, 0, 0, 0, 0, 3]);
    other.sh(&format!("ip link set eth0 address {moved}"));
    assert_eq!(one.ask(resolve("10.0.0.2", Source::Any)), Answer::Resolved(Some(moved)));
    for nobody in ["10.0.0.77", "fd00::77", "192.0.2.1"] {
        assert_eq!(one.ask(resolve(nobody, Source::Any)), Answer::Resolved(None), "{nobody}");
    }
}

#[test]
fn a_silent_neighbour_a_silent_host_and_a_rejection_are_told_apart() {
    let [mut one, other] = Guest::pair();
    one.ask_until(&ping("10.0.0.2", Source::Any, TIMEOUT), answered);
    // Its router knows a place that cannot be reached, and one that swallows everything.
    one.sh("ip route add default via 10.0.0.2");
    // It says so every time, not only as often as Linux lets it by default.
    other.sh("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/icmp_ratelimit");
    other.sh("ip route add unreachable 198.51.100.0/24; ip route add blackhole 203.0.113.0/24");
    let mut told = |dst: &str| {
        let asked = one.ask(ping(dst, Source::Any, SHORT));
        let (dst, from) = (at(dst), Source::Any);
        let Answer::Connect(tcp) = one.ask(Request::Connect(Connect { dst, from, timeout: SHORT })) else {
            panic!("it was a Connect")
        };
        let echo = UdpEcho { dst, from, payload: vec![1], timeout: SHORT };
        let Answer::UdpEcho(udp) = one.ask(Request::UdpEcho(echo)) else { panic!("it was a UdpEcho") };
        (asked, tcp, udp)
    };
    let unreachable = |why| (Answer::Ping(Err(why)), Contact::Unreachable(why), Contact::Unreachable(why));
    assert_eq!(told("10.0.0.77"), unreachable(Unreachable::NoNeighbour));
    assert_eq!(told("fd00::77"), unreachable(Unreachable::NoNeighbour));
    assert_eq!(told("198.51.100.1"), unreachable(Unreachable::Rejected));
    let (Answer::Ping(Ok(echoes)), Contact::TimedOut, Contact::TimedOut) = told("203.0.113.1") else {
        panic!("a host that is merely silent is not unreachable")
    };
    assert_eq!((echoes.sent, echoes.received()), (1, 0));
}

/// A frame of the local experimental EtherType.
fn frame(dst: Mac, content: &[u8]) -> Vec<u8> {
    [&dst.octets()[..], &MACS[0].octets(), &probe::ETHERTYPE.to_be_bytes(), content].concat()
}

#[test]
fn raw_frames_are_counted_by_their_marker() {
    let [mut one, mut other] = Guest::pair();
    let marker = |bytes: &[u8]| Marker { bytes: bytes.to_vec() };
    assert_eq!(other.ask(Request::ReceivedFrames(marker(b"M1"))), Answer::Refused(Refusal::NotExpected));
    assert_eq!(other.ask(Request::Expect(marker(b""))), Answer::Refused(Refusal::OutOfBounds));
    assert_eq!(other.ask(Request::Expect(marker(b"M1"))), Answer::Done);
    assert_eq!(other.ask(Request::Expect(marker(b"M2"))), Answer::Done);
    let broadcast = Mac::new([0xff; 6]);
    for content in [&b"--M1--"[..], b"M1", b"M2", b"neither"] {
        let send = SendFrame { interface: MACS[0], frame: frame(broadcast, content) };
        assert_eq!(one.ask(Request::SendFrame(send)), Answer::Done);
    }
    for (bytes, frames) in [(b"M1", 2), (b"M2", 1)] {
        let expected = Answer::Received(vec![Received { interface: MACS[1], frames }]);
        other.ask_until(&Request::ReceivedFrames(marker(bytes)), |answer| *answer == expected);
    }
    let short = SendFrame { interface: MACS[0], frame: vec![0; 13] };
    assert_eq!(one.ask(Request::SendFrame(short)), Answer::Refused(Refusal::OutOfBounds));
    let lost = SendFrame { interface: MACS[1], frame: frame(broadcast, b"M1") };
    assert_eq!(one.ask(Request::SendFrame(lost)), Answer::Refused(Refusal::NoSuchInterface));
}

#[test]
fn a_driver_that_is_loaded_again_changes_nothing() {
    let [mut one, mut other] = Guest::pair();
    let marker = Marker { bytes: b"through it all".to_vec() };
    assert_eq!(other.ask(Request::Expect(marker.clone())), Answer::Done);
    for round in 1..=3 {
        let send = SendFrame { interface: MACS[0], frame: frame(MACS[1], b"through it all") };
        assert_eq!(one.ask(Request::SendFrame(send.clone())), Answer::Done);
        let expected = Answer::Received(vec![Received { interface: MACS[1], frames: round }]);
        other.ask_until(&Request::ReceivedFrames(marker.clone()), |answer| *answer == expected);
        one.ask_until(&ping("10.0.0.2", Source::Interface(MACS[0]), TIMEOUT), answered);
        one.sh("ip link del eth0");
        assert_eq!(one.ask(Request::Report), Answer::Report(Vec::new()));
        assert_eq!(one.ask(Request::SendFrame(send)), Answer::Refused(Refusal::NoSuchInterface));
        assert_eq!(one.ask(ping("10.0.0.2", Source::Any, SHORT)), Answer::Ping(Err(Unreachable::NoRoute)));
        connect(&one, &other);
    }
}

#[test]
fn an_interface_is_reported_as_it_is() {
    let [mut one, other] = Guest::pair();
    one.ask_until(&ping("10.0.0.2", Source::Any, TIMEOUT), answered);
    let report = |answer: Answer| match answer {
        Answer::Report(interfaces) => {
            <[InterfaceReport; 1]>::try_from(interfaces).expect("eth0 alone")[0].clone()
        }
        other => panic!("{other:?}"),
    };
    let eth0 = report(one.ask(Request::Report));
    assert_eq!((eth0.name.as_str(), eth0.mac, eth0.link_up), ("eth0", MACS[0], true));
    for address in ["10.0.0.1/24", "fd00::1/64"] {
        assert!(
            eth0.addresses.contains(&address.parse().expect("an address")),
            "{address}: {:?}",
            eth0.addresses
        );
    }
    assert!(eth0.counters.received_frames > 0 && eth0.counters.sent_bytes >= 98, "{:?}", eth0.counters);
    other.sh("ip link set eth0 down");
    assert!(!report(one.ask_until(&Request::Report, |answer| !report(answer.clone()).link_up)).link_up);
}
