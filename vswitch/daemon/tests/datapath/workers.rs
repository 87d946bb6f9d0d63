//! Several workers deliver what one delivers: the same frames to the same guests, in the order in which each guest sent them.

use crate::{
    description::description,
    lab::{Lab, access, frame, mac, receive, send, trunk},
    tags::tagged,
    traffic::Pair,
};
use std::collections::BTreeMap;
use vhost_net_backend::driver::{Config, Driver};
use vswitch_core::{description::Link, mac::MacAddr};
use vswitchd::{
    control::protocol::{DatapathSettings, PortCounters, Snapshot, Watch},
    datapath::Datapath,
};

/// The ports of the recorded mix: four in VLAN 10, two in VLAN 20, and a trunk of both whose native VLAN is 10.
const TRUNK: usize = 6;

fn links() -> Vec<Link> {
    let accesses = [10, 10, 10, 10, 20, 20].map(access);
    accesses.into_iter().chain([trunk(Some(10))]).collect()
}

/// Frames that each guest sends before all receive: what it may get of them fits its 256 buffers.
const BURST: usize = 40;
const ROUNDS: usize = 50;

/// What every guest sends, round by round: decided once, the same for each run.
fn recorded_mix() -> Vec<Vec<Vec<Vec<u8>>>> {
    // splitmix64 (Steele, Lea, Flood 2014).
    let mut state = 0u64;
    let mut random = move |below: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) % below
    };
    let mut number = 0;
    let mut one = |from: usize| {
        number += 1;
        let dst = match random(8) {
            // Known, also in the other VLAN, where it is unknown.
            0..=4 => mac(random(TRUNK as u64 + 1) as usize),
            5 => MacAddr::BROADCAST,
            // Never learned: floods.
            6 => mac(100),
            // A reserved address: dropped (IEEE 802.1Q-2018 §8.6.3).
            _ => MacAddr::new([0x01, 0x80, 0xc2, 0, 0, 0]),
        };
        let len = if random(10) == 0 { 1000 + random(500) } else { 60 + random(100) } as usize;
        let plain = frame(dst, mac(from), len, number);
        match random(10) {
            // Welcome on the trunk, dropped on an access port.
            0 => tagged(plain, Some(20)),
            1 => tagged(plain, Some(10)),
            // Nobody's VLAN.
            2 => tagged(plain, Some(30)),
            _ => plain,
        }
    };
    let mut burst = |from| (0..BURST).map(|_| one(from)).collect();
    (0..ROUNDS).map(|_| (0..=TRUNK).map(&mut burst).collect()).collect()
}

/// The frames that each guest received, by the port of whoever sent them.
type Received = BTreeMap<(usize, usize), Vec<Vec<u8>>>;

/// Runs the mix through so many workers: what arrived, and what was counted of each port.
fn run(workers: u16, mix: &[Vec<Vec<Vec<u8>>>]) -> (Received, Vec<PortCounters>) {
    let lab = Lab::with_workers(&description(&links()), workers);
    let mut guests: Vec<Driver> = (0..=TRUNK).map(|place| lab.attach(place, &Config::default())).collect();
    // Each station is known in each of its VLANs: what a frame finds does not depend on who was decided first.
    let mut hellos = [0; TRUNK + 1];
    for (place, tci) in (0..=TRUNK).map(|place| (place, None)).chain([(TRUNK, Some(20))]) {
        send(&mut guests[place], &tagged(frame(MacAddr::BROADCAST, mac(place), 60, 0), tci));
        hellos[place] += 1;
        lab.wait(|seen| seen.ports[place].counters.from_port.frames == hellos[place]);
    }
    let mut received = Received::new();
    let mut take = |guests: &mut [Driver]| {
        for (to, guest) in guests.iter_mut().enumerate() {
            guest.pair().receive(|_, frame| {
                let from = usize::from(frame[11]) - 1;
                received.entry((to, from)).or_default().push(frame.to_vec());
            });
        }
    };
    for (round, bursts) in mix.iter().enumerate() {
        for (guest, burst) in guests.iter_mut().zip(bursts) {
            burst.iter().for_each(|frame| assert!(guest.pair().transmit(frame), "the ring is full"));
            guest.pair().flush();
        }
        let sent = (round as u64 + 1) * BURST as u64;
        let taken = |seen: &Snapshot| {
            seen.ports
                .iter()
                .zip(hellos)
                .all(|(port, hellos)| port.counters.from_port.frames == hellos + sent)
        };
        lab.wait(taken);
        take(&mut guests);
    }
    let end = lab.lawful();
    assert_eq!(end.workers.len(), usize::from(workers));
    assert!(end.workers.iter().all(|worker| worker.frames > 0 && worker.panics == 0), "{:#?}", end.workers);
    spread_evenly(&end);
    (received, end.ports.into_iter().map(|port| port.counters).collect())
}

/// Each worker serves as many transmitqs as the others, give or take one.
fn spread_evenly(seen: &Snapshot) {
    let counts = || seen.workers.iter().map(|worker| worker.rings);
    assert!(counts().max() <= counts().min().map(|fewest| fewest + 1), "{:#?}", seen.workers);
}

#[test]
fn a_recorded_mix_goes_through_two_and_three_workers_as_through_one() {
    let mix = recorded_mix();
    let (expected, counted) = run(1, &mix);
    assert!(counted.iter().all(|port| port.from_port.unicast > 0 && port.from_port.flooded > 0));
    let drops: u64 = counted.iter().flat_map(|port| port.from_port.dropped.values()).sum();
    assert!(drops > 0, "the mix holds frames that are dropped");
    assert!(counted.iter().all(|port| port.to_port.dropped.is_empty()), "every copy found its buffer");
    for workers in [2, 3] {
        let (received, counters) = run(workers, &mix);
        for (flow, frames) in &expected {
            let same = received.get(flow).is_some_and(|got| got == frames);
            assert!(same, "{workers} workers: what {} heard of {} is otherwise", flow.0, flow.1);
        }
        assert_eq!(received.len(), expected.len(), "{workers} workers: nobody heard of others");
        assert_eq!(counters, counted, "{workers} workers");
    }
}

#[test]
fn rings_move_between_workers_under_traffic_and_lose_nothing() {
    const OTHERS: std::ops::Range<usize> = 2..8;
    const STORMS: usize = 8;
    let lab = Lab::with_workers(&description(&vec![access(10); OTHERS.end]), 2);
    let neighbours = Pair::new(&lab, [0, 1]).start();
    for storm in 0..STORMS {
        let mut others: BTreeMap<usize, Driver> =
            OTHERS.map(|place| (place, lab.attach(place, &Config::default()))).collect();
        spread_evenly(&lab.lawful());
        for (place, other) in &mut others {
            send(other, &frame(mac(0), mac(*place), 60, storm as u64));
        }
        // Rings were given out in turn, so these were all at one worker, which gets some of the other's.
        for place in OTHERS.filter(|place| place % 2 == storm % 2) {
            others.remove(&place);
            lab.wait(|seen| seen.ports[place].rings.is_empty());
        }
        let fewer = lab.lawful();
        spread_evenly(&fewer);
        assert_eq!(fewer.workers.iter().map(|worker| worker.rings).sum::<u16>(), 2 + OTHERS.len() as u16 / 2);
        drop(others);
        lab.wait(|seen| OTHERS.into_iter().all(|place| seen.ports[place].rings.is_empty()));
        neighbours.flows();
    }
    let neighbours = neighbours.stop();
    let end = lab.lawful();
    neighbours.lost_nothing(&end);
    assert!(end.workers.iter().all(|worker| worker.frames > 0 && worker.panics == 0), "{:#?}", end.workers);
}

#[test]
fn a_watch_sees_what_any_worker_moves_oldest_first() {
    let mut lab = Lab::with_workers(&description(&vec![access(10); 3]), 3);
    let mut guests: Vec<Driver> = (0..3).map(|place| lab.attach(place, &Config::default())).collect();
    let watch = lab.datapath.watch(&Watch { dst: Some(MacAddr::BROADCAST), ..Watch::default() }).unwrap();
    for round in 0..30 {
        let from = round % 3;
        let sent = frame(MacAddr::BROADCAST, mac(from), 60, round as u64);
        send(&mut guests[from], &sent);
        for to in (0..3).filter(|to| *to != from) {
            assert_eq!(receive(&mut guests[to], 1), std::slice::from_ref(&sent));
        }
    }
    let (sightings, lost) = lab.datapath.sightings(watch, true).unwrap();
    let ports: Vec<u16> = sightings.iter().map(|sighting| sighting.port.index()).collect();
    assert_eq!((ports, lost), ((0..30).map(|round| round % 3).collect(), 0));
    assert!(lab.datapath.sightings(watch, true).is_err(), "the watch is gone at every worker");
}

#[test]
fn the_cpu_of_a_worker_is_told_only_where_it_was_really_set() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let first = (0..1024u16).find(|cpu| allowed.is_set(usize::from(*cpu))).unwrap();
    let mut datapath = Datapath::new();
    // The last that a file can name, beyond what a set of CPUs holds, and one that no machine of today has.
    let settings =
        DatapathSettings { workers: 3, cpus: vec![first, 4095, 1023], ..DatapathSettings::default() };
    datapath.apply(&description(&[access(10)]), vec![], vec![], settings).unwrap();
    let cpus: Vec<_> = datapath.snapshot().unwrap().workers.iter().map(|worker| worker.cpu).collect();
    assert_eq!(cpus, [Some(first), None, None]);
}

#[test]
fn as_many_workers_as_there_may_be_deliver_and_one_more_is_refused() {
    let description = description(&[access(10), access(10)]);
    let lab = Lab::with_workers(&description, 64);
    let mut guests: Vec<Driver> = (0..2).map(|place| lab.attach(place, &Config::default())).collect();
    let sent = frame(mac(1), mac(0), 60, 1);
    send(&mut guests[0], &sent);
    assert_eq!(receive(&mut guests[1], 1), [sent]);
    let refused = |workers, cpus| {
        let settings = DatapathSettings { workers, cpus, ..DatapathSettings::default() };
        Datapath::new().apply(&description, vec![], vec![], settings).unwrap_err().to_string()
    };
    assert_eq!(refused(65, vec![]), "a datapath has 1 to 64 workers, not 65");
    assert_eq!(refused(0, vec![]), "a datapath has 1 to 64 workers, not 0");
    assert_eq!(refused(2, vec![0]), "workers are pinned to a CPU each, or not at all: 2 workers, CPUs [0]");
}
