//! What routers know and have given, as tables.

use super::render::{Show, or_dash, table};
use vswitchd::control::protocol::{
    LeaseState, LeaseTable, NeighbourState, NeighbourTable, RouteKind, RouteRow,
};

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
                    NeighbourState::Incomplete => "incomplete",
                    NeighbourState::Failed => "failed",
                };
                let heard = match row.state {
                    NeighbourState::Reachable | NeighbourState::Stale => format!("{}s ago", row.age_secs),
                    NeighbourState::Incomplete => format!("asked for {}s", row.age_secs),
                    NeighbourState::Failed => format!("given up {}s ago", row.age_secs),
                };
                let used = match row.mac {
                    Some(_) => {
                        row.used_secs.map_or_else(|| "not since".into(), |secs| format!("{secs}s ago"))
                    }
                    None => or_dash(row.used_secs),
                };
                [row.vlan.to_string(), row.address.to_string(), or_dash(row.mac), state.into(), heard, used]
            }),
        )
    }
}

impl Show for LeaseTable {
    fn table(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            let state = match row.state {
                LeaseState::Offered => "offered",
                LeaseState::Bound => "bound",
                LeaseState::Declined => "declined",
                LeaseState::InUse => "in use",
            };
            [
                row.vlan.to_string(),
                row.address.to_string(),
                row.mac.to_string(),
                or_dash(row.name.as_ref()),
                state.into(),
                format!("{}s", row.left_secs),
            ]
        });
        let mut told = match self.rows.is_empty() {
            true => "no gateway has given an address".into(),
            false => table(["VLAN", "ADDRESS", "MAC", "NAME", "STATE", "LEFT"], rows),
        };
        for pool in self.pools.iter().filter(|pool| pool.exhausted > 0) {
            told += &format!(
                "\nVLAN {}: no address of {}-{} was free for a client, {} times; {} are free now",
                pool.vlan, pool.first, pool.last, pool.exhausted, pool.free
            );
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswitch_core::vlan::VlanId;
    use vswitchd::control::protocol::{LeaseRow, NeighbourRow, PoolRow};

    /// The words of each line.
    fn lines(text: &str) -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn what_is_sought_and_what_is_missing_is_shown() {
        let vlan = VlanId::new(10).expect("an id");
        let row = |n: u8, mac: Option<&str>, used_secs, state| NeighbourRow {
            vlan,
            address: [10, 0, 10, n].into(),
            mac: mac.map(|mac| mac.parse().expect("an address")),
            age_secs: 3,
            used_secs,
            state,
        };
        let rows = vec![
            row(7, Some("02:00:00:00:00:07"), Some(1), NeighbourState::Reachable),
            row(8, Some("02:00:00:00:00:08"), None, NeighbourState::Stale),
            row(9, None, None, NeighbourState::Incomplete),
            row(10, None, None, NeighbourState::Failed),
        ];
        let told = NeighbourTable { rows, ..NeighbourTable::default() }.table();
        let expected = [
            "VLAN ADDRESS MAC STATE HEARD USED",
            "10 10.0.10.7 02:00:00:00:00:07 reachable 3s ago 1s ago",
            "10 10.0.10.8 02:00:00:00:00:08 stale 3s ago not since",
            "10 10.0.10.9 - incomplete asked for 3s -",
            "10 10.0.10.10 - failed given up 3s ago -",
        ];
        assert_eq!(lines(&told), expected);
        let lease = LeaseRow {
            vlan,
            address: [10, 0, 10, 50].into(),
            mac: "02:00:00:00:00:07".parse().expect("an address"),
            name: None,
            state: LeaseState::InUse,
            left_secs: 9,
        };
        let pool = |exhausted| PoolRow {
            vlan,
            first: [10, 0, 10, 50].into(),
            last: [10, 0, 10, 50].into(),
            free: 0,
            exhausted,
        };
        let told = LeaseTable { rows: vec![lease], pools: vec![pool(2)] }.table();
        let expected = [
            "VLAN ADDRESS MAC NAME STATE LEFT",
            "10 10.0.10.50 02:00:00:00:00:07 - in use 9s",
            "VLAN 10: no address of 10.0.10.50-10.0.10.50 was free for a client, 2 times; 0 are free now",
        ];
        assert_eq!(lines(&told), expected);
        let told = LeaseTable { rows: vec![], pools: vec![pool(0)] }.table();
        assert_eq!(told, "no gateway has given an address");
    }
}
