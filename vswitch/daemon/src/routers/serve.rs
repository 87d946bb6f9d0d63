//! What a gateway does for hosts besides passing on: it gives addresses (DHCP), and tells hosts of themselves (HTTP).

use super::{
    Heard, Lost, Speaker,
    dhcp::{self, Next, Reply},
    link,
    metadata::{self, Segment},
    own,
};
use std::net::Ipv4Addr;
use vswitch_core::{
    build::{self, Addresses},
    clock::Instant,
    head::{Ipv4, Network, TcpFlags, Transport},
    mac::MacAddr,
    route::{METADATA, Routing},
    vlan::VlanId,
};

/// Of UDP: ports, length, checksum.
const UDP_LEN: usize = 8;

const TCP: u8 = 6;

/// What a datagram carries, if that is whole and its checksum right.
pub(super) fn carried<'a>(heard: &Heard<'a>) -> Option<&'a [u8]> {
    let datagram = own::payload(heard).filter(|_| own::is_sound(heard))?;
    let length = u16::from_be_bytes(*datagram.get(4..)?.first_chunk()?);
    datagram.get(UDP_LEN..usize::from(length))
}

/// Whether it is what a DHCP client says to all, or to this gateway.
pub(super) fn is_dhcp(heard: &Heard<'_>, ip: &Ipv4) -> bool {
    let to_us = ip.dst == Ipv4Addr::BROADCAST || heard.interface.has(ip.dst.into());
    let to_server = matches!(heard.head.transport, Transport::Udp { dst: dhcp::SERVER_PORT, .. });
    to_us && to_server && ip.fragment.is_none() && !ip.source_route
}

impl Speaker {
    /// Hears a DHCP client.
    pub(super) fn hear_dhcp(&mut self, heard: Heard<'_>, now: Instant) -> Result<(), Lost> {
        let Heard { routing, vlan, head, .. } = heard;
        let segment = self.segments.get(&vlan).ok_or(Lost::NoGateway)?;
        if !segment.dhcp.take(head.link.src, now) {
            return Err(Lost::Rate);
        }
        let payload = carried(&heard).ok_or(Lost::Malformed)?;
        let owner = |address: Ipv4Addr| self.neighbours.find(vlan, address.into(), now, false);
        let next = self.dhcp.receive((vlan, head.link.src), payload, now, owner).ok_or(Lost::NotOurs)?;
        self.go_on_to_serve(routing, vlan, next, now)
    }

    /// Somebody said that it has an address: no DHCP client gets it that waits for it.
    pub(super) fn hear_owner(
        &mut self,
        routing: &Routing,
        (vlan, address): (VlanId, Ipv4Addr),
        mac: MacAddr,
        now: Instant,
    ) {
        let owner = |address: Ipv4Addr| self.neighbours.find(vlan, address.into(), now, false);
        if let Some(next) = self.dhcp.heard((vlan, address), mac, now, owner)
            && let Err(why) = self.go_on_to_serve(routing, vlan, next, now)
        {
            self.counts.lose(why);
        }
    }

    /// Answers DHCP clients that waited until nobody was heard to have their address.
    pub(super) fn serve_who_waited(&mut self, routing: &Routing, now: Instant) {
        let owner = |vlan, address: Ipv4Addr| self.neighbours.find(vlan, address.into(), now, false);
        for (vlan, next) in self.dhcp.tick(now, owner) {
            if let Err(why) = self.go_on_to_serve(routing, vlan, next, now) {
                self.counts.lose(why);
            }
        }
    }

    fn go_on_to_serve(
        &mut self,
        routing: &Routing,
        vlan: VlanId,
        next: Next,
        now: Instant,
    ) -> Result<(), Lost> {
        match next {
            Next::Say(Reply { src, mac, dst, payload }) => {
                let ports = (dhcp::SERVER_PORT, dhcp::CLIENT_PORT);
                let frame = build::udp(link(routing, vlan, mac), Addresses::V4(src, dst), ports, &payload);
                // Whose share it is says the message: it may be for all to hear.
                let station =
                    payload.get(28..).and_then(<[u8]>::first_chunk).map_or(mac, |mac| MacAddr::new(*mac));
                self.answer((vlan, station), frame, now)
            }
            Next::Ask(address) => {
                // The gateway has an address in that network: else it would not be given.
                self.ask(routing, (vlan, address.into()), None);
                Ok(())
            }
            Next::Wait => Ok(()),
        }
    }

    /// Hears a TCP segment for [`METADATA`], whose checksum is right. False: nobody listens to it.
    pub(super) fn hear_metadata(&mut self, heard: &Heard<'_>, now: Instant) -> bool {
        let Transport::Tcp { dst: metadata::PORT, flags, .. } = heard.head.transport else { return false };
        let Network::Ipv4(ip) = heard.head.network else { return false };
        if ip.dst != METADATA || !heard.interface.tells_metadata() {
            return false;
        }
        let Some(packet) = own::packet(heard) else { return false };
        let asker = (heard.vlan, heard.head.link.src);
        let said = self.metadata.hear(
            asker,
            packet,
            flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::ACK),
            now,
        );
        let is_heard = said.is_some();
        self.say_segments(heard.routing, said.unwrap_or_default(), now);
        is_heard
    }

    /// Says again what hosts asked for and did not acknowledge.
    pub(super) fn tell_again(&mut self, routing: &Routing, now: Instant) {
        let said = self.metadata.tick(now);
        self.say_segments(routing, said, now);
    }

    fn say_segments(&mut self, routing: &Routing, said: Vec<Segment>, now: Instant) {
        for Segment { to: (vlan, mac), address, bytes } in said {
            let addresses = Addresses::V4(METADATA, address);
            let link = link(routing, vlan, mac);
            let frame = build::ip(link, addresses, TCP, own::HOPS, bytes, metadata::CHECKSUM_AT);
            if let Err(why) = self.answer((vlan, mac), frame, now) {
                self.counts.lose(why);
            }
        }
    }
}
