//! Frames from meanings: what tests, probes and `trace` put into the switch. The inverse of [`crate::head`].

use crate::{
    head::{ETHERNET_LEN, TAG_LEN, ethertype},
    mac::MacAddr,
    vlan::Tci,
};
use checksum::Sum;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The Ethernet header: everything but the EtherType.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethernet {
    /// Source address.
    pub src: MacAddr,
    /// Destination address.
    pub dst: MacAddr,
    /// An IEEE 802.1Q C-tag.
    pub tag: Option<Tci>,
}

/// Source and destination address, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// IPv4: source, destination.
    V4(Ipv4Addr, Ipv4Addr),
    /// IPv6: source, destination.
    V6(Ipv6Addr, Ipv6Addr),
}

/// Which half of a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// The question.
    Request,
    /// The answer.
    Reply,
}

/// Any payload behind any EtherType (or IEEE 802.3 length).
pub fn raw(link: Ethernet, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET_LEN + TAG_LEN + payload.len());
    frame.extend(link.dst.octets());
    frame.extend(link.src.octets());
    if let Some(tci) = link.tag {
        frame.extend(ethertype::C_TAG.to_be_bytes());
        frame.extend(tci.bits().to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// ARP: who has `target`? Asked by `sender` at the link's source address (RFC 826).
pub fn arp_request(link: Ethernet, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    arp(link, 1, sender, (MacAddr::default(), target))
}

/// ARP: `sender` is at the link's source address; told to `target` at its destination address.
pub fn arp_reply(link: Ethernet, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    arp(link, 2, sender, (link.dst, target))
}

fn arp(link: Ethernet, operation: u8, sender: Ipv4Addr, target: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4, 0, operation];
    message.extend(link.src.octets());
    message.extend(sender.octets());
    message.extend(target.0.octets());
    message.extend(target.1.octets());
    raw(link, ethertype::ARP, &message)
}

/// An ICMP or ICMPv6 echo message (RFC 792, RFC 4443 §4).
pub fn echo(
    link: Ethernet,
    addresses: Addresses,
    half: Echo,
    id: u16,
    sequence: u16,
    data: &[u8],
) -> Vec<u8> {
    let (protocol, kind) = match (addresses, half) {
        (Addresses::V4(..), Echo::Request) => (1, 8),
        (Addresses::V4(..), Echo::Reply) => (1, 0),
        (Addresses::V6(..), Echo::Request) => (58, 128),
        (Addresses::V6(..), Echo::Reply) => (58, 129),
    };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(data);
    ip(link, addresses, protocol, 64, message, 2)
}

/// An IPv6 neighbour solicitation for `target`, to its solicited-node group (RFC 4861 §4.3, RFC 2464 §7); the link's
/// destination is replaced.
pub fn neighbour_solicitation(link: Ethernet, src: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let link = Ethernet { dst: MacAddr::new([0x33, 0x33, 0xff, a, b, c]), ..link };
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([1, 1]);
    message.extend(link.src.octets());
    // RFC 4861 §7.1.1: any other hop limit makes it invalid.
    ip(link, Addresses::V6(src, group), 58, 255, message, 2)
}

/// A UDP datagram; `ports` are source and destination.
pub fn udp(link: Ethernet, addresses: Addresses, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(8 + data.len());
    message.extend(ports.0.to_be_bytes());
    message.extend(ports.1.to_be_bytes());
    message.extend(length(8 + data.len()).to_be_bytes());
    message.extend([0, 0]);
    message.extend(data);
    ip(link, addresses, 17, 64, message, 6)
}

/// The first segment of a TCP connection; `ports` are source and destination.
pub fn tcp_syn(link: Ethernet, addresses: Addresses, ports: (u16, u16), sequence: u32) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20);
    segment.extend(ports.0.to_be_bytes());
    segment.extend(ports.1.to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 0, 5 << 4, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    ip(link, addresses, 6, 64, segment, 16)
}

/// An IP packet around `payload`, whose checksum (over the pseudo-header where its protocol has one) goes to
/// `checksum_at`, where there are zeroes.
///
/// # Panics
/// If `checksum_at` is not within the payload.
pub fn ip(
    link: Ethernet,
    addresses: Addresses,
    protocol: u8,
    hops: u8,
    mut payload: Vec<u8>,
    checksum_at: usize,
) -> Vec<u8> {
    let pseudo = match addresses {
        // RFC 792: ICMP for IPv4 is summed by itself.
        Addresses::V4(..) if protocol == 1 => Sum::ZERO,
        Addresses::V4(src, dst) => Sum::ZERO.add_bytes(&src.octets()).add_bytes(&dst.octets()),
        Addresses::V6(src, dst) => Sum::ZERO.add_bytes(&src.octets()).add_bytes(&dst.octets()),
    };
    let pseudo = match protocol {
        1 => pseudo,
        _ => pseudo.add_word(protocol.into()).add_word(length(payload.len())),
    };
    let checksum = match pseudo.add_bytes(&payload).checksum() {
        // RFC 768: a computed zero is sent as all ones, since zero means that there is no checksum.
        [0, 0] if protocol == 17 => [0xff, 0xff],
        checksum => checksum,
    };
    payload[checksum_at..checksum_at + 2].copy_from_slice(&checksum);
    let mut packet = Vec::with_capacity(40 + payload.len());
    let ethertype = match addresses {
        Addresses::V4(src, dst) => {
            packet.extend([0x45, 0]);
            packet.extend(length(20 + payload.len()).to_be_bytes());
            packet.extend([0, 0, 0x40, 0, hops, protocol, 0, 0]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
            let checksum = Sum::ZERO.add_bytes(&packet).checksum();
            packet[10..12].copy_from_slice(&checksum);
            ethertype::IPV4
        }
        Addresses::V6(src, dst) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length(payload.len()).to_be_bytes());
            packet.extend([protocol, hops]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
            ethertype::IPV6
        }
    };
    packet.extend(payload);
    raw(link, ethertype, &packet)
}

/// A length field; what does not fit is told as the most that does.
fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}
