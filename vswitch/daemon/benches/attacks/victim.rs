//! A victim beside an attack, as benchmarks of both kinds have them: by the clock (a datapath, and all guests in one thread), and in the worker's own time (guests
//! and worker in one thread, and a clock that stands between two turns).

use crate::{
    lab::Lab,
    rig::Rig,
    stage::{ACCOMPLICE, ATTACKER, CLIENT, LEN, SERVER},
};
use std::{
    fmt::Display,
    time::{Duration, Instant},
};
use vhost_net_backend::{
    cycles,
    driver::{Config, Driver},
    layout::RingSize,
    net_header,
};

/// Frames that are on their way at most when the victims send as fast as they can, and that are sent at a time.
const WINDOW: u64 = 512;
pub(crate) const BURST: u64 = 32;
/// Entries of the rings.
const RING: u16 = 1024;
/// Where a frame's padding begins, which has its time, and how long that is.
const STAMP: usize = 54;
const STAMP_LEN: usize = LEN - STAMP;
/// One frame of so many has its latency noted.
const SAMPLED: u64 = 16;
/// For how long a frame on its way is waited for at the end.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn option(name: &str, otherwise: usize) -> usize {
    word(name).map_or(otherwise, |word| word.parse().expect("a number"))
}

pub(crate) fn word(name: &str) -> Option<String> {
    std::env::args().skip_while(|word| word != name).nth(1)
}

pub(crate) fn median(mut all: Vec<f64>) -> f64 {
    quantile(&mut all, 0.5)
}

/// The quantile `q`; 0 of nothing.
pub(crate) fn quantile(all: &mut [f64], q: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    let at = (all.len() as f64 * q) as usize;
    all.get(at.min(all.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

pub(crate) fn pin(number: usize) {
    let mut cpu = rustix::thread::CpuSet::new();
    cpu.set(number);
    rustix::thread::sched_setaffinity(None, &cpu).expect("two CPUs");
}

pub(crate) fn config() -> Config {
    Config { ring_size: RingSize::new(RING).expect("a power of two"), ..Config::default() }
}

/// An attack.
pub(crate) trait Load: Display {
    /// How many frames a second.
    fn rate(&self) -> u64;

    /// Frame `n`.
    fn frame(&self, n: u64) -> Vec<u8>;

    /// What the accomplice answers to it, if it does.
    fn answer(&self, n: u64) -> Option<Vec<u8>>;
}

/// What tells the victim's frames from others where they arrive: bytes, and where they stand.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    pub(crate) at: usize,
    pub(crate) bytes: Vec<u8>,
}

/// An attack's frames and answers, made before.
pub(crate) struct Pool<'a> {
    load: &'a dyn Load,
    /// One behind the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    answers: Vec<Option<Vec<u8>>>,
    next: usize,
}

impl<'a> Pool<'a> {
    pub(crate) fn new(load: &'a dyn Load, seconds: f64) -> Self {
        let count = (load.rate() as f64 * seconds) as u64 + 1;
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for n in 0..count {
            bytes.extend(load.frame(n));
            ends.push(bytes.len());
        }
        Self { load, bytes, ends, answers: (0..count).map(|n| load.answer(n)).collect(), next: 0 }
    }

    /// The frame that is sent next, unless all were.
    fn frame(&self) -> Option<&[u8]> {
        let begin = self.next.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[begin..*self.ends.get(self.next)?])
    }

    /// How many frames were sent.
    const fn sent(&self) -> usize {
        self.next
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

/// The guests of a running datapath, the first of which is the victim's client.
pub(crate) struct Bench {
    pub(crate) lab: Lab,
    pub(crate) guests: Vec<Driver>,
    /// The client's frames, and whether each of its buffers has one.
    frames: Vec<Vec<u8>>,
    filled: Vec<bool>,
    mark: Mark,
    origin: Instant,
}

impl Bench {
    pub(crate) fn over(lab: Lab, guests: Vec<Driver>, frames: Vec<Vec<u8>>, mark: Mark) -> Self {
        Self { lab, guests, frames, filled: vec![false; RING.into()], mark, origin: Instant::now() }
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
        let (mark, mut count) = (&self.mark, 0);
        let pair = self.guests[SERVER].pair();
        pair.receive_in_place(256, net_header::LEN + LEN, |frame| {
            let (mut marked, mut stamp) = ([0; 8], [0; 8]);
            let marked = &mut marked[..mark.bytes.len()];
            if frame.read(mark.at, marked) && *marked == *mark.bytes {
                if count % SAMPLED == 0 && frame.read(STAMP, &mut stamp[..STAMP_LEN]) {
                    micros.push(now.saturating_sub(u64::from_le_bytes(stamp)) as f64 / 1000.0);
                }
                count += 1;
            }
        });
        pair.flush();
        count
    }

    fn trial(&mut self, pace: Pace, mut pool: Option<&mut Pool<'_>>, length: Duration) -> Outcome {
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
    fn attack(&mut self, pool: &mut Pool<'_>, seconds: f64, outcome: &mut Outcome) {
        outcome.attack_due = (seconds * pool.load.rate() as f64) as u64;
        let wanted = (outcome.attack_due - outcome.attack_sent).min(BURST);
        let (first, mut sent) = (pool.next, 0);
        let pair = self.guests[ATTACKER].pair();
        while sent < wanted && pool.frame().is_some_and(|frame| pair.transmit(frame)) {
            pool.next += 1;
            sent += 1;
        }
        if sent == 0 {
            return;
        }
        pair.flush();
        let answered = &pool.answers[first..pool.next];
        if answered.iter().any(Option::is_some) {
            // The frames that these answer stand before them, so most of them come too early by less than a turn, and open as well.
            let pair = self.guests[ACCOMPLICE].pair();
            answered.iter().flatten().for_each(|answer| {
                pair.transmit(&answer[..]);
            });
            pair.flush();
        }
        outcome.attack_sent += sent;
    }
}

/// Resident memory in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
}

/// Tells what of a victim's rate is left beside an attack, by the clock. Returns by how many KiB the process grew meanwhile.
pub(crate) fn beside(bench: &mut Bench, attack: &dyn Load, rounds: usize, length: Duration) -> u64 {
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
        pool.sent(),
    );
    more
}

/// A client, its attacker and a worker in one thread, in the worker's own time, which passes only while it takes turns: neither what takes CPUs away between turns
/// nor the way from one CPU to another is in it.
pub(crate) struct Turns {
    rig: Rig,
    frames: Vec<Vec<u8>>,
    mark: Mark,
    /// What the worker took, in cycles of turns.
    worked: u64,
}

impl Turns {
    /// Cycles of a second of that time.
    const HERTZ: f64 = 2.6e9;
    /// A turn in which the CPU was taken away counts as so many cycles.
    const MOST: u64 = 1_000_000;
    /// When it begins: connections were opened before, by another clock.
    const SET_UP: u64 = 60_000_000_000;

    pub(crate) const fn over(rig: Rig, frames: Vec<Vec<u8>>, mark: Mark) -> Self {
        Self { rig, frames, mark, worked: 0 }
    }

    /// One turn; what the client's frames came to.
    fn timed(&mut self) -> u64 {
        let begin = cycles::now();
        let nanos = Self::SET_UP + (self.worked as f64 / Self::HERTZ * 1e9) as u64;
        self.rig.worker.turn(vswitch_core::clock::Instant::from_nanos(nanos));
        self.worked += cycles::now().wrapping_sub(begin).min(Self::MOST);
        let (mark, mut came) = (&self.mark, 0);
        let is_marked =
            |frame: &[u8]| frame.get(mark.at..mark.at + mark.bytes.len()) == Some(&mark.bytes[..]);
        for (place, guest) in self.rig.guests.iter_mut().enumerate() {
            guest.pair.receive(|_, frame| came += u64::from(place == SERVER && is_marked(frame)));
        }
        came
    }

    /// For so long the client sends, all that its ring takes or so many a second, and the attacker what is due; of what was due, what came, and
    /// frames a second of the client and of the attacker.
    fn works(&mut self, rate: Option<f64>, mut pool: Option<&mut Pool<'_>>, length: Duration) -> [f64; 3] {
        let begin = self.worked;
        let seconds = |worked: u64| (worked - begin) as f64 / Self::HERTZ;
        let (mut sent, mut attacked, mut came) = (0_u64, 0_u64, 0_u64);
        while seconds(self.worked) < length.as_secs_f64() {
            let now = seconds(self.worked);
            let due = rate.map_or(sent + BURST * 2, |rate| (now * rate) as u64);
            let pair = &mut self.rig.guests[CLIENT].pair;
            while sent < due && pair.transmit(&self.frames[sent as usize % self.frames.len()]) {
                sent += 1;
            }
            pair.flush();
            if let Some(pool) = pool.as_deref_mut() {
                let due = (now * pool.load.rate() as f64) as u64;
                while attacked < due
                    && pool.frame().is_some_and(|frame| self.rig.guests[ATTACKER].pair.transmit(frame))
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

/// As [`beside`], in the worker's own time. /// Returns what was kept in the middle one of all rounds.
pub(crate) fn in_turns(traffic: &mut Turns, attack: &dyn Load, rounds: usize, length: Duration) -> f64 {
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
        pool.sent(),
    );
    over(&|round| round[1][0])
}
