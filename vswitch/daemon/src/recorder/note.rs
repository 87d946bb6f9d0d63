//! A frame's addressing, small enough to be kept by the ten thousand.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::{
    head::{Head, Network, Tag, Transport},
    mac::MacAddr,
    vlan::Tci,
};

/// What a frame's headers said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FrameNote {
    /// Destination address.
    pub dst: MacAddr,
    /// Source address.
    pub src: MacAddr,
    /// The tag right behind the addresses, of either kind.
    pub tag: Option<Tci>,
    /// What is behind the tags.
    pub what: What,
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Nothing that the parser reads, or something that it could not.
    Other {
        /// EtherType behind the tags; below 0x600 it is an IEEE 802.3 length.
        ethertype: u16,
    },
    /// An ARP message (RFC 826).
    Arp {
        /// 1 request, 2 reply.
        operation: u16,
        /// Sender protocol address.
        sender: Ipv4Addr,
        /// Target protocol address.
        target: Ipv4Addr,
    },
    /// An IP packet.
    Ip {
        /// Which of the two.
        version: Version,
        /// Source address.
        src: Folded,
        /// Destination address.
        dst: Folded,
        /// Protocol number.
        protocol: u8,
        /// What it carries.
        transport: Transport,
    },
}

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// An IPv4 address, or the last 32 bits of an IPv6 address: those that mostly tell the hosts of one link apart. They are no proof of who it
/// was: an address of another network may end so, and a group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Folded([u8; 4]);

impl Folded {
    /// What is kept of `address`.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self(address.octets()),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    const fn of_v6(address: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = address.octets();
        Self([a, b, c, d])
    }

    /// The address, if all of it was kept.
    pub const fn whole(self, version: Version) -> Option<IpAddr> {
        let [a, b, c, d] = self.0;
        match version {
            Version::V4 => Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
            Version::V6 => None,
        }
    }

    /// As it is shown: `10.0.0.1`, or `…:a00:1`.
    pub fn words(self, version: Version) -> String {
        let [a, b, c, d] = self.0;
        match version {
            Version::V4 => Ipv4Addr::from(self.0).to_string(),
            Version::V6 => format!("…:{:x}:{:x}", u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
        }
    }

    /// Whether it may be what is left of the solicited-node address of `address` (RFC 4291 §2.7.1): that ends in
    /// `ff` and the last 24 bits.
    const fn may_solicit(self, address: Ipv6Addr) -> bool {
        let ([first, a, b, c], [.., x, y, z]) = (self.0, address.octets());
        first == 0xff && a == x && b == y && c == z
    }
}

impl FrameNote {
    /// Reads the frame of `len` bytes whose first are `bytes`. None: it has no whole Ethernet header, or is too long for one.
    pub fn read(bytes: &[u8], len: u32) -> Option<Self> {
        let head = Head::parse(bytes, len).ok()?;
        let what = match head.network {
            Network::Arp(arp) => {
                What::Arp { operation: arp.operation, sender: arp.sender, target: arp.target }
            }
            Network::Ipv4(ip) => What::Ip {
                version: Version::V4,
                src: Folded(ip.src.octets()),
                dst: Folded(ip.dst.octets()),
                protocol: ip.protocol,
                transport: head.transport,
            },
            Network::Ipv6(ip) => What::Ip {
                version: Version::V6,
                src: Folded::of_v6(ip.src),
                dst: Folded::of_v6(ip.dst),
                protocol: ip.protocol,
                transport: head.transport,
            },
            Network::Other | Network::Unparsed(_) => What::Other { ethertype: head.link.ethertype },
        };
        let tag = head.link.outer.map(|Tag { tci, .. }| tci);
        Some(Self { dst: head.link.dst, src: head.link.src, tag, what })
    }

    /// Whether it may be from `address`. Of IPv6 addresses the last 32 bits are compared.
    pub fn may_be_from(&self, address: IpAddr) -> bool {
        match (self.what, address) {
            (What::Arp { sender, .. }, address) => address == IpAddr::V4(sender),
            (What::Ip { version, src, .. }, address) => same(version, src, address),
            (What::Other { .. }, _) => false,
        }
    }

    /// Whether it may be for `address`, or asks who has it. Of IPv6 addresses the last 32 bits are compared.
    pub fn may_be_for(&self, address: IpAddr) -> bool {
        match (self.what, address) {
            (What::Arp { target, .. }, address) => address == IpAddr::V4(target),
            (What::Ip { version, dst, .. }, address) => {
                same(version, dst, address)
                    || matches!((version, address), (Version::V6, IpAddr::V6(v6)) if dst.may_solicit(v6))
            }
            (What::Other { .. }, _) => false,
        }
    }
}

fn same(version: Version, folded: Folded, address: IpAddr) -> bool {
    (version == Version::V4) == address.is_ipv4() && folded == Folded::of(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswitch_core::build::{self, Addresses, Echo, Ethernet};

    const LINK: Ethernet =
        Ethernet { src: MacAddr::new([2, 0, 0, 0, 0, 1]), dst: MacAddr::new([2, 0, 0, 0, 0, 2]), tag: None };

    fn note(frame: &[u8]) -> FrameNote {
        FrameNote::read(frame, frame.len() as u32).expect("it has an Ethernet header")
    }

    #[test]
    fn a_note_says_from_whom_and_for_whom() {
        let [here, there, v6_here, v6_there] = ["10.0.0.1", "10.0.0.2", "fd00::1:a", "fd00::2:b"]
            .map(|address| address.parse().expect("an address"));
        let (IpAddr::V4(a), IpAddr::V4(b), IpAddr::V6(c), IpAddr::V6(d)) = (here, there, v6_here, v6_there)
        else {
            panic!("two of each family")
        };
        let ping = |addresses| note(&build::echo(LINK, addresses, Echo::Request, 1, 1, b"hello"));
        let (four, six) = (ping(Addresses::V4(a, b)), ping(Addresses::V6(c, d)));
        let arp = note(&build::arp_request(LINK, a, b));
        for (from, to, notes) in [(here, there, [four, arp]), (v6_here, v6_there, [six, six])] {
            for note in notes {
                assert!(note.may_be_from(from) && note.may_be_for(to), "{note:?}");
                assert!(!note.may_be_from(to) && !note.may_be_for(from), "{note:?}");
            }
        }
        let asks =
            build::echo(LINK, Addresses::V6(c, "ff02::1:ff02:b".parse().unwrap()), Echo::Request, 1, 1, b"");
        assert!(note(&asks).may_be_for(v6_there), "a solicited-node address names its owner");
        assert_eq!(Folded::of(v6_there).words(Version::V6), "…:2:b");
    }

    #[test]
    fn what_is_no_frame_has_no_note_and_what_is_not_understood_has_a_small_one() {
        assert_eq!(FrameNote::read(&[0; 13], 13), None);
        let tagged = Ethernet { tag: Some(Tci::from_bits(20)), ..LINK };
        let note = note(&build::raw(tagged, 0x88b5, &[1; 50]));
        assert_eq!((note.tag, note.what), (Some(Tci::from_bits(20)), What::Other { ethertype: 0x88b5 }));
    }
}
