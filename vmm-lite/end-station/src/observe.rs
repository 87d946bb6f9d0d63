//! What a received frame tells a station beside smoltcp: who a neighbour is, an echo reply, an ICMP error.

use crate::frames::ETHERNET;
use core::net::IpAddr;
use probe::Mac;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr,
    Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr,
    NdiscRepr, RawHardwareAddress,
};

/// What one frame tells. A frame that cannot be read tells nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Observed {
    pub(crate) sender: Option<Sender>,
    pub(crate) event: Option<Event>,
}

/// Who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) addr: IpAddr,
    pub(crate) mac: Mac,
    /// To whom.
    pub(crate) to: IpAddr,
    /// It is ARP or ND that says so, not just the header of a packet.
    pub(crate) by_resolution: bool,
}

/// What a request under way may be waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    EchoReply { ident: u16, seq: u16 },
    Error(IcmpError),
}

/// An ICMP error, by the packet that it quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IcmpError {
    pub(crate) dst: IpAddr,
    pub(crate) quoted: Quoted,
    /// The host is there, the port is not.
    pub(crate) port_unreachable: bool,
}

/// Which packet of ours it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quoted {
    /// By its source port.
    Tcp(u16),
    /// By its source port.
    Udp(u16),
    /// By its identifier.
    Echo(u16),
}

impl Quoted {
    /// From the first bytes behind the IP header, of which an error quotes eight at least (RFC 792, RFC 4443 §3.1).
    fn read(protocol: IpProtocol, data: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes(data.get(at..at + 2)?.try_into().ok()?));
        match protocol {
            IpProtocol::Tcp => word(0).map(Self::Tcp),
            IpProtocol::Udp => word(0).map(Self::Udp),
            IpProtocol::Icmp | IpProtocol::Icmpv6 => word(4).map(Self::Echo),
            _ => None,
        }
    }
}

/// Whether this is a raw probe frame.
pub(crate) fn is_raw(frame: &[u8]) -> bool {
    frame.get(12..ETHERNET) == Some(&probe::ETHERTYPE.to_be_bytes())
}

/// Reads one received frame.
pub(crate) fn observe(frame: &[u8]) -> Observed {
    let Ok(ethernet) = EthernetFrame::new_checked(frame) else { return Observed::default() };
    let source = Mac::new(ethernet.src_addr().0);
    let observed = match ethernet.ethertype() {
        EthernetProtocol::Arp => arp(ethernet.payload()),
        EthernetProtocol::Ipv4 => ipv4(source, ethernet.payload()),
        EthernetProtocol::Ipv6 => ipv6(source, ethernet.payload()),
        _ => None,
    };
    observed.unwrap_or_default()
}

fn arp(payload: &[u8]) -> Option<Observed> {
    let ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, target_protocol_addr, .. } =
        ArpRepr::parse(&ArpPacket::new_checked(payload).ok()?).ok()?
    else {
        return None;
    };
    let sender = Sender {
        addr: source_protocol_addr.into(),
        mac: Mac::new(source_hardware_addr.0),
        to: target_protocol_addr.into(),
        by_resolution: true,
    };
    Some(Observed { sender: Some(sender), event: None })
}

fn ipv4(source: Mac, payload: &[u8]) -> Option<Observed> {
    let checksums = ChecksumCapabilities::default();
    let packet = Ipv4Packet::new_checked(payload).ok()?;
    let ip = Ipv4Repr::parse(&packet, &checksums).ok()?;
    let sender =
        Sender { addr: ip.src_addr.into(), mac: source, to: ip.dst_addr.into(), by_resolution: false };
    let event = (ip.next_header == IpProtocol::Icmp).then(|| icmpv4(packet.payload(), &checksums)).flatten();
    Some(Observed { sender: Some(sender), event })
}

fn icmpv4(payload: &[u8], checksums: &ChecksumCapabilities) -> Option<Event> {
    let packet = Icmpv4Packet::new_checked(payload).ok()?;
    let (header, data, port_unreachable) = match Icmpv4Repr::parse(&packet, checksums).ok()? {
        Icmpv4Repr::EchoReply { ident, seq_no, .. } => return Some(Event::EchoReply { ident, seq: seq_no }),
        Icmpv4Repr::DstUnreachable { reason, header, data } => {
            (header, data, reason == Icmpv4DstUnreachable::PortUnreachable)
        }
        Icmpv4Repr::TimeExceeded { header, data, .. } => (header, data, false),
        _ => return None,
    };
    let quoted = Quoted::read(header.next_header, data)?;
    Some(Event::Error(IcmpError { dst: header.dst_addr.into(), quoted, port_unreachable }))
}

fn ipv6(source: Mac, payload: &[u8]) -> Option<Observed> {
    let packet = Ipv6Packet::new_checked(payload).ok()?;
    let ip = Ipv6Repr::parse(&packet).ok()?;
    let sender =
        Sender { addr: ip.src_addr.into(), mac: source, to: ip.dst_addr.into(), by_resolution: false };
    let plain = Observed { sender: Some(sender), event: None };
    if ip.next_header != IpProtocol::Icmpv6 {
        return Some(plain);
    }
    let icmp = Icmpv6Packet::new_checked(packet.payload()).ok()?;
    let checksums = ChecksumCapabilities::default();
    let repr = Icmpv6Repr::parse(&ip.src_addr, &ip.dst_addr, &icmp, &checksums).ok()?;
    let (header, data, port_unreachable) = match repr {
        Icmpv6Repr::EchoReply { ident, seq_no, .. } => {
            return Some(Observed { event: Some(Event::EchoReply { ident, seq: seq_no }), ..plain });
        }
        // RFC 4861 §7.1: only from this link, which the hop limit proves.
        Icmpv6Repr::Ndisc(ndisc) if ip.hop_limit == 255 => {
            let sender = match ndisc {
                NdiscRepr::NeighborAdvert { target_addr, lladdr, .. } => {
                    resolved(sender, target_addr.into(), lladdr)
                }
                NdiscRepr::NeighborSolicit { target_addr, lladdr } => {
                    resolved(Sender { to: target_addr.into(), ..sender }, ip.src_addr.into(), lladdr)
                }
                _ => return None,
            };
            return Some(Observed { sender, event: None });
        }
        Icmpv6Repr::DstUnreachable { reason, header, data } => {
            (header, data, reason == Icmpv6DstUnreachable::PortUnreachable)
        }
        Icmpv6Repr::TimeExceeded { header, data, .. } => (header, data, false),
        _ => return Some(plain),
    };
    let error = |quoted| Event::Error(IcmpError { dst: header.dst_addr.into(), quoted, port_unreachable });
    Some(Observed { event: Quoted::read(header.next_header, data).map(error), ..plain })
}

/// What ND says of `addr`, if it gives its link-layer address.
fn resolved(sender: Sender, addr: IpAddr, lladdr: Option<RawHardwareAddress>) -> Option<Sender> {
    let mac = lladdr?.as_bytes().try_into().ok()?;
    Some(Sender { addr, mac: Mac::new(mac), by_resolution: true, ..sender })
}
