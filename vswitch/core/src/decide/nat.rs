//! What a router that translates makes of a packet (RFC 2663, RFC 4787, RFC 5382, RFC 5508): the connection that it belongs to says so, or, of the first packet of
//! one, the router's rules.
//!
//! ```text
//! Key -> paired: known       the addresses that its connection has where it goes on
//!          `-> none, or over: rules -> none: it is routed as it is
//!                                  `-> destination (before the route is looked up), source (behind it) -> a free inverse -> open_pair
//! ```

use super::Routers;
use crate::{
    drop_reason::DropReason,
    firewall::{
        connections::{
            Answer, Digest, Ends, Event, Facts, Hosts, Key, Opened, Opening, Paired, Refusal, Scope,
        },
        policy::Direction,
    },
    head::{FrameView, Head},
    id::{Epoch, PortId},
    route::{DYNAMIC_PORTS, Interface, Nat, Source, Translation, has_free_ports},
    trace::{Step, Tracer},
    vlan::VlanId,
};
use std::net::IpAddr;

/// How many ports are tried for a connection, one after the other, before it counts as one for which there is none.
const TRIES: u16 = 128;

/// The same where none was found for another connection of the same ends this second.
const TRIES_WHERE_SCARCE: u16 = 8;

/// UDP, and its port for names: what goes there is asked by routers too.
const UDP: u8 = 17;
const NAMES: u16 = 53;

/// Ports below this are for what a system does itself: theirs stay among them (RFC 4787 §4.2.3).
const SYSTEM_PORTS: u16 = 1024;

/// A packet before a router that translates.
pub(super) struct Case<'a> {
    routers: &'a Routers<'a>,
    nat: &'a Nat,
    /// Where it came in, and what finds connections there.
    scope: Scope,
    epoch: Epoch,
    facts: Facts,
    /// Where its transport header stands, from the IP header on.
    transport: u8,
    is_fragment: bool,
    /// From whom it says that it comes.
    src: IpAddr,
}

/// What is known of it before it is routed.
pub(super) enum Known {
    /// Its connection is translated so.
    Translated(Translated),
    /// It may be the first of one; if the rules say so, this is its destination instead of its own: address and port.
    New(Option<(IpAddr, Option<u16>)>),
    /// It cannot belong to any connection.
    Dropped(DropReason),
}

/// A packet of a connection that is translated.
pub(super) struct Translated {
    pub(super) translation: Translation,
    paired: Paired,
}

/// How it goes on.
pub(super) struct Then<'a> {
    pub(super) known: Known,
    /// By which interface, and to whom.
    pub(super) to: &'a Interface,
    pub(super) next: IpAddr,
}

impl<'a> Case<'a> {
    /// One that came by a router's port in this VLAN.
    pub(super) fn read(
        (routers, nat): (&'a Routers<'a>, &'a Nat),
        (port, vlan): (PortId, VlanId),
        (view, head): (&FrameView<'_>, &Head),
        src: IpAddr,
    ) -> Self {
        let scope = Scope { port, vlan };
        let facts = Facts::read(head, view.bytes, scope, Direction::Egress);
        let transport = head.transport_at.map_or(0, |at| at - head.link.len);
        let is_fragment = head.network.fragment().is_some();
        Self { routers, nat, scope, epoch: routers.world.epoch(), facts, transport, is_fragment, src }
    }

    /// Whether its connection is known, else what its destination is to be. What it says to the connection is not noted yet.
    pub(super) fn known<T: Tracer>(&self, tracer: &mut T) -> Known {
        let Routers { connections, .. } = *self.routers;
        let (Facts::Of(key, _) | Facts::About(key, _)) = &self.facts else { return Known::New(None) };
        if let Some(paired) = connections.paired(connections.digest(key)) {
            match self.answer(&paired) {
                Answer::Known { .. } if self.is_fragment => return Known::Dropped(DropReason::NatFragment),
                Answer::Known { .. } => return self.translated(key, paired, tracer),
                Answer::Invalid(_) => return Known::Dropped(DropReason::NatInvalid),
                Answer::New | Answer::Stale { .. } => {}
            }
        }
        let Facts::Of(key, _) = &self.facts else { return Known::New(None) };
        let (_, dst) = key.hosts().pair();
        let port = match key.ends() {
            Ends::Ports { outside, .. } => Some(outside),
            Ends::Query { .. } | Ends::Pair => None,
        };
        Known::New(self.nat.destination(dst, key.protocol(), port))
    }

    /// What is known of its connection. One that was opened under other rules goes on if these say the same.
    fn answer(&self, paired: &Paired) -> Answer {
        let answer = self.foresee(paired);
        if !matches!(answer, Answer::Stale { .. }) || !self.routers.learning {
            return answer;
        }
        if self.holds(paired) {
            self.routers.connections.renew(paired.digest, self.epoch);
            return self.foresee(paired);
        }
        self.routers.connections.end(paired.digest);
        Answer::New
    }

    fn foresee(&self, paired: &Paired) -> Answer {
        let Routers { connections, now, .. } = *self.routers;
        let Paired { digest, from, .. } = *paired;
        match &self.facts {
            Facts::Of(_, event) => connections.foresee(digest, from, event, self.epoch, now),
            Facts::About(_, quoted) => connections.related(digest, from, quoted, self.epoch, now),
            Facts::Invalid(_) | Facts::Untracked(_) => Answer::New,
        }
    }

    /// Whether the rules of this World translate a connection as it is.
    fn holds(&self, paired: &Paired) -> bool {
        let (Facts::Of(key, _) | Facts::About(key, _)) = &self.facts else { return false };
        let (opener, answers) = match paired.from {
            Direction::Egress => (*key, paired.other),
            Direction::Ingress => (paired.other, *key),
        };
        let Some((from, to)) = opener.scope().zip(answers.scope()) else { return false };
        let [port, answering] = [opener.ends(), answers.ends()].map(|ends| match ends {
            Ends::Ports { inside, outside } => (Some(inside), Some(outside)),
            Ends::Query { .. } | Ends::Pair => (None, None),
        });
        let (port, answering) = (port.1, answering.0);
        let ((src, dst), (new_dst, new_src)) = (opener.hosts().pair(), answers.hosts().pair());
        let turned = self.nat.destination(dst, opener.protocol(), port);
        let expected = turned.unwrap_or((dst, port));
        let Some(interface) = self.routers.world.routing().and_then(|routing| routing.interface(to.vlan))
        else {
            return false;
        };
        let source = self.nat.source((from.vlan, src), interface, new_dst, turned.is_some());
        // Of several addresses of the router's the next hop decides, which may be another than the destination.
        let is_source = match source {
            Some(source) if source.is_shared => interface.has(new_src),
            Some(source) => source.address == new_src,
            None => src == new_src,
        };
        expected == (new_dst, answering) && is_source
    }

    fn translated<T: Tracer>(&self, key: &Key, paired: Paired, tracer: &mut T) -> Known {
        let mut translation = Translation::of(key, &paired.other, self.transport);
        if let Facts::About(..) = self.facts {
            let (inside, _) = key.hosts().pair();
            translation = translation.of_error(self.src, inside);
        }
        if !translation.keeps(key) {
            tracer.step(|| Step::Translated { hosts: translation.hosts, ends: translation.ends });
        }
        Known::Translated(Translated { translation, paired })
    }

    /// How it is translated now that it is known how it goes on: what it says is noted, and if it is the first of a connection that is opened. None: it is
    /// routed as it is.
    ///
    /// # Errors
    /// Why it does not go on.
    pub(super) fn settle<T: Tracer>(
        &self,
        then: Then<'_>,
        tracer: &mut T,
    ) -> Result<Option<Translation>, DropReason> {
        match then.known {
            Known::Dropped(reason) => Err(reason),
            Known::Translated(translated) => self.note(&translated, then.to).map(Some),
            Known::New(turned) => self.begin(turned, (then.to, then.next), tracer),
        }
    }

    /// Notes a packet of a connection that is known.
    fn note(&self, translated: &Translated, to: &Interface) -> Result<Translation, DropReason> {
        let Routers { connections, now, learning, .. } = *self.routers;
        let Translated { translation, paired } = translated;
        if paired.other.scope().is_none_or(|scope| scope.vlan != to.said.vlan) {
            // It goes on in another VLAN than it did, where its addresses would be others.
            if learning {
                connections.end(paired.digest);
            }
            return Err(DropReason::NatInvalid);
        }
        if let (Facts::Of(_, event), true) = (&self.facts, learning)
            && let Answer::Invalid(_) =
                connections.look_up(paired.digest, paired.from, event, self.epoch, now)
        {
            return Err(DropReason::NatInvalid);
        }
        Ok(*translation)
    }

    /// What becomes of the first packet of a connection that is `turned` to another destination, or has its own; none if it is routed as it is.
    fn begin<T: Tracer>(
        &self,
        turned: Option<(IpAddr, Option<u16>)>,
        (to, next): (&Interface, IpAddr),
        tracer: &mut T,
    ) -> Result<Option<Translation>, DropReason> {
        let source = self.nat.source((self.scope.vlan, self.src), to, next, turned.is_some());
        if source.is_none() && turned.is_none() {
            return Ok(self.keep(to));
        }
        if self.is_fragment {
            return Err(DropReason::NatFragment);
        }
        // Of errors and all else that opens nothing there is no connection here.
        let Facts::Of(key, event) = &self.facts else { return Err(DropReason::NatInvalid) };
        if self.routers.connections.absent(event, self.routers.now) != Answer::New {
            return Err(DropReason::NatInvalid);
        }
        let inverse = self.inverse(key, event, (source, turned), to.said.vlan)?;
        let translation = Translation::of(key, &inverse, self.transport);
        tracer.step(|| Step::Translated { hosts: translation.hosts, ends: translation.ends });
        Ok(Some(translation))
    }

    /// Makes sure that what answers a packet which is routed as it is comes back as it is, if it would be translated without a connection: who comes in by a
    /// VLAN that others go out into. Without room, or of what begins nothing, that is not known.
    fn keep(&self, to: &Interface) -> Option<Translation> {
        let Facts::Of(key, event) = &self.facts else { return None };
        let Routers { world, connections, now, .. } = *self.routers;
        let (src, dst) = key.hosts().pair();
        let back = world.routing()?.interface(self.scope.vlan)?;
        self.nat.source((to.said.vlan, dst), back, src, false)?;
        if self.is_fragment || connections.absent(event, now) != Answer::New {
            return None;
        }
        let inverse = self.inverse(key, event, (None, None), to.said.vlan).ok()?;
        Some(Translation::of(key, &inverse, self.transport))
    }

    /// The key of what answers such a connection, which is open then.
    fn inverse(
        &self,
        key: &Key,
        event: &Event,
        (source, turned): (Option<Source>, Option<(IpAddr, Option<u16>)>),
        vlan: VlanId,
    ) -> Result<Key, DropReason> {
        let (src, dst) = key.hosts().pair();
        let (dst, port) = turned.unwrap_or((dst, None));
        let hosts = match (dst, source.map_or(src, |source| source.address)) {
            (IpAddr::V4(dst), IpAddr::V4(src)) => Hosts::V4(dst, src),
            (IpAddr::V6(dst), IpAddr::V6(src)) => Hosts::V6(dst, src),
            _ => return Err(DropReason::NatInvalid),
        };
        let scope = Scope { vlan, ..self.scope };
        let (own, to) = match key.ends() {
            Ends::Ports { inside, outside } => {
                // One that began before the switch did came by a forwarded port, if its own end is where that leads.
                let goes_on = matches!(event, Event::Tcp(segment) if !segment.is_syn()) && source.is_some();
                let came_by = goes_on.then(|| self.nat.forwarded_from(key.protocol(), src, inside));
                (came_by.flatten().unwrap_or(inside), port.unwrap_or(outside))
            }
            Ends::Query { id, .. } => (id, 0),
            Ends::Pair => (0, 0),
        };
        // How the answers' ends are where the packet has that port, or identifier, as its own.
        let answered = |from| match key.ends() {
            Ends::Ports { .. } => Ends::Ports { inside: to, outside: from },
            Ends::Query { kind, asked, .. } => Ends::Query { id: from, kind, asked: asked.opposite() },
            Ends::Pair => Ends::Pair,
        };
        let may_change = source.is_some_and(|source| source.is_shared)
            && key.ends() != Ends::Pair
            && has_free_ports(key.protocol());
        let Routers { connections, now, learning, .. } = *self.routers;
        let digest = connections.digest(key);
        // What all that compete for these ports have in common.
        let common = || connections.digest(&Key::new(scope, hosts, key.protocol(), answered(0)));
        let ends = may_change.then(common);
        let is_scarce = ends.is_some_and(|ends| connections.is_scarce(ends, now));
        let tries = match (may_change, is_scarce) {
            (true, false) => TRIES,
            (true, true) => TRIES_WHERE_SCARCE,
            (false, _) => 1,
        };
        let asks_names = may_change && key.protocol() == UDP && to == NAMES;
        let ports = ports(own, digest).filter(|port| !asks_names || *port < DYNAMIC_PORTS);
        for port in ports.take(tries.into()) {
            let inverse = Key::new(scope, hosts, key.protocol(), answered(port));
            if !connections.is_free(connections.digest(&inverse), now) {
                continue;
            }
            match self.open_pair(key, event, &inverse) {
                Opened::New => return Ok(inverse),
                Opened::Refused(Refusal::InverseTaken) => {}
                // Another worker opened it this moment: its next packet finds it.
                Opened::Already | Opened::Refused(_) => return Err(DropReason::NatExhausted),
            }
        }
        if let Some(ends) = ends.filter(|_| learning && !is_scarce) {
            connections.note_scarce(ends, now);
        }
        Err(DropReason::NatExhausted)
    }

    fn open_pair(&self, key: &Key, event: &Event, inverse: &Key) -> Opened {
        let Routers { connections, now, learning, .. } = *self.routers;
        if !learning {
            return Opened::New;
        }
        let (from, digest) = (Direction::Egress, connections.digest(key));
        let opening = Opening { key, digest, from, event, opener: from, epoch: self.epoch };
        connections.open_pair(&opening, inverse, now)
    }
}

/// Ports for a connection with this digest, in the order in which they are tried: its own first, for many protocols like to keep it (RFC 4787 §4.2.1), then
/// others of its kind, from one on that nobody can guess (RFC 6056 §3.3.3).
fn ports(own: u16, digest: Digest) -> impl Iterator<Item = u16> {
    let (first, count) =
        if own < SYSTEM_PORTS { (1, SYSTEM_PORTS - 1) } else { (SYSTEM_PORTS, u16::MAX - SYSTEM_PORTS + 1) };
    let start = digest.any() % u64::from(count);
    let others = (0..u64::from(count)).map(move |n| first + ((start + n) % u64::from(count)) as u16);
    std::iter::once(own).chain(others.filter(move |port| *port != own))
}
