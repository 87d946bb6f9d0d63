//! Router advertisements (RFC 4861 §6.2, RFC 8106): hosts make addresses of their own, and know the way out and whom to ask for names.

use super::{ALL_NODES, ALL_NODES_MAC, Heard, Lost, Speaker, dns, link, link_local, nd};
use ipnet::IpNet;
use std::{net::Ipv6Addr, time::Duration};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    clock::Instant,
    head::Ipv6,
    route::{Interface, Routing},
    vlan::VlanId,
};

const ADVERTISEMENT: u8 = 134;

/// Options (RFC 4861 §4.6, RFC 8106 §5).
const SOURCE_LINK_LAYER: u8 = 1;
const PREFIX: u8 = 3;
const DNS_SERVERS: u8 = 25;
const DNS_SEARCH: u8 = 31;

/// For how many seconds hosts take the router for theirs, and names are asked there: three times the longest silence (RFC 4861 §6.2.1, RFC 8106 §5.1).
const LIFETIME: u16 = 1800;
/// For how many seconds addresses of a prefix are valid, and preferred: a day and four hours, so that a host outlives a switch that is started again.
const VALID: u32 = 86_400;
const PREFERRED: u32 = 14_400;

/// How many come soon after each other at first, and how soon (RFC 4861 §10).
const SOON: u8 = 3;
const SOON_EVERY: Duration = Duration::from_secs(16);

/// How long it is silent afterwards: from a third of this on, so that not all routers speak at once (RFC 4861 §6.2.4).
const MOST: Duration = Duration::from_secs(600);

/// When a VLAN's next one is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Advert {
    pub(super) due: Instant,
    sent: u8,
}

impl Advert {
    /// The first: at once.
    pub(super) const fn first() -> Self {
        Self { due: Instant::ZERO, sent: 0 }
    }

    /// One went.
    fn after(self, now: Instant, vlan: VlanId) -> Self {
        let sent = self.sent.saturating_add(1);
        if sent < SOON {
            return Self { due: now + SOON_EVERY, sent };
        }
        // As good as random, and the same in a test that is run again.
        let mixed = (now.as_nanos() ^ u64::from(vlan.number())).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let least = MOST / 3;
        let more = Duration::from_millis(mixed % ((MOST - least).as_millis() as u64));
        Self { due: now + least + more, sent }
    }
}

/// Whether a VLAN's gateway advertises itself.
pub(super) fn advertises(interface: &Interface) -> bool {
    interface.said.ra && super::speaks_v6(interface)
}

/// An advertisement of a gateway in `lab`.
fn advertisement(link: Ethernet, interface: &Interface, to: Ipv6Addr, lab: &str) -> Vec<u8> {
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, 64, 0];
    message.extend(LIFETIME.to_be_bytes());
    message.extend([0; 8]);
    message.extend([SOURCE_LINK_LAYER, 1]);
    message.extend(link.src.octets());
    let own = || {
        interface
            .said
            .addresses
            .iter()
            .filter_map(|own| if let IpNet::V6(own) = own { Some(own) } else { None })
    };
    // The link-local network is on every link anyway (RFC 4861 §4.6.2).
    let is_global = |own: &&ipnet::Ipv6Net| !own.addr().is_unicast_link_local();
    for own in own().filter(is_global) {
        // On-link; and hosts make addresses of it where it has the length that these need (RFC 4862 §5.5.3 (d)).
        let flags = if own.prefix_len() == 64 { 0xc0 } else { 0x80 };
        message.extend([PREFIX, 4, own.prefix_len(), flags]);
        message.extend(VALID.to_be_bytes());
        message.extend(PREFERRED.to_be_bytes());
        message.extend([0; 4]);
        message.extend(own.network().octets());
    }
    if let Some(server) = own().find(is_global).or_else(|| own().next()) {
        message.extend([DNS_SERVERS, 3, 0, 0]);
        message.extend(u32::from(LIFETIME).to_be_bytes());
        message.extend(server.addr().octets());
    }
    let mut search: Vec<u8> = dns::labels(&dns::domain(lab)).collect();
    search.resize(search.len().next_multiple_of(8), 0);
    // A lab's name is far shorter than what the option's length can say.
    message.extend([DNS_SEARCH, (1 + search.len() / 8) as u8, 0, 0]);
    message.extend(u32::from(LIFETIME).to_be_bytes());
    message.extend(search);
    build::ip(link, Addresses::V6(link_local(link.src), to), nd::ICMPV6, nd::HOPS, message, nd::CHECKSUM_AT)
}

impl Speaker {
    /// Hears a router solicitation: who asks is told alone, if it says who it is (RFC 4861 §6.2.6).
    pub(super) fn hear_solicitation(
        &mut self,
        heard: Heard<'_>,
        ip: &Ipv6,
        now: Instant,
    ) -> Result<(), Lost> {
        if !nd::is_sound_solicitation(&heard, ip) {
            return Err(Lost::Malformed);
        }
        if !advertises(heard.interface) {
            return Err(Lost::NotOurs);
        }
        let (link, to) = if ip.src.is_unspecified() {
            (link(heard.routing, heard.vlan, ALL_NODES_MAC), ALL_NODES)
        } else {
            (heard.back(), ip.src)
        };
        let frame = advertisement(link, heard.interface, to, &self.lab);
        self.answer((heard.vlan, heard.head.link.src), frame, now)
    }

    /// Says what is due.
    pub(super) fn advertise(&mut self, routing: &Routing, now: Instant) {
        let due: Vec<VlanId> =
            self.adverts.iter().filter(|(_, advert)| advert.due <= now).map(|(vlan, _)| *vlan).collect();
        for vlan in due {
            let Some(interface) = routing.interface(vlan) else { continue };
            let frame = advertisement(link(routing, vlan, ALL_NODES_MAC), interface, ALL_NODES, &self.lab);
            self.counts.announced += u64::from(self.say(frame));
            self.adverts.entry(vlan).and_modify(|advert| *advert = advert.after(now, vlan));
        }
    }
}
