//! Which frames are wanted: a small part of tcpdump's filter language (pcap-filter(7)), asked of a frame's copied head.
//!
//! One thing is simpler than there: every word looks behind the VLAN tags, so that `ip` is also a tagged frame.

mod parse;

pub use parse::FilterError;

use crate::{
    head::{Head, Ipv4, Ipv6, Network, Transport, ethertype},
    mac::MacAddr,
};
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, str::FromStr};

/// A filter that was read and makes sense. The empty one wants every frame.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Filter {
    text: String,
    test: Option<Test>,
}

/// What is asked of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Is(Primitive),
    Not(Box<Test>),
    Both(Box<[Test; 2]>),
    Either(Box<[Test; 2]>),
}

/// One word of the language, with what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Primitive {
    Arp,
    Icmp,
    Icmp6,
    Ip,
    Ip6,
    Tcp,
    Udp,
    /// TCP or UDP, from or to.
    Port(u16),
    /// IPv4, IPv6 or ARP, from or to.
    Host(IpAddr),
    /// From or to.
    EtherHost(MacAddr),
    /// The first tag's identifier; none: any tag.
    Vlan(Option<u16>),
}

impl Filter {
    /// Whether it wants the frame of `len` bytes whose first `min(len, HEAD_BYTES)` are `bytes`. What is too short for an
    /// Ethernet header has none of the properties that can be asked for.
    pub fn matches(&self, bytes: &[u8], len: u32) -> bool {
        match &self.test {
            None => true,
            Some(test) => test.holds(Head::parse(bytes, len).ok().as_ref()),
        }
    }
}

impl Test {
    fn holds(&self, head: Option<&Head>) -> bool {
        match self {
            Self::Is(primitive) => head.is_some_and(|head| primitive.holds(head)),
            Self::Not(test) => !test.holds(head),
            Self::Both(tests) => tests.iter().all(|test| test.holds(head)),
            Self::Either(tests) => tests.iter().any(|test| test.holds(head)),
        }
    }
}

impl Primitive {
    fn holds(self, head: &Head) -> bool {
        let (link, network) = (&head.link, &head.network);
        let v4 = |number| matches!(network, Network::Ipv4(Ipv4 { protocol, .. }) if *protocol == number);
        let v6 = |number| matches!(network, Network::Ipv6(Ipv6 { protocol, .. }) if *protocol == number);
        match self {
            Self::Arp => link.ethertype == ethertype::ARP,
            Self::Ip => link.ethertype == ethertype::IPV4,
            Self::Ip6 => link.ethertype == ethertype::IPV6,
            Self::Icmp => v4(1),
            Self::Icmp6 => v6(58),
            Self::Tcp => v4(6) || v6(6),
            Self::Udp => v4(17) || v6(17),
            Self::Port(port) => match head.transport {
                Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst } => [src, dst].contains(&port),
                _ => false,
            },
            Self::Host(address) => ends(network).is_some_and(|ends| ends.contains(&address)),
            Self::EtherHost(mac) => [link.src, link.dst].contains(&mac),
            Self::Vlan(wanted) => {
                link.outer.is_some_and(|tag| wanted.is_none_or(|wanted| tag.tci.vid() == wanted))
            }
        }
    }
}

/// The addresses of the network layer: who sends, who is meant.
fn ends(network: &Network) -> Option<[IpAddr; 2]> {
    match network {
        Network::Arp(arp) => Some([arp.sender.into(), arp.target.into()]),
        Network::Ipv4(ip) => Some([ip.src.into(), ip.dst.into()]),
        Network::Ipv6(ip) => Some([ip.src.into(), ip.dst.into()]),
        Network::Other | Network::Unparsed(_) => None,
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        Ok(Self { text: text.trim().into(), test: parse::parse(text)? })
    }
}

/// As it was written.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> Self {
        filter.text
    }
}

impl TryFrom<String> for Filter {
    type Error = FilterError;

    fn try_from(text: String) -> Result<Self, FilterError> {
        text.parse()
    }
}
