//! The header before each frame on a ring (virtio 1.2 §5.1.6: struct virtio_net_hdr, with `num_buffers`).

/// Bytes of the header. VERSION_1 is required of every driver, so `num_buffers` is always there.
pub const LEN: usize = 12;

/// Bytes of the header without `num_buffers`, as Linux puts it before the frames of a tap or a packet socket (IFF_VNET_HDR,
/// PACKET_VNET_HDR); little endian here, as everything this crate is built for.
pub const SHORT_LEN: usize = 10;

/// `flags`: the checksum is to be completed from `csum_start` (VIRTIO_NET_HDR_F_NEEDS_CSUM).
pub const F_NEEDS_CSUM: u8 = 1;

/// The header as its fields; on the ring it is little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetHeader {
    /// `F_…` bits.
    pub flags: u8,
    /// Segmentation: 0 is none (VIRTIO_NET_HDR_GSO_NONE).
    pub gso_type: u8,
    /// Bytes of all headers that each segment repeats; a hint that is never trusted.
    pub hdr_len: u16,
    /// Payload bytes of a segment.
    pub gso_size: u16,
    /// Where summing starts.
    pub csum_start: u16,
    /// Where the sum goes, from `csum_start`.
    pub csum_offset: u16,
    /// How many descriptor chains hold the frame (receive only).
    pub num_buffers: u16,
}

impl NetHeader {
    /// A frame without offloads that lies in `num_buffers` chains.
    pub const fn plain(num_buffers: u16) -> Self {
        Self { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0, num_buffers }
    }

    /// As it stands on the ring.
    pub const fn to_bytes(self) -> [u8; LEN] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        let [n0, n1] = self.num_buffers.to_le_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1, n0, n1]
    }

    /// From the ring. Any twelve bytes are a header; what they mean is judged later.
    pub const fn from_bytes(bytes: [u8; LEN]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, n0, n1] = bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
            num_buffers: u16::from_le_bytes([n0, n1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        assert_eq!(NetHeader::from_bytes(bytes).to_bytes(), bytes);
        assert_eq!(NetHeader::plain(3).to_bytes()[10..], [3, 0]);
    }
}
