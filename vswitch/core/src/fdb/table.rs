//! Tables of buckets: where a key may stand in one, and the larger ones that take its place.
//!
//! A key may stand in two buckets: its first, and its second if the first is nearly full and the second has more room.
//! So the buckets fill evenly: in a table that is half full one address in 20,000 finds both full, and four of five stand
//! in their first. Both share a lock (they agree in the bits that choose it).

use super::{
    Hash, Key,
    entry::{Bucket, Entry, First, Slot},
};
use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering},
};

/// Tables, each [`GROWTH`] times as large as the one before.
const LEVELS: usize = 3;
const GROWTH: usize = 8;
/// Slots of a bucket that are left to the keys whose first it is, while their second has as much room.
const RESERVED: usize = 2;
/// One table.
#[derive(Debug)]
pub(super) struct Table(Box<[Bucket]>);

impl Table {
    fn new(buckets: usize) -> Self {
        Self(std::iter::repeat_with(Bucket::default).take(buckets).collect())
    }

    /// Buckets; a power of two.
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Room for so many entries, were they spread evenly.
    pub(super) const fn slots(&self) -> usize {
        self.0.len() * Bucket::SLOTS
    }

    /// The bucket of this number, modulo their number.
    #[inline]
    pub(super) fn bucket(&self, number: usize) -> &Bucket {
        self.buckets().bucket(number)
    }

    /// For readers.
    #[inline]
    pub(super) fn buckets(&self) -> Buckets<'_> {
        Buckets(&self.0)
    }

    /// All that is there.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.0.iter().flat_map(|bucket| &bucket.0).filter_map(Slot::read)
    }

    /// The entry of a key, aged or not.
    #[inline]
    pub(super) fn find(&self, hash: Hash, key: Key) -> Option<(&Slot, Entry)> {
        match self.bucket(hash.first()).find(key) {
            None => self.bucket(hash.second()).find(key),
            found => found,
        }
    }

    /// The slots where a key may stand.
    pub(super) fn candidates(&self, hash: Hash) -> impl Iterator<Item = &Slot> {
        self.buckets().candidates(hash)
    }

    /// A slot for a key that stands nowhere: one that `is_free`.
    pub(super) fn room(&self, hash: Hash, is_free: impl Fn(&Slot) -> bool) -> Option<&Slot> {
        let free = |number| self.bucket(number).0.iter().filter(|slot| is_free(slot));
        let (first, second) = (free(hash.first()).count(), || free(hash.second()).count());
        let number = if first > RESERVED || first >= second() { hash.first() } else { hash.second() };
        free(number).next()
    }
}

/// A table's buckets, as few words away from a reader as can be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buckets<'a>(&'a [Bucket]);

impl<'a> Buckets<'a> {
    #[inline(always)]
    fn bucket(self, number: usize) -> &'a Bucket {
        &self.0[number & (self.0.len() - 1)]
    }

    /// The slots where a key may stand.
    pub(super) fn candidates(self, hash: Hash) -> impl Iterator<Item = &'a Slot> {
        self.bucket(hash.first()).0.iter().chain(&self.bucket(hash.second()).0)
    }

    /// Loads a word of a key's first bucket, where four of five stand.
    #[inline(always)]
    pub(super) fn touch(self, hash: Hash) -> u64 {
        self.bucket(hash.first()).0[0].first().0
    }

    /// The slot of a key whose first word `is_it`; or of the same address in another VLAN, which may stand before it.
    #[inline(always)]
    pub(super) fn slot(self, hash: Hash, is_it: impl Fn(First) -> bool) -> Option<&'a Slot> {
        match self.bucket(hash.first()).slot(&is_it) {
            None => self.bucket(hash.second()).slot(&is_it),
            found => found,
        }
    }
}

/// The table in use, and those that it has outgrown. They are kept: a reader may still be in one, and all of them
/// together are a small part of the one in use.
#[derive(Debug)]
pub(super) struct Tables {
    levels: [OnceLock<Table>; LEVELS],
    current: AtomicUsize,
}

impl Tables {
    /// A first table of `buckets`, a power of two.
    pub(super) fn new(buckets: usize) -> Self {
        let levels = [const { OnceLock::new() }; LEVELS];
        levels[0].get_or_init(|| Table::new(buckets));
        Self { levels, current: AtomicUsize::new(0) }
    }

    /// The one in use.
    #[inline]
    pub(super) fn current(&self) -> &Table {
        let level = self.current.load(Ordering::Acquire);
        self.levels[level].get().expect("a level is set before it is current")
    }

    /// Whether it is larger than the first.
    #[inline]
    pub(super) fn has_grown(&self) -> bool {
        self.current.load(Ordering::Relaxed) > 0
    }

    /// Whether there can be a larger one.
    pub(super) fn can_grow(&self) -> bool {
        self.current.load(Ordering::Relaxed) + 1 < LEVELS
    }

    /// Slots of the largest there can be.
    pub(super) fn most_slots(&self) -> usize {
        let left = LEVELS - 1 - self.current.load(Ordering::Relaxed);
        self.current().slots() * GROWTH.pow(left as u32)
    }

    /// An empty table of the next size; none if this is the largest.
    pub(super) fn next(&self) -> Option<Table> {
        self.can_grow().then(|| Table::new(self.current().len() * GROWTH))
    }

    /// Puts `table`, which came from [`Self::next`], in the place of the one in use. Under every lock.
    pub(super) fn succeed(&self, table: Table) {
        let level = self.current.load(Ordering::Relaxed) + 1;
        self.levels[level].get_or_init(|| table);
        self.current.store(level, Ordering::Release);
    }
}
