//! A receiveq: frames go to the guest, in three steps that several workers may take at once.
//!
//! `reserve` (behind a short flag) claims buffers and places in the used ring; `write` (no flag) fills them; `publish`
//! stores the used index if the lease is the oldest, and (behind the flag) marks it finished; whoever closes the oldest gap stores the
//! index for all that is finished, so the guest sees buffers in the order in which they were claimed.

mod claim;
mod lease;
mod leases;
#[cfg(all(loom, test))]
mod model;
mod scatter;
mod shares;

pub use claim::{Claim, NoRoom};
pub use lease::{Edited, Front, FrontChange, Granted, Lease, Published, Rooms};
pub use scatter::{MakeHead, Stream};

use super::{Common, RingParts, flag::Flagged, raw::RawRing, seen::Seen};
use crate::{device::fault::PortFault, features};
use leases::{Leases, Oldest};
use shares::Shares;

#[derive(Debug)]
struct State {
    next_avail: u16,
    /// The next place in the used ring to give away.
    next_used: u16,
    leases: Leases,
    shares: Shares,
    region_hint: usize,
    seen: Seen,
}

/// A running receiveq.
#[derive(Debug)]
pub struct ToGuest {
    ring: RawRing,
    common: Common,
    state: Flagged<State>,
    oldest: Oldest,
}

impl ToGuest {
    pub(super) fn new(ring: RawRing, parts: RingParts) -> Self {
        let (next_avail, next_used) = (parts.next_avail, parts.next_used);
        let common = Common::new(parts);
        // We look at this ring when there is something to put into it; a kick tells us nothing.
        ring.suppress_kicks(common.has(features::EVENT_IDX));
        let state = State {
            next_avail,
            next_used,
            leases: Leases::new(next_used),
            shares: Shares::new(common.size.entries()),
            region_hint: 0,
            seen: Seen::new(common.size),
        };
        Self { ring, common, state: Flagged::new(state), oldest: Oldest::new() }
    }

    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    /// The ring's index in the device.
    pub fn index(&self) -> u16 {
        self.common.index
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.common.size.entries()
    }

    /// The virtio features in force.
    pub fn features(&self) -> u64 {
        self.common.features
    }

    pub(super) fn next_avail(&self) -> u16 {
        self.state.with(|state| state.next_avail)
    }

    pub(super) fn next_used(&self) -> u16 {
        self.state.with(|state| state.leases.published())
    }

    /// Claims room for about `count` frames of `sender`; `ask` asks for each, one after the other. `rooms` is what the lease is kept in.
    /// Any numbers will do that tell senders apart: while buffers are short, each has the same part of them.
    ///
    /// An error says what the guest did that no driver may do; nothing is claimed then, and the port is to be stopped.
    #[inline(always)]
    pub fn reserve<'r>(
        &'r self,
        sender: u16,
        rooms: &'r mut Rooms,
        count: usize,
        ask: impl FnOnce(&mut Claim<'_>),
    ) -> Result<Lease<'r>, PortFault> {
        let (number, end) = self.state.with(|state| {
            let before = (state.next_avail, state.next_used);
            let mut claim = Claim::begin(self, state, rooms, (sender, count));
            ask(&mut claim);
            match claim.end(sender) {
                None => Ok((state.leases.open(state.next_used.wrapping_sub(before.1)), state.next_used)),
                Some(what) => {
                    (state.next_avail, state.next_used) = before;
                    Err(self.ring.cause(self.common.fault(what)))
                }
            }
        })?;
        Ok(Lease::new(self, rooms, number, end))
    }

    /// Ends lease `number`, whose places (if any) end before used index `end`; returns the used indices between which the driver is to be told.
    #[inline]
    fn end(&self, number: u64, end: Option<u16>) -> Published {
        let store = |index| self.ring.store_used_index(index);
        let (old, new) = self.oldest.end(&self.state, |state| &mut state.leases, (number, end), store);
        Published { old, new }
    }

    /// How many of the buffers that are available now `sender` may have; see [`ToGuest::reserve`]. None if the guest never had any here: a queue that it
    /// does not use.
    pub fn room(&self, sender: u16) -> Option<u16> {
        self.state.with(|state| {
            let index = self.ring.avail_index();
            let available = index.wrapping_sub(state.next_avail).min(self.size());
            (index > 0 || state.next_avail > 0).then(|| state.shares.of(sender, available))
        })
    }

    /// Asks the CPU for the line in which the driver says how many buffers it has made available: who is about to
    /// [reserve](ToGuest::reserve) need not wait for it then.
    #[inline(always)]
    pub fn foresee(&self) {
        self.ring.prefetch_avail_index();
    }

    /// Tells the driver of what was `published`, if it wants to know. That must be [visible](super::make_visible). Fails if
    /// the driver's eventfd held us up.
    pub fn notify(&self, published: Published) -> Result<(), PortFault> {
        self.common.notify(&self.ring, published.old, published.new)
    }
}
