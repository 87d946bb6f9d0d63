//! What gateways do for hosts: the addresses that they give, and whether they advertise themselves.

use crate::{
    check::{addresses::refuse_unusable, nat::Scope, routers::Routers, routes::refuse_unroutable, rules},
    codes::Code,
    report::{Sink, Span},
    said::{
        dhcp::{Boot, BootServer, Dhcp, Range, Settings},
        lab::{Lab, Vlan},
        read::{Said, Sound},
    },
};
use ipnet::{IpNet, Ipv4Net};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};
use vswitch_core::description;

/// For how many seconds an address is given if nothing is said.
const LEASE_SECS: u32 = 12 * 3600;

/// Addresses that one gateway gives at most.
const MOST: u32 = 1 << 16;

/// Bytes of what clients are told besides what each is: of the 308 that every client takes for options (RFC 2131 §2) what is left beside lease, mask,
/// router, a name of 31 letters, and an identifier of the client's of 20 bytes.
const MOST_OPTIONS: usize = 200;

/// Bytes of an option with the longest address of a server as text, or with the class of firmware that boots by HTTP, which is shorter: nobody is told both.
const BOOT_BYTES: usize = 17;

/// Bytes of a lab's own domain at most: a name, `.internal`.
const OWN_DOMAIN: usize = 40;

/// What a gateway with these addresses gives.
pub(crate) fn dhcp(vlan: &Vlan, addresses: &[(IpNet, Span)], sink: &mut Sink) -> Option<description::Dhcp> {
    let said = vlan.dhcp.as_ref()?;
    let settings = match &said.value {
        Dhcp::Flag(false) => return None,
        Dhcp::Flag(true) => None,
        Dhcp::Settings(settings) => Some(&settings.0),
    };
    let Some(network) = networks_of(addresses).next() else {
        // An address that could not be read was told.
        if vlan.gateway.is_none() || !addresses.is_empty() {
            sink.error(
                Code::NeedsKey,
                said.span,
                "`dhcp` gives addresses of the gateway's IPv4 network, and there is none",
            )
            .help("add the gateway's address, like `gateway: 10.0.10.1/24`");
        }
        return None;
    };
    let (first, last) = match settings.and_then(|settings| settings.range.as_ref()) {
        None => whole(network),
        Some(range) => check_range(range, &networks_of(addresses).collect::<Vec<_>>(), sink)?,
    };
    let network = networks_of(addresses).find(|network| network.contains(&first))?;
    let none = Settings::default();
    let settings = settings.unwrap_or(&none);
    let dns = settings.dns.iter().flat_map(|dns| &dns.value.0);
    let search = settings.search.iter().flat_map(|search| &search.value.0);
    let given = description::Dhcp {
        first,
        last,
        lease_secs: settings.lease.as_ref().map_or(LEASE_SECS, |age| age.value.0),
        dns: dns.map(|server| server.value.0).collect(),
        domain: settings.domain.as_ref().map(|domain| domain.value.0.clone()),
        search: search.map(|domain| domain.value.0.clone()).collect(),
        mtu: settings.mtu.as_ref().map(|mtu| mtu.value.0),
        routes: routes(settings, network, addresses, sink),
        boot: settings.boot.as_ref().and_then(|said| boot(said, sink)),
    };
    check_size(&given, said.span, sink);
    Some(given)
}

/// The routes of clients in this network.
fn routes(
    settings: &Settings,
    network: Ipv4Net,
    addresses: &[(IpNet, Span)],
    sink: &mut Sink,
) -> Vec<(Ipv4Net, Ipv4Addr)> {
    let mut seen = HashMap::new();
    let mut routes = Vec::new();
    for said in settings.routes.iter().flat_map(|routes| &routes.value) {
        let (Some(to), Some(via)) = (&said.value.0.to, &said.value.0.via) else { continue };
        let before = sink.count();
        let known = rules::network(to, sink);
        let hop = via.value.0;
        let to_network = match known {
            Some(IpNet::V4(known)) => known,
            Some(IpNet::V6(known)) => {
                sink.error(Code::RouteForm, to.span, format!("{known} is of IPv6, and DHCP is of IPv4"))
                    .help("hosts learn routes of IPv6 from router advertisements");
                continue;
            }
            None => continue,
        };
        if to_network.prefix_len() == 0 {
            sink.error(Code::RouteForm, to.span, "the default route of clients leads to the gateway")
                .help("remove it, or name the networks that are reached by the other router");
            continue;
        }
        refuse_unroutable(to_network.into(), to.span, sink);
        if let Some(first) = seen.insert(to_network, said.span) {
            sink.error(Code::RouteTwice, said.span, format!("two routes lead to {to_network}"))
                .label(first, "the first")
                .help("remove one of the two");
        }
        if to_network == network.trunc() {
            sink.error(Code::RouteTwice, said.span, format!("{to_network} is the clients' own network"))
                .help("remove the route");
        }
        if network.contains(&hop) {
            let own = addresses.iter().find(|(own, _)| own.addr() == hop);
            if let (None, Ok(net)) = (own, Ipv4Net::new(hop, network.prefix_len())) {
                refuse_unusable(net.into(), via.span, sink);
            }
        } else {
            let what = format!("{hop} is not in the clients' network {}", network.trunc());
            sink.error(Code::NextHop, via.span, what).help(format!("name a router in {}", network.trunc()));
        }
        if sink.count() == before {
            routes.push((to_network, hop));
        }
    }
    routes
}

/// What clients boot; a server that is a node is found when all nodes are known.
fn boot(said: &Said<Sound<Boot>>, sink: &mut Sink) -> Option<description::Boot> {
    let file = said.value.0.file.as_ref()?.value.0.clone();
    let server = said.value.0.server.as_ref();
    let boot = description::Boot { server: None, file };
    let address = match server.map(|server| &server.value) {
        None if boot.is_url() => None,
        None => {
            sink.error(Code::BootServer, said.span, "this file is no URL, and nothing says who has it")
                .help("add `server:`, an address or a node, or write a URL, like http://10.0.20.10/boot.efi");
            return None;
        }
        Some(BootServer::Node(_)) => None,
        Some(BootServer::Address(address)) => {
            if address.is_unspecified()
                || address.is_broadcast()
                || address.is_multicast()
                || address.is_loopback()
            {
                let span = server.map_or(said.span, |server| server.span);
                sink.error(
                    Code::BootServer,
                    span,
                    format!("{address} is no host's address that others can ask"),
                )
                .help("name the address of a server, or a node");
                return None;
            }
            Some(*address)
        }
    };
    Some(description::Boot { server: address, ..boot })
}

/// Finds the servers of what clients boot that are nodes.
pub(crate) fn find_boot_servers(lab: &Lab, routers: &mut Routers, scope: &Scope<'_>, sink: &mut Sink) {
    for entry in lab.vlans.iter().flat_map(|vlans| &vlans.0) {
        let dhcp = entry.value.as_ref().and_then(|vlan| vlan.dhcp.as_ref());
        let Some(Dhcp::Settings(settings)) = dhcp.map(|said| &said.value) else { continue };
        let Some(said) = settings.0.boot.as_ref().and_then(|boot| boot.value.0.server.as_ref()) else {
            continue;
        };
        let BootServer::Node(node) = &said.value else { continue };
        let Some((router, gateway)) = routers.gateway_named(&entry.name) else {
            // Whether there is such a node is to be said all the same.
            scope.hosts(None, node, said.span, Code::BootServer, sink);
            continue;
        };
        let hosts = scope.hosts(Some(router), node, said.span, Code::BootServer, sink);
        let address = hosts.iter().find_map(|(_, address)| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        if !hosts.is_empty() && address.is_none() {
            let what =
                format!("`{}` has no IPv4 address in a network of router `{}`", node.node, router.name);
            sink.error(Code::BootServer, said.span, what).help("state one: DHCP is of IPv4");
        }
        routers.boot_from(gateway, address);
    }
}

/// Tells if there is more to be said than a message of DHCP has room for.
fn check_size(given: &description::Dhcp, span: Span, sink: &mut Sink) {
    let labels = |domain: &String| domain.len() + 2;
    let of = |bytes: usize| if bytes == 0 { 0 } else { 2 + bytes };
    let route = |(to, _): &(Ipv4Net, Ipv4Addr)| 5 + usize::from(to.prefix_len().div_ceil(8));
    let routes: usize = given.routes.iter().map(route).sum();
    let search = match &given.domain {
        // What is searched then: that, and the lab's own.
        Some(domain) if given.search.is_empty() => labels(domain) + OWN_DOMAIN + 2,
        _ => given.search.iter().map(labels).sum(),
    };
    let bytes = of(4 * given.dns.len())
        + of(given.domain.as_ref().map_or(OWN_DOMAIN, String::len))
        + of(search)
        // With them comes the default route (RFC 3442).
        + of(if routes == 0 { 0 } else { routes + 5 })
        + given.boot.as_ref().map_or(0, |boot| of(boot.file.len()) + BOOT_BYTES);
    if bytes > MOST_OPTIONS {
        let what = format!("this takes {bytes} bytes of a message that has {MOST_OPTIONS} for it");
        sink.error(Code::DhcpOptions, span, what)
            .help("leave some of `dns`, `domain`, `search`, `routes` and `boot` out, or name fewer");
    }
}

/// Whether a gateway with these addresses advertises itself.
pub(crate) fn ra(vlan: &Vlan, addresses: &[(IpNet, Span)], sink: &mut Sink) -> bool {
    let Some(said) = vlan.ra.as_ref().filter(|said| said.value) else { return false };
    let has_v6 = addresses.iter().any(|(net, _)| net.addr().is_ipv6());
    if !has_v6 && (vlan.gateway.is_none() || !addresses.is_empty()) {
        sink.error(
            Code::NeedsKey,
            said.span,
            "`ra` advertises the gateway's IPv6 networks, and there is none",
        )
        .help("add the gateway's address, like `gateway: [10.0.10.1/24, \"2001:db8:10::1/64\"]`");
    }
    has_v6
}

/// Whether the gateway, if there `is_one`, answers for the neighbours that it knows.
pub(crate) fn neigh_suppress(vlan: &Vlan, is_one: bool, sink: &mut Sink) -> bool {
    let Some(said) = vlan.neigh_suppress.as_ref().filter(|said| said.value) else { return false };
    if !is_one {
        let what = "`neigh-suppress` is the gateway's to do, and the VLAN has none";
        sink.error(Code::NeedsKey, said.span, what)
            .help("add the gateway's address, like `gateway: 10.0.10.1/24`, or leave `neigh-suppress` out");
    }
    is_one
}

/// The gateway's networks of IPv4.
fn networks_of(addresses: &[(IpNet, Span)]) -> impl Iterator<Item = Ipv4Net> {
    addresses.iter().filter_map(|(net, _)| match net {
        IpNet::V4(net) => Some(*net),
        IpNet::V6(_) => None,
    })
}

/// All addresses of a network that a host may have, as far as they are given.
fn whole(network: Ipv4Net) -> (Ipv4Addr, Ipv4Addr) {
    let (first, last) = (network.network().to_bits(), network.broadcast().to_bits());
    // A network of two addresses has no others (RFC 3021).
    let (first, last) = if network.prefix_len() < 31 { (first + 1, last - 1) } else { (first, last) };
    (Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last.min(first + (MOST - 1))))
}

/// The range, if it lies in one of the networks.
fn check_range(said: &Said<Range>, all: &[Ipv4Net], sink: &mut Sink) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let Range(first, last) = said.value;
    let example = all.first().map(|network| whole(*network));
    let refuse = |what: String, sink: &mut Sink| {
        let told = sink.error(Code::DhcpRange, said.span, what);
        if let Some((first, last)) = example {
            told.help(format!("write a range of the gateway's network: within {first}-{last}"));
        }
        None
    };
    if first > last {
        return refuse(format!("{first} is behind {last}"), sink);
    }
    if last.to_bits() - first.to_bits() >= MOST {
        return refuse(format!("these are more than {MOST} addresses"), sink);
    }
    let holds = |network: &&Ipv4Net| {
        let (from, to) = (network.network().to_bits(), network.broadcast().to_bits());
        let edges = u32::from(network.prefix_len() < 31);
        from + edges <= first.to_bits() && last.to_bits() <= to - edges
    };
    if let Some(network) = all.iter().find(|network| network.contains(&first) && network.contains(&last))
        && !holds(&network)
    {
        let (from, to) = (network.network(), network.broadcast());
        let what = format!(
            "nobody can have {from}, which is the network's own address, and {to}, which is all hosts'"
        );
        return refuse(what, sink);
    }
    if !all.iter().any(|network| holds(&network)) {
        return refuse(format!("{first}-{last} is in no network of this gateway"), sink);
    }
    Some((first, last))
}
