//! What the controller tells the datapath: a checked description of one lab, with the line that each thing came from.
//!
//! It is what crosses the control socket (as JSON, in a sealed memfd) and what [`crate::world::World::compile`] takes;
//! the controller compiles the same description for `trace`, static `expect` and `diff`. It holds ids, not sockets: how
//! a port's frames reach the datapath is the datapath process's business.

use crate::{
    firewall::policy::{GroupId, SecurityGroup},
    id::{Epoch, PortId, SwitchId},
    mac::MacAddr,
    vlan::{VlanId, VlanSet},
};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU64,
};

/// Where in the topology file a thing was said: both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Line of [`Description::file`].
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

/// One lab, checked: every reference resolves, every id is its element's place in its list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The lab's name.
    pub lab: String,
    /// The topology file, as the user named it.
    pub file: String,
    /// The number of this configuration.
    pub epoch: Epoch,
    /// The VLANs of the lab: `default` (1) and those the file names. A VLAN that is not here does not exist.
    pub vlans: Vec<Vlan>,
    /// The switches; `switches[i].id.index() == i`. At most 4096.
    pub switches: Vec<Switch>,
    /// The security groups: a [`GroupId`] is a place here.
    pub groups: Vec<SecurityGroup>,
    /// The interfaces of all nodes; `ports[i].id.index() == i`, but for places that are empty (`None`).
    pub ports: Vec<Option<Port>>,
    /// Links between two switches. They never form a loop.
    pub trunks: Vec<Trunk>,
    /// The routers; none: no VLAN has a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<Routing>,
}

/// The routers of a lab. In every VLAN they have one MAC address: that of their port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// The port by which routers hear and say what is their own: its link is [`Link::Routers`].
    pub port: PortId,
    /// Each is a table of routes of its own (VRF): two may have the same networks.
    pub routers: Vec<Router>,
    /// The interfaces whose addresses the topology file states.
    pub hosts: Vec<Host>,
    /// Who may log in to nodes by SSH.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<SshKey>,
}

/// Who may log in by SSH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshKey {
    /// To this node; none: to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The public key, as a line of `authorized_keys` has it.
    pub key: String,
}

/// An interface as those in its VLAN know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The VLAN that it speaks in untagged.
    pub vlan: VlanId,
    /// Its node.
    pub name: String,
    /// Its MAC address, if we give it or the file states it.
    pub mac: Option<MacAddr>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
}

/// A router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// Its name.
    pub name: String,
    /// Its interfaces; a VLAN has one at most, whatever the router.
    pub gateways: Vec<Gateway>,
    /// Its static routes.
    pub routes: Vec<Route>,
    /// Which packets get other addresses when it passes them on; of several rules for one packet the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nat: Vec<Nat>,
    /// Whom its gateways ask for names that are not the lab's, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<IpAddr>,
}

/// A rule of network address translation (RFC 2663).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    /// What it does.
    pub rule: NatRule,
    /// Where it was said.
    pub origin: Origin,
}

/// What a rule of network address translation does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NatRule {
    /// What goes out into this VLAN from another one has the router's own address there as its source.
    Masquerade {
        /// The VLAN.
        vlan: VlanId,
    },
    /// What comes for one of the router's own outside addresses and this port goes to a host. Outside are the addresses in VLANs that the router
    /// masquerades into; all, if there are none.
    Forward {
        /// TCP (6) or UDP (17).
        protocol: u8,
        /// The port outside.
        port: u16,
        /// The host's address.
        host: IpAddr,
        /// The port there.
        host_port: u16,
    },
    /// One host has this address outside, for itself, both ways (RFC 2663 §4.1.1, basic NAT).
    Static {
        /// In the network of one of the router's gateways, and nobody else's.
        outside: IpAddr,
        /// The host's VLAN.
        vlan: VlanId,
        /// The host's address there.
        host: IpAddr,
    },
}

/// A router's interface in a VLAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// The VLAN.
    pub vlan: VlanId,
    /// The router's own addresses there, each with the network that is connected.
    pub addresses: Vec<IpNet>,
    /// The addresses that it gives to who asks; none: nobody gets any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<Dhcp>,
    /// Whether it advertises itself and its IPv6 networks (RFC 4861 §6.2), so that hosts make addresses for themselves (RFC 4862).
    #[serde(default)]
    pub ra: bool,
    /// Whether it answers who asks for a neighbour that it knows, so that nobody else hears the question.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub neigh_suppress: bool,
    /// Where it was said.
    pub origin: Origin,
}

/// What a gateway's DHCP server gives (RFC 2131).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dhcp {
    /// The first address that it gives; in one of the gateway's networks.
    pub first: Ipv4Addr,
    /// The last one, in the same.
    pub last: Ipv4Addr,
    /// For how many seconds.
    pub lease_secs: u32,
    /// Name servers; none: the gateway itself.
    pub dns: Vec<Ipv4Addr>,
    /// The domain of its clients; none: that in which the gateway knows names.
    pub domain: Option<String>,
    /// The domains that they look names up in.
    pub search: Vec<String>,
    /// Bytes that their packets may have.
    pub mtu: Option<u16>,
    /// Routes beside the default one, each with its router (RFC 3442).
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// What its clients boot; none: nothing is said of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
}

/// What clients boot over the network (RFC 2131 §2, RFC 2132 §9.4, §9.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The server; none: the file says it.
    pub server: Option<Ipv4Addr>,
    /// The file's name on the server, or a URL: 127 bytes at most.
    pub file: String,
}

impl Boot {
    /// Whether the file is a URL.
    pub fn is_url(&self) -> bool {
        self.file.contains("://")
    }

    /// Whether it is a URL that firmware fetches by itself.
    pub fn is_http(&self) -> bool {
        let scheme = self.file.split_once("://").map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| ["http", "https"].iter().any(|http| scheme.eq_ignore_ascii_case(http)))
    }
}

/// A static route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// What it leads to.
    pub to: IpNet,
    /// By which way.
    pub via: Via,
    /// Where it was said.
    pub origin: Origin,
}

/// Where a static route leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// To routers in connected networks; of several, each flow has one of them.
    Routers(Vec<IpAddr>),
    /// Nowhere, and nobody is told.
    Blackhole,
}

/// A VLAN of the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    /// Its identifier.
    pub id: VlanId,
    /// Its name.
    pub name: String,
    /// Where it was said; none for `default` if the file does not name it.
    pub origin: Option<Origin>,
}

/// A switch of the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// Its id.
    pub id: SwitchId,
    /// Its name.
    pub name: String,
    /// Seconds after which a learned address that was not seen again is forgotten (IEEE 802.1Q-2018 table 8-6).
    pub mac_aging_secs: u32,
    /// Where it was said.
    pub origin: Origin,
}

/// The switch's end of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its id.
    pub id: PortId,
    /// The node whose interface it is.
    pub node: String,
    /// The interface's name on that node.
    pub interface: String,
    /// The interface's address, where we give it or the file states it: a static entry in the FDB.
    pub mac: Option<MacAddr>,
    /// The largest frame payload (bytes behind the Ethernet header and its tags); no limit until one is given.
    pub mtu: Option<u16>,
    /// Queue pairs offered to the guest.
    pub queues: u16,
    /// How many addresses may be learned on this port at most; what becomes of frames from others is said by [`Limits::drops_other_macs`].
    pub mac_limit: u32,
    /// Whether guest memory must be sealed against shrinking (`guest-memory: sealed`).
    pub sealed_memory: bool,
    /// Whether its frames become sockets of the host's: they wait for room where they go, and those for it, since what is there takes loss badly; and are never
    /// fragments, which it does not take.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub way_out: bool,
    /// What may enter and leave; none: anything.
    pub firewall: Option<Firewall>,
    /// How much may enter and leave; none: as much as there is room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Administrative state.
    pub up: bool,
    /// What it is linked to.
    pub link: Link,
    /// Where the interface, or its node, was said.
    pub origin: Origin,
    /// Where its link was said; none without a link.
    pub link_origin: Option<Origin>,
}

impl Port {
    /// `node:interface`, as users write and read it.
    pub fn name(&self) -> String {
        format!("{}:{}", self.node, self.interface)
    }
}

/// What guards an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// Its security groups, in the order of the file; none of them: what no rule allows is dropped on the way in (`policy: closed`).
    pub groups: Vec<GroupId>,
    /// The interface's own addresses: by these it is a member of its groups.
    pub addresses: Vec<IpAddr>,
    /// What it may call itself; none: anything.
    pub identity: Option<Identity>,
    /// Whether it may answer as a DHCP server.
    pub dhcp_server: bool,
    /// Whether it may advertise itself as an IPv6 router.
    pub router: bool,
    /// Where it was said.
    pub origin: Origin,
}

/// How much an interface may send and get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// From the guest.
    pub egress: Rates,
    /// To the guest.
    pub ingress: Rates,
    /// Frames from the guest that go to many.
    pub storm: Storm,
    /// Whether frames from addresses that are too many to be learned are dropped; else they pass.
    pub drops_other_macs: bool,
    /// Whether an address that was learned stays: it neither ages nor moves.
    pub sticky_macs: bool,
    /// Where they were said.
    pub origin: Origin,
}

impl Limits {
    /// Whether `other` says the same, wherever.
    pub fn is_like(&self, other: &Self) -> bool {
        *self == Self { origin: self.origin, ..other.clone() }
    }
}

/// What may go in one direction; none: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Bits a second, of whole frames as they stand in rings.
    pub bits: Option<NonZeroU64>,
    /// Frames a second.
    pub frames: Option<NonZeroU64>,
    /// Connections that are opened in a second.
    pub connections: Option<NonZeroU64>,
    /// What may go at once after a pause: as many bits and frames as in so many microseconds.
    pub burst_micros: u32,
}

/// Frames a second that go to many; none: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Storm {
    /// To all.
    pub broadcast: Option<NonZeroU64>,
    /// To a group.
    pub multicast: Option<NonZeroU64>,
    /// To one of whom nobody knows where it is.
    pub unknown_unicast: Option<NonZeroU64>,
}

/// What an interface may call itself (anti-spoof).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its address.
    pub mac: MacAddr,
    /// The addresses of its own, of virtual routers and of what lies behind it (`allowed-addresses`); link-local IPv6 is its own always.
    pub addresses: Vec<IpNet>,
    /// Other MAC addresses that it may use, each with the addresses that go with it.
    pub others: Vec<(MacAddr, Vec<IpNet>)>,
}

/// What a port is linked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// Nothing: what enters is dropped.
    None,
    /// A switch, as a member of these VLANs.
    Switch {
        /// The switch.
        switch: SwitchId,
        /// How its VLANs appear on this port.
        vlans: Membership,
    },
    /// The routers of all VLANs that have a gateway, tagged: [`Routing::port`], and no other.
    Routers,
    /// Another port, by a transparent wire.
    Wire {
        /// The other end.
        peer: PortId,
    },
}

/// How a switch's VLANs appear on a port (IEEE 802.1Q-2018 §8.8, §6.9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Membership {
    /// Untagged member of one VLAN. Untagged and priority-tagged frames are admitted, tagged ones are not.
    Access(VlanId),
    /// Tagged member of a set of VLANs.
    Trunk {
        /// Members, `native` included.
        vlans: VlanSet,
        /// Untagged and priority-tagged frames belong here, and frames of this VLAN leave untagged. None: such frames
        /// are not admitted.
        native: Option<VlanId>,
    },
}

/// A link between two switches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trunk {
    /// Its two ends, in file order.
    pub ends: [SwitchId; 2],
    /// How the VLANs cross it; the same at both ends.
    pub vlans: Membership,
    /// Where the link was said.
    pub origin: Origin,
}
