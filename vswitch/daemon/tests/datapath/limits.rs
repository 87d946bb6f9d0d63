//! Limits of interfaces from driver to driver, by a clock that the test drives.

use crate::{
    description::{access, description, vlan},
    rig::Rig,
};
use std::num::NonZeroU64;
use vhost_net_backend::driver::Config;
use vswitch_core::{
    build::{self, Ethernet},
    description::{Description, Limits, Origin, Rates, Storm},
    drop_reason::DropReason,
    id::PortId,
    mac::MacAddr,
};
use vswitchd::control::protocol::PortCounters;

/// The limited port, its neighbour, and to whom they send.
const LIMITED: usize = 0;
const NEIGHBOUR: usize = 1;
const SERVERS: [usize; 2] = [2, 3];

/// Bytes of each frame.
const LEN: usize = 1000;

/// Frames that each sends in a turn, which takes a tenth of a millisecond: 1.28 Gbit/s.
const BATCH: usize = 16;
const TURN_NANOS: u64 = 100_000;

fn station(place: usize) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, place as u8 + 1])
}

/// Four ports of one VLAN, of which one is limited.
fn lab(place: usize, egress: Rates, ingress: Rates) -> Description {
    let mut lab = description(&[access(10), access(10), access(10), access(10)]);
    lab.ports[place].as_mut().unwrap().limits = Some(Limits {
        egress,
        ingress,
        storm: Storm { broadcast: NonZeroU64::new(100), ..Storm::default() },
        drops_other_macs: false,
        sticky_macs: false,
        origin: Origin { line: 1, column: 1 },
    });
    lab
}

fn rig(lab: &Description) -> Rig {
    let mut rig = Rig::new(lab, &Config::default());
    (0..4).for_each(|place| rig.teach(place as u16, vlan(10), station(place)));
    rig
}

/// A second in which both senders send all that they can, each to a server of its own, which takes all.
fn second(rig: &mut Rig) {
    for _ in 0..1_000_000_000 / TURN_NANOS {
        for (from, to) in [(LIMITED, SERVERS[0]), (NEIGHBOUR, SERVERS[1])] {
            let link = Ethernet { src: station(from), dst: station(to), tag: None };
            let frame = build::raw(link, 0x88b5, &[0; LEN - 14]);
            let pair = &mut rig.guests[from].pair;
            (0..BATCH).for_each(|_| assert!(pair.transmit(&frame), "the ring has room"));
            pair.flush();
        }
        rig.turns_after(TURN_NANOS);
        rig.guests.iter_mut().for_each(|guest| {
            guest.pair.receive(|_, _| {});
        });
    }
}

fn counters(rig: &Rig, place: usize) -> PortCounters {
    rig.worker.counters(PortId::new(place as u16, 0)).expect("it is there")
}

/// What is delivered to the two servers in one second, after one in which a burst may have passed.
fn delivered(rig: &mut Rig) -> [u64; 2] {
    second(rig);
    let now = |rig: &Rig| SERVERS.map(|place| counters(rig, place).to_port.delivered);
    let before = now(rig);
    second(rig);
    let after = now(rig);
    [after[0] - before[0], after[1] - before[1]]
}

/// All that the neighbour sends in a second.
const ALL: u64 = (1_000_000_000 / TURN_NANOS) * BATCH as u64;

fn is_within_two_percent(is: u64, wanted: u64) {
    assert!(is.abs_diff(wanted) * 50 <= wanted, "{is} are not {wanted}");
}

fn bits(rate: u64) -> Rates {
    Rates { bits: NonZeroU64::new(rate), burst_micros: 100_000, ..Rates::default() }
}

#[test]
fn a_limited_sender_gets_its_rate_and_its_neighbour_all_that_there_is() {
    for rate in [10_000_000, 100_000_000, 1_000_000_000] {
        let mut rig = rig(&lab(LIMITED, bits(rate), Rates::default()));
        let [limited, neighbour] = delivered(&mut rig);
        is_within_two_percent(limited, rate / 8 / LEN as u64);
        assert_eq!(neighbour, ALL);
        let from = counters(&rig, LIMITED).from_port;
        assert_eq!(from.frames, from.unicast + from.dropped[&DropReason::BitRateEgress]);
        assert_eq!(counters(&rig, NEIGHBOUR).from_port.dropped.len(), 0);
    }
}

#[test]
fn a_limited_receiver_gets_its_rate_and_its_neighbour_all_that_there_is() {
    let rates = Rates { frames: NonZeroU64::new(5000), burst_micros: 10_000, ..Rates::default() };
    let mut rig = rig(&lab(SERVERS[0], Rates::default(), rates));
    let [limited, neighbour] = delivered(&mut rig);
    is_within_two_percent(limited, 5000);
    assert_eq!(neighbour, ALL);
    let to = counters(&rig, SERVERS[0]).to_port;
    assert_eq!(to.copies, to.delivered + to.dropped[&DropReason::FrameRateIngress]);
    assert_eq!(
        counters(&rig, LIMITED).from_port.unicast,
        2 * ALL,
        "its frames are sent, the copies are lost"
    );
}

#[test]
fn a_storm_is_cut_at_its_door() {
    let mut rig = rig(&lab(LIMITED, Rates::default(), Rates::default()));
    let link = Ethernet { src: station(LIMITED), dst: MacAddr::BROADCAST, tag: None };
    let frame = build::raw(link, 0x88b5, &[0; 46]);
    for _ in 0..100 {
        let pair = &mut rig.guests[LIMITED].pair;
        (0..BATCH).for_each(|_| assert!(pair.transmit(&frame), "the ring has room"));
        pair.flush();
        rig.turns();
        rig.guests.iter_mut().for_each(|guest| {
            guest.pair.receive(|_, _| {});
        });
    }
    let from = counters(&rig, LIMITED).from_port;
    let sent = 100 * BATCH as u64;
    assert_eq!(
        (from.flooded, from.flood_copies),
        (100, 300),
        "what may come at once, in a tenth of a millisecond"
    );
    assert_eq!(from.dropped[&DropReason::StormBroadcast], sent - 100);
    assert_eq!(counters(&rig, NEIGHBOUR).to_port.delivered, 100);
    vswitchd::counters::check_law(&[0, 1, 2, 3].map(|place| counters(&rig, place))).unwrap();
}

#[test]
fn what_a_limit_dropped_is_recorded_with_its_reason() {
    let mut rig = rig(&lab(LIMITED, bits(1_000_000), Rates::default()));
    second(&mut rig);
    let records = rig.worker.records(vswitch_core::clock::Instant::ZERO);
    let dropped = vswitchd::recorder::Event::Dropped {
        port: PortId::new(LIMITED as u16, 0),
        reason: DropReason::BitRateEgress,
    };
    let told: u64 = records
        .iter()
        .filter(|record| record.event == dropped)
        .map(|record| 1 + u64::from(record.more))
        .sum();
    assert!(told > 0 && told <= counters(&rig, LIMITED).from_port.dropped[&DropReason::BitRateEgress]);
}
