//! What of a frame rules are asked about.

use super::{
    connections::{Ends, Key},
    policy::Direction,
};
use crate::head::{Head, Network, Transport, Unparsed};
use std::net::IpAddr;

/// What a frame is to rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tuple {
    /// An IP packet.
    Ip(IpTuple),
    /// Anything else.
    Other {
        /// The EtherType behind the VLAN tags; below 0x600 an IEEE 802.3 length.
        ethertype: u16,
    },
}

/// An IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpTuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// What it carries. In IPv6 the last Next Header that was reached.
    pub protocol: u8,
    /// What the transport header says.
    pub service: Service,
}

/// What a transport header says, as far as rules ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// TCP, UDP, SCTP.
    Ports {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
    },
    /// ICMP, ICMPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// The protocol has neither.
    None,
    /// The header was not read: it is in another fragment, or is cut, contradictory or too far behind.
    Unread,
}

impl Tuple {
    /// That of the frame with these facts.
    ///
    /// # Errors
    /// Why the network header (or the tag before it) could not be read: then there is nothing that a rule could be
    /// asked, and who filters drops the frame.
    pub fn of(head: &Head) -> Result<Self, Unparsed> {
        let (src, dst, protocol) = match head.network {
            Network::Ipv4(ip) => (ip.src.into(), ip.dst.into(), ip.protocol),
            Network::Ipv6(ip) => (ip.src.into(), ip.dst.into(), ip.protocol),
            Network::Arp(_) | Network::Other => return Ok(Self::Other { ethertype: head.link.ethertype }),
            Network::Unparsed(why) => return Err(why),
        };
        Ok(Self::Ip(IpTuple { src, dst, protocol, service: Service::of(head.transport) }))
    }

    /// That of a frame which opens the connection with this key and goes that way.
    pub fn opening(key: &Key, opener: Direction) -> Self {
        let (inside, outside) = key.hosts().pair();
        let (src, dst) = match opener {
            Direction::Egress => (inside, outside),
            Direction::Ingress => (outside, inside),
        };
        let protocol = key.protocol();
        let service = match (key.ends(), opener) {
            // Others that have ports are not asked for them (see `Service::of`).
            (Ends::Ports { .. }, _) if !matches!(protocol, 6 | 17 | 132) => Service::None,
            (Ends::Ports { inside, outside }, Direction::Egress) => {
                Service::Ports { src: inside, dst: outside }
            }
            (Ends::Ports { inside, outside }, Direction::Ingress) => {
                Service::Ports { src: outside, dst: inside }
            }
            (Ends::Query { kind, .. }, _) => Service::Icmp { kind, code: 0 },
            (Ends::Pair, _) => Service::None,
        };
        Self::Ip(IpTuple { src, dst, protocol, service })
    }
}

impl IpTuple {
    /// The address of the end that is not the guest.
    #[inline]
    pub const fn remote(&self, direction: Direction) -> IpAddr {
        match direction {
            Direction::Ingress => self.src,
            Direction::Egress => self.dst,
        }
    }
}

impl Service {
    /// That of a frame with this transport header.
    pub const fn of(transport: Transport) -> Self {
        match transport {
            Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst } | Transport::Sctp { src, dst } => {
                Self::Ports { src, dst }
            }
            Transport::Icmpv4 { kind, code } | Transport::Icmpv6 { kind, code } => Self::Icmp { kind, code },
            Transport::None | Transport::Other => Self::None,
            Transport::LaterFragment | Transport::Unparsed(_) => Self::Unread,
        }
    }

    /// The destination port, or type and code, as one number that ranges are made of.
    #[inline]
    pub(super) const fn number(self) -> Option<u16> {
        match self {
            Self::Ports { dst, .. } => Some(dst),
            Self::Icmp { kind, code } => Some(u16::from_be_bytes([kind, code])),
            Self::None | Self::Unread => None,
        }
    }
}
