//! The firewalls on the way of a row of frames, for what nearly every frame is there: one of a connection that is established at both. It
//! asks no rule and parses no more than it needs; whatever is unlike that is judged by [`super::filter`], which is the rule that this must equal.

use super::{Switch, guard};
use crate::{
    clock::Instant,
    firewall::{
        connections::{Common, Connections, Event, Hosts, Scope},
        interface::{Firewall, Networks},
        policy::Direction,
    },
    id::Epoch,
    mac::MacAddr,
    vlan::VlanId,
    world::Port,
};

/// Between two ports of a VLAN, of which one at least has a firewall.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gates<'a> {
    connections: &'a Connections,
    now: Instant,
    sender: Option<Sender<'a>>,
    from: Option<Gate>,
    to: Option<Gate>,
}

/// Where connections of one port are looked up.
#[derive(Debug, Clone, Copy)]
struct Gate {
    scope: Scope,
    epoch: Epoch,
}

/// What the sending guest may say of itself.
#[derive(Debug, Clone, Copy)]
struct Sender<'a> {
    /// None: anything.
    networks: Option<&'a Networks>,
    dhcp_server: bool,
}

impl<'a> Gates<'a> {
    /// None if nothing from this address passes there.
    pub(super) fn between(
        switch: &Switch<'a>,
        vlan: VlanId,
        src: MacAddr,
        (from, to): (&'a Port, &'a Port),
    ) -> Option<Self> {
        let gate = |port: &Port, firewall: &Firewall| {
            let passes = firewall.policy.is_ok();
            passes.then_some(Gate { scope: Scope { port: port.id, vlan }, epoch: firewall.epoch })
        };
        let (mut gates, mut sender) = ([None; 2], None);
        for (place, port) in [from, to].into_iter().enumerate() {
            if let Some(firewall) = &port.firewall {
                gates[place] = Some(gate(port, firewall)?);
            }
        }
        if let Some(firewall) = &from.firewall {
            let networks = match &firewall.identity {
                Some(identity) => Some(identity.networks(src)?),
                None => None,
            };
            sender = Some(Sender { networks, dhcp_server: firewall.dhcp_server });
        }
        let [from, to] = gates;
        Some(Self { connections: switch.connections, now: switch.now, sender, from, to })
    }

    /// How many of these frames, from the first on, pass because their connections are established. Each is given by its first bytes and its length; what
    /// its EtherType announces is `at` that place.
    pub(super) fn pass<'f>(&self, at: usize, frames: impl Iterator<Item = (&'f [u8], u32)>) -> usize {
        frames.take_while(|(bytes, len)| self.passes(at, bytes, *len)).count()
    }

    #[inline(always)]
    fn passes(&self, at: usize, bytes: &[u8], len: u32) -> bool {
        let Some(ethertype) = at.checked_sub(2).and_then(|at| bytes.get(at..)?.first_chunk()) else {
            return false;
        };
        let Some(frame) = Common::read(u16::from_be_bytes(*ethertype), at, bytes, len) else { return false };
        let carries = |gate: Option<Gate>, direction| match gate {
            None => true,
            Some(Gate { scope, epoch }) => {
                let digest = self.connections.digest(&frame.key(scope, direction));
                self.connections.carries(digest, direction, frame.event(), epoch, self.now)
            }
        };
        self.sender.is_none_or(|sender| sender.may_send(&frame))
            && carries(self.from, Direction::Egress)
            && carries(self.to, Direction::Ingress)
    }
}

impl Sender<'_> {
    #[inline(always)]
    fn may_send(&self, frame: &Common) -> bool {
        let (is_v4, is_own) = match (frame.hosts(), self.networks) {
            (Hosts::V4(src, _), Some(networks)) => (true, networks.has_v4(src)),
            (Hosts::V6(src, _), Some(networks)) => (false, networks.has_v6(src)),
            (hosts, None) => (matches!(hosts, Hosts::V4(..)), true),
        };
        let (src, dst) = frame.ports();
        let serves = *frame.event() == Event::Datagram && guard::is_of_dhcp_server(is_v4, src, dst);
        is_own && (self.dhcp_server || !serves)
    }
}
