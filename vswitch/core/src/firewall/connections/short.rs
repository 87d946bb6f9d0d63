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
    /// Source and destination, as for a frame that goes from inside to outside.
    hosts: Hosts,
    protocol: u8,
    /// Source above destination.
    ports: u32,
    event: Event,
}

/// IP addresses, protocol, and where the datagram's payload starts and ends, from the IP header on.
struct Datagram {
    hosts: Hosts,
    protocol: u8,
    at: usize,
    end: usize,
}

impl Common {
    /// That in a frame of `frame_len` bytes which begins with `bytes` and has what this EtherType announces `at` that place; none if it is not of
    /// the common kind.
    #[inline(always)]
    pub fn read(ethertype: u16, at: usize, bytes: &[u8], frame_len: u32) -> Option<Self> {
        let ip = bytes.get(at..)?;
        let datagram = match ethertype {
            ethertype::IPV4 => v4(ip)?,
            ethertype::IPV6 => v6(ip)?,
            _ => return None,
        };
        if at + datagram.end > frame_len as usize {
            return None;
        }
        let payload = ip.get(datagram.at..)?;
        let len = datagram.end.checked_sub(datagram.at)?;
        let (event, ports) = match datagram.protocol {
            facts::TCP => tcp(payload, len)?,
            facts::UDP => udp(payload, len)?,
            _ => return None,
        };
        Some(Self { hosts: datagram.hosts, protocol: datagram.protocol, ports, event })
    }

    /// The key of its connection where it goes `from` one of the ends.
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

    /// What it says to its connection.
    pub const fn event(&self) -> &Event {
        &self.event
    }

    /// Its source and destination address.
    pub const fn hosts(&self) -> Hosts {
        self.hosts
    }

    /// Its source and destination port.
    pub const fn ports(&self) -> (u16, u16) {
        ((self.ports >> 16) as u16, self.ports as u16)
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
    let common = Common::read(link.ethertype, usize::from(link.len), bytes, frame_len)?;
    Some(Facts::Of(common.key(scope, from), common.event))
}

#[inline(always)]
fn v4(ip: &[u8]) -> Option<Datagram> {
    let &[vihl, _, l0, l1, _, _, f0, f1, _, protocol, _, _, a, b, c, d, e, f, g, h] = ip.first_chunk()?;
    // Whole: neither "more fragments" nor an offset.
    if vihl != 0x45 || u16::from_be_bytes([f0, f1]) & 0x3fff != 0 {
        return None;
    }
    let hosts = Hosts::V4(Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
    Some(Datagram { hosts, protocol, at: 20, end: u16::from_be_bytes([l0, l1]).into() })
}

#[inline(always)]
fn v6(ip: &[u8]) -> Option<Datagram> {
    let header = ip.first_chunk::<40>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let address = |at: usize| header[at..].first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
    let hosts = Hosts::V6(address(8)?, address(24)?);
    let end = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    Some(Datagram { hosts, protocol: header[6], at: 40, end })
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
