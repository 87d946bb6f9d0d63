//! Several queue pairs: each flow has a receiveq of its own, and pairs come and go under traffic.

use crate::{
    lab::{DEADLINE, Lab, access, description, frame, mac, send},
    traffic::Pair,
};
use std::{collections::BTreeMap, net::Ipv4Addr, time::Instant};
use vhost_net_backend::driver::{Config, Driver};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    description::Description,
    mac::MacAddr,
};
use vswitchd::control::protocol::{PortState, Snapshot};

const PAIRS: u16 = 4;
const FLOWS: u16 = 8;

/// The ports of the two that talk.
const FROM: usize = 0;
const TO: usize = 1;

/// Ports with four queue pairs each.
fn lab(ports: usize, workers: u16) -> Lab {
    let mut lab: Description = description(&vec![access(10); ports]);
    lab.ports.iter_mut().flatten().for_each(|port| port.queues = PAIRS);
    Lab::with_workers(&lab, workers)
}

fn many() -> Config {
    Config { queue_pairs: PAIRS, ..Config::default() }
}

/// Frame `number` of a flow.
fn numbered(flow: u16, number: u32) -> Vec<u8> {
    let link = Ethernet { src: mac(FROM), dst: mac(TO), tag: None };
    let addresses = Addresses::V4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    build::udp(link, addresses, (40_000 + flow, 9), &number.to_be_bytes())
}

/// The flow of a frame and its number in it.
fn read(frame: &[u8]) -> (u16, u32) {
    assert_eq!(frame.len(), 46);
    let port = u16::from_be_bytes([frame[34], frame[35]]);
    (port - 40_000, u32::from_be_bytes([frame[42], frame[43], frame[44], frame[45]]))
}

/// Two guests with several queue pairs that know of each other.
struct Talk {
    lab: Lab,
    from: Driver,
    to: Driver,
    sent: u32,
}

impl Talk {
    fn new(lab: Lab) -> Self {
        let [mut from, mut to] = [FROM, TO].map(|place| lab.attach(place, &many()));
        for (place, driver) in [(FROM, &mut from), (TO, &mut to)] {
            send(driver, &frame(MacAddr::BROADCAST, mac(place), 60, 0));
            lab.wait(|seen| seen.ports[place].counters.from_port.frames > 0);
        }
        lab.wait(|seen| [FROM, TO].iter().all(|place| seen.ports[*place].rings.len() == 8));
        Self { lab, from, to, sent: 0 }
    }

    /// Sends a frame of each flow, a flow by one pair.
    fn send(&mut self) {
        for flow in 0..FLOWS {
            let pair = &mut self.from.pairs()[usize::from(flow % PAIRS)];
            assert!(pair.transmit(&numbered(flow, self.sent)), "the ring is full");
            pair.flush();
        }
        self.sent += 1;
    }

    /// Takes what has come: the pair by which it came, the flow and the number.
    fn take(&mut self, mut each: impl FnMut(usize, u16, u32)) {
        for (place, pair) in self.to.pairs().iter_mut().enumerate() {
            pair.receive(|_, frame| {
                // The hello was flooded.
                if frame[..6] == mac(TO).octets() {
                    let (flow, number) = read(frame);
                    each(place, flow, number);
                }
            });
        }
    }

    fn lost_nothing(&self) -> Snapshot {
        let seen = self.lab.lawful();
        let [from, to] = [FROM, TO].map(|place| &seen.ports[place].counters);
        assert!(from.from_port.dropped.is_empty() && to.to_port.dropped.is_empty(), "{from:#?}{to:#?}");
        assert_eq!((from.faults, to.faults), (0, 0));
        seen
    }
}

fn patience() -> impl Fn() {
    let end = Instant::now() + DEADLINE;
    move || {
        assert!(Instant::now() < end, "frames are missing");
        std::thread::yield_now();
    }
}

#[test]
fn each_flow_has_one_receiveq_and_keeps_its_order_and_all_are_used() {
    for workers in [1, 3] {
        let mut talk = Talk::new(lab(2, workers));
        let mut queues = BTreeMap::<u16, usize>::new();
        let mut next = [0; FLOWS as usize];
        for _ in 0..100 {
            // What waits in one receiveq fits its 256 buffers, were all flows in it.
            let first = talk.sent;
            (0..16).for_each(|_| talk.send());
            let last = talk.sent;
            let check = patience();
            while next.iter().any(|number| *number < last) {
                talk.take(|place, flow, number| {
                    assert_eq!(*queues.entry(flow).or_insert(place), place, "flow {flow} changed its queue");
                    assert_eq!(
                        number,
                        next[usize::from(flow)],
                        "flow {flow}, from {first} on, is out of order"
                    );
                    next[usize::from(flow)] += 1;
                });
                check();
            }
        }
        let seen = talk.lost_nothing();
        let used = queues.values().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(used.len(), usize::from(PAIRS), "{queues:?}");
        let by_ring = |place: usize, odd: u16| {
            let frames = seen.ports[place].ring_frames.iter();
            frames.filter(|(index, _)| *index % 2 == odd).map(|(_, frames)| *frames).collect::<Vec<_>>()
        };
        let mut expected = vec![0; usize::from(PAIRS)];
        queues.values().for_each(|queue| expected[*queue] += u64::from(talk.sent));
        // The hellos: each guest's first transmitq, and whichever receiveq of the other.
        assert_eq!(
            by_ring(FROM, 1),
            [2, 2, 2, 2]
                .map(|flows| flows * u64::from(talk.sent))
                .iter()
                .enumerate()
                .map(|(n, frames)| frames + u64::from(n == 0))
                .collect::<Vec<_>>()
        );
        let delivered = by_ring(TO, 0);
        assert!(
            delivered.iter().zip(&expected).all(|(got, flows)| got - flows <= 1),
            "{delivered:?} {expected:?}"
        );
        assert_eq!(delivered.iter().sum::<u64>(), seen.ports[TO].counters.to_port.delivered);
    }
}

#[test]
fn pairs_that_come_and_go_under_traffic_lose_nothing() {
    for workers in [1, 2] {
        let mut talk = Talk::new(lab(2, workers));
        let mut came = BTreeMap::<(u16, u32), u32>::new();
        let mut used = [0; PAIRS as usize];
        for round in 0..60 {
            let enabled = [4, 1, 3, 2, 1][round % 5];
            // Frames are on their way while pairs go, and still enter transmitqs that are disabled.
            (0..8).for_each(|_| talk.send());
            for pair in 0..PAIRS {
                talk.to.enable(pair, pair < enabled).unwrap();
                talk.send();
                talk.from.enable(pair, pair < enabled).unwrap();
                talk.send();
            }
            let rings = talk.lab.lawful().ports[TO].rings.clone();
            let running = |odd| rings.keys().filter(|index| *index % 2 == odd).count();
            assert_eq!((running(0), running(1)), (usize::from(enabled), usize::from(PAIRS)));
            let check = patience();
            let before = used;
            while came.len() < usize::from(FLOWS) * talk.sent as usize {
                talk.take(|place, flow, number| {
                    used[place] += 1;
                    *came.entry((flow, number)).or_default() += 1;
                });
                check();
            }
            assert_ne!(used, before);
        }
        assert!(came.values().all(|times| *times == 1), "a frame came twice");
        assert!(used.iter().all(|frames| *frames > 0), "{used:?}");
        talk.lost_nothing();
    }
}

#[test]
fn a_guest_that_switches_its_queues_like_mad_hurts_nobody() {
    let lab = lab(4, 2);
    let neighbours = Pair::new(&lab, [0, 1]).start();
    let mut guest = lab.attach(2, &many());
    let mut other = lab.attach(3, &many());
    // splitmix64 (Steele, Lea, Flood 2014).
    let mut state = 28u64;
    let mut random = move |below: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) % below
    };
    for round in 0..500 {
        guest.enable(random(4) as u16, random(2) == 0).unwrap();
        if round % 50 == 0 {
            guest.share_memory_again().unwrap();
        }
        for (driver, to) in [(&mut guest, 3), (&mut other, 2)] {
            let pair = &mut driver.pairs()[random(4) as usize];
            for number in 0..8 {
                pair.transmit(&frame(mac(to), mac(5 - to), 60 + random(1400) as usize, number));
            }
            pair.flush();
            for pair in driver.pairs() {
                pair.receive(|_, _| {});
                pair.reap();
            }
        }
    }
    neighbours.flows();
    let neighbours = neighbours.stop();
    (0..PAIRS).for_each(|pair| guest.enable(pair, true).unwrap());
    let seen = lab.wait(|seen| seen.ports[2].rings.len() == 8);
    assert_eq!((seen.ports[2].counters.faults, seen.ports[2].state), (0, PortState::Up));
    neighbours.lost_nothing(&lab.lawful());
    assert!(seen.workers.iter().all(|worker| worker.panics == 0));
}

#[test]
fn one_broken_receiveq_of_several_stops_its_port_and_every_frame_has_its_fate() {
    let mut talk = Talk::new(lab(2, 1));
    // It has more buffers than it has room for (virtio 1.2 §2.7.13.3).
    let broken = talk.to.raw_ring(4).unwrap().unwrap();
    broken.set_avail_index(broken.avail_index().wrapping_add(1000));
    talk.send();
    let taken = u64::from(FLOWS) + 1;
    let seen = talk.lab.wait(|seen| {
        seen.ports[FROM].counters.from_port.frames == taken && seen.ports[TO].counters.faults == 1
    });
    assert_ne!(seen.ports[TO].state, PortState::Up);
    let seen = talk.lab.lawful();
    let to = &seen.ports[TO].counters.to_port;
    assert_eq!(to.copies, taken);
    assert!(to.dropped.values().sum::<u64>() > 0, "{to:#?}");
}
