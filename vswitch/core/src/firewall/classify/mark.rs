//! A rule in one word.

use super::Decision;
use crate::firewall::policy::Action;

/// A rule's place among all rules of its interface, of both directions, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RulePlace(u32);

impl RulePlace {
    /// The place behind `before` other rules.
    pub const fn new(before: u32) -> Self {
        Self(before)
    }

    /// How many rules are before it.
    pub const fn index(self) -> u32 {
        self.0
    }
}

/// A rule's place and what it says, so that the least of several marks is the rule that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Mark(u32);

const STATEFUL: u32 = 0b001;
const ALLOW: u32 = 0b010;
const REJECT: u32 = 0b100;

impl Mark {
    /// No rule: behind them all.
    pub(super) const NONE: Self = Self(u32::MAX);

    pub(super) const fn new(place: RulePlace, action: Action, stateful: bool) -> Self {
        let action = match action {
            Action::Allow => ALLOW,
            Action::Drop => 0,
            Action::Reject => REJECT,
        };
        Self(place.0 << 3 | action | if stateful { STATEFUL } else { 0 })
    }

    /// What it says; none without a rule.
    #[inline]
    pub(super) fn decision(self) -> Option<Decision> {
        let action = match self.0 & (ALLOW | REJECT) {
            ALLOW => Action::Allow,
            REJECT => Action::Reject,
            _ => Action::Drop,
        };
        let decision =
            Decision { action, stateful: self.0 & STATEFUL != 0, rule: Some(RulePlace(self.0 >> 3)) };
        (self != Self::NONE).then_some(decision)
    }

    pub(super) const fn allows(self) -> bool {
        self.0 & (ALLOW | REJECT) == ALLOW
    }
}
