//! What gateways do for hosts, beside what the file states of these: warnings of what does not go together.

use crate::{
    check::{
        guards::Guard,
        interfaces::NodeInterface,
        links::Checked,
        routers::{Gateway, Routers, is_link_local},
    },
    codes::Code,
    plan::{Boot, NodeKind},
    report::Sink,
    said::{
        dhcp::Dhcp,
        lab::{Lab, Vlan},
    },
};
use ipnet::IpNet;
use std::{collections::BTreeSet, net::Ipv4Addr};

/// All interfaces, each with what guards it.
pub(crate) struct Hosts<'a> {
    pub(crate) interfaces: &'a [NodeInterface],
    pub(crate) guards: &'a [Option<Guard>],
    pub(crate) links: &'a [Checked],
    /// By node, what it is.
    pub(crate) kinds: &'a [Option<NodeKind>],
}

/// Warns of gateways that have no address for all, or advertise what is dropped.
pub(crate) fn warn(lab: &Lab, routers: &Routers, hosts: &Hosts<'_>, sink: &mut Sink) {
    let said = lab.vlans.iter().flat_map(|vlans| &vlans.0);
    for entry in said {
        let gateway = routers.gateways().find(|gateway| gateway.name == entry.name);
        if let (Some(vlan), Some(gateway)) = (&entry.value, gateway) {
            hosts.warn_of_full(vlan, gateway, sink);
            hosts.warn_of_advertised(vlan, gateway, sink);
        }
    }
}

impl Hosts<'_> {
    /// The interfaces whose untagged frames are of a gateway's VLAN, and whether each takes what gateways give: the bundled guest and stations do not.
    fn of<'h>(&'h self, gateway: &Gateway) -> impl Iterator<Item = (usize, &'h NodeInterface, bool)> {
        let vlan = gateway.vlan;
        self.interfaces.iter().enumerate().filter_map(move |(place, interface)| {
            let link = interface.link.filter(|link| self.links[*link].untagged() == Some(vlan));
            let takes = match self.kinds.get(interface.node)?.as_ref()? {
                NodeKind::Vm(vm) => vm.boot != Boot::Bundled,
                NodeKind::Station | NodeKind::Pcap { .. } | NodeKind::User => false,
                _ => true,
            };
            link.map(|_| (place, interface, takes))
        })
    }

    /// Warns of a range of which less is left than interfaces want.
    fn warn_of_full(&self, vlan: &Vlan, gateway: &Gateway, sink: &mut Sink) {
        let (Some(said), Some(given)) = (&vlan.dhcp, gateway.dhcp()) else { return };
        let is_given = |net: &IpNet| match net {
            IpNet::V4(net) => Some(net.addr()).filter(|own| (given.first..=given.last).contains(own)),
            IpNet::V6(_) => None,
        };
        let stated = |interface: &NodeInterface| -> Vec<IpNet> {
            interface.said.addresses.iter().flatten().map(|said| said.value.0).collect()
        };
        let own = gateway.addresses.iter().filter_map(|(own, _)| is_given(own));
        let theirs = self.of(gateway).flat_map(|(_, interface, _)| stated(interface));
        let taken: BTreeSet<Ipv4Addr> = own.chain(theirs.filter_map(|net| is_given(&net))).collect();
        let wants = |(_, interface, takes): &(usize, &NodeInterface, bool)| {
            *takes && !stated(interface).iter().any(|net| net.addr().is_ipv4())
        };
        let clients = self.of(gateway).filter(wants).count();
        let left = u64::from(given.last.to_bits() - given.first.to_bits()) + 1 - taken.len() as u64;
        let range = match &said.value {
            Dhcp::Settings(settings) => settings.0.range.as_ref().map(|range| range.span),
            Dhcp::Flag(_) => None,
        };
        if left >= clients as u64 && (left > 0 || range.is_none()) {
            return;
        }
        let wanted = match clients {
            0 => String::new(),
            1 => ", and an interface has none stated".to_owned(),
            many => format!(", and {many} interfaces have none stated"),
        };
        let what = match left {
            0 => format!("the file states all addresses of {}-{}{wanted}", given.first, given.last),
            1 => format!("one address of {}-{} is left{wanted}", given.first, given.last),
            left => format!("{left} addresses of {}-{} are left{wanted}", given.first, given.last),
        };
        sink.warning(Code::DhcpFull, range.unwrap_or(said.span), what)
            .help("make the range larger, or state `addresses` of those that have none");
    }

    /// Warns of networks in which hosts make addresses that they may not use.
    fn warn_of_advertised(&self, vlan: &Vlan, gateway: &Gateway, sink: &mut Sink) {
        let Some(ra) = vlan.ra.as_ref().filter(|said| said.value) else { return };
        for (place, interface, takes) in self.of(gateway) {
            let Some(guard) = self.guards.get(place).and_then(Option::as_ref).filter(|_| takes) else {
                continue;
            };
            for said in interface.said.addresses.iter().flatten() {
                let is_made = |net: &IpNet| {
                    net.addr().is_ipv6()
                        && !is_link_local(net.addr())
                        && net.prefix_len() == 64
                        && net.contains(&said.value.0.addr())
                };
                let networks = gateway.addresses.iter().map(|(own, _)| own.trunc());
                let Some(network) = networks.filter(|net| guard.keeps_out(*net)).find(is_made) else {
                    continue;
                };
                let what = format!(
                    "Linux makes itself another address of {network}, and anti-spoof drops what it says from that"
                );
                sink.warning(Code::AdvertisedAndGuarded, said.span, what)
                    .label(ra.span, "the network is advertised")
                    .help(format!(
                        "add `allowed-addresses: [\"{network}\"]` to the interface, or leave `ra` out"
                    ));
                break;
            }
        }
    }
}
