//! Rules of one interface in one direction, compiled: what costs the same to ask whatever the frame, however many they are.
//!
//! ```text
//! remote address -> intervals: class     all addresses that the same remotes (networks, groups) cover are one class
//! class, protocol -> one cell:           the first rule that names no ports, and the set of those that do
//! port or ICMP type -> the set:          the first rule whose range holds it; the lesser of both decides
//! ```
//!
//! A look-up reads at most nine nodes: four of the intervals, the cell, four of the set. There is no cache and nothing
//! that traffic could grow. What keeps the compiled form small is that it is built from what is shared: classes come from
//! one another by adding one remote's rules at a time, the remotes that most addresses have first, and sets are
//! persistent, so a class holds only what its own rules change.

mod family;
mod intervals;
mod mark;
mod networks;
mod ranges;
mod source;

pub use mark::RulePlace;
pub use source::{Members, Source};

use super::{
    policy::{Action, Direction, Fault, GroupId},
    tuple::{IpTuple, Tuple},
};
use family::Family;
use mark::Mark;
use ranges::Ranges;
use std::{fmt, net::IpAddr};

/// The most rules that an interface may have, of both directions.
pub const MAX_RULES: usize = 1 << 14;

/// The most networks and group members that the rules of an interface may name in one direction, each counted once for
/// every list that it is in.
pub const MAX_NETWORKS: usize = 1 << 18;

/// The most steps that one direction may take to compile: a remote added to a class is one, and so is each range of its
/// rules.
pub const MAX_STEPS: usize = 1 << 22;

/// The bytes of the compiled form of one direction beyond which no class is added. Intervals are not counted: they take at
/// most 40 bytes for each of [`MAX_NETWORKS`].
pub const MAX_BYTES: usize = 1 << 26;

/// The rules of one interface in one direction.
#[derive(Debug)]
pub struct Classifier {
    direction: Direction,
    default: Action,
    v4: Family<u32>,
    v6: Family<u128>,
    ranges: Ranges,
    /// By EtherType, rising.
    ethertypes: Box<[(u16, Mark)]>,
    /// The first rule for what is not IP and has none of these EtherTypes.
    not_ip: Mark,
}

/// What becomes of a frame, and what says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of it.
    pub action: Action,
    /// Whether it begins a connection whose frames need no rule. What the default allows does: its answers may enter.
    pub stateful: bool,
    /// The first rule that matches; none: the default of the direction.
    pub rule: Option<RulePlace>,
}

/// Why rules cannot be compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileError {
    /// The rule; none: all of them.
    pub rule: Option<RulePlace>,
    /// What is wrong.
    pub why: Uncompilable,
}

/// What is wrong with rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uncompilable {
    /// The rule cannot be meant.
    Rule(Fault),
    /// It names a group that is not there.
    NoSuchGroup(GroupId),
    /// More than [`MAX_RULES`].
    TooManyRules,
    /// More than [`MAX_NETWORKS`].
    TooManyNetworks,
    /// They would take more than [`MAX_STEPS`] or [`MAX_BYTES`].
    TooComplex,
}

impl fmt::Display for Uncompilable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(fault) => fault.fmt(f),
            Self::NoSuchGroup(group) => write!(f, "names group {}, which does not exist", group.index()),
            Self::TooManyRules => write!(f, "more than {MAX_RULES} rules for one interface"),
            Self::TooManyNetworks => {
                write!(f, "rules of one interface name more than {MAX_NETWORKS} networks and group members")
            }
            Self::TooComplex => f.write_str(
                "networks and groups overlap in so many ways that the rules of one interface do not fit: \
                 name fewer of them in rules that list many ports",
            ),
        }
    }
}

impl Classifier {
    /// Compiles.
    ///
    /// # Errors
    /// [`Uncompilable::TooManyNetworks`] and [`Uncompilable::TooComplex`]; no [`Source`] has the other faults.
    pub fn compile(source: &Source) -> Result<Self, CompileError> {
        let mut ranges = Ranges::default();
        let mut steps = MAX_STEPS;
        let v4 = Family::compile(source, &mut ranges, &mut steps)?;
        let v6 = Family::compile(source, &mut ranges, &mut steps)?;
        let (ethertypes, not_ip) = source.not_ip();
        ranges.shrink();
        Ok(Self {
            direction: source.direction(),
            default: source.default_action(),
            v4,
            v6,
            ranges,
            ethertypes,
            not_ip,
        })
    }

    /// What the first rule that matches says, or the default.
    #[inline]
    pub fn decide(&self, tuple: &Tuple) -> Decision {
        let first = match tuple {
            Tuple::Ip(ip) => match ip.remote(self.direction) {
                IpAddr::V4(address) => self.v4.first(address.to_bits(), ip, &self.ranges),
                IpAddr::V6(address) => self.v6.first(address.to_bits(), ip, &self.ranges),
            },
            Tuple::Other { ethertype } => {
                match self.ethertypes.binary_search_by_key(ethertype, |(number, _)| *number) {
                    Ok(at) => self.ethertypes[at].1,
                    Err(_) => self.not_ip,
                }
            }
        };
        self.decision(first)
    }

    /// The same of a packet whose ports, or ICMP type, stand in another frame: what is true of it whatever they are. None if the first rule
    /// that may match names such.
    pub fn decide_unread(&self, ip: &IpTuple) -> Option<Decision> {
        let first = match ip.remote(self.direction) {
            IpAddr::V4(address) => self.v4.first_of_any(address.to_bits(), ip),
            IpAddr::V6(address) => self.v6.first_of_any(address.to_bits(), ip),
        };
        first.map(|first| self.decision(first))
    }

    fn decision(&self, first: Mark) -> Decision {
        first.decision().unwrap_or(Decision { action: self.default, stateful: true, rule: None })
    }

    /// What becomes of an IP packet that no rule matches.
    pub const fn default_action(&self) -> Action {
        self.default
    }

    /// How much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.v4.bytes()
            + self.v6.bytes()
            + self.ranges.bytes()
            + size_of_val(&self.ethertypes[..])
    }
}
