//! Descriptors and tables that change while chains are walked, so that each mixture of old and new is legal: then nothing is stopped,
//! every chain is one frame or one drop, and no byte is touched that no descriptor ever named.

use super::{ATTACKER, Attacker, BURST, port};
use crate::{
    lab::{DEADLINE, access, description, frame, mac, vlan},
    rig::Rig,
};
use std::{collections::BTreeSet, ops::Range, time::Instant};
use vhost_net_backend::{
    driver::{Arena, Config, Descriptor, misbehave::RawRing, unwired::Unwired},
    layout::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE},
    net_header,
};
use vswitch_core::drop_reason::DropReason;

/// Descriptors that are heads; each may go on with the one that lies so much further on.
const HEADS: u16 = 128;

/// Turns of each race.
const TURNS: usize = 2000;

/// Lengths that the attacker's buffers are said to have, headers included.
const LENGTHS: [u32; 2] = [net_header::LEN as u32 + 60, net_header::LEN as u32 + 1000];

/// What a byte says that nobody may write.
const UNTOUCHED: u8 = 0xc5;

/// The attacker and an honest guest that it sends to, and that sends to it.
fn two() -> Rig {
    let mut rig = Rig::new(&description(&[access(10), access(10)]), &Config::default());
    [0, 1].into_iter().for_each(|place| rig.teach(place, vlan(10), mac(place.into())));
    rig
}

/// Every slot of the ring holds a frame for the honest guest, wherever a descriptor leads.
fn fill_with_frames(ring: &RawRing) {
    let frame = frame(mac(1), mac(ATTACKER), 2000, 1);
    (0..2 * HEADS).for_each(|slot| {
        ring.fill(slot, &[&[0; net_header::LEN], frame.as_slice()].concat());
    });
}

/// One of the legal descriptors for the head `index`, another one in each round.
fn legal(ring: &RawRing, index: u16, round: u64) -> Descriptor {
    let choice = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let bit = |n: u32| choice >> n & 1;
    let slot = index + HEADS * bit(0) as u16;
    let flags = [0, DESC_NEXT, 0, DESC_WRITE][(choice >> 2 & 3) as usize];
    Descriptor { addr: ring.buffer(slot), len: LENGTHS[bit(1) as usize], flags, next: index + HEADS }
}

/// Runs turns over the attacker's transmitq while `attack` goes on. What the honest guest gets begins like one of the frames that the
/// attacker has; and the lengths it gets are returned.
fn transmit_race(mut rig: Rig, attack: impl FnMut(u64) + Send + 'static) -> BTreeSet<usize> {
    let ring = rig.guests[ATTACKER].raw_ring(1).unwrap();
    let head = frame(mac(1), mac(ATTACKER), 60, 1)[..14].to_vec();
    let mut lengths = BTreeSet::new();
    let attacker = Attacker::start(attack);
    for _ in 0..TURNS {
        rig.burst(&ring, HEADS);
        rig.guests[1].pair.receive(|_, frame| {
            assert!(frame.starts_with(&head), "{:02x?}", &frame[..14]);
            lengths.insert(frame.len());
        });
        rig.guests[1].pair.flush();
        assert_eq!(rig.guests[1].pair.fault(), None);
    }
    assert!(attacker.end() > 1, "descriptors changed");
    assert_eq!(rig.fault_of(ATTACKER), None);
    let sent = rig.counters_of(ATTACKER).from_port;
    assert_eq!(sent.frames, TURNS as u64 * u64::from(BURST));
    assert!(sent.dropped.keys().all(|reason| *reason == DropReason::BadDirection), "{sent:?}");
    assert_eq!(rig.counters_of(1).to_port.delivered, sent.unicast);
    lengths
}

/// What is between the buffers of a chain of one or of two, whichever lengths its descriptors said.
fn chain_lengths() -> BTreeSet<usize> {
    let ends = LENGTHS.map(|len| len as usize);
    let alone = ends.map(|end| end - net_header::LEN);
    let both = ends.into_iter().flat_map(|one| ends.map(|other| one + other - net_header::LEN));
    alone.into_iter().chain(both).collect()
}

#[test]
fn descriptors_that_change_while_they_are_read_make_frames_of_what_was_read() {
    let rig = two();
    let ring = rig.guests[ATTACKER].raw_ring(1).unwrap();
    fill_with_frames(&ring);
    for index in 0..HEADS {
        ring.set_descriptor(index, legal(&ring, index, 0));
        let second = Descriptor { addr: ring.buffer(index), len: LENGTHS[0], flags: 0, next: 0 };
        ring.set_descriptor(index + HEADS, second);
    }
    let lengths = transmit_race(rig, move |round| {
        for index in 0..HEADS {
            let nth = round * u64::from(HEADS) + u64::from(index);
            ring.set_descriptor(index, legal(&ring, index, nth));
            let len = LENGTHS[(round % 2) as usize];
            let second = Descriptor { addr: ring.buffer(index), len, flags: 0, next: 0 };
            ring.set_descriptor(index + HEADS, second);
        }
    });
    assert!(lengths.is_subset(&chain_lengths()), "{lengths:?}");
    assert!(lengths.len() > 2, "chains of both kinds arrived: {lengths:?}");
}

#[test]
fn indirect_tables_that_change_while_they_are_walked_make_frames_of_what_was_read() {
    let rig = two();
    let ring = rig.guests[ATTACKER].raw_ring(1).unwrap();
    fill_with_frames(&ring);
    let table = |ring: &RawRing, index: u16, round: u64| {
        // The slots behind the heads' hold tables here.
        let first = legal(ring, index, round);
        let first = Descriptor { addr: ring.buffer(index), next: 1 + (round % 2) as u16, ..first };
        let len = LENGTHS[(round >> 1 & 1) as usize];
        let last = Descriptor { addr: ring.buffer(index), len, flags: 0, next: 0 };
        ring.fill_table(index + HEADS, &[first, last, last])
    };
    for index in 0..HEADS {
        let addr = table(&ring, index, 0);
        ring.set_descriptor(index, Descriptor { addr, len: 48, flags: DESC_INDIRECT, next: 0 });
    }
    let lengths = transmit_race(rig, move |round| {
        (0..HEADS).for_each(|index| {
            table(&ring, index, round * u64::from(HEADS) + u64::from(index));
        });
    });
    assert!(lengths.is_subset(&chain_lengths()), "{lengths:?}");
    assert!(lengths.len() > 2, "chains of both kinds arrived: {lengths:?}");
}

/// Everything in `arena` outside of `ranges`, which ascend, must say that nobody wrote there; or is made to say so.
fn outside(arena: &Arena, ranges: &[Range<usize>], mut each: impl FnMut(Range<usize>)) {
    let starts = std::iter::once(0).chain(ranges.iter().map(|range| range.end));
    let ends = ranges.iter().map(|range| range.start).chain([arena.len()]);
    starts.zip(ends).filter(|(start, end)| start < end).for_each(|(start, end)| each(start..end));
}

/// What a switch may write to in a guest that only receives: both rings, and the first bytes of each receive buffer.
fn writable(guest: &Unwired, ring: &RawRing, bytes: u32) -> Vec<Range<usize>> {
    let places = guest.raw_ring(1).unwrap().places().used;
    let transmit = guest.raw_ring(1).unwrap();
    let offset = |address: u64| (address - guest.memory.guest_address(0)) as usize;
    let rings = 0..places + transmit.places().size.used_bytes();
    let buffers = (0..2 * HEADS).map(|slot| offset(ring.buffer(slot)));
    std::iter::once(rings).chain(buffers.map(|start| start..start + bytes as usize)).collect()
}

#[test]
fn receive_buffers_that_change_while_they_are_filled_keep_what_lies_beside_them() {
    let mut rig = two();
    let ring = rig.guests[ATTACKER].raw_ring(0).unwrap();
    let memory = rig.guests[ATTACKER].memory.clone();
    let longest = LENGTHS[1];
    let may_change = writable(&rig.guests[ATTACKER], &ring, longest);
    outside(&memory, &may_change, |range| memory.write(range.start, &vec![UNTOUCHED; range.len()]));
    let legal = move |ring: &RawRing, index: u16, round: u64| Descriptor {
        flags: DESC_WRITE | legal(ring, index, round).flags & DESC_NEXT,
        ..legal(ring, index, round)
    };
    for index in 0..HEADS {
        ring.set_descriptor(index, legal(&ring, index, 0));
        let addr = ring.buffer(index + HEADS);
        let second = Descriptor { addr, len: longest, flags: DESC_WRITE, next: 0 };
        ring.set_descriptor(index + HEADS, second);
    }
    // It is not the driver's ring any longer: all its buffers are handed out anew.
    (0..2 * HEADS).for_each(|place| ring.set_avail(place, place % HEADS));
    let attacker = {
        let ring = rig.guests[ATTACKER].raw_ring(0).unwrap();
        Attacker::start(move |round| {
            for index in 0..HEADS {
                let nth = round * u64::from(HEADS) + u64::from(index);
                ring.set_descriptor(index, legal(&ring, index, nth));
            }
        })
    };
    let sent = frame(mac(ATTACKER), mac(1), 900, 1);
    let (mut frames, end) = (0, Instant::now() + DEADLINE);
    for _ in 0..TURNS {
        // Buffers for all: with merged ones a frame takes as many as it needs.
        let honest = &mut rig.guests[1].pair;
        let queued = (0..BURST / 16).filter(|_| honest.transmit(&sent)).count();
        honest.flush();
        frames += queued as u64;
        rig.take(1, frames);
        ring.set_avail_index(ring.used_index().wrapping_add(HEADS));
        rig.lawful();
        assert!(Instant::now() < end, "{frames} frames so far");
    }
    assert!(attacker.end() > 1, "descriptors changed");
    assert_eq!([0, 1].map(|place| rig.worker.fault(port(place))), [None, None]);
    let to = rig.counters_of(ATTACKER).to_port;
    assert!(to.copies == frames && to.delivered > frames / 2, "{to:?}");
    outside(&memory, &may_change, |range| {
        let mut bytes = vec![0; range.len()];
        memory.read(range.start, &mut bytes);
        let changed = bytes.iter().position(|byte| *byte != UNTOUCHED);
        assert_eq!(changed.map(|at| range.start + at), None, "{range:?}");
    });
}
