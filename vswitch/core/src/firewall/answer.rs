//! What the sender of a frame is told when a rule rejects it: a TCP RST, or an ICMP error, as if the destination had said it.
//!
//! Nobody is told of what must not be answered (RFC 1122 §3.2.2, RFC 4443 §2.4 (e), RFC 9293 §3.5.2): an error, a RST, what was for a
//! group or from one, a fragment other than the first.

use crate::{
    head::{
        ETHERNET_LEN, Fragment, FrameView, HEAD_BYTES, Head, Network, TAG_LEN, TcpFlags, Transport, ethertype,
    },
    vlan::Tci,
};
use checksum::Sum;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Bytes of an answer at most: an ICMPv6 error that quotes all that was copied of the frame.
pub const MAX_ANSWER: usize = ETHERNET_LEN + TAG_LEN + IPV6_LEN + ICMP_LEN + HEAD_BYTES;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN: usize = 20;
/// Of an ICMP error, before what it quotes (RFC 792, RFC 4443 §3.1).
const ICMP_LEN: usize = 8;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;

/// Time to live and hop limit: as of a host's own packets (RFC 1700).
const HOPS: u8 = 64;

/// A frame that the switch makes for the sender of another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    bytes: [u8; MAX_ANSWER],
    len: u16,
    kind: AnswerKind,
}

/// What an [`Answer`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerKind {
    /// A TCP segment that ends the connection, or refuses it.
    Reset,
    /// An ICMP error: administratively prohibited (type 3, code 13, RFC 1812 §5.2.7.1; ICMPv6: type 1, code 1).
    Prohibited,
    /// An ICMP error of a router: its time to live ended (type 11, code 0, RFC 792; ICMPv6: type 3, code 0).
    TimeExceeded,
    /// An ICMP error of a router: it has no route there (type 3, code 0, RFC 1812 §5.2.7.1; ICMPv6: type 1, code 0).
    NoRoute,
    /// An ICMP error of a router: it is too big for where it goes (type 3, code 4, RFC 1191; ICMPv6: type 2, RFC 8201).
    TooBig {
        /// Bytes that a packet may have there.
        mtu: u16,
    },
}

impl AnswerKind {
    /// The first eight bytes of the message, without its checksum.
    const fn icmp(self, is_v4: bool) -> [u8; ICMP_LEN] {
        let (kind, code, mtu) = match (self, is_v4) {
            (Self::Reset | Self::Prohibited, true) => (3, 13, 0),
            (Self::Reset | Self::Prohibited, false) => (1, 1, 0),
            (Self::TimeExceeded, true) => (11, 0, 0),
            (Self::TimeExceeded, false) => (3, 0, 0),
            (Self::NoRoute, true) => (3, 0, 0),
            (Self::NoRoute, false) => (1, 0, 0),
            (Self::TooBig { mtu }, true) => (3, 4, mtu),
            (Self::TooBig { mtu }, false) => (2, 0, mtu),
        };
        let [high, low] = mtu.to_be_bytes();
        [kind, code, 0, 0, 0, 0, high, low]
    }
}

impl fmt::Display for AnswerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "a TCP RST",
            Self::Prohibited => "an ICMP error: administratively prohibited",
            Self::TimeExceeded => "an ICMP error: time exceeded",
            Self::NoRoute => "an ICMP error: no route",
            Self::TooBig { mtu } => return write!(f, "an ICMP error: too big, at most {mtu} bytes"),
        })
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("kind", &self.kind).field("bytes", &self.bytes()).finish()
    }
}

/// The packet in a frame that is answered.
#[derive(Debug, Clone, Copy)]
struct Packet {
    hosts: Hosts,
    /// Where it ends, from the frame's destination address: what follows is padding.
    end: usize,
    /// Whether more fragments of it follow.
    is_cut: bool,
}

/// Where it came from, and where it was to go.
#[derive(Debug, Clone, Copy)]
enum Hosts {
    V4 { src: Ipv4Addr, dst: Ipv4Addr },
    V6 { src: Ipv6Addr, dst: Ipv6Addr },
}

impl Answer {
    /// What the sender of this frame is told; none if it must not be told.
    pub fn to(frame: &FrameView<'_>, head: &Head) -> Option<Self> {
        let Packet { hosts, end, is_cut } = Packet::of(head)?;
        if head.link.src.is_group() || head.link.dst.is_group() {
            return None;
        }
        let transport = usize::from(head.transport_at?);
        match head.transport {
            Transport::Tcp { flags, .. } => {
                if flags.contains(TcpFlags::RST) || is_cut {
                    return None;
                }
                let segment = frame.bytes.get(transport..transport + TCP_LEN)?;
                let reset = reset(segment, flags, end.checked_sub(transport)?)?;
                Some(Self::new(head, hosts, TCP, AnswerKind::Reset, &reset, &[]))
            }
            _ => Self::error(frame, head, None, AnswerKind::Prohibited),
        }
    }

    /// What a router with the address `from` tells the sender of this frame, or with none, what seems to come from where it was to go; none if it must not
    /// be told.
    pub fn error(frame: &FrameView<'_>, head: &Head, from: Option<IpAddr>, kind: AnswerKind) -> Option<Self> {
        let Packet { hosts, end, .. } = Packet::of(head)?;
        if head.link.src.is_group() || head.link.dst.is_group() {
            return None;
        }
        let hosts = match (hosts, from) {
            (Hosts::V4 { src, .. }, Some(IpAddr::V4(dst))) => Hosts::V4 { src, dst },
            (Hosts::V6 { src, .. }, Some(IpAddr::V6(dst))) => Hosts::V6 { src, dst },
            (hosts, _) => hosts,
        };
        match head.transport {
            // Destination unreachable, source quench, redirect, time exceeded, parameter problem (RFC 1122 §3.2.2).
            Transport::Icmpv4 { kind: 3 | 4 | 5 | 11 | 12, .. } => None,
            // Errors; multicast listeners, routers and neighbours, which speak to their link only (RFC 4443 §2.1, RFC 4861, RFC 3810).
            Transport::Icmpv6 { kind: 0..=127 | 130..=137 | 143, .. } => None,
            Transport::None | Transport::LaterFragment | Transport::Unparsed(_) => None,
            _ => {
                let quoted = frame.bytes.get(usize::from(head.link.len)..end.min(frame.bytes.len()))?;
                let is_v4 = matches!(hosts, Hosts::V4 { .. });
                let protocol = if is_v4 { ICMP } else { ICMPV6 };
                Some(Self::new(head, hosts, protocol, kind, &kind.icmp(is_v4), quoted))
            }
        }
    }

    /// From its destination address on.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// What it is.
    pub const fn kind(&self) -> AnswerKind {
        self.kind
    }

    /// `message` and `rest` behind headers that lead back to where the frame with this `head` came from, as it came: in its VLAN, by its tag.
    fn new(head: &Head, hosts: Hosts, protocol: u8, kind: AnswerKind, message: &[u8], rest: &[u8]) -> Self {
        let mut answer = Self { bytes: [0; MAX_ANSWER], len: 0, kind };
        answer.put(&head.link.src.octets());
        answer.put(&head.link.dst.octets());
        if let Some(tag) = head.link.outer {
            // Drop eligible is what the sender's frame was, not what this is.
            let tci = Tci::from_bits(tag.tci.bits() & !0x1000);
            answer.put(&ethertype::C_TAG.to_be_bytes());
            answer.put(&tci.bits().to_be_bytes());
        }
        let len = message.len() + rest.len();
        let pseudo = match hosts {
            Hosts::V4 { src, dst } => {
                let [total, l] = ((IPV4_LEN + len) as u16).to_be_bytes();
                // No options, not to be fragmented.
                let mut header =
                    [0x45, 0, total, l, 0, 0, 0x40, 0, HOPS, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                header[12..16].copy_from_slice(&dst.octets());
                header[16..].copy_from_slice(&src.octets());
                let sum = Sum::ZERO.add_bytes(&header).checksum();
                header[10..12].copy_from_slice(&sum);
                answer.put(&ethertype::IPV4.to_be_bytes());
                answer.put(&header);
                // RFC 792: ICMP is summed by itself.
                if protocol == ICMP { Sum::ZERO } else { Sum::ZERO.add_bytes(&header[12..]) }
            }
            Hosts::V6 { src, dst } => {
                let [l0, l1] = (len as u16).to_be_bytes();
                answer.put(&ethertype::IPV6.to_be_bytes());
                answer.put(&[0x60, 0, 0, 0, l0, l1, protocol, HOPS]);
                answer.put(&dst.octets());
                answer.put(&src.octets());
                Sum::ZERO.add_bytes(&dst.octets()).add_bytes(&src.octets())
            }
        };
        let pseudo = match protocol {
            ICMP => pseudo,
            _ => pseudo.add_word(protocol.into()).add_word(len as u16),
        };
        // Both messages have an even length, so that what follows begins at an even offset.
        let sum = pseudo.add_bytes(message).add_bytes(rest).checksum();
        let at = usize::from(answer.len) + if protocol == TCP { 16 } else { 2 };
        answer.put(message);
        answer.put(rest);
        answer.bytes[at..at + 2].copy_from_slice(&sum);
        answer
    }

    fn put(&mut self, bytes: &[u8]) {
        let at = usize::from(self.len);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u16;
    }
}

impl Packet {
    /// That of a frame which may be answered: both ends are single hosts.
    fn of(head: &Head) -> Option<Self> {
        let at = usize::from(head.link.len);
        let is_cut = |fragment: Option<Fragment>| fragment.is_some_and(|fragment| fragment.more);
        match head.network {
            Network::Ipv4(ip) => {
                let single = |host: Ipv4Addr| {
                    !(host.is_unspecified()
                        || host.is_multicast()
                        || host.is_broadcast()
                        || host.is_loopback())
                };
                let hosts = Hosts::V4 { src: ip.src, dst: ip.dst };
                let packet = Self { hosts, end: at + usize::from(ip.total_len), is_cut: is_cut(ip.fragment) };
                (single(ip.src) && single(ip.dst)).then_some(packet)
            }
            Network::Ipv6(ip) => {
                let single =
                    |host: Ipv6Addr| !(host.is_unspecified() || host.is_multicast() || host.is_loopback());
                let hosts = Hosts::V6 { src: ip.src, dst: ip.dst };
                let end = at + IPV6_LEN + usize::from(ip.payload_len);
                let packet = Self { hosts, end, is_cut: is_cut(ip.fragment) };
                (single(ip.src) && single(ip.dst)).then_some(packet)
            }
            Network::Arp(_) | Network::Other | Network::Unparsed(_) => None,
        }
    }
}

/// The RST that answers a segment of `len` bytes, header included (RFC 9293 §3.5.2), without its checksum.
fn reset(segment: &[u8], flags: TcpFlags, len: usize) -> Option<[u8; TCP_LEN]> {
    let &[s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, ..] = segment else { return None };
    let data = len.checked_sub(usize::from(offset >> 4) * 4)?;
    let controls = u32::from(flags.contains(TcpFlags::SYN)) + u32::from(flags.contains(TcpFlags::FIN));
    let behind = u32::from_be_bytes([q0, q1, q2, q3]).wrapping_add(data as u32).wrapping_add(controls);
    let (sequence, acknowledged, bits) = if flags.contains(TcpFlags::ACK) {
        ([a0, a1, a2, a3], [0; 4], TcpFlags::RST.bits())
    } else {
        ([0; 4], behind.to_be_bytes(), TcpFlags::RST.bits() | TcpFlags::ACK.bits())
    };
    let mut reset = [0; TCP_LEN];
    reset[..4].copy_from_slice(&[d0, d1, s0, s1]);
    reset[4..8].copy_from_slice(&sequence);
    reset[8..12].copy_from_slice(&acknowledged);
    reset[12..14].copy_from_slice(&[5 << 4, bits]);
    Some(reset)
}
