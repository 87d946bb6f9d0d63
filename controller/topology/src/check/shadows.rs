//! Rules that are never asked, because an earlier one of their group takes all that they match.
//!
//! Only one rule is held against one other, never several together: what is told is certain, what is not told may still be so.

use crate::{
    check::groups::Places,
    codes::Code,
    report::{MAX_ERRORS, Sink},
};
use ipnet::IpNet;
use vswitch_core::firewall::policy::{Family, Match, PortRange, Protocol, Remote, SecurityGroup};

/// How much is compared for one file: ports with ports, networks with networks. Larger files are searched in part.
pub(crate) const BUDGET: usize = 1 << 22;

/// Tells of each rule of `group` behind one that takes all that it matches.
pub(crate) fn warn(group: &SecurityGroup, spans: &[Places], budget: &mut usize, sink: &mut Sink) {
    let mut told = 0;
    for (place, rule) in group.rules.iter().enumerate() {
        let earlier = group.rules[..place].iter().zip(spans).find(|(earlier, _)| {
            let cost = 1 + cost(&earlier.matches, &rule.matches);
            let affordable = cost <= *budget;
            *budget -= cost.min(*budget);
            affordable && earlier.direction == rule.direction && covers(&earlier.matches, &rule.matches)
        });
        if let Some((_, by)) = earlier {
            let what = format!(
                "this rule of `{}` is never asked: an earlier one takes all that it matches",
                group.name
            );
            sink.warning(Code::Shadowed, spans[place].rule, what).label(by.rule, "this one decides first");
            told += 1;
        }
        if *budget == 0 || told == MAX_ERRORS {
            return;
        }
    }
}

fn cost(first: &Match, second: &Match) -> usize {
    let networks = |remote: &Remote| match remote {
        Remote::Networks(networks) => networks.len(),
        Remote::Any | Remote::Group(_) => 0,
    };
    first.ports.len() * second.ports.len() + networks(&first.remote) * networks(&second.remote)
}

/// Whether every frame that `second` matches, `first` matches too. It may be false where this is so.
fn covers(first: &Match, second: &Match) -> bool {
    covers_family(first, second)
        && covers_protocol(first.protocol, second.protocol, second.family)
        && covers_ports(&first.ports, &second.ports)
        && match (first.icmp, second.icmp) {
            (None, _) => true,
            (Some(first), Some(second)) => {
                first.kind == second.kind && (first.code.is_none() || first.code == second.code)
            }
            (Some(_), None) => false,
        }
        && covers_remote(&first.remote, &second.remote)
}

/// A rule without family is for IP only if it names what only IP has.
fn covers_family(first: &Match, second: &Match) -> bool {
    let v4 = |network: &IpNet| matches!(network, IpNet::V4(_));
    match (first.family, &second.remote) {
        (Family::Any, _) => is_for_all(first) || is_for_ip(second),
        (Family::Ipv4, Remote::Networks(networks)) if networks.iter().all(v4) => true,
        (Family::Ipv6, Remote::Networks(networks)) if !networks.iter().any(v4) => true,
        (family, _) => family == second.family,
    }
}

fn is_for_all(matches: &Match) -> bool {
    matches.protocol == Protocol::Any && matches.remote == Remote::Any
}

fn is_for_ip(matches: &Match) -> bool {
    match matches.family {
        Family::Any => !is_for_all(matches),
        Family::Ipv4 | Family::Ipv6 => true,
        Family::EtherType(_) => false,
    }
}

fn covers_protocol(first: Protocol, second: Protocol, family: Family) -> bool {
    first == Protocol::Any
        || first == second
        || matches!(
            (first, second, family),
            (Protocol::Icmp, Protocol::Number(1), Family::Ipv4)
                | (Protocol::Number(1), Protocol::Icmp, Family::Ipv4)
                | (Protocol::Icmp, Protocol::Number(58), Family::Ipv6)
                | (Protocol::Number(58), Protocol::Icmp, Family::Ipv6)
        )
}

fn covers_ports(first: &[PortRange], second: &[PortRange]) -> bool {
    let within = |one: &PortRange| first.iter().any(|all| all.first <= one.first && one.last <= all.last);
    first.is_empty() || !second.is_empty() && second.iter().all(within)
}

fn covers_remote(first: &Remote, second: &Remote) -> bool {
    match (first, second) {
        (Remote::Any, _) => true,
        (Remote::Group(first), Remote::Group(second)) => first == second,
        (Remote::Networks(first), Remote::Networks(second)) => {
            second.iter().all(|one| first.iter().any(|all| all.contains(one)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswitch_core::firewall::policy::{GroupId, IcmpType};

    fn network(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    fn tcp(ports: &[(u16, u16)]) -> Match {
        let ports = ports.iter().map(|(first, last)| PortRange { first: *first, last: *last }).collect();
        Match { protocol: Protocol::Number(6), ports, ..Match::default() }
    }

    fn from(networks: &[&str]) -> Match {
        let networks = networks.iter().copied().map(network).collect();
        Match { remote: Remote::Networks(networks), ..Match::default() }
    }

    fn of(family: Family) -> Match {
        Match { family, ..Match::default() }
    }

    #[test]
    fn what_covers_covers() {
        let group = Match { remote: Remote::Group(GroupId::new(0)), ..Match::default() };
        let echo = |code| Match {
            family: Family::Ipv4,
            protocol: Protocol::Icmp,
            icmp: Some(IcmpType { kind: 8, code }),
            ..Match::default()
        };
        let all = Match::default();
        for (first, second) in [
            (&all, &all),
            (&all, &of(Family::EtherType(0x88cc))),
            (&all, &tcp(&[(80, 80)])),
            (&all, &group),
            (&tcp(&[]), &tcp(&[(80, 80)])),
            (&tcp(&[(1, 99), (200, 300)]), &tcp(&[(80, 80), (250, 300)])),
            (&from(&["10.0.0.0/8"]), &from(&["10.1.0.0/16", "10.2.0.0/16"])),
            (&of(Family::Ipv4), &from(&["10.0.0.0/8"])),
            (&of(Family::Ipv6), &from(&["fd00::/8"])),
            (&echo(None), &echo(Some(0))),
            (&Match { protocol: Protocol::Icmp, ..Match::default() }, &echo(Some(0))),
        ] {
            assert!(covers(first, second), "{first:?} {second:?}");
        }
        for (first, second) in [
            (&tcp(&[]), &all),
            (&tcp(&[(80, 80)]), &tcp(&[])),
            (&tcp(&[(80, 80)]), &tcp(&[(80, 81)])),
            (&from(&["10.0.0.0/8"]), &from(&["10.0.0.0/8", "fd00::/8"])),
            (&from(&["0.0.0.0/0", "::/0"]), &all),
            (&from(&["0.0.0.0/0"]), &group),
            (&group, &all),
            (&of(Family::Ipv4), &all),
            (&of(Family::Ipv4), &from(&["10.0.0.0/8", "fd00::/8"])),
            (&Match { protocol: Protocol::Number(6), ..Match::default() }, &of(Family::EtherType(0x0806))),
            (&of(Family::EtherType(0x0806)), &all),
            (&echo(Some(0)), &echo(None)),
            (&echo(None), &Match { protocol: Protocol::Icmp, ..Match::default() }),
        ] {
            assert!(!covers(first, second), "{first:?} {second:?}");
        }
    }
}
