//! What is shown of a lab: pure functions from its plan and a snapshot to the rows of the API.

use super::{
    firewalls,
    ports::{Ports, is_of_host, socket},
    rundir::LabDir,
    running::NodeStatus,
};
use crate::{
    api::types::{
        DatapathView, DropRow, ExportRequest, ExportView, LinkRow, NodeRow, NodeState, PortRow, VlanRow,
    },
    expect::words::link_set_down,
    failure::Failure,
    vm::{
        accel,
        export::{self, Attachment},
    },
};
use std::collections::{BTreeMap, BTreeSet};
use topology::plan::{NodeKind, Plan};
use vswitch_core::{
    description::{Description, Link, Membership, Port},
    id::{PortId, SwitchId},
    vlan::VlanId,
};
use vswitchd::control::protocol::{PortState, PortView, Snapshot};

/// `show ports`.
pub(super) fn ports(
    plan: &Plan,
    snapshot: &Snapshot,
    (nodes, links_down): (&BTreeMap<String, NodeStatus>, &BTreeSet<PortId>),
    dir: &LabDir,
) -> Vec<PortRow> {
    let description = &plan.description;
    let rows = snapshot.ports.iter().filter_map(|view| {
        let port = port(description, view.port)?;
        if port.link == Link::Routers {
            return Some(routers_port(description, port, view));
        }
        let node = plan.nodes.iter().find(|node| node.name == port.node)?;
        let interface = node.interfaces.iter().find(|interface| interface.port == view.port)?;
        // What became of the node says more than that nobody answers at its socket.
        let ended = nodes.get(&node.name).filter(|status| status.state == NodeState::Ended);
        let broken = view.state == PortState::Faulted && is_of_host(&node.kind);
        let again = if broken { "; `vnet up` of the same file opens it again" } else { "" };
        let (state, detail) = match ended {
            Some(status) => (view.state, format!("{}: {}", node.name, status.detail)),
            // What its driver makes of that, if one runs, is its own affair.
            None if links_down.contains(&view.port) => (PortState::Down, link_set_down(node, interface)),
            None => (view.state, format!("{}{again}", view.detail)),
        };
        Some(PortRow {
            port: port.name(),
            link: match &port.link {
                Link::None | Link::Routers => None,
                Link::Switch { switch, .. } => Some(switch_name(description, *switch)),
                Link::Wire { peer } => self::port(description, *peer).map(Port::name),
            },
            vlan: link_words(description, &port.link),
            mac: interface.mac,
            state,
            detail,
            policy: firewalls::policy(description, port),
            socket: socket(node, interface, dir).map(|(_, path)| path),
            features: view.features,
            rings: view.rings.clone(),
            ring_frames: view.ring_frames.clone(),
            counters: view.counters.clone(),
        })
    });
    rows.collect()
}

/// The port of the routers, which nobody connects to.
fn routers_port(description: &Description, port: &Port, view: &PortView) -> PortRow {
    PortRow {
        port: port.name(),
        link: None,
        vlan: link_words(description, &port.link),
        mac: port.mac,
        state: view.state,
        detail: view.detail.clone(),
        policy: firewalls::policy(description, port),
        socket: None,
        features: view.features,
        rings: view.rings.clone(),
        ring_frames: view.ring_frames.clone(),
        counters: view.counters.clone(),
    }
}

/// `export`.
pub(super) fn export(plan: &Plan, request: &ExportRequest, dir: &LabDir) -> Result<ExportView, Failure> {
    let node = plan.nodes.iter().find(|node| node.name == request.node);
    let node = node.ok_or_else(|| {
        let message = format!("there is no node `{}`", request.node);
        Failure::invalid("no-such-node", message).mend("`vnet show nodes` lists the nodes")
    })?;
    let needs_none = match node.kind {
        NodeKind::VhostUser(_) | NodeKind::Stream(_) | NodeKind::Dgram { .. } => None,
        NodeKind::Station => Some("is a station: vnet runs it, and it needs no VMM"),
        NodeKind::Vm(_) => Some("is a virtual machine that vnet starts: it has its VMM"),
        NodeKind::Tap { .. } => Some("is a tap: it needs no VMM"),
        NodeKind::Pcap { .. } => Some("is capture files: it needs no VMM"),
        NodeKind::Nic { .. } => Some("is an interface of this machine: it needs no VMM"),
        NodeKind::Netns { .. } => Some("is a network namespace: it needs no VMM"),
        NodeKind::User => Some("is a way out, which vnet runs: it needs no VMM"),
    };
    if let Some(why) = needs_none {
        return Err(Failure::invalid("export", format!("{} {why}", node.name))
            .mend("a VMM of your own attaches to a node of kind `vhost-user`, `stream` or `dgram`"));
    }
    let sockets: Vec<_> = node.interfaces.iter().filter_map(|i| Some((i, socket(node, i, dir)?))).collect();
    let attachments: Vec<_> = sockets
        .iter()
        .map(|(interface, (role, socket))| Attachment { interface, socket, role: *role })
        .collect();
    let export = match (request.vmm.as_str(), &node.kind) {
        ("libvirt", NodeKind::Stream(_) | NodeKind::Dgram { .. }) => Err(export::ExportError::NoStream),
        ("libvirt", _) => export::libvirt(&attachments),
        (_, NodeKind::Stream(_)) => export::qemu_stream(&attachments),
        (_, NodeKind::Dgram { remote, .. }) => export::qemu_dgram(&attachments, remote),
        _ => export::qemu(&attachments, request.memory, accel::decide().accel),
    };
    let export::Export { arguments, remarks } = export.map_err(|why| Failure::invalid("export", why))?;
    Ok(ExportView { arguments, remarks })
}

/// `show drops`.
pub(super) fn drops(snapshot: &Snapshot) -> Vec<DropRow> {
    let mut rows = Vec::new();
    for view in &snapshot.ports {
        let sides =
            [("from_port", &view.counters.from_port.dropped), ("to_port", &view.counters.to_port.dropped)];
        for (direction, dropped) in sides {
            rows.extend(dropped.iter().map(|(reason, frames)| DropRow {
                port: format!("{}:{}", view.node, view.interface),
                direction: direction.into(),
                reason: *reason,
                frames: *frames,
                what: reason.what().into(),
                mend: reason.mend().into(),
            }));
        }
    }
    rows
}

/// `show datapath`.
pub(super) fn datapath(snapshot: Snapshot, pid: u32, restarts: u32) -> DatapathView {
    DatapathView {
        epoch: snapshot.epoch.map(vswitch_core::id::Epoch::number),
        pid,
        restarts,
        workers: snapshot.workers,
        fdb: snapshot.fdb,
    }
}

/// `show nodes`.
pub(super) fn nodes(
    plan: &Plan,
    status: &BTreeMap<String, NodeStatus>,
    ports: Option<&Ports>,
) -> Vec<NodeRow> {
    let rows = plan.nodes.iter().map(|node| {
        let now = status.get(&node.name);
        NodeRow {
            node: node.name.clone(),
            kind: node.kind.word().into(),
            state: now.map_or(NodeState::Starting, |now| now.state),
            detail: now.map(|now| now.detail.clone()).unwrap_or_default(),
            pid: now.and_then(|now| now.pid),
            host: ports.map(|ports| ports.host(node)).unwrap_or_default(),
            interfaces: node.interfaces.iter().map(|i| (i.name.clone(), i.addresses.clone())).collect(),
        }
    });
    rows.collect()
}

/// `show links`.
pub(super) fn links(plan: &Plan) -> Vec<LinkRow> {
    let description = &plan.description;
    let said = |line: u32| format!("{}:{line}", description.file);
    let mut rows = Vec::new();
    for port in description.ports.iter().flatten() {
        let Some(origin) = port.link_origin else { continue };
        let other = match &port.link {
            Link::None | Link::Routers => continue,
            Link::Switch { switch, .. } => switch_name(description, *switch),
            // A wire has two ports and is one link.
            Link::Wire { peer } if peer.index() < port.id.index() => continue,
            Link::Wire { peer } => self::port(description, *peer).map(Port::name).unwrap_or_default(),
        };
        let vlan = link_words(description, &port.link);
        rows.push(LinkRow { ends: [port.name(), other], vlan, said: said(origin.line) });
    }
    rows.extend(description.trunks.iter().map(|trunk| LinkRow {
        ends: trunk.ends.map(|switch| switch_name(description, switch)),
        vlan: membership_words(description, &trunk.vlans),
        said: said(trunk.origin.line),
    }));
    rows
}

/// `show vlans`: who carries each VLAN, switch by switch.
pub(super) fn vlans(plan: &Plan) -> Vec<VlanRow> {
    let description = &plan.description;
    let mut rows = Vec::new();
    for switch in &description.switches {
        for vlan in &description.vlans {
            let (mut untagged, mut tagged) = (Vec::new(), Vec::new());
            let mut sort = |name: String, membership: &Membership| match carries(membership, vlan.id) {
                Some(true) => tagged.push(name),
                Some(false) => untagged.push(name),
                None => {}
            };
            for port in description.ports.iter().flatten() {
                if let Link::Switch { switch: of, vlans } = &port.link
                    && *of == switch.id
                {
                    sort(port.name(), vlans);
                }
            }
            for trunk in description.trunks.iter().filter(|trunk| trunk.ends.contains(&switch.id)) {
                let other = trunk.ends.iter().find(|end| **end != switch.id).copied().unwrap_or(switch.id);
                sort(switch_name(description, other), &trunk.vlans);
            }
            let (name, switch) = (vlan.name.clone(), switch.name.clone());
            rows.push(VlanRow { id: vlan.id.number(), name, switch, untagged, tagged });
        }
    }
    rows
}

/// Whether a membership carries a VLAN, and if so whether tagged.
fn carries(membership: &Membership, vlan: VlanId) -> Option<bool> {
    match membership {
        Membership::Access(access) => (*access == vlan).then_some(false),
        Membership::Trunk { vlans, native } => vlans.contains(vlan).then_some(*native != Some(vlan)),
    }
}

fn link_words(description: &Description, link: &Link) -> String {
    match link {
        Link::None => "no link".into(),
        Link::Wire { .. } => "wire".into(),
        Link::Routers => "routers".into(),
        Link::Switch { vlans, .. } => membership_words(description, vlans),
    }
}

fn membership_words(description: &Description, membership: &Membership) -> String {
    let name = |id: VlanId| {
        let named = description.vlans.iter().find(|vlan| vlan.id == id);
        named.map_or_else(|| id.to_string(), |vlan| vlan.name.clone())
    };
    match membership {
        Membership::Access(vlan) => format!("access {}", name(*vlan)),
        Membership::Trunk { vlans, native } => {
            let tagged: Vec<_> = vlans.iter().filter(|vlan| Some(*vlan) != *native).map(name).collect();
            match native {
                Some(native) => format!("trunk {} native {}", tagged.join(", "), name(*native)),
                None => format!("trunk {}", tagged.join(", ")),
            }
        }
    }
}

fn switch_name(description: &Description, id: SwitchId) -> String {
    description.switches.get(usize::from(id.index())).map(|switch| switch.name.clone()).unwrap_or_default()
}

fn port(description: &Description, id: PortId) -> Option<&Port> {
    description.ports.get(usize::from(id.index()))?.as_ref().filter(|port| port.id == id)
}
