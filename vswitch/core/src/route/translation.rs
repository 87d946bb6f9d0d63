//! What translation changes in a packet: addresses, ports or the identifier of an ICMP query, and the checksums over them (RFC 3022 §4.1, RFC 5508).

use crate::{
    firewall::connections::{Ends, Hosts, Key},
    head::ETHERNET_LEN,
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Protocols whose headers have something that is translated, or a checksum over addresses.
mod protocol {
    pub(super) const ICMP: u8 = 1;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const DCCP: u8 = 33;
    pub(super) const ICMPV6: u8 = 58;
    pub(super) const SCTP: u8 = 132;
    pub(super) const UDP_LITE: u8 = 136;
}

/// Bytes of an ICMP error before the packet that it quotes (RFC 792, RFC 4443 §3).
const ERROR_LEN: usize = 8;

/// The change of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// Source and destination afterwards; of an ICMP error, those of a packet that goes the same way in the connection that it is about.
    pub hosts: Hosts,
    /// The ports afterwards, or the identifier of a query.
    pub ends: NewEnds,
    /// What carries them.
    protocol: u8,
    /// Where the transport header stands, from the IP header on.
    transport: u8,
    /// Source and destination of an ICMP error afterwards, which quotes a packet that went the other way.
    error: Option<Hosts>,
    /// What is added to a sum over the addresses, and to one over ports or identifier: the same for each packet of a connection.
    addresses_delta: u16,
    ends_delta: u16,
}

/// What stands in a transport header afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewEnds {
    /// Ports: source, destination.
    Ports(u16, u16),
    /// The identifier of an ICMP query.
    Id(u16),
    /// What stood there: the protocol has neither.
    Same,
}

/// Whether a packet's checksum covers all that it should, or its sender left that to others (virtio 1.2 §5.1.6.2.1): then it has only the sum over the
/// addresses so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// It is complete.
    Complete,
    /// It is to be completed.
    Partial,
}

impl Translation {
    /// That of a packet with the key `was`, which goes on so that what its receiver answers has the key `answers`, and whose transport header stands
    /// `transport` bytes behind the start of its IP header.
    pub fn of(was: &Key, answers: &Key, transport: u8) -> Self {
        let (before, after) = (was.hosts(), swapped(answers.hosts()));
        let (ends, ends_delta) = match (was.ends(), answers.ends()) {
            (Ends::Ports { inside: src, outside: dst }, Ends::Ports { inside, outside }) => {
                (NewEnds::Ports(outside, inside), delta(src, outside) + delta(dst, inside))
            }
            (Ends::Query { id: before, .. }, Ends::Query { id, .. }) => (NewEnds::Id(id), delta(before, id)),
            _ => (NewEnds::Same, 0),
        };
        let addresses_delta = fold(deltas(before, after));
        let protocol = answers.protocol();
        let ends_delta = fold(ends_delta);
        Self { hosts: after, ends, protocol, transport, error: None, addresses_delta, ends_delta }
    }

    /// The same for frames in which all stands where it mostly does, with one hop less; and whether it is one of TCP. None if it is none of that kind.
    pub(crate) fn quick(&self) -> Option<(Quick, bool)> {
        let (Hosts::V4(src, dst), NewEnds::Ports(from, to), None, 20) =
            (self.hosts, self.ends, self.error, self.transport)
        else {
            return None;
        };
        let is_tcp = match self.protocol {
            protocol::TCP => true,
            protocol::UDP => false,
            _ => return None,
        };
        let addresses = u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits());
        let quick = Quick {
            addresses: addresses.to_be_bytes(),
            ports: (u32::from(from) << 16 | u32::from(to)).to_be_bytes(),
            // One hop less is 0x100 less in the word that it stands in.
            header: fold(u64::from(self.addresses_delta) + u64::from(!0x100_u16)),
            covered: fold(u64::from(self.addresses_delta) + u64::from(self.ends_delta)),
        };
        Some((quick, is_tcp))
    }

    /// The same for an ICMP error from `src`, about a packet that had the frame's end inside as its destination: that end's address was `inside`. The error
    /// comes from that end, or from a router on the way there, whose address nobody needs to know where the end's own is hidden.
    #[must_use]
    pub fn of_error(self, src: IpAddr, inside: IpAddr) -> Self {
        let (new, dst) = self.hosts.pair();
        let src = if new == inside { src } else { new };
        let error = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Hosts::V4(src, dst),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Hosts::V6(src, dst),
            _ => self.hosts,
        };
        Self { error: Some(error), ..self }
    }

    /// Whether a packet with this key stays as it is.
    pub fn keeps(&self, key: &Key) -> bool {
        let ends = match (key.ends(), self.ends) {
            (Ends::Ports { inside, outside }, NewEnds::Ports(src, dst)) => (inside, outside) == (src, dst),
            (Ends::Query { id, .. }, NewEnds::Id(new)) => id == new,
            _ => true,
        };
        ends && key.hosts() == self.hosts
    }

    /// To whom it goes afterwards.
    pub fn dst(&self) -> IpAddr {
        let (_, dst) = self.hosts.pair();
        dst
    }

    /// Changes a packet that begins so, as far as these bytes reach: they are to have all that changes.
    #[inline]
    pub fn apply(&self, packet: &mut [u8], checksum: Checksum) {
        match self.error {
            None => self.change(packet, self.hosts, checksum),
            Some(hosts) => self.change_error(packet, hosts),
        }
    }

    #[inline]
    fn change(&self, packet: &mut [u8], hosts: Hosts, checksum: Checksum) {
        let is_ip = match hosts {
            Hosts::V4(src, dst) => packet.first_chunk_mut().is_some_and(|header: &mut [u8; 20]| {
                let both = u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits());
                header[12..].copy_from_slice(&both.to_be_bytes());
                let before = u16::from_be_bytes([header[10], header[11]]);
                header[10..12].copy_from_slice(&mended(before, self.addresses_delta.into()).to_be_bytes());
                header[0] >> 4 == 4
            }),
            Hosts::V6(src, dst) => packet.first_chunk_mut().is_some_and(|header: &mut [u8; 40]| {
                header[8..24].copy_from_slice(&src.octets());
                header[24..].copy_from_slice(&dst.octets());
                header[0] >> 4 == 6
            }),
        };
        let Some(transport) = packet.get_mut(usize::from(self.transport)..).filter(|_| is_ip) else { return };
        self.ends.write(transport);
        let (addresses, ends) = (u64::from(self.addresses_delta), u64::from(self.ends_delta));
        // What a checksum covers: of IPv4 ICMP's the message alone.
        let (at, covered, partial) = match self.protocol {
            protocol::ICMP => (2, ends, ends),
            protocol::ICMPV6 => (2, addresses + ends, addresses),
            protocol::TCP => (16, addresses + ends, addresses),
            protocol::UDP | protocol::DCCP | protocol::UDP_LITE => (6, addresses + ends, addresses),
            _ => return,
        };
        let Some(field) = transport.get_mut(at..).and_then(<[u8]>::first_chunk_mut) else { return };
        match (checksum, u16::from_be_bytes(*field)) {
            // RFC 768: a datagram of IPv4 may have none.
            (Checksum::Complete, 0) if self.protocol == protocol::UDP => {}
            (Checksum::Complete, before) => {
                let after = mended(before, covered);
                // RFC 768: zero says that there is none.
                let after = if after == 0 && self.protocol == protocol::UDP { 0xffff } else { after };
                *field = after.to_be_bytes();
            }
            (Checksum::Partial, before) => *field = fold(u64::from(before) + partial).to_be_bytes(),
        }
    }

    /// An error has addresses of its own, and quotes a packet of the other direction, which is to be as its sender sent it (RFC 5508 §4.1).
    #[cold]
    fn change_error(&self, packet: &mut [u8], hosts: Hosts) {
        let Some(before) = hosts_of(packet, hosts) else { return };
        let outer = Self {
            hosts,
            ends: NewEnds::Same,
            protocol: if matches!(hosts, Hosts::V4(..)) { protocol::ICMP } else { protocol::ICMPV6 },
            error: None,
            addresses_delta: fold(deltas(before, hosts)),
            ends_delta: 0,
            ..*self
        };
        outer.change(packet, hosts, Checksum::Complete);
        let Some(message) = packet.get_mut(usize::from(self.transport)..) else { return };
        let Some((error, quoted)) = message.split_at_mut_checked(ERROR_LEN) else { return };
        let sum = |bytes: &[u8]| u16::from_be_bytes(checksum::Sum::ZERO.add_bytes(bytes).checksum());
        let before = sum(quoted);
        let ends = match self.ends {
            NewEnds::Ports(src, dst) => NewEnds::Ports(dst, src),
            same => same,
        };
        if let Some(transport) = header_len(quoted, self.protocol) {
            let inner = Self { ends, transport, error: None, ..*self };
            inner.change(quoted, swapped(self.hosts), Checksum::Complete);
        }
        // These are sums' complements: what was is added, what is taken away.
        let covered = delta(sum(quoted), before);
        if let Some(field) = error.get_mut(2..).and_then(<[u8]>::first_chunk_mut) {
            *field = mended(u16::from_be_bytes(*field), covered).to_be_bytes();
        }
    }
}

/// Where, in an untagged frame, the eight bytes of an IP header begin in which its hops stand, and of IPv4 its checksum.
pub(crate) const HOPS: usize = ETHERNET_LEN + 4;

/// What changes in each packet of a connection of TCP or UDP over IPv4 that a router passes on, as bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quick {
    addresses: [u8; 8],
    ports: [u8; 4],
    /// What is added to the header's sum, and to that of the transport.
    header: u16,
    covered: u16,
}

impl Quick {
    /// Puts what changes in a frame that begins so, without tag and options, whose transport checksum stands in place `AT`: it has hops left, and that
    /// checksum is complete. False if that is not in its head.
    #[inline(always)]
    pub(crate) fn front<const AT: usize>(&self, head: &[u8], mut put: impl FnMut(usize, &[u8])) -> bool {
        let Some(hops) = head.get(HOPS..).and_then(<[u8]>::first_chunk) else { return false };
        let Some(before) = head.get(AT..).and_then(<[u8]>::first_chunk) else { return false };
        let word = u64::from_be_bytes(*hops);
        let header = mended(word as u16, self.header.into());
        put(HOPS, &(word & !0xffff | u64::from(header)).wrapping_sub(1 << 24).to_be_bytes());
        put(HOPS + 8, &self.addresses);
        put(HOPS + 16, &self.ports);
        let before = u16::from_be_bytes(*before);
        // RFC 768: zero says that there is none, which stays so, and is never computed.
        let is_udp = AT == HOPS + 16 + 6;
        if !(is_udp && before == 0) {
            let after = mended(before, self.covered.into());
            let after = if is_udp && after == 0 { 0xffff } else { after };
            put(AT, &after.to_be_bytes());
        }
        true
    }
}

impl NewEnds {
    /// Writes them to a transport header.
    #[inline]
    fn write(self, transport: &mut [u8]) {
        match self {
            Self::Ports(src, dst) => {
                if let Some(field) = transport.first_chunk_mut() {
                    *field = (u32::from(src) << 16 | u32::from(dst)).to_be_bytes();
                }
            }
            Self::Id(id) => {
                if let Some(field) = transport.get_mut(4..).and_then(<[u8]>::first_chunk_mut) {
                    *field = id.to_be_bytes();
                }
            }
            Self::Same => {}
        }
    }
}

/// Whether ports of this protocol can be others: the checksum over them is one that can be mended. SCTP's is not (RFC 9260 §6.8).
pub(crate) const fn has_free_ports(protocol: u8) -> bool {
    protocol != protocol::SCTP
}

const fn swapped(hosts: Hosts) -> Hosts {
    match hosts {
        Hosts::V4(src, dst) => Hosts::V4(dst, src),
        Hosts::V6(src, dst) => Hosts::V6(dst, src),
    }
}

/// Where the header of this protocol stands in a quoted packet, if it is the first behind the IP header.
fn header_len(packet: &[u8], protocol: u8) -> Option<u8> {
    let header = packet.first_chunk::<20>()?;
    match header[0] >> 4 {
        4 if header[9] == protocol => Some((header[0] & 0xf) * 4),
        6 if header[6] == protocol => Some(40),
        _ => None,
    }
}

/// Source and destination of a packet, if it is of that family.
fn hosts_of(packet: &[u8], family: Hosts) -> Option<Hosts> {
    let v6 = |at: usize| packet.get(at..)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
    let v4 = |at: usize| packet.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets));
    match (family, packet.first()? >> 4) {
        (Hosts::V4(..), 4) => Some(Hosts::V4(v4(12)?, v4(16)?)),
        (Hosts::V6(..), 6) => Some(Hosts::V6(v6(8)?, v6(24)?)),
        _ => None,
    }
}

/// What is added to a sum in which one word stands for another (RFC 1624, equation 3).
const fn delta(before: u16, after: u16) -> u64 {
    (!before) as u64 + after as u64
}

/// The same of a pair of addresses.
fn deltas(before: Hosts, after: Hosts) -> u64 {
    let words = |before: u128, after: u128| -> u64 {
        (0..8).map(|n| delta((before >> (16 * n)) as u16, (after >> (16 * n)) as u16)).sum()
    };
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    };
    let ((src, dst), (new_src, new_dst)) = (before.pair(), after.pair());
    words(bits(src), bits(new_src)) + words(bits(dst), bits(new_dst))
}

/// A checksum after one word of what it covers changed (RFC 1624, equation 3).
#[inline]
pub(crate) const fn one_for_another(checksum: u16, before: u16, after: u16) -> u16 {
    mended(checksum, delta(before, after))
}

/// A checksum after what it covers changed by so much.
#[inline]
const fn mended(checksum: u16, covered: u64) -> u16 {
    !fold((!checksum) as u64 + covered)
}

/// A sum in ones' complement.
const fn fold(sum: u64) -> u16 {
    // Of fewer than 2^16 words.
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}
