//! Of which ends there was no free port a moment ago: who looks for one there looks at fewer, so that a flood of new connections to one of them costs little.

use super::{Connections, Digest};
use crate::clock::Instant;
use std::sync::atomic::{AtomicU32, Ordering};

/// Places in which that is remembered. Ends that share one are looked at less thoroughly for a second without need: where most of
/// their ports are taken too, they may miss one that is free.
const PLACES: usize = 256;

/// When there was none last, in seconds, and 1: by place.
#[derive(Debug)]
pub(super) struct Scarce([AtomicU32; PLACES]);

impl Scarce {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; PLACES])
    }

    fn at(&self, ends: Digest) -> &AtomicU32 {
        &self.0[(ends.any() % PLACES as u64) as usize]
    }
}

impl Connections {
    /// Whether no port was free this second of ends that have this digest without one.
    pub fn is_scarce(&self, ends: Digest, now: Instant) -> bool {
        self.scarce.at(ends).load(Ordering::Relaxed) == super::second(now).wrapping_add(1)
    }

    /// Notes that none was.
    pub fn note_scarce(&self, ends: Digest, now: Instant) {
        self.scarce.at(ends).store(super::second(now).wrapping_add(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::connections::{Config, Secret, Timeouts};

    #[test]
    fn that_there_was_none_is_known_for_its_second_and_of_those_ends() {
        let config = Config { capacity: 1024, ports: 1, timeouts: Timeouts::DEFAULT };
        let connections = Connections::new(config, Secret::new([7; 16]));
        let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
        let [one, other] = [1, 2].map(|check| Digest { place: 1, check });
        assert!(!connections.is_scarce(one, at(0)), "nothing is known at first");
        connections.note_scarce(one, at(5100));
        assert!(connections.is_scarce(one, at(5900)) && !connections.is_scarce(other, at(5900)));
        assert!(!connections.is_scarce(one, at(6000)), "then it is looked for in earnest again");
    }
}
