//! Where connections stand: a fixed pool of entries, and an index of cache lines that finds them by digest.
//!
//! A slot of the index has an entry's number and eight bits of its digest. A digest has two lines, and in each a slot of its
//! own, behind which the first free one is taken: three of four connections stand in that slot of their first line, nearly all others
//! behind it, so that a look-up reads one line and one entry. The index has at least two slots for each entry: the chance that both
//! lines of a digest are full is below one in 10^6.
//! Slots are taken and given up by compare-and-swap, and free entries are a stack of that kind: nobody waits for anybody.

use super::{
    digest::Digest,
    entry::{Cold, Hot, Links, NONE},
};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Slots of a line.
const SLOTS: usize = 16;
/// The most connections that a table has room for: numbers have 24 bits, and zero is a free slot.
pub const MAX_CAPACITY: u32 = (1 << 24) - 1;
/// Slots of a line that are left to the digests whose first it is, while their second has as much room.
const RESERVED: usize = 1;
/// How often a compare-and-swap is tried that others came before.
const TRIES: usize = 64;

/// `31 tag 24 | 23 number + 1 0`; zero is free.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU32; SLOTS]);

/// Where a connection is likely to stand: a number of an entry, or of none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place(u32);

/// The index and the pool.
#[derive(Debug)]
pub(super) struct Table {
    index: Box<[Line]>,
    hot: Box<[Hot]>,
    cold: Box<[Cold]>,
    /// The other entry of a pair, by number: [`Twin`].
    twins: Box<[AtomicU32]>,
    /// `63 turns 32 | 31 first free entry 0`, of those that were given back: the turns tell a stack from one that looks the same by chance.
    free: AtomicU64,
    /// How many entries were ever taken, and the first that never was: those given back are taken first.
    reached: AtomicU32,
}

/// The other entry of a [pair](super::pairs), as it stands: `31 whether the entry that names it is the inverse | 30 number + 1 0`; zero is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Twin {
    pub(super) number: u32,
    /// Whether the entry that names it is the inverse.
    pub(super) of_inverse: bool,
}

impl Twin {
    const INVERSE: u32 = 1 << 31;

    fn from_word(word: u32) -> Option<Self> {
        let number = (word & !Self::INVERSE).checked_sub(1)?;
        Some(Self { number, of_inverse: word & Self::INVERSE != 0 })
    }

    const fn word(self) -> u32 {
        (self.number + 1) | if self.of_inverse { Self::INVERSE } else { 0 }
    }
}

fn lines<T: Default>(count: usize) -> Box<[T]> {
    std::iter::repeat_with(T::default).take(count).collect()
}

impl Table {
    /// With room for so many connections, at most [`MAX_CAPACITY`].
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, MAX_CAPACITY as usize);
        let index = (2 * capacity).div_ceil(SLOTS).next_power_of_two().max(2);
        Self {
            index: lines(index),
            hot: lines(capacity),
            cold: lines(capacity),
            twins: lines(capacity),
            free: AtomicU64::new(NONE.into()),
            reached: AtomicU32::new(0),
        }
    }

    /// How many connections there can be.
    pub(super) const fn capacity(&self) -> usize {
        self.hot.len()
    }

    /// How many entries, from the first on, were ever taken: in the others there is no connection, and nobody needs to look.
    pub(super) fn reached(&self) -> usize {
        self.reached.load(Ordering::Relaxed) as usize
    }

    #[inline]
    pub(super) fn hot(&self, number: u32) -> &Hot {
        &self.hot[number as usize]
    }

    pub(super) fn cold(&self, number: u32) -> &Cold {
        &self.cold[number as usize]
    }

    /// The entry that belongs to this one, if it is one of a pair.
    pub(super) fn twin(&self, number: u32) -> Option<Twin> {
        Twin::from_word(self.twins[number as usize].load(Ordering::Acquire))
    }

    /// The entry of a connection, of which this one may be the inverse.
    pub(super) fn connection(&self, number: u32) -> u32 {
        self.twin(number).filter(|twin| twin.of_inverse).map_or(number, |twin| twin.number)
    }

    /// Makes two entries a pair. Only under the lock of their share.
    pub(super) fn join(&self, number: u32, inverse: u32) {
        let [to_inverse, back] =
            [Twin { number: inverse, of_inverse: false }, Twin { number, of_inverse: true }];
        self.twins[number as usize].store(to_inverse.word(), Ordering::Release);
        self.twins[inverse as usize].store(back.word(), Ordering::Release);
    }

    /// Makes the entry and its twin two again; which that was. Only under the lock of their share.
    pub(super) fn part(&self, number: u32) -> Option<u32> {
        let twin = Twin::from_word(self.twins[number as usize].swap(0, Ordering::AcqRel))?;
        self.twins[twin.number as usize].store(0, Ordering::Release);
        Some(twin.number)
    }

    /// All of that kind, for queues.
    pub(super) const fn pool(&self) -> &[Cold] {
        &self.cold
    }

    #[inline]
    fn line(&self, number: usize) -> &Line {
        &self.index[number & (self.index.len() - 1)]
    }

    /// What the slot of its first line says that a digest is likely to be in.
    #[inline(always)]
    pub(super) fn likely(&self, digest: Digest) -> Place {
        Place(number(self.line(digest.first()).0[digest.slot() % SLOTS].load(Ordering::Acquire)))
    }

    /// Loads a word of the entry there.
    #[inline(always)]
    pub(super) fn load(&self, place: Place) -> u64 {
        self.hot.get(place.0 as usize).map_or(0, Hot::touch)
    }

    /// The entries that slots of a line name which have the digest's tag.
    #[inline(always)]
    fn named<'a>(&'a self, line: &'a Line, digest: Digest) -> impl Iterator<Item = (u32, &'a Hot)> {
        let slots = (0..SLOTS).map(move |n| line.0[(digest.slot() + n) % SLOTS].load(Ordering::Acquire));
        let tagged = slots.filter(move |slot| slot >> 24 == u32::from(digest.tag()));
        tagged.filter_map(|slot| Some((number(slot), self.hot.get(number(slot) as usize)?)))
    }

    /// The entry of a digest, if it stands there or its first line names it.
    #[inline(always)]
    pub(super) fn find_near(&self, place: Place, digest: Digest) -> Option<&Hot> {
        let likely = self.hot.get(place.0 as usize);
        likely.filter(|hot| hot.is(digest)).or_else(|| self.find_behind(digest))
    }

    /// The same where it is not in the slot of that line in which it is likely to be.
    #[inline(never)]
    fn find_behind(&self, digest: Digest) -> Option<&Hot> {
        let mut named = self.named(self.line(digest.first()), digest);
        named.find(|(_, hot)| hot.is(digest)).map(|(_, hot)| hot)
    }

    /// The entry of a digest.
    pub(super) fn find(&self, digest: Digest) -> Option<u32> {
        let lines = [digest.first(), digest.second()].map(|line| self.line(line));
        let mut named = lines.into_iter().flat_map(|line| self.named(line, digest));
        named.find(|(_, hot)| hot.is(digest)).map(|(number, _)| number)
    }

    /// Makes a written entry one that can be found; whether there was a slot.
    pub(super) fn publish(&self, digest: Digest, number: u32) -> bool {
        let [first, second] = [digest.first(), digest.second()].map(|line| self.line(line));
        let room = |line: &Line| line.0.iter().filter(|slot| slot.load(Ordering::Relaxed) == 0).count();
        let in_first = room(first);
        let order =
            if in_first > RESERVED || in_first >= room(second) { [first, second] } else { [second, first] };
        let value = slot(digest, number);
        let slots =
            order.into_iter().flat_map(|line| (0..SLOTS).map(|n| &line.0[(digest.slot() + n) % SLOTS]));
        for slot in slots {
            if slot.compare_exchange(0, value, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return true;
            }
        }
        false
    }

    /// Takes the slot of an entry out of the index. Under the lock of its share.
    pub(super) fn withdraw(&self, digest: Digest, number: u32) {
        let value = slot(digest, number);
        let lines = [digest.first(), digest.second()].map(|line| self.line(line));
        let slots =
            lines.into_iter().flat_map(|line| (0..SLOTS).map(|n| &line.0[(digest.slot() + n) % SLOTS]));
        for slot in slots {
            if slot.load(Ordering::Relaxed) == value {
                slot.store(0, Ordering::Release);
                return;
            }
        }
    }

    /// A free entry; none if there is none, or too many others took one.
    pub(super) fn take(&self) -> Option<u32> {
        self.take_again().or_else(|| self.take_first())
    }

    /// One that was given back.
    fn take_again(&self) -> Option<u32> {
        for _ in 0..TRIES {
            let top = self.free.load(Ordering::Acquire);
            let number = top as u32;
            let next = self.cold.get(number as usize)?.links().behind;
            if self.replace_top(top, next) {
                return Some(number);
            }
        }
        None
    }

    /// The first that was never taken.
    fn take_first(&self) -> Option<u32> {
        for _ in 0..TRIES {
            let number = self.reached.load(Ordering::Relaxed);
            self.cold.get(number as usize)?;
            let next =
                self.reached.compare_exchange(number, number + 1, Ordering::Relaxed, Ordering::Relaxed);
            if next.is_ok() {
                return Some(number);
            }
        }
        None
    }

    /// Gives an entry back that can no longer be found.
    pub(super) fn give_back(&self, number: u32) {
        loop {
            let top = self.free.load(Ordering::Acquire);
            self.cold(number).set_links(Links { queue: 0, before: NONE, behind: top as u32 });
            // Somebody else's success is what makes this fail: the table as a whole never stands still.
            if self.replace_top(top, number) {
                return;
            }
        }
    }

    fn replace_top(&self, top: u64, number: u32) -> bool {
        let turns = (top >> 32).wrapping_add(1) << 32;
        let next = turns | u64::from(number);
        self.free.compare_exchange(top, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// What a slot says that names an entry.
const fn slot(digest: Digest, number: u32) -> u32 {
    (digest.tag() as u32) << 24 | (number + 1)
}

/// The entry that a slot names; of a free one, a number that no entry has.
#[inline]
const fn number(slot: u32) -> u32 {
    (slot & 0xff_ffff).wrapping_sub(1)
}
