//! A frame at a router: whether it may be passed on, to which neighbour, and what of it changes (RFC 1812 §5.2, RFC 8200).

use super::{Fate, Relay, Switch, admit::Classified, filter::Examined, nat, relay::Progress};
use crate::{
    checksum::Sum,
    clock::Instant,
    drop_reason::DropReason,
    firewall::connections::Connections,
    flow::Flow,
    head::{FrameView, HEAD_BYTES, Head, LinkHeader, Network, TagKind},
    id::SwitchId,
    mac::MacAddr,
    route::{
        Checksum, Interface, Neighbours, Onward, Rewrite, Route, Router, Routing, Translation, table::Sender,
    },
    trace::{NoTrace, Step, ToRouter, Tracer},
    vlan::VlanId,
    world::{Port, Role, World},
};
use std::net::IpAddr;

/// What a router makes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtRouter {
    /// It is for the router itself, or nothing that it passes on.
    Own,
    /// It is kept while the router asks who has this address.
    Asks(VlanId, IpAddr),
    /// It is lost.
    Dropped(DropReason),
    /// It goes to this neighbour.
    Onward {
        /// The VLAN.
        vlan: VlanId,
        /// The neighbour.
        mac: MacAddr,
        /// What of it is translated.
        translation: Option<Translation>,
    },
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

/// What routers know, at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Routers<'a> {
    /// The configuration.
    pub world: &'a World,
    /// The connections that they translate.
    pub connections: &'a Connections,
    /// Whom they know.
    pub neighbours: &'a Neighbours,
    /// The moment.
    pub now: Instant,
    /// Whether what they see is noted; not of a frame that is only imagined.
    pub learning: bool,
}

impl<'a> From<&Switch<'a>> for Routers<'a> {
    fn from(switch: &Switch<'a>) -> Self {
        let Switch { world, connections, neighbours, now, learning, .. } = *switch;
        Self { world, connections, neighbours, now, learning }
    }
}

impl Routers<'_> {
    /// What the router of a VLAN makes of a frame that came to it there; none if it has none.
    pub fn pass_on<T: Tracer>(
        &self,
        vlan: VlanId,
        frame: (&FrameView<'_>, &Head),
        tracer: &mut T,
    ) -> Option<AtRouter> {
        let gateway = self.gateway(vlan)?;
        let decided = gateway.find(frame, tracer).and_then(|(found, translates)| match found {
            Found::Own => Ok(AtRouter::Own),
            Found::Asks(vlan, next) => Ok(AtRouter::Asks(vlan, next)),
            Found::Onward { vlan, mac } => {
                let translation = match translates {
                    Some((case, then)) => case.settle(then, tracer)?,
                    None => None,
                };
                Ok(AtRouter::Onward { vlan, mac, translation })
            }
        });
        Some(decided.unwrap_or_else(AtRouter::Dropped))
    }

    /// The neighbour that a frame waits for which came to the router of a VLAN, if it does; nothing is noted.
    ///
    /// # Errors
    /// It is lost, whoever is there.
    pub fn waits_for(&self, vlan: VlanId, frame: (&FrameView<'_>, &Head)) -> Result<Waits, DropReason> {
        let Some(gateway) = self.gateway(vlan) else { return Ok(Waits::NotAtAll) };
        let (found, _) = gateway.find(frame, &mut NoTrace)?;
        Ok(match found {
            Found::Own => Waits::NotAtAll,
            Found::Asks(vlan, next) => Waits::For(vlan, next),
            Found::Onward { vlan, .. } => Waits::NoMore(vlan),
        })
    }

    fn gateway(&self, vlan: VlanId) -> Option<Gateway<'_>> {
        let routing = self.world.routing()?;
        let interface = routing.interface(vlan)?;
        Some(Gateway { routers: self, routing, interface, router: routing.router(interface) })
    }
}

/// Whether a frame waits for a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// It is for the router itself, or nothing that it passes on.
    NotAtAll,
    /// Until it is known who has this address.
    For(VlanId, IpAddr),
    /// The neighbour is known, in this VLAN.
    NoMore(VlanId),
}

/// A router where a frame came to it.
struct Gateway<'a> {
    routers: &'a Routers<'a>,
    routing: &'a Routing,
    interface: &'a Interface,
    router: &'a Router,
}

/// What it makes of a frame, before it notes anything.
enum Found {
    Own,
    Asks(VlanId, IpAddr),
    Onward { vlan: VlanId, mac: MacAddr },
}

/// What is left to do where it translates, for a frame that goes on.
type Translates<'a> = Option<(nat::Case<'a>, nat::Then<'a>)>;

impl<'a> Gateway<'a> {
    fn find<T: Tracer>(
        &self,
        (view, head): (&FrameView<'_>, &Head),
        tracer: &mut T,
    ) -> Result<(Found, Translates<'a>), DropReason> {
        let Self { interface, router, routing, .. } = *self;
        let Some(packet) = packet(head, view.bytes)? else {
            tracer.step(|| Step::to_router(router, ToRouter::NotIp));
            return Ok((Found::Own, None));
        };
        let at = (routing.port, interface.said.vlan);
        let case = router.nat().map(|nat| nat::Case::read((self.routers, nat), at, (view, head), packet.src));
        let known = case.as_ref().map_or(nat::Known::New(None), |case| case.known(tracer));
        let dst = match &known {
            nat::Known::Dropped(reason) => return Err(*reason),
            nat::Known::Translated(translated) => translated.translation.dst(),
            nat::Known::New(Some((dst, _))) => *dst,
            nat::Known::New(None) => packet.dst,
        };
        let route = router.find(dst);
        // Whether they hear it from there they decide themselves: neighbours speak from addresses that no router passes on.
        let is_own = route.is_some_and(|route| route.onward == Onward::Own);
        if is_own || dst.is_ipv6() && is_link_local(dst) {
            let why = if is_own { ToRouter::Own(dst) } else { ToRouter::OnLink(dst) };
            tracer.step(|| Step::to_router(router, why));
            return Ok((Found::Own, None));
        }
        if !packet.is_routable(interface, router) || is_link_local(dst) {
            return Err(DropReason::Martian);
        }
        let (vlan, next) = self.next((view, &packet), (dst, route), tracer)?;
        let Some((to, mac)) = self.routing.interface(vlan).zip(self.mac(vlan, next)) else {
            tracer.step(|| Step::to_router(router, ToRouter::Asks(next)));
            return Ok((Found::Asks(vlan, next), None));
        };
        Ok((Found::Onward { vlan, mac }, case.map(|case| (case, nat::Then { known, to, next }))))
    }

    /// The next hop, and its VLAN, of what goes by that route.
    fn next<T: Tracer>(
        &self,
        (view, packet): (&FrameView<'_>, &Packet),
        (dst, route): (IpAddr, Option<&Route>),
        tracer: &mut T,
    ) -> Result<(VlanId, IpAddr), DropReason> {
        let (world, router) = (self.routers.world, self.router);
        let route = route.ok_or(DropReason::NoRoute)?;
        match &route.onward {
            Onward::Broadcast => return Err(DropReason::DirectedBroadcast),
            Onward::Blackhole => {
                tracer.step(|| Step::routed(world, router, route, None));
                return Err(DropReason::Blackhole);
            }
            Onward::Connected(_) | Onward::Via(_) | Onward::Own => {}
        }
        if packet.hops <= 1 {
            return Err(DropReason::TtlExceeded);
        }
        let flow = || Flow::of(view.bytes, view.len).number();
        let (vlan, next) = route.onward.next(dst, flow).ok_or(DropReason::NoRoute)?;
        tracer.step(|| Step::routed(world, router, route, Some((vlan, next, self.mac(vlan, next)))));
        Ok((vlan, next))
    }

    /// The MAC address of a neighbour.
    fn mac(&self, vlan: VlanId, next: IpAddr) -> Option<MacAddr> {
        let Routers { neighbours, now, learning, .. } = *self.routers;
        neighbours.find(vlan, next, now, learning).or_else(|| {
            // For one that is only imagined nobody is asked: those whose addresses the file states are where it says.
            if learning { None } else { self.routing.stated(vlan, next) }
        })
    }
}

impl Relay<'_> {
    /// A frame that came to the address of routers, whose port that is, at this switch.
    #[cold]
    pub(super) fn route<T: Tracer>(
        &self,
        (port, at): (&Port, SwitchId),
        progress: &mut Progress,
        copies: &mut Vec<super::Copy>,
        tracer: &mut T,
    ) {
        let Some(routing) = self.switch.world.routing() else { return };
        let frame = (self.frame.view, self.frame.head());
        match Routers::from(self.switch).pass_on(self.class.vlan, frame, tracer) {
            None => {}
            Some(AtRouter::Own | AtRouter::Asks(..)) => self.send(port, at, copies, tracer),
            Some(AtRouter::Dropped(reason)) => progress.refused = Some(reason),
            Some(AtRouter::Onward { vlan, mac, translation }) => {
                let at_ip = self.frame.view.link.len;
                let rewrite = Rewrite { dst: mac, src: routing.mac, at: at_ip, translation: None };
                let before = copies.len();
                let decided = self.onward(port, (at, vlan), (rewrite, translation), copies, tracer);
                if let Some(mtu) = self.cut_to(&copies[before..]) {
                    if let Some(interface) = routing.interface(self.class.vlan) {
                        tracer.step(|| Step::to_router(routing.router(interface), ToRouter::Cuts(mtu)));
                    }
                    copies.truncate(before);
                    return self.send(port, at, copies, tracer);
                }
                (progress.rewrite, progress.translation) = (Some(rewrite), translation);
                progress.flooded = decided == Fate::Flooded;
                if let Fate::Dropped(reason) = decided {
                    progress.refused = Some(reason);
                }
            }
        }
    }

    /// The bytes that a packet may have where it goes on, if these are too few for this one and the router may cut it (RFC 791 §3.2). What the routers' port says is
    /// cut already; where sockets are made of frames, no fragments are taken.
    fn cut_to(&self, copies: &[super::Copy]) -> Option<u16> {
        let [super::Copy { to, outcome: Err(DropReason::MtuExceeded) }] = copies else { return None };
        let may_be_cut = matches!(self.frame.head().network, Network::Ipv4(ip) if !ip.dont_fragment);
        let is_routers = matches!(self.port.role, Role::Routers { .. });
        self.switch.world.port(*to).filter(|to| may_be_cut && !is_routers && !to.way_out)?.mtu
    }

    /// The rest of its way, as a frame of the router's.
    fn onward<T: Tracer>(
        &self,
        port: &Port,
        (at, vlan): (SwitchId, VlanId),
        (rewrite, translation): (Rewrite, Option<Translation>),
        copies: &mut Vec<super::Copy>,
        tracer: &mut T,
    ) -> Fate {
        // At the switch that it came to, if that has the VLAN.
        let here = self.switch.world.domain(at, vlan).map(|_| at);
        let Some(switch) = here.or_else(|| port.role.home(vlan)) else {
            return Fate::Dropped(DropReason::NoReceiver);
        };
        let class = Classified { switch, vlan, ..self.class };
        let link = LinkHeader { dst: rewrite.dst, src: rewrite.src, ..*self.frame.view.link };
        let view = FrameView { link: &link, ..*self.frame.view };
        let Some(translation) = translation else {
            let frame = &Examined::new(&view);
            return Relay { switch: self.switch, port, frame, class }.run(copies, tracer).fate;
        };
        // Who gets it judges what it gets.
        let mut bytes = [0; HEAD_BYTES];
        let judged = view.bytes.len().min(HEAD_BYTES);
        bytes[..judged].copy_from_slice(&view.bytes[..judged]);
        let packet = bytes[..judged].get_mut(usize::from(rewrite.at)..).unwrap_or_default();
        translation.apply(packet, Checksum::Complete);
        let view = FrameView { bytes: &bytes[..judged], ..view };
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

/// Whether an address is one that each link has anew (RFC 3927, RFC 4291 §2.5.6).
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
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
