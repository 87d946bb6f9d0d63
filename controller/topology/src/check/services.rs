//! What gateways do for hosts: the addresses that they give, and whether they advertise themselves.

use crate::{
    codes::Code,
    report::{Sink, Span},
    said::{
        dhcp::{Dhcp, Range},
        lab::Vlan,
        read::Said,
    },
};
use ipnet::{IpNet, Ipv4Net};
use std::net::Ipv4Addr;
use vswitch_core::description;

/// For how many seconds an address is given if nothing is said.
const LEASE_SECS: u32 = 12 * 3600;

/// Addresses that one gateway gives at most.
const MOST: u32 = 1 << 16;

/// What a gateway with these addresses gives.
pub(crate) fn dhcp(vlan: &Vlan, addresses: &[(IpNet, Span)], sink: &mut Sink) -> Option<description::Dhcp> {
    let said = vlan.dhcp.as_ref()?;
    let settings = match &said.value {
        Dhcp::Flag(false) => return None,
        Dhcp::Flag(true) => None,
        Dhcp::Settings(settings) => Some(&settings.0),
    };
    let mut networks = addresses.iter().filter_map(|(net, _)| match net {
        IpNet::V4(net) => Some(*net),
        IpNet::V6(_) => None,
    });
    let Some(network) = networks.clone().next() else {
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
        Some(range) => check_range(range, &mut networks, sink)?,
    };
    let dns = settings.and_then(|settings| settings.dns.as_ref()).into_iter().flat_map(|dns| &dns.value.0);
    Some(description::Dhcp {
        first,
        last,
        lease_secs: settings
            .and_then(|settings| settings.lease.as_ref())
            .map_or(LEASE_SECS, |age| age.value.0),
        dns: dns.map(|server| server.value.0).collect(),
        domain: None,
        search: Vec::new(),
        mtu: None,
        routes: Vec::new(),
    })
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

/// All addresses of a network that a host may have, as far as they are given.
fn whole(network: Ipv4Net) -> (Ipv4Addr, Ipv4Addr) {
    let (first, last) = (network.network().to_bits(), network.broadcast().to_bits());
    // A network of two addresses has no others (RFC 3021).
    let (first, last) = if network.prefix_len() < 31 { (first + 1, last - 1) } else { (first, last) };
    (Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last.min(first + (MOST - 1))))
}

/// The range, if it lies in one of the networks.
fn check_range(
    said: &Said<Range>,
    networks: &mut impl Iterator<Item = Ipv4Net>,
    sink: &mut Sink,
) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let Range(first, last) = said.value;
    let all: Vec<Ipv4Net> = networks.collect();
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
    if !all.iter().any(|network| holds(&network)) {
        return refuse(format!("{first}-{last} is in no network of this gateway"), sink);
    }
    Some((first, last))
}
