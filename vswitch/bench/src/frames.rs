//! The frames that are sent: Ethernet, a VLAN tag if asked, IPv4, UDP, and a stamp at the front of the payload.
//!
//! ```text
//! net header 12 | Ethernet 14 | 802.1Q tag 0 or 4 | IPv4 20 | UDP 8 | stamp 10: number u32, time u48 | tail
//! `---------------- the head: 64 bytes untagged, one cache line, new for each frame -----------------'  fixed
//! ```
//! The UDP checksum (RFC 768) is the check value: it covers the stamp, the flow and the tail. Addresses are those that
//! RFC 2544 appendix C.2.2 sets aside: 198.18.0.0/16 to 198.19.0.0/16, with the port's number plus one in the low 16 bits. MAC
//! addresses are locally administered: 02, the port's number, the station's number behind that port.

use crate::path::{Labels, Path, RECEIVERS, Route, SENDERS};
use ::checksum::Sum;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use vhost_net_backend::net_header;

/// Bytes of the frame check sequence, which never lies on a ring.
const FCS: usize = 4;
/// The longest frame that RFC 2544 counts with its FCS.
const LONGEST_WITH_FCS: usize = 1518;
/// The longest frame that is sent.
pub const LONGEST: usize = 65535;
/// Bytes of the stamp.
const STAMP: usize = 10;
/// The longest head: with a tag.
const MAX_HEAD: usize = net_header::LEN + 14 + TAG + 20 + 8 + STAMP;
/// Bytes of the longest head without its net header: what a sink reads.
pub(crate) const HEAD_SHOWN: usize = MAX_HEAD - net_header::LEN;
const TIME_MASK: u64 = (1 << 48) - 1;
/// Bytes of an 802.1Q tag.
pub(crate) const TAG: usize = 4;
const TPID: [u8; 2] = [0x81, 0x00];
const IPV4: [u8; 2] = [0x08, 0x00];
pub(crate) const ARP: [u8; 2] = [0x08, 0x06];
const UDP: u8 = 17;
pub(crate) const TCP: u8 = 6;
/// The first UDP ports of flows: the dynamic ones (RFC 6335 §6).
const FIRST_UDP_PORT: u16 = 49152;
/// Flows that one destination port takes: as many as there are dynamic ports.
const FLOWS_PER_PORT: u32 = 1 << 14;
/// The most flows, MAC addresses or such.
pub const MOST: u32 = 1 << 20;

/// The size of frames. From 64 to 1518 it counts the four bytes of the FCS, as RFC 2544 §9 does: 64 is 60 bytes on the
/// ring. A larger one is the bytes on the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameSize {
    /// All alike, 64 to 65535.
    Fixed(u16),
    /// Of twelve frames seven of 64, four of 570, one of 1518: the simple mix that backbones were found to carry.
    Imix,
}

/// The mix, spread so that no size comes in runs longer than need be.
const IMIX: [u16; 12] = [64, 570, 64, 64, 570, 64, 1518, 64, 570, 64, 570, 64];

impl FrameSize {
    /// Bytes on the ring, without the net header, of the frames of one round.
    pub fn on_ring(self) -> Vec<usize> {
        match self {
            Self::Fixed(size) => vec![bytes_on_ring(size)],
            Self::Imix => IMIX.iter().map(|size| bytes_on_ring(*size)).collect(),
        }
    }

    /// The longest of them.
    pub fn longest_on_ring(self) -> usize {
        self.on_ring().into_iter().max().unwrap_or(0)
    }

    /// The mean of them.
    pub fn mean_on_ring(self) -> f64 {
        let round = self.on_ring();
        round.iter().sum::<usize>() as f64 / round.len() as f64
    }
}

fn bytes_on_ring(size: u16) -> usize {
    let size = usize::from(size);
    if size <= LONGEST_WITH_FCS { size - FCS } else { size }
}

impl fmt::Display for FrameSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Imix => f.write_str("imix"),
        }
    }
}

impl FromStr for FrameSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "imix" {
            return Ok(Self::Imix);
        }
        let size = text.parse().ok().filter(|size| (64..=LONGEST).contains(&usize::from(*size)));
        size.map(Self::Fixed)
            .ok_or_else(|| format!("`{text}` is no frame size: say 64 to {LONGEST} (bytes), or imix"))
    }
}

/// What is done with what stands behind the heads of frames, which is the same in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Payload {
    /// The generator writes it anew before each frame, so that it comes to the switch from another core's cache. Else it stays where
    /// it was written once, and the switch's core may have it still.
    pub dirty: bool,
    /// The sink reads all of it, so that the next frame is copied over lines that another core has.
    pub read: bool,
}

/// How frames of a stream differ: flow `n` has station `n % macs` at both ends and VLAN `n % vlans`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variety {
    /// Flows: UDP port pairs, 1 to 2²⁰.
    pub flows: u32,
    /// MAC addresses behind each port, 1 to `flows`.
    pub macs: u32,
    /// VLANs, up to `flows` and 4094; 0: frames have no tag. The first is VLAN 1.
    pub vlans: u16,
}

impl Variety {
    /// Different pairs of station and VLAN: so many flows of the first ones meet them all.
    pub fn stations(self) -> u32 {
        let vlans = u32::from(self.vlans.max(1));
        let (mut a, mut b) = (self.macs, vlans);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        (self.macs / a).saturating_mul(vlans).min(self.flows)
    }
}

impl Default for Variety {
    fn default() -> Self {
        Self { flows: 1, macs: 1, vlans: 0 }
    }
}

/// The flow whose turn it is; counted on, since a division for each frame would cost more than the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flow {
    number: u32,
    mac: u32,
    vlan: u16,
}

impl Flow {
    pub(crate) fn nth(number: u32, variety: Variety) -> Self {
        let vlan = number % u32::from(variety.vlans.max(1));
        Self { number, mac: number % variety.macs, vlan: vlan as u16 }
    }

    #[inline(always)]
    pub(crate) fn advance(&mut self, variety: Variety) {
        self.number += 1;
        if self.number >= variety.flows {
            *self = Self::default();
            return;
        }
        self.mac += 1;
        if self.mac == variety.macs {
            self.mac = 0;
        }
        self.vlan += 1;
        if self.vlan >= variety.vlans {
            self.vlan = 0;
        }
    }
}

/// What the front of the payload says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// The frame's number in its stream, from 0 on, wrapping.
    pub number: u32,
    /// The low 48 bits of the TSC when it was made.
    pub time: u64,
}

/// All frames of one length that go from one port to another.
#[derive(Debug, Clone)]
struct Kind {
    /// Bytes on the ring, without net header.
    len: usize,
    template: [u8; MAX_HEAD],
    /// The sum of all that the UDP checksum covers and that stays: pseudo header, length, addresses, tail; folded once, not for each frame.
    sum: u16,
}

/// The frames that one port sends to another.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Its source address.
    source: [u8; 4],
    /// Whether a gateway is on its way: then all headers of a frame are as they are to be where it arrives, or it is none of the stream.
    is_routed: bool,
    variety: Variety,
    tag: usize,
    tail: Box<[u8]>,
    kinds: Vec<Kind>,
    /// The kinds of one round, by place.
    round: Vec<u8>,
}

/// What a received frame turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A frame of the stream, its checksum right.
    Ours(Stamp),
    /// A frame of another port's stream.
    Strayed,
    /// A frame that says it is of a stream and is not as it was sent.
    Corrupt,
    /// ARP of the gateway.
    Arp,
    /// No frame of the generator.
    Foreign,
}

impl Stream {
    /// The frames from port `from` to port `to` as they are sent on a route.
    pub fn sent(from: u16, to: u16, size: FrameSize, variety: Variety, route: Route) -> Self {
        Self::labelled(from, size, variety, (&route.sent(from, to), route))
    }

    /// The same frames as they arrive.
    pub fn arriving(from: u16, to: u16, size: FrameSize, variety: Variety, route: Route) -> Self {
        Self::labelled(from, size, variety, (&route.arriving(from, to), route))
    }

    fn labelled(from: u16, size: FrameSize, variety: Variety, (labels, route): (&Labels, Route)) -> Self {
        let tag = if variety.vlans > 0 { TAG } else { 0 };
        let lens = size.on_ring();
        // A tail that differs from port to port: bytes of one stream in another's frame are found.
        let tail: Box<[u8]> = (0..size.longest_on_ring()).map(|at| pattern(at, from)).collect();
        let mut kinds: Vec<Kind> = Vec::new();
        let round = lens.into_iter().map(|len| {
            let known = kinds.iter().position(|kind| kind.len == len);
            let place = known.unwrap_or_else(|| {
                kinds.push(Kind::new(len, labels, tag, &tail));
                kinds.len() - 1
            });
            place as u8
        });
        let round = round.collect();
        Self {
            source: labels.source,
            is_routed: route.path != Path::Switched,
            variety,
            tag,
            tail,
            kinds,
            round,
        }
    }

    pub(crate) fn variety(&self) -> Variety {
        self.variety
    }

    /// Bytes of a head, its net header counted.
    pub(crate) fn head_len(&self) -> usize {
        MAX_HEAD - TAG + self.tag
    }

    /// Whether frames have a tag.
    pub(crate) fn is_tagged(&self) -> bool {
        self.tag > 0
    }

    /// Frames until sizes come again.
    pub(crate) fn round(&self) -> usize {
        self.round.len()
    }

    /// The kind of frame at `place` of the round.
    #[inline(always)]
    pub(crate) fn kind(&self, place: usize) -> u8 {
        self.round[place]
    }

    /// The head of a frame of `kind`, its net header counted: all of it but what [`Self::stamp`] writes.
    pub(crate) fn head(&self, kind: u8) -> &[u8] {
        &self.kinds[usize::from(kind)].template[..self.head_len()]
    }

    /// What stands behind the heads of all frames, however much of it they show.
    pub(crate) fn tail(&self) -> &[u8] {
        &self.tail[self.head_len() - net_header::LEN..]
    }

    /// Writes what is new in a frame of `kind` that was laid out, behind a tag of `TAG` bytes; returns where it ends.
    #[inline(always)]
    pub(crate) fn stamp<const TAG: usize>(
        &self,
        kind: u8,
        flow: Flow,
        stamp: Stamp,
        mut put: impl FnMut(usize, &[u8]),
    ) -> usize {
        let kind = &self.kinds[usize::from(kind)];
        let ports = flow_ports(flow.number);
        if self.variety.macs > 1 {
            // With the last byte of the port's number each is one store.
            let [_, high, middle, low] = flow.mac.to_be_bytes();
            put(14, &[kind.template[14], high, middle, low]);
            put(20, &[kind.template[20], high, middle, low]);
        }
        if self.variety.flows > 1 {
            if TAG > 0 {
                put(26, &(flow.vlan + 1).to_be_bytes());
            }
            put(46 + TAG, &ports);
        }
        let time = stamp.time & TIME_MASK;
        let words = u64::from(u32::from_ne_bytes(ports)) + in_memory(stamp.number) + in_memory(time as u32);
        let check =
            checksum(Sum::ZERO.add_words(u64::from(kind.sum) + words + in_memory((time >> 32) as u32)));
        let first = u64::from(u16::from_le_bytes(check)) | u64::from(stamp.number) << 16 | time << 48;
        put(52 + TAG, &first.to_le_bytes());
        put(60 + TAG, &((time >> 16) as u32).to_le_bytes());
        net_header::LEN + kind.len
    }

    /// Reads the first bytes of a frame of `len` bytes (both without net header) and checks its stream, its length and what its checksum covers,
    /// behind a gateway all headers; the tail is taken for what it should be.
    #[inline(always)]
    pub(crate) fn read<const TAG: usize>(&self, head: &[u8; HEAD_SHOWN], len: usize) -> Seen {
        let t = TAG;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if head[12 + t..14 + t] != IPV4 || head[30 + t..32 + t] != RECEIVERS {
            return self.without_stream(head);
        }
        if !self.is_routed && head[26 + t..30 + t] != self.source {
            return if head[26 + t..28 + t] == SENDERS { Seen::Strayed } else { Seen::Foreign };
        }
        let Some(kind) = self.kinds.iter().find(|kind| kind.len == len) else { return Seen::Corrupt };
        if self.is_routed {
            let headers = &kind.template[net_header::LEN..];
            if head[30 + t..34 + t] != headers[30 + t..34 + t] {
                return Seen::Strayed;
            }
            if head[..34 + t] != headers[..34 + t] {
                return Seen::Corrupt;
            }
        }
        let last = u32::from(u16::from_le_bytes([head[50 + t], head[51 + t]]));
        let (number, early) = (word(42 + t), word(46 + t));
        // Ports, the checksum (behind the length, which the kind knows) and the stamp.
        let check = u32::from(u16::from_le_bytes([head[40 + t], head[41 + t]]));
        let words: u64 = [word(34 + t), check, number, early, last].map(in_memory).iter().sum();
        if Sum::ZERO.add_words(u64::from(kind.sum) + words).fold() != 0xffff {
            return Seen::Corrupt;
        }
        Seen::Ours(Stamp { number, time: u64::from(early) | u64::from(last) << 32 })
    }

    /// What a frame is whose Ethernet header is this and which is of no stream.
    #[cold]
    pub(crate) fn without_stream(&self, ethernet: &[u8]) -> Seen {
        let gateways = &self.kinds[0].template[net_header::LEN..][6..12];
        if self.is_routed && ethernet[6..12] == *gateways && ethernet[12..14] == ARP {
            Seen::Arp
        } else {
            Seen::Foreign
        }
    }

    /// Whether `frame` (without net header) is, to the last byte, what was sent with `stamp`.
    pub(crate) fn is_exactly(&self, frame: &[u8], stamp: Stamp) -> bool {
        let t = self.tag;
        let Some(ports) = frame.get(34 + t..38 + t).and_then(|ports| ports.try_into().ok()) else {
            return false;
        };
        let Some(place) =
            self.round.iter().position(|kind| self.kinds[usize::from(*kind)].len == frame.len())
        else {
            return false;
        };
        let number = flow_number(ports);
        let mut sent = vec![0; net_header::LEN + frame.len()];
        self.whole(self.round[place], Flow::nth(number, self.variety), stamp, &mut sent);
        number < self.variety.flows && frame == &sent[net_header::LEN..]
    }

    /// A whole frame, with its net header.
    fn whole(&self, kind: u8, flow: Flow, stamp: Stamp, bytes: &mut [u8]) {
        let (head, tail) = bytes.split_at_mut(self.head_len());
        head.copy_from_slice(self.head(kind));
        tail.copy_from_slice(&self.tail()[..tail.len()]);
        let put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        if self.tag > 0 {
            self.stamp::<TAG>(kind, flow, stamp, put);
        } else {
            self.stamp::<0>(kind, flow, stamp, put);
        }
    }
}

impl Kind {
    fn new(len: usize, labels: &Labels, tag: usize, tail: &[u8]) -> Self {
        let t = tag;
        let mut bytes = [0; MAX_HEAD];
        put_stations(&mut bytes[net_header::LEN..], labels);
        bytes[24..26].copy_from_slice(if t > 0 { &TPID } else { &IPV4 });
        bytes[24 + t..26 + t].copy_from_slice(&IPV4);
        let (ip_len, udp_len) = ((len - 14 - t) as u16, (len - 34 - t) as u16);
        let ip = &mut bytes[26 + t..46 + t];
        put_ipv4(ip, ip_len, UDP, 0, labels);
        let addresses = Sum::ZERO.add_bytes(&ip[12..20]);
        // Those of flow 0: where there is no other, they stay.
        if t > 0 {
            bytes[26..28].copy_from_slice(&1u16.to_be_bytes());
        }
        bytes[46 + t..50 + t].copy_from_slice(&flow_ports(0));
        bytes[50 + t..52 + t].copy_from_slice(&udp_len.to_be_bytes());
        // The UDP length counts twice: in the pseudo header and in the header (RFC 768).
        let sum = addresses.add_word(udp_len).add_word(udp_len).add_word(u16::from(UDP));
        let tail = &tail[MAX_HEAD - TAG + t - net_header::LEN..len];
        Self { len, template: bytes, sum: sum.add_bytes(tail).fold() }
    }
}

/// Writes the MAC addresses, and that IPv4 follows.
pub(crate) fn put_stations(ethernet: &mut [u8], labels: &Labels) {
    ethernet[..12].copy_from_slice(labels.macs.as_flattened());
    ethernet[12..14].copy_from_slice(&IPV4);
}

/// Writes an IPv4 header.
pub(crate) fn put_ipv4(ip: &mut [u8], len: u16, protocol: u8, id: u16, labels: &Labels) {
    (ip[0], ip[8], ip[9]) = (0x45, labels.ttl, protocol);
    ip[2..4].copy_from_slice(&len.to_be_bytes());
    ip[4..6].copy_from_slice(&id.to_be_bytes());
    // Not to be fragmented (RFC 791 §3.1).
    ip[6] = 0x40;
    ip[12..16].copy_from_slice(&labels.source);
    ip[16..20].copy_from_slice(&labels.destination);
    let sum = Sum::ZERO.add_bytes(ip);
    ip[10..12].copy_from_slice(&checksum(sum));
}

/// The byte at `at` of frames of port `from`.
pub(crate) fn pattern(at: usize, from: u16) -> u8 {
    (at as u8).wrapping_mul(29) ^ (at >> 8) as u8 ^ (from as u8).wrapping_mul(71) ^ (from >> 8) as u8
}

/// Source and destination port of a flow.
#[inline(always)]
pub(crate) fn flow_ports(flow: u32) -> [u8; 4] {
    let [s0, s1] = (FIRST_UDP_PORT + (flow % FLOWS_PER_PORT) as u16).to_be_bytes();
    let [d0, d1] = (FIRST_UDP_PORT + (flow / FLOWS_PER_PORT) as u16).to_be_bytes();
    [s0, s1, d0, d1]
}

fn flow_number(ports: [u8; 4]) -> u32 {
    let offset = |port: [u8; 2]| u32::from(u16::from_be_bytes(port).wrapping_sub(FIRST_UDP_PORT));
    let [s0, s1, d0, d1] = ports;
    offset([d0, d1]).saturating_mul(FLOWS_PER_PORT).saturating_add(offset([s0, s1]))
}

/// A word of a frame that stands there in little-endian order, as it is added up.
#[inline(always)]
fn in_memory(word: u32) -> u64 {
    u64::from(word.to_le())
}

/// The checksum of what has this sum, as it stands in a frame; never 0, which in UDP says that there is none (RFC 768).
#[inline(always)]
pub(crate) fn checksum(sum: Sum) -> [u8; 2] {
    match sum.checksum() {
        [0, 0] => [0xff, 0xff],
        checksum => checksum,
    }
}

#[cfg(test)]
mod tests;
