//! What rules with `log: true` decided, for a thread that writes it down: sampled for each rule, bounded, and no worker waits for it.

use super::{
    policies::RuleId,
    policy::{Action, Direction},
};
use crate::{clock::Instant, head::Head, id::PortId, trace::FilteredBy, world::World};
use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Decisions of one rule that are logged within a second at most.
pub const RATE: u32 = 10;

/// Entries that wait to be written at most.
const ROOM: usize = 1024;

/// A decision that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// At whose interface.
    pub port: PortId,
    /// Which rule.
    pub rule: RuleId,
    /// Which way the frame went, seen from the guest.
    pub direction: Direction,
    /// What became of it.
    pub action: Action,
    /// Its headers.
    pub head: Head,
    /// Its length in bytes.
    pub len: u32,
    /// How many decisions of this rule before it were not logged.
    pub unlogged: u64,
}

impl Entry {
    /// In words, with the line of the file. `world` is the one that decided.
    pub fn words(&self, world: &World) -> String {
        let port = world.port(self.port.index()).map(|port| &*port.name).unwrap_or_default();
        let way = match self.direction {
            Direction::Egress => "from its guest",
            Direction::Ingress => "to its guest",
        };
        let Head { link, .. } = self.head;
        let more = match self.unlogged {
            0 => String::new(),
            more => format!("; {more} more before it were not logged"),
        };
        format!(
            "{port} {way}: {}: {} -> {}, {}, {} bytes{more}",
            by(world, self.rule, self.action),
            link.src,
            link.dst,
            self.head,
            self.len
        )
    }
}

/// How many decisions of a rule were not logged, in words.
pub fn unlogged_words(world: &World, rule: RuleId, count: u64) -> String {
    let (group, line) = world.rule_said(rule).unwrap_or_default();
    format!("group {group}, line {line}: {count} more were not logged")
}

fn by(world: &World, rule: RuleId, action: Action) -> FilteredBy {
    let (group, line) = world.rule_said(rule).unwrap_or_default();
    FilteredBy::Rule { group: group.into(), line, action }
}

/// What waits to be written.
#[derive(Debug)]
pub struct Log(Mutex<VecDeque<Entry>>);

impl Log {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(VecDeque::with_capacity(ROOM)))
    }

    /// Leaves `entry` for who writes; false: there is no room, or somebody else is at it.
    pub(crate) fn push(&self, entry: Entry) -> bool {
        let Ok(mut entries) = self.0.try_lock() else { return false };
        let has_room = entries.len() < ROOM;
        if has_room {
            entries.push_back(entry);
        }
        has_room
    }

    /// Takes what waits, the oldest first. Not by a worker.
    pub fn take(&self) -> Vec<Entry> {
        // Whole between any two statements, so a panic elsewhere cannot have torn it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}

/// The limit of one rule.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// `63 the second | 31 how many of it are logged 0`
    window: AtomicU64,
    unlogged: AtomicU64,
}

impl Sample {
    /// Whether one more decision may be logged now; if so, how many were not before it. If not, it is counted.
    pub(crate) fn admit(&self, now: Instant) -> Option<u64> {
        let (second, window) = (second(now), self.window.load(Ordering::Relaxed));
        let count = if (window >> 32) as u32 == second { window as u32 } else { 0 };
        let next = u64::from(second) << 32 | u64::from(count + 1);
        // Who is not the only one to try is not logged: that there are many is what the limit is for.
        if count < RATE
            && self.window.compare_exchange(window, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            return Some(self.unlogged.swap(0, Ordering::Relaxed));
        }
        self.missed(1);
        None
    }

    pub(crate) fn missed(&self, count: u64) {
        self.unlogged.fetch_add(count, Ordering::Relaxed);
    }

    /// How many were not logged, if nothing was logged in this second that could say so with the next.
    pub(super) fn rest(&self, now: Instant) -> u64 {
        let is_over = (self.window.load(Ordering::Relaxed) >> 32) as u32 != second(now);
        if is_over { self.last() } else { 0 }
    }

    /// The same of a rule that decides no more: there is no next one.
    pub(super) fn last(&self) -> u64 {
        self.unlogged.swap(0, Ordering::Relaxed)
    }
}

fn second(now: Instant) -> u32 {
    (now.as_nanos() / 1_000_000_000) as u32
}
