//! From a description to a World: every reference is resolved here, or named in an error.

use super::{Domain, Hop, HopId, MAX_PORTS, MAX_SWITCHES, Port, Role, Switch, World};
use crate::{
    description::{self, Description, Link, Membership},
    firewall::{
        hits::RuleHits,
        interface::{Firewall, Identity, PolicyFault},
        log::Log,
        policies::{Policies, PolicyError},
        policy::GroupId,
    },
    id::SwitchId,
    limits::Limits,
    mac::MacAddr,
    route::Routing,
    vlan::{VlanId, VlanSet},
};
use ipnet::IpNet;
use std::{collections::BTreeMap, fmt, sync::Arc};

/// A description that cannot be a World.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileError {
    /// The port, switch, trunk or VLAN, as users name it.
    pub who: String,
    /// The line of the topology file that says it; none for what has no line.
    pub line: Option<u32>,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// More ports than [`MAX_PORTS`].
    TooManyPorts,
    /// More switches than [`MAX_SWITCHES`].
    TooManySwitches,
    /// Its id is not its place in the list.
    OutOfPlace,
    /// It names a switch that is not there.
    NoSuchSwitch(SwitchId),
    /// It names a VLAN that is not there.
    NoSuchVlan(VlanId),
    /// The VLAN is described twice.
    VlanTwice(VlanId),
    /// A trunk's native VLAN is not one of its VLANs.
    NativeNotMember(VlanId),
    /// The other end of a wire is not there, is the port itself, or is not wired back to it.
    WireNotMutual,
    /// The interface's address is a group address or zero.
    BadMac,
    /// The link closes a loop of switches.
    Loop,
    /// There are routers, and no port is theirs.
    NoRoutersPort,
    /// Its VLAN has another gateway.
    GatewayTwice,
    /// It leads to a router that is in none of the networks of its own.
    NextHopNotConnected,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyPorts => write!(f, "has more than {MAX_PORTS} ports"),
            Self::TooManySwitches => write!(f, "has more than {MAX_SWITCHES} switches"),
            Self::OutOfPlace => f.write_str("has an id that is not its place in the list"),
            Self::NoSuchSwitch(id) => write!(f, "refers to switch {}, which does not exist", id.index()),
            Self::NoSuchVlan(id) => write!(f, "refers to VLAN {id}, which does not exist"),
            Self::VlanTwice(id) => write!(f, "has the same id, {id}, as another VLAN"),
            Self::NativeNotMember(id) => {
                write!(f, "has native VLAN {id}, which is not among the VLANs it carries")
            }
            Self::WireNotMutual => f.write_str("is wired to a port that is not wired to it"),
            Self::BadMac => {
                f.write_str("has a MAC address that no station may have (group bit set, or all zero)")
            }
            Self::Loop => f.write_str("closes a loop of switches"),
            Self::NoRoutersPort => f.write_str("has routers without a port and a MAC address of their own"),
            Self::GatewayTwice => f.write_str("is said twice"),
            Self::NextHopNotConnected => {
                f.write_str("leads to an address that is in no network of a gateway of the same router")
            }
        }
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{} {}", self.who, self.fault)
    }
}

impl std::error::Error for CompileError {}

impl World {
    /// Compiles a description. Any description: it comes over a socket.
    ///
    /// # Errors
    /// The first thing that does not fit together.
    pub fn compile(description: &Description) -> Result<Self, CompileError> {
        Self::compile_with(description, None)
    }

    /// As [`Self::compile`], of what is to replace `old`: rules that did not change are taken over, with the
    /// [epoch](Firewall::epoch) that they had, so that connections which they allowed are not judged anew.
    ///
    /// # Errors
    /// The first thing that does not fit together.
    pub fn compile_after(description: &Description, old: &Self) -> Result<Self, CompileError> {
        Self::compile_with(description, Some(old))
    }

    fn compile_with(description: &Description, old: Option<&Self>) -> Result<Self, CompileError> {
        let lab = |fault| CompileError { who: format!("lab {}", description.lab), line: None, fault };
        if description.ports.len() > MAX_PORTS {
            return Err(lab(Fault::TooManyPorts));
        }
        if description.switches.len() > MAX_SWITCHES {
            return Err(lab(Fault::TooManySwitches));
        }
        let vlans = existing_vlans(description)?;
        check_switches(description)?;
        let policies = compile_policies(description, old);
        let hits = RuleHits::of(&description.groups, old.map(|old| (&old.description.groups[..], &old.hits)));
        let mut ports = (description.ports.iter().enumerate())
            .map(|(place, port)| {
                let port = port.as_ref().map(|port| compile_port(description, &vlans, place, port));
                let mut port = port.transpose()?;
                if let Some(port) = &mut port {
                    guard(port, description, &policies, old);
                    limit(port, description, old);
                }
                Ok(port)
            })
            .collect::<Result<Vec<_>, _>>()?;
        tell_node_macs(description, &mut ports);
        let trunks = compile_trunks(description, &vlans)?;
        let (hops, mut domains) = flood_lists(description.switches.len(), &ports, &trunks);
        let routing = Routing::compile(description, &vlans, |vlan| {
            let place = domains.iter().position(|domains| domains.contains_key(&vlan));
            place.map(|place| SwitchId::new(place as u16))
        })?;
        if let Some(routing) = &routing {
            join_routers(routing, &mut ports, &mut domains);
        }
        let switches = (description.switches.iter().zip(domains))
            .map(|(switch, domains)| Switch {
                name: switch.name.clone(),
                mac_aging_secs: switch.mac_aging_secs,
                domains: domains.into_iter().collect(),
            })
            .collect();
        Ok(Self {
            description: description.clone(),
            ports,
            switches,
            hops,
            policies,
            has_way_out: description.ports.iter().flatten().any(|port| port.way_out),
            routing,
            log: hits.any_log().then(Log::new),
            hits,
        })
    }
}

fn existing_vlans(description: &Description) -> Result<VlanSet, CompileError> {
    let mut vlans = VlanSet::empty();
    for vlan in &description.vlans {
        if vlans.contains(vlan.id) {
            let line = vlan.origin.map(|origin| origin.line);
            return Err(CompileError {
                who: format!("VLAN {}", vlan.name),
                line,
                fault: Fault::VlanTwice(vlan.id),
            });
        }
        vlans.insert(vlan.id);
    }
    Ok(vlans)
}

fn check_switches(description: &Description) -> Result<(), CompileError> {
    match description
        .switches
        .iter()
        .enumerate()
        .find(|(place, switch)| usize::from(switch.id.index()) != *place)
    {
        None => Ok(()),
        Some((_, switch)) => Err(CompileError {
            who: format!("switch {}", switch.name),
            line: Some(switch.origin.line),
            fault: Fault::OutOfPlace,
        }),
    }
}

fn compile_port(
    description: &Description,
    vlans: &VlanSet,
    place: usize,
    port: &description::Port,
) -> Result<Port, CompileError> {
    let wrong = |fault| CompileError {
        who: port.name(),
        line: Some(port.link_origin.unwrap_or(port.origin).line),
        fault,
    };
    if usize::from(port.id.index()) != place {
        return Err(wrong(Fault::OutOfPlace));
    }
    if port.mac.is_some_and(|mac| mac.is_group() || mac.is_zero()) {
        return Err(wrong(Fault::BadMac));
    }
    let role = match &port.link {
        Link::None => Role::Unlinked,
        Link::Routers if description.routing.as_ref().is_none_or(|routing| routing.port != port.id) => {
            return Err(wrong(Fault::NoRoutersPort));
        }
        // Their VLANs are known when all else is.
        Link::Routers => Role::Routers { vlans: Vec::new() },
        Link::Switch { switch, .. } if usize::from(switch.index()) >= description.switches.len() => {
            return Err(wrong(Fault::NoSuchSwitch(*switch)));
        }
        Link::Switch { switch, vlans: said } => {
            Role::Switched { switch: *switch, vlans: compile_membership(said, vlans).map_err(wrong)? }
        }
        Link::Wire { peer } => {
            let other = description.ports.get(usize::from(peer.index())).and_then(Option::as_ref);
            let mutual = other.is_some_and(|other| {
                other.id == *peer && *peer != port.id && other.link == Link::Wire { peer: port.id }
            });
            if !mutual {
                return Err(wrong(Fault::WireNotMutual));
            }
            Role::Wire { peer: peer.index() }
        }
    };
    Ok(Port {
        id: port.id,
        up: port.up,
        firewall: None,
        limits: None,
        is_plain: port.up,
        takes_rows: port.up,
        way_out: port.way_out,
        mtu: port.mtu,
        mac_limit: port.mac_limit,
        role,
        mac: port.mac,
        node_macs: Box::default(),
        name: port.name(),
        origin: port.origin,
        link_origin: port.link_origin,
    })
}

/// Puts the routers' port into the flood list of each VLAN that has a gateway, once: at the switch where the gateway is at home.
fn join_routers(routing: &Routing, ports: &mut [Option<Port>], domains: &mut [BTreeMap<VlanId, Domain>]) {
    let Some(Some(port)) = ports.get_mut(usize::from(routing.port.index())) else { return };
    let homes = routing.interfaces().iter().map(|interface| (interface.said.vlan, interface.home));
    port.role = Role::Routers { vlans: homes.collect() };
    // A frame that is for them may be routed: each needs a look of its own.
    port.takes_rows = false;
    for interface in routing.interfaces().iter().filter(|_| port.up) {
        let domains = domains.get_mut(usize::from(interface.home.index()));
        if let Some(domain) = domains.and_then(|domains| domains.get_mut(&interface.said.vlan)) {
            domain.ports.push(port.id.index());
            domain.ports.sort_unstable();
        }
    }
}

/// Tells the ports of a node of several interfaces the addresses of all of them.
fn tell_node_macs(description: &Description, ports: &mut [Option<Port>]) {
    let mut by_node = BTreeMap::<&str, Vec<MacAddr>>::new();
    for port in description.ports.iter().flatten() {
        by_node.entry(&port.node).or_default().extend(port.mac);
    }
    for (said, port) in description.ports.iter().zip(ports) {
        let (Some(said), Some(port)) = (said, port) else { continue };
        let macs = by_node.get(said.node.as_str()).filter(|macs| macs.len() > 1);
        port.node_macs = macs.into_iter().flatten().copied().collect();
    }
}

/// The policies of all interfaces that have a firewall.
fn compile_policies(description: &Description, old: Option<&World>) -> Policies {
    let firewalls = || description.ports.iter().flatten().filter_map(|port| port.firewall.as_ref());
    let mut members = vec![Vec::new(); description.groups.len()];
    for firewall in firewalls() {
        for group in &firewall.groups {
            // A group that is not there is the fault of whoever names it.
            if let Some(members) = members.get_mut(usize::from(group.index())) {
                members.extend(firewall.addresses.iter().copied().map(IpNet::from));
            }
        }
    }
    // In an order that does not depend on where interfaces stand in the file.
    let members: Vec<Arc<[IpNet]>> = (members.into_iter())
        .map(|mut members| {
            members.sort();
            members.dedup();
            members.into()
        })
        .collect();
    let lists = firewalls().map(|firewall| &firewall.groups[..]);
    let none = Policies::default();
    Policies::compile(&description.groups, &members, lists, old.map_or(&none, |old| &old.policies))
}

/// Gives a port the firewall that the description says. If its policy cannot be compiled, the port is down (DESIGN §2, law 7).
fn guard(port: &mut Port, description: &Description, policies: &Policies, old: Option<&World>) {
    let said = description.ports.get(usize::from(port.id.index())).and_then(Option::as_ref);
    let Some(said) = said.and_then(|port| port.firewall.as_ref()) else { return };
    let policy = match policies.of(&said.groups) {
        Some(Ok(policy)) => Ok(policy.clone()),
        Some(Err(error)) => Err(fault(description, policies, said, *error)),
        None => unreachable!("the policies of all lists were compiled"),
    };
    port.up &= policy.is_ok();
    let name = |group: &GroupId| {
        let group = description.groups.get(usize::from(group.index()))?;
        Some(group.name.clone())
    };
    let mut firewall = Firewall {
        policy,
        epoch: description.epoch,
        identity: said.identity.as_ref().map(Identity::new),
        dhcp_server: said.dhcp_server,
        router: said.router,
        groups: said.groups.iter().filter_map(name).collect(),
        defaults: Arc::default(),
        origin: said.origin,
    };
    if let Some(before) = predecessor(port, old).and_then(|before| before.firewall.as_ref()) {
        firewall.defaults = before.defaults.clone();
        if firewall.has_rules_of(before) {
            firewall.epoch = before.epoch;
        }
    }
    port.firewall = Some(Box::new(firewall));
    port.is_plain = false;
    port.takes_rows = port.up;
}

/// Gives a port the limits that the description says; what was taken from those that are as they were stays taken.
fn limit(port: &mut Port, description: &Description, old: Option<&World>) {
    let said = description.ports.get(usize::from(port.id.index())).and_then(Option::as_ref);
    let Some(said) = said.and_then(|port| port.limits.as_ref()) else { return };
    let before = predecessor(port, old).and_then(|before| before.limits.as_deref());
    let limits = Limits::new(said, before);
    port.is_plain &= !limits.asks_each_frame();
    port.takes_rows &= !limits.asks_each_frame();
    port.limits = Some(Box::new(limits));
}

/// The same port in the World that is replaced.
fn predecessor<'w>(port: &Port, old: Option<&'w World>) -> Option<&'w Port> {
    old?.port(port.id.index()).filter(|before| before.id == port.id)
}

/// The error in the file's words.
fn fault(
    description: &Description,
    policies: &Policies,
    said: &description::Firewall,
    PolicyError { rule, why }: PolicyError,
) -> PolicyFault {
    let place = rule.and_then(|rule| policies.place(rule));
    let found = place.and_then(|(group, place)| {
        let group = description.groups.get(usize::from(group.index()))?;
        Some((group, group.rules.get(place)?))
    });
    match found {
        Some((group, rule)) => PolicyFault {
            line: rule.origin.line,
            what: format!("a rule of security group `{}` {why}", group.name),
        },
        None => PolicyFault { line: said.origin.line, what: format!("its security groups: {why}") },
    }
}

/// The membership in VLANs that exist. A trunk of all VLANs is said as the full set, so its other members just go.
fn compile_membership(said: &Membership, existing: &VlanSet) -> Result<Membership, Fault> {
    let check = |id: VlanId| if existing.contains(id) { Ok(id) } else { Err(Fault::NoSuchVlan(id)) };
    match said {
        Membership::Access(id) => check(*id).map(Membership::Access),
        Membership::Trunk { vlans, native } => {
            if let Some(native) = native {
                check(*native)?;
                if !vlans.contains(*native) {
                    return Err(Fault::NativeNotMember(*native));
                }
            }
            let vlans = vlans.iter().filter(|id| existing.contains(*id)).collect();
            Ok(Membership::Trunk { vlans, native: *native })
        }
    }
}

/// A link of two switches that exist, and the VLANs that cross it.
struct Trunk {
    ends: [SwitchId; 2],
    vlans: Vec<VlanId>,
    origin: description::Origin,
}

/// The trunks, which form no loop: a frame that is passed on from switch to switch meets each at most once.
fn compile_trunks(description: &Description, vlans: &VlanSet) -> Result<Vec<Trunk>, CompileError> {
    let mut leaders: Vec<usize> = (0..description.switches.len()).collect();
    let name = |id: SwitchId| match description.switches.get(usize::from(id.index())) {
        Some(switch) => switch.name.clone(),
        None => format!("switch {}", id.index()),
    };
    (description.trunks.iter())
        .map(|trunk| {
            let [a, b] = trunk.ends;
            let wrong = |fault| CompileError {
                who: format!("trunk {} - {}", name(a), name(b)),
                line: Some(trunk.origin.line),
                fault,
            };
            if let Some(end) = trunk.ends.into_iter().find(|end| usize::from(end.index()) >= leaders.len()) {
                return Err(wrong(Fault::NoSuchSwitch(end)));
            }
            let (a, b) = (leader(&mut leaders, a), leader(&mut leaders, b));
            if a == b {
                return Err(wrong(Fault::Loop));
            }
            leaders[a] = b;
            let vlans = match compile_membership(&trunk.vlans, vlans).map_err(wrong)? {
                Membership::Access(id) => vec![id],
                Membership::Trunk { vlans, .. } => vlans.iter().collect(),
            };
            Ok(Trunk { ends: trunk.ends, vlans, origin: trunk.origin })
        })
        .collect()
}

/// The representative of the switches that are joined with `switch` so far; halves the path on its way.
fn leader(leaders: &mut [usize], switch: SwitchId) -> usize {
    let mut at = usize::from(switch.index());
    while leaders[at] != at {
        leaders[at] = leaders[leaders[at]];
        at = leaders[at];
    }
    at
}

/// For each switch, its VLANs with the ports and trunks that carry them.
///
/// A port that is administratively down is in no flood list (IEEE 802.1Q-2018 §8.6.1: only a port in the Forwarding
/// state is a potential transmission port), so a broadcast does not count a drop for each of them.
fn flood_lists(
    switches: usize,
    ports: &[Option<Port>],
    trunks: &[Trunk],
) -> (Vec<Hop>, Vec<BTreeMap<VlanId, Domain>>) {
    let mut domains = vec![BTreeMap::<VlanId, Domain>::new(); switches];
    for port in ports.iter().flatten() {
        let Role::Switched { switch, vlans } = &port.role else { continue };
        let domains = &mut domains[usize::from(switch.index())];
        let mut join = |vlan| {
            let domain: &mut Domain = domains.entry(vlan).or_default();
            if port.up {
                domain.ports.push(port.id.index());
            }
        };
        match vlans {
            Membership::Access(vlan) => join(*vlan),
            Membership::Trunk { vlans, .. } => vlans.iter().for_each(join),
        }
    }
    let mut hops = Vec::with_capacity(trunks.len() * 2);
    for trunk in trunks {
        let [a, b] = trunk.ends;
        for (from, to) in [(a, b), (b, a)] {
            // Without loops there are fewer trunks than switches, so both directions of all of them fit.
            let id = HopId(hops.len() as u16);
            hops.push(Hop { from, to, origin: trunk.origin });
            for vlan in &trunk.vlans {
                domains[usize::from(from.index())].entry(*vlan).or_default().hops.push(id);
            }
        }
    }
    (hops, domains)
}
