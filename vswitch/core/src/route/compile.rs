//! From what is said of routers to their tables.

use super::{Interface, METADATA, Nat, Onward, Route, Router, Routing, table};
use crate::{
    description::{self, Description, Link, NatRule, Via},
    id::SwitchId,
    mac::MacAddr,
    vlan::{VlanId, VlanSet},
    world::{CompileError, Fault},
};
use ipnet::IpNet;
use std::net::IpAddr;

impl Routing {
    /// That of a description; none if it has no routers. `reached` tells the first switch that a VLAN reaches.
    ///
    /// # Errors
    /// The first thing that does not fit together.
    pub(crate) fn compile(
        description: &Description,
        vlans: &VlanSet,
        reached: impl Fn(VlanId) -> Option<SwitchId>,
    ) -> Result<Option<Self>, CompileError> {
        let Some(said) = &description.routing else { return Ok(None) };
        let mac = port_mac(description, said)?;
        let (mut interfaces, mut routers) = (Vec::new(), Vec::with_capacity(said.routers.len()));
        for (place, router) in said.routers.iter().enumerate() {
            let nat = Nat::compile(router);
            for gateway in &router.gateways {
                let wrong = |fault| CompileError {
                    who: format!("the gateway of VLAN {}", gateway.vlan),
                    line: Some(gateway.origin.line),
                    fault,
                };
                if !vlans.contains(gateway.vlan) {
                    return Err(wrong(Fault::NoSuchVlan(gateway.vlan)));
                }
                // A VLAN that no switch has is one that nothing is said in.
                let home = reached(gateway.vlan).unwrap_or(SwitchId::new(0));
                let outside = nat.iter().flat_map(|nat| nat.addresses(gateway.vlan)).collect();
                interfaces.push(Interface { said: gateway.clone(), home, outside, router: place });
            }
            routers.push(compile_router(router, nat)?);
        }
        interfaces.sort_by_key(|interface| interface.said.vlan);
        let twice = interfaces.windows(2).find(|pair| pair[0].said.vlan == pair[1].said.vlan);
        if let Some([_, twice]) = twice {
            return Err(CompileError {
                who: format!("the gateway of VLAN {}", twice.said.vlan),
                line: Some(twice.said.origin.line),
                fault: Fault::GatewayTwice,
            });
        }
        let hosts = said.hosts.iter().filter_map(|host| Some((host, host.mac?)));
        let stated = hosts.flat_map(|(host, mac)| {
            host.addresses.iter().map(move |address| ((host.vlan, address.addr()), mac))
        });
        Ok(Some(Self { port: said.port, mac, routers, interfaces, stated: stated.collect() }))
    }
}

/// The address of the routers' port.
fn port_mac(description: &Description, said: &description::Routing) -> Result<MacAddr, CompileError> {
    let port = description.ports.get(usize::from(said.port.index())).and_then(Option::as_ref);
    let port = port.filter(|port| port.id == said.port && port.link == Link::Routers);
    port.and_then(|port| port.mac).ok_or_else(|| CompileError {
        who: format!("lab {}", description.lab),
        line: None,
        fault: Fault::NoRoutersPort,
    })
}

fn compile_router(said: &description::Router, nat: Option<Nat>) -> Result<Router, CompileError> {
    let mut routes = Vec::with_capacity(said.routes.len());
    for gateway in &said.gateways {
        let route = |to, onward| Route { to, onward, origin: gateway.origin };
        for own in &gateway.addresses {
            routes.push(route(own.trunc(), Onward::Connected(gateway.vlan)));
            for to in broadcasts(own) {
                routes.push(route(to, Onward::Broadcast));
            }
        }
        for own in &gateway.addresses {
            routes.push(route(own.addr().into(), Onward::Own));
        }
    }
    // Once, wherever it is told.
    if let Some(gateway) = said.gateways.iter().find(|gateway| gateway.dhcp.is_some()) {
        routes.push(Route { to: IpAddr::from(METADATA).into(), onward: Onward::Own, origin: gateway.origin });
    }
    // An address that a host has outside is the router's: what comes for it goes to the host before this is asked.
    for nat in &said.nat {
        if let NatRule::Static { outside, .. } = nat.rule {
            routes.push(Route { to: outside.into(), onward: Onward::Own, origin: nat.origin });
        }
    }
    for route in &said.routes {
        let onward = match &route.via {
            Via::Blackhole => Onward::Blackhole,
            Via::Routers(routers) => Onward::Via(
                (routers.iter())
                    .map(|router| connected(said, *router).map(|vlan| (vlan, *router)))
                    .collect::<Option<_>>()
                    .ok_or_else(|| CompileError {
                        who: format!("the route to {}", route.to),
                        line: Some(route.origin.line),
                        fault: Fault::NextHopNotConnected,
                    })?,
            ),
        };
        routes.push(Route { to: route.to.trunc(), onward, origin: route.origin });
    }
    let (routes, v4, v6) = table::compile(routes);
    let (name, nameservers) = (said.name.clone(), said.nameservers.clone());
    Ok(Router { name, v4, v6, routes, nat, nameservers })
}

/// The addresses of a connected network that are for all in it: its last and, as of old, its first (RFC 1812 §4.2.3.1, RFC 3021 §2.1).
fn broadcasts(own: &IpNet) -> impl Iterator<Item = IpNet> {
    let IpNet::V4(own) = own else { return None.into_iter().chain(None) };
    let has = own.prefix_len() < 31;
    let address = |address| has.then_some(IpNet::from(IpAddr::V4(address)));
    address(own.broadcast()).into_iter().chain(address(own.network()))
}

/// The VLAN of a router's connected network in which an address is.
fn connected(router: &description::Router, address: IpAddr) -> Option<VlanId> {
    let in_network = |gateway: &&description::Gateway| {
        gateway.addresses.iter().any(|own| own.contains(&address) && own.addr() != address)
    };
    router.gateways.iter().find(in_network).map(|gateway| gateway.vlan)
}
