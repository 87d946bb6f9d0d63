//! What a hostile guest does while its rings are looked at, or by not looking at them itself (Q11 to Q16).

use super::{ALL, Wired, config, publish};
use crate::{
    device::ring::{Claim, Defect, HEAD_BYTES, MAX_BATCH, NoRoom, Payload, Rooms, make_visible},
    driver::{Descriptor, misbehave::Flipper},
    features::NET_MRG_RXBUF,
    layout::{AVAIL_NO_INTERRUPT, DESC_NEXT, DESC_WRITE},
};

const EMPTY: Payload<'static> = Payload::Ours(&[]);

/// A device whose receive buffers are `len` bytes each.
fn with_buffers(features: u64, entries: u16, len: u32) -> Wired {
    let wired = Wired::new(&config(features, entries));
    let ring = wired.raw(0);
    for index in 0..entries {
        let addr = ring.buffer(index);
        ring.set_descriptor(index, Descriptor { addr, len, flags: DESC_WRITE, next: 0 });
    }
    wired
}

fn room(wired: &Wired, len: u32) -> Result<(), NoRoom> {
    let before = wired.to.next_avail();
    let mut rooms = Rooms::default();
    let lease =
        wired.to.reserve(0, &mut rooms, 1, |room| room.frames(std::iter::once(len))).expect("legal, if odd");
    let room = lease.room(0);
    drop(lease);
    assert!(room.is_ok() || wired.to.next_avail() == before, "what found no room goes back");
    assert_eq!(wired.to.next_used(), wired.to.next_avail(), "all or nothing is published");
    room
}

#[test]
fn q11_receive_buffers_that_are_too_small() {
    assert_eq!(room(&with_buffers(ALL, 16, 11), 60), Err(NoRoom::TooSmall), "no room for the header");
    let unmerged = ALL & !NET_MRG_RXBUF;
    assert_eq!(room(&with_buffers(unmerged, 16, 71), 60), Err(NoRoom::TooSmall));
    assert_eq!(room(&with_buffers(unmerged, 16, 72), 60), Ok(()));
    assert_eq!(room(&with_buffers(ALL, 16, 12), 15 * 12), Ok(()), "sixteen merged");
    assert_eq!(room(&with_buffers(ALL, 16, 12), 15 * 12 + 1), Err(NoRoom::Empty));
    assert_eq!(room(&with_buffers(ALL, 256, 12), 127 * 12), Ok(()));
    assert_eq!(room(&with_buffers(ALL, 256, 12), 127 * 12 + 1), Err(NoRoom::TooSmall), "128 are the most");
    // A header, then one byte after the other: the count that the driver reads is exact.
    let mut wired = with_buffers(ALL, 64, 1);
    let ring = wired.raw(0);
    ring.set_descriptor(0, Descriptor { addr: ring.buffer(0), len: 12, flags: DESC_WRITE, next: 0 });
    let mut rooms = Rooms::default();
    let mut lease =
        wired.to.reserve(0, &mut rooms, 1, |room| room.frames(std::iter::once(20))).expect("legal, if odd");
    let _ = lease.write(0, &[7; 20], EMPTY);
    publish(&wired.to, lease);
    let mut seen = None;
    wired.driver.pair.receive(|header, frame| seen = Some((header.num_buffers, frame.to_vec())));
    assert_eq!(seen, Some((21, vec![7; 20])));
}

#[test]
fn q12_buffers_over_the_rings_hurt_only_their_guest() {
    let mut wired = Wired::new(&config(ALL, 16));
    let (receive, transmit) = (wired.raw(0), wired.raw(1));
    for (index, at) in (0..).zip([receive.places().used, transmit.places().avail - 12, receive.places().desc])
    {
        let addr = wired.driver.memory.guest_address(at);
        receive.set_descriptor(index, Descriptor { addr, len: 2048, flags: DESC_WRITE, next: 0 });
    }
    for _ in 0..3 {
        let mut rooms = Rooms::default();
        let ask = |room: &mut Claim<'_>| room.frames(std::iter::once(1000));
        let Ok(mut lease) = wired.to.reserve(0, &mut rooms, 1, ask) else { break };
        let _ = lease.write(0, &[0xff; 192], Payload::Ours(&[0xff; 808]));
        publish(&wired.to, lease);
    }
    assert!(wired.from.harvest(MAX_BATCH).is_err(), "its own avail ring is nonsense now");
    assert!(wired.to.next_used() <= 3);
}

#[test]
fn q13_what_is_judged_stays_while_the_guest_changes_it() {
    let mut wired = Wired::new(&config(ALL, 64));
    let memory = wired.driver.memory.clone();
    let ring = wired.raw(1);
    let places = *ring.places();
    for round in 0..300u64 {
        // In turn the descriptors, the avail ring and the frames themselves.
        let slots = (ring.buffer(0) - memory.guest_address(0)) as usize;
        let range = match round % 3 {
            0 => places.desc..places.desc + places.size.desc_bytes(),
            1 => places.avail..places.avail + places.size.avail_bytes(),
            _ => slots..slots + 64 * 2048,
        };
        for index in 0..64u16 {
            let addr = ring.fill(index, &[round as u8; 300]);
            ring.set_descriptor(index, Descriptor { addr, len: 300, flags: 0, next: 0 });
            ring.set_avail(index, index);
        }
        ring.set_avail_index(wired.from.next_avail().wrapping_add(64));
        let flipper = Flipper::start(memory.clone(), range, round + 1).expect("a thread");
        let taken = wired.from.harvest(MAX_BATCH).unwrap_or(0);
        let judged: Vec<_> = (0..taken).map(|place| copy(&wired, place)).collect();
        let mut rooms = Rooms::default();
        let mut lease = wired
            .to
            .reserve(0, &mut rooms, judged.len(), |room| room.frames(judged.iter().map(|(_, len, _)| *len)))
            .expect("an honest receiveq");
        for (place, first) in judged.iter().enumerate() {
            let frame = wired.from.frame(place);
            let _ = lease.write(place, frame.head(), frame.payload());
            assert!(copy(&wired, place) == *first, "the head changed between two looks");
        }
        let roomy = (0..taken).filter(|place| lease.room(*place).is_ok());
        let roomy: Vec<_> = roomy.filter(|place| judged[*place].1 < 2000).collect();
        publish(&wired.to, lease);
        let mut received = Vec::new();
        wired.driver.pair.receive(|_, frame| received.push(frame.to_vec()));
        assert_eq!(wired.driver.pair.fault(), None);
        for place in roomy {
            let head = &judged[place].0;
            assert!(received.iter().any(|frame| frame.starts_with(head)), "what was judged is what was sent");
        }
        wired.from.finish(taken);
        drop(flipper);
    }
}

fn copy(wired: &Wired, place: usize) -> (Vec<u8>, u32, Option<Defect>) {
    let frame = wired.from.frame(place);
    (frame.head().to_vec(), frame.len(), frame.defect())
}

#[test]
fn a_head_is_of_the_look_and_what_follows_it_of_the_delivery() {
    // Copied once, straight from the sender's buffer into the receiver's: what the sender changes in between is what arrives.
    let mut wired = Wired::new(&config(ALL, 16));
    let ring = wired.raw(1);
    let len = 1000u32;
    let addr = ring.fill(0, &[&[0; 12], [1; 1000].as_slice()].concat());
    ring.set_descriptor(0, Descriptor { addr, len: 12 + len, flags: 0, next: 0 });
    ring.offer(0);
    assert_eq!(wired.from.harvest(MAX_BATCH), Ok(1));
    ring.fill(0, &[2; 1012]);
    let mut rooms = Rooms::default();
    let mut lease =
        wired.to.reserve(0, &mut rooms, 1, |room| room.frames(std::iter::once(len))).expect("an honest ring");
    let frame = wired.from.frame(0);
    assert_eq!(lease.write(0, frame.head(), frame.payload()), Ok(()));
    publish(&wired.to, lease);
    let mut arrived = Vec::new();
    wired.driver.pair.receive(|_, frame| arrived = frame.to_vec());
    assert_eq!(arrived, [[1; HEAD_BYTES].as_slice(), [2; 1000 - HEAD_BYTES].as_slice()].concat());
}

#[test]
fn q14_net_headers() {
    let asks = |header: [u8; 12]| {
        let mut wired = Wired::new(&config(ALL, 16));
        assert!(wired.driver.pair.transmit_with(&header, &[0; 60]));
        wired.driver.pair.flush();
        assert_eq!(wired.from.harvest(64), Ok(1));
        let frame = wired.from.frame(0);
        assert_eq!((frame.defect(), frame.net_header().to_bytes()), (None, header));
        assert_eq!(frame.asks(), wired.from.asks());
        frame.asks()
    };
    assert!(asks([1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0]), "for a checksum");
    for gso in [1, 3, 4, 5, 0x81, 0xff] {
        assert!(asks([0, gso, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "for segmentation: {gso}");
    }
    let lies = [0xfe, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert!(!asks(lies), "unknown flags are ignored, and so is all that nobody asked for");
}

#[test]
fn q15_kicks_and_calls_that_play_games() {
    let mut wired = Wired::new(&config(ALL, 16));
    let ring = wired.raw(1);
    for event in [0, 1, 0x7fff, u16::MAX] {
        ring.set_used_event(event);
        ring.set_avail_flags(AVAIL_NO_INTERRUPT);
        for _ in 0..1000 {
            ring.kick();
        }
        assert!(!wired.from.arm(), "a kick is no frame");
        assert_eq!(wired.from.harvest(64), Ok(0));
        assert!(wired.driver.pair.transmit(&[0; 60]));
        wired.driver.pair.flush();
        assert!(wired.from.arm() && wired.from.has_work());
        assert_eq!(wired.from.harvest(64), Ok(1));
        wired.from.finish(1);
        make_visible();
        wired.from.notify().expect("nothing blocks");
        wired.from.disarm();
    }
}

#[test]
fn q16_a_receiver_that_never_refills() {
    let wired = Wired::new(&config(ALL, 16));
    for _ in 0..16 {
        assert_eq!(room(&wired, 60), Ok(()));
    }
    for _ in 0..1000 {
        assert_eq!(room(&wired, 60), Err(NoRoom::Empty));
    }
    assert_eq!(wired.to.next_used(), 16);
}

#[test]
fn one_harvest_reads_no_more_than_its_budget() {
    // 64 heads that all lead into one chain of 193 descriptors: 64 * 193 would be six budgets.
    let mut wired = Wired::new(&config(ALL, 256));
    let ring = wired.raw(1);
    for index in 0..256u16 {
        let next = index.max(63).saturating_add(1) % 256;
        let flags = if index < 255 { DESC_NEXT } else { 0 };
        ring.set_descriptor(index, Descriptor { addr: ring.buffer(0), len: 16, flags, next });
    }
    for head in 0..64 {
        ring.offer(head);
    }
    let mut left = 64;
    while left > 0 {
        let taken = wired.from.harvest(MAX_BATCH).expect("legal chains");
        assert!((1..=11).contains(&taken), "{taken} chains in one harvest");
        wired.from.finish(taken);
        left -= taken;
    }
    assert!(!wired.from.has_work());
}
