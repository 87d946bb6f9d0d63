//! Answers for neighbours, where a VLAN says `neigh-suppress`: who asks for one that is known is told by the gateway, and nobody else heard the question.

use super::{Heard, Key, Lost, Speaker};
use std::net::IpAddr;
use vswitch_core::{clock::Instant, mac::MacAddr, route::Routing};

impl Speaker {
    /// Somebody asks for a neighbour; `answer` is what is said if it has that MAC address.
    ///
    /// Workers leave to us what we know, and flood the rest: what is stated in the topology file, or leased, we ask for ourselves then, so that the next one is
    /// answered. Whom we answered for counts as used: it is asked whether it is still there (`alive`).
    pub(super) fn answer_for(
        &mut self,
        heard: Heard<'_>,
        target: IpAddr,
        now: Instant,
        answer: impl FnOnce(MacAddr) -> Vec<u8>,
    ) -> Result<(), Lost> {
        let key = (heard.vlan, target);
        match self.neighbours.find(heard.vlan, target, now, true) {
            Some(mac) if mac == heard.head.link.src => Err(Lost::NotOurs),
            Some(mac) => {
                self.answer_who(heard, answer(mac), now)?;
                self.counts.answered_for += 1;
                Ok(())
            }
            None if self.is_expected(heard, key, now) => self.seek(heard.routing, key, heard.vlan, now),
            None => Err(Lost::NotOurs),
        }
    }

    /// Learns of who asked, but nothing else of an address that is known: who has that is asked when its time comes, or tells all.
    pub(super) fn learn_asker(&mut self, routing: &Routing, key: Key, mac: MacAddr, now: Instant) {
        if self.knows(key, now).is_none_or(|known| known == mac) {
            self.learn_unasked(routing, key, mac, now);
        }
    }

    /// Whether somebody is to have that address.
    fn is_expected(&self, heard: Heard<'_>, (vlan, address): Key, now: Instant) -> bool {
        heard.routing.stated(vlan, address).is_some() || self.dhcp.is_leased(vlan, address, now)
    }
}
