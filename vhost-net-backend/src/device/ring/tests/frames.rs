//! Frames from one guest's ring to another's: nothing lost, nothing twice, nothing changed.

use super::{Wired, publish};
use crate::{
    device::ring::{NoRoom, Rooms, make_visible},
    driver::{Config, MemoryConfig, Piece, Place, ReceiveLayout, Shape},
    features::{EVENT_IDX, IN_ORDER, INDIRECT_DESC, NET_MRG_RXBUF, VERSION_1},
    layout::RingSize,
    net_header,
};
use proptest::prelude::*;
use std::collections::VecDeque;

const PLAIN: [u8; net_header::LEN] = net_header::NetHeader::plain(0).to_bytes();

fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed).wrapping_add((at >> 8) as u8)).collect()
}

fn frames() -> impl Strategy<Value = Vec<(Vec<u8>, Option<Shape>)>> {
    let len = prop_oneof![0usize..14, 14usize..300, 1000usize..3000, 14usize..=65535];
    let place = prop_oneof![Just(Place::Near), Just(Place::AcrossPage), Just(Place::AcrossRegion)];
    let piece = (prop_oneof![0u32..13, 1u32..2000], place).prop_map(|(len, place)| Piece { len, place });
    let shape = (proptest::collection::vec(piece, 1..=16), proptest::option::of(0usize..16))
        .prop_map(|(pieces, indirect_from)| Shape { pieces, indirect_from });
    let one =
        (len, any::<u8>(), proptest::option::of(shape)).prop_map(|(len, s, shape)| (frame(len, s), shape));
    proptest::collection::vec(one, 1..60)
}

fn config() -> impl Strategy<Value = Config> {
    let layout = prop_oneof![
        Just(ReceiveLayout::Single),
        Just(ReceiveLayout::Chained(vec![5])),
        Just(ReceiveLayout::Indirect(vec![12, 1000])),
    ];
    let buffer = prop_oneof![Just(1024u32), Just(2048), Just(65562)];
    (1u32..=10, any::<[bool; 3]>(), layout, buffer, 1u16..6, prop_oneof![Just(0u64), Just(4 << 20)]).prop_map(
        |(log, [mrg, order, event], receive, buffer_size, regions, gap)| Config {
            features: [(mrg, NET_MRG_RXBUF), (order, IN_ORDER), (event, EVENT_IDX)]
                .into_iter()
                .filter(|(on, _)| *on)
                .fold(VERSION_1 | INDIRECT_DESC, |all, (_, feature)| all | feature),
            ring_size: RingSize::new(1 << log).expect("a power of two"),
            receive,
            buffer_size,
            memory: MemoryConfig { regions, gap, ..MemoryConfig::default() },
            ..Config::default()
        },
    )
}

/// Whether a frame fits the receive buffers of an idle guest like this.
fn fits(frame: &[u8], sink: &Config) -> bool {
    let merged = sink.features & NET_MRG_RXBUF != 0;
    merged || frame.len() + net_header::LEN <= sink.buffer_size as usize
}

/// Moves one batch from `source` to `sink`, all but its last `cut` frames; what became of each.
fn turn(source: &mut Wired, sink: &mut Wired, cut: usize) -> Vec<Result<(), NoRoom>> {
    let taken = source.from.harvest(64).expect("an honest ring");
    let decided = taken - cut.min(taken.saturating_sub(1));
    let before = (sink.to.next_avail(), sink.to.next_used());
    let lengths: Vec<u32> = (0..decided).map(|place| source.from.frame(place).len()).collect();
    let mut rooms = Rooms::default();
    let mut lease = sink
        .to
        .reserve(0, &mut rooms, lengths.len(), |room| room.frames(lengths.iter().copied()))
        .expect("an honest ring");
    for place in 0..decided {
        let frame = source.from.frame(place);
        assert_eq!(frame.defect(), None);
        assert_eq!(frame.head().len(), (frame.len() as usize).min(crate::device::ring::HEAD_BYTES));
        let _ = lease.write(place, frame.head(), frame.payload());
    }
    let fates = (0..decided).map(|place| lease.room(place)).collect();
    assert_eq!(sink.to.next_used(), before.1, "nothing shows before it is published");
    publish(&sink.to, lease);
    let used = sink.to.next_used().wrapping_sub(before.1);
    assert_eq!(sink.to.next_avail().wrapping_sub(before.0), used, "what found no room went back");
    source.from.finish(decided);
    make_visible();
    source.from.notify().expect("nothing blocks");
    fates
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Any frame in any shape, in any ring variant: those that found room arrive bit for bit and in order, the others
    /// were told why, and each driver gets every descriptor back.
    #[test]
    fn frames_cross_from_guest_to_guest_bit_for_bit(
        source in config(),
        sink in config(),
        frames in frames(),
        cuts in proptest::collection::vec(0usize..8, 16),
        receive_every in 1usize..4,
    ) {
        let mut to_send: VecDeque<_> = frames.iter().collect();
        let (mut a, mut b) = (Wired::new(&source), Wired::new(&sink));
        let mut expected: VecDeque<&[u8]> = VecDeque::new();
        let (mut on_the_way, mut rounds): (VecDeque<&[u8]>, _) = (VecDeque::new(), 0usize);
        while !to_send.is_empty() || !on_the_way.is_empty() {
            while let Some((frame, shape)) = to_send.front() {
                let sent = match shape {
                    None => a.driver.pair.transmit(frame),
                    Some(shape) => a.driver.pair.transmit_shaped(&PLAIN, frame, shape),
                };
                // A frame that an empty ring does not hold never goes.
                if sent {
                    on_the_way.push_back(frame);
                } else if !on_the_way.is_empty() {
                    break;
                }
                to_send.pop_front();
            }
            a.driver.pair.flush();
            let before = on_the_way.len();
            for fate in turn(&mut a, &mut b, cuts[rounds % cuts.len()]) {
                let frame = on_the_way.pop_front().expect("no frame comes twice");
                match fate {
                    Ok(()) => expected.push_back(frame),
                    Err(NoRoom::Empty) => {}
                    Err(NoRoom::TooSmall) => prop_assert!(!fits(frame, &sink), "{} bytes", frame.len()),
                }
            }
            prop_assert!(before == 0 || on_the_way.len() < before, "a turn gets on");
            rounds += 1;
            if rounds.is_multiple_of(receive_every) || on_the_way.is_empty() {
                b.driver.pair.receive(|header, bytes| {
                    let frame = expected.pop_front().expect("no frame comes twice");
                    assert!(bytes == frame, "{} bytes came as {}", frame.len(), bytes.len());
                    let buffers = (bytes.len() + net_header::LEN).div_ceil(sink.buffer_size as usize);
                    assert_eq!(usize::from(header.num_buffers), buffers);
                });
                prop_assert_eq!(b.driver.pair.fault(), None);
                prop_assert!(expected.is_empty(), "frames were lost");
            }
        }
        a.from.release();
        a.driver.pair.reap();
        prop_assert_eq!(a.driver.pair.fault(), None);
        prop_assert_eq!(a.driver.pair.in_flight(), 0);
        prop_assert!(!a.from.has_work());
    }
}
