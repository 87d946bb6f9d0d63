//! One compiled configuration: immutable, shared, and laid out for the questions that a frame asks.

mod compile;

pub use compile::{CompileError, Fault};

use crate::{
    clock::Instant,
    description::{Description, Membership, Origin},
    fdb::Refusal,
    firewall::{
        classify::{Decision, RulePlace},
        hits::RuleHits,
        interface::{Firewall, PolicyFault},
        log::Log,
        mend,
        policies::{Policies, Policy, RuleId},
        policy::Direction,
        tuple::Tuple,
    },
    id::{Epoch, PortId, SwitchId},
    limits::Limits,
    mac::MacAddr,
    route::Routing,
    vlan::VlanId,
};

/// How many ports a World has at most: the numbers above name switches in the FDB.
pub const MAX_PORTS: usize = 0xf000;

/// How many switches a World has at most.
pub const MAX_SWITCHES: usize = 4096;

/// One configuration of the whole datapath.
#[derive(Debug)]
pub struct World {
    description: Description,
    ports: Vec<Option<Port>>,
    switches: Vec<Switch>,
    hops: Vec<Hop>,
    /// Of all interfaces that have a firewall.
    policies: Policies,
    hits: RuleHits,
    log: Option<Log>,
    routing: Option<Routing>,
    /// Whether any port is a way out.
    has_way_out: bool,
}

/// The switch's end of one interface.
#[derive(Debug)]
pub struct Port {
    /// Its id.
    pub id: PortId,
    /// Administrative state; down also if its [policy cannot be compiled](Self::fault).
    pub up: bool,
    /// What may enter and leave; none: anything.
    pub firewall: Option<Box<Firewall>>,
    /// How much may enter and leave; none: as much as there is room for.
    pub limits: Option<Box<Limits>>,
    /// Whether it is up and has neither a firewall nor a limit that each frame is held against: one question where each frame asks it.
    pub(crate) is_plain: bool,
    /// Whether it is up and has no limit that each frame is held against: then frames that are alike may be decided together.
    pub(crate) takes_rows: bool,
    /// Whether its frames become sockets of the host's.
    pub way_out: bool,
    /// The largest frame payload, in bytes; none: no limit.
    pub mtu: Option<u16>,
    /// How many addresses may be learned on it at most.
    pub mac_limit: u32,
    /// What it is linked to.
    pub role: Role,
    /// The interface's address, if it is known.
    pub mac: Option<MacAddr>,
    /// The addresses of its node's interfaces, if these are several.
    pub node_macs: Box<[MacAddr]>,
    /// `node:interface`.
    pub name: String,
    /// Where the interface was said.
    pub origin: Origin,
    /// Where its link was said.
    pub link_origin: Option<Origin>,
}

/// What a port does with frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Nothing: it has no link.
    Unlinked,
    /// Passes them to the port in this place, and untouched.
    Wire {
        /// The other end.
        peer: u16,
    },
    /// Gives them to the switch where the gateway of their VLAN is at home: what routers say themselves.
    Routers {
        /// The VLANs that have a gateway, rising; a frame's is that of its tag.
        vlans: Vec<(VlanId, SwitchId)>,
    },
    /// Gives them to a switch.
    Switched {
        /// The switch.
        switch: SwitchId,
        /// How the switch's VLANs appear here; every VLAN in it exists.
        vlans: Membership,
    },
}

impl Role {
    /// The switch where the gateway of a VLAN is at home, if this is the routers' port and the VLAN has one.
    pub(crate) fn home(&self, vlan: VlanId) -> Option<SwitchId> {
        let Self::Routers { vlans } = self else { return None };
        let place = vlans.binary_search_by_key(&vlan, |(vlan, _)| *vlan).ok()?;
        Some(vlans[place].1)
    }
}

/// A switch.
#[derive(Debug)]
pub struct Switch {
    /// Its name.
    pub name: String,
    /// Seconds after which a learned address is forgotten.
    pub mac_aging_secs: u32,
    /// The VLANs that reach it, in ascending order.
    domains: Vec<(VlanId, Domain)>,
}

/// One VLAN on one switch: its flood list.
#[derive(Debug, Default, Clone)]
pub struct Domain {
    /// The ports that are up and members, by place, in ascending order.
    pub ports: Vec<u16>,
    /// The trunks to neighbours that carry it.
    pub hops: Vec<HopId>,
}

/// A trunk in one direction: its place in the World's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HopId(u16);

/// A trunk in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The switch that sends.
    pub from: SwitchId,
    /// The switch that receives.
    pub to: SwitchId,
    /// Where the link was said.
    pub origin: Origin,
}

impl World {
    /// Its number.
    pub fn epoch(&self) -> Epoch {
        self.description.epoch
    }

    /// What it was compiled from.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The port in place `index`.
    #[inline]
    pub fn port(&self, index: u16) -> Option<&Port> {
        self.ports.get(usize::from(index))?.as_ref()
    }

    /// Bytes that a packet may have which every port of a VLAN takes; none: there is no limit.
    pub fn narrowest(&self, vlan: VlanId) -> Option<u16> {
        let has_vlan = |port: &&Port| match &port.role {
            Role::Switched { switch, .. } => port.egress(*switch, vlan).is_some(),
            Role::Unlinked | Role::Wire { .. } | Role::Routers { .. } => false,
        };
        self.ports().filter(|port| port.mtu.is_some()).filter(has_vlan).filter_map(|port| port.mtu).min()
    }

    /// Whether any port is a [way out](Port::way_out).
    #[inline(always)]
    pub fn has_way_out(&self) -> bool {
        self.has_way_out
    }

    /// All ports, in order of their places.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().flatten()
    }

    /// A switch.
    pub fn switch(&self, id: SwitchId) -> Option<&Switch> {
        self.switches.get(usize::from(id.index()))
    }

    /// All switches, in order of their places.
    pub fn switches(&self) -> &[Switch] {
        &self.switches
    }

    /// Whether connections are tracked at a port: it has a firewall, or is that of routers of which one translates.
    pub fn tracks(&self, port: &Port) -> bool {
        let translates = |routing: &Routing| {
            routing.port == port.id && routing.routers().iter().any(|router| router.nat().is_some())
        };
        port.firewall.is_some() || self.routing().is_some_and(translates)
    }

    /// The name of the group and the line of the rule in this place of a policy of this World.
    pub(crate) fn rule(&self, policy: &Policy, place: RulePlace) -> Option<(&str, u32)> {
        self.rule_said(policy.rule(place))
    }

    /// The same of a rule by its id.
    pub(crate) fn rule_said(&self, rule: RuleId) -> Option<(&str, u32)> {
        let (group, place) = self.policies.place(rule)?;
        let group = self.description.groups.get(usize::from(group.index()))?;
        Some((&group.name, group.rules.get(place)?.origin.line))
    }

    /// How often rules decided.
    pub(crate) const fn hits(&self) -> &RuleHits {
        &self.hits
    }

    /// How often each rule decided, group by group in the order of the description: since the first World of those that followed one another.
    pub fn rule_hits(&self) -> impl Iterator<Item = u64> {
        self.hits.counts()
    }

    /// What rules decided that log it; none: no rule does.
    pub const fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// Of rules that log, and have not within this second, how many decisions were not logged since this was asked. With no moment, of all rules
    /// that log: nobody decides by this World any more.
    pub fn unlogged(&self, now: Option<Instant>) -> impl Iterator<Item = (RuleId, u64)> {
        self.hits.unlogged(now)
    }

    /// What would let a frame pass that the rules of an interface drop by `decision`.
    pub(crate) fn mend(
        &self,
        (port, firewall, policy): (&Port, &Firewall, &Policy),
        direction: Direction,
        tuple: &Tuple,
        decision: &Decision,
    ) -> Option<String> {
        let line = decision.rule.and_then(|place| self.rule(policy, place)).map(|(_, line)| line);
        let place = mend::Place { interface: &port.name, groups: &firewall.groups, line };
        mend::words(policy, direction, tuple, decision, &place)
    }

    /// Its routers; none if no VLAN has a gateway.
    #[inline]
    pub const fn routing(&self) -> Option<&Routing> {
        self.routing.as_ref()
    }

    /// A VLAN's name.
    pub fn vlan_name(&self, id: VlanId) -> Option<&str> {
        self.description.vlans.iter().find(|vlan| vlan.id == id).map(|vlan| vlan.name.as_str())
    }

    /// The flood list of a VLAN on a switch; none if nothing there carries it.
    #[inline]
    pub fn domain(&self, switch: SwitchId, vlan: VlanId) -> Option<&Domain> {
        let domains = &self.switch(switch)?.domains;
        let place = domains.binary_search_by_key(&vlan, |(id, _)| *id).ok()?;
        Some(&domains[place].1)
    }

    /// A trunk in one direction.
    ///
    /// # Panics
    /// If `id` is from another World.
    pub fn hop(&self, id: HopId) -> &Hop {
        &self.hops[usize::from(id.0)]
    }

    /// The trunk from `from` to its neighbour `to`, if it carries `vlan`.
    pub fn hop_to(&self, from: SwitchId, to: SwitchId, vlan: VlanId) -> Option<HopId> {
        self.domain(from, vlan)?.hops.iter().copied().find(|hop| self.hop(*hop).to == to)
    }
}

impl Switch {
    /// The VLANs that reach it, with their flood lists.
    pub fn domains(&self) -> impl Iterator<Item = (VlanId, &Domain)> {
        self.domains.iter().map(|(vlan, domain)| (*vlan, domain))
    }
}

/// How frames of a VLAN leave a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Egress {
    /// To an access port: without a tag.
    Access,
    /// In a trunk's native VLAN: without a tag.
    Native,
    /// To a trunk: with a tag.
    Tagged,
}

impl Port {
    /// Whether the address may move here from another interface of its node.
    pub fn is_nodes(&self, mac: MacAddr) -> bool {
        self.node_macs.contains(&mac)
    }

    /// Whether addresses that are learned here stay.
    pub(crate) fn keeps_macs(&self) -> bool {
        self.limits.as_ref().is_some_and(|limits| limits.said.sticky_macs)
    }

    /// Whether a frame whose source was not learned for this reason is dropped.
    pub(crate) fn keeps_out(&self, why: Refusal) -> bool {
        matches!(why, Refusal::PortLimit | Refusal::Static | Refusal::Sticky)
            && self.limits.as_ref().is_some_and(|limits| limits.said.drops_other_macs)
    }

    /// Why its rules cannot be compiled, if that is so: then it is down.
    pub fn fault(&self) -> Option<&PolicyFault> {
        self.firewall.as_ref()?.policy.as_ref().err()
    }

    /// How frames of `vlan` on `switch` leave here; none if the port is no member (IEEE 802.1Q-2018 §8.8.10).
    #[inline]
    pub fn egress(&self, switch: SwitchId, vlan: VlanId) -> Option<Egress> {
        match &self.role {
            Role::Switched { switch: own, vlans } if *own == switch => match vlans {
                Membership::Access(access) => (*access == vlan).then_some(Egress::Access),
                Membership::Trunk { native: Some(native), .. } if *native == vlan => Some(Egress::Native),
                Membership::Trunk { vlans, .. } => vlans.contains(vlan).then_some(Egress::Tagged),
            },
            // By whichever switch a frame comes to them.
            Role::Routers { .. } => self.role.home(vlan).map(|_| Egress::Tagged),
            _ => None,
        }
    }
}
