//! What a router translates (RFC 2663): the rules of one router, as packets ask for them. What becomes of a connection that runs stands in the table of
//! connections; rules are asked for its first packet.

use super::{Interface, Router};
use crate::{
    description::{self, NatRule},
    vlan::VlanId,
};
use std::{collections::BTreeMap, net::IpAddr};

/// The rules of a router.
#[derive(Debug, Default)]
pub struct Nat {
    /// VLANs into which packets have the router's own address as their source.
    masquerades: Vec<VlanId>,
    /// The router's own addresses at which ports are forwarded.
    outside: Vec<IpAddr>,
    /// By protocol, port outside, and whether it is one of IPv6.
    forwards: BTreeMap<(u8, u16, bool), (IpAddr, u16)>,
    /// By address outside, and by VLAN and address of the host.
    inward: BTreeMap<IpAddr, IpAddr>,
    outward: BTreeMap<(VlanId, IpAddr), Outside>,
}

/// The address that a host has outside.
#[derive(Debug, Clone, Copy)]
struct Outside {
    vlan: VlanId,
    address: IpAddr,
}

/// An address that a packet gets as its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The address.
    pub address: IpAddr,
    /// Whether others have it too, so that the port may have to be another one.
    pub is_shared: bool,
}

impl Nat {
    /// Those of a description, for a router with these interfaces; none if it translates nothing.
    pub(super) fn compile(said: &description::Router) -> Option<Self> {
        let gateways = &said.gateways;
        let mut nat = Self::default();
        let network_of = |address: IpAddr| {
            gateways.iter().find(|gateway| gateway.addresses.iter().any(|own| own.contains(&address)))
        };
        for description::Nat { rule, .. } in &said.nat {
            match *rule {
                NatRule::Masquerade { vlan } => nat.masquerades.push(vlan),
                NatRule::Forward { protocol, port, host, host_port } => {
                    nat.forwards.entry((protocol, port, host.is_ipv6())).or_insert((host, host_port));
                }
                NatRule::Static { outside, vlan, host } => {
                    let Some(gateway) = network_of(outside) else { continue };
                    nat.inward.entry(outside).or_insert(host);
                    let address = Outside { vlan: gateway.vlan, address: outside };
                    nat.outward.entry((vlan, host)).or_insert(address);
                }
            }
        }
        let is_outside = |vlan| nat.masquerades.is_empty() || nat.masquerades.contains(&vlan);
        let own = gateways.iter().filter(|gateway| is_outside(gateway.vlan));
        nat.outside = own.flat_map(|gateway| gateway.addresses.iter().map(ipnet::IpNet::addr)).collect();
        (!said.nat.is_empty()).then_some(nat)
    }

    /// Whether packets that go into this VLAN have the router's own address as their source: what is there is outside.
    pub fn masquerades(&self, vlan: VlanId) -> bool {
        self.masquerades.contains(&vlan)
    }

    /// Whether a port of the router's own is a host's.
    pub fn forwards(&self, protocol: u8, port: u16) -> bool {
        [false, true].iter().any(|is_v6| self.forwards.contains_key(&(protocol, port, *is_v6)))
    }

    /// The port outside at which a host's port is reached, if one is forwarded to it.
    pub fn forwarded_from(&self, protocol: u8, host: IpAddr, port: u16) -> Option<u16> {
        let mut forwards = self.forwards.iter();
        let found = forwards.find(|((of, _, _), to)| *of == protocol && **to == (host, port));
        found.map(|((_, outside, _), _)| *outside)
    }

    /// The addresses that hosts have outside in this VLAN: the router answers for them there.
    pub(super) fn addresses(&self, vlan: VlanId) -> impl Iterator<Item = IpAddr> + '_ {
        self.outward.values().filter(move |outside| outside.vlan == vlan).map(|outside| outside.address)
    }

    /// To whom a packet goes that comes for this address and, if its protocol has ports, this one: none if it is not for a host inside.
    pub fn destination(&self, dst: IpAddr, protocol: u8, port: Option<u16>) -> Option<(IpAddr, Option<u16>)> {
        if let Some(host) = self.inward.get(&dst) {
            return Some((*host, port));
        }
        if !self.outside.contains(&dst) {
            return None;
        }
        let (host, port) = self.forwards.get(&(protocol, port?, dst.is_ipv6()))?;
        Some((*host, Some(*port)))
    }

    /// The source that a packet gets which comes from `src` in one VLAN and goes to `next` by the interface in another; `turned`: it has another destination
    /// than its sender said. None: it keeps its own.
    pub fn source(
        &self,
        (vlan, src): (VlanId, IpAddr),
        to: &Interface,
        next: IpAddr,
        turned: bool,
    ) -> Option<Source> {
        // What goes back to where it came from would be answered to its sender, who never spoke with that host (RFC 4787 §6).
        let is_hairpin = turned && vlan == to.said.vlan;
        if let Some(outside) = self.outward.get(&(vlan, src))
            && (outside.vlan == to.said.vlan || is_hairpin)
        {
            return Some(Source { address: outside.address, is_shared: false });
        }
        let masquerades = vlan != to.said.vlan && self.masquerades(to.said.vlan);
        let own = || to.source(next).filter(|own| own.is_ipv4() == src.is_ipv4());
        (masquerades || is_hairpin).then(own)?.map(|address| Source { address, is_shared: true })
    }
}

impl Router {
    /// What it translates; none: nothing.
    #[inline]
    pub fn nat(&self) -> Option<&Nat> {
        self.nat.as_ref()
    }
}
