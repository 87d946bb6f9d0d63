//! A short path to the facts of what nearly all frames are: TCP and UDP in whole IP datagrams without options or extensions.
//!
//! It says what the parser and [`Facts::read`] say, or nothing: a test compares them. A frame that is the first of its connection, or
//! otherwise in need of a judgement, is parsed as ever.

use super::{
    Direction,
    facts::{self, Event, Facts},
    key::{Hosts, Key, Scope},
    segment::Segment,
};
use crate::head::{LinkHeader, TcpFlags, ethertype};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A TCP segment other than a SYN, or a UDP datagram, in a whole IP datagram without options or extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Common {
    flow: Flow,
    event: Event,
}

/// What frames that go one way in one connection have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Source and destination, as for a frame that goes from inside to outside.
    hosts: Hosts,
    protocol: u8,
    /// Source above destination.
    ports: u32,
}

/// An IP datagram: addresses, protocol, and where its payload starts and ends, from the IP header on.
pub struct Datagram {
    hosts: Hosts,
    protocol: u8,
    at: usize,
    end: usize,
}

/// A version of IP, for frames of the common kind.
pub trait Version {
    /// A whole datagram without options or extensions.
    fn datagram(ip: &[u8]) -> Option<Datagram>;

    /// Whether bytes, if they are such a datagram, are of the same flow as `first`, which is one.
    fn is_alike(first: &[u8], ip: &[u8]) -> bool;
}

/// RFC 791.
#[derive(Debug)]
pub enum V4 {}

/// RFC 8200.
#[derive(Debug)]
pub enum V6 {}

impl Version for V4 {
    #[inline(always)]
    fn datagram(ip: &[u8]) -> Option<Datagram> {
        let &[vihl, _, l0, l1, _, _, f0, f1, _, protocol, _, _, a, b, c, d, e, f, g, h] = ip.first_chunk()?;
        // Whole: neither "more fragments" nor an offset.
        if vihl != 0x45 || u16::from_be_bytes([f0, f1]) & 0x3fff != 0 {
            return None;
        }
        let hosts = Hosts::V4(Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
        Some(Datagram { hosts, protocol, at: 20, end: u16::from_be_bytes([l0, l1]).into() })
    }

    #[inline(always)]
    fn is_alike(first: &[u8], ip: &[u8]) -> bool {
        let Some((first, ip)) = first.first_chunk::<24>().zip(ip.first_chunk::<24>()) else { return false };
        first[9] == ip[9] && first[12..] == ip[12..]
    }
}

impl Version for V6 {
    #[inline(always)]
    fn datagram(ip: &[u8]) -> Option<Datagram> {
        let header = ip.first_chunk::<40>()?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let address = |at: usize| header[at..].first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
        let hosts = Hosts::V6(address(8)?, address(24)?);
        let end = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
        Some(Datagram { hosts, protocol: header[6], at: 40, end })
    }

    #[inline(always)]
    fn is_alike(first: &[u8], ip: &[u8]) -> bool {
        let Some((first, ip)) = first.first_chunk::<44>().zip(ip.first_chunk::<44>()) else { return false };
        first[6] == ip[6] && first[8..] == ip[8..]
    }
}

impl Common {
    /// That in a frame of `frame_len` bytes which begins with `bytes` and has a datagram `at` that place; none if it is not of the common kind.
    #[inline(always)]
    pub fn read<V: Version>(at: usize, bytes: &[u8], frame_len: u32) -> Option<Self> {
        let ip = bytes.get(at..)?;
        let datagram = V::datagram(ip)?;
        let (event, ports) = datagram.says(at, ip, frame_len)?;
        Some(Self { flow: Flow { hosts: datagram.hosts, protocol: datagram.protocol, ports }, event })
    }

    /// What such a frame says if it is of the same flow as one whose datagram is `first`.
    #[inline(always)]
    pub fn read_alike<V: Version>(first: &[u8], at: usize, bytes: &[u8], frame_len: u32) -> Option<Event> {
        let ip = bytes.get(at..)?;
        if !V::is_alike(first, ip) {
            return None;
        }
        V::datagram(ip)?.says(at, ip, frame_len).map(|(event, _)| event)
    }

    /// Whose it is.
    pub const fn flow(&self) -> &Flow {
        &self.flow
    }

    /// What it says to its connection.
    pub const fn event(&self) -> &Event {
        &self.event
    }
}

impl Datagram {
    /// What it says to its connection, and both its ports.
    #[inline(always)]
    fn says(&self, at: usize, ip: &[u8], frame_len: u32) -> Option<(Event, u32)> {
        if at + self.end > frame_len as usize {
            return None;
        }
        let payload = ip.get(self.at..)?;
        let len = self.end.checked_sub(self.at)?;
        match self.protocol {
            facts::TCP => tcp(payload, len),
            facts::UDP => udp(payload, len),
            _ => None,
        }
    }
}

impl Flow {
    /// The key of the connection where it goes `from` one of the ends.
    #[inline(always)]
    pub fn key(&self, scope: Scope, from: Direction) -> Key {
        let (src, dst) = self.ports();
        let hosts = match (from, self.hosts) {
            (Direction::Egress, hosts) => hosts,
            (Direction::Ingress, Hosts::V4(src, dst)) => Hosts::V4(dst, src),
            (Direction::Ingress, Hosts::V6(src, dst)) => Hosts::V6(dst, src),
        };
        Key::new(scope, hosts, self.protocol, facts::ports(src, dst, from))
    }

    /// Its source and destination address.
    pub const fn hosts(&self) -> Hosts {
        self.hosts
    }

    /// Its source and destination port.
    pub const fn ports(&self) -> (u16, u16) {
        ((self.ports >> 16) as u16, self.ports as u16)
    }

    /// Whether it is one of datagrams, not of TCP.
    pub const fn is_udp(&self) -> bool {
        self.protocol == facts::UDP
    }
}

/// Facts of a frame of `frame_len` bytes that begins with `bytes`; none if it is not of the common kind.
#[inline]
pub(super) fn facts(
    link: &LinkHeader,
    bytes: &[u8],
    frame_len: u32,
    scope: Scope,
    from: Direction,
) -> Option<Facts> {
    let at = usize::from(link.len);
    let common = match link.ethertype {
        ethertype::IPV4 => Common::read::<V4>(at, bytes, frame_len)?,
        ethertype::IPV6 => Common::read::<V6>(at, bytes, frame_len)?,
        _ => return None,
    };
    Some(Facts::Of(common.flow.key(scope, from), common.event))
}

/// A segment that opens nothing, and both its ports.
#[inline(always)]
fn tcp(payload: &[u8], len: usize) -> Option<(Event, u32)> {
    let &[p0, p1, p2, p3, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, _, _, _, _] =
        payload.first_chunk()?;
    let header = usize::from(offset >> 4) * 4;
    let flags = TcpFlags::from_bits(flags);
    if header < 20 || header > len || flags.contains(TcpFlags::SYN) {
        return None;
    }
    let segment = Segment {
        flags,
        seq: u32::from_be_bytes([s0, s1, s2, s3]),
        ack: u32::from_be_bytes([a0, a1, a2, a3]),
        window: u16::from_be_bytes([w0, w1]),
        len: (len - header) as u32,
        scale: None,
    };
    Some((Event::Tcp(segment), u32::from_be_bytes([p0, p1, p2, p3])))
}

#[inline(always)]
fn udp(payload: &[u8], len: usize) -> Option<(Event, u32)> {
    let &[p0, p1, p2, p3, l0, l1, _, _] = payload.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    (length >= 8 && length <= len).then_some((Event::Datagram, u32::from_be_bytes([p0, p1, p2, p3])))
}
