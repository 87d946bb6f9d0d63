//! The policies of a World's interfaces, compiled once for all that have the same groups.
//!
//! What the World before has compiled from the same rules and members is taken over, wherever in the file they stand now.

use super::{
    classify::{Classifier, CompileError, Decision, Members, RulePlace, Source, Uncompilable},
    policy::{Action, Direction, GroupId, Rule, SecurityGroup},
    tuple::Tuple,
};
use std::{collections::HashMap, sync::Arc};

/// A rule: its place among all rules of all groups of a World. What counts how often rules decide goes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(u32);

impl RuleId {
    pub(super) const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Its place.
    pub const fn index(self) -> u32 {
        self.0
    }
}

/// The policies of all interfaces.
#[derive(Debug, Default)]
pub struct Policies {
    /// By group, how many rules are in those before it; and of all groups together.
    before: Vec<u32>,
    by_list: HashMap<Vec<GroupId>, Result<Arc<Policy>, PolicyError>>,
    classifiers: HashMap<Arc<Source>, Arc<Classifier>>,
}

/// What an interface with a list of groups lets in and out.
#[derive(Debug)]
pub struct Policy {
    /// By group of the list, the place of its first rule in the list, and that rule.
    groups: Box<[(RulePlace, RuleId)]>,
    ingress: Arc<Classifier>,
    egress: Arc<Classifier>,
}

/// Why an interface has no policy, and so lets nothing in or out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyError {
    /// The rule that is wrong; none: the list of groups, or all its rules together.
    pub rule: Option<RuleId>,
    /// What is wrong.
    pub why: Uncompilable,
}

impl Policies {
    /// Compiles the policies of interfaces with these lists of groups. `members` are those of each group; `old` are the
    /// policies until now.
    pub fn compile<'a>(
        groups: &[SecurityGroup],
        members: &Members,
        lists: impl IntoIterator<Item = &'a [GroupId]>,
        old: &Self,
    ) -> Self {
        let mut policies = Self { before: vec![0], ..Self::default() };
        for group in groups {
            policies.before.push(policies.count() + group.rules.len() as u32);
        }
        for list in lists {
            if !policies.by_list.contains_key(list) {
                let policy = policies.policy(list, groups, members, old).map(Arc::new);
                policies.by_list.insert(list.to_vec(), policy);
            }
        }
        policies
    }

    /// The policy of interfaces with these groups; none if there was no such interface.
    pub fn of(&self, list: &[GroupId]) -> Option<&Result<Arc<Policy>, PolicyError>> {
        self.by_list.get(list)
    }

    /// How many rules there are: their ids count from 0.
    pub fn count(&self) -> u32 {
        self.before.last().copied().unwrap_or(0)
    }

    /// The rule's group, and its place among that group's rules; none if there is no such rule.
    pub fn place(&self, rule: RuleId) -> Option<(GroupId, usize)> {
        let group = self.before.partition_point(|before| *before <= rule.0).checked_sub(1)?;
        let place = (rule.0 - self.before[group]) as usize;
        (rule.0 < self.count()).then_some((GroupId::new(group as u16), place))
    }

    fn policy(
        &mut self,
        list: &[GroupId],
        groups: &[SecurityGroup],
        members: &Members,
        old: &Self,
    ) -> Result<Policy, PolicyError> {
        let mut rules: Vec<&Rule> = Vec::new();
        let mut firsts = Vec::new();
        for id in list {
            let index = usize::from(id.index());
            let missing = PolicyError { rule: None, why: Uncompilable::NoSuchGroup(*id) };
            let group = groups.get(index).ok_or(missing)?;
            firsts.push((RulePlace::new(rules.len() as u32), RuleId(self.before[index])));
            rules.extend(&group.rules);
        }
        let mut classifier =
            |direction| self.classifier(Source::new(direction, rules.iter().copied(), members)?, old);
        let compiled = classifier(Direction::Ingress)
            .and_then(|ingress| classifier(Direction::Egress).map(|egress| (ingress, egress)));
        match compiled {
            Ok((ingress, egress)) => Ok(Policy { groups: firsts.into(), ingress, egress }),
            Err(CompileError { rule, why }) => {
                Err(PolicyError { rule: rule.map(|place| rule_at(&firsts, place)), why })
            }
        }
    }

    fn classifier(&mut self, source: Source, old: &Self) -> Result<Arc<Classifier>, CompileError> {
        let known =
            [&self.classifiers, &old.classifiers].into_iter().find_map(|all| all.get_key_value(&source));
        let (source, classifier) = match known {
            Some((source, classifier)) => (source.clone(), classifier.clone()),
            None => {
                let classifier = Classifier::compile(&source)?;
                (Arc::new(source), Arc::new(classifier))
            }
        };
        self.classifiers.insert(source, classifier.clone());
        Ok(classifier)
    }
}

impl Policy {
    /// What the rules, or the default, say of a frame that belongs to no connection.
    #[inline]
    pub fn decide(&self, direction: Direction, tuple: &Tuple) -> Decision {
        self.classifier(direction).decide(tuple)
    }

    /// The same of a frame that is not IP: only a rule lets it pass, for what the default would allow may be anything.
    pub fn decide_not_ip(&self, direction: Direction, tuple: &Tuple) -> Decision {
        let decision = self.decide(direction, tuple);
        let action = if decision.rule.is_some() { decision.action } else { Action::Drop };
        Decision { action, ..decision }
    }

    /// The rule in this place of a [`Decision`].
    pub fn rule(&self, place: RulePlace) -> RuleId {
        rule_at(&self.groups, place)
    }

    /// The rules of one direction.
    pub const fn classifier(&self, direction: Direction) -> &Arc<Classifier> {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// The rule in this place of all groups together. There is one: places come from those groups.
fn rule_at(groups: &[(RulePlace, RuleId)], place: RulePlace) -> RuleId {
    let group = groups.partition_point(|(first, _)| *first <= place) - 1;
    let (first, rule) = groups[group];
    RuleId(rule.0 + place.index() - first.index())
}
