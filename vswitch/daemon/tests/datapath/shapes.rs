//! Frames of any length that lie in memory in any way arrive bit for bit, whatever the two drivers negotiated.

use crate::lab::{DEADLINE, Lab, access, frame, mac, receive, send};
use proptest::{collection::vec, prelude::*, sample::subsequence};
use std::{collections::BTreeMap, time::Instant};
use vhost_net_backend::{
    driver::{Config, Driver, MemoryConfig, Piece, Place, ReceiveLayout, Shape},
    features,
    layout::RingSize,
    net_header::{LEN as HEADER, NetHeader},
};
use vswitch_core::{drop_reason::DropReason, mac::MacAddr};

/// Descriptors that the switch reads of a receiveq for one batch; a burst of ours needs no more.
const WALKED_AT_ONCE: usize = 4096;

/// A frame's length, what decides its bytes, and how it lies in memory.
pub(crate) type Shaped = (usize, u64, Shape);

pub(crate) fn lengths(shortest: usize) -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => shortest..=200usize,
        2 => 201..=2048usize,
        2 => 2049..=65_535usize,
        1 => prop_oneof![Just(shortest), Just(1514), Just(65_535)],
    ]
}

pub(crate) fn shapes(indirect: bool) -> impl Strategy<Value = Shape> {
    let len = prop_oneof![0..=14u32, 1..=200u32, 1..=5000u32, 1..=65_547u32];
    let place =
        prop_oneof![3 => Just(Place::Near), 1 => Just(Place::AcrossPage), 1 => Just(Place::AcrossRegion)];
    let pieces = vec((len, place).prop_map(|(len, place)| Piece { len, place }), 1..=16);
    (pieces, proptest::option::of(0..16usize)).prop_map(move |(pieces, from)| {
        let indirect_from = from.filter(|_| indirect).map(|from| from % pieces.len());
        Shape { pieces, indirect_from }
    })
}

fn memory() -> impl Strategy<Value = MemoryConfig> {
    (1..=5u16, any::<bool>(), any::<bool>()).prop_map(|(regions, gap, sealed)| MemoryConfig {
        regions,
        sealed,
        gap: if gap { 2 << 20 } else { 0 },
        shaped_bytes: 1 << 20,
        ..MemoryConfig::default()
    })
}

/// What a driver negotiates: anything but what `without` takes away.
fn negotiated() -> impl Strategy<Value = u64> {
    let optional =
        vec![features::EVENT_IDX, features::IN_ORDER, features::INDIRECT_DESC, features::NET_MRG_RXBUF];
    subsequence(optional, 0..=4).prop_map(|taken| {
        taken.into_iter().fold(features::VERSION_1 | features::VHOST_USER_PROTOCOL, |all, one| all | one)
    })
}

fn sender() -> impl Strategy<Value = Config> {
    (negotiated(), memory(), prop_oneof![Just(32), Just(256)]).prop_map(|(features, memory, ring)| Config {
        features,
        memory,
        ring_size: RingSize::new(ring).unwrap(),
        ..Config::default()
    })
}

fn receiver() -> impl Strategy<Value = Config> {
    let size = prop_oneof![Just(1024u32), Just(1526), Just(4096), Just(65_562)];
    let cut = prop_oneof![1..=14u32, 15..=1023u32];
    let cuts = vec(cut, 15).prop_map(|mut cuts| {
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    });
    let layout = (0..3u8, cuts, 0..=4u32);
    (negotiated(), memory(), prop_oneof![Just(64), Just(256)], size, layout).prop_map(
        |(features, memory, ring, buffer_size, (kind, mut cuts, log))| {
            let receive = match kind {
                // A chain's length divides the ring's size: 1, 2, 4, 8 or 16 descriptors.
                0 if cuts.len() + 1 >= 1 << log => {
                    cuts.truncate((1 << log) - 1);
                    ReceiveLayout::Chained(cuts)
                }
                1 if features & features::INDIRECT_DESC != 0 => ReceiveLayout::Indirect(cuts),
                _ => ReceiveLayout::Single,
            };
            let ring_size = RingSize::new(ring).unwrap();
            Config { features, memory, ring_size, buffer_size, receive, ..Config::default() }
        },
    )
}

/// What a receiver has for frames, by virtio's rules.
struct Room {
    chains: usize,
    descriptors: usize,
    bytes: usize,
    mergeable: bool,
}

impl Room {
    fn of(config: &Config) -> Self {
        let entries = usize::from(config.ring_size.entries());
        let (chains, descriptors) = match &config.receive {
            ReceiveLayout::Single => (entries, 1),
            ReceiveLayout::Chained(cuts) => (entries / (cuts.len() + 1), cuts.len() + 1),
            ReceiveLayout::Indirect(cuts) => (entries, cuts.len() + 2),
        };
        let mergeable = config.features & features::NET_MRG_RXBUF != 0;
        Self { chains, descriptors, bytes: config.buffer_size as usize, mergeable }
    }

    /// The chains that a frame takes, or why it can never be delivered.
    fn chains_for(&self, frame: usize) -> Result<usize, DropReason> {
        match (frame + HEADER).div_ceil(self.bytes) {
            1 => Ok(1),
            _ if !self.mergeable => Err(DropReason::BufferTooSmall),
            chains if chains > self.chains => Err(DropReason::NoBuffer),
            chains => Ok(chains),
        }
    }
}

/// Queues one frame; when there is no room for it, the sender waits for what is in flight.
pub(crate) fn queue(sender: &mut Driver, frame: &[u8], shape: &Shape) {
    let header = NetHeader::plain(0).to_bytes();
    let end = Instant::now() + DEADLINE;
    while !sender.pair().transmit_shaped(&header, frame, shape) {
        sender.pair().flush();
        assert!(sender.pair().in_flight() > 0, "no room for {} bytes as {shape:?}", frame.len());
        assert!(Instant::now() < end, "the switch completes nothing: {:?}", sender.pair().fault());
        std::thread::yield_now();
    }
}

/// Sends all frames in bursts that the receiver has room for, and compares what arrives with what was sent.
fn exchange(sender: &mut Driver, receiver: &mut Driver, room: &Room, frames: &[Shaped]) -> Lost {
    let mut lost = Lost::new();
    let mut rest = frames;
    while !rest.is_empty() {
        let (mut chains, mut expected) = (room.chains, Vec::new());
        chains = chains.min(WALKED_AT_ONCE / room.descriptors);
        while let Some(((len, seed, shape), after)) = rest.split_first() {
            let needed = room.chains_for(*len);
            let Some(left) = chains.checked_sub(needed.unwrap_or(1)) else { break };
            let sent = frame(mac(1), mac(0), *len, *seed);
            queue(sender, &sent, shape);
            match needed {
                Ok(_) => expected.push(sent),
                Err(reason) => *lost.entry(reason).or_default() += 1,
            }
            (chains, rest) = (left, after);
        }
        sender.pair().flush();
        let arrived = receive(receiver, expected.len());
        assert_eq!(receiver.pair().fault(), None);
        assert_eq!(arrived.len(), expected.len(), "frames of {:?} bytes", lens(&expected));
        for (place, (arrived, sent)) in arrived.iter().zip(&expected).enumerate() {
            assert_eq!(arrived.len(), sent.len(), "frame {place} of {:?}", lens(&expected));
            let differs = arrived.iter().zip(sent).position(|(a, b)| a != b);
            assert_eq!(differs, None, "the first wrong byte of frame {place} of {:?}", lens(&expected));
        }
    }
    lost
}

type Lost = BTreeMap<DropReason, u64>;

fn lens(frames: &[Vec<u8>]) -> Vec<usize> {
    frames.iter().map(Vec::len).collect()
}

/// A lab of two ports in which port 1 has introduced itself, so that frames for it are unicast.
fn two(sending: &Config, receiving: &Config) -> (Lab, Driver, Driver) {
    let lab = Lab::new(&[access(10), access(10)]);
    let (mut sender, mut receiver) = (lab.attach(0, sending), lab.attach(1, receiving));
    send(&mut receiver, &frame(MacAddr::BROADCAST, mac(1), 60, 0));
    assert_eq!(receive(&mut sender, 1).len(), 1);
    (lab, sender, receiver)
}

/// The counters tell the same story, to the frame.
fn told(lab: &Lab, frames: u64, lost: &Lost) {
    let end = lab.wait(|snapshot| snapshot.ports[0].counters.from_port.frames == frames);
    assert_eq!(&end.ports[1].counters.to_port.dropped, lost);
    let delivered = frames - lost.values().sum::<u64>();
    assert_eq!(end.ports[1].counters.to_port.delivered, delivered);
    assert_eq!(end.workers[0].panics, 0);
    lab.lawful();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_frame_in_any_chain_arrives_as_it_was_sent(
        (sending, frames) in sender().prop_flat_map(|sending| {
            let indirect = sending.features & features::INDIRECT_DESC != 0;
            (Just(sending), vec((lengths(14), any::<u64>(), shapes(indirect)), 1..=24))
        }),
        receiving in receiver(),
    ) {
        let (lab, mut sender, mut receiver) = two(&sending, &receiving);
        let lost = exchange(&mut sender, &mut receiver, &Room::of(&receiving), &frames);
        told(&lab, frames.len() as u64, &lost);
    }
}

#[test]
fn the_header_may_be_split_at_every_byte_of_chains_of_every_length() {
    let config = Config {
        memory: MemoryConfig { regions: 3, shaped_bytes: 1 << 20, ..MemoryConfig::default() },
        ..Config::default()
    };
    let (lab, mut sender, mut receiver) = two(&config, &config);
    let mut frames = Vec::new();
    for descriptors in 1..=16usize {
        for split in 0..=14u32 {
            for indirect_from in [None, Some(0), Some(descriptors / 2)] {
                let piece = |at: usize| Piece {
                    len: if at == 0 { split } else { 7 },
                    place: [Place::Near, Place::AcrossPage, Place::AcrossRegion][at % 3],
                };
                let shape = Shape { pieces: (0..descriptors).map(piece).collect(), indirect_from };
                frames.push((14 + descriptors * 9, frames.len() as u64, shape));
            }
        }
    }
    let lost = exchange(&mut sender, &mut receiver, &Room::of(&config), &frames);
    assert_eq!(lost, Lost::new());
    told(&lab, frames.len() as u64, &lost);
}
