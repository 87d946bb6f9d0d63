//! How often rules decided, and what holds where none does.
//!
//! Counters go with the World whose rules they are of; the next one takes over those of rules that are the same, so that no frame is
//! counted twice or lost while workers change over. They are no part of what a World says: nothing is decided by them.
//! Rules are asked on a miss only, so no frame of a connection that is known comes here.

use super::{
    log::Sample,
    policies::RuleId,
    policy::{Action, Direction, Match, Remote, Rule, SecurityGroup},
};
use crate::clock::Instant;
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
pub(crate) struct RuleHits(Box<[Counter]>);

/// That of one rule.
#[derive(Debug)]
struct Counter {
    hits: Arc<Hits>,
    /// Whether what it decides is logged, and how often that may be.
    log: Option<Arc<Sample>>,
}

impl RuleHits {
    /// For the rules of `groups`. `old` are the groups until now, with what was counted of them: a rule of a group of the same name that says the
    /// same goes on from there, wherever in the file it stands.
    pub(crate) fn of(groups: &[SecurityGroup], old: Option<(&[SecurityGroup], &Self)>) -> Self {
        let mut known = HashMap::<_, VecDeque<_>>::new();
        if let Some((groups, hits)) = old {
            for (said, counter) in said(groups).zip(&hits.0) {
                known.entry(said).or_default().push_back(counter.hits.clone());
            }
        }
        // Of rules that are twice in a group the first goes on as the first.
        let hits = said(groups).map(|said| known.get_mut(&said).and_then(VecDeque::pop_front));
        let hits = hits.map(Option::unwrap_or_default);
        let logs = groups.iter().flat_map(|group| &group.rules).map(|rule| rule.log.then(Arc::default));
        Self(hits.zip(logs).map(|(hits, log)| Counter { hits, log }).collect())
    }

    /// A rule decided.
    pub(crate) fn count(&self, rule: RuleId) {
        if let Some(counter) = self.counter(rule) {
            counter.hits.count();
        }
    }

    fn counter(&self, rule: RuleId) -> Option<&Counter> {
        self.0.get(rule.index() as usize)
    }

    /// Whether any rule logs.
    pub(crate) fn any_log(&self) -> bool {
        self.0.iter().any(|counter| counter.log.is_some())
    }

    /// The limit of what a rule logs; none: it logs nothing.
    pub(crate) fn sample(&self, rule: RuleId) -> Option<&Sample> {
        self.counter(rule)?.log.as_deref()
    }

    /// Of rules that log nothing now, how many of their decisions were not logged since this was asked; with none, of all: they decide no more.
    pub(crate) fn unlogged(&self, now: Option<Instant>) -> impl Iterator<Item = (RuleId, u64)> {
        let rest_of = move |sample: &Sample| now.map_or_else(|| sample.last(), |now| sample.rest(now));
        let rest = move |counter: &Counter| counter.log.as_deref().map_or(0, rest_of);
        (0..).map(RuleId::new).zip(self.0.iter().map(rest)).filter(|(_, count)| *count > 0)
    }

    /// Of each rule, in the order of their ids.
    pub(crate) fn counts(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|counter| counter.hits.get())
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
        group.rules.iter().map(move |Rule { direction, action, stateful, matches, .. }| {
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
