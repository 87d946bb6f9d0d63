//! The rules, asked one after the other: what the compiled form must say, from the frame's facts and the policy's words.

use ipnet::IpNet;
use std::{net::IpAddr, sync::Arc};
use vswitch_core::{
    firewall::{
        classify::{Decision, RulePlace},
        policy::{Action, Direction, Family, Match, Protocol, Remote, Rule},
    },
    head::{Head, Network, Transport},
};

/// What becomes of a frame whose network header was read.
pub(super) fn decide(
    rules: &[Rule],
    members: &[Arc<[IpNet]>],
    direction: Direction,
    head: &Head,
) -> Decision {
    for (place, rule) in rules.iter().enumerate() {
        if rule.direction == direction && matches(&rule.matches, members, direction, head) {
            return by_rule(place, rule);
        }
    }
    by_default(rules, direction)
}

/// The same of an IP packet whose ports or ICMP type are not known: none if it depends on them.
pub(super) fn decide_unread(
    rules: &[Rule],
    members: &[Arc<[IpNet]>],
    direction: Direction,
    head: &Head,
) -> Option<Decision> {
    for (place, rule) in rules.iter().enumerate() {
        let whole = Match { ports: vec![], icmp: None, ..rule.matches.clone() };
        if rule.direction == direction && matches(&whole, members, direction, head) {
            return (whole == rule.matches).then(|| by_rule(place, rule));
        }
    }
    Some(by_default(rules, direction))
}

fn by_rule(place: usize, rule: &Rule) -> Decision {
    let place = RulePlace::new(place as u32);
    Decision { action: rule.action, stateful: rule.stateful, rule: Some(place) }
}

fn by_default(rules: &[Rule], direction: Direction) -> Decision {
    let allows = |rule: &Rule| rule.direction == Direction::Egress && rule.action == Action::Allow;
    let action = match direction {
        Direction::Ingress => Action::Drop,
        Direction::Egress if rules.iter().any(allows) => Action::Drop,
        Direction::Egress => Action::Allow,
    };
    Decision { action, stateful: true, rule: None }
}

fn matches(matches: &Match, members: &[Arc<[IpNet]>], direction: Direction, head: &Head) -> bool {
    family(matches, head)
        && protocol(matches, head)
        && ports(matches, head)
        && icmp(matches, head)
        && remote(matches, members, direction, head)
}

fn family(matches: &Match, head: &Head) -> bool {
    match matches.family {
        Family::Any => true,
        Family::Ipv4 => matches!(head.network, Network::Ipv4(_)),
        Family::Ipv6 => matches!(head.network, Network::Ipv6(_)),
        Family::EtherType(number) => ends(head).is_none() && head.link.ethertype == number,
    }
}

fn protocol(matches: &Match, head: &Head) -> bool {
    match (matches.protocol, head.network) {
        (Protocol::Any, _) => true,
        (Protocol::Icmp, Network::Ipv4(ip)) => ip.protocol == 1,
        (Protocol::Icmp, Network::Ipv6(ip)) => ip.protocol == 58,
        (Protocol::Number(number), Network::Ipv4(ip)) => ip.protocol == number,
        (Protocol::Number(number), Network::Ipv6(ip)) => ip.protocol == number,
        _ => false,
    }
}

fn ports(matches: &Match, head: &Head) -> bool {
    let port = match head.transport {
        Transport::Tcp { dst, .. } | Transport::Udp { dst, .. } | Transport::Sctp { dst, .. } => Some(dst),
        _ => None,
    };
    let within = |port| matches.ports.iter().any(|ports| ports.first <= port && port <= ports.last);
    matches.ports.is_empty() || port.is_some_and(within)
}

fn icmp(matches: &Match, head: &Head) -> bool {
    let Some(wanted) = matches.icmp else { return true };
    match head.transport {
        Transport::Icmpv4 { kind, code } | Transport::Icmpv6 { kind, code } => {
            wanted.kind == kind && wanted.code.is_none_or(|wanted| wanted == code)
        }
        _ => false,
    }
}

fn remote(matches: &Match, members: &[Arc<[IpNet]>], direction: Direction, head: &Head) -> bool {
    let networks = match &matches.remote {
        Remote::Any => return true,
        Remote::Networks(networks) => networks,
        Remote::Group(group) => &members[usize::from(group.index())][..],
    };
    let other = ends(head).map(|(src, dst)| match direction {
        Direction::Ingress => src,
        Direction::Egress => dst,
    });
    other.is_some_and(|other| networks.iter().any(|network| network.contains(&other)))
}

/// Source and destination of an IP packet.
pub(super) fn ends(head: &Head) -> Option<(IpAddr, IpAddr)> {
    match head.network {
        Network::Ipv4(ip) => Some((ip.src.into(), ip.dst.into())),
        Network::Ipv6(ip) => Some((ip.src.into(), ip.dst.into())),
        _ => None,
    }
}
