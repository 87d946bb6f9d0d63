//! What the routers' voice counts.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// What was counted since the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Answers to ARP requests, neighbour solicitations, echoes and connections.
    pub answered: u64,
    /// Answers to who asked for a neighbour.
    pub answered_for: u64,
    /// Questions who has an address, and whether a neighbour is still there.
    pub asked: u64,
    /// Neighbours that were asked for and answered.
    pub resolved: u64,
    /// Neighbours that were asked for and did not answer.
    pub failed: u64,
    /// Neighbours that were known and did not answer any more.
    pub gone: u64,
    /// Frames that had to wait for a neighbour.
    pub held: u64,
    /// Frames that waited and went on.
    pub forwarded: u64,
    /// Packets that were cut, as they were too long for where they went on.
    pub cut: u64,
    /// ICMP errors.
    pub errors: u64,
    /// Announcements of the routers' own addresses.
    pub announced: u64,
    /// Times that somebody else claimed one of these.
    pub conflicts: u64,
    /// Frames that led to nothing, by reason.
    pub lost: BTreeMap<Lost, u64>,
}

impl Counts {
    pub(super) fn lose(&mut self, why: Lost) {
        self.lose_many(why, 1);
    }

    pub(super) fn lose_many(&mut self, why: Lost, frames: u64) {
        if frames > 0 {
            *self.lost.entry(why).or_default() += frames;
        }
    }
}

/// Why a frame led to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lost {
    /// A header or a message that cannot be, or a checksum that is wrong.
    Malformed,
    /// Its VLAN has no gateway.
    NoGateway,
    /// It is not for the routers, or nothing that they answer.
    NotOurs,
    /// Its source address cannot be where it came from, or its destination is no host's.
    Martian,
    /// A fragment of what is for a router itself: nothing is put together here.
    Fragment,
    /// Its time to live ended.
    TtlExceeded,
    /// No route leads to where it goes, or one that ends there.
    NoRoute,
    /// The neighbour that it was for does not answer.
    Unreachable,
    /// Too many others wait for the same neighbour: the latest are kept.
    HoldFull,
    /// Its VLAN asks for too many neighbours that do not answer, or holds too many bytes.
    TooMany,
    /// A message, an answer or an error that its VLAN had too many of.
    Rate,
    /// There was no room to send it.
    QueueFull,
    /// Its VLAN or its neighbour went away with the World that it was heard in.
    Changed,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed",
            Self::NoGateway => "its VLAN has no gateway",
            Self::NotOurs => "not for a router",
            Self::Martian => "an address that cannot be",
            Self::Fragment => "a fragment for a router",
            Self::TtlExceeded => "time to live exceeded",
            Self::NoRoute => "no route",
            Self::Unreachable => "the neighbour does not answer",
            Self::HoldFull => "too many wait for the neighbour",
            Self::TooMany => "its VLAN asks for too many neighbours",
            Self::Rate => "more than are answered",
            Self::QueueFull => "no room to send it",
            Self::Changed => "the lab was changed",
        })
    }
}
