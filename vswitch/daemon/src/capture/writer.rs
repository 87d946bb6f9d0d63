//! The thread of a capture: it writes what a worker left, as fast as the other end reads, and sleeps when there is nothing.

use super::{
    pcapng::{self, Interface, Packet, Way},
    record::{Direction, Facts, Receiver},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io::{self, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

/// How much is written at a time.
const CHUNK: usize = 64 << 10;

/// All that a writer needs.
pub(super) struct Writer {
    /// Where the file goes. When it is closed at its other end, the capture ends.
    pub(super) to: UnixStream,
    pub(super) interface: Interface,
    /// When the worker's time began, since 1970.
    pub(super) origin: Duration,
    /// Frames after which it ends.
    pub(super) count: Option<u64>,
    /// When it ends.
    pub(super) deadline: Option<Instant>,
    pub(super) records: Receiver,
}

/// What there is after a chunk was filled.
enum Left {
    /// More, perhaps.
    Some,
    /// Nothing for now.
    Nothing,
    /// Nothing that is wanted: the capture has all that was asked for.
    Complete,
}

/// What was written so far.
#[derive(Default)]
struct Written {
    frames: u64,
    missed: u64,
    last: Duration,
}

impl Writer {
    /// Writes until the capture ends. `end` tells the worker to capture no more; it is called once or more.
    pub(super) fn run(mut self, end: impl Fn()) {
        // The other end is gone, most likely: nobody is left to be told.
        if let Err(why) = self.write(&end) {
            tracing::debug!("a capture of {} ended: {why}", self.interface.name);
        }
        end();
    }

    fn write(&mut self, end: &impl Fn()) -> io::Result<()> {
        let (mut file, mut written) = (Vec::with_capacity(CHUNK), Written::default());
        pcapng::begin(&mut file, &self.interface);
        let missed = loop {
            // Asked first: what was sent before the end is still to be written.
            let ended = self.records.ended();
            let left = self.fill(&mut file, &mut written);
            self.to.write_all(&file)?;
            file.clear();
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                // From now on nothing comes, and the worker wakes us to see it.
                self.deadline = None;
                end();
            }
            match left {
                Left::Some => {}
                Left::Complete => break written.missed,
                Left::Nothing if ended => break self.records.missed(),
                Left::Nothing => self.sleep()?,
            }
        };
        pcapng::end(&mut file, written.last, written.frames, missed);
        self.to.write_all(&file)
    }

    /// Appends what there is, about a chunk of it.
    fn fill(&mut self, file: &mut Vec<u8>, written: &mut Written) -> Left {
        let mut bytes = Vec::new();
        while self.count.is_none_or(|count| written.frames < count) {
            if file.len() >= CHUNK {
                return Left::Some;
            }
            let Some((facts, missed)) = self.records.next(&mut bytes) else { return Left::Nothing };
            self.append(file, facts, missed, &bytes, written);
        }
        Left::Complete
    }

    fn append(&self, file: &mut Vec<u8>, facts: Facts, missed: u64, bytes: &[u8], written: &mut Written) {
        let at = self.origin + Duration::from_nanos(facts.at_nanos);
        let comment = facts.dropped.map(|reason| format!("dropped: {reason}"));
        let packet = Packet {
            at,
            bytes,
            len: facts.len,
            way: match facts.direction {
                Direction::FromPort => Way::Inbound,
                Direction::ToPort => Way::Outbound,
            },
            missed,
            comment: comment.as_deref(),
        };
        pcapng::packet(file, &packet);
        *written = Written { frames: written.frames + 1, missed: written.missed + missed, last: at };
    }

    /// Sleeps until there is something to do, the time is up, or the other end is closed, which is an error.
    fn sleep(&self) -> io::Result<()> {
        if self.records.about_to_sleep() {
            let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            // Nothing is ever read from `to`; that its other end is closed is told all the same.
            let mut polled = [
                PollFd::from_borrowed_fd(self.records.bell(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.to.as_fd(), PollFlags::RDHUP),
            ];
            match poll(&mut polled, timeout.as_ref()) {
                Ok(_) if !polled[1].revents().is_empty() => return Err(io::ErrorKind::BrokenPipe.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(why) => return Err(why.into()),
            }
        }
        Ok(self.records.awake()?)
    }
}
