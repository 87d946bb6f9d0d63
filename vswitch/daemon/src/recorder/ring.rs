//! The records themselves: a ring that forgets the oldest, written by one and copied out in pieces.

use super::record::Record;
use vswitch_core::clock::Instant;

/// A bounded ring of records in order of time. Each has a number: how many were written before it.
pub(super) struct Ring {
    /// Room for all from the start; a page of it costs memory once it is written.
    records: Vec<Record>,
    capacity: usize,
    written: u64,
}

impl Ring {
    /// An empty ring for `capacity` records, rounded up to a power of two, or for none.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = if capacity == 0 { 0 } else { capacity.next_power_of_two() };
        Self { records: Vec::with_capacity(capacity), capacity, written: 0 }
    }

    /// Whether there is room for no record at all: then none may be added.
    pub(super) fn keeps_nothing(&self) -> bool {
        self.capacity == 0
    }

    /// Adds the latest record, over the oldest if the ring is full; returns its number.
    pub(super) fn push(&mut self, record: Record) -> u64 {
        let number = self.written;
        let place = self.place(number);
        match self.records.get_mut(place) {
            Some(oldest) => *oldest = record,
            None => self.records.push(record),
        }
        self.written += 1;
        number
    }

    /// The record with this number, if it is not forgotten.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Record> {
        let place = self.place(number);
        (self.oldest()..self.written).contains(&number).then(|| &mut self.records[place])
    }

    /// The moment from which on nothing was forgotten.
    pub(super) fn whole_since(&self) -> Instant {
        if self.oldest() == 0 { Instant::ZERO } else { self.at(self.oldest()) }
    }

    /// Copies records to `into` until that is full (it is never made larger): those from number `from` on, and not before `since`. Returns
    /// the number to go on from.
    pub(super) fn copy(&self, from: u64, since: Instant, into: &mut Vec<Record>) -> u64 {
        let begin = from.max(self.first_since(since));
        let room = (into.capacity() - into.len()) as u64;
        let end = self.written.min(begin.saturating_add(room));
        into.extend((begin..end).map(|number| self.records[self.place(number)]));
        begin.max(end)
    }

    fn place(&self, number: u64) -> usize {
        number as usize & (self.capacity - 1)
    }

    fn oldest(&self) -> u64 {
        self.written.saturating_sub(self.capacity as u64)
    }

    fn at(&self, number: u64) -> Instant {
        self.records[self.place(number)].at
    }

    /// The number of the first record that is not before `since`, by halving.
    fn first_since(&self, since: Instant) -> u64 {
        let (mut low, mut high) = (self.oldest(), self.written);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.at(middle) < since { low = middle + 1 } else { high = middle }
        }
        low
    }
}
