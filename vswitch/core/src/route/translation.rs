//! What translation changes in a packet: addresses, ports or the identifier of an ICMP query, and the checksums over them (RFC 3022 §4.1, RFC 5508).

use crate::firewall::connections::{Ends, Hosts, Key};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

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
    /// That of a packet which goes on so that what its receiver answers has the key `answers`, and whose transport header stands `transport` bytes behind the
    /// start of its IP header.
    pub fn of(answers: &Key, transport: u8) -> Self {
        let (hosts, ends) = match (answers.hosts(), answers.ends()) {
            (hosts, Ends::Ports { inside, outside }) => (hosts, NewEnds::Ports(outside, inside)),
            (hosts, Ends::Query { id, .. }) => (hosts, NewEnds::Id(id)),
            (hosts, Ends::Pair) => (hosts, NewEnds::Same),
        };
        Self { hosts: swapped(hosts), ends, protocol: answers.protocol(), transport, error: None }
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

    /// To whom it goes afterwards.
    pub fn dst(&self) -> IpAddr {
        let (_, dst) = self.hosts.pair();
        dst
    }

    /// Changes a packet that begins so, as far as these bytes reach: they are to have all that changes.
    pub fn apply(&self, packet: &mut [u8], checksum: Checksum) {
        match self.error {
            None => self.change(packet, self.hosts, checksum),
            Some(hosts) => self.change_error(packet, hosts),
        }
    }

    fn change(&self, packet: &mut [u8], hosts: Hosts, checksum: Checksum) {
        let Some(addresses) = change_addresses(packet, hosts) else { return };
        let Some(transport) = packet.get_mut(usize::from(self.transport)..) else { return };
        let ends = self.ends.change(transport);
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
                let after = !fold(u64::from(!before) + covered);
                // RFC 768: zero says that there is none.
                let after = if after == 0 && self.protocol == protocol::UDP { 0xffff } else { after };
                *field = after.to_be_bytes();
            }
            (Checksum::Partial, before) => *field = fold(u64::from(before) + partial).to_be_bytes(),
        }
    }

    /// An error has addresses of its own, and quotes a packet of the other direction, which is to be as its sender sent it (RFC 5508 §4.1).
    fn change_error(&self, packet: &mut [u8], hosts: Hosts) {
        let Some(addresses) = change_addresses(packet, hosts) else { return };
        let Some(message) = packet.get_mut(usize::from(self.transport)..) else { return };
        let Some((error, quoted)) = message.split_at_mut_checked(ERROR_LEN) else { return };
        let before = checksum::Sum::ZERO.add_bytes(quoted).checksum();
        let ends = match self.ends {
            NewEnds::Ports(src, dst) => NewEnds::Ports(dst, src),
            same => same,
        };
        if let Some(transport) = header_len(quoted, self.protocol) {
            let inner = Self { ends, transport, error: None, ..*self };
            inner.change(quoted, swapped(self.hosts), Checksum::Complete);
        }
        let after = checksum::Sum::ZERO.add_bytes(quoted).checksum();
        // These are sums' complements: what was is added, what is taken away.
        let quoted = delta(u16::from_be_bytes(after), u16::from_be_bytes(before));
        let covered = if matches!(hosts, Hosts::V6(..)) { addresses + quoted } else { quoted };
        if let Some(field) = error.get_mut(2..).and_then(<[u8]>::first_chunk_mut) {
            let before = u16::from_be_bytes(*field);
            *field = (!fold(u64::from(!before) + covered)).to_be_bytes();
        }
    }
}

impl NewEnds {
    /// Writes them to a transport header; what its checksum changes by.
    fn change(self, transport: &mut [u8]) -> u64 {
        match self {
            Self::Ports(src, dst) => write(transport, 0, src) + write(transport, 2, dst),
            Self::Id(id) => write(transport, 4, id),
            Self::Same => 0,
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

/// Writes both addresses and, of IPv4, the header's checksum; what a checksum over the addresses changes by. None if it is no such packet.
fn change_addresses(packet: &mut [u8], hosts: Hosts) -> Option<u64> {
    match hosts {
        Hosts::V4(src, dst) => {
            let header = packet.first_chunk_mut::<20>().filter(|header| header[0] >> 4 == 4)?;
            let [a, b, c, d] = src.octets();
            let [e, f, g, h] = dst.octets();
            let changed = write_all(&mut header[12..], &[a, b, c, d, e, f, g, h]);
            let before = u16::from_be_bytes([header[10], header[11]]);
            header[10..12].copy_from_slice(&(!fold(u64::from(!before) + changed)).to_be_bytes());
            Some(changed)
        }
        Hosts::V6(src, dst) => {
            let header = packet.first_chunk_mut::<40>().filter(|header| header[0] >> 4 == 6)?;
            let (src, dst) = (src.octets(), dst.octets());
            Some(write_all(&mut header[8..], &src) + write_all(&mut header[24..], &dst))
        }
    }
}

/// Writes words; what a checksum over them changes by.
fn write_all(to: &mut [u8], words: &[u8]) -> u64 {
    words
        .chunks_exact(2)
        .enumerate()
        .map(|(n, word)| write(to, 2 * n, u16::from_be_bytes([word[0], word[1]])))
        .sum()
}

/// Writes one word; what a checksum over it changes by.
fn write(to: &mut [u8], at: usize, word: u16) -> u64 {
    let Some(field) = to.get_mut(at..).and_then(<[u8]>::first_chunk_mut) else { return 0 };
    let before = u16::from_be_bytes(*field);
    *field = word.to_be_bytes();
    delta(before, word)
}

/// What is added to a sum in which one word stands for another (RFC 1624, equation 3).
const fn delta(before: u16, after: u16) -> u64 {
    (!before) as u64 + after as u64
}

/// A sum in ones' complement.
const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
