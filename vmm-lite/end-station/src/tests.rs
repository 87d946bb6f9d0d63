//! Two and more stations on one wire in memory, in virtual time: what they answer, and how fast.

use crate::ask::Asker;
use crate::host::{Host, Interface};
use crate::nic::Wire;
use alloc::collections::VecDeque;
use alloc::{borrow::ToOwned, format, string::String, vec, vec::Vec};
use core::net::SocketAddr;
use probe::answer::{Bulk, Contact, Received, Refusal, Sent, Unreachable};
use probe::ask::{Connect, Marker, Ping, Resolve, Send, SendFrame, Service, Source, Transport, UdpEcho};
use probe::bulk::{Checksum, Pattern};
use probe::{Answer, Ask, AskId, FromGuest, Mac, Request};
use smoltcp::time::{Duration, Instant};
use std::cell::RefCell;
use std::rc::Rc;

/// One end of a hub: what others send comes here, as many frames as a ring holds.
#[derive(Default)]
struct Tap(Rc<RefCell<VecDeque<Vec<u8>>>>);

struct HubWire {
    own: usize,
    taps: Rc<Vec<Tap>>,
}

impl Wire for HubWire {
    fn send(&mut self, frame: &[u8]) -> bool {
        for (_, Tap(queue)) in self.taps.iter().enumerate().filter(|(at, _)| *at != self.own) {
            let mut queue = queue.borrow_mut();
            if queue.len() < 256 {
                queue.push_back(frame.to_vec());
            }
        }
        true
    }

    fn receive(&mut self, limit: usize, each: &mut dyn FnMut(&[u8])) {
        let mut queue = self.taps[self.own].0.borrow_mut();
        let len = queue.len().min(limit);
        queue.drain(..len).for_each(|frame| each(&frame));
    }

    fn flush(&mut self) {}

    fn is_up(&self) -> bool {
        true
    }
}

/// Stations on one hub; each round takes 20 µs.
struct Lab {
    hosts: Vec<Host<HubWire>>,
    taps: Rc<Vec<Tap>>,
    now: Instant,
}

fn mac(host: usize) -> Mac {
    let [high, low] = (host as u16 + 1).to_be_bytes();
    Mac::new([2, 0, 0, 0, high, low])
}

/// Host 0 is 10.0.0.1 and fd00::1, and so on.
fn v4(host: usize) -> String {
    let number = host + 1;
    format!("10.0.{}.{}", number / 200, number % 200 + 1)
}

fn v6(host: usize) -> String {
    format!("fd00::{:x}", host + 1)
}

impl Lab {
    fn new(count: usize) -> Self {
        let addresses = |own: usize| (vec![format!("{}/16", v4(own)), format!("{}/64", v6(own))], vec![]);
        Self::of(&(0..count).map(addresses).collect::<Vec<_>>())
    }

    /// Stations with these addresses and default gateways.
    fn of(stations: &[(Vec<String>, Vec<String>)]) -> Self {
        let count = stations.len();
        let taps = Rc::new((0..count).map(|_| Tap::default()).collect::<Vec<_>>());
        let host = |own: usize| {
            let (addresses, gateways) = &stations[own];
            let interface = Interface {
                name: "eth0".into(),
                mac: mac(own),
                mtu: 1500,
                addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
                gateways: gateways.iter().map(|gateway| gateway.parse().expect("an address")).collect(),
                wire: HubWire { own, taps: Rc::clone(&taps) },
            };
            Host::new(format!("h{own}"), vec![interface], own as u64, Instant::ZERO)
        };
        let hosts = (0..count).map(host).collect();
        Self { hosts, taps, now: Instant::from_millis(1) }
    }

    /// Asks host `host`, and turns until it answers, at most `ms` of virtual time; with the time that it took.
    fn ask(&mut self, host: usize, request: Request, ms: u64) -> (Answer, Duration) {
        let (asked, id) = (self.now, AskId::new(1));
        if let Some(answer) = self.hosts[host].ask(Asker(1), Ask { id, request }, self.now) {
            return (answer, Duration::ZERO);
        }
        while self.now < asked + Duration::from_millis(ms) {
            for (_, message) in self.round() {
                if let FromGuest::Answer { answer, .. } = message {
                    return (answer, self.now - asked);
                }
            }
        }
        panic!("no answer within {ms} ms of virtual time");
    }

    /// One round of every host; when nobody has anything to do, time leaps to when somebody does.
    fn round(&mut self) -> Vec<(Asker, FromGuest)> {
        let answers = self.hosts.iter_mut().flat_map(|host| host.step(self.now)).collect();
        self.now += Duration::from_micros(20);
        if self.taps.iter().all(|tap| tap.0.borrow().is_empty()) {
            let next = self.hosts.iter_mut().filter_map(|host| host.poll_at(self.now)).min();
            self.now = next.unwrap_or(self.now).max(self.now);
        }
        answers
    }
}

fn ping(dst: &str, count: u16, payload: u16) -> Request {
    let (interval, timeout) = (ms(1), ms(500));
    let dst = dst.parse().expect("an address");
    Request::Ping(Ping { dst, from: Source::Any, count, payload, interval, timeout })
}

fn ms(ms: u64) -> core::time::Duration {
    core::time::Duration::from_millis(ms)
}

fn at(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(addr.parse().expect("an address"), port)
}

fn connect(dst: SocketAddr) -> Request {
    Request::Connect(Connect { dst, from: Source::Any, timeout: ms(2000) })
}

fn echo(dst: SocketAddr) -> Request {
    Request::UdpEcho(UdpEcho { dst, from: Source::Any, payload: b"hello".to_vec(), timeout: ms(2000) })
}

#[test]
fn the_first_ping_comes_back_within_milliseconds_over_both_families() {
    for peer in [v4(1), v6(1), "fe80::ff:fe00:2".to_owned()] {
        let mut lab = Lab::new(2);
        let (answer, took) = lab.ask(0, ping(&peer, 3, 56), 1000);
        let Answer::Ping(Ok(echoes)) = answer else { panic!("{peer}: {answer:?}") };
        assert_eq!((echoes.sent, echoes.received()), (3, 3), "{peer}");
        assert!(took < Duration::from_millis(50), "{peer}: {took}");
    }
}

#[test]
fn each_of_256_neighbours_answers_at_first_contact() {
    let mut lab = Lab::new(257);
    for peer in 1..257 {
        for addr in [v4(peer), v6(peer)] {
            let (answer, took) = lab.ask(0, ping(&addr, 1, 8), 1000);
            assert!(
                matches!(&answer, Answer::Ping(Ok(echoes)) if echoes.received() == 1),
                "{addr}: {answer:?}"
            );
            assert!(took < Duration::from_millis(50), "{addr}: {took}");
        }
    }
}

#[test]
fn tcp_is_answered_refused_or_unreachable() {
    let mut lab = Lab::new(2);
    for peer in [v4(1), v6(1)] {
        let (answer, took) = lab.ask(0, connect(at(&peer, 7)), 3000);
        assert!(matches!(answer, Answer::Connect(Contact::Answered(_))), "{answer:?}");
        assert!(took < Duration::from_millis(50), "{took}");
        assert_eq!(lab.ask(0, connect(at(&peer, 8)), 3000).0, Answer::Connect(Contact::Refused));
    }
    let nobody = Answer::Connect(Contact::Unreachable(Unreachable::NoNeighbour));
    assert_eq!(lab.ask(0, connect(at("10.0.3.3", 7)), 3000).0, nobody);
}

#[test]
fn a_peer_that_fell_silent_times_out() {
    let mut lab = Lab::new(2);
    lab.ask(0, ping(&v4(1), 1, 8), 1000);
    lab.hosts.truncate(1);
    let answers = [lab.ask(0, connect(at(&v4(1), 7)), 3000).0, lab.ask(0, echo(at(&v4(1), 7)), 3000).0];
    assert_eq!(answers, [Answer::Connect(Contact::TimedOut), Answer::UdpEcho(Contact::TimedOut)]);
}

#[test]
fn udp_comes_back_or_is_refused_and_listen_opens_a_port() {
    let mut lab = Lab::new(2);
    for peer in [v4(1), v6(1)] {
        assert!(matches!(lab.ask(0, echo(at(&peer, 7)), 3000).0, Answer::UdpEcho(Contact::Answered(_))));
        assert_eq!(lab.ask(0, echo(at(&peer, 9)), 3000).0, Answer::UdpEcho(Contact::Refused), "{peer}");
    }
    let service = Service { transport: Transport::Udp, port: 9 };
    assert_eq!(lab.ask(1, Request::Listen(service), 1).0, Answer::Done);
    assert_eq!(lab.ask(1, Request::Listen(service), 1).0, Answer::Refused(Refusal::PortTaken));
    assert!(matches!(lab.ask(0, echo(at(&v4(1), 9)), 3000).0, Answer::UdpEcho(Contact::Answered(_))));
    assert_eq!(lab.ask(1, Request::Unlisten(service), 1).0, Answer::Done);
    assert_eq!(lab.ask(0, echo(at(&v4(1), 9)), 3000).0, Answer::UdpEcho(Contact::Refused));
}

#[test]
fn resolve_finds_a_neighbour_or_says_that_there_is_none() {
    let mut lab = Lab::new(2);
    let resolve = |dst: &str| {
        let dst = dst.parse().expect("an address");
        Request::Resolve(Resolve { dst, from: Source::Interface(mac(0)), timeout: ms(300) })
    };
    for (addr, found) in [(v4(1), Some(mac(1))), (v6(1), Some(mac(1))), (v4(0), Some(mac(0))), (v4(7), None)]
    {
        assert_eq!(lab.ask(0, resolve(&addr), 1000).0, Answer::Resolved(found), "{addr}");
    }
    lab.hosts.truncate(1);
    assert_eq!(lab.ask(0, resolve(&v4(1)), 1000).0, Answer::Resolved(None), "asked anew");
}

#[test]
fn what_is_on_no_link_has_no_route_and_nothing_is_sent() {
    let mut lab = Lab::new(2);
    let unreachable = Unreachable::NoRoute;
    assert_eq!(lab.ask(0, ping("192.0.2.1", 1, 8), 1).0, Answer::Ping(Err(unreachable)));
    let to = at("2001:db8::1", 7);
    assert_eq!(lab.ask(0, connect(to), 1).0, Answer::Connect(Contact::Unreachable(unreachable)));
    lab.round();
    assert!(lab.taps[1].0.borrow().is_empty());
    let too_long = lab.ask(0, ping(&v4(1), 1, 1473), 1).0;
    assert!(matches!(too_long, Answer::Refused(Refusal::System(_))), "{too_long:?}");
}

/// Host 1 is the default gateway of host 0, and has addresses elsewhere.
#[test]
fn what_is_elsewhere_is_reached_by_the_default_gateway_and_answered_by_it() {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let lab = || {
        Lab::of(&[
            (words(&["10.0.0.1/24", "fd00::1/64"]), words(&["10.0.0.254", "fd00::fe"])),
            (words(&["10.0.0.254/24", "10.1.0.1/24", "fd00::fe/64", "fd01::1/64"]), vec![]),
        ])
    };
    for (near, far) in [("10.0.0.1", "10.1.0.1"), ("fd00::1", "fd01::1")] {
        let mut there = lab();
        let (answer, took) = there.ask(0, ping(far, 2, 56), 1000);
        assert!(matches!(&answer, Answer::Ping(Ok(echoes)) if echoes.received() == 2), "{far}: {answer:?}");
        assert!(took < Duration::from_millis(50), "{far}: {took}");
        let answer = there.ask(0, connect(at(far, 7)), 3000).0;
        assert!(matches!(answer, Answer::Connect(Contact::Answered(_))), "{far}: {answer:?}");
        let answer = there.ask(0, echo(at(far, 7)), 3000).0;
        assert!(matches!(answer, Answer::UdpEcho(Contact::Answered(_))), "{far}: {answer:?}");
        let resolve = Resolve { dst: at(far, 0).ip(), from: Source::Any, timeout: ms(300) };
        assert_eq!(there.ask(0, Request::Resolve(resolve), 1000).0, Answer::Resolved(None), "{far}");
        // The first frame from elsewhere says where its answer goes.
        let mut back = lab();
        let (timeout, from) = (ms(500), Source::Address(at(far, 0).ip()));
        let asked = Ping { dst: at(near, 0).ip(), from, count: 1, payload: 8, interval: ms(1), timeout };
        let (answer, took) = back.ask(1, Request::Ping(asked), 1000);
        assert!(matches!(&answer, Answer::Ping(Ok(echoes)) if echoes.received() == 1), "{far}: {answer:?}");
        assert!(took < Duration::from_millis(50), "{far}: {took}");
    }
}

#[test]
fn a_gateway_that_is_on_no_link_is_none() {
    let stray = (vec!["10.0.0.1/24".to_owned()], vec!["10.9.0.254".to_owned()]);
    let mut lab = Lab::of(&[stray]);
    assert_eq!(lab.ask(0, ping("192.0.2.1", 1, 8), 1).0, Answer::Ping(Err(Unreachable::NoRoute)));
}

#[test]
fn eight_mebibytes_arrive_whole() {
    let mut lab = Lab::new(2);
    assert_eq!(lab.ask(1, Request::Serve { port: 5001 }, 1).0, Answer::Done);
    for (seed, peer) in [(1, v4(1)), (2, v6(1))] {
        let bytes = 8 << 20;
        let send = Send { dst: at(&peer, 5001), from: Source::Any, bytes, seed, timeout: ms(60_000) };
        let (answer, _) = lab.ask(0, Request::Send(send), 60_000);
        let mut whole = vec![0; bytes as usize];
        Pattern::new(seed).fill(&mut whole);
        let mut sum = Checksum::new();
        sum.update(&whole);
        let bulk = Bulk { bytes, checksum: sum.value() };
        assert!(matches!(answer, Answer::Sent(Ok(Sent { bulk: sent, .. })) if sent == bulk), "{answer:?}");
        assert_eq!(lab.ask(1, Request::Served { port: 5001 }, 1).0, Answer::Served(Some(bulk)));
    }
}

#[test]
fn raw_frames_are_counted_by_their_marker() {
    let mut lab = Lab::new(2);
    let marker = Marker { bytes: b"mark".to_vec() };
    assert_eq!(
        lab.ask(1, Request::ReceivedFrames(marker.clone()), 1).0,
        Answer::Refused(Refusal::NotExpected)
    );
    assert_eq!(lab.ask(1, Request::Expect(marker.clone()), 1).0, Answer::Done);
    let frame = |text: &[u8]| [mac(1).octets().as_slice(), &mac(0).octets(), &[0x88, 0xb5], text].concat();
    for text in [b"a mark here".as_slice(), b"none", b"mark"] {
        let send = SendFrame { interface: mac(0), frame: frame(text) };
        assert_eq!(lab.ask(0, Request::SendFrame(send), 1).0, Answer::Done);
    }
    lab.round();
    let received = vec![Received { interface: mac(1), frames: 2 }];
    assert_eq!(lab.ask(1, Request::ReceivedFrames(marker), 1).0, Answer::Received(received));
}

#[test]
fn a_station_reaches_itself() {
    let mut lab = Lab::new(1);
    assert!(
        matches!(lab.ask(0, ping(&v4(0), 1, 8), 100).0, Answer::Ping(Ok(echoes)) if echoes.received() == 1)
    );
    assert!(matches!(lab.ask(0, connect(at(&v6(0), 7)), 100).0, Answer::Connect(Contact::Answered(_))));
}

#[test]
fn an_idle_station_has_nothing_to_do() {
    let mut lab = Lab::new(2);
    lab.ask(0, connect(at(&v4(1), 7)), 1000);
    for _ in 0..100 {
        lab.round();
    }
    assert!(lab.hosts.iter_mut().all(|host| host.poll_at(lab.now).is_none()));
}
