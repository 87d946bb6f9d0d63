//! A port whose frames wait for room, and for which frames wait: nothing is lost to a receiver that is slow, and one that stalls is not waited for long.

use crate::{
    lab::{access, description, frame, mac, vlan},
    rig::Rig,
};
use vhost_net_backend::{driver::Config, layout::RingSize};
use vswitch_core::id::PortId;
use vswitchd::worker::Turn;

/// Entries of the rings: what is sent is many times as much.
const RING: u16 = 64;
const FRAMES: usize = 1000;

/// Four stations in one VLAN that know each other; that of port 0 is a way out, if any is.
fn rig(way_out: bool) -> Rig {
    let config = Config { ring_size: RingSize::new(RING).unwrap(), ..Config::default() };
    let mut said = description(&vec![access(10); 4]);
    said.ports[0].as_mut().expect("it is there").way_out = way_out;
    let mut rig = Rig::new(&said, &config);
    (0..4).for_each(|place| rig.teach(place, vlan(10), mac(place.into())));
    rig
}

/// Sends as many of `left` frames as there is room for.
fn send(rig: &mut Rig, from: usize, to: usize, left: &mut usize) {
    let pair = &mut rig.guests[from].pair;
    let bytes = frame(mac(to), mac(from), 60, 1);
    while *left > 0 && pair.transmit(&bytes) {
        *left -= 1;
    }
    pair.flush();
}

fn receive(rig: &mut Rig, at: usize, limit: usize) -> usize {
    rig.guests[at].pair.receive_up_to(limit, |_, _| {})
}

fn lost(rig: &Rig, at: usize) -> u64 {
    rig.worker.counters(PortId::new(at as u16, 0)).expect("it is there").to_port.dropped.values().sum()
}

/// How many of the frames from `from` arrive at `to`, which takes two for each turn of a microsecond.
fn arrive(rig: &mut Rig, from: usize, to: usize) -> usize {
    let (mut left, mut received) = (FRAMES, 0);
    for _ in 0..4 * FRAMES {
        send(rig, from, to, &mut left);
        rig.turn();
        received += receive(rig, to, 2);
    }
    assert_eq!((left, received as u64 + lost(rig, to)), (0, FRAMES as u64), "each has one fate");
    received
}

#[test]
fn frames_from_and_for_a_way_out_wait_for_a_slow_receiver() {
    for (from, to) in [(0, 1), (1, 0)] {
        assert_eq!(arrive(&mut rig(true), from, to), FRAMES);
        assert!(arrive(&mut rig(false), from, to) < FRAMES, "others' are lost, as ever");
    }
    assert!(arrive(&mut rig(true), 1, 2) < FRAMES, "between others nothing waits");
}

#[test]
fn who_stalls_is_waited_for_once_a_second_and_then_others_have_theirs() {
    let mut rig = rig(true);
    let all = |rig: &mut Rig, to| {
        let mut left = 10;
        send(rig, 0, to, &mut left);
        assert_eq!(left, 0);
    };
    let turns = |rig: &mut Rig| (0..50).for_each(|_| _ = rig.turn());
    // Its ring is full, and what is for another is behind what is for it.
    (0..7).for_each(|_| {
        all(&mut rig, 1);
        turns(&mut rig);
    });
    all(&mut rig, 2);
    for _ in 0..99 {
        assert_eq!(rig.turn_after(1_000_000), Turn::Busy(0), "it waits, and the worker does not sleep");
    }
    assert_eq!((receive(&mut rig, 2, 100), lost(&rig, 1)), (0, 0));
    rig.turn_after(2_000_000);
    turns(&mut rig);
    assert_eq!((receive(&mut rig, 2, 100), lost(&rig, 1)), (10, 6));
    // For a second nobody waits for it again.
    all(&mut rig, 1);
    all(&mut rig, 2);
    turns(&mut rig);
    assert_eq!((receive(&mut rig, 2, 100), lost(&rig, 1)), (10, 16));
    all(&mut rig, 1);
    rig.turn_after(1_000_000_000);
    assert_eq!(rig.turn(), Turn::Busy(0), "but then");
}
