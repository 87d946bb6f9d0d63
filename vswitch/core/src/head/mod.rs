//! The one parser: what the first bytes of a frame say, as facts.
//!
//! Facts are not judgements. Only a frame that is too short for an Ethernet header, or too long for virtio-net, is an
//! error here; whatever else is cut, contradictory or unknown is recorded as such ([`Unparsed`]) and still switched.
//! What was not understood can never be matched at layer 4.

mod describe;
mod network;
mod span;
mod transport;

pub use describe::Protocol;
pub use network::{Arp, Fragment, Ipv4, Ipv6, Network};
pub use transport::{TcpFlags, Transport};

use crate::{drop_reason::DropReason, mac::MacAddr, vlan::Tci};
use serde::{Deserialize, Serialize};
use span::Span;

/// How many bytes of a frame are copied and judged at most (DESIGN: "Judge only what you copied").
pub const HEAD_BYTES: usize = 192;

/// The longest frame that virtio-net carries, in bytes from the destination address.
pub const MAX_FRAME_LEN: u32 = 65_550;

/// Destination, source and length/type (IEEE 802.3-2018 §3.1.1).
pub const ETHERNET_LEN: usize = 14;

/// Tag protocol identifier and tag control information (IEEE 802.1Q-2018 §9.3).
pub const TAG_LEN: usize = 4;

/// EtherTypes that the parser knows.
pub mod ethertype {
    /// Customer VLAN tag, C-TPID (IEEE 802.1Q-2018 table 9-1).
    pub const C_TAG: u16 = 0x8100;
    /// Service VLAN tag, S-TPID (IEEE 802.1Q-2018 table 9-1).
    pub const S_TAG: u16 = 0x88a8;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// IPv4 (RFC 894).
    pub const IPV4: u16 = 0x0800;
    /// IPv6 (RFC 2464).
    pub const IPV6: u16 = 0x86dd;
}

/// Which of the two kinds of VLAN tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagKind {
    /// C-tag, TPID 0x8100: the only kind that our switches act on.
    Customer,
    /// S-tag, TPID 0x88a8: payload, to a C-VLAN bridge.
    Service,
}

/// A VLAN tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// Its kind.
    pub kind: TagKind,
    /// What it says.
    pub tci: Tci,
}

/// Why a header was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unparsed {
    /// The frame, or the payload that the header before it announces, ends inside the header.
    Truncated,
    /// The header lies behind the [`HEAD_BYTES`] that were copied.
    BehindHead,
    /// The header contradicts itself or its place (version, lengths, order).
    Malformed,
    /// More than two VLAN tags.
    TooManyTags,
    /// More than eight IPv6 extension headers.
    TooManyExtensions,
}

/// What every switch looks at: the addresses, the tags, and what follows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkHeader {
    /// Destination address.
    pub dst: MacAddr,
    /// Source address.
    pub src: MacAddr,
    /// The tag right behind the addresses.
    pub outer: Option<Tag>,
    /// The tag behind that one.
    pub inner: Option<Tag>,
    /// EtherType behind the tags; below 0x600 it is an IEEE 802.3 length.
    pub ethertype: u16,
    /// Bytes from the destination address to the end of `ethertype`: where the network header starts.
    pub len: u8,
}

/// All facts about one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Addresses, tags, EtherType.
    pub link: LinkHeader,
    /// What the EtherType announces.
    pub network: Network,
    /// What is inside the network layer.
    pub transport: Transport,
    /// Where the transport header starts, from the destination address; none if there is none or it was not reached.
    pub transport_at: Option<u8>,
}

/// A frame as it is judged: the bytes that were copied of it, and what its link header says.
#[derive(Debug, Clone, Copy)]
pub struct FrameView<'a> {
    /// Its link header, read from `bytes`.
    pub link: &'a LinkHeader,
    /// Its first `min(len, HEAD_BYTES)` bytes.
    pub bytes: &'a [u8],
    /// Its length, from the destination address on.
    pub len: u32,
    /// The length of the longest frame that it makes on a wire: of a segment, if it is to be cut; else its own.
    pub wire_len: u32,
}

impl FrameView<'_> {
    /// All that its bytes say.
    pub fn head(&self) -> Head {
        Head::behind(*self.link, self.bytes, self.len)
    }
}

impl LinkHeader {
    /// Reads `bytes`, the first `min(frame_len, HEAD_BYTES)` bytes of a frame from its destination address on.
    ///
    /// # Errors
    /// [`DropReason::Runt`] if there is no whole Ethernet header, [`DropReason::Oversize`] above [`MAX_FRAME_LEN`].
    #[inline]
    pub fn parse(bytes: &[u8], frame_len: u32) -> Result<Self, DropReason> {
        if frame_len > MAX_FRAME_LEN {
            return Err(DropReason::Oversize);
        }
        let frame = Span::frame(bytes, frame_len as usize);
        let Ok(&[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1]) = frame.read(0) else {
            return Err(DropReason::Runt);
        };
        let mut link = Self {
            dst: MacAddr::new([d0, d1, d2, d3, d4, d5]),
            src: MacAddr::new([s0, s1, s2, s3, s4, s5]),
            outer: None,
            inner: None,
            ethertype: u16::from_be_bytes([t0, t1]),
            len: ETHERNET_LEN as u8,
        };
        if is_tag(link.ethertype) {
            link.parse_tags(frame);
        }
        Ok(link)
    }

    /// The C-tag that a bridge acts on (IEEE 802.1Q-2018 §6.9); none for an untagged frame. An S-tag is payload here.
    ///
    /// # Errors
    /// [`DropReason::Runt`] if the frame ends inside that tag or the EtherType behind it.
    #[inline]
    pub const fn c_tag(&self) -> Result<Option<Tci>, DropReason> {
        match self.outer {
            Some(Tag { kind: TagKind::Customer, tci }) => Ok(Some(tci)),
            None if self.ethertype == ethertype::C_TAG => Err(DropReason::Runt),
            _ => Ok(None),
        }
    }

    /// Whether a C-tag stands behind the first tag: what would become the frame's VLAN if the first were removed.
    pub const fn hides_c_tag(&self) -> bool {
        match self.inner {
            Some(inner) => matches!(inner.kind, TagKind::Customer),
            None => self.outer.is_some() && self.ethertype == ethertype::C_TAG,
        }
    }

    fn parse_tags(&mut self, frame: Span<'_>) {
        self.outer = self.next_tag(frame);
        if self.outer.is_some() && is_tag(self.ethertype) {
            self.inner = self.next_tag(frame);
        }
    }

    /// Reads the tag that `ethertype` announces and moves on behind it; leaves all as it is if the frame ends first.
    fn next_tag(&mut self, frame: Span<'_>) -> Option<Tag> {
        let &[c0, c1, t0, t1] = frame.read(usize::from(self.len)).ok()?;
        let kind = if self.ethertype == ethertype::C_TAG { TagKind::Customer } else { TagKind::Service };
        self.ethertype = u16::from_be_bytes([t0, t1]);
        self.len += TAG_LEN as u8;
        Some(Tag { kind, tci: Tci::from_bits(u16::from_be_bytes([c0, c1])) })
    }
}

impl Head {
    /// Reads `bytes`, the first `min(frame_len, HEAD_BYTES)` bytes of a frame from its destination address on.
    ///
    /// # Errors
    /// As [`LinkHeader::parse`].
    pub fn parse(bytes: &[u8], frame_len: u32) -> Result<Self, DropReason> {
        LinkHeader::parse(bytes, frame_len).map(|link| Self::behind(link, bytes, frame_len))
    }

    /// The same for a frame whose link header was read before. Plain switching needs no more than that, so only who
    /// asks pays for the rest.
    pub fn behind(link: LinkHeader, bytes: &[u8], frame_len: u32) -> Self {
        let mut head = Self { link, network: Network::Other, transport: Transport::None, transport_at: None };
        head.parse_network(Span::frame(bytes, frame_len as usize));
        head
    }

    fn parse_network(&mut self, frame: Span<'_>) {
        let rest = frame.from(usize::from(self.link.len));
        match self.link.ethertype {
            ethertype::IPV4 => match Ipv4::parse(rest) {
                Ok((ipv4, payload)) => {
                    self.network = Network::Ipv4(ipv4);
                    self.parse_transport(Transport::in_ipv4(&ipv4, payload), payload);
                }
                Err(why) => self.network = Network::Unparsed(why),
            },
            ethertype::IPV6 => match Ipv6::parse(rest) {
                Ok((ipv6, Ok(payload))) => {
                    self.network = Network::Ipv6(ipv6);
                    self.parse_transport(Transport::in_ipv6(&ipv6, payload), payload);
                }
                Ok((ipv6, Err(why))) => {
                    self.network = Network::Ipv6(ipv6);
                    self.transport = Transport::Unparsed(why);
                }
                Err(why) => self.network = Network::Unparsed(why),
            },
            ethertype::ARP => self.network = Arp::parse(rest).map_or_else(Network::Unparsed, Network::Arp),
            tag if is_tag(tag) => {
                let why = if self.link.inner.is_some() { Unparsed::TooManyTags } else { Unparsed::Truncated };
                self.network = Network::Unparsed(why);
            }
            _ => {}
        }
    }

    fn parse_transport(&mut self, transport: Transport, payload: Span<'_>) {
        self.transport = transport;
        if !matches!(transport, Transport::LaterFragment | Transport::Unparsed(_)) {
            self.transport_at = u8::try_from(payload.start()).ok();
        }
    }
}

const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::C_TAG | ethertype::S_TAG)
}
