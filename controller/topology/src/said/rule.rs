//! What rules of security groups are written in: protocols, ports, EtherTypes, networks.

use crate::{
    codes::Code,
    report::{Sink, visible},
    said::{
        read::{OneOrMany, Read, Said, said_map},
        scalar::{ActionWord, Address, DirectionWord, Form, Mac, Whole, read_form, read_whole, refuse_word},
        tree::{Tree, Value},
    },
};
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::{borrow::Cow, fmt, net::IpAddr};
use vswitch_core::firewall::{
    policy::{PortRange, Protocol},
    words::{self, ETHERTYPES, PROTOCOLS},
};

said_map! {
    /// A rule of a security group: frames with all of these properties match. The first rule that matches decides.
    Rule is "a rule" {
        /// Which way the frames go, seen from the guest.
        direction: Said<DirectionWord> = "direction", required;
        /// What becomes of those that match; `allow` if nothing is said.
        action: Said<ActionWord> = "action";
        /// Whether answers to what is allowed need no rule of their own; true if nothing is said.
        stateful: Said<bool> = "stateful";
        /// What IP carries: a name or a number.
        protocol: Said<IpProtocol> = "protocol";
        /// Destination ports of tcp, udp or sctp: a port, a range, or a list of them.
        port: Said<OneOrMany<Ports>> = "port";
        /// A type of ICMP or ICMPv6, by its number.
        icmp_type: Said<Whole<0, 255>> = "icmp-type";
        /// One of its codes.
        icmp_code: Said<Whole<0, 255>> = "icmp-code";
        /// `ipv4`, `ipv6`, or the EtherType of frames that are not IP.
        ether_type: Said<EtherType> = "ether-type";
        /// The other end's address: an address, a network, or a list of them.
        remote_ip_prefix: Said<OneOrMany<Network>> = "remote-ip-prefix";
        /// The other end is an interface with this security group.
        remote_group: Said<String> = "remote-group";
        /// Whether what it decides is logged, some of it each second: `vnet logs switch`.
        log: Said<bool> = "log";
    } not yet ["rate"]
}

said_map! {
    /// Another MAC address that an interface may use, as routers with VRRP do.
    AllowedPair is "an allowed MAC address" {
        /// The address.
        mac: Said<Mac> = "mac", required;
        /// The IP addresses and networks that go with it.
        addresses: Vec<Said<Network>> = "addresses", required;
    } not yet []
}

/// What an interface may use besides its own addresses.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Allowed {
    Own(Network),
    Other(Box<AllowedPair>),
}

impl Read for Allowed {
    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        match &tree.value {
            Value::Map(_) => AllowedPair::read(tree, sink).map(|pair| Self::Other(Box::new(pair))),
            _ => Network::read(tree, sink).map(Self::Own),
        }
    }
}

/// What IP carries; never any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IpProtocol(pub(crate) Protocol);

impl IpProtocol {
    /// ICMP in IPv4, ICMPv6 in IPv6.
    pub(crate) const ICMP: Self = Self(Protocol::Icmp);
    pub(crate) const ICMPV4: Self = Self(Protocol::Number(1));
    pub(crate) const ICMPV6: Self = Self(Protocol::Number(58));

    const WORDS: [&'static str; PROTOCOLS.len()] = names_of(PROTOCOLS);

    /// Whether rules can name its ports.
    pub(crate) const fn has_ports(self) -> bool {
        matches!(self.0, Protocol::Number(6 | 17 | 132))
    }
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (words::protocol(self.0), self.0) {
            (Some(name), _) => f.write_str(name),
            (None, Protocol::Number(number)) => write!(f, "protocol {number}"),
            (None, Protocol::Icmp | Protocol::Any) => f.write_str("any protocol"),
        }
    }
}

impl Read for IpProtocol {
    const WORDS: &'static [&'static str] = &Self::WORDS;

    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        match &tree.value {
            Value::Number(_) => {
                read_whole(tree, 0, u8::MAX, sink).map(|number| Self(Protocol::Number(number)))
            }
            _ => read_name(PROTOCOLS, &Self::WORDS, tree, sink).map(Self),
        }
    }
}

impl JsonSchema for IpProtocol {
    fn schema_name() -> Cow<'static, str> {
        "IpProtocol".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A protocol that IP carries: a name, or a number.",
            "anyOf": [{ "type": "string", "enum": Self::WORDS }, { "type": "integer", "minimum": 0, "maximum": 255 }],
        })
    }
}

/// What an Ethernet frame carries, behind its VLAN tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EtherType(pub(crate) u16);

impl EtherType {
    const WORDS: [&'static str; ETHERTYPES.len()] = names_of(ETHERTYPES);
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match words::ethertype(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "EtherType 0x{:04x}", self.0),
        }
    }
}

impl Read for EtherType {
    const WORDS: &'static [&'static str] = &Self::WORDS;

    /// Numbers are hexadecimal, as everybody writes EtherTypes: whoever means 0x8100 by 8100 hears of it.
    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        let (Value::Number(text) | Value::Text(text)) = &tree.value else {
            return read_name(ETHERTYPES, &Self::WORDS, tree, sink).map(Self);
        };
        let Some(digits) = text.strip_prefix("0x") else {
            if matches!(tree.value, Value::Text(_)) {
                return read_name(ETHERTYPES, &Self::WORDS, tree, sink).map(Self);
            }
            let what = format!("`{}` is no EtherType: these are written in hexadecimal", visible(text));
            sink.error(Code::Malformed, tree.span, what).help("write it like 0x88cc, or by its name");
            return None;
        };
        let plain = digits.len() <= 4 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u16::from_str_radix(digits, 16).ok().filter(|_| plain);
        let Some(number) = number.filter(|number| *number >= 0x600) else {
            let what = format!("`{}` is not an EtherType from 0x0600 to 0xffff", visible(text));
            sink.error(Code::OutOfRange, tree.span, what).help("what is less is a length (IEEE 802.3)");
            return None;
        };
        Some(Self(number))
    }
}

impl JsonSchema for EtherType {
    fn schema_name() -> Cow<'static, str> {
        "EtherType".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What an Ethernet frame carries: a name, or a number like 0x88cc.",
            "anyOf": [
                { "type": "string", "enum": Self::WORDS },
                { "type": "string", "pattern": "^0x[0-9a-fA-F]{3,4}$" },
                { "type": "integer", "minimum": 0x600, "maximum": 0xffff },
            ],
        })
    }
}

/// The names of a table.
const fn names_of<T, const N: usize>(names: &[(&'static str, T)]) -> [&'static str; N] {
    let mut words = [""; N];
    let mut place = 0;
    while place < N {
        words[place] = names[place].0;
        place += 1;
    }
    words
}

/// What a name of the table stands for.
fn read_name<T: Copy>(names: &[(&str, T)], words: &[&str], tree: &Tree, sink: &mut Sink) -> Option<T> {
    let text = String::read(tree, sink)?;
    let found = names.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).or_else(|| refuse_word(&text, tree, words, &[], sink))
}

/// A port, or several in a row: as it is written, so the last may come before the first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports(pub(crate) PortRange);

impl Form for Ports {
    const FORM: &'static str =
        "a port from 1 to 65535, like 443, or a range, like 8000-8099 (several: [80, 8000-8099])";
    const PATTERN: &'static str = "^[0-9]{1,5}-[0-9]{1,5}$";

    fn parse(text: &str) -> Option<Self> {
        let port = |text: &str| {
            let plain = text.bytes().all(|digit| digit.is_ascii_digit()) && !text.starts_with('0');
            text.parse().ok().filter(|_| plain)
        };
        let (first, last) = text.split_once('-')?;
        Some(Self(PortRange { first: port(first)?, last: port(last)? }))
    }
}

impl Read for Ports {
    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        match &tree.value {
            Value::Number(_) => {
                let port = read_whole(tree, 1, u16::MAX, sink)?;
                Some(Self(PortRange { first: port, last: port }))
            }
            _ => read_form(tree, sink),
        }
    }
}

impl JsonSchema for Ports {
    fn schema_name() -> Cow<'static, str> {
        "Ports".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": Self::FORM,
            "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": 65535 },
                { "type": "string", "pattern": Self::PATTERN },
            ],
        })
    }
}

/// A network, or one address; as it is written, so bits behind the prefix may be set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network(pub(crate) IpNet);

impl Form for Network {
    const FORM: &'static str = "an address or a network, like 10.0.20.80, 10.0.0.0/8 or 2001:db8::/32 (no part of an IPv4 address starts with 0)";
    const PATTERN: &'static str = "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$";

    fn parse(text: &str) -> Option<Self> {
        match text.parse::<IpAddr>() {
            Ok(address) => Some(Self(address.into())),
            Err(_) => Address::parse(text).map(|address| Self(address.0)),
        }
    }
}

impl Read for Network {
    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        read_form(tree, sink)
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": Self::PATTERN, "description": Self::FORM })
    }
}
