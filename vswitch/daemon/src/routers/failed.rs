//! Neighbours that did not answer: for some seconds nobody asks for them again, so that who goes through all addresses costs little.

use super::Key;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use vswitch_core::clock::Instant;

/// How long.
pub(crate) const FAILED_FOR: Duration = Duration::from_secs(5);

/// How many are remembered.
const REMEMBERED: usize = 4096;

/// Those that did not answer.
#[derive(Debug, Default)]
pub(super) struct Failed {
    until: BTreeMap<Key, Instant>,
    /// In the order in which they failed. One that answered since stays here until its time.
    order: VecDeque<(Instant, Key)>,
}

impl Failed {
    pub(super) fn note(&mut self, key: Key, now: Instant) {
        let until = now + FAILED_FOR;
        while self.order.len() >= REMEMBERED || self.order.front().is_some_and(|(until, _)| *until <= now) {
            let Some((until, key)) = self.order.pop_front() else { break };
            if self.until.get(&key) == Some(&until) {
                self.until.remove(&key);
            }
        }
        self.until.insert(key, until);
        self.order.push_back((until, key));
    }

    pub(super) fn has(&self, key: Key, now: Instant) -> bool {
        self.until.get(&key).is_some_and(|until| *until > now)
    }

    /// The latest of them, and for how long each is one.
    pub(super) fn latest(&self, count: usize, now: Instant) -> impl Iterator<Item = (Key, Duration)> {
        let is_one = move |(until, key): &&(Instant, Key)| *until > now && self.until.get(key) == Some(until);
        let since = move |(until, key): &(Instant, Key)| (*key, FAILED_FOR.saturating_sub(until.since(now)));
        self.order.iter().rev().filter(is_one).take(count).map(since)
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.until.remove(&key);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
