//! Whether neighbours are still there (RFC 4861 §7.3, for IPv4 as well): who was used and not heard for a while is asked. The table is gone through
//! bit by bit.

use super::{Key, Speaker, TRIES, TRY_EVERY};
use std::time::Duration;
use vswitch_core::{
    clock::Instant,
    mac::MacAddr,
    route::{CAPACITY, Neighbour, Routing},
};

/// How long a neighbour that is used need not be heard (RFC 4861 §10, REACHABLE_TIME).
pub(super) const REACHABLE_SECS: u32 = 30;

/// After what time one that is not used is forgotten.
const UNUSED_SECS: u32 = 600;

/// Neighbours that are asked whether they are there, of all VLANs and of one.
pub(super) const PROBES: usize = 256;
pub(super) const PROBES_OF_ONE: usize = 64;

/// How often a part of the table is looked at, and how large that is: all of it in eight seconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOKED_AT: usize = CAPACITY / 8;

/// A neighbour that is asked whether it is there.
#[derive(Debug)]
pub(super) struct Probe {
    mac: MacAddr,
    tries: u8,
    /// When it is asked again, or forgotten.
    pub(super) due: Instant,
}

/// How far the table was gone through.
#[derive(Debug, Default)]
pub(super) struct Walk {
    place: usize,
    /// When it goes on; none: nobody is known.
    due: Option<Instant>,
    /// Whether anybody was found, this time.
    found: bool,
}

impl Walk {
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// There is somebody to look at.
    pub(super) fn begin(&mut self, now: Instant) {
        self.found = true;
        self.due.get_or_insert(now + LOOK_EVERY);
    }
}

impl Speaker {
    /// Asks a neighbour whether it is there, unless it is asked, or too many are.
    pub(super) fn probe(&mut self, routing: &Routing, (key, mac): (Key, MacAddr), now: Instant) {
        let of_vlan = self.probes.keys().filter(|(vlan, _)| *vlan == key.0).count();
        if self.probes.contains_key(&key) || self.probes.len() >= PROBES || of_vlan >= PROBES_OF_ONE {
            return;
        }
        self.probes.insert(key, Probe { mac, tries: 1, due: now + TRY_EVERY });
        self.ask(routing, key, Some(mac));
    }

    /// Asks again those who did not answer in time, and forgets those who were asked often enough.
    pub(super) fn probe_again(&mut self, routing: &Routing, now: Instant) {
        let due: Vec<Key> =
            self.probes.iter().filter(|(_, probe)| probe.due <= now).map(|(key, _)| *key).collect();
        for key in due {
            let Some(probe) = self.probes.get_mut(&key) else { continue };
            if probe.tries < TRIES {
                probe.tries += 1;
                probe.due = now + TRY_EVERY;
                let mac = probe.mac;
                self.ask(routing, key, Some(mac));
            } else {
                self.probes.remove(&key);
                self.neighbours.forget(key.0, key.1);
                self.counts.gone += 1;
            }
        }
    }

    /// Looks at the next part of the table.
    pub(super) fn go_on(&mut self, routing: &Routing, now: Instant) {
        if self.walk.due.is_none_or(|due| due > now) {
            return;
        }
        let place = self.walk.place;
        for neighbour in self.neighbours.some(place..place + LOOKED_AT, now) {
            self.walk.found = true;
            if let Some(segment) = self.segments.get_mut(&neighbour.vlan) {
                segment.count();
            }
            self.look_at(routing, &neighbour, now);
        }
        self.walk.place = (place + LOOKED_AT) % CAPACITY;
        self.walk.due = Some(now + LOOK_EVERY);
        if self.walk.place == 0 {
            self.segments.values_mut().for_each(super::Segment::counted);
            if !std::mem::take(&mut self.walk.found) {
                self.walk.due = None;
            }
        }
    }

    fn look_at(&mut self, routing: &Routing, neighbour: &Neighbour, now: Instant) {
        let Neighbour { vlan, address, mac, heard_secs, used_secs } = *neighbour;
        if heard_secs >= UNUSED_SECS && used_secs.is_none_or(|used| used >= UNUSED_SECS) {
            self.neighbours.forget(vlan, address);
        } else if heard_secs >= REACHABLE_SECS && used_secs.is_some() {
            self.probe(routing, ((vlan, address), mac), now);
        }
    }
}
