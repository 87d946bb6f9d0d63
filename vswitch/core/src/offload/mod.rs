//! What a sender leaves to others (virtio 1.2 §5.1.6.2): a checksum that is to be completed, a large frame that is to be cut into
//! segments. What it asks for is judged against the frame's own headers, and then done in software for receivers that cannot.
//!
//! A frame that passed has its checksum where TCP, UDP or GRE have one, or in what UDP, GRE or IP in IP carry; so completing it changes
//! nothing that the switch has judged. A frame to be cut is a whole TCP segment or UDP datagram whose lengths agree.

mod segment;

pub use segment::{Segment, Train};

use crate::{
    decide::TagEdit,
    head::{HEAD_BYTES, Head, Network, TAG_LEN, Transport},
};
use checksum::Sum;

/// Where TCP has its checksum (RFC 9293 §3.1), and UDP (RFC 768).
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
/// And GRE, if the first bit of its header says so (RFC 2784 §2.1).
const GRE_CHECKSUM: usize = 4;
const GRE_HAS_CHECKSUM: u8 = 0x80;

/// Protocol numbers of what carries other packets.
const IPV4_IN_IP: u8 = 4;
const IPV6_IN_IP: u8 = 41;
const GRE: u8 = 47;

/// The most segments of a frame: those of 64 KiB where the MTU is 576, the least that IPv4 hosts take (RFC 791 §3.1). A sender that asks for
/// more is after the switch's time, or its receivers' buffers.
pub const MAX_SEGMENTS: u32 = 128;

/// What a segment counts in budgets, in bytes: it costs a claim, headers and two sums, however short it is.
const SEGMENT_COST: u32 = 2048;

/// `gso_type` (virtio 1.2 §5.1.6: VIRTIO_NET_HDR_GSO_…), and the bit that says that the segments carry ECN.
mod gso {
    pub(super) const NONE: u8 = 0;
    pub(super) const TCPV4: u8 = 1;
    pub(super) const TCPV6: u8 = 4;
    pub(super) const UDP_L4: u8 = 5;
    pub(super) const ECN: u8 = 0x80;
}

/// What a net header asks for, as it stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// The checksum is to be completed (VIRTIO_NET_HDR_F_NEEDS_CSUM).
    pub needs_checksum: bool,
    /// Where summing starts, from the destination address.
    pub checksum_start: u16,
    /// Where the checksum goes, from there.
    pub checksum_offset: u16,
    /// Which segmentation (VIRTIO_NET_HDR_GSO_…).
    pub gso_type: u8,
    /// Payload bytes of a segment.
    pub gso_size: u16,
    /// Bytes of all headers: written for receivers, never read.
    pub header_len: u16,
}

/// Which offloads a port has negotiated, in one direction: what its driver may ask for, or what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Abilities {
    /// Checksums that are to be completed.
    pub checksum: bool,
    /// Large TCP segments over IPv4.
    pub tcp4: bool,
    /// And over IPv6.
    pub tcp6: bool,
    /// Either of them with ECN.
    pub ecn: bool,
    /// Large UDP datagrams over IPv4 that are to be cut into datagrams.
    pub udp4: bool,
    /// And over IPv6.
    pub udp6: bool,
}

impl Abilities {
    fn take(self, cut: &Cut) -> bool {
        let kind = match (cut.transport, cut.version) {
            (Protocol::Tcp, Version::V4) => self.tcp4,
            (Protocol::Tcp, Version::V6) => self.tcp6,
            (Protocol::Udp, Version::V4) => self.udp4,
            (Protocol::Udp, Version::V6) => self.udp6,
        };
        self.checksum && kind && (self.ecn || !cut.ecn)
    }
}

/// What is left to do of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    checksum_start: u16,
    checksum_offset: u16,
    /// Whether it is that of the frame's own transport header.
    is_own: bool,
    cut: Option<Cut>,
}

/// How a frame is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    version: Version,
    transport: Protocol,
    ecn: bool,
    /// Where the network header starts, from the destination address.
    network: u16,
    /// Bytes of all headers, which each segment has.
    headers: u16,
    /// Payload bytes of each segment but the last.
    size: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

/// What of it the switch does for a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Nothing: the receiver takes the frame as it is.
    Nothing,
    /// The checksum is completed.
    Checksum,
    /// The frame is cut; the segments' checksums are completed, or left to the receiver.
    Cut {
        /// They are.
        checksums: bool,
    },
}

impl Offload {
    /// What is `asked` for of the frame of `len` bytes that begins with `bytes`, by a sender with these abilities. None if it was not
    /// negotiated, or does not fit the frame: then the frame is to be dropped.
    pub fn judge(asked: &Asked, bytes: &[u8], len: u32, sender: Abilities) -> Option<Self> {
        // A segment needs a new checksum: without one to complete, cutting makes no sense (virtio 1.2 §5.1.6.2.1).
        if !asked.needs_checksum || !sender.checksum {
            return None;
        }
        let bytes = &bytes[..bytes.len().min(HEAD_BYTES)];
        let head = Head::parse(bytes, len).ok()?;
        let at = usize::from(head.transport_at?);
        let start = usize::from(asked.checksum_start);
        let field = start + usize::from(asked.checksum_offset);
        if field + 2 > bytes.len() || is_fragment(&head.network) {
            return None;
        }
        let carried = protocol(&head.network);
        let (own, transport) = match head.transport {
            Transport::Tcp { .. } => (TCP_CHECKSUM, Some(Protocol::Tcp)),
            Transport::Udp { .. } => (UDP_CHECKSUM, Some(Protocol::Udp)),
            Transport::Other if carried == GRE && bytes.get(at)? & GRE_HAS_CHECKSUM != 0 => {
                (GRE_CHECKSUM, None)
            }
            _ => (usize::MAX, None),
        };
        let is_own = start == at && usize::from(asked.checksum_offset) == own;
        // Behind all that is ever judged of the outer headers.
        let is_tunnel = transport == Some(Protocol::Udp) || [IPV4_IN_IP, IPV6_IN_IP, GRE].contains(&carried);
        let cut = match (asked.gso_type, transport) {
            (gso::NONE, _) if is_own || (is_tunnel && start >= at + 8) => None,
            (_, Some(transport)) if is_own => Cut::judge(asked, bytes, len, &head, transport, sender)?,
            _ => return None,
        };
        let Asked { checksum_start, checksum_offset, .. } = *asked;
        Some(Self { checksum_start, checksum_offset, is_own, cut })
    }

    /// Whether the checksum that is left to do is that of the frame's own transport header, not of what a tunnel carries.
    pub const fn is_of_transport(&self) -> bool {
        self.is_own
    }

    /// The length of the longest frame that it makes on a wire, of a frame of `len` bytes.
    pub fn wire_len(&self, len: u32) -> u32 {
        self.cut.map_or(len, |cut| u32::from(cut.headers) + u32::from(cut.size))
    }

    /// What a copy of the frame, which has `len` bytes, counts in budgets: its bytes, or more if it may have to be cut.
    pub fn cost(&self, len: u32) -> u32 {
        self.cut.map_or(len, |cut| len.max(cut.count(len) * SEGMENT_COST))
    }

    /// What is left to do of the frame once it has been edited.
    #[must_use]
    pub fn behind(mut self, edit: TagEdit) -> Self {
        let move_by = |at: &mut u16| match edit {
            TagEdit::Push(_) => *at += TAG_LEN as u16,
            // There was a tag before all that these point to.
            TagEdit::Pop => *at -= TAG_LEN as u16,
            TagEdit::Keep | TagEdit::Rewrite(_) => {}
        };
        move_by(&mut self.checksum_start);
        if let Some(cut) = &mut self.cut {
            move_by(&mut cut.network);
            move_by(&mut cut.headers);
        }
        self
    }

    /// What the switch is to do for a receiver with these abilities.
    pub fn work(&self, receiver: Abilities) -> Work {
        match &self.cut {
            None if receiver.checksum => Work::Nothing,
            None => Work::Checksum,
            Some(cut) if receiver.take(cut) => Work::Nothing,
            Some(_) => Work::Cut { checksums: !receiver.checksum },
        }
    }

    /// What a receiver is asked for that takes the frame as it is.
    pub fn asked(&self) -> Asked {
        let cut = self.cut.map(|cut| (cut.gso_type(), cut.size, cut.headers));
        let (gso_type, gso_size, header_len) = cut.unwrap_or_default();
        Asked { gso_type, gso_size, header_len, ..self.asked_of_segments() }
    }

    /// What a receiver is asked for of each segment whose checksum is left to it.
    pub fn asked_of_segments(&self) -> Asked {
        Asked {
            needs_checksum: true,
            checksum_start: self.checksum_start,
            checksum_offset: self.checksum_offset,
            ..Asked::default()
        }
    }

    /// Completes the checksum in `head`, behind which there are bytes with the sum `rest`.
    pub fn complete(&self, head: &mut [u8], rest: Sum) {
        let start = usize::from(self.checksum_start);
        let Some(summed) = head.get(start..) else { return };
        let sum = Sum::ZERO.add_bytes(summed);
        let sum = if summed.len().is_multiple_of(2) { sum.add_even(rest) } else { sum.add_odd(rest) };
        put_checksum(head, start + usize::from(self.checksum_offset), sum);
    }
}

impl Cut {
    /// None if there is no such segmentation of this frame; none inside if the frame is one segment already.
    fn judge(
        asked: &Asked,
        bytes: &[u8],
        len: u32,
        head: &Head,
        transport: Protocol,
        sender: Abilities,
    ) -> Option<Option<Self>> {
        let network = u16::from(head.link.len);
        // The lengths are written anew in each segment: they must mean the whole frame. Behind extension headers the addresses of the
        // pseudo-header may be others (RFC 8200 §8.1).
        let (version, end) = match head.network {
            Network::Ipv4(ip) => (Version::V4, u32::from(ip.total_len)),
            Network::Ipv6(ip) if ip.extensions == 0 => (Version::V6, 40 + u32::from(ip.payload_len)),
            _ => return None,
        };
        let start = usize::from(asked.checksum_start);
        let rest = len.checked_sub(start as u32)?;
        let headers = start
            + match transport {
                Protocol::Tcp => usize::from(bytes.get(start + 12)? >> 4) * 4,
                // Its length is written anew, too.
                Protocol::Udp if bytes.get(start + 4..start + 6)? == (rest as u16).to_be_bytes() => 8,
                Protocol::Udp => return None,
            };
        let cut = Self {
            version,
            transport,
            ecn: asked.gso_type & gso::ECN != 0,
            network,
            headers: headers as u16,
            size: asked.gso_size,
        };
        let fits = asked.gso_type == cut.gso_type()
            && !(cut.ecn && transport == Protocol::Udp)
            && sender.take(&cut)
            && cut.size > 0
            && end == len - u32::from(network)
            && headers <= bytes.len()
            && cut.count(len) <= MAX_SEGMENTS;
        fits.then(|| (cut.count(len) > 1).then_some(cut))
    }

    /// How many segments a frame of `len` bytes has.
    fn count(&self, len: u32) -> u32 {
        len.saturating_sub(self.headers.into()).div_ceil(self.size.max(1).into())
    }

    fn gso_type(&self) -> u8 {
        let kind = match (self.transport, self.version) {
            (Protocol::Tcp, Version::V4) => gso::TCPV4,
            (Protocol::Tcp, Version::V6) => gso::TCPV6,
            (Protocol::Udp, _) => gso::UDP_L4,
        };
        kind | if self.ecn { gso::ECN } else { 0 }
    }
}

/// What an IP packet carries.
fn protocol(network: &Network) -> u8 {
    match network {
        Network::Ipv4(ip) => ip.protocol,
        Network::Ipv6(ip) => ip.protocol,
        // IPv6-NoNxt (RFC 8200 §4.7): nothing.
        _ => 59,
    }
}

fn is_fragment(network: &Network) -> bool {
    match network {
        Network::Ipv4(ip) => ip.fragment.is_some(),
        Network::Ipv6(ip) => ip.fragment.is_some(),
        _ => true,
    }
}

/// Writes the checksum of what has this `sum` to `at`. UDP has no checksum if it says 0, so that is written as the other zero (RFC 768);
/// to all others the two are the same.
fn put_checksum(head: &mut [u8], at: usize, sum: Sum) {
    let checksum = match sum.checksum() {
        [0, 0] => [0xff, 0xff],
        other => other,
    };
    if let Some(field) = head.get_mut(at..at + 2) {
        field.copy_from_slice(&checksum);
    }
}
