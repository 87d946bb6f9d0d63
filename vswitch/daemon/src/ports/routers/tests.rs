//! The routers at a real port.

use super::{
    super::adapter::{
        Adapter, AdapterEnd,
        tests::{Host, end_of, give, take},
    },
    Voice,
};
use crate::{
    control::protocol::KeptLease,
    recorder::journal::Journal,
    routers::{
        dhcp::tests::message,
        lab::{ROUTER, gateway, serving, usual, vlan, world},
    },
    tracking,
};
use smoltcp::wire::DhcpMessageType;
use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::Ipv4Addr,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
    time::{Duration, Instant},
};
use vhost_net_backend::device::port::{Port, PortConfig};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    clock,
    description::Router,
    mac::MacAddr,
    route::Neighbours,
    vlan::Tci,
    world::World,
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
    bench_of(usual(), Vec::new(), None)
}

/// Routers that were given this lab, and told what was given before them.
fn bench_of(world: Arc<World>, remembered: Vec<KeptLease>, bell: Option<OwnedFd>) -> Bench {
    let (driver, device) = UnixStream::pair().expect("sockets");
    let host = Arc::new(Host::default());
    let port = Port::adopt(device, PortConfig::new("routers"), host.clone()).expect("threads");
    let origin = Instant::now();
    let voice = Voice::new(Arc::new(Journal::new(origin)), remembered, bell).expect("a descriptor");
    let neighbours = Arc::new(Neighbours::new([1, 2]));
    assert_eq!(voice.kept(clock::Instant::ZERO), None, "nobody knows yet");
    voice.adopt(world, Arc::new(tracking::nothing()));
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
fn what_they_have_given_is_told_whenever_it_changes_and_goes_on_behind_those_before() {
    let (bell, mut heard) = UnixStream::pair().expect("sockets");
    heard.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let kept = |n: u8, name: Option<&str>| KeptLease {
        vlan: vlan(10),
        address: [10, 0, 10, n].into(),
        mac: MacAddr::new([2, 0, 0, 0, 0, n]),
        name: name.map(str::to_owned),
        left_secs: 600,
    };
    let nowhere = KeptLease { vlan: vlan(90), ..kept(61, None) };
    let before = vec![kept(60, Some("phone")), nowhere];
    let bench = bench_of(serving(), before, Some(bell.into()));
    let origin = bench.origin;
    let now = || clock::Instant::ZERO + origin.elapsed();
    heard.read_exact(&mut [0]).expect("it is told");
    // Seconds may pass meanwhile.
    let whose =
        |leases: &[KeptLease]| leases.iter().map(|lease| (lease.address, lease.name.clone())).collect();
    let told: Vec<_> = whose(&bench.voice.kept(now()).expect("known").leases);
    assert_eq!(told, [([10, 0, 10, 60].into(), Some("phone".to_owned()))]);
    assert_eq!(bench.voice.kept(now()).expect("known").forgotten, 1);
    let left = bench.voice.kept(now() + Duration::from_secs(590)).expect("known").leases[0].left_secs;
    assert!(left <= 10, "{left}");
    // Another comes, who says that it had an address: half a second of silence later it has.
    let asks = message(70, DhcpMessageType::Request, |repr| repr.requested_ip = Some([10, 0, 10, 70].into()));
    let src = MacAddr::new([2, 0, 0, 0, 0, 70]);
    let link = Ethernet { src, dst: MacAddr::BROADCAST, tag: Some(Tci::from_bits(10)) };
    let addresses = Addresses::V4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    let frame = build::udp(link, addresses, (68, 67), &asks);
    assert!(bench.host.with(|_, to| give(to, &frame)));
    heard.read_exact(&mut [0]).expect("it is told");
    let told: Vec<(Ipv4Addr, Option<String>)> = whose(&bench.voice.kept(now()).expect("known").leases);
    assert_eq!(told.iter().map(|(address, _)| address.octets()[3]).collect::<Vec<_>>(), [60, 70]);
    // They wait for nobody who does not listen, or is gone.
    let (bell, mut heard) = UnixStream::pair().expect("sockets");
    bell.set_nonblocking(true).expect("a socket");
    while (&bell).write(&[0; 1024]).is_ok() {}
    let mut bench = bench_of(serving(), Vec::new(), Some(bell.into()));
    let mut is_answered = || {
        assert!(bench.host.with(|_, to| give(to, &frame)));
        next(&mut bench, |said| said[..6] == src.octets());
    };
    is_answered();
    heard.read_exact(&mut [0]).expect("it was full");
    drop(heard);
    is_answered();
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
