//! A worker's transmitqs: those that had frames lately are polled at every turn, and of the others a few.
//!
//! So a port that is attached and silent costs next to nothing, however many there are. A quiet ring stays armed: its driver kicks
//! at its next frame, which wakes a worker that sleeps; a busy one comes by.

use super::{
    batch::Receiveq,
    budget::{Appetite, Budget},
    patience::Patience,
};
use vhost_net_backend::device::ring::{FromGuest, MAX_BATCH};
use vswitch_core::clock::Instant;

/// Turns in a row without a frame after which a driver that polls sees all of its completions: some microseconds.
const LULL: u16 = 256;

/// Turns in a row without a frame after which a ring is quiet.
const PATIENCE: u16 = 1024;

/// Quiet rings that are looked at in a turn, at most: in one that follows an idle turn, which costs nobody anything, or one that moved many
/// frames.
const LOOKS: usize = 8;
/// Frames for which there is one look, so that a frame of a short turn pays no more for the silent than one of a long turn. At least
/// one look.
const FRAMES_A_LOOK: usize = 16;

/// Frames that are taken off a ring at least, if they are there.
const LEAST_REACH: usize = 4;

/// How much more work than others' frames those of a dear source are.
const DEAR: usize = 4;

/// A transmitq and the place of the port that it belongs to.
pub(super) struct Source {
    pub(super) port: u16,
    pub(super) ring: FromGuest,
    /// What its last frames went to: the next ones probably do.
    pub(super) toward: Receiveq,
    /// Turns in a row without a frame.
    idle: u16,
    appetite: Appetite,
    pub(super) patience: Patience,
    /// Frames that are worth taking off the ring: what a batch was not to decide goes back, and was read in vain.
    reach: usize,
    /// Work that it has had beyond its share while it was greedy and others were not.
    debt: usize,
}

impl Source {
    /// For its last batch, of so many frames, there was no room: a smaller one finds some sooner.
    pub(super) fn take_fewer(&mut self, frames: usize) {
        self.reach = (frames / 2).max(1);
    }
}

/// Who had frames in a turn, and how many.
#[derive(Debug, Clone, Copy, Default)]
struct Attendance {
    frames: usize,
    /// Sources that had some.
    sources: usize,
    /// Greedy sources.
    greedy: usize,
    /// Those among them whose frames take far longer than others'.
    dear: usize,
    /// Whether there was any that was not greedy.
    modest: bool,
}

/// What is due for a ring after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Its driver is to be told: completions were held back from it.
    Tell,
    /// It can be made [quiet](Sources::quiet).
    Quiet,
}

/// All transmitqs that a worker serves.
#[derive(Default)]
pub(super) struct Sources {
    /// The first `active` are polled at every turn; the others are quiet and armed.
    all: Vec<Source>,
    active: usize,
    /// Where the next look at quiet ones goes on, counted from `active`.
    next_look: usize,
    /// In this turn, and in the one before.
    now: Attendance,
    before: Attendance,
}

impl Sources {
    /// How many are polled at every turn.
    #[inline(always)]
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Source> {
        self.all.iter()
    }

    /// The one in place `at`.
    #[inline(always)]
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Source> {
        self.all.get_mut(at)
    }

    /// Serves one more.
    pub(super) fn push(&mut self, port: u16, ring: FromGuest) {
        // Another worker may have had it, armed.
        ring.disarm();
        let (toward, appetite) = ((port, 0), Appetite::default());
        let patience = Patience::default();
        self.all.push(Source { port, ring, toward, idle: 0, appetite, patience, reach: MAX_BATCH, debt: 0 });
        let last = self.all.len() - 1;
        self.promote(last);
    }

    /// Stops serving those that `which` picks.
    pub(super) fn remove(&mut self, which: impl Fn(&Source) -> bool) -> Vec<FromGuest> {
        let mut removed = Vec::new();
        while let Some(mut at) = self.all.iter().position(&which) {
            if at < self.active {
                self.active -= 1;
                self.all.swap(at, self.active);
                at = self.active;
            }
            let mut ring = self.all.swap_remove(at).ring;
            ring.release();
            removed.push(ring);
        }
        removed
    }

    /// A turn begins: looks at some of the quiet ones; those that have frames are polled from now on. No place of an active one
    /// changes.
    #[inline]
    pub(super) fn look_around(&mut self) {
        self.before = std::mem::take(&mut self.now);
        if self.active < self.all.len() {
            let looks = if self.before.frames == 0 { LOOKS } else { self.before.frames / FRAMES_A_LOOK };
            self.look(looks.clamp(1, LOOKS));
        }
    }

    #[inline(never)]
    fn look(&mut self, looks: usize) {
        for _ in 0..looks.min(self.all.len() - self.active) {
            if self.active + self.next_look >= self.all.len() {
                self.next_look = 0;
            }
            let at = self.active + self.next_look;
            if self.all[at].ring.has_work() {
                self.all[at].ring.disarm();
                // The first quiet one, seen before, takes its place, which now counts one less.
                self.promote(at);
            } else {
                self.next_look += 1;
            }
        }
    }

    fn promote(&mut self, at: usize) {
        self.all[at].idle = 0;
        self.all.swap(at, self.active);
        self.active += 1;
    }

    /// Whether the ring in place `at` waits in this turn, for it has a debt to others.
    #[inline(always)]
    pub(super) fn waits(&mut self, at: usize) -> bool {
        self.all.get(at).is_some_and(|source| source.debt > 0) && self.pay(at)
    }

    /// A turn of its debt is over.
    #[cold]
    fn pay(&mut self, at: usize) -> bool {
        let source = &mut self.all[at];
        if !self.before.modest {
            source.debt = 0;
            return false;
        }
        source.debt = source.debt.saturating_sub(Budget::beside_others(self.before.greedy).work);
        let waits = source.debt > 0;
        self.now.greedy += usize::from(waits);
        self.now.dear += usize::from(waits);
        waits
    }

    /// What the next batch of the ring in place `at` may take.
    #[inline(always)]
    pub(super) fn budget(&self, at: usize) -> Budget {
        let Some(source) = self.all.get(at) else { return Budget::FULL };
        let own = usize::from(source.idle == 0);
        let budget = if self.before.modest && source.appetite.is_greedy() {
            Budget::beside_others(self.before.greedy)
        } else if self.before.sources > own {
            Budget::SHARED
        } else {
            Budget::FULL
        };
        Budget { frames: budget.frames.min(source.reach), ..budget }
    }

    /// Notes how many frames the ring in place `at` had, what work they were, and whether they were `much`; says what is due.
    #[inline(always)]
    pub(super) fn note(
        &mut self,
        at: usize,
        (frames, work): (usize, usize),
        much: bool,
        now: Instant,
    ) -> Due {
        let Some(source) = self.all.get_mut(at) else { return Due::Nothing };
        if frames == 0 {
            source.appetite.note(false, now);
            source.idle = source.idle.saturating_add(1);
            return match source.idle {
                LULL if source.ring.release() => Due::Tell,
                idle if idle > PATIENCE => Due::Quiet,
                _ => Due::Nothing,
            };
        }
        source.idle = 0;
        let more = source.ring.left_some();
        let is_dear = work > DEAR * frames;
        source.reach = if more { (2 * frames).clamp(LEAST_REACH, MAX_BATCH) } else { MAX_BATCH };
        // Who leaves frames since others' take so long is not greedy.
        let excused = self.before.dear > 0 && !is_dear;
        source.appetite.note(much || more && !excused, now);
        let greedy = source.appetite.is_greedy();
        if greedy && self.before.modest {
            source.debt += work.saturating_sub(Budget::beside_others(self.before.greedy).work);
        }
        self.now.frames += frames;
        self.now.sources += 1;
        self.now.greedy += usize::from(greedy);
        self.now.dear += usize::from(greedy && is_dear);
        self.now.modest |= !greedy;
        Due::Nothing
    }

    /// No longer polls the ring in place `at` at every turn, if it has no frames still. True if so: then the next one is in its place.
    #[cold]
    pub(super) fn quiet(&mut self, at: usize) -> bool {
        if at >= self.active {
            // Another one turned out to be broken meanwhile, and was taken out.
            return false;
        }
        if self.all[at].ring.arm() {
            self.all[at].ring.disarm();
            self.all[at].idle = 0;
            return false;
        }
        self.active -= 1;
        self.all.swap(at, self.active);
        // It is the first quiet one now, and was seen: the look goes on where it was.
        self.next_look += 1;
        true
    }

    /// Asks every driver for a kick at its next frame. True if there is one already.
    pub(super) fn arm(&self) -> bool {
        // Not `any`: each ring must be armed, also behind one that has work. The quiet ones are; but of one whose driver kicked while this
        // worker was awake no other kick will come.
        let (polled, quiet) = self.all.split_at(self.active);
        let work = polled.iter().fold(false, |work, source| source.ring.arm() | work);
        work || quiet.iter().any(|source| source.ring.has_work())
    }

    /// Asks those that are polled for no more kicks.
    pub(super) fn disarm(&self) {
        self.all[..self.active].iter().for_each(|source| source.ring.disarm());
    }
}
