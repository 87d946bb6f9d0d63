//! One worker's turns over two ports, in one thread: cycles a frame here, instructions a frame under callgrind.
//!
//! `cargo bench -p vswitchd --bench turn -- [--batch 32] [--turns 100000] [--size 60] [--macs 1] [--dropped | --stalled] [--no-recorder]` prints cycles; `--macs`
//! is how many stations there are behind each port, which take turns; with `--dropped` no frame may enter (they are tagged, the ports are
//! access ports), with `--stalled` no guest gives its buffers back; `--compare-recorder` has it with a recorder and without in turn. Under `valgrind --tool=callgrind
//! --toggle-collect='*Worker*turn*'` only turns are counted; two runs with unlike `--turns` differ by nothing but turns
//! (`benches/instructions` does that).

#[path = "../tests/datapath/description.rs"]
mod description;
#[path = "../tests/datapath/rig.rs"]
mod rig;

use description::{access, description, vlan};
use rig::Rig;
use vhost_net_backend::{
    cycles,
    driver::{Config, unwired::Unwired},
    features,
    layout::RingSize,
};
use vswitch_core::{
    build::{self, Ethernet},
    mac::MacAddr,
    vlan::Tci,
};
use vswitchd::worker::Turn;

/// A tag that makes a frame one of VLAN 10.
const TAG: Tci = Tci::from_bits(10);

/// The value of `--name`, or what it is without.
fn option(name: &str, otherwise: usize) -> usize {
    let mut words = std::env::args().skip_while(|word| word != name).skip(1);
    words.next().map_or(otherwise, |word| word.parse().expect("a number"))
}

/// Station `n` behind port `place`.
fn station(place: u16, n: usize) -> MacAddr {
    let [a, b, c, d] = (n as u32).to_be_bytes();
    MacAddr::new([2, place as u8, a, b, c, d])
}

/// What is sent, and how.
#[derive(Clone, Copy)]
struct Course {
    batch: usize,
    size: usize,
    macs: usize,
    dropped: bool,
    stalled: bool,
}

/// A worker between two guests, and what they say.
struct Bench {
    rig: Rig,
    course: Course,
    /// What each guest sends, in turn.
    frames: [Vec<Vec<u8>>; 2],
    turns: usize,
}

impl Bench {
    fn new(course: Course) -> Self {
        let mut lab = description(&[access(10), access(10)]);
        lab.ports.iter_mut().flatten().for_each(|port| port.mac_limit = course.macs as u32);
        // As DPDK's driver and Linux' have it between them: in order, and no buffers to merge.
        let config = Config {
            features: Config::default().features & !features::NET_MRG_RXBUF,
            ring_size: RingSize::new(1024).expect("a power of two"),
            ..Config::default()
        };
        let mut rig = Rig::new(&lab, &config);
        for (n, place) in (0..course.macs).flat_map(|n| [(n, 0), (n, 1)]) {
            rig.teach(place, vlan(10), station(place, n));
        }
        let frame = |place, n| {
            let tag = course.dropped.then_some(TAG);
            let link = Ethernet { dst: station(1 - place, n), src: station(place, n), tag };
            build::raw(link, 0x88b5, &vec![place as u8; course.size - if course.dropped { 18 } else { 14 }])
        };
        let frames = [0, 1].map(|place| (0..course.macs).map(|n| frame(place, n)).collect());
        Self { rig, course, frames, turns: 0 }
    }

    /// Takes so many turns; cycles a frame.
    fn run(&mut self, turns: usize) -> f64 {
        let Course { batch, macs, dropped, stalled, .. } = self.course;
        let (mut moved, mut spent) = (0, 0);
        for turn in self.turns..self.turns + turns {
            for (frames, Unwired { pair, .. }) in self.frames.iter().zip(&mut self.rig.guests) {
                let take_turns = (0..batch).map(|frame| (turn * batch + frame) % macs);
                take_turns.for_each(|n| assert!(pair.transmit(&frames[n]), "the ring has room"));
                pair.flush();
            }
            let begin = cycles::now();
            let done = self.rig.turn();
            spent += cycles::now() - begin;
            assert_eq!(done, Turn::Busy(batch * 2));
            for guest in self.rig.guests.iter_mut().filter(|_| !stalled) {
                moved += guest.pair.receive(|_, _| {});
            }
        }
        self.turns += turns;
        let sent = turns * batch * 2;
        assert_eq!(moved, if dropped || stalled { 0 } else { sent }, "nothing was lost, or all of it");
        spent as f64 / sent as f64
    }
}

/// Records that a worker keeps.
const RECORDS: usize = 1 << 16;

/// One worker in the same memory, with a recorder and without it in turn: the medians of both, and of what the recorder adds in each pair.
fn compare(mut bench: Bench, turns: usize) {
    const PAIRS: usize = 40;
    let turns = turns.div_ceil(PAIRS);
    let mut run = |records| {
        bench.rig.worker.record(records);
        bench.run(turns)
    };
    let one = |pair: usize| {
        // Whoever comes second may find warmer caches.
        let first = pair.is_multiple_of(2).then(|| run(RECORDS));
        let off = run(0);
        let on = first.unwrap_or_else(|| run(RECORDS));
        [on, off, (on / off - 1.0) * 100.0]
    };
    let pairs: Vec<[f64; 3]> = (0..PAIRS).map(one).collect();
    let [on, off, more] = [0, 1, 2].map(|column| {
        let mut all: Vec<f64> = pairs.iter().map(|pair| pair[column]).collect();
        all.sort_by(f64::total_cmp);
        all[PAIRS / 2]
    });
    println!("{on:.1} cycles a frame with the recorder, {off:.1} without: {more:+.1} %");
}

fn main() {
    let has = |flag: &str| std::env::args().any(|word| word == flag);
    let course = Course {
        batch: option("--batch", 32),
        size: option("--size", 60),
        macs: option("--macs", 1),
        dropped: has("--dropped"),
        stalled: has("--stalled"),
    };
    let turns = option("--turns", 100_000);
    if has("--compare-recorder") {
        return compare(Bench::new(course), turns);
    }
    let (mut bench, frames) = (Bench::new(course), turns * course.batch * 2);
    if has("--no-recorder") {
        bench.rig.worker.record(0);
    }
    println!("{frames} frames, {:.1} cycles a frame", bench.run(turns));
}
