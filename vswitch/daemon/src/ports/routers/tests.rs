//! The routers at a real port.

use super::{
    super::adapter::{
        Adapter, AdapterEnd,
        tests::{Host, end_of, give, take},
    },
    Voice,
};
use crate::{
    recorder::journal::Journal,
    routers::lab::{ROUTER, gateway, usual, vlan, world},
    tracking,
};
use std::{collections::VecDeque, os::unix::net::UnixStream, sync::Arc, time::Instant};
use vhost_net_backend::device::port::{Port, PortConfig};
use vswitch_core::{
    build::{self, Ethernet},
    clock,
    description::Router,
    mac::MacAddr,
    route::Neighbours,
    vlan::Tci,
};

struct Bench {
    adapter: Adapter,
    port: Port,
    host: Arc<Host>,
    voice: Arc<Voice>,
    neighbours: Arc<Neighbours>,
    origin: Instant,
    /// What they said and nobody looked at.
    said: VecDeque<Vec<u8>>,
}

/// Routers that were given the usual lab.
fn bench() -> Bench {
    let (driver, device) = UnixStream::pair().expect("sockets");
    let host = Arc::new(Host::default());
    let port = Port::adopt(device, PortConfig::new("routers"), host.clone()).expect("threads");
    let origin = Instant::now();
    let voice = Voice::new(Arc::new(Journal::new(origin))).expect("a descriptor");
    let neighbours = Arc::new(Neighbours::new([1, 2]));
    voice.adopt(usual(), Arc::new(tracking::nothing()));
    let hears = (voice.clone(), origin);
    let adapter = Adapter::routers("routers", neighbours.clone(), hears, driver).expect("a thread");
    Bench { adapter, port, host, voice, neighbours, origin, said: VecDeque::new() }
}

fn request(number: u16, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let (src, tag) = (MacAddr::new([2, 0, 0, 0, 0, 7]), Some(Tci::from_bits(number)));
    build::arp_request(Ethernet { src, dst: MacAddr::BROADCAST, tag }, sender.into(), target.into())
}

/// The next frame of the routers' that is this.
fn next(bench: &mut Bench, is_it: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    loop {
        let Some(frame) = bench.said.pop_front() else {
            bench.said.extend(take(&bench.host, 1));
            continue;
        };
        assert_eq!(frame[6..12], ROUTER.octets());
        if is_it(&frame) {
            return frame;
        }
    }
}

#[test]
fn they_announce_themselves_and_answer_and_follow_another_world() {
    let mut bench = bench();
    // Unasked: the World was there before the rings were.
    next(&mut bench, |frame| frame[..6] == [0xff; 6] && frame[32..36] == [10, 0, 10, 1]);
    assert!(bench.host.with(|_, to| give(to, &request(10, [10, 0, 10, 7], [10, 0, 10, 1]))));
    let is_answer = |frame: &[u8]| frame[..6] == [2, 0, 0, 0, 0, 7];
    let answer = next(&mut bench, is_answer);
    assert_eq!((&answer[14..16], &answer[32..36]), (&[0, 10][..], &[10, 0, 10, 1][..]));
    let origin = bench.origin;
    let now = || clock::Instant::ZERO + origin.elapsed();
    let known = bench.neighbours.find(vlan(10), [10, 0, 10, 7].into(), now(), false);
    assert_eq!(known, Some(MacAddr::new([2, 0, 0, 0, 0, 7])));
    let gateways = vec![gateway(20, &["10.0.20.1/24"]), gateway(50, &["10.5.0.1/16"])];
    bench.voice.adopt(
        world(vec![Router {
            name: "default".into(),
            gateways,
            routes: Vec::new(),
            nat: Vec::new(),
            nameservers: Vec::new(),
        }]),
        Arc::new(tracking::nothing()),
    );
    next(&mut bench, |frame| frame[..6] == [0xff; 6] && frame[32..36] == [10, 5, 0, 1]);
    assert_eq!(bench.neighbours.find(vlan(10), [10, 0, 10, 7].into(), now(), false), None);
    assert!(bench.host.with(|_, to| give(to, &request(10, [10, 0, 10, 7], [10, 0, 10, 1]))));
    assert!(bench.host.with(|_, to| give(to, &request(50, [10, 5, 0, 7], [10, 5, 0, 1]))));
    assert_eq!(next(&mut bench, is_answer)[14..16], [0, 50], "where no gateway is any more nobody answers");
}

#[test]
fn what_is_due_is_done_though_nothing_comes() {
    let mut bench = bench();
    let announced = |frame: &[u8]| frame[..6] == [0xff; 6] && frame[32..36] == [10, 4, 0, 1];
    // Twice, with time between.
    next(&mut bench, announced);
    next(&mut bench, announced);
}

#[test]
fn they_end_with_their_port() {
    let Bench { adapter, port, voice, .. } = bench();
    port.close();
    let end = end_of(&adapter);
    assert!(matches!(end, AdapterEnd::PortClosed | AdapterEnd::Port(_)), "{end}");
    // Whoever tells them of another World does not care.
    voice.adopt(usual(), Arc::new(tracking::nothing()));
}
