//! TCP, UDP, SCTP and ICMP headers, as far as a policy reads them.

use super::{Fragment, Ipv4, Ipv6, Span, Unparsed};
use serde::{Deserialize, Serialize};

/// What the network layer carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// The frame has no network layer that could carry one.
    None,
    /// TCP (RFC 9293 §3.1).
    Tcp {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
        /// Control bits.
        flags: TcpFlags,
    },
    /// UDP (RFC 768).
    Udp {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
    },
    /// SCTP (RFC 9260 §3.1).
    Sctp {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
    },
    /// ICMP (RFC 792).
    Icmpv4 {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// ICMPv6 (RFC 4443).
    Icmpv6 {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// A protocol that is not looked into; its number is the network layer's `protocol`.
    Other,
    /// A fragment that is not the first: its transport header is in another frame.
    LaterFragment,
    /// A header that cannot be read.
    Unparsed(Unparsed),
}

/// The eight control bits of TCP, CWR highest and FIN lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TcpFlags(u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// The acknowledgement field is significant.
    pub const ACK: Self = Self(0x10);

    /// The flags with these bits.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl Transport {
    pub(super) fn in_ipv4(ip: &Ipv4, payload: Span<'_>) -> Self {
        match ip.protocol {
            _ if is_later(ip.fragment) => Self::LaterFragment,
            1 => icmp(payload, |kind, code| Self::Icmpv4 { kind, code }),
            protocol => with_ports(protocol, payload, ip.fragment),
        }
    }

    pub(super) fn in_ipv6(ip: &Ipv6, payload: Span<'_>) -> Self {
        match ip.protocol {
            _ if is_later(ip.fragment) => Self::LaterFragment,
            58 => icmp(payload, |kind, code| Self::Icmpv6 { kind, code }),
            protocol => with_ports(protocol, payload, ip.fragment),
        }
    }
}

fn is_later(fragment: Option<Fragment>) -> bool {
    fragment.is_some_and(|fragment| fragment.offset != 0)
}

fn with_ports(protocol: u8, payload: Span<'_>, fragment: Option<Fragment>) -> Transport {
    match protocol {
        6 => tcp(payload).unwrap_or_else(Transport::Unparsed),
        17 => udp(payload, fragment).unwrap_or_else(Transport::Unparsed),
        132 => sctp(payload).unwrap_or_else(Transport::Unparsed),
        _ => Transport::Other,
    }
}

fn tcp(payload: Span<'_>) -> Result<Transport, Unparsed> {
    let &[s0, s1, d0, d1, _, _, _, _, _, _, _, _, offset, flags, _, _, _, _, _, _] = payload.read(0)?;
    let header_len = usize::from(offset >> 4) * 4;
    if header_len < 20 {
        return Err(Unparsed::Malformed);
    }
    payload.first(header_len)?;
    Ok(Transport::Tcp {
        src: u16::from_be_bytes([s0, s1]),
        dst: u16::from_be_bytes([d0, d1]),
        flags: TcpFlags(flags),
    })
}

fn udp(payload: Span<'_>, fragment: Option<Fragment>) -> Result<Transport, Unparsed> {
    let &[s0, s1, d0, d1, l0, l1, _, _] = payload.read(0)?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if length < 8 {
        return Err(Unparsed::Malformed);
    }
    // The first fragment carries the length of the whole datagram, which is in other frames.
    if !fragment.is_some_and(|fragment| fragment.more) {
        payload.first(length)?;
    }
    Ok(Transport::Udp { src: u16::from_be_bytes([s0, s1]), dst: u16::from_be_bytes([d0, d1]) })
}

fn sctp(payload: Span<'_>) -> Result<Transport, Unparsed> {
    let &[s0, s1, d0, d1, _, _, _, _, _, _, _, _] = payload.read(0)?;
    Ok(Transport::Sctp { src: u16::from_be_bytes([s0, s1]), dst: u16::from_be_bytes([d0, d1]) })
}

fn icmp(payload: Span<'_>, make: impl FnOnce(u8, u8) -> Transport) -> Transport {
    match payload.read(0) {
        Ok(&[kind, code, _, _, _, _, _, _]) => make(kind, code),
        Err(why) => Transport::Unparsed(why),
    }
}
