//! What a gateway does for hosts besides passing on: it gives addresses (DHCP), tells names (DNS), and hosts of themselves (HTTP).

use super::{
    Heard, Key, Lost, Speaker,
    dhcp::{self, Next, Reply},
    dns::{
        self, Leased, Said,
        upstream::{self, Asker, Asks},
    },
    link,
    metadata::{self, Segment},
    own,
};
use std::net::{IpAddr, Ipv4Addr};
use vswitch_core::{
    build::{self, Addresses},
    clock::Instant,
    head::{Ipv4, Network, TcpFlags, Transport},
    mac::MacAddr,
    route::{METADATA, Neighbours, Router, Routing},
    vlan::VlanId,
};

/// Of UDP: ports, length, checksum.
const UDP_LEN: usize = 8;

const TCP: u8 = 6;

/// What a datagram carries, if that is whole and its checksum right.
fn carried<'a>(heard: &Heard<'a>) -> Option<&'a [u8]> {
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
                self.answer(vlan, frame, now)
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
            if let Err(why) = self.answer(vlan, frame, now) {
                self.counts.lose(why);
            }
        }
    }

    /// Hears a question about a name.
    pub(super) fn hear_dns(&mut self, heard: Heard<'_>, from: u16, now: Instant) -> Result<(), Lost> {
        let segment = self.segments.get(&heard.vlan).ok_or(Lost::NoGateway)?;
        if !segment.answers.has(heard.head.link.src, now) {
            return Err(Lost::Rate);
        }
        let payload = carried(&heard).ok_or(Lost::Malformed)?;
        let leases = self.dhcp.leases(now);
        let leased = leases.iter().filter(|lease| lease.is_bound).filter_map(|lease| {
            let name = lease.name.as_deref()?;
            Some(Leased { vlan: lease.vlan, name, address: IpAddr::V4(lease.address) })
        });
        let said = self.dns.answer(heard.vlan, payload, &leased).ok_or(Lost::NotOurs)?;
        // Back to whom it came from, from where it went.
        let addresses = match heard.head.network {
            Network::Ipv4(ip) => Addresses::V4(ip.dst, ip.src),
            Network::Ipv6(ip) => Addresses::V6(ip.dst, ip.src),
            Network::Arp(_) | Network::Other | Network::Unparsed(_) => return Err(Lost::Malformed),
        };
        let asker = Asker { vlan: heard.vlan, mac: heard.head.link.src, addresses, port: from };
        match said {
            Said::Here(answer) => self.tell_asker(heard.routing, asker, &answer, now),
            Said::Elsewhere => self.ask_others(heard, asker, payload, now),
        }
    }

    /// Answers a question about a name.
    fn tell_asker(
        &mut self,
        routing: &Routing,
        asker: Asker,
        answer: &[u8],
        now: Instant,
    ) -> Result<(), Lost> {
        let link = link(routing, asker.vlan, asker.mac);
        let frame = build::udp(link, asker.addresses, (dns::PORT, asker.port), answer);
        self.answer(asker.vlan, frame, now)
    }

    /// Asks the first of the router's name servers to whom a way leads.
    fn ask_others(
        &mut self,
        heard: Heard<'_>,
        asker: Asker,
        message: &[u8],
        now: Instant,
    ) -> Result<(), Lost> {
        let router = heard.router();
        for (place, server) in router.nameservers().iter().enumerate() {
            let Some(key) = way(router, *server) else { continue };
            if self.knows(key, now).is_some() {
                let asks = self.upstream.take(asker, message, place, now).ok_or(Lost::TooMany)?;
                let question = question(heard.routing, router, &asks, &self.neighbours, now);
                self.counts.asked += u64::from(question.is_ok_and(|frame| self.say(frame)));
                return Ok(());
            }
            if !self.failed.has(key, now) {
                return self.hold(heard, key, now);
            }
        }
        let answer = upstream::failure(message).ok_or(Lost::Malformed)?;
        self.tell_asker(heard.routing, asker, &answer, now)
    }

    /// Asks the next name server where one did not answer; where none is left, the asker is told so.
    pub(super) fn ask_others_again(&mut self, routing: &Routing, now: Instant) {
        while let Some((port, asker)) = self.upstream.overdue(now) {
            let Some(interface) = routing.interface(asker.vlan) else { return self.upstream.clear() };
            let router = routing.router(interface);
            if let Some(asks) = self.upstream.again(port, router.nameservers().len(), now) {
                match question(routing, router, &asks, &self.neighbours, now) {
                    Ok(frame) => self.counts.asked += u64::from(self.say(frame)),
                    // For whoever asks next.
                    Err(Some(key)) => _ = self.ask(routing, key, None),
                    Err(None) => {}
                }
                continue;
            }
            if let Some((asker, answer)) = self.upstream.give_up(port)
                && let Err(why) = self.tell_asker(routing, asker, &answer, now)
            {
                self.counts.lose(why);
            }
        }
    }

    /// Hears what may be a name server's answer.
    pub(super) fn hear_name_server(&mut self, heard: Heard<'_>, port: u16, now: Instant) -> Result<(), Lost> {
        let payload = carried(&heard).ok_or(Lost::Malformed)?;
        let Heard { routing, head, .. } = heard;
        let from = match (head.network, head.transport) {
            (Network::Ipv4(ip), Transport::Udp { src, .. }) => (ip.src.into(), src),
            (Network::Ipv6(ip), Transport::Udp { src, .. }) => (ip.src.into(), src),
            _ => return Err(Lost::Malformed),
        };
        // Of the router whose question it is, and no other.
        let asked = self.upstream.asker(port).and_then(|asker| routing.interface(asker.vlan));
        let router = asked.map(|asked| routing.router(asked));
        let router = router.filter(|router| std::ptr::eq(*router, heard.router())).ok_or(Lost::NotOurs)?;
        let answer = self.upstream.answer(port, (from, router.nameservers()), payload, now);
        let (asker, answer) = answer.ok_or(Lost::NotOurs)?;
        self.tell_asker(routing, asker, &answer, now)
    }
}

/// Who leads from a router to an address.
fn way(router: &Router, to: IpAddr) -> Option<Key> {
    router.find(to)?.onward.next(to, || 0)
}

/// A question for one of a router's name servers; else who would lead there, if somebody would.
fn question(
    routing: &Routing,
    router: &Router,
    asks: &Asks<'_>,
    neighbours: &Neighbours,
    now: Instant,
) -> Result<Vec<u8>, Option<Key>> {
    let server = *router.nameservers().get(asks.server).ok_or(None)?;
    let (vlan, next) = way(router, server).ok_or(None)?;
    let mac = neighbours.find(vlan, next, now, false).ok_or(Some((vlan, next)))?;
    let own = routing.interface(vlan).and_then(|interface| interface.source(next));
    let addresses = match (own, server) {
        (Some(IpAddr::V4(own)), IpAddr::V4(server)) => Addresses::V4(own, server),
        (Some(IpAddr::V6(own)), IpAddr::V6(server)) => Addresses::V6(own, server),
        _ => return Err(None),
    };
    Ok(build::udp(link(routing, vlan, mac), addresses, (asks.port, dns::PORT), asks.message))
}
