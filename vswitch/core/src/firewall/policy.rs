//! What a policy says: security groups and their rules, as the file has them and as they cross to the datapath.
//!
//! An interface has a list of groups. Its rules are those of the groups, in the order of the list and of the file; the
//! first that matches decides. If none does, ingress drops; egress allows, unless some egress rule of the interface has
//! the action allow: then it drops.

use crate::{description::Origin, head::ethertype};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A security group: its place in the lab's list of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(u16);

impl GroupId {
    /// The group in place `index`.
    pub const fn new(index: u16) -> Self {
        Self(index)
    }

    /// Its place in the list.
    pub const fn index(self) -> u16 {
        self.0
    }
}

/// A named list of rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// Its name.
    pub name: String,
    /// Its rules, in file order.
    pub rules: Vec<Rule>,
    /// Where it was said.
    pub origin: Origin,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Which way the frames go that it is asked about.
    pub direction: Direction,
    /// What becomes of those that match.
    pub action: Action,
    /// Whether frames of the connection that an allowed one begins need no rule, in both directions.
    pub stateful: bool,
    /// Whether what it decides is logged.
    #[serde(default, skip_serializing_if = "is_silent")]
    pub log: bool,
    /// Which frames match.
    pub matches: Match,
    /// Where it was said.
    pub origin: Origin,
}

/// Whether a rule logs nothing, which need not be said.
const fn is_silent(log: &bool) -> bool {
    !*log
}

/// A frame's way, seen from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the guest.
    Egress,
    /// Towards the guest.
    Ingress,
}

impl Direction {
    /// The other one.
    pub const fn opposite(self) -> Self {
        match self {
            Self::Egress => Self::Ingress,
            Self::Ingress => Self::Egress,
        }
    }

    /// The place of what belongs to whoever sends in this direction.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It goes on.
    Allow,
    /// It is dropped.
    Drop,
    /// It is dropped, and its sender is told.
    Reject,
}

/// Which frames a rule matches: those with all of these properties. The default has none, and matches every frame.
///
/// A rule that names ports or an ICMP type never matches a frame whose transport header was not read (a fragment that is
/// not the first, or a header that is cut, contradictory or too far behind). One that names no more than addresses or
/// the protocol does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Match {
    /// The network layer.
    pub family: Family,
    /// What the network layer carries.
    pub protocol: Protocol,
    /// Destination ports of TCP, UDP or SCTP: in any of these ranges. None: any.
    pub ports: Vec<PortRange>,
    /// Type and code of ICMP or ICMPv6.
    pub icmp: Option<IcmpType>,
    /// The other end: the source of ingress, the destination of egress.
    pub remote: Remote,
}

/// The network layer of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Any, or none.
    #[default]
    Any,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Not IP, but with this EtherType behind the VLAN tags.
    EtherType(u16),
}

/// What an IP header carries. Any but `Any` means IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Anything.
    #[default]
    Any,
    /// ICMP in IPv4, ICMPv6 in IPv6.
    Icmp,
    /// The protocol of this number, in either family.
    Number(u8),
}

/// Destination ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// An ICMP type, with one of its codes or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IcmpType {
    /// The type.
    pub kind: u8,
    /// The code; none: any.
    pub code: Option<u8>,
}

/// Who the other end is. Any but `Any` means IP.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remote {
    /// Anybody.
    #[default]
    Any,
    /// Who has an address in one of these networks.
    Networks(Vec<IpNet>),
    /// Who is a member of this group.
    Group(GroupId),
}

/// A version of the Internet Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

/// Why a rule cannot be meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Ports without a protocol that has them.
    PortsWithoutProtocol,
    /// A range that ends before it begins.
    EmptyRange(PortRange),
    /// An ICMP type without ICMP.
    IcmpTypeWithoutIcmp,
    /// An ICMP type without a family: the types of ICMP and ICMPv6 have nothing in common.
    IcmpTypeWithoutFamily,
    /// A list of networks with none in it.
    NoNetworks,
    /// An address with bits behind the length of its network.
    HostBits(IpNet),
    /// A network of the other family.
    OtherFamily(IpNet),
    /// An IEEE 802.3 length.
    NoEtherType(u16),
    /// The EtherType of an IP version, for which there are families.
    EtherTypeOfIp(u16),
    /// The EtherType of a VLAN tag, which rules look behind.
    EtherTypeOfTag(u16),
    /// A protocol, ports, an ICMP type or a remote end with an EtherType, which have IP frames only.
    EtherTypeWithIp,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortsWithoutProtocol => f.write_str("names ports, which only TCP, UDP and SCTP have"),
            Self::EmptyRange(PortRange { first, last }) => {
                write!(f, "names ports {first}-{last}, a range that ends before it begins")
            }
            Self::IcmpTypeWithoutIcmp => f.write_str("names an ICMP type, but its protocol is not ICMP"),
            Self::IcmpTypeWithoutFamily => {
                f.write_str("names an ICMP type, but no family: types differ between IPv4 and IPv6")
            }
            Self::NoNetworks => f.write_str("has an empty list of remote networks, and so matches nothing"),
            Self::HostBits(network) => {
                write!(f, "names {network}, but that network is {}", network.trunc())
            }
            Self::OtherFamily(network) => write!(f, "names {network}, which is of the other family"),
            Self::NoEtherType(number) => write!(f, "names EtherType 0x{number:04x}, which is a length"),
            Self::EtherTypeOfIp(number) => {
                write!(f, "names EtherType 0x{number:04x}, which is IP: give the family instead")
            }
            Self::EtherTypeOfTag(number) => {
                write!(f, "names EtherType 0x{number:04x}, a VLAN tag's: rules look behind tags")
            }
            Self::EtherTypeWithIp => {
                f.write_str("names an EtherType, and what only IP has: a protocol, ports or a remote end")
            }
        }
    }
}

impl Match {
    /// Whether this can be meant at all.
    ///
    /// # Errors
    /// The first thing that cannot.
    pub fn check(&self) -> Result<(), Fault> {
        match self.family {
            Family::EtherType(number) => self.check_ethertype(number),
            _ => self.check_service().and_then(|()| self.check_remote()),
        }
    }

    fn check_ethertype(&self, number: u16) -> Result<(), Fault> {
        match number {
            ..0x600 => Err(Fault::NoEtherType(number)),
            ethertype::IPV4 | ethertype::IPV6 => Err(Fault::EtherTypeOfIp(number)),
            ethertype::C_TAG | ethertype::S_TAG => Err(Fault::EtherTypeOfTag(number)),
            _ if *self != (Self { family: self.family, ..Self::default() }) => Err(Fault::EtherTypeWithIp),
            _ => Ok(()),
        }
    }

    fn check_service(&self) -> Result<(), Fault> {
        if !self.ports.is_empty() && !matches!(self.protocol, Protocol::Number(6 | 17 | 132)) {
            return Err(Fault::PortsWithoutProtocol);
        }
        if let Some(range) = self.ports.iter().find(|range| range.first > range.last) {
            return Err(Fault::EmptyRange(*range));
        }
        match (self.icmp, self.family, self.protocol) {
            (None, ..)
            | (Some(_), Family::Ipv4, Protocol::Icmp | Protocol::Number(1))
            | (Some(_), Family::Ipv6, Protocol::Icmp | Protocol::Number(58)) => Ok(()),
            (Some(_), Family::Any, Protocol::Icmp | Protocol::Number(1 | 58)) => {
                Err(Fault::IcmpTypeWithoutFamily)
            }
            (Some(_), ..) => Err(Fault::IcmpTypeWithoutIcmp),
        }
    }

    fn check_remote(&self) -> Result<(), Fault> {
        let Remote::Networks(networks) = &self.remote else { return Ok(()) };
        if networks.is_empty() {
            return Err(Fault::NoNetworks);
        }
        for network in networks {
            match (network, self.family) {
                (IpNet::V4(_), Family::Ipv6) | (IpNet::V6(_), Family::Ipv4) => {
                    return Err(Fault::OtherFamily(*network));
                }
                _ if *network != network.trunc() => return Err(Fault::HostBits(*network)),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Family {
    /// Whether frames of this version are among it.
    pub(super) const fn has(self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::Ipv4 => matches!(version, Version::V4),
            Self::Ipv6 => matches!(version, Version::V6),
            Self::EtherType(_) => false,
        }
    }
}

impl Protocol {
    /// Its number in this version; none for any.
    pub(super) const fn number(self, version: Version) -> Option<u8> {
        match (self, version) {
            (Self::Any, _) => None,
            (Self::Icmp, Version::V4) => Some(1),
            (Self::Icmp, Version::V6) => Some(58),
            (Self::Number(number), _) => Some(number),
        }
    }
}
