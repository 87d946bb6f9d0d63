//! Rows of frames for a gateway that translates: packets of connections that are established or of UDP that only goes on, and whose neighbour is known. What is unlike that is judged by
//! [`super::route`] and [`super::nat`], which are the rule that this must equal.

use super::{
    Way, gates,
    routes::{self, Gateway, Known, Told},
};
use crate::{
    firewall::{
        connections::{self, Common, Event, Flow, Paired, Run, Scope},
        policy::Direction,
    },
    head::ethertype,
    route::{Nat, Translation, Translations},
};
use std::ops::Range;

/// Frames of one connection that follow each other and are looked at together, at most.
const RUN: usize = 32;

/// A version of IP: as connections read it, and as routes do.
trait Version {
    type Common: connections::Version;
    type Routed: routes::Version;
    /// Bytes of a header of the common kind.
    const HEADER: u8;
}

enum V4 {}

enum V6 {}

impl Version for V4 {
    type Common = connections::V4;
    type Routed = routes::V4;
    const HEADER: u8 = 20;
}

impl Version for V6 {
    type Common = connections::V6;
    type Routed = routes::V6;
    const HEADER: u8 = 40;
}

type Address<V> = <<V as Version>::Routed as routes::Version>::Address;

/// Frames of one flow.
struct Alike<'f, V: Version> {
    flow: Flow,
    /// Source and destination.
    ends: [Address<V>; 2],
    events: [Event; RUN],
    held: usize,
    longest: u32,
    /// The first frame behind them.
    next: Option<(&'f [u8], u32)>,
}

/// Where the packets of a flow go.
struct Onward<V: Version> {
    flow: Flow,
    known: Known<Address<V>>,
    /// The connection that they are of, if that is translated.
    paired: Option<Paired>,
}

impl Gateway<'_> {
    /// How many of these frames, from the first on, go on at once; `run` is told which of them have which way.
    #[inline(never)]
    pub(super) fn translate<'f>(
        &self,
        nat: &Nat,
        mut frames: impl Iterator<Item = (&'f [u8], u32)>,
        translations: &mut Translations,
        run: impl FnMut(Way, Range<usize>),
    ) -> usize {
        let Some(first) = frames.next() else { return 0 };
        match gates::ethertype(self.at, first.0) {
            Some(ethertype::IPV4) => self.translate_as::<V4>(nat, (first, frames), translations, run),
            Some(ethertype::IPV6) => self.translate_as::<V6>(nat, (first, frames), translations, run),
            _ => 0,
        }
    }

    #[inline(always)]
    fn translate_as<'f, V: Version>(
        &self,
        nat: &Nat,
        (first, mut rest): ((&'f [u8], u32), impl Iterator<Item = (&'f [u8], u32)>),
        translations: &mut Translations,
        run: impl FnMut(Way, Range<usize>),
    ) -> usize {
        let mut told = Told::new(run);
        self.tell_translated::<V>(nat, (first, &mut rest), translations, &mut told);
        told.turn(None);
        told.end
    }

    #[inline(always)]
    fn tell_translated<'f, V: Version>(
        &self,
        nat: &Nat,
        (first, rest): ((&'f [u8], u32), &mut impl Iterator<Item = (&'f [u8], u32)>),
        translations: &mut Translations,
        told: &mut Told<impl FnMut(Way, Range<usize>)>,
    ) {
        let (mut next, mut onward): (_, Option<Onward<V>>) = (Some(first), None);
        while let Some(first) = next {
            let Some(alike) = read::<V>(self.at, first, rest) else { return };
            if onward.as_ref().is_none_or(|onward| onward.flow != alike.flow) {
                onward = self.onward(nat, &alike, translations);
            }
            let Some(onward) = onward.as_ref().filter(|onward| alike.longest <= onward.known.longest) else {
                return;
            };
            told.turn(Some(onward.known.way));
            let taken = match &onward.paired {
                None => alike.held,
                Some(paired) => self.notes(paired, &alike.events[..alike.held]),
            };
            told.end += taken;
            if taken < alike.held {
                return;
            }
            next = alike.next;
        }
    }

    /// None if it needs another look.
    fn onward<V: Version>(
        &self,
        nat: &Nat,
        alike: &Alike<'_, V>,
        translations: &mut Translations,
    ) -> Option<Onward<V>> {
        let (flow, [src, dst]) = (alike.flow, alike.ends);
        let connections = self.ingress.switch.connections;
        let scope = Scope { port: self.routing.port, vlan: self.interface.said.vlan };
        let key = flow.key(scope, Direction::Egress);
        let Some(paired) = connections.paired(connections.digest(&key)) else {
            let (from, to) = flow.hosts().pair();
            let (_, port) = flow.ports();
            if nat.destination(to, key.protocol(), Some(port)).is_some() {
                return None;
            }
            let known = self.know_of::<V::Routed>(src, dst)?;
            let interface = self.routing.interface(known.vlan)?;
            // It would be translated, or what answers it: that begins with a connection.
            let is_new = nat.source((scope.vlan, from), interface, known.next, false).is_some()
                || nat.source((known.vlan, to), self.interface, from, false).is_some();
            return (!is_new).then_some(Onward { flow, known, paired: None });
        };
        let translation = Translation::of(&key, &paired.other, V::HEADER);
        let dst = <V::Routed as routes::Version>::bits(translation.dst())?;
        let known = self.know_of::<V::Routed>(src, dst)?;
        (paired.other.scope()?.vlan == known.vlan).then_some(())?;
        let known = known.translated(translations.note(translation)?);
        Some(Onward { flow, known, paired: Some(paired) })
    }

    /// How many frames that say this, from the first on, are plain ones of a connection that only goes on; it is noted there.
    fn notes(&self, paired: &Paired, events: &[Event]) -> usize {
        let Some(run) = self.run(paired) else { return 0 };
        let taken = run.takes(events);
        run.note(&taken);
        taken.frames
    }

    fn run(&self, paired: &Paired) -> Option<Run<'_>> {
        let switch = &self.ingress.switch;
        let place = switch.connections.likely(paired.digest);
        switch.connections.run((paired.digest, place), paired.from, switch.world.epoch(), switch.now)
    }
}

/// Reads frames of one flow, from the first on, that a router may pass on.
#[inline(always)]
fn read<'f, V: Version>(
    at: usize,
    (first, len): (&'f [u8], u32),
    rest: &mut impl Iterator<Item = (&'f [u8], u32)>,
) -> Option<Alike<'f, V>> {
    let ends = <V::Routed as routes::Version>::ends;
    let common = Common::read::<V::Common>(at, first, len)?;
    let begin = first.get(at..).unwrap_or_default();
    let mut alike = Alike {
        flow: *common.flow(),
        ends: ends(at, first, len)?,
        events: [Event::Datagram; RUN],
        held: 1,
        longest: len,
        next: rest.next(),
    };
    alike.events[0] = *common.event();
    while let (Some((bytes, len)), Some(event)) = (alike.next, alike.events.get_mut(alike.held)) {
        let Some(says) = Common::read_alike::<V::Common>(begin, at, bytes, len) else { break };
        // Of the same version, for the same row has one EtherType.
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
