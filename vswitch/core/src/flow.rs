//! Flows: which frames must not overtake each other, and which of a receiver's queues each goes to.
//!
//! A flow is known by its two ends, whichever of them speaks: of TCP and UDP their addresses and ports, of other IP and of fragments
//! (whose ports are in another frame) the addresses, of all else the MAC addresses. VLAN tags say nothing about it. Its number is the same in
//! every worker, process and version of the lab: there is no secret in it, for whoever may send to a guest can fill one of its queues anyway.

use crate::{
    head::{Head, Network, Transport},
    mix::fold,
};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Odd, with as many ones as zeroes: the fractional parts of the golden ratio, and of the square roots of 2 and 3.
const MIX: [u64; 3] = [0x9e37_79b9_7f4a_7c15, 0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b];

/// A flow's number, the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow(u64);

impl Flow {
    /// That of the frame that begins with `bytes`, its first `min(frame_len, HEAD_BYTES)`.
    pub fn of(bytes: &[u8], frame_len: u32) -> Self {
        // What is no frame is not delivered; who asks all the same gets an answer.
        Head::parse(bytes, frame_len).map_or(Self(0), |head| Self::of_head(&head))
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }

    fn of_head(head: &Head) -> Self {
        let fragment = head.network.fragment();
        let (src, dst, kind) = match head.transport {
            Transport::Tcp { src, dst, .. } if fragment.is_none() => (src, dst, 6),
            Transport::Udp { src, dst } if fragment.is_none() => (src, dst, 17),
            _ => (0, 0, 0),
        };
        match head.network {
            Network::Ipv4(ip) => Self::between(v4(ip.src, src), v4(ip.dst, dst), kind),
            Network::Ipv6(ip) => Self::between(v6(ip.src, src), v6(ip.dst, dst), kind),
            _ => Self::between(head.link.src.to_u64(), head.link.dst.to_u64(), kind),
        }
    }

    fn between(one: u64, other: u64, kind: u64) -> Self {
        let (low, high) = if one < other { (one, other) } else { (other, one) };
        Self(fold(fold(low ^ MIX[0], MIX[1] ^ kind) ^ high, MIX[2]))
    }

    /// The place among `queues`, which are numbers that stand for themselves, of the one that the flow is for; none if there are none. A queue that
    /// comes or goes moves only those flows that it gets or had (rendezvous hashing).
    pub fn choose(self, queues: impl Iterator<Item = u16>) -> Option<usize> {
        let weight = |queue: u16| fold(self.0 ^ MIX[0].wrapping_mul(u64::from(queue) + 1), MIX[1]);
        let weighed = queues.enumerate().max_by_key(|(_, queue)| weight(*queue));
        weighed.map(|(place, _)| place)
    }
}

fn v4(address: Ipv4Addr, port: u16) -> u64 {
    u64::from(address.to_bits()) << 16 | u64::from(port)
}

fn v6(address: Ipv6Addr, port: u16) -> u64 {
    let bits = address.to_bits();
    fold((bits >> 64) as u64 ^ MIX[0], bits as u64 ^ MIX[1]) ^ u64::from(port)
}
