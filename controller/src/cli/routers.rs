//! What routers know and have given, as tables.

use super::render::{Show, or_dash, table};
use vswitchd::control::protocol::{LeaseRow, NeighbourState, NeighbourTable, RouteKind, RouteRow};

impl Show for Vec<RouteRow> {
    fn table(&self) -> String {
        if self.is_empty() {
            return "no VLAN has a gateway".into();
        }
        table(
            ["ROUTER", "TO", "KIND", "VIA", "VLAN", "SAID"],
            self.iter().map(|row| {
                let kind = match row.kind {
                    RouteKind::Connected => "connected",
                    RouteKind::Static => "static",
                    RouteKind::Own => "own",
                    RouteKind::Blackhole => "blackhole",
                };
                [
                    row.router.clone(),
                    row.to.to_string(),
                    kind.into(),
                    or_dash(row.via),
                    or_dash(row.vlan),
                    format!("line {}", row.line),
                ]
            }),
        )
    }
}

impl Show for NeighbourTable {
    fn table(&self) -> String {
        if self.rows.is_empty() {
            return "no router knows a neighbour: who was not spoken to is not asked for".into();
        }
        table(
            ["VLAN", "ADDRESS", "MAC", "STATE", "HEARD", "USED"],
            self.rows.iter().map(|row| {
                let state = match row.state {
                    NeighbourState::Reachable => "reachable",
                    NeighbourState::Stale => "stale",
                };
                [
                    row.vlan.to_string(),
                    row.address.to_string(),
                    row.mac.to_string(),
                    state.into(),
                    format!("{}s ago", row.age_secs),
                    row.used_secs.map_or_else(|| "not since".into(), |secs| format!("{secs}s ago")),
                ]
            }),
        )
    }
}

impl Show for Vec<LeaseRow> {
    fn table(&self) -> String {
        if self.is_empty() {
            return "no gateway has given an address".into();
        }
        table(
            ["VLAN", "ADDRESS", "MAC", "NAME", "STATE", "LEFT"],
            self.iter().map(|row| {
                [
                    row.vlan.to_string(),
                    row.address.to_string(),
                    row.mac.to_string(),
                    or_dash(row.name.as_ref()),
                    if row.is_bound { "bound" } else { "offered or declined" }.into(),
                    format!("{}s", row.left_secs),
                ]
            }),
        )
    }
}
