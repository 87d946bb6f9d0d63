//! Limits of interfaces: what passes, what is dropped under which name, and who is not touched.

mod bucket;

use crate::support::lab::{Bench, Lab, access, copy, dropped, frame, mac, no_limits, trunk, vlan};
use std::{num::NonZeroU64, time::Duration};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    clock::Instant,
    decide::{Copy, Fate, Ingress, Rows, TagEdit},
    description::{Limits, Link, Origin, Rates},
    drop_reason::DropReason,
    fdb::{Key, Target},
    firewall::policy::{Action, Direction, Match, Protocol, Rule},
    id::{Epoch, PortId, SwitchId},
    mac::MacAddr,
    route::Translations,
    world::World,
};

fn rate(number: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(number)
}

/// So many frames a second, one at once.
fn frames(number: u64) -> Rates {
    Rates { frames: rate(number), ..Rates::default() }
}

/// A limited port, and a twin of it that is not, and somebody whom both know.
fn pair(change: impl FnOnce(&mut Limits)) -> Lab {
    Lab::new().switch("sw1").port("limited", 0, access(10)).limited(change).port("twin", 0, access(10)).port(
        "server",
        0,
        access(10),
    )
}

const LIMITED: u16 = 0;
const TWIN: u16 = 1;
const SERVER: u16 = 2;

/// Its bench, on which each station is known: their numbers are those of their ports and one more.
fn known(lab: &Lab) -> Bench {
    let bench = lab.bench();
    for port in bench.world.ports() {
        let key = Key::new(SwitchId::new(0), vlan(10), mac(port.id.index() as u8 + 1));
        bench.fdb.learn(key, Target::Port(port.id), port, bench.now);
    }
    bench
}

fn wait(bench: &mut Bench, millis: u64) {
    bench.now = bench.now + Duration::from_millis(millis);
}

/// What became of a frame to one station: whether it was delivered, else why not.
fn outcome((fate, copies): (Fate, Vec<Copy>)) -> Result<(), DropReason> {
    match (fate, &copies[..]) {
        (Fate::Dropped(reason), []) => Err(reason),
        (Fate::Unicast, [copy]) => copy.outcome.map(drop),
        other => panic!("{other:?}"),
    }
}

/// How many of so many frames of one station to another are delivered; the others are dropped for this reason, the frame or its copy.
fn passing(bench: &mut Bench, (from, to): (u16, u16), number: usize, reason: DropReason) -> usize {
    let mut passed = 0;
    for _ in 0..number {
        match outcome(bench.pass(from, from as u8 + 1, to as u8 + 1, None)) {
            Ok(()) => passed += 1,
            Err(why) => assert_eq!(why, reason),
        }
    }
    passed
}

#[test]
fn frames_from_a_guest_are_as_many_a_second_as_it_may_send() {
    let mut bench = known(&pair(|limits| {
        limits.egress = Rates { frames: rate(100), burst_micros: 50_000, ..Rates::default() };
    }));
    let sent =
        |bench: &mut Bench, number| passing(bench, (LIMITED, SERVER), number, DropReason::FrameRateEgress);
    assert_eq!(sent(&mut bench, 20), 5, "the burst");
    wait(&mut bench, 10);
    assert_eq!(sent(&mut bench, 20), 1);
    wait(&mut bench, 1000);
    assert_eq!(sent(&mut bench, 20), 5, "no more is saved up");
    assert!(
        bench.story().contains("line 2 gives it `limits: { egress: { frame-rate: 100pps } }`"),
        "{}",
        bench.story()
    );
    assert_eq!(passing(&mut bench, (TWIN, SERVER), 1000, DropReason::FrameRateEgress), 1000);
    assert_eq!(passing(&mut bench, (SERVER, LIMITED), 1000, DropReason::FrameRateIngress), 1000, "no limit");
}

#[test]
fn frames_to_a_guest_are_as_many_a_second_as_it_may_get() {
    let mut bench = known(&pair(|limits| limits.ingress = frames(10)));
    let sent = |bench: &mut Bench, from, number| {
        passing(bench, (from, LIMITED), number, DropReason::FrameRateIngress)
    };
    assert_eq!(sent(&mut bench, SERVER, 10), 1);
    assert_eq!(sent(&mut bench, TWIN, 10), 0, "whoever sends them");
    let (fate, copies) = bench.send(SERVER, &frame(mac(3), MacAddr::BROADCAST, None));
    assert_eq!(fate, Fate::Flooded);
    let lost: Vec<_> = copies.iter().map(|copy| (copy.to, copy.outcome.err())).collect();
    assert_eq!(lost, [(LIMITED, Some(DropReason::FrameRateIngress)), (TWIN, None)]);
    assert!(bench.story().contains("frame-rate-ingress"), "{}", bench.story());
    wait(&mut bench, 100);
    assert_eq!(sent(&mut bench, SERVER, 10), 1);
    assert_eq!(passing(&mut bench, (LIMITED, SERVER), 100, DropReason::FrameRateEgress), 100);
}

#[test]
fn bits_are_those_of_whole_frames_and_a_long_one_is_late_but_not_lost() {
    let mut bench = known(&pair(|limits| {
        limits.egress = Rates { bits: rate(60 * 8 * 10), burst_micros: 200_000, ..Rates::default() };
    }));
    let sent =
        |bench: &mut Bench, number| passing(bench, (LIMITED, SERVER), number, DropReason::BitRateEgress);
    assert_eq!(sent(&mut bench, 10), 2, "of 60 bytes");
    wait(&mut bench, 200);
    let long = build::raw(Ethernet { src: mac(1), dst: mac(3), tag: None }, 0x88b5, &[0; 586]);
    let fate = bench.send(LIMITED, &long).0;
    assert_eq!(fate, Fate::Unicast, "longer than the burst, at a full bucket");
    wait(&mut bench, 900);
    assert_eq!(sent(&mut bench, 10), 1, "its 600 bytes take a second, less the burst");
    assert_eq!(bench.send(LIMITED, &long), dropped(DropReason::BitRateEgress));
}

#[test]
fn who_meets_two_limits_gets_what_the_lower_one_lets_pass() {
    let mut bench = known(&pair(|limits| {
        limits.egress = Rates { bits: rate(60 * 8 * 90), frames: rate(100), ..Rates::default() };
    }));
    let mut passed = 0;
    for _ in 0..10_000 {
        wait(&mut bench, 1);
        passed += usize::from(bench.pass(LIMITED, 1, 3, None).0 == Fate::Unicast);
    }
    // Each limit alone lets a frame pass every 10 or 12 milliseconds.
    assert!((830..=834).contains(&passed), "{passed}");
}

#[test]
fn an_imagined_frame_is_told_the_truth_and_takes_nothing() {
    let mut lab = pair(|limits| {
        limits.egress = frames(1);
        limits.storm.broadcast = rate(1);
        limits.drops_other_macs = true;
    });
    lab.description.ports[0].as_mut().unwrap().mac_limit = 1;
    let mut bench = known(&lab);
    let imagine = |bench: &mut Bench, src, dst| {
        bench.learning = false;
        let fate = bench.send(LIMITED, &frame(mac(src), dst, None)).0;
        bench.learning = true;
        fate
    };
    for _ in 0..3 {
        assert_eq!(imagine(&mut bench, 1, mac(3)), Fate::Unicast);
        assert_eq!(imagine(&mut bench, 1, MacAddr::BROADCAST), Fate::Flooded);
    }
    assert_eq!(imagine(&mut bench, 77, mac(3)), Fate::Dropped(DropReason::MacLimit));
    assert!(bench.story().contains("gives it `limits: { macs: 1 }`"), "{}", bench.story());
    assert_eq!(bench.broadcast(LIMITED, 1, None), [TWIN, SERVER]);
    assert_eq!(imagine(&mut bench, 1, mac(3)), Fate::Dropped(DropReason::FrameRateEgress));
    wait(&mut bench, 999);
    assert_eq!(imagine(&mut bench, 1, mac(3)), Fate::Dropped(DropReason::FrameRateEgress));
    wait(&mut bench, 1);
    assert_eq!(imagine(&mut bench, 1, mac(3)), Fate::Unicast);
}

#[test]
fn a_storm_of_each_kind_is_cut_under_its_own_name() {
    let group = MacAddr::new([1, 0, 0x5e, 0, 0, 1]);
    let mut bench = known(&pair(|limits| {
        limits.storm.broadcast = rate(10);
        limits.storm.multicast = rate(20);
        limits.storm.unknown_unicast = rate(30);
    }));
    for _ in 0..2 {
        for (dst, most, reason) in [
            (MacAddr::BROADCAST, 10, DropReason::StormBroadcast),
            (group, 20, DropReason::StormMulticast),
            (mac(99), 30, DropReason::StormUnknownUnicast),
        ] {
            for n in 0..50 {
                let fate = bench.send(LIMITED, &frame(mac(1), dst, None)).0;
                let expected = if n < most { Fate::Flooded } else { Fate::Dropped(reason) };
                assert_eq!(fate, expected, "{n} to {dst}");
            }
            assert_eq!(bench.send(TWIN, &frame(mac(2), dst, None)).0, Fate::Flooded, "another's");
        }
        let calm = passing(&mut bench, (LIMITED, SERVER), 100, DropReason::StormUnknownUnicast);
        assert_eq!(calm, 100, "who is known is no storm");
        // A second, and what the rounding of thirty frames adds.
        wait(&mut bench, 1001);
    }
}

#[test]
fn a_flood_over_several_switches_counts_once() {
    let lab = Lab::new().switch("a").switch("b").switch("c");
    let lab = lab.join(0, 1, trunk(&[10], None)).join(1, 2, trunk(&[10], None));
    let lab = lab.port("noisy", 0, access(10)).limited(|limits| {
        limits.storm.broadcast = rate(2);
        limits.storm.unknown_unicast = rate(1);
    });
    let mut bench = lab.port("x", 1, access(10)).port("y", 2, access(10)).bench();
    for _ in 0..2 {
        assert_eq!(bench.broadcast(0, 1, None), [1, 2]);
    }
    let storm = bench.send(0, &frame(mac(1), MacAddr::BROADCAST, None));
    assert_eq!(storm, dropped(DropReason::StormBroadcast));
    // Known at the first switch, and at no other: flooded there.
    let key = Key::new(SwitchId::new(0), vlan(10), mac(50));
    let port = bench.world.port(1).expect("it is there");
    bench.fdb.learn(key, Target::Trunk(SwitchId::new(1)), port, bench.now);
    assert_eq!(bench.pass(0, 1, 50, None).0, Fate::Flooded);
    assert_eq!(bench.pass(0, 1, 50, None), dropped(DropReason::StormUnknownUnicast));
}

/// The limited port may have two addresses.
fn two_macs(sticky: bool) -> Lab {
    let mut lab = pair(|limits| (limits.drops_other_macs, limits.sticky_macs) = (true, sticky));
    lab.description.ports[0].as_mut().unwrap().mac_limit = 2;
    lab
}

#[test]
fn frames_of_one_address_too_many_are_dropped_until_another_is_forgotten() {
    let mut bench = two_macs(false).bench();
    for station in [11, 12, 11] {
        assert_eq!(bench.pass(LIMITED, station, 99, None).0, Fate::Flooded);
    }
    assert_eq!(bench.pass(LIMITED, 13, 99, None), dropped(DropReason::MacLimit));
    assert!(bench.story().contains("did not learn"), "{}", bench.story());
    assert!(bench.story().contains("line 2 gives it `limits: { macs: 2 }`"), "{}", bench.story());
    assert_eq!(bench.pass(TWIN, 13, 99, None).0, Fate::Flooded, "elsewhere it may be");
    // One of them moves away, and so there is room.
    assert_eq!(bench.pass(TWIN, 11, 99, None).0, Fate::Flooded);
    assert_eq!(bench.pass(LIMITED, 14, 99, None).0, Fate::Flooded);
    assert_eq!(bench.pass(LIMITED, 13, 99, None), dropped(DropReason::MacLimit), "nor may it take one");
}

#[test]
fn an_address_that_the_file_gives_to_another_is_one_too_many() {
    let mut lab = two_macs(false);
    lab.description.ports[usize::from(TWIN)].as_mut().unwrap().mac = Some(mac(2));
    let mut bench = lab.bench();
    assert_eq!(bench.pass(LIMITED, 2, 99, None), dropped(DropReason::MacLimit));
    bench.learning = false;
    assert_eq!(bench.pass(LIMITED, 2, 99, None), dropped(DropReason::MacLimit));
}

#[test]
fn without_the_word_an_address_too_many_passes_and_is_not_learned() {
    let mut lab = pair(|_| {});
    lab.description.ports[0].as_mut().unwrap().mac_limit = 1;
    let mut bench = lab.bench();
    for station in 11..20 {
        assert_eq!(bench.pass(LIMITED, station, 99, None).0, Fate::Flooded);
    }
    assert_eq!(bench.fdb.counts(bench.now).entries, 1);
}

fn rows(bench: &Bench) -> Vec<(MacAddr, bool)> {
    let rows = bench.fdb.rows(&bench.world, bench.now);
    let mut rows: Vec<_> = rows.map(|row| (row.mac, row.is_sticky && !row.is_static)).collect();
    rows.sort_unstable_by_key(|(mac, _)| mac.octets());
    rows
}

#[test]
fn sticky_addresses_neither_age_nor_move_nor_make_room() {
    let mut bench = two_macs(true).bench();
    for station in [11, 12] {
        assert_eq!(bench.pass(LIMITED, station, 99, None).0, Fate::Flooded);
    }
    assert_eq!(rows(&bench), [(mac(11), true), (mac(12), true)]);
    wait(&mut bench, 1_000_000_000);
    (0..64).for_each(|_| bench.fdb.sweep(bench.now, 1024));
    assert_eq!(bench.pass(LIMITED, 13, 99, None), dropped(DropReason::MacLimit));
    assert!(bench.story().contains("gives it `limits: { macs: 2, sticky-macs: true }`"), "{}", bench.story());
    // Another claims it: that one's frame passes, for it has no limit, and nothing is learned.
    assert_eq!(bench.pass(TWIN, 11, 99, None).0, Fate::Flooded);
    assert!(bench.story().contains("is sticky there"), "{}", bench.story());
    assert_eq!(bench.pass(SERVER, 3, 11, None), (Fate::Unicast, vec![copy(LIMITED, TagEdit::Keep)]));
    assert_eq!(bench.pass(LIMITED, 12, 3, None).0, Fate::Unicast, "they go on");
    assert_eq!(rows(&bench), [(mac(3), false), (mac(11), true), (mac(12), true)]);
}

#[test]
fn sticky_addresses_stay_over_an_apply_and_go_with_the_word() {
    let mut lab = two_macs(true);
    let mut bench = lab.bench();
    for station in [11, 12] {
        bench.pass(LIMITED, station, 99, None);
    }
    lab.description.epoch = Epoch::new(2);
    bench.adopt(&lab);
    assert_eq!(rows(&bench), [(mac(11), true), (mac(12), true)]);
    assert_eq!(bench.pass(LIMITED, 13, 99, None), dropped(DropReason::MacLimit));
    // Without the word they are learned as all others are; with it again, anew.
    bench.adopt(&two_macs(false));
    assert_eq!(rows(&bench), []);
    for station in [13, 14] {
        assert_eq!(bench.pass(LIMITED, station, 99, None).0, Fate::Flooded);
    }
    bench.adopt(&lab);
    assert_eq!(bench.pass(LIMITED, 15, 99, None).0, Fate::Flooded);
    assert_eq!(rows(&bench), [(mac(15), true)]);
}

#[test]
fn addresses_that_a_guest_goes_on_using_over_an_apply_become_sticky() {
    let mut bench = two_macs(false).bench();
    let mut lab = two_macs(true);
    lab.description.epoch = Epoch::new(2);
    bench.pass(LIMITED, 11, 99, None);
    let new = World::compile_after(&lab.description, &bench.world).expect("a lab");
    bench.fdb.install(&new);
    // A worker that still decides by the old World learns the address as one that ages; another one is ahead of it.
    bench.pass(LIMITED, 11, 99, None);
    assert_eq!(rows(&bench), [(mac(11), false)]);
    bench.world = new;
    bench.pass(LIMITED, 12, 99, None);
    bench.fdb.settle(&bench.world);
    assert_eq!(rows(&bench), [(mac(12), true)]);
    assert_eq!(bench.pass(LIMITED, 11, 99, None).0, Fate::Flooded);
    assert_eq!(rows(&bench), [(mac(11), true), (mac(12), true)]);
    assert_eq!(bench.pass(LIMITED, 13, 99, None), dropped(DropReason::MacLimit));
}

#[test]
fn a_sticky_address_is_decided_the_short_way_and_does_not_change() {
    let mut bench = two_macs(true).bench();
    bench.pass(LIMITED, 11, 99, None);
    bench.pass(SERVER, 3, 99, None);
    for _ in 0..3 {
        wait(&mut bench, 5000);
        let switch = bench.switch();
        let one = frame(mac(11), mac(3), None);
        let (first, len) = (one.first_chunk().expect("it is long enough"), one.len() as u32);
        let (ingress, mut batch) = (Ingress::new(switch, LIMITED), Rows::default());
        ingress.read(|at| (at..1).map(move |_| (Some(first), len)), &mut batch);
        ingress.place(&mut batch);
        let mut ways = 0;
        let from = |at| (at..1).map(|_| (&one[..], len));
        ingress.ways(&mut batch, from, &mut Translations::default(), |way, frames| {
            assert_eq!(way.to, SERVER);
            ways += frames.len();
        });
        assert_eq!(ways, 1);
    }
    assert!(rows(&bench).contains(&(mac(11), true)));
}

#[test]
fn workers_that_learn_at_once_learn_no_more_than_the_limit() {
    for round in 0..50u8 {
        let mut lab = pair(|limits| limits.drops_other_macs = true);
        lab.description.ports[0].as_mut().unwrap().mac_limit = 5;
        let bench = lab.bench();
        let (fdb, world) = (&bench.fdb, &bench.world);
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                scope.spawn(move || {
                    let port = world.port(LIMITED).expect("it is there");
                    for n in 0..50 {
                        let station = MacAddr::new([2, 1, round, thread, 0, n]);
                        let key = Key::new(SwitchId::new(0), vlan(10), station);
                        fdb.learn(key, Target::Port(port.id), port, Instant::ZERO);
                    }
                });
            }
        });
        assert_eq!(fdb.counts(Instant::ZERO).entries, 5);
    }
}

/// `pc` may open and be opened two UDP connections a second; anything may pass.
fn talkative(stateful: bool) -> Bench {
    let rule = |direction| Rule {
        log: false,
        direction,
        action: Action::Allow,
        stateful,
        matches: Match { protocol: Protocol::Number(17), ..Match::default() },
        origin: Origin { line: 1, column: 1 },
    };
    let lab = Lab::new()
        .group("udp", &[rule(Direction::Ingress), rule(Direction::Egress)])
        .switch("sw1")
        .port("pc", 0, access(10))
        .guarded(1, &[0])
        .limited(|limits| {
            let two = Rates { connections: rate(2), ..Rates::default() };
            (limits.egress, limits.ingress) = (two, two);
        })
        .port("twin", 0, access(10))
        .guarded(2, &[0])
        .port("server", 0, access(10));
    known(&lab)
}

fn datagram(bench: &mut Bench, from: u8, to: u8, ports: (u16, u16)) -> Result<(), DropReason> {
    let link = Ethernet { src: mac(from), dst: mac(to), tag: None };
    let addresses = Addresses::V4([10, 0, 0, from].into(), [10, 0, 0, to].into());
    outcome(bench.send(u16::from(from) - 1, &build::udp(link, addresses, ports, b"hello")))
}

#[test]
fn connections_are_opened_as_fast_as_they_may_be_in_each_direction() {
    let mut bench = talkative(true);
    for (from, to, reason) in
        [(1, 3, DropReason::ConnectionRateEgress), (3, 1, DropReason::ConnectionRateIngress)]
    {
        for port in [1, 2] {
            assert_eq!(datagram(&mut bench, from, to, (port, 9)), Ok(()));
        }
        bench.learning = false;
        assert_eq!(datagram(&mut bench, from, to, (3, 9)), Err(reason), "imagined");
        bench.learning = true;
        assert_eq!(datagram(&mut bench, from, to, (3, 9)), Err(reason));
        assert!(bench.story().contains("too many connections are opened in a second"), "{}", bench.story());
        for port in [1, 2] {
            assert_eq!(datagram(&mut bench, from, to, (port, 9)), Ok(()), "what is open goes on");
            assert_eq!(datagram(&mut bench, to, from, (9, port)), Ok(()), "and is answered");
        }
    }
    for port in 1..50 {
        assert_eq!(datagram(&mut bench, 2, 3, (port, 9)), Ok(()), "another's");
    }
    wait(&mut bench, 500);
    assert_eq!(datagram(&mut bench, 1, 3, (3, 9)), Ok(()));
    assert_eq!(datagram(&mut bench, 1, 3, (4, 9)), Err(DropReason::ConnectionRateEgress));
    assert_eq!(bench.connections.counts_of(0).held, 5);
}

#[test]
fn a_connection_for_which_there_is_no_room_takes_nothing_from_the_limit() {
    for (from, to, [full, fast]) in [
        (1, 3, [DropReason::ConnectionLimitEgress, DropReason::ConnectionRateEgress]),
        (3, 1, [DropReason::ConnectionLimitIngress, DropReason::ConnectionRateIngress]),
    ] {
        let mut bench = talkative(true);
        bench.connections.admit(PortId::new(0, 0), 0);
        for port in 1..50 {
            assert_eq!(datagram(&mut bench, from, to, (port, 9)), Err(full), "{port}");
        }
        bench.connections.admit(PortId::new(0, 0), 100);
        for port in [1, 2] {
            assert_eq!(datagram(&mut bench, from, to, (port, 9)), Ok(()));
        }
        assert_eq!(datagram(&mut bench, from, to, (3, 9)), Err(fast));
    }
}

#[test]
fn what_opens_no_connection_meets_no_limit_of_connections() {
    let mut bench = talkative(false);
    for port in 1..50 {
        assert_eq!(datagram(&mut bench, 1, 3, (port, 9)), Ok(()));
    }
    let mut bench = talkative(true);
    for _ in 0..50 {
        assert_eq!(bench.broadcast(0, 1, None), [] as [u16; 0], "no rule allows it");
    }
    assert_eq!(datagram(&mut bench, 1, 3, (1, 9)), Ok(()));
}

#[test]
fn an_applied_file_gives_nobody_more_unless_it_says_so() {
    let mut bench = known(&pair(|limits| limits.egress = frames(1)));
    let sent = |bench: &mut Bench| passing(bench, (LIMITED, SERVER), 5, DropReason::FrameRateEgress);
    assert_eq!(sent(&mut bench), 1);
    // The same on another line, with a change elsewhere.
    let mut same = pair(|limits| limits.egress = frames(1));
    let ports = &mut same.description.ports;
    ports[0].as_mut().unwrap().limits.as_mut().unwrap().origin.line = 77;
    ports[1].as_mut().unwrap().mtu = Some(9000);
    bench.adopt(&same);
    assert_eq!(sent(&mut bench), 0);
    assert!(bench.story().contains("line 77 gives it"), "{}", bench.story());
    bench.adopt(&pair(|limits| limits.egress = frames(2)));
    assert_eq!(sent(&mut bench), 1, "another limit begins full");
    bench.adopt(&pair(|_| {}));
    assert_eq!(sent(&mut bench), 5);
    // Another interface in the same place has its own.
    bench.adopt(&same);
    assert_eq!(sent(&mut bench), 1);
    same.description.ports[0].as_mut().unwrap().id = PortId::new(0, 1);
    bench.adopt(&same);
    assert_eq!(bench.pass(LIMITED, 1, 3, None).0, Fate::Unicast);
}

#[test]
fn a_wire_has_rates_at_either_end() {
    let wire = |peer| Link::Wire { peer: PortId::new(peer, 0) };
    let lab = Lab::new()
        .linked("a", wire(1))
        .limited(|limits| (limits.egress, limits.ingress) = (frames(1), frames(1)))
        .linked("b", wire(0));
    let mut bench = lab.bench();
    assert_eq!(bench.pass(0, 1, 2, None).0, Fate::Unicast);
    assert_eq!(bench.pass(0, 1, 2, None), dropped(DropReason::FrameRateEgress));
    assert_eq!(bench.pass(1, 2, 1, None).1[0].outcome, Ok(TagEdit::Keep));
    assert_eq!(bench.pass(1, 2, 1, None).1[0].outcome, Err(DropReason::FrameRateIngress));
}

#[test]
fn what_rules_keep_away_takes_nothing_from_what_is_let_in() {
    let open = Rule {
        log: false,
        direction: Direction::Ingress,
        action: Action::Allow,
        stateful: true,
        matches: Match { protocol: Protocol::Number(17), ..Match::default() },
        origin: Origin { line: 1, column: 1 },
    };
    let lab = Lab::new().group("udp", &[open]).switch("sw1").port("pc", 0, access(10)).guarded(1, &[0]);
    let lab =
        lab.limited(|limits| limits.ingress = frames(1)).port("x", 0, access(10)).port("y", 0, access(10));
    let mut bench = known(&lab);
    for _ in 0..10 {
        assert_eq!(bench.pass(1, 2, 1, None).1[0].outcome, Err(DropReason::PolicyIngress));
    }
    assert_eq!(datagram(&mut bench, 3, 1, (1, 9)), Ok(()));
    assert_eq!(datagram(&mut bench, 3, 1, (1, 9)), Err(DropReason::FrameRateIngress));
}

/// How many of a batch's frames to one station are delivered, if they are decided together.
fn passing_together(bench: &Bench, port: u16, frames: &[Vec<u8>]) -> usize {
    let (mut ingress, mut rows) = (Ingress::new(bench.switch(), port), Rows::default());
    let lens = |frame: &Vec<u8>| frame.len() as u32;
    ingress.read(|at| frames[at..].iter().map(|frame| (frame.first_chunk(), lens(frame))), &mut rows);
    ingress.place(&mut rows);
    let mut passed = 0;
    loop {
        let from = |at: usize| frames[at..].iter().map(|frame| (&frame[..], lens(frame)));
        ingress.ways(&mut rows, from, &mut Translations::default(), |_, places| passed += places.len());
        let Some(frame) = frames.get(rows.decided()) else { return passed };
        let mut copies = vec![];
        let fate = ingress.decide(frame, (lens(frame), lens(frame)), &mut copies).fate;
        passed += usize::from(outcome((fate, copies)).is_ok());
        rows.skip();
    }
}

#[test]
fn a_limit_holds_for_frames_that_are_decided_together_also_in_connections() {
    let open = |direction| Rule {
        log: false,
        direction,
        action: Action::Allow,
        stateful: true,
        matches: Match { protocol: Protocol::Number(17), ..Match::default() },
        origin: Origin { line: 1, column: 1 },
    };
    let five = Rates { burst_micros: 5_000_000, ..frames(1) };
    for (guarded, limited) in [(false, 0), (false, 1), (true, 0), (true, 1), (false, 9), (true, 9)] {
        let mut lab =
            Lab::new().group("udp", &[open(Direction::Egress), open(Direction::Ingress)]).switch("sw1");
        for place in 0..2 {
            lab = lab.port(&format!("n{place}"), 0, access(10));
            if guarded {
                lab = lab.guarded(place + 1, &[0]);
            }
        }
        if let Some(Some(port)) = lab.description.ports.get_mut(limited) {
            let mut limits = no_limits(port.origin);
            let way = if limited == 0 { &mut limits.egress } else { &mut limits.ingress };
            *way = five;
            port.limits = Some(limits);
        }
        let mut bench = known(&lab);
        // There, back, and there: then a connection is established, and three tokens are left.
        for (from, to, ports) in [(1, 2, (7, 9)), (2, 1, (9, 7)), (1, 2, (7, 9))] {
            assert_eq!(datagram(&mut bench, from, to, ports), Ok(()));
        }
        let link = Ethernet { src: mac(1), dst: mac(2), tag: None };
        let addresses = Addresses::V4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let batch = vec![build::udp(link, addresses, (7, 9), b"hello"); 20];
        let expected = if limited < 2 { 3 } else { 20 };
        assert_eq!(passing_together(&bench, 0, &batch), expected, "{guarded} {limited}");
    }
}
