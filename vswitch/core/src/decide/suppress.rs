//! Questions for neighbours that a gateway answers, so that nobody else in the VLAN hears them (`neigh-suppress`).

use super::{
    Relay,
    guard::{ARP_REQUEST, icmpv6::NEIGHBOUR_SOLICITATION},
};
use crate::{
    head::{Network, Transport},
    route::Router,
    world::{Port, Role},
};
use std::net::{IpAddr, Ipv6Addr};

/// Where a neighbour solicitation has its target (RFC 4861 §4.3).
const TARGET: usize = 8;

impl<'a> Relay<'a> {
    /// The routers' port, if the frame asks for a neighbour and the gateway of its VLAN answers that: for its own addresses, and for whoever it knows that is not
    /// the sender itself.
    pub(super) fn answered(&self) -> Option<(&'a Port, &'a Router, IpAddr)> {
        let routing = self.switch.world.routing()?;
        let interface =
            routing.interface(self.class.vlan).filter(|interface| interface.said.neigh_suppress)?;
        if matches!(self.port.role, Role::Routers { .. }) {
            return None;
        }
        let (asker, target) = self.asks_for()?;
        let (switch, src) = (self.switch, self.frame.view.link.src);
        let is_others = |address, uses| {
            let known = switch.neighbours.find(self.class.vlan, address, switch.now, uses);
            known.is_some_and(|mac| mac != src)
        };
        if is_others(asker, false) {
            // Two say that they have it: the other one is to hear that, and may defend it (RFC 5227 §2.4).
            return None;
        }
        let router = routing.router(interface);
        let answers = interface.has(target) || is_others(target, switch.learning);
        let port = switch.world.port(routing.port.index()).filter(|_| answers)?;
        Some((port, router, target))
    }

    /// Who asks, and the address whose owner it asks for. One that asks for its own address tells others of it (RFC 5227 §3).
    fn asks_for(&self) -> Option<(IpAddr, IpAddr)> {
        let head = self.frame.head();
        match (head.network, head.transport) {
            (Network::Arp(arp), _) => {
                let ends = (arp.sender.into(), arp.target.into());
                (arp.operation == ARP_REQUEST && arp.sender != arp.target).then_some(ends)
            }
            (Network::Ipv6(ip), Transport::Icmpv6 { kind: NEIGHBOUR_SOLICITATION, .. }) => {
                let message = self.frame.view.bytes.get(usize::from(head.transport_at?)..)?;
                let target = Ipv6Addr::from(*message.get(TARGET..)?.first_chunk::<16>()?);
                Some((ip.src.into(), target.into()))
            }
            _ => None,
        }
    }
}
