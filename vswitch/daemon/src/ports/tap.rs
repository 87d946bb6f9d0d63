//! A tap port: a thread that carries frames between a tap and the driver's end of a port's rings.
//!
//! ```text
//! tap --read--> transmit ==rings==> switch        rings full: the tap is not read, its kernel queue drops and counts
//! tap <-write-- receive  <=rings=== switch        tap full: one frame is kept, the rings fill, the switch counts
//! ```

#[cfg(test)]
mod tests;

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::OFlags,
    io::Errno,
};
use std::{
    io,
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};
use thiserror::Error;
use vhost_net_backend::driver::{Config, Driver, MemoryConfig};

/// Frames that are carried one way before the other way has its turn.
const BATCH: usize = 64;

/// The longest frame that a tap gives: 64 KiB of IP behind an Ethernet header with room for a VLAN tag.
const FRAME_BYTES: usize = 65_550;

/// What a tap adapter is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TapState {
    /// It waits for the port to serve its handshake.
    Connecting,
    /// Frames go both ways.
    Carrying,
    /// Its thread ended; the tap is closed.
    Ended(TapEnd),
}

/// Why a tap adapter ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum TapEnd {
    /// It was told to.
    #[error("the tap adapter was stopped")]
    Stopped,
    /// The interface was deleted or its other end closed.
    #[error("the tap is gone: {0}")]
    TapGone(String),
    /// The port closed the connection.
    #[error("the switch closed the port that the tap is attached to")]
    PortClosed,
    /// The port could not be reached, or its rings cannot be.
    #[error("the port that the tap is attached to: {0}")]
    Port(String),
}

/// What the handle and the thread have in common.
#[derive(Debug)]
struct Shared {
    /// Looked at while frames go; `stop` wakes a sleeper.
    stopping: AtomicBool,
    stop: OwnedFd,
    state: Mutex<TapState>,
    refused: AtomicU64,
}

impl Shared {
    fn set(&self, state: TapState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// A running tap adapter. Dropped, it ends its thread and closes the tap.
#[derive(Debug)]
pub(crate) struct TapAdapter {
    shared: Arc<Shared>,
    /// Shut down at the end, so that a handshake in progress ends too.
    connection: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl TapAdapter {
    /// Starts to carry frames between `tap` (IFF_TAP | IFF_NO_PI) and the port that serves the other end of `stream`.
    ///
    /// # Errors
    /// Descriptors or threads ran out, or `tap` cannot be made non-blocking.
    pub(crate) fn start(name: &str, tap: OwnedFd, stream: UnixStream) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&tap)?;
        rustix::fs::fcntl_setfl(&tap, flags | OFlags::NONBLOCK)?;
        let shared = Arc::new(Shared {
            stopping: AtomicBool::new(false),
            stop: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            state: Mutex::new(TapState::Connecting),
            refused: AtomicU64::new(0),
        });
        let connection = stream.try_clone()?;
        let of_thread = shared.clone();
        let thread = thread::Builder::new().name(format!("tap-{name}")).spawn(move || {
            let end = run(&of_thread, tap, stream);
            of_thread.set(TapState::Ended(end));
        })?;
        Ok(Self { shared, connection, thread: Some(thread) })
    }

    /// What it is doing.
    pub(crate) fn state(&self) -> TapState {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Frames that the tap did not take, most likely because its interface is down.
    pub(crate) fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

impl Drop for TapAdapter {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        // A counter that is full is as good as signalled; a connection that is closed needs no shutdown.
        let _ = rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes());
        let _ = self.connection.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // It holds nothing that its panic could leave behind, and a panic was printed.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, tap: OwnedFd, stream: UnixStream) -> TapEnd {
    // Frames of a tap need no room for odd shapes.
    let memory = MemoryConfig { shaped_bytes: 0, ..MemoryConfig::default() };
    let mut driver = match Driver::connect(stream, &Config { memory, ..Config::default() }) {
        Ok(driver) => driver,
        Err(_) if shared.stopping.load(Ordering::Relaxed) => return TapEnd::Stopped,
        Err(why) => return TapEnd::Port(why.to_string()),
    };
    shared.set(TapState::Carrying);
    let call = match driver.pair().call_fd().try_clone_to_owned() {
        Ok(call) => call,
        Err(why) => return TapEnd::Port(why.to_string()),
    };
    let buffer = vec![0; FRAME_BYTES].into();
    let mut carrier = Carrier { shared, tap, driver, call, buffer, unsent: None, unwritten: None };
    loop {
        if let Err(end) = carrier.turn() {
            return end;
        }
    }
}

/// The thread's own.
struct Carrier<'a> {
    shared: &'a Shared,
    tap: OwnedFd,
    driver: Driver,
    /// Its call descriptor.
    call: OwnedFd,
    /// The frame that was read from the tap last.
    buffer: Box<[u8]>,
    /// Its length, while it finds no room in the ring.
    unsent: Option<usize>,
    /// A frame that the tap has no room for.
    unwritten: Option<Vec<u8>>,
}

impl Carrier<'_> {
    /// Carries what there is, both ways; waits if there is nothing.
    fn turn(&mut self) -> Result<(), TapEnd> {
        if self.shared.stopping.load(Ordering::Relaxed) {
            return Err(TapEnd::Stopped);
        }
        let carried = self.write_tap()? + self.read_tap()?;
        if let Some(fault) = self.driver.pair().fault() {
            return Err(TapEnd::Port(fault.to_string()));
        }
        if carried > 0 { Ok(()) } else { self.wait() }
    }

    /// Writes received frames to the tap until it is full; how many.
    fn write_tap(&mut self) -> Result<usize, TapEnd> {
        if let Some(frame) = self.unwritten.take()
            && !write(&self.tap, &frame, self.shared)?
        {
            self.unwritten = Some(frame);
            return Ok(0);
        }
        let mut frames = 0;
        while frames < BATCH && self.unwritten.is_none() {
            let mut outcome = Ok(());
            let (tap, unwritten, shared) = (&self.tap, &mut self.unwritten, self.shared);
            let received = self.driver.pair().receive_up_to(1, |_, frame| match write(tap, frame, shared) {
                Ok(true) => {}
                Ok(false) => *unwritten = Some(frame.to_vec()),
                Err(end) => outcome = Err(end),
            });
            outcome?;
            if received == 0 {
                break;
            }
            frames += 1;
        }
        Ok(frames)
    }

    /// Transmits what the tap has until the ring is full; how many frames.
    fn read_tap(&mut self) -> Result<usize, TapEnd> {
        let mut frames = 0;
        while frames < BATCH {
            let len = match self.unsent {
                Some(len) => len,
                None => match read(&self.tap, &mut self.buffer)? {
                    Some(len) => len,
                    None => break,
                },
            };
            if !self.driver.pair().transmit(&self.buffer[..len]) {
                self.unsent = Some(len);
                break;
            }
            self.unsent = None;
            frames += 1;
        }
        self.driver.pair().flush();
        Ok(frames)
    }

    /// Sleeps until there may be something to carry, or an end.
    fn wait(&mut self) -> Result<(), TapEnd> {
        let ready = self.driver.pair().arm();
        // While the tap is full, frames that wait in the ring are no reason to go on; room for a frame is.
        let room = self.unsent.is_some() && self.unwritten.is_some() && self.read_tap()? > 0;
        if room || ready && self.unwritten.is_none() {
            self.driver.pair().disarm();
            return Ok(());
        }
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::IN, self.unsent.is_none());
        interest.set(PollFlags::OUT, self.unwritten.is_some());
        let mut fds = [
            PollFd::new(&self.tap, interest),
            PollFd::new(&self.call, PollFlags::IN),
            PollFd::from_borrowed_fd(self.driver.connection_fd(), PollFlags::RDHUP),
            PollFd::new(&self.shared.stop, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(why) => return Err(TapEnd::Port(why.to_string())),
        }
        let [tap, _, connection, stop] = fds.map(|fd| fd.revents());
        if stop.contains(PollFlags::IN) {
            return Err(TapEnd::Stopped);
        }
        if !connection.is_empty() {
            return Err(TapEnd::PortClosed);
        }
        let broken = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        if tap.intersects(broken) && !tap.contains(PollFlags::IN) {
            return Err(TapEnd::TapGone("its descriptor reports an error".into()));
        }
        self.driver.pair().disarm();
        self.driver.pair().drain_call();
        Ok(())
    }
}

/// The next frame of the tap; None if there is none now.
fn read(tap: impl AsFd, into: &mut [u8]) -> Result<Option<usize>, TapEnd> {
    loop {
        return match rustix::io::read(&tap, &mut *into) {
            Ok(0) => Err(TapEnd::TapGone("it was closed".into())),
            Ok(len) => Ok(Some(len)),
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::INTR) => continue,
            Err(why) => Err(TapEnd::TapGone(why.to_string())),
        };
    }
}

/// Gives the tap a frame; false if it has no room now. A frame that it does not want is counted and gone: an
/// interface that is down says EIO to each, and may come up again.
fn write(tap: impl AsFd, frame: &[u8], shared: &Shared) -> Result<bool, TapEnd> {
    loop {
        return match rustix::io::write(&tap, frame) {
            Err(Errno::AGAIN) => Ok(false),
            Err(Errno::INTR) => continue,
            Err(
                why @ (Errno::BADFD | Errno::NODEV | Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED),
            ) => Err(TapEnd::TapGone(why.to_string())),
            Err(_) => {
                shared.refused.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
            Ok(_) => Ok(true),
        };
    }
}
