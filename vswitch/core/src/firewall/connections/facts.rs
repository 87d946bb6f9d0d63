//! Which connection a frame belongs to, and what it says to it: read from the head that all of the switch judges.

use super::{
    Direction, Invalid,
    icmp::{self, Meaning},
    key::{Ends, Hosts, Key, Scope},
    segment::Segment,
    short,
};
use crate::head::{Head, LinkHeader, Network, Transport};
use std::net::{Ipv4Addr, Ipv6Addr};

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;

/// What a frame says to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A TCP segment.
    Tcp(Segment),
    /// An ICMP query or the answer to one.
    Query {
        /// Whether it is the answer.
        reply: bool,
    },
    /// A datagram of UDP or any other protocol: only that it was sent.
    Datagram,
}

/// What an ICMP error quotes of the frame that it is about, beside its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    /// The sequence number, of TCP.
    pub seq: Option<u32>,
}

/// What a frame is to connection tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facts {
    /// A frame of that connection: [`super::Connections::look_up`].
    Of(Key, Event),
    /// An ICMP error about a frame of that connection: [`super::Connections::related`].
    About(Key, Quoted),
    /// It claims to belong to a connection, and can belong to none.
    Invalid(Invalid),
    /// Connections are not for it: the rules judge it alone.
    Untracked(Untracked),
}

/// Why a frame belongs to no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untracked {
    /// It is not IP.
    NotIp,
    /// A fragment that is not the first: what its connection is stands in another frame.
    LaterFragment,
    /// Its transport header cannot be read.
    Unparsed,
    /// An ICMP message that is neither query nor error, as neighbour discovery.
    Icmp,
}

impl Facts {
    /// Those of a frame of `frame_len` bytes that begins with `bytes`, and whose link header was read before. What is common is
    /// read by a short path; for all else this parses the head, as whoever asks the rules has to.
    #[inline]
    pub fn of(link: &LinkHeader, bytes: &[u8], frame_len: u32, scope: Scope, from: Direction) -> Self {
        match short::facts(link, bytes, frame_len, scope, from) {
            Some(facts) => facts,
            None => Self::parsed(link, bytes, frame_len, scope, from),
        }
    }

    #[inline(never)]
    fn parsed(link: &LinkHeader, bytes: &[u8], frame_len: u32, scope: Scope, from: Direction) -> Self {
        Self::read(&Head::behind(*link, bytes, frame_len), bytes, scope, from)
    }

    /// Those of a frame that goes `from` one of its ends; `bytes` are what `head` was read from.
    pub fn read(head: &Head, bytes: &[u8], scope: Scope, from: Direction) -> Self {
        let Some((hosts, protocol, len)) = datagram(&head.network, from) else {
            return Self::Untracked(Untracked::NotIp);
        };
        let end = usize::from(head.link.len) + len;
        let at = head.transport_at.map(usize::from);
        let key = |ends| Key::new(scope, hosts, protocol, ends);
        match (head.transport, at) {
            (Transport::Tcp { src, dst, .. }, Some(at)) => match Segment::read(bytes, at, end) {
                Some(segment) => Self::Of(key(ports(src, dst, from)), Event::Tcp(segment)),
                None => Self::Untracked(Untracked::Unparsed),
            },
            (Transport::Udp { src, dst } | Transport::Sctp { src, dst }, _) => {
                Self::Of(key(ports(src, dst, from)), Event::Datagram)
            }
            (Transport::Icmpv4 { kind, .. }, Some(at)) if protocol == ICMP => {
                of_icmp(icmp::v4(kind), (within(bytes, end), at), key, scope, hosts, from)
            }
            (Transport::Icmpv6 { kind, .. }, Some(at)) if protocol == ICMPV6 => {
                of_icmp(icmp::v6(kind), (within(bytes, end), at), key, scope, hosts, from)
            }
            (Transport::Other, Some(at)) if has_ports(protocol) => match word(bytes, at) {
                Some([a, b, c, d]) if end >= at + 4 => {
                    let (src, dst) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                    Self::Of(key(ports(src, dst, from)), Event::Datagram)
                }
                _ => Self::Untracked(Untracked::Unparsed),
            },
            (Transport::Other, _) => Self::Of(key(Ends::Pair), Event::Datagram),
            (Transport::LaterFragment, _) => Self::Untracked(Untracked::LaterFragment),
            _ => Self::Untracked(Untracked::Unparsed),
        }
    }
}

#[inline(never)]
fn of_icmp(
    meaning: Meaning,
    (bytes, at): (&[u8], usize),
    key: impl Fn(Ends) -> Key,
    scope: Scope,
    hosts: Hosts,
    from: Direction,
) -> Facts {
    match meaning {
        Meaning::Query { kind, reply } => match word(bytes, at + 4) {
            Some([a, b, _, _]) => {
                let asked = if reply { from.opposite() } else { from };
                let ends = Ends::Query { id: u16::from_be_bytes([a, b]), kind, asked };
                Facts::Of(key(ends), Event::Query { reply })
            }
            None => Facts::Untracked(Untracked::Unparsed),
        },
        Meaning::Error => match icmp::quoted(bytes, at + 8, scope, hosts, from) {
            Some((key, quoted)) => Facts::About(key, quoted),
            None => Facts::Invalid(Invalid::Unrelated),
        },
        Meaning::Other => Facts::Untracked(Untracked::Icmp),
    }
}

/// What was copied of a datagram that ends there: what pads the frame behind it is no part of what it says.
fn within(bytes: &[u8], end: usize) -> &[u8] {
    &bytes[..bytes.len().min(end)]
}

/// Four bytes of a frame, if they were copied.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Protocols that begin with two port numbers, of which the first eight bytes say nothing more here: UDP (RFC 768),
/// DCCP (RFC 4340 §5.1), SCTP (RFC 9260 §3.1), UDP-Lite (RFC 3828 §3.1).
pub(super) const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, UDP | 33 | 132 | 136)
}

/// The ends of a frame that goes `from` one of them.
#[inline]
pub(super) const fn ports(src: u16, dst: u16, from: Direction) -> Ends {
    match from {
        Direction::Egress => Ends::Ports { inside: src, outside: dst },
        Direction::Ingress => Ends::Ports { inside: dst, outside: src },
    }
}

/// The hosts of a datagram that goes `from` one of them, what it carries, and its bytes; none if it is not IP.
#[inline]
pub(in crate::firewall) const fn datagram(network: &Network, from: Direction) -> Option<(Hosts, u8, usize)> {
    match network {
        Network::Ipv4(ip) => Some((v4(ip.src, ip.dst, from), ip.protocol, ip.total_len as usize)),
        Network::Ipv6(ip) => Some((v6(ip.src, ip.dst, from), ip.protocol, 40 + ip.payload_len as usize)),
        Network::Other | Network::Arp(_) | Network::Unparsed(_) => None,
    }
}

/// Its hosts.
#[inline]
pub(super) const fn v4(src: Ipv4Addr, dst: Ipv4Addr, from: Direction) -> Hosts {
    match from {
        Direction::Egress => Hosts::V4(src, dst),
        Direction::Ingress => Hosts::V4(dst, src),
    }
}

/// Its hosts.
#[inline]
pub(super) const fn v6(src: Ipv6Addr, dst: Ipv6Addr, from: Direction) -> Hosts {
    match from {
        Direction::Egress => Hosts::V6(src, dst),
        Direction::Ingress => Hosts::V6(dst, src),
    }
}
