//! Names at a gateway: those of the lab it tells itself, and others' it asks of its router's name servers, for whoever asked it.

use super::{
    Heard, Key, Lost, Speaker,
    dns::{
        self, Said,
        upstream::{Asker, Taken, failure},
    },
    link, serve,
};
use std::net::IpAddr;
use vswitch_core::{
    build::{self, Addresses},
    clock::Instant,
    head::{Network, Transport},
    route::{Router, Routing},
};

const UDP: u8 = 17;

/// Why a name server is not asked now.
enum NotAsked {
    /// Who leads there has to be found first.
    Unknown(Key),
    /// Nobody leads there, or who does is silent.
    NoWay,
}

/// Who leads from a router to an address.
fn way(router: &Router, to: IpAddr) -> Option<Key> {
    router.find(to)?.onward.next(to, || 0)
}

impl Speaker {
    /// Hears a question about a name.
    pub(super) fn hear_dns(&mut self, heard: Heard<'_>, from: u16, now: Instant) -> Result<(), Lost> {
        let (vlan, mac) = (heard.vlan, heard.head.link.src);
        let segment = self.segments.get(&vlan).ok_or(Lost::NoGateway)?;
        if !segment.answers.has(mac, now) {
            return Err(Lost::Rate);
        }
        let payload = serve::carried(&heard).ok_or(Lost::Malformed)?;
        let said = self.dns.answer(vlan, payload, &self.dhcp.named(now)).ok_or(Lost::NotOurs)?;
        // Back to whom it came from, from where it went.
        let addresses = match heard.head.network {
            Network::Ipv4(ip) => Addresses::V4(ip.dst, ip.src),
            Network::Ipv6(ip) => Addresses::V6(ip.dst, ip.src),
            Network::Arp(_) | Network::Other | Network::Unparsed(_) => return Err(Lost::Malformed),
        };
        // Whatever comes of it, that was one.
        if !segment.answers.take(mac, now) {
            return Err(Lost::Rate);
        }
        let asker = Asker { vlan, mac, addresses, port: from };
        match said {
            Said::Here(answer) => self.tell_asker(heard.routing, asker, &answer),
            Said::Elsewhere => self.ask_others(heard, asker, payload, now),
        }
        Ok(())
    }

    /// Tells who asked.
    fn tell_asker(&mut self, routing: &Routing, asker: Asker, answer: &[u8]) {
        let link = link(routing, asker.vlan, asker.mac);
        let frame = build::udp(link, asker.addresses, (dns::PORT, asker.port), answer);
        self.counts.answered += u64::from(self.say(frame));
    }

    /// Asks the router's name servers, the first of them at once.
    fn ask_others(&mut self, heard: Heard<'_>, asker: Asker, message: &[u8], now: Instant) {
        let nat = heard.router().nat();
        let is_forwarded = |port| nat.is_some_and(|nat| nat.forwards(UDP, port));
        match self.upstream.take(asker, message, is_forwarded, now) {
            Taken::Asks(port) => {
                self.ask_name_server(heard.routing, port, now);
                // Where nobody leads to the first.
                self.ask_others_again(heard.routing, now);
            }
            Taken::UnderWay => {}
            Taken::TooMany => {
                self.counts.lose(Lost::TooMany);
                if let Some(answer) = failure(message) {
                    self.tell_asker(heard.routing, asker, &answer);
                }
            }
        }
    }

    /// Asks the name server whose turn it is for this question; who leads there is looked for first if it is not known.
    fn ask_name_server(&mut self, routing: &Routing, port: u16, now: Instant) {
        match self.question(routing, port, now) {
            Ok(frame) => {
                self.upstream.sent(port);
                self.counts.asked += u64::from(self.say(frame));
            }
            Err(NotAsked::Unknown(key)) => {
                if let Some(asker) = self.upstream.asker(port)
                    && let Err(why) = self.seek(routing, key, asker.vlan, now)
                {
                    self.counts.lose(why);
                }
            }
            Err(NotAsked::NoWay) => self.upstream.hurry(port, now),
        }
    }

    /// The name server whose turn it is for this question, who leads there, and what it is asked.
    fn turn(&self, routing: &Routing, port: u16) -> Option<(IpAddr, Key, &[u8])> {
        let (asker, (place, message)) = self.upstream.asker(port).zip(self.upstream.current(port))?;
        let router = routing.router(routing.interface(asker.vlan)?);
        let server = *router.nameservers().get(place)?;
        Some((server, way(router, server)?, message))
    }

    /// The frame that asks it.
    fn question(&self, routing: &Routing, port: u16, now: Instant) -> Result<Vec<u8>, NotAsked> {
        let (server, key, message) = self.turn(routing, port).ok_or(NotAsked::NoWay)?;
        let (vlan, next) = key;
        let Some(mac) = self.knows(key, now) else {
            let is_silent = self.failed.has(key, now);
            return Err(if is_silent { NotAsked::NoWay } else { NotAsked::Unknown(key) });
        };
        let own = routing.interface(vlan).and_then(|interface| interface.source(next));
        let addresses = match (own, server) {
            (Some(IpAddr::V4(own)), IpAddr::V4(server)) => Addresses::V4(own, server),
            (Some(IpAddr::V6(own)), IpAddr::V6(server)) => Addresses::V6(own, server),
            _ => return Err(NotAsked::NoWay),
        };
        Ok(build::udp(link(routing, vlan, mac), addresses, (port, dns::PORT), message))
    }

    /// It is known now who has an address: questions go out that waited for that.
    pub(super) fn ask_who_is_found(&mut self, routing: &Routing, key: Key, now: Instant) {
        for port in self.upstream.unsent() {
            if self.turn(routing, port).is_some_and(|(_, leads_there, _)| leads_there == key) {
                self.ask_name_server(routing, port, now);
            }
        }
    }

    /// Asks the next name server where one did not answer; where none is left, the asker is told so.
    pub(super) fn ask_others_again(&mut self, routing: &Routing, now: Instant) {
        while let Some((port, asker)) = self.upstream.overdue(now) {
            let servers = routing
                .interface(asker.vlan)
                .map_or(0, |interface| routing.router(interface).nameservers().len());
            if self.upstream.next(port, servers, now) {
                self.ask_name_server(routing, port, now);
            } else if let Some((asker, answer)) = self.upstream.give_up(port) {
                self.tell_asker(routing, asker, &answer);
            }
        }
    }

    /// Hears what may be a name server's answer. Of all else that comes to such ports nothing is said, so that nobody learns from which of them is asked.
    pub(super) fn hear_name_server(&mut self, heard: Heard<'_>, port: u16, now: Instant) -> Result<(), Lost> {
        let payload = serve::carried(&heard).ok_or(Lost::Malformed)?;
        let Heard { routing, head, .. } = heard;
        let (from, from_port) = match (head.network, head.transport) {
            (Network::Ipv4(ip), Transport::Udp { src, .. }) => (IpAddr::from(ip.src), src),
            (Network::Ipv6(ip), Transport::Udp { src, .. }) => (IpAddr::from(ip.src), src),
            _ => return Err(Lost::Malformed),
        };
        // Of the router whose question it is, and from where a way leads to who says it.
        let asked = self.upstream.asker(port).and_then(|asker| routing.interface(asker.vlan));
        let router = asked.map(|asked| routing.router(asked));
        let router = router.filter(|router| way(router, from).is_some_and(|(vlan, _)| vlan == heard.vlan));
        let router = router.ok_or(Lost::NotOurs)?;
        let answer = self.upstream.answer(port, ((from, from_port), router.nameservers()), payload, now);
        let (asker, answer) = answer.ok_or(Lost::NotOurs)?;
        self.tell_asker(routing, asker, &answer);
        Ok(())
    }
}
