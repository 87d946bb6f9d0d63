//! Time, room and fairness: what is forgotten when, and who makes room for whom.

use super::{ACK, EPOCH, IN, OUT, PORT, RST, SYN, at, key, look_up, open, segment, table};
use vswitch_core::{
    clock::Instant,
    firewall::{
        connections::{Answer, Connections, Event, Key, Opened, Opening, Refusal, Row, State, Timeouts},
        policy::Direction,
    },
    id::{Epoch, PortId},
};

const UDP: Event = Event::Datagram;

fn syn(seq: u32) -> Event {
    Event::Tcp(segment(SYN, seq, 0, 0))
}

fn tcp(flags: u8, seq: u32, ack: u32) -> Event {
    Event::Tcp(segment(flags, seq, ack, 0))
}

fn establish(table: &Connections, key: &Key, now: Instant) {
    assert_eq!(open(table, key, IN, &syn(100), now), Opened::New);
    look_up(table, key, OUT, &tcp(SYN | ACK, 500, 101), now);
    let answer = look_up(table, key, IN, &tcp(ACK, 101, 501), now);
    assert_eq!(answer, Answer::Known { state: State::Established, opener: IN });
}

fn is_established(table: &Connections, key: &Key, now: Instant) -> bool {
    matches!(
        look_up(table, key, IN, &tcp(ACK, 101, 501), now),
        Answer::Known { state: State::Established, .. }
    )
}

fn rows(table: &Connections, now: Instant) -> Vec<Row> {
    let (mut rows, mut next) = (Vec::new(), Some(0));
    while let Some(start) = next {
        next = table.list(start, 5, now, |row| rows.push(row));
    }
    rows
}

#[test]
fn datagrams_of_an_opener_go_on_together_before_they_are_answered_and_those_of_both_ends_after() {
    let (table, key) = (table(64, 64), key(PORT, 17, 1));
    let digest = table.digest(&key);
    assert_eq!(open(&table, &key, OUT, &UDP, at(1)), Opened::New);
    let takes = |from, epoch, now| {
        table.run((digest, table.likely(digest)), from, epoch, at(now)).map(|run| run.takes(&[UDP; 3]).frames)
    };
    assert_eq!(
        (takes(OUT, EPOCH, 31), takes(IN, EPOCH, 31)),
        (Some(3), None),
        "an answer says something new"
    );
    assert_eq!((takes(OUT, EPOCH, 32), takes(OUT, Epoch::new(8), 31)), (None, None), "over; other rules");
    let run = table.run((digest, table.likely(digest)), OUT, EPOCH, at(20)).expect("it goes on");
    let known = Answer::Known { state: State::Unreplied, opener: OUT };
    assert_eq!(run.note(&run.takes(&[UDP])), Some(known));
    assert_eq!(takes(OUT, EPOCH, 50), Some(3), "it lasts from its last datagram on");
    let answered = Answer::Known { state: State::Replied, opener: OUT };
    assert_eq!(look_up(&table, &key, IN, &UDP, at(50)), answered);
    assert_eq!((takes(OUT, EPOCH, 170), takes(IN, EPOCH, 170)), (Some(3), Some(3)));
}

#[test]
fn each_state_has_its_time() {
    let hour = 3600;
    let unreplied = key(PORT, 17, 1);
    let replied = key(PORT, 17, 2);
    let other = key(PORT, 47, 3);
    let running = key(PORT, 6, 4);
    let half_open = key(PORT, 6, 5);
    let table = table(64, 64);
    for key in [&unreplied, &replied, &other] {
        assert_eq!(open(&table, key, OUT, &UDP, at(hour)), Opened::New);
    }
    look_up(&table, &replied, IN, &UDP, at(hour));
    establish(&table, &running, at(hour));
    assert_eq!(open(&table, &half_open, IN, &syn(1), at(hour)), Opened::New);
    let is_there = |key: &Key, after| {
        rows(&table, at(hour + after))
            .iter()
            .any(|row| (row.protocol, row.ends) == (key.protocol(), key.ends()))
    };
    let day = 24 * 3600;
    for (key, seconds) in
        [(&unreplied, 30), (&replied, 120), (&other, 60), (&half_open, 120), (&running, 5 * day)]
    {
        assert!(is_there(key, seconds), "{key:?}");
        assert!(!is_there(key, seconds + 1), "{key:?}");
    }
    assert_eq!(look_up(&table, &unreplied, IN, &UDP, at(hour + 31)), Answer::New, "absent for a look-up too");
    assert_eq!(open(&table, &unreplied, IN, &UDP, at(hour + 31)), Opened::New, "and its entry is taken");
    look_up(&table, &replied, OUT, &UDP, at(hour + 100));
    assert!(is_there(&replied, 220), "a frame begins its time anew");
    let before = table.counts().held;
    let swept: usize = (0..64).map(|_| table.sweep(at(hour + 6 * day), 3)).sum();
    assert_eq!((before, swept as u64, table.counts().held), (5, 5, 0), "64 times 3 are all entries");
}

#[test]
fn times_can_be_set() {
    let timeouts = Timeouts::DEFAULT.with(State::Unreplied, 5);
    assert_eq!((timeouts.of(State::Unreplied), timeouts.of(State::Replied)), (5, 120));
}

#[test]
fn a_flood_of_syns_takes_no_established_connection() {
    const MOST: u32 = 4096;
    let other = PortId::new(2, 0);
    let table = table(2 * MOST as usize, MOST);
    table.admit(other, MOST);
    let settled: Vec<Key> = (0..1000).map(|n| key(PORT, 6, n)).collect();
    settled.iter().for_each(|key| establish(&table, key, at(1)));
    let theirs: Vec<Key> = (0..MOST).map(|n| key(other, 17, n)).collect();
    theirs.iter().for_each(|key| assert_eq!(open(&table, key, OUT, &UDP, at(1)), Opened::New));
    for n in 0..1_000_000u32 {
        let from = if n % 2 == 0 { IN } else { OUT };
        let flood = key(PORT, 6, 10_000 + n);
        assert_eq!(open(&table, &flood, from, &syn(n), at(1 + u64::from(n / 100_000))), Opened::New, "{n}");
    }
    assert_eq!(table.counts_of(1).held, u64::from(MOST));
    assert_eq!(table.counts_of(1).evicted, 1_000_000 + 1000 - u64::from(MOST));
    assert!(settled.iter().all(|key| is_established(&table, key, at(12))));
    assert!(theirs.iter().all(|key| look_up(&table, key, OUT, &UDP, at(12)) != Answer::New));
    let newest = key(PORT, 6, 10_000 + 999_999);
    assert!(matches!(look_up(&table, &newest, OUT, &syn(999_999), at(12)), Answer::Known { .. }));
}

#[test]
fn what_is_over_goes_first_then_what_opens_then_what_is_idle() {
    let table = table(64, 4);
    let [running, ended, opening, idle, fifth, sixth, seventh] =
        std::array::from_fn(|n| key(PORT, 6, n as u32));
    establish(&table, &idle, at(0));
    assert_eq!(open(&table, &opening, IN, &syn(1), at(900)), Opened::New);
    establish(&table, &running, at(900));
    establish(&table, &ended, at(900));
    look_up(&table, &ended, IN, &tcp(RST, 101, 0), at(900));
    let is_there =
        |key: &Key| table.look_up(table.digest(key), IN, &syn(1), Epoch::new(1), at(900)) != Answer::New;
    let stand = |keys: [&Key; 4]| keys.map(is_there);
    establish(&table, &fifth, at(900));
    assert_eq!(stand([&ended, &opening, &idle, &running]), [false, true, true, true]);
    establish(&table, &sixth, at(900));
    assert_eq!(stand([&ended, &opening, &idle, &running]), [false, false, true, true]);
    establish(&table, &seventh, at(900));
    assert_eq!(stand([&ended, &opening, &idle, &running]), [false, false, false, true]);
    let eighth = key(PORT, 6, 8);
    assert_eq!(
        open(&table, &eighth, IN, &syn(1), at(900)),
        Opened::Refused(Refusal::PortLimit),
        "the rest is in use"
    );
    assert_eq!(table.counts_of(1).refused, 1);
}

#[test]
fn a_full_table_takes_room_only_from_the_same_port() {
    let other = PortId::new(2, 0);
    let table = table(10, 100);
    table.admit(other, 100);
    for n in 0..9 {
        assert_eq!(open(&table, &key(other, 17, n), OUT, &UDP, at(1)), Opened::New);
    }
    assert_eq!(open(&table, &key(PORT, 17, 0), OUT, &UDP, at(1)), Opened::New);
    assert_eq!(open(&table, &key(PORT, 17, 1), OUT, &UDP, at(1)), Opened::New);
    assert_eq!((table.counts_of(1).held, table.counts_of(2).held), (1, 9));
    table.forget(1);
    assert_eq!(open(&table, &key(other, 17, 9), OUT, &UDP, at(1)), Opened::New);
    table.admit(PORT, 100);
    assert_eq!(open(&table, &key(PORT, 17, 0), OUT, &UDP, at(1)), Opened::Refused(Refusal::TableFull));
}

#[test]
fn a_port_that_goes_takes_its_connections_with_it() {
    let table = table(1000, 500);
    let next = PortId::new(PORT.index(), PORT.generation() + 1);
    for n in 0..300 {
        open(&table, &key(PORT, 17, n), OUT, &UDP, at(1));
    }
    table.admit(PORT, 400);
    assert_eq!(table.counts().held, 300, "the same port keeps them");
    assert_eq!(open(&table, &key(next, 17, 1), OUT, &UDP, at(1)), Opened::Refused(Refusal::NoPort));
    table.admit(next, 500);
    assert_eq!(table.counts().held, 0);
    assert_eq!(open(&table, &key(PORT, 17, 1), OUT, &UDP, at(1)), Opened::Refused(Refusal::NoPort));
    assert_eq!(open(&table, &key(next, 17, 1), OUT, &UDP, at(1)), Opened::New);
    let nowhere = PortId::new(8, 0);
    assert_eq!(open(&table, &key(nowhere, 17, 1), OUT, &UDP, at(1)), Opened::Refused(Refusal::NoPort));
}

#[test]
fn a_new_policy_is_asked_before_a_frame_is_noted() {
    let table = table(64, 64);
    let (key, next) = (key(PORT, 6, 1), Epoch::new(EPOCH.number() + 1));
    establish(&table, &key, at(1));
    let digest = table.digest(&key);
    let ask = |from: Direction, event: &Event| table.look_up(digest, from, event, next, at(2));
    assert_eq!(ask(OUT, &tcp(ACK, 501, 101)), Answer::Stale { opener: IN });
    assert_eq!(ask(IN, &tcp(RST, 101, 0)), Answer::Stale { opener: IN }, "not even a RST");
    assert!(table.renew(digest, next));
    assert_eq!(ask(OUT, &tcp(ACK, 501, 101)), Answer::Known { state: State::Established, opener: IN });
    assert_eq!(look_up(&table, &key, OUT, &tcp(ACK, 501, 101), at(2)), Answer::Stale { opener: IN });
    assert!(table.end(digest));
    assert_ne!(ask(OUT, &syn(1)), Answer::Stale { opener: IN });
    assert_eq!(table.counts().held, 0);
}

#[test]
fn a_table_can_be_handed_over() {
    let table = table(64, 64);
    let (running, udp) = (key(PORT, 6, 1), key(PORT, 17, 2));
    establish(&table, &running, at(100));
    look_up(&table, &running, IN, &Event::Tcp(segment(ACK, 101, 501, 900)), at(150));
    open(&table, &udp, OUT, &UDP, at(190));
    let mut saved = Vec::new();
    assert_eq!(table.export(0, usize::MAX, at(200), |one| saved.push(one)), None);
    let json = serde_json::to_string(&saved).unwrap();
    let saved: Vec<vswitch_core::firewall::connections::Saved> = serde_json::from_str(&json).unwrap();
    let successor = super::table(128, 64);
    // Another clock, and the policy is asked again.
    for one in &saved {
        assert_eq!(successor.import(one, Epoch::new(0), at(1000)), Ok(()));
        assert_eq!(successor.import(one, Epoch::new(0), at(1000)), Ok(()), "twice is once");
    }
    let (was, is) = (rows(&table, at(200)), rows(&successor, at(1000)));
    let facts = |rows: Vec<Row>| {
        let mut facts: Vec<_> = rows
            .iter()
            .map(|row| {
                format!("{:?}", (row.protocol, row.ends, row.state, row.opener, row.age_secs, row.left_secs))
            })
            .collect();
        facts.sort();
        facts
    };
    assert_eq!(facts(was), facts(is));
    assert_eq!(
        look_up(&successor, &running, OUT, &tcp(ACK, 501, 1001), at(1000)),
        Answer::Stale { opener: IN }
    );
    successor.renew(successor.digest(&running), EPOCH);
    let next = look_up(&successor, &running, OUT, &tcp(ACK, 501, 1001), at(1000));
    assert_eq!(next, Answer::Known { state: State::Established, opener: IN });
    let unsent = look_up(&successor, &running, OUT, &tcp(ACK, 501, 1002), at(1000));
    assert!(matches!(unsent, Answer::Invalid(_)), "with the windows that it had");
}

#[test]
fn the_opener_of_a_picked_up_connection_is_whom_the_rules_name() {
    let table = table(64, 64);
    let key = key(PORT, 6, 1);
    table.pick_up_until(at(30));
    let event = &tcp(ACK, 5, 6);
    let opening =
        Opening { key: &key, digest: table.digest(&key), from: OUT, event, opener: IN, epoch: EPOCH };
    assert_eq!(table.open(&opening, at(1)), Opened::New);
    assert_eq!(
        look_up(&table, &key, OUT, event, at(1)),
        Answer::Known { state: State::Established, opener: IN }
    );
}

#[test]
fn a_million_connections_stand_and_are_found() {
    const MILLION: u32 = 1_000_000;
    let table = table(MILLION as usize, MILLION);
    let opened =
        (0..MILLION).filter(|n| open(&table, &key(PORT, 17, *n), OUT, &UDP, at(1)) == Opened::New).count();
    assert_eq!(opened as u32, MILLION, "the index has room for all of them");
    let known =
        |n: &u32| matches!(look_up(&table, &key(PORT, 17, *n), IN, &UDP, at(1)), Answer::Known { .. });
    assert_eq!((0..MILLION).filter(known).count(), opened);
    assert_eq!(open(&table, &key(PORT, 17, MILLION), OUT, &UDP, at(1)), Opened::Refused(Refusal::PortLimit));
    table.forget(PORT.index());
    assert_eq!(table.counts().held, 0);
}
