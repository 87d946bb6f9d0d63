//! What decided in a firewall: counted, logged where rules say so, and told to who traces.

use super::{By, Examined, Switch, Verdict};
use crate::{
    firewall::{interface::Firewall, log::Entry, policies::Policy, policy::Direction, tuple::Tuple},
    trace::{FilteredBy, Step},
    world::{Port, World},
};

/// Counts, and logs, what rules decided, or what holds where none does.
#[inline(never)]
pub(super) fn count(
    switch: &Switch<'_>,
    (port, firewall, policy): (&Port, &Firewall, &Policy),
    direction: Direction,
    frame: &Examined<'_>,
    by: By,
) {
    match by {
        By::Rules(decision) | By::RulesOfOpener(decision) => match decision.rule {
            Some(place) => {
                let rule = policy.rule(place);
                switch.world.hits().count(rule);
                if let Some((log, sample)) = switch.world.log().zip(switch.world.hits().sample(rule))
                    && let Some(unlogged) = sample.admit(switch.now)
                {
                    let (head, len, action) = (*frame.head(), frame.view.len, decision.action);
                    let entry = Entry { port: port.id, rule, direction, action, head, len, unlogged };
                    if !log.push(entry) {
                        sample.missed(1 + unlogged);
                    }
                }
            }
            None => firewall.defaults.default_of(direction, decision.action).count(),
        },
        By::Basic => firewall.defaults.basic(direction).count(),
        By::Connection { .. }
        | By::NoConnection
        | By::Full
        | By::Rate
        | By::FirstFragment
        | By::Fragment
        | By::MalformedFragment
        | By::OverlappingFragment
        | By::Unparsed => {}
    }
}

/// The step of a frame that has this verdict, with what would let it pass if rules drop it.
pub(super) fn step(
    world: &World,
    (port, firewall, policy): (&Port, &Firewall, &Policy),
    direction: Direction,
    frame: &Examined<'_>,
    verdict: &Verdict,
) -> Step {
    let mut mend = None;
    let by = match verdict.by {
        By::Connection { state, opener } => FilteredBy::Connection { state, opener },
        By::NoConnection => FilteredBy::NoConnection,
        By::Full => FilteredBy::Full,
        By::Rate => FilteredBy::Rate,
        By::Rules(decision) => {
            if let Ok(tuple) = Tuple::of(frame.head()) {
                mend = world.mend((port, firewall, policy), direction, &tuple, &decision);
            }
            FilteredBy::rules(world, policy, decision)
        }
        By::RulesOfOpener(decision) => FilteredBy::rules(world, policy, decision),
        By::Basic => FilteredBy::Basic,
        By::FirstFragment => FilteredBy::FirstFragment,
        By::Fragment => FilteredBy::Fragment,
        By::MalformedFragment => FilteredBy::MalformedFragment,
        By::OverlappingFragment => FilteredBy::OverlappingFragment,
        By::Unparsed => FilteredBy::Unparsed,
    };
    Step::filtered(port, direction, by, verdict.outcome.is_ok(), mend)
}
