//! From checked to compiled: the Plan, in which ids are places in lists.

use crate::{
    check::{
        addresses::{self, Macs},
        datapath, expect,
        groups::Groups,
        guards::{self, Guard},
        hosts::{self, Hosts},
        interfaces::{self, NodeInterface},
        limits,
        links::{self, Checked},
        models,
        names::{self, Names},
        nat, nodes,
        routers::Routers,
        services,
        vlans::Vlans,
        ways_out::WaysOut,
    },
    codes::Code,
    mac::mac_for,
    plan::{Asks, Cpu, Datapath, Interface, Model, Node, NodeKind, Plan, ROUTERS_INTERFACE, ROUTERS_NODE},
    report::{Sink, Span},
    said::{
        lab::Lab,
        read::Said,
        scalar::{GuestMemory, ModelWord, Poll, SshKey, State},
    },
};
use std::{collections::HashMap, path::Path};
use vswitch_core::{
    description::{self, Description, Host, Link, Port, Routing, Switch, Trunk},
    firewall::connections::DEFAULT_CAPACITY,
    id::{Epoch, PortId, SwitchId},
    mac::MacAddr,
};

/// At most this many switches make a lab (see [`Description::switches`]).
const MAX_SWITCHES: usize = 4096;
/// At most this many interfaces make a lab.
const MAX_INTERFACES: usize = 4096;
/// Addresses that may be learned on one port at most, if the file does not say (`limits: { macs: … }`).
const MAC_LIMIT: u32 = 4096;
/// IEEE 802.1Q-2018 table 8-6: the recommended ageing time.
const DEFAULT_AGING_SECS: u32 = 300;

/// Checks what was said and compiles it, by the name that the lab is `called` if it is; none if `sink` was told an error.
pub(crate) fn compile(
    lab: &Lab,
    start: Span,
    (called, file, base): (Option<&str>, &str, &Path),
    sink: &mut Sink,
) -> Option<Plan> {
    let all_read = !sink.failed();
    let said = lab_name(lab, file, sink);
    let name = called.map_or(said, str::to_owned);
    check_size(lab, start, sink)?;
    let names = Names::of(lab, sink);
    let vlans = Vlans::of(lab, sink);
    let links = links::check(lab, &names, &vlans, sink);
    let interfaces = interfaces::check(lab, &links, sink);
    let mut routers = Routers::of(lab, &vlans, all_read, sink);
    addresses::check(&interfaces, &links, &routers, sink);
    let sound = !sink.failed();
    let scope = nat::Scope { names: &names, vlans: &vlans, interfaces: &interfaces, links: &links, sound };
    nat::check(lab, &mut routers, &scope, sink);
    services::find_boot_servers(lab, &mut routers, &scope, sink);
    routers.check_joined(lab, &links, sink);
    datapath::check(lab, sink);
    let mut host = nodes::Host::default();
    let entries = lab.nodes.iter().flat_map(|nodes| &nodes.0);
    let kinds: Vec<Option<NodeKind>> =
        entries.map(|entry| nodes::kind(entry, base, &mut host, sink)).collect();
    nodes::check_queues(&kinds, &interfaces, sink);
    models::check(&interfaces, &kinds, sink);
    if sound {
        check_ssh_keys(lab, &routers, sink);
    }
    let ways_out = WaysOut { interfaces: &interfaces, links: &links, kinds: &kinds };
    if !sink.failed() {
        ways_out.check(&routers, sink);
    }
    let groups = Groups::of(lab, sink);
    let scope = guards::Scope { lab, links: &links, kinds: &kinds, groups: &groups, all_read };
    let guards = guards::check(&interfaces, &scope, sink);
    datapath::check_room(lab, guards.iter().flatten().count(), sink);
    limits::check(&interfaces, &guards, &scope, sink);
    if lab.nodes.as_ref().is_some_and(|nodes| nodes.0.is_empty()) {
        sink.error(Code::MissingKey, start, "the lab has no nodes")
            .help("add one: `pc1: { kind: station, addresses: [10.0.0.1/24] }` under `nodes:`");
    }
    if sink.failed() {
        return None;
    }
    let node_name = |node: usize| {
        let entry = lab.nodes.as_ref().and_then(|nodes| nodes.0.get(node));
        entry.map(|entry| entry.name.clone()).unwrap_or_default()
    };
    groups.fit(&guards, &interfaces, node_name, sink);
    if sink.failed() {
        return None;
    }
    groups.warn(&guards, &interfaces, sink);
    for interface in interfaces.iter().filter(|interface| interface.link.is_none()) {
        let node = node_name(interface.node);
        let what = format!("{node}:{} has no link: it hears nobody, and nobody hears it", interface.name);
        sink.warning(Code::Unlinked, interface.span, what)
            .help(format!("add a link: `- [{node}, SWITCH]` under `links:`"));
    }
    routers.warn(lab, &links, &interfaces, sink);
    let told = Hosts { interfaces: &interfaces, guards: &guards, links: &links, kinds: &kinds };
    hosts::warn(lab, &routers, &told, sink);
    ways_out.warn(lab, &routers, sink);
    let mut nodes = compile_nodes(lab, &name, kinds, &interfaces)?;
    nodes.iter_mut().for_each(|node| tell_gateways(node, &interfaces, &links, &routers));
    distinct_macs(&nodes, (&interfaces, &links), routers_mac(&routers, &name), sink);
    let scope = expect::Scope {
        names: &names,
        interfaces: &interfaces,
        links: &links,
        routers: &routers,
        nodes: &nodes,
    };
    let lines = lab.expect.iter().flatten();
    let expectations = lines.filter_map(|line| expect::check(line, &scope, sink)).flatten().collect();
    let mut ports = ports(&nodes, &interfaces, &guards, &links);
    let keys = ssh_keys(lab);
    let routing = routing(&routers, (&interfaces, &links), keys, &mut ports, &name);
    let description = Description {
        lab: name,
        file: file.to_owned(),
        epoch: Epoch::new(1),
        vlans: vlans.list,
        switches: switches(lab),
        ports,
        groups: groups.list,
        trunks: links.iter().filter_map(trunk).collect(),
        routing,
    };
    (!sink.failed()).then(|| Plan { description, datapath: compile_datapath(lab), nodes, expectations })
}

/// `name:`, or the file's name made into one.
fn lab_name(lab: &Lab, file: &str, sink: &mut Sink) -> String {
    if let Some(name) = &lab.name {
        names::check(&name.value, name.span, sink);
        return name.value.clone();
    }
    let file = Path::new(file).file_name().and_then(|name| name.to_str()).unwrap_or("lab");
    let stem = file.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let name: String =
        stem.trim_start_matches(|c: char| !c.is_ascii_lowercase()).chars().take(31).map(allowed).collect();
    let name = name.trim_end_matches('-');
    if name.is_empty() { "lab".to_owned() } else { name.to_owned() }
}

/// Refuses a lab whose counts do not fit its ids, before anything is done for each of them.
fn check_size(lab: &Lab, start: Span, sink: &mut Sink) -> Option<()> {
    let nodes = lab.nodes.iter().flat_map(|nodes| &nodes.0);
    let listed = |node: &crate::said::lab::Node| node.interfaces.as_ref().map_or(1, |listed| listed.0.len());
    let interfaces: usize = nodes.map(|entry| entry.value.as_ref().map_or(1, listed)).sum();
    let switches = lab.switches.as_ref().map_or(0, |list| list.0.len());
    let links = lab.links.as_ref().map_or(0, Vec::len);
    let counts = [
        (switches, MAX_SWITCHES, "switches"),
        (interfaces, MAX_INTERFACES, "interfaces"),
        (links, MAX_SWITCHES + MAX_INTERFACES, "links"),
    ];
    for (count, most, what) in counts {
        if count > most {
            sink.error(Code::TooMany, start, format!("the lab has {count} {what}, more than {most}"));
        }
    }
    counts.iter().all(|(count, most, _)| count <= most).then_some(())
}

fn compile_datapath(lab: &Lab) -> Datapath {
    let said = lab.datapath.clone().unwrap_or_default();
    Datapath {
        workers: said.workers.map_or(1, |workers| workers.value.0),
        cpus: said
            .cpus
            .iter()
            .flatten()
            .map(|cpu| Cpu { number: cpu.value.0, origin: cpu.span.origin })
            .collect(),
        always_poll: said.poll.is_some_and(|poll| poll.value == Poll::Always),
        connections: said.connections.map_or(DEFAULT_CAPACITY, |connections| connections.value.0),
    }
}

/// The id of the interface in place `place`; [`check_size`] bounds it.
fn port_id(place: usize) -> PortId {
    PortId::new(u16::try_from(place).unwrap_or(u16::MAX), 0)
}

fn switch_id(place: usize) -> SwitchId {
    SwitchId::new(u16::try_from(place).unwrap_or(u16::MAX))
}

fn compile_nodes(
    lab: &Lab,
    lab_name: &str,
    kinds: Vec<Option<NodeKind>>,
    interfaces: &[NodeInterface],
) -> Option<Vec<Node>> {
    let entries = lab.nodes.iter().flat_map(|nodes| &nodes.0);
    let node = |(place, (entry, kind)): (usize, (&crate::said::read::Entry<_>, Option<NodeKind>))| {
        let kind = kind?;
        let own = interfaces.iter().enumerate().filter(|(_, interface)| interface.node == place);
        let own = own.map(|(port, said)| interface(port, said, lab_name, &entry.name, &kind)).collect();
        Some(Node { name: entry.name.clone(), kind, interfaces: own, origin: entry.span.origin })
    };
    entries.zip(kinds).enumerate().map(node).collect()
}

/// Tells a node its default gateways (in each family that of its first interface that has one), what its interfaces are to ask for, and whether a gateway tells
/// of it.
fn tell_gateways(node: &mut Node, interfaces: &[NodeInterface], links: &[Checked], routers: &Routers) {
    let mut told = [false; 2];
    for interface in &mut node.interfaces {
        let link = interfaces[usize::from(interface.port.index())].link;
        let Some(vlan) = link.and_then(|link| links[link].untagged()) else { continue };
        if let Some((_, gateway)) = routers.of_vlan(vlan) {
            let has = |v4: bool| interface.addresses.iter().any(|own| own.addr().is_ipv4() == v4);
            interface.asks =
                Asks { dhcp: gateway.dhcp().is_some() && !has(true), ra: gateway.ra && !has(false) };
        }
        for own in &interface.addresses {
            let told = &mut told[usize::from(own.addr().is_ipv6())];
            if let Some(gateway) = routers.gateway_for(vlan, own.addr()).filter(|_| !*told) {
                interface.gateways.push(gateway);
                *told = true;
            }
        }
        if let NodeKind::Vm(vm) = &mut node.kind {
            vm.metadata |= routers.of_vlan(vlan).is_some_and(|(_, gateway)| gateway.dhcp().is_some());
        }
    }
}

fn interface(port: usize, found: &NodeInterface, lab: &str, node: &str, kind: &NodeKind) -> Interface {
    let said = &found.said;
    let stated = said.mac.as_ref().map(|mac| mac.value.0);
    // A tap's address is the host's affair, and behind a nic or in a file may be many. A foreign VMM is told ours by `vnet export`, so it has one here.
    let given = || {
        (!matches!(kind, NodeKind::Tap { .. } | NodeKind::Nic { .. } | NodeKind::Pcap { .. }))
            .then(|| mac_for(lab, node, &found.name))
    };
    Interface {
        name: found.name.clone(),
        port: port_id(port),
        mac: stated.or_else(given),
        addresses: said.addresses.iter().flatten().map(|address| address.value.0).collect(),
        gateways: Vec::new(),
        asks: Asks::default(),
        mtu: said.mtu.as_ref().map(|mtu| mtu.value.0),
        queues: said.queues.as_ref().map_or(1, |queues| queues.value.0),
        model: said.model.as_ref().map_or(Model::Virtio, |model| model_of(model.value)),
        sealed_memory: said.guest_memory.as_ref().is_some_and(|memory| memory.value == GuestMemory::Sealed),
        link_down: matches!(kind, NodeKind::Vm(_)) && is_down(found),
    }
}

/// `state: down`.
fn is_down(found: &NodeInterface) -> bool {
    found.said.state.as_ref().is_some_and(|state| state.value == State::Down)
}

pub(crate) fn model_of(word: ModelWord) -> Model {
    match word {
        ModelWord::Virtio => Model::Virtio,
        ModelWord::E1000 => Model::E1000,
        ModelWord::E1000e => Model::E1000e,
        ModelWord::Rtl8139 => Model::Rtl8139,
    }
}

/// A stated address may equal a hashed one (by chance once in 2^40, or by copying from `show`).
fn distinct_macs(
    nodes: &[Node],
    (interfaces, links): (&[NodeInterface], &[Checked]),
    routers: Option<(MacAddr, Span)>,
    sink: &mut Sink,
) {
    let mut macs = Macs::default();
    routers.into_iter().for_each(|(mac, span)| macs.add(mac, None, span, sink));
    for interface in nodes.iter().flat_map(|node| &node.interfaces) {
        let Some(mac) = interface.mac else { continue };
        let found = &interfaces[usize::from(interface.port.index())];
        let span = found.said.mac.as_ref().map_or(found.span, |mac| mac.span);
        macs.add(mac, found.link.and_then(|link| links[link].only()), span, sink);
    }
}

/// The address that the routers of a lab have in all VLANs, and where the first of them is said.
fn routers_mac(routers: &Routers, lab: &str) -> Option<(MacAddr, Span)> {
    let first = routers.gateways().map(|gateway| gateway.span).min_by_key(|span| span.start)?;
    Some((mac_for(lab, ROUTERS_NODE, ROUTERS_INTERFACE), first))
}

/// What the switch is told of routers; their port is put behind those of all nodes.
fn routing(
    routers: &Routers,
    (interfaces, links): (&[NodeInterface], &[Checked]),
    ssh_keys: Vec<description::SshKey>,
    ports: &mut Vec<Option<Port>>,
    lab: &str,
) -> Option<Routing> {
    let (mac, first) = routers_mac(routers, lab)?;
    let host = |(interface, port): (&NodeInterface, &Option<Port>)| {
        let (port, vlan) = (port.as_ref()?, links[interface.link?].untagged()?);
        let addresses: Vec<_> = interface.said.addresses.iter().flatten().map(|said| said.value.0).collect();
        (!addresses.is_empty()).then(|| Host { vlan, name: port.node.clone(), mac: port.mac, addresses })
    };
    let hosts = interfaces.iter().zip(&*ports).filter_map(host).collect();
    let port = Port {
        id: port_id(ports.len()),
        node: ROUTERS_NODE.to_owned(),
        interface: ROUTERS_INTERFACE.to_owned(),
        mac: Some(mac),
        mtu: None,
        queues: 1,
        mac_limit: MAC_LIMIT,
        sealed_memory: false,
        way_out: false,
        firewall: None,
        limits: None,
        up: true,
        link: Link::Routers,
        origin: first.origin,
        link_origin: None,
    };
    let mut compiled = routers.compile();
    for dhcp in
        compiled.iter_mut().flat_map(|router| &mut router.gateways).filter_map(|own| own.dhcp.as_mut())
    {
        // Clients make the first alone of a short name else, and the lab's names are in the second.
        if let Some(domain) = dhcp.domain.clone().filter(|_| dhcp.search.is_empty()) {
            dhcp.search = vec![domain, format!("{lab}.internal")];
            dhcp.search.dedup();
        }
    }
    let routing = Routing { port: port.id, routers: compiled, hosts, ssh_keys };
    ports.push(Some(port));
    Some(routing)
}

/// Who may log in: to all nodes, then to each.
fn ssh_keys(lab: &Lab) -> Vec<description::SshKey> {
    let keys = |said: &Option<Said<Vec<Said<SshKey>>>>, node: Option<&str>| {
        let key = |said: &Said<SshKey>| description::SshKey {
            node: node.map(str::to_owned),
            key: said.value.0.clone(),
        };
        said.iter().flat_map(|said| &said.value).map(key).collect::<Vec<_>>()
    };
    let nodes = lab.nodes.iter().flat_map(|nodes| &nodes.0);
    let of_nodes = nodes.filter_map(|entry| Some(keys(&entry.value.as_ref()?.ssh_keys, Some(&entry.name))));
    keys(&lab.ssh_keys, None).into_iter().chain(of_nodes.flatten()).collect()
}

/// Refuses keys that nobody is told.
fn check_ssh_keys(lab: &Lab, routers: &Routers, sink: &mut Sink) {
    if routers.gateways().any(|gateway| gateway.dhcp().is_some()) {
        return;
    }
    let nodes = lab.nodes.iter().flat_map(|nodes| &nodes.0);
    let of_nodes = nodes.filter_map(|entry| entry.value.as_ref()?.ssh_keys.as_ref());
    if let Some(said) = lab.ssh_keys.iter().chain(of_nodes).next() {
        let what = "gateways that give addresses tell nodes of `ssh-keys`, and there is none";
        sink.error(Code::NeedsKey, said.span, what).help("add `dhcp: true` to the VLAN of the nodes");
    }
}

fn switches(lab: &Lab) -> Vec<Switch> {
    let entries = lab.switches.iter().flat_map(|switches| &switches.0).enumerate();
    entries
        .map(|(place, entry)| Switch {
            id: switch_id(place),
            name: entry.name.clone(),
            mac_aging_secs: entry
                .value
                .as_ref()
                .and_then(|switch| switch.mac_aging.as_ref())
                .map_or(DEFAULT_AGING_SECS, |age| age.value.0),
            origin: entry.span.origin,
        })
        .collect()
}

fn ports(
    nodes: &[Node],
    interfaces: &[NodeInterface],
    guards: &[Option<Guard>],
    links: &[Checked],
) -> Vec<Option<Port>> {
    let places: HashMap<(usize, &str), usize> = interfaces
        .iter()
        .enumerate()
        .map(|(place, interface)| ((interface.node, interface.name.as_str()), place))
        .collect();
    let compiled: HashMap<PortId, &Interface> =
        nodes.iter().flat_map(|node| &node.interfaces).map(|interface| (interface.port, interface)).collect();
    interfaces
        .iter()
        .zip(guards)
        .enumerate()
        .map(|(place, (found, guard))| {
            let interface = compiled.get(&port_id(place))?;
            let node = &nodes[found.node];
            // A static FDB entry: only for a guest that we start with this address, or if the file vouches for it. A foreign
            // VMM may come with an address of its own, and is learned.
            let known = matches!(
                node.kind,
                NodeKind::Vm(_) | NodeKind::Station | NodeKind::Netns { .. } | NodeKind::User
            ) || found.said.mac.is_some();
            Some(Port {
                id: port_id(place),
                node: node.name.clone(),
                interface: found.name.clone(),
                mac: interface.mac.filter(|_| known),
                mtu: interface.mtu,
                queues: interface.queues,
                firewall: guard.as_ref().map(|guard| guard.firewall(interface.mac, &interface.addresses)),
                limits: found.said.limits.as_ref().and_then(limits::compile),
                mac_limit: found
                    .said
                    .limits
                    .as_ref()
                    .and_then(|limits| limits.value.macs.as_ref())
                    .map_or(MAC_LIMIT, |macs| macs.value.0),
                sealed_memory: interface.sealed_memory,
                way_out: matches!(node.kind, NodeKind::User),
                // Of a virtual machine that we start the link is down, and its port serves its VMM.
                up: interface.link_down || !is_down(found),
                link: found.link.map_or(Link::None, |link| port_link(&links[link], place, &places)),
                origin: found.span.origin,
                link_origin: found.link.map(|link| links[link].span().origin),
            })
        })
        .collect()
}

/// What the port in `place` is linked to by `link`.
fn port_link(link: &Checked, place: usize, places: &HashMap<(usize, &str), usize>) -> Link {
    match link {
        Checked::Attach { switch, vlans, .. } => {
            Link::Switch { switch: switch_id(*switch), vlans: vlans.clone() }
        }
        Checked::Wire { ends, .. } => {
            let mut ends = ends.iter().filter_map(|end| places.get(&(end.node, end.interface.as_str())));
            ends.find(|end| **end != place).map_or(Link::None, |peer| Link::Wire { peer: port_id(*peer) })
        }
        Checked::Trunk { .. } => Link::None,
    }
}

fn trunk(link: &Checked) -> Option<Trunk> {
    match link {
        Checked::Trunk { ends: [a, b], vlans, span } => {
            Some(Trunk { ends: [switch_id(*a), switch_id(*b)], vlans: vlans.clone(), origin: span.origin })
        }
        Checked::Attach { .. } | Checked::Wire { .. } => None,
    }
}
