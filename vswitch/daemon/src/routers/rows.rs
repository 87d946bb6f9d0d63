//! What routers know, as it is shown.

use super::{Key, Speaker, alive::REACHABLE_SECS};
use crate::control::protocol::{NeighbourRow, NeighbourState, RouteKind, RouteRow};
use std::{collections::BTreeMap, time::Duration};
use vswitch_core::{
    clock::Instant,
    route::{Neighbour, Neighbours, Onward, Route, Router, Routing},
};

/// Of neighbours that did not answer at most so many are shown.
const FAILED_SHOWN: usize = 64;

/// All neighbours, and those that are `sought`, rising by VLAN and address.
pub(crate) fn neighbours(
    neighbours: &Neighbours,
    sought: Vec<NeighbourRow>,
    now: Instant,
) -> Vec<NeighbourRow> {
    let row = |Neighbour { vlan, address, mac, heard_secs, used_secs }| NeighbourRow {
        vlan,
        address,
        mac: Some(mac),
        age_secs: heard_secs,
        used_secs,
        state: if heard_secs < REACHABLE_SECS { NeighbourState::Reachable } else { NeighbourState::Stale },
    };
    let mut rows: BTreeMap<_, _> = sought.into_iter().map(|row| ((row.vlan, row.address), row)).collect();
    // Who is known by now is not sought any more.
    rows.extend(neighbours.list(now).into_iter().map(row).map(|row| ((row.vlan, row.address), row)));
    rows.into_values().collect()
}

impl Speaker {
    /// Neighbours that are asked for, and the latest of those that did not answer.
    pub fn sought(&self, now: Instant) -> Vec<NeighbourRow> {
        let row = |(vlan, address): Key, age: Duration, state| NeighbourRow {
            vlan,
            address,
            mac: None,
            // No lab is older than that.
            age_secs: u32::try_from(age.as_secs()).unwrap_or(u32::MAX),
            used_secs: None,
            state,
        };
        let asked = self.asked.iter();
        let asked = asked.map(|(key, asked)| row(*key, now.since(asked.since), NeighbourState::Incomplete));
        let failed = self.failed.latest(FAILED_SHOWN, now);
        asked.chain(failed.map(|(key, age)| row(key, age, NeighbourState::Failed))).collect()
    }
}

/// All routes, router by router.
pub(crate) fn routes(routing: &Routing) -> Vec<RouteRow> {
    let of = |router| Router::routes(router).iter().flat_map(move |route| rows(routing, router, route));
    routing.routers().iter().flat_map(of).collect()
}

/// A route's rows: one for each of its ways. That a network has an address for all is not shown.
fn rows(routing: &Routing, router: &Router, Route { to, onward, origin }: &Route) -> Vec<RouteRow> {
    let row = |kind, via, vlan| RouteRow {
        router: router.name.clone(),
        to: *to,
        kind,
        via,
        vlan,
        line: origin.line,
    };
    match onward {
        Onward::Connected(vlan) => vec![row(RouteKind::Connected, None, Some(*vlan))],
        Onward::Via(ways) => {
            ways.iter().map(|(vlan, via)| row(RouteKind::Static, Some(*via), Some(*vlan))).collect()
        }
        Onward::Own => {
            let is_its = |gateway: &&vswitch_core::route::Interface| {
                gateway.has(to.addr()) && std::ptr::eq(routing.router(gateway), router)
            };
            let gateway = routing.interfaces().iter().find(is_its);
            vec![row(RouteKind::Own, None, gateway.map(|gateway| gateway.said.vlan))]
        }
        Onward::Blackhole => vec![row(RouteKind::Blackhole, None, None)],
        Onward::Broadcast => Vec::new(),
    }
}
