//! The stage of an attack: a client and its server, an attacker and its accomplice, all in one VLAN and each behind a firewall; and what the
//! attacks are made of. Tests and benchmarks share it.

use crate::description::{access, description};
use std::{fmt, net::Ipv4Addr};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    description::{Description, Firewall, Identity, Origin},
    firewall::policy::{
        Action, Direction, Family, GroupId, Match, PortRange, Protocol, Remote, Rule, SecurityGroup,
    },
    mac::MacAddr,
};

/// The victims: who asks, and who is asked. The attacks go to the server.
pub(crate) const CLIENT: usize = 0;
pub(crate) const SERVER: usize = 1;
/// A router's port: what comes from there may be from any address.
pub(crate) const ATTACKER: usize = 2;
/// It answers the attacker.
pub(crate) const ACCOMPLICE: usize = 3;
/// How many there are.
pub(crate) const GUESTS: usize = 4;

/// Addresses that each port may have.
pub(crate) const MACS: u32 = 1024;

/// What the groups let in.
pub(crate) const WEB: u16 = 80;
pub(crate) const DNS: u16 = 53;

const TCP: u8 = 6;
const UDP: u8 = 17;
const HERE: Origin = Origin { line: 1, column: 1 };

/// The shortest frame, without its FCS.
pub(crate) const LEN: usize = 60;

/// Control bits of TCP.
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

pub(crate) fn station(place: usize) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, place as u8 + 1])
}

pub(crate) fn address(place: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, place as u8 + 1)
}

/// The four, each behind the same group: so many rules about others, and one for each of these ports of TCP and of UDP, which lets it in.
pub(crate) fn lab(rules: usize, tcp: &[u16], udp: &[u16]) -> Description {
    let mut lab = description(&vec![access(10); GUESTS]);
    let rule = |matches| Rule {
        direction: Direction::Ingress,
        action: Action::Allow,
        stateful: true,
        log: false,
        matches,
        origin: HERE,
    };
    let to = |port| vec![PortRange { first: port, last: port }];
    // Of networks that nobody here is in.
    let other = |n: usize| {
        let from = ipnet::Ipv4Net::new(Ipv4Addr::from_bits(0xc000_0000 + (n as u32) * 64), 26);
        rule(Match {
            family: Family::Ipv4,
            protocol: Protocol::Number(TCP),
            ports: to(n as u16 % 1000 + 1000),
            remote: Remote::Networks(vec![from.expect("a prefix").into()]),
            ..Match::default()
        })
    };
    let mut rules: Vec<Rule> = (0..rules).map(other).collect();
    let let_in = |protocol, port: &u16| {
        rule(Match { protocol: Protocol::Number(protocol), ports: to(*port), ..Match::default() })
    };
    rules.extend(tcp.iter().map(|port| let_in(TCP, port)));
    rules.extend(udp.iter().map(|port| let_in(UDP, port)));
    lab.groups = vec![SecurityGroup { name: "web".into(), rules, origin: HERE }];
    for (place, port) in lab.ports.iter_mut().flatten().enumerate() {
        let identity = (place != ATTACKER).then(|| Identity {
            mac: station(place),
            addresses: vec![ipnet::Ipv4Net::from(address(place)).into()],
            others: vec![],
        });
        port.mac_limit = MACS;
        port.firewall = Some(Firewall {
            groups: vec![GroupId::new(0)],
            addresses: vec![],
            identity,
            dhcp_server: false,
            router: false,
            origin: HERE,
        });
    }
    lab
}

/// A frame of the shortest length.
fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(LEN, 0);
    frame
}

fn link(from: usize, to: usize) -> Ethernet {
    Ethernet { src: station(from), dst: station(to), tag: None }
}

/// A segment with these control bits and numbers, from one's port to the other's. Its checksum is that of a SYN, which a switch does not read.
pub(crate) fn tcp(
    (from, sport): (usize, u16),
    (to, dport): (usize, u16),
    (flags, seq, ack): (u8, u32, u32),
) -> Vec<u8> {
    let addresses = Addresses::V4(address(from), address(to));
    let mut frame = build::tcp_syn(link(from, to), addresses, (sport, dport), seq);
    let at = frame.len() - 20;
    frame[at + 8..at + 12].copy_from_slice(&ack.to_be_bytes());
    frame[at + 13] = flags;
    padded(frame)
}

/// The three segments that open a connection, each with who sends it.
pub(crate) fn handshake(client: (usize, u16), server: (usize, u16)) -> [(usize, Vec<u8>); 3] {
    [
        (client.0, tcp(client, server, (SYN, 1000, 0))),
        (server.0, tcp(server, client, (SYN | ACK, 5000, 1001))),
        (client.0, tcp(client, server, (ACK, 1001, 5001))),
    ]
}

/// A segment of a connection that was opened so, from its client or its server.
pub(crate) fn segment(from: (usize, u16), to: (usize, u16), is_client: bool) -> Vec<u8> {
    tcp(from, to, if is_client { (ACK, 1001, 5001) } else { (ACK, 5001, 1001) })
}

/// A datagram from one's port to the other's.
pub(crate) fn udp((from, sport): (usize, u16), (to, dport): (usize, u16)) -> Vec<u8> {
    padded(build::udp(link(from, to), Addresses::V4(address(from), address(to)), (sport, dport), &[0; 18]))
}

/// The answer to a datagram over IPv4 without options: the same with its ends exchanged.
pub(crate) fn turned(frame: &[u8]) -> Vec<u8> {
    let mut answer = frame.to_vec();
    for (one, other, len) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
        answer[one..one + len].copy_from_slice(&frame[other..other + len]);
        answer[other..other + len].copy_from_slice(&frame[one..one + len]);
    }
    answer
}

/// Makes a datagram with 26 bytes behind its IP header the fragment number `part` of datagram `id`, 24 bytes each, of which more follow or not.
pub(crate) fn fragment(mut frame: Vec<u8>, id: u16, part: u8, more: bool) -> Vec<u8> {
    frame[17] = 44;
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    frame[20..22].copy_from_slice(&[u8::from(more) << 5, part * 3]);
    frame
}

/// What an attacker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attack {
    /// A datagram or SYN of random addresses and ports at a time, so that none is like another (tuple-space explosion).
    Tuples,
    /// SYNs of random addresses to a port that is let in.
    Syns,
    /// Each frame from another station to an unknown one.
    Macs,
    /// First fragments of datagrams whose rest never comes, and rests without a first one, in turn.
    Fragments,
    /// Connections without end: to the server, which does not answer, and to the accomplice, which does.
    Connections,
}

impl Attack {
    /// How many frames a second.
    pub(crate) const fn rate(self) -> u64 {
        match self {
            // 0.7 Mbit/s.
            Self::Tuples => 700_000 / (8 * LEN as u64),
            Self::Syns | Self::Macs | Self::Fragments | Self::Connections => 500_000,
        }
    }

    /// Frame `n`.
    pub(crate) fn frame(self, n: u64) -> Vec<u8> {
        let random = mix(n);
        let ports = ((random >> 48) as u16, (random >> 32) as u16);
        let stranger = stranger(random as u32);
        let to_server = |dport| {
            let addresses = Addresses::V4(stranger, address(SERVER));
            build::udp(link(ATTACKER, SERVER), addresses, (ports.0, dport), &[0; 18])
        };
        padded(match self {
            Self::Tuples if n.is_multiple_of(2) => to_server(ports.1),
            Self::Tuples => {
                let addresses = Addresses::V4(stranger, address(SERVER));
                build::tcp_syn(link(ATTACKER, SERVER), addresses, ports, random as u32)
            }
            Self::Syns => {
                let addresses = Addresses::V4(stranger, address(SERVER));
                build::tcp_syn(link(ATTACKER, SERVER), addresses, (ports.0, WEB), random as u32)
            }
            Self::Macs => {
                let [.., a, b, c, d] = n.to_be_bytes();
                let link = Ethernet {
                    src: MacAddr::new([2, 0xaa, a, b, c, d]),
                    dst: MacAddr::new([2, 0xbb, a, b, c, d]),
                    tag: None,
                };
                build::udp(link, Addresses::V4(stranger, address(SERVER)), ports, &[0; 18])
            }
            Self::Fragments => {
                let is_first = n.is_multiple_of(2);
                fragment(to_server(DNS), random as u16, u8::from(!is_first), is_first)
            }
            Self::Connections => {
                let target = if n.is_multiple_of(2) { SERVER } else { ACCOMPLICE };
                udp_of(ATTACKER, target, (opener(n), address(target)), (opener_port(n), DNS))
            }
        })
    }

    /// What the accomplice answers to frame `n`, if it does.
    pub(crate) fn answer(self, n: u64) -> Option<Vec<u8>> {
        (self == Self::Connections && !n.is_multiple_of(2)).then(|| {
            let addresses = (address(ACCOMPLICE), opener(n));
            padded(udp_of(ACCOMPLICE, ATTACKER, addresses, (DNS, opener_port(n))))
        })
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tuples => "random 5-tuples",
            Self::Syns => "SYNs",
            Self::Macs => "source MACs",
            Self::Fragments => "fragments",
            Self::Connections => "connections",
        })
    }
}

fn udp_of(from: usize, to: usize, (src, dst): (Ipv4Addr, Ipv4Addr), ports: (u16, u16)) -> Vec<u8> {
    build::udp(link(from, to), Addresses::V4(src, dst), ports, &[0; 18])
}

/// An address that none of the four has.
fn stranger(random: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0b00_0000 | random & 0xff_ffff)
}

/// Who opens connection `n`, and from which port: no two the same.
fn opener(n: u64) -> Ipv4Addr {
    stranger((n >> 14) as u32)
}

fn opener_port(n: u64) -> u16 {
    1024 + (n & 0x3fff) as u16
}

/// SplitMix64 (Steele, Lea and Flood 2014): the `n`th number that looks random.
pub(crate) fn mix(n: u64) -> u64 {
    let mut z = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
