//! Packets at a router: what is its own, and what it passes on that no worker could.

use super::{Heard, Lost, Speaker, has};
use std::net::IpAddr;
use vswitch_core::{
    clock::Instant,
    decide,
    flow::Flow,
    head::{ETHERNET_LEN, HEAD_BYTES, Head},
    route::{Onward, Rewrite, Routing},
    vlan::VlanId,
};

impl Speaker {
    /// Hears an IP packet that is no neighbour's message.
    pub(super) fn hear_packet(&mut self, heard: Heard<'_>, now: Instant) -> Result<(), Lost> {
        let Heard { routing, interface, head, .. } = heard;
        // RFC 1812 §5.3.4: what came to all is passed on to nobody, and RFC 1122 §3.2.2: not answered.
        if head.link.dst.is_group() {
            return Err(Lost::NotOurs);
        }
        let packet =
            decide::packet(head, heard.judged()).map_err(|_| Lost::Malformed)?.ok_or(Lost::NotOurs)?;
        let is_local = |address| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        let own = || heard.router().find(packet.dst).is_some_and(|route| route.onward == Onward::Own);
        if is_local(packet.dst) && !has(routing, interface, packet.dst) {
            return Err(Lost::NotOurs);
        }
        let is_own = is_local(packet.dst) || own();
        let is_neighbours = is_own && is_local(packet.src) && super::speaks_v6(interface);
        if !is_neighbours && !packet.is_routable(interface, heard.router())
            || has(routing, interface, packet.src)
        {
            return Err(Lost::Martian);
        }
        if is_own { self.hear_own(heard, now) } else { self.forward(heard, now) }
    }

    /// Passes a packet on that is another's, or keeps it until its next hop is known.
    pub(super) fn forward(&mut self, heard: Heard<'_>, now: Instant) -> Result<(), Lost> {
        let Heard { routing, head, frame, .. } = heard;
        let packet =
            decide::packet(head, heard.judged()).map_err(|_| Lost::Malformed)?.ok_or(Lost::NotOurs)?;
        if !packet.is_routable(heard.interface, heard.router()) {
            return Err(Lost::Martian);
        }
        if packet.hops <= 1 {
            return Err(Lost::TtlExceeded);
        }
        let route = heard.router().find(packet.dst).ok_or(Lost::NoRoute)?;
        let flow = || Flow::of(heard.judged(), frame.len() as u32).number();
        let key = route.onward.next(packet.dst, flow).ok_or(Lost::NoRoute)?;
        routing.interface(key.0).ok_or(Lost::NoRoute)?;
        let Some(mac) = self.neighbours.find(key.0, key.1, now, true) else {
            return self.hold(heard, key, now);
        };
        let mut frame = frame.to_vec();
        // Priority and drop eligibility stay; every frame here has a tag.
        let tci = head.link.outer.ok_or(Lost::Malformed)?.tci.with_vlan(key.0);
        frame[ETHERNET_LEN..ETHERNET_LEN + 2].copy_from_slice(&tci.bits().to_be_bytes());
        Rewrite { dst: mac, src: routing.mac, at: head.link.len }.apply(&mut frame);
        self.counts.forwarded += u64::from(self.say(frame));
        Ok(())
    }

    /// Reads a frame again that waited, if its VLAN has its gateway still.
    pub(super) fn with(&mut self, routing: &Routing, frame: &[u8], then: impl FnOnce(&mut Self, Heard<'_>)) {
        let judged = &frame[..frame.len().min(HEAD_BYTES)];
        let Ok(head) = Head::parse(judged, frame.len() as u32) else { return };
        let vlan = head.link.outer.and_then(|tag| VlanId::new(tag.tci.vid()));
        let Some((vlan, interface)) = vlan.and_then(|vlan| Some((vlan, routing.interface(vlan)?))) else {
            self.counts.lose(Lost::Changed);
            return;
        };
        then(self, Heard { routing, interface, vlan, head: &head, frame });
    }
}
