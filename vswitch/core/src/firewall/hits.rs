//! How often rules decided, and what holds where none does.
//!
//! Counters go with the World whose rules they are of; the next one takes over those of rules that are the same, so that no frame is
//! counted twice or lost while workers change over. They are no part of what a World says: nothing is decided by them.
//! Rules are asked on a miss only, so no frame of a connection that is known comes here.

use super::{
    policies::RuleId,
    policy::{Action, Direction, Match, Remote, Rule, SecurityGroup},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// How often something decided. Shared by all workers.
#[derive(Debug, Default)]
pub(crate) struct Hits(AtomicU64);

impl Hits {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Those of all rules of a World.
#[derive(Debug, Default)]
pub(crate) struct RuleHits(Box<[Arc<Hits>]>);

impl RuleHits {
    /// For the rules of `groups`. `old` are the groups until now, with what was counted of them: a rule of a group of the same name that says the
    /// same goes on from there, wherever in the file it stands.
    pub(crate) fn of(groups: &[SecurityGroup], old: Option<(&[SecurityGroup], &Self)>) -> Self {
        let mut known = HashMap::<_, VecDeque<_>>::new();
        if let Some((groups, hits)) = old {
            for (said, hits) in said(groups).zip(&hits.0) {
                known.entry(said).or_default().push_back(hits.clone());
            }
        }
        // Of rules that are twice in a group the first goes on as the first.
        let hits = said(groups).map(|said| known.get_mut(&said).and_then(VecDeque::pop_front));
        Self(hits.map(Option::unwrap_or_default).collect())
    }

    /// A rule decided.
    pub(crate) fn count(&self, rule: RuleId) {
        if let Some(hits) = self.0.get(rule.index() as usize) {
            hits.count();
        }
    }

    /// Of each rule, in the order of their ids.
    pub(crate) fn counts(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|hits| hits.get())
    }
}

/// A rule without its place: by this it is the same one in another World.
#[derive(PartialEq, Eq, Hash)]
struct Said<'a> {
    group: &'a str,
    direction: Direction,
    action: Action,
    stateful: bool,
    matches: Match,
    /// The name of the group that `matches` names: ids are of one World.
    remote: Option<&'a str>,
}

/// What each rule says, in the order of their ids.
fn said(groups: &[SecurityGroup]) -> impl Iterator<Item = Said<'_>> {
    groups.iter().flat_map(move |group| {
        group.rules.iter().map(move |Rule { direction, action, stateful, matches, origin: _ }| {
            let mut said = Said {
                group: &group.name,
                direction: *direction,
                action: *action,
                stateful: *stateful,
                matches: matches.clone(),
                remote: None,
            };
            if let Remote::Group(id) = matches.remote {
                said.matches.remote = Remote::Any;
                said.remote = groups.get(usize::from(id.index())).map(|group| group.name.as_str());
            }
            said
        })
    })
}

/// What decided about an interface's frames where no rule did.
#[derive(Debug, Default)]
pub struct DefaultHits {
    ingress_dropped: Hits,
    egress_allowed: Hits,
    egress_dropped: Hits,
    basic: [Hits; 2],
}

impl DefaultHits {
    /// The default of a frame that goes that way.
    pub(crate) const fn default_of(&self, direction: Direction, action: Action) -> &Hits {
        match (direction, action) {
            // What comes in by it was picked up: an answer to what the default lets out.
            (_, Action::Allow) => &self.egress_allowed,
            (Direction::Egress, _) => &self.egress_dropped,
            (Direction::Ingress, _) => &self.ingress_dropped,
        }
    }

    /// The list of what needs no rule.
    pub(crate) const fn basic(&self, direction: Direction) -> &Hits {
        &self.basic[direction.index()]
    }

    /// What was counted.
    pub fn counts(&self) -> DefaultCounts {
        DefaultCounts {
            ingress_dropped: self.ingress_dropped.get(),
            egress_allowed: self.egress_allowed.get(),
            egress_dropped: self.egress_dropped.get(),
            ingress_basic: self.basic(Direction::Ingress).get(),
            egress_basic: self.basic(Direction::Egress).get(),
        }
    }
}

/// How often it was not a rule that decided about an interface's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DefaultCounts {
    /// Dropped on the way in, since no rule allows it.
    pub ingress_dropped: u64,
    /// Let out, since no rule forbids it.
    pub egress_allowed: u64,
    /// Dropped on the way out, since no rule allows it.
    pub egress_dropped: u64,
    /// Let in, since a link needs it.
    pub ingress_basic: u64,
    /// Let out, since a link needs it.
    pub egress_basic: u64,
}
