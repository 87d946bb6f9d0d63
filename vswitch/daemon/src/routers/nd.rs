//! Neighbour discovery of IPv6 (RFC 4861), as far as it finds addresses.

use super::{ALL_NODES, Heard, Key, Lost, Speaker, has, is_others, link, own};
use std::net::{IpAddr, Ipv6Addr};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    clock::Instant,
    head::{Head, Ipv6, Network, Transport},
    mac::MacAddr,
    route::Routing,
};

pub(super) const ICMPV6: u8 = 58;
const ROUTER_SOLICITATION: u8 = 133;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Bytes of both messages before their options: type, code, checksum, flags, target (RFC 4861 §4.3, §4.4).
const MESSAGE_LEN: usize = 24;

/// The Internet Control Message Protocol's checksum stands there.
pub(super) const CHECKSUM_AT: usize = 2;

/// The hop limit of a message that no router passed on (RFC 4861 §3.1).
pub(super) const HOPS: u8 = 255;

/// Options (RFC 4861 §4.6.1).
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

/// Flags of an advertisement (RFC 4861 §4.4): from a router, asked for, to be taken instead of what was known.
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// A solicitation or an advertisement that is valid (RFC 4861 §7.1).
struct Message {
    flags: u8,
    target: Ipv6Addr,
    source_mac: Option<MacAddr>,
    target_mac: Option<MacAddr>,
}

/// Whether it is a message of neighbour discovery: of types 133 to 137.
pub(super) const fn is_message(head: &Head) -> bool {
    matches!((head.network, head.transport), (Network::Ipv6(_), Transport::Icmpv6 { kind: 133..=137, .. }))
}

/// Tells all nodes that an address is the router's (RFC 4861 §7.2.6).
pub(super) fn unsolicited(link: Ethernet, own: Ipv6Addr) -> Vec<u8> {
    advertisement(link, own, ALL_NODES, ROUTER | OVERRIDE)
}

fn advertisement(link: Ethernet, own: Ipv6Addr, to: Ipv6Addr, flags: u8) -> Vec<u8> {
    message(link, Addresses::V6(own, to), (ADVERTISEMENT, flags), own, TARGET_LINK_LAYER)
}

/// Asks a neighbour whose address is known whether it is there (RFC 4861 §7.3.3).
pub(super) fn solicitation(link: Ethernet, own: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    message(link, Addresses::V6(own, target), (SOLICITATION, 0), target, SOURCE_LINK_LAYER)
}

/// A message with the routers' MAC address as its option.
fn message(
    link: Ethernet,
    addresses: Addresses,
    (kind, flags): (u8, u8),
    target: Ipv6Addr,
    option: u8,
) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    message.extend([option, 1]);
    message.extend(link.src.octets());
    build::ip(link, addresses, ICMPV6, HOPS, message, CHECKSUM_AT)
}

/// Whether a router solicitation is valid (RFC 4861 §6.1.1).
pub(super) fn is_sound_solicitation(heard: &Heard<'_>, ip: &Ipv6) -> bool {
    let whole = ip.fragment.is_none() && ip.hop_limit == HOPS && own::is_sound(heard);
    let Some(message) = own::payload(heard).filter(|_| whole) else { return false };
    let Some((fixed, mut options)) = message.split_first_chunk::<8>() else { return false };
    let mut names_itself = false;
    while let [kind, units, ..] = *options {
        let len = usize::from(units) * 8;
        let Some((_, rest)) = options.split_at_checked(len).filter(|_| len > 0) else { return false };
        names_itself |= kind == SOURCE_LINK_LAYER;
        options = rest;
    }
    fixed[1] == 0 && options.is_empty() && !(names_itself && ip.src.is_unspecified())
}

impl Message {
    /// What is the same of both.
    fn read(heard: &Heard<'_>, ip: &Ipv6) -> Option<Self> {
        let whole = ip.fragment.is_none() && ip.hop_limit == HOPS;
        let bytes = own::payload(heard).filter(|_| whole && own::is_sound(heard))?;
        let (fixed, mut options) = bytes.split_first_chunk::<MESSAGE_LEN>()?;
        let target = Ipv6Addr::from(*fixed[8..].first_chunk::<16>()?);
        if fixed[1] != 0 || target.is_multicast() {
            return None;
        }
        let mut message = Self { flags: fixed[4], target, source_mac: None, target_mac: None };
        while let [kind, units, ..] = *options {
            // An option of no length would have no end (RFC 4861 §4.6).
            let len = usize::from(units) * 8;
            let (option, rest) = options.split_at_checked(len).filter(|_| len > 0)?;
            let mac = || Some(MacAddr::new(*option.get(2..)?.first_chunk()?));
            match kind {
                SOURCE_LINK_LAYER => message.source_mac = mac(),
                TARGET_LINK_LAYER => message.target_mac = mac(),
                _ => {}
            }
            options = rest;
        }
        options.is_empty().then_some(message)
    }
}

impl Speaker {
    /// Hears a message of neighbour discovery.
    pub(super) fn hear_nd(&mut self, heard: Heard<'_>, ip: &Ipv6, now: Instant) -> Result<(), Lost> {
        match heard.head.transport {
            Transport::Icmpv6 { kind: ROUTER_SOLICITATION, .. } => self.hear_solicitation(heard, ip, now),
            Transport::Icmpv6 { kind: SOLICITATION, .. } => {
                let message = Message::read(&heard, ip).ok_or(Lost::Malformed)?;
                self.solicited(heard, ip, &message, now)
            }
            Transport::Icmpv6 { kind: ADVERTISEMENT, .. } => {
                let message = Message::read(&heard, ip).ok_or(Lost::Malformed)?;
                self.advertised(heard, ip, &message, now)
            }
            // Router solicitations and advertisements, redirects.
            _ => Err(Lost::NotOurs),
        }
    }

    /// Somebody asks for an address (RFC 4861 §7.2.3).
    fn solicited(&mut self, heard: Heard<'_>, ip: &Ipv6, asked: &Message, now: Instant) -> Result<(), Lost> {
        let Heard { routing, interface, vlan, .. } = heard;
        let is_probe = ip.src.is_unspecified();
        // RFC 4861 §7.1.1: who has no address yet asks the group of the one that it wants, and has no option.
        if is_probe && (!is_solicited_node(ip.dst) || asked.source_mac.is_some()) || ip.src.is_multicast() {
            return Err(Lost::Malformed);
        }
        let source_mac = asked.source_mac.unwrap_or(heard.head.link.src);
        if !is_others(source_mac, routing) {
            return Err(Lost::Malformed);
        }
        if !has(routing, interface, asked.target.into()) {
            return self.solicited_for(heard, ip, asked, now);
        }
        if is_probe {
            // RFC 4861 §7.2.4: to all nodes, so that it hears that the address is taken.
            let link = link(routing, vlan, super::ALL_NODES_MAC);
            return self.answer_who(heard, unsolicited(link, asked.target), now);
        }
        let src = IpAddr::from(ip.src);
        if has(routing, interface, src) {
            self.defend(routing, (vlan, src), now);
            return Ok(());
        }
        let is_neighbours = routing.is_neighbours(vlan, src);
        if !is_neighbours && !ip.src.is_unicast_link_local() {
            return Err(Lost::Martian);
        }
        if is_neighbours && asked.source_mac.is_some() {
            self.learn_unasked(routing, (vlan, src), source_mac, now);
        }
        let link = link(routing, vlan, source_mac);
        let answer = advertisement(link, asked.target, ip.src, ROUTER | SOLICITED | OVERRIDE);
        self.answer_who(heard, answer, now)
    }

    /// Somebody asks for an address that is another neighbour's: what that would say is said, but not whether it is a router.
    fn solicited_for(
        &mut self,
        heard: Heard<'_>,
        ip: &Ipv6,
        asked: &Message,
        now: Instant,
    ) -> Result<(), Lost> {
        let Heard { routing, interface, vlan, .. } = heard;
        if !interface.said.neigh_suppress || asked.target.is_unicast_link_local() {
            return Err(Lost::NotOurs);
        }
        if let Some(mac) = asked.source_mac.filter(|_| routing.is_neighbours(vlan, ip.src.into())) {
            self.learn_asker(routing, (vlan, ip.src.into()), mac, now);
        }
        let back = heard.back();
        self.answer_for(heard, asked.target.into(), now, |src| {
            // RFC 4861 §7.2.4: to all nodes, if the asker has no address yet.
            if ip.src.is_unspecified() {
                let link = Ethernet { src, dst: super::ALL_NODES_MAC, ..back };
                return advertisement(link, asked.target, ALL_NODES, OVERRIDE);
            }
            advertisement(Ethernet { src, ..back }, asked.target, ip.src, SOLICITED | OVERRIDE)
        })
    }

    /// Somebody says who has an address (RFC 4861 §7.2.5).
    fn advertised(&mut self, heard: Heard<'_>, ip: &Ipv6, said: &Message, now: Instant) -> Result<(), Lost> {
        let Heard { routing, interface, vlan, .. } = heard;
        let flag = |flag| said.flags & flag != 0;
        if ip.src.is_unspecified() || ip.src.is_multicast() || ip.dst.is_multicast() && flag(SOLICITED) {
            return Err(Lost::Malformed);
        }
        let target = IpAddr::from(said.target);
        if has(routing, interface, target) {
            self.defend(routing, (vlan, target), now);
            return Ok(());
        }
        if said.target_mac.is_some_and(|mac| !is_others(mac, routing)) {
            return Err(Lost::Malformed);
        }
        let key = (vlan, target);
        if !routing.is_neighbours(vlan, target) {
            return Err(Lost::Martian);
        }
        match (self.knows(key, now), said.target_mac) {
            (Some(known), said) => {
                let news = said.filter(|mac| *mac != known);
                self.advertised_again(routing, (key, known), news, said_flags(flag), now);
                Ok(())
            }
            (None, Some(mac)) if self.asked.contains_key(&key) => {
                self.learn(routing, key, mac, now);
                Ok(())
            }
            // Nobody asked, or the answer says nothing.
            (None, _) => Err(Lost::NotOurs),
        }
    }

    /// A known neighbour speaks. `news`: its MAC address is said to be another.
    fn advertised_again(
        &mut self,
        routing: &Routing,
        (key, known): (Key, MacAddr),
        news: Option<MacAddr>,
        (solicited, overrides): (bool, bool),
        now: Instant,
    ) {
        match news {
            Some(mac) if overrides => self.learn(routing, key, mac, now),
            // Whether it is so, whom we know is asked.
            Some(_) => self.probe(routing, (key, known), now),
            None if solicited => self.learn(routing, key, known, now),
            None => {}
        }
    }
}

/// Whether it was asked for, and whether it is to be taken.
fn said_flags(flag: impl Fn(u8) -> bool) -> (bool, bool) {
    (flag(SOLICITED), flag(OVERRIDE))
}

/// Whether it is the group in which nodes with some address are asked for (RFC 4291 §2.7.1).
fn is_solicited_node(group: Ipv6Addr) -> bool {
    group.octets().starts_with(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff])
}
