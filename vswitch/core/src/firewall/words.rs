//! Rules in the words of the topology file.

use super::policy::{
    Action, Direction, Family, GroupId, IcmpType, Match, PortRange, Protocol, Remote, Rule, SecurityGroup,
};
use crate::head::ethertype;
use std::fmt::Display;

/// The names of what IP carries (IANA's "Protocol Numbers", in OpenStack's spelling); of two for one number the first is told.
pub const PROTOCOLS: &[(&str, Protocol)] = &[
    ("icmp", Protocol::Icmp),
    ("igmp", Protocol::Number(2)),
    ("ipip", Protocol::Number(4)),
    ("tcp", Protocol::Number(6)),
    ("udp", Protocol::Number(17)),
    ("dccp", Protocol::Number(33)),
    ("ipv6-encap", Protocol::Number(41)),
    ("rsvp", Protocol::Number(46)),
    ("gre", Protocol::Number(47)),
    ("esp", Protocol::Number(50)),
    ("ah", Protocol::Number(51)),
    ("icmpv6", Protocol::Number(58)),
    ("ipv6-icmp", Protocol::Number(58)),
    ("ospf", Protocol::Number(89)),
    ("pim", Protocol::Number(103)),
    ("vrrp", Protocol::Number(112)),
    ("pgm", Protocol::Number(113)),
    ("l2tp", Protocol::Number(115)),
    ("sctp", Protocol::Number(132)),
    ("udplite", Protocol::Number(136)),
];

/// The names of what Ethernet carries.
pub const ETHERTYPES: &[(&str, u16)] = &[
    ("ipv4", ethertype::IPV4),
    ("ipv6", ethertype::IPV6),
    ("arp", ethertype::ARP),
    ("rarp", 0x8035),
    ("pppoe-discovery", 0x8863),
    ("pppoe", 0x8864),
    ("mpls", 0x8847),
    ("eapol", 0x888e),
    ("lldp", 0x88cc),
    ("ptp", 0x88f7),
];

/// The name of a protocol; none: it has a number only.
pub fn protocol(protocol: Protocol) -> Option<&'static str> {
    PROTOCOLS.iter().find(|(_, named)| *named == protocol).map(|(name, _)| *name)
}

/// The name of an EtherType; none: it has a number only.
pub fn ethertype(number: u16) -> Option<&'static str> {
    ETHERTYPES.iter().find(|(_, named)| *named == number).map(|(name, _)| *name)
}

/// A rule as a line of the file has it, without its dash: `{ direction: ingress, protocol: tcp, port: 80 }`.
pub fn rule(rule: &Rule, groups: &[SecurityGroup]) -> String {
    let mut parts = vec![format!("direction: {}", direction(rule.direction))];
    if rule.action != Action::Allow {
        parts.push(format!("action: {}", action(rule.action)));
    }
    if !rule.stateful {
        parts.push("stateful: false".into());
    }
    parts.extend(parts_of(&rule.matches, groups));
    if rule.log {
        parts.push("log: true".into());
    }
    format!("{{ {} }}", parts.join(", "))
}

/// What a rule asks of frames: `protocol: tcp, port: 80`; empty if it matches every frame.
pub fn matches(matches: &Match, groups: &[SecurityGroup]) -> String {
    parts_of(matches, groups).join(", ")
}

/// `ingress` or `egress`.
pub const fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}

/// `allow`, `drop` or `reject`.
pub const fn action(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Drop => "drop",
        Action::Reject => "reject",
    }
}

fn parts_of(
    Match { family, protocol, ports, icmp, remote }: &Match,
    groups: &[SecurityGroup],
) -> Vec<String> {
    let mut parts = Vec::new();
    // The protocol says it.
    let is_icmpv6 = *protocol == Protocol::Number(58);
    match family {
        Family::Any => {}
        Family::Ipv6 if is_icmpv6 => {}
        Family::Ipv4 => parts.push("ether-type: ipv4".into()),
        Family::Ipv6 => parts.push("ether-type: ipv6".into()),
        Family::EtherType(number) => {
            let name = ethertype(*number).map_or_else(|| format!("0x{number:04x}"), Into::into);
            parts.push(format!("ether-type: {name}"));
        }
    }
    match (self::protocol(*protocol), protocol) {
        (Some(name), _) => parts.push(format!("protocol: {name}")),
        (None, Protocol::Number(number)) => parts.push(format!("protocol: {number}")),
        (None, Protocol::Any | Protocol::Icmp) => {}
    }
    if !ports.is_empty() {
        let range = |PortRange { first, last }: &PortRange| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        parts.push(format!("port: {}", one_or_many(ports.iter().map(range))));
    }
    if let Some(IcmpType { kind, code }) = icmp {
        parts.push(format!("icmp-type: {kind}"));
        parts.extend(code.map(|code| format!("icmp-code: {code}")));
    }
    match remote {
        Remote::Any => {}
        Remote::Networks(networks) => {
            // In YAML a colon is not for plain text.
            let text = |network: &ipnet::IpNet| match network {
                ipnet::IpNet::V4(network) => network.to_string(),
                ipnet::IpNet::V6(network) => format!("\"{network}\""),
            };
            parts.push(format!("remote-ip-prefix: {}", one_or_many(networks.iter().map(text))));
        }
        Remote::Group(id) => parts.push(format!("remote-group: {}", group(*id, groups))),
    }
    parts
}

fn one_or_many(all: impl ExactSizeIterator<Item = impl Display>) -> String {
    let is_one = all.len() == 1;
    let all = all.map(|one| one.to_string()).collect::<Vec<_>>().join(", ");
    if is_one { all } else { format!("[{all}]") }
}

fn group(id: GroupId, groups: &[SecurityGroup]) -> &str {
    groups.get(usize::from(id.index())).map_or("?", |group| &group.name)
}
