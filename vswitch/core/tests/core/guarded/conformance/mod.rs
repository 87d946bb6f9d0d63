//! The rows of `docs/conformance.md`: what attackers send, each beside an honest frame that differs from it in nothing else.

mod extensions;
mod fragments;
mod headers;
mod hidden;
mod icmp;
mod links;
mod multicast;
mod protocols;
mod spoof;
mod table;
mod tcp;
mod truncation;
mod vlans;

use super::{TCP, UDP, allow, link, meet, office, to_port, v4, v6};
use crate::{
    conservation::fates,
    support::lab::{Bench, Lab},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::{
    build::{self, Ethernet},
    decide::Fate,
    drop_reason::DropReason,
    firewall::policy::{Direction, Match, Rule},
    head::ethertype,
};

type Verdict = Result<(), DropReason>;

/// A frame that must be refused, and one that must pass all the same.
struct Row {
    what: String,
    /// Places of the ports that both come from and go to.
    ports: (u16, u16),
    refused: Vec<u8>,
    because: DropReason,
    honest: Vec<u8>,
}

impl Row {
    fn new(
        what: impl Into<String>,
        ports: (u16, u16),
        (refused, because): (Vec<u8>, DropReason),
        honest: Vec<u8>,
    ) -> Self {
        Self { what: what.into(), ports, refused, because, honest }
    }
}

/// Each row on a bench of its own, also with the honest frame first: what it opened or taught must not help the other. And in a batch, where
/// frames of established connections pass without a decision: what comes of each is what comes of it by itself.
fn hold(bench: impl Fn() -> Bench, rows: impl IntoIterator<Item = Row>) {
    let mut count = 0;
    for Row { what, ports, refused, because, honest } in rows {
        assert_ne!(refused, honest, "{what}");
        for refused_first in [true, false] {
            let mut bench = bench();
            if refused_first {
                let got = verdict(&mut bench, ports, &refused);
                assert_eq!(got, Err(because), "{what}: {}", bench.story());
            }
            let got = verdict(&mut bench, ports, &honest);
            assert_eq!(got, Ok(()), "honest, {what}: {}", bench.story());
            let got = verdict(&mut bench, ports, &refused);
            assert_eq!(got, Err(because), "behind the honest one, {what}: {}", bench.story());
        }
        let (mut single, batched) = (bench(), bench());
        let batch = [&honest, &honest, &refused, &honest, &refused, &refused, &honest].map(Clone::clone);
        let one_by_one: Vec<_> = batch.iter().map(|frame| single.send(ports.0, frame)).collect();
        assert_eq!(fates(&batched, ports.0, &batch).0, one_by_one, "in a batch, {what}");
        count += 1;
    }
    assert!(count > 0, "there is a row");
}

/// What becomes of the frame, or of its copy for the port that it is to reach.
fn verdict(bench: &mut Bench, (from, to): (u16, u16), frame: &[u8]) -> Verdict {
    let (fate, copies) = bench.send(from, frame);
    match fate {
        Fate::Dropped(reason) => Err(reason),
        _ => {
            let copy = copies.iter().find(|copy| copy.to == to);
            copy.expect("there is a copy for it").outcome.map(|_| ())
        }
    }
}

/// The office with these rules for `pc1` (an `admin`), where everybody is known.
fn pc1_with(rules: &[Rule]) -> Bench {
    of_lab(|lab| lab.description.groups[1].rules = rules.to_vec())
}

/// The same for `pc2`.
fn pc2_with(rules: &[Rule]) -> Bench {
    of_lab(|lab| lab.description.groups[2].rules = rules.to_vec())
}

fn of_lab(change: impl FnOnce(&mut Lab)) -> Bench {
    let mut lab = office();
    change(&mut lab);
    let mut bench = lab.bench();
    meet(&mut bench);
    bench
}

/// `pc2` lets in UDP to port 53 and TCP to port 80.
fn services() -> Bench {
    pc2_with(&[allow(Direction::Ingress, to_port(UDP, 53)), allow(Direction::Ingress, to_port(TCP, 80))])
}

/// A rule for everything.
fn anything(direction: Direction) -> Rule {
    allow(direction, Match::default())
}

/// An IP packet without an error in it; options are of IPv4 and as many words as they are bytes divided by four.
struct Packet {
    link: Ethernet,
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    hops: u8,
    options: Vec<u8>,
}

impl Packet {
    fn v4(from: u8, to: u8, protocol: u8) -> Self {
        Self::new(link(from, to), v4(from).into(), v4(to).into(), protocol)
    }

    fn v6(from: u8, to: u8, protocol: u8) -> Self {
        Self::new(link(from, to), v6(from).into(), v6(to).into(), protocol)
    }

    fn families(from: u8, to: u8, protocol: u8) -> [Self; 2] {
        [Self::v4(from, to, protocol), Self::v6(from, to, protocol)]
    }

    fn new(link: Ethernet, src: IpAddr, dst: IpAddr, protocol: u8) -> Self {
        Self { link, src, dst, protocol, hops: 64, options: vec![] }
    }

    fn hops(self, hops: u8) -> Self {
        Self { hops, ..self }
    }

    fn options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    fn of(&self, payload: &[u8]) -> Vec<u8> {
        let Self { link, src, dst, protocol, hops, options } = self;
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                assert!(options.len().is_multiple_of(4));
                let header = 20 + options.len();
                let [t0, t1] = ((header + payload.len()) as u16).to_be_bytes();
                let mut packet =
                    vec![0x40 | (header / 4) as u8, 0, t0, t1, 0, 0, 0, 0, *hops, *protocol, 0, 0];
                packet.extend(src.octets());
                packet.extend(dst.octets());
                packet.extend(options);
                packet.extend(payload);
                build::raw(*link, ethertype::IPV4, &packet)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let [l0, l1] = (payload.len() as u16).to_be_bytes();
                let mut packet = vec![0x60, 0, 0, 0, l0, l1, *protocol, *hops];
                packet.extend(src.octets());
                packet.extend(dst.octets());
                packet.extend(payload);
                build::raw(*link, ethertype::IPV6, &packet)
            }
            _ => panic!("of one family"),
        }
    }
}

/// A UDP datagram between these ports with eight bytes of data.
fn datagram(ports: (u16, u16)) -> Vec<u8> {
    super::pieces::udp_start(ports, 16, 16)
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn link_local(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
}
