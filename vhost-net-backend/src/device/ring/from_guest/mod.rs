//! A transmitq: frames come from the guest, batch by batch, and their chains are completed in order.

mod batch;
mod held;

pub use batch::{Defect, Frame, HEAD_BYTES, Payload};

use super::{
    Common, LONGEST, RingParts,
    chain::{self, Direction},
    raw::{RawRing, place, stretch},
    seen::{Row, Seen},
};
use crate::{
    device::{fault::PortFault, memory::Segment},
    features, net_header, prefetch,
};
use batch::{Batch, Chain};
use held::Held;
use std::{ops::Range, os::fd::BorrowedFd};

/// The most chains that one harvest takes.
pub const MAX_BATCH: usize = 64;

/// The longest frame that virtio-net carries: 65,535 bytes of IP behind an Ethernet header (virtio 1.2 §5.1.6.3.1).
pub const MAX_FRAME: u32 = 65_550;

/// Descriptors (or pieces of their buffers) that one harvest reads before it stops early, so that long chains cannot stretch a turn.
const DESCRIPTOR_BUDGET: u32 = 2048;

/// Asks the CPU for the lines of net header and addresses, which may be two.
#[inline(always)]
fn fetch(segment: &Segment) {
    prefetch::to_read(segment.host());
    prefetch::to_read(segment.host().wrapping_add(64));
}

/// What is shorter has no net header, and is none of nearly all.
const LEAST: u32 = net_header::LEN as u32;

/// A running transmitq.
#[derive(Debug)]
pub struct FromGuest {
    ring: RawRing,
    common: Common,
    next_avail: u16,
    /// How far the driver was at the last harvest.
    seen_avail: u16,
    next_used: u16,
    /// What the driver sees of `next_used`: behind it are those that are held back.
    shown: u16,
    held: Held,
    /// `shown` when the driver was last told.
    told: u16,
    region_hint: usize,
    batch: Batch,
    seen: Seen,
}

impl FromGuest {
    pub(super) fn new(ring: RawRing, parts: RingParts) -> Self {
        let (next_avail, next_used) = (parts.next_avail, parts.next_used);
        let common = Common::new(parts);
        ring.suppress_kicks(common.has(features::EVENT_IDX));
        Self {
            seen: Seen::new(common.size),
            held: Held::new(common.size),
            ring,
            common,
            next_avail,
            seen_avail: next_avail,
            next_used,
            shown: next_used,
            told: next_used,
            region_hint: 0,
            batch: Batch::new(),
        }
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

    pub(super) fn next_avail(&self) -> u16 {
        self.next_avail.wrapping_sub(self.batch.len as u16)
    }

    pub(super) fn next_used(&self) -> u16 {
        self.next_used
    }

    /// Takes up to `max` chains off the ring and copies their heads; returns how many.
    ///
    /// What the last harvest took and [`FromGuest::finish`] did not end goes back first. An error says what the guest
    /// did that no driver may do; the port is then to be stopped.
    pub fn harvest(&mut self, max: usize) -> Result<usize, PortFault> {
        self.harvest_and(max, || {})
    }

    /// As [`FromGuest::harvest`]; does `meanwhile` if there are chains, before it waits for their lines.
    #[inline(always)]
    pub fn harvest_and(&mut self, max: usize, meanwhile: impl FnOnce()) -> Result<usize, PortFault> {
        self.wind_back();
        self.harvest_now(max, meanwhile).map_err(|fault| self.ring.cause(fault))
    }

    #[inline(always)]
    fn harvest_now(&mut self, max: usize, meanwhile: impl FnOnce()) -> Result<usize, PortFault> {
        self.seen_avail = self.ring.avail_index();
        let available = self.seen_avail.wrapping_sub(self.next_avail);
        if available > self.common.size.entries() {
            return Err(self.common.fault("avail.idx jumped by more than the ring's size"));
        }
        let count = usize::from(available).min(max).min(MAX_BATCH);
        if count == 0 {
            return Ok(0);
        }
        meanwhile();
        let taken = self.take(count);
        match taken {
            Ok(()) => self.next_avail = self.next_avail.wrapping_add(self.batch.len as u16),
            // Nothing was taken: the index that GET_VRING_BASE answers must not move.
            Err(_) => self.batch.clear(),
        }
        taken.map(|()| self.batch.len)
    }

    #[inline(never)]
    fn take(&mut self, count: usize) -> Result<(), PortFault> {
        self.walk_chains(count as u16)?;
        self.batch.copy_heads();
        if self.ring.memory().vanished() { Err(PortFault::MemoryVanished) } else { Ok(()) }
    }

    fn walk_chains(&mut self, count: u16) -> Result<(), PortFault> {
        let ahead = stretch(self.ring.avail(), self.next_avail, count);
        self.ring.prefetch(ahead);
        if ahead.len() < usize::from(count) {
            self.ring.prefetch(stretch(self.ring.avail(), 0, count - ahead.len() as u16));
        }
        let mut row = self.seen.begin(place(self.ring.avail(), self.next_avail).head());
        let mut budget = DESCRIPTOR_BUDGET;
        while self.batch.len < usize::from(count) && budget > 0 {
            let before = self.batch.len;
            row = self.take_direct(count, row);
            if self.batch.len == before {
                row = self.take_any(row, &mut budget).map_err(|what| self.common.fault(what))?;
            }
        }
        Ok(())
    }

    /// Takes chain after chain, up to the `count`th, while each is one buffer in one piece, as nearly every one is, and the ring
    /// goes on. A function of its own, so that it has the registers for itself.
    #[inline(never)]
    fn take_direct(&mut self, count: u16, row: Row) -> Row {
        let Self { ring, next_avail, region_hint, batch, seen, .. } = self;
        let before = batch.len as u16;
        let window = ring.memory().window(*region_hint);
        let entries = stretch(ring.avail(), next_avail.wrapping_add(before), count - before);
        let descriptors = ring.descriptors();
        let (mut taken, mut row) = (0, row);
        for (entry, chain) in entries.iter().zip(&mut batch.chains[batch.len..]) {
            let head = entry.head();
            let Some(segment) = chain::direct(descriptors, head, Direction::DeviceReads, window, LEAST)
            else {
                break;
            };
            let Some(on) = seen.take(row, before + taken, head) else { break };
            row = on;
            fetch(&segment);
            chain.set_one(head, segment);
            taken += 1;
        }
        batch.len += usize::from(taken);
        row
    }

    /// Takes the next chain, of any shape.
    #[inline(never)]
    fn take_any(&mut self, row: Row, budget: &mut u32) -> Result<Row, &'static str> {
        let Self { ring, next_avail, region_hint, batch, seen, .. } = self;
        let (taken, first) = (batch.len as u16, batch.segments.len() as u16);
        let head = place(ring.avail(), next_avail.wrapping_add(taken)).head();
        let row = seen.take(row, taken, head).ok_or_else(|| seen.why_not(head))?;
        let walked = chain::walk(ring, head, Direction::DeviceReads, region_hint, &mut batch.segments)?;
        let end = batch.segments.len() as u16;
        *budget = budget.saturating_sub((end - first).max(walked.descriptors).into());
        batch.segments.get(usize::from(first)).into_iter().for_each(fetch);
        let defect = if !walked.direction_ok {
            Some(Defect::BadDirection)
        } else if walked.bytes > LONGEST {
            Some(Defect::Oversize)
        } else {
            None
        };
        batch.chains[batch.len].set_many(head, walked.bytes, first, end, defect);
        batch.len += 1;
        Ok(row)
    }

    /// The lengths of some frames of the current batch.
    #[inline(always)]
    pub fn lens(&self, frames: Range<usize>) -> impl Iterator<Item = u32> + Clone {
        self.batch.lens(frames)
    }

    /// Some frames of the current batch.
    #[inline(always)]
    pub fn frames(&self, frames: Range<usize>) -> impl Iterator<Item = Frame<'_>> {
        self.batch.frames(frames)
    }

    /// Frame `place` of the current batch.
    ///
    /// # Panics
    /// If the batch has no such frame.
    pub fn frame(&self, place: usize) -> Frame<'_> {
        self.frames(place..place + 1).next().expect("the batch has it: its range was taken")
    }

    /// Whether any frame of the current batch [asks](Frame::asks) for something.
    #[inline(always)]
    pub fn asks(&self) -> bool {
        self.batch.asks
    }

    /// The virtio features in force.
    pub fn features(&self) -> u64 {
        self.common.features
    }

    /// Frames in the current batch.
    pub fn batch_len(&self) -> usize {
        self.batch.len
    }

    /// Ends the current batch: its first `decided` chains are completed, in order; the others go back on the ring.
    ///
    /// A driver that polls does not see the last few completed ones before [`FromGuest::release`], or before more are.
    pub fn finish(&mut self, decided: usize) {
        let decided = decided.min(self.batch.len);
        if decided > 0 {
            let polls = self.ring.driver_polls(self.common.has(features::EVENT_IDX));
            let kept = if polls { self.held.keep(decided) } else { 0 };
            let (now, later) = self.batch.chains()[..decided].split_at(decided - kept);
            self.complete(self.next_used, now);
            self.complete(self.next_used.wrapping_add(now.len() as u16), later);
            self.next_used = self.next_used.wrapping_add(decided as u16);
            let before = if now.is_empty() { 0 } else { self.held.release() + now.len() as u16 };
            let more = before + self.held.hold(kept);
            self.show(more);
        }
        let left = self.batch.len - decided;
        self.next_avail = self.next_avail.wrapping_sub(left as u16);
        self.batch.clear();
    }

    /// Writes the used elements of `chains`, whose first has place `first`.
    #[inline(always)]
    fn complete(&self, first: u16, chains: &[Chain]) {
        if self.common.has(features::IN_ORDER) {
            // One element for all, at the first place, naming the last chain (virtio 1.2 §2.7.8).
            if let Some(last) = chains.last() {
                place(self.ring.used(), first).write(last.head, 0);
            }
        } else {
            for (n, chain) in (0..).zip(chains) {
                place(self.ring.used(), first.wrapping_add(n)).write(chain.head, 0);
            }
        }
    }

    fn show(&mut self, more: u16) {
        if more > 0 {
            self.shown = self.shown.wrapping_add(more);
            self.ring.store_used_index(self.shown);
        }
    }

    /// Shows the driver all that was completed: no more frames come. True if something was held back; then the driver is to be
    /// [told](FromGuest::notify).
    pub fn release(&mut self) -> bool {
        let held = self.held.release();
        self.show(held);
        held > 0
    }

    fn wind_back(&mut self) {
        self.finish(0);
    }

    /// Whether the last harvest saw chains that were not finished.
    #[inline(always)]
    pub fn left_some(&self) -> bool {
        self.seen_avail != self.next_avail()
    }

    /// Tells the driver of what was completed since the last time, if it wants to know. What was completed must be
    /// [visible](super::make_visible). Fails if the driver's eventfd held us up.
    pub fn notify(&mut self) -> Result<(), PortFault> {
        let told = std::mem::replace(&mut self.told, self.shown);
        self.common.notify(&self.ring, told, self.shown)
    }

    /// Asks for a kick at the next frame. True if a frame is there already: then poll, do not sleep.
    pub fn arm(&self) -> bool {
        self.ring.request_kick(self.common.has(features::EVENT_IDX), self.next_avail());
        self.has_work()
    }

    /// Whether the driver has made chains available that were not taken.
    #[inline(always)]
    pub fn has_work(&self) -> bool {
        self.ring.avail_index() != self.next_avail()
    }

    /// Asks for no more kicks.
    pub fn disarm(&self) {
        self.ring.suppress_kicks(self.common.has(features::EVENT_IDX));
    }

    /// What the driver writes when it kicks. Edge-triggered: wait for it, never read it.
    pub fn kick_fd(&self) -> Option<BorrowedFd<'_>> {
        self.common.kick_fd()
    }
}
