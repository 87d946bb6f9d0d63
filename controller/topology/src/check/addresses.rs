//! Addresses: which ones an interface can have, and that no two interfaces that hear each other share one.

use crate::{
    check::{interfaces::NodeInterface, links::Checked, routers::Routers},
    codes::Code,
    report::{Sink, Span},
};
use ipnet::IpNet;
use std::{collections::HashMap, net::IpAddr};
use vswitch_core::{mac::MacAddr, vlan::VlanId};

/// Those who hear each other's frames: an untagged VLAN, or a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Segment {
    Vlan(VlanId),
    Wire(usize),
}

/// Checks the addresses of all interfaces, and those of gateways beside them.
pub(crate) fn check(interfaces: &[NodeInterface], links: &[Checked], routers: &Routers, sink: &mut Sink) {
    let mut seen = Seen::default();
    for gateway in routers.gateways() {
        for (net, span) in &gateway.addresses {
            seen.add(Segment::Vlan(gateway.vlan), (*net, *span), true, sink);
        }
    }
    let mut routed: HashMap<(usize, IpAddr), (VlanId, Span)> = HashMap::new();
    let mut macs = Macs::default();
    for interface in interfaces {
        if let Some(mac) = &interface.said.mac
            && !refuse_group_mac(mac.value.0, mac.span, sink)
        {
            macs.add(mac.value.0, interface.link.and_then(|link| links[link].only()), mac.span, sink);
        }
        let segment = interface.link.and_then(|link| segment(link, &links[link]));
        for said in interface.said.addresses.iter().flatten() {
            let net = said.value.0;
            if refuse_unusable(net, said.span, sink) {
                continue;
            }
            let Some(segment) = segment else { continue };
            if !seen.add(segment, (net, said.span), false, sink) {
                continue;
            }
            // The router could not tell which of the two is meant.
            let Segment::Vlan(vlan) = segment else { continue };
            let Some((router, connected)) = routers.connected(vlan, net.addr()) else { continue };
            let first = *routed.entry((router, net.addr())).or_insert((vlan, said.span));
            let gateway = routers.own(router, net.addr()).filter(|_| connected != vlan);
            let other = gateway.or((first.0 != vlan).then_some(first.1));
            if let Some(other) = other {
                let what = format!("{} is used twice in the networks of one router", net.addr());
                sink.error(Code::AddressTaken, said.span, what).label(other, "first used here");
            }
        }
    }
}

/// The addresses and subnets that were seen, with their places.
#[derive(Debug, Default)]
struct Seen {
    /// And whether it is a gateway's.
    addresses: HashMap<(Segment, IpAddr), (Span, bool)>,
    subnets: HashMap<Segment, Vec<(IpNet, Span)>>,
}

impl Seen {
    /// Takes note of an address; false if somebody else there has it, which `sink` was told.
    fn add(
        &mut self,
        segment: Segment,
        (net, span): (IpNet, Span),
        is_gateway: bool,
        sink: &mut Sink,
    ) -> bool {
        if let Some((first, of_gateway)) = self.addresses.insert((segment, net.addr()), (span, is_gateway)) {
            let what = format!("{} is used twice in one network", net.addr());
            let first_is = if of_gateway { "the gateway" } else { "first used here" };
            sink.error(Code::AddressTaken, span, what).label(first, first_is);
            return false;
        }
        let known = self.subnets.entry(segment).or_default();
        let clash = known.iter().find(|(other, _)| {
            other.prefix_len() != net.prefix_len()
                && (other.contains(&net.network()) || net.contains(&other.network()))
        });
        if let Some((other, place)) = clash {
            let what = format!("the subnets {} and {} overlap in one VLAN", net.trunc(), other.trunc());
            sink.error(Code::SubnetMismatch, span, what)
                .label(*place, "the other")
                .help("give both the same prefix length");
        } else if !known.iter().any(|(other, _)| other.trunc() == net.trunc()) {
            known.push((net, span));
        }
        true
    }
}

/// Tells if no interface can have the address; whether that is so.
pub(crate) fn refuse_unusable(net: IpNet, span: Span, sink: &mut Sink) -> bool {
    let why = unusable(net);
    if let Some(why) = why {
        let what = format!("`{net}` cannot be an interface's address: {why}");
        sink.error(Code::BadAddress, span, what);
    }
    why.is_some()
}

/// MAC addresses that were seen. Two interfaces that never meet may share one, as clones of a machine do: each untagged in a VLAN of its own.
#[derive(Debug, Default)]
pub(crate) struct Macs(HashMap<MacAddr, Vec<(Option<VlanId>, Span)>>);

impl Macs {
    /// Takes note of that of an interface which is in this VLAN only; tells if another that may meet it has the same.
    pub(crate) fn add(&mut self, mac: MacAddr, only: Option<VlanId>, span: Span, sink: &mut Sink) {
        let others = self.0.entry(mac).or_default();
        let meets =
            |(other, _): &&(Option<VlanId>, Span)| other.is_none() || only.is_none() || *other == only;
        if let Some((_, first)) = others.iter().find(meets) {
            sink.error(Code::MacTaken, span, format!("the MAC address {mac} is used twice"))
                .label(*first, "first used here");
        }
        others.push((only, span));
    }
}

/// Tells if no interface can have the MAC address; whether that is so.
pub(crate) fn refuse_group_mac(mac: MacAddr, span: Span, sink: &mut Sink) -> bool {
    let what = match (mac.is_group(), mac.is_zero()) {
        (true, _) => "a group address",
        (_, true) => "nobody's address",
        _ => return false,
    };
    sink.error(Code::BadMac, span, format!("`{mac}` is {what}, which no interface can have"))
        .help("the first octet of an interface's address is even, like 02");
    true
}

/// Where the untagged frames of an interface with that link are heard.
fn segment(place: usize, link: &Checked) -> Option<Segment> {
    match link {
        Checked::Wire { .. } => Some(Segment::Wire(place)),
        Checked::Attach { .. } | Checked::Trunk { .. } => link.untagged().map(Segment::Vlan),
    }
}

/// Why no interface can have the address. A /31 (RFC 3021) and a /32 have no network or broadcast address.
pub(crate) fn unusable(net: IpNet) -> Option<&'static str> {
    let address = net.addr();
    if address.is_unspecified() {
        return Some("it is nobody's");
    }
    if address.is_multicast() {
        return Some("it is a group's");
    }
    if address.is_loopback() {
        return Some("it is the host itself (loopback)");
    }
    match net {
        IpNet::V4(net) if net.addr().is_broadcast() => Some("it is everybody's"),
        IpNet::V4(net) if net.prefix_len() == 0 => Some("its subnet is the whole Internet"),
        IpNet::V4(net) if net.prefix_len() < 31 && net.addr() == net.network() => {
            Some("it names the subnet itself")
        }
        IpNet::V4(net) if net.prefix_len() < 31 && net.addr() == net.broadcast() => {
            Some("it is the subnet's broadcast address")
        }
        // RFC 4291 section 2.6.1: the subnet-router anycast address; RFC 6164 frees it on a /127.
        IpNet::V6(net) if net.prefix_len() < 127 && net.addr() == net.network() => {
            Some("it is the subnet-router anycast address")
        }
        _ => None,
    }
}
