//! What nodes answer, in words.

use probe::{
    Answer,
    answer::{Refusal, Unreachable},
};
use topology::plan::{Interface, Node, NodeKind};

/// What the port of an interface whose link is set down is, and what brings it back.
pub fn link_set_down(node: &Node, interface: &Interface) -> String {
    let mut name = node.name.clone();
    if node.interfaces.len() > 1 {
        name = format!("{name}:{}", interface.name);
    }
    format!("its link is set down; `vnet link {name} up` brings it up")
}

/// What is said of a drop below the steps of a trace: those name the rule that decided, so nobody needs another trace for that.
pub(super) fn below_a_trace(said: &str) -> &str {
    said.split_once("; `vnet trace` names").map_or(said, |(said, _)| said)
}

/// Why a private copy of a lab proves nothing at a node, and what does.
pub(super) fn nobody_at(node: &Node) -> String {
    format!(
        "a copy of the lab has nobody at {}, so nothing is proved there: prove it at a netns, station or vm, or in the lab that is up: \
         vnet test --running",
        node.name
    )
}

/// How a node that is not up gets so.
pub(super) fn bring_up(node: &Node) -> String {
    let name = &node.name;
    match &node.kind {
        NodeKind::VhostUser(_) | NodeKind::Stream(_) | NodeKind::Dgram { .. } => {
            format!("no VMM is attached; `vnet export qemu {name}` prints what one needs to attach")
        }
        NodeKind::Station | NodeKind::Vm(_) | NodeKind::Netns { .. } | NodeKind::User => {
            format!("`vnet show nodes` says its state, `vnet logs {name}` what it said last")
        }
        NodeKind::Nic { interface } => format!("`vnet show ports` says why; ip link set dev {interface} up"),
        NodeKind::Pcap { .. } => "`vnet show ports` says what is wrong with its files".into(),
        NodeKind::Tap { .. } => format!("`vnet show ports` says why; set {name}'s interface up: ip link set"),
    }
}

/// Why there is no way to a destination.
pub(super) const fn unreachable(why: Unreachable) -> &'static str {
    match why {
        Unreachable::NoRoute => "no route",
        Unreachable::NoNeighbour => "no ARP or ND answer",
        Unreachable::Rejected => "rejected by an ICMP error",
    }
}

/// An answer to something else than what was asked.
pub(super) fn unexpected(answer: &Answer) -> String {
    match answer {
        Answer::Refused(Refusal::Unsupported) => "this kind of node does not do it".into(),
        Answer::Refused(Refusal::System(why)) => why.clone(),
        other => format!("it answers {other:?}"),
    }
}
