//! The FDB as one batch reads it: the table is fetched once, an address is placed once, and what nearly always holds is
//! compared a word at a time. Whatever does not compare equal is for [`Fdb::learn`] and [`Fdb::lookup`], which say why.

use super::{
    Fdb, Target,
    entry::{Entry, First, Place, Second, Slot},
    hash::{Hash, Hasher},
    table::Buckets,
};
use crate::{
    clock::Instant,
    id::{PortId, SwitchId},
    world::{Port, World},
};

/// One switch's part of the FDB at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    fdb: &'a Fdb,
    buckets: Buckets<'a>,
    /// The moment, in seconds.
    second: u32,
    /// What was seen in an earlier second than this is aged out.
    oldest: u32,
}

/// Addresses that are seen on one port: what their entries have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    number: u64,
    /// The low half of the second word of an entry that was refreshed in this second, and the generation.
    low: u64,
}

impl Fdb {
    /// The FDB for one batch that comes in on `switch`.
    #[inline]
    pub(crate) fn reader(&self, switch: SwitchId, now: Instant) -> Reader<'_> {
        let second = now.as_secs();
        let oldest = Second::clamped(second.saturating_sub(self.aging_secs(switch).into()));
        Reader {
            fdb: self,
            buckets: self.tables.current().buckets(),
            second: Second::clamped(second),
            oldest,
        }
    }
}

impl Reader<'_> {
    /// The same with the table that is in use now: what this thread has just learned may not be in the one before.
    #[inline]
    pub(crate) fn renewed(self) -> Self {
        Self { buckets: self.fdb.tables.current().buckets(), ..self }
    }

    /// What places addresses.
    #[inline]
    pub(crate) fn hasher(&self) -> Hasher {
        self.fdb.hasher
    }

    /// As [`Fdb::is_cold`]: then [`Self::warm`] is worth its instructions.
    #[inline]
    pub(crate) fn is_cold(&self) -> bool {
        self.fdb.is_cold()
    }

    /// Loads a word of the bucket where an address is likely to stand. Loads for several addresses are independent of each other, so
    /// that their cache misses overlap: safe code cannot prefetch. Give the results to [`std::hint::black_box`].
    #[inline(always)]
    pub(crate) fn warm(&self, hash: Hash) -> u64 {
        self.buckets.touch(hash)
    }

    /// Addresses that are seen on `port` now.
    #[inline]
    pub(crate) fn seen_on(&self, port: PortId) -> Seen {
        let target = Target::Port(port);
        Seen {
            number: target.number().into(),
            low: u64::from(target.generation()) << 32 | u64::from(self.second),
        }
    }

    /// Whether `address` in `place` is known where it was `seen`, and that is noted. If not, it is to be learned.
    #[inline(always)]
    pub(crate) fn notes(&self, seen: Seen, place: Place, address: u64, hash: Hash) -> bool {
        let first = First(address | seen.number);
        let fresh = Second(place.high() | seen.low);
        let Some(slot) = self.buckets.slot(hash, |found| found == first) else { return false };
        let second = slot.second();
        second == fresh || second.is_fixed() && second.is_like(fresh) || self.note(first, fresh, hash)
    }

    /// What each address needs once a second: the entry was not seen yet in this one. And what one needs that stands behind its like of
    /// another VLAN.
    #[inline(never)]
    fn note(&self, first: First, fresh: Second, hash: Hash) -> bool {
        let stands = |entry: &Entry| {
            entry.first == first && entry.second.is_like(fresh) && !entry.second.is_before(self.oldest)
        };
        let stood = |slot: &'_ _| Slot::read(slot).filter(stands);
        let found = self.buckets.candidates(hash).find_map(|slot| Some((slot, stood(slot)?)));
        let Some((slot, entry)) = found else { return false };
        if !entry.is_fixed() && entry.second != fresh {
            slot.refresh(entry, self.second.into());
        }
        true
    }

    /// An entry of `address` that is not aged out: mostly that of the VLAN and switch that are asked for, else what stands before it.
    #[inline(always)]
    pub(crate) fn find(&self, address: u64, hash: Hash) -> Option<Entry> {
        let is_it = |first: First| first.0 ^ address <= u64::from(u16::MAX);
        let entry = self.buckets.slot(hash, is_it)?.read()?;
        (is_it(entry.first) && !entry.second.is_before(self.oldest)).then_some(entry)
    }

    /// That of `place`, of which `found` stands before it if it is of another.
    #[inline(always)]
    pub(crate) fn find_in(&self, place: Place, found: Entry, hash: Hash) -> Option<Entry> {
        if found.second.place() == place { Some(found) } else { self.find_behind(place, found, hash) }
    }

    #[inline(never)]
    fn find_behind(&self, place: Place, before: Entry, hash: Hash) -> Option<Entry> {
        let stands = |entry: &Entry| {
            entry.first.mac() == before.first.mac()
                && entry.second.place() == place
                && !entry.second.is_before(self.oldest)
        };
        self.buckets.candidates(hash).filter_map(Slot::read).find(stands)
    }
}

impl Entry {
    /// Whether both say the same of where their addresses are.
    #[inline(always)]
    pub(crate) fn is_where(self, other: Self) -> bool {
        self.first.number() == other.first.number() && self.second.is_like(other.second)
    }

    /// The port where its address is, if that is one of this World's.
    #[inline]
    pub(crate) fn port(self, world: &World) -> Option<&Port> {
        let port = world.port(self.first.port_index()?)?;
        self.is_at(Target::Port(port.id)).then_some(port)
    }
}
