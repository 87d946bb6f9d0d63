//! The segments of a large frame: their lengths, and each one's headers (RFC 791, RFC 8200, RFC 9293, RFC 768).

use super::{Cut, Offload, Protocol, Version, put_checksum};
use checksum::Sum;

/// TCP's control bits that only the last segment has, and the one that only the first has (RFC 3168 §6.1.2: CWR).
const FIN_AND_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

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

    /// Makes `headers`, which are the large frame's, those of one `segment`. Its checksum is completed with the sum of its payload, or without
    /// one left to the receiver.
    pub fn make_segment(&self, headers: &mut [u8], segment: &Segment, payload: Option<Sum>) {
        if let Some(cut) = &self.cut {
            // The headers were judged to be whole.
            let _ = cut.make(headers, segment, payload, usize::from(self.checksum_offset));
        }
    }
}

impl Cut {
    fn make(&self, headers: &mut [u8], segment: &Segment, payload: Option<Sum>, field: usize) -> Option<()> {
        let headers = headers.get_mut(..usize::from(self.headers))?;
        let network = headers.get_mut(usize::from(self.network)..)?;
        let (ip, transport) = match self.version {
            Version::V4 => {
                let len = usize::from(network.first()? & 0xf) * 4;
                let total = (network.len() + usize::from(segment.len)) as u16;
                let ip = network.get_mut(..len)?;
                ip.get_mut(2..4)?.copy_from_slice(&total.to_be_bytes());
                let id = ip.get_mut(4..)?.first_chunk_mut::<2>()?;
                *id = u16::from_be_bytes(*id).wrapping_add(segment.number).to_be_bytes();
                ip.get_mut(10..12)?.fill(0);
                let sum = Sum::ZERO.add_bytes(ip).checksum();
                ip.get_mut(10..12)?.copy_from_slice(&sum);
                network.split_at_mut(len)
            }
            Version::V6 => {
                let total = (network.len() - 40 + usize::from(segment.len)) as u16;
                network.get_mut(4..6)?.copy_from_slice(&total.to_be_bytes());
                network.split_at_mut(40)
            }
        };
        let protocol = match self.transport {
            Protocol::Tcp => {
                let sequence = transport.get_mut(TCP_SEQUENCE..)?.first_chunk_mut::<4>()?;
                let before = u32::from(segment.number) * u32::from(self.size);
                *sequence = u32::from_be_bytes(*sequence).wrapping_add(before).to_be_bytes();
                let control = transport.get_mut(TCP_CONTROL)?;
                *control &= !(if segment.is_last { 0 } else { FIN_AND_PSH }
                    | if segment.number > 0 { CWR } else { 0 });
                TCP
            }
            Protocol::Udp => {
                let len = 8 + segment.len;
                transport.get_mut(UDP_LENGTH..UDP_LENGTH + 2)?.copy_from_slice(&len.to_be_bytes());
                UDP
            }
        };
        let addresses = match self.version {
            Version::V4 => ip.get(12..20)?,
            Version::V6 => ip.get(8..40)?,
        };
        let len = (transport.len() + usize::from(segment.len)) as u16;
        let pseudo_header = Sum::ZERO.add_bytes(addresses).add_word(protocol).add_word(len);
        let checksum = transport.get_mut(field..field + 2)?;
        match payload {
            None => checksum.copy_from_slice(&pseudo_header.fold().to_ne_bytes()),
            Some(payload) => {
                checksum.fill(0);
                let sum = pseudo_header.add_bytes(transport).add_even(payload);
                put_checksum(transport, field, sum);
            }
        }
        Some(())
    }
}
