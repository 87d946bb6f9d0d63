//! The names in the networks of one router.

use super::Leased;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use vswitch_core::{
    description::Host,
    route::{Onward, Router, Routing},
    vlan::VlanId,
};

/// What there is of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// It has these addresses.
    Addresses(Vec<IpAddr>),
    /// It is an address, and these have it.
    Names(Vec<String>),
    /// It would be the lab's to say, and there is none.
    Nobody,
}

/// Names and addresses, and the networks that these are in.
#[derive(Debug)]
pub(super) struct Zone {
    vlans: BTreeSet<VlanId>,
    by_name: BTreeMap<String, Vec<IpAddr>>,
    /// What names of several labels end with.
    above: BTreeSet<String>,
    by_address: BTreeMap<IpAddr, Vec<String>>,
    networks: Vec<ipnet::IpNet>,
    asks_others: bool,
}

impl Zone {
    pub(super) fn of(
        routing: &Routing,
        router: &Router,
        hosts: &[Host],
        names: impl Fn(VlanId) -> Option<String>,
    ) -> Self {
        let own = |vlan| routing.interface(vlan).filter(|own| std::ptr::eq(routing.router(own), router));
        let interfaces =
            || routing.interfaces().iter().filter(|interface| own(interface.said.vlan).is_some());
        let mut zone = Self {
            vlans: interfaces().map(|interface| interface.said.vlan).collect(),
            by_name: BTreeMap::new(),
            above: BTreeSet::new(),
            by_address: BTreeMap::new(),
            networks: (router.routes().iter())
                .filter(|route| matches!(route.onward, Onward::Connected(_)))
                .map(|route| route.to)
                .collect(),
            asks_others: !router.nameservers().is_empty(),
        };
        for host in hosts {
            if zone.has_vlan(host.vlan) {
                host.addresses.iter().for_each(|address| zone.add(&host.name, address.addr()));
            }
        }
        for interface in interfaces() {
            if let Some(vlan) = names(interface.said.vlan) {
                let name = format!("gateway.{vlan}");
                interface.said.addresses.iter().for_each(|own| zone.add(&name, own.addr()));
            }
        }
        zone
    }

    fn add(&mut self, name: &str, address: IpAddr) {
        self.above.extend(name.match_indices('.').map(|(dot, _)| name[dot + 1..].to_owned()));
        self.by_name.entry(name.to_owned()).or_default().push(address);
        self.by_address.entry(address).or_default().push(name.to_owned());
    }

    /// Whether its router has name servers of its own, which know of other names.
    pub(super) const fn asks_others(&self) -> bool {
        self.asks_others
    }

    pub(super) fn has_vlan(&self, vlan: VlanId) -> bool {
        self.vlans.contains(&vlan)
    }

    /// What there is of a name, as DNS writes it without the last dot; none: it is not the lab's to say. What the file says comes before what clients call
    /// themselves.
    pub(super) fn find(&self, domain: &str, asked: &str, leased: &impl Leased) -> Option<Found> {
        let asked = asked.to_ascii_lowercase();
        if let Some(address) = reverse(&asked) {
            let names = self.by_address.get(&address).into_iter().flatten().map(String::as_str);
            let mut names: Vec<&str> = names.collect();
            if names.is_empty() {
                names.extend(self.vlans.iter().filter_map(|vlan| leased.name(*vlan, address)));
            }
            let is_ours = self.networks.iter().any(|network| network.contains(&address));
            return match &names[..] {
                [] => is_ours.then_some(Found::Nobody),
                names => Some(Found::Names(names.iter().map(|name| format!("{name}.{domain}")).collect())),
            };
        }
        if asked == domain {
            return Some(Found::Addresses(Vec::new()));
        }
        let under = asked.strip_suffix(domain).and_then(|name| name.strip_suffix('.'));
        // One label is nobody else's (RFC 1536 §4); of more the domain is to be said.
        let name = under.or_else(|| (!asked.contains('.') && !asked.is_empty()).then_some(&asked[..]))?;
        let mut addresses = self.by_name.get(name).cloned().unwrap_or_default();
        if addresses.is_empty() {
            addresses.extend(self.vlans.iter().flat_map(|vlan| leased.addresses(*vlan, name)));
        }
        if addresses.is_empty() {
            // A name in the middle of others exists, without addresses (RFC 8020).
            let is_above = self.above.contains(name);
            return Some(if is_above { Found::Addresses(addresses) } else { Found::Nobody });
        }
        Some(Found::Addresses(addresses))
    }
}

/// The address of which a name asks who has it (RFC 1035 §3.5, RFC 3596 §2.5).
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut labels = labels.rsplit('.');
        for octet in &mut octets {
            *octet = labels.next()?.parse().ok()?;
        }
        return labels.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let (mut bits, mut count) = (0u128, 0);
    for label in labels.rsplit('.') {
        let digit = u128::from_str_radix(label, 16).ok().filter(|_| label.len() == 1)?;
        (bits, count) = (bits << 4 | digit, count + 1);
    }
    (count == 32).then(|| Ipv6Addr::from_bits(bits).into())
}
