//! Routers: their interfaces in VLANs (gateways), their tables of routes, and the neighbours that they know.
//!
//! Each router has tables of its own, so that two may have the same networks (VRF). What is for a router itself, and whatever needs more than one
//! look, goes to the routers' port, where somebody answers it; frames for a neighbour that is known are routed where they come in.

mod compile;
mod nat;
mod neighbours;
mod rewrite;
pub mod table;
mod translation;

pub use nat::{Nat, Source};
pub use neighbours::{CAPACITY, Neighbour, Neighbours};
pub(crate) use rewrite::one_hop_less;
pub use rewrite::{NatNumber, Rewrite, Translations};
pub use translation::{Checksum, NewEnds, Translation};
pub(crate) use translation::{HOPS, Quick, has_free_ports};

use crate::{
    description::{Gateway, Origin},
    id::{PortId, SwitchId},
    mac::MacAddr,
    vlan::VlanId,
};
use ipnet::IpNet;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};
use table::{Sender, Tables};

/// Where hosts ask what is known of them: by custom the same address in every cloud, a link-local one (RFC 3927), so that it is on no other link.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The first of the ports that are nobody's (RFC 6335 §6). From these routers ask name servers themselves: what they translate that goes there has others.
pub const DYNAMIC_PORTS: u16 = 49152;

/// All routers of a World.
#[derive(Debug)]
pub struct Routing {
    /// Their port.
    pub port: PortId,
    /// Their address in every VLAN.
    pub mac: MacAddr,
    routers: Vec<Router>,
    /// Rising by VLAN.
    interfaces: Vec<Interface>,
    /// The MAC addresses that go with stated addresses.
    stated: BTreeMap<(VlanId, IpAddr), MacAddr>,
}

/// A router's interface in a VLAN.
#[derive(Debug)]
pub struct Interface {
    /// What was said of it.
    pub said: Gateway,
    /// The switch at which what the router itself sends into the VLAN begins its way.
    pub home: SwitchId,
    /// Addresses that are hosts' elsewhere, for whom the router answers here.
    outside: Vec<IpAddr>,
    router: usize,
}

/// A router: what it knows of networks.
#[derive(Debug)]
pub struct Router {
    /// Its name.
    pub name: String,
    /// Its tables of IPv4.
    pub v4: Tables<u32>,
    /// Its tables of IPv6.
    pub v6: Tables<u128>,
    routes: Vec<Route>,
    nat: Option<Nat>,
    nameservers: Vec<IpAddr>,
}

/// One of a router's routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What it leads to.
    pub to: IpNet,
    /// Where.
    pub onward: Onward,
    /// Where it was said: the gateway's, of a connected network.
    pub origin: Origin,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Onward {
    /// To the router itself: it is an address of its own.
    Own,
    /// To all in a VLAN, which a router never does from elsewhere (RFC 2644).
    Broadcast,
    /// To the destination itself, which is in this VLAN.
    Connected(VlanId),
    /// To one of these routers, each in its VLAN.
    Via(Vec<(VlanId, IpAddr)>),
    /// Nowhere.
    Blackhole,
}

impl Routing {
    /// The interface in a VLAN.
    #[inline]
    pub fn interface(&self, vlan: VlanId) -> Option<&Interface> {
        let place = self.interfaces.binary_search_by_key(&vlan, |interface| interface.said.vlan).ok()?;
        Some(&self.interfaces[place])
    }

    /// All interfaces, rising by VLAN.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The router that has an interface.
    pub fn router(&self, interface: &Interface) -> &Router {
        &self.routers[interface.router]
    }

    /// The MAC address of the interface in a VLAN whose address the topology file states.
    pub fn stated(&self, vlan: VlanId, address: IpAddr) -> Option<MacAddr> {
        self.stated.get(&(vlan, address)).copied()
    }

    /// Whether an address may be a neighbour's in a VLAN: it lies in a network that is connected there, and is neither a router's own nor for all in it.
    pub fn is_neighbours(&self, vlan: VlanId, address: IpAddr) -> bool {
        self.interface(vlan).is_some_and(|interface| {
            interface.said.addresses.iter().any(|own| own.contains(&address))
                && !matches!(
                    self.router(interface).find(address).map(|route| &route.onward),
                    Some(Onward::Own | Onward::Broadcast) | None
                )
        })
    }

    /// All routers, in the order of the description.
    pub fn routers(&self) -> &[Router] {
        &self.routers
    }
}

impl Interface {
    /// Whether the router has the address here: as its own, or for a host elsewhere.
    pub fn has(&self, address: IpAddr) -> bool {
        self.said.addresses.iter().any(|own| own.addr() == address)
            || self.outside.contains(&address)
            || (address == METADATA && self.tells_metadata())
    }

    /// Whether the router has [`METADATA`] here, where it gives addresses too.
    pub const fn tells_metadata(&self) -> bool {
        self.said.dhcp.is_some()
    }

    /// The addresses that the router has here for hosts elsewhere.
    pub fn outside(&self) -> &[IpAddr] {
        &self.outside
    }

    /// The router's own address here from which it speaks to `peer`: in the same network if there is one, else the first of that version.
    pub fn source(&self, peer: IpAddr) -> Option<IpAddr> {
        let alike = || self.said.addresses.iter().filter(|own| own.addr().is_ipv4() == peer.is_ipv4());
        alike().find(|own| own.contains(&peer)).or_else(|| alike().next()).map(IpNet::addr)
    }
}

impl Router {
    /// The route to an address: of all that contain it the longest.
    #[inline]
    pub fn find(&self, to: IpAddr) -> Option<&Route> {
        let place = match to {
            IpAddr::V4(to) => self.v4.route(to.to_bits()),
            IpAddr::V6(to) => self.v6.route(to.to_bits()),
        };
        self.routes.get(place as usize)
    }

    /// From where packets of a host with this address may come: what [`Self::find`] knows of it says so.
    #[inline]
    pub fn sender(&self, from: IpAddr) -> Sender {
        match from {
            IpAddr::V4(from) => self.v4.senders.find(from.to_bits()),
            IpAddr::V6(from) => self.v6.senders.find(from.to_bits()),
        }
    }

    /// Whom its gateways ask for names that are not the lab's, one after the other.
    pub fn nameservers(&self) -> &[IpAddr] {
        &self.nameservers
    }

    /// All routes: those of its gateways, then the static ones, in the order of the description.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

impl Onward {
    /// The VLAN and the address of the neighbour to whom a frame of this flow for `to` goes; none if it goes to nobody.
    #[inline]
    pub fn next(&self, to: IpAddr, flow: impl FnOnce() -> u64) -> Option<(VlanId, IpAddr)> {
        match self {
            Self::Connected(vlan) => Some((*vlan, to)),
            Self::Via(routers) => match &routers[..] {
                [] => None,
                [one] => Some(*one),
                several => several.get((flow() % several.len() as u64) as usize).copied(),
            },
            Self::Own | Self::Broadcast | Self::Blackhole => None,
        }
    }
}
