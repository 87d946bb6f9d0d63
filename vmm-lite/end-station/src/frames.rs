//! The frames that a station builds itself: neighbour requests, what smoltcp is told of neighbours, echo requests.

use alloc::{vec, vec::Vec};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use probe::Mac;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet,
    Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
};

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

/// Two addresses of one family: from whom, to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Path {
    /// None: the families differ.
    pub(crate) fn new(src: IpAddr, dst: IpAddr) -> Option<Self> {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Some(Self::V4(src, dst)),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Some(Self::V6(src, dst)),
            _ => None,
        }
    }

    pub(crate) fn src(self) -> IpAddr {
        match self {
            Self::V4(src, _) => src.into(),
            Self::V6(src, _) => src.into(),
        }
    }

    pub(crate) fn dst(self) -> IpAddr {
        match self {
            Self::V4(_, dst) => dst.into(),
            Self::V6(_, dst) => dst.into(),
        }
    }

    /// Bytes of the IP header.
    pub(crate) fn header_len(self) -> usize {
        match self {
            Self::V4(..) => 20,
            Self::V6(..) => 40,
        }
    }
}

/// Asks who has the path's destination: ARP (RFC 826) or a neighbour solicitation (RFC 4861 §4.3).
pub(crate) fn neighbour_request(own: Mac, path: Path) -> Vec<u8> {
    match path {
        Path::V4(src, dst) => arp(ArpOperation::Request, (own, src), (Mac::new([0; 6]), dst), BROADCAST),
        Path::V6(src, target) => {
            let [.., a, b, c] = target.octets();
            // RFC 4291 §2.7.1, and RFC 2464 §7 for its MAC address.
            let group =
                Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
            let to = Mac::new([0x33, 0x33, 0xff, a, b, c]);
            let solicit =
                NdiscRepr::NeighborSolicit { target_addr: target, lladdr: Some(address(own).into()) };
            icmpv6(own, to, (src, group), 255, Icmpv6Repr::Ndisc(solicit))
        }
    }
}

/// What the path's source would answer to its destination, whose MAC is `own`: the only way to fill smoltcp's cache.
pub(crate) fn neighbour_answer(neighbour: Mac, own: Mac, path: Path) -> Vec<u8> {
    match path {
        Path::V4(src, dst) => arp(ArpOperation::Reply, (neighbour, src), (own, dst), own),
        Path::V6(src, dst) => {
            let advert = NdiscRepr::NeighborAdvert {
                flags: NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE,
                target_addr: src,
                lladdr: Some(address(neighbour).into()),
            };
            icmpv6(neighbour, own, (src, dst), 255, Icmpv6Repr::Ndisc(advert))
        }
    }
}

/// An echo request with `payload` bytes of zeros behind its header.
pub(crate) fn echo_request(
    own: Mac,
    to: Mac,
    path: Path,
    (ident, seq_no): (u16, u16),
    payload: usize,
) -> Vec<u8> {
    let data = &vec![0; payload];
    match path {
        Path::V4(src, dst) => icmpv4(own, to, (src, dst), Icmpv4Repr::EchoRequest { ident, seq_no, data }),
        Path::V6(src, dst) => {
            icmpv6(own, to, (src, dst), 64, Icmpv6Repr::EchoRequest { ident, seq_no, data })
        }
    }
}

const BROADCAST: Mac = Mac::new([0xff; 6]);

fn address(mac: Mac) -> EthernetAddress {
    EthernetAddress(mac.octets())
}

fn ethernet(src: Mac, dst: Mac, ethertype: EthernetProtocol, payload: usize) -> Vec<u8> {
    let mut bytes = vec![0; ETHERNET + payload];
    let header = EthernetRepr { src_addr: address(src), dst_addr: address(dst), ethertype };
    header.emit(&mut EthernetFrame::new_unchecked(&mut bytes));
    bytes
}

fn arp(operation: ArpOperation, source: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr), to: Mac) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: address(source.0),
        source_protocol_addr: source.1,
        target_hardware_addr: address(target.0),
        target_protocol_addr: target.1,
    };
    let mut bytes = ethernet(source.0, to, EthernetProtocol::Arp, repr.buffer_len());
    repr.emit(&mut ArpPacket::new_unchecked(&mut bytes[ETHERNET..]));
    bytes
}

fn icmpv4(own: Mac, to: Mac, (src_addr, dst_addr): (Ipv4Addr, Ipv4Addr), icmp: Icmpv4Repr<'_>) -> Vec<u8> {
    let payload_len = icmp.buffer_len();
    let ip = Ipv4Repr { src_addr, dst_addr, next_header: IpProtocol::Icmp, payload_len, hop_limit: 64 };
    let mut bytes = ethernet(own, to, EthernetProtocol::Ipv4, ip.buffer_len() + payload_len);
    let checksums = ChecksumCapabilities::default();
    let (header, body) = bytes[ETHERNET..].split_at_mut(ip.buffer_len());
    ip.emit(&mut Ipv4Packet::new_unchecked(header), &checksums);
    icmp.emit(&mut Icmpv4Packet::new_unchecked(body), &checksums);
    bytes
}

fn icmpv6(
    own: Mac,
    to: Mac,
    (src_addr, dst_addr): (Ipv6Addr, Ipv6Addr),
    hop_limit: u8,
    icmp: Icmpv6Repr<'_>,
) -> Vec<u8> {
    let payload_len = icmp.buffer_len();
    let ip = Ipv6Repr { src_addr, dst_addr, next_header: IpProtocol::Icmpv6, payload_len, hop_limit };
    let mut bytes = ethernet(own, to, EthernetProtocol::Ipv6, ip.buffer_len() + payload_len);
    let (header, body) = bytes[ETHERNET..].split_at_mut(ip.buffer_len());
    ip.emit(&mut Ipv6Packet::new_unchecked(header));
    let checksums = ChecksumCapabilities::default();
    icmp.emit(&src_addr, &dst_addr, &mut Icmpv6Packet::new_unchecked(body), &checksums);
    bytes
}
