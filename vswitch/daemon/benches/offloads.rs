//! What a large frame costs a worker, in one thread: copied as it is, handed on unfinished, with its checksum completed, cut into segments.
//!
//! `cargo bench -p vswitchd --bench offloads -- [--rounds 40]` prints medians of cycles, taken in turn, and the rate beside that of the frame
//! that is only copied. Frames are of 64 KiB, in buffers of 2 KiB, and come from this core's cache: from another core's the copy takes longer,
//! and the rest weighs less.

#[path = "../tests/datapath/description.rs"]
mod description;
#[expect(dead_code, reason = "tests need more of it")]
#[path = "../tests/datapath/rig.rs"]
mod rig;

use description::{access, description, vlan};
use etherparse::PacketBuilder;
use rig::Rig;
use vhost_net_backend::{
    cycles,
    driver::Config,
    features,
    net_header::{F_NEEDS_CSUM, NetHeader},
};
use vswitch_core::mac::MacAddr;
use vswitchd::worker::Turn;

const STATIONS: [MacAddr; 2] = [MacAddr::new([2, 0, 0, 0, 0, 1]), MacAddr::new([2, 0, 0, 0, 0, 2])];
/// Bytes of a frame, and of the payload of a segment.
const LEN: usize = 65_000;
const SEGMENT: u16 = 1448;
/// Frames that a turn takes, all one way: their segments fit a ring of 256.
const BATCH: usize = 4;
const TURNS: usize = 200;

/// Where IPv4's TCP header begins, and the checksum in it.
const PARTIAL: NetHeader =
    NetHeader { flags: F_NEEDS_CSUM, csum_start: 34, csum_offset: 16, ..NetHeader::plain(0) };
const LARGE: NetHeader = NetHeader { gso_type: 1, gso_size: SEGMENT, ..PARTIAL };

/// What is done with the frames, the header that asks for it, and what their receiver takes.
const WAYS: [(&str, NetHeader, u64); 4] = [
    ("copied", NetHeader::plain(0), 0),
    ("handed on unfinished", LARGE, features::NET_GUEST_OFFLOADS),
    ("checksum completed", PARTIAL, 0),
    ("cut into segments", LARGE, 0),
];

struct Bench {
    rig: Rig,
    header: NetHeader,
    frame: Vec<u8>,
    arrive: usize,
}

impl Bench {
    fn new(header: NetHeader, taken: u64) -> Self {
        let config = Config {
            features: Config::default().features | features::NET_HOST_OFFLOADS | taken,
            ..Config::default()
        };
        let mut rig = Rig::new(&description(&[access(10), access(10)]), &config);
        for (place, station) in (0..).zip(STATIONS) {
            rig.teach(place, vlan(10), station);
        }
        let [from, to] = STATIONS.map(MacAddr::octets);
        let builder =
            PacketBuilder::ethernet2(from, to).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(1, 2, 3, 1000);
        let payload: Vec<u8> = (0..LEN - 54).map(|at| (at * 7) as u8).collect();
        let mut frame = Vec::new();
        builder.write(&mut frame, &payload).expect("memory");
        let is_cut = header.gso_size > 0 && taken == 0;
        let arrive = if is_cut { payload.len().div_ceil(SEGMENT.into()) } else { 1 };
        Self { rig, header, frame, arrive }
    }

    /// Takes some turns; cycles a frame.
    fn run(&mut self) -> f64 {
        let (mut spent, header) = (0, self.header.to_bytes());
        for _ in 0..TURNS {
            let pair = &mut self.rig.guests[0].pair;
            (0..BATCH).for_each(|_| assert!(pair.transmit_with(&header, &self.frame), "the ring has room"));
            pair.flush();
            let begin = cycles::now();
            let done = self.rig.turn();
            spent += cycles::now() - begin;
            assert_eq!(done, Turn::Busy(BATCH));
            assert_eq!(self.rig.guests[1].pair.receive(|_, _| {}), BATCH * self.arrive, "nothing is lost");
        }
        spent as f64 / (TURNS * BATCH) as f64
    }
}

fn main() {
    let mut words = std::env::args().skip_while(|word| word != "--rounds").skip(1);
    let rounds: usize = words.next().map_or(40, |word| word.parse().expect("a number"));
    let mut benches = WAYS.map(|(_, header, taken)| Bench::new(header, taken));
    let mut all: [Vec<f64>; WAYS.len()] = Default::default();
    for _ in 0..rounds {
        all.iter_mut().zip(&mut benches).for_each(|(all, bench)| all.push(bench.run()));
    }
    let medians = all.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    });
    for ((what, ..), cycles) in WAYS.iter().zip(medians) {
        println!("{what}: {cycles:.0} cycles a frame, {:.2} of the rate", medians[0] / cycles);
    }
}
