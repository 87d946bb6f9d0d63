//! Frames whose sender leaves their checksum, or cutting them, to the switch: TCP as guests send it.
//!
//! ```text
//! net header 12 | Ethernet 14 | IPv4 20 | TCP 20 | options 12: timestamps | tail
//! ```
//! Each part that arrives, the whole frame or one of its segments, has the frame's number in its acknowledgment number and the frame's time in
//! its timestamps; its sequence number says which part it is. Nothing in a frame that is sent covers its tail: a checksum that is right where it
//! arrives was made by the switch.

use crate::{
    frames::{self, Seen, Stamp, checksum},
    offload::Offload,
    path::{Labels, RECEIVERS, Route, SENDERS},
};
use ::checksum::Sum;
use vhost_net_backend::{
    driver::TransmitBuffer,
    net_header::{self, F_NEEDS_CSUM, NetHeader},
};

/// Where IPv4 and TCP begin, and the tail.
const IP: usize = 14;
const TCP: usize = 34;
/// Bytes of all headers.
pub(crate) const HEADERS: usize = 66;
/// What a segment carries where the MTU is 1500 and TCP has timestamps.
const SEGMENT: usize = 1448;
/// `gso_type` of TCP over IPv4 (virtio 1.2 §5.1.6).
const GSO_TCPV4: u8 = 1;
/// TCP's control bits (RFC 9293 §3.1): all parts have ACK, the last one has PSH.
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// A frame or one of its segments, as it is to arrive.
#[derive(Debug, Clone)]
struct Part {
    /// Its headers, of which numbers, time and checksum differ from frame to frame.
    headers: [u8; HEADERS],
    /// The sum of all that its checksum covers and that stays.
    sum: Sum,
    /// Its tail is so much of the frame's.
    from: usize,
    to: usize,
}

/// The frames that one port sends to another, all alike.
#[derive(Debug, Clone)]
pub(crate) struct Large {
    /// The source address of what arrives.
    source: [u8; 4],
    /// Bytes on the ring, without net header.
    len: usize,
    /// What each frame begins with, its net header counted.
    head: [u8; net_header::LEN + HEADERS],
    tail: Box<[u8]>,
    /// Bytes of each part's tail but the last one's.
    segment: usize,
    parts: Vec<Part>,
}

/// Which part of a frame has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) part: usize,
    pub(crate) is_last: bool,
}

impl Large {
    /// Frames of `len` bytes from port `from` to port `to` on a route. None if nothing is left to the switch.
    pub(crate) fn new(from: u16, to: u16, len: usize, offload: Offload, route: Route) -> Option<Self> {
        let arriving = route.arriving(from, to);
        let tail: Box<[u8]> = (HEADERS..len).map(|at| frames::pattern(at, from)).collect();
        let segment = match offload {
            Offload::None => return None,
            Offload::Checksum => tail.len().max(1),
            Offload::Segments => SEGMENT,
        };
        let header = NetHeader {
            flags: F_NEEDS_CSUM,
            csum_start: TCP as u16,
            csum_offset: 16,
            ..match offload {
                Offload::Segments => NetHeader {
                    gso_type: GSO_TCPV4,
                    gso_size: SEGMENT as u16,
                    hdr_len: HEADERS as u16,
                    ..NetHeader::plain(0)
                },
                _ => NetHeader::plain(0),
            }
        };
        let mut whole = headers(&route.sent(from, to), 0, tail.len(), true);
        // The sum of the pseudo header, whose length is the whole frame's (virtio 1.2 §5.1.6.2).
        let partial = pseudo_header(&whole).fold();
        whole[TCP + 16..TCP + 18].copy_from_slice(&partial.to_ne_bytes());
        let mut head = [0; net_header::LEN + HEADERS];
        head[..net_header::LEN].copy_from_slice(&header.to_bytes());
        head[net_header::LEN..].copy_from_slice(&whole);
        let count = tail.len().div_ceil(segment).max(1);
        let part = |number: usize| {
            let (begin, end) = (number * segment, tail.len().min((number + 1) * segment));
            let headers = headers(&arriving, number as u16, end - begin, number + 1 == count);
            let sum = pseudo_header(&headers).add_bytes(&headers[TCP..]).add_bytes(&tail[begin..end]);
            Part { headers, sum, from: begin, to: end }
        };
        let parts = (0..count).map(part).collect();
        Some(Self { source: arriving.source, len, head, tail, segment, parts })
    }

    /// Parts that each frame arrives in, where the switch does what it is left to do.
    pub(crate) fn parts(len: usize, offload: Offload) -> usize {
        match offload {
            Offload::Segments => len.saturating_sub(HEADERS).div_ceil(SEGMENT).max(1),
            Offload::None | Offload::Checksum => 1,
        }
    }

    /// Bytes of a frame on the ring, without net header.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of a head, its net header counted.
    pub(crate) fn head_len(&self) -> usize {
        self.head.len()
    }

    /// Writes all of a frame that stays.
    pub(crate) fn lay_out(&self, buffer: &mut TransmitBuffer<'_>) {
        buffer.write(0, &self.head);
        self.write_tail(buffer);
    }

    pub(crate) fn write_tail(&self, buffer: &mut TransmitBuffer<'_>) {
        buffer.write(self.head.len(), &self.tail);
    }

    /// Writes what is new in a frame that was laid out; returns where it ends.
    #[inline(always)]
    pub(crate) fn stamp(&self, stamp: Stamp, mut put: impl FnMut(usize, &[u8])) -> usize {
        let [numbers, time] = fresh(0, stamp);
        put(net_header::LEN + TCP + 4, &numbers);
        put(net_header::LEN + HEADERS - 8, &time);
        net_header::LEN + self.len
    }

    /// Looks at the headers of a part that came, of `len` bytes, and at its checksum, for which the tail is taken for what it should be.
    #[inline(always)]
    pub(crate) fn read(&self, head: &[u8; HEADERS], len: usize) -> Result<(Stamp, Arrived), Seen> {
        let four = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        let source = four(IP + 12);
        if head[12..14] != [8, 0] || four(IP + 16)[..2] != RECEIVERS {
            return Err(Seen::Foreign);
        }
        if source != self.source {
            return Err(if source[..2] == SENDERS { Seen::Strayed } else { Seen::Foreign });
        }
        let (sequence, number) = (u32::from_be_bytes(four(TCP + 4)), u32::from_be_bytes(four(TCP + 8)));
        let offset = sequence.wrapping_sub(number << 16) as usize;
        let place = offset / self.segment;
        let Some(part) = self.parts.get(place).filter(|part| part.from == offset) else {
            return Err(Seen::Corrupt);
        };
        let time = u64::from(u32::from_be_bytes(four(58))) << 32 | u64::from(u32::from_be_bytes(four(62)));
        let stamp = Stamp { number, time };
        if part.headers_of(stamp) != *head || len != HEADERS + part.to - part.from {
            return Err(Seen::Corrupt);
        }
        Ok((stamp, Arrived { part: place, is_last: place + 1 == self.parts.len() }))
    }

    /// Whether the tail of that part is `bytes`.
    pub(crate) fn is_tail(&self, part: usize, bytes: &[u8]) -> bool {
        self.parts.get(part).is_some_and(|part| &self.tail[part.from..part.to] == bytes)
    }
}

impl Part {
    /// Its headers, in the frame that has this stamp.
    #[inline(always)]
    fn headers_of(&self, stamp: Stamp) -> [u8; HEADERS] {
        let [numbers, time] = fresh(self.from, stamp);
        let [more, rest] = [numbers, time].map(u64::from_ne_bytes);
        let check = checksum(self.sum.add_words(more).add_words(rest));
        let mut headers = self.headers;
        headers[TCP + 4..TCP + 12].copy_from_slice(&numbers);
        headers[TCP + 16..TCP + 18].copy_from_slice(&check);
        headers[HEADERS - 8..].copy_from_slice(&time);
        headers
    }
}

/// What is new in each frame, of a part that begins at `offset` of the tail: sequence and acknowledgment number, and the timestamps.
#[inline(always)]
fn fresh(offset: usize, stamp: Stamp) -> [[u8; 8]; 2] {
    let sequence = (stamp.number << 16).wrapping_add(offset as u32);
    let numbers = u64::from(sequence) << 32 | u64::from(stamp.number);
    [numbers.to_be_bytes(), stamp.time.to_be_bytes()]
}

/// The headers of part `number` of a frame, behind which there are `tail` bytes; numbers, time and checksum are 0.
fn headers(labels: &Labels, number: u16, tail: usize, is_last: bool) -> [u8; HEADERS] {
    let mut bytes = [0; HEADERS];
    frames::put_stations(&mut bytes, labels);
    let ip = &mut bytes[IP..TCP];
    frames::put_ipv4(ip, (HEADERS - IP + tail) as u16, frames::TCP, number, labels);
    let tcp = &mut bytes[TCP..];
    tcp[..4].copy_from_slice(&frames::flow_ports(0));
    (tcp[12], tcp[13]) = (0x80, ACK | if is_last { PSH } else { 0 });
    tcp[14..16].copy_from_slice(&0xffffu16.to_be_bytes());
    // Two NOPs, then timestamps (RFC 7323 §3.2).
    tcp[20..24].copy_from_slice(&[1, 1, 8, 10]);
    bytes
}

/// The sum of TCP's pseudo header (RFC 9293 §3.1).
fn pseudo_header(headers: &[u8; HEADERS]) -> Sum {
    let total = u16::from_be_bytes([headers[IP + 2], headers[IP + 3]]);
    let length = total - (TCP - IP) as u16;
    Sum::ZERO.add_bytes(&headers[IP + 12..TCP]).add_word(u16::from(frames::TCP)).add_word(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    fn large(len: usize, offload: Offload) -> Large {
        Large::new(3, 4, len, offload, Route::default()).expect("something is left to the switch")
    }

    /// A part as it is to arrive.
    fn arriving(large: &Large, part: usize, stamp: Stamp) -> Vec<u8> {
        let part = &large.parts[part];
        [&part.headers_of(stamp), &large.tail[part.from..part.to]].concat()
    }

    fn read(large: &Large, frame: &[u8]) -> Result<(Stamp, Arrived), Seen> {
        large.read(frame.first_chunk().expect("headers"), frame.len())
    }

    proptest! {
        #[test]
        fn every_part_is_valid_to_another_parser_and_together_they_are_the_frame(
            len in 128usize..=65535, number: u32, time: u64, cut: bool,
        ) {
            let offload = if cut { Offload::Segments } else { Offload::Checksum };
            let (large, stamp) = (large(len, offload), Stamp { number, time });
            prop_assert_eq!(large.parts.len(), Large::parts(len, offload));
            let mut carried = 0;
            for place in 0..large.parts.len() {
                let frame = arriving(&large, place, stamp);
                let is_last = place + 1 == large.parts.len();
                prop_assert_eq!(read(&large, &frame), Ok((stamp, Arrived { part: place, is_last })));
                prop_assert!(large.is_tail(place, &frame[HEADERS..]) && !large.is_tail(place, &frame[HEADERS + 1..]));
                let parsed = SlicedPacket::from_ethernet(&frame).expect("a frame");
                let Some(etherparse::NetSlice::Ipv4(ip)) = parsed.net else { panic!("no IPv4") };
                let ip = ip.header();
                prop_assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum());
                let Some(TransportSlice::Tcp(tcp)) = parsed.transport else { panic!("no TCP") };
                let sum = tcp.calc_checksum_ipv4(ip.source(), ip.destination()).expect("short enough");
                prop_assert!(sum == tcp.checksum() || (sum, tcp.checksum()) == (0, 0xffff));
                let first = (number << 16).wrapping_add(carried);
                prop_assert_eq!((tcp.sequence_number(), tcp.psh()), (first, is_last));
                carried += tcp.payload().len() as u32;
            }
            prop_assert_eq!(carried as usize + HEADERS, len);
        }

        #[test]
        fn a_byte_that_differs_is_found(at: prop::sample::Index, change in 1u8.., place in 0usize..3) {
            let large = large(4000, Offload::Segments);
            let mut frame = arriving(&large, place, Stamp { number: 7, time: 12345 });
            let at = at.index(frame.len());
            frame[at] ^= change;
            match read(&large, &frame) {
                Ok((_, part)) => prop_assert!(at >= HEADERS && !large.is_tail(part.part, &frame[HEADERS..])),
                Err(_) => prop_assert!(at < HEADERS),
            }
        }
    }

    #[test]
    fn what_is_sent_asks_for_it_and_has_the_sum_of_the_pseudo_header_for_a_checksum() {
        let large = large(65535, Offload::Segments);
        let header = NetHeader::from_bytes(*large.head.first_chunk().expect("a net header"));
        assert_eq!((header.flags, header.csum_start, header.csum_offset), (F_NEEDS_CSUM, 34, 16));
        assert_eq!((header.gso_type, header.gso_size, header.hdr_len), (GSO_TCPV4, 1448, 66));
        let whole = large.head.last_chunk::<HEADERS>().expect("headers");
        let partial = u16::from_ne_bytes([whole[TCP + 16], whole[TCP + 17]]);
        assert_eq!(partial, pseudo_header(whole).fold());
        assert_eq!(large.parts.len(), 46);
        assert!(Large::new(0, 1, 65535, Offload::None, Route::default()).is_none());
    }
}
