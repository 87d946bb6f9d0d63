//! How a connection gets its place, and which one makes room when its port may not have more.

use super::{
    Connections, Digest, Direction, Event, Key, Segment,
    share::{Guard, bump},
    state::{State, Worth},
    tcp,
    track::{Control, Stamp, Track},
};
use crate::{
    clock::Instant,
    id::{Epoch, PortId},
};
use std::sync::atomic::Ordering;

/// How many entries are looked at, at most, to make room for one.
const MOST_LOOKED_AT: usize = 32;
/// Seconds without a frame after which a settled connection may make room, if its port has nothing cheaper.
const IDLE: u32 = 600;

/// What a connection is opened with.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// Its key.
    pub key: &'a Key,
    /// The key's digest.
    pub digest: Digest,
    /// Which way the frame goes that was [new](super::Answer::New).
    pub from: Direction,
    /// What it says.
    pub event: &'a Event,
    /// Who opened the connection: `from`, but for one that is [picked up](Connections::pick_up_until) at what the rules let pass
    /// only as an answer.
    pub opener: Direction,
    /// Of the policy that allows it.
    pub epoch: Epoch,
}

/// What became of a connection that was to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It is.
    New,
    /// Another worker has just opened it: look it up.
    Already,
    /// It is not.
    Refused(Refusal),
}

/// Why a connection was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The port has as many as it may have, and all of them are in use.
    PortLimit,
    /// There is no room, and nothing of the same port that could make some.
    TableFull,
    /// No such port was [admitted](Connections::admit).
    NoPort,
    /// Its frame cannot be the first of a connection.
    NoBeginning,
    /// Another worker was changing the port's share. The frame may pass, for the rules let it; the next one tries again.
    Busy,
    /// Another connection has the key of its [inverse](Connections::open_pair).
    InverseTaken,
}

impl Connections {
    /// Lets a port track so many connections. What the one before it in its place has left is forgotten. On the control thread.
    ///
    /// A port never takes another's room, so each has what it is given if all together are given no more than the capacity.
    pub fn admit(&self, port: PortId, most: u32) {
        self.forget_unless(port.index(), Some(port));
        if let Some(share) = self.shares.get(usize::from(port.index())) {
            share.lock().assign(Some((port, most)));
        }
    }

    /// Forgets all connections of the port that has or had this place, and tracks none there. On the control thread.
    pub fn forget(&self, place: u16) {
        self.forget_unless(place, None);
    }

    /// Tracks a connection from the frame on that was [new](super::Answer::New) and that the rules let pass.
    pub fn open(&self, opening: &Opening<'_>, now: Instant) -> Opened {
        self.open_by(opening, now, |guard, track, now| self.open_under(guard, opening, track, now))
    }

    /// The same, where `place` finds room for it under the lock of its port's share.
    pub(super) fn open_by(
        &self,
        opening: &Opening<'_>,
        now: Instant,
        place: impl FnOnce(&Guard<'_>, &Track, u32) -> Opened,
    ) -> Opened {
        let (port, now) = (opening.key.port(), super::second(now));
        let Some(share) = self.shares.get(usize::from(port.index())) else {
            return Opened::Refused(Refusal::NoPort);
        };
        let Some(track) = self.first(opening, now) else {
            return Opened::Refused(Refusal::NoBeginning);
        };
        let Some(guard) = share.try_lock() else {
            share.busy.fetch_add(1, Ordering::Relaxed);
            return Opened::Refused(Refusal::Busy);
        };
        if !guard.is_of(port) {
            return Opened::Refused(Refusal::NoPort);
        }
        let opened = place(&guard, &track, now);
        if matches!(opened, Opened::Refused(_)) {
            bump(&share.refused);
        }
        opened
    }

    /// How a connection stands that begins so; none if none does.
    fn first(&self, opening: &Opening<'_>, now: u32) -> Option<Track> {
        let unreplied = match opening.event {
            Event::Tcp(segment) => {
                let begins = segment.is_syn() && segment.is_sound() && opening.opener == opening.from;
                let goes_on = self.may_pick_up(segment, now);
                return (begins || goes_on).then(|| first_of_tcp(opening, segment));
            }
            Event::Query { reply: true } => return None,
            Event::Query { reply: false } => State::Asked,
            Event::Datagram if opening.key.protocol() == super::facts::UDP => State::Unreplied,
            Event::Datagram => State::OtherUnreplied,
        };
        let control = Control::new(opening.key.port(), unreplied, opening.opener);
        Some(Track { control, sides: Default::default() })
    }

    fn open_under(&self, guard: &Guard<'_>, opening: &Opening<'_>, track: &Track, now: u32) -> Opened {
        if !self.make_free(guard, opening.digest, now) {
            return Opened::Already;
        }
        let number = match self.take(guard, now) {
            Ok(number) => number,
            Err(why) => return Opened::Refused(why),
        };
        let stamp = Stamp { seen: now, epoch: super::low(opening.epoch) };
        if self.put(guard, number, (opening.key, opening.digest), track, (stamp, now)) {
            Opened::New
        } else {
            Opened::Refused(Refusal::TableFull)
        }
    }

    /// Whether a connection may have the key with this digest: one that has it, and has ended or is over, is taken out.
    pub(super) fn make_free(&self, guard: &Guard<'_>, digest: Digest, now: u32) -> bool {
        let Some(number) = self.table.find(digest) else { return true };
        let is_spent = self.is_spent(number, now);
        if is_spent {
            self.remove(guard, self.table.connection(number));
        }
        is_spent
    }

    /// Whether the connection of an entry has ended or is over.
    pub(super) fn is_spent(&self, number: u32, now: u32) -> bool {
        let seen = self.table.hot(self.table.connection(number)).seen();
        matches!(seen.control.state(), State::TimeWait | State::Reset) || self.is_over(seen, now)
    }

    /// A free entry for one more connection of a share.
    pub(super) fn take(&self, guard: &Guard<'_>, now: u32) -> Result<u32, Refusal> {
        if guard.is_full() && !self.make_room(guard, now) {
            return Err(Refusal::PortLimit);
        }
        let taken =
            self.table.take().or_else(|| self.make_room(guard, now).then(|| self.table.take()).flatten());
        taken.ok_or(Refusal::TableFull)
    }

    /// Writes a connection into a free entry and lets it be found; if the index has no slot for it, the entry is free again.
    pub(super) fn put(
        &self,
        guard: &Guard<'_>,
        number: u32,
        (key, digest): (&Key, Digest),
        track: &Track,
        (stamp, since): (Stamp, u32),
    ) -> bool {
        self.table.cold(number).write(key, since);
        self.table.hot(number).write(digest, track, stamp);
        if !self.table.publish(digest, number) {
            self.table.hot(number).clear();
            self.table.give_back(number);
            return false;
        }
        guard.push(self.table.pool(), number, queue(track.control.state().worth()));
        guard.count_in();
        true
    }

    /// Takes a connection out, with its inverse if it has one, and gives back what it had.
    pub(super) fn remove(&self, guard: &Guard<'_>, number: u32) {
        if let Some(inverse) = self.table.part(number) {
            self.give_back(inverse);
        }
        guard.unlink(self.table.pool(), number);
        guard.count_out();
        self.give_back(number);
    }

    /// Gives an entry back that stands in no queue.
    pub(super) fn give_back(&self, number: u32) {
        let hot = self.table.hot(number);
        self.table.withdraw(hot.digest(), number);
        hot.clear();
        self.table.give_back(number);
    }

    /// Ends the cheapest connection of a share: what is over, else the oldest that is still opening, else what has been idle for long.
    fn make_room(&self, guard: &Guard<'_>, now: u32) -> bool {
        let queues = [Worth::Over, Worth::Opening, Worth::Settled].map(queue);
        let mut left = MOST_LOOKED_AT;
        for at in queues {
            while left > 0
                && let Some(number) = guard.head(at)
            {
                left -= 1;
                let seen = self.table.hot(number).seen();
                let worth = seen.control.state().worth();
                let idle = now.saturating_sub(seen.stamp.seen);
                let is_idle = at == queue(Worth::Settled) && idle >= IDLE;
                if worth != Worth::Settled || is_idle || self.is_over(seen, now) {
                    self.remove(guard, number);
                    guard.count_evicted();
                    return true;
                }
                // It has settled since it was put there, or is in use: others may be found behind it.
                guard.unlink(self.table.pool(), number);
                guard.push(self.table.pool(), number, queue(worth));
                if at == queue(Worth::Settled) {
                    left = left.saturating_sub(MOST_LOOKED_AT / 8);
                }
            }
        }
        false
    }

    /// Moves a connection that is worth more or less than before to its queue. If another worker holds the lock it keeps its place: one
    /// that settled is moved when it is met there, one that is over makes room when its time comes.
    pub(super) fn requeue(&self, (number, digest): (u32, Digest), before: &Track, after: &Track) {
        let worth = after.control.state().worth();
        if before.control.state().worth() == worth {
            return;
        }
        let Some(guard) = self.share_of(after.control).try_lock() else { return };
        if self.table.hot(number).is(digest) {
            guard.unlink(self.table.pool(), number);
            guard.push(self.table.pool(), number, queue(worth));
        }
    }

    /// Does something to a connection's entry, if it is there and its share's lock can be had; whether it did.
    pub(super) fn under_lock(&self, digest: Digest, act: impl FnOnce(&Guard<'_>, u32)) -> bool {
        let Some(number) = self.table.find(digest) else { return true };
        let Some(guard) = self.share_of(self.table.hot(number).seen().control).try_lock() else {
            return false;
        };
        if self.table.hot(number).is(digest) {
            act(&guard, number);
        }
        true
    }

    pub(super) fn share_of(&self, control: Control) -> &super::Share {
        &self.shares[usize::from(control.owner())]
    }
}

fn first_of_tcp(opening: &Opening<'_>, segment: &Segment) -> Track {
    let control = Control::new(opening.key.port(), State::SynSent, opening.opener);
    tcp::opened(control, opening.from, segment)
}

/// The queue of a share in which such connections stand.
pub(super) const fn queue(worth: Worth) -> usize {
    worth as usize
}
