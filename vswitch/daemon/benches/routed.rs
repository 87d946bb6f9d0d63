//! What a frame costs that a gateway passes on to another VLAN, beside one that is merely switched: one worker's turns between two guests, in turn in one
//! thread.
//!
//! `cargo bench -p vswitchd --bench routed -- [--routes 1] [--v6] [--batch 32] [--turns 20000]`: the first guest sends to the second or, with several
//! routes, to hosts in as many networks behind it, without pattern; the second sends to the first. `--only plain|routed` takes the turns of one, for
//! callgrind (`--toggle-collect='*Worker*turn*'`).
//!
//! `--nat`: the second guest is outside, and has the router's address as the first one's; `--flows 1` tells how many connections send in turn.
//!
//! `--swap [--routes 1000000] [--swaps 20]`: Worlds with so many routes are compiled by another thread and taken over between turns, as a datapath does it; how
//! long a frame waits at most, beside how long a thread is kept from the CPU that does nothing else than look for that while the same is compiled.

#[path = "../tests/datapath/description.rs"]
mod description;
#[expect(dead_code, reason = "tests need more of it")]
#[path = "../tests/datapath/rig.rs"]
mod rig;

use description::{access, description, vlan};
use rig::Rig;
use rustix::time::{ClockId, clock_gettime};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};
use vhost_net_backend::{
    cycles,
    driver::{Config, unwired::Unwired},
    layout::RingSize,
};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    clock,
    description::{Description, Gateway, Link, Nat, NatRule, Origin, Route, Router, Routing, Via},
    fdb::Fdb,
    id::PortId,
    mac::MacAddr,
    world::World,
};

/// Frames of many hosts that each guest has ready.
const READY: usize = 1 << 14;
const ROUTERS: u8 = 99;
const HERE: Origin = Origin { line: 1, column: 1 };

fn option(name: &str, otherwise: usize) -> usize {
    let mut words = std::env::args().skip_while(|word| word != name).skip(1);
    words.next().map_or(otherwise, |word| word.parse().expect("a number"))
}

#[derive(Clone, Copy)]
struct Course {
    routes: usize,
    v6: bool,
    batch: usize,
    nat: bool,
    flows: usize,
}

fn station(place: usize) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, place as u8 + 1])
}

/// Without pattern, and the same each time.
fn mixed(n: usize) -> u64 {
    let n = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    n ^ n >> 29
}

impl Course {
    /// The host's address in its VLAN; 254 is the gateway's.
    fn host(&self, place: usize, n: u8) -> IpAddr {
        if self.v6 {
            Ipv6Addr::new(0xfd00, place as u16 + 1, 0, 0, 0, 0, 0, n.into()).into()
        } else {
            Ipv4Addr::new(10, place as u8 + 1, 0, n).into()
        }
    }

    /// A host behind the second guest, in the `n`-th network: of 24 bits, or of 48.
    fn far(&self, n: usize) -> IpAddr {
        if self.v6 {
            Ipv6Addr::from_bits(0x2001 << 112 | (mixed(n) as u128 & 0xffff_ffff) << 80 | 1).into()
        } else {
            Ipv4Addr::from_bits(0x1000_0001 + ((mixed(n) as u32 % 0x60_0000) << 8)).into()
        }
    }

    fn lab(&self, routed: bool) -> Description {
        if !routed {
            return description(&[access(10), access(10)]);
        }
        let mut lab = description(&[access(10), access(20), Link::Routers]);
        let port = PortId::new(2, 0);
        lab.ports[2].as_mut().expect("it is there").mac = Some(station(usize::from(ROUTERS)));
        let (length, far) = if self.v6 { (64, 48) } else { (24, 24) };
        let net = |address, length| ipnet::IpNet::new(address, length).expect("a prefix");
        let gateway = |place: usize, number| Gateway {
            vlan: vlan(number),
            addresses: vec![net(self.host(place, 254), length)],
            dhcp: None,
            ra: false,
            neigh_suppress: false,
            origin: HERE,
        };
        let route = |n| Route {
            to: net(self.far(n), far).trunc(),
            via: Via::Routers(vec![self.host(1, 1)]),
            origin: HERE,
        };
        let masquerade = Nat { rule: NatRule::Masquerade { vlan: vlan(20) }, origin: HERE };
        let several = if self.routes > 1 { self.routes } else { 0 };
        lab.routing = Some(Routing {
            port,
            routers: vec![Router {
                name: "default".into(),
                gateways: vec![gateway(0, 10), gateway(1, 20)],
                routes: (0..several).map(route).collect(),
                nat: self.nat.then_some(masquerade).into_iter().collect(),
                nameservers: Vec::new(),
            }],
            hosts: vec![],
            ssh_keys: vec![],
        });
        lab
    }

    /// What a guest sends, one frame behind the other.
    fn frames(&self, place: usize, routed: bool) -> Vec<Vec<u8>> {
        let to = if routed { station(usize::from(ROUTERS)) } else { station(1 - place) };
        let link = Ethernet { src: station(place), dst: to, tag: None };
        let many = self.routes > 1 && place == 0;
        let frame = |n: usize| {
            // From outside the first guest is the router.
            let other =
                || if self.nat && routed && place == 1 { self.host(1, 254) } else { self.host(1 - place, 1) };
            let dst = if many { self.far(mixed(n) as usize % self.routes) } else { other() };
            let addresses = match (self.host(place, 1), dst) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => Addresses::V4(src, dst),
                (IpAddr::V6(src), IpAddr::V6(dst)) => Addresses::V6(src, dst),
                _ => unreachable!("of one version"),
            };
            let port = 4000 + (n % self.flows) as u16;
            let ports = if place == 0 { (port, 53) } else { (53, port) };
            build::udp(link, addresses, ports, &[0; 18])
        };
        (0..if many { READY } else { self.flows }).map(frame).collect()
    }
}

struct Bench {
    rig: Rig,
    course: Course,
    frames: [Vec<Vec<u8>>; 2],
    sent: usize,
}

impl Bench {
    fn new(course: Course, routed: bool) -> Self {
        let guest = Config { ring_size: RingSize::new(1024).expect("a power of two"), ..Config::default() };
        let mut rig = Rig::new(&course.lab(routed), &guest);
        for (place, number) in [(0, 10), (1, if routed { 20 } else { 10 })] {
            rig.teach(place as u16, vlan(number), station(place));
            let (address, mac) = (course.host(place, 1), station(place));
            rig.worker.neighbours().set(vlan(number), address, mac, clock::Instant::ZERO);
        }
        let mut bench =
            Self { rig, course, frames: [0, 1].map(|place| course.frames(place, routed)), sent: 0 };
        // Connections are there when both ends were heard.
        bench.connect();
        bench
    }

    fn connect(&mut self) {
        for place in 0..2 {
            for n in 0..self.course.flows {
                let pair = &mut self.rig.guests[place].pair;
                assert!(
                    pair.transmit(&self.frames[place][n % self.frames[place].len()]),
                    "the ring has room"
                );
                pair.flush();
                self.rig.turns();
                self.rig.guests.iter_mut().for_each(|guest| {
                    guest.pair.receive(|_, _| {});
                });
            }
        }
    }

    /// Takes so many turns; cycles a frame in the middle one of them, so that those in which another process had the CPU do not count.
    fn run(&mut self, turns: usize) -> f64 {
        let spent = (0..turns).map(|_| self.round() as f64).collect();
        median(spent) / (self.course.batch * 2) as f64
    }

    /// Each guest sends a batch, and gets that of the other: the cycles that the worker's turns take.
    fn round(&mut self) -> u64 {
        let batch = self.course.batch;
        for (frames, Unwired { pair, .. }) in self.frames.iter().zip(&mut self.rig.guests) {
            for n in self.sent..self.sent + batch {
                assert!(pair.transmit(&frames[n % frames.len()]), "the ring has room");
            }
            pair.flush();
        }
        self.sent += batch;
        let begin = cycles::now();
        // Frames that are decided one by one may be more than a turn has room for.
        let done = self.rig.turns();
        let spent = cycles::now() - begin;
        assert_eq!(done, batch * 2);
        let received: usize = self.rig.guests.iter_mut().map(|guest| guest.pair.receive(|_, _| {})).sum();
        assert_eq!(received, batch * 2, "nothing was lost");
        spent
    }
}

/// How long something took that is done over and over.
#[derive(Default)]
struct Longest {
    wall: Duration,
    over_a_millisecond: usize,
    /// Of the thread's own time.
    own: Duration,
}

impl Longest {
    /// Does it until it says that it is done.
    fn of(mut again: impl FnMut() -> bool) -> Self {
        let (mut longest, mut last) = (Self::default(), (Instant::now(), own_time()));
        while again() {
            let now = (Instant::now(), own_time());
            let wall = now.0 - last.0;
            longest.wall = longest.wall.max(wall);
            longest.over_a_millisecond += usize::from(wall > Duration::from_millis(1));
            longest.own = longest.own.max(now.1 - last.1);
            last = now;
        }
        longest
    }
}

/// How long this thread had a CPU.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Calls `again` until another thread has compiled so many Worlds of `lab` one after the other, each with the next one when it is there: that is with a worker when
/// this returns, so that the one before is dropped where they are compiled. Also how long the longest of them took.
fn while_compiled(
    (first, fdb): (&World, &Fdb),
    lab: &Description,
    swaps: usize,
    mut again: impl FnMut(Option<Arc<World>>),
) -> (Longest, Duration) {
    let (give, take) = mpsc::sync_channel(0);
    let (taken, is_taken) = mpsc::channel();
    thread::scope(|scope| {
        let compiler = scope.spawn(move || {
            let (mut running, mut longest): (Option<Arc<World>>, _) = (None, Duration::ZERO);
            for _ in 0..swaps {
                let begin = Instant::now();
                let world = World::compile_after(lab, running.as_deref().unwrap_or(first)).expect("a lab");
                longest = longest.max(begin.elapsed());
                let world = Arc::new(world);
                fdb.install(&world);
                give.send(world.clone()).expect("somebody takes it");
                is_taken.recv().expect("it is told");
                running = Some(world);
            }
            longest
        });
        let waited = Longest::of(|| match take.try_recv() {
            Ok(world) => {
                again(Some(world));
                taken.send(()).expect("somebody waits for that");
                true
            }
            Err(mpsc::TryRecvError::Empty) => {
                again(None);
                true
            }
            Err(mpsc::TryRecvError::Disconnected) => false,
        });
        (waited, compiler.join().expect("it compiles"))
    })
}

/// The longest that a frame waits while Worlds are swapped.
fn swap(course: Course, swaps: usize) {
    let lab = course.lab(true);
    let mut bench = Bench::new(course, true);
    let (first, fdb) = (bench.rig.world.clone(), bench.rig.fdb.clone());
    let (spun, _) = while_compiled((&first, &fdb), &lab, swaps, |_| {});
    let (turned, compiled) = while_compiled((&first, &fdb), &lab, swaps, |next| {
        if let Some(next) = next {
            bench.rig.worker.follow(next);
        }
        bench.round();
    });
    println!("{swaps} Worlds of {} routes, each compiled in {compiled:.1?} at most", course.routes);
    for (what, Longest { wall, over_a_millisecond, own }) in [("turns", turned), ("a spinning thread", spun)]
    {
        println!(
            "{what}: {wall:.1?} at most from one to the next, {over_a_millisecond} over 1 ms; {own:.1?} of the thread's own time"
        );
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    let course = Course {
        routes: option("--routes", 1),
        v6: std::env::args().any(|word| word == "--v6"),
        batch: option("--batch", 32),
        nat: std::env::args().any(|word| word == "--nat"),
        flows: option("--flows", 1),
    };
    if std::env::args().any(|word| word == "--swap") {
        return swap(course, option("--swaps", 20));
    }
    let turns = option("--turns", 20_000);
    if let Some(only) = std::env::args().skip_while(|word| word != "--only").nth(1) {
        println!("{:.1} cycles a frame", Bench::new(course, only == "routed").run(turns));
        return;
    }
    const ROUNDS: usize = 20;
    let (mut plain, mut routed) = (Bench::new(course, false), Bench::new(course, true));
    let rounds: Vec<[f64; 2]> =
        (0..ROUNDS).map(|_| [plain.run(turns / ROUNDS), routed.run(turns / ROUNDS)]).collect();
    let [one, other] = [0, 1].map(|column| median(rounds.iter().map(|round| round[column]).collect()));
    println!("{one:.1} cycles a frame switched, {other:.1} routed: {:.2} times", other / one);
}
