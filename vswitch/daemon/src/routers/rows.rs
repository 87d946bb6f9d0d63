//! What routers know, as it is shown.

use super::alive::REACHABLE_SECS;
use crate::control::protocol::{NeighbourRow, NeighbourState, RouteKind, RouteRow};
use vswitch_core::{
    clock::Instant,
    route::{Neighbour, Neighbours, Onward, Route, Router, Routing},
};

/// All neighbours, rising by VLAN and address.
pub(crate) fn neighbours(neighbours: &Neighbours, now: Instant) -> Vec<NeighbourRow> {
    let mut known = neighbours.list(now);
    known.sort_by_key(|neighbour| (neighbour.vlan, neighbour.address));
    let row = |Neighbour { vlan, address, mac, heard_secs, used_secs }| NeighbourRow {
        vlan,
        address,
        mac,
        age_secs: heard_secs,
        used_secs,
        state: if heard_secs < REACHABLE_SECS { NeighbourState::Reachable } else { NeighbourState::Stale },
    };
    known.into_iter().map(row).collect()
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
