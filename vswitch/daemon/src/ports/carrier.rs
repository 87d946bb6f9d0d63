//! What a thread of an adapter does: it carries frames both ways, and waits when there are none.
//!
//! ```text
//! outside --bring--> transmitq ==rings==> switch      rings full: nothing is brought, what is outside queues or drops
//! outside <--take--- receiveq  <=rings=== switch      outside full: nothing is taken, the rings fill, the switch counts
//! ```

use super::adapter::{AdapterEnd, Shared};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use std::os::fd::BorrowedFd;
use vhost_net_backend::driver::{Moved, QueuePair};

/// Frames that are carried one way before the other way has its turn.
const BATCH: usize = 64;

/// Frames that are given outside at the end: more than a ring holds.
const LAST: usize = 1024;

/// Something outside that has frames and takes frames, one queue of it.
pub(super) trait Outside {
    /// What it is called.
    const WHAT: &str;

    /// Frames that one call of [`Outside::take`] gives outside at most.
    const TAKEN: usize = 1;

    /// The offloads that it takes and leaves to others ([`vhost_net_backend::features`]).
    fn features(&self) -> u64;

    /// Queues a frame from outside, if there is one.
    fn bring(&mut self, pair: &mut QueuePair, shared: &Shared) -> Result<Moved, AdapterEnd>;

    /// Gives received frames outside, if there are any.
    fn take(&mut self, pair: &mut QueuePair, shared: &Shared) -> Result<Moved, AdapterEnd>;

    /// Readable when there may be a frame.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Writable when there may be room for a frame.
    fn room_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }

    /// There is nothing more to carry for now, or at all.
    fn idle(&mut self) -> Result<(), AdapterEnd> {
        Ok(())
    }

    /// Its descriptor reports an error, and nothing to read.
    fn broken(&mut self, _: &Shared) -> Result<(), AdapterEnd> {
        Err(AdapterEnd::Gone { what: Self::WHAT, why: "its descriptor reports an error".into() })
    }

    /// When it is to be asked again though nothing happened.
    fn look_again(&self) -> Option<Timespec> {
        None
    }
}

/// One queue pair and what is outside.
pub(super) struct Carrier<'a, O> {
    shared: &'a Shared,
    outside: O,
    pair: &'a mut QueuePair,
    /// The socket to the port: hung up when the port closes.
    connection: BorrowedFd<'a>,
    /// The ring has no room for another frame from outside.
    ring_full: bool,
    /// Outside there is no room for the next frame.
    outside_full: bool,
}

impl<'a, O: Outside> Carrier<'a, O> {
    pub(super) fn new(
        shared: &'a Shared,
        outside: O,
        pair: &'a mut QueuePair,
        connection: BorrowedFd<'a>,
    ) -> Self {
        Self { shared, outside, pair, connection, ring_full: false, outside_full: false }
    }

    /// Carries until there is an end.
    pub(super) fn run(mut self) -> AdapterEnd {
        loop {
            if let Err(end) = self.turn() {
                return self.finish(end);
            }
        }
    }

    /// What was brought before the end still goes to the switch, and what was delivered is given outside.
    fn finish(mut self, end: AdapterEnd) -> AdapterEnd {
        self.pair.flush();
        let mut last = || {
            for _ in 0..LAST {
                if self.outside.take(self.pair, self.shared)? != Moved::Frame {
                    break;
                }
            }
            self.outside.idle()
        };
        match (end, last()) {
            (AdapterEnd::Stopped | AdapterEnd::PortClosed, Err(why)) => why,
            // The first reason is the one to tell.
            (end, _) => end,
        }
    }

    /// Carries what there is, both ways; waits if there is nothing.
    fn turn(&mut self) -> Result<(), AdapterEnd> {
        if self.shared.is_stopping() {
            return Err(AdapterEnd::Stopped);
        }
        let carried = self.take()? + self.bring()?;
        self.pair.flush();
        if let Some(fault) = self.pair.fault() {
            return Err(AdapterEnd::Port(fault.to_string()));
        }
        if carried > 0 { Ok(()) } else { self.wait() }
    }

    /// Gives received frames outside; how often.
    fn take(&mut self) -> Result<usize, AdapterEnd> {
        for calls in 0..BATCH / O::TAKEN {
            let moved = self.outside.take(self.pair, self.shared)?;
            self.outside_full = moved == Moved::NoRoom;
            if moved != Moved::Frame {
                return Ok(calls);
            }
        }
        Ok(BATCH)
    }

    /// Queues frames from outside; how many.
    fn bring(&mut self) -> Result<usize, AdapterEnd> {
        for frames in 0..BATCH {
            let moved = self.outside.bring(self.pair, self.shared)?;
            self.ring_full = moved == Moved::NoRoom;
            if moved != Moved::Frame {
                return Ok(frames);
            }
        }
        Ok(BATCH)
    }

    /// Sleeps until there may be something to carry, or an end.
    fn wait(&mut self) -> Result<(), AdapterEnd> {
        let ready = self.pair.arm();
        // While outside is full, frames that wait in the ring are no reason to go on; room for a frame is.
        let room = self.ring_full && self.outside_full && self.bring()? > 0;
        if room || ready && !self.outside_full {
            self.pair.flush();
            self.pair.disarm();
            return Ok(());
        }
        self.outside.idle()?;
        // A hang-up is told unasked, also while what may still come has no room: then it is found when there is.
        let stop = self.shared.stop_fd();
        let outside = if self.ring_full { stop } else { self.outside.fd() };
        let (room, wanted) = match self.outside_full {
            true => (self.outside.room_fd(), PollFlags::OUT),
            false => (stop, PollFlags::IN),
        };
        let call = self.pair.call_fd();
        let mut fds = [
            PollFd::new(&outside, PollFlags::IN),
            PollFd::new(&room, wanted),
            PollFd::new(&call, PollFlags::IN),
            PollFd::new(&self.connection, PollFlags::RDHUP),
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
        ];
        match poll(&mut fds, self.outside.look_again().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(why) => return Err(AdapterEnd::Port(why.to_string())),
        }
        let [outside, room, _, connection, stop] = fds.map(|fd| fd.revents());
        if stop.contains(PollFlags::IN) {
            return Err(AdapterEnd::Stopped);
        }
        if !connection.is_empty() {
            return Err(AdapterEnd::PortClosed);
        }
        let broken = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        if (outside | room).intersects(broken) && !outside.contains(PollFlags::IN) {
            self.outside.broken(self.shared)?;
        }
        self.pair.disarm();
        self.pair.drain_call();
        Ok(())
    }
}
