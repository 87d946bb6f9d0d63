//! Ways out by nodes of kind `user`: what is behind one answers whoever it heard last, so that has to be one router that masquerades.

use crate::{
    check::{
        interfaces::NodeInterface,
        links::Checked,
        routers::{Router, Routers},
    },
    codes::Code,
    plan::NodeKind,
    report::{Sink, Span, visible},
    said::lab::Lab,
};
use std::net::IpAddr;
use vswitch_core::{description::NatRule, vlan::VlanId};

/// All interfaces, and what their nodes are.
pub(crate) struct WaysOut<'a> {
    pub(crate) interfaces: &'a [NodeInterface],
    pub(crate) links: &'a [Checked],
    /// By node, what it is.
    pub(crate) kinds: &'a [Option<NodeKind>],
}

impl<'a> WaysOut<'a> {
    /// The interfaces of ways out that have a link.
    fn linked(&self) -> impl Iterator<Item = (&'a NodeInterface, &'a Checked)> {
        let (links, kinds) = (self.links, self.kinds);
        let is_way_out =
            |interface: &&NodeInterface| matches!(kinds.get(interface.node), Some(Some(NodeKind::User)));
        let interfaces = self.interfaces.iter().filter(is_way_out);
        interfaces.filter_map(|interface| Some((interface, &links[interface.link?])))
    }

    /// Refuses ways out that nobody can use.
    pub(crate) fn check(&self, routers: &Routers, sink: &mut Sink) {
        for (interface, link) in self.linked() {
            check_one(interface, link, routers, sink);
        }
    }

    /// Warns of others in the VLAN of a way out.
    pub(crate) fn warn(&self, lab: &Lab, routers: &Routers, sink: &mut Sink) {
        for (way_out, link) in self.linked() {
            let Some(vlan) = link.only() else { continue };
            let is_there = |other: &&NodeInterface| {
                let link = other.link.map(|link| &self.links[link]);
                link.is_some_and(|link| !link.switches_with(vlan).is_empty())
            };
            let others = self.interfaces.iter().filter(|other| !std::ptr::eq(*other, way_out));
            for other in others.filter(is_there) {
                let span = other.link.map_or(other.span, |link| self.links[link].span());
                sink.warning(Code::BesideWayOut, span, "others than a router are in the VLAN of a way out")
                    .label(way_out.span, "the way out")
                    .help("give the way out a VLAN of its own, with nothing but a gateway in it");
            }
            for (address, span) in outside(lab, routers, vlan) {
                let what = format!("{address} is another address of the router's before a way out");
                sink.warning(Code::BesideWayOut, span, what)
                    .label(way_out.span, "the way out")
                    .help("masquerade only: nobody outside reaches that address by a way out of kind user");
            }
        }
    }
}

/// The addresses that single hosts have in the network of a VLAN.
fn outside(lab: &Lab, routers: &Routers, vlan: VlanId) -> Vec<(IpAddr, Span)> {
    let Some((router, _)) = routers.of_vlan(vlan) else { return Vec::new() };
    let said = lab.routers.iter().flat_map(|routers| &routers.0).filter(|entry| entry.name == router.name);
    let rules = said.filter_map(|entry| entry.value.as_ref()?.nat.as_ref()).flatten();
    let outside = rules.filter_map(|rule| rule.value.0.outside.as_ref());
    let outside = outside.map(|said| (said.value.0, said.span));
    outside
        .filter(|(address, _)| router.networks.find(*address).is_some_and(|found| found.vlan == vlan))
        .collect()
}

fn check_one(interface: &NodeInterface, link: &Checked, routers: &Routers, sink: &mut Sink) {
    let said: Vec<_> = interface.said.addresses.iter().flatten().collect();
    if said.is_empty() {
        sink.error(Code::MissingKey, interface.span, "a way out does not say which address it has")
            .help("add `addresses: [192.0.2.1/24]`: what the routes of its router have as `via`");
        return;
    }
    let Some(vlan) = link.only() else {
        sink.error(Code::WayOutUnused, link.span(), "this way out is not in one VLAN, with a router")
            .label(interface.span, "the way out")
            .help("link it to a switch with `vlan: { access: wan }`, where `wan` has a `gateway`");
        return;
    };
    let Some((router, gateway)) = routers.of_vlan(vlan) else {
        sink.error(Code::WayOutUnused, link.span(), "no router is in the VLAN of this way out")
            .label(interface.span, "the way out")
            .help("give the VLAN a `gateway` in the network of the way out, and its router `nat: [{ masquerade: VLAN }]`");
        return;
    };
    for (place, said_here) in said.iter().enumerate() {
        let address = said_here.value.0.addr();
        let same = |other: &&&_| is_v4(other) == address.is_ipv4();
        if let Some(first) = said[..place].iter().find(same) {
            sink.error(Code::WayOutUnused, said_here.span, "a way out has one address of each family")
                .label(first.span, "the other")
                .help("remove one of the two");
        } else if routers.gateway_for(vlan, address).is_none() {
            let what = format!("the gateway of VLAN `{}` is in no network with {address}", gateway.name);
            sink.error(Code::WayOutUnused, said_here.span, what)
                .label(gateway.span, "the gateway")
                .help("give the two addresses in one network, like 192.0.2.1/24 and 192.0.2.2/24");
        }
    }
    if !masquerades(router, vlan) {
        let (name, vlan) = (visible(&router.name), visible(&gateway.name));
        let what = format!("router `{name}` does not masquerade into VLAN `{vlan}`, which has a way out");
        sink.error(Code::WayOutUnused, gateway.span, what).label(interface.span, "the way out").help(
            format!(
                "add `nat: [{{ masquerade: {vlan} }}]` to router `{name}`: a way out answers one address"
            ),
        );
    }
}

fn is_v4(said: &crate::said::read::Said<crate::said::scalar::Address>) -> bool {
    said.value.0.addr().is_ipv4()
}

fn masquerades(router: &Router, into: VlanId) -> bool {
    router.nat.iter().any(|nat| matches!(nat.rule, NatRule::Masquerade { vlan } if vlan == into))
}
