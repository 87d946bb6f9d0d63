//! 512 guests that come and go at random, in processes that are killed: the pair in the middle loses nothing, and the switch is left as
//! it was.
//!
//! The pair has a VLAN of its own: what the others flood, it would have to take in time. Five
//! minutes with each of one and two workers: `VNET_CHURN_SECONDS=300 cargo test -p vswitchd --test datapath churn -- --nocapture`.

mod half_way;
mod herd;
mod random;

use crate::{
    lab::{Lab, access, description},
    left_out::left_out,
    process::{Guest, Holdings, alone, guest_socket, heap, status},
    traffic::{Pair, Running},
};
use herd::{Deeds, Orders};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use std::{
    env, fs,
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use vswitchd::control::protocol::{PortState, Snapshot};

/// The pair's ports.
const PAIR: [usize; 2] = [0, 1];

/// The ports whose guests come and go.
const CHURNED: Range<usize> = 2..514;

/// Ports of one process.
const SHARE: usize = 64;
const HERDS: usize = (CHURNED.end - CHURNED.start) / SHARE;

/// How many deeds process `number` does before it is killed: some go early, some late.
const fn life(number: u64) -> u64 {
    80 * (1 + number % 8)
}

/// Descriptors that the switch needs for all of these ports at once, and some to spare.
const DESCRIPTORS: u64 = 16_000;

/// How long all guests together may take to come: each waits for two CPUs with a thousand other threads.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process with guests.
struct Herd {
    process: Guest,
    diary: PathBuf,
    life: u64,
}

/// All of them.
struct Herds<'a> {
    name: &'static str,
    lab: &'a Lab,
    diaries: TempDir,
    herds: Vec<Herd>,
    /// How many processes were started, these and those before.
    started: u64,
}

impl<'a> Herds<'a> {
    /// Starts them and waits until each port has a guest.
    fn gather(name: &'static str, lab: &'a Lab, started: u64) -> Self {
        let mut all = Self { name, lab, diaries: tempfile::tempdir().unwrap(), herds: Vec::new(), started };
        for share in 0..HERDS {
            let herd = all.start(share);
            all.herds.push(herd);
        }
        let up = |seen: &Snapshot| CHURNED.into_iter().all(|place| seen.ports[place].state == PortState::Up);
        lab.wait_for(PATIENCE, up);
        all
    }

    fn start(&mut self, share: usize) -> Herd {
        self.started += 1;
        let first = CHURNED.start + share * SHARE;
        let diary = self.diaries.path().join(self.started.to_string());
        let orders = Orders { places: first..first + SHARE, seed: self.started, diary: diary.clone() };
        let mut process = Guest::start(self.name, self.lab.folder());
        process.tell(&serde_json::to_string(&orders).unwrap());
        Herd { process, diary, life: life(self.started) }
    }

    /// From now on guests come and go.
    fn let_loose(&mut self) {
        self.herds.iter_mut().for_each(|herd| herd.process.tell("go"));
    }

    /// Kills those that lived long enough, in the middle of whatever they do, and starts others in their place.
    fn renew(&mut self) {
        for share in 0..self.herds.len() {
            let herd = &mut self.herds[share];
            assert!(herd.process.lives(), "a guest that did nothing wrong was not served; it says so above");
            if deeds(&herd.diary).values().sum::<u64>() >= herd.life {
                herd.process.signal(Signal::KILL);
                let mut another = self.start(share);
                another.process.tell("go");
                self.herds[share] = another;
            }
        }
    }

    /// Kills all; adds what their guests did, and how many processes there were.
    fn end(self, done: &mut Deeds) {
        let Self { herds, diaries, started, .. } = self;
        drop(herds);
        done.insert(KILLED.into(), started);
        // A herd that was killed while it wrote left what it had written before.
        let all = fs::read_dir(diaries.path()).unwrap().map(|diary| diary.unwrap().path());
        for (deed, times) in all.filter(|diary| diary.extension().is_none()).flat_map(|diary| deeds(&diary)) {
            *done.entry(deed).or_default() += times;
        }
    }
}

/// What is written in a diary; nothing before its herd did something.
fn deeds(diary: &Path) -> Deeds {
    fs::read(diary).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// How long guests come and go, with each number of workers.
fn duration() -> Duration {
    let seconds = env::var("VNET_CHURN_SECONDS").ok().map(|said| said.parse().expect("seconds"));
    Duration::from_secs(seconds.unwrap_or(4))
}

fn enough_descriptors() -> bool {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    limit.maximum.is_none_or(|most| most >= DESCRIPTORS)
}

/// What may stay on the heap: 1 KiB a port, for the words of its last end and for room in lists; twice that from before anybody came, when
/// lists had no room yet. A ring that is left is 25 KiB.
const KEPT: usize = CHURNED.end << 10;

/// KiB that may stay resident: the recorders' pages, which are used as records are written (4 MiB a worker), and 64 KiB a port between
/// what is in use, which the C library's allocator does not give back.
const fn resident_kept(workers: u16) -> u64 {
    4096 * workers as u64 + 64 * CHURNED.end as u64
}

/// Among the deeds: processes that were killed.
const KILLED: &str = "processes killed";

/// Whatever guests may do.
const DEEDS: [&str; 9] = [
    "attached",
    "hung up",
    "hung up half-way",
    "left",
    "lost its memory",
    "paused",
    "reset and left",
    "shared its memory again",
    "started elsewhere",
];

/// A switch, its pair, and what it held before anybody else came.
struct Scene {
    name: &'static str,
    lab: Lab,
    pair: Running,
    before: Holdings,
    /// What guests did so far.
    done: Deeds,
}

impl Scene {
    fn new(name: &'static str, workers: u16) -> Self {
        let links: Vec<_> = PAIR.map(|_| access(10)).into_iter().chain(CHURNED.map(|_| access(20))).collect();
        let lab = Lab::with_workers(&description(&links), workers);
        let pair = Pair::new(&lab, PAIR).start();
        Self { name, lab, pair, before: Holdings::settled(), done: Deeds::from([(KILLED.into(), 0)]) }
    }

    /// Everybody comes, guests come and go for so long, and everybody is killed.
    fn churn(&mut self, duration: Duration) {
        let mut herds = Herds::gather(self.name, &self.lab, self.done[KILLED]);
        herds.let_loose();
        let end = Instant::now() + duration;
        while Instant::now() < end {
            herds.renew();
            self.pair.flows();
            self.lab.lawful();
        }
        herds.end(&mut self.done);
        self.before.regained(PATIENCE);
    }

    /// The pair lost nothing, and only ports whose memory vanished were stopped.
    fn end(self) {
        let pair = self.pair.stop();
        let end = self.lab.lawful();
        pair.lost_nothing(&end);
        assert!(end.workers.iter().all(|worker| worker.panics == 0), "{:#?}", end.workers);
        let faults: u64 = end.ports.iter().map(|port| port.counters.faults).sum();
        assert!(faults <= self.done["lost its memory"], "{faults} ports were stopped: {:?}", self.done);
    }
}

fn churn(name: &'static str, workers: u16) {
    let resident = || status("/proc/self/status", "RssAnon");
    let mut scene = Scene::new(name, workers);
    // Nobody but the pair was ever attached.
    let (heap_first, resident_first) = (heap(), resident());
    // The first half warms up what is kept on purpose: lists, the allocator's and the threads' caches.
    scene.churn(duration() / 2);
    let (heap_before, resident_before) = (heap(), resident());
    scene.churn(duration() / 2);
    let (heap_after, resident_after) = (heap(), resident());
    eprintln!(
        "{workers} workers: {:?}; {:?} as before; heap before anybody came {heap_first} bytes, half-way {heap_before}, now {heap_after}; \
         resident {resident_first} KiB, {resident_before}, now {resident_after}",
        scene.done, scene.before
    );
    assert!(heap_after < heap_before + KEPT, "{heap_before} bytes on the heap before, now {heap_after}");
    assert!(heap_after < heap_first + 2 * KEPT, "{heap_first} bytes before anybody came, now {heap_after}");
    assert!(
        resident_after < resident_before + resident_kept(workers),
        "{resident_before} KiB before, now {resident_after}"
    );
    let missing: Vec<_> = DEEDS.into_iter().filter(|deed| !scene.done.contains_key(*deed)).collect();
    assert!(missing.is_empty(), "nobody {missing:?}");
    assert!(scene.done[KILLED] > 2 * HERDS as u64, "nobody was killed amid what it did");
    // Every port serves the next guest.
    scene.churn(Duration::ZERO);
    scene.end();
}

#[test]
fn of_512_guests_that_come_and_go_nothing_is_left_and_a_pair_in_the_middle_loses_nothing() {
    const NAME: &str =
        "churn::of_512_guests_that_come_and_go_nothing_is_left_and_a_pair_in_the_middle_loses_nothing";
    if let Some(folder) = guest_socket() {
        return herd::run(&folder);
    }
    if !enough_descriptors() {
        return left_out("512 ports at once: they need 16,000 descriptors (ulimit -Hn)");
    }
    alone(NAME, || [1, 2].into_iter().for_each(|workers| churn(NAME, workers)));
}
