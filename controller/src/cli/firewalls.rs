//! How rules and connections look.

use super::render::{Show, or_dash, table};
use crate::api::types::{DefaultRow, RuleRow, RulesView};
use serde::Serialize;
use std::net::IpAddr;
use vswitch_core::firewall::{
    connections::Ends,
    policy::{Action, Protocol},
    words,
};
use vswitchd::control::protocol::{ConnectionRow, ConnectionTable};

/// A view of the interfaces that were `said`; none: of all.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Of<'a, T> {
    #[serde(skip)]
    pub(super) said: Option<&'a str>,
    pub(super) view: T,
}

impl Show for Of<'_, RulesView> {
    fn table(&self) -> String {
        match self.said {
            // Whoever has a firewall has a row of what holds where no rule decides.
            Some(said) if self.view.defaults.is_empty() => format!("{said} has no firewall"),
            _ => self.view.table(),
        }
    }
}

impl Show for Of<'_, ConnectionTable> {
    fn table(&self) -> String {
        match self.said {
            Some(said) if self.view.entries == 0 => format!("no firewall of {said} knows a connection"),
            _ => self.view.table(),
        }
    }
}

impl Show for RulesView {
    fn table(&self) -> String {
        if self.rules.is_empty() && self.defaults.is_empty() {
            return "no security group has a rule, and no interface a firewall".into();
        }
        let rules = table(
            ["GROUP", "DIRECTION", "MATCHES", "ACTION", "HITS", "SAID", "INTERFACES"],
            self.rules.iter().map(told),
        );
        let defaults = table(
            ["INTERFACE", "GROUPS", "NO RULE: IN", "OUT", "LINK NEEDS: IN", "OUT", "SAID"],
            self.defaults.iter().map(otherwise),
        );
        format!("{rules}\n\n{defaults}")
    }
}

fn told(row: &RuleRow) -> [String; 7] {
    let stateless = if row.stateful { "" } else { " stateless" };
    let log = if row.log { ", logged" } else { "" };
    let matches = if row.matches.is_empty() { "every frame" } else { &row.matches };
    [
        row.group.clone(),
        words::direction(row.direction).into(),
        matches.into(),
        format!("{}{stateless}{log}", words::action(row.action)),
        row.hits.to_string(),
        row.said.clone(),
        or_dash(Some(row.interfaces.join(" ")).filter(|names| !names.is_empty())),
    ]
}

fn otherwise(row: &DefaultRow) -> [String; 7] {
    let counts = &row.counts;
    let groups = if row.groups.is_empty() { "closed".into() } else { row.groups.join(", ") };
    // What is not IP is dropped also where all else may leave.
    let out = match (row.egress, counts.egress_allowed, counts.egress_dropped) {
        (Action::Allow, allowed, 0) => format!("allow {allowed}"),
        (Action::Drop | Action::Reject, 0, dropped) => format!("drop {dropped}"),
        (_, allowed, dropped) => format!("allow {allowed}, drop {dropped}"),
    };
    [
        row.interface.clone(),
        groups,
        format!("drop {}", counts.ingress_dropped),
        out,
        counts.ingress_basic.to_string(),
        counts.egress_basic.to_string(),
        row.said.clone(),
    ]
}

impl Show for ConnectionTable {
    fn table(&self) -> String {
        if self.entries == 0 {
            return "no firewall knows a connection".into();
        }
        let header =
            ["INTERFACE", "VLAN", "PROTOCOL", "INSIDE", "OUTSIDE", "OPENED", "STATE", "AGE", "IDLE", "LEFT"];
        let rows = table(header, self.rows.iter().map(connection));
        match self.entries.saturating_sub(self.rows.len() as u64) {
            0 => rows,
            more => format!("{rows}\nand {more} more: {} in all", self.entries),
        }
    }
}

fn connection(row: &ConnectionRow) -> [String; 10] {
    let port = |address: IpAddr, port: u16| match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    };
    let (inside, outside) = match row.ends {
        Ends::Ports { inside, outside } => (port(row.inside, inside), port(row.outside, outside)),
        Ends::Query { id, .. } => (format!("{} id {id}", row.inside), row.outside.to_string()),
        Ends::Pair => (row.inside.to_string(), row.outside.to_string()),
    };
    let protocol = match row.protocol {
        1 => Some("icmp"),
        number => words::protocol(Protocol::Number(number)),
    };
    let seconds = |seconds: u32| format!("{seconds}s");
    [
        row.interface.clone(),
        row.vlan.to_string(),
        protocol.map_or_else(|| row.protocol.to_string(), Into::into),
        inside,
        outside,
        words::direction(row.opener).into(),
        row.state.name().into(),
        seconds(row.age_secs),
        seconds(row.idle_secs),
        seconds(row.left_secs),
    ]
}
