//! Rules that keep an interface from being found: those that drop ARP or neighbour discovery along with what they were written for.

use super::groups::Places;
use crate::{codes::Code, report::Sink};
use ipnet::IpNet;
use vswitch_core::{
    firewall::policy::{Action, Family, Match, Protocol, Remote, Rule, SecurityGroup},
    head::ethertype,
};

/// Number of ICMPv6, of which neighbour discovery is a part (RFC 4861).
const ICMPV6: u8 = 58;

/// Type of a neighbour solicitation.
const SOLICITATION: u8 = 135;

/// What of the two a rule takes, whoever sends it.
#[derive(Debug, Clone, Copy, Default)]
struct Takes {
    arp: bool,
    discovery: bool,
}

impl Takes {
    fn of(matches: &Match) -> Self {
        let Match { family, protocol, ports, icmp, remote } = matches;
        if !ports.is_empty() || icmp.is_some() {
            return Self::default();
        }
        let is_any = matches!(remote, Remote::Any);
        let is_v6 = |networks: &[IpNet]| networks.iter().any(|network| matches!(network, IpNet::V6(_)));
        Self {
            arp: match family {
                Family::Any => is_any && *protocol == Protocol::Any,
                Family::EtherType(number) => *number == ethertype::ARP,
                Family::Ipv4 | Family::Ipv6 => false,
            },
            discovery: matches!(family, Family::Any | Family::Ipv6)
                && matches!(protocol, Protocol::Any | Protocol::Icmp | Protocol::Number(ICMPV6))
                && (is_any || matches!(remote, Remote::Networks(networks) if is_v6(networks))),
        }
    }
}

/// Whether a rule takes the questions of neighbour discovery.
fn asks(matches: &Match) -> bool {
    let any = Match { icmp: None, ..matches.clone() };
    matches.icmp.is_none_or(|icmp| icmp.kind == SOLICITATION) && Takes::of(&any).discovery
}

/// Tells of such rules of a group, whose members have these addresses. One that names ARP means it.
pub(crate) fn warn(group: &SecurityGroup, places: &[Places], members: &[IpNet], sink: &mut Sink) {
    let has_v6 = members.iter().any(|member| matches!(member, IpNet::V6(_)));
    for (at, (rule, places)) in group.rules.iter().zip(places).enumerate() {
        let takes = Takes::of(&rule.matches);
        if rule.action == Action::Allow || matches!(rule.matches.family, Family::EtherType(_)) {
            continue;
        }
        let is_allowed = |what: fn(&Match) -> bool| {
            let lets = |before: &Rule| before.action == Action::Allow && before.direction == rule.direction;
            group.rules[..at].iter().any(|before| lets(before) && what(&before.matches))
        };
        let arp = takes.arp && !is_allowed(|matches| Takes::of(matches).arp);
        let discovery = takes.discovery && (arp || has_v6) && !is_allowed(asks);
        let (what, before) = match (arp, discovery) {
            (true, true) => ("ARP and neighbour discovery", "`ether-type: arp`, and `protocol: icmpv6`"),
            (true, false) => ("ARP", "`ether-type: arp`"),
            (false, true) => ("neighbour discovery", "`protocol: icmpv6`"),
            (false, false) => continue,
        };
        sink.warning(
            Code::StopsNeighbours,
            places.rule,
            format!("this rule drops {what} too: no neighbour is found"),
        )
        .help(format!("allow {before} in a rule before it, or name what it is to drop"));
    }
}
