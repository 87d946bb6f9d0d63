//! What is left of a victim's rate beside an attack, by the clock: a datapath with one worker on CPU 0, and all guests in one thread on CPU 1.
//!
//! `cargo bench -p vswitchd --bench attacks -- [--only tuples|syns|macs|fragments|connections|policy] [--rounds 9] [--millis 250] [--rules 1000]`: a client
//! sends segments of 64 established TCP connections to its server, both behind a firewall of so many rules. First as fast as they are taken,
//! which is its solo maximum; then half of that, alone and beside each attack in turn, so many rounds. What is due and was not sent, for the ring
//! was full or this thread had no CPU, is sent later in the same trial or missing in what is kept. Figures are medians of the rounds.
//!
//! Before that, the same in the worker's own time: guests and worker in one thread, and a clock that stands between two turns (`--turns`: only this).
//!
//! `policy` has 10,000 rules swapped for others under traffic: one thread on CPU 0 is guests and worker, another on CPU 1 compiles. For each swap the
//! longest wait of a frame in the millisecond that begins with it, beside the millisecond before, and one in which the same thread does
//! nothing but look at the clock (`[--swaps 200]`).

#[path = "../tests/datapath/description.rs"]
mod description;
#[expect(dead_code, unused_imports, reason = "tests need more of it")]
#[path = "../tests/datapath/lab.rs"]
mod lab;
#[expect(dead_code, reason = "tests need more of it")]
#[path = "../tests/datapath/rig.rs"]
mod rig;
#[expect(dead_code, reason = "tests need more of it")]
#[path = "../tests/datapath/attacks/stage.rs"]
mod stage;

use description::vlan;
use lab::Lab;
use rig::Rig;
use stage::{ACCOMPLICE, ATTACKER, Attack, CLIENT, DNS, GUESTS, LEN, SERVER, WEB};
use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};
use vhost_net_backend::{
    cycles,
    driver::{Config, Driver},
    layout::RingSize,
    net_header,
};
use vswitch_core::{
    build::{self, Ethernet},
    firewall::connections::Connections,
    id::{Epoch, PortId},
    mac::MacAddr,
    world::World,
};
use vswitchd::{control::protocol::DatapathSettings, worker::Turn};

/// Connections of the victims.
const STREAMS: u16 = 64;
/// Frames that are on their way at most when the victims send as fast as they can, and that are sent at a time.
const WINDOW: u64 = 512;
const BURST: u64 = 32;
/// Entries of the rings.
const RING: u16 = 1024;
/// Where a frame's padding begins, which has its time, and how long that is.
const STAMP: usize = 54;
const STAMP_LEN: usize = LEN - STAMP;
/// One frame of so many has its latency noted.
const SAMPLED: u64 = 16;
/// For how long a frame on its way is waited for at the end.
const PATIENCE: Duration = Duration::from_secs(1);

fn option(name: &str, otherwise: usize) -> usize {
    word(name).map_or(otherwise, |word| word.parse().expect("a number"))
}

fn word(name: &str) -> Option<String> {
    std::env::args().skip_while(|word| word != name).nth(1)
}

fn median(mut all: Vec<f64>) -> f64 {
    quantile(&mut all, 0.5)
}

/// The quantile `q`; 0 of nothing.
fn quantile(all: &mut [f64], q: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    let at = (all.len() as f64 * q) as usize;
    all.get(at.min(all.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

fn pin(number: usize) {
    let mut cpu = rustix::thread::CpuSet::new();
    cpu.set(number);
    rustix::thread::sched_setaffinity(None, &cpu).expect("two CPUs");
}

fn config() -> Config {
    Config { ring_size: RingSize::new(RING).expect("a power of two"), ..Config::default() }
}

/// An attack's frames and answers, made before.
struct Pool {
    attack: Attack,
    frames: Vec<[u8; LEN]>,
    answers: Vec<Option<[u8; LEN]>>,
    next: usize,
}

impl Pool {
    fn new(attack: Attack, seconds: f64) -> Self {
        let count = (attack.rate() as f64 * seconds) as u64 + 1;
        let bytes = |frame: Vec<u8>| <[u8; LEN]>::try_from(frame).expect("the shortest frame");
        let frames = (0..count).map(|n| bytes(attack.frame(n))).collect();
        let answers = (0..count).map(|n| attack.answer(n).map(bytes)).collect();
        Self { attack, frames, answers, next: 0 }
    }
}

/// How the victim sends.
#[derive(Clone, Copy)]
enum Pace {
    /// As fast as its frames are taken.
    Closed,
    /// So many a second.
    Open(f64),
}

/// What came of a trial.
#[derive(Default)]
struct Outcome {
    seconds: f64,
    due: u64,
    sent: u64,
    /// Until the end, and until nothing came any more.
    received: u64,
    arrived: u64,
    micros: Vec<f64>,
    attack_due: u64,
    attack_sent: u64,
}

impl Outcome {
    fn rate(&self) -> f64 {
        self.received as f64 / self.seconds
    }

    /// Of what was due, what came.
    fn kept(&self) -> f64 {
        self.received as f64 / self.due as f64
    }
}

/// The four guests of a running datapath.
struct Bench {
    lab: Lab,
    guests: Vec<Driver>,
    /// The client's frames, and whether each of its buffers has one.
    frames: Vec<Vec<u8>>,
    filled: Vec<bool>,
    origin: Instant,
}

impl Bench {
    fn new(rules: usize) -> Self {
        let settings = DatapathSettings { cpus: vec![0], ..DatapathSettings::default() };
        let lab = Lab::with_settings(&stage::lab(rules, &[WEB], &[DNS]), settings);
        let mut guests: Vec<Driver> = (0..GUESTS).map(|place| lab.attach(place, &config())).collect();
        for (place, guest) in guests.iter_mut().enumerate() {
            let link = Ethernet { src: stage::station(place), dst: MacAddr::BROADCAST, tag: None };
            lab::send(guest, &build::arp_request(link, stage::address(place), stage::address(SERVER)));
            lab.wait(|seen| seen.ports[place].counters.from_port.flooded == 1);
        }
        for n in 0..STREAMS {
            for (place, frame) in stage::handshake((CLIENT, 1000 + n), (SERVER, WEB)) {
                let other = CLIENT + SERVER - place;
                guests[other].pair().receive(|_, _| {});
                lab::send(&mut guests[place], &frame);
                assert_eq!(lab::receive(&mut guests[other], 1), [frame]);
            }
        }
        let frames = (0..STREAMS).map(|n| stage::segment((CLIENT, 1000 + n), (SERVER, WEB), true)).collect();
        Self { lab, guests, frames, filled: vec![false; RING.into()], origin: Instant::now() }
    }

    fn nanos(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// The client sends at most `limit` frames that say `now`.
    fn send(&mut self, limit: u64, now: u64) -> u64 {
        let Self { guests, frames, filled, .. } = self;
        let pair = guests[CLIENT].pair();
        let touched = net_header::LEN + LEN;
        let sent = pair.transmit_in_place(limit.min(BURST) as usize, touched, |buffer| {
            let number = usize::from(buffer.number());
            if !filled[number] {
                filled[number] = true;
                buffer.write(0, &[0; net_header::LEN]);
                buffer.write(net_header::LEN, &frames[number % frames.len()]);
            }
            buffer.write(net_header::LEN + STAMP, &now.to_le_bytes()[..STAMP_LEN]);
            buffer.set_end(net_header::LEN + LEN);
        });
        pair.flush();
        sent as u64
    }

    /// Takes what came; how many frames of the client's.
    fn receive(&mut self, now: u64, micros: &mut Vec<f64>) -> u64 {
        let (client, mut count) = (stage::station(CLIENT).octets(), 0);
        let pair = self.guests[SERVER].pair();
        pair.receive_in_place(256, net_header::LEN + LEN, |frame| {
            let (mut source, mut stamp) = ([0; 6], [0; 8]);
            if frame.read(6, &mut source) && source == client {
                if count % SAMPLED == 0 && frame.read(STAMP, &mut stamp[..STAMP_LEN]) {
                    micros.push(now.saturating_sub(u64::from_le_bytes(stamp)) as f64 / 1000.0);
                }
                count += 1;
            }
        });
        pair.flush();
        count
    }

    fn trial(&mut self, pace: Pace, mut pool: Option<&mut Pool>, length: Duration) -> Outcome {
        let mut outcome = Outcome::default();
        let begin = self.nanos();
        let (end, mut last) = (begin + length.as_nanos() as u64, begin);
        loop {
            let now = self.nanos();
            let wanted = match pace {
                _ if now >= end => 0,
                Pace::Closed => WINDOW - (outcome.sent - outcome.arrived),
                Pace::Open(rate) => {
                    outcome.due = ((now - begin) as f64 * rate / 1e9) as u64;
                    outcome.due - outcome.sent
                }
            };
            if wanted > 0 {
                outcome.sent += self.send(wanted, now);
            }
            if let Some(pool) = pool.as_deref_mut().filter(|_| now < end) {
                self.attack(pool, (now - begin) as f64 / 1e9, &mut outcome);
            }
            let came = self.receive(now, &mut outcome.micros);
            outcome.arrived += came;
            if now < end {
                (outcome.received, last) = (outcome.arrived, now);
                outcome.seconds = (now - begin) as f64 / 1e9;
            } else if outcome.arrived >= outcome.sent || now - last > PATIENCE.as_nanos() as u64 {
                return outcome;
            }
            for place in [CLIENT, ATTACKER, ACCOMPLICE] {
                let pair = self.guests[place].pair();
                if pair.discard() > 0 {
                    pair.flush();
                }
            }
        }
    }

    /// Sends what of the attack is due after so many seconds.
    fn attack(&mut self, pool: &mut Pool, seconds: f64, outcome: &mut Outcome) {
        outcome.attack_due = (seconds * pool.attack.rate() as f64) as u64;
        let wanted = (outcome.attack_due - outcome.attack_sent).min(BURST) as usize;
        let frames = &pool.frames[pool.next..pool.frames.len().min(pool.next + wanted)];
        if frames.is_empty() {
            return;
        }
        let pair = self.guests[ATTACKER].pair();
        let sent = frames.iter().take_while(|frame| pair.transmit(&frame[..])).count();
        pair.flush();
        let answered = &pool.answers[pool.next..pool.next + sent];
        if answered.iter().any(Option::is_some) {
            // The frames that these answer stand before them, so most of them come too early by less than a turn, and open as well.
            let pair = self.guests[ACCOMPLICE].pair();
            answered.iter().flatten().for_each(|answer| {
                pair.transmit(&answer[..]);
            });
            pair.flush();
        }
        pool.next += sent;
        outcome.attack_sent += sent as u64;
    }
}

/// Resident memory in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
}

fn beside(attack: Attack, rounds: usize, length: Duration, rules: usize) {
    let mut bench = Bench::new(rules);
    let mut pool = Pool::new(attack, rounds as f64 * length.as_secs_f64() * 1.01);
    let mut maxima = Vec::new();
    (0..3).for_each(|_| maxima.push(bench.trial(Pace::Closed, None, length).rate()));
    let maximum = median(maxima);
    let (pace, before) = (Pace::Open(maximum / 2.0), resident());
    let rounds: Vec<[Outcome; 2]> = (0..rounds)
        .map(|_| [bench.trial(pace, None, length), bench.trial(pace, Some(&mut pool), length)])
        .collect();
    let more = resident().saturating_sub(before);
    let over = |of: &dyn Fn(&[Outcome; 2]) -> f64| median(rounds.iter().map(of).collect());
    let kept = [0, 1].map(|which| over(&|round| 100.0 * round[which].kept()));
    let ratio = over(&|round| 100.0 * round[1].kept() / round[0].kept());
    let worst = rounds.iter().map(|round| 100.0 * round[1].kept()).fold(f64::MAX, f64::min);
    let lost = |which: usize| {
        rounds.iter().map(|round| round[which].sent.saturating_sub(round[which].arrived)).sum::<u64>()
    };
    let micros = |which: usize, q| over(&|round| quantile(&mut round[which].micros.clone(), q));
    let attacked = over(&|round| round[1].attack_sent as f64 / round[1].seconds);
    let due = over(&|round| round[1].attack_due as f64 / round[1].seconds);
    let sent: u64 = rounds.iter().map(|round| round[1].sent).sum();
    println!(
        "{attack:16} {:.2} Mpps offered, half of {:.2}: kept alone {:.2} %, beside {:.2} % (ratio {ratio:.2}, worst {worst:.2}); lost {} and {} \
         of {sent}; µs p50 {:.1} and {:.1}, p99 {:.0} and {:.0}; attack {attacked:.0}/s of {due:.0}, {} frames in all; {more} KiB more resident",
        maximum / 2e6,
        maximum / 1e6,
        kept[0],
        kept[1],
        lost(0),
        lost(1),
        micros(0, 0.5),
        micros(1, 0.5),
        micros(0, 0.99),
        micros(1, 0.99),
        pool.next,
    );
    let seen = bench.lab.lawful();
    let victims = [CLIENT, SERVER].map(|place| &seen.ports[place].counters.from_port);
    println!(
        "{:16} of what the victims sent {} was dropped, {} flooded; {} FDB entries",
        "",
        victims.iter().flat_map(|counters| counters.dropped.values()).sum::<u64>(),
        victims.iter().map(|counters| counters.flooded).sum::<u64>() - 2,
        seen.fdb.entries,
    );
}

/// Of the connections of the policy's traffic.
const SESSIONS: u16 = 2048;
/// How long after a swap a frame's wait counts as its doing: each connection has had many frames by then.
const AFTER: Duration = Duration::from_millis(1);

/// One thread that is guests and worker.
struct Traffic {
    rig: Rig,
    frames: [Vec<Vec<u8>>; 2],
    sent: usize,
    origin: Instant,
    /// What the worker took of it, in cycles of turns.
    worked: u64,
}

impl Traffic {
    fn new(rules: usize) -> Self {
        let mut rig = Rig::new(&stage::lab(rules, &[WEB], &[DNS]), &config());
        (0..GUESTS).for_each(|place| rig.teach(place as u16, vlan(10), stage::station(place)));
        let (client, server) = (|n| (CLIENT, 1000 + n), (SERVER, WEB));
        let frames = [
            (0..SESSIONS).map(|n| stage::segment(client(n), server, true)).collect(),
            (0..SESSIONS).map(|n| stage::segment(server, client(n), false)).collect(),
        ];
        let mut traffic = Self { rig, frames, sent: 0, origin: Instant::now(), worked: 0 };
        for n in 0..SESSIONS {
            for (place, frame) in stage::handshake(client(n), server) {
                traffic.exchange(|which, _| if which == place { vec![frame.clone()] } else { vec![] }, 1);
            }
        }
        traffic
    }

    /// Sends and receives once; how long that took, which is how long the first frame waited at most.
    fn exchange(&mut self, mut what: impl FnMut(usize, &Self) -> Vec<Vec<u8>>, count: usize) {
        for place in [CLIENT, SERVER] {
            let frames = what(place, self);
            let pair = &mut self.rig.guests[place].pair;
            frames.iter().for_each(|frame| assert!(pair.transmit(frame), "the ring has room"));
            pair.flush();
        }
        self.deliver(count);
    }

    fn deliver(&mut self, count: usize) {
        let now = || vswitch_core::clock::Instant::from_nanos(self.origin.elapsed().as_nanos() as u64);
        while self.rig.worker.turn(now()) != Turn::Idle {}
        let came: usize =
            [CLIENT, SERVER].map(|place| self.rig.guests[place].pair.receive(|_, _| {})).iter().sum();
        assert_eq!(came, count, "what both policies allow passes");
    }

    /// A burst each way.
    fn burst(&mut self) {
        for place in [CLIENT, SERVER] {
            let pair = &mut self.rig.guests[place].pair;
            for n in self.sent..self.sent + BURST as usize {
                assert!(pair.transmit(&self.frames[place][n % usize::from(SESSIONS)]), "the ring has room");
            }
            pair.flush();
        }
        self.sent += BURST as usize;
        self.deliver(2 * BURST as usize);
    }

    /// The longest of what lies between two looks at the clock for so long.
    fn longest(length: Duration, mut between: impl FnMut()) -> f64 {
        let (begin, mut longest) = (Instant::now(), Duration::ZERO);
        let mut last = begin;
        while last - begin < length {
            between();
            let now = Instant::now();
            (longest, last) = (longest.max(now - last), now);
        }
        longest.as_secs_f64() * 1e6
    }
}

/// In the worker's own time, which passes only while it takes turns: neither what takes CPUs away between turns nor the way from one CPU
/// to another is in it.
impl Traffic {
    /// Cycles of a second of that time.
    const HERTZ: f64 = 2.6e9;
    /// A turn in which the CPU was taken away counts as so many cycles.
    const MOST: u64 = 1_000_000;
    /// When it begins: connections were opened before, by another clock.
    const SET_UP: u64 = 60_000_000_000;

    /// One turn; what the client's frames came to.
    fn timed(&mut self) -> u64 {
        let client = stage::station(CLIENT).octets();
        let begin = cycles::now();
        let nanos = Self::SET_UP + (self.worked as f64 / Self::HERTZ * 1e9) as u64;
        self.rig.worker.turn(vswitch_core::clock::Instant::from_nanos(nanos));
        self.worked += cycles::now().wrapping_sub(begin).min(Self::MOST);
        let mut came = 0;
        for (place, guest) in self.rig.guests.iter_mut().enumerate() {
            guest.pair.receive(|_, frame| came += u64::from(place == SERVER && frame[6..12] == client));
        }
        came
    }

    /// For so long the client sends, all that its ring takes or so many a second, and the attacker what is due; of what was due, what came, and
    /// frames a second of the client and of the attacker.
    fn works(&mut self, rate: Option<f64>, mut pool: Option<&mut Pool>, length: Duration) -> [f64; 3] {
        let begin = self.worked;
        let seconds = |worked: u64| (worked - begin) as f64 / Self::HERTZ;
        let (mut sent, mut attacked, mut came) = (0_u64, 0_u64, 0_u64);
        while seconds(self.worked) < length.as_secs_f64() {
            let now = seconds(self.worked);
            let due = rate.map_or(sent + BURST * 2, |rate| (now * rate) as u64);
            let pair = &mut self.rig.guests[CLIENT].pair;
            while sent < due && pair.transmit(&self.frames[CLIENT][sent as usize % usize::from(STREAMS)]) {
                sent += 1;
            }
            pair.flush();
            if let Some(pool) = pool.as_deref_mut() {
                let due = (now * pool.attack.rate() as f64) as u64;
                while attacked < due
                    && pool.next < pool.frames.len()
                    && self.rig.guests[ATTACKER].pair.transmit(&pool.frames[pool.next])
                {
                    if let Some(answer) = &pool.answers[pool.next] {
                        self.rig.guests[ACCOMPLICE].pair.transmit(answer);
                    }
                    pool.next += 1;
                    attacked += 1;
                }
                self.rig.guests[ATTACKER].pair.flush();
                self.rig.guests[ACCOMPLICE].pair.flush();
            }
            came += self.timed();
        }
        let now = seconds(self.worked);
        let due = rate.map_or(came as f64, |rate| now * rate);
        [came as f64 / due, came as f64 / now, attacked as f64 / now]
    }
}

/// As [`beside`], in the worker's own time.
fn in_turns(attack: Attack, rounds: usize, length: Duration, rules: usize) {
    let mut traffic = Traffic::new(rules);
    let mut pool = Pool::new(attack, rounds as f64 * length.as_secs_f64() * 1.1);
    let maximum = median((0..5).map(|_| traffic.works(None, None, length)[1]).collect());
    let rounds: Vec<[[f64; 3]; 2]> = (0..rounds)
        .map(|_| [None, Some(&mut pool)].map(|pool| traffic.works(Some(maximum / 2.0), pool, length)))
        .collect();
    let over = |of: &dyn Fn(&[[f64; 3]; 2]) -> f64| median(rounds.iter().map(of).collect());
    let worst = rounds.iter().map(|round| round[1][0]).fold(f64::MAX, f64::min);
    println!(
        "{attack:16} in the worker's time: {:.2} Mpps offered, half of {:.2}: kept alone {:.2} %, beside {:.2} % (worst {:.2}); attack {:.0}/s of {}, \
         {} frames in all",
        maximum / 2e6,
        maximum / 1e6,
        100.0 * over(&|round| round[0][0]),
        100.0 * over(&|round| round[1][0]),
        100.0 * worst,
        over(&|round| round[1][2]),
        attack.rate(),
        pool.next,
    );
}

/// What `Datapath::apply` does on its thread before its workers get a World.
fn prepare(world: &World, fdb: &vswitch_core::fdb::Fdb, connections: &Connections) {
    let ports: Vec<PortId> = world.ports().map(|port| port.id).collect();
    let each = connections.capacity() / ports.len();
    ports.iter().for_each(|port| connections.admit(*port, each as u32));
    connections.fragments().share(&ports);
    fdb.install(world);
}

fn policy(swaps: usize, rules: usize) {
    pin(0);
    let mut traffic = Traffic::new(rules);
    let (send, worlds) = mpsc::sync_channel(0);
    let (fdb, connections) = (traffic.rig.fdb.clone(), traffic.rig.worker.connections().clone());
    let mut old = traffic.rig.world.clone();
    let compiler = std::thread::spawn(move || {
        pin(1);
        let mut millis = Vec::new();
        for epoch in 2..2 + swaps as u64 {
            // Other rules, and as many.
            let mut lab = stage::lab(rules - (epoch % 2) as usize, &[WEB], &[DNS, 54 + (epoch % 2) as u16]);
            lab.epoch = Epoch::new(epoch);
            let begin = Instant::now();
            let world = Arc::new(World::compile_after(&lab, &old).expect("a lab"));
            millis.push(begin.elapsed().as_secs_f64() * 1e3);
            prepare(&world, &fdb, &connections);
            // Until it was taken: what the workers have no more goes with this thread's.
            old = world.clone();
            if send.send(world).is_err() {
                break;
            }
        }
        median(millis)
    });
    let mut longest: [Vec<f64>; 3] = Default::default();
    let (mut kept, mut exchanged) = (None, 0_u64);
    while longest[2].len() < swaps {
        longest[0].push(Traffic::longest(AFTER, std::hint::spin_loop));
        let mut taken = None;
        longest[1].push(Traffic::longest(AFTER, || traffic.burst()));
        while taken.is_none() {
            traffic.burst();
            exchanged += 1;
            match worlds.try_recv() {
                Ok(world) => taken = Some(world),
                Err(mpsc::TryRecvError::Empty) => {}
                Err(mpsc::TryRecvError::Disconnected) => panic!("no World came"),
            }
        }
        let mut next: Option<Arc<World>> = taken;
        // The old one is kept, as the datapath keeps it until all its workers have the new one.
        let before = kept.replace(next.clone());
        longest[2].push(Traffic::longest(AFTER, || {
            if let Some(world) = next.take() {
                traffic.rig.worker.follow(world);
            }
            traffic.burst();
        }));
        drop(before);
    }
    drop(worlds);
    let compiled = compiler.join().expect("it compiles");
    println!(
        "{swaps} swaps of {rules} rules ({compiled:.0} ms to compile) under traffic of {SESSIONS} connections, {exchanged} bursts between; longest wait \
         in {AFTER:?}, µs:"
    );
    let bound = 100.0 + quantile(&mut longest[0], 1.0);
    for (name, mut all) in ["spinning", "traffic", "a swap and traffic"].into_iter().zip(longest) {
        let [half, most, longest] = [0.5, 0.9, 1.0].map(|q| quantile(&mut all, q));
        let above = all.iter().filter(|micros| **micros > bound).count();
        println!(
            "{name:20} median {half:.1}, 90 % {most:.1}, longest {longest:.1}; {above} above 100 µs more than the longest of spinning"
        );
    }
}

fn main() {
    let only = word("--only");
    let is_wanted = |name: &str| only.as_ref().is_none_or(|only| only == name);
    let attacks = [
        ("tuples", Attack::Tuples),
        ("syns", Attack::Syns),
        ("macs", Attack::Macs),
        ("fragments", Attack::Fragments),
        ("connections", Attack::Connections),
    ];
    let (rounds, rules) = (option("--rounds", 9), option("--rules", 1000));
    let length = Duration::from_millis(option("--millis", 250) as u64);
    if is_wanted("policy") {
        std::thread::spawn(|| policy(option("--swaps", 200), 10_000)).join().expect("it runs");
    }
    pin(1);
    for (_, attack) in attacks.into_iter().filter(|(name, _)| is_wanted(name)) {
        in_turns(attack, rounds, length, rules);
        if !std::env::args().any(|word| word == "--turns") {
            beside(attack, rounds, length, rules);
        }
    }
}
