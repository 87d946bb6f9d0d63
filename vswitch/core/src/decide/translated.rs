//! Rows of frames for a gateway that translates: packets of connections that are established, and whose neighbour is known. What is unlike that is judged by
//! [`super::route`] and [`super::nat`], which are the rule that this must equal.

use super::{
    Ingress, Way,
    ingress::{Home, Row},
    routes::{Ends, Gateway, Known, ends},
};
use crate::{
    firewall::{
        connections::{Common, Event, Flow, Paired, Run, Scope, V4, V6, Version},
        policy::Direction,
    },
    head::ethertype,
    route::{Nat, Translation, Translations},
};
use std::ops::Range;

/// Frames of one connection that follow each other and are looked at together, at most.
const RUN: usize = 16;

/// Frames of one flow.
struct Alike<'f> {
    flow: Flow,
    ends: Ends,
    events: [Event; RUN],
    held: usize,
    longest: u32,
    /// The first frame behind them.
    next: Option<(&'f [u8], u32)>,
}

impl Ingress<'_> {
    /// As `route_row`, where the row's EtherType announces what stands `at` that place.
    #[inline(never)]
    pub(super) fn translate_row<'f>(
        &self,
        home: &Home<'_>,
        (row, at): (&Row, usize),
        translator: (Gateway<'_>, &Nat),
        mut frames: impl Iterator<Item = (&'f [u8], u32)>,
        translations: &mut Translations,
        run: impl FnMut(Way, Range<usize>),
    ) -> usize {
        let Some(first) = frames.next() else { return 0 };
        match super::gates::ethertype(at, first.0) {
            Some(ethertype::IPV4) => {
                self.translate_as::<V4>(home, (row, at), translator, (first, frames), translations, run)
            }
            Some(ethertype::IPV6) => {
                self.translate_as::<V6>(home, (row, at), translator, (first, frames), translations, run)
            }
            _ => 0,
        }
    }

    #[inline(always)]
    fn translate_as<'f, V: Version>(
        &self,
        home: &Home<'_>,
        (row, at): (&Row, usize),
        translator: (Gateway<'_>, &Nat),
        (first, mut rest): ((&'f [u8], u32), impl Iterator<Item = (&'f [u8], u32)>),
        translations: &mut Translations,
        mut run: impl FnMut(Way, Range<usize>),
    ) -> usize {
        let (mut passed, mut next) = (0, Some(first));
        let mut of_flow: Option<(Flow, Known, Option<Paired>)> = None;
        while let Some(first) = next {
            let Some(alike) = read::<V>(at, first, &mut rest) else { return passed };
            if of_flow.as_ref().is_none_or(|(flow, ..)| *flow != alike.flow) {
                of_flow = self.flow(home, (row, at), translator, &alike, translations);
            }
            let Some((_, known, paired)) = &of_flow else { return passed };
            if alike.longest > known.longest {
                return passed;
            }
            let taken = match paired {
                None => alike.held,
                Some(paired) => self.notes(paired, &alike.events[..alike.held]),
            };
            if taken > 0 {
                run(known.way, passed..passed + taken);
            }
            passed += taken;
            if taken < alike.held {
                return passed;
            }
            next = alike.next;
        }
        passed
    }

    /// Where the packets of a flow go, and the connection that they are of, if that is translated; none if that needs another look.
    fn flow(
        &self,
        home: &Home<'_>,
        (row, at): (&Row, usize),
        (gateway, nat): (Gateway<'_>, &Nat),
        alike: &Alike<'_>,
        translations: &mut Translations,
    ) -> Option<(Flow, Known, Option<Paired>)> {
        let connections = self.switch.connections;
        let Gateway { routing, interface, .. } = gateway;
        let scope = Scope { port: routing.port, vlan: interface.said.vlan };
        let key = alike.flow.key(scope, Direction::Egress);
        let Some(paired) = connections.paired(connections.digest(&key)) else {
            let (src, dst) = alike.flow.hosts().pair();
            let (_, port) = alike.flow.ports();
            if nat.destination(dst, key.protocol(), Some(port)).is_some() {
                return None;
            }
            let known = self.know(home, row, gateway, (at, alike.ends, alike.ends))?;
            let to = routing.interface(known.vlan)?;
            let is_translated = nat.source((scope.vlan, src), to, known.next, false).is_some();
            return (!is_translated).then_some((alike.flow, known, None));
        };
        // Behind an IP header of the common kind.
        let header = if matches!(alike.ends, Ends::V4(_)) { 20 } else { 40 };
        let translation = Translation::of(&paired.other, header);
        let known = self.know(home, row, gateway, (at, alike.ends, Ends::of(translation.hosts)))?;
        (paired.other.scope()?.vlan == known.vlan).then_some(())?;
        let number = translations.note(translation)?;
        Some((alike.flow, known.translated(number), Some(paired)))
    }

    /// How many frames that say this, from the first on, are plain ones of an established connection; it is noted there.
    fn notes(&self, paired: &Paired, events: &[Event]) -> usize {
        let Some(run) = self.run(paired) else { return 0 };
        let taken = run.takes(events);
        run.note(&taken);
        taken.frames
    }

    fn run(&self, paired: &Paired) -> Option<Run<'_>> {
        let connections = self.switch.connections;
        let place = connections.likely(paired.digest);
        connections.run((paired.digest, place), paired.from, self.switch.world.epoch(), self.switch.now)
    }
}

/// Reads frames of one flow, from the first on, that a router may pass on.
#[inline(always)]
fn read<'f, V: Version>(
    at: usize,
    (first, len): (&'f [u8], u32),
    rest: &mut impl Iterator<Item = (&'f [u8], u32)>,
) -> Option<Alike<'f>> {
    let common = Common::read::<V>(at, first, len)?;
    let of_first = ends(at, first, len)?;
    let begin = first.get(at..).unwrap_or_default();
    let mut alike = Alike {
        flow: *common.flow(),
        ends: of_first,
        events: [Event::Datagram; RUN],
        held: 1,
        longest: len,
        next: None,
    };
    alike.events[0] = *common.event();
    alike.next = rest.next();
    while let (Some((bytes, len)), Some(event)) = (alike.next, alike.events.get_mut(alike.held)) {
        let Some(says) = Common::read_alike::<V>(begin, at, bytes, len) else { break };
        if ends(at, bytes, len).is_none() {
            break;
        }
        *event = says;
        alike.held += 1;
        alike.longest = alike.longest.max(len);
        alike.next = rest.next();
    }
    Some(alike)
}
