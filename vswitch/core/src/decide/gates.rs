//! The firewalls on the way of a row of frames, for what nearly every frame is there: one of a connection that is established at both. It
//! asks no rule and parses no more than it needs; whatever is unlike that is judged by [`super::filter`], which is the rule that this must equal.

use super::{Switch, guard};
use crate::{
    clock::Instant,
    firewall::{
        connections::{Common, Connections, Digest, Event, Flow, Hosts, Run, Scope, V4, V6, Version},
        interface::{Firewall, Networks},
        policy::Direction,
    },
    head::ethertype,
    id::Epoch,
    mac::MacAddr,
    vlan::VlanId,
    world::Port,
};

/// Frames of one connection that are looked at together, at most.
const RUN: usize = 16;

/// Connections that are loaded together, at most: both ends of a batch's.
const WARM: usize = 64;

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

    /// How many of these frames, from the first on, pass because their connections are established. They have one EtherType, and what it announces
    /// `at` that place. Each is given by its first bytes and its length.
    pub(super) fn pass<'f>(&self, at: usize, mut frames: impl Iterator<Item = (&'f [u8], u32)>) -> usize {
        let Some(first) = frames.next() else { return 0 };
        match ethertype(at, first.0) {
            Some(ethertype::IPV4) => self.pass_as::<V4>(at, first, frames),
            Some(ethertype::IPV6) => self.pass_as::<V6>(at, first, frames),
            _ => 0,
        }
    }

    /// Loads what [`Self::pass`] will read of the connections of such frames, so that their cache misses overlap; nothing where the `last` of
    /// them belongs to the same one as the first: then all of them mostly do.
    #[cold]
    #[inline(never)]
    pub(super) fn warm<'f>(
        &self,
        at: usize,
        frames: impl Iterator<Item = (&'f [u8], u32)>,
        last: Option<(&'f [u8], u32)>,
    ) {
        let mut frames = frames.peekable();
        let ends = frames.peek().copied().zip(last).map(|((first, _), (last, _))| (first, last));
        let Some((first, last)) = ends else { return };
        let (from, to) = (first.get(at..).unwrap_or_default(), last.get(at..).unwrap_or_default());
        match ethertype(at, first) {
            Some(ethertype::IPV4) if !V4::is_alike(from, to) => self.warm_as::<V4>(at, frames),
            Some(ethertype::IPV6) if !V6::is_alike(from, to) => self.warm_as::<V6>(at, frames),
            _ => {}
        }
    }

    #[inline(always)]
    fn warm_as<'f, V: Version>(&self, at: usize, frames: impl Iterator<Item = (&'f [u8], u32)>) {
        let (mut digests, mut held) = ([Digest::NONE; WARM], 0);
        let (mut loaded, mut last) = (0, &[][..]);
        for (bytes, len) in frames {
            let ip = bytes.get(at..).unwrap_or_default();
            if V::is_alike(last, ip) {
                continue;
            }
            let Some(frame) = Common::read::<V>(at, bytes, len) else { break };
            last = ip;
            for (gate, from) in [(&self.from, Direction::Egress), (&self.to, Direction::Ingress)] {
                let (Some(gate), Some(place)) = (gate, digests.get_mut(held)) else { continue };
                *place = self.connections.digest(&frame.flow().key(gate.scope, from));
                loaded ^= self.connections.warm_index(*place);
                held += 1;
            }
        }
        for digest in &digests[..held] {
            loaded ^= self.connections.warm(*digest);
        }
        std::hint::black_box(loaded);
    }

    #[inline(always)]
    fn pass_as<'f, V: Version>(
        &self,
        at: usize,
        mut next: (&'f [u8], u32),
        mut rest: impl Iterator<Item = (&'f [u8], u32)>,
    ) -> usize {
        let (mut passed, mut events) = (0, [Event::Datagram; RUN]);
        loop {
            let (first, len) = next;
            let Some(frame) = Common::read::<V>(at, first, len) else { return passed };
            events[0] = *frame.event();
            let (begin, mut held, mut other) = (first.get(at..).unwrap_or_default(), 1, rest.next());
            // Frames of one connection mostly follow each other.
            while let (Some((bytes, len)), Some(event)) = (other, events.get_mut(held)) {
                let Some(says) = Common::read_alike::<V>(begin, at, bytes, len) else { break };
                *event = says;
                held += 1;
                other = rest.next();
            }
            let carried = self.carries(frame.flow(), &events[..held]);
            passed += carried;
            match other {
                Some(frame) if carried == held => next = frame,
                _ => return passed,
            }
        }
    }

    /// How many frames of one flow, from the first on, pass as parts of their connection.
    #[inline(always)]
    fn carries(&self, flow: &Flow, events: &[Event]) -> usize {
        if !self.sender.is_none_or(|sender| sender.may_send(flow)) {
            return 0;
        }
        let (from, to) = match (&self.from, &self.to) {
            (None, None) => return events.len(),
            (Some(gate), None) => return self.carries_at(gate, flow, Direction::Egress, events),
            (None, Some(gate)) => return self.carries_at(gate, flow, Direction::Ingress, events),
            (Some(from), Some(to)) => (from, to),
        };
        let from = self.run(from, flow, Direction::Egress);
        let Some((from, to)) = from.zip(self.run(to, flow, Direction::Ingress)) else { return 0 };
        let of_one = from.takes(events);
        let of_both = to.takes(&events[..of_one.frames]);
        // What only one of them takes is to be judged as if it had not been here.
        let of_one =
            if of_both.frames < of_one.frames { from.takes(&events[..of_both.frames]) } else { of_one };
        from.note(&of_one);
        to.note(&of_both);
        of_both.frames
    }

    /// The same where one of the ends has a firewall.
    #[inline(always)]
    fn carries_at(&self, gate: &Gate, flow: &Flow, from: Direction, events: &[Event]) -> usize {
        let Some(run) = self.run(gate, flow, from) else { return 0 };
        let taken = run.takes(events);
        // Whether it stands there still says nothing any more: its frames have passed.
        run.note(&taken);
        taken.frames
    }

    /// What is known of the connection at one end.
    #[inline(always)]
    fn run(&self, gate: &Gate, flow: &Flow, from: Direction) -> Option<Run<'a>> {
        let digest = self.connections.digest(&flow.key(gate.scope, from));
        self.connections.run(digest, from, gate.epoch, self.now)
    }
}

#[inline(always)]
fn ethertype(at: usize, bytes: &[u8]) -> Option<u16> {
    at.checked_sub(2).and_then(|at| bytes.get(at..)?.first_chunk()).map(|bytes| u16::from_be_bytes(*bytes))
}

impl Sender<'_> {
    #[inline(always)]
    fn may_send(&self, flow: &Flow) -> bool {
        let (is_v4, is_own) = match (flow.hosts(), self.networks) {
            (Hosts::V4(src, _), Some(networks)) => (true, networks.has_v4(src)),
            (Hosts::V6(src, _), Some(networks)) => (false, networks.has_v6(src)),
            (hosts, None) => (matches!(hosts, Hosts::V4(..)), true),
        };
        let (src, dst) = flow.ports();
        let serves = flow.is_udp() && guard::is_of_dhcp_server(is_v4, src, dst);
        is_own && (self.dhcp_server || !serves)
    }
}
