//! The head parser against etherparse: both read the same frame, and every disagreement has a name and a reason.
//!
//! Also compiled into the fuzz target, so it uses nothing but the two parsers.

use etherparse::{
    ArpPacketSlice, Ethernet2Slice, Icmpv4Slice, Icmpv6Slice, IpNumber, Ipv4Slice, Ipv6Slice,
    SingleVlanSlice, TcpSlice, UdpSlice,
};
use vswitch_core::head::{HEAD_BYTES, Head, Network, Transport, Unparsed, ethertype};

/// Why the two parsers may see a frame differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Explained {
    /// Ours looks at the first 192 bytes only.
    BehindHead,
    /// Ours takes two tags; etherparse more.
    TooManyTags,
    /// Ours reads ARP for IPv4 over Ethernet only; etherparse any.
    OtherArp,
    /// Payload length 0 may mean a jumbogram (RFC 2675): etherparse then takes the rest of the frame, ours nothing.
    Jumbogram,
    /// Ours walks eight extension headers; etherparse any number.
    TooManyExtensions,
    /// Ours refuses a second fragment header; etherparse passes it.
    NestedFragment,
    /// Behind a fragment header with an offset ours stops; etherparse takes data for extension headers.
    LaterFragment,
    /// Ours reads the transport header in a first fragment; etherparse in none.
    FirstFragment,
    /// Ours does not look behind an IPv4 authentication header; etherparse does.
    AuthenticatedIpv4,
    /// A UDP length of 0 is an error to ours; etherparse takes the rest of the packet.
    UdpLengthZero,
    /// etherparse wants timestamp messages to be exactly 20 bytes; ours reads type and code.
    IcmpTimestamp,
}

/// What is left to compare, or why there is nothing more.
type Outcome<T> = Result<T, Verdict>;

enum Verdict {
    Explained(Explained),
    Disagree(String),
}

/// Parses `frame` with both. `Ok` names the difference, if there is one; `Err` describes one that has no name.
pub(crate) fn compare(frame: &[u8]) -> Result<Option<Explained>, String> {
    match compare_layers(frame) {
        Ok(()) => Ok(None),
        Err(Verdict::Explained(why)) => Ok(Some(why)),
        Err(Verdict::Disagree(what)) => Err(what),
    }
}

fn compare_layers(frame: &[u8]) -> Outcome<()> {
    let ours = Head::parse(&frame[..frame.len().min(HEAD_BYTES)], frame.len() as u32);
    let theirs = Ethernet2Slice::from_slice_without_fcs(frame);
    let (ours, theirs) = match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(_), Err(_)) => return Ok(()),
        (ours, theirs) => return differ("Ethernet", ours, theirs),
    };
    same("destination", ours.link.dst.octets(), theirs.destination())?;
    same("source", ours.link.src.octets(), theirs.source())?;
    let mut payload = theirs.payload();
    for tag in [ours.link.outer, ours.link.inner] {
        let announced = is_tag(payload.ether_type.0);
        match (tag, SingleVlanSlice::from_slice(payload.payload)) {
            (Some(tag), Ok(vlan)) if announced => {
                same("VLAN", tag.tci.vid(), vlan.vlan_identifier().value())?;
                same("priority", tag.tci.priority(), vlan.priority_code_point().value())?;
                payload = vlan.payload();
            }
            (None, vlan) if !announced || vlan.is_err() => {}
            (tag, vlan) => return differ("tag", tag, vlan),
        }
    }
    same("EtherType", ours.link.ethertype, payload.ether_type.0)?;
    same("layer 2 length", usize::from(ours.link.len), frame.len() - payload.payload.len())?;
    match ours.network {
        Network::Unparsed(Unparsed::BehindHead) => explained(Explained::BehindHead),
        Network::Unparsed(Unparsed::TooManyTags) if ours.link.inner.is_some() => {
            explained(Explained::TooManyTags)
        }
        _ => match ours.link.ethertype {
            ethertype::ARP => compare_arp(&ours, payload.payload),
            ethertype::IPV4 => compare_ipv4(&ours, payload.payload),
            ethertype::IPV6 => compare_ipv6(&ours, payload.payload),
            tag if is_tag(tag) => same("cut tag", ours.network, Network::Unparsed(Unparsed::Truncated)),
            _ => same("no network layer", (ours.network, ours.transport), (Network::Other, Transport::None)),
        },
    }
}

fn compare_arp(ours: &Head, bytes: &[u8]) -> Outcome<()> {
    match (ours.network, ArpPacketSlice::from_slice(bytes)) {
        (Network::Arp(arp), Ok(theirs)) => {
            same("ARP operation", arp.operation, theirs.operation().0)?;
            same("ARP sender", &arp.sender_mac.octets()[..], theirs.sender_hw_addr())?;
            same("ARP sender address", &arp.sender.octets()[..], theirs.sender_protocol_addr())?;
            same("ARP target", &arp.target_mac.octets()[..], theirs.target_hw_addr())?;
            same("ARP target address", &arp.target.octets()[..], theirs.target_protocol_addr())
        }
        (Network::Unparsed(_), Err(_)) => Ok(()),
        (Network::Unparsed(_), Ok(theirs))
            if (theirs.hw_addr_size(), theirs.proto_addr_size()) != (6, 4)
                || theirs.hw_addr_type().0 != 1
                || theirs.proto_addr_type().0 != ethertype::IPV4 =>
        {
            explained(Explained::OtherArp)
        }
        (ours, theirs) => differ("ARP", ours, theirs),
    }
}

fn compare_ipv4(ours: &Head, bytes: &[u8]) -> Outcome<()> {
    let (ip, theirs) = match (ours.network, Ipv4Slice::from_slice(bytes)) {
        (Network::Ipv4(ip), Ok(theirs)) => (ip, theirs),
        (Network::Unparsed(_), Err(_)) => return Ok(()),
        (Network::Ipv4(ip), Err(_)) if ip.protocol == 51 => return explained(Explained::AuthenticatedIpv4),
        (ours, theirs) => return differ("IPv4", ours, theirs),
    };
    let header = theirs.header();
    same("IPv4 source", ip.src, header.source_addr())?;
    same("IPv4 destination", ip.dst, header.destination_addr())?;
    same("TTL", ip.ttl, header.ttl())?;
    same("IPv4 protocol", ip.protocol, header.protocol().0)?;
    same("IPv4 header length", usize::from(ip.header_len), header.slice().len())?;
    same("IPv4 fragment", ip.fragment.is_some(), header.is_fragmenting_payload())?;
    if let Some(fragment) = ip.fragment {
        same("fragment offset", fragment.offset, header.fragments_offset().byte_offset())?;
        same("more fragments", fragment.more, header.more_fragments())?;
    }
    if ip.protocol == 51 && ip.fragment.is_none() {
        return explained(Explained::AuthenticatedIpv4);
    }
    let payload = theirs.payload();
    compare_transport(ours, (payload.ip_number, payload.payload), payload.fragmented)
}

fn compare_ipv6(ours: &Head, bytes: &[u8]) -> Outcome<()> {
    let theirs = Ipv6Slice::from_slice(bytes);
    let Network::Ipv6(ip) = ours.network else {
        return if theirs.is_err() { Ok(()) } else { differ("IPv6", ours.network, theirs) };
    };
    // From here on the fixed header was read: what etherparse makes of the rest must not matter for it.
    same("IPv6 version", bytes[0] >> 4, 6)?;
    same("IPv6 source", &ip.src.octets()[..], &bytes[8..24])?;
    same("IPv6 destination", &ip.dst.octets()[..], &bytes[24..40])?;
    if ip.payload_len == 0 && bytes.len() > 40 {
        return explained(Explained::Jumbogram);
    }
    match (ours.transport, theirs) {
        (Transport::LaterFragment, _) => explained(Explained::LaterFragment),
        (Transport::Unparsed(Unparsed::BehindHead), _) => explained(Explained::BehindHead),
        (Transport::Unparsed(Unparsed::TooManyExtensions), _) => explained(Explained::TooManyExtensions),
        (Transport::Unparsed(Unparsed::Malformed), _) if ip.protocol == 44 && ip.fragment.is_some() => {
            explained(Explained::NestedFragment)
        }
        (Transport::Unparsed(_), Err(_)) => Ok(()),
        (_, Ok(theirs)) => {
            same("hop limit", ip.hop_limit, theirs.header().hop_limit())?;
            same("IPv6 protocol", ip.protocol, theirs.payload().ip_number.0)?;
            let payload = theirs.payload();
            compare_transport(ours, (payload.ip_number, payload.payload), payload.fragmented)
        }
        (ours, theirs) => differ("IPv6 extension headers", ours, theirs),
    }
}

fn compare_transport(ours: &Head, (protocol, bytes): (IpNumber, &[u8]), fragmented: bool) -> Outcome<()> {
    match ours.transport {
        Transport::Unparsed(Unparsed::BehindHead) => return explained(Explained::BehindHead),
        Transport::LaterFragment => return same("later fragment", fragmented, true),
        _ if fragmented => return explained(Explained::FirstFragment),
        _ => {}
    }
    let is_ipv4 = matches!(ours.network, Network::Ipv4(_));
    match (protocol.0, ours.transport) {
        (6, Transport::Tcp { src, dst, flags }) => {
            let theirs = TcpSlice::from_slice(bytes).map_err(|e| Verdict::Disagree(format!("TCP: {e:?}")))?;
            same("TCP ports", (src, dst), (theirs.source_port(), theirs.destination_port()))?;
            same(
                "SYN, ACK",
                (flags.bits() & 2, flags.bits() & 16),
                (u8::from(theirs.syn()) << 1, u8::from(theirs.ack()) << 4),
            )
        }
        (6, Transport::Unparsed(_)) => same("TCP is wrong", TcpSlice::from_slice(bytes).is_err(), true),
        (17, Transport::Udp { src, dst }) => {
            let theirs = UdpSlice::from_slice(bytes).map_err(|e| Verdict::Disagree(format!("UDP: {e:?}")))?;
            same("UDP ports", (src, dst), (theirs.source_port(), theirs.destination_port()))
        }
        (17, Transport::Unparsed(_)) => match UdpSlice::from_slice(bytes) {
            Ok(theirs) if theirs.length() == 0 => explained(Explained::UdpLengthZero),
            theirs => same("UDP is wrong", theirs.is_err(), true),
        },
        (1, Transport::Icmpv4 { kind, code }) if is_ipv4 => match Icmpv4Slice::from_slice(bytes) {
            Ok(theirs) => same("ICMP", (kind, code), (theirs.type_u8(), theirs.code_u8())),
            Err(_) if matches!(kind, 13 | 14) => explained(Explained::IcmpTimestamp),
            Err(why) => differ("ICMP", ours.transport, why),
        },
        (1, Transport::Unparsed(_)) if is_ipv4 => {
            same("ICMP is wrong", Icmpv4Slice::from_slice(bytes).is_err(), true)
        }
        (58, Transport::Icmpv6 { kind, code }) if !is_ipv4 => match Icmpv6Slice::from_slice(bytes) {
            Ok(theirs) => same("ICMPv6", (kind, code), (theirs.type_u8(), theirs.code_u8())),
            Err(why) => differ("ICMPv6", ours.transport, why),
        },
        (58, Transport::Unparsed(_)) if !is_ipv4 => {
            same("ICMPv6 is wrong", Icmpv6Slice::from_slice(bytes).is_err(), true)
        }
        // etherparse does not know SCTP: its ports stand where those of UDP do, in a common header of 12 bytes.
        (132, Transport::Sctp { src, dst }) => {
            same("SCTP header", bytes.len() >= 12, true)?;
            same("SCTP ports", [src.to_be_bytes(), dst.to_be_bytes()].as_flattened(), &bytes[..4])
        }
        (132, Transport::Unparsed(_)) => same("SCTP is cut", bytes.len() < 12, true),
        // What is no transport protocol of this family is none to match on.
        (6 | 17 | 132, other) => differ("transport", other, protocol),
        (_, other) => same("other protocol", other, Transport::Other),
    }
}

fn is_tag(number: u16) -> bool {
    matches!(number, ethertype::C_TAG | ethertype::S_TAG)
}

fn explained<T>(why: Explained) -> Outcome<T> {
    Err(Verdict::Explained(why))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, ours: T, theirs: T) -> Outcome<()> {
    if ours == theirs { Ok(()) } else { differ(what, ours, theirs) }
}

fn differ<T>(what: &str, ours: impl std::fmt::Debug, theirs: impl std::fmt::Debug) -> Outcome<T> {
    Err(Verdict::Disagree(format!("{what}: ours {ours:?}, etherparse {theirs:?}")))
}
