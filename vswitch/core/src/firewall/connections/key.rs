//! What a connection is known by: one interface's firewall, a VLAN, a protocol and two ends, as seen from that interface.
//!
//! An end is *inside*, where the interface's guest is, or *outside*; which one a frame's source is follows from the frame's
//! direction. So both directions have one key without any ordering of addresses, and what a guest that routes sends back
//! through the interface by which it came in is another connection, as it must be: its sequence numbers are seen twice.

use crate::{firewall::policy::Direction, id::PortId, vlan::VlanId};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where a connection is tracked: at one interface, in one VLAN. The same addresses may be others in another VLAN of a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The interface's port.
    pub port: PortId,
    /// The VLAN that the frame is in.
    pub vlan: VlanId,
}

/// The addresses of one family, inside and outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Hosts {
    /// IPv4: inside, outside.
    V4(Ipv4Addr, Ipv4Addr),
    /// IPv6: inside, outside.
    V6(Ipv6Addr, Ipv6Addr),
}

impl Hosts {
    /// Both, whatever their family.
    pub fn pair(self) -> (IpAddr, IpAddr) {
        match self {
            Self::V4(inside, outside) => (inside.into(), outside.into()),
            Self::V6(inside, outside) => (inside.into(), outside.into()),
        }
    }
}

/// What tells the connections between two hosts apart, beside their protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ends {
    /// Port numbers.
    Ports {
        /// Of the end inside.
        inside: u16,
        /// Of the end outside.
        outside: u16,
    },
    /// ICMP queries with one identifier. Both hosts may use the same one: then these are two connections.
    Query {
        /// Identifier.
        id: u16,
        /// Type of the request.
        kind: u8,
        /// Which way requests go.
        asked: Direction,
    },
    /// Nothing: all that the protocol carries between two hosts is one connection.
    Pair,
}

/// A connection's key, as words that are hashed and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// IPv4: inside above outside in the first. IPv6: inside, outside.
    pub(super) hosts: [u64; 4],
    /// `63 inside port | 47 outside port | 31 port of the switch | 15 its generation 0`
    pub(super) ends: u64,
    /// `31 VLAN | 19 protocol | 11 form of the ends | 3 family 0`
    pub(super) kind: u64,
}

/// Forms of ends, as a key has them.
const PORTS: u64 = 0;
const PAIR: u64 = 1;
const QUERY: u64 = 2;
/// Of a datagram in fragments: no connection's key has it.
const FRAGMENTS: u64 = 4;
const V6: u64 = 1;

impl Key {
    /// That of `protocol` between `ends` of `hosts`.
    #[inline]
    pub const fn new(scope: Scope, hosts: Hosts, protocol: u8, ends: Ends) -> Self {
        let (inside, outside, form) = match ends {
            Ends::Ports { inside, outside } => (inside, outside, PORTS),
            Ends::Query { id, kind, asked } => (id, kind as u16, QUERY | asked as u64),
            Ends::Pair => (0, 0, PAIR),
        };
        Self::of_words(scope, hosts, protocol, (inside as u32) << 16 | outside as u32, form)
    }

    /// What all fragments of a datagram have in common that goes `from` one of the hosts: no connection, but found by a digest as well. In
    /// IPv6 the protocol does not count (RFC 8200 §4.5).
    pub(in crate::firewall) const fn of_fragments(
        scope: Scope,
        hosts: Hosts,
        protocol: u8,
        id: u32,
        from: Direction,
    ) -> Self {
        let protocol = if matches!(hosts, Hosts::V4(..)) { protocol } else { 0 };
        Self::of_words(scope, hosts, protocol, id, FRAGMENTS | from as u64)
    }

    #[inline(always)]
    const fn of_words(scope: Scope, hosts: Hosts, protocol: u8, ends: u32, form: u64) -> Self {
        let (hosts, family) = match hosts {
            Hosts::V4(inside, outside) => {
                ([(inside.to_bits() as u64) << 32 | outside.to_bits() as u64, 0, 0, 0], 0)
            }
            Hosts::V6(inside, outside) => {
                let (inside, outside) = (inside.to_bits(), outside.to_bits());
                ([(inside >> 64) as u64, inside as u64, (outside >> 64) as u64, outside as u64], V6)
            }
        };
        let owner = (scope.port.index() as u64) << 16 | scope.port.generation() as u64;
        Self {
            hosts,
            ends: (ends as u64) << 32 | owner,
            kind: (scope.vlan.number() as u64) << 20 | (protocol as u64) << 12 | form << 4 | family,
        }
    }

    /// Where it is tracked; none if no key has these words.
    pub fn scope(&self) -> Option<Scope> {
        let vlan = VlanId::new((self.kind >> 20 & 0xfff) as u16)?;
        Some(Scope { port: self.port(), vlan })
    }

    /// The port whose firewall tracks it.
    pub(super) const fn port(&self) -> PortId {
        PortId::new((self.ends >> 16) as u16, self.ends as u16)
    }

    /// The two hosts.
    pub fn hosts(&self) -> Hosts {
        let [a, b, c, d] = self.hosts;
        if self.kind & V6 == 0 {
            return Hosts::V4(Ipv4Addr::from_bits((a >> 32) as u32), Ipv4Addr::from_bits(a as u32));
        }
        let v6 = |high: u64, low: u64| Ipv6Addr::from_bits((high as u128) << 64 | low as u128);
        Hosts::V6(v6(a, b), v6(c, d))
    }

    /// Protocol number.
    pub const fn protocol(&self) -> u8 {
        (self.kind >> 12) as u8
    }

    /// The two ends.
    pub const fn ends(&self) -> Ends {
        let (inside, outside) = ((self.ends >> 48) as u16, (self.ends >> 32) as u16);
        match self.kind >> 4 & 0xff {
            PORTS => Ends::Ports { inside, outside },
            PAIR => Ends::Pair,
            form => {
                let asked = if form & 1 == 0 { Direction::Egress } else { Direction::Ingress };
                Ends::Query { id: inside, kind: outside as u8, asked }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_what_it_was_made_of() {
        let scope = Scope { port: PortId::new(0xefff, 0xfffe), vlan: VlanId::new(4094).unwrap() };
        let v4 = Hosts::V4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(255, 255, 255, 254));
        let v6 = Hosts::V6("2001:db8::1".parse().unwrap(), "fe80::ffff".parse().unwrap());
        let query = |asked| Ends::Query { id: 0xffff, kind: 128, asked };
        for hosts in [v4, v6] {
            for ends in [
                Ends::Ports { inside: 0xffff, outside: 1 },
                Ends::Pair,
                query(Direction::Egress),
                query(Direction::Ingress),
            ] {
                let key = Key::new(scope, hosts, 255, ends);
                assert_eq!((key.scope(), key.hosts()), (Some(scope), hosts));
                assert_eq!((key.protocol(), key.ends()), (255, ends));
            }
        }
    }
}
