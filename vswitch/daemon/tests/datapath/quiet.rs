//! Rings that say nothing: a busy worker looks at a few of them in a turn, each asks its driver for a kick, and none is forgotten
//! (decision 0016).

use crate::{
    lab::{Lab, access, description, frame, mac, receive, send, vlan},
    rig::Rig,
    traffic::Pair,
};
use proptest::{collection::vec, prelude::*};
use std::os::fd::OwnedFd;
use vhost_net_backend::{
    device::ring::RunningRing,
    driver::{Config, unwired::Unwired},
    features,
    layout::{RingSize, USED_NO_NOTIFY},
};
use vswitch_core::mac::MacAddr;
use vswitchd::worker::Turn;

/// Turns in a row without a frame after which a ring is quiet, and one more to find it so.
const PATIENCE: usize = 1025;

/// Idle turns after which a driver that polls sees all of its completions.
const LULL: usize = 256;

/// Quiet rings that are looked at in a turn behind an idle one, or one of 128 frames.
const LOOKS: usize = 8;

/// Idle turns within which every one of so many quiet rings is looked at.
fn a_round(quiet: usize) -> usize {
    quiet.div_ceil(LOOKS)
}

/// Small guests, which are told by a flag in memory that a kick is wanted (no EVENT_IDX): so a test can see it.
fn config() -> Config {
    Config {
        features: Config::default().features & !features::EVENT_IDX,
        ring_size: RingSize::new(16).unwrap(),
        buffer_size: 1024,
        ..Config::default()
    }
}

fn station(place: usize) -> MacAddr {
    let [high, low] = (place as u16).to_be_bytes();
    MacAddr::new([2, 0, 0, 0, high, low])
}

/// So many ports, whose stations are known.
fn rig(ports: usize) -> Rig {
    let mut rig = Rig::new(&description(&vec![access(10); ports]), &config());
    (0..ports).for_each(|place| rig.teach(place as u16, vlan(10), station(place)));
    rig
}

/// Whether the guest's transmitq asks for a kick.
fn armed(guest: &Unwired) -> bool {
    let mut flags = [0; 2];
    guest.memory.read(guest.raw_ring(1).unwrap().places().used, &mut flags);
    u16::from_le_bytes(flags) & USED_NO_NOTIFY == 0
}

fn say(rig: &mut Rig, from: usize, to: usize) {
    let pair = &mut rig.guests[from].pair;
    assert!(pair.transmit(&frame(station(to), station(from), 60, 1)), "the ring has room");
    pair.flush();
}

/// How many frames the guest got since the last time.
fn heard(rig: &mut Rig, place: usize) -> usize {
    let frames = rig.guests[place].pair.receive(|_, _| {});
    assert_eq!(rig.guests[place].pair.fault(), None);
    frames
}

/// The kick descriptor of the guest's transmitq.
fn kick(guest: &Unwired) -> OwnedFd {
    let [_, RunningRing::From(ring)] = guest.rings().unwrap() else { panic!("ring 1 is the transmitq") };
    ring.kick_fd().unwrap().try_clone_to_owned().unwrap()
}

/// Whether there was a kick since the last time.
fn kicked(kick: &OwnedFd) -> bool {
    rustix::io::read(kick, &mut [0; 8]).is_ok()
}

#[test]
fn a_ring_that_says_nothing_is_armed_once_patience_ends_and_kicks_and_comes_back() {
    let mut rig = rig(2);
    let kicks = [0, 1].map(|place| kick(&rig.guests[place]));
    for turn in 0..PATIENCE {
        assert!(!armed(&rig.guests[1]), "in turn {turn} it is polled");
        say(&mut rig, 0, 1);
        assert_eq!((rig.turn(), heard(&mut rig, 1)), (Turn::Busy(1), 1));
    }
    assert_eq!([0, 1].map(|place| armed(&rig.guests[place])), [false, true], "the silent one alone");
    for kick in &kicks {
        kicked(kick);
    }
    say(&mut rig, 0, 1);
    say(&mut rig, 1, 0);
    assert_eq!(kicks.each_ref().map(kicked), [false, true], "who is polled need not kick");
    assert_eq!(
        (rig.turn(), heard(&mut rig, 0)),
        (Turn::Busy(2), 1),
        "a lonely quiet ring is looked at in every turn"
    );
    assert!(!armed(&rig.guests[1]), "it is polled again");
    say(&mut rig, 1, 0);
    assert!(!kicked(&kicks[1]));
    assert_eq!((rig.turn(), heard(&mut rig, 0)), (Turn::Busy(1), 1));
}

#[test]
fn what_was_held_back_from_a_driver_that_polls_is_shown_in_a_lull_before_its_ring_is_quiet() {
    let mut rig = rig(2);
    say(&mut rig, 0, 1);
    assert_eq!((rig.turn(), heard(&mut rig, 1)), (Turn::Busy(1), 1));
    for turn in 1..LULL {
        assert_eq!(
            (rig.turn(), rig.guests[0].pair.reap()),
            (Turn::Idle, 0),
            "idle turn {turn}: it is held back"
        );
    }
    assert_eq!((rig.turn(), rig.guests[0].pair.reap()), (Turn::Idle, 1));
    assert!(!armed(&rig.guests[0]), "it is polled still");
}

/// Beside `busy` ports that each send so many `frames` in a turn, all of 500 silent ones are heard, in turns of so many `looks`.
fn five_hundred_silent_ports_are_heard(busy: usize, frames: usize, looks: usize) {
    const SILENT: usize = 500;
    let mut rig = rig(SILENT + busy + 1);
    let to = SILENT + busy;
    let turn = |rig: &mut Rig| {
        (SILENT..to).for_each(|place| (0..frames).for_each(|_| say(rig, place, to)));
        let Turn::Busy(moved) = rig.turn() else { panic!("frames were sent") };
        heard(rig, to);
        moved - busy * frames
    };
    (0..PATIENCE).for_each(|_| assert_eq!(turn(&mut rig), 0));
    assert!(rig.guests[..SILENT].iter().all(armed) && !armed(&rig.guests[SILENT]));
    (0..SILENT).for_each(|place| say(&mut rig, place, to));
    let (mut left, mut turns) = (SILENT, 0);
    while left > 0 {
        let found = turn(&mut rig);
        assert!(found <= looks, "turn {turns} found {found}: so many were looked at");
        left -= found;
        turns += 1;
    }
    // The receiver's own transmitq is silent as well.
    assert!(turns <= (SILENT + 1).div_ceil(looks), "{turns} turns");
    if turns < PATIENCE {
        assert!(!rig.guests.iter().take(SILENT).any(armed), "all are polled again");
    }
}

#[test]
fn five_hundred_silent_ports_cost_a_short_turn_one_look_and_all_are_heard_in_a_round() {
    five_hundred_silent_ports_are_heard(1, 1, 1);
}

#[test]
fn five_hundred_silent_ports_cost_a_long_turn_eight_looks_and_all_are_heard_in_a_round() {
    five_hundred_silent_ports_are_heard(16, 8, LOOKS);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whoever_speaks_whenever_is_heard_within_a_round(
        story in vec((0usize..20, 1usize..3, prop_oneof![0usize..4, 0usize..400]), 1..40),
    ) {
        const PORTS: usize = 20;
        let mut rig = rig(PORTS + 1);
        for (place, frames, turns) in story {
            (0..frames).for_each(|_| say(&mut rig, place, PORTS));
            let mut missing = frames;
            for _ in 0..a_round(PORTS) + 1 {
                rig.turn();
                missing -= heard(&mut rig, PORTS);
            }
            prop_assert_eq!(missing, 0, "of {} frames of port {}", frames, place);
            for _ in 0..turns {
                prop_assert_eq!(rig.turn(), Turn::Idle);
            }
        }
    }
}

#[test]
fn a_worker_that_sleeps_is_woken_by_a_ring_that_is_quiet() {
    const SILENT: std::ops::Range<usize> = 2..6;
    let lab = Lab::new(&vec![access(10); SILENT.end]);
    let mut guests: Vec<_> = SILENT.map(|place| lab.attach(place, &Config::default())).collect();
    let mut pair = Pair::new(&lab, [0, 1]);
    let busy = || lab.datapath.snapshot().unwrap().workers[0].busy_turns;
    for place in SILENT {
        // Long enough for all others to be quiet.
        let before = busy();
        while busy() < before + PATIENCE as u64 {
            pair.exchange();
        }
        let asleep = lab.datapath.snapshot().unwrap().workers[0].sleeps;
        lab.wait(|seen| seen.workers[0].sleeps > asleep);
        // From here on nobody asks the worker anything, which would wake it: the kick alone does.
        let (speaker, listener) = (place - SILENT.start, (place + 1 - SILENT.start) % SILENT.len());
        guests[listener].pair().receive(|_, _| {});
        let sent = frame(MacAddr::BROADCAST, mac(place), 60, place as u64);
        send(&mut guests[speaker], &sent);
        assert_eq!(receive(&mut guests[listener], 1), [sent]);
    }
    pair.exchange();
    pair.lost_nothing(&lab.lawful());
}

#[test]
fn a_ring_that_speaks_as_the_worker_falls_asleep_is_heard_among_five_hundred_quiet_ones() {
    const PORTS: usize = 502;
    let mut ports = vec![access(20); PORTS];
    ports[..2].fill(access(10));
    let lab = Lab::new(&ports);
    let mut guests: Vec<_> = (2..PORTS).map(|place| lab.attach(place, &config())).collect();
    let mut pair = Pair::new(&lab, [0, 1]);
    let seen = || lab.datapath.snapshot().unwrap().workers[0].clone();
    let (speaker, listener) = (guests.len() - 1, guests.len() - 2);
    for (from, to) in [(listener, speaker), (speaker, listener)] {
        let hello = frame(MacAddr::BROADCAST, mac(from + 2), 60, 0);
        send(&mut guests[from], &hello);
        assert_eq!(receive(&mut guests[to], 1), [hello]);
    }
    for round in 0..20 {
        // All others become quiet; then the worker comes to its last looks before it sleeps.
        let before = seen().busy_turns;
        while seen().busy_turns < before + PATIENCE as u64 {
            pair.exchange();
        }
        let sent = frame(mac(listener + 2), mac(speaker + 2), 60, round);
        send(&mut guests[speaker], &sent);
        assert_eq!(receive(&mut guests[listener], 1), [sent], "in round {round}");
    }
    pair.exchange();
    pair.lost_nothing(&lab.lawful());
}
