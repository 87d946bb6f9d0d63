//! A frame's facts in words, for traces.

use super::{Arp, Head, Network, TcpFlags, Transport, Unparsed, ethertype};
use std::fmt;

/// `IPv4 10.0.0.1 > 10.0.0.2 ICMP echo request`, and the like for every kind of frame.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for tag in [self.link.outer, self.link.inner].into_iter().flatten() {
            write!(f, "tag {} priority {}, ", tag.tci.vid(), tag.tci.priority())?;
        }
        match self.network {
            Network::Other if self.link.ethertype < 0x600 => write!(f, "IEEE 802.3 LLC"),
            Network::Other => write!(f, "EtherType 0x{:04x}", self.link.ethertype),
            Network::Arp(arp) => arp.fmt(f),
            Network::Ipv4(ip) => {
                write!(f, "IPv4 {} > {} {}", ip.src, ip.dst, Protocol(self.transport, ip.protocol))
            }
            Network::Ipv6(ip) => {
                write!(f, "IPv6 {} > {} {}", ip.src, ip.dst, Protocol(self.transport, ip.protocol))
            }
            Network::Unparsed(why) => match self.link.ethertype {
                ethertype::ARP => write!(f, "ARP ({why})"),
                ethertype::IPV4 => write!(f, "IPv4 ({why})"),
                ethertype::IPV6 => write!(f, "IPv6 ({why})"),
                _ => write!(f, "VLAN tag ({why})"),
            },
        }
    }
}

impl fmt::Display for Unparsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "cut short",
            Self::BehindHead => "behind the bytes that are looked at",
            Self::Malformed => "malformed",
            Self::TooManyTags => "more than two tags",
            Self::TooManyExtensions => "more than eight extension headers",
        })
    }
}

impl fmt::Display for Arp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            1 => write!(f, "ARP who has {}, tell {}", self.target, self.sender),
            2 => write!(f, "ARP {} is at {}", self.sender, self.sender_mac),
            operation => write!(f, "ARP operation {operation}"),
        }
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let mut set = NAMES.iter().enumerate().filter(|(bit, _)| self.bits() >> bit & 1 != 0);
        set.try_for_each(|(_, name)| write!(f, " {name}"))
    }
}

/// The transport of a frame whose network layer names this protocol, in words: `TCP 1025 > 22 SYN`.
#[derive(Debug, Clone, Copy)]
pub struct Protocol(
    /// What the network layer carries.
    pub Transport,
    /// The protocol number.
    pub u8,
);

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Transport::Tcp { src, dst, flags } => write!(f, "TCP {src} > {dst}{flags}"),
            Transport::Udp { src, dst } => write!(f, "UDP {src} > {dst}"),
            Transport::Sctp { src, dst } => write!(f, "SCTP {src} > {dst}"),
            Transport::Icmpv4 { kind: 8, .. } | Transport::Icmpv6 { kind: 128, .. } => {
                f.write_str("ICMP echo request")
            }
            Transport::Icmpv4 { kind: 0, .. } | Transport::Icmpv6 { kind: 129, .. } => {
                f.write_str("ICMP echo reply")
            }
            Transport::Icmpv6 { kind: 135, .. } => f.write_str("neighbour solicitation"),
            Transport::Icmpv6 { kind: 136, .. } => f.write_str("neighbour advertisement"),
            Transport::Icmpv4 { kind, code } | Transport::Icmpv6 { kind, code } => {
                write!(f, "ICMP type {kind} code {code}")
            }
            Transport::LaterFragment => write!(f, "protocol {}, not the first fragment", self.1),
            Transport::Unparsed(why) => write!(f, "protocol {} ({why})", self.1),
            Transport::Other | Transport::None => write!(f, "protocol {}", self.1),
        }
    }
}
