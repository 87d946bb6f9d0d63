//! What is compiled: the rules of an interface in one direction, with the networks and members that they name.
//!
//! Two interfaces, or two Worlds, whose sources are equal can share what was compiled. So there are no lines of the file
//! in a source, and no ids of groups, which change with what is said elsewhere.

use super::{CompileError, MAX_NETWORKS, MAX_RULES, RulePlace, Uncompilable, mark::Mark};
use crate::firewall::policy::{
    self, Action, Direction, Family, IcmpType, Match, PortRange, Protocol, Remote, Version,
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, HashMap},
    hash::{Hash, Hasher},
    sync::Arc,
};

/// Who is in which group: by the group's place, the addresses (or networks) of its members.
pub type Members = [Arc<[IpNet]>];

/// The rules of an interface in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    direction: Direction,
    rules: Vec<Rule>,
    /// Lists of networks, each of which rules name by its place.
    remotes: Vec<Arc<[IpNet]>>,
}

/// A rule without what is not asked of a frame.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    pub(super) mark: Mark,
    family: Family,
    protocol: Protocol,
    ports: Vec<PortRange>,
    icmp: Option<IcmpType>,
    /// The place of its list of networks; none: any address.
    pub(super) remote: Option<u32>,
}

impl Source {
    /// Of all rules of an interface, in the order in which they are asked, those of one direction.
    ///
    /// # Errors
    /// All of [`Uncompilable`] but the last.
    pub fn new<'a>(
        direction: Direction,
        rules: impl Iterator<Item = &'a policy::Rule>,
        members: &Members,
    ) -> Result<Self, CompileError> {
        let mut source = Self { direction, rules: Vec::new(), remotes: Vec::new() };
        let mut known = HashMap::new();
        for (place, rule) in (0..).map(RulePlace::new).zip(rules) {
            let wrong = |why| CompileError { rule: Some(place), why };
            if place.index() as usize >= MAX_RULES {
                return Err(CompileError { rule: None, why: Uncompilable::TooManyRules });
            }
            if rule.direction == direction {
                rule.matches.check().map_err(|fault| wrong(Uncompilable::Rule(fault)))?;
                let remote = source.remote(&rule.matches.remote, members, &mut known).map_err(wrong)?;
                source.rules.push(Rule::new(
                    Mark::new(place, rule.action, rule.stateful),
                    &rule.matches,
                    remote,
                ));
            }
        }
        if source.remotes.iter().map(|networks| networks.len()).sum::<usize>() > MAX_NETWORKS {
            return Err(CompileError { rule: None, why: Uncompilable::TooManyNetworks });
        }
        Ok(source)
    }

    /// The place of this list of networks.
    fn remote<'a>(
        &mut self,
        remote: &'a Remote,
        members: &Members,
        known: &mut HashMap<&'a Remote, u32>,
    ) -> Result<Option<u32>, Uncompilable> {
        let networks = match remote {
            Remote::Any => return Ok(None),
            _ if known.contains_key(remote) => return Ok(Some(known[remote])),
            Remote::Networks(networks) => Arc::from(&networks[..]),
            Remote::Group(group) => {
                let members = members.get(usize::from(group.index()));
                members.ok_or(Uncompilable::NoSuchGroup(*group))?.clone()
            }
        };
        self.remotes.push(networks);
        known.insert(remote, self.remotes.len() as u32 - 1);
        Ok(Some(self.remotes.len() as u32 - 1))
    }

    pub(super) const fn direction(&self) -> Direction {
        self.direction
    }

    pub(super) fn default_action(&self) -> Action {
        match self.direction {
            Direction::Egress if !self.rules.iter().any(|rule| rule.mark.allows()) => Action::Allow,
            _ => Action::Drop,
        }
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub(super) fn remotes(&self) -> &[Arc<[IpNet]>] {
        &self.remotes
    }

    /// The first rule of each EtherType that has rules of its own, and the first for all other frames that are not IP.
    pub(super) fn not_ip(&self) -> (Box<[(u16, Mark)]>, Mark) {
        let mut any = Mark::NONE;
        let mut first = BTreeMap::new();
        for rule in &self.rules {
            match rule.family {
                Family::EtherType(number) => {
                    first.entry(number).or_insert_with(|| any.min(rule.mark));
                }
                Family::Any if rule.protocol == Protocol::Any && rule.remote.is_none() => {
                    any = any.min(rule.mark);
                }
                _ => {}
            }
        }
        (first.into_iter().collect(), any)
    }
}

/// Lists of members are long and few, so it is enough that their lengths are told apart.
impl Hash for Source {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.direction.hash(state);
        self.rules.hash(state);
        self.remotes.iter().for_each(|networks| networks.len().hash(state));
    }
}

impl Rule {
    fn new(mark: Mark, matches: &Match, remote: Option<u32>) -> Self {
        let Match { family, protocol, ports, icmp, remote: _ } = matches;
        Self { mark, family: *family, protocol: *protocol, ports: ports.clone(), icmp: *icmp, remote }
    }

    /// Whether IP packets of this version can match.
    pub(super) const fn is_for(&self, version: Version) -> bool {
        self.family.has(version)
    }

    /// The protocol that it names, as its number in this version.
    pub(super) const fn protocol(&self, version: Version) -> Option<u8> {
        self.protocol.number(version)
    }

    /// The ports, or types and codes, that it names; none if it names none.
    pub(super) fn numbers(&self) -> impl Iterator<Item = (u16, u16)> {
        let types = self.icmp.map(|IcmpType { kind, code }| {
            let number = |code| u16::from_be_bytes([kind, code]);
            (number(code.unwrap_or(0)), number(code.unwrap_or(u8::MAX)))
        });
        self.ports.iter().map(|ports| (ports.first, ports.last)).chain(types)
    }
}
