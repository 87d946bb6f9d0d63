//! ARP, IPv4 and IPv6 headers, up to where the transport header starts.

use super::{Span, Unparsed};
use crate::mac::MacAddr;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What the EtherType announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Nothing that the parser knows.
    Other,
    /// ARP for IPv4 over Ethernet.
    Arp(Arp),
    /// IPv4.
    Ipv4(Ipv4),
    /// IPv6.
    Ipv6(Ipv6),
    /// A header that the parser knows, but that cannot be read.
    Unparsed(Unparsed),
}

impl Network {
    /// A fragment's place in its datagram; none if it is whole, and no IPv6 packet that has a fragment header all the same.
    pub(crate) const fn fragment(&self) -> Option<Fragment> {
        match self {
            Self::Ipv4(ip) => ip.fragment,
            Self::Ipv6(ip) => ip.fragment,
            Self::Other | Self::Arp(_) | Self::Unparsed(_) => None,
        }
    }

    /// Whether the sender names a route of its own, so that the packet may be for another than its destination address says.
    pub(crate) const fn has_source_route(&self) -> bool {
        match self {
            Self::Ipv4(ip) => ip.source_route,
            Self::Ipv6(ip) => ip.source_route,
            Self::Other | Self::Arp(_) | Self::Unparsed(_) => false,
        }
    }
}

/// An ARP message (RFC 826).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// 1 request, 2 reply; others are not judged.
    pub operation: u16,
    /// Sender hardware address.
    pub sender_mac: MacAddr,
    /// Sender protocol address.
    pub sender: Ipv4Addr,
    /// Target hardware address.
    pub target_mac: MacAddr,
    /// Target protocol address.
    pub target: Ipv4Addr,
}

/// An IPv4 header (RFC 791 §3.1). Its checksum was not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4 {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Time to live.
    pub ttl: u8,
    /// Protocol number.
    pub protocol: u8,
    /// Bytes of the header, options included: 20 to 60.
    pub header_len: u8,
    /// Bytes of header and payload.
    pub total_len: u16,
    /// Its place in a larger datagram; none if it is whole.
    pub fragment: Option<Fragment>,
    /// Whether no router may cut it.
    pub dont_fragment: bool,
    /// Whether its options name a route of the sender's own (RFC 791 §3.1), so that its destination may be another, or cannot be read.
    pub source_route: bool,
}

/// An IPv6 header and its extension headers (RFC 8200 §3, §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6 {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// Hop limit.
    pub hop_limit: u8,
    /// The last Next Header that was reached: the transport protocol if the walk came to its end.
    pub protocol: u8,
    /// How many extension headers were passed: at most eight.
    pub extensions: u8,
    /// Bytes behind the fixed header.
    pub payload_len: u16,
    /// From the fragment header (RFC 8200 §4.5), also of an atomic fragment.
    pub fragment: Option<Fragment>,
    /// Whether a routing header was passed that leads on, or may: one of any type with segments left (RFC 8200 §4.4), or of type 0 (RFC 5095).
    pub source_route: bool,
}

/// A fragment's place in its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Of its first byte, in bytes.
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
    /// Bytes of the datagram that it carries: of IPv6 those behind the fragment header.
    pub len: u16,
    /// Identification.
    pub id: u32,
}

impl Arp {
    pub(super) fn parse(span: Span<'_>) -> Result<Self, Unparsed> {
        let &[h0, h1, p0, p1, hlen, plen, o0, o1] = span.read(0)?;
        // Hardware type Ethernet (1), protocol type IPv4, and the address lengths that follow from them.
        if [h0, h1, p0, p1, hlen, plen] != [0, 1, 8, 0, 6, 4] {
            return Err(Unparsed::Malformed);
        }
        Ok(Self {
            operation: u16::from_be_bytes([o0, o1]),
            sender_mac: MacAddr::new(*span.read(8)?),
            sender: Ipv4Addr::from(*span.read(14)?),
            target_mac: MacAddr::new(*span.read(18)?),
            target: Ipv4Addr::from(*span.read(24)?),
        })
    }
}

impl Ipv4 {
    pub(super) fn parse(span: Span<'_>) -> Result<(Self, Span<'_>), Unparsed> {
        let &[vihl, _, l0, l1, i0, i1, f0, f1, ttl, protocol, _, _, a, b, c, d, e, f, g, h] = span.read(0)?;
        let header_len = (vihl & 0xf) * 4;
        let total_len = u16::from_be_bytes([l0, l1]);
        if vihl >> 4 != 4 || header_len < 20 || total_len < u16::from(header_len) {
            return Err(Unparsed::Malformed);
        }
        let datagram = span.first(usize::from(total_len))?;
        let flags = u16::from_be_bytes([f0, f1]);
        let fragment = Fragment {
            offset: (flags & 0x1fff) * 8,
            more: flags & 0x2000 != 0,
            len: total_len - u16::from(header_len),
            id: u16::from_be_bytes([i0, i1]).into(),
        };
        let ipv4 = Self {
            src: Ipv4Addr::new(a, b, c, d),
            dst: Ipv4Addr::new(e, f, g, h),
            ttl,
            protocol,
            header_len,
            total_len,
            fragment: (fragment.more || fragment.offset != 0).then_some(fragment),
            dont_fragment: flags & 0x4000 != 0,
            source_route: header_len > 20 && span.known(20, usize::from(header_len)).is_none_or(names_route),
        };
        Ok((ipv4, datagram.from(usize::from(header_len))))
    }
}

/// Options that are looked for (RFC 791 §3.1): two have no length, two name a route.
mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NO_OPERATION: u8 = 1;
    pub(super) const LOOSE_ROUTE: u8 = 131;
    pub(super) const STRICT_ROUTE: u8 = 137;
}

/// Whether these options of IPv4 name a route, or cannot be read: what is behind a wrong length, receivers may find.
fn names_route(mut options: &[u8]) -> bool {
    loop {
        options = match options {
            [] | [option::END, ..] => return false,
            [option::LOOSE_ROUTE | option::STRICT_ROUTE, ..] => return true,
            [option::NO_OPERATION, rest @ ..] => rest,
            [_, len, ..] if *len >= 2 => match options.get(usize::from(*len)..) {
                Some(rest) => rest,
                None => return true,
            },
            _ => return true,
        };
    }
}

/// Next Header values that name an extension header with a known form (RFC 8200 §4.1; RFC 4302 for 51).
mod next_header {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION_OPTIONS: u8 = 60;
}

/// The routing type that lets a sender choose the way, which no node may follow any more (RFC 5095 §3).
const SOURCE_ROUTE: u8 = 0;

/// Bytes of a fragment header (RFC 8200 §4.5).
const FRAGMENT_LEN: usize = 8;

/// How many extension headers are walked: a chain costs time that its sender does not pay.
const MAX_EXTENSIONS: u8 = 8;

impl Ipv6 {
    /// The header, and where its payload starts if every extension header could be passed.
    pub(super) fn parse(span: Span<'_>) -> Result<(Self, Result<Span<'_>, Unparsed>), Unparsed> {
        let &[version, _, _, _, l0, l1, protocol, hop_limit] = span.read(0)?;
        if version >> 4 != 6 {
            return Err(Unparsed::Malformed);
        }
        let payload_len = u16::from_be_bytes([l0, l1]);
        let mut ipv6 = Self {
            src: Ipv6Addr::from(*span.read(8)?),
            dst: Ipv6Addr::from(*span.read(24)?),
            hop_limit,
            protocol,
            extensions: 0,
            payload_len,
            fragment: None,
            source_route: false,
        };
        let payload = span.from(40).first(usize::from(payload_len))?;
        let behind = ipv6.walk(payload);
        Ok((ipv6, behind))
    }

    /// Passes the extension headers, up to the transport header or the first thing that cannot be passed.
    fn walk<'a>(&mut self, mut span: Span<'a>) -> Result<Span<'a>, Unparsed> {
        loop {
            let len = match self.protocol {
                // RFC 8200 §4.1: Hop-by-Hop Options stand right behind the IPv6 header or nowhere.
                next_header::HOP_BY_HOP if self.extensions > 0 => return Err(Unparsed::Malformed),
                next_header::ROUTING => {
                    let &[_, units, kind, segments_left] = span.read(0)?;
                    self.source_route |= kind == SOURCE_ROUTE || segments_left > 0;
                    (usize::from(units) + 1) * 8
                }
                next_header::HOP_BY_HOP | next_header::DESTINATION_OPTIONS => {
                    let &[_, units] = span.read(0)?;
                    (usize::from(units) + 1) * 8
                }
                next_header::AUTHENTICATION => match span.read(0)? {
                    // RFC 4302 §2: twelve bytes are fixed, and the length does not count two words of them.
                    [_, 0] => return Err(Unparsed::Malformed),
                    &[_, words] => (usize::from(words) + 2) * 4,
                },
                next_header::FRAGMENT => {
                    self.read_fragment(span)?;
                    FRAGMENT_LEN
                }
                _ => return Ok(span),
            };
            if self.extensions == MAX_EXTENSIONS {
                return Err(Unparsed::TooManyExtensions);
            }
            span.first(len)?;
            let &[next] = span.read(0)?;
            self.protocol = next;
            self.extensions += 1;
            span = span.from(len);
            if self.fragment.is_some_and(|fragment| fragment.offset != 0) {
                return Ok(span);
            }
        }
    }

    /// One fragment header is a fact; a second one inside it is a disguise (RFC 8200 §4.5 knows one per packet).
    fn read_fragment(&mut self, span: Span<'_>) -> Result<(), Unparsed> {
        if self.fragment.is_some() {
            return Err(Unparsed::Malformed);
        }
        let &[_, _, o0, o1, a, b, c, d] = span.read(0)?;
        let word = u16::from_be_bytes([o0, o1]);
        self.fragment = Some(Fragment {
            offset: word & 0xfff8,
            more: word & 1 != 0,
            // Of a payload, which has 16 bits of length, less than the header that was just read.
            len: (span.len() - FRAGMENT_LEN) as u16,
            id: u32::from_be_bytes([a, b, c, d]),
        });
        Ok(())
    }
}
