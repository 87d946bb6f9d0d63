//! Frames of one established connection, or of UDP that is not answered yet, that go one way and follow each other: what stands of it is read once and written once.

use super::{
    Answer, Connections, Direction, Event, State,
    digest::Digest,
    entry::{Hot, Seen},
    low, second,
    table::Place,
    track::Side,
    window,
};
use crate::{clock::Instant, id::Epoch};

/// Such frames of TCP, or of UDP: of either end once it was answered, before of its opener. What the other end says meanwhile is not seen: a frame that only fits that is not
/// [taken](Self::takes), and is to be looked up.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    hot: &'a Hot,
    digest: Digest,
    from: Direction,
    now: u32,
    seen: Seen,
    me: Side,
    peer: Side,
}

/// What the sending end has said with the frames that were taken.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// How many these are.
    pub frames: usize,
    me: Side,
}

impl Connections {
    /// Frames that go `from` one of the ends, of the connection that is [likely](Self::likely) to stand in that place; none if it is not one of these or does
    /// not stand in its first line of the index, is over, or was judged under another policy than that of `epoch`.
    #[inline(always)]
    pub fn run(
        &self,
        (digest, place): (Digest, Place),
        from: Direction,
        epoch: Epoch,
        now: Instant,
    ) -> Option<Run<'_>> {
        let hot = self.table.find_near(place, digest)?;
        let (seen, now) = (hot.seen(), second(now));
        let (control, age) = (seen.control, now.saturating_sub(seen.stamp.seen));
        // Further datagrams of an opener that was not answered yet say nothing new.
        let goes_on = control.is(State::Established)
            || control.is(State::Replied)
            || control.is(State::Unreplied) && control.opener() == from;
        let runs = goes_on && seen.stamp.epoch == low(epoch) && age <= self.timeouts.of(control.state());
        let (me, peer) = (hot.side(from), hot.side(from.opposite()));
        // What was read is its own if it still stands there.
        (runs && hot.stays(digest)).then_some(Run { hot, digest, from, now, seen, me, peer })
    }
}

impl Run<'_> {
    /// How many frames, from the first on, are plain segments or datagrams of it: they pass. Nothing is noted yet.
    #[inline(always)]
    pub fn takes(&self, events: &[Event]) -> Taken {
        let (mut me, mut frames) = (self.me, 0);
        if self.seen.control.is(State::Established) {
            let scale = self.seen.control.scale(self.from);
            for event in events {
                let Event::Tcp(segment) = event else { break };
                let Some(after) = window::plain(&me, &self.peer, scale, segment) else { break };
                me = after;
                frames += 1;
            }
        } else {
            frames = datagrams(events);
        }
        Taken { frames, me }
    }

    /// Notes what was taken, if that is anything; what is known of the connection, or none if it has gone meanwhile.
    #[inline(always)]
    pub fn note(&self, taken: &Taken) -> Option<Answer> {
        if taken.frames == 0 || !self.hot.stays(self.digest) {
            return None;
        }
        let control = self.seen.control;
        if control.is(State::Established) {
            self.hot.set_side(self.from, &taken.me);
        }
        self.hot.refresh(self.seen.stamp, self.now);
        Some(Answer::Known { state: control.state(), opener: control.opener() })
    }
}

/// How many events, from the first on, are datagrams. Not in line: TCP, beside which it would stand, is ten instructions a frame dearer then.
#[inline(never)]
fn datagrams(events: &[Event]) -> usize {
    events.iter().take_while(|event| matches!(event, Event::Datagram)).count()
}
