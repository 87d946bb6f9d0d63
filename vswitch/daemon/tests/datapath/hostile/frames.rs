//! Q10 to Q16: frames and headers that are none, rings that are changed under the reader, and guests that never take.

use super::{Beside, HELLOS, HONEST, HOSTILE, message, readable, then, writable};
use crate::lab::{DEADLINE, Lab, access, description, frame, mac, receive, send};
use rustix::fs::OFlags;
use std::{
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};
use vhost_net_backend::{
    device::gate::wire::code,
    driver::{
        Config, Driver,
        misbehave::{Flipper, full_blocking_eventfd},
    },
    features,
    net_header::{F_NEEDS_CSUM, LEN as HEADER, NetHeader},
};
use vswitch_core::{drop_reason::DropReason, mac::MacAddr};

#[test]
fn q10_what_is_shorter_than_header_and_addresses_is_a_runt() {
    let beside = Beside::new(&Config::default());
    let ring = beside.transmitq();
    for (head, len) in (10..).zip([1, 11, 12, 13, 25]) {
        ring.set_descriptor(head, readable(ring.buffer(0), len));
        ring.offer(head);
    }
    beside.drops(DropReason::Runt, 5);
    beside.end();
}

#[test]
fn q10_what_is_longer_than_the_receivers_mtu_is_dropped_there() {
    let mut beside = Beside::new(&Config::default());
    send(&mut beside.hostile, &frame(mac(HONEST), mac(HOSTILE), 14 + 9001, 0));
    send(&mut beside.hostile, &frame(mac(HONEST), mac(HOSTILE), 14 + 9000, 0));
    beside.arrives(14 + 9000);
    let end = beside.end();
    assert_eq!(end.ports[HONEST].counters.to_port.dropped, [(DropReason::MtuExceeded, 1)].into());
}

/// The receive buffer that the hostile guest's next frame begins in.
const NEXT: u16 = HELLOS as u16;

/// Bytes of each receive buffer, by its number.
type Sizes = fn(u16) -> u32;

/// Gives each receive buffer of the hostile guest this many bytes.
fn cut_receive_buffers(beside: &Beside, bytes: impl Fn(u16) -> u32) {
    let ring = beside.receiveq();
    (0..256).for_each(|head| ring.set_descriptor(head, writable(ring.buffer(head), bytes(head))));
}

#[test]
fn q11_receive_buffers_too_small_lose_the_frame_and_take_nothing() {
    let without =
        Config { features: Config::default().features & !features::NET_MRG_RXBUF, ..Config::default() };
    // Shorter than a net header; too small without MRG_RXBUF; so small that a frame would take more chains than it may.
    let rows: [(&Config, Sizes); 3] = [
        (&Config::default(), |_| 11),
        (&without, |_| 211),
        (&Config::default(), |head| if head == NEXT { 12 } else { 1 }),
    ];
    for (config, bytes) in rows {
        let mut beside = Beside::new(config);
        let used = beside.receiveq().used_index();
        cut_receive_buffers(&beside, bytes);
        beside.send_to_hostile(200);
        beside.drops_copies(DropReason::BufferTooSmall, 1);
        assert_eq!(beside.receiveq().used_index(), used, "nothing was published");
        cut_receive_buffers(&beside, |_| 2048);
        beside.send_to_hostile(200);
        assert_eq!(receive(&mut beside.hostile, 1).len(), 1, "the buffers are still there");
        beside.end();
    }
}

#[test]
fn q11_a_frame_over_many_small_buffers_says_exactly_how_many() {
    let mut beside = Beside::new(&Config::default());
    // 12 bytes of header in the first, then ten a buffer.
    cut_receive_buffers(&beside, |head| if head == NEXT { 12 } else { 10 });
    let used = beside.receiveq().used_index();
    beside.send_to_hostile(200);
    beside.wait(|port| port.counters.to_port.delivered == HELLOS as u64 + 1);
    assert_eq!(beside.receiveq().used_index().wrapping_sub(used), 21);
    let mut header = [0; HEADER];
    let memory = beside.hostile.memory();
    let first = (beside.receiveq().buffer(NEXT) - memory.regions()[0].guest_address) as usize;
    memory.read(first, &mut header);
    assert_eq!(NetHeader::from_bytes(header), NetHeader::plain(21));
    beside.end();
}

#[test]
fn q12_buffers_that_overlap_each_other_are_sent_as_they_read() {
    let mut beside = Beside::new(&Config::default());
    let ring = beside.transmitq();
    let bytes = message(90);
    let buffer = ring.fill(0, &bytes);
    ring.set_descriptor(10, then(readable(buffer, bytes.len() as u32), 11));
    ring.set_descriptor(11, readable(buffer + 12, 90));
    ring.offer(10);
    let frames = receive(&mut beside.honest, 1);
    assert_eq!(frames, [[&bytes[12..], &bytes[12..]].concat()]);
    beside.end();
}

#[test]
fn q12_a_receive_buffer_over_the_guests_own_rings_hurts_that_guest() {
    let mut beside = Beside::new(&Config::default());
    let (receiveq, transmitq) = (beside.receiveq(), beside.transmitq());
    let over = beside.hostile.memory().guest_address(transmitq.places().avail);
    (0..256).for_each(|head| receiveq.set_descriptor(head, writable(over, 500)));
    // The header's zeros become avail.flags and avail.idx, which was 1.
    beside.send_to_hostile(200);
    beside.ends_stopped("ring 1: avail.idx jumped by more than the ring's size");
}

#[test]
fn q13_the_bytes_that_were_judged_are_the_bytes_that_are_sent() {
    let mut beside = Beside::new(&Config::default());
    let ring = beside.transmitq();
    let mut bytes = message(200);
    // The EtherType's lower byte is 0; the upper one is flipped all the time, and 81 would be a tag.
    bytes[HEADER + 13] = 0;
    let buffer = ring.fill(0, &bytes);
    ring.set_descriptor(10, readable(buffer, bytes.len() as u32));
    let memory = beside.hostile.memory().clone();
    let type_at = (buffer - memory.regions()[0].guest_address) as usize + HEADER + 12;
    let flipper = Flipper::start(memory, type_at..type_at + 1, 7).unwrap();
    let (mut judged_tagged, mut arrived, end) = (0, 0, Instant::now() + DEADLINE);
    while judged_tagged < 8 || arrived < 1000 {
        let used = ring.used_index();
        ring.offer(10);
        while ring.used_index() == used {
            assert!(Instant::now() < end, "{arrived} arrived, {judged_tagged} were judged to be tagged");
            std::thread::yield_now();
        }
        beside.honest.pair().receive(|_, frame| {
            assert_ne!(frame[12], 0x81, "judged untagged, sent tagged");
            arrived += 1;
        });
        if arrived % 64 == 0 {
            let dropped = beside.lab.lawful().ports[HOSTILE].counters.from_port.dropped.clone();
            judged_tagged = *dropped.get(&DropReason::TaggedOnAccess).unwrap_or(&0);
        }
    }
    drop(flipper);
    beside.end();
}

#[test]
fn q13_rings_that_change_while_they_are_read_stop_that_port_at_most() {
    for area in 0..4 {
        let mut beside = Beside::new(&Config::default());
        let ring = beside.transmitq();
        let places = *ring.places();
        let ranges = [
            places.desc..places.desc + places.size.desc_bytes(),
            places.avail..places.avail + places.size.avail_bytes(),
            places.used..places.used + places.size.used_bytes(),
        ];
        let memory = beside.hostile.memory().clone();
        let buffer = (ring.buffer(0) - memory.regions()[0].guest_address) as usize;
        // The last area: net headers and frames.
        let range = ranges.get(area).cloned().unwrap_or(buffer..buffer + 2048);
        let flipper = Flipper::start(memory, range, area as u64).unwrap();
        for number in 0..2000u64 {
            let sent = frame(mac(HONEST), mac(HOSTILE), 60 + (number % 1000) as usize, number);
            beside.hostile.pair().transmit(&sent);
            beside.hostile.pair().flush();
            beside.honest.pair().receive(|_, _| {});
        }
        drop(flipper);
        beside.end();
    }
}

/// Sends one frame with this header from the hostile guest.
fn send_with(hostile: &mut Driver, header: NetHeader) {
    let sent = frame(mac(HONEST), mac(HOSTILE), 90, 0);
    assert!(hostile.pair().transmit_with(&header.to_bytes(), &sent));
    hostile.pair().flush();
}

#[test]
fn q14_offloads_that_nobody_negotiated_are_dropped() {
    let mut beside = Beside::new(&Config::default());
    let plain = NetHeader::plain(0);
    let wrong = [
        NetHeader { flags: F_NEEDS_CSUM, csum_start: 14, csum_offset: 6, ..plain },
        NetHeader { flags: F_NEEDS_CSUM, csum_start: u16::MAX, csum_offset: u16::MAX, ..plain },
        NetHeader { gso_type: 1, gso_size: 1000, hdr_len: 54, ..plain },
        NetHeader { gso_type: 3, gso_size: 0, ..plain },
        NetHeader { gso_type: 4, gso_size: 1, ..plain },
        NetHeader { gso_type: 0x80, ..plain },
        NetHeader { gso_type: u8::MAX, gso_size: u16::MAX, ..plain },
    ];
    for header in wrong {
        send_with(&mut beside.hostile, header);
    }
    beside.drops(DropReason::BadNetHeader, wrong.len() as u64);
    beside.end();
}

#[test]
fn q14_what_means_nothing_is_ignored_and_the_receiver_gets_a_header_of_ours() {
    let mut beside = Beside::new(&Config::default());
    let plain = NetHeader::plain(0);
    let odd = [
        NetHeader { flags: 0xfe, ..plain },
        NetHeader { hdr_len: u16::MAX, gso_size: u16::MAX, ..plain },
        NetHeader { csum_start: u16::MAX, csum_offset: u16::MAX, ..plain },
        NetHeader::plain(u16::MAX),
    ];
    let mut headers = Vec::new();
    for header in odd {
        send_with(&mut beside.hostile, header);
        let end = Instant::now() + DEADLINE;
        let before = headers.len();
        while headers.len() == before && Instant::now() < end {
            beside.honest.pair().receive(|header, _| headers.push(*header));
            std::thread::yield_now();
        }
    }
    assert_eq!(headers, [NetHeader::plain(1); 4]);
    beside.end();
}

#[test]
fn q15_a_storm_of_kicks_and_wild_event_indices_cost_the_others_nothing() {
    let mut beside = Beside::new(&Config::default());
    let ring = beside.transmitq();
    for number in 0..20_000u16 {
        ring.set_used_event(number.wrapping_mul(40_503));
        ring.set_avail_flags(number);
        ring.kick();
    }
    beside.neighbours.flows();
    // One that never kicks is still served while the worker polls for others.
    let bytes = message(90);
    ring.set_descriptor(10, readable(ring.fill(0, &bytes), bytes.len() as u32));
    ring.set_avail(ring.avail_index(), 10);
    ring.set_avail_index(ring.avail_index().wrapping_add(1));
    beside.arrives(90);
    beside.end();
}

/// A hostile guest that wants a call for every buffer, through an eventfd whose counter is full.
fn called_through_a_full_eventfd() -> (Beside, OwnedFd) {
    let without = Config { features: Config::default().features & !features::EVENT_IDX, ..Config::default() };
    let beside = Beside::new(&without);
    let full = full_blocking_eventfd().unwrap();
    let frontend = beside.hostile.raw_frontend().unwrap();
    for ring in 0..2u64 {
        frontend.send(code::SET_VRING_CALL, &ring.to_ne_bytes(), &[full.as_fd()]).unwrap();
    }
    // An answer to the next request: the two before it were taken.
    frontend.send(code::GET_FEATURES, &[], &[]).unwrap();
    assert!(frontend.reply(DEADLINE).unwrap().is_some());
    [beside.receiveq(), beside.transmitq()].iter().for_each(|ring| ring.set_avail_flags(0));
    (beside, full)
}

#[test]
fn q15_a_call_that_is_never_taken_does_not_hold_up_the_worker() {
    let (mut beside, full) = called_through_a_full_eventfd();
    let back_and_forth = |beside: &mut Beside| {
        send(&mut beside.hostile, &frame(mac(HONEST), mac(HOSTILE), 60, 0));
        beside.arrives(60);
        beside.send_to_hostile(60);
        assert_eq!(receive(&mut beside.hostile, 1).len(), 1);
    };
    (0..100).for_each(|_| back_and_forth(&mut beside));
    // Once it is emptied, calls are counted there again: it was this one that was full.
    rustix::io::read(&full, &mut [0; 8]).unwrap();
    back_and_forth(&mut beside);
    let end = Instant::now() + DEADLINE;
    while rustix::io::read(&full, &mut [0; 8]).is_err() {
        assert!(Instant::now() < end, "no call came");
        std::thread::yield_now();
    }
    beside.end();
}

#[test]
fn p08_a_call_that_is_made_to_block_stops_its_own_port() {
    for towards in [false, true] {
        let (mut beside, full) = called_through_a_full_eventfd();
        // The flag belongs to the eventfd, not to our descriptor of it: the gate's O_NONBLOCK is gone.
        rustix::fs::fcntl_setfl(&full, OFlags::RDWR).unwrap();
        if towards {
            beside.send_to_hostile(60);
        } else {
            send(&mut beside.hostile, &frame(mac(HONEST), mac(HOSTILE), 60, 0));
        }
        beside.ends_stopped("its call eventfd blocks");
    }
}

#[test]
fn q16_a_receiver_that_never_refills_loses_its_own_frames_only() {
    let mut beside = Beside::new(&Config::default());
    let delivered = HELLOS as u64 + 256;
    for number in 0..600 {
        let end = Instant::now() + DEADLINE;
        while !beside.honest.pair().transmit(&frame(mac(HOSTILE), mac(HONEST), 60, number)) {
            assert!(Instant::now() < end, "the sender is held up by a receiver that takes nothing");
            std::thread::yield_now();
        }
        beside.honest.pair().flush();
    }
    beside.drops_copies(DropReason::NoBuffer, 600 - 256);
    assert_eq!(receive(&mut beside.hostile, 256).len(), 256, "what was delivered before is whole");
    let end = beside.end();
    assert_eq!(end.ports[HOSTILE].counters.to_port.delivered, delivered);
}

#[test]
fn a_port_that_breaks_amid_a_batch_leaves_every_copy_one_fate() {
    let mut described = description(&[access(10), access(10)]);
    described.ports[0].as_mut().unwrap().mtu = Some(1000);
    let lab = Lab::of(&described);
    let mut broken = lab.attach(0, &Config::default());
    let mut sender = lab.attach(1, &Config::default());
    send(&mut broken, &frame(MacAddr::BROADCAST, mac(0), 60, 0));
    assert_eq!(receive(&mut sender, 1).len(), 1);
    let receiveq = broken.raw_ring(0).unwrap().unwrap();
    receiveq.set_descriptor(0, readable(receiveq.buffer(0), 2048));
    for len in [1500, 60, 60] {
        assert!(sender.pair().transmit(&frame(mac(0), mac(1), len, 1)));
    }
    sender.pair().flush();
    let seen = lab.wait(|seen| seen.ports[0].counters.faults == 1);
    let fates = [(DropReason::MtuExceeded, 1), (DropReason::PortDown, 2)];
    assert_eq!(seen.ports[0].counters.to_port.dropped, fates.into(), "{seen:#?}");
    lab.lawful();
}
