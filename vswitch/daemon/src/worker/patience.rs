//! Frames from and for a patient port wait until there is room for them: what turns frames into sockets of the host (passt) sends as much at a time as its
//! peers' windows hold, and has no answer to loss but its timers. Its own batches wait, and those for it, each in its sender's ring; never for long, and a
//! receiver that was waited for in vain is waited for again only after a while, so that one that stalls costs others little.

use std::time::Duration;
use vhost_net_backend::device::ring::{FromGuest, ToGuest};
use vswitch_core::clock::Instant;

/// How long a batch waits: for a receiver that gets no CPU for some time slices, too.
const LONGEST: Duration = Duration::from_millis(100);

/// How long a receiver is not waited for that was waited for in vain.
const IN_VAIN: Duration = Duration::from_secs(1);

/// Bytes of a frame that may take a buffer, or be a segment, of its own: less than an MTU has that guests use.
const BUFFER: u64 = 1024;

/// How long a source has waited.
#[derive(Debug, Default)]
pub(super) struct Patience {
    since: Option<Instant>,
    /// The place of a receiver's port, and until when it is not waited for.
    in_vain: Option<(u16, Instant)>,
}

impl Patience {
    /// Whether the next batch waits, for which the port in place `short` has no room; none: all have.
    pub(super) fn waits(&mut self, short: Option<u16>, now: Instant) -> bool {
        let is_in_vain = |port| self.in_vain.is_some_and(|(other, until)| other == port && now < until);
        let Some(port) = short.filter(|port| !is_in_vain(*port)) else {
            self.since = None;
            return false;
        };
        let waits = now.since(*self.since.get_or_insert(now)) < LONGEST;
        if !waits {
            (self.since, self.in_vain) = (None, Some((port, now + IN_VAIN)));
        }
        waits
    }
}

/// Whether a receiveq has room for frames of a batch, of which the first is in this place, so many of so many bytes. Of one frame alone it is enough that there is
/// some.
pub(super) fn has_room(to: &ToGuest, sender: u16, frames: usize, bytes: u64) -> bool {
    let needed = frames as u64 + bytes / BUFFER;
    // More than a ring has are never there: fewer frames are taken next time, and at last one.
    let needed = if frames == 1 { needed.min(u64::from(to.size() / 4)) } else { needed };
    u64::from(to.room(sender)) >= needed
}

/// The bytes of some frames of a batch.
pub(super) fn bytes(from: &FromGuest, frames: impl Iterator<Item = std::ops::Range<usize>>) -> u64 {
    frames.flat_map(|frames| from.lens(frames)).map(u64::from).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_waited_for_a_while_and_then_left_alone_for_longer() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut patience = Patience::default();
        assert!(patience.waits(Some(1), at(0)) && patience.waits(Some(1), at(99)));
        assert!(!patience.waits(None, at(99)), "there is room");
        assert!(patience.waits(Some(1), at(100)) && patience.waits(Some(1), at(199)), "it waits anew");
        assert!(!patience.waits(Some(1), at(200)) && !patience.waits(Some(1), at(1199)));
        // Others are worth waiting for.
        assert!(patience.waits(Some(2), at(250)) && !patience.waits(None, at(251)));
        assert!(patience.waits(Some(1), at(1200)));
    }
}
