//! One rule of a security group: whether its parts can be meant together, and what they mean.

use crate::{
    check::groups::GroupNames,
    codes::Code,
    report::{Sink, Span},
    said::{
        read::Said,
        rule::{EtherType, IpProtocol, Network, Rule},
        scalar::{ActionWord, DirectionWord},
    },
};
use ipnet::IpNet;
use vswitch_core::{
    firewall::policy::{self, Action, Direction, Family, IcmpType, Match, PortRange, Protocol, Remote},
    head::ethertype,
};

/// What `rule` means; none if it cannot be meant, which `sink` was told.
pub(crate) fn check(rule: &Rule, span: Span, groups: &GroupNames, sink: &mut Sink) -> Option<policy::Rule> {
    let before = sink.count();
    let direction = match rule.direction.as_ref()?.value {
        DirectionWord::Ingress => Direction::Ingress,
        DirectionWord::Egress => Direction::Egress,
    };
    let action = match rule.action.as_ref().map(|action| action.value) {
        None | Some(ActionWord::Allow) => Action::Allow,
        Some(ActionWord::Drop) => Action::Drop,
        Some(ActionWord::Reject) => Action::Reject,
    };
    if let (Some(stateful), Some(said)) =
        (&rule.stateful, rule.action.as_ref().filter(|_| action != Action::Allow))
    {
        sink.error(Code::NeedsKey, stateful.span, "`stateful` needs `action: allow`")
            .label(said.span, "nothing begins with this")
            .help("remove `stateful`: it says whether answers to what is allowed need a rule of their own");
    }
    let matches = matches(rule, groups, sink)?;
    (sink.count() == before).then(|| policy::Rule {
        direction,
        action,
        stateful: rule.stateful.as_ref().is_none_or(|stateful| stateful.value),
        log: rule.log.as_ref().is_some_and(|log| log.value),
        matches,
        origin: span.origin,
    })
}

fn matches(rule: &Rule, groups: &GroupNames, sink: &mut Sink) -> Option<Match> {
    let family = match &rule.ether_type {
        None => Known { family: Family::Any, by: None },
        Some(said) => match said.value.0 {
            ethertype::IPV4 => Known { family: Family::Ipv4, by: Some((said.span, "IPv4 by this")) },
            ethertype::IPV6 => Known { family: Family::Ipv6, by: Some((said.span, "IPv6 by this")) },
            number => return not_ip(rule, said, number, sink),
        },
    };
    let family = of_protocol(rule, family, sink);
    let remote = remote(rule, family, groups, sink);
    let family = of_icmp_type(rule, family, remote.as_ref(), sink);
    let protocol = rule.protocol.as_ref().map_or(Protocol::Any, |said| said.value.0);
    let code = rule.icmp_code.as_ref().map(|code| octet(code.value.0));
    let icmp = rule.icmp_type.as_ref().map(|kind| IcmpType { kind: octet(kind.value.0), code });
    if let Some(code) = rule.icmp_code.as_ref().filter(|_| icmp.is_none()) {
        sink.error(Code::NeedsKey, code.span, "`icmp-code` needs `icmp-type`")
            .help("add `icmp-type: NUMBER`: each type has codes of its own");
    }
    Some(Match { family: family.family, protocol, ports: ports(rule, sink), icmp, remote: remote? })
}

/// A number that its type bounds.
fn octet(number: u16) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

/// The family of a rule, and what says so.
#[derive(Clone, Copy)]
struct Known {
    family: Family,
    by: Option<(Span, &'static str)>,
}

impl Known {
    /// The same, and `family` besides, which `part` at `span` says.
    fn and(self, family: Family, part: &str, span: Span, says: &'static str, sink: &mut Sink) -> Self {
        if self.family == Family::Any {
            return Self { family, by: Some((span, says)) };
        }
        self.refuse_other(family, part, span, sink);
        self
    }

    /// Tells if `part` at `span` is of another family than the rule.
    fn refuse_other(self, family: Family, part: &str, span: Span, sink: &mut Sink) {
        if self.family == Family::Any || self.family == family {
            return;
        }
        let what = format!("{part} is of {}, and another part of the rule is not", name(family));
        let told = sink.error(Code::Families, span, what);
        if let Some((other, says)) = self.by {
            told.label(other, says);
        }
    }
}

fn name(family: Family) -> &'static str {
    if family == Family::Ipv4 { "IPv4" } else { "IPv6" }
}

/// Frames that are not IP have nothing else that a rule asks for.
fn not_ip(rule: &Rule, said: &Said<EtherType>, number: u16, sink: &mut Sink) -> Option<Match> {
    if let ethertype::C_TAG | ethertype::S_TAG = number {
        let what = format!("0x{number:04x} is the EtherType of a VLAN tag, and rules look behind tags");
        sink.error(Code::OutOfRange, said.span, what)
            .help("write the EtherType that stands behind the tags; which VLANs a link carries is said by its `vlan`");
        return None;
    }
    let span = |said: &Option<Said<_>>| said.as_ref().map(|said: &Said<_>| said.span);
    let keys = [
        ("protocol", rule.protocol.as_ref().map(|said| said.span)),
        ("port", rule.port.as_ref().map(|said| said.span)),
        ("icmp-type", span(&rule.icmp_type)),
        ("icmp-code", span(&rule.icmp_code)),
        ("remote-ip-prefix", rule.remote_ip_prefix.as_ref().map(|said| said.span)),
        ("remote-group", rule.remote_group.as_ref().map(|said| said.span)),
    ];
    for (key, span) in keys {
        if let Some(span) = span {
            sink.error(Code::NotIp, span, format!("{} has no `{key}`", said.value))
                .label(said.span, "not IP")
                .help(format!("leave `{key}` out, or `ether-type`"));
        }
    }
    Some(Match { family: Family::EtherType(number), ..Match::default() })
}

/// The family that the protocol says.
fn of_protocol(rule: &Rule, family: Known, sink: &mut Sink) -> Known {
    match &rule.protocol {
        Some(said) if said.value == IpProtocol::ICMPV6 => {
            family.and(Family::Ipv6, "icmpv6", said.span, "IPv6 by this", sink)
        }
        _ => family,
    }
}

/// The family that an ICMP type is of.
fn of_icmp_type(rule: &Rule, family: Known, remote: Option<&Remote>, sink: &mut Sink) -> Known {
    let Some(kind) = &rule.icmp_type else { return family };
    let Some(protocol) = &rule.protocol else {
        sink.error(Code::NoIcmpType, kind.span, "`icmp-type` needs `protocol: icmp` or `icmpv6`");
        return family;
    };
    match protocol.value {
        IpProtocol::ICMPV6 => family,
        IpProtocol::ICMPV4 => family.and(Family::Ipv4, "protocol 1", protocol.span, "IPv4 by this", sink),
        IpProtocol::ICMP if family.family != Family::Any => family,
        IpProtocol::ICMP => match remote.and_then(family_of) {
            Some(of_remote) => Known { family: of_remote, by: None },
            None => {
                sink.error(Code::NoIcmpType, kind.span, "is this a type of ICMP or of ICMPv6?").help(
                    "add `ether-type: ipv4` or `ipv6`: an echo request is type 8 in ICMP, 128 in ICMPv6",
                );
                family
            }
        },
        other => {
            sink.error(Code::NoIcmpType, kind.span, format!("{other} has no `icmp-type`"))
                .label(protocol.span, "the protocol");
            family
        }
    }
}

/// The one family of all networks.
fn family_of(remote: &Remote) -> Option<Family> {
    let Remote::Networks(networks) = remote else { return None };
    let v4 = matches!(networks.first()?, IpNet::V4(_));
    let one = networks.iter().all(|network| matches!(network, IpNet::V4(_)) == v4);
    one.then_some(if v4 { Family::Ipv4 } else { Family::Ipv6 })
}

fn ports(rule: &Rule, sink: &mut Sink) -> Vec<PortRange> {
    let Some(said) = &rule.port else { return Vec::new() };
    match &rule.protocol {
        None => {
            sink.error(Code::NoPorts, said.span, "ports of which protocol?")
                .help("add `protocol: tcp`, `udp` or `sctp`; two protocols are two rules");
        }
        Some(protocol) if !protocol.value.has_ports() => {
            sink.error(Code::NoPorts, said.span, format!("rules know no ports of {}", protocol.value))
                .label(protocol.span, "the protocol");
        }
        Some(_) => {}
    }
    if said.value.0.is_empty() {
        sink.error(Code::EmptyList, said.span, "no port is in this list")
            .help("leave `port` out, and any matches");
    }
    for range in &said.value.0 {
        let PortRange { first, last } = range.value.0;
        if first > last {
            sink.error(Code::BackwardRange, range.span, format!("{first}-{last} ends before it begins"))
                .help(format!("did you mean {last}-{first}?"));
        }
    }
    said.value.0.iter().map(|range| range.value.0).collect()
}

fn remote(rule: &Rule, family: Known, groups: &GroupNames, sink: &mut Sink) -> Option<Remote> {
    match (&rule.remote_ip_prefix, &rule.remote_group) {
        (None, None) => Some(Remote::Any),
        (Some(prefix), Some(group)) => {
            sink.error(
                Code::Exclusive,
                group.span,
                "`remote-ip-prefix` and `remote-group` both say who the other end is",
            )
            .label(prefix.span, "the other")
            .help("make two rules: a frame matches if either does");
            None
        }
        (None, Some(group)) => groups.get(group, sink).map(Remote::Group),
        (Some(prefix), None) => {
            if prefix.value.0.is_empty() {
                sink.error(Code::EmptyList, prefix.span, "no network is in this list")
                    .help("leave `remote-ip-prefix` out, and any address matches");
            }
            let networks = prefix.value.0.iter().filter_map(|said| {
                let own = if said.value.0.addr().is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
                family.refuse_other(own, &said.value.0.to_string(), said.span, sink);
                network(said, sink)
            });
            Some(Remote::Networks(networks.collect()))
        }
    }
}

/// The network that is said, which must be one: no bits behind its prefix.
pub(crate) fn network(said: &Said<Network>, sink: &mut Sink) -> Option<IpNet> {
    let said_so = said.value.0;
    if said_so == said_so.trunc() {
        return Some(said_so);
    }
    sink.error(Code::HostBits, said.span, format!("{said_so} is not a network: it has host bits set"))
        .help(format!("the network is {}, and the address alone {}", said_so.trunc(), said_so.addr()));
    None
}
