//! What is shown of firewalls: what holds at each interface, and how often which rule decided.

use crate::{
    api::types::{DefaultRow, RuleRow, RulesView},
    failure::{Exit, Failure},
};
use topology::plan::Plan;
use vswitch_core::{
    description::{Description, Firewall, Port},
    firewall::{
        policy::{Action, Direction, GroupId},
        words,
    },
    id::PortId,
};
use vswitchd::control::protocol::RuleHits;

/// What holds at an interface: the names of its security groups, or what the file says of interfaces without any.
pub(super) fn policy(description: &Description, port: &Port) -> String {
    let Some(firewall) = &port.firewall else { return "open".into() };
    match &firewall.groups[..] {
        [] => "closed".into(),
        _ => names(description, firewall).join(", "),
    }
}

/// The ports of the interfaces that `said` names: a node, or `node:interface`. None: all.
pub(super) fn ports_of(plan: &Plan, said: Option<&str>) -> Result<Vec<PortId>, Failure> {
    let all = plan.description.ports.iter().flatten();
    let Some(said) = said else { return Ok(all.map(|port| port.id).collect()) };
    let ports: Vec<_> =
        all.filter(|port| port.node == said || port.name() == said).map(|port| port.id).collect();
    if ports.is_empty() {
        let nodes: Vec<_> = plan.nodes.iter().map(|node| node.name.as_str()).collect();
        return Err(Failure::invalid("no-such-interface", format!("there is no interface `{said}`"))
            .mend(format!("say a node, or node:interface; the nodes are {}", nodes.join(", "))));
    }
    Ok(ports)
}

/// `show rules`: those of the groups that the interfaces have which `said` names; without, all, in file order.
pub(super) fn rules(plan: &Plan, hits: &RuleHits, said: Option<&str>) -> Result<RulesView, Failure> {
    let description = &plan.description;
    let count: usize = description.groups.iter().map(|group| group.rules.len()).sum();
    if hits.epoch != description.epoch || hits.rules.len() != count {
        return Err(Failure::new(Exit::Busy, "busy", "the lab is changing").mend("ask again"));
    }
    let wanted = ports_of(plan, said)?;
    let guarded = || {
        let ports = description.ports.iter().flatten();
        ports.filter_map(|port| Some((port, port.firewall.as_ref()?)))
    };
    let groups: Vec<GroupId> = match said {
        None => (0..description.groups.len() as u16).map(GroupId::new).collect(),
        // As they are asked.
        Some(_) => {
            let own = guarded().filter(|(port, _)| wanted.contains(&port.id));
            let mut groups = Vec::new();
            for group in own.flat_map(|(_, firewall)| &firewall.groups) {
                if !groups.contains(group) {
                    groups.push(*group);
                }
            }
            groups
        }
    };
    let mut rows = Vec::new();
    for id in groups {
        let (before, from) = description.groups.split_at(usize::from(id.index()));
        let Some(group) = from.first() else { continue };
        let first: usize = before.iter().map(|group| group.rules.len()).sum();
        let having = guarded().filter(|(_, firewall)| firewall.groups.contains(&id));
        let interfaces: Vec<_> = having.map(|(port, _)| port.name()).collect();
        rows.extend(group.rules.iter().zip(&hits.rules[first..]).map(|(rule, hits)| RuleRow {
            group: group.name.clone(),
            direction: rule.direction,
            matches: words::matches(&rule.matches, &description.groups),
            action: rule.action,
            stateful: rule.stateful,
            log: rule.log,
            hits: *hits,
            said: format!("{}:{}", description.file, rule.origin.line),
            interfaces: interfaces.clone(),
        }));
    }
    let defaults =
        hits.defaults.iter().filter(|(port, _)| wanted.contains(port)).filter_map(|(id, counts)| {
            let (port, firewall) = guarded().find(|(port, _)| port.id == *id)?;
            Some(DefaultRow {
                interface: port.name(),
                groups: names(description, firewall),
                egress: default_egress(description, firewall),
                counts: *counts,
                said: format!("{}:{}", description.file, firewall.origin.line),
            })
        });
    Ok(RulesView { rules: rows, defaults: defaults.collect() })
}

/// What becomes of what no rule lets out: one that allows something forbids all else.
fn default_egress(description: &Description, firewall: &Firewall) -> Action {
    let groups = firewall.groups.iter().filter_map(|id| description.groups.get(usize::from(id.index())));
    let allows = groups
        .flat_map(|group| &group.rules)
        .any(|rule| rule.direction == Direction::Egress && rule.action == Action::Allow);
    if allows { Action::Drop } else { Action::Allow }
}

fn names(description: &Description, firewall: &Firewall) -> Vec<String> {
    let name = |id: &GroupId| Some(description.groups.get(usize::from(id.index()))?.name.clone());
    firewall.groups.iter().filter_map(name).collect()
}
