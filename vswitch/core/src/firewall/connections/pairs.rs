//! Connections whose packets a router translates: two entries, each found by what the frames of one end say, as the router gets them.
//!
//! Both keys have a frame's sender inside. The *connection* is the entry that its opener's frames find: it has the state, and stands in a queue. Its *inverse*
//! is what its responder's frames find, and stays as long as the connection does. How a frame goes on is what the other entry's key says: so every
//! translation has one inverse, and no two connections have the same.

use super::{
    Connections, Digest, Direction, Key,
    room::{Opened, Opening, Refusal},
    share::Guard,
    track::{Stamp, Track},
};
use crate::clock::Instant;

/// A translated connection, as a frame of one of its ends finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paired {
    /// What finds the connection itself: for [`Connections::look_up`] and all else.
    pub digest: Digest,
    /// From which of its ends the frame comes: its opener's is [`Direction::Egress`].
    pub from: Direction,
    /// The key that frames of the other end have: whose sender the frame's destination is, and whose destination its source is, where it goes on.
    pub other: Key,
}

impl Connections {
    /// The translated connection with a frame of this digest; none if there is none, or it has just gone.
    pub fn paired(&self, digest: Digest) -> Option<Paired> {
        let number = self.table.find(digest)?;
        let twin = self.table.twin(number)?;
        let (other, _) = self.table.cold(twin.number).key();
        let others = self.digest(&other);
        // What was read is the twin's if it stands there, and both belong together still.
        let stands = self.table.hot(twin.number).is(others)
            && self.table.twin(number) == Some(twin)
            && self.table.hot(number).is(digest);
        let (digest, from) =
            if twin.of_inverse { (others, Direction::Ingress) } else { (digest, Direction::Egress) };
        stands.then_some(Paired { digest, from, other })
    }

    /// Whether a connection, or an inverse, may have the key with this digest.
    pub fn is_free(&self, digest: Digest, now: Instant) -> bool {
        self.table.find(digest).is_none_or(|number| self.is_spent(number, super::second(now)))
    }

    /// As [`Connections::open`]; its responder's frames will have the key `inverse`, by which no other connection is found.
    pub fn open_pair(&self, opening: &Opening<'_>, inverse: &Key, now: Instant) -> Opened {
        self.open_by(opening, now, |guard, track, now| {
            self.open_pair_under(guard, (opening, inverse), track, now)
        })
    }

    fn open_pair_under(
        &self,
        guard: &Guard<'_>,
        (opening, inverse): (&Opening<'_>, &Key),
        track: &Track,
        now: u32,
    ) -> Opened {
        let digest = self.digest(inverse);
        if !self.make_free(guard, opening.digest, now) {
            return Opened::Already;
        }
        if !self.make_free(guard, digest, now) {
            return Opened::Refused(Refusal::InverseTaken);
        }
        let taken = self.take(guard, now).and_then(|number| {
            let other = self.take(guard, now).inspect_err(|_| self.table.give_back(number))?;
            Ok((number, other))
        });
        let (number, other) = match taken {
            Ok(taken) => taken,
            Err(why) => return Opened::Refused(why),
        };
        let stamp = Stamp { seen: now, epoch: super::low(opening.epoch) };
        self.table.cold(other).write(inverse, now);
        self.table.hot(other).write(digest, track, stamp);
        // The connection is found last, and then as a whole.
        if !self.table.publish(digest, other) {
            self.table.hot(other).clear();
            self.table.give_back(other);
            self.table.give_back(number);
            return Opened::Refused(Refusal::TableFull);
        }
        self.table.join(number, other);
        if !self.put(guard, number, (opening.key, opening.digest), track, (stamp, now)) {
            // Its own entry is free again.
            self.table.part(number);
            self.give_back(other);
            return Opened::Refused(Refusal::TableFull);
        }
        Opened::New
    }
}
