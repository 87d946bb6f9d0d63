//! Frames of many connections at the gates: each step is done for all of them before the next, so that what one has to wait for in memory is asked for
//! while the others wait. A loop that does all steps for one frame after the other has too few loads under way.

use super::{Gate, Gates, Sought};
use crate::firewall::{
    connections::{Common, Digest, Event, Place, Version},
    policy::Direction,
};

/// Frames that are looked at together, at most.
const AHEAD: usize = 32;

/// What is read of some frames: those of one connection that follow each other are a run.
struct Runs {
    events: [Event; AHEAD],
    /// Where each run ends in `events`.
    ends: [usize; AHEAD],
    held: usize,
    /// Its connection, as it is known at each gate.
    digests: [[Digest; AHEAD]; 2],
    places: [[Place; AHEAD]; 2],
}

/// The connection of one of the runs.
struct OfRun<'r> {
    runs: &'r Runs,
    run: usize,
}

impl Sought for OfRun<'_> {
    /// Else it would not have been read.
    #[inline(always)]
    fn is_allowed(&self, _: &Gates<'_>) -> bool {
        true
    }

    #[inline(always)]
    fn at(&self, _: &Gates<'_>, _: &Gate, from: Direction) -> (Digest, Place) {
        let gate = from.index();
        (self.runs.digests[gate][self.run], self.runs.places[gate][self.run])
    }
}

impl Gates<'_> {
    /// As [`Self::pass`], for frames of many connections.
    #[inline(never)]
    pub(super) fn pass_many<'f, V: Version>(
        &self,
        at: usize,
        first: (&'f [u8], u32),
        mut rest: impl Iterator<Item = (&'f [u8], u32)>,
    ) -> usize {
        let mut runs = Runs {
            events: [Event::Datagram; AHEAD],
            ends: [0; AHEAD],
            held: 0,
            digests: [[Digest::NONE; AHEAD]; 2],
            places: [[Place::default(); AHEAD]; 2],
        };
        let (mut passed, mut next) = (0, Some(first));
        while next.is_some() {
            next = self.read::<V>(at, next, &mut rest, &mut runs);
            self.load(&mut runs);
            let mut begin = 0;
            for (run, &end) in runs.ends[..runs.held].iter().enumerate() {
                let carried = self.carries(&OfRun { runs: &runs, run }, &runs.events[begin..end]);
                passed += carried;
                if begin + carried < end {
                    return passed;
                }
                begin = end;
            }
        }
        passed
    }

    /// Reads as many as there is room for; the one that is to be read after these, if they are for the gates as far as that one.
    #[inline(always)]
    fn read<'f, V: Version>(
        &self,
        at: usize,
        mut next: Option<(&'f [u8], u32)>,
        rest: &mut impl Iterator<Item = (&'f [u8], u32)>,
        runs: &mut Runs,
    ) -> Option<(&'f [u8], u32)> {
        let (mut frames, mut held, mut first) = (0, 0, &[][..]);
        let more = loop {
            let Some((bytes, len)) = next else { break None };
            if frames == AHEAD {
                break next;
            }
            let event = if let Some(event) = Common::read_alike::<V>(first, at, bytes, len) {
                event
            } else {
                let Some(frame) = Common::read::<V>(at, bytes, len) else { break None };
                if !self.may_send(frame.flow()) {
                    break None;
                }
                for (gate, from) in [(&self.from, Direction::Egress), (&self.to, Direction::Ingress)] {
                    if let Some(gate) = gate {
                        runs.digests[from.index()][held] = self.digest(gate, frame.flow(), from);
                    }
                }
                first = bytes.get(at..).unwrap_or_default();
                held += 1;
                *frame.event()
            };
            runs.events[frames] = event;
            frames += 1;
            runs.ends[held - 1] = frames;
            next = rest.next();
        };
        runs.held = held;
        more
    }

    /// Loads what is going to be read of their connections.
    #[inline(always)]
    fn load(&self, runs: &mut Runs) {
        let gates = [self.from.is_some(), self.to.is_some()];
        for gate in (0..gates.len()).filter(|gate| gates[*gate]) {
            for (place, digest) in runs.places[gate].iter_mut().zip(&runs.digests[gate][..runs.held]) {
                *place = self.connections.likely(*digest);
            }
        }
        let mut loaded = 0;
        for gate in (0..gates.len()).filter(|gate| gates[*gate]) {
            for place in &runs.places[gate][..runs.held] {
                loaded ^= self.connections.load(*place);
            }
        }
        std::hint::black_box(loaded);
    }
}
