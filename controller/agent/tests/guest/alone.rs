//! One guest and its loopback interface: every request that needs no other guest.

use crate::lab::Guest;
use probe::{
    Answer, Request,
    answer::{Bulk, Contact, End, Executed, MAX_OUTPUT, Refusal, Sent, Unreachable},
    ask::{Connect, Exec, MAX_PAYLOAD, MAX_PINGS, Ping, Send, Service, Source, Transport, UdpEcho},
    bulk::{Checksum, Pattern},
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(10);
const LOOPBACKS: [&str; 2] = ["127.0.0.1", "::1"];

fn to(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

fn ping(dst: &str, count: u16, payload: u16) -> Request {
    let dst: IpAddr = dst.parse().expect("an address");
    let interval = Duration::from_millis(1);
    Request::Ping(Ping { dst, from: Source::Any, count, payload, interval, timeout: TIMEOUT })
}

fn connect(dst: SocketAddr) -> Request {
    Request::Connect(Connect { dst, from: Source::Any, timeout: TIMEOUT })
}

fn udp_echo(dst: SocketAddr, payload: Vec<u8>) -> Request {
    Request::UdpEcho(UdpEcho { dst, from: Source::Any, payload, timeout: TIMEOUT })
}

#[test]
fn echo_requests_are_answered_however_long() {
    let mut guest = Guest::alone();
    for address in LOOPBACKS {
        for payload in [0, 56, MAX_PAYLOAD] {
            let Answer::Ping(Ok(echoes)) = guest.ask(ping(address, 3, payload)) else {
                panic!("{address} {payload}")
            };
            assert_eq!((echoes.sent, echoes.received()), (3, 3), "{address} {payload}");
        }
    }
    assert_eq!(guest.ask(ping("127.0.0.1", MAX_PINGS + 1, 0)), Answer::Refused(Refusal::OutOfBounds));
    assert_eq!(guest.ask(ping("127.0.0.1", 1, MAX_PAYLOAD + 1)), Answer::Refused(Refusal::OutOfBounds));
}

#[test]
fn echo_is_served_from_the_start_and_nothing_else() {
    let mut guest = Guest::alone();
    for address in LOOPBACKS {
        assert!(matches!(guest.ask(connect(to(address, 7))), Answer::Connect(Contact::Answered(_))));
        assert_eq!(guest.ask(connect(to(address, 8))), Answer::Connect(Contact::Refused));
        let datagram = (0..=255).collect();
        assert!(matches!(
            guest.ask(udp_echo(to(address, 7), datagram)),
            Answer::UdpEcho(Contact::Answered(_))
        ));
        assert_eq!(guest.ask(udp_echo(to(address, 8), vec![1])), Answer::UdpEcho(Contact::Refused));
    }
}

#[test]
fn a_service_is_there_from_listen_to_unlisten() {
    let mut guest = Guest::alone();
    for transport in [Transport::Tcp, Transport::Udp] {
        let service = Service { transport, port: 4000 };
        let request = |address: &str| match transport {
            Transport::Tcp => connect(to(address, 4000)),
            Transport::Udp => udp_echo(to(address, 4000), b"hello".to_vec()),
        };
        assert_eq!(guest.ask(Request::Unlisten(service)), Answer::Refused(Refusal::NotOpen));
        assert_eq!(guest.ask(Request::Listen(service)), Answer::Done);
        assert_eq!(guest.ask(Request::Listen(service)), Answer::Refused(Refusal::PortTaken));
        for address in LOOPBACKS {
            let answer = guest.ask(request(address));
            let (Answer::Connect(contact) | Answer::UdpEcho(contact)) = answer else { panic!("{answer:?}") };
            assert!(matches!(contact, Contact::Answered(_)), "{transport:?} {address}: {contact:?}");
        }
        assert_eq!(guest.ask(Request::Unlisten(service)), Answer::Done);
        let answer = guest.ask(request("127.0.0.1"));
        let (Answer::Connect(contact) | Answer::UdpEcho(contact)) = answer else { panic!("{answer:?}") };
        assert_eq!(contact, Contact::Refused, "{transport:?}");
    }
    let nowhere = Service { transport: Transport::Tcp, port: 0 };
    assert_eq!(guest.ask(Request::Listen(nowhere)), Answer::Refused(Refusal::OutOfBounds));
    let always = Service { transport: Transport::Udp, port: 7 };
    assert_eq!(guest.ask(Request::Unlisten(always)), Answer::Refused(Refusal::NotOpen));
}

#[test]
fn a_bulk_transfer_arrives_whole() {
    const BYTES: usize = 8 << 20;
    let mut guest = Guest::alone();
    // A tail loss probe (RFC 8985 §7) sends a segment again where none was lost, when the receiver is slow.
    guest.sh("echo 0 > /proc/sys/net/ipv4/tcp_early_retrans");
    assert_eq!(guest.ask(Request::Served { port: 5001 }), Answer::Refused(Refusal::NotOpen));
    assert_eq!(guest.ask(Request::Serve { port: 5001 }), Answer::Done);
    assert_eq!(guest.ask(Request::Served { port: 5001 }), Answer::Served(None));
    for (address, seed) in LOOPBACKS.into_iter().zip([1, 2]) {
        let mut bytes = vec![0; BYTES];
        Pattern::new(seed).fill(&mut bytes);
        let mut checksum = Checksum::new();
        checksum.update(&bytes);
        let expected = Bulk { bytes: BYTES as u64, checksum: checksum.value() };
        let send =
            Send { dst: to(address, 5001), from: Source::Any, bytes: BYTES as u64, seed, timeout: TIMEOUT };
        let answer = guest.ask(Request::Send(send));
        let Answer::Sent(Ok(Sent { bulk, segments_sent, segments_retransmitted, .. })) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(bulk, expected);
        // The loopback interface carries 64 KiB at most in one segment.
        assert!(segments_sent.is_some_and(|sent| sent >= 128), "{segments_sent:?}");
        assert_eq!(segments_retransmitted, Some(0));
        assert_eq!(guest.ask(Request::Served { port: 5001 }), Answer::Served(Some(expected)));
    }
}

#[test]
fn an_address_without_a_route_is_told_from_a_silent_one() {
    let mut guest = Guest::alone();
    for address in ["192.0.2.1", "2001:db8::1", "fe80::1"] {
        let no_route = Unreachable::NoRoute;
        assert_eq!(guest.ask(ping(address, 1, 0)), Answer::Ping(Err(no_route)), "{address}");
        let contact = Contact::Unreachable(no_route);
        assert_eq!(guest.ask(connect(to(address, 7))), Answer::Connect(contact), "{address}");
        assert_eq!(guest.ask(udp_echo(to(address, 7), vec![1])), Answer::UdpEcho(contact), "{address}");
    }
    let elsewhere = Source::Address("192.0.2.1".parse().expect("an address"));
    let from_elsewhere = Connect { dst: to("127.0.0.1", 7), from: elsewhere, timeout: TIMEOUT };
    assert_eq!(guest.ask(Request::Connect(from_elsewhere)), Answer::Refused(Refusal::NoSuchInterface));
}

fn exec(script: &str, stdin: &[u8], timeout: Duration) -> Request {
    let argv = ["sh", "-c", script].map(String::from).to_vec();
    Request::Exec(Exec { argv, stdin: stdin.to_vec(), timeout })
}

fn executed(answer: Answer) -> Executed {
    match answer {
        Answer::Exec(executed) => executed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_program_is_fed_heard_and_outlived() {
    let mut guest = Guest::alone();
    let long: Vec<u8> = (0..20_000).map(|n| n as u8).collect();
    let cat = executed(guest.ask(exec("cat; echo done >&2; exit 3", &long, TIMEOUT)));
    assert_eq!((cat.end, cat.stderr.as_slice(), cat.cut), (End::Exited(3), &b"done\n"[..], 0));
    assert_eq!(cat.stdout, long);
    let killed = executed(guest.ask(exec("kill -9 $$", b"", TIMEOUT)));
    assert_eq!(killed.end, End::Killed(9));
    let deaf = executed(guest.ask(exec("exec <&-; exit 0", &long.repeat(3), TIMEOUT)));
    assert_eq!(deaf.end, End::Exited(0));
    let left_behind = executed(guest.ask(exec("sleep 600 & echo gone", b"", TIMEOUT)));
    assert_eq!((left_behind.end, left_behind.stdout.as_slice()), (End::Exited(0), &b"gone\n"[..]));
    let missing = Exec { argv: vec!["/no/such".into()], stdin: Vec::new(), timeout: TIMEOUT };
    let missing = executed(guest.ask(Request::Exec(missing)));
    assert_eq!((missing.end, missing.stderr.as_slice()), (End::Exited(127), &b"/no/such: not found\n"[..]));
    let no_program = Exec { argv: vec!["/etc/passwd".into()], stdin: Vec::new(), timeout: TIMEOUT };
    assert_eq!(executed(guest.ask(Request::Exec(no_program))).end, End::Exited(126));
}

#[test]
fn a_program_without_end_is_ended() {
    let mut guest = Guest::alone();
    let sleeper = executed(guest.ask(exec("echo now; sleep 600", b"", Duration::from_millis(300))));
    assert_eq!((sleeper.end, sleeper.stdout.as_slice()), (End::TimedOut, &b"now\n"[..]));
    let talker = executed(guest.ask(exec("while :; do echo talk; done", b"", Duration::from_millis(300))));
    assert_eq!((talker.end, talker.stdout.len(), talker.cut > 0), (End::TimedOut, MAX_OUTPUT, true));
    let counted = executed(guest.ask(exec("head -c 100000 /dev/zero", b"", TIMEOUT)));
    assert_eq!((counted.stdout.len(), counted.cut), (MAX_OUTPUT, 100_000 - MAX_OUTPUT as u64));
}
