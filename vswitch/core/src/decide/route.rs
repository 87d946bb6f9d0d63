//! A frame at a router: whether it may be passed on, to which neighbour, and what of it changes (RFC 1812 §5.2, RFC 8200).

use super::{Fate, Relay, Switch, admit::Classified, filter::Examined, relay::Progress};
use crate::{
    checksum::Sum,
    drop_reason::DropReason,
    flow::Flow,
    head::{FrameView, Head, LinkHeader, Network, TagKind},
    id::SwitchId,
    mac::MacAddr,
    route::{Interface, Onward, Rewrite, Router, Routing, table::Sender},
    trace::{Step, ToRouter, Tracer},
    vlan::VlanId,
    world::Port,
};
use std::net::IpAddr;

/// What a router makes of a frame.
enum Routed {
    /// It answers, asks for the neighbour and keeps the frame meanwhile, or does with it whatever it does.
    Own,
    /// It is lost.
    Dropped(DropReason),
    /// It goes to this neighbour.
    Onward { vlan: VlanId, mac: MacAddr },
}

/// An IP header, as a router reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub src: IpAddr,
    /// Where it goes.
    pub dst: IpAddr,
    /// Time to live, or hop limit.
    pub hops: u8,
}

impl<'a> Relay<'a> {
    /// A frame that came to the address of routers, whose port that is, at this switch.
    #[cold]
    pub(super) fn route<T: Tracer>(
        &self,
        (port, at): (&Port, SwitchId),
        progress: &mut Progress,
        copies: &mut Vec<super::Copy>,
        tracer: &mut T,
    ) {
        let found = self.switch.world.routing().and_then(|routing| {
            let interface = routing.interface(self.class.vlan)?;
            Some((routing, interface, routing.router(interface)))
        });
        let Some((routing, interface, router)) = found else { return };
        match self.routed((routing, interface, router), tracer) {
            Routed::Own => self.send(port, at, copies, tracer),
            Routed::Dropped(reason) => progress.refused = Some(reason),
            Routed::Onward { vlan, mac } => {
                let rewrite = Rewrite { dst: mac, src: routing.mac, at: self.frame.view.link.len };
                let decided = self.onward(port, (at, vlan), rewrite, copies, tracer);
                progress.rewrite = Some(rewrite);
                progress.flooded = decided == Fate::Flooded;
                if let Fate::Dropped(reason) = decided {
                    progress.refused = Some(reason);
                }
            }
        }
    }

    /// What the router makes of it.
    fn routed<T: Tracer>(
        &self,
        (routing, interface, router): (&Routing, &Interface, &Router),
        tracer: &mut T,
    ) -> Routed {
        let Switch { world, neighbours, now, learning, .. } = *self.switch;
        let head = self.frame.head();
        let packet = match packet(head, self.frame.view.bytes) {
            Ok(Some(packet)) => packet,
            Ok(None) => {
                tracer.step(|| Step::to_router(router, ToRouter::NotIp));
                return Routed::Own;
            }
            Err(reason) => return Routed::Dropped(reason),
        };
        let own = |tracer: &mut T| {
            tracer.step(|| Step::to_router(router, ToRouter::Own(packet.dst)));
            Routed::Own
        };
        let route = router.find(packet.dst);
        // Whether they hear it from there they decide themselves: neighbours speak from addresses that no router passes on.
        if is_link_local(packet.dst) || route.is_some_and(|route| route.onward == Onward::Own) {
            return own(tracer);
        }
        if !packet.is_routable(interface, router) {
            return Routed::Dropped(DropReason::Martian);
        }
        let Some(route) = route else { return Routed::Dropped(DropReason::NoRoute) };
        match &route.onward {
            Onward::Broadcast => return Routed::Dropped(DropReason::DirectedBroadcast),
            Onward::Blackhole => {
                tracer.step(|| Step::routed(world, router, route, None));
                return Routed::Dropped(DropReason::Blackhole);
            }
            Onward::Connected(_) | Onward::Via(_) | Onward::Own => {}
        }
        if packet.hops <= 1 {
            return Routed::Dropped(DropReason::TtlExceeded);
        }
        let flow = || Flow::of(self.frame.view.bytes, self.frame.view.len).number();
        let Some((vlan, next)) = route.onward.next(packet.dst, flow) else {
            return Routed::Dropped(DropReason::NoRoute);
        };
        let mac = neighbours.find(vlan, next, now, learning).or_else(|| {
            // For one that is only imagined nobody is asked: those whose addresses the file states are where it says.
            if learning { None } else { routing.stated(vlan, next) }
        });
        tracer.step(|| Step::routed(world, router, route, Some((vlan, next, mac))));
        match mac {
            Some(mac) if routing.interface(vlan).is_some() => Routed::Onward { vlan, mac },
            _ => {
                tracer.step(|| Step::to_router(router, ToRouter::Asks(next)));
                Routed::Own
            }
        }
    }

    /// The rest of its way, as a frame of the router's.
    fn onward<T: Tracer>(
        &self,
        port: &Port,
        (at, vlan): (SwitchId, VlanId),
        rewrite: Rewrite,
        copies: &mut Vec<super::Copy>,
        tracer: &mut T,
    ) -> Fate {
        let link = LinkHeader { dst: rewrite.dst, src: rewrite.src, ..*self.frame.view.link };
        let view = FrameView { link: &link, ..*self.frame.view };
        // At the switch that it came to, if that has the VLAN.
        let here = self.switch.world.domain(at, vlan).map(|_| at);
        let Some(switch) = here.or_else(|| port.role.home(vlan)) else {
            return Fate::Dropped(DropReason::NoReceiver);
        };
        let class = Classified { switch, vlan, ..self.class };
        let frame = &Examined::new(&view);
        Relay { switch: self.switch, port, frame, class }.run(copies, tracer).fate
    }
}

/// The packet in a frame; none if it is not IP, or stands behind more than the tag of its VLAN.
///
/// # Errors
/// No router passes it on, and nobody is told.
pub fn packet(head: &Head, bytes: &[u8]) -> Result<Option<Packet>, DropReason> {
    // A second tag would come out in another VLAN, and be the first there.
    let is_bare =
        head.link.inner.is_none() && head.link.outer.is_none_or(|tag| tag.kind == TagKind::Customer);
    match head.network {
        _ if !is_bare => Ok(None),
        Network::Ipv4(ip) => {
            let at = usize::from(head.link.len);
            let header = bytes.get(at..at + usize::from(ip.header_len)).ok_or(DropReason::BadIpHeader)?;
            // RFC 1812 §5.2.2: the sum over all of it, its checksum included.
            if Sum::ZERO.add_bytes(header).checksum() != [0, 0] {
                return Err(DropReason::BadIpHeader);
            }
            if ip.source_route {
                return Err(DropReason::SourceRoute);
            }
            Ok(Some(Packet { src: ip.src.into(), dst: ip.dst.into(), hops: ip.ttl }))
        }
        Network::Ipv6(ip) if ip.source_route => Err(DropReason::SourceRoute),
        Network::Ipv6(ip) => Ok(Some(Packet { src: ip.src.into(), dst: ip.dst.into(), hops: ip.hop_limit })),
        Network::Unparsed(_) => Err(DropReason::BadIpHeader),
        Network::Arp(_) | Network::Other => Ok(None),
    }
}

impl Packet {
    /// Whether it may come from where it says, by this interface, and go where it says (RFC 1812 §5.3.7, RFC 4291 §2.5, RFC 2827).
    pub fn is_routable(&self, interface: &Interface, router: &Router) -> bool {
        self.src.is_ipv4() == self.dst.is_ipv4()
            && may_send(self.src, interface, router)
            && is_host_address(self.dst)
    }
}

/// Whether a packet may come from this address by this interface.
pub(super) fn may_send(src: IpAddr, interface: &Interface, router: &Router) -> bool {
    is_host_address(src)
        && !is_link_local(src)
        && match router.sender(src) {
            Sender::Anywhere => true,
            Sender::In(vlan) => vlan == interface.said.vlan,
            Sender::Nobody => false,
        }
}

pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// Whether an address may be one host's: none of 0/8, 127/8, 224/4, 240/4 (RFC 6890), no group, and not that of nobody or of the host itself.
#[inline]
pub(super) fn is_host_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(address) => !(address.is_unspecified() || address.is_loopback() || address.is_multicast()),
    }
}
