//! Network address translation: which VLANs are masqueraded into, and to whom ports and addresses outside lead.

use crate::{
    check::{
        addresses::refuse_unusable,
        interfaces::NodeInterface,
        links::Checked,
        names::{Names, Thing},
        routers::{Router, Routers, is_link_local},
        vlans::Vlans,
    },
    codes::Code,
    report::{Sink, Span, visible},
    said::{
        lab::Lab,
        nat::{Forward, Nat, Target},
        read::Said,
        scalar::VlanName,
    },
};
use ipnet::IpNet;
use std::{collections::HashMap, net::IpAddr};
use vswitch_core::{
    description::{self, NatRule},
    vlan::VlanId,
};

/// What rules refer to.
pub(crate) struct Scope<'a> {
    pub(crate) names: &'a Names,
    pub(crate) vlans: &'a Vlans,
    pub(crate) interfaces: &'a [NodeInterface],
    pub(crate) links: &'a [Checked],
    /// Whether all of the file could be read, and what is wrong so far was said.
    pub(crate) sound: bool,
}

impl Scope<'_> {
    /// The addresses of a node in the networks of a router, each with its VLAN; none was told.
    pub(crate) fn hosts(
        &self,
        router: Option<&Router>,
        to: &Target,
        span: Span,
        code: Code,
        sink: &mut Sink,
    ) -> Vec<(VlanId, IpAddr)> {
        let (scope, name) = (self, visible(&to.node));
        let node = match scope.names.get(&to.node) {
            Some(Thing::Node(node)) => node,
            Some(Thing::Switch(_)) => {
                sink.error(Code::UnknownEnd, span, format!("`{name}` is a switch, not a node"))
                    .help("name a node of this file: a switch has no address");
                return Vec::new();
            }
            None => {
                sink.error(Code::UnknownEnd, span, format!("there is no node `{name}`"))
                    .did_you_mean(&to.node, scope.names.all());
                return Vec::new();
            }
        };
        let wanted = |interface: &&NodeInterface| {
            interface.node == node && to.interface.as_ref().is_none_or(|wanted| *wanted == interface.name)
        };
        let mut its = scope.interfaces.iter().filter(wanted).peekable();
        if let (None, Some(interface)) = (its.peek(), &to.interface) {
            let what = format!("`{name}` has no interface `{}`", visible(interface));
            sink.error(Code::UnknownInterface, span, what);
            return Vec::new();
        }
        let Some(router) = router.filter(|_| scope.sound) else { return Vec::new() };
        let connected = its.flat_map(|interface| {
            let vlan = interface.link.and_then(|link| scope.links[link].untagged());
            let said = interface.said.addresses.iter().flatten().map(|said| said.value.0.addr());
            let routed = said.filter(move |address| {
                !is_link_local(*address) && router.networks.find(*address).map(|found| found.vlan) == vlan
            });
            routed.filter_map(move |address| Some((vlan?, address)))
        });
        let hosts: Vec<_> = connected.collect();
        if hosts.is_empty() {
            let what = format!("`{name}` has no address in a network of router `{}`", router.name);
            sink.error(code, span, what).help(
                "state its `addresses`, in a VLAN with a gateway of this router: what leads to it is to be an address that does not change",
            );
        }
        hosts
    }
}

/// Tells routers what they translate.
pub(crate) fn check(lab: &Lab, routers: &mut Routers, scope: &Scope<'_>, sink: &mut Sink) {
    for entry in lab.routers.iter().flat_map(|routers| &routers.0) {
        let said = entry.value.iter().flat_map(|router| router.nat.iter().flatten());
        let router = routers.list.iter_mut().find(|router| router.name == entry.name);
        let rules = Rules { scope, router: router.as_deref(), taken: HashMap::new() }.check(said, sink);
        if let Some(router) = router {
            router.nat = rules;
        }
    }
}

/// The rules of one router.
struct Rules<'a> {
    scope: &'a Scope<'a>,
    /// None: it has no gateway.
    router: Option<&'a Router>,
    /// Where a thing was said that can be said once.
    taken: HashMap<Once, Span>,
}

/// What can be said once.
#[derive(PartialEq, Eq, Hash)]
enum Once {
    Masquerade(VlanId),
    Port(u8, u16),
    Outside(IpAddr),
    Host(VlanId, IpAddr),
}

impl Rules<'_> {
    fn check<'s>(
        mut self,
        said: impl Iterator<Item = &'s Said<crate::said::read::Sound<Nat>>>,
        sink: &mut Sink,
    ) -> Vec<description::Nat> {
        let mut rules = Vec::new();
        for said in said {
            let origin = said.span.origin;
            let found = match &said.value.0 {
                Nat { masquerade: Some(vlan), forward: None, outside: None, to: None } => {
                    self.masquerade(vlan, sink).into_iter().collect()
                }
                Nat { forward: Some(forward), masquerade: None, outside: None, to: None } => {
                    self.forward(forward, sink)
                }
                Nat { outside: Some(outside), to: Some(to), masquerade: None, forward: None } => {
                    let outside = Said { value: outside.value.0, span: outside.span };
                    self.one_to_one(&outside, to, sink).into_iter().collect()
                }
                _ => {
                    sink.error(Code::NatForm, said.span, "this is none of the three rules of `nat`").help(
                        "write `{ masquerade: VLAN }`, `{ forward: \"8080:web1:80/tcp\" }` or `{ static: 192.0.2.10, to: web1 }`",
                    );
                    Vec::new()
                }
            };
            rules.extend(found.into_iter().map(|rule| description::Nat { rule, origin }));
        }
        rules
    }

    /// Whether a thing is said for the first time.
    fn is_first(&mut self, once: Once, span: Span, what: impl FnOnce() -> String, sink: &mut Sink) -> bool {
        let first = self.taken.get(&once).copied();
        match first {
            Some(first) => {
                sink.error(Code::NatTwice, span, what()).label(first, "first here");
            }
            None => {
                self.taken.insert(once, span);
            }
        }
        first.is_none()
    }

    fn masquerade(&mut self, said: &Said<VlanName>, sink: &mut Sink) -> Option<NatRule> {
        let vlan = self.scope.vlans.get(said, sink)?;
        let name = visible(&said.value.0);
        let router = self.router.filter(|_| self.scope.sound)?;
        if !router.gateways.iter().any(|gateway| gateway.vlan == vlan) {
            let what = format!("router `{}` has no gateway in VLAN `{name}`", router.name);
            sink.error(Code::NatOutside, said.span, what).help(format!(
                "give VLAN `{name}` a `gateway:`; its address is the source of what goes out there"
            ));
            return None;
        }
        self.is_first(
            Once::Masquerade(vlan),
            said.span,
            || format!("VLAN `{name}` is masqueraded into twice"),
            sink,
        )
        .then_some(NatRule::Masquerade { vlan })
    }

    /// The addresses of a node in the networks of this router, each with its VLAN; none was told.
    fn hosts(&self, to: &Target, span: Span, sink: &mut Sink) -> Vec<(VlanId, IpAddr)> {
        self.scope.hosts(self.router, to, span, Code::NatTarget, sink)
    }

    fn forward(&mut self, said: &Said<Forward>, sink: &mut Sink) -> Vec<NatRule> {
        let Forward { outside, ref to, port, protocol } = said.value;
        let hosts = self.hosts(to, said.span, sink);
        let word = if protocol == 6 { "tcp" } else { "udp" };
        let what = || format!("port {outside}/{word} is forwarded twice");
        if hosts.is_empty() || !self.is_first(Once::Port(protocol, outside), said.span, what, sink) {
            return Vec::new();
        }
        // One address of each family: the first.
        let first = |v4: bool| hosts.iter().map(|(_, host)| *host).find(|host| host.is_ipv4() == v4);
        let rule = |host| NatRule::Forward { protocol, port: outside, host, host_port: port };
        [first(true), first(false)].into_iter().flatten().map(rule).collect()
    }

    fn one_to_one(&mut self, outside: &Said<IpAddr>, to: &Said<Target>, sink: &mut Sink) -> Option<NatRule> {
        let address = outside.value;
        let hosts = self.hosts(&to.value, to.span, sink);
        let router = self.router.filter(|_| self.scope.sound && !hosts.is_empty())?;
        if let Some(own) = router.networks.own(address) {
            sink.error(Code::NatOutside, outside.span, format!("{address} is the router's own address"))
                .label(own, "the gateway")
                .help("name another address of that network, or forward ports of this one");
            return None;
        }
        let Some(network) = router.networks.find(address) else {
            let what = format!("{address} is in no network of router `{}`", router.name);
            sink.error(Code::NatOutside, outside.span, what)
                .help("the router answers for it in the network of one of its gateways, so it is to be an address there");
            return None;
        };
        let in_network = IpNet::new(address, network.network.prefix_len()).ok()?;
        if refuse_unusable(in_network, outside.span, sink) {
            return None;
        }
        if let Some(taken) = self.taken(network.vlan, address) {
            let what = format!("{address} is the address of a node in that VLAN");
            sink.error(Code::NatTaken, outside.span, what).label(taken, "its address");
            return None;
        }
        if router.is_next_hop(address) {
            let what = format!("{address} is another router's: a route of `{}` leads by it", router.name);
            sink.error(Code::NatTaken, outside.span, what);
            return None;
        }
        let host = hosts.iter().find(|(_, host)| host.is_ipv4() == address.is_ipv4());
        let Some((vlan, host)) = host.copied() else {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let what = format!(
                "`{}` has no {family} address in a network of router `{}`",
                to.value.node, router.name
            );
            sink.error(Code::NatTarget, to.span, what);
            return None;
        };
        let what = || format!("{address} is two nodes' address outside");
        let is_new = self.is_first(Once::Outside(address), outside.span, what, sink);
        let what = || format!("`{}` has two addresses outside", to.value.node);
        (is_new && self.is_first(Once::Host(vlan, host), to.span, what, sink)).then_some(NatRule::Static {
            outside: address,
            vlan,
            host,
        })
    }

    /// Where it is said that a node has an address in this VLAN, if one does.
    fn taken(&self, vlan: VlanId, address: IpAddr) -> Option<Span> {
        let Scope { interfaces, links, .. } = self.scope;
        let there =
            |interface: &&NodeInterface| interface.link.and_then(|link| links[link].untagged()) == Some(vlan);
        let mut said =
            interfaces.iter().filter(there).flat_map(|interface| interface.said.addresses.iter().flatten());
        said.find(|said| said.value.0.addr() == address).map(|said| said.span)
    }
}
