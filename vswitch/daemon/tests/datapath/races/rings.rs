//! Rings that are rewritten at random while the switch serves them: descriptors, avail rings, used rings, event indices, tables.
//! The guest is stopped, with the ring's name and what was wrong, or served; whatever it gets, its neighbours lose and notice nothing.

use super::{ATTACKER, BURST, offer_burst};
use crate::{
    lab::{access, description, frame, mac, vlan},
    rig::Rig,
};
use vhost_net_backend::{
    device::fault::PortFault,
    driver::{Config, Descriptor, misbehave::Flipper},
    layout::DESC_INDIRECT,
    net_header,
};
use vswitch_core::mac::MacAddr;

/// Labs, in each of which the attacker begins anew.
const LABS: u64 = 30;

/// Turns in each.
const TURNS: u64 = 100;

/// Frames that each of two neighbours sends the other in a turn.
const EACH: u64 = 8;

/// The neighbours, by their places.
const NEIGHBOURS: [usize; 2] = [1, 2];

/// What the attacker calls itself: far from a neighbour's address, which a few bytes at random shall not become. Who may send as whom
/// is not the matter here.
const OWN: MacAddr = MacAddr::new([6; 6]);

fn numbered(from: usize, to: usize, number: u64) -> Vec<u8> {
    frame(mac(to), mac(from), 60 + (number % 1000) as usize, number)
}

/// The attacker's frames, for its neighbours and for nobody in particular, half of them behind tables; and its own buffers posted.
fn prepare(rig: &Rig) {
    let ring = rig.guests[ATTACKER].raw_ring(1).unwrap();
    for index in 0..128u16 {
        let frame = frame(mac(usize::from(index % 4)), OWN, 300, index.into());
        let addr = ring.fill(index, &[&[0; net_header::LEN], frame.as_slice()].concat());
        let one = Descriptor { addr, len: 312, flags: 0, next: 0 };
        if index % 2 == 0 {
            ring.set_descriptor(index, one);
        } else {
            let addr = ring.fill_table(index + 128, &[one, one]);
            ring.set_descriptor(index, Descriptor { addr, len: 32, flags: DESC_INDIRECT, next: 0 });
        }
    }
}

/// One turn: the neighbours exchange frames, each of which arrives once and as it was; both send to the attacker too, which offers
/// what it has and takes what it gets.
fn exchange(rig: &mut Rig, turn: u64) {
    let [one, two] = NEIGHBOURS;
    let numbers = turn * EACH..(turn + 1) * EACH;
    if rig.fault_of(ATTACKER).is_none() {
        let [receive, transmit] = [0, 1].map(|ring| rig.guests[ATTACKER].raw_ring(ring).unwrap());
        // A worker may leave frames for a later turn, and a ring is no longer than it is.
        let taken = rig.taken_from(ATTACKER) as u16;
        if transmit.avail_index().wrapping_sub(taken) <= transmit.places().size.entries() - BURST {
            offer_burst(&transmit, 128);
        }
        receive.set_avail_index((rig.counters_of(ATTACKER).to_port.delivered as u16).wrapping_add(256));
    }
    for (from, to) in [(one, two), (two, one)] {
        let pair = &mut rig.guests[from].pair;
        let to_attacker = frame(OWN, mac(from), 200, turn);
        for number in numbers.clone() {
            assert!(
                pair.transmit(&numbered(from, to, number)) && pair.transmit(&to_attacker),
                "the ring is full"
            );
        }
        pair.flush();
    }
    NEIGHBOURS.into_iter().for_each(|place| rig.take(place, 2 * numbers.end));
    for (from, to) in [(one, two), (two, one)] {
        let (source, mut expected) = (mac(from).octets(), numbers.clone());
        rig.guests[to].pair.receive(|_, arrived| {
            if arrived[6..12] == source && arrived[..6] == mac(to).octets() {
                let number = expected.next().expect("no frame comes twice");
                assert!(arrived == numbered(from, to, number), "frame {number} arrived otherwise");
            }
        });
        rig.guests[to].pair.flush();
        assert!(expected.is_empty(), "{from} to {to}: {expected:?} are missing");
        assert_eq!(rig.guests[to].pair.fault(), None);
    }
}

/// Flips bytes of `what` of the attacker's rings while all are served; how many labs ended with the attacker stopped.
fn races(what: impl Fn(&Rig) -> std::ops::Range<usize>) -> u64 {
    let (mut stopped, mut moved) = (0, [0; 2]);
    for lab in 0..LABS {
        let mut rig = Rig::new(&description(&[access(10), access(10), access(10)]), &Config::default());
        NEIGHBOURS.into_iter().for_each(|place| rig.teach(place as u16, vlan(10), mac(place)));
        prepare(&rig);
        // Once as it should be: a flipper that is quick stops its guest before anything moves.
        exchange(&mut rig, 0);
        let flipper = Flipper::start(rig.guests[ATTACKER].memory.clone(), what(&rig), lab + 1).unwrap();
        for turn in 1..TURNS {
            exchange(&mut rig, turn);
        }
        drop(flipper);
        rig.lawful();
        NEIGHBOURS.into_iter().for_each(|place| assert_eq!(rig.fault_of(place), None));
        match rig.fault_of(ATTACKER) {
            None => {}
            Some(PortFault::Ring { ring: 0 | 1, .. }) => stopped += 1,
            Some(other) => panic!("{other}"),
        }
        let counters = rig.counters_of(ATTACKER);
        moved = [moved[0] + counters.from_port.frames, moved[1] + counters.to_port.delivered];
    }
    assert!(moved.into_iter().all(|frames| frames > 0), "the attacker was served until it went too far");
    stopped
}

#[test]
fn descriptors_and_avail_rings_that_are_rewritten_stop_their_guest_at_most() {
    let stopped = races(|rig| {
        let ring = rig.guests[ATTACKER].raw_ring(1).unwrap();
        ring.places().desc..ring.places().avail + ring.places().size.avail_bytes()
    });
    assert!(stopped > 0, "no driver may do that");
}

#[test]
fn used_rings_that_are_rewritten_are_not_read() {
    let stopped = races(|rig| {
        let ring = rig.guests[ATTACKER].raw_ring(1).unwrap();
        ring.places().used..ring.places().used + ring.places().size.used_bytes()
    });
    assert_eq!(stopped, 0, "what the switch writes there it does not believe");
}

#[test]
fn receive_rings_that_are_rewritten_stop_their_guest_at_most() {
    let stopped = races(|rig| {
        let ring = rig.guests[ATTACKER].raw_ring(0).unwrap();
        ring.places().desc..ring.places().used + ring.places().size.used_bytes()
    });
    assert!(stopped > 0, "no driver may do that");
}

#[test]
fn frames_and_tables_that_are_rewritten_stop_their_guest_at_most() {
    let stopped = races(|rig| {
        let (ring, memory) = (rig.guests[ATTACKER].raw_ring(1).unwrap(), &rig.guests[ATTACKER].memory);
        let offset = |slot| (ring.buffer(slot) - memory.guest_address(0)) as usize;
        offset(0)..offset(255)
    });
    // A table that leads out of memory, or into itself.
    assert!(stopped > 0, "no driver may do that");
}
