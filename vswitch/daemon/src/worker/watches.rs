//! Watched frames: those that match are decided by the same code, with a recorder beside it.

use crate::control::protocol::{Journey, Sighting, Watch};
use std::time::Instant;
use vswitch_core::{
    decide::{Copy, Decision, Fate, Switch},
    firewall::answer::AnswerKind,
    head::{FrameView, LinkHeader},
    id::PortId,
    trace::{Recorder, Step},
    world::Port,
};

/// How many sightings a watch keeps.
const KEPT: usize = 64;
/// How much of a frame a sighting keeps.
const HEAD: usize = 128;

/// All watches of a worker.
pub(super) struct Watches {
    all: Vec<Watching>,
    /// Sightings of the batch in work.
    open: Vec<Open>,
    /// What moments are counted from: the same for all workers.
    origin: Instant,
}

/// A sighting of which not all is known yet.
struct Open {
    /// The place of the watch that wanted it.
    watch: usize,
    /// The place of its frame in the batch.
    frame: usize,
    /// Where its copies begin.
    copies: usize,
    sighting: Sighting,
}

struct Watching {
    number: u32,
    watch: Watch,
    sightings: Vec<Sighting>,
    lost: u64,
}

impl Watches {
    pub(super) fn new(origin: Instant) -> Self {
        Self { all: Vec::new(), open: Vec::new(), origin }
    }

    pub(super) fn add(&mut self, number: u32, watch: Watch) {
        self.all.push(Watching { number, watch, sightings: Vec::new(), lost: 0 });
    }

    /// What watch `number` saw, which it forgets; with `end` the watch goes too. None: there is no such watch.
    pub(super) fn sightings(&mut self, number: u32, end: bool) -> Option<(Vec<Sighting>, u64)> {
        let at = self.all.iter().position(|watching| watching.number == number)?;
        let watching = &mut self.all[at];
        let seen = (std::mem::take(&mut watching.sightings), std::mem::take(&mut watching.lost));
        if end {
            self.all.remove(at);
        }
        Some(seen)
    }

    /// Whether there are any: all that an unwatched frame costs.
    #[inline(always)]
    pub(super) fn any(&self) -> bool {
        !self.all.is_empty()
    }

    /// Decides the frame in place `at` of the batch, and notes its journey if a watch wants it.
    #[cold]
    pub(super) fn decide(
        &mut self,
        (switch, port): (&Switch<'_>, u16),
        (at, bytes): (usize, &[u8]),
        (len, wire_len): (u32, u32),
        copies: &mut Vec<Copy>,
    ) -> Decision {
        let link = match LinkHeader::parse(bytes, len) {
            Ok(link) => link,
            Err(reason) => return Decision::plain(Fate::Dropped(reason)),
        };
        let frame = &FrameView { link: &link, bytes, len, wire_len };
        let id = switch.world.port(port).map(|port| port.id);
        let first = copies.len();
        let mut recorder = Recorder::default();
        let decision = switch.judge(port, frame, copies, &mut recorder);
        let wanting = self.all.iter().position(|watching| matches(&watching.watch, id, frame));
        let (Some(watch), Some(port)) = (wanting, id) else { return decision };
        if self.all[watch].sightings.len() + self.open.len() >= KEPT {
            self.all[watch].lost += 1;
            return decision;
        }
        let ports = copies[first..].iter().filter_map(|copy| switch.world.port(copy.to)).map(|port| port.id);
        let journey = Journey {
            steps: recorder.steps,
            dropped: if let Fate::Dropped(reason) = decision.fate { Some(reason) } else { None },
            copies: ports.collect(),
            lost: Vec::new(),
        };
        let sighting = Sighting {
            port,
            // Not when the turn began: that may be before another worker delivered what this frame answers.
            at_nanos: u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX),
            head: frame.bytes[..frame.bytes.len().min(HEAD)].to_vec(),
            len: frame.len,
            journey,
        };
        self.open.push(Open { watch, frame: at, copies: first, sighting });
        decision
    }

    /// Notes that the sender of the frame in place `at` of the batch, at `port`, was told.
    pub(super) fn answered(&mut self, at: usize, port: &Port, kind: AnswerKind) {
        if let Some(open) = self.open.iter_mut().find(|open| open.frame == at) {
            open.sighting.journey.steps.push(Step::answered(port, kind));
        }
    }

    /// Completes the batch's sightings with what became of their copies.
    pub(super) fn close(&mut self, copies: &[Copy]) {
        for Open { watch, copies: first, mut sighting, .. } in self.open.drain(..) {
            let count = sighting.journey.copies.len();
            let copies = copies.iter().skip(first).take(count);
            sighting.journey.lost = copies.map(|copy| copy.outcome.err()).collect();
            self.all[watch].sightings.push(sighting);
        }
    }

    /// Forgets the sightings of a batch that a panic cut short.
    pub(super) fn abandon(&mut self) {
        self.open.clear();
    }
}

fn matches(watch: &Watch, port: Option<PortId>, frame: &FrameView<'_>) -> bool {
    let contains = |wanted: &Vec<u8>| {
        wanted.is_empty() || frame.bytes.windows(wanted.len()).any(|window| window == wanted.as_slice())
    };
    watch.port.is_none_or(|wanted| Some(wanted) == port)
        && watch.src.is_none_or(|wanted| wanted == frame.link.src)
        && watch.dst.is_none_or(|wanted| wanted == frame.link.dst)
        && watch.ethertype.is_none_or(|wanted| wanted == frame.link.ethertype)
        && watch.contains.as_ref().is_none_or(contains)
}
