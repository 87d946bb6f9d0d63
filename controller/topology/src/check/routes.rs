//! Static routes: of one family, by routers that are there, and each network once.

use crate::{
    check::{
        addresses::refuse_unusable,
        routers::{Router, is_link_local},
        rules,
    },
    codes::Code,
    report::{Sink, Span},
    said::{
        read::{Said, Sound},
        route::{self, To, Via},
    },
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{collections::HashMap, net::IpAddr};
use vswitch_core::description::{self, Route};

/// At most so many networks of a router are named in a message.
const NAMED: usize = 6;

/// Those of a router that are good. `router` is none if nothing is known of its gateways, or they are wrong.
pub(crate) fn check<'s>(
    said: impl Iterator<Item = &'s Said<Sound<route::Route>>>,
    router: Option<&Router>,
    sink: &mut Sink,
) -> Vec<Route> {
    let mut seen = HashMap::new();
    let mut routes = Vec::new();
    for said in said {
        let Some(route) = one(said, router, sink) else { continue };
        let connected = router.and_then(|router| router.networks.exactly(route.to));
        let first = connected.or_else(|| seen.get(&route.to).copied());
        if let Some(first) = first {
            match connected {
                Some(_) => {
                    let what = format!("{} is connected: it needs no route", route.to);
                    let told = sink.error(Code::RouteTwice, said.span, what);
                    told.label(first, "the gateway's network").help("remove the route");
                }
                None => {
                    let what = format!("two routes lead to {}", route.to);
                    sink.error(Code::RouteTwice, said.span, what).label(first, "the first");
                }
            }
            continue;
        }
        seen.insert(route.to, said.span);
        routes.push(route);
    }
    routes
}

fn one(said: &Said<Sound<route::Route>>, router: Option<&Router>, sink: &mut Sink) -> Option<Route> {
    let route::Route { to: Some(to), via: Some(via) } = &said.value.0 else { return None };
    if via.value.0.is_empty() {
        sink.error(Code::EmptyList, via.span, "no next router is in this list")
            .help("write its address, or `blackhole`");
        return None;
    }
    let before = sink.count();
    let network = match to.value {
        To::Network(network) => {
            let network = rules::network(&Said { value: network, span: to.span }, sink);
            network.inspect(|network| refuse_unroutable(*network, to.span, sink))
        }
        To::Default => None,
    };
    let mut hops: Vec<(IpAddr, Span)> = Vec::new();
    let mut nowhere = None;
    for said in &via.value.0 {
        match said.value {
            Via::Blackhole => nowhere = Some(said.span),
            Via::Router(address) => {
                if let Some((_, first)) = hops.iter().find(|(other, _)| *other == address) {
                    sink.error(Code::RouteTwice, said.span, format!("{address} stands here twice"))
                        .label(*first, "first here")
                        .help("remove one of the two: each has the same share");
                }
                hops.push((address, said.span));
            }
        }
    }
    let via = match nowhere {
        Some(span) if via.value.0.len() > 1 => {
            sink.error(Code::RouteForm, span, "`blackhole` stands alone")
                .help("a route leads to routers, or nowhere");
            return None;
        }
        Some(span) if matches!(to.value, To::Default) => {
            sink.error(
                Code::RouteForm,
                to.span,
                "`default` has the family of the next router, and there is none",
            )
            .label(span, "nowhere")
            .help("write `to: 0.0.0.0/0` or `to: \"::/0\"`, or both as two routes");
            return None;
        }
        Some(_) => description::Via::Blackhole,
        None => {
            one_family(network.map(|network| (network.addr(), to.span)), &hops, sink);
            for (address, span) in &hops {
                if let Some(router) = router.filter(|_| sink.count() == before) {
                    is_next(*address, *span, router, sink);
                }
            }
            description::Via::Routers(hops.iter().map(|(address, _)| *address).collect())
        }
    };
    let to = network.or_else(|| {
        let (first, _) = hops.first().filter(|_| matches!(to.value, To::Default))?;
        Some(match first {
            IpAddr::V4(_) => Ipv4Net::default().into(),
            IpAddr::V6(_) => Ipv6Net::default().into(),
        })
    })?;
    let alone = to.prefix_len() == to.max_prefix_len();
    if let Some(own) = router.filter(|_| alone).and_then(|router| router.networks.own(to.addr())) {
        sink.error(Code::RouteInVain, said.span, format!("{} is the router's own address", to.addr()))
            .label(own, "the gateway")
            .help("remove the route: what is for the router itself comes to it");
    }
    (sink.count() == before).then_some(Route { to, via, origin: said.span.origin })
}

/// Networks to which no router passes anything on (RFC 1812 §5.3.7, RFC 4291 §2.5, §2.7), and what is in them.
const UNROUTABLE: [(&str, &str); 8] = [
    ("0.0.0.0/8", "no hosts"),
    ("127.0.0.0/8", "each host itself"),
    ("169.254.0.0/16", "hosts of one link"),
    ("224.0.0.0/4", "groups"),
    ("240.0.0.0/4", "no hosts"),
    ("::/127", "each host itself"),
    ("fe80::/10", "hosts of one link"),
    ("ff00::/8", "groups"),
];

/// Tells if a route leads to where no router passes anything on.
pub(crate) fn refuse_unroutable(to: IpNet, span: Span, sink: &mut Sink) {
    let within =
        |(network, _): &&(&str, &str)| network.parse::<IpNet>().is_ok_and(|network| network.contains(&to));
    if let Some((network, what)) = UNROUTABLE.iter().find(within) {
        sink.error(
            Code::RouteInVain,
            span,
            format!("no packet follows a route to {to}: {network} is for {what}"),
        )
        .help("remove the route");
    }
}

/// Tells if network and next routers are not all of one family.
fn one_family(network: Option<(IpAddr, Span)>, hops: &[(IpAddr, Span)], sink: &mut Sink) {
    let Some((first, place)) = network.or(hops.first().copied()) else { return };
    let other = hops.iter().find(|(hop, _)| hop.is_ipv4() != first.is_ipv4());
    if let Some((hop, span)) = other {
        let family = |address: IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let what = format!("{hop} is of {}, the route is of {}", family(*hop), family(first));
        sink.error(Code::RouteForm, *span, what)
            .label(place, family(first))
            .help("make two routes, one of each family");
    }
}

/// Tells if an address is none of another router in a network of this one's gateways.
fn is_next(address: IpAddr, span: Span, router: &Router, sink: &mut Sink) {
    if let Some(own) = router.networks.own(address) {
        sink.error(Code::NextHop, span, format!("{address} is the router's own address"))
            .label(own, "the gateway");
        return;
    }
    if let Some(connected) = router.networks.find(address) {
        if let Ok(net) = IpNet::new(address, connected.network.prefix_len()) {
            refuse_unusable(net, span, sink);
        }
        return;
    }
    let what = format!("{address} is in no network of router `{}`", router.name);
    let told = sink.error(Code::NextHop, span, what);
    if is_link_local(address) {
        told.help("a link-local address does not say in which VLAN it is: name another of that router");
        return;
    }
    let of_family = router.gateways.iter().flat_map(|gateway| {
        let alike = gateway.addresses.iter().filter(|(net, _)| net.addr().is_ipv4() == address.is_ipv4());
        alike.map(move |(net, _)| format!("{} ({})", net.trunc(), gateway.name))
    });
    let mut networks: Vec<String> = of_family.take(NAMED + 1).collect();
    if networks.len() > NAMED {
        networks[NAMED] = "…".into();
    }
    match networks.is_empty() {
        true => told.help("none of its gateways has an address of that family"),
        false => told.help(format!("its networks are {}", networks.join(", "))),
    };
}
