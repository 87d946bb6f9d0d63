//! What a frame is: a question for its own addresses, or a packet for somebody outside.

use crate::out::ETHERNET;
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv6Packet,
        Icmpv6Repr, IpProtocol, IpRepr, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, NdiscRepr,
    },
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The hop limit of what no router passed on (RFC 4861 §7.1.1).
const OF_THE_LINK: u8 = 255;

/// A frame that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard<'a> {
    /// Who has `target`? asks `asker` by ARP.
    WhoHas { from: EthernetAddress, asker: Ipv4Addr, target: Ipv4Addr },
    /// The same of IPv6. Who has no address yet asks without.
    Solicited { from: EthernetAddress, asker: Ipv6Addr, target: Ipv6Addr },
    /// It is to be led out.
    Packet(Packet<'a>),
}

/// A whole packet to one host, from one host; its IP header is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    /// Who put it on the link.
    pub(crate) from: EthernetAddress,
    /// All of it, without what Ethernet pads it by.
    pub(crate) bytes: &'a [u8],
    pub(crate) ip: IpRepr,
    pub(crate) payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// A packet that begins these bytes; none: it is a part of one, or wrong.
    pub(crate) fn parse(from: EthernetAddress, bytes: &'a [u8]) -> Option<Self> {
        let packet = match bytes.first()? >> 4 {
            4 => {
                let packet = Ipv4Packet::new_checked(bytes).ok()?;
                let ip = Ipv4Repr::parse(&packet, &ChecksumCapabilities::default()).ok()?;
                // Routers that masquerade send no fragments.
                if packet.more_frags() || packet.frag_offset() != 0 {
                    return None;
                }
                let bytes = &bytes[..usize::from(packet.total_len())];
                Self { from, bytes, ip: ip.into(), payload: packet.payload() }
            }
            6 => {
                let packet = Ipv6Packet::new_checked(bytes).ok()?;
                let ip = Ipv6Repr::parse(&packet).ok()?;
                let bytes = &bytes[..packet.total_len()];
                Self { from, bytes, ip: ip.into(), payload: packet.payload() }
            }
            _ => return None,
        };
        is_of_a_host(packet.src()).then_some(packet)
    }

    pub(crate) fn src(&self) -> IpAddr {
        self.ip.src_addr().into()
    }

    pub(crate) fn dst(&self) -> IpAddr {
        self.ip.dst_addr().into()
    }
}

/// Whether a packet may be from there (RFC 1122 §3.2.1.3): it is answered there.
fn is_of_a_host(src: IpAddr) -> bool {
    let is_broadcast = src == IpAddr::V4(Ipv4Addr::BROADCAST);
    !(src.is_unspecified() || src.is_multicast() || src.is_loopback() || is_broadcast)
}

/// What a frame is to whoever has the MAC address `own`; none: it is nothing, or not for it.
pub(crate) fn heard(frame: &[u8], own: EthernetAddress) -> Option<Heard<'_>> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let (from, to) = (ethernet.src_addr(), ethernet.dst_addr());
    if !from.is_unicast() || from == own {
        return None;
    }
    let payload = &frame[ETHERNET..];
    match ethernet.ethertype() {
        EthernetProtocol::Arp if to == own || to.is_broadcast() => who_has(from, payload),
        EthernetProtocol::Ipv4 if to == own => Packet::parse(from, payload).map(Heard::Packet),
        EthernetProtocol::Ipv6 if to == own || to.is_multicast() => solicited(from, payload).or_else(|| {
            let packet = (to == own).then(|| Packet::parse(from, payload))??;
            Some(Heard::Packet(packet))
        }),
        _ => None,
    }
}

fn who_has(from: EthernetAddress, payload: &[u8]) -> Option<Heard<'_>> {
    let arp = ArpRepr::parse(&ArpPacket::new_checked(payload).ok()?).ok()?;
    match arp {
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_protocol_addr: asker,
            target_protocol_addr: target,
            ..
        } => Some(Heard::WhoHas { from, asker, target }),
        _ => None,
    }
}

fn solicited(from: EthernetAddress, payload: &[u8]) -> Option<Heard<'_>> {
    let packet = Ipv6Packet::new_checked(payload).ok()?;
    let ip = Ipv6Repr::parse(&packet).ok()?;
    if ip.next_header != IpProtocol::Icmpv6 || ip.hop_limit != OF_THE_LINK {
        return None;
    }
    let (src, dst) = (ip.src_addr, ip.dst_addr);
    let icmp = Icmpv6Packet::new_checked(packet.payload()).ok()?;
    match Icmpv6Repr::parse(&src, &dst, &icmp, &ChecksumCapabilities::default()).ok()? {
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: target, .. }) if !src.is_multicast() => {
            Some(Heard::Solicited { from, asker: src, target })
        }
        _ => None,
    }
}
