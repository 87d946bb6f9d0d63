//! The FDB: against a naive map, and its promises one by one. Time is an argument, so nights pass in microseconds.

use crate::support::lab::{Lab, access, mac, trunk, vlan};
use proptest::prelude::*;
use std::collections::BTreeMap;
use vswitch_core::{
    clock::Instant,
    fdb::{Fdb, Key, Learned, Refusal, Target},
    id::{PortId, SwitchId},
    mac::MacAddr,
    vlan::VlanId,
    world::World,
};

const SW: SwitchId = SwitchId::new(0);

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

fn three_ports() -> Lab {
    Lab::new().switch("sw1").port("a", 0, access(10)).port("b", 0, access(10)).port(
        "c",
        0,
        trunk(&[10, 20], None),
    )
}

fn learn(fdb: &Fdb, world: &World, port: u16, mac: MacAddr, now: Instant) -> Learned {
    let port = world.port(port).expect("the port exists");
    fdb.learn(Key::new(SW, vlan(10), mac), Target::Port(port.id), port, now)
}

#[test]
fn a_night_of_ageing() {
    let bench = three_ports().bench();
    let (fdb, world) = (&bench.fdb, &bench.world);
    let key = Key::new(SW, vlan(10), mac(1));
    assert_eq!(learn(fdb, world, 0, mac(1), at(0)), Learned::New);
    for hour in 0..8 {
        assert_eq!(learn(fdb, world, 0, mac(1), at(hour * 300)), Learned::Known, "seen again just in time");
    }
    assert!(fdb.lookup(world, key, at(7 * 300 + 300)).is_some());
    assert_eq!(fdb.lookup(world, key, at(7 * 300 + 301)), None);
    assert_eq!(fdb.counts(at(8 * 3600)).entries, 0);
    assert_eq!(
        learn(fdb, world, 1, mac(1), at(8 * 3600)),
        Learned::New,
        "an aged entry did not move: it was absent"
    );
}

#[test]
fn a_port_at_its_cap_learns_nothing_and_takes_nobodys_room() {
    let mut lab = three_ports();
    lab.description.ports[0].as_mut().unwrap().mac_limit = 3;
    let bench = lab.bench();
    let (fdb, world) = (&bench.fdb, &bench.world);
    assert_eq!(learn(fdb, world, 1, mac(200), at(0)), Learned::New);
    for n in 1..=3 {
        assert_eq!(learn(fdb, world, 0, mac(n), at(0)), Learned::New);
    }
    for n in 4..=100 {
        assert_eq!(learn(fdb, world, 0, mac(n), at(0)), Learned::Refused(Refusal::PortLimit));
    }
    let capped = learn(fdb, world, 0, mac(200), at(0));
    assert_eq!(capped, Learned::Refused(Refusal::PortLimit), "nor may it take an address by a move");
    assert!(fdb.lookup(world, Key::new(SW, vlan(10), mac(200)), at(0)).is_some());
    assert_eq!(fdb.counts(at(0)).refused, 98);
    // What is aged only counts until it is swept, a few buckets at a time.
    (0..64).for_each(|_| fdb.sweep(at(301), 16));
    assert_eq!(learn(fdb, world, 0, mac(50), at(301)), Learned::New);
}

#[test]
fn moves_are_counted_and_caps_follow() {
    let mut lab = three_ports();
    lab.description.ports[0].as_mut().unwrap().mac_limit = 1;
    let bench = lab.bench();
    let (fdb, world) = (&bench.fdb, &bench.world);
    assert_eq!(learn(fdb, world, 0, mac(1), at(0)), Learned::New);
    assert_eq!(learn(fdb, world, 1, mac(1), at(1)), moved_from(0));
    assert_eq!(learn(fdb, world, 0, mac(2), at(1)), Learned::New, "the move gave the room back");
    assert_eq!(fdb.counts(at(1)).moves, 1);
}

#[test]
fn a_stated_address_wins_over_every_frame() {
    let mut lab = three_ports();
    lab.description.ports[0].as_mut().unwrap().mac = Some(mac(1));
    let bench = lab.bench();
    let (fdb, world) = (&bench.fdb, &bench.world);
    let owner = Some(Target::Port(PortId::new(0, 0)));
    assert_eq!(learn(fdb, world, 1, mac(1), at(0)), Learned::Refused(Refusal::Static));
    assert_eq!(learn(fdb, world, 0, mac(1), at(0)), Learned::Known);
    assert_eq!(fdb.lookup(world, Key::new(SW, vlan(10), mac(1)), at(1_000_000)), owner);
    assert_eq!(fdb.counts(at(0)).refused, 1);
}

#[test]
fn a_stated_address_moves_between_the_interfaces_of_its_node_and_nowhere_else() {
    let mut lab = three_ports();
    // Two interfaces of one node, as a guest has that bonds them.
    for (place, address) in [(0, mac(1)), (1, mac(2))] {
        let port = lab.description.ports[place].as_mut().unwrap();
        (port.node, port.mac) = ("pair".into(), Some(address));
    }
    let bench = lab.bench();
    let (fdb, world) = (&bench.fdb, &bench.world);
    let place = |now| fdb.lookup(world, Key::new(SW, vlan(10), mac(1)), now);
    for (port, from) in [(1, 0), (0, 1), (1, 0)] {
        assert_eq!(learn(fdb, world, port, mac(1), at(0)), moved_from(from));
        assert_eq!(learn(fdb, world, port, mac(1), at(0)), Learned::Known);
        assert_eq!(learn(fdb, world, 2, mac(1), at(0)), Learned::Refused(Refusal::Static));
    }
    assert_eq!(place(at(1_000_000)), Some(Target::Port(PortId::new(1, 0))), "it does not age there");
    fdb.install(world);
    assert_eq!(place(at(0)), Some(Target::Port(PortId::new(0, 0))), "until the World is installed anew");
}

#[test]
fn a_new_world_forgets_what_is_no_more() {
    let mut lab = three_ports();
    lab.description.ports[0].as_mut().unwrap().mac = Some(mac(9));
    let bench = lab.bench();
    let (fdb, old) = (&bench.fdb, &bench.world);
    for (port, station) in [(0, 1), (1, 2), (2, 3)] {
        learn(fdb, old, port, mac(station), at(0));
    }
    // a is another port now, and has no stated address; b is down; c stays.
    let a = lab.description.ports[0].as_mut().unwrap();
    (a.id, a.mac) = (PortId::new(0, 1), None);
    lab.description.ports[1].as_mut().unwrap().up = false;
    let new = World::compile(&lab.description).unwrap();
    assert_eq!(
        fdb.lookup(&new, Key::new(SW, vlan(10), mac(1)), at(0)),
        None,
        "stale even before the install"
    );
    fdb.install(&new);
    let left: Vec<MacAddr> = fdb.rows(&new, at(0)).map(|row| row.mac).collect();
    assert_eq!(left, [mac(3)]);
    // The old ports' counts are gone with them: the new port has its whole cap.
    let port = new.port(0).unwrap();
    for n in 0..250 {
        let key = Key::new(SW, vlan(10), MacAddr::new([2, 1, 0, 0, 0, n]));
        assert_eq!(fdb.learn(key, Target::Port(port.id), port, at(0)), Learned::New);
    }
}

#[test]
fn a_port_that_left_the_vlan_gets_none_of_its_frames() {
    let mut lab = three_ports();
    let bench = lab.bench();
    learn(&bench.fdb, &bench.world, 0, mac(1), at(0));
    let vswitch_core::description::Link::Switch { vlans, .. } =
        &mut lab.description.ports[0].as_mut().unwrap().link
    else {
        panic!("it is linked to a switch");
    };
    *vlans = access(20);
    let new = World::compile(&lab.description).unwrap();
    assert_eq!(bench.fdb.lookup(&new, Key::new(SW, vlan(10), mac(1)), at(0)), None);
}

#[test]
fn a_full_bucket_takes_the_aged_first_and_evicts_nobody() {
    let world = World::compile(&three_ports().description).unwrap();
    let fdb = Fdb::new(1, 1);
    fdb.install(&world);
    for n in 1..=4 {
        assert_eq!(learn(&fdb, &world, 0, mac(n), at(n.into())), Learned::New);
    }
    assert_eq!(learn(&fdb, &world, 1, mac(5), at(301)), Learned::Refused(Refusal::TableFull));
    assert_eq!(learn(&fdb, &world, 1, mac(5), at(302)), Learned::New, "the first of them is aged now");
    assert_eq!(fdb.lookup(&world, Key::new(SW, vlan(10), mac(1)), at(302)), None);
    assert!(fdb.lookup(&world, Key::new(SW, vlan(10), mac(2)), at(302)).is_some());
}

#[test]
fn vlans_learn_apart() {
    let bench = three_ports().bench();
    learn(&bench.fdb, &bench.world, 2, mac(1), at(0));
    assert_eq!(bench.fdb.lookup(&bench.world, Key::new(SW, vlan(20), mac(1)), at(0)), None);
}

#[test]
fn two_instances_place_addresses_apart() {
    // With one seed, addresses can be found that share a bucket; with another they must not.
    let world = World::compile(&three_ports().description).unwrap();
    let refused = |seed: u64, macs: &[MacAddr]| -> Vec<MacAddr> {
        let fdb = Fdb::new(seed, 16);
        fdb.install(&world);
        let is_refused = |mac: &&MacAddr| matches!(learn(&fdb, &world, 0, **mac, at(0)), Learned::Refused(_));
        macs.iter().filter(is_refused).copied().collect()
    };
    let many: Vec<MacAddr> = (0..200u8).map(mac).filter(|mac| !mac.is_zero()).collect();
    assert_ne!(refused(1, &many), refused(2, &many));
}

/// Four threads move, refresh and look up few addresses in one bucket: a reader only ever gets a port on which that
/// very address was seen.
#[test]
fn readers_never_see_an_address_on_anothers_port() {
    let lab = (0..8).fold(Lab::new().switch("sw1"), |lab, n| lab.port(&format!("p{n}"), 0, access(10)));
    let world = World::compile(&lab.description).unwrap();
    let fdb = Fdb::new(3, 1);
    fdb.install(&world);
    std::thread::scope(|scope| {
        for thread in 0..4u16 {
            let (fdb, world) = (&fdb, &world);
            scope.spawn(move || {
                for round in 0..20_000u64 {
                    // Six addresses, two ports each, in four slots: entries age in each round and are replaced.
                    let n = (round % 6) as u16;
                    let port = (n % 4) * 2 + (thread & 1);
                    learn(fdb, world, port, mac(n as u8 + 1), at(round * 301));
                    let key = Key::new(SW, vlan(10), mac(n as u8 + 1));
                    if let Some(Target::Port(id)) = fdb.lookup(world, key, at(round * 301)) {
                        assert_eq!(id.index() / 2, n % 4);
                    }
                }
            });
        }
    });
}

fn moved_from(place: u16) -> Learned {
    Learned::Moved { from: Target::Port(PortId::new(place, 0)).into() }
}

/// What the FDB must be like, without slots, hashes or words.
#[derive(Default)]
struct Model(BTreeMap<(VlanId, MacAddr), (u16, u64)>);

impl Model {
    fn learn(&mut self, key: (VlanId, MacAddr), port: u16, now: u64) -> Learned {
        match self.0.insert(key, (port, now)) {
            Some((_, seen)) if now - seen > 300 => Learned::New,
            Some((old, _)) if old == port => Learned::Known,
            Some((old, _)) => moved_from(old),
            None => Learned::New,
        }
    }

    fn lookup(&self, key: (VlanId, MacAddr), now: u64) -> Option<u16> {
        self.0.get(&key).filter(|(_, seen)| now - seen <= 300).map(|(port, _)| *port)
    }
}

proptest! {
    #[test]
    fn it_is_a_map_that_forgets(
        seed: u64,
        acts in proptest::collection::vec((0u8..12, 0u16..3, any::<bool>(), 0u64..120, 0usize..2000), 1..300),
    ) {
        let lab = (0..3).fold(Lab::new().switch("sw1"), |lab, n| lab.port(&format!("p{n}"), 0, trunk(&[10, 20], None)));
        let world = World::compile(&lab.description).unwrap();
        let (fdb, mut model, mut now) = (Fdb::new(seed, 1024), Model::default(), 0);
        fdb.install(&world);
        for (station, port, first, pause, sweep) in acts {
            now += pause;
            fdb.sweep(at(now), sweep);
            let id = if first { vlan(10) } else { vlan(20) };
            let port = world.port(port).unwrap();
            let learned = fdb.learn(Key::new(SW, id, mac(station + 1)), Target::Port(port.id), port, at(now));
            prop_assert_eq!(learned, model.learn((id, mac(station + 1)), port.id.index(), now));
            for n in 1..=12 {
                let found = fdb.lookup(&world, Key::new(SW, vlan(10), mac(n)), at(now));
                let expected = model.lookup((vlan(10), mac(n)), now);
                prop_assert_eq!(found, expected.map(|port| Target::Port(PortId::new(port, 0))));
            }
        }
    }
}
