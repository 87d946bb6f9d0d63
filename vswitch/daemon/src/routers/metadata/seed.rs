//! What stands at each path (cloud-init's NoCloud, "NoCloud-Net"): JSON, which is YAML.

use super::Asker;
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};
use vswitch_core::{
    description::{Description, Link, Membership, Port, SshKey},
    mac::MacAddr,
    route::Routing,
    vlan::VlanId,
};

/// What is known of the nodes of a lab.
#[derive(Debug, Default)]
pub(super) struct Seeds {
    lab: String,
    keys: Vec<SshKey>,
    /// By name.
    nodes: BTreeMap<String, Node>,
    /// The nodes of those who may ask.
    askers: BTreeMap<Asker, String>,
}

/// A node's interfaces.
#[derive(Debug, Default)]
struct Node(Vec<Nic>);

/// An interface of a node, in the VLAN that it speaks in untagged.
#[derive(Debug)]
struct Nic {
    name: String,
    mac: MacAddr,
    mtu: Option<u16>,
    /// Those that the file states.
    addresses: Vec<IpNet>,
    /// The gateways in their networks.
    gateways: Vec<IpAddr>,
    /// Whether its gateway gives addresses.
    dhcp: bool,
    dns: Vec<IpAddr>,
    search: Vec<String>,
}

impl Seeds {
    pub(super) fn of(said: &Description, routing: Option<&Routing>) -> Self {
        let (Some(routing), Some(routers)) = (routing, &said.routing) else { return Self::default() };
        let keys = routers.ssh_keys.clone();
        let mut seeds = Self { lab: said.lab.clone(), keys, ..Self::default() };
        for port in said.ports.iter().flatten() {
            let (Some(mac), Some(vlan)) = (port.mac, untagged(&port.link)) else { continue };
            let own = routers
                .hosts
                .iter()
                .filter(|host| host.vlan == vlan && host.name == port.node && host.mac == Some(mac));
            let addresses = own.flat_map(|host| host.addresses.iter().copied()).collect();
            let node = seeds.nodes.entry(port.node.clone()).or_default();
            node.0.push(Nic::of(port, (mac, vlan), addresses, (&said.lab, routing)));
            seeds.askers.insert((vlan, mac), port.node.clone());
        }
        seeds
    }

    /// What is told to this one at a path.
    pub(super) fn tell(&self, asker: Asker, path: &str) -> Option<String> {
        let name = self.askers.get(&asker)?;
        let node = self.nodes.get(name)?;
        match path {
            "/meta-data" => Some(self.meta_data(name, node)),
            // What is known stands in the metadata; without a file of the user's cloud-init takes nothing at all.
            "/user-data" => Some("#cloud-config\n{}\n".to_owned()),
            "/vendor-data" => Some(String::new()),
            "/network-config" => Some(line(&node.network_config())),
            _ => None,
        }
    }

    fn meta_data(&self, name: &str, node: &Node) -> String {
        let is_its = |key: &&SshKey| key.node.as_deref().is_none_or(|node| node == name);
        let mut told = json!({
            "instance-id": format!("{}-{name}", self.lab),
            "local-hostname": name,
            "public-keys": self.keys.iter().filter(is_its).map(|key| &key.key).collect::<Vec<_>>(),
        });
        // cloud-init before 23.4 reads no `network-config` that comes by HTTP.
        if let Some(interfaces) = node.interfaces_file() {
            told["network-interfaces"] = interfaces.into();
        }
        line(&told)
    }
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

const fn untagged(link: &Link) -> Option<VlanId> {
    match link {
        Link::Switch { vlans: Membership::Access(vlan), .. } => Some(*vlan),
        Link::Switch { vlans: Membership::Trunk { native, .. }, .. } => *native,
        Link::None | Link::Routers | Link::Wire { .. } => None,
    }
}

impl Nic {
    fn of(
        port: &Port,
        (mac, vlan): (MacAddr, VlanId),
        addresses: Vec<IpNet>,
        (lab, routing): (&str, &Routing),
    ) -> Self {
        let gateway = routing.interface(vlan).map(|interface| &interface.said);
        let own = || gateway.into_iter().flat_map(|gateway| &gateway.addresses);
        let gateways: Vec<_> = addresses
            .iter()
            .filter_map(|net| own().find(|own| own.contains(&net.addr())).map(IpNet::addr))
            .collect();
        let dhcp = gateway.and_then(|gateway| gateway.dhcp.as_ref());
        let said = dhcp.map_or(&[][..], |dhcp| &dhcp.dns);
        let dns =
            if said.is_empty() { gateways.clone() } else { said.iter().copied().map(IpAddr::V4).collect() };
        let domain = dhcp.and_then(|dhcp| dhcp.domain.clone());
        let domain = domain.unwrap_or_else(|| super::super::dns::domain(lab));
        let search = dhcp.map(|dhcp| dhcp.search.clone()).filter(|search| !search.is_empty());
        Self {
            name: port.interface.clone(),
            mac,
            mtu: port.mtu.or_else(|| dhcp.and_then(|dhcp| dhcp.mtu)),
            addresses,
            gateways,
            dhcp: dhcp.is_some(),
            dns,
            search: search.unwrap_or_else(|| vec![domain]),
        }
    }

    fn has_stated_v4(&self) -> bool {
        self.addresses.iter().any(|net| net.addr().is_ipv4())
    }
}

impl Node {
    /// The gateways that it has its default routes by: in each family that of its first interface that has one.
    fn default_routes(&self) -> [Option<(&Nic, IpAddr)>; 2] {
        let all = || self.0.iter().flat_map(|nic| nic.gateways.iter().map(move |gateway| (nic, *gateway)));
        [all().find(|(_, own)| own.is_ipv4()), all().find(|(_, own)| own.is_ipv6())]
    }

    /// In netplan's form (cloud-init's version 2). An interface keeps the name that it has: it is known by its MAC address.
    fn network_config(&self) -> Value {
        let defaults = self.default_routes();
        let mut ethernets = Map::new();
        for nic in &self.0 {
            let mut said = json!({
                "match": { "macaddress": nic.mac.to_string() },
                "dhcp4": nic.dhcp && !nic.has_stated_v4(),
            });
            if !nic.addresses.is_empty() {
                said["addresses"] = nic.addresses.iter().map(IpNet::to_string).collect();
                said["nameservers"] = json!({ "addresses": nic.dns, "search": nic.search });
            }
            let routes = defaults.iter().flatten().filter(|(by, _)| by.mac == nic.mac).map(|(_, via)| {
                let to = if via.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
                json!({ "to": to, "via": via })
            });
            let routes: Vec<_> = routes.collect();
            if !routes.is_empty() {
                said["routes"] = routes.into();
            }
            if let Some(mtu) = nic.mtu {
                said["mtu"] = mtu.into();
            }
            ethernets.insert(nic.name.clone(), said);
        }
        json!({ "version": 2, "ethernets": ethernets })
    }

    /// As interfaces(5): no more than that can say in one way. None: DHCP tells all of it.
    fn interfaces_file(&self) -> Option<String> {
        if !self.0.iter().any(Nic::has_stated_v4) {
            return None;
        }
        let [default, _] = self.default_routes();
        let mut file = String::new();
        for nic in &self.0 {
            let stated = nic.addresses.iter().find(|net| net.addr().is_ipv4());
            let method = match stated {
                Some(_) => "static",
                None if nic.dhcp => "dhcp",
                None => continue,
            };
            let (name, mac) = (&nic.name, nic.mac);
            // Writing to a String cannot fail.
            let _ = write!(file, "auto {name}\niface {name} inet {method}\n  hwaddress ether {mac}\n");
            let Some(address) = stated else { continue };
            let _ = writeln!(file, "  address {}\n  netmask {}", address.addr(), address.netmask());
            if let Some((_, gateway)) = default.filter(|(by, _)| by.mac == nic.mac) {
                let _ = writeln!(file, "  gateway {gateway}");
            }
            let mut dns = nic.dns.iter().filter(|server| server.is_ipv4()).peekable();
            if dns.peek().is_some() {
                let dns: Vec<_> = dns.map(IpAddr::to_string).collect();
                let _ = writeln!(
                    file,
                    "  dns-nameservers {}\n  dns-search {}",
                    dns.join(" "),
                    nic.search.join(" ")
                );
            }
            if let Some(mtu) = nic.mtu {
                let _ = writeln!(file, "  mtu {mtu}");
            }
        }
        Some(file)
    }
}
