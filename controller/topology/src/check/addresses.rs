//! Addresses: which ones an interface can have, and that no two interfaces that hear each other share one.

use crate::{
    check::{interfaces::NodeInterface, links::Checked},
    codes::Code,
    report::{Sink, Span},
};
use ipnet::IpNet;
use std::{collections::HashMap, net::IpAddr};
use vswitch_core::{description::Membership, mac::MacAddr, vlan::VlanId};

/// Those who hear each other's frames: an untagged VLAN, or a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Segment {
    Vlan(VlanId),
    Wire(usize),
}

/// Checks the addresses of all interfaces.
pub(crate) fn check(interfaces: &[NodeInterface], links: &[Checked], sink: &mut Sink) {
    let mut addresses: HashMap<(Segment, IpAddr), Span> = HashMap::new();
    let mut subnets: HashMap<Segment, Vec<(IpNet, Span)>> = HashMap::new();
    let mut macs: HashMap<MacAddr, Span> = HashMap::new();
    for interface in interfaces {
        if let Some(mac) = &interface.said.mac {
            check_mac(mac.value.0, mac.span, &mut macs, sink);
        }
        let segment = interface.link.and_then(|link| segment(link, &links[link]));
        for said in interface.said.addresses.iter().flatten() {
            let net = said.value.0;
            if let Some(why) = unusable(net) {
                sink.error(
                    Code::BadAddress,
                    said.span,
                    format!("`{net}` cannot be an interface's address: {why}"),
                );
                continue;
            }
            let Some(segment) = segment else { continue };
            if let Some(first) = addresses.insert((segment, net.addr()), said.span) {
                sink.error(
                    Code::AddressTaken,
                    said.span,
                    format!("{} is used twice in one network", net.addr()),
                )
                .label(first, "first used here");
                continue;
            }
            let known = subnets.entry(segment).or_default();
            let clash = known.iter().find(|(other, _)| {
                other.prefix_len() != net.prefix_len()
                    && (other.contains(&net.network()) || net.contains(&other.network()))
            });
            if let Some((other, place)) = clash {
                let what = format!("the subnets {} and {} overlap in one VLAN", net.trunc(), other.trunc());
                sink.error(Code::SubnetMismatch, said.span, what)
                    .label(*place, "the other")
                    .help("give both the same prefix length");
            } else if !known.iter().any(|(other, _)| other.trunc() == net.trunc()) {
                known.push((net, said.span));
            }
        }
    }
}

fn check_mac(mac: MacAddr, span: Span, macs: &mut HashMap<MacAddr, Span>, sink: &mut Sink) {
    if refuse_group_mac(mac, span, sink) {
        return;
    }
    if let Some(first) = macs.get(&mac) {
        sink.error(Code::MacTaken, span, format!("the MAC address {mac} is used twice"))
            .label(*first, "first used here");
    } else {
        macs.insert(mac, span);
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
        Checked::Attach { vlans: Membership::Access(id), .. }
        | Checked::Attach { vlans: Membership::Trunk { native: Some(id), .. }, .. } => {
            Some(Segment::Vlan(*id))
        }
        Checked::Wire { .. } => Some(Segment::Wire(place)),
        Checked::Attach { .. } | Checked::Trunk { .. } => None,
    }
}

/// Why no interface can have the address. A /31 (RFC 3021) and a /32 have no network or broadcast address.
fn unusable(net: IpNet) -> Option<&'static str> {
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
