//! Interfaces with firewalls: what the switch lets from them and to them.

mod answers;
mod batches;
mod conformance;
mod fragments;
mod frames;
mod guards;
mod model;
mod pieces;
mod policies;
mod states;
mod story;
mod told;

use crate::support::lab::{Bench, Lab, access, mac};
use std::net::{Ipv4Addr, Ipv6Addr};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    decide::{Copy, Fate, TagEdit},
    description::Origin,
    drop_reason::DropReason,
    firewall::policy::{Action, Direction, GroupId, Match, PortRange, Protocol, Remote, Rule},
    mac::MacAddr,
};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A rule that allows what matches and opens connections.
fn allow(direction: Direction, matches: Match) -> Rule {
    let origin = Origin { line: 1, column: 1 };
    Rule { direction, action: Action::Allow, stateful: true, log: false, matches, origin }
}

fn to_port(protocol: u8, port: u16) -> Match {
    let ports = vec![PortRange { first: port, last: port }];
    Match { protocol: Protocol::Number(protocol), ports, ..Match::default() }
}

fn from_group(matches: Match, group: u16) -> Match {
    Match { remote: Remote::Group(GroupId::new(group)), ..matches }
}

/// `web1` (10.0.0.1, lets in TCP to port 80 and, from `admin`, to 22), `pc1` (10.0.0.2, an `admin`), `h1` (10.0.0.3, without firewall) and
/// `pc2` (10.0.0.4, in a group without rules), in one VLAN.
fn office() -> Lab {
    let web = [
        allow(Direction::Ingress, to_port(TCP, 80)),
        allow(Direction::Ingress, from_group(to_port(TCP, 22), 1)),
    ];
    Lab::new()
        .group("web", &web)
        .group("admin", &[])
        .group("none", &[])
        .switch("sw1")
        .port("web1", 0, access(10))
        .guarded(1, &[0])
        .port("pc1", 0, access(10))
        .guarded(2, &[1])
        .port("h1", 0, access(10))
        .port("pc2", 0, access(10))
        .guarded(4, &[2])
}

/// Places of the office's ports.
const WEB1: u16 = 0;
const PC1: u16 = 1;
const H1: u16 = 2;
const PC2: u16 = 3;

/// Its bench, on which everybody is known.
fn open_office() -> Bench {
    let mut bench = office().bench();
    meet(&mut bench);
    bench
}

/// Every station asks for another, and so is learned.
fn meet(bench: &mut Bench) {
    for n in 1..=4 {
        let question = build::arp_request(to_all(n), v4(n), v4(n % 4 + 1));
        assert_eq!(bench.send(u16::from(n) - 1, &question).0, Fate::Flooded);
    }
}

/// The `n`th station's address.
fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

fn v6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into())
}

/// From the one station to the other.
fn link(from: u8, to: u8) -> Ethernet {
    Ethernet { src: mac(from), dst: mac(to), tag: None }
}

fn to_all(from: u8) -> Ethernet {
    Ethernet { src: mac(from), dst: MacAddr::BROADCAST, tag: None }
}

fn addresses(from: u8, to: u8) -> Addresses {
    Addresses::V4(v4(from), v4(to))
}

fn syn(from: u8, to: u8, ports: (u16, u16)) -> Vec<u8> {
    build::tcp_syn(link(from, to), addresses(from, to), ports, 1000)
}

/// A datagram from the one station to the other.
fn udp(from: u8, to: u8, ports: (u16, u16)) -> Vec<u8> {
    build::udp(link(from, to), addresses(from, to), ports, b"hello")
}

/// The frame, as a later segment: control bits, sequence and acknowledgement numbers are these.
fn segment(mut syn: Vec<u8>, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let tcp = syn.len() - 20;
    syn[tcp + 4..tcp + 8].copy_from_slice(&seq.to_be_bytes());
    syn[tcp + 8..tcp + 12].copy_from_slice(&ack.to_be_bytes());
    syn[tcp + 13] = flags;
    syn
}

const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;

/// What became of a frame of which there is one copy at most: whether it was delivered, else why not.
fn outcome((fate, copies): (Fate, Vec<Copy>)) -> Result<(), DropReason> {
    match (fate, &copies[..]) {
        (Fate::Dropped(reason), []) => Err(reason),
        (Fate::Unicast, [copy]) => copy.outcome.map(|edit| assert_eq!(edit, TagEdit::Keep)),
        other => panic!("no unicast frame: {other:?}"),
    }
}
