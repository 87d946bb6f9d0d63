//! The frames that are sent: built where they wait, and written many at once.

use rustix::{
    io::Errno,
    net::{SendFlags, send},
};
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
        Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr,
        IpAddress, IpProtocol, IpRepr, NdiscNeighborFlags, NdiscRepr, UdpPacket, UdpRepr,
    },
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
};
use vswitch_core::head::MAX_FRAME_LEN;
use vswitchd::ports::framing;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET: usize = EthernetFrame::<&[u8]>::header_len();

/// With so many bytes that wait nothing new is begun.
const FULL: usize = 256 << 10;

/// The hops of what is answered.
const HOPS: u8 = 64;

/// Bytes behind the IP header that an error quotes, so that it has 576 bytes at most (RFC 1812 §4.3.2.3).
pub(crate) const QUOTED: usize = 576 - 2 * 20 - 8;

/// What a sender is told of a packet that did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreachable {
    Network,
    Host,
    Port,
    /// A firewall of this machine's forbids it.
    Forbidden,
}

/// Frames that wait to be written, each with its length before it.
#[derive(Debug)]
pub(crate) struct Out {
    own: EthernetAddress,
    bytes: Vec<u8>,
    /// So many of them were written.
    told: usize,
}

impl Out {
    pub(crate) fn new(own: EthernetAddress) -> Self {
        Self { own, bytes: Vec::with_capacity(2 * FULL), told: 0 }
    }

    /// Whether anything more may be begun.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes.len() - self.told < FULL
    }

    /// Writes what waits; whether that was all.
    pub(crate) fn write(&mut self, stream: impl AsFd) -> Result<bool, Errno> {
        while self.told < self.bytes.len() {
            match send(&stream, &self.bytes[self.told..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(written) => self.told += written,
                Err(Errno::AGAIN) => {
                    // What was written makes room when it is as much as there may be.
                    if self.told >= FULL {
                        self.bytes.drain(..self.told);
                        self.told = 0;
                    }
                    return Ok(false);
                }
                Err(Errno::INTR) => {}
                Err(why) => return Err(why),
            }
        }
        self.bytes.clear();
        self.told = 0;
        Ok(true)
    }

    /// A frame with so many bytes behind its header, which `emit` writes, and says what they are.
    pub(crate) fn append<R>(
        &mut self,
        to: EthernetAddress,
        len: usize,
        emit: impl FnOnce(&mut [u8]) -> (EthernetProtocol, R),
    ) -> R {
        let frame = ETHERNET + len;
        self.bytes.extend(framing::length(frame as u32));
        let begin = self.bytes.len();
        self.bytes.resize(begin + frame, 0);
        let (header, payload) = self.bytes[begin..].split_at_mut(ETHERNET);
        let (ethertype, done) = emit(payload);
        let repr = EthernetRepr { src_addr: self.own, dst_addr: to, ethertype };
        repr.emit(&mut EthernetFrame::new_unchecked(header));
        done
    }

    /// A packet of these addresses, which are of one family. One that is longer than any frame is lost.
    fn packet(
        &mut self,
        to: EthernetAddress,
        (src, dst): (IpAddress, IpAddress),
        protocol: IpProtocol,
        hops: u8,
        len: usize,
        emit: impl FnOnce(&mut [u8], &ChecksumCapabilities),
    ) {
        let checksums = ChecksumCapabilities::default();
        let ip = IpRepr::new(src, dst, protocol, len, hops);
        let ethertype = match ip {
            IpRepr::Ipv4(_) => EthernetProtocol::Ipv4,
            IpRepr::Ipv6(_) => EthernetProtocol::Ipv6,
        };
        if ETHERNET + ip.buffer_len() > MAX_FRAME_LEN as usize {
            return;
        }
        self.append(to, ip.buffer_len(), |bytes| {
            ip.emit(&mut *bytes, &checksums);
            emit(&mut bytes[ip.header_len()..], &checksums);
            (ethertype, ())
        });
    }

    /// Its own address is at its own MAC address (RFC 826).
    pub(crate) fn arp_reply(&mut self, to: EthernetAddress, own: Ipv4Addr, asker: Ipv4Addr) {
        let repr = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: self.own,
            source_protocol_addr: own,
            target_hardware_addr: to,
            target_protocol_addr: asker,
        };
        self.append(to, repr.buffer_len(), |bytes| {
            repr.emit(&mut ArpPacket::new_unchecked(bytes));
            (EthernetProtocol::Arp, ())
        });
    }

    /// The same of IPv6 (RFC 4861 §7.2.4); who asks without an address is told with all others.
    pub(crate) fn advertisement(&mut self, to: EthernetAddress, own: Ipv6Addr, asker: Ipv6Addr) {
        let all = asker.is_unspecified();
        let (to, asker) = match all {
            true => (EthernetAddress([0x33, 0x33, 0, 0, 0, 1]), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)),
            false => (to, asker),
        };
        let solicited = if all { NdiscNeighborFlags::empty() } else { NdiscNeighborFlags::SOLICITED };
        let icmp = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
            flags: solicited | NdiscNeighborFlags::OVERRIDE,
            target_addr: own,
            lladdr: Some(self.own.into()),
        });
        self.icmpv6(to, (own, asker), 255, icmp);
    }

    /// A datagram.
    pub(crate) fn datagram(&mut self, to: EthernetAddress, src: SocketAddr, dst: SocketAddr, payload: &[u8]) {
        let udp = UdpRepr { src_port: src.port(), dst_port: dst.port() };
        let len = udp.header_len() + payload.len();
        let (from, dst) = (src.ip().into(), dst.ip().into());
        self.packet(to, (from, dst), IpProtocol::Udp, HOPS, len, |bytes, checksums| {
            let mut packet = UdpPacket::new_unchecked(bytes);
            udp.emit(
                &mut packet,
                &from,
                &dst,
                payload.len(),
                |room| room.copy_from_slice(payload),
                checksums,
            );
        });
    }

    /// The answer to an echo request.
    pub(crate) fn echo_reply(
        &mut self,
        to: EthernetAddress,
        (src, dst): (IpAddr, IpAddr),
        (ident, seq_no): (u16, u16),
        data: &[u8],
    ) {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                self.icmpv4(to, (src, dst), Icmpv4Repr::EchoReply { ident, seq_no, data });
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                self.icmpv6(to, (src, dst), HOPS, Icmpv6Repr::EchoReply { ident, seq_no, data });
            }
            // Who asks and who is asked are of one family.
            _ => {}
        }
    }

    /// What became of a packet that was sent with `sent`, and `data` behind that.
    pub(crate) fn unreachable(&mut self, to: EthernetAddress, sent: &IpRepr, data: &[u8], what: Unreachable) {
        let data = &data[..data.len().min(QUOTED)];
        match *sent {
            IpRepr::Ipv4(header) => {
                let reason = match what {
                    Unreachable::Network => Icmpv4DstUnreachable::NetUnreachable,
                    Unreachable::Host => Icmpv4DstUnreachable::HostUnreachable,
                    Unreachable::Port => Icmpv4DstUnreachable::PortUnreachable,
                    Unreachable::Forbidden => Icmpv4DstUnreachable::CommProhibited,
                };
                let icmp = Icmpv4Repr::DstUnreachable { reason, header, data };
                self.icmpv4(to, (header.dst_addr, header.src_addr), icmp);
            }
            IpRepr::Ipv6(header) => {
                let reason = match what {
                    Unreachable::Network => Icmpv6DstUnreachable::NoRoute,
                    Unreachable::Host => Icmpv6DstUnreachable::AddrUnreachable,
                    Unreachable::Port => Icmpv6DstUnreachable::PortUnreachable,
                    Unreachable::Forbidden => Icmpv6DstUnreachable::AdminProhibit,
                };
                let icmp = Icmpv6Repr::DstUnreachable { reason, header, data };
                self.icmpv6(to, (header.dst_addr, header.src_addr), HOPS, icmp);
            }
        }
    }

    fn icmpv4(&mut self, to: EthernetAddress, (src, dst): (Ipv4Addr, Ipv4Addr), icmp: Icmpv4Repr<'_>) {
        let path = (src.into(), dst.into());
        self.packet(to, path, IpProtocol::Icmp, HOPS, icmp.buffer_len(), |bytes, checksums| {
            icmp.emit(&mut Icmpv4Packet::new_unchecked(bytes), checksums);
        });
    }

    fn icmpv6(
        &mut self,
        to: EthernetAddress,
        (src, dst): (Ipv6Addr, Ipv6Addr),
        hops: u8,
        icmp: Icmpv6Repr<'_>,
    ) {
        let path = (src.into(), dst.into());
        self.packet(to, path, IpProtocol::Icmpv6, hops, icmp.buffer_len(), |bytes, checksums| {
            icmp.emit(&src, &dst, &mut Icmpv6Packet::new_unchecked(bytes), checksums);
        });
    }
}

#[cfg(test)]
impl Out {
    /// Bytes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.bytes.len() - self.told
    }
}
