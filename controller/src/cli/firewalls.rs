//! How rules and connections look.

use super::render::{Show, or_dash, table};
use crate::api::types::{DefaultRow, RuleRow, RulesView};
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};
use vswitch_core::firewall::{
    connections::Ends,
    policy::{Action, Direction, Protocol},
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
            return "no firewall knows a connection, and no router translates one".into();
        }
        let header = [
            "INTERFACE",
            "VLAN",
            "PROTOCOL",
            "INSIDE",
            "OUTSIDE",
            "OPENED",
            "STATE",
            "AGE",
            "IDLE",
            "LEFT",
            "TRANSLATED",
        ];
        let rows = table(header, self.rows.iter().map(connection));
        match self.entries.saturating_sub(self.rows.len() as u64) {
            0 => rows,
            more => format!("{rows}\nand {more} more: {} in all", self.entries),
        }
    }
}

fn connection(row: &ConnectionRow) -> [String; 11] {
    let (inside, outside) = both(row.inside, row.outside, row.ends);
    // As the packet goes on whose answers come back so.
    let translated = row.inverse.map(|inverse| {
        let (from, to) = inverse.hosts.pair();
        let (from, to) = both(from, to, inverse.ends);
        format!("{to} > {from}")
    });
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
        or_dash(translated),
    ]
}

/// Both ends of a connection.
fn both(inside: IpAddr, outside: IpAddr, ends: Ends) -> (String, String) {
    match ends {
        Ends::Ports { inside: of_inside, outside: of_outside } => {
            (SocketAddr::new(inside, of_inside).to_string(), SocketAddr::new(outside, of_outside).to_string())
        }
        Ends::Query { id, asked: Direction::Egress, .. } => {
            (format!("{inside} id {id}"), outside.to_string())
        }
        Ends::Query { id, asked: Direction::Ingress, .. } => {
            (inside.to_string(), format!("{outside} id {id}"))
        }
        Ends::Pair => (inside.to_string(), outside.to_string()),
    }
}
