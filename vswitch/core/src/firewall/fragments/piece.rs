//! What a frame is of a datagram: all of it, its first fragment, a later one, or what no honest sender makes.

use super::seen::{Part, UNIT};
use crate::{
    firewall::{
        connections::{Ends, Event, Hosts, Key, Scope, Segment, datagram},
        policy::Direction,
    },
    head::{Head, Network, TcpFlags, Transport, Unparsed},
};

const TCP: u8 = 6;
const SCTP: u8 = 132;

/// Next Header of a fragment header (RFC 8200 §4.5).
const FRAGMENT: u8 = 44;

/// The shortest TCP header (RFC 9293 §3.1), which is also the longest that rules are asked about.
const TCP_HEADER: u32 = 20;
/// SCTP's common header (RFC 9260 §3.1).
const SCTP_HEADER: u32 = 12;

/// The most bytes of an IPv4 datagram, and of an IPv6 payload.
const MOST: u32 = 65_535;

/// What a frame is of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// All of it; also an atomic fragment, which has nothing to do with any other (RFC 6946 §4).
    Whole,
    /// The first of several, with the whole transport header.
    First(Fragment),
    /// Another one.
    Later(Fragment),
    /// No part of a datagram that a host would send, or should put together.
    Malformed,
}

/// A fragment that may be a part of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// What all fragments of the datagram have in common.
    pub(crate) datagram: Key,
    /// Where it belongs.
    pub(crate) part: Part,
    scope: Scope,
    hosts: Hosts,
    /// Bytes of the datagram up to the end of this fragment.
    end: u32,
}

impl Piece {
    /// What the frame with this head is, that goes `from` one of the hosts.
    pub(crate) fn of(head: &Head, scope: Scope, from: Direction) -> Self {
        let (Some(fragment), Some((hosts, protocol, _))) =
            (head.network.fragment(), datagram(&head.network, from))
        else {
            return Self::Whole;
        };
        let len = u32::from(fragment.len);
        // What a whole datagram counts beside its fragments' data, and how far its headers reach at least. Of a later fragment of IPv6 nobody
        // knows the protocol: the first one's counts (RFC 8200 §4.5).
        let (beside, headers) = match head.network {
            // A fragment within a fragment; an atomic one hides it as well.
            Network::Ipv6(_) if protocol == FRAGMENT => return Self::Malformed,
            Network::Ipv6(ip) => (u32::from(ip.payload_len) - UNIT - len, TCP_HEADER),
            Network::Ipv4(ip) => (ip.header_len.into(), header_len(protocol)),
            _ => return Self::Whole,
        };
        let offset = u32::from(fragment.offset);
        if offset == 0 && !fragment.more {
            return Self::Whole;
        }
        let end = offset + len;
        // RFC 8200 §4.5: nothing may be behind 65,535 bytes, and only the last may have an odd length. RFC 791 §3.2 means the same.
        let is_odd = fragment.more && !len.is_multiple_of(UNIT);
        if len == 0 || is_odd || beside + end > MOST {
            return Self::Malformed;
        }
        let datagram = Key::of_fragments(scope, hosts, protocol, fragment.id, from);
        let part = Part::new(offset, end, !fragment.more);
        let fragment = Fragment { datagram, part, scope, hosts, end };
        match (offset, head.transport) {
            // RFC 1858 §3, RFC 7112 §5: all that is judged has to be in the first.
            (0, Transport::Unparsed(Unparsed::Truncated)) => Self::Malformed,
            (0, _) => Self::First(fragment),
            // RFC 1858 §4, RFC 3128: it would write over what was judged.
            _ if offset < headers => Self::Malformed,
            _ => Self::Later(fragment),
        }
    }
}

/// How many bytes of a header no fragment but the first may have a part of. There is no offset below [`UNIT`].
const fn header_len(protocol: u8) -> u32 {
    match protocol {
        TCP => TCP_HEADER,
        SCTP => SCTP_HEADER,
        _ => UNIT,
    }
}

/// The TCP segment that begins in a datagram's first fragment: each later one makes it longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun {
    inside: u16,
    outside: u16,
    segment: Segment,
    /// Bytes of the TCP header.
    header: u8,
}

impl Begun {
    /// That of a first fragment which is this event of that connection. None of what is no TCP, and of a SYN: that has no data to speak of.
    pub(crate) fn of(first: &Fragment, key: &Key, event: &Event) -> Option<Self> {
        match (key.ends(), event) {
            (Ends::Ports { inside, outside }, Event::Tcp(segment))
                if !segment.flags.contains(TcpFlags::SYN) =>
            {
                let header = u8::try_from(first.end.checked_sub(segment.len)?).ok()?;
                Some(Self { inside, outside, segment: *segment, header })
            }
            _ => None,
        }
    }

    /// The segment up to the end of a later fragment, and its connection.
    pub(crate) fn up_to(&self, later: &Fragment) -> (Key, Event) {
        let ends = Ends::Ports { inside: self.inside, outside: self.outside };
        let len = later.end.saturating_sub(self.header.into());
        (Key::new(later.scope, later.hosts, TCP, ends), Event::Tcp(Segment { len, ..self.segment }))
    }

    /// As words that are kept; a header of no bytes is none.
    pub(super) fn words(begun: Option<Self>) -> [u64; 2] {
        let Some(Self { inside, outside, segment, header }) = begun else { return [0; 2] };
        let ends = u64::from(inside) << 48 | u64::from(outside) << 32;
        let rest = u64::from(segment.window) << 16 | u64::from(segment.flags.bits()) << 8 | u64::from(header);
        [ends | u64::from(segment.seq), u64::from(segment.ack) << 32 | rest]
    }

    pub(super) fn from_words([front, back]: [u64; 2]) -> Option<Self> {
        let segment = Segment {
            flags: TcpFlags::from_bits((back >> 8) as u8),
            seq: front as u32,
            ack: (back >> 32) as u32,
            window: (back >> 16) as u16,
            len: 0,
            scale: None,
        };
        let (inside, outside) = ((front >> 48) as u16, (front >> 32) as u16);
        let begun = Self { inside, outside, segment, header: back as u8 };
        (begun.header > 0).then_some(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_keeps_its_facts() {
        let flags = TcpFlags::from_bits(0xd1);
        let segment = Segment { flags, seq: 0xffff_fff0, ack: 7, window: 0xfffe, len: 0, scale: None };
        let begun = Some(Begun { inside: 0xfffd, outside: 1, segment, header: 60 });
        assert_eq!(Begun::from_words(Begun::words(begun)), begun);
        assert_eq!(Begun::from_words(Begun::words(None)), None);
    }
}
