//! The filtering database (IEEE 802.1Q-2018 §8.8): which address was seen where. Shared by all workers.
//!
//! Readers take no lock. A learn only compares while nothing changes. What changes an entry tries a lock over its
//! bucket, and does without if another holds it: the next frame learns as well. Ageing needs no timer: an entry that is
//! too old is absent for every reader, and its slot is taken when it is wanted or swept. It grows with what it holds.

mod entry;
mod grow;
mod hash;
mod install;
mod reader;
mod table;

pub(crate) use entry::{Entry, Place};
pub use entry::{Former, Key, Target};
pub(crate) use hash::Hash;
use hash::Hasher;
pub(crate) use reader::{Reader, Seen};

use crate::{
    clock::Instant,
    id::SwitchId,
    lock::Locks,
    mac::MacAddr,
    vlan::VlanId,
    world::{MAX_PORTS, MAX_SWITCHES, Port, World},
};
use entry::{Slot, Stamp};
use hash::LOCK_BITS;
use std::{
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    thread::Thread,
};
use table::Tables;

/// The table.
#[derive(Debug)]
pub struct Fdb {
    tables: Tables,
    locks: Locks,
    hasher: Hasher,
    /// Held by whoever changes the table as a whole: installs a World, or grows it.
    changing: Mutex<()>,
    /// Who is to be woken when the table is crowded, and whether that was done.
    grower: OnceLock<Thread>,
    called: AtomicBool,
    /// Entries, aged ones included.
    held: AtomicUsize,
    /// Learned entries by port, for the cap.
    learned_on: Box<[AtomicU32]>,
    /// Seconds after which each switch forgets, from the World that was installed last.
    aging: Box<[AtomicU32]>,
    installs: AtomicU64,
    /// Where the next sweep goes on.
    swept: AtomicUsize,
    learned: AtomicU64,
    moves: AtomicU64,
    refused: AtomicU64,
}

/// What became of a source address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// It was known to be there.
    Known,
    /// It is new.
    New,
    /// It was known to be elsewhere.
    Moved {
        /// Where.
        from: Former,
    },
    /// It was not learned.
    Refused(Refusal),
}

/// Why an address was not learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The topology file says that it is elsewhere.
    Static,
    /// It was learned elsewhere, at an interface where addresses stay.
    Sticky,
    /// The port has as many as it may have.
    PortLimit,
    /// There is no room where it would have to stand.
    TableFull,
    /// Another worker was changing the same bucket: the next frame tries again. Not counted.
    Busy,
}

/// What was counted since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Entries that are not aged out, static ones included.
    pub entries: u64,
    /// The same by the switch's place, as far as there are switches with entries.
    pub by_switch: Vec<u64>,
    /// Addresses learned.
    pub learned: u64,
    /// Times that a known address moved.
    pub moves: u64,
    /// Times that an address was not learned for want of room or right.
    pub refused: u64,
}

/// One entry, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The switch.
    pub switch: SwitchId,
    /// The VLAN.
    pub vlan: VlanId,
    /// The address.
    pub mac: MacAddr,
    /// Where it is.
    pub target: Target,
    /// Whether the topology file put it there.
    pub is_static: bool,
    /// Whether it was learned to stay.
    pub is_sticky: bool,
    /// Seconds since it was last seen; 0 for what does not age.
    pub age_secs: u64,
}

impl Fdb {
    /// An empty table of `buckets` (rounded up to a power of two) with room for four entries each, which can grow to 64
    /// times that ([`Fdb::grow`]). `seed` must be random: it keeps apart what a guest would like to collide.
    pub fn new(seed: u64, buckets: usize) -> Self {
        let buckets = buckets.clamp(1, 1 << 20).next_power_of_two();
        Self {
            tables: Tables::new(buckets),
            locks: Locks::new(buckets.min(1 << LOCK_BITS)),
            hasher: Hasher::new(seed),
            changing: Mutex::new(()),
            grower: OnceLock::new(),
            called: AtomicBool::new(false),
            held: AtomicUsize::new(0),
            learned_on: std::iter::repeat_with(AtomicU32::default).take(MAX_PORTS).collect(),
            aging: std::iter::repeat_with(AtomicU32::default).take(MAX_SWITCHES).collect(),
            installs: AtomicU64::new(0),
            swept: AtomicUsize::new(0),
            learned: AtomicU64::new(0),
            moves: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Where the address is; none if that is not known (any more).
    #[inline]
    pub fn lookup(&self, world: &World, key: Key, now: Instant) -> Option<Target> {
        self.find(key, now.as_secs()).and_then(|(_, entry)| resolve(world, entry))
    }

    /// Whether the topology file says where the address is.
    pub fn is_static(&self, key: Key, now: Instant) -> bool {
        self.find(key, now.as_secs()).is_some_and(|(_, entry)| entry.is_stated())
    }

    /// Notes that the address was seen at `target`. `port` is where the frame came in. Its cap holds if that is `target`; behind a trunk
    /// it has been asked already. What the topology file says of an address stands, but for the address's own node: between that one's
    /// interfaces it moves, for a guest that bonds them uses one address at all.
    #[inline]
    pub fn learn(&self, key: Key, target: Target, port: &Port, now: Instant) -> Learned {
        let second = now.as_secs();
        match self.find(key, second) {
            Some((_, entry)) if entry.is_fixed() && entry.is_at(target) => Learned::Known,
            Some((_, entry)) if entry.is_fixed() && !port.is_nodes(entry.first.mac()) => {
                self.refuse(entry.why_fixed())
            }
            Some((slot, entry)) if entry.is_at(target) => {
                if entry.second.stamp() != Stamp::Seen(second) {
                    slot.refresh(entry, second);
                }
                Learned::Known
            }
            _ => self.learn_change(key, target, port, second),
        }
    }

    /// Why an address that is seen at `port`, or would be, is not learned there, if [`Fdb::learn`] would say so now.
    pub(crate) fn would_refuse(&self, key: Key, port: &Port) -> Option<Refusal> {
        match self.tables.current().find(self.hash(key), key) {
            Some((_, entry)) if entry.is_at(Target::Port(port.id)) => None,
            Some((_, entry)) if entry.is_fixed() && !port.is_nodes(key.mac) => Some(entry.why_fixed()),
            _ => (self.count_on(port.id.index()) >= port.mac_limit).then_some(Refusal::PortLimit),
        }
    }

    /// Whether the table has grown: then it is so large that a bucket may have to come from memory.
    #[inline]
    pub fn is_cold(&self) -> bool {
        self.tables.has_grown()
    }

    /// Frees the slots of aged entries in the next `budget_buckets` buckets, so that the counts behind the per-port
    /// cap stay true. A bucket that a worker is changing is left for the next round.
    pub fn sweep(&self, now: Instant, budget_buckets: usize) {
        let budget = budget_buckets.min(self.tables.current().len());
        let start = self.swept.fetch_add(budget, Ordering::Relaxed);
        let is_aged = |slot: &Slot| slot.read().is_some_and(|entry| self.is_aged(entry, now.as_secs()));
        for number in start..start.saturating_add(budget) {
            if !self.tables.current().bucket(number).0.iter().any(is_aged) {
                continue;
            }
            let Some(_lock) = self.locks.try_lock(number) else { continue };
            // Looked at anew: under the lock the table is the one in use, and stays that.
            for slot in self.tables.current().bucket(number).0.iter().filter(|slot| is_aged(slot)) {
                self.remove(slot);
            }
        }
    }

    /// The entries that are not aged out, in no order. There may be a million.
    pub fn rows(&self, world: &World, now: Instant) -> impl Iterator<Item = Row> {
        let row = move |entry: Entry| {
            Some(Row {
                switch: entry.second.place().switch(),
                vlan: entry.second.place().vlan()?,
                mac: entry.first.mac(),
                target: resolve(world, entry)?,
                is_static: entry.is_stated(),
                is_sticky: entry.is_sticky(),
                age_secs: entry.second.age(now.as_secs()),
            })
        };
        self.live(now).filter_map(row)
    }

    /// What was counted. It looks at every entry, once.
    pub fn counts(&self, now: Instant) -> Counts {
        let mut by_switch = Vec::new();
        for entry in self.live(now) {
            let switch = usize::from(entry.second.place().switch().index());
            by_switch.resize(by_switch.len().max(switch + 1), 0);
            by_switch[switch] += 1;
        }
        Counts {
            entries: by_switch.iter().sum(),
            by_switch,
            learned: self.learned.load(Ordering::Relaxed),
            moves: self.moves.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    fn live(&self, now: Instant) -> impl Iterator<Item = Entry> {
        self.tables.current().entries().filter(move |entry| !self.is_aged(*entry, now.as_secs()))
    }

    #[inline]
    fn hash(&self, key: Key) -> Hash {
        self.hasher.hash(key.place, key.mac.to_u64() << 16)
    }

    #[inline]
    fn find(&self, key: Key, now: u64) -> Option<(&Slot, Entry)> {
        self.tables.current().find(self.hash(key), key).filter(|(_, entry)| !self.is_aged(*entry, now))
    }

    #[inline]
    fn is_aged(&self, entry: Entry, now: u64) -> bool {
        entry.second.age(now) > self.aging_secs(entry.second.place().switch()).into()
    }

    fn aging_secs(&self, switch: SwitchId) -> u32 {
        self.aging[usize::from(switch.index())].load(Ordering::Relaxed)
    }

    /// The rare half of [`Fdb::learn`]: the entry is new, aged or elsewhere.
    #[cold]
    fn learn_change(&self, key: Key, target: Target, port: &Port, now: u64) -> Learned {
        let hash = self.hash(key);
        let Some(_lock) = self.locks.try_lock(hash.first()) else { return Learned::Refused(Refusal::Busy) };
        let table = self.tables.current();
        let known = table.find(hash, key);
        if let Some((slot, entry)) = known.filter(|(_, entry)| entry.is_fixed()) {
            if !port.is_nodes(key.mac) {
                return self.refuse(entry.why_fixed());
            }
            self.replace(slot, key, target, entry.second.stamp());
            self.moves.fetch_add(1, Ordering::Relaxed);
            return Learned::Moved { from: entry.former() };
        }
        let stays = known.is_some_and(|(_, entry)| entry.is_at(target));
        let is_here = target == Target::Port(port.id);
        if !stays && is_here && !self.claim(port) {
            return self.refuse(Refusal::PortLimit);
        }
        let is_free = |slot: &Slot| slot.read().is_none_or(|entry| self.is_aged(entry, now));
        let Some(slot) = known.map(|(slot, _)| slot).or_else(|| table.room(hash, is_free)) else {
            if !stays && is_here {
                self.learned_on[usize::from(port.id.index())].fetch_sub(1, Ordering::Relaxed);
            }
            return self.refuse(Refusal::TableFull);
        };
        let stamp = if is_here && port.keeps_macs() { Stamp::Sticky } else { Stamp::Seen(now) };
        if !stays && is_here {
            self.put(slot, key, target, stamp);
        } else {
            self.replace(slot, key, target, stamp);
        }
        match known {
            Some((_, entry)) if !self.is_aged(entry, now) && !stays => {
                self.moves.fetch_add(1, Ordering::Relaxed);
                Learned::Moved { from: entry.former() }
            }
            _ => {
                self.learned.fetch_add(1, Ordering::Relaxed);
                self.call_if_crowded();
                Learned::New
            }
        }
    }

    fn refuse(&self, why: Refusal) -> Learned {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Learned::Refused(why)
    }

    fn count_on(&self, port: u16) -> u32 {
        self.learned_on.get(usize::from(port)).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Counts one more address on the port, if it may have one. Workers that learn in unlike buckets hold unlike locks, so this is one step.
    fn claim(&self, port: &Port) -> bool {
        let one_more = |count: u32| (count < port.mac_limit).then(|| count + 1);
        let count = &self.learned_on[usize::from(port.id.index())];
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Writes an entry over what the slot holds, and keeps the counts. Under the bucket's lock.
    fn replace(&self, slot: &Slot, key: Key, target: Target, stamp: Stamp) {
        let is_learned = !matches!(stamp, Stamp::Static(_));
        if let Some(port) = key.first(target).port_index().filter(|_| is_learned) {
            self.learned_on[usize::from(port)].fetch_add(1, Ordering::Relaxed);
        }
        self.put(slot, key, target, stamp);
    }

    /// The same for an address that its port has [claimed](Self::claim).
    fn put(&self, slot: &Slot, key: Key, target: Target, stamp: Stamp) {
        self.uncount(slot);
        self.held.fetch_add(1, Ordering::Relaxed);
        slot.write(key.first(target), key.second(target, stamp));
    }

    /// Frees a slot, and keeps the counts. Under the bucket's lock.
    fn remove(&self, slot: &Slot) {
        self.uncount(slot);
        slot.clear();
    }
}

/// Where the entry says its address is; none if that port or trunk is not there (any more), or does not carry the VLAN.
#[inline]
fn resolve(world: &World, entry: Entry) -> Option<Target> {
    let place = entry.second.place();
    let vlan = place.vlan()?;
    match entry.first.port_index() {
        Some(index) => {
            let port = world.port(index)?;
            let target = Target::Port(port.id);
            (entry.is_at(target) && port.egress(place.switch(), vlan).is_some()).then_some(target)
        }
        None => {
            let neighbour = entry.first.switch();
            world.hop_to(place.switch(), neighbour, vlan).map(|_| Target::Trunk(neighbour))
        }
    }
}
