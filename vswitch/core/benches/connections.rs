//! Connection tracking in one thread: nanoseconds here, instructions under callgrind.
//!
//! `cargo bench -p vswitch-core --bench connections -- [--connections 1000] [--capacity N] [--rounds N] [--v6] [--keys | --opening | --plain | --lines]`.
//! Data and its acknowledgement go to and fro on all connections in turn, in batches of 64, in an order without pattern. It prints what a
//! frame costs: from its first byte to the verdict; with `--plain` only as far as plain switching reads it, which is what the other is to
//! be compared with; with `--keys` from the key on; with `--opening` what a whole connection costs that is opened, answered, used and
//! reset; with `--lines` what no table of that size can do without: a line of an index and one of an entry loaded for each frame, and the
//! latter changed. Under `valgrind --tool=callgrind` two runs with unlike `--rounds` differ by nothing but frames.

use std::{
    hint::black_box,
    net::{Ipv4Addr, Ipv6Addr},
    ops::Range,
    time,
};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    clock::Instant,
    firewall::{
        connections::{
            Answer, Config, Connections, Digest, Ends, Event, Facts, Hosts, Key, Opened, Opening, Place,
            Scope, Secret, Segment, State, Timeouts,
        },
        policy::Direction,
    },
    head::{LinkHeader, TcpFlags},
    id::{Epoch, PortId},
    mac::MacAddr,
    vlan::VlanId,
};

const BATCH: usize = 64;
/// Batches that are timed together; their frames were written before, and are in the second cache.
const PART: usize = 16;
const LEN: u32 = 6;
const EPOCH: Epoch = Epoch::new(1);
const NOW: Instant = Instant::from_nanos(1_000_000_000);
const PORT: PortId = PortId::new(3, 0);

fn flag(name: &str) -> bool {
    std::env::args().any(|word| word == name)
}

fn option(name: &str, otherwise: usize) -> usize {
    let mut words = std::env::args().skip_while(|word| word != name).skip(1);
    words.next().map_or(otherwise, |word| word.parse().expect("a number"))
}

fn scope() -> Scope {
    Scope { port: PORT, vlan: VlanId::new(10).expect("a VLAN") }
}

/// Connection `n`: its host outside and its port there.
fn outside(n: u32) -> (u32, u16) {
    (0x0a00_0000 | n >> 12, 1024 + (n & 0xfff) as u16)
}

fn hosts(n: u32, v6: bool) -> Hosts {
    let (outside, inside) = (outside(n).0, 0x0a80_0001);
    let long = |host: u32| Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(host));
    if v6 {
        Hosts::V6(long(inside), long(outside))
    } else {
        Hosts::V4(Ipv4Addr::from(inside), Ipv4Addr::from(outside))
    }
}

fn key(n: u32, v6: bool) -> Key {
    Key::new(scope(), hosts(n, v6), 6, Ends::Ports { inside: 80, outside: outside(n).1 })
}

fn segment(flags: u8, seq: u32, ack: u32, len: u32) -> Event {
    let scale = (flags & 2 != 0).then_some(7);
    Event::Tcp(Segment { flags: TcpFlags::from_bits(flags), seq, ack, window: 0xffff, len, scale })
}

fn open(table: &Connections, key: &Key, digest: Digest) {
    let event = &segment(2, 999, 0, 0);
    let from = Direction::Ingress;
    let opening = Opening { key, digest, from, event, opener: from, epoch: EPOCH };
    assert_eq!(table.open(&opening, NOW), Opened::New);
    look_up(table, digest, Direction::Egress, &segment(0x12, 4999, 1000, 0));
    let answer = look_up(table, digest, Direction::Ingress, &segment(0x10, 1000, 5000, 0));
    assert_eq!(answer, Answer::Known { state: State::Established, opener: from });
}

fn look_up(table: &Connections, digest: Digest, from: Direction, event: &Event) -> Answer {
    table.look_up(digest, from, event, EPOCH, NOW)
}

/// As a worker does: all lines of the index, then all entries.
fn warm<'a>(table: &Connections, digests: impl Iterator<Item = &'a Digest>) {
    let mut places = [Place::default(); BATCH];
    places.iter_mut().zip(digests).for_each(|(place, digest)| *place = table.likely(*digest));
    black_box(places.iter().fold(0, |sum, place| sum ^ table.load(*place)));
}

/// Which way round `round` goes, and what its frames say: data comes in, and is acknowledged.
fn round_of(round: usize) -> (Direction, u32, u32, u32) {
    let seq = 1000u32.wrapping_add((round / 2) as u32 * LEN);
    if round.is_multiple_of(2) {
        (Direction::Ingress, seq, 5000, LEN)
    } else {
        (Direction::Egress, 5000, seq.wrapping_add(LEN), 0)
    }
}

/// The `n`-th of `count`, a power of two, without pattern: each comes once.
fn mixed(n: usize, count: usize) -> u32 {
    let mask = count - 1;
    let n = n.wrapping_mul(0x9e37_79b1) & mask;
    let n = n ^ n >> (count.ilog2() / 2).max(1);
    (n.wrapping_mul(0x85eb_ca6b) & mask) as u32
}

struct Frames(Vec<[u8; 80]>, usize);

impl Frames {
    /// What a guest's frames look like before they are told apart.
    fn new(v6: bool) -> Self {
        let mac = |n| MacAddr::new([2, 0, 0, 0, 0, n]);
        let link = Ethernet { src: mac(1), dst: mac(2), tag: None };
        let addresses = match hosts(0, v6) {
            Hosts::V4(inside, outside) => Addresses::V4(outside, inside),
            Hosts::V6(inside, outside) => Addresses::V6(outside, inside),
        };
        let frame = build::tcp_syn(link, addresses, (1, 2), 0);
        // A segment without options, and with data.
        let (at, len) = if v6 { (54, 74) } else { (34, 54) };
        let mut bytes = [0; 80];
        bytes[..len].copy_from_slice(&frame[..len]);
        bytes[at + 12] = 5 << 4;
        bytes[at + 13] = TcpFlags::ACK.bits();
        bytes[if v6 { 19 } else { 17 }] = (len - if v6 { 54 } else { 14 }) as u8 + LEN as u8;
        Self(vec![bytes; BATCH * PART], len + LEN as usize)
    }

    fn set(&mut self, place: usize, n: u32, v6: bool, (from, seq, ack, _): (Direction, u32, u32, u32)) {
        let bytes = &mut self.0[place];
        let (host, port) = outside(n);
        let (inside, outside) = (0x0a80_0001u32.to_be_bytes(), host.to_be_bytes());
        let (src, dst) = if from == Direction::Ingress { (outside, inside) } else { (inside, outside) };
        let (sport, dport) = if from == Direction::Ingress { (port, 80) } else { (80, port) };
        let (a, b, l4) = if v6 { (34, 50, 54) } else { (26, 30, 34) };
        bytes[a..a + 4].copy_from_slice(&src);
        bytes[b..b + 4].copy_from_slice(&dst);
        bytes[l4..l4 + 2].copy_from_slice(&sport.to_be_bytes());
        bytes[l4 + 2..l4 + 4].copy_from_slice(&dport.to_be_bytes());
        bytes[l4 + 4..l4 + 8].copy_from_slice(&seq.to_be_bytes());
        bytes[l4 + 8..l4 + 12].copy_from_slice(&ack.to_be_bytes());
        bytes[l4 + 14..l4 + 16].copy_from_slice(&[0xff, 0xff]);
    }
}

fn main() {
    let v6 = flag("--v6");
    let count = option("--connections", 1000).next_power_of_two();
    if flag("--lines") {
        return lines(count);
    }
    let capacity = option("--capacity", count.max(1 << 16));
    let config = Config { capacity, ports: 8, timeouts: Timeouts::DEFAULT };
    let secret = Secret::new(std::array::from_fn(|n| {
        (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ 0x5851_f42d_4c95_7f2d
    }));
    let table = Connections::new(config, secret);
    table.admit(PORT, capacity as u32);
    if flag("--opening") {
        return opening(&table, v6);
    }
    for n in 0..count as u32 {
        let key = key(n, v6);
        open(&table, &key, table.digest(&key));
    }
    let (from_keys, plain) = (flag("--keys"), flag("--plain"));
    let a_round = count.div_ceil(BATCH);
    let batches = option("--rounds", (1 << 23) / (a_round * BATCH)) * a_round;
    // In parts of some microseconds, of which the quickest tenth tells what the work costs and not what else the machine did.
    let mut all = Frames::new(v6);
    let mut parts = Vec::with_capacity(batches / PART + 1);
    for first in (0..batches).step_by(PART) {
        let part = first..batches.min(first + PART);
        let frames = part.len() * BATCH;
        for (place, n) in (part.start * BATCH..part.end * BATCH).enumerate() {
            all.set(place, mixed(n % (a_round * BATCH), count), v6, round_of(n / BATCH / a_round));
        }
        let begin = time::Instant::now();
        let known = if from_keys {
            keys(&table, count, part, v6)
        } else {
            let batches = part.zip(all.0.chunks(BATCH));
            batches
                .map(|(batch, frames)| heads(&table, frames, all.1, round_of(batch / a_round).0, plain))
                .sum()
        };
        parts.push(begin.elapsed().as_nanos() as f64 / frames as f64);
        assert_eq!(known, frames, "all belong to their connections");
    }
    parts.sort_by(f64::total_cmp);
    let (quick, middle) = (parts[parts.len() / 10], parts[parts.len() / 2]);
    println!(
        "{count} connections, {} frames: {quick:.1} ns a frame, {middle:.1} in the middle",
        batches * BATCH
    );
}

/// What memory costs: for each frame of a batch a line of an index of 8 bytes a connection, then one of 64, without pattern; the misses of
/// a batch overlap.
fn lines(count: usize) {
    let index = vec![[1u64; 8]; count.div_ceil(8)];
    let mut entries = vec![[1u64; 8]; count];
    let rounds = (1 << 23) / BATCH;
    let (mut parts, mut sum) = (Vec::with_capacity(rounds / PART), 0);
    for first in (0..rounds).step_by(PART) {
        let begin = time::Instant::now();
        for batch in first..first + PART {
            let numbers: [usize; BATCH] = std::array::from_fn(|n| mixed(batch * BATCH + n, count) as usize);
            sum += numbers.iter().fold(0, |sum, n| sum ^ index[(n ^ n >> 5) % index.len()][0]);
            sum += numbers.iter().fold(0, |sum, n| sum ^ entries[*n][0]);
            numbers.iter().for_each(|n| entries[*n][7] += 1);
        }
        parts.push(begin.elapsed().as_nanos() as f64 / (PART * BATCH) as f64);
    }
    black_box(sum);
    parts.sort_by(f64::total_cmp);
    let (quick, middle) = (parts[parts.len() / 10], parts[parts.len() / 2]);
    println!("{count} connections: {quick:.1} ns a frame for two lines, {middle:.1} in the middle");
}

/// From the key on. Of one connection, frames of a batch repeat each other; what they say is the same.
fn keys(table: &Connections, count: usize, batches: Range<usize>, v6: bool) -> usize {
    let mut known = 0;
    let a_round = count.div_ceil(BATCH);
    for batch in batches {
        let (from, seq, ack, len) = round_of(batch / a_round);
        let event = segment(0x10, seq, ack, len);
        let digests: [Digest; BATCH] =
            std::array::from_fn(|n| table.digest(&key(mixed(batch * BATCH + n, count), v6)));
        warm(table, digests.iter());
        for digest in &digests {
            let answer = look_up(table, *digest, from, black_box(&event));
            known += usize::from(matches!(answer, Answer::Known { .. }));
        }
    }
    known
}

/// From the first byte on of a batch of frames.
fn heads(table: &Connections, frames: &[[u8; 80]], len: usize, from: Direction, plain: bool) -> usize {
    let mut known = 0;
    let mut batch: [Option<(Digest, Event)>; BATCH] = [None; BATCH];
    for (bytes, facts) in black_box(frames).iter().zip(&mut batch) {
        let bytes = &bytes[..len];
        let link = LinkHeader::parse(bytes, len as u32).expect("a frame");
        if plain {
            known += usize::from(black_box(link).ethertype != 0);
        } else if let Facts::Of(key, event) = Facts::of(&link, bytes, len as u32, scope(), from) {
            *facts = Some((table.digest(&key), event));
        }
    }
    if plain {
        return known;
    }
    warm(table, batch.iter().flatten().map(|(digest, _)| digest));
    for (digest, event) in batch.iter().flatten() {
        let answer = look_up(table, *digest, from, event);
        known += usize::from(matches!(answer, Answer::Known { .. }));
    }
    known
}

/// Connections that are opened, answered, used and reset: what is over makes room for the next.
fn opening(table: &Connections, v6: bool) {
    let connections = option("--rounds", 1 << 21) as u32;
    let mut parts = Vec::with_capacity(connections as usize / 1024 + 1);
    for first in (0..connections).step_by(1024) {
        let part = first..connections.min(first + 1024);
        let (count, begin) = (part.len(), time::Instant::now());
        for n in part {
            let key = key(n, v6);
            let digest = table.digest(&key);
            let syn = look_up(table, digest, Direction::Ingress, &segment(2, 999, 0, 0));
            assert_eq!(syn, Answer::New);
            open(table, &key, digest);
            look_up(table, digest, Direction::Ingress, &segment(0x14, 1000, 5000, 0));
        }
        parts.push(count as f64 / begin.elapsed().as_secs_f64() / 1e6);
    }
    parts.sort_by(f64::total_cmp);
    let (quick, middle) = (parts[parts.len() * 9 / 10], parts[parts.len() / 2]);
    println!(
        "{connections} connections opened, answered, used and reset: {quick:.2} million a second, {middle:.2} in the middle"
    );
    println!("{:?}", table.counts());
}
