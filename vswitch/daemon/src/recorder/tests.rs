//! Rings that wrap, caps that count, and time that is an argument.

use super::*;
use std::time::Duration;
use vswitch_core::{
    drop_reason::DropReason,
    id::{Epoch, PortId},
};

fn at(millis: u64) -> Moment {
    Moment { at: Instant::ZERO + Duration::from_millis(millis), epoch: Epoch::new(1) }
}

fn port(place: u16) -> PortId {
    PortId::new(place, 0)
}

fn dropped(place: u16, reason: DropReason) -> Event {
    Event::Dropped { port: port(place), reason }
}

fn recorder(records: usize) -> Recorder {
    let mut recorder = Recorder::new(records);
    recorder.adopt(4);
    recorder
}

/// All that is held, oldest first, read in pieces of `piece` records.
fn held(recorder: &Recorder, since: u64, piece: usize) -> Vec<Record> {
    let (mut all, mut from) = (Vec::new(), 0);
    loop {
        let piece = recorder.piece(from, at(since).at, Vec::with_capacity(piece));
        if piece.records.is_empty() {
            return all;
        }
        from = piece.next;
        all.extend(piece.records);
    }
}

fn millis(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.at.as_nanos() / 1_000_000).collect()
}

#[test]
fn a_ring_forgets_the_oldest_and_says_since_when_it_is_whole() {
    let mut recorder = recorder(8);
    let moments = |range: std::ops::Range<u64>| range.map(|n| n * 1000).collect::<Vec<_>>();
    for n in 0..8 {
        recorder.event(at(n * 1000), Event::Up { port: port(0) }, 1);
    }
    assert_eq!(millis(&held(&recorder, 0, 100)), moments(0..8));
    assert_eq!(recorder.ring.whole_since(), Instant::ZERO, "nothing was forgotten yet");
    for n in 8..21 {
        recorder.event(at(n * 1000), Event::Up { port: port(0) }, 1);
    }
    for piece in [1, 3, 8, 100] {
        assert_eq!(millis(&held(&recorder, 0, piece)), moments(13..21), "in pieces of {piece}");
        assert_eq!(millis(&held(&recorder, 15_500, piece)), moments(16..21), "in pieces of {piece}");
        assert!(held(&recorder, 20_001, piece).is_empty());
    }
    assert_eq!(recorder.ring.whole_since(), at(13_000).at);
}

#[test]
fn what_is_alike_is_capped_and_counted_and_the_next_window_records_again() {
    let mut recorder = recorder(64);
    let frame = |_| (&[] as &[u8], 20);
    recorder.frames(at(0), dropped(0, DropReason::Runt), 0..10, frame);
    recorder.frames(at(50), dropped(0, DropReason::Runt), 0..10, frame);
    recorder.frames(at(99), dropped(0, DropReason::Runt), 0..1000, frame);
    let first = held(&recorder, 0, 64);
    assert_eq!(first.len(), 16);
    assert!(first[..15].iter().all(|record| record.more == 0));
    assert_eq!(first[15].more, 4 + 1000, "the last one counts the rest");
    recorder.frames(at(99), dropped(0, DropReason::Oversize), 0..1, frame);
    recorder.frames(at(99), dropped(1, DropReason::Runt), 0..1, frame);
    assert_eq!(held(&recorder, 0, 64).len(), 18, "another reason and another port are not alike");
    recorder.frames(at(100), dropped(0, DropReason::Runt), 0..20, frame);
    let second = held(&recorder, 100, 64);
    assert_eq!((second.len(), second[15].more), (16, 4));
    assert!(second.iter().all(|record| record.len == 20 && record.frame.is_none()));
}

#[test]
fn a_sender_uses_up_its_own_records_and_not_those_of_another_to_the_same_receiver() {
    let mut recorder = recorder(64);
    let lost = |from| Event::Lost { port: port(from), to: port(3), reason: DropReason::NoBuffer };
    recorder.event(at(0), lost(0), 1_000_000);
    recorder.event(at(1), lost(1), 1);
    let all = held(&recorder, 0, 64);
    assert_eq!(all.len(), 17);
    assert_eq!((all[15].more, all[16].event), (1_000_000 - 16, lost(1)));
}

#[test]
fn a_flood_leaves_older_records_of_other_causes_in_place() {
    let mut recorder = recorder(WORKER_RECORDS);
    recorder.event(at(0), dropped(1, DropReason::BadSource), 3);
    // A million frames in twenty seconds: sixteen records each tenth of a second.
    for batch in 0..20_000 {
        recorder.event(at(1 + batch), dropped(0, DropReason::TaggedOnAccess), 50);
    }
    let all = held(&recorder, 0, PIECE);
    let told = |event| {
        let records = all.iter().filter(|record| record.event == event);
        records.map(|record| 1 + u64::from(record.more)).sum::<u64>()
    };
    assert_eq!(told(dropped(1, DropReason::BadSource)), 3);
    assert_eq!(told(dropped(0, DropReason::TaggedOnAccess)), 1_000_000, "none is forgotten or counted twice");
    assert!(all.len() < 4000, "{} records", all.len());
}

#[test]
fn a_recorder_of_nothing_keeps_nothing() {
    let mut recorder = recorder(0);
    recorder.event(at(0), dropped(0, DropReason::Runt), 20);
    recorder.event(at(1), Event::Applied, 1);
    assert!(held(&recorder, 0, 8).is_empty());
    assert_eq!(recorder.ring.whole_since(), Instant::ZERO);
}

#[test]
fn a_window_whose_last_record_is_forgotten_goes_on_with_a_new_one() {
    let mut recorder = recorder(8);
    recorder.event(at(0), dropped(0, DropReason::Runt), 20);
    recorder.event(at(1), Event::Applied, 8);
    recorder.event(at(2), dropped(0, DropReason::Runt), 5);
    let last = held(&recorder, 0, 8)[7];
    assert_eq!((last.event, last.more), (dropped(0, DropReason::Runt), 4));
}
