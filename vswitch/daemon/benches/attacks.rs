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
#[path = "attacks/victim.rs"]
mod victim;

use description::vlan;
use lab::Lab;
use rig::Rig;
use stage::{Attack, CLIENT, DNS, GUESTS, SERVER, WEB};
use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};
use vhost_net_backend::driver::Driver;
use victim::{
    BURST, Bench, Load, Mark, Turns, beside, config, in_turns, median, option, pin, quantile, word,
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

impl Load for Attack {
    fn rate(&self) -> u64 {
        Self::rate(*self)
    }

    fn frame(&self, n: u64) -> Vec<u8> {
        Self::frame(*self, n)
    }

    fn answer(&self, n: u64) -> Option<Vec<u8>> {
        Self::answer(*self, n)
    }
}

/// The client's frames come from its MAC address.
fn mark() -> Mark {
    Mark { at: 6, bytes: stage::station(CLIENT).octets().into() }
}

/// The four guests of a running datapath, with the victims' connections open.
fn bench(rules: usize) -> Bench {
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
    Bench::over(lab, guests, frames, mark())
}

/// The same by the clock, and what became of the victims' frames.
fn by_the_clock(attack: Attack, rounds: usize, length: Duration, rules: usize) {
    let mut bench = bench(rules);
    beside(&mut bench, &attack, rounds, length);
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
        let mut traffic = Self { rig, frames, sent: 0, origin: Instant::now() };
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

/// The client's traffic, in the worker's own time.
fn turns(rules: usize) -> Turns {
    let Traffic { rig, frames: [frames, _], .. } = Traffic::new(rules);
    Turns::over(rig, frames.into_iter().take(STREAMS.into()).collect(), mark())
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
        in_turns(&mut turns(rules), &attack, rounds, length);
        if !std::env::args().any(|word| word == "--turns") {
            by_the_clock(attack, rounds, length, rules);
        }
    }
}
