//! What would have to be said in the file for a frame to pass that rules drop.

use super::{
    classify::Decision,
    policies::Policy,
    policy::{Action, Direction, Family, Match, PortRange, Protocol, Remote, Rule},
    tuple::{IpTuple, Service, Tuple},
    words,
};
use crate::description::Origin;

/// Where the line is to stand.
pub(crate) struct Place<'a> {
    /// `node:interface`.
    pub(crate) interface: &'a str,
    /// Its security groups.
    pub(crate) groups: &'a [String],
    /// The line of the rule that decided; none: no rule did.
    pub(crate) line: Option<u32>,
}

/// A rule that allows what this frame is, from and to whom it is, and nothing more that rules can tell apart.
pub fn rule(direction: Direction, tuple: &Tuple) -> Rule {
    let matches = match tuple {
        Tuple::Other { ethertype } => Match { family: Family::EtherType(*ethertype), ..Match::default() },
        Tuple::Ip(ip @ IpTuple { protocol, service, .. }) => {
            let (protocol, ports) = match service {
                // Port 0 is none that a rule can name.
                Service::Ports { dst, .. } if *dst > 0 => {
                    (Protocol::Number(*protocol), vec![PortRange { first: *dst, last: *dst }])
                }
                Service::Icmp { .. } => (Protocol::Icmp, Vec::new()),
                Service::Ports { .. } | Service::None | Service::Unread => {
                    (Protocol::Number(*protocol), Vec::new())
                }
            };
            let remote = Remote::Networks(vec![ip.remote(direction).into()]);
            Match { protocol, ports, remote, ..Match::default() }
        }
    };
    allow(direction, matches)
}

fn allow(direction: Direction, matches: Match) -> Rule {
    Rule {
        direction,
        action: Action::Allow,
        stateful: true,
        log: false,
        matches,
        origin: Origin { line: 0, column: 0 },
    }
}

/// What would let a frame pass that the rules of `policy`, or their default, drop by `decision`.
pub(crate) fn words(
    policy: &Policy,
    direction: Direction,
    tuple: &Tuple,
    decision: &Decision,
    place: &Place<'_>,
) -> Option<String> {
    if decision.action == Action::Allow {
        return None;
    }
    let line = |rule: &Rule| format!("`- {}`", words::rule(rule, &[]));
    let (own, all) = (line(&rule(direction, tuple)), line(&allow(direction, Match::default())));
    // One that allows something would be the first, and forbid what the default allows.
    let was_open = policy.classifier(direction).default_action() == Action::Allow;
    let whereto = match place.groups {
        [] => format!("in a security group for {}, which has none", place.interface),
        groups => format!("in a security group of {} ({})", place.interface, groups.join(", ")),
    };
    Some(match (place.line, was_open) {
        (None, false) => format!("would pass with {own} {whereto}"),
        // What is not IP needs a rule where IP needs none.
        (None, true) => format!("would pass with {all} {whereto}, which lets everything out"),
        (Some(line), false) => format!("would pass with {own} before line {line}"),
        (Some(line), true) => format!(
            "would pass with {own} before line {line}, and {all} as the last rule: without that, nothing else could leave"
        ),
    })
}
