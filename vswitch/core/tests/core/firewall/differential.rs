//! Compiled rules against the naive interpreter, over pairs of a policy and a frame.

use super::{
    naive::{self, ends},
    random::Universe,
};
use crate::support::frames::Random;
use std::{collections::BTreeMap, env, net::IpAddr};
use vswitch_core::{
    firewall::{
        classify::{Classifier, Decision, Source},
        policy::{Action, Direction, Family, Match, Remote, Rule},
        tuple::Tuple,
    },
    head::{Head, Network, Transport},
};

/// Frames that each policy is asked about, in each direction.
const FRAMES: u64 = 50;

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).map_or(otherwise, |said| said.parse().expect("a number"))
}

/// 200,000 pairs, or as many as `VNET_FIREWALL_PAIRS` says; of the seed `VNET_FIREWALL_SEED`. The seed that a failure
/// tells is that of its policy: `VNET_FIREWALL_PAIRS=100` asks of no other.
#[test]
fn compiled_rules_decide_as_they_were_said() {
    let pairs = number("VNET_FIREWALL_PAIRS", 200_000);
    let first_seed = number("VNET_FIREWALL_SEED", 1);
    let mut mix = Mix::default();
    for seed in first_seed..first_seed + pairs.div_ceil(2 * FRAMES) {
        let mut random = Random::new(seed);
        let universe = Universe::new(&mut random);
        for direction in [Direction::Ingress, Direction::Egress] {
            let source =
                Source::new(direction, universe.rules.iter(), &universe.members).expect("sound rules");
            let classifier = Classifier::compile(&source).expect("few rules");
            for _ in 0..FRAMES {
                let frame = universe.frame(&mut random);
                let Ok(head) = Head::parse(&frame, frame.len() as u32) else { unreachable!("long enough") };
                let Ok(tuple) = Tuple::of(&head) else {
                    assert!(matches!(head.network, Network::Unparsed(_)));
                    mix.count("no network header");
                    continue;
                };
                let compiled = classifier.decide(&tuple);
                let naive = naive::decide(&universe.rules, &universe.members, direction, &head);
                assert_eq!(
                    compiled,
                    naive,
                    "VNET_FIREWALL_SEED={seed}: {head}, {direction:?}, {:#?}",
                    naive.rule.map(|place| &universe.rules[place.index() as usize])
                );
                if let Tuple::Ip(ip) = &tuple {
                    let compiled = classifier.decide_unread(ip);
                    let naive = naive::decide_unread(&universe.rules, &universe.members, direction, &head);
                    assert_eq!(
                        compiled, naive,
                        "VNET_FIREWALL_SEED={seed}: {head}, {direction:?}, ports unread"
                    );
                    mix.count(if naive.is_some() { "ports do not matter" } else { "ports matter" });
                }
                mix.note(&universe, direction, &head, naive);
            }
        }
    }
    if pairs >= 200_000 {
        mix.assert_at_least(pairs / 1000);
    }
}

/// What happened how often.
#[derive(Debug, Default)]
struct Mix(BTreeMap<&'static str, u64>);

impl Mix {
    /// All that must have happened.
    const ALL: [&str; 31] = [
        "ports do not matter",
        "ports matter",
        "no network header",
        "default drop, ingress",
        "default drop, egress",
        "default allow, egress",
        "allow, stateful",
        "allow, stateless",
        "drop",
        "reject",
        "rule behind 20 others",
        "rule for everything",
        "by family, IPv4",
        "by family, IPv6",
        "by network, IPv4",
        "by network, IPv6",
        "by group, IPv4",
        "by group, IPv6",
        "by ports",
        "by ICMP type",
        "by ICMP type and code",
        "by EtherType",
        "no rule for an EtherType",
        "the end of a range",
        "next to a range",
        "the end of a network",
        "next to a network",
        "in networks that nest",
        "later fragment, by address or protocol",
        "unread transport, by address or protocol",
        "unread transport, past a rule with ports",
    ];

    fn count(&mut self, what: &'static str) {
        assert!(Self::ALL.contains(&what), "{what} is not in the list");
        *self.0.entry(what).or_default() += 1;
    }

    fn count_if(&mut self, happened: bool, what: &'static str) {
        if happened {
            self.count(what);
        }
    }

    fn note(&mut self, universe: &Universe, direction: Direction, head: &Head, decision: Decision) {
        let is_v4 = matches!(head.network, Network::Ipv4(_));
        self.note_neighbours(universe, direction, head);
        let Some(place) = decision.rule else {
            self.count(match (direction, decision.action) {
                (Direction::Ingress, _) => "default drop, ingress",
                (Direction::Egress, Action::Allow) => "default allow, egress",
                (Direction::Egress, _) => "default drop, egress",
            });
            self.count_if(ends(head).is_none(), "no rule for an EtherType");
            return;
        };
        let Rule { action, stateful, matches, .. } = &universe.rules[place.index() as usize];
        self.count(match (action, stateful) {
            (Action::Allow, true) => "allow, stateful",
            (Action::Allow, false) => "allow, stateless",
            (Action::Drop, _) => "drop",
            (Action::Reject, _) => "reject",
        });
        self.count_if(place.index() >= 20, "rule behind 20 others");
        self.count_if(*matches == Match::default(), "rule for everything");
        match (&matches.remote, matches.family) {
            (Remote::Networks(_), _) if is_v4 => self.count("by network, IPv4"),
            (Remote::Networks(_), _) => self.count("by network, IPv6"),
            (Remote::Group(_), _) => self.count(if is_v4 { "by group, IPv4" } else { "by group, IPv6" }),
            (Remote::Any, Family::Ipv4) => self.count("by family, IPv4"),
            (Remote::Any, Family::Ipv6) => self.count("by family, IPv6"),
            (Remote::Any, Family::EtherType(_)) => self.count("by EtherType"),
            (Remote::Any, Family::Any) => {}
        }
        self.count_if(!matches.ports.is_empty(), "by ports");
        if let Some(icmp) = matches.icmp {
            self.count(if icmp.code.is_some() { "by ICMP type and code" } else { "by ICMP type" });
        }
        let before = &universe.rules[..place.index() as usize];
        match head.transport {
            Transport::LaterFragment => self.count("later fragment, by address or protocol"),
            Transport::Unparsed(_) => {
                self.count("unread transport, by address or protocol");
                let has_ports =
                    |rule: &Rule| rule.matches.protocol == matches.protocol && !rule.matches.ports.is_empty();
                self.count_if(before.iter().any(has_ports), "unread transport, past a rule with ports");
            }
            _ => {}
        }
    }

    /// Whether the frame is at an edge of what some rule says, on either side.
    fn note_neighbours(&mut self, universe: &Universe, direction: Direction, head: &Head) {
        let rules = universe.rules.iter().filter(|rule| rule.direction == direction);
        let ranges: Vec<_> = rules.clone().flat_map(|rule| &rule.matches.ports).collect();
        if let Transport::Tcp { dst, .. } | Transport::Udp { dst, .. } | Transport::Sctp { dst, .. } =
            head.transport
        {
            let is_next = |a: u16, b: u16| a.checked_add(1) == Some(b);
            let at_end = ranges.iter().any(|range| [range.first, range.last].contains(&dst));
            self.count_if(at_end, "the end of a range");
            let beside = ranges.iter().any(|range| is_next(dst, range.first) || is_next(range.last, dst));
            self.count_if(beside, "next to a range");
        }
        let Some((src, dst)) = ends(head) else { return };
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        let remote = if direction == Direction::Ingress { src } else { dst };
        let networks = rules.filter_map(|rule| match &rule.matches.remote {
            Remote::Networks(networks) => Some(networks),
            _ => None,
        });
        let networks: Vec<_> =
            networks.flatten().filter(|network| network.addr().is_ipv4() == remote.is_ipv4()).collect();
        let ends = networks.iter().map(|network| (bits(network.network()), bits(network.broadcast())));
        let at = bits(remote);
        self.count_if(ends.clone().any(|(first, last)| first == at || last == at), "the end of a network");
        let beside =
            |(first, last): (u128, u128)| first.checked_sub(1) == Some(at) || last.checked_add(1) == Some(at);
        self.count_if(ends.clone().any(beside), "next to a network");
        let mut around: Vec<_> = ends.filter(|(first, last)| (*first..=*last).contains(&at)).collect();
        around.sort_unstable();
        around.dedup();
        self.count_if(around.len() > 1, "in networks that nest");
    }

    fn assert_at_least(&self, least: u64) {
        for what in Self::ALL {
            let times = self.0.get(what).copied().unwrap_or(0);
            assert!(times >= least, "{what}: {times} times, and not {least}; {self:#?}");
        }
    }
}
