//! A connection's two cache lines: the one that decides about its frames, and the one for people and for room-making.
//!
//! ```text
//! hot   digest | digest | control | seen, epoch | inside: end, ack | edge, window | outside: end, ack | edge, window
//! cold  hosts, 4 words                          | ends, port        | since, kind  | SYN again       | links
//! ```
//!
//! **Why what is read belongs together.** The first word is half of a keyed digest, zero while the entry changes hands; a
//! reader trusts the others only if it was the same before and after it read them. Who puts a connection into an entry
//! empties that word first and writes it last, as in the FDB.
//!
//! **Who writes.** What puts a connection in, takes it out or judges it anew holds the lock of its port's share. A frame
//! writes without one: the words of the end that sent it, plainly; the control word and the time, only if nobody else did
//! meanwhile. Two frames of one direction on two workers may so lose what the older one said. The connection's next frame says it
//! again; at worst an acknowledgement is refused once, and its sender is asked to repeat itself by the other's retransmission. And a frame
//! whose connection is taken out between its last look at the first word and its own writing, some nanoseconds later, writes numbers
//! of one end into the next connection of the entry. That lets no frame of another key pass, and only a connection that has had no
//! frame for long, or whose port goes, is taken out under frames; its successor begins anew with its opener's next SYN.

use super::{
    Direction,
    digest::Digest,
    key::Key,
    track::{Control, Side, Stamp, SynAgain, Track},
};
use std::sync::atomic::{AtomicU64, Ordering};

/// The line that decides.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Hot {
    place: AtomicU64,
    check: AtomicU64,
    control: AtomicU64,
    stamp: AtomicU64,
    sides: [[AtomicU64; 2]; 2],
}

/// What a look-up reads first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) control: Control,
    pub(super) stamp: Stamp,
}

impl Hot {
    /// Loads a word of it.
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        self.place.load(Ordering::Relaxed)
    }

    /// Whether a connection is in it.
    pub(super) fn is_used(&self) -> bool {
        self.place.load(Ordering::Acquire) != 0
    }

    /// Whether that connection is in it.
    #[inline]
    pub(super) fn is(&self, digest: Digest) -> bool {
        self.place.load(Ordering::Acquire) == digest.place
            && self.check.load(Ordering::Acquire) == digest.check
    }

    /// Whether it still is, if it was when the other words were read.
    #[inline]
    pub(super) fn stays(&self, digest: Digest) -> bool {
        self.place.load(Ordering::Acquire) == digest.place
    }

    /// Whose it is.
    pub(super) fn digest(&self) -> Digest {
        Digest { place: self.place.load(Ordering::Acquire), check: self.check.load(Ordering::Acquire) }
    }

    /// Control word and stamp: they hold if the entry still is that connection's afterwards.
    #[inline]
    pub(super) fn seen(&self) -> Seen {
        let control = Control(self.control.load(Ordering::Acquire));
        Seen { control, stamp: Stamp::from_word(self.stamp.load(Ordering::Acquire)) }
    }

    /// The same with what the ends have sent.
    #[inline]
    pub(super) fn track(&self, control: Control) -> Track {
        Track { control, sides: [self.side(Direction::Egress), self.side(Direction::Ingress)] }
    }

    /// What one end has sent.
    #[inline]
    pub(super) fn side(&self, of: Direction) -> Side {
        let [first, second] = &self.sides[of.index()];
        Side::from_words([first.load(Ordering::Acquire), second.load(Ordering::Acquire)])
    }

    /// Notes what an end has sent.
    #[inline]
    pub(super) fn set_side(&self, of: Direction, side: &Side) {
        let [first, second] = side.words();
        self.sides[of.index()][0].store(first, Ordering::Relaxed);
        self.sides[of.index()][1].store(second, Ordering::Relaxed);
    }

    /// Notes a new state, unless somebody else did meanwhile; whether it did.
    pub(super) fn set_control(&self, before: Control, after: Control) -> bool {
        before == after
            || self.control.compare_exchange(before.0, after.0, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Notes that a frame was seen in second `now`.
    #[inline]
    pub(super) fn refresh(&self, before: Stamp, now: u32) {
        if before.seen < now {
            let after = Stamp { seen: now, ..before };
            // Losing means that somebody else noted it.
            let _ = self.stamp.compare_exchange(
                before.word(),
                after.word(),
                Ordering::Release,
                Ordering::Relaxed,
            );
        }
    }

    /// Notes the policy that it was judged under. Only under the lock of its share.
    pub(super) fn set_stamp(&self, stamp: Stamp) {
        self.stamp.store(stamp.word(), Ordering::Release);
    }

    /// Puts a connection in. Only under the lock of its share.
    pub(super) fn write(&self, digest: Digest, track: &Track, stamp: Stamp) {
        self.clear();
        let control = track.control.after(Control(self.control.load(Ordering::Relaxed)));
        self.control.store(control.0, Ordering::Release);
        self.stamp.store(stamp.word(), Ordering::Release);
        for (words, side) in self.sides.iter().zip(track.sides) {
            words.iter().zip(side.words()).for_each(|(word, value)| word.store(value, Ordering::Release));
        }
        self.check.store(digest.check, Ordering::Release);
        self.place.store(digest.place, Ordering::Release);
    }

    /// Takes it out. Only under the lock of its share.
    pub(super) fn clear(&self) {
        self.place.store(0, Ordering::Release);
    }
}

/// The line for people and for room-making.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Cold {
    hosts: [AtomicU64; 4],
    ends: AtomicU64,
    /// `63 second in which it was opened 32 | 31 kind 0`
    kind: AtomicU64,
    /// A SYN that is kept in mind.
    again: AtomicU64,
    links: AtomicU64,
}

/// An entry's neighbours in a queue, or among the free entries: numbers of entries, and [`NONE`].
///
/// ```text
/// 63     62 61   60 | 59    30 | 29    0
/// |   -    | queue  |  before  | behind |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Links {
    pub(super) queue: usize,
    pub(super) before: u32,
    pub(super) behind: u32,
}

/// No entry.
pub(super) const NONE: u32 = (1 << 30) - 1;

impl Cold {
    /// Puts a connection in. Only under the lock of its share.
    pub(super) fn write(&self, key: &Key, since: u32) {
        self.hosts.iter().zip(key.hosts).for_each(|(word, value)| word.store(value, Ordering::Release));
        self.ends.store(key.ends, Ordering::Release);
        self.kind.store(u64::from(since) << 32 | key.kind, Ordering::Release);
    }

    /// What the connection is, and the second in which it was opened.
    pub(super) fn key(&self) -> (Key, u32) {
        let hosts = std::array::from_fn(|n| self.hosts[n].load(Ordering::Acquire));
        let kind = self.kind.load(Ordering::Acquire);
        let ends = self.ends.load(Ordering::Acquire);
        (Key { hosts, ends, kind: kind & 0xffff_ffff }, (kind >> 32) as u32)
    }

    /// The SYN that is kept in mind.
    pub(super) fn again(&self) -> SynAgain {
        SynAgain::from_word(self.again.load(Ordering::Acquire))
    }

    /// Keeps a SYN in mind.
    pub(super) fn set_again(&self, syn: SynAgain) {
        self.again.store(syn.word(), Ordering::Release);
    }

    pub(super) fn links(&self) -> Links {
        let word = self.links.load(Ordering::Acquire);
        let number = |at: u32| (word >> at) as u32 & NONE;
        Links { queue: (word >> 60) as usize & 3, before: number(30), behind: number(0) }
    }

    /// Changes its neighbours. Only under the lock of its share or, of a free entry, by who gives it back.
    pub(super) fn set_links(&self, links: Links) {
        let (before, behind) = (u64::from(links.before & NONE), u64::from(links.behind & NONE));
        self.links.store((links.queue as u64 & 3) << 60 | before << 30 | behind, Ordering::Release);
    }
}
