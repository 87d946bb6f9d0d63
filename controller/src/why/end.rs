//! Whom a question is about: an interface, a node with all of its interfaces, or an address that nobody is known to have.

use crate::failure::Failure;
use ipnet::IpNet;
use std::{fmt, net::IpAddr};
use topology::plan::{Interface, Node, Plan};
use vswitch_core::{
    description::{Gateway, NatRule, Router},
    id::PortId,
    mac::MacAddr,
};
use vswitchd::recorder::{Event, Record};

/// One end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    said: String,
    ports: Vec<PortId>,
    pub(super) macs: Vec<MacAddr>,
    addresses: Vec<IpAddr>,
    /// Addresses outside by which routers lead to it, some of which others have too.
    outside: Vec<IpAddr>,
    /// The port of the routers, which give back what waited there.
    routers: Option<PortId>,
    /// It was named by an IPv6 address, of which the recorder keeps the last 32 bits.
    by_last_bits: bool,
}

impl End {
    /// What is meant by `said`: a node, `node:interface`, a MAC address or an IP address.
    pub(super) fn find(plan: &Plan, said: &str) -> Result<Self, Failure> {
        let (ip, mac) = (said.parse::<IpAddr>().ok(), said.parse::<MacAddr>().ok());
        let is_meant = |node: &Node, interface: &Interface| match (ip, mac) {
            (Some(ip), _) => interface.addresses.iter().any(|network| network.addr() == ip),
            (None, Some(mac)) => interface.mac == Some(mac),
            (None, None) => node.name == said || format!("{}:{}", node.name, interface.name) == said,
        };
        let by_last_bits = matches!(ip, Some(IpAddr::V6(_)));
        let mut end = Self {
            said: said.into(),
            ports: vec![],
            macs: vec![],
            addresses: vec![],
            outside: vec![],
            routers: plan.routers().map(|port| port.id),
            by_last_bits,
        };
        for (node, interface) in interfaces(plan) {
            if is_meant(node, interface) {
                end.ports.push(interface.port);
                end.macs.extend(interface.mac);
                end.addresses.extend(interface.addresses.iter().map(ipnet::IpNet::addr));
            }
        }
        end.outside = end.addresses.iter().flat_map(|address| outside(plan, *address)).collect();
        if let Some(routers) = plan.routers().filter(|port| port.node == said || port.name() == said) {
            end.ports.push(routers.id);
            end.macs.extend(routers.mac);
        }
        match (end.ports.is_empty(), ip, mac) {
            (false, ..) => {}
            (true, Some(ip), _) => end.addresses.push(ip),
            (true, None, Some(mac)) => end.macs.push(mac),
            (true, None, None) => {
                let nodes: Vec<_> = plan.nodes.iter().map(|node| node.name.as_str()).collect();
                return Err(Failure::invalid("no-such-interface", format!("there is no interface `{said}`"))
                    .mend(format!(
                        "say a node, node:interface or an address; the nodes are {}",
                        nodes.join(", ")
                    )));
            }
        }
        Ok(end)
    }

    /// Its interfaces.
    pub(super) fn interfaces<'p>(&self, plan: &'p Plan) -> impl Iterator<Item = (&'p Node, &'p Interface)> {
        interfaces(plan).filter(|(_, interface)| self.ports.contains(&interface.port))
    }

    /// Whether it happened here, to a frame that came from here, or to an address that was here.
    fn is_source(&self, record: &Record) -> bool {
        if !self.ports.is_empty() {
            let happened_here = record.event.port().is_some_and(|port| self.ports.contains(&port));
            // What waited for a neighbour of a router is judged once more there, as it came.
            let waited = record.event.port().is_some_and(|port| Some(port) == self.routers)
                && record.frame.is_some_and(|frame| self.macs.contains(&frame.src));
            return happened_here || waited || self.ports.iter().any(|port| record.event.takes_from(*port));
        }
        record.frame.is_some_and(|frame| {
            self.macs.contains(&frame.src) || self.addresses.iter().any(|address| frame.may_be_from(*address))
        })
    }

    /// Whether it happened to a frame, or the copy of one, that was for here.
    fn is_destination(&self, record: &Record) -> bool {
        matches!(record.event, Event::Lost { to, .. } if self.ports.contains(&to))
            || record.frame.is_some_and(|frame| {
                self.macs.contains(&frame.dst)
                    || self.addresses.iter().chain(&self.outside).any(|address| frame.may_be_for(*address))
            })
    }
}

/// The addresses outside by which routers lead to a host: one of its own, or those that it shares with others whose source or port is translated.
fn outside(plan: &Plan, host: IpAddr) -> Vec<IpAddr> {
    let routers = plan.description.routing.iter().flat_map(|routing| &routing.routers);
    let is_its = |router: &&Router| {
        router.gateways.iter().any(|gateway| gateway.addresses.iter().any(|own| own.contains(&host)))
    };
    let mut all = Vec::new();
    for router in routers.filter(is_its) {
        let into = |vlan| router.nat.iter().any(|nat| nat.rule == NatRule::Masquerade { vlan });
        let masquerades = router.nat.iter().any(|nat| matches!(nat.rule, NatRule::Masquerade { .. }));
        for nat in &router.nat {
            match nat.rule {
                NatRule::Static { outside, host: its, .. } if its == host => all.push(outside),
                NatRule::Static { .. } => {}
                NatRule::Forward { host: its, .. } if its != host => {}
                // What is masqueraded has the address of the router where it goes out; ports are forwarded there, or everywhere.
                NatRule::Forward { .. } | NatRule::Masquerade { .. } => {
                    let outer = |gateway: &&Gateway| !masquerades || into(gateway.vlan);
                    let own = router.gateways.iter().filter(outer);
                    let own = own.flat_map(|gateway| gateway.addresses.iter());
                    let is_inside =
                        |own: &&IpNet| !own.contains(&host) && own.addr().is_ipv4() == host.is_ipv4();
                    all.extend(own.filter(is_inside).map(IpNet::addr));
                }
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn interfaces(plan: &Plan) -> impl Iterator<Item = (&Node, &Interface)> {
    plan.nodes.iter().flat_map(|node| node.interfaces.iter().map(move |interface| (node, interface)))
}

/// What a question is about: everything, one end, or the frames from one to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct About {
    pub(super) src: Option<End>,
    pub(super) dst: Option<End>,
}

impl About {
    pub(super) fn covers(&self, record: &Record) -> bool {
        match (&self.src, &self.dst) {
            (None, None) => true,
            (Some(end), None) => end.is_source(record) || end.is_destination(record),
            (None, Some(dst)) => dst.is_destination(record),
            // That a link of either went down may be the very reason.
            (Some(src), Some(dst)) => match record.event {
                Event::Up { .. } | Event::Down { .. } | Event::Faulted { .. } => {
                    src.is_source(record) || dst.is_source(record)
                }
                _ => src.is_source(record) && dst.is_destination(record),
            },
        }
    }

    /// Whether an IPv6 address says whom it is about: of those the last 32 bits are compared.
    pub(super) fn compares_last_bits(&self) -> bool {
        [&self.src, &self.dst].into_iter().flatten().any(|end| end.by_last_bits)
    }

    /// The ports to which all that is covered happened; empty: it may be anywhere.
    pub(super) fn ports(&self) -> Vec<PortId> {
        match (&self.src, &self.dst) {
            (Some(src), Some(dst)) if !src.ports.is_empty() => {
                let routers: Vec<_> = src.routers.into_iter().collect();
                [&src.ports[..], &dst.ports, &routers].concat()
            }
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.src, &self.dst) {
            (None, None) => f.write_str("anywhere"),
            (Some(end), None) => write!(f, "from or to {}", end.said),
            (None, Some(dst)) => write!(f, "to {}", dst.said),
            (Some(src), Some(dst)) => write!(f, "from {} to {}", src.said, dst.said),
        }
    }
}
