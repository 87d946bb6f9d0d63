//! Routers: the gateways of VLANs, which router has each, and what networks it is connected to.

use crate::{
    check::{
        addresses::{refuse_unusable, unusable},
        interfaces::NodeInterface,
        links::Checked,
        names, routes, services,
        vlans::Vlans,
    },
    codes::Code,
    report::{Sink, Span, visible},
    said::{
        lab::{Lab, Vlan},
        read::{Entry, OneOrMany, Said},
        route::NameServer,
    },
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
};
use vswitch_core::{
    description::{self, Route},
    vlan::VlanId,
};

/// The router of whose interfaces a gateway is one if its VLAN names no other.
pub(crate) const DEFAULT: &str = "default";

/// A router's interface in a VLAN.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) vlan: VlanId,
    /// The VLAN's name.
    pub(crate) name: String,
    pub(crate) addresses: Vec<(IpNet, Span)>,
    pub(crate) span: Span,
    dhcp: Option<description::Dhcp>,
    pub(crate) ra: bool,
    neigh_suppress: bool,
}

impl Gateway {
    /// The addresses that it gives.
    pub(crate) const fn dhcp(&self) -> Option<&description::Dhcp> {
        self.dhcp.as_ref()
    }
}

/// A router that has gateways.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) name: String,
    /// In file order.
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) networks: Networks,
    routes: Vec<Route>,
    /// What it translates.
    pub(crate) nat: Vec<description::Nat>,
    nameservers: Vec<IpAddr>,
}

impl Router {
    /// Whether one of its routes leads by a router that has this address.
    pub(crate) fn is_next_hop(&self, address: IpAddr) -> bool {
        let leads_by =
            |route: &Route| matches!(&route.via, description::Via::Routers(next) if next.contains(&address));
        self.routes.iter().any(leads_by)
    }

    /// Whether it passes on what is for an address.
    fn leads_to_any(&self, address: IpAddr) -> bool {
        let connected = self.networks.find(address).map(|connected| connected.vlan);
        self.leads_to(address, connected)
    }

    /// Whether it passes on what is for an address that is in this VLAN, if any is known.
    pub(crate) fn leads_to(&self, address: IpAddr, vlan: Option<VlanId>) -> bool {
        let connected = self.networks.find(address);
        let mut routes: Vec<_> = self.routes.iter().filter(|route| route.to.contains(&address)).collect();
        routes.sort_by_key(|route| route.to.prefix_len());
        match (connected, routes.last()) {
            (Some(connected), Some(route)) if route.to.prefix_len() > connected.network.prefix_len() => {
                matches!(route.via, description::Via::Routers(_))
            }
            (Some(connected), _) => Some(connected.vlan) == vlan,
            (None, Some(route)) => matches!(route.via, description::Via::Routers(_)),
            (None, None) => false,
        }
    }
}

/// The routers that have gateways: `default` first, then by name.
#[derive(Debug, Default)]
pub(crate) struct Routers {
    pub(crate) list: Vec<Router>,
    /// Places in the list, and among the gateways of a router.
    by_vlan: HashMap<VlanId, (usize, usize)>,
}

/// The networks that a router is connected to, and its own addresses there. Those that are link-local are on every link, and tell none.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    by_network: HashMap<IpNet, Connected>,
    own: HashMap<IpAddr, Span>,
    /// Prefix lengths of the networks.
    lengths: BTreeSet<u8>,
}

/// A network that a router is connected to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connected {
    pub(crate) network: IpNet,
    pub(crate) vlan: VlanId,
    /// The gateway's address there; the first, if it has several.
    pub(crate) gateway: IpAddr,
    pub(crate) span: Span,
}

impl Networks {
    fn of(gateways: &[Gateway]) -> Self {
        let mut networks = Self::default();
        for gateway in gateways {
            for (net, span) in &gateway.addresses {
                networks.own.entry(net.addr()).or_insert(*span);
                if is_link_local(net.addr()) {
                    continue;
                }
                networks.lengths.insert(net.prefix_len());
                let connected =
                    Connected { network: net.trunc(), vlan: gateway.vlan, gateway: net.addr(), span: *span };
                networks.by_network.entry(net.trunc()).or_insert(connected);
            }
        }
        networks
    }

    /// That in which an address is; of several the smallest.
    pub(crate) fn find(&self, address: IpAddr) -> Option<&Connected> {
        self.lengths.iter().rev().find_map(|length| {
            let network = IpNet::new(address, *length).ok()?;
            self.by_network.get(&network.trunc())
        })
    }

    /// Where an address of the router's own is said.
    pub(crate) fn own(&self, address: IpAddr) -> Option<Span> {
        self.own.get(&address).copied()
    }

    /// Where a gateway with exactly that network is said.
    pub(crate) fn exactly(&self, network: IpNet) -> Option<Span> {
        self.by_network.get(&network).map(|connected| connected.span)
    }
}

impl Routers {
    /// The routers of `lab`; `all_read` tells whether all of the file could be.
    pub(crate) fn of(lab: &Lab, vlans: &Vlans, all_read: bool, sink: &mut Sink) -> Self {
        let listed = lab.routers.iter().flat_map(|routers| &routers.0);
        listed.clone().for_each(|router| names::check(&router.name, router.span, sink));
        let known: BTreeSet<&str> =
            listed.clone().map(|router| router.name.as_str()).chain([DEFAULT]).collect();
        let before = sink.count();
        let mut by_name: BTreeMap<(bool, &str), Vec<Gateway>> = BTreeMap::new();
        for entry in lab.vlans.iter().flat_map(|vlans| &vlans.0) {
            let Some(vlan) = &entry.value else { continue };
            let name = router_name(entry, vlan, &known, all_read, sink);
            let gateway = gateway(entry, vlan, vlans, sink);
            if let (Some(name), Some(gateway)) = (name, gateway) {
                by_name.entry((name != DEFAULT, name)).or_default().push(gateway);
            }
        }
        let mut routers = Self::default();
        for ((_, name), gateways) in by_name {
            refuse_overlaps(name, &gateways, sink);
            for (place, gateway) in gateways.iter().enumerate() {
                routers.by_vlan.insert(gateway.vlan, (routers.list.len(), place));
            }
            let networks = Networks::of(&gateways);
            let (name, routes, nat) = (name.to_owned(), Vec::new(), Vec::new());
            routers.list.push(Router { name, gateways, networks, routes, nat, nameservers: Vec::new() });
        }
        // What is wrong with gateways was told; routes that lead there are not to blame.
        let sound = all_read && sink.count() == before;
        for entry in listed {
            let said = entry.value.iter().flat_map(|router| router.routes.iter().flatten());
            let router = routers.list.iter_mut().find(|router| router.name == entry.name);
            let compiled = routes::check(said, router.as_deref().filter(|_| sound), sink);
            if let Some(router) = router {
                router.routes = compiled;
                let said = entry.value.iter().filter_map(|router| router.nameservers.as_ref());
                router.nameservers = said.flat_map(|said| name_servers(said, router, sink)).collect();
            }
        }
        routers
    }

    /// The gateway of the VLAN of this name, with its router, and its place.
    pub(crate) fn gateway_named(&self, name: &str) -> Option<(&Router, (usize, usize))> {
        let mut all = self.list.iter().enumerate();
        all.find_map(|(place, router)| {
            let gateway = router.gateways.iter().position(|gateway| gateway.name == name)?;
            Some((router, (place, gateway)))
        })
    }

    /// What the clients of the gateway at this place boot is on that server.
    pub(crate) fn boot_from(&mut self, (router, gateway): (usize, usize), server: Option<Ipv4Addr>) {
        let gateway = self.list.get_mut(router).and_then(|router| router.gateways.get_mut(gateway));
        if let Some(boot) = gateway.and_then(|gateway| gateway.dhcp.as_mut()?.boot.as_mut()) {
            boot.server = server;
        }
    }

    /// All gateways.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = &Gateway> {
        self.list.iter().flat_map(|router| &router.gateways)
    }

    /// The gateway of a VLAN, and its router.
    pub(crate) fn of_vlan(&self, vlan: VlanId) -> Option<(&Router, &Gateway)> {
        let (router, gateway) = self.by_vlan.get(&vlan)?;
        let router = &self.list[*router];
        Some((router, &router.gateways[*gateway]))
    }

    /// The place of a VLAN's router, and the VLAN of its network in which an address is.
    pub(crate) fn connected(&self, vlan: VlanId, address: IpAddr) -> Option<(usize, VlanId)> {
        let (place, _) = self.by_vlan.get(&vlan)?;
        Some((*place, self.list[*place].networks.find(address)?.vlan))
    }

    /// Where the router in that place has that address.
    pub(crate) fn own(&self, router: usize, address: IpAddr) -> Option<Span> {
        self.list[router].networks.own(address)
    }

    /// The gateway's address in the network of its VLAN in which an interface's address is.
    pub(crate) fn gateway_for(&self, vlan: VlanId, address: IpAddr) -> Option<IpAddr> {
        let (router, _) = self.of_vlan(vlan)?;
        router.networks.find(address).filter(|connected| connected.vlan == vlan).map(|found| found.gateway)
    }

    /// Refuses a gateway in a VLAN whose switches are not all joined by links that carry it.
    pub(crate) fn check_joined(&self, lab: &Lab, links: &[Checked], sink: &mut Sink) {
        let name =
            |place: usize| lab.switches.as_ref().and_then(|all| all.0.get(place)).map_or("", |s| &s.name);
        for gateway in self.gateways() {
            if sink.is_full() {
                return;
            }
            let Some([(first, near), (second, far)]) = two_parts(gateway.vlan, links) else { continue };
            let (vlan, first, second) = (&gateway.name, name(first), name(second));
            let what = format!("VLAN `{vlan}` is two networks: no links join `{first}` and `{second}` in it");
            sink.error(Code::Unjoined, gateway.span, what)
                .label(near, format!("in it on `{first}`"))
                .label(far, format!("in it on `{second}`"))
                .help(format!("let links from `{first}` to `{second}` carry it, or make it two VLANs"));
        }
    }

    /// Warns of what is said in vain: routers and gateways that nobody reaches, and addresses that none of them reaches.
    pub(crate) fn warn(&self, lab: &Lab, links: &[Checked], interfaces: &[NodeInterface], sink: &mut Sink) {
        for entry in lab.routers.iter().flat_map(|routers| &routers.0) {
            if !self.list.iter().any(|router| router.name == entry.name) {
                let what = format!("no VLAN has a gateway of router `{}`", visible(&entry.name));
                sink.warning(Code::IdleRouter, entry.span, what);
            }
        }
        for gateway in self.gateways() {
            if !links.iter().any(|link| !link.switches_with(gateway.vlan).is_empty()) {
                let what = format!("nobody reaches this gateway: no switch has VLAN `{}`", gateway.name);
                sink.warning(Code::Unreached, gateway.span, what);
            }
        }
        for interface in interfaces {
            let vlan = interface.link.and_then(|link| links[link].untagged());
            let Some((router, gateway)) = vlan.and_then(|vlan| self.of_vlan(vlan)) else { continue };
            for said in interface.said.addresses.iter().flatten() {
                warn_outside(said.value.0, said.span, router, gateway, sink);
            }
        }
    }

    /// What the switch is told of them.
    pub(crate) fn compile(&self) -> Vec<description::Router> {
        let gateway = |gateway: &Gateway| description::Gateway {
            vlan: gateway.vlan,
            addresses: gateway.addresses.iter().map(|(net, _)| *net).collect(),
            dhcp: gateway.dhcp.clone(),
            ra: gateway.ra,
            neigh_suppress: gateway.neigh_suppress,
            origin: gateway.span.origin,
        };
        let router = |router: &Router| description::Router {
            name: router.name.clone(),
            gateways: router.gateways.iter().map(gateway).collect(),
            routes: router.routes.clone(),
            nat: router.nat.clone(),
            nameservers: router.nameservers.clone(),
        };
        self.list.iter().map(router).collect()
    }
}

/// Name servers that a router asks, at most: as many as resolvers do.
const MOST_NAME_SERVERS: usize = 3;

/// Those of a router: others, to whom a way leads.
fn name_servers(said: &Said<OneOrMany<NameServer>>, router: &Router, sink: &mut Sink) -> Vec<IpAddr> {
    let list = &said.value.0;
    if list.is_empty() {
        sink.error(Code::EmptyList, said.span, "no name server is in this list");
    }
    if list.len() > MOST_NAME_SERVERS {
        let what =
            format!("a router asks {MOST_NAME_SERVERS} name servers at most, and these are {}", list.len());
        sink.error(Code::NameServer, said.span, what).help("leave some out: each is waited for 2 s");
    }
    for (place, server) in list.iter().enumerate() {
        let NameServer(address) = server.value;
        if let Some(why) = unusable(address.into()) {
            let what = format!("{address} cannot be a name server's address: {why}");
            sink.error(Code::NameServer, server.span, what)
                .help("name a server that others than this host reach: a route of this router leads to it");
            continue;
        }
        if let Some(own) = router.networks.own(address) {
            sink.error(Code::NameServer, server.span, format!("{address} is the router's own address"))
                .label(own, "the gateway")
                .help("name a server that knows of names outside of the lab");
        } else if list[..place].iter().any(|other| other.value == server.value) {
            sink.error(Code::NameServer, server.span, format!("{address} stands here twice"))
                .help("remove one of the two");
        } else if is_link_local(address) || !router.leads_to_any(address) {
            sink.error(Code::NameServer, server.span, format!("no route of this router leads to {address}"))
                .help("add one, like `routes: [{ to: default, via: ADDRESS }]`");
        }
    }
    list.iter().map(|server| server.value.0).collect()
}

/// Whether an address is one that each link has anew (RFC 4291 §2.5.6).
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The name of the router whose gateway a VLAN has.
fn router_name<'l>(
    entry: &Entry<Vlan>,
    vlan: &'l Vlan,
    known: &BTreeSet<&str>,
    all_read: bool,
    sink: &mut Sink,
) -> Option<&'l str> {
    let Some(said) = &vlan.router else { return Some(DEFAULT) };
    if vlan.gateway.is_none() && all_read {
        let what = format!("VLAN `{}` has a router, but no gateway", visible(&entry.name));
        sink.error(Code::NeedsKey, said.span, what)
            .help("add the router's address there, like `gateway: 10.0.10.1/24`, or remove `router`");
        return None;
    }
    if !known.contains(said.value.as_str()) {
        let what = format!("there is no router `{}`", visible(&said.value));
        sink.error(Code::UnknownRouter, said.span, what).did_you_mean(&said.value, known.iter().copied());
        return None;
    }
    Some(&said.value)
}

/// The gateway of a VLAN.
fn gateway(entry: &Entry<Vlan>, vlan: &Vlan, vlans: &Vlans, sink: &mut Sink) -> Option<Gateway> {
    let Some(said) = &vlan.gateway else {
        services::dhcp(vlan, &[], sink);
        services::ra(vlan, &[], sink);
        services::neigh_suppress(vlan, false, sink);
        return None;
    };
    if said.value.0.is_empty() {
        sink.error(Code::EmptyList, said.span, "no address is in this list")
            .help("write the gateway's address, like 10.0.10.1/24, or leave `gateway` out");
        return None;
    }
    let usable = said.value.0.iter().filter(|said| !refuse_unusable(said.value.0, said.span, sink));
    let addresses: Vec<_> = usable.map(|said| (said.value.0, said.span)).collect();
    let (dhcp, ra) = (services::dhcp(vlan, &addresses, sink), services::ra(vlan, &addresses, sink));
    let neigh_suppress = services::neigh_suppress(vlan, true, sink);
    let vlan = vlans.id(&entry.name)?;
    Some(Gateway { vlan, name: entry.name.clone(), addresses, span: said.span, dhcp, ra, neigh_suppress })
}

/// Tells of networks of one router that overlap in different VLANs.
fn refuse_overlaps(router: &str, gateways: &[Gateway], sink: &mut Sink) {
    let networks = gateways.iter().flat_map(|gateway| {
        let routed = gateway.addresses.iter().filter(|(net, _)| !is_link_local(net.addr()));
        routed.map(move |(net, span)| (net.trunc(), *span, gateway))
    });
    let mut networks: Vec<_> = networks.collect();
    // One that lies in another comes behind it, and so does all that the other holds.
    networks.sort_by_key(|(net, span, _)| (net.addr(), net.prefix_len(), span.start));
    let mut around: Option<(IpNet, Span, &Gateway)> = None;
    for (net, span, gateway) in networks {
        match around {
            Some((outer, other, of)) if outer.contains(&net) => {
                if of.vlan == gateway.vlan {
                    continue;
                }
                let (first, last) = if other.start < span.start { (other, span) } else { (span, other) };
                let what = format!(
                    "the networks {outer} of VLAN `{}` and {net} of VLAN `{}` overlap in router `{}`",
                    visible(&of.name),
                    visible(&gateway.name),
                    visible(router)
                );
                sink.error(Code::NetworksOverlap, last, what).label(first, "the other").help(
                    "give one of the two another network, or a router of its own: `router: NAME`, and `routers: { NAME: {} }`",
                );
            }
            _ => around = Some((net, span, gateway)),
        }
    }
}

/// Two switches that have a VLAN and are not joined in it, each with a link that says so; none if all are.
fn two_parts(vlan: VlanId, links: &[Checked]) -> Option<[(usize, Span); 2]> {
    let mut neighbours: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut said: HashMap<usize, Span> = HashMap::new();
    for link in links {
        let switches = link.switches_with(vlan);
        for switch in switches {
            said.entry(*switch).or_insert_with(|| link.span());
            neighbours.entry(*switch).or_default().extend(switches.iter().filter(|other| *other != switch));
        }
    }
    let first = *neighbours.keys().next()?;
    let mut joined = BTreeSet::from([first]);
    let mut open = vec![first];
    while let Some(at) = open.pop() {
        let next = neighbours.get(&at).into_iter().flatten();
        open.extend(next.filter(|next| joined.insert(**next)));
    }
    let second = *neighbours.keys().find(|switch| !joined.contains(switch))?;
    Some([(first, *said.get(&first)?), (second, *said.get(&second)?)])
}

/// Warns of an address in no network of its VLAN's gateway, if that has one of its family.
fn warn_outside(own: IpNet, span: Span, router: &Router, gateway: &Gateway, sink: &mut Sink) {
    let address = own.addr();
    let near = gateway
        .addresses
        .iter()
        .filter(|(net, _)| net.addr().is_ipv4() == address.is_ipv4() && !is_link_local(net.addr()));
    let mut near = near.peekable();
    let Some((first, place)) = near.peek().copied().filter(|_| !is_link_local(address)) else { return };
    if near.any(|(net, _)| net.contains(&address)) {
        return;
    }
    let what = format!("{address} is in no network of the gateway of its VLAN `{}`", gateway.name);
    let elsewhere = router.networks.find(address).map(|found| found.vlan);
    let other = elsewhere.and_then(|vlan| router.gateways.iter().find(|gateway| gateway.vlan == vlan));
    let told = sink.warning(Code::OutsideNetworks, span, what).label(*place, "the gateway");
    match other {
        Some(other) => told.help(format!("it is in the network of VLAN `{}`: link it there", other.name)),
        None => {
            told.help(format!("give it an address in {}, or the gateway one in its network", first.trunc()))
        }
    };
}
