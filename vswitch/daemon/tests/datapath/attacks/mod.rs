//! A client and its server while their neighbour attacks, turn by turn and without a clock: every frame of theirs arrives in the first turns
//! after it was sent, however many there are for what the attacker sent with it; what they had stays, they open new connections, and no table is
//! larger than before.

pub(crate) mod stage;

use crate::{description::vlan, process::heap, rig::Rig};
use stage::{ACCOMPLICE, ATTACKER, Attack, CLIENT, DNS, GUESTS, SERVER, WEB};
use std::net::IpAddr;
use vhost_net_backend::{driver::Config, layout::RingSize};
use vswitch_core::{
    clock::Instant,
    drop_reason::DropReason,
    fdb::{Key, Target},
    firewall::connections::{Counts, DEFAULT_CAPACITY, Ends, Row, State},
    id::{PortId, SwitchId},
};
use vswitchd::control::protocol::PortCounters;

/// Connections of TCP and of UDP that the victims have.
const STREAMS: u16 = 64;
const TALKS: u16 = 8;
/// Segments that each victim sends at a moment, beside one datagram of a talk.
const SEGMENTS: u16 = 8;
/// From which port on the client opens connections meanwhile, and every how many moments it does.
const LATER: u16 = 30_000;
const OPENS: u64 = 50;

/// Connections that each of the four may have, of all.
const SHARE: u64 = DEFAULT_CAPACITY as u64 / GUESTS as u64;

/// Turns in which the victims' frames of one moment are taken at the latest: a segment that opens a connection and two fragments are more
/// work than one turn has for each.
const PROMPT: usize = 2;

/// What an allocator and a table of rows may leave.
const HEAP_SLACK: usize = 64 << 10;

fn port(place: usize) -> PortId {
    PortId::new(place as u16, 0)
}

/// The four, what time it is, and how often something was sent.
struct Scene {
    rig: Rig,
    now: Instant,
    moments: u64,
    /// Connections that the client opened meanwhile.
    opened: u16,
}

impl Scene {
    fn new() -> Self {
        let config = Config { ring_size: RingSize::new(1024).unwrap(), ..Config::default() };
        let mut rig = Rig::new(&stage::lab(1000, &[WEB], &[DNS]), &config);
        (0..GUESTS).for_each(|place| rig.teach(place as u16, vlan(10), stage::station(place)));
        let mut scene = Self { rig, now: Instant::ZERO, moments: 0, opened: 0 };
        for n in 0..STREAMS {
            for (place, frame) in stage::handshake((CLIENT, 1000 + n), (SERVER, WEB)) {
                scene.passes(place, frame);
            }
        }
        for n in 0..TALKS {
            scene.passes(CLIENT, stage::udp((CLIENT, 2000 + n), (SERVER, DNS)));
            scene.passes(SERVER, stage::udp((SERVER, DNS), (CLIENT, 2000 + n)));
        }
        scene
    }

    /// So many nanoseconds later, all that was sent is taken.
    fn pass(&mut self, nanos: u64) {
        self.now = Instant::from_nanos(self.now.as_nanos() + nanos);
        assert!(self.rig.turns_after(nanos) > 0);
        self.moments += 1;
    }

    fn send(&mut self, from: usize, frames: &[Vec<u8>]) {
        let pair = &mut self.rig.guests[from].pair;
        frames.iter().for_each(|frame| assert!(pair.transmit(frame), "the ring of {from} has room"));
        pair.flush();
    }

    /// What came to `at` from `from`; what others sent there is dropped.
    fn received(&mut self, at: usize, from: usize) -> Vec<Vec<u8>> {
        let (mut frames, source) = (Vec::new(), stage::station(from).octets());
        self.rig.guests[at].pair.receive(|_, frame| {
            if frame[6..12] == source {
                frames.push(frame.to_vec());
            }
        });
        frames
    }

    /// Whether a frame of one victim reaches the other.
    fn reaches(&mut self, from: usize, frame: Vec<u8>) -> bool {
        let frames = [frame];
        self.send(from, &frames);
        self.pass(1000);
        self.received(CLIENT + SERVER - from, from) == frames
    }

    fn passes(&mut self, from: usize, frame: Vec<u8>) {
        assert!(self.reaches(from, frame));
    }

    /// What a victim sends at this moment.
    fn traffic(&self, from: usize) -> Vec<Vec<u8>> {
        let (client, server) = (|port| (CLIENT, port), |port| (SERVER, port));
        let talk = client(2000 + (self.moments % u64::from(TALKS)) as u16);
        let streams =
            (0..SEGMENTS).map(|n| (self.moments as u16).wrapping_mul(SEGMENTS).wrapping_add(n) % STREAMS);
        if from == SERVER {
            let segments = streams.map(|n| stage::segment(server(WEB), client(1000 + n), false));
            return segments.chain([stage::udp(server(DNS), talk)]).collect();
        }
        let segments = streams.map(|n| stage::segment(client(1000 + n), server(WEB), true));
        // A datagram in two fragments as well.
        let whole = || stage::udp(client(3000), server(DNS));
        let parts = [(0, true), (1, false)]
            .map(|(part, more)| stage::fragment(whole(), self.moments as u16, part, more));
        segments.chain([stage::udp(talk, server(DNS))]).chain(parts).collect()
    }

    /// One more moment, at which the attacker sends `attack` and the accomplice `answers`: all that the victims send arrives.
    fn goes_on_beside(&mut self, nanos: u64, attack: &[Vec<u8>], answers: &[Vec<u8>]) {
        let mut traffic = [CLIENT, SERVER].map(|from| self.traffic(from));
        // One more connection: a segment of its handshake at each of three moments.
        let phase = (self.moments % OPENS) as usize;
        let handshake = stage::handshake((CLIENT, LATER + self.opened), (SERVER, WEB));
        if let Some((place, segment)) = handshake.into_iter().nth(phase) {
            traffic[place].push(segment);
            self.opened += u16::from(phase == 2);
        }
        for (place, frames) in traffic.iter().enumerate() {
            self.send(place, frames);
        }
        self.send(ATTACKER, attack);
        self.send(ACCOMPLICE, answers);
        for turn in 0..PROMPT {
            self.rig.turn_after(if turn == 0 { nanos } else { 0 });
        }
        let [client, server] = &traffic;
        assert_eq!(&self.received(SERVER, CLIENT), client, "at moment {}", self.moments);
        assert_eq!(&self.received(CLIENT, SERVER), server, "at moment {}", self.moments);
        // The rest of the attack.
        self.rig.turns_after(0);
        self.now = Instant::from_nanos(self.now.as_nanos() + nanos);
        self.moments += 1;
        self.received(ATTACKER, ACCOMPLICE);
        self.received(ACCOMPLICE, ATTACKER);
    }

    /// Goes on while the attacker sends so many frames at its rate, and says what its attack came to.
    fn withstands(&mut self, attack: Attack, frames: u64) -> Damage {
        // A moment every 64 µs, or as long as one frame takes.
        let each = (attack.rate() * 64 / 1_000_000).max(1);
        let nanos = each * 1_000_000_000 / attack.rate();
        (0..100).for_each(|_| self.goes_on_beside(nanos, &[], &[]));
        let (heap_before, flooded) = (heap(), self.flooded());
        let mut answers = Vec::new();
        for first in (0..frames).step_by(each as usize) {
            let sent: Vec<Vec<u8>> = (first..first + each).map(|n| attack.frame(n)).collect();
            self.goes_on_beside(nanos, &sent, &answers);
            answers = (first..first + each).filter_map(|n| attack.answer(n)).collect();
        }
        drop(answers);
        let more = heap().saturating_sub(heap_before);
        assert!(more < HEAP_SLACK, "{more} bytes more than before");
        assert_eq!(self.flooded(), flooded, "the switch knew where the victims are");
        self.has_what_it_had();
        Damage {
            held: [0, 1, 2, 3].map(|place| self.counts(place)),
            ports: [0, 1, 2, 3].map(|place| self.counters(place)),
        }
    }

    fn flooded(&self) -> u64 {
        [CLIENT, SERVER].map(|place| self.counters(place).from_port.flooded).iter().sum()
    }

    fn counters(&self, place: usize) -> PortCounters {
        self.rig.worker.counters(port(place)).unwrap()
    }

    fn counts(&self, place: usize) -> Counts {
        self.rig.worker.connections().counts_of(place as u16)
    }

    /// The established connections of the client, by its port, as the firewall of `place` has them.
    fn established(&self, place: usize) -> Vec<u16> {
        let mut ports = Vec::new();
        let mut note = |row: Row| {
            let hosts = [CLIENT, SERVER].map(|place| IpAddr::from(stage::address(place)));
            let Ends::Ports { inside, outside } = row.ends else { return };
            let (inside_host, outside_host) = row.hosts.pair();
            if row.port == port(place)
                && hosts.contains(&inside_host)
                && hosts.contains(&outside_host)
                && matches!(row.state, State::Established | State::Replied)
            {
                ports.push(if place == CLIENT { inside } else { outside });
            }
        };
        self.rig.worker.connections().list(0, usize::MAX, self.now, &mut note);
        ports.sort_unstable();
        ports
    }

    /// Connections and FDB entries are there, and no table is larger than it may be.
    fn has_what_it_had(&self) {
        let all = (1000..1000 + STREAMS).chain(2000..2000 + TALKS).chain((0..self.opened).map(|n| LATER + n));
        let all: Vec<u16> = all.collect();
        for place in [CLIENT, SERVER] {
            assert_eq!(self.established(place), all);
            let key = Key::new(SwitchId::new(0), vlan(10), stage::station(place));
            let at = self.rig.fdb.lookup(&self.rig.world, key, self.now);
            assert_eq!(at, Some(Target::Port(port(place))));
            assert_eq!(self.counters(place).from_port.dropped.len(), 0, "of what {place} sent");
        }
        let connections = self.rig.worker.connections();
        assert_eq!(connections.capacity() as u64, SHARE * GUESTS as u64);
        (0..GUESTS).for_each(|place| assert!(self.counts(place).held <= SHARE, "{place}"));
        assert!(!self.rig.fdb.is_cold(), "the FDB has not grown");
        assert!(self.rig.fdb.counts(self.now).entries <= u64::from(stage::MACS) + GUESTS as u64);
        vswitchd::counters::check_law(&[0, 1, 2, 3].map(|place| self.counters(place))).unwrap();
    }
}

/// What an attack came to, by port.
struct Damage {
    held: [Counts; GUESTS],
    ports: [PortCounters; GUESTS],
}

impl Damage {
    /// Copies to `place` that were dropped so.
    fn dropped(&self, place: usize, reason: DropReason) -> u64 {
        self.ports[place].to_port.dropped.get(&reason).copied().unwrap_or(0)
    }
}

#[test]
fn random_5_tuples_at_700_kbit_cost_the_victims_nothing() {
    let frames = 10 * Attack::Tuples.rate();
    let damage = Scene::new().withstands(Attack::Tuples, frames);
    assert!(damage.dropped(SERVER, DropReason::PolicyIngress) > frames * 99 / 100);
    assert!(damage.held[ATTACKER].opened > frames * 99 / 100, "each is one of its own");
}

#[test]
fn half_a_million_syns_a_second_cost_the_victims_nothing() {
    let frames = Attack::Syns.rate();
    let damage = Scene::new().withstands(Attack::Syns, frames);
    let server = damage.held[SERVER];
    assert_eq!(server.held, SHARE, "as many as it may have");
    assert!(server.evicted > frames * 8 / 10, "{server:?}");
}

#[test]
fn a_million_source_macs_cost_the_victims_nothing() {
    let frames = 1_000_000;
    let mut scene = Scene::new();
    let damage = scene.withstands(Attack::Macs, frames);
    let fdb = scene.rig.fdb.counts(scene.now);
    assert_eq!(
        fdb.entries,
        u64::from(stage::MACS) + GUESTS as u64 - 1,
        "the attacker has as many as it may have"
    );
    assert!(fdb.refused > frames * 99 / 100, "{fdb:?}");
    assert!(damage.ports[ATTACKER].from_port.flooded > frames * 99 / 100, "all are for unknown stations");
}

#[test]
fn half_a_million_fragments_a_second_cost_the_victims_nothing() {
    let frames = Attack::Fragments.rate();
    let mut scene = Scene::new();
    let room = scene.rig.worker.connections().fragments().room(port(SERVER));
    let damage = scene.withstands(Attack::Fragments, frames);
    assert_eq!(scene.rig.worker.connections().fragments().room(port(SERVER)), room);
    assert!(damage.dropped(SERVER, DropReason::FragmentIngress) > frames * 49 / 100);
    assert!(damage.ports[SERVER].to_port.delivered > frames * 49 / 100, "the first ones are let in");
}

#[test]
fn connections_without_end_cost_the_victims_nothing() {
    let frames = Attack::Connections.rate();
    let damage = Scene::new().withstands(Attack::Connections, frames);
    for place in [SERVER, ATTACKER, ACCOMPLICE] {
        let counts = damage.held[place];
        assert_eq!(counts.held, SHARE, "{place} has as many as it may have");
        assert!(counts.evicted > frames / 4, "{place}: {counts:?}");
    }
}

/// Who answers every stranger is full at last: then nobody opens one more there until these are over, and what there is goes on.
#[test]
fn a_server_that_answers_every_stranger_is_full_and_keeps_what_it_has() {
    let mut scene = Scene::new();
    let others = SHARE - u64::from(STREAMS + TALKS);
    for first in (0..others).step_by(8) {
        let asked: Vec<Vec<u8>> = (first..first + 8).map(|n| Attack::Connections.frame(2 * n)).collect();
        scene.send(ATTACKER, &asked);
        scene.pass(1000);
        assert_eq!(scene.received(SERVER, ATTACKER), asked);
        let answers: Vec<Vec<u8>> = asked.iter().map(|question| stage::turned(question)).collect();
        scene.send(SERVER, &answers);
        scene.pass(1000);
        assert_eq!(scene.received(ATTACKER, SERVER), answers);
    }
    assert_eq!(scene.counts(SERVER).held, SHARE);
    scene.has_what_it_had();
    let new = |port| stage::tcp((CLIENT, port), (SERVER, WEB), (stage::SYN, 1000, 0));
    assert!(!scene.reaches(CLIENT, new(LATER)));
    let refused = scene.counters(SERVER).to_port.dropped[&DropReason::ConnectionLimitIngress];
    assert_eq!(refused, 1);
    for n in 0..STREAMS {
        scene.passes(CLIENT, stage::segment((CLIENT, 1000 + n), (SERVER, WEB), true));
    }
    // UDP that was answered lasts 120 seconds, and is swept.
    scene.send(ATTACKER, &[Attack::Connections.frame(0)]);
    scene.pass(121_000_000_000);
    let connections = scene.rig.worker.connections();
    connections.sweep(scene.now, connections.capacity());
    assert!(scene.reaches(CLIENT, new(LATER)));
}
