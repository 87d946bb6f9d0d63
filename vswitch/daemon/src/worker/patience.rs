//! Frames from and for a way out wait until there is room for them: what turns frames into sockets of the host (passt) sends as much at a time as its
//! peers' windows hold, and has no answer to loss but its timers. Its own batches wait, and those for it, each in its sender's ring; never for long, and a
//! receiver that was waited for in vain is waited for again only after a while, so that those that stall cost others little.

use std::{sync::Arc, time::Duration};
use vhost_net_backend::device::ring::ToGuest;
use vswitch_core::clock::Instant;

/// How long a batch waits: for a receiver that gets no CPU for some time slices, too. A way out itself is waited for longer: of what is lost there whole
/// connections may die.
const LONGEST: Duration = Duration::from_millis(100);
const FOR_A_WAY_OUT: Duration = Duration::from_secs(1);

/// How many times as long a receiver is not waited for that was waited for in vain.
const IN_VAIN: u32 = 10;

/// Bytes of a frame that may take a buffer, or be a segment, of its own: less than an MTU has that guests use.
const BUFFER: u64 = 1024;

/// What a batch waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    /// The place of the receiver's port, and how many buffers are needed there.
    pub(super) port: u16,
    pub(super) buffers: u16,
    /// Whether that is a way out.
    pub(super) way_out: bool,
}

impl Need {
    const fn longest(self) -> Duration {
        if self.way_out { FOR_A_WAY_OUT } else { LONGEST }
    }
}

/// What a source waits for, and since when.
#[derive(Debug, Default)]
pub(super) struct Patience {
    waits: Option<(Need, Instant)>,
}

/// Until when ports are not waited for that were waited for in vain, by their places.
#[derive(Debug, Default)]
pub(super) struct InVain(Vec<Instant>);

impl Patience {
    /// What it waits for still: no look at its frames is worth anything before that is there.
    pub(super) fn waits_for(&self, now: Instant) -> Option<Need> {
        self.waits.filter(|(need, since)| now.since(*since) < need.longest()).map(|(need, _)| need)
    }

    /// Whether the next batch waits, for which there is too little room in one place; none: there is enough.
    pub(super) fn waits(&mut self, short: Option<Need>, in_vain: &mut InVain, now: Instant) -> bool {
        let Some(need) = short else {
            self.waits = None;
            return false;
        };
        // Since it began to wait for that one.
        let since = self.waits.filter(|(before, _)| before.port == need.port).map_or(now, |(_, since)| since);
        let waits = now.since(since) < need.longest();
        self.waits = waits.then_some((need, since));
        if !waits && let Some(until) = in_vain.0.get_mut(usize::from(need.port)) {
            *until = now + need.longest() * IN_VAIN;
        }
        waits
    }
}

impl InVain {
    /// Makes room for so many ports.
    #[inline(always)]
    pub(super) fn grow(&mut self, ports: usize) {
        if self.0.len() < ports {
            self.0.resize(ports, Instant::ZERO);
        }
    }

    /// Whether that one is not to be waited for.
    pub(super) fn has(&self, port: u16, now: Instant) -> bool {
        self.0.get(usize::from(port)).is_some_and(|until| now < *until)
    }
}

/// What so many frames of so many bytes, of a sender's, have to wait for at these rings of a port's.
pub(super) fn short(
    (port, way_out, rings): (u16, bool, &[Arc<ToGuest>]),
    sender: u16,
    frames: usize,
    bytes: u64,
) -> Option<Need> {
    let size = rings.first()?.size();
    let needed = u16::try_from(frames as u64 + bytes / BUFFER).unwrap_or(u16::MAX);
    // Of one frame alone it is enough that there are some. More than a ring has are never there: fewer frames are taken next time, for which half of it will do.
    let needed = if frames == 1 { needed.min(size / 4) } else { needed };
    (!has_room(rings, sender, needed)).then_some(Need { port, buffers: needed.min(size / 2), way_out })
}

/// Whether a sender may have so many in each of a port's rings that ever had any.
pub(super) fn has_room(rings: &[Arc<ToGuest>], sender: u16, buffers: u16) -> bool {
    rings.iter().all(|to| to.room(sender).is_none_or(|room| room >= buffers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_waited_for_a_while_and_then_left_alone_for_longer() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let (mut patience, mut in_vain) = (Patience::default(), InVain::default());
        in_vain.grow(3);
        let need = |port| Some(Need { port, buffers: 7, way_out: false });
        let mut waits = |short, millis| patience.waits(short, &mut in_vain, at(millis));
        assert!(waits(need(1), 0) && waits(need(1), 99));
        assert!(!waits(None, 99), "there is room");
        assert!(waits(need(1), 100) && waits(need(1), 199), "it waits anew");
        // Another one is not blamed for the time that the first took.
        assert!(waits(need(2), 199) && waits(need(1), 250) && waits(need(1), 349));
        assert!(!waits(need(1), 350));
        assert_eq!(
            (patience.waits_for(at(350)), in_vain.has(1, at(1349)), in_vain.has(2, at(350))),
            (None, true, false)
        );
        assert!(!in_vain.has(1, at(1350)));
        assert!(patience.waits(need(2), &mut in_vain, at(400)));
        assert_eq!((patience.waits_for(at(499)), patience.waits_for(at(500))), (need(2), None));
        // A way out is worth more.
        let way_out = Some(Need { port: 0, buffers: 7, way_out: true });
        assert!(
            patience.waits(way_out, &mut in_vain, at(2000))
                && patience.waits(way_out, &mut in_vain, at(2999))
        );
        assert!(!patience.waits(way_out, &mut in_vain, at(3000)));
        assert!(in_vain.has(0, at(12_999)) && !in_vain.has(0, at(13_000)));
    }
}
