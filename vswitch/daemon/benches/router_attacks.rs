//! What is left of a victim's rate beside an attack on the routers that pass its frames on from VLAN to VLAN.
//!
//! `cargo bench -p vswitchd --bench router_attacks -- [--turns] [--only arp|nd|scan|dhcp|icmp|ttl|malformed|nat] [--rounds 9] [--millis 250]`: a client sends datagrams
//! of 64 flows to its server in another VLAN. First as fast as they are taken, which is its solo maximum; then half of that, alone and beside each attack in turn. In the
//! worker's own time, where what goes to the routers' port is taken at once, it must keep 99 % ; by the clock (a worker on CPU 0, all guests in one thread on CPU 1, and
//! the routers' thread where the kernel lets it run) it is told what it keeps. Afterwards no table has more than it may.

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

use description::{access, description, vlan};
use lab::Lab;
use rig::Rig;
use stage::{ACCOMPLICE, ATTACKER, CLIENT, GUESTS, LEN, SERVER, mix, station};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};
use victim::{Bench, Load, Mark, Turns, beside, config, in_turns, option, pin, word};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    clock::Instant,
    description::{
        Description, Dhcp, Gateway, Link, Nat, NatRule, Origin, Route, Router, Routing, Via, Vlan,
    },
    firewall::connections::DEFAULT_CAPACITY,
    id::PortId,
    mac::MacAddr,
    route::CAPACITY,
};
use vswitchd::control::protocol::{DatapathSettings, PortState};

const HERE: Origin = Origin { line: 1, column: 1 };
/// The routers' address in every VLAN, and the place of their port.
const ROUTERS: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 0xfe]);
const ROUTERS_PLACE: usize = GUESTS;
/// Flows of the victims.
const FLOWS: u16 = 64;
/// Addresses that the gateway of the attacker's VLAN gives.
const RANGE: u32 = 1 << 14;
/// How many neighbours that did not answer are shown beside those that are known or asked for.
const SHOWN: usize = 64 + 256;
/// What the process may grow by, in KiB, until all that it keeps is full: most are the buffers of rings, the guests' among them.
const GROWTH: u64 = 64 << 10;

/// VLANs of the client, of its server, and outside, into which routers masquerade.
const INSIDE: u16 = 10;
const SERVERS: u16 = 20;
const OUTSIDE: u16 = 30;

/// What an attacker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    /// Requests for the gateway, each from another sender.
    Arp,
    /// Solicitations of the gateway, each from another sender.
    Nd,
    /// A packet to another address of the server's networks each time: of 16 bits of IPv4, of 64 of IPv6.
    Scan,
    /// DISCOVERs, each from another MAC address; in between a server's offers.
    Dhcp,
    /// From outside: time exceeded about connections that may be there or not.
    Icmp,
    /// Packets that have no hop left.
    Ttl,
    /// Noise for the gateway's servers of addresses and names.
    Malformed,
    /// Connections without end to one port of one host outside, until the gateway has no port left.
    Nat,
}

impl Attack {
    const ALL: [(&'static str, Self); 8] = [
        ("arp", Self::Arp),
        ("nd", Self::Nd),
        ("scan", Self::Scan),
        ("dhcp", Self::Dhcp),
        ("icmp", Self::Icmp),
        ("ttl", Self::Ttl),
        ("malformed", Self::Malformed),
        ("nat", Self::Nat),
    ];

    /// In which VLAN the attacker is, and who it is there.
    const fn home(self) -> (u16, Ipv4Addr) {
        match self {
            Self::Icmp => (OUTSIDE, Ipv4Addr::new(192, 0, 2, 66)),
            _ => (INSIDE, Ipv4Addr::new(10, 1, 0, 66)),
        }
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Arp => "ARP storm",
            Self::Nd => "ND storm",
            Self::Scan => "new neighbours",
            Self::Dhcp => "DHCP",
            Self::Icmp => "ICMP errors",
            Self::Ttl => "no hops left",
            Self::Malformed => "malformed",
            Self::Nat => "masquerade",
        })
    }
}

/// A MAC address of nobody's, and each time another one.
fn stranger(n: u64) -> MacAddr {
    let [.., a, b, c, d] = (n as u32).to_be_bytes();
    MacAddr::new([2, 0xaa, a, b, c, d])
}

/// To the routers.
fn up(src: MacAddr) -> Ethernet {
    Ethernet { src, dst: ROUTERS, tag: None }
}

fn gateway4(number: u16) -> Ipv4Addr {
    match number {
        INSIDE => Ipv4Addr::new(10, 1, 255, 254),
        SERVERS => Ipv4Addr::new(10, 2, 255, 254),
        _ => Ipv4Addr::new(192, 0, 2, 254),
    }
}

fn v6(number: u16, host: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(number) << 64 | u128::from(host))
}

/// Who is asked for by name: the client, its server, and the next router outside.
fn honest(place: usize) -> (u16, Ipv4Addr) {
    match place {
        CLIENT => (INSIDE, Ipv4Addr::new(10, 1, 0, 1)),
        SERVER => (SERVERS, Ipv4Addr::new(10, 2, 0, 1)),
        _ => (OUTSIDE, Ipv4Addr::new(192, 0, 2, 1)),
    }
}

/// A DHCP message (RFC 2131 §2) of that type, behind its UDP header.
fn dhcp(kind: u8, station: MacAddr, number: u32) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[if kind == 1 { 1 } else { 2 }, 1, 6, 0]);
    message[4..8].copy_from_slice(&number.to_be_bytes());
    message[28..34].copy_from_slice(&station.octets());
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([53, 1, kind, 255]);
    message.resize(300, 0);
    message
}

impl Load for Attack {
    fn rate(&self) -> u64 {
        500_000
    }

    fn frame(&self, n: u64) -> Vec<u8> {
        let random = mix(n);
        let (own, (number, address)) = (station(ATTACKER), self.home());
        let host = Ipv4Addr::from_bits(0x0a01_0000 | random as u32 & 0x7fff);
        let ports = ((random >> 32) as u16, (random >> 48) as u16);
        let mut frame = match self {
            Self::Arp => {
                let link = Ethernet { src: stranger(n), dst: MacAddr::BROADCAST, tag: None };
                build::arp_request(link, host, gateway4(number))
            }
            Self::Nd => {
                let gateway = v6(number, 0xfe);
                let [.., a, b, c] = gateway.octets();
                let link =
                    Ethernet { src: stranger(n), dst: MacAddr::new([0x33, 0x33, 0xff, a, b, c]), tag: None };
                build::neighbour_solicitation(link, v6(number, random | 1), gateway)
            }
            Self::Scan if n.is_multiple_of(2) => {
                let to = Ipv4Addr::from_bits(0x0a02_0000 | random as u32 & 0x7fff);
                build::udp(up(own), Addresses::V4(address, to), ports, &[0; 18])
            }
            Self::Scan => build::udp(up(own), Addresses::V6(v6(number, 66), v6(SERVERS, random)), ports, &[]),
            Self::Dhcp => {
                let is_server = n % 8 == 7;
                let (src, kind) = if is_server { (own, 2) } else { (stranger(n), 1) };
                let from = if is_server { address } else { Ipv4Addr::UNSPECIFIED };
                let ends = if is_server { (67, 68) } else { (68, 67) };
                let link = Ethernet { src, dst: MacAddr::BROADCAST, tag: None };
                build::udp(link, Addresses::V4(from, Ipv4Addr::BROADCAST), ends, &dhcp(kind, src, n as u32))
            }
            Self::Icmp => {
                let quoted = Addresses::V4(gateway4(OUTSIDE), Ipv4Addr::from_bits(random as u32 | 1));
                let quoted = build::udp(up(own), quoted, ports, &[]);
                let error = [&[11, 0, 0, 0, 0, 0, 0, 0], &quoted[14..]].concat();
                build::ip(up(own), Addresses::V4(address, gateway4(OUTSIDE)), 1, 64, error, 2)
            }
            Self::Ttl => {
                let datagram = [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &[0, 26, 0, 0], &[0; 18]];
                let (_, server) = honest(SERVER);
                build::ip(up(own), Addresses::V4(host, server), 17, 1, datagram.concat(), 6)
            }
            Self::Malformed => {
                let to = if n.is_multiple_of(2) { 67 } else { 53 };
                let noise: Vec<u8> = (0..8).flat_map(|word| mix(n * 8 + word).to_be_bytes()).collect();
                build::udp(up(own), Addresses::V4(address, gateway4(number)), (ports.0, to), &noise)
            }
            Self::Nat => {
                let far = Ipv4Addr::new(203, 0, 113, 80);
                build::udp(up(own), Addresses::V4(host, far), (ports.0, 53), &[0; 18])
            }
        };
        frame.resize(frame.len().max(LEN), 0);
        frame
    }

    fn answer(&self, _: u64) -> Option<Vec<u8>> {
        None
    }
}

/// The client and the attacker in one VLAN, the server in another one, a router outside, and the routers' port.
fn network(attack: Attack) -> Description {
    let (home, _) = attack.home();
    let mut lab =
        description(&[access(INSIDE), access(SERVERS), access(home), access(OUTSIDE), Link::Routers]);
    lab.vlans.push(Vlan { id: vlan(OUTSIDE), name: "outside".into(), origin: None });
    lab.ports[ROUTERS_PLACE].as_mut().expect("it is there").mac = Some(ROUTERS);
    let gateway = |number: u16| {
        let net4 = ipnet::Ipv4Net::new(gateway4(number), if number == OUTSIDE { 24 } else { 16 });
        let net6 = ipnet::Ipv6Net::new(v6(number, 0xfe), 64).expect("a prefix");
        let first = Ipv4Addr::new(10, 1, 128, 0);
        let dhcp = Dhcp {
            first,
            last: Ipv4Addr::from_bits(first.to_bits() + RANGE - 1),
            lease_secs: 3600,
            dns: vec![],
            domain: None,
            search: vec![],
            mtu: None,
            routes: vec![],
            boot: None,
        };
        Gateway {
            vlan: vlan(number),
            addresses: vec![net4.expect("a prefix").into(), net6.into()],
            dhcp: (number == INSIDE).then_some(dhcp),
            ra: false,
            neigh_suppress: false,
            origin: HERE,
        }
    };
    let default = Route {
        to: "0.0.0.0/0".parse().expect("a network"),
        via: Via::Routers(vec![honest(ACCOMPLICE).1.into()]),
        origin: HERE,
    };
    lab.routing = Some(Routing {
        port: PortId::new(ROUTERS_PLACE as u16, 0),
        routers: vec![Router {
            name: "default".into(),
            gateways: [INSIDE, SERVERS, OUTSIDE].map(gateway).into(),
            routes: vec![default],
            nat: vec![Nat { rule: NatRule::Masquerade { vlan: vlan(OUTSIDE) }, origin: HERE }],
            nameservers: vec![],
        }],
        hosts: vec![],
        ssh_keys: vec![],
    });
    lab
}

/// What the client sends.
fn frames() -> Vec<Vec<u8>> {
    let ends = || Addresses::V4(honest(CLIENT).1, honest(SERVER).1);
    (0..FLOWS).map(|n| build::udp(up(station(CLIENT)), ends(), (1000 + n, 4000), &[0; 18])).collect()
}

/// Its frames come from its IP address.
fn mark() -> Mark {
    Mark { at: 26, bytes: honest(CLIENT).1.octets().into() }
}

/// In the worker's own time: what goes to the routers' port is taken at once, and never answered.
fn turns(attack: Attack) -> Turns {
    let mut rig = Rig::new(&network(attack), &config());
    for place in [CLIENT, SERVER, ACCOMPLICE] {
        let (number, address) = honest(place);
        rig.worker.neighbours().set(
            vlan(number),
            address.into(),
            station(place),
            Instant::from_nanos(60_000_000_000),
        );
        rig.teach(place as u16, vlan(number), station(place));
    }
    Turns::over(rig, frames(), mark())
}

/// By the clock, with the routers' own thread, once they know who is there.
fn bench(attack: Attack) -> Bench {
    let settings = DatapathSettings { cpus: vec![0], ..DatapathSettings::default() };
    let lab = Lab::with_settings(&network(attack), settings);
    lab.wait(|seen| seen.ports[ROUTERS_PLACE].state == PortState::Up);
    let mut guests: Vec<_> = (0..GUESTS).map(|place| lab.attach(place, &config())).collect();
    for place in [CLIENT, SERVER, ACCOMPLICE] {
        let (number, address) = honest(place);
        let link = Ethernet { src: station(place), dst: MacAddr::BROADCAST, tag: None };
        lab::send(&mut guests[place], &build::arp_request(link, address, gateway4(number)));
        let is_known = || {
            let known = lab.datapath.neighbours().expect("a lab").rows;
            known.iter().any(|row| row.address == IpAddr::V4(address) && row.mac.is_some())
        };
        lab.wait(|_| is_known());
    }
    Bench::over(lab, guests, frames(), mark())
}

/// What the routers know after an attack is no more than they may.
fn assert_bounds(bench: &Bench, grown: u64) {
    let datapath = &bench.lab.datapath;
    let neighbours = datapath.neighbours().expect("a lab");
    let of = |number: u16| neighbours.rows.iter().filter(|row| row.vlan == vlan(number)).count();
    assert!(neighbours.rows.len() <= CAPACITY + SHOWN, "{} neighbours", neighbours.rows.len());
    assert!(of(INSIDE) <= CAPACITY / 8 + SHOWN, "{} neighbours of one VLAN", of(INSIDE));
    let leases = datapath.leases().expect("a lab").rows.len();
    assert!(leases <= RANGE as usize, "{leases} leases");
    let connections = datapath.connections(&[]).expect("a lab").entries;
    assert!(connections <= u64::from(DEFAULT_CAPACITY), "{connections} entries");
    assert!(grown <= GROWTH, "{grown} KiB more are resident");
    bench.lab.lawful();
    println!(
        "{:16} {} neighbours, {leases} leases, {connections} entries of connections; {:?}",
        "",
        neighbours.rows.len(),
        neighbours.counts
    );
}

fn main() {
    let only = word("--only");
    let (rounds, length) = (option("--rounds", 9), Duration::from_millis(option("--millis", 250) as u64));
    pin(1);
    let mut poor = Vec::new();
    for (name, attack) in
        Attack::ALL.into_iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name))
    {
        let kept = in_turns(&mut turns(attack), &attack, rounds, length);
        if kept < 0.99 {
            poor.push(name);
        }
        if !std::env::args().any(|word| word == "--turns") {
            let mut bench = bench(attack);
            let grown = beside(&mut bench, &attack, rounds, length);
            assert_bounds(&bench, grown);
        }
    }
    assert!(poor.is_empty(), "beside {poor:?} the victim lost more than 1 %");
}
