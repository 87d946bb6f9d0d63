//! What is counted of a port: plain integers, owned by the worker, added to once per batch.

use crate::control::protocol::{FromPort, PortCounters, ToPort};
use std::collections::BTreeMap;
use vswitch_core::drop_reason::DropReason;

/// Drops by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drops([u64; DropReason::COUNT]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; DropReason::COUNT])
    }
}

impl Drops {
    /// So many more for this reason.
    pub fn count(&mut self, reason: DropReason, frames: u64) {
        self.0[reason.index()] += frames;
    }

    fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, more)| *sum += more);
    }

    fn to_map(self) -> BTreeMap<DropReason, u64> {
        DropReason::ALL
            .iter()
            .map(|reason| (*reason, self.0[reason.index()]))
            .filter(|(_, n)| *n > 0)
            .collect()
    }
}

/// What a batch, or a port's life, amounts to.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Frames that came in from the port.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, forwarded to one port.
    pub unicast: u64,
    /// Flooded to one port or more.
    pub flooded: u64,
    /// Copies that the floods made.
    pub flood_copies: u64,
    /// For the switch itself.
    pub consumed: u64,
    /// Frames of the switch's own that these led to, all for this port.
    pub originated: u64,
    /// Dropped on the way in.
    pub dropped_in: Drops,
    /// Copies decided for the port.
    pub copies: u64,
    /// Copies published in its ring.
    pub delivered: u64,
    /// Bytes of these.
    pub delivered_bytes: u64,
    /// Copies dropped on the way out.
    pub dropped_out: Drops,
    /// How often the port was stopped.
    pub faults: u64,
    /// Frames taken from each transmitq and delivered to each receiveq, by the ring's index.
    by_ring: Vec<u64>,
}

impl Counters {
    /// So many more went through this ring, which was [seen](Counters::know) before.
    #[inline(always)]
    pub fn through(&mut self, ring: u16, frames: u64) {
        if let Some(count) = self.by_ring.get_mut(usize::from(ring)) {
            *count += frames;
        }
    }

    /// There is such a ring. A port has 256 at most.
    pub fn know(&mut self, ring: u16) {
        self.by_ring.resize(self.by_ring.len().max(usize::from(ring) + 1), 0);
    }

    /// Frames through each ring, by its index.
    pub fn by_ring(&self) -> BTreeMap<u16, u64> {
        (0..).zip(self.by_ring.iter().copied()).collect()
    }

    /// Adds what `other` counted.
    pub fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.unicast += other.unicast;
        self.flooded += other.flooded;
        self.flood_copies += other.flood_copies;
        self.consumed += other.consumed;
        self.originated += other.originated;
        self.dropped_in.add(&other.dropped_in);
        self.copies += other.copies;
        self.delivered += other.delivered;
        self.delivered_bytes += other.delivered_bytes;
        self.dropped_out.add(&other.dropped_out);
        self.faults += other.faults;
        self.by_ring.resize(self.by_ring.len().max(other.by_ring.len()), 0);
        self.by_ring.iter_mut().zip(&other.by_ring).for_each(|(sum, more)| *sum += more);
    }

    /// As it is told to the controller.
    pub fn view(&self) -> PortCounters {
        PortCounters {
            from_port: FromPort {
                frames: self.frames,
                bytes: self.bytes,
                unicast: self.unicast,
                flooded: self.flooded,
                flood_copies: self.flood_copies,
                consumed: self.consumed,
                originated: self.originated,
                dropped: self.dropped_in.to_map(),
            },
            to_port: ToPort {
                copies: self.copies,
                delivered: self.delivered,
                bytes: self.delivered_bytes,
                dropped: self.dropped_out.to_map(),
            },
            faults: self.faults,
        }
    }
}

/// The accounting law (DESIGN §4) over all ports of a lab; the error says which sum is off and by how much.
///
/// # Errors
/// A sentence with both sides of the sum that does not hold.
pub fn check_law<'a>(ports: impl IntoIterator<Item = &'a PortCounters>) -> Result<(), String> {
    let (mut decided, mut copies, mut ended) = (0, 0, 0);
    for (place, port) in ports.into_iter().enumerate() {
        let from = &port.from_port;
        let fates = from.unicast + from.flooded + from.consumed + from.dropped.values().sum::<u64>();
        if from.frames != fates {
            return Err(format!("port {place}: {} frames came in, but {fates} have a fate", from.frames));
        }
        let to = &port.to_port;
        let out = to.delivered + to.dropped.values().sum::<u64>();
        if to.copies != out {
            return Err(format!("port {place}: {} copies were decided, but {out} have a fate", to.copies));
        }
        decided += from.unicast + from.flood_copies + from.originated;
        copies += to.copies;
        ended += out;
    }
    if decided != copies || copies != ended {
        return Err(format!(
            "{decided} copies were made, {copies} counted at their ports, {ended} have a fate"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_holds_for_a_whole_story_and_names_what_is_missing() {
        let mut sender =
            Counters { frames: 3, unicast: 1, flooded: 1, flood_copies: 2, ..Counters::default() };
        sender.dropped_in.count(DropReason::Runt, 1);
        let mut one = Counters { copies: 2, delivered: 1, ..Counters::default() };
        one.dropped_out.count(DropReason::NoBuffer, 1);
        let mut two = Counters { copies: 1, delivered: 1, ..Counters::default() };
        assert_eq!(check_law([&sender.view(), &one.view(), &two.view()]), Ok(()));
        two.delivered = 0;
        assert!(check_law([&sender.view(), &one.view(), &two.view()]).unwrap_err().contains("1 copies"));
        sender.frames = 4;
        assert!(check_law([&sender.view()]).unwrap_err().contains("4 frames"));
    }
}
