//! What a host is told of itself at [`METADATA`](vswitch_core::route::METADATA): its name, its addresses, and who may log in, as cloud-init's NoCloud reads it.
//!
//! TCP is smoltcp's. Who asks is a station of a VLAN: each has a few connections of its own, and what it is told goes back to it and to nobody else, so
//! that no address has to be resolved. A VLAN has so many stations that ask at a time, a connection so many seconds: what is held is bounded for each VLAN.

mod http;
mod seed;
pub(super) mod station;

use seed::Seeds;
use station::Station;
use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};
use vswitch_core::{
    clock::Instant,
    description::Description,
    mac::MacAddr,
    route::{Interface, Routing},
    vlan::VlanId,
};

/// The TCP port of HTTP.
pub(super) const PORT: u16 = 80;

/// Stations of one VLAN that are told something at a time; they are done in milliseconds.
const STATIONS: usize = 8;

/// Where the checksum stands in a TCP segment.
pub(super) const CHECKSUM_AT: usize = 16;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A station of a VLAN.
pub(super) type Asker = (VlanId, MacAddr);

/// All who ask.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    seeds: Seeds,
    stations: BTreeMap<Asker, Station>,
    /// Of all stations: what is theirs are their sockets.
    stack: Option<station::Stack>,
}

/// A TCP segment that is to be sent to a station, and its address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) to: Asker,
    pub(super) address: Ipv4Addr,
    pub(super) bytes: Vec<u8>,
}

impl Metadata {
    /// Tells of this lab from now on.
    pub(super) fn adopt(&mut self, said: &Description, routing: Option<&Routing>) {
        self.seeds = Seeds::of(said, routing);
        let is_told =
            |vlan| routing.and_then(|all| all.interface(vlan)).is_some_and(Interface::tells_metadata);
        self.stations.retain(|(vlan, _), _| is_told(*vlan));
    }

    /// Hears an IPv4 packet for the address and [PORT], whose checksums are right; `opens` tells whether it begins a connection. None: its VLAN has too
    /// many who ask, or it belongs to no connection.
    pub(super) fn hear(
        &mut self,
        asker: Asker,
        packet: &[u8],
        opens: bool,
        now: Instant,
    ) -> Option<Vec<Segment>> {
        if !self.stations.contains_key(&asker) {
            let of_vlan = self.stations.keys().filter(|(vlan, _)| *vlan == asker.0).count();
            if !opens || of_vlan == STATIONS {
                return None;
            }
            self.stations.insert(asker, Station::new());
        }
        self.stations.get_mut(&asker)?.hear(packet);
        Some(self.go_on(asker, now))
    }

    /// Does what is due: says again what was not heard, and ends what takes too long.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Segment> {
        let due = self.stations.iter().filter(|(_, station)| station.due() <= now);
        let due: Vec<_> = due.map(|(asker, _)| *asker).collect();
        due.into_iter().flat_map(|asker| self.go_on(asker, now)).collect()
    }

    /// When there is something to do though nothing is heard.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.stations.values().map(Station::due).min()
    }

    /// How many stations ask.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.stations.len()
    }

    fn go_on(&mut self, asker: Asker, now: Instant) -> Vec<Segment> {
        let Some(station) = self.stations.get_mut(&asker) else { return Vec::new() };
        let stack = self.stack.get_or_insert_with(|| station::Stack::new(now));
        let seeds = &self.seeds;
        let said = station.go_on(stack, |path| seeds.tell(asker, path), now);
        if station.is_done() {
            self.stations.remove(&asker);
        }
        let segment = |(address, bytes)| Segment { to: asker, address, bytes };
        said.into_iter().map(segment).collect()
    }
}
