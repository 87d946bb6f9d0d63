//! What a firewall costs a frame of an established connection: one worker's turns over two ports that have one, beside the same turns over two that
//! have none, in turn in one thread.
//!
//! `cargo bench -p vswitchd --bench guarded -- [--connections 1] [--rules 1] [--ends 1|2] [--udp] [--burst 1] [--batch 32] [--turns 20000]`: so many connections
//! to as many ports and hosts of the first guest, which have the frames in turn, `--burst` at a time, in an order without pattern; so many rules in the
//! group of the guarded interfaces, of which the last lets them in; one guarded interface (the second), or both. `--only plain|guarded`
//! takes the turns of one, for callgrind (`--toggle-collect='*Worker*turn*'`). `--opening`: what the first frame of each of so many connections
//! takes instead, which never has an answer.

#[path = "../tests/datapath/description.rs"]
mod description;
#[expect(dead_code, reason = "tests need more of it")]
#[path = "../tests/datapath/rig.rs"]
mod rig;

use description::{access, description, vlan};
use rig::Rig;
use std::{net::Ipv4Addr, time::Instant};
use vhost_net_backend::{
    cycles,
    driver::{Config, unwired::Unwired},
    layout::RingSize,
};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    description::{Description, Firewall, Identity, Origin},
    firewall::{
        connections::DEFAULT_CAPACITY,
        policy::{
            Action, Direction, Family, GroupId, Match, PortRange, Protocol, Remote, Rule, SecurityGroup,
        },
    },
    mac::MacAddr,
};
use vswitchd::worker::Turn;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Control bits of TCP.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const HERE: Origin = Origin { line: 1, column: 1 };

fn option(name: &str, otherwise: usize) -> usize {
    word(name).map_or(otherwise, |word| word.parse().expect("a number"))
}

fn word(name: &str) -> Option<String> {
    std::env::args().skip_while(|word| word != name).nth(1)
}

/// What is sent.
#[derive(Clone, Copy)]
struct Course {
    connections: usize,
    rules: usize,
    ends: usize,
    udp: bool,
    /// Frames of one connection that follow each other.
    burst: usize,
    batch: usize,
    /// Each frame is the first of its connection.
    opening: bool,
}

fn station(place: usize) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, place as u8 + 1])
}

/// Host and port of the first guest in connection `n`; the second guest is one host with one port.
fn first_end(n: usize) -> (Ipv4Addr, u16) {
    (Ipv4Addr::from_bits(0x0a01_0000 + (n >> 12) as u32), 1024 + (n & 0xfff) as u16)
}

const SECOND: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 2, 0, 1), 80);

impl Course {
    fn protocol(&self) -> u8 {
        if self.udp { UDP } else { TCP }
    }

    /// `guarded` of the two ports have a firewall, the second first.
    fn lab(&self, guarded: usize) -> Description {
        let mut lab = description(&[access(10), access(10)]);
        let rule = |matches| Rule {
            direction: Direction::Ingress,
            action: Action::Allow,
            stateful: true,
            log: false,
            matches,
            origin: HERE,
        };
        let ports = |first, last| vec![PortRange { first, last }];
        let mut rules: Vec<Rule> = (1..self.rules)
            .map(|n| {
                let from = ipnet::Ipv4Net::new(Ipv4Addr::from_bits(0xc000_0000 + (n as u32) * 64), 26);
                rule(Match {
                    family: Family::Ipv4,
                    protocol: Protocol::Number(TCP),
                    ports: ports(n as u16 % 1000 + 1000, n as u16 % 1000 + 1000),
                    remote: Remote::Networks(vec![from.expect("a prefix").into()]),
                    ..Match::default()
                })
            })
            .collect();
        rules.push(rule(Match {
            protocol: Protocol::Number(self.protocol()),
            ports: ports(SECOND.1, SECOND.1),
            ..Match::default()
        }));
        lab.groups = vec![SecurityGroup { name: "web".into(), rules, origin: HERE }];
        for place in (0..2).rev().take(guarded) {
            let network = if place == 0 { "10.1.0.0/16" } else { "10.2.0.1/32" };
            let port = lab.ports[place].as_mut().expect("it is there");
            port.firewall = Some(Firewall {
                groups: vec![GroupId::new(0)],
                addresses: vec![],
                identity: Some(Identity {
                    mac: station(place),
                    addresses: vec![network.parse().expect("a network")],
                    others: vec![],
                }),
                dhcp_server: false,
                router: false,
                origin: HERE,
            });
        }
        lab
    }

    /// Connections that the table has room for: those of each guarded end, and a quarter more, so that none is refused for lack of a slot.
    fn room(&self) -> u32 {
        let all = self.ends * self.connections * 5 / 4;
        u32::try_from(all).expect("a number of connections").max(DEFAULT_CAPACITY)
    }

    /// What each guest sends again and again, of all connections.
    fn frames(&self) -> [Frames; 2] {
        [(0, (ACK, 1001, 5001)), (1, (ACK, 5001, 1001))].map(|(place, segment)| {
            let all = (0..self.connections).flat_map(|n| self.frame(place, n, segment));
            Frames { bytes: all.collect(), len: self.frame(place, 0, segment).len() }
        })
    }

    /// A frame of connection `n` from the guest at `place`; of TCP with these control bits and numbers.
    fn frame(&self, place: usize, n: usize, (flags, seq, ack): (u8, u32, u32)) -> Vec<u8> {
        let link = Ethernet { src: station(place), dst: station(1 - place), tag: None };
        let (one, other) = (first_end(n), SECOND);
        let ((src, sport), (dst, dport)) = if place == 0 { (one, other) } else { (other, one) };
        let addresses = Addresses::V4(src, dst);
        if self.udp {
            return build::udp(link, addresses, (sport, dport), &[0; 18]);
        }
        let mut frame = build::tcp_syn(link, addresses, (sport, dport), seq);
        let tcp = frame.len() - 20;
        frame[tcp + 8..tcp + 12].copy_from_slice(&ack.to_be_bytes());
        frame[tcp + 13] = flags;
        frame
    }
}

/// Frames of one length, one behind the other: of a million connections each would else take twice its bytes.
struct Frames {
    bytes: Vec<u8>,
    len: usize,
}

impl Frames {
    fn get(&self, n: usize) -> &[u8] {
        &self.bytes[n * self.len..][..self.len]
    }
}

/// A worker between two guests, and what they say.
struct Bench {
    rig: Rig,
    course: Course,
    frames: [Frames; 2],
    sent: usize,
}

impl Bench {
    fn new(course: Course, guarded: usize) -> Self {
        let guest = Config { ring_size: RingSize::new(1024).expect("a power of two"), ..Config::default() };
        let mut rig = Rig::tracking(course.room(), &course.lab(guarded), &guest);
        (0..2).for_each(|place| rig.teach(place as u16, vlan(10), station(place)));
        let mut bench = Self { rig, course, frames: course.frames(), sent: 0 };
        // A handshake, then the same segment again and again; of UDP each end speaks once.
        let all = [(0, (SYN, 1000, 0)), (1, (SYN | ACK, 5000, 1001)), (0, (ACK, 1001, 5001))];
        if !course.opening {
            for (place, segment) in all {
                bench.open(place, segment);
            }
        }
        bench
    }

    /// Sends this once in each connection; what a frame of it takes.
    fn open(&mut self, place: usize, segment: (u8, u32, u32)) -> Taken {
        let Course { connections, batch, .. } = self.course;
        let (mut cycles, mut nanos) = (vec![], vec![]);
        for first in (0..connections).step_by(batch) {
            let pair = &mut self.rig.guests[place].pair;
            let numbers = first..connections.min(first + batch);
            for n in numbers.clone() {
                assert!(pair.transmit(&self.course.frame(place, n, segment)), "the ring has room");
            }
            pair.flush();
            let (began, begin) = (Instant::now(), cycles::now());
            let done = self.rig.turns();
            cycles.push((cycles::now() - begin) as f64 / done as f64);
            nanos.push(began.elapsed().as_nanos() as f64 / done as f64);
            let came = self.rig.guests[1 - place].pair.receive(|_, _| {});
            assert_eq!([done, came], [numbers.len(); 2], "all pass");
        }
        Taken { cycles: median(cycles), nanos: median(nanos) }
    }

    /// Takes so many turns; cycles a frame in the middle one of them, so that those in which another process had the CPU do not count.
    fn run(&mut self, turns: usize) -> f64 {
        let Course { batch, burst, connections, .. } = self.course;
        let (mut moved, mut spent) = (0, Vec::with_capacity(turns));
        for _ in 0..turns {
            for (frames, Unwired { pair, .. }) in self.frames.iter().zip(&mut self.rig.guests) {
                for n in self.sent..self.sent + batch {
                    // An odd factor, and one that no number of connections has: each has its turn, far from its neighbour's.
                    let n = ((n / burst) as u64).wrapping_mul(0x9e37_79b1) % connections as u64;
                    assert!(pair.transmit(frames.get(n as usize)), "the ring has room");
                }
                pair.flush();
            }
            self.sent += batch;
            let begin = cycles::now();
            let done = self.rig.turn();
            spent.push((cycles::now() - begin) as f64);
            assert_eq!(done, Turn::Busy(batch * 2));
            for guest in &mut self.rig.guests {
                moved += guest.pair.receive(|_, _| {});
            }
        }
        let sent = turns * batch * 2;
        assert_eq!(moved, sent, "nothing was lost");
        median(spent) / (batch * 2) as f64
    }
}

/// What a frame takes in the middle batch.
struct Taken {
    cycles: f64,
    nanos: f64,
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    let course = Course {
        connections: option("--connections", 1),
        rules: option("--rules", 1),
        ends: option("--ends", 1),
        udp: std::env::args().any(|word| word == "--udp"),
        burst: option("--burst", 1),
        batch: option("--batch", 32),
        opening: std::env::args().any(|word| word == "--opening"),
    };
    if course.opening {
        let (mut plain, mut guarded) = (Bench::new(course, 0), Bench::new(course, course.ends));
        let [alone, first] = [&mut plain, &mut guarded].map(|bench| bench.open(0, (SYN, 1000, 0)));
        println!(
            "{:.0} cycles a first frame, {:.0} ns, {:.0} thousand a second ({:.0} cycles without firewall)",
            first.cycles,
            first.nanos,
            1e6 / first.nanos,
            alone.cycles
        );
        return;
    }
    let turns = option("--turns", 20_000);
    if let Some(only) = word("--only") {
        let guarded = if only == "guarded" { course.ends } else { 0 };
        println!("{:.1} cycles a frame", Bench::new(course, guarded).run(turns));
        return;
    }
    const ROUNDS: usize = 20;
    let (mut plain, mut guarded) = (Bench::new(course, 0), Bench::new(course, course.ends));
    let rounds: Vec<[f64; 2]> =
        (0..ROUNDS).map(|_| [plain.run(turns / ROUNDS), guarded.run(turns / ROUNDS)]).collect();
    let [one, other] = [0, 1].map(|column| median(rounds.iter().map(|round| round[column]).collect()));
    let more = median(rounds.iter().map(|[plain, guarded]| guarded - plain).collect());
    println!("{one:.1} cycles a frame without firewall, {other:.1} with: {more:+.1}");
}
