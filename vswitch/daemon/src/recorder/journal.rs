//! What is recorded beside the workers: links that come and go and configurations, by the control threads; and by the routers what waited for who does not answer,
//! in a journal of its own. So no flood of frames can push the former out, and no worker waits for a lock.

use super::{Event, Moment, Piece, Record, Recorder};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time,
};
use vswitch_core::{
    clock::Instant,
    id::{Epoch, PortId},
};

/// How many records it holds: 256 KiB.
const RECORDS: usize = 4096;

/// The recorder of all control threads, or that of the routers.
pub(crate) struct Journal {
    origin: time::Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    recorder: Recorder,
    epoch: Epoch,
}

impl Journal {
    /// An empty one, in which time begins at `origin`.
    pub(crate) fn new(origin: time::Instant) -> Self {
        Self { origin, inner: Mutex::new(Inner { recorder: Recorder::new(RECORDS), epoch: Epoch::new(0) }) }
    }

    /// Configuration `epoch` with these ports comes into force.
    pub(crate) fn apply(&self, epoch: Epoch, ports: impl Iterator<Item = PortId>) {
        self.follow(epoch, ports);
        self.note(Event::Applied);
    }

    /// The same, which another journal notes.
    pub(crate) fn follow(&self, epoch: Epoch, ports: impl Iterator<Item = PortId>) {
        let mut inner = self.inner();
        inner.epoch = epoch;
        let places = ports.map(|port| usize::from(port.index()) + 1).max().unwrap_or(0);
        inner.recorder.adopt(places);
    }

    /// Records what happened just now.
    pub(crate) fn note(&self, event: Event) {
        let mut inner = self.inner();
        // The clock is read under the lock, so that records are in order of time.
        let moment = Moment { at: Instant::ZERO + self.origin.elapsed(), epoch: inner.epoch };
        inner.recorder.event(moment, event, 1);
    }

    /// Records what happened just now to a frame of `len` bytes, whose first are these.
    pub(crate) fn frame(&self, event: Event, (bytes, len): (&[u8], u32)) {
        let mut inner = self.inner();
        let moment = Moment { at: Instant::ZERO + self.origin.elapsed(), epoch: inner.epoch };
        inner.recorder.frames(moment, event, 0..1, |_| (bytes, len));
    }

    /// As [`Recorder::piece`].
    pub(crate) fn piece(&self, from: u64, since: Instant, records: Vec<Record>) -> Piece {
        self.inner().recorder.piece(from, since, records)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
