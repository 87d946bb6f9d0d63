//! The flight recorder, by real rings in virtual time: what was dropped is found again, seconds and a million frames later.

use crate::{
    description::{access, description},
    lab::{DEADLINE, Lab, frame, mac, send},
};
use std::{
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use vhost_net_backend::{
    device::{
        Connection, PortHost,
        port::{Port, PortConfig},
        ring::RunningRing,
    },
    driver::{Config, Driver},
    layout::RingSize,
};
use vswitch_core::{
    build::{self, Addresses, Echo, Ethernet},
    clock::Instant,
    description::Link,
    drop_reason::DropReason,
    fdb::{Fdb, Target},
    firewall::connections::MIN_CAPACITY,
    id::PortId,
    mac::MacAddr,
    trace::LearnedStep,
    vlan::Tci,
    world::World,
};
use vswitchd::{
    control::protocol::{Records, RecordsWanted},
    recorder::{Event, FaultKind, Record},
    worker::{Turn, Worker},
};

/// Keeps a port's rings until they are fetched.
#[derive(Default)]
struct Shelf(Mutex<Vec<RunningRing>>);

impl PortHost for Shelf {
    fn attach(&self, _index: u16, ring: RunningRing) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(ring);
    }

    fn detach(&self, _index: u16) -> Option<RunningRing> {
        None
    }

    fn connection(&self, _state: Connection) {}
}

/// A worker whose turns a test takes, drivers at its ports, and the time that it believes in.
struct Alone {
    worker: Worker,
    ends: Vec<(Port, Driver)>,
    now: Instant,
}

impl Alone {
    /// Ports as they are linked; `change` may change the first one further. The last is never attached.
    fn new(links: &[Link], change: impl FnOnce(&mut vswitch_core::description::Port)) -> Self {
        let mut described = description(links);
        described.ports[0].as_mut().map(change).unwrap();
        let world = Arc::new(World::compile(&described).unwrap());
        let mut worker = Worker::alone(world, Arc::new(Fdb::new(1, 1 << 10)), MIN_CAPACITY).unwrap();
        let config = Config { ring_size: RingSize::new(256).unwrap(), ..Config::default() };
        let mut ends = Vec::new();
        for place in 0..links.len() as u16 - 1 {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let shelf = Arc::new(Shelf::default());
            let port = Port::adopt(ours, PortConfig::new("alone"), shelf.clone()).unwrap();
            let driver = Driver::connect(theirs, &config).unwrap();
            for ring in shelf.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                worker.attach(PortId::new(place, 0), ring);
            }
            ends.push((port, driver));
        }
        Self { worker, ends, now: Instant::ZERO }
    }

    /// Sends frames from `place` and has them all decided.
    fn send(&mut self, place: usize, frames: &[Vec<u8>]) {
        let pair = self.ends[place].1.pair();
        frames.iter().for_each(|frame| assert!(pair.transmit(frame), "the ring has room"));
        pair.flush();
        while self.worker.turn(self.now) != Turn::Idle {}
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Records of the last so many seconds.
    fn last(&self, seconds: u64) -> Vec<Record> {
        let since = self.now.as_nanos().saturating_sub(seconds * 1_000_000_000);
        self.worker.records(Instant::from_nanos(since))
    }
}

fn port(place: u16) -> PortId {
    PortId::new(place, 0)
}

fn tagged(number: u16) -> Vec<u8> {
    let link = Ethernet { src: mac(0), dst: mac(1), tag: Some(Tci::from_bits(number)) };
    build::raw(link, 0x88b5, &[0; 46])
}

#[test]
fn drops_of_each_reason_are_found_again_three_seconds_later() {
    let mut lab = Alone::new(&[access(10), access(10), access(20), access(10)], |_| {});
    lab.pass(Duration::from_secs(60));
    let group = MacAddr::new([3, 0, 0, 0, 0, 1]);
    let ping = build::echo(
        Ethernet { src: mac(2), dst: mac(0), tag: None },
        Addresses::V4([10, 0, 20, 1].into(), [10, 0, 10, 1].into()),
        Echo::Request,
        1,
        1,
        b"why?",
    );
    lab.send(0, &[tagged(20)]);
    lab.send(0, &[frame(mac(1), group, 60, 0)]);
    lab.send(1, &[frame(MacAddr::new([1, 0x80, 0xc2, 0, 0, 0]), mac(1), 60, 0)]);
    lab.send(2, std::slice::from_ref(&ping));
    // To all in VLAN 10, of whom the last one has no driver.
    lab.send(0, &[frame(MacAddr::BROADCAST, mac(0), 60, 0)]);
    lab.pass(Duration::from_secs(3));

    assert!(lab.last(2).is_empty());
    let records = lab.last(4);
    let one = |event: Event| {
        let mut found = records.iter().filter(|record| record.event == event);
        let record = *found.next().unwrap_or_else(|| panic!("no {event:?} among {records:#?}"));
        assert!(found.next().is_none(), "{event:?} twice among {records:#?}");
        assert_eq!((record.at.as_secs(), record.more, record.epoch().number()), (60, 0, 1));
        record
    };
    let dropped = |place, reason| one(Event::Dropped { port: port(place), reason });
    let tag = dropped(0, DropReason::TaggedOnAccess).frame.unwrap().tag;
    assert_eq!(tag, Some(Tci::from_bits(20)));
    assert_eq!(dropped(0, DropReason::BadSource).frame.unwrap().src, group);
    dropped(1, DropReason::ReservedMulticast);
    let pinged = dropped(2, DropReason::NoReceiver);
    assert_eq!(pinged.len as usize, ping.len());
    let note = pinged.frame.unwrap();
    assert!(note.may_be_from([10, 0, 20, 1].into()) && note.may_be_for([10, 0, 10, 1].into()));
    let lost = one(Event::Lost { port: port(0), to: port(3), reason: DropReason::PortDown });
    assert_eq!(lost.frame.unwrap().dst, MacAddr::BROADCAST);
    let lessons = |record: &&Record| matches!(record.event, Event::Learned { what: LearnedStep::New, .. });
    assert_eq!(records.iter().filter(lessons).count(), 2, "stations 0 and 2 were heard: {records:#?}");
}

#[test]
fn an_address_that_moves_and_one_that_is_not_learned_are_recorded() {
    let mut lab = Alone::new(&[access(10), access(10), access(10)], |port| port.mac_limit = 1);
    lab.send(0, &[frame(MacAddr::BROADCAST, mac(5), 60, 0)]);
    lab.send(1, &[frame(MacAddr::BROADCAST, mac(5), 60, 0)]);
    lab.send(0, &[frame(MacAddr::BROADCAST, mac(6), 60, 0)]);
    lab.send(0, &[frame(MacAddr::BROADCAST, mac(7), 60, 0)]);
    let learned: Vec<_> = lab
        .last(1)
        .iter()
        .filter_map(|record| match record.event {
            Event::Learned { port, what, .. } => Some((port.index(), record.frame?.src, what)),
            _ => None,
        })
        .collect();
    let expected = [
        (0, mac(5), LearnedStep::New),
        (1, mac(5), LearnedStep::Moved { from: Target::Port(port(0)).into() }),
        (0, mac(6), LearnedStep::New),
        (0, mac(7), LearnedStep::PortLimit),
    ];
    assert_eq!(learned, expected);
    let of_first: Vec<_> =
        lab.last(1).into_iter().filter(|record| record.event.takes_from(port(0))).collect();
    assert_eq!(of_first.len(), 1);
    assert!(of_first[0].event.concerns(port(0)) && of_first[0].event.concerns(port(1)));
}

#[test]
fn a_receiver_that_does_not_drain_loses_copies_and_each_is_told() {
    let mut lab = Alone::new(&[access(10), access(10), access(20)], |_| {});
    lab.send(1, &[frame(MacAddr::BROADCAST, mac(1), 60, 0)]);
    lab.ends[0].1.pair().receive(|_, _| {});
    let sent = 300;
    for number in 0..sent {
        lab.send(0, &[frame(mac(1), mac(0), 60, number)]);
    }
    let arrived = lab.ends[1].1.pair().receive(|_, _| {}) as u64;
    let lost: Vec<_> = lab
        .last(1)
        .into_iter()
        .filter(|record| matches!(record.event, Event::Lost { reason: DropReason::NoBuffer, .. }))
        .collect();
    assert!(lost.iter().all(|record| record.event.concerns(port(1)) && record.event.port() == Some(port(0))));
    assert_eq!(lost.len(), 16);
    assert_eq!(lost.iter().map(|record| 1 + u64::from(record.more)).sum::<u64>(), sent - arrived);
}

#[test]
fn a_million_dropped_frames_leave_what_was_recorded_before() {
    let mut lab = Alone::new(&[access(10), access(10), access(20)], |_| {});
    lab.send(1, &[frame(MacAddr::new([1, 0x80, 0xc2, 0, 0, 0]), mac(1), 60, 0)]);
    let burst = vec![tagged(20); 128];
    let bursts = 1_000_000 / burst.len() as u64 + 1;
    for _ in 0..bursts {
        lab.send(0, &burst);
        lab.pass(Duration::from_micros(100));
    }
    let records = lab.last(10);
    let told = |event| {
        let alike = records.iter().filter(|record| record.event == event);
        alike.map(|record| 1 + u64::from(record.more)).sum::<u64>()
    };
    assert_eq!(told(Event::Dropped { port: port(1), reason: DropReason::ReservedMulticast }), 1);
    let flood = told(Event::Dropped { port: port(0), reason: DropReason::TaggedOnAccess });
    assert_eq!(flood, bursts * burst.len() as u64, "each is recorded or counted");
}

/// All that a running datapath recorded at `ports` (empty: anywhere), read page by page.
fn all(lab: &Lab, ports: Vec<PortId>) -> Vec<Record> {
    let mut wanted = RecordsWanted { last_nanos: u64::MAX, ports, from: vec![] };
    let mut all = Vec::new();
    loop {
        let Records { now, whole_since, records, next } = lab.datapath.records(&wanted).unwrap();
        assert_eq!(whole_since, Instant::ZERO, "nothing was forgotten");
        assert!(records.iter().all(|record| record.at <= now));
        all.extend(records);
        match next {
            Some(next) => wanted.from = next,
            None => return all,
        }
    }
}

/// Waits until a datapath recorded this at a port.
fn wait_for(lab: &Lab, event: Event) {
    let end = std::time::Instant::now() + DEADLINE;
    while !all(lab, vec![]).iter().any(|record| record.event == event) {
        assert!(std::time::Instant::now() < end, "no {event:?} among {:#?}", all(lab, vec![]));
        std::thread::yield_now();
    }
}

#[test]
fn links_that_come_and_go_and_configurations_are_recorded() {
    let lab = Lab::new(&[access(10), access(10)]);
    let stays = lab.attach(1, &Config::default());
    drop(lab.attach(0, &Config::default()));
    wait_for(&lab, Event::Down { port: port(0) });
    let events: Vec<_> = all(&lab, vec![port(0)]).iter().map(|record| record.event).collect();
    let (up, down) = (Event::Up { port: port(0) }, Event::Down { port: port(0) });
    assert_eq!(events, [Event::Applied, up, down], "of port 0, in order");
    drop(stays);
}

#[cfg(feature = "injection")]
#[test]
fn a_panic_is_recorded_as_a_fault_and_by_the_frames_that_it_cost() {
    let lab = Lab::new(&[access(10), access(10)]);
    let mut guests: Vec<_> = (0..2).map(|place| lab.attach(place, &Config::default())).collect();
    lab.datapath.inject_panic(port(0)).unwrap();
    send(&mut guests[0], &frame(mac(1), mac(0), 60, 0));
    wait_for(&lab, Event::Faulted { port: port(0), why: FaultKind::Internal });
    wait_for(&lab, Event::Dropped { port: port(0), reason: DropReason::Internal });
}
