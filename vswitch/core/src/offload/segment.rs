//! The segments of a large frame: their lengths, and each one's headers (RFC 791, RFC 8200, RFC 9293, RFC 768).

use super::{Cut, Offload, Protocol, Version, put_checksum};
use checksum::Sum;
use std::mem;

/// TCP's control bits that only the last segment has, and the one that only the first has (RFC 3168 §6.1.2: CWR).
const FIN_AND_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// Where IPv4 has its total length, its identification and its checksum, and IPv6 its payload length.
const IPV4_LENGTH: usize = 2;
const IPV4_ID: usize = 4;
const IPV4_CHECKSUM: usize = 10;
const IPV6_LENGTH: usize = 4;

/// Where TCP has its sequence number and its control bits, and UDP its length.
const TCP_SEQUENCE: usize = 4;
const TCP_CONTROL: usize = 13;
const UDP_LENGTH: usize = 4;

/// Protocol numbers.
const TCP: u16 = 6;
const UDP: u16 = 17;

/// One segment of a large frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Which: 0 is the first.
    pub number: u16,
    /// Bytes of its payload.
    pub len: u16,
    /// Whether it is the last.
    pub is_last: bool,
}

impl Offload {
    /// Bytes of the headers that each segment has; all of a frame that is not to be cut.
    pub fn header_len(&self, head: usize) -> usize {
        self.cut.map_or(head, |cut| usize::from(cut.headers))
    }

    /// Segment `number` of a frame of `len` bytes.
    pub fn segment(&self, len: u32, number: u16) -> Segment {
        let (headers, size) =
            self.cut.map_or((0, u32::MAX), |cut| (u32::from(cut.headers), u32::from(cut.size)));
        let left = len.saturating_sub(headers).saturating_sub(u32::from(number).saturating_mul(size));
        Segment { number, len: left.min(size) as u16, is_last: left <= size }
    }

    /// How many segments a frame of `len` bytes has; 1 if it is not to be cut.
    pub fn segment_count(&self, len: u32) -> u16 {
        // No more than MAX_SEGMENTS.
        self.cut.map_or(1, |cut| cut.count(len) as u16)
    }

    /// The lengths of the frames that they are.
    pub fn segment_lens(&self, len: u32) -> impl Iterator<Item = u32> + Clone + use<> {
        let (headers, offload) = (self.cut.map_or(0, |cut| u32::from(cut.headers)), *self);
        (0..self.segment_count(len)).map(move |number| headers + u32::from(offload.segment(len, number).len))
    }

    /// What the headers of all segments share, summed, and what differs, taken out of `headers`, which are the large frame's. None if it is
    /// not to be cut.
    pub fn train(&self, headers: &mut [u8]) -> Option<Train> {
        let cut = self.cut?;
        let (network, transport) = (usize::from(cut.network), usize::from(self.checksum_start));
        let headers = headers.get_mut(..usize::from(cut.headers))?;
        let mut train = Train {
            cut,
            transport: self.checksum_start,
            checksum: self.checksum_start + self.checksum_offset,
            id: 0,
            sequence: 0,
            control: 0,
            network_sum: Sum::ZERO,
            pseudo_header: Sum::ZERO,
            transport_sum: Sum::ZERO,
        };
        let addresses = match cut.version {
            Version::V4 => {
                train.id = u16::from_be_bytes(take(headers, network + IPV4_ID)?);
                take::<2>(headers, network + IPV4_LENGTH)?;
                take::<2>(headers, network + IPV4_CHECKSUM)?;
                train.network_sum = Sum::ZERO.add_bytes(headers.get(network..transport)?);
                headers.get(network + 12..network + 20)?
            }
            Version::V6 => headers.get(network + 8..network + 40)?,
        };
        let addresses = Sum::ZERO.add_bytes(addresses);
        let protocol = match cut.transport {
            Protocol::Tcp => {
                train.sequence = u32::from_be_bytes(take(headers, transport + TCP_SEQUENCE)?);
                [train.control] = take(headers, transport + TCP_CONTROL)?;
                TCP
            }
            Protocol::Udp => {
                take::<2>(headers, transport + UDP_LENGTH)?;
                UDP
            }
        };
        take::<2>(headers, train.checksum.into())?;
        train.pseudo_header = addresses.add_word(protocol);
        train.transport_sum = Sum::ZERO.add_bytes(headers.get(transport..)?);
        Some(train)
    }
}

/// The headers of a large frame's segments.
#[derive(Debug, Clone, Copy)]
pub struct Train {
    cut: Cut,
    /// Where the transport header starts, and where its checksum is.
    transport: u16,
    checksum: u16,
    /// What the large frame has: IPv4's identification, TCP's sequence number and control bits.
    id: u16,
    sequence: u32,
    control: u8,
    /// The sums of what is the same in all: of IPv4's header; of the pseudo header; and of the transport header.
    network_sum: Sum,
    pseudo_header: Sum,
    transport_sum: Sum,
}

impl Train {
    /// Makes `headers`, from which [`Offload::train`] took what differs, or which are another segment's, those of this `segment`. Its checksum
    /// is completed with the sum of its payload, or without one left to the receiver.
    pub fn make(&self, headers: &mut [u8], segment: &Segment, payload: Option<Sum>) {
        let cut = &self.cut;
        let (network, transport) = (usize::from(cut.network), usize::from(self.transport));
        let behind = |at: usize| (usize::from(cut.headers) - at) as u16 + segment.len;
        match cut.version {
            Version::V4 => {
                let (total, id) = (behind(network), self.id.wrapping_add(segment.number));
                let sum = self.network_sum.add_word(total).add_word(id);
                put(headers, network + IPV4_LENGTH, &total.to_be_bytes());
                put(headers, network + IPV4_ID, &id.to_be_bytes());
                put(headers, network + IPV4_CHECKSUM, &sum.checksum());
            }
            Version::V6 => put(headers, network + IPV6_LENGTH, &behind(network + 40).to_be_bytes()),
        }
        let len = behind(transport);
        let pseudo_header = self.pseudo_header.add_word(len);
        let mut sum = self.transport_sum;
        match cut.transport {
            Protocol::Tcp => {
                let before = u32::from(segment.number) * u32::from(cut.size);
                let sequence = self.sequence.wrapping_add(before);
                let control = self.control
                    & !(if segment.is_last { 0 } else { FIN_AND_PSH }
                        | if segment.number > 0 { CWR } else { 0 });
                sum =
                    sum.add_word((sequence >> 16) as u16).add_word(sequence as u16).add_word(control.into());
                put(headers, transport + TCP_SEQUENCE, &sequence.to_be_bytes());
                put(headers, transport + TCP_CONTROL, &[control]);
            }
            Protocol::Udp => {
                sum = sum.add_word(len);
                put(headers, transport + UDP_LENGTH, &len.to_be_bytes());
            }
        }
        match payload {
            None => put(headers, self.checksum.into(), &pseudo_header.fold().to_ne_bytes()),
            Some(payload) => {
                put_checksum(headers, self.checksum.into(), sum.add_even(pseudo_header).add_even(payload));
            }
        }
    }
}

/// Takes `N` bytes out; zeros stay. None if they do not lie inside.
fn take<const N: usize>(headers: &mut [u8], at: usize) -> Option<[u8; N]> {
    Some(mem::replace(headers.get_mut(at..)?.first_chunk_mut()?, [0; N]))
}

/// Writes these bytes. The headers were found to be whole.
fn put<const N: usize>(headers: &mut [u8], at: usize, bytes: &[u8; N]) {
    if let Some(field) = headers.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = *bytes;
    }
}
