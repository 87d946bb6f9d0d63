//! What routers had to do with a record: the line of the file that decided it, and the neighbour that it waited for.

use super::words::Words;
use std::net::IpAddr;
use vswitch_core::{
    description::NatRule,
    drop_reason::DropReason,
    firewall::tuple::{IpTuple, Service},
    head::Transport,
    route::{Interface, Onward, Route, Router},
    vlan::VlanId,
};
use vswitchd::recorder::{Record, What};

/// A packet at the router that it came to.
pub(super) struct AtRouter<'a> {
    words: &'a Words<'a>,
    interface: &'a Interface,
    router: &'a Router,
    src: IpAddr,
    /// Whose host it is for, which rules may have as another, and at another port.
    dst: IpAddr,
    turned: Option<(IpAddr, Option<u16>)>,
    /// Its protocol, and the port that it is for.
    service: (u8, Option<u16>),
}

impl<'a> AtRouter<'a> {
    /// None if it came to no router, or its addresses are not known as a whole.
    pub(super) fn of(words: &'a Words<'a>, record: &Record) -> Option<Self> {
        let routing = words.world.routing()?;
        let frame = record.frame.filter(|frame| frame.dst == routing.mac)?;
        let What::Ip { version, src, dst, protocol, transport } = frame.what else { return None };
        let tagged = frame.tag.and_then(|tci| VlanId::new(tci.vid()));
        let vlan = tagged.or_else(|| words.untagged(record.event))?;
        let interface = routing.interface(vlan)?;
        let router = routing.router(interface);
        let (src, dst) = (words.whole(src, version)?, words.whole(dst, version)?);
        let port = match transport {
            Transport::Tcp { dst, .. } | Transport::Udp { dst, .. } => Some(dst),
            _ => None,
        };
        let turned = router.nat().and_then(|nat| nat.destination(dst, protocol, port));
        Some(Self { words, interface, router, src, dst, turned, service: (protocol, port) })
    }

    /// What rules at its receiver read of it: its host's own address, and the port there.
    pub(super) fn turn(&self, ip: &mut IpTuple) {
        let Some((host, port)) = self.turned else { return };
        ip.dst = host;
        if let (Some(port), Service::Ports { dst, .. }) = (port, &mut ip.service) {
            *dst = port;
        }
    }

    /// Whose host it is for at last.
    fn host(&self) -> IpAddr {
        self.turned.map_or(self.dst, |(host, _)| host)
    }

    fn route(&self) -> Option<&'a Route> {
        self.router.find(self.host())
    }

    /// The line that a drop follows from, and what it says.
    pub(super) fn line(&self, reason: DropReason) -> Option<(u32, String)> {
        let name = &self.router.name;
        let gateway = |rest: &str| {
            let vlan = self.words.vlan_name(self.interface.said.vlan);
            Some((self.interface.said.origin.line, format!("gives {vlan} a gateway of router {name}{rest}")))
        };
        match (reason, self.route()) {
            (DropReason::Blackhole, Some(route)) if route.onward == Onward::Blackhole => {
                Some((route.origin.line, format!("leads {} nowhere, in router {name}", route.to)))
            }
            (DropReason::NoRoute, None) => gateway(&format!(", which has no route to {}", self.dst)),
            (DropReason::Martian | DropReason::DirectedBroadcast, _) => gateway(""),
            (DropReason::NatInvalid | DropReason::NatExhausted | DropReason::NatFragment, _) => {
                self.translates()
            }
            _ => None,
        }
    }

    /// The rule that translates what goes this way, or comes back.
    fn translates(&self) -> Option<(u32, String)> {
        let routing = self.words.plan.description.routing.as_ref()?;
        let said = routing.routers.iter().find(|said| said.name == self.router.name)?;
        let onward = self.route().and_then(|route| match &route.onward {
            Onward::Connected(vlan) => Some(*vlan),
            Onward::Via(hops) => hops.first().map(|(vlan, _)| *vlan),
            Onward::Own | Onward::Broadcast | Onward::Blackhole => None,
        });
        let here = self.interface.said.vlan;
        let concerns = |rule: &NatRule| match *rule {
            NatRule::Forward { protocol, port, .. } => {
                self.turned.is_some() && (protocol, Some(port)) == self.service
            }
            NatRule::Static { outside, host, .. } => outside == self.dst || host == self.src,
            // What comes for the router's own address there answers somebody, or says that it does.
            NatRule::Masquerade { vlan } => self.turned.is_none() && onward.unwrap_or(here) == vlan,
        };
        let rule = said.nat.iter().find(|said| concerns(&said.rule))?;
        let words = match rule.rule {
            NatRule::Masquerade { vlan } => {
                format!("masquerades what goes out into {}", self.words.vlan_name(vlan))
            }
            NatRule::Forward { port, host, host_port, .. } => {
                format!("forwards port {port} to {host}, port {host_port}")
            }
            NatRule::Static { outside, host, .. } => format!("gives {host} the address {outside} outside"),
        };
        Some((rule.origin.line, words))
    }

    /// The line of the route by which it was to go on, and who was to have it next.
    pub(super) fn next(&self, vlan: VlanId) -> Option<(u32, IpAddr)> {
        let route = self.route()?;
        let address = match &route.onward {
            Onward::Connected(_) => self.host(),
            Onward::Via(hops) => hops.iter().find(|hop| hop.0 == vlan)?.1,
            Onward::Own | Onward::Broadcast | Onward::Blackhole => return None,
        };
        Some((route.origin.line, address))
    }
}
