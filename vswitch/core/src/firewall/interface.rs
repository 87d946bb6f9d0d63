//! What guards one interface in one World: its policy, and what it may call itself.

use super::{hits::DefaultHits, policies::Policy};
use crate::{
    description::{self, Origin},
    id::Epoch,
    mac::MacAddr,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// An interface's firewall.
#[derive(Debug)]
pub struct Firewall {
    /// Its rules. If they cannot be compiled, the interface is down.
    pub policy: Result<Arc<Policy>, PolicyFault>,
    /// The configuration that last changed these rules: what was judged under an older one is judged anew.
    pub epoch: Epoch,
    /// What it may call itself; none: anything.
    pub identity: Option<Identity>,
    /// Whether it may answer as a DHCP server.
    pub dhcp_server: bool,
    /// Whether it may advertise itself as an IPv6 router.
    pub router: bool,
    /// The names of its security groups.
    pub groups: Vec<String>,
    /// How often none of its rules decided.
    pub defaults: Arc<DefaultHits>,
    /// Where it was said.
    pub origin: Origin,
}

/// Why an interface's rules cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFault {
    /// The line that is wrong.
    pub line: u32,
    /// What is wrong with it, in words.
    pub what: String,
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl Firewall {
    /// Whether `other` has the same rules, and so would have judged every connection alike.
    pub(crate) fn has_rules_of(&self, other: &Self) -> bool {
        use super::policy::Direction::{Egress, Ingress};
        match (&self.policy, &other.policy) {
            (Ok(own), Ok(other)) => [Egress, Ingress]
                .into_iter()
                .all(|direction| Arc::ptr_eq(own.classifier(direction), other.classifier(direction))),
            _ => false,
        }
    }
}

/// What an interface may call itself. A look-up costs the logarithm of how many names there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// By MAC address, rising.
    names: Box<[(MacAddr, Networks)]>,
}

/// The addresses that go with a MAC address: the first and the last of networks that are disjoint, rising.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Networks {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Identity {
    /// That of which the description says this.
    pub fn new(said: &description::Identity) -> Self {
        let mut all = BTreeMap::<MacAddr, Vec<IpNet>>::new();
        let own = std::iter::once((said.mac, &said.addresses));
        for (mac, networks) in own.chain(said.others.iter().map(|(mac, networks)| (*mac, networks))) {
            all.entry(mac).or_default().extend(networks);
        }
        Self { names: all.into_iter().map(|(mac, networks)| (mac, Networks::new(&networks))).collect() }
    }

    /// The addresses that go with that MAC address; none if it is not one of its own.
    pub(crate) fn networks(&self, mac: MacAddr) -> Option<&Networks> {
        let place = self.names.binary_search_by_key(&mac, |(mac, _)| *mac).ok()?;
        Some(&self.names[place].1)
    }

    /// Whether it has this MAC address.
    pub fn has_mac(&self, mac: MacAddr) -> bool {
        self.networks(mac).is_some()
    }

    /// Whether the address goes with that MAC address.
    pub fn has_v4(&self, mac: MacAddr, address: Ipv4Addr) -> bool {
        self.networks(mac).is_some_and(|networks| networks.has_v4(address))
    }

    /// Whether the address goes with that MAC address. Link-local ones (RFC 4291 §2.5.6) go with all that it has.
    pub fn has_v6(&self, mac: MacAddr, address: Ipv6Addr) -> bool {
        self.networks(mac).is_some_and(|networks| networks.has_v6(address))
    }
}

impl Networks {
    fn new(said: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in said {
            match network {
                IpNet::V4(network) => v4.push(network.trunc()),
                IpNet::V6(network) => v6.push(network.trunc()),
            }
        }
        let (mut v4, mut v6) = (Ipv4Net::aggregate(&v4), Ipv6Net::aggregate(&v6));
        v4.sort();
        v6.sort();
        Self {
            v4: v4.iter().map(|net| (net.network().to_bits(), net.broadcast().to_bits())).collect(),
            v6: v6.iter().map(|net| (net.network().to_bits(), net.broadcast().to_bits())).collect(),
        }
    }

    #[inline]
    pub(crate) fn has_v4(&self, address: Ipv4Addr) -> bool {
        has(&self.v4, address.to_bits())
    }

    #[inline]
    pub(crate) fn has_v6(&self, address: Ipv6Addr) -> bool {
        address.is_unicast_link_local() || has(&self.v6, address.to_bits())
    }
}

#[inline]
fn has<N: Ord + Copy>(networks: &[(N, N)], address: N) -> bool {
    let behind = networks.partition_point(|(first, _)| *first <= address);
    behind.checked_sub(1).is_some_and(|at| address <= networks[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_with_their_own_mac_only() {
        let mac = |n| MacAddr::new([2, 0, 0, 0, 0, n]);
        let net = |text: &str| text.parse::<IpNet>().expect("a network");
        let identity = Identity::new(&description::Identity {
            mac: mac(1),
            addresses: vec![net("10.0.0.9/32"), net("10.0.0.0/29"), net("10.0.0.4/32"), net("fd00::/64")],
            others: vec![(mac(2), vec![net("10.0.0.100/32")]), (mac(1), vec![net("10.0.1.0/24")])],
        });
        let v4 = |n, text: &str| identity.has_v4(mac(n), text.parse().expect("an address"));
        let v6 = |n, text: &str| identity.has_v6(mac(n), text.parse().expect("an address"));
        assert!(
            ["10.0.0.0", "10.0.0.4", "10.0.0.7", "10.0.0.9", "10.0.1.255"].iter().all(|text| v4(1, text))
        );
        assert!(
            !["9.255.255.255", "10.0.0.8", "10.0.0.10", "10.0.2.0", "10.0.0.100"]
                .iter()
                .any(|text| v4(1, text))
        );
        assert!(v4(2, "10.0.0.100") && !v4(2, "10.0.0.4") && !v4(3, "10.0.0.4"));
        assert!(v6(1, "fd00::9") && !v6(2, "fd00::9") && v6(2, "fe80::1") && !v6(3, "fe80::1"));
        assert!(!v6(1, "fd00:0:0:1::") && !v6(1, "::"));
        assert!(identity.has_mac(mac(2)) && !identity.has_mac(mac(3)));
    }
}
