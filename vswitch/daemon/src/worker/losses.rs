//! What a batch did not deliver, and what it taught: noted frame by frame, then counted and recorded once.

use super::ports::Life;
use crate::recorder::{Event, Moment, Recorder};
use vhost_net_backend::device::ring::FromGuest;
use vswitch_core::{
    decide::{Lesson, Switch},
    drop_reason::{DropReason, Side},
    fdb::{Learned, Refusal},
    id::PortId,
};

/// Frames in a row that were not delivered.
#[derive(Debug, Clone, Copy)]
struct Loss {
    /// Their places: from the first one to behind the last one.
    first: usize,
    end: usize,
    /// As the reason's side has it: the port that they came in by, or the one that their copies were for.
    at: u16,
    reason: DropReason,
}

/// All of a batch.
#[derive(Debug, Default)]
pub(super) struct Losses {
    all: Vec<Loss>,
    /// What frames taught, by place.
    lessons: Vec<(usize, Lesson)>,
}

impl Losses {
    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.lessons.clear();
    }

    /// How much there is by now, for [`Losses::take_back`].
    pub(super) fn mark(&self) -> usize {
        self.all.len()
    }

    /// Forgets what was lost since then, which is for other reasons than what was lost before.
    pub(super) fn take_back(&mut self, mark: usize) {
        self.all.truncate(mark);
    }

    /// The frame in this place, or a copy of it, was lost at the port `at`.
    pub(super) fn lose(&mut self, place: usize, at: u16, reason: DropReason) {
        match self.all.last_mut() {
            Some(last) if last.end == place && last.at == at && last.reason == reason => last.end += 1,
            _ => self.all.push(Loss { first: place, end: place + 1, at, reason }),
        }
    }

    /// Whether the frame in this place, or what was to be said of it, was lost at port `at` for such a reason.
    pub(super) fn has(&self, place: usize, at: u16, is_such: impl Fn(DropReason) -> bool) -> bool {
        let mut all = self.all.iter();
        all.any(|loss| (loss.first..loss.end).contains(&place) && loss.at == at && is_such(loss.reason))
    }

    /// The frame in this place taught something. Most teach nothing.
    #[cold]
    pub(super) fn learn(&mut self, place: usize, lesson: Lesson) {
        self.lessons.push((place, lesson));
    }

    /// Whether nothing was lost or learned.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.lessons.is_empty()
    }

    /// The frames that were dropped, not those of which copies were lost: their places, rising, and why.
    pub(super) fn dropped(&self) -> impl Iterator<Item = (usize, DropReason)> {
        let dropped = self.all.iter().filter(|loss| loss.reason.side() == Side::Ingress);
        dropped.flat_map(|loss| (loss.first..loss.end).map(|place| (place, loss.reason)))
    }

    /// Adds what was lost to the counters.
    pub(super) fn count(&self, lives: &mut [Option<Life>]) {
        for &Loss { first, end, at, reason } in &self.all {
            let Some(Some(life)) = lives.get_mut(usize::from(at)) else { continue };
            let frames = (end - first) as u64;
            match reason.side() {
                Side::Ingress => life.counters.dropped_in.count(reason, frames),
                Side::Egress => {
                    life.counters.copies += frames;
                    life.counters.dropped_out.count(reason, frames);
                }
            }
        }
    }

    /// Tells the recorder what was lost and learned of the frames in `ring`, which came in by `port`.
    #[cold]
    pub(super) fn record(&self, switch: &Switch<'_>, port: u16, ring: &FromGuest, recorder: &mut Recorder) {
        self.record_lessons(switch, port, ring, recorder);
        let (moment, port) = (moment(switch), id(switch, port));
        for &Loss { first, end, at, reason } in &self.all {
            let event = match reason.side() {
                Side::Ingress => Event::Dropped { port, reason },
                Side::Egress => Event::Lost { port, to: id(switch, at), reason },
            };
            recorder.frames(moment, event, first..end, |place| shown(ring, place));
        }
    }

    /// The same of what was learned alone.
    #[cold]
    pub(super) fn record_lessons(
        &self,
        switch: &Switch<'_>,
        port: u16,
        ring: &FromGuest,
        recorder: &mut Recorder,
    ) {
        let (moment, port) = (moment(switch), id(switch, port));
        for &(place, Lesson { switch, vlan, learned }) in &self.lessons {
            // Another worker was at it: the next frame teaches the same.
            if learned != Learned::Refused(Refusal::Busy) {
                let event = Event::Learned { port, switch, vlan, what: learned.into() };
                recorder.frames(moment, event, place..place + 1, |place| shown(ring, place));
            }
        }
    }
}

fn moment(switch: &Switch<'_>) -> Moment {
    Moment { at: switch.now, epoch: switch.world.epoch() }
}

fn id(switch: &Switch<'_>, port: u16) -> PortId {
    switch.world.port(port).map_or(PortId::new(port, 0), |port| port.id)
}

/// What is kept of the frame in this place.
fn shown(ring: &FromGuest, place: usize) -> (&[u8], u32) {
    let frame = ring.frame(place);
    (frame.head(), frame.len())
}
