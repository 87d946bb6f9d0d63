//! Stories of routers: who asks what in which VLAN, and what is said then.

mod arp;
mod bounds;
mod cut;
pub(crate) mod lab;
mod metadata;
mod nd;
mod own;
mod resolve;
mod serve;
mod shown;
mod suppress;
mod upstream;

use super::{Lost, Speaker};
use checksum::Sum;
use etherparse::{ArpPacket, NetSlice, SlicedPacket, TransportSlice};
use lab::{ROUTER, usual, vlan};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};
use vswitch_core::{
    build::Ethernet, clock::Instant, mac::MacAddr, route::Neighbours, vlan::Tci, world::World,
};

/// The `n`th station's address.
fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n])
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

/// Station `n` to everybody in a VLAN.
fn to_all(number: u16, n: u8) -> Ethernet {
    Ethernet { src: mac(n), dst: MacAddr::BROADCAST, tag: Some(Tci::from_bits(number)) }
}

/// Station `n` to the routers in a VLAN.
fn to_router(number: u16, n: u8) -> Ethernet {
    Ethernet { dst: ROUTER, ..to_all(number, n) }
}

/// The routers' voice, and what time it is there.
struct Bench {
    speaker: Speaker,
    neighbours: Arc<Neighbours>,
    now: Instant,
}

impl Bench {
    /// In the usual lab, with all announcements said.
    fn new() -> Self {
        let mut bench = Self::silent(usual());
        bench.pass(10);
        bench.said();
        bench
    }

    /// In a lab, at its beginning.
    fn silent(world: Arc<World>) -> Self {
        let neighbours = Arc::new(Neighbours::new([1, 2]));
        let mut speaker = Speaker::new(neighbours.clone());
        speaker.adopt(world);
        Self { speaker, neighbours, now: Instant::from_nanos(1_000_000_000_000) }
    }

    fn hear(&mut self, frame: &[u8]) -> &mut Self {
        self.speaker.receive(frame, self.now);
        self
    }

    /// All that was said.
    fn said(&mut self) -> Vec<Vec<u8>> {
        let mut said = Vec::new();
        while let Some(frame) = self.speaker.next_frame() {
            said.push(frame.to_vec());
            self.speaker.sent();
        }
        said
    }

    /// The only frame that was said.
    fn one(&mut self) -> Vec<u8> {
        let mut said = self.said();
        assert_eq!(said.len(), 1, "{said:x?}");
        said.remove(0)
    }

    fn silent_after(&mut self, frame: &[u8]) {
        self.hear(frame);
        let said = self.said();
        assert!(said.is_empty(), "{said:x?}");
    }

    /// Lets time pass, from one thing that is due to the next.
    fn pass(&mut self, secs: u64) {
        self.pass_millis(secs * 1000);
    }

    fn pass_millis(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while let Some(due) = self.speaker.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.speaker.tick(self.now);
        }
        self.now = end;
    }

    fn knows(&self, number: u16, address: impl Into<IpAddr>) -> Option<MacAddr> {
        self.neighbours.find(vlan(number), address.into(), self.now, false)
    }

    fn lost(&self, why: Lost) -> u64 {
        self.speaker.counts().lost.get(&why).copied().unwrap_or(0)
    }
}

/// A frame as another reads it; it must be the routers', in this VLAN, and its checksums right.
fn read(frame: &[u8], number: u16) -> SlicedPacket<'_> {
    let packet = SlicedPacket::from_ethernet(frame).expect("a frame");
    assert_eq!(frame[6..12], ROUTER.octets(), "the source address");
    assert_eq!(packet.vlan_ids().iter().map(|id| id.value()).collect::<Vec<_>>(), [number]);
    let pseudo = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            assert_eq!(Sum::ZERO.add_bytes(ip.header().slice()).checksum(), [0, 0], "the header's checksum");
            Sum::ZERO.add_bytes(&ip.header().source()).add_bytes(&ip.header().destination())
        }
        Some(NetSlice::Ipv6(ip)) => {
            Sum::ZERO.add_bytes(&ip.header().source()).add_bytes(&ip.header().destination())
        }
        _ => return packet,
    };
    let whole = |pseudo: Sum, protocol: u16, bytes: &[u8]| {
        let sum = pseudo.add_word(protocol).add_word(bytes.len() as u16).add_bytes(bytes);
        assert_eq!(sum.checksum(), [0, 0], "the checksum of protocol {protocol}");
    };
    match packet.transport.as_ref().expect("something within") {
        TransportSlice::Icmpv4(icmp) => {
            assert_eq!(Sum::ZERO.add_bytes(icmp.slice()).checksum(), [0, 0], "the checksum of ICMP");
        }
        TransportSlice::Icmpv6(icmp) => whole(pseudo, 58, icmp.slice()),
        TransportSlice::Tcp(tcp) => whole(pseudo, 6, tcp.slice()),
        TransportSlice::Udp(udp) => whole(pseudo, 17, udp.slice()),
        TransportSlice::Igmp(_) => panic!("no router here speaks IGMP"),
    }
    packet
}

fn read_arp(frame: &[u8], number: u16) -> ArpPacket {
    match read(frame, number).net {
        Some(NetSlice::Arp(arp)) => arp.to_packet(),
        other => panic!("no ARP: {other:?}"),
    }
}

/// Type, code and whole message of a frame of ICMP for either version, with its source, destination and hops.
fn read_icmp(frame: &[u8], number: u16) -> (IpAddr, IpAddr, u8, Vec<u8>) {
    let packet = read(frame, number);
    let (src, dst, hops) = match packet.net.expect("a packet") {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header();
            (ip.source_addr().into(), ip.destination_addr().into(), ip.ttl())
        }
        NetSlice::Ipv6(ip) => {
            let ip = ip.header();
            (ip.source_addr().into(), ip.destination_addr().into(), ip.hop_limit())
        }
        NetSlice::Arp(arp) => panic!("ARP: {arp:?}"),
    };
    let message = match packet.transport.expect("something within") {
        TransportSlice::Icmpv4(icmp) => icmp.slice().to_vec(),
        TransportSlice::Icmpv6(icmp) => icmp.slice().to_vec(),
        other => panic!("no ICMP: {other:?}"),
    };
    (src, dst, hops, message)
}
