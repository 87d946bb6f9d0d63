//! The FDB at scale: a million addresses, memory that follows what is there, and workers that notice nothing.

use crate::support::lab::{Lab, access, vlan};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};
use vswitch_core::{
    clock::Instant,
    fdb::{Fdb, Key, Learned, Refusal, Target},
    id::{PortId, SwitchId},
    mac::MacAddr,
    world::World,
};

/// How long a thread may wait for its CPU.
const PATIENCE: Duration = Duration::from_secs(60);
const MILLION: u32 = 1_000_000;
const NOW: Instant = Instant::ZERO;
/// Buckets that the datapath starts with.
const FIRST: usize = 1 << 14;

/// Addresses without order: a bijection of 32 bits, and no pattern in the low ones.
fn station(n: u32) -> MacAddr {
    let [a, b, c, d] = (n.wrapping_mul(0x9e37_79b1) ^ 0x5bd1_e995).to_be_bytes();
    MacAddr::new([2, n as u8, a, b, c, d])
}

fn key(n: u32) -> Key {
    Key::new(SwitchId::new(0), vlan(10), station(n))
}

fn world(mac_limit: u32) -> World {
    let mut lab = Lab::new().switch("sw1").port("a", 0, access(10)).port("b", 0, access(10));
    for port in lab.description.ports.iter_mut().flatten() {
        port.mac_limit = mac_limit;
    }
    World::compile(&lab.description).unwrap()
}

fn learn(fdb: &Fdb, world: &World, port: u16, n: u32) -> Learned {
    let port = world.port(port).unwrap();
    fdb.learn(key(n), Target::Port(port.id), port, NOW)
}

/// Learns, and grows the table when it should; whether there was room.
fn learn_growing(fdb: &Fdb, world: &World, port: u16, n: u32) -> bool {
    let learned = learn(fdb, world, port, n);
    fdb.grow();
    assert!(matches!(learned, Learned::New | Learned::Refused(Refusal::TableFull)), "{learned:?}");
    learned == Learned::New
}

#[test]
fn of_a_million_addresses_at_most_one_in_ten_thousand_is_refused() {
    let world = world(u32::MAX);
    let fdb = Fdb::new(7, FIRST);
    fdb.install(&world);
    let refused = (0..MILLION).filter(|n| !learn_growing(&fdb, &world, 0, *n)).count();
    assert!(refused <= MILLION as usize / 10_000, "{refused} refused");
    let counts = fdb.counts(NOW);
    assert_eq!((counts.entries + counts.refused, counts.refused), (MILLION.into(), refused as u64));
    let there = Some(Target::Port(world.port(0).unwrap().id));
    let found = (0..MILLION).filter(|n| fdb.lookup(&world, key(*n), NOW) == there).count();
    assert_eq!(found as u64, counts.entries, "growing lost none");
    assert_eq!(fdb.lookup(&world, key(MILLION), NOW), None);
    // Nobody sends any more: it all goes again, and the port has its whole cap.
    let night = Instant::from_nanos(301_000_000_000);
    fdb.sweep(night, usize::MAX);
    assert_eq!(fdb.rows(&world, NOW).count(), 0);
}

#[test]
fn a_table_grows_when_it_is_half_full_and_not_before() {
    let world = world(u32::MAX);
    let fdb = Fdb::new(7, FIRST);
    fdb.install(&world);
    let mut stations = 0..MILLION;
    for held in 1..=2 * FIRST as u32 + 1 {
        assert!(!fdb.grow() && !fdb.is_cold(), "{held}: half full is not more than half full");
        while learn(&fdb, &world, 0, stations.next().unwrap()) != Learned::New {}
    }
    assert!(fdb.grow() && fdb.is_cold());
    assert!(!fdb.grow(), "it has eight times the room now");
}

#[test]
fn the_cap_of_a_port_holds_across_growth() {
    const LIMIT: u32 = 80_000;
    let world = world(LIMIT);
    let fdb = Fdb::new(7, FIRST);
    fdb.install(&world);
    let mut stations = 0..MILLION;
    let mut next = || stations.next().unwrap();
    for _ in 0..LIMIT {
        while !learn_growing(&fdb, &world, 0, next()) {}
    }
    assert!(fdb.is_cold());
    let late = next();
    assert_eq!(learn(&fdb, &world, 0, late), Learned::Refused(Refusal::PortLimit));
    assert_eq!(learn(&fdb, &world, 1, 0), Learned::Moved { from: Target::Port(PortId::new(0, 0)).into() });
    assert_eq!(learn(&fdb, &world, 0, late), Learned::New, "the move gave the room back");
}

#[test]
fn whoever_grows_the_table_is_woken_when_it_is_crowded() {
    let world = world(u32::MAX);
    let fdb = Fdb::new(7, FIRST);
    fdb.install(&world);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let grower = scope.spawn(|| {
            // Twice, each from a wake-up: `park` may also return for no reason.
            for _ in 0..2 {
                while !fdb.grow() && !over.load(Ordering::Acquire) {
                    thread::park();
                }
            }
        });
        fdb.wake_to_grow(grower.thread().clone());
        // For as long as the grower waits for a CPU.
        let (mut n, end) = (0, std::time::Instant::now() + PATIENCE);
        while !grower.is_finished() {
            if std::time::Instant::now() > end {
                over.store(true, Ordering::Release);
                grower.thread().unpark();
                panic!("nobody was woken");
            }
            learn(&fdb, &world, 0, n);
            n += 1;
        }
    });
}

/// Two workers learn, move and look up while the table grows twice under them: what was known stays known, and where
/// it was put.
#[test]
fn workers_lose_nothing_to_growth() {
    const KNOWN: u32 = 1000;
    const MANY: u64 = 280_000;
    let world = world(u32::MAX);
    let fdb = Fdb::new(7, FIRST);
    fdb.install(&world);
    (0..KNOWN).for_each(|n| assert!(learn_growing(&fdb, &world, (n % 2) as u16, n)));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in KNOWN..MANY as u32 {
                while learn(&fdb, &world, 0, n) == Learned::Refused(Refusal::Busy) {
                    thread::yield_now();
                }
                fdb.grow();
            }
            done.store(true, Ordering::Release);
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                for n in 0..KNOWN {
                    let port = (n % 2) as u16;
                    let there = Some(Target::Port(world.port(port).unwrap().id));
                    assert_eq!(fdb.lookup(&world, key(n), NOW), there);
                    assert_eq!(learn(&fdb, &world, port, n), Learned::Known);
                }
            }
        });
    });
    assert!(fdb.is_cold());
    let counts = fdb.counts(NOW);
    assert_eq!(counts.entries + counts.refused, MANY);
}
