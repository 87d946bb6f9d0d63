//! What a hostile guest can write into its rings, row by row (Q1 to Q10), and what becomes of it.

use super::{ALL, Wired, config, words};
use crate::{
    device::ring::{Defect, MAX_BATCH, Payload, Rooms},
    driver::{Config, Descriptor, MemoryConfig, misbehave::RawRing},
    layout::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE},
};

const NOWHERE: u64 = 1 << 50;

fn wired() -> Wired {
    Wired::new(&config(ALL, 16))
}

fn descriptor(addr: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor { addr, len, flags, next }
}

/// A transmitq whose descriptor table is `table`, offered from its first.
fn transmit(table: impl FnOnce(&RawRing) -> Vec<Descriptor>) -> Wired {
    let wired = wired();
    let ring = wired.raw(1);
    for (index, descriptor) in (0..).zip(table(&ring)) {
        ring.set_descriptor(index, descriptor);
    }
    ring.offer(0);
    wired
}

fn refused(table: impl FnOnce(&RawRing) -> Vec<Descriptor>) -> &'static str {
    let mut wired = transmit(table);
    let what = words(wired.from.harvest(MAX_BATCH));
    assert_eq!((wired.from.batch_len(), wired.from.next_avail()), (0, 0), "nothing was taken: {what}");
    what
}

/// The one frame of a legal chain: length and defect; its chain is completed.
fn taken(table: impl FnOnce(&RawRing) -> Vec<Descriptor>) -> (u32, Option<Defect>) {
    let mut wired = transmit(table);
    assert_eq!(wired.from.harvest(MAX_BATCH), Ok(1));
    let frame = wired.from.frame(0);
    let seen = (frame.len(), frame.defect());
    wired.from.finish(1);
    assert_eq!(wired.raw(1).used_index(), 1, "the chain went back");
    seen
}

#[test]
fn q01_a_head_outside_of_the_table() {
    for head in [16, u16::MAX] {
        let mut wired = wired();
        wired.raw(1).offer(head);
        wired.raw(0).set_avail(0, head);
        let refused = "the head of a chain is outside of the descriptor table";
        assert_eq!(words(wired.from.harvest(64)), refused);
        assert_eq!(words(wired.from.harvest(64)), refused, "and the same again");
        assert_eq!(
            words(wired.to.reserve(0, &mut Rooms::default(), 1, |room| room.frames(std::iter::once(60)))),
            refused,
            "and reserve comes back at all"
        );
        assert_eq!((wired.to.next_avail(), wired.to.next_used(), wired.from.next_avail()), (0, 0, 0));
    }
}

#[test]
fn q01_what_was_claimed_before_a_refused_chain_is_given_back() {
    let wired = wired();
    wired.raw(0).set_avail(1, 16);
    words(wired.to.reserve(0, &mut Rooms::default(), 2, |room| room.frames([60, 60].into_iter())));
    assert_eq!((wired.to.next_avail(), wired.to.next_used()), (0, 0));
    assert_eq!(wired.raw(0).used_index(), 0, "the guest sees no buffer that nobody wrote");
    assert_eq!(
        wired
            .to
            .reserve(0, &mut Rooms::default(), 1, |room| room.frames(std::iter::once(60)))
            .expect("the first is honest")
            .room(0),
        Ok(())
    );
}

#[test]
fn q02_a_next_outside_of_the_table() {
    for next in [16, u16::MAX] {
        let what = refused(|ring| vec![descriptor(ring.buffer(0), 60, DESC_NEXT, next)]);
        assert_eq!(what, "a chain leaves its descriptor table");
    }
}

#[test]
fn q03_loops() {
    let own = refused(|ring| vec![descriptor(ring.buffer(0), 60, DESC_NEXT, 0)]);
    let two = refused(|ring| {
        let at = ring.buffer(0);
        vec![descriptor(at, 60, DESC_NEXT, 1), descriptor(at, 0, DESC_NEXT, 0)]
    });
    assert_eq!((own, two), ("a chain loops", "a chain loops"));
    // As long as the table: legal.
    let whole = |ring: &RawRing| {
        let at = ring.buffer(0);
        (1..=16u16).map(|n| descriptor(at, 60, if n < 16 { DESC_NEXT } else { 0 }, n % 16)).collect()
    };
    assert_eq!(taken(whole), (16 * 60 - 12, None));
}

#[test]
fn q04_indirect_tables() {
    let table = |len: u32, flags: u16, inner: Vec<Descriptor>| {
        move |ring: &RawRing| vec![descriptor(ring.fill_table(1, &inner), len, DESC_INDIRECT | flags, 1)]
    };
    let bad = "an indirect table has a bad length or lies outside of guest memory";
    for len in [0, 8, 17, 1 << 20, u32::MAX - 15] {
        assert_eq!(refused(table(len, 0, vec![])), bad, "{len}");
    }
    assert_eq!(refused(|_| vec![descriptor(NOWHERE, 16, DESC_INDIRECT, 0)]), bad);
    let nested = vec![descriptor(0, 16, DESC_INDIRECT, 0)];
    assert_eq!(refused(table(16, 0, nested)), "an indirect table refers to another indirect table");
    assert_eq!(refused(table(16, DESC_NEXT, vec![])), "an indirect descriptor has a next descriptor");
    let out = vec![descriptor(0, 0, DESC_NEXT, 1)];
    assert_eq!(refused(table(16, 0, out)), "a chain leaves its descriptor table");
    let own = vec![descriptor(0, 0, DESC_NEXT, 0)];
    assert_eq!(refused(table(16, 0, own)), "a chain loops");
    // Behind direct descriptors: legal. WRITE on the indirect one means nothing.
    let behind = |ring: &RawRing| {
        let inner = ring.fill_table(1, &[descriptor(ring.buffer(2), 100, 0, 0)]);
        vec![
            descriptor(ring.buffer(0), 12, DESC_NEXT, 1),
            descriptor(inner, 16, DESC_INDIRECT | DESC_WRITE, 0),
        ]
    };
    assert_eq!(taken(behind), (100, None));
}

#[test]
fn q05_lengths_of_zero() {
    let all =
        |ring: &RawRing| vec![descriptor(ring.buffer(0), 0, DESC_NEXT, 1), descriptor(NOWHERE, 0, 0, 0)];
    assert_eq!(taken(all), (0, None), "a runt for the switch to drop");
    let some = |ring: &RawRing| {
        vec![descriptor(NOWHERE, 0, DESC_NEXT, 1), descriptor(ring.fill(0, &[0; 72]), 72, 0, 0)]
    };
    assert_eq!(taken(some), (60, None));
}

#[test]
fn q06_more_bytes_than_a_frame_has() {
    let long = |len: u32, count: u16| {
        move |ring: &RawRing| {
            let at = ring.buffer(0);
            (1..=count).map(|n| descriptor(at, len, if n < count { DESC_NEXT } else { 0 }, n)).collect()
        }
    };
    assert_eq!(taken(long(16_384, 4)), (65_524, None));
    assert_eq!(taken(long(16_400, 4)), (65_588, Some(Defect::Oversize)));
    // 5 GiB, each buffer legal: no fault, no sum that wraps, and no more segments than a frame can use.
    let memory = MemoryConfig { shaped_bytes: 8 << 20, ..MemoryConfig::default() };
    let mut wired = Wired::new(&Config { memory, ..config(ALL, 16) });
    let ring = wired.raw(1);
    let inner: Vec<_> = (1..=1024u16)
        .map(|n| descriptor(ring.buffer(0), 5 << 20, if n < 1024 { DESC_NEXT } else { 0 }, n))
        .collect();
    ring.set_descriptor(0, descriptor(ring.fill_table(1, &inner[..1023]), 16 * 1023, DESC_INDIRECT, 0));
    ring.offer(0);
    assert_eq!(words(wired.from.harvest(64)), "a chain leaves its descriptor table");
    ring.set_descriptor(0, descriptor(ring.fill_table(1, &inner), 16 * 1024, DESC_INDIRECT, 0));
    assert_eq!(words(wired.from.harvest(64)), "a chain has more than 1024 descriptors");
    let mut shorter = inner[..1023].to_vec();
    shorter[1022].flags = 0;
    ring.set_descriptor(0, descriptor(ring.fill_table(1, &shorter), 16 * 1023, DESC_INDIRECT, 0));
    assert_eq!(wired.from.harvest(64), Ok(1));
    assert_eq!(wired.from.frame(0).defect(), Some(Defect::Oversize));
    let Payload::Guest { segments, .. } = wired.from.frame(0).payload() else {
        panic!("the guest's buffers")
    };
    assert!(segments.len() <= 1);
}

#[test]
fn q07_buffers_outside_of_memory() {
    for (addr, len) in [(NOWHERE, 60), (0, 60), (u64::MAX, 2), (u64::MAX - 30, 60)] {
        let what = refused(|_| vec![descriptor(addr, len, 0, 0)]);
        assert_eq!(what, "a buffer lies outside of guest memory", "{addr:#x}+{len}");
    }
    let what = refused(|ring| vec![descriptor(ring.buffer(0), u32::MAX, 0, 0)]);
    assert_eq!(what, "a buffer lies outside of guest memory", "begins inside, ends outside");
}

#[test]
fn q08_the_avail_index_jumps_goes_back_or_names_a_chain_twice() {
    for index in [17, 0x8000, u16::MAX] {
        let mut wired = wired();
        wired.raw(1).set_avail_index(index);
        wired.raw(0).set_avail_index(index);
        let jumped = "avail.idx jumped by more than the ring's size";
        assert_eq!(words(wired.from.harvest(64)), jumped);
        assert_eq!(
            words(wired.to.reserve(0, &mut Rooms::default(), 1, |room| room.frames(std::iter::once(60)))),
            jumped
        );
    }
    let mut wired = wired();
    wired.raw(1).offer(3);
    wired.raw(1).offer(3);
    wired.raw(0).set_avail(1, 0);
    assert_eq!(words(wired.from.harvest(64)), "a chain was made available twice");
    assert_eq!(
        words(wired.to.reserve(0, &mut Rooms::default(), 2, |room| room.frames([60, 60].into_iter()))),
        "a chain was made available twice"
    );
}

#[test]
fn q09_buffers_of_the_wrong_direction() {
    let writable = |ring: &RawRing| vec![descriptor(ring.buffer(0), 72, DESC_WRITE, 0)];
    assert_eq!(taken(writable), (60, Some(Defect::BadDirection)));
    let mixed = |ring: &RawRing| {
        let at = ring.buffer(0);
        vec![descriptor(at, 72, DESC_NEXT, 1), descriptor(at, 8, DESC_WRITE, 0)]
    };
    assert_eq!(taken(mixed), (68, Some(Defect::BadDirection)));
    let wired = wired();
    let ring = wired.raw(0);
    ring.set_descriptor(0, descriptor(ring.buffer(0), 2048, 0, 0));
    assert_eq!(
        words(wired.to.reserve(0, &mut Rooms::default(), 1, |room| room.frames(std::iter::once(60)))),
        "a receive buffer is not writable for the device"
    );
}

#[test]
fn q10_chains_shorter_than_a_header_or_a_frame() {
    for len in [0, 1, 11, 12, 13, 25] {
        let short = |ring: &RawRing| vec![descriptor(ring.fill(0, &[0; 25]), len, 0, 0)];
        assert_eq!(taken(short), (len.saturating_sub(12), None), "a runt for the switch to drop");
    }
    // What an earlier frame left behind is no header of this one.
    let mut wired = transmit(|ring| vec![descriptor(ring.fill(0, &[0xff; 72]), 72, 0, 0)]);
    assert_eq!((wired.from.harvest(64), wired.from.frame(0).defect()), (Ok(1), None));
    assert!(wired.from.frame(0).asks());
    wired.from.finish(1);
    let ring = wired.raw(1);
    ring.set_descriptor(1, descriptor(ring.buffer(0), 1, 0, 0));
    ring.offer(1);
    assert_eq!((wired.from.harvest(64), wired.from.frame(0).defect()), (Ok(1), None));
    assert!(!wired.from.frame(0).asks());
}
