//! What is known of datagrams that come in fragments: the first one's verdict holds for the rest. Shared by all workers.
//!
//! ```text
//! head -> Piece -> First -> rules or a connection let it pass -> join         what it carries is noted
//!             |--> Later -> follow -> First                                   it passes
//!             |                   |-> Nothing -> rules let it pass -> join    what it carries is noted
//!             |                   `-> Overlap, Lost                           it does not
//!             `--> Malformed                                                  nobody is asked
//! ```
//!
//! Nothing is put together and no fragment waits: each passes, or does not, when it comes. Only what passed has a place, so that what is refused takes
//! none. Each interface has an equal part of the places for each direction, and in it the oldest of four makes room for one more: who
//! floods pushes out its own. Where a datagram stands follows from a digest under this boot's secret, so nobody can aim at one place. A
//! bucket's lock is only tried. A complete datagram gives its place back, for its number may be used again at once (RFC 4963).

mod piece;
mod seen;

pub(crate) use piece::{Begun, Fragment, Piece};

use super::connections::Digest;
use crate::{
    clock::Instant,
    id::{Epoch, PortId},
    lock::{Guard, Locks},
};
use seen::{Fit, Part, Seen};
use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// How long a datagram is remembered from the first of it that was seen: as long as a receiver should wait for the rest at least (RFC 791 §3.2). Its fragments
/// leave a sender one behind the other; what comes later than that belongs to a datagram that is lost.
pub const LIFETIME: Duration = Duration::from_secs(15);

/// Datagrams of a bucket.
const WAYS: usize = 4;
/// Locks of the buckets, at most.
const MOST_LOCKS: usize = 1024;
/// How often a lock is tried: its holder needs some ten nanoseconds, unless it lost its CPU.
const TRIES: usize = 32;

/// The memory of all interfaces.
#[derive(Debug)]
pub struct Fragments {
    buckets: Box<[[Entry; WAYS]]>,
    locks: Locks,
    /// By place of a port, its first bucket and how many it has for each direction: `31 first 16 | 15 how many 0`.
    shares: Box<[AtomicU32]>,
}

/// A line of one datagram.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Entry {
    /// Its digest; zero: none.
    place: AtomicU64,
    check: AtomicU64,
    /// When the first that was seen came, in nanoseconds.
    born: AtomicU64,
    /// `63 epoch 32 | 16 overlapped | 15 total 0`: the low half of the policy's epoch.
    state: AtomicU64,
    runs: [AtomicU64; 2],
    begun: [AtomicU64; 2],
}

/// A datagram was overlapped: nothing of it passes any more (RFC 5722 §3).
const OVERLAPPED: u64 = 1 << 16;

/// Where a fragment's datagram stands, under which policy, and now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    /// The port's place.
    pub(crate) port: u16,
    /// Whether it goes to the guest: each direction has its own places.
    pub(crate) is_ingress: bool,
    /// Of what its fragments have in common.
    pub(crate) digest: Digest,
    /// Of the rules that judge it.
    pub(crate) epoch: Epoch,
    /// The moment.
    pub(crate) now: Instant,
    /// Whether the fragment is really there: what is only imagined is not noted.
    pub(crate) notes: bool,
}

/// What is known of a fragment's datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    /// Its first fragment passed, and so does this one; of TCP, this is what that one said.
    First(Option<Begun>),
    /// No first fragment passed, or it is forgotten.
    Nothing,
    /// It touches what was seen, or another one has before.
    Overlap,
    /// It cannot be noted: there are too many gaps, or another worker is at it.
    Lost,
}

impl Fragments {
    /// Room for so many datagrams, of ports in so many places, at most 2^16 of either. They have none until it is [shared](Self::share).
    pub(super) fn new(datagrams: usize, ports: usize) -> Self {
        let buckets = (datagrams / WAYS).min(u16::MAX.into());
        Self {
            buckets: std::iter::repeat_with(Default::default).take(buckets).collect(),
            locks: Locks::new(buckets.next_power_of_two().min(MOST_LOCKS)),
            shares: std::iter::repeat_with(AtomicU32::default).take(ports).collect(),
        }
    }

    /// Gives each of these ports an equal part of the room, and none to any other. Datagrams whose place becomes another's are forgotten. On
    /// the control thread.
    pub fn share(&self, ports: &[PortId]) {
        let each = self.buckets.len() / (2 * ports.len()).max(1);
        let mut shares = vec![0; self.shares.len()];
        for (n, port) in ports.iter().enumerate() {
            if let Some(share) = shares.get_mut(usize::from(port.index())) {
                *share = ((2 * n * each) as u32) << 16 | each as u32;
            }
        }
        // One store for each: what keeps its places forgets nothing.
        self.shares.iter().zip(shares).for_each(|(share, new)| share.store(new, Ordering::Relaxed));
    }

    /// How many datagrams a port may have under way in each direction.
    pub fn room(&self, port: PortId) -> usize {
        let share = self.shares.get(usize::from(port.index()));
        share.map_or(0, |share| usize::from(share.load(Ordering::Relaxed) as u16) * WAYS)
    }

    /// What is known of a later fragment's datagram. If its first one passed, this one is noted, too.
    pub(crate) fn follow(&self, at: &At, part: Part) -> Follows {
        let Some((number, bucket)) = self.bucket(at) else { return Follows::Nothing };
        let Some(_lock) = self.lock(number) else { return Follows::Lost };
        let followed = bucket.iter().find(|entry| entry.is(at) && !entry.waits());
        followed.map_or(Follows::Nothing, |entry| entry.note(at, part))
    }

    /// Notes a fragment that rules or its connection let pass: a first one, which of TCP has `begun` a segment, or one that follows none. It
    /// must not pass if that is an [overlap](Follows::Overlap). [Nothing](Follows::Nothing): there is no room for it, so nothing will follow.
    pub(crate) fn join(&self, at: &At, part: Part, begun: Option<Begun>) -> Follows {
        let Some((number, bucket)) = self.bucket(at) else { return Follows::Nothing };
        let Some(_lock) = self.lock(number) else { return Follows::Lost };
        let known = bucket.iter().find(|entry| entry.is(at));
        let oldest = || bucket.iter().min_by_key(|entry| (entry.is_used(at), entry.born()));
        let Some(entry) = known.or_else(oldest) else { return Follows::Nothing };
        if known.is_none() && at.notes {
            entry.begin(at);
        }
        let joined = if known.is_some() || at.notes { entry.note(at, part) } else { Follows::First(None) };
        if begun.is_some() && at.notes && matches!(joined, Follows::First(_)) {
            store(&entry.begun, Begun::words(begun));
        }
        joined
    }

    /// The bucket of a datagram, and its number.
    fn bucket(&self, at: &At) -> Option<(usize, &[Entry; WAYS])> {
        let share = self.shares.get(usize::from(at.port))?.load(Ordering::Relaxed);
        let (first, each) = ((share >> 16) as usize, (share & 0xffff) as usize);
        let within = at.digest.first().checked_rem(each)?;
        let number = first + usize::from(at.is_ingress) * each + within;
        Some((number, self.buckets.get(number)?))
    }

    fn lock(&self, number: usize) -> Option<Guard<'_>> {
        (0..TRIES).find_map(|_| {
            let lock = self.locks.try_lock(number);
            if lock.is_none() {
                std::hint::spin_loop();
            }
            lock
        })
    }
}

/// All under the bucket's lock, which orders them.
impl Entry {
    fn is_used(&self, at: &At) -> bool {
        let age = at.now.since(Instant::from_nanos(self.born()));
        self.place.load(Ordering::Relaxed) != 0 && age <= LIFETIME
    }

    /// Whether it is of this datagram, and was judged by the same rules.
    fn is(&self, at: &At) -> bool {
        let [place, check] = at.digest.words();
        self.place.load(Ordering::Relaxed) == place
            && self.check.load(Ordering::Relaxed) == check
            && self.state.load(Ordering::Relaxed) >> 32 == u64::from(low(at.epoch))
            && self.is_used(at)
    }

    fn born(&self) -> u64 {
        self.born.load(Ordering::Relaxed)
    }

    /// Whether there is a datagram whose first fragment was not seen, and which was not overlapped.
    fn waits(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        state & OVERLAPPED == 0 && !Seen::from_words(load(&self.runs), state as u16).begins()
    }

    /// Makes it that of a datagram of which nothing was seen.
    fn begin(&self, at: &At) {
        let [place, check] = at.digest.words();
        self.place.store(place, Ordering::Relaxed);
        self.check.store(check, Ordering::Relaxed);
        self.born.store(at.now.as_nanos(), Ordering::Relaxed);
        self.state.store(u64::from(low(at.epoch)) << 32, Ordering::Relaxed);
        store(&self.begun, Begun::words(None));
        self.write_seen(&Seen::default());
    }

    fn write_seen(&self, seen: &Seen) {
        let (runs, total) = seen.words();
        store(&self.runs, runs);
        let state = self.state.load(Ordering::Relaxed) & !u64::from(u16::MAX) | u64::from(total);
        self.state.store(state, Ordering::Relaxed);
    }

    /// How one more part fits; that it was seen.
    fn note(&self, at: &At, part: Part) -> Follows {
        let state = self.state.load(Ordering::Relaxed);
        if state & OVERLAPPED != 0 {
            return Follows::Overlap;
        }
        let fit = Seen::from_words(load(&self.runs), state as u16).with(part);
        if at.notes {
            match &fit {
                Fit::New(seen) => self.write_seen(seen),
                Fit::Completes => self.place.store(0, Ordering::Relaxed),
                Fit::Overlaps => self.state.store(state | OVERLAPPED, Ordering::Relaxed),
                Fit::Doubles | Fit::Scatters => {}
            }
        }
        match fit {
            Fit::New(_) | Fit::Completes => Follows::First(Begun::from_words(load(&self.begun))),
            Fit::Doubles | Fit::Overlaps => Follows::Overlap,
            Fit::Scatters => Follows::Lost,
        }
    }
}

fn load(words: &[AtomicU64; 2]) -> [u64; 2] {
    [words[0].load(Ordering::Relaxed), words[1].load(Ordering::Relaxed)]
}

fn store(words: &[AtomicU64; 2], [front, back]: [u64; 2]) {
    words[0].store(front, Ordering::Relaxed);
    words[1].store(back, Ordering::Relaxed);
}

const fn low(epoch: Epoch) -> u32 {
    epoch.number() as u32
}
