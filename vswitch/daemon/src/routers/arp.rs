//! ARP (RFC 826, RFC 5227).

use super::{Heard, Lost, Speaker, is_others, link};
use std::net::{IpAddr, Ipv4Addr};
use vswitch_core::{
    build::{self, Ethernet},
    clock::Instant,
    head::Arp,
};

const REQUEST: u16 = 1;
const REPLY: u16 = 2;

impl Speaker {
    /// Hears an ARP message.
    pub(super) fn hear_arp(&mut self, heard: Heard<'_>, arp: &Arp, now: Instant) -> Result<(), Lost> {
        let Heard { routing, interface, vlan, .. } = heard;
        if !matches!(arp.operation, REQUEST | REPLY) || !is_others(arp.sender_mac, routing) {
            return Err(Lost::Malformed);
        }
        let sender = IpAddr::from(arp.sender);
        if interface.has(sender) {
            self.defend(routing, (vlan, sender), now);
            return Ok(());
        }
        self.hear_owner(routing, (vlan, arp.sender), arp.sender_mac, now);
        let for_us = interface.has(arp.target.into());
        let asks_us = for_us && arp.operation == REQUEST;
        let is_neighbours = routing.is_neighbours(vlan, sender);
        let is_elsewhere = |address: Ipv4Addr| {
            let is_here = interface.said.addresses.iter().any(|own| own.contains(&IpAddr::from(address)));
            !(is_here || address.is_loopback() || address.is_multicast() || address.is_broadcast())
        };
        // One that asks for its own address tells others of it (RFC 5227 §3); one that has none yet is told whose it is (RFC 5227 §2.1.1).
        let asks_others = arp.operation == REQUEST && !for_us && arp.sender != arp.target;
        if interface.said.neigh_suppress && asks_others {
            if is_neighbours {
                self.learn_asker(routing, (vlan, sender), arp.sender_mac, now);
            }
            let back = heard.back();
            return self.answer_for(heard, arp.target.into(), now, |src| {
                build::arp_reply(Ethernet { src, ..back }, arp.target, arp.sender)
            });
        }
        if !(is_neighbours || asks_us && is_elsewhere(arp.sender)) {
            // Whoever it is, it cannot be reached by that address. A probe has none (RFC 5227 §1.1), and Linux asks in the name of whatever address its packet has:
            // these are answered, for the answer goes to a MAC address, and nothing is learned.
            return Err(Lost::Martian);
        }
        let key = (vlan, sender);
        // RFC 826, "Packet Reception": who is known is updated whoever is spoken to; only then who speaks to us is learned.
        let is_known = || self.knows(key, now).is_some() || self.asked.contains_key(&key);
        if is_neighbours && (for_us || is_known()) {
            self.learn_unasked(routing, key, arp.sender_mac, now);
        } else if !asks_us {
            return Err(Lost::NotOurs);
        }
        if asks_us {
            let link = link(routing, vlan, arp.sender_mac);
            self.answer_who(heard, build::arp_reply(link, arp.target, arp.sender), now)?;
        }
        Ok(())
    }
}
