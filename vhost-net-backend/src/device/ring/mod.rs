//! Running split rings (virtio 1.2 §2.7), as values that workers own: a transmitq one worker, a receiveq all of them.
//!
//! ```text
//! RingParts --start--> RunningRing: FromGuest (transmitq)  harvest -> frames -> finish             -> make_visible -> notify
//!                                   ToGuest   (receiveq)   reserve -> write  -> publish -> .. and /
//! ```
//!
//! `raw` knows where ring fields lie, `chain` walks descriptors (the only walker), the other two give frames a
//! meaning. Nothing here allocates, waits or logs once a ring runs.

mod chain;
mod flag;
mod from_guest;
mod raw;
mod seen;
mod to_guest;

#[cfg(test)]
mod tests;

pub use chain::MAX_CHAIN;
pub use from_guest::{Defect, Frame, FromGuest, HEAD_BYTES, MAX_BATCH, MAX_FRAME, Payload};
pub use to_guest::{
    Claim, Edited, Front, FrontChange, Granted, Lease, MakeHead, NoRoom, Published, Rooms, Stream, ToGuest,
};

use super::{fault::PortFault, memory::GuestMemory};
use crate::{features, layout::RingSize};
use rustix::io::Errno;
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
};

/// Bytes of net header and longest frame.
const LONGEST: u32 = crate::net_header::LEN as u32 + MAX_FRAME;

/// Makes all that was published and completed until now visible to the drivers, before anything is read that comes
/// later: then they can be told of it.
///
/// It waits until every line that was written has come over from its driver's core. So it is called once for many rings, and not
/// right behind the writes but when something else has been waited for.
pub fn make_visible() {
    fence(Ordering::SeqCst);
}

/// What a ring is started from.
#[derive(Debug)]
pub struct RingParts {
    /// Its index in the device: even is a receiveq, odd a transmitq (virtio 1.2 §5.1.2).
    pub index: u16,
    /// Entries.
    pub size: RingSize,
    /// Guest-physical address of the descriptor table.
    pub desc: u64,
    /// Guest-physical address of the avail ring.
    pub avail: u64,
    /// Guest-physical address of the used ring.
    pub used: u64,
    /// The avail index to go on from.
    pub next_avail: u16,
    /// The used index to go on from.
    pub next_used: u16,
    /// The virtio features in force.
    pub features: u64,
    /// Written by the driver when it made buffers available: edge-triggered, never read.
    pub kick: Option<OwnedFd>,
    /// Written by us when buffers were used: an eventfd that never blocks.
    pub call: Option<OwnedFd>,
}

/// A ring that runs.
#[derive(Debug)]
pub enum RunningRing {
    /// A transmitq: frames come from the guest.
    From(FromGuest),
    /// A receiveq: frames go to the guest, from as many workers as hold it.
    To(Arc<ToGuest>),
}

impl RunningRing {
    /// Resolves the ring's addresses in `memory` and starts it.
    ///
    /// Fails if an address is unaligned or leaves guest memory, or if the driver's avail index is not within one ring
    /// of `next_avail`.
    pub fn start(parts: RingParts, memory: Arc<GuestMemory>) -> Result<Self, PortFault> {
        let index = parts.index;
        let ring = raw::RawRing::resolve(&parts, memory)?;
        if ring.avail_index().wrapping_sub(parts.next_avail) > parts.size.entries() {
            return Err(PortFault::Ring {
                ring: index,
                what: "avail.idx is more than one ring away from the base",
            });
        }
        Ok(if index.is_multiple_of(2) {
            Self::To(Arc::new(ToGuest::new(ring, parts)))
        } else {
            Self::From(FromGuest::new(ring, parts))
        })
    }

    /// The ring's index in the device.
    pub fn index(&self) -> u16 {
        self.common(|common| common.index)
    }

    /// The next avail index to take: what GET_VRING_BASE answers.
    pub fn next_avail(&self) -> u16 {
        match self {
            Self::From(ring) => ring.next_avail(),
            Self::To(ring) => ring.next_avail(),
        }
    }

    /// The next used index to write.
    pub fn next_used(&self) -> u16 {
        match self {
            Self::From(ring) => ring.next_used(),
            Self::To(ring) => ring.next_used(),
        }
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.common(|common| common.size.entries())
    }

    /// The virtio features in force.
    pub fn features(&self) -> u64 {
        self.common(|common| common.features)
    }

    fn common<T>(&self, of: impl FnOnce(&Common) -> T) -> T {
        match self {
            Self::From(ring) => of(ring.common()),
            Self::To(ring) => of(ring.common()),
        }
    }
}

/// What both kinds of ring have beside their indices.
#[derive(Debug)]
struct Common {
    index: u16,
    size: RingSize,
    features: u64,
    kick: Option<OwnedFd>,
    call: Option<OwnedFd>,
}

impl Common {
    fn new(parts: RingParts) -> Self {
        Self {
            index: parts.index,
            size: parts.size,
            features: parts.features,
            kick: parts.kick,
            call: parts.call,
        }
    }

    fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    fn fault(&self, what: &'static str) -> PortFault {
        PortFault::Ring { ring: self.index, what }
    }

    fn kick_fd(&self) -> Option<BorrowedFd<'_>> {
        self.kick.as_ref().map(AsFd::as_fd)
    }

    /// Tells the driver that the used index moved from `old` to `new`, which is visible, if it wants to know (virtio 1.2 §2.7.7).
    ///
    /// Fails if the frontend made the eventfd block and filled it, which shows only to a thread that has an
    /// [`Alarm`](super::alarm::Alarm) set.
    fn notify(&self, ring: &raw::RawRing, old: u16, new: u16) -> Result<(), PortFault> {
        if old == new || !ring.driver_wants_call(self.has(features::EVENT_IDX), old, new) {
            return Ok(());
        }
        match self.call.as_ref().map(|call| rustix::io::write(call, &1u64.to_ne_bytes())) {
            Some(Err(Errno::INTR)) => {
                Err(self.fault("its call eventfd blocks: its counter is full, and O_NONBLOCK was cleared"))
            }
            // A full counter (EAGAIN) already says what we want to say; nothing else can fail on an eventfd.
            _ => Ok(()),
        }
    }
}
