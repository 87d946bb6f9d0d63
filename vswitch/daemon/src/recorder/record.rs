//! One thing that happened, in one cache line: when, what, where, and which frame it was.

use super::note::FrameNote;
use serde::{Deserialize, Serialize};
use vhost_net_backend::device::fault::PortFault;
use vswitch_core::{
    clock::Instant,
    drop_reason::DropReason,
    fdb::Former,
    id::{Epoch, PortId, SwitchId},
    trace::LearnedStep,
    vlan::VlanId,
};

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(align(64))]
pub struct Record {
    /// When, since the process started.
    pub at: Instant,
    epoch: u32,
    /// How many things alike (the same event of the same port, whichever frames) followed within the same window of the rate
    /// cap and were only counted.
    pub more: u32,
    /// The frame's length in bytes; 0 if it is about no frame.
    pub len: u32,
    /// What.
    pub event: Event,
    /// The frame, as far as its headers could be read.
    pub frame: Option<FrameNote>,
}

const _: () = assert!(size_of::<Record>() == 64);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A frame was dropped.
    Dropped {
        /// Where it came in.
        port: PortId,
        /// Why.
        reason: DropReason,
    },
    /// A copy of a frame was lost; others may have been delivered.
    Lost {
        /// Where the frame came in.
        port: PortId,
        /// Where the copy was to go.
        to: PortId,
        /// Why.
        reason: DropReason,
    },
    /// The source address of a frame was not where it was known, and this was made of it.
    Learned {
        /// Where it came in.
        port: PortId,
        /// The switch that learned.
        switch: SwitchId,
        /// The frame's VLAN.
        vlan: VlanId,
        /// What was made of it.
        what: LearnedStep<Former>,
    },
    /// A frame waited in vain for a neighbour of a router.
    Unanswered {
        /// The routers' port.
        port: PortId,
        /// The neighbour's VLAN.
        vlan: VlanId,
        /// Whether later frames for that neighbour took its place; else it did not answer.
        crowded: bool,
    },
    /// A driver runs: frames can flow both ways.
    Up {
        /// The port.
        port: PortId,
    },
    /// Frames cannot flow both ways any longer.
    Down {
        /// The port.
        port: PortId,
    },
    /// The port was stopped.
    Faulted {
        /// The port.
        port: PortId,
        /// What for.
        why: FaultKind,
    },
    /// A configuration came into force: the one that the record names.
    Applied,
}

/// What a port was stopped for: a [`PortFault`] without its details, which `show ports` and the log have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The VMM's end of the socket closed.
    Disconnected,
    /// A message that the protocol does not allow.
    Protocol,
    /// Guest memory that cannot be used, or that vanished.
    Memory,
    /// A ring or a descriptor chain that virtio does not allow.
    Ring,
    /// Our own bug, or this process lacked something.
    Internal,
}

impl From<&PortFault> for FaultKind {
    fn from(fault: &PortFault) -> Self {
        match fault {
            PortFault::Disconnected => Self::Disconnected,
            PortFault::Protocol(_) => Self::Protocol,
            PortFault::Memory(_) | PortFault::MemoryVanished => Self::Memory,
            PortFault::Ring { .. } => Self::Ring,
            _ => Self::Internal,
        }
    }
}

impl FaultKind {
    /// In words: the port was stopped because of …
    pub const fn words(self) -> &'static str {
        match self {
            Self::Disconnected => "the VMM closed its socket",
            Self::Protocol => "the VMM broke the vhost-user protocol",
            Self::Memory => "the guest's memory cannot be used",
            Self::Ring => "the guest's driver broke the virtio protocol",
            Self::Internal => "vnet could not serve it",
        }
    }
}

/// How many causes [`Event::cause`] tells apart: the reasons, five ways to learn, three states of a link, two ways to wait in vain.
pub(super) const CAUSES: usize = DropReason::COUNT + 10;

impl Event {
    /// The port that it counts for: where the frame came in, so that a guest that floods uses up nobody's records but its own;
    /// for who does not answer, the routers': of these all that ask in vain have one share.
    /// None for what concerns the whole switch.
    pub const fn port(self) -> Option<PortId> {
        match self {
            Self::Dropped { port, .. }
            | Self::Lost { port, .. }
            | Self::Learned { port, .. }
            | Self::Unanswered { port, .. }
            | Self::Up { port }
            | Self::Down { port }
            | Self::Faulted { port, .. } => Some(port),
            Self::Applied => None,
        }
    }

    /// Whether it happened at `port`, to a copy that was to go there, or to an address that was there.
    pub fn concerns(self, port: PortId) -> bool {
        self.port() == Some(port)
            || matches!(self, Self::Lost { to, .. } if to == port)
            || self.takes_from(port)
    }

    /// Whether it moved an address away from `port`.
    pub fn takes_from(self, port: PortId) -> bool {
        matches!(self, Self::Learned { what: LearnedStep::Moved { from }, .. } if from.is_port(port.index()))
    }

    /// What is alike for the rate cap, below [`CAUSES`].
    pub(super) const fn cause(self) -> usize {
        let other = match self {
            Self::Dropped { reason, .. } | Self::Lost { reason, .. } => return reason.index(),
            Self::Learned { what, .. } => match what {
                LearnedStep::New => 0,
                LearnedStep::Moved { .. } => 1,
                LearnedStep::IsStatic | LearnedStep::IsSticky => 2,
                LearnedStep::PortLimit => 3,
                LearnedStep::TableFull | LearnedStep::Busy => 4,
            },
            Self::Up { .. } => 5,
            Self::Down { .. } => 6,
            Self::Faulted { .. } | Self::Applied => 7,
            Self::Unanswered { crowded, .. } => 8 + crowded as usize,
        };
        DropReason::COUNT + other
    }
}

/// A moment, and what was in force then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Since the process started.
    pub at: Instant,
    /// The configuration.
    pub epoch: Epoch,
}

impl Record {
    /// A record of `event`; of the frame of `len` bytes whose first are `bytes`, if it is about one.
    pub(super) fn new(moment: Moment, event: Event, frame: Option<(&[u8], u32)>) -> Self {
        Self {
            at: moment.at,
            // Configurations are numbered one by one: no lab sees four thousand million of them.
            epoch: moment.epoch.number() as u32,
            more: 0,
            len: frame.map_or(0, |(_, len)| len),
            event,
            frame: frame.and_then(|(bytes, len)| FrameNote::read(bytes, len)),
        }
    }

    /// The configuration that was in force.
    pub const fn epoch(&self) -> Epoch {
        Epoch::new(self.epoch as u64)
    }
}
