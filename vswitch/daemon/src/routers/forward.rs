//! Packets at a router: what is its own, and what waits for a neighbour. Passing on is for workers: what waited goes to them again, as it came, but for
//! [what has to be cut](super::cut).

use super::{Heard, Lost, Speaker, has};
use std::net::IpAddr;
use vswitch_core::{
    clock::Instant,
    decide::{self, Routers, Waits},
    drop_reason::DropReason,
    head::{HEAD_BYTES, Head},
    route::Routing,
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
        match self.waits_for(heard, now)? {
            Waits::NotAtAll => {}
            waits => return self.forward(heard, waits, now),
        }
        let packet =
            decide::packet(head, heard.judged()).map_err(|_| Lost::Malformed)?.ok_or(Lost::NotOurs)?;
        let is_local = |address| match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        // Of IPv4 only that of metadata comes here, where somebody may listen to it or not.
        if packet.dst.is_ipv6() && is_local(packet.dst) && !has(routing, interface, packet.dst) {
            return Err(Lost::NotOurs);
        }
        let speaks = packet.dst.is_ipv4() || super::speaks_v6(interface);
        let is_neighbours = is_local(packet.dst) && is_local(packet.src) && speaks;
        if !is_neighbours && !packet.is_routable(interface, heard.router())
            || has(routing, interface, packet.src)
        {
            return Err(Lost::Martian);
        }
        self.hear_own(heard, now)
    }

    /// Whether a packet waits for a neighbour.
    pub(super) fn waits_for(&self, heard: Heard<'_>, now: Instant) -> Result<Waits, Lost> {
        let world = self.world.as_ref().ok_or(Lost::NoGateway)?;
        let Self { neighbours, connections, .. } = self;
        let routers = Routers { world, connections, neighbours, now, learning: true };
        routers.waits_for(heard.vlan, (&heard.view(), heard.head)).map_err(lost)
    }

    /// Keeps a packet until its next hop is known; lets it go on if that is known meanwhile.
    pub(super) fn forward(&mut self, heard: Heard<'_>, waits: Waits, now: Instant) -> Result<(), Lost> {
        match waits {
            Waits::For(vlan, next) => {
                heard.routing.interface(vlan).ok_or(Lost::NoRoute)?;
                self.hold(heard, (vlan, next), now)
            }
            Waits::NoMore(to) => {
                if let Some(mtu) = self.too_long_for(heard, to) {
                    return self.go_on_in_pieces(heard, (to, mtu), now);
                }
                self.counts.forwarded += u64::from(self.say(heard.frame.to_vec()));
                Ok(())
            }
            Waits::NotAtAll => Err(Lost::Changed),
        }
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

/// What a router's reason is here.
pub(super) const fn lost(reason: DropReason) -> Lost {
    match reason {
        DropReason::Martian => Lost::Martian,
        DropReason::TtlExceeded => Lost::TtlExceeded,
        DropReason::BadIpHeader | DropReason::SourceRoute => Lost::Malformed,
        DropReason::NatExhausted | DropReason::NatInvalid | DropReason::NatFragment => Lost::NotOurs,
        _ => Lost::NoRoute,
    }
}
