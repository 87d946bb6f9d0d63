//! How the FDB grows with what it holds: memory is taken for addresses that are there, and never by a worker.
//!
//! A worker that finds the table half full wakes whoever grows it. While entries go over to the larger one, every lock
//! is held: workers look up, and deliver, as ever, and what would change an entry waits for the next frame.

use super::{Fdb, entry::Slot};
use std::{
    sync::{PoisonError, atomic::Ordering},
    thread::Thread,
};

impl Fdb {
    /// `thread` is unparked each time that the table is half full; then it has to call [`Fdb::grow`]. Only the first
    /// one that is named.
    pub fn wake_to_grow(&self, thread: Thread) {
        let _ = self.grower.set(thread);
        self.call_if_crowded();
    }

    /// Grows the table eightfold if it is more than half full and not the largest; says whether it did. Not by a worker: it
    /// takes memory and waits for locks.
    pub fn grow(&self) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.grow_if_crowded()
    }

    /// As [`Fdb::grow`], for whoever holds `changing`.
    pub(super) fn grow_if_crowded(&self) -> bool {
        if !self.is_crowded() {
            return false;
        }
        // Made, and its memory touched, before anybody has to wait.
        let Some(larger) = self.tables.next() else { return false };
        let _all = self.locks.all();
        let table = self.tables.current();
        for slot in (0..table.len()).flat_map(|number| &table.bucket(number).0) {
            let Some(entry) = slot.read() else { continue };
            match larger.room(self.hash(entry.key()), |slot| slot.read().is_none()) {
                Some(room) => room.write(entry.first, entry.second),
                // It cannot be that eight times the room is too little, but for one in far more than there are.
                None => self.uncount(slot),
            }
        }
        self.tables.succeed(larger);
        self.called.store(false, Ordering::Relaxed);
        true
    }

    /// Whether there is a larger table to go to, and reason.
    fn is_crowded(&self) -> bool {
        self.tables.can_grow() && self.held.load(Ordering::Relaxed) > self.tables.current().slots() / 2
    }

    /// Wakes whoever grows the table, once.
    pub(super) fn call_if_crowded(&self) {
        if self.is_crowded()
            && let Some(thread) = self.grower.get()
            && !self.called.swap(true, Ordering::Relaxed)
        {
            thread.unpark();
        }
    }

    /// Takes a slot's entry out of the counts, if it has one. Under its lock.
    pub(super) fn uncount(&self, slot: &Slot) {
        let Some(entry) = slot.read() else { return };
        self.held.fetch_sub(1, Ordering::Relaxed);
        if !entry.is_stated()
            && let Some(port) = entry.first.port_index()
        {
            self.learned_on[usize::from(port)].fetch_sub(1, Ordering::Relaxed);
        }
    }
}
