//! The firewalls on the way of a row of frames, for what nearly every frame is there: one of a connection that is established at both, or of UDP that only goes on. It
//! asks no rule and parses no more than it needs; whatever is unlike that is judged by [`super::filter`], which is the rule that this must equal.

mod many;

use super::{Switch, guard};
use crate::{
    clock::Instant,
    firewall::{
        connections::{Common, Connections, Digest, Event, Flow, Hosts, Place, Run, Scope, V4, V6, Version},
        interface::{Firewall, Networks},
        policy::Direction,
    },
    head::ethertype,
    id::Epoch,
    mac::MacAddr,
    vlan::VlanId,
    world::Port,
};

/// Frames of one connection that follow each other and are looked at together, at most.
const RUN: usize = 16;

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

/// What finds a connection.
trait Sought {
    /// Whether the guest may send that.
    fn is_allowed(&self, gates: &Gates<'_>) -> bool;

    /// Its digest at a gate, for what goes that way, and where it is likely to stand.
    fn at(&self, gates: &Gates<'_>, gate: &Gate, from: Direction) -> (Digest, Place);
}

impl Sought for Flow {
    #[inline(always)]
    fn is_allowed(&self, gates: &Gates<'_>) -> bool {
        gates.may_send(self)
    }

    #[inline(always)]
    fn at(&self, gates: &Gates<'_>, gate: &Gate, from: Direction) -> (Digest, Place) {
        let digest = gates.digest(gate, self, from);
        (digest, gates.connections.likely(digest))
    }
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
    /// `at` that place. Each is given by its first bytes and its length. If the `last` of them is given and belongs to another connection than the first, all are
    /// read before any is looked up.
    #[inline(never)]
    pub(super) fn pass<'f>(
        &self,
        at: usize,
        mut frames: impl Iterator<Item = (&'f [u8], u32)>,
        last: Option<&'f [u8]>,
    ) -> usize {
        let Some(first) = frames.next() else { return 0 };
        match ethertype(at, first.0) {
            Some(ethertype::IPV4) => self.pass_as::<V4>(at, first, frames, last),
            Some(ethertype::IPV6) => self.pass_as::<V6>(at, first, frames, last),
            _ => 0,
        }
    }

    #[inline(always)]
    fn pass_as<'f, V: Version>(
        &self,
        at: usize,
        first: (&'f [u8], u32),
        rest: impl Iterator<Item = (&'f [u8], u32)>,
        last: Option<&'f [u8]>,
    ) -> usize {
        let ip = |bytes: &'f [u8]| bytes.get(at..).unwrap_or_default();
        match last {
            Some(last) if !V::is_alike(ip(first.0), ip(last)) => self.pass_many::<V>(at, first, rest),
            _ => self.pass_few::<V>(at, first, rest),
        }
    }

    /// Of one connection, or of a few.
    #[inline(always)]
    fn pass_few<'f, V: Version>(
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

    /// How many frames of one connection, from the first on, pass as parts of it. It is `sought` at each gate, for what goes that way.
    #[inline(always)]
    fn carries(&self, sought: &impl Sought, events: &[Event]) -> usize {
        if !sought.is_allowed(self) {
            return 0;
        }
        let (from, to) = match (&self.from, &self.to) {
            (None, None) => return events.len(),
            (Some(gate), None) => return self.carries_at(gate, sought, Direction::Egress, events),
            (None, Some(gate)) => return self.carries_at(gate, sought, Direction::Ingress, events),
            (Some(from), Some(to)) => (from, to),
        };
        let from = self.run(from, sought, Direction::Egress);
        let Some((from, to)) = from.zip(self.run(to, sought, Direction::Ingress)) else { return 0 };
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
    fn carries_at(&self, gate: &Gate, sought: &impl Sought, from: Direction, events: &[Event]) -> usize {
        let Some(run) = self.run(gate, sought, from) else { return 0 };
        let taken = run.takes(events);
        // Whether it stands there still says nothing any more: its frames have passed.
        run.note(&taken);
        taken.frames
    }

    /// What is known of the connection at one end.
    #[inline(always)]
    fn run(&self, gate: &Gate, sought: &impl Sought, from: Direction) -> Option<Run<'a>> {
        self.connections.run(sought.at(self, gate, from), from, gate.epoch, self.now)
    }

    #[inline(always)]
    fn may_send(&self, flow: &Flow) -> bool {
        self.sender.is_none_or(|sender| sender.may_send(flow))
    }

    /// That of a flow's connection at one end.
    #[inline(always)]
    fn digest(&self, gate: &Gate, flow: &Flow, from: Direction) -> Digest {
        self.connections.digest(&flow.key(gate.scope, from))
    }
}

/// The EtherType of a frame that begins so, which announces what stands `at` that place.
#[inline(always)]
pub(super) fn ethertype(at: usize, bytes: &[u8]) -> Option<u16> {
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
