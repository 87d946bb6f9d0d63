//! What a neighbour costs: a receiver that gives no buffer back, a sender that floods, both, one whose frames are for nobody in particular, and
//! a flood to the same receiver. Turn by turn, without a clock: a frame takes one unit of time and a batch eight more, and a frame that is
//! flooded 16 and as many for each copy, about what they take.

use crate::{
    lab::{access, description, frame, mac, vlan},
    rig::Rig,
};
use vhost_net_backend::{driver::Config, layout::RingSize};
use vswitch_core::id::PortId;
use vswitchd::worker::Turn;

/// Units that a batch takes beside its frames.
const BATCH: usize = 8;
/// Units that a flooded frame takes beside its own one, and each of its copies.
const ALONE: usize = 16;
/// Nanoseconds of a unit.
const UNIT: u64 = 60;
/// Nobody has this place's address.
const NOBODY: usize = 99;
/// Entries of the rings.
const RING: u16 = 1024;

/// A lab of six ports in one VLAN that know each other.
struct Lab {
    rig: Rig,
    /// Units that went by, and those that the last turn took.
    now: usize,
    took: usize,
    /// Of each port's frames, how many it sent.
    sent: [usize; 6],
    /// Units that flooded frames took.
    flooded: usize,
    /// By receiver and sender.
    received: [[usize; 6]; 6],
}

impl Lab {
    fn new() -> Self {
        let config = Config { ring_size: RingSize::new(RING).unwrap(), ..Config::default() };
        let mut rig = Rig::new(&description(&vec![access(10); 6]), &config);
        (0..6).for_each(|place| rig.teach(place, vlan(10), mac(place.into())));
        Self { rig, now: 0, took: 0, sent: [0; 6], flooded: 0, received: [[0; 6]; 6] }
    }

    /// Sends `count` frames, or as many as there is room for; returns whether that was all.
    fn send(&mut self, from: usize, to: usize, count: usize) -> bool {
        let pair = &mut self.rig.guests[from].pair;
        let bytes = frame(mac(to), mac(from), 60, 1);
        let sent = (0..count).take_while(|_| pair.transmit(&bytes)).count();
        pair.flush();
        self.sent[from] += sent;
        sent == count
    }

    /// Fills a sender's ring.
    fn flood(&mut self, from: usize, to: usize) {
        self.send(from, to, RING.into());
    }

    /// Receives at most `limit` frames.
    fn receive(&mut self, at: usize, limit: usize) {
        let received = &mut self.received[at];
        let last = usize::from(mac(0).octets()[5]);
        self.rig.guests[at].pair.receive_up_to(limit, |_, frame| {
            received[usize::from(frame[11]) - last] += 1;
        });
    }

    /// One turn over `senders` rings that have frames; the units that it took.
    fn turn(&mut self, senders: usize) -> usize {
        let turn = self.rig.turn_after(self.took as u64 * UNIT);
        let counters = |place| self.rig.worker.counters(PortId::new(place, 0)).unwrap().from_port;
        let flooded =
            (0..6).map(counters).map(|port| ALONE * (port.flooded + port.flood_copies) as usize).sum();
        let alone = flooded - std::mem::replace(&mut self.flooded, flooded);
        let took = match turn {
            Turn::Busy(frames) => frames + alone + BATCH * senders,
            _ => 1,
        };
        self.now += took;
        self.took = took;
        took
    }
}

/// Neighbours of the pair of ports 0 and 1, by sender and receiver.
#[derive(Clone, Copy)]
struct Neighbours {
    /// Its receiver gives no buffer back.
    stalled: Option<(usize, usize)>,
    /// Its receiver takes all.
    flooding: Option<(usize, usize)>,
    /// Its frames are for a station that nobody knows, so all others get them.
    lost: Option<usize>,
}

/// Who has none of them.
const ALONE_IN_THE_LAB: Neighbours = Neighbours { stalled: None, flooding: None, lost: None };

impl Neighbours {
    fn go_on(self, lab: &mut Lab) {
        for (from, to) in [self.stalled, self.flooding].into_iter().flatten() {
            lab.flood(from, to);
        }
        if let Some((_, to)) = self.flooding {
            lab.receive(to, RING.into());
        }
        if let Some(from) = self.lost {
            lab.flood(from, NOBODY);
            (0..6).filter(|place| *place > 1).for_each(|place| lab.receive(place, RING.into()));
        }
    }

    fn count(self) -> usize {
        [self.stalled.is_some(), self.flooding.is_some(), self.lost.is_some()].map(usize::from).iter().sum()
    }
}

/// The pair sends one frame in two units, half of what a worker does: every frame arrives, and none waits for more than `units`, but for a few
/// in the `next` turn, also after the worker was held up for 200 frames.
fn a_pair_at_half_of_its_maximum_keeps_it_beside(neighbours: Neighbours, (units, next): (usize, usize)) {
    let mut lab = Lab::new();
    while lab.now < 40_000 {
        neighbours.go_on(&mut lab);
        lab.turn(neighbours.count());
    }
    let (begin, before) = (lab.now, lab.flooded);
    let mut late = 0;
    for turn in 0..3000 {
        let due = (lab.now - begin) / 2 + if turn > 1000 { 200 } else { 0 } - lab.sent[0];
        assert!(lab.send(0, 1, due), "in turn {turn} the pair's ring is full");
        neighbours.go_on(&mut lab);
        let took = lab.turn(neighbours.count() + 1);
        lab.receive(1, RING.into());
        let waiting = lab.sent[0] - lab.received[1][0];
        late += usize::from(took > units || waiting > next);
    }
    assert!(late < 100, "in {late} of 3000 turns frames waited for more than {units} units");
    if neighbours.lost.is_some() {
        let units = lab.flooded - before;
        assert!(
            units * 5 > lab.now - begin,
            "the flood goes on: it took {units} of {} units",
            lab.now - begin
        );
    }
    if let Some((_, to)) = neighbours.flooding {
        let flooded: usize = lab.received[to].iter().sum();
        assert!(flooded * 8 > lab.now - begin, "the flood goes on: {flooded} frames in {} units", lab.now);
    }
}

#[test]
fn a_pair_keeps_its_rate_beside_a_stalled_receiver() {
    let neighbours = Neighbours { stalled: Some((2, 3)), ..ALONE_IN_THE_LAB };
    a_pair_at_half_of_its_maximum_keeps_it_beside(neighbours, (110, 0));
}

#[test]
fn a_pair_keeps_its_rate_beside_a_flooding_sender() {
    let neighbours = Neighbours { flooding: Some((4, 5)), ..ALONE_IN_THE_LAB };
    a_pair_at_half_of_its_maximum_keeps_it_beside(neighbours, (110, 0));
}

#[test]
fn a_pair_keeps_its_rate_beside_both() {
    let neighbours = Neighbours { stalled: Some((2, 3)), flooding: Some((4, 5)), lost: None };
    a_pair_at_half_of_its_maximum_keeps_it_beside(neighbours, (130, 0));
}

#[test]
fn a_pair_keeps_its_rate_beside_one_whose_frames_all_get() {
    let neighbours = Neighbours { lost: Some(2), ..ALONE_IN_THE_LAB };
    a_pair_at_half_of_its_maximum_keeps_it_beside(neighbours, (200, 16));
}

/// Also before anybody counts as greedy: a frame that goes to all five others is more than a turn has for its sender beside somebody else.
#[test]
fn beside_others_a_sender_has_one_frame_a_turn_that_all_get_and_alone_it_has_more() {
    let flooded_in_a_turn = |beside: usize| {
        let mut lab = Lab::new();
        let turn = |lab: &mut Lab| {
            assert!(lab.send(0, 1, beside) && lab.send(2, NOBODY, 8), "the rings have room");
            let before = lab.flooded;
            lab.turn(2);
            (0..6).for_each(|place| lab.receive(place, RING.into()));
            (lab.flooded - before) / (6 * ALONE)
        };
        // In the first turn nobody knows of the other.
        turn(&mut lab);
        turn(&mut lab)
    };
    assert_eq!(flooded_in_a_turn(8), 1);
    assert!(flooded_in_a_turn(0) > 1);
}

/// Ports 0 and 2 send to port 1, which takes 20 frames a turn: what each got there, in parts of all.
fn shares(mut offer: impl FnMut(&mut Lab, usize)) -> [f64; 2] {
    let mut lab = Lab::new();
    for turn in 0..3000 {
        offer(&mut lab, turn);
        lab.turn(2);
        lab.receive(1, 20);
    }
    let got = lab.received[1];
    let all = (got[0] + got[2]) as f64;
    assert!(all > 0.99 * 3000.0 * 20.0, "the receiver is never idle: {got:?}");
    [got[0] as f64 / all, got[2] as f64 / all]
}

#[test]
fn of_two_that_flood_one_receiver_each_gets_half() {
    let [one, other] = shares(|lab, _| {
        lab.flood(0, 1);
        lab.flood(2, 1);
    });
    assert!(one.min(other) > 0.48, "{one} and {other}");
}

#[test]
fn a_sender_keeps_its_share_of_a_receiver_that_another_one_floods() {
    for (paced, flooding) in [(0, 2), (2, 0)] {
        let shares = shares(|lab, turn| {
            lab.flood(flooding, 1);
            // 46 of a hundred that are received, in one burst.
            if turn % 5 == 0 {
                assert!(lab.send(paced, 1, 46), "its ring has room");
            }
        });
        let share = shares[paced / 2];
        assert!(share > 0.45, "port {paced} has {share} of the receiver, and asked for 0.46");
    }
}
