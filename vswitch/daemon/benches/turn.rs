//! One worker's turns over two ports, in one thread: cycles a frame here, instructions a frame under callgrind.
//!
//! `cargo bench -p vswitchd --bench turn -- [--batch 32] [--turns 100000] [--size 60] [--macs 1] [--dropped | --stalled] [--no-recorder]` prints cycles; `--macs`
//! is how many stations there are behind each port, which take turns, with `--vlans` each tagged in a VLAN of its own; `--compare-workers` has two workers, each with ports of its own, at once and one after the other; with `--dropped` no frame may enter (they are tagged, the ports are
//! access ports), with `--stalled` no guest gives its buffers back; `--compare-recorder` has it with a recorder and without in turn. Under `valgrind --tool=callgrind
//! --toggle-collect='*Worker*turn*'` only turns are counted; two runs with unlike `--turns` differ by nothing but turns
//! (`benches/instructions` does that).

#[path = "../tests/datapath/description.rs"]
mod description;
#[expect(dead_code, reason = "tests need more of it")]
#[path = "../tests/datapath/rig.rs"]
mod rig;

use description::{access, description, vlan};
use rig::Rig;
use std::sync::{Arc, Barrier};
use vhost_net_backend::{
    cycles,
    driver::{Config, unwired::Unwired},
    features,
    layout::RingSize,
};
use vswitch_core::{
    build::{self, Ethernet},
    description::{Description, Link, Membership, Vlan},
    fdb::Fdb,
    firewall::connections::DEFAULT_CAPACITY,
    id::{PortId, SwitchId},
    mac::MacAddr,
    vlan::{Tci, VlanId, VlanSet},
    world::World,
};
use vswitchd::worker::Turn;

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
    /// Each station is in a VLAN of its own, from 1 on, and its frames are tagged.
    vlans: bool,
    dropped: bool,
    stalled: bool,
}

impl Course {
    /// The VLAN of station `n`.
    fn vlan(&self, n: usize) -> VlanId {
        vlan(if self.vlans { (n % 4094) as u16 + 1 } else { 10 })
    }

    /// A switch with two ports for each of so many workers.
    fn lab(&self, workers: usize) -> Description {
        let all = VlanSet::from_iter((0..self.macs).map(|n| self.vlan(n)));
        let trunk = Link::Switch {
            switch: SwitchId::new(0),
            vlans: Membership::Trunk { vlans: all.clone(), native: None },
        };
        let mut lab = description(&vec![if self.vlans { trunk } else { access(10) }; 2 * workers]);
        if self.vlans {
            lab.vlans = all.iter().map(|id| Vlan { id, name: format!("v{id}"), origin: None }).collect();
        }
        lab.ports.iter_mut().flatten().for_each(|port| port.mac_limit = self.macs as u32);
        lab
    }
}

/// As DPDK's driver and Linux' have it between them: in order, and no buffers to merge.
fn guest() -> Config {
    Config {
        features: Config::default().features & !features::NET_MRG_RXBUF,
        ring_size: RingSize::new(1024).expect("a power of two"),
        ..Config::default()
    }
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
        Self::of(course, Rig::new(&course.lab(1), &guest()), 0)
    }

    /// So many workers of one switch, each between two ports of its own.
    fn several(course: Course, workers: usize) -> Vec<Self> {
        let world = Arc::new(World::compile(&course.lab(workers)).expect("a lab"));
        let fdb = Arc::new(Fdb::new(1, 1 << 14));
        fdb.install(&world);
        let ports: Vec<PortId> = world.ports().map(|port| port.id).collect();
        let rigs = ports
            .chunks(2)
            .map(|ports| Rig::over(world.clone(), fdb.clone(), ports, &guest(), DEFAULT_CAPACITY));
        (0..).step_by(2).zip(rigs).map(|(first, rig)| Self::of(course, rig, first)).collect()
    }

    /// That of `rig`, which serves the ports in places `first` and the next.
    fn of(course: Course, mut rig: Rig, first: u16) -> Self {
        let places = [first, first + 1];
        for (n, place) in (0..course.macs).flat_map(|n| places.map(|place| (n, place))) {
            rig.teach(place, course.vlan(n), station(place, n));
        }
        let frame = |from: u16, to: u16, n| {
            let tag = (course.dropped || course.vlans).then(|| Tci::from_bits(course.vlan(n).number()));
            let link = Ethernet { dst: station(to, n), src: station(from, n), tag };
            build::raw(link, 0x88b5, &vec![from as u8; course.size - if tag.is_some() { 18 } else { 14 }])
        };
        let [one, other] = places;
        let frames = [(one, other), (other, one)]
            .map(|(from, to)| (0..course.macs).map(|n| frame(from, to, n)).collect());
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

/// Two workers with ports of their own on one switch, each on a CPU of its own, both at once and one at a time: what a frame costs each, and the rate in
/// busy time at once in parts of that alone, medians of the rounds.
fn compare_workers(course: Course, turns: usize) {
    const ROUNDS: usize = 20;
    let turns = turns.div_ceil(ROUNDS);
    let step = Barrier::new(2);
    let one = |number: usize, mut bench: Bench| {
        let mut cpu = rustix::thread::CpuSet::new();
        cpu.set(number);
        rustix::thread::sched_setaffinity(None, &cpu).expect("two CPUs");
        let rounds = (0..ROUNDS).map(|_| {
            let mut alone = 0.0;
            for turn in 0..2 {
                step.wait();
                if turn == number {
                    alone = bench.run(turns);
                }
            }
            step.wait();
            (alone, bench.run(turns))
        });
        rounds.collect::<Vec<_>>()
    };
    let rounds: Vec<Vec<(f64, f64)>> = std::thread::scope(|scope| {
        let workers = Bench::several(course, 2).into_iter().enumerate();
        let threads: Vec<_> =
            workers.map(|(number, bench)| scope.spawn(move || one(number, bench))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a worker")).collect()
    });
    for (number, rounds) in rounds.iter().enumerate() {
        let median = |of: &dyn Fn(&(f64, f64)) -> f64| {
            let mut all: Vec<f64> = rounds.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let (alone, both) = (median(&|round| round.0), median(&|round| round.1));
        let kept = median(&|round| round.0 / round.1) * 100.0;
        println!(
            "worker {number}: {alone:.1} cycles a frame alone, {both:.1} beside the other: {kept:.1} % of its rate"
        );
    }
}

fn main() {
    let has = |flag: &str| std::env::args().any(|word| word == flag);
    let course = Course {
        batch: option("--batch", 32),
        size: option("--size", 60),
        macs: option("--macs", 1),
        vlans: has("--vlans"),
        dropped: has("--dropped"),
        stalled: has("--stalled"),
    };
    let turns = option("--turns", 100_000);
    if has("--compare-recorder") {
        return compare(Bench::new(course), turns);
    }
    if has("--compare-workers") {
        return compare_workers(course, turns);
    }
    let (mut bench, frames) = (Bench::new(course), turns * course.batch * 2);
    if has("--no-recorder") {
        bench.rig.worker.record(0);
    }
    println!("{frames} frames, {:.1} cycles a frame", bench.run(turns));
}
