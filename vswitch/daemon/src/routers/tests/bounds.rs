//! Whatever is heard, in whatever order: nothing panics, nothing grows, and what is said is the routers' own.

use super::{
    Bench, ROUTER,
    lab::{gateway, usual, vlan, world},
    mac, to_all, to_router,
};
use proptest::prelude::*;
use std::{net::Ipv4Addr, time::Duration};
use vswitch_core::{
    build::{self, Addresses, Echo},
    description::Router,
};

/// What happens.
#[derive(Debug, Clone)]
enum Event {
    Frame(Vec<u8>),
    Tick(u64),
    /// Frames are sent.
    Sent(usize),
    /// Another World; whether it has fewer gateways.
    World(bool),
}

/// A frame that means something, mostly.
fn meant() -> impl Strategy<Value = Vec<u8>> {
    let number = prop::sample::select(vec![0_u16, 10, 10, 20, 30, 40, 50]);
    let host = prop::sample::select(vec![0_u8, 1, 7, 8, 9, 255]);
    let net = prop::sample::select(vec![[10, 0, 10], [10, 0, 20], [10, 4, 0], [192, 0, 2], [198, 51, 100]]);
    let address = (net, host.clone()).prop_map(|([a, b, c], host)| Ipv4Addr::new(a, b, c, host));
    let link = (number, host, any::<bool>())
        .prop_map(|(number, host, all)| if all { to_all(number, host) } else { to_router(number, host) });
    (link, address.clone(), address, 0..10, any::<u8>()).prop_map(|(link, one, other, kind, byte)| {
        let v4 = Addresses::V4(one, other);
        let six = |address: Ipv4Addr| {
            let [.., net, host] = address.octets();
            format!("2001:db8:{net}::{host:x}").parse().expect("an address")
        };
        let v6 = Addresses::V6(six(one), six(other));
        let advertisement = |kind| {
            let message =
                [&[kind, 0, 0, 0, byte, 0, 0, 0], &six(one).octets()[..], &[2, 1], &mac(byte).octets()];
            build::ip(link, v6, 58, 255, message.concat(), 2)
        };
        match kind {
            0 => build::arp_request(link, one, other),
            1 => build::arp_reply(link, one, other),
            2 => build::neighbour_solicitation(link, six(one), six(other)),
            3 => advertisement(136),
            4 => advertisement(135),
            5 => build::echo(link, v4, Echo::Request, 1, 1, &[byte; 30]),
            6 => build::echo(link, v6, Echo::Request, 1, 1, &[byte; 30]),
            7 => build::udp(link, v4, (1, byte.into()), &[byte; 9]),
            8 => build::udp(link, v6, (1, byte.into()), &[byte; 9]),
            _ => build::tcp_syn(link, v4, (1, byte.into()), 1),
        }
    })
}

/// The same with a few bytes changed, and cut.
fn bent() -> impl Strategy<Value = Vec<u8>> {
    let bends = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    (meant(), bends, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(mut frame, bends, end, cut)| {
        bends.into_iter().for_each(|(at, byte)| {
            let at = at.index(frame.len());
            frame[at] = byte;
        });
        if cut {
            frame.truncate(end.index(frame.len()));
        }
        frame
    })
}

/// Behind a tag of a VLAN that has a gateway anything.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let ethertype = prop::sample::select(vec![0x0800, 0x0806, 0x86dd, 0x8100]);
    let bytes = proptest::collection::vec(any::<u8>(), 0..200);
    (ethertype, bytes).prop_map(|(ethertype, bytes)| build::raw(to_router(10, 7), ethertype, &bytes))
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => meant().prop_map(Event::Frame),
        3 => bent().prop_map(Event::Frame),
        1 => garbage().prop_map(Event::Frame),
        1 => proptest::collection::vec(any::<u8>(), 0..100).prop_map(Event::Frame),
        2 => (0_u64..40_000).prop_map(Event::Tick),
        1 => (0_usize..30).prop_map(Event::Sent),
        1 => any::<bool>().prop_map(Event::World),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn it_is_whole_whatever_happens(events in proptest::collection::vec(event(), 1..150)) {
        let mut bench = Bench::silent(usual());
        let mut gateways = vec![10, 20, 30, 40];
        for event in events {
            match event {
                Event::Frame(frame) => bench.speaker.receive(&frame, bench.now),
                Event::Tick(millis) => {
                    bench.now = bench.now + Duration::from_millis(millis);
                    bench.speaker.tick(bench.now);
                }
                Event::Sent(frames) => (0..frames).for_each(|_| bench.speaker.sent()),
                Event::World(true) => {
                    let fewer = vec![gateway(20, &["10.0.20.1/24"])];
                    let router = Router { name: "default".into(), gateways: fewer, routes: Vec::new(), nat: Vec::new(), nameservers: Vec::new() };
                    bench.speaker.adopt(world(vec![router]));
                    gateways = vec![20];
                }
                Event::World(false) => {
                    bench.speaker.adopt(usual());
                    gateways = vec![10, 20, 30, 40];
                }
            }
            let (queued, asked, held) = bench.speaker.waiting();
            prop_assert!(queued <= 1024 && asked <= 256 && held <= 3 * asked, "{queued} {asked} {held}");
            if let Some(frame) = bench.speaker.next_frame() {
                // The routers' own, or what waited for a neighbour and is for them again.
                prop_assert!(frame[..12].chunks(6).any(|mac| mac == ROUTER.octets()));
                prop_assert_eq!(&frame[12..14], &[0x81, 0]);
                let number = u16::from_be_bytes([frame[14], frame[15]]) & 0xfff;
                prop_assert!(gateways.contains(&number), "VLAN {number} has no gateway");
            }
        }
        for neighbour in bench.neighbours.list(bench.now) {
            prop_assert!(!neighbour.mac.is_group() && neighbour.mac != ROUTER, "{neighbour:?}");
            prop_assert!(gateways.iter().any(|number| vlan(*number) == neighbour.vlan), "{neighbour:?}");
        }
    }
}

#[test]
fn what_waits_has_an_end_by_bytes() {
    let mut bench = Bench::new();
    let big = vec![0; 60_000];
    for host in 2..60 {
        let ends = Addresses::V4([10, 0, 10, 7].into(), [10, 0, 20, host].into());
        bench.hear(&build::udp(to_router(10, 7), ends, (1, 2), &big));
    }
    assert_eq!(bench.speaker.waiting().2, (1 << 20) / 60_100);
    // And so has what is to be sent.
    let echo = build::echo(
        to_router(20, 7),
        Addresses::V4([10, 0, 20, 7].into(), [10, 0, 20, 1].into()),
        Echo::Request,
        1,
        1,
        &big,
    );
    bench.said();
    (0..100).for_each(|_| {
        bench.hear(&echo);
    });
    assert_eq!(bench.said().len(), (4 << 20) / 60_046);
}
