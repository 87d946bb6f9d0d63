//! Capture files as a port: one is replayed into the switch, and what the switch gives the port is recorded in another.

#[cfg(test)]
mod tests;

use super::{
    adapter::{AdapterEnd, Shared},
    carrier::Outside,
};
use crate::capture::{
    pcapng::{self, Interface, Packet, Way},
    reader::{ReadError, Reader},
};
use rustix::{
    io::Errno,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant, SystemTime},
};
use vhost_net_backend::driver::{Moved, QueuePair};

/// Bytes of whole blocks that are written at once, at the latest when there is nothing else to do.
const CHUNK: usize = 256 << 10;

/// How soon it is looked at again whether what was sent got through.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// What is replayed.
#[derive(Debug)]
pub(crate) struct Replay {
    /// The file.
    pub(crate) file: OwnedFd,
    /// An eventfd: once it is signalled, the replay begins.
    pub(crate) begin: OwnedFd,
    /// As the file's times have it; else as fast as the ring takes the frames.
    pub(crate) paced: bool,
}

/// How far a replay is.
enum Stage {
    /// Not begun.
    Waiting(Replay),
    /// Under way.
    Playing(Box<Playing>),
    /// The file cannot be read further; what was sent before is to get through still.
    Broken(String),
    /// All was sent, or there is nothing to send.
    Done,
}

/// A replay that is under way.
struct Playing {
    reader: Reader,
    /// The next frame, if it was read already, and when it was captured.
    next: Option<Duration>,
    frame: Vec<u8>,
    /// When the first frame went, and when it was captured.
    begun: Option<(Instant, Duration)>,
    paced: bool,
}

/// What is recorded: whole blocks that are not written yet, and where to.
struct Recording {
    file: File,
    blocks: Vec<u8>,
}

/// The files of one port.
pub(super) struct Pcap {
    stage: Stage,
    recording: Option<Recording>,
    /// Readable when the next frame is due.
    timer: OwnedFd,
}

impl Pcap {
    /// `name` is that of the port.
    pub(super) fn new(name: &str, replay: Option<Replay>, record: Option<OwnedFd>) -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let recording = record.map(|file| {
            let mut blocks = Vec::with_capacity(CHUNK);
            let interface = Interface { name: name.to_owned(), filter: String::new(), snap_len: 262_144 };
            pcapng::begin(&mut blocks, &interface);
            Recording { file: file.into(), blocks }
        });
        Ok(Self { stage: replay.map_or(Stage::Done, Stage::Waiting), recording, timer })
    }

    /// Has the timer expire once after this time, or never if there is none; from the time before it is no longer readable.
    fn set_timer(&self, it_value: Timespec) -> Result<(), AdapterEnd> {
        let due = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &due).map(|_| ()).map_err(|why| ended(&why))
    }

    /// Whether the replay is under way, now at the latest if it was told to begin.
    fn begin(&mut self) -> Result<Option<&mut Playing>, AdapterEnd> {
        if let Stage::Waiting(replay) = &self.stage {
            match rustix::io::read(&replay.begin, &mut [0; 8]) {
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
                Err(why) => return Err(ended(&why)),
            }
            let Stage::Waiting(Replay { file, paced, .. }) = std::mem::replace(&mut self.stage, Stage::Done)
            else {
                return Ok(None);
            };
            let reader =
                Reader::new(file.into()).map_err(|why| ended(&format!("what is replayed: {why}")))?;
            let playing = Playing { reader, next: None, frame: Vec::new(), begun: None, paced };
            self.stage = Stage::Playing(Box::new(playing));
        }
        Ok(match &mut self.stage {
            Stage::Playing(playing) => Some(playing),
            Stage::Waiting(_) | Stage::Broken(_) | Stage::Done => None,
        })
    }
}

impl Playing {
    /// Reads the next frame if none waits; when it was captured, or none if that was all.
    fn next(&mut self) -> Result<Option<Duration>, ReadError> {
        if self.next.is_none() {
            self.next = self.reader.next(&mut self.frame)?;
        }
        Ok(self.next)
    }

    /// How long the frame that was captured `at` is to wait still.
    fn early(&mut self, at: Duration) -> Duration {
        let (begun, first) = *self.begun.get_or_insert_with(|| (Instant::now(), at));
        if self.paced { at.saturating_sub(first).saturating_sub(begun.elapsed()) } else { Duration::ZERO }
    }
}

impl Recording {
    fn write(&mut self) -> Result<(), AdapterEnd> {
        let written = self.file.write_all(&self.blocks);
        self.blocks.clear();
        written.map_err(|why| ended(&format!("what is recorded: {why}")))
    }
}

fn ended(why: &impl ToString) -> AdapterEnd {
    AdapterEnd::File(why.to_string())
}

impl Outside for Pcap {
    const WHAT: &str = "pcap";

    /// What is in files is whole: checksums are right, and no frame is large for others to cut.
    fn features(&self) -> u64 {
        0
    }

    fn bring(&mut self, pair: &mut QueuePair, _: &Shared) -> Result<Moved, AdapterEnd> {
        if let Stage::Broken(why) = &self.stage {
            pair.reap();
            return if pair.in_flight() == 0 { Err(ended(why)) } else { Ok(Moved::Nothing) };
        }
        let Some(playing) = self.begin()? else { return Ok(Moved::Nothing) };
        let at = match playing.next() {
            Ok(Some(at)) => at,
            end => {
                let broken = |why| Stage::Broken(format!("what is replayed: {why}"));
                self.stage = end.map_or_else(broken, |_| Stage::Done);
                // It would stay readable, and nobody would ever sleep.
                self.set_timer(Timespec { tv_sec: 0, tv_nsec: 0 })?;
                return Ok(Moved::Nothing);
            }
        };
        let early = playing.early(at);
        if early > Duration::ZERO {
            let far = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
            self.set_timer(Timespec::try_from(early).unwrap_or(far))?;
            return Ok(Moved::Nothing);
        }
        if !pair.transmit(&playing.frame) {
            return Ok(Moved::NoRoom);
        }
        playing.next = None;
        Ok(Moved::Frame)
    }

    fn take(&mut self, pair: &mut QueuePair, _: &Shared) -> Result<Moved, AdapterEnd> {
        let recording = &mut self.recording;
        let taken = pair.receive_up_to(1, |_, bytes| {
            let Some(Recording { blocks, .. }) = recording else { return };
            let at = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            let len = bytes.len() as u32;
            pcapng::packet(blocks, &Packet { at, bytes, len, way: Way::Outbound, missed: 0, comment: None });
        });
        match recording {
            Some(recording) if recording.blocks.len() >= CHUNK => recording.write()?,
            _ => {}
        }
        Ok(if taken > 0 { Moved::Frame } else { Moved::Nothing })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.stage {
            Stage::Waiting(replay) => replay.begin.as_fd(),
            Stage::Playing(_) | Stage::Broken(_) | Stage::Done => self.timer.as_fd(),
        }
    }

    fn look_again(&self) -> Option<Timespec> {
        matches!(self.stage, Stage::Broken(_)).then_some(LOOK_AGAIN)
    }

    fn idle(&mut self) -> Result<(), AdapterEnd> {
        match &mut self.recording {
            Some(recording) if !recording.blocks.is_empty() => recording.write(),
            _ => Ok(()),
        }
    }
}
