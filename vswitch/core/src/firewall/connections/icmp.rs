//! What ICMP messages are to connections: queries are some, errors are about others.
//!
//! An error is related to a connection only if it goes the other way than the frame that it quotes went, to the very host that sent that
//! frame. Whatever cannot be read of the quotation makes it an error about nothing.

use super::{
    Direction,
    facts::{self, Quoted},
    key::{Ends, Hosts, Key, Scope},
};
use std::net::{Ipv4Addr, Ipv6Addr};

/// What kind of message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A query, or the answer to one.
    Query {
        /// Type of the query.
        kind: u8,
        /// Whether it is the answer.
        reply: bool,
    },
    /// An error about a frame that it quotes.
    Error,
    /// Any other.
    Other,
}

/// By type (RFC 792). Source Quench is no error any more (RFC 6633), and Redirect never was one.
pub(super) const fn v4(kind: u8) -> Meaning {
    match kind {
        8 | 13 => Meaning::Query { kind, reply: false },
        0 => Meaning::Query { kind: 8, reply: true },
        14 => Meaning::Query { kind: 13, reply: true },
        3 | 11 | 12 => Meaning::Error,
        _ => Meaning::Other,
    }
}

/// By type (RFC 4443).
pub(super) const fn v6(kind: u8) -> Meaning {
    match kind {
        128 => Meaning::Query { kind, reply: false },
        129 => Meaning::Query { kind: 128, reply: true },
        1..=4 => Meaning::Error,
        _ => Meaning::Other,
    }
}

/// The connection of the frame that is quoted at `at`, in an error between `hosts` that goes `from` one of them.
pub(super) fn quoted(
    bytes: &[u8],
    at: usize,
    scope: Scope,
    hosts: Hosts,
    from: Direction,
) -> Option<(Key, Quoted)> {
    // The frame went the other way.
    let went = from.opposite();
    let (quoted_hosts, protocol, at) = match hosts {
        Hosts::V4(..) => inner_v4(bytes, at, went)?,
        Hosts::V6(..) => inner_v6(bytes, at, went)?,
    };
    let receiver = |hosts: Hosts| match (hosts.pair(), from) {
        ((inside, _), Direction::Ingress) => inside,
        ((_, outside), Direction::Egress) => outside,
    };
    if receiver(hosts) != receiver(quoted_hosts) {
        return None;
    }
    // At least eight bytes are quoted (RFC 792), if there are as many: of protocols without ports there may be none.
    let (first, second) = (facts::word(bytes, at), facts::word(bytes, at + 4));
    let ports = || {
        let ([a, b, c, d], _) = first.zip(second)?;
        Some(facts::ports(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]), went))
    };
    let query = |meaning: fn(u8) -> Meaning| match meaning(first?[0]) {
        Meaning::Query { kind, reply } => {
            let asked = if reply { went.opposite() } else { went };
            let [i, d, _, _] = second?;
            Some(Ends::Query { id: u16::from_be_bytes([i, d]), kind, asked })
        }
        // There are no errors about errors (RFC 1122 §3.2.2).
        Meaning::Error | Meaning::Other => None,
    };
    let (ends, seq) = match (protocol, hosts) {
        (facts::TCP, _) => (ports()?, Some(u32::from_be_bytes(second?))),
        (facts::ICMP, Hosts::V4(..)) => (query(v4)?, None),
        (facts::ICMPV6, Hosts::V6(..)) => (query(v6)?, None),
        _ if facts::has_ports(protocol) => (ports()?, None),
        _ => (Ends::Pair, None),
    };
    Some((Key::new(scope, quoted_hosts, protocol, ends), Quoted { seq }))
}

/// Hosts, protocol, and where the transport header starts.
fn inner_v4(bytes: &[u8], at: usize, went: Direction) -> Option<(Hosts, u8, usize)> {
    let &[vihl, _, _, _, _, _, f0, f1, _, protocol, _, _, a, b, c, d, e, f, g, h] =
        bytes.get(at..)?.first_chunk()?;
    let header = usize::from(vihl & 0xf) * 4;
    let is_later = u16::from_be_bytes([f0, f1]) & 0x1fff != 0;
    if vihl >> 4 != 4 || header < 20 || is_later {
        return None;
    }
    Some((facts::v4(Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h), went), protocol, at + header))
}

/// How many extension headers are passed, as of a frame itself.
const MAX_EXTENSIONS: usize = 8;

/// Hosts, protocol, and where the transport header starts.
fn inner_v6(bytes: &[u8], at: usize, went: Direction) -> Option<(Hosts, u8, usize)> {
    let header = bytes.get(at..)?.first_chunk::<40>()?;
    let address = |at: usize| header[at..].first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
    if header[0] >> 4 != 6 {
        return None;
    }
    let hosts = facts::v6(address(8)?, address(24)?, went);
    let (mut protocol, mut at) = (header[6], at + 40);
    for _ in 0..=MAX_EXTENSIONS {
        let [next, len, o0, o1] = match protocol {
            0 | 43 | 44 | 60 => facts::word(bytes, at)?,
            _ => return Some((hosts, protocol, at)),
        };
        let is_fragment = protocol == 44;
        // RFC 8200 §4.5: of a later fragment the transport header is elsewhere.
        if is_fragment && u16::from_be_bytes([o0, o1]) & 0xfff8 != 0 {
            return None;
        }
        at += if is_fragment { 8 } else { (usize::from(len) + 1) * 8 };
        protocol = next;
    }
    None
}
