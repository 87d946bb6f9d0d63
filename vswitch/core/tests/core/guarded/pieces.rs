//! Datagrams in pieces, as a sender or an attacker cuts them.

use super::{addresses, link};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    head::ethertype,
};

/// Next Header values.
pub(super) const FRAGMENT: u8 = 44;
pub(super) const OPTIONS: u8 = 60;

/// Who sends pieces of which datagram to whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender {
    pub(super) link: Ethernet,
    pub(super) addresses: Addresses,
    pub(super) protocol: u8,
    pub(super) id: u32,
}

impl Sender {
    /// Of IPv4 from the one station to the other.
    pub(super) fn v4(from: u8, to: u8, protocol: u8) -> Self {
        Self { link: link(from, to), addresses: addresses(from, to), protocol, id: 7 }
    }

    pub(super) fn v6(from: u8, to: u8, protocol: u8) -> Self {
        Self { addresses: Addresses::V6(super::v6(from), super::v6(to)), ..Self::v4(from, to, protocol) }
    }

    /// Both.
    pub(super) fn families(from: u8, to: u8, protocol: u8) -> [Self; 2] {
        [Self::v4(from, to, protocol), Self::v6(from, to, protocol)]
    }

    pub(super) const fn is_v6(&self) -> bool {
        matches!(self.addresses, Addresses::V6(..))
    }

    /// The same of another datagram.
    pub(super) const fn id(self, id: u32) -> Self {
        Self { id, ..self }
    }

    /// The piece at `offset`, in bytes, with this data.
    pub(super) fn piece(&self, offset: u16, more: bool, data: &[u8]) -> Vec<u8> {
        match self.addresses {
            Addresses::V4(src, dst) => {
                let [t0, t1] = (20 + data.len() as u16).to_be_bytes();
                let [i0, i1] = (self.id as u16).to_be_bytes();
                let [f0, f1] = (offset >> 3 | u16::from(more) << 13).to_be_bytes();
                let mut packet = vec![0x45, 0, t0, t1, i0, i1, f0, f1, 64, self.protocol, 0, 0];
                packet.extend(src.octets());
                packet.extend(dst.octets());
                packet.extend(data);
                build::raw(self.link, ethertype::IPV4, &packet)
            }
            Addresses::V6(..) => {
                let mut payload = self.fragment_header(offset, more);
                payload.extend(data);
                self.v6_packet(FRAGMENT, &payload)
            }
        }
    }

    /// A fragment header of IPv6.
    pub(super) fn fragment_header(&self, offset: u16, more: bool) -> Vec<u8> {
        let [o0, o1] = (offset & 0xfff8 | u16::from(more)).to_be_bytes();
        let [a, b, c, d] = self.id.to_be_bytes();
        vec![self.protocol, 0, o0, o1, a, b, c, d]
    }

    /// An IPv6 packet.
    pub(super) fn v6_packet(&self, next: u8, payload: &[u8]) -> Vec<u8> {
        let Addresses::V6(src, dst) = self.addresses else { panic!("of IPv6") };
        let [l0, l1] = (payload.len() as u16).to_be_bytes();
        let mut packet = vec![0x60, 0, 0, 0, l0, l1, next, 64];
        packet.extend(src.octets());
        packet.extend(dst.octets());
        packet.extend(payload);
        build::raw(self.link, ethertype::IPV6, &packet)
    }
}

/// The first `len` bytes of a UDP datagram of `total`, between these ports.
pub(super) fn udp_start(ports: (u16, u16), total: u16, len: usize) -> Vec<u8> {
    let mut data = Vec::new();
    for field in [ports.0, ports.1, total, 0] {
        data.extend(field.to_be_bytes());
    }
    data.resize(len, 0x55);
    data
}

/// The first `len` bytes of a TCP segment between these ports.
pub(super) fn tcp_start(ports: (u16, u16), flags: u8, (seq, ack): (u32, u32), len: usize) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend(ports.0.to_be_bytes());
    data.extend(ports.1.to_be_bytes());
    data.extend(seq.to_be_bytes());
    data.extend(ack.to_be_bytes());
    data.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    data.resize(len, 0x55);
    data
}
