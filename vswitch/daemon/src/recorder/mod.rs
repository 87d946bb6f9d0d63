//! The flight recorder (DESIGN §2, law 8): what was lost, learned and changed in the last while, always on.
//!
//! Each worker has one, the control threads share one for links and configurations, and the routers have one (`journal`). A record is one cache line; a ring of
//! them is allocated once, and the oldest is forgotten. Of what is alike (one cause, at one port) only so many are recorded within
//! a window of time and the rest is counted, so that a flood pushes nothing else out.

pub(crate) mod journal;
mod note;
mod record;
mod ring;

pub use note::{Folded, FrameNote, Version, What};
pub use record::{Event, FaultKind, Moment, Record};

use record::CAUSES;
use ring::Ring;
use std::ops::Range;
use vswitch_core::clock::Instant;

/// Records of one worker: 4 MiB.
pub(crate) const WORKER_RECORDS: usize = 1 << 16;

/// Records that are copied out at one go: 256 KiB, some tens of microseconds of a worker's time.
pub(crate) const PIECE: usize = 4096;

/// How many alike are recorded within one window of the rate cap.
const CAP: u32 = 16;

/// The length of such a window, in nanoseconds.
const WINDOW: u64 = 100_000_000;

/// A ring of records, and who may still write how many.
pub struct Recorder {
    ring: Ring,
    /// By place of the port, and by cause.
    windows: Vec<[Window; CAUSES]>,
}

/// What is alike in the current window.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    /// The window's number, modulo 2^32: they come round after 13 years.
    number: u32,
    recorded: u32,
    /// The number of the last record, in whose `more` the rest is counted.
    last: u64,
}

/// Some of a recorder's records.
#[derive(Debug, Clone, Default)]
pub struct Piece {
    /// The records, in order of time.
    pub records: Vec<Record>,
    /// Where to go on.
    pub next: u64,
    /// The moment from which on nothing was forgotten.
    pub whole_since: Instant,
}

impl Recorder {
    /// A recorder of `records`, rounded up to a power of two; of 0 it keeps nothing.
    pub fn new(records: usize) -> Self {
        Self { ring: Ring::new(records), windows: Vec::new() }
    }

    /// Makes room for ports in the first `places` places.
    pub fn adopt(&mut self, places: usize) {
        self.windows.resize_with(places.max(self.windows.len()), || [Window::default(); CAUSES]);
    }

    /// Records that `event` happened to each of the frames in `places`, as far as the rate cap lets it; `frame` has a frame's first bytes and its
    /// length.
    #[cold]
    pub fn frames<'a>(
        &mut self,
        moment: Moment,
        event: Event,
        places: Range<usize>,
        frame: impl Fn(usize) -> (&'a [u8], u32),
    ) {
        self.note(moment, event, places, |place| Some(frame(place)));
    }

    /// Records that `event` happened `count` times; what is about no frame, or about frames that must not be looked at.
    #[cold]
    pub fn event(&mut self, moment: Moment, event: Event, count: usize) {
        self.note(moment, event, 0..count, |_| None);
    }

    fn note<'a>(
        &mut self,
        moment: Moment,
        event: Event,
        mut places: Range<usize>,
        frame: impl Fn(usize) -> Option<(&'a [u8], u32)>,
    ) {
        if self.ring.keeps_nothing() {
            return;
        }
        let windows = event.port().and_then(|port| self.windows.get_mut(usize::from(port.index())));
        // What concerns no port is rare, and no guest's doing.
        let mut unlimited = Window::default();
        let window = windows.map_or(&mut unlimited, |windows| &mut windows[event.cause()]);
        let number = (moment.at.as_nanos() / WINDOW) as u32;
        if window.number != number {
            *window = Window { number, recorded: 0, last: 0 };
        }
        while let Some(place) = places.next() {
            // The last record of the window may be forgotten already: then there is room for another.
            if window.recorded >= CAP
                && let Some(last) = self.ring.get_mut(window.last)
            {
                let rest = 1 + places.len();
                last.more = last.more.saturating_add(u32::try_from(rest).unwrap_or(u32::MAX));
                return;
            }
            window.last = self.ring.push(Record::new(moment, event, frame(place)));
            window.recorded += 1;
        }
    }

    /// What was recorded from `since` on, in order of time: at most some thousand records.
    pub fn records(&self, since: Instant) -> Vec<Record> {
        self.piece(0, since, Vec::with_capacity(PIECE)).records
    }

    /// Copies out at most [`PIECE`] records, into memory that the asker brings: from number `from` on, and not before `since`.
    pub(crate) fn piece(&self, from: u64, since: Instant, mut records: Vec<Record>) -> Piece {
        let next = self.ring.copy(from, since, &mut records);
        Piece { records, next, whole_since: self.ring.whole_since() }
    }
}

#[cfg(test)]
mod tests;
