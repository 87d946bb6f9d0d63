//! Connection tracking: which frames belong to a connection that an interface's rules have allowed. Shared by all workers.
//!
//! ```text
//! head -> facts::read -> Key, Event -> digest -> look_up -> Known              it passes
//!                    `-> Key, Quoted -> digest -> related   Stale              judge the connection anew: renew, or end
//!                                                           New -> (rules) ->  open
//!                                                           Invalid            no rule can let it pass
//! ```
//!
//! A connection belongs to one interface's firewall, for each interface has rules of its own: a flow between two interfaces with
//! rules is two connections. A look-up takes no lock, and reads one slot of an index and one cache line. Opening and
//! closing take the lock of the port's share of the table, which is only tried: who does not get it lets the frame pass if the rules
//! do, and the next one of the connection opens it. That opens no hole, for what follows is judged by the rules again as long as nothing
//! stands here. Nothing needs a timer: a connection without frames is absent for every look-up once its time is over, and its entry
//! is taken back when it is wanted or swept.

mod digest;
mod entry;
mod facts;
mod icmp;
mod key;
mod pairs;
mod room;
mod rows;
mod run;
mod scarce;
mod segment;
mod share;
mod short;
mod state;
mod sweep;
mod table;
mod tcp;
mod track;
mod window;

pub use digest::{Digest, Secret};
pub(in crate::firewall) use facts::datagram;
pub use facts::{Event, Facts, Quoted, Untracked};
pub use key::{Ends, Hosts, Key, Scope};
pub use pairs::Paired;
pub use room::{Opened, Opening, Refusal};
pub use rows::{Counts, Inverse, Row, Saved};
pub use run::Run;
pub use segment::Segment;
pub use short::{Common, Flow, V4, V6, Version};
pub use state::{State, Timeouts};
pub use table::{MAX_CAPACITY, Place};

use crate::{
    clock::Instant,
    firewall::{fragments::Fragments, policy::Direction},
    id::Epoch,
    world::MAX_PORTS,
};
use entry::Seen;
use share::Share;
use std::{
    slice,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};
use table::Table;
use tcp::Step;
use track::{SynAgain, Track};
use window::before;

/// How large the table is, and how long what is in it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Connections at most, of all ports together; at most [`MAX_CAPACITY`]. Each takes 140 to 148 bytes, from the start, and another eight for one
    /// [datagram in fragments](Fragments) to eight connections, of which there are no more than 2^18.
    pub capacity: usize,
    /// Places of ports, at most [`MAX_PORTS`]: a port whose place is not among them tracks nothing. Each takes 132 bytes.
    pub ports: usize,
    /// Seconds by state.
    pub timeouts: Timeouts,
}

/// The table of connections.
#[derive(Debug)]
pub struct Connections {
    table: Table,
    shares: Box<[Share]>,
    fragments: Fragments,
    scarce: scarce::Scarce,
    secret: Secret,
    timeouts: Timeouts,
    /// The second from which on a connection can only begin at its beginning.
    pick_up_until: AtomicU32,
    /// Where the next sweep goes on.
    swept: AtomicUsize,
}

/// Connections of a lab that says nothing of them.
pub const DEFAULT_CAPACITY: u32 = 1 << 18;

/// The fewest that a lab can have.
pub const MIN_CAPACITY: u32 = 1 << 10;

/// What is known of a frame's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is known, and the frame passes.
    Known {
        /// Where the connection stands now.
        state: State,
        /// Which way its first frame went.
        opener: Direction,
    },
    /// It was judged under another policy than the one that is given. The frame has changed nothing. If the rules would let the
    /// connection be opened, [`Connections::renew`] it and look up again; if not, [`Connections::end`] it, and the frame is one
    /// [without it](Connections::absent).
    Stale {
        /// Which way its first frame went: the direction in which the rules are to be asked.
        opener: Direction,
    },
    /// There is none, and this frame may open one: [`Connections::open`], if the rules let it pass.
    New,
    /// Whatever the rules say, it must not pass.
    Invalid(Invalid),
}

/// Why a frame cannot belong to any connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Invalid {
    /// TCP control bits that no TCP sends together, or none at all.
    Flags,
    /// A sequence number outside the window.
    Sequence,
    /// An acknowledgement of what was never sent, or of what was acknowledged long ago.
    Acknowledgement,
    /// A SYN of the responder within a connection.
    Syn,
    /// A RST that is not in the window.
    Reset,
    /// A segment that the handshake does not have there.
    State,
    /// A frame that can only belong to a connection, and there is none: a TCP segment other than SYN, an answer to no query.
    NoConnection,
    /// An ICMP error about no frame of a connection.
    Unrelated,
}

/// What stands in a connection's entry, read at once.
struct Noted {
    seen: Seen,
    track: Track,
    again: SynAgain,
}

/// How often a change is tried that other workers' changes come before.
const TRIES: usize = 4;

/// How many connections there are for a datagram in fragments.
const FOR_A_FRAGMENT: usize = 8;

impl Connections {
    /// An empty table. It tracks nothing until ports are [admitted](Self::admit).
    pub fn new(config: Config, secret: Secret) -> Self {
        Self {
            table: Table::new(config.capacity),
            shares: std::iter::repeat_with(Share::default).take(config.ports.min(MAX_PORTS)).collect(),
            fragments: Fragments::new(config.capacity / FOR_A_FRAGMENT, config.ports.min(MAX_PORTS)),
            scarce: scarce::Scarce::new(),
            secret,
            timeouts: config.timeouts,
            pick_up_until: AtomicU32::new(0),
            swept: AtomicUsize::new(0),
        }
    }

    /// What is known of datagrams in fragments.
    #[inline]
    pub const fn fragments(&self) -> &Fragments {
        &self.fragments
    }

    /// What finds the connection with this key.
    #[inline(always)]
    pub fn digest(&self, key: &Key) -> Digest {
        self.secret.digest(key)
    }

    /// Where the index says that a connection stands, if it stands where it is looked for first. To ask that for several before [loading](Self::load) what is
    /// there, and to load that for all before [reading](Self::run) it, makes their cache misses overlap: safe code cannot prefetch.
    #[inline(always)]
    pub fn likely(&self, digest: Digest) -> Place {
        self.table.likely(digest)
    }

    /// Loads a word of what stands there: for [`std::hint::black_box`].
    #[inline(always)]
    pub fn load(&self, place: Place) -> u64 {
        self.table.load(place)
    }

    /// Connections that run already may be picked up until `end`: after a restart that lost the table. Only what the rules
    /// let be opened is.
    pub fn pick_up_until(&self, end: Instant) {
        self.pick_up_until.store(second(end), Ordering::Relaxed);
    }

    /// Whether connections that run already may be picked up now.
    pub fn picks_up(&self, now: Instant) -> bool {
        second(now) < self.pick_up_until.load(Ordering::Relaxed)
    }

    /// What is known of the connection of a frame that goes `from` one of its ends and says `event`; and notes it there, if that was
    /// judged under the policy of `epoch`.
    #[inline]
    pub fn look_up(
        &self,
        digest: Digest,
        from: Direction,
        event: &Event,
        epoch: Epoch,
        now: Instant,
    ) -> Answer {
        let run = self.run((digest, self.likely(digest)), from, epoch, now);
        let at_once = run.and_then(|run| run.note(&run.takes(slice::from_ref(event))));
        at_once.unwrap_or_else(|| self.look_up_slowly(digest, from, event, epoch, second(now)))
    }

    /// The same for what is neither a plain segment of an established connection nor UDP that only goes on.
    #[inline(never)]
    fn look_up_slowly(
        &self,
        digest: Digest,
        from: Direction,
        event: &Event,
        epoch: Epoch,
        now: u32,
    ) -> Answer {
        let Some(number) = self.table.find(digest) else { return self.unknown(event, now) };
        let hot = self.table.hot(number);
        for _ in 0..TRIES {
            let Noted { seen, track, again } = match self.noted((number, digest), event, epoch, now) {
                Ok(noted) => noted,
                Err(answer) => return answer,
            };
            match step(&track, again, from, event) {
                Err(why) => return Answer::Invalid(why),
                Ok(Step::Anew) => return Answer::New,
                Ok(Step::Passes) => return known(track),
                Ok(Step::Asks(syn)) => {
                    self.table.cold(number).set_again(syn);
                    let control = track.control.set(track::Flag::SYN_AGAIN);
                    if hot.set_control(track.control, control) {
                        return known(track);
                    }
                }
                Ok(Step::To(after)) => {
                    if hot.set_control(track.control, after.control) {
                        for side in [Direction::Egress, Direction::Ingress] {
                            if track.side(side) != after.side(side) {
                                hot.set_side(side, after.side(side));
                            }
                        }
                        hot.refresh(seen.stamp, now);
                        self.requeue((number, digest), &track, &after);
                        return known(after);
                    }
                }
            }
        }
        // Others have just changed it as often, and the frame fits it: it passes, and what it said is not noted.
        known(hot.track(hot.seen().control))
    }

    /// What is noted in an entry of a connection that a frame belongs to; else the answer to the frame.
    fn noted(
        &self,
        (number, digest): (u32, Digest),
        event: &Event,
        epoch: Epoch,
        now: u32,
    ) -> Result<Noted, Answer> {
        let hot = self.table.hot(number);
        let seen = hot.seen();
        let track = hot.track(seen.control);
        let again = self.table.cold(number).again();
        if !hot.is(digest) || self.is_over(seen, now) {
            return Err(self.unknown(event, now));
        }
        if seen.stamp.epoch != low(epoch) {
            return Err(Answer::Stale { opener: track.control.opener() });
        }
        Ok(Noted { seen, track, again })
    }

    /// What [`Self::look_up`] would say. Nothing is noted: for a frame that is only imagined.
    pub fn foresee(
        &self,
        digest: Digest,
        from: Direction,
        event: &Event,
        epoch: Epoch,
        now: Instant,
    ) -> Answer {
        let now = second(now);
        let Some(number) = self.table.find(digest) else { return self.unknown(event, now) };
        let Noted { track, again, .. } = match self.noted((number, digest), event, epoch, now) {
            Ok(noted) => noted,
            Err(answer) => return answer,
        };
        match step(&track, again, from, event) {
            Err(why) => Answer::Invalid(why),
            Ok(Step::Anew) => Answer::New,
            Ok(Step::Passes | Step::Asks(_)) => known(track),
            Ok(Step::To(after)) => known(after),
        }
    }

    /// What is known of the connection that an ICMP error is about; it goes `from` one of the ends. Such a message changes nothing: it
    /// is advice (RFC 5927 §4).
    pub fn related(
        &self,
        digest: Digest,
        from: Direction,
        quoted: &Quoted,
        epoch: Epoch,
        now: Instant,
    ) -> Answer {
        let unrelated = Answer::Invalid(Invalid::Unrelated);
        let Some(number) = self.table.find(digest) else { return unrelated };
        let hot = self.table.hot(number);
        let seen = hot.seen();
        let track = hot.track(seen.control);
        if !hot.is(digest) || self.is_over(seen, second(now)) || !is_quotable(&track, from.opposite(), quoted)
        {
            return unrelated;
        }
        if seen.stamp.epoch != low(epoch) {
            return Answer::Stale { opener: track.control.opener() };
        }
        known(track)
    }

    /// Notes that a connection which was [stale](Answer::Stale) may go on under the policy of `epoch`, if it is still there. Whether it did: if not,
    /// another worker was changing the port's share, and the next frame is to be judged as well.
    pub fn renew(&self, digest: Digest, epoch: Epoch) -> bool {
        self.under_lock(digest, |_, number| {
            let hot = self.table.hot(number);
            hot.set_stamp(track::Stamp { epoch: low(epoch), ..hot.seen().stamp });
        })
    }

    /// Ends a connection that may not go on, if it is still there. Whether it did: if not, another worker was changing the port's share, and the
    /// next frame is to be judged as well.
    pub fn end(&self, digest: Digest) -> bool {
        self.under_lock(digest, |guard, number| self.remove(guard, number))
    }

    /// What [`Self::look_up`] would say if the frame's connection had ended.
    pub fn absent(&self, event: &Event, now: Instant) -> Answer {
        self.unknown(event, second(now))
    }

    /// What a frame of no connection is.
    #[cold]
    fn unknown(&self, event: &Event, now: u32) -> Answer {
        match event {
            Event::Tcp(segment) if !segment.is_sound() => Answer::Invalid(Invalid::Flags),
            Event::Tcp(segment) if segment.is_syn() || self.may_pick_up(segment, now) => Answer::New,
            Event::Datagram | Event::Query { reply: false } => Answer::New,
            Event::Tcp(_) | Event::Query { reply: true } => Answer::Invalid(Invalid::NoConnection),
        }
    }

    /// Whether a segment may be the first that is seen of a running connection.
    fn may_pick_up(&self, segment: &Segment, now: u32) -> bool {
        segment.is_plain() && now < self.pick_up_until.load(Ordering::Relaxed)
    }

    #[inline]
    fn is_over(&self, seen: Seen, now: u32) -> bool {
        now.saturating_sub(seen.stamp.seen) > self.timeouts.of(seen.control.state())
    }
}

/// What a frame that goes `from` one of the ends does to a connection; `again` is what its cold line says of a second SYN.
#[inline(always)]
fn step(track: &Track, again: SynAgain, from: Direction, event: &Event) -> Result<Step, Invalid> {
    match event {
        Event::Tcp(_) if !track.control.state().is_tcp() => Err(Invalid::State),
        Event::Tcp(segment) => tcp::step(track, again, from, segment),
        Event::Query { .. } | Event::Datagram => Ok(Step::To(heard(*track, from))),
    }
}

/// The state of what is no TCP, when `from` is heard.
fn heard(mut track: Track, from: Direction) -> Track {
    if from != track.control.opener() {
        let state = match track.control.state() {
            State::Unreplied => State::Replied,
            State::Asked => State::Answered,
            State::OtherUnreplied => State::OtherReplied,
            state => state,
        };
        track.control = track.control.with_state(state);
    }
    track
}

/// Whether an ICMP error may quote such a frame, which went `from` one of the ends: of TCP, one that is under way (RFC 5927 §4.1).
fn is_quotable(track: &Track, from: Direction, quoted: &Quoted) -> bool {
    let Quoted { seq: Some(seq) } = *quoted else { return !track.control.state().is_tcp() };
    let (me, peer) = (track.side(from), track.side(from.opposite()));
    let sent = track.control.state().is_tcp()
        && (!track.control.is(State::SynSent) || from == track.control.opener());
    sent && !before(me.end, seq) && !before(seq, me.end.wrapping_sub(peer.window))
}

#[inline]
fn known(track: Track) -> Answer {
    Answer::Known { state: track.control.state(), opener: track.control.opener() }
}

/// A moment as it is noted: time stands still in 136 years.
#[inline]
fn second(now: Instant) -> u32 {
    now.as_secs().min(u32::MAX.into()) as u32
}

#[inline]
const fn low(epoch: Epoch) -> u32 {
    epoch.number() as u32
}
