//! What a TCP segment says to who tracks its connection (RFC 9293 §3.1), read from a frame's head.

use crate::head::TcpFlags;

/// The largest window scale (RFC 7323 §2.3).
pub(super) const MAX_SCALE: u8 = 14;

/// One segment; also one that is to be cut up by the receiver's offload: its sequence numbers are those of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Control bits.
    pub flags: TcpFlags,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; means something only with ACK.
    pub ack: u32,
    /// Window as it is written.
    pub window: u16,
    /// Bytes of data.
    pub len: u32,
    /// Shift of the Window Scale option, if this is a SYN that carries it (RFC 7323 §2.2).
    pub scale: Option<u8>,
}

/// Control bits that say what kind of segment it is. The others go with any kind.
const KIND: u8 = 0x17;
const URG: u8 = 0x20;

impl Segment {
    /// The segment whose header starts at `at`, in `bytes` of a frame whose IP datagram ends at `end`; none if the header is
    /// not there, or longer than the datagram.
    #[inline]
    pub(super) fn read(bytes: &[u8], at: usize, end: usize) -> Option<Self> {
        let &[_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, _, _, _, _] =
            bytes.get(at..)?.first_chunk()?;
        let data = at + usize::from(offset >> 4) * 4;
        let flags = TcpFlags::from_bits(flags);
        Some(Self {
            flags,
            seq: u32::from_be_bytes([s0, s1, s2, s3]),
            ack: u32::from_be_bytes([a0, a1, a2, a3]),
            window: u16::from_be_bytes([w0, w1]),
            len: u32::try_from(end.checked_sub(data)?).ok()?,
            scale: if flags.contains(TcpFlags::SYN) { scale(bytes, at + 20, data) } else { None },
        })
    }

    /// Whether any TCP sends such control bits: all else is a scan, or an attempt to get past a filter.
    pub const fn is_sound(&self) -> bool {
        let bits = self.flags.bits();
        let kind = bits & KIND;
        let (fin, syn, rst, ack) =
            (TcpFlags::FIN.bits(), TcpFlags::SYN.bits(), TcpFlags::RST.bits(), TcpFlags::ACK.bits());
        if kind == ack || kind == fin | ack || kind == syn {
            return true;
        }
        (kind == syn | ack || kind == rst || kind == rst | ack) && bits & URG == 0
    }

    /// Whether it only acknowledges or carries data.
    #[inline]
    pub(super) const fn is_plain(&self) -> bool {
        self.flags.bits() & KIND == TcpFlags::ACK.bits()
    }

    pub(super) const fn has(&self, flags: TcpFlags) -> bool {
        self.flags.contains(flags)
    }

    /// Whether it asks for a connection: a SYN that answers none.
    pub(crate) const fn is_syn(&self) -> bool {
        self.has(TcpFlags::SYN) && !self.has(TcpFlags::ACK)
    }

    /// The sequence number behind its data.
    #[inline]
    pub(super) const fn data_end(&self) -> u32 {
        self.seq.wrapping_add(self.len)
    }

    /// The sequence number behind all of it: SYN and FIN have one each (RFC 9293 §3.4).
    pub(super) const fn end(&self) -> u32 {
        let syn = self.has(TcpFlags::SYN) as u32;
        let fin = self.has(TcpFlags::FIN) as u32;
        self.data_end().wrapping_add(syn).wrapping_add(fin)
    }
}

/// The Window Scale option among the options from `at` to `end`. Of options that were not copied it is taken for the largest: then
/// nothing is refused that a receiver would take.
fn scale(bytes: &[u8], mut at: usize, end: usize) -> Option<u8> {
    while at < end {
        match bytes.get(at..) {
            Some([0, ..]) => return None,
            Some([1, ..]) => at += 1,
            None | Some([] | [_]) => return Some(MAX_SCALE),
            Some([3, 3, shift, ..]) if at + 3 <= end => return Some((*shift).min(MAX_SCALE)),
            Some([_, 0 | 1, ..]) => return None,
            Some([_, len, ..]) => at += usize::from(*len),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_options(options: &[u8]) -> Option<u8> {
        let mut bytes = vec![0; 20];
        bytes.extend(options);
        scale(&bytes, 20, bytes.len())
    }

    #[test]
    fn the_window_scale_is_found_among_other_options() {
        assert_eq!(with_options(&[]), None);
        assert_eq!(with_options(&[2, 4, 5, 180, 1, 3, 3, 7]), Some(7));
        assert_eq!(with_options(&[1, 1, 1, 3, 3, 200, 0, 0]), Some(14), "RFC 7323 §2.3: over 14 is 14");
        assert_eq!(with_options(&[0, 3, 3, 7]), None, "behind the end of the list");
        assert_eq!(with_options(&[2, 0, 3, 3]), None, "a length that goes nowhere");
        assert_eq!(with_options(&[2, 60, 3, 3]), None, "a length past the end");
        let cut = [0; 21];
        assert_eq!(scale(&cut[..20], 20, 24), Some(14), "not copied");
    }

    #[test]
    fn of_64_flag_sets_those_that_tcp_sends_are_sound() {
        let sound: Vec<u8> = (0..64u8)
            .filter(|bits| {
                let flags = TcpFlags::from_bits(*bits);
                Segment { flags, seq: 0, ack: 0, window: 0, len: 0, scale: None }.is_sound()
            })
            .collect();
        // SYN, SYN-ACK, RST, RST-ACK, ACK, FIN-ACK; PSH with any, URG where there may be data.
        let expected = [2, 4, 10, 12, 16, 17, 18, 20, 24, 25, 26, 28, 34, 42, 48, 49, 56, 57];
        assert_eq!(sound, expected);
    }
}
