//! An adapter: threads that carry frames between something outside and the driver's end of a port's rings, one thread a queue pair.

#[cfg(test)]
pub(super) mod tests;

use super::{
    carrier::{Carrier, Outside},
    nic::Nic,
    pcap::{Pcap, Replay},
    peers::{self, Meeting},
    routers::{Routers, Voice},
    tap::Tap,
};
use rustix::event::{EventfdFlags, eventfd};
use std::{
    io,
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};
use thiserror::Error;
use vhost_net_backend::{
    driver::{Config, Driver, MemoryConfig},
    features,
    layout::RingSize,
};
use vswitch_core::route::Neighbours;

/// Bytes of each buffer, and buffers of each ring: room for 512 small frames, or for 102 of 64 KiB, which is a little more than TCP has under
/// way by default (6 MiB, tcp_rmem of tcp(7)). What is not used takes no memory.
const BUFFER_BYTES: u32 = 16 << 10;
const RING_SIZE: RingSize = RingSize::new(512).expect("512 is a power of two");

/// What an adapter is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AdapterState {
    /// It waits for the port to serve its handshake.
    Connecting,
    /// What is outside is not there yet, or not any more; why, in words.
    Waiting(String),
    /// Frames go both ways.
    Carrying,
    /// Its threads ended; what is outside is closed.
    Ended(AdapterEnd),
}

/// Why an adapter ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum AdapterEnd {
    /// It was told to.
    #[error("the adapter was stopped")]
    Stopped,
    /// What is outside was deleted, or its other end closed.
    #[error("the {what} is gone: {why}")]
    Gone { what: &'static str, why: String },
    /// A file cannot be read or written further.
    #[error("{0}")]
    File(String),
    /// The port closed the connection.
    #[error("the switch closed the port")]
    PortClosed,
    /// The port could not be reached, or its rings cannot be.
    #[error("the driver of the port: {0}")]
    Port(String),
}

/// What the handle and the threads have in common.
#[derive(Debug)]
pub(super) struct Shared {
    /// Looked at while frames go; `stop` wakes sleepers, and stays readable.
    stopping: AtomicBool,
    stop: OwnedFd,
    state: Mutex<AdapterState>,
    refused: AtomicU64,
}

impl Shared {
    fn new() -> io::Result<Self> {
        Ok(Self {
            stopping: AtomicBool::new(false),
            stop: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            state: Mutex::new(AdapterState::Connecting),
            refused: AtomicU64::new(0),
        })
    }

    pub(super) fn set(&self, state: AdapterState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        // A counter that is full is as good as signalled.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
    }

    /// Whether the threads are to end.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Readable from then on.
    pub(super) fn stop_fd(&self) -> BorrowedFd<'_> {
        self.stop.as_fd()
    }

    /// Counts frames that what is outside did not take, or that were lost there before they could be brought.
    pub(super) fn count_refused(&self, frames: u64) {
        self.refused.fetch_add(frames, Ordering::Relaxed);
    }
}

/// A running adapter. Dropped, it ends its threads and closes what is outside.
#[derive(Debug)]
pub(crate) struct Adapter {
    what: &'static str,
    shared: Arc<Shared>,
    /// Shut down at the end, so that a handshake in progress ends too.
    connection: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Adapter {
    /// Starts to carry frames between the queues of a tap (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, the header of 10 bytes) and the port
    /// that serves the other end of `stream`, a queue pair each. `uso`: the kernel knows large UDP datagrams.
    ///
    /// # Errors
    /// Descriptors or threads ran out, or a queue cannot be made non-blocking.
    pub(crate) fn tap(name: &str, queues: Vec<OwnedFd>, uso: bool, stream: UnixStream) -> io::Result<Self> {
        let queues = queues.into_iter().map(|queue| Tap::new(queue, uso)).collect::<io::Result<_>>()?;
        Self::start(name, Tap::WHAT, stream, |shared, stream| run(shared, queues, stream))
    }

    /// Starts to carry frames between a host's `interface` and the port that serves the other end of `stream`. `socket` is a packet
    /// socket bound to it, with PACKET_VNET_HDR, PACKET_AUXDATA and PACKET_IGNORE_OUTGOING.
    ///
    /// # Errors
    /// Descriptors, threads or memory ran out.
    pub(crate) fn nic(name: &str, interface: &str, socket: OwnedFd, stream: UnixStream) -> io::Result<Self> {
        let outside = vec![Nic::new(interface, socket)?];
        Self::start(name, Nic::WHAT, stream, |shared, stream| run(shared, outside, stream))
    }

    /// Starts to replay frames of a file into the port that serves the other end of `stream`, and to record what the port gives in
    /// another.
    ///
    /// # Errors
    /// Descriptors or threads ran out.
    pub(crate) fn pcap(
        name: &str,
        replay: Option<Replay>,
        record: Option<OwnedFd>,
        stream: UnixStream,
    ) -> io::Result<Self> {
        let outside = vec![Pcap::new(name, replay, record)?];
        Self::start(name, Pcap::WHAT, stream, |shared, stream| run(shared, outside, stream))
    }

    /// Starts to carry frames between whoever is met, one peer at a time, and the port that serves the other end of `stream`.
    ///
    /// # Errors
    /// Descriptors or threads ran out, or the listening socket cannot be made non-blocking.
    pub(crate) fn peers(name: &str, meeting: Meeting, stream: UnixStream) -> io::Result<Self> {
        meeting.prepare()?;
        Self::start(name, meeting.what(), stream, move |shared, stream| {
            peers::serve(shared, &meeting, stream)
        })
    }

    /// Starts to speak for the routers of the Worlds that `voice` is given, at the port that serves the other end of `stream`. Whom they hear of
    /// goes to `neighbours`, by the time since `origin`.
    ///
    /// # Errors
    /// Descriptors or threads ran out.
    pub(crate) fn routers(
        name: &str,
        neighbours: Arc<Neighbours>,
        (voice, origin): (Arc<Voice>, Instant),
        stream: UnixStream,
    ) -> io::Result<Self> {
        let outside = vec![Routers::new(neighbours, voice, origin)];
        Self::start(name, Routers::WHAT, stream, |shared, stream| run(shared, outside, stream))
    }

    /// Starts a thread for all that there is to do.
    fn start(
        name: &str,
        what: &'static str,
        stream: UnixStream,
        work: impl FnOnce(&Shared, UnixStream) -> AdapterEnd + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new()?);
        let connection = stream.try_clone()?;
        let of_thread = shared.clone();
        let thread = thread::Builder::new().name(format!("{what}-{name}")).spawn(move || {
            let end = unless_it_panics(|| work(&of_thread, stream));
            of_thread.set(AdapterState::Ended(end));
        })?;
        Ok(Self { what, shared, connection, thread: Some(thread) })
    }

    /// What it is doing.
    pub(crate) fn state(&self) -> AdapterState {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is outside: `tap`, `stream`.
    pub(crate) fn what(&self) -> &'static str {
        self.what
    }

    /// Frames that what is outside did not take, most likely because its interface is down, and those that were lost there.
    pub(crate) fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        self.shared.stop();
        // A connection that is closed needs no shutdown.
        let _ = self.connection.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // It holds nothing that its panic could leave behind, and a panic was printed.
            let _ = thread.join();
        }
    }
}

/// All that an adapter's first thread does; why it ended.
fn run<O: Outside + Send>(shared: &Shared, outside: Vec<O>, stream: UnixStream) -> AdapterEnd {
    let features = outside.iter().fold(0, |all, one| all | one.features());
    let mut driver = match connect(features, outside.len(), true, stream) {
        Ok(driver) => driver,
        Err(_) if shared.is_stopping() => return AdapterEnd::Stopped,
        Err(end) => return end,
    };
    let connection = match driver.connection_fd().try_clone_to_owned() {
        Ok(connection) => connection,
        Err(why) => return AdapterEnd::Port(why.to_string()),
    };
    shared.set(AdapterState::Carrying);
    let carry = |(outside, pair)| {
        let end = unless_it_panics(|| Carrier::new(shared, outside, pair, connection.as_fd()).run());
        // The others have nothing to do without this one; it is the only one whose end is not that it was told to.
        shared.stop();
        end
    };
    let end = thread::scope(|scope| {
        let mut queues = outside.into_iter().zip(driver.pairs());
        let first = queues.next();
        let others: Vec<_> = queues.map(|queue| scope.spawn(move || carry(queue))).collect();
        let mut ends: Vec<_> = first.map(carry).into_iter().collect();
        // Each has an end, also after a panic.
        ends.extend(others.into_iter().filter_map(|other| other.join().ok()));
        ends.into_iter().find(|end| *end != AdapterEnd::Stopped).unwrap_or(AdapterEnd::Stopped)
    });
    if !matches!(end, AdapterEnd::Stopped | AdapterEnd::PortClosed) {
        // Nobody takes frames any more: the switch is to say so of each. What was brought before still goes to it.
        let pairs = driver.pairs().len();
        // A port that does not answer has closed: then there are no rings either.
        let _ = (0..pairs).try_for_each(|pair| driver.enable_receive(pair as u16, false));
    }
    end
}

/// The end that `work` comes to. A panic is printed, ends this adapter, and is told as its fault (DESIGN §2, law 5).
fn unless_it_panics(work: impl FnOnce() -> AdapterEnd) -> AdapterEnd {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| AdapterEnd::Port("one of its threads panicked".into()))
}

/// The driver of the port that serves the other end of `stream`, with these offloads; its rings enabled or not.
pub(super) fn connect(
    offloads: u64,
    queues: usize,
    enabled: bool,
    stream: UnixStream,
) -> Result<Driver, AdapterEnd> {
    let wanted = Config::default();
    let several = if queues > 1 { features::NET_MQ } else { 0 };
    let config = Config {
        features: wanted.features | several | offloads,
        queue_pairs: u16::try_from(queues).unwrap_or(u16::MAX),
        buffer_size: BUFFER_BYTES,
        ring_size: RING_SIZE,
        // Frames from outside need no room for odd shapes.
        memory: MemoryConfig { shaped_bytes: 0, ..MemoryConfig::default() },
        enabled,
        ..wanted
    };
    Driver::connect(stream, &config).map_err(|why| AdapterEnd::Port(why.to_string()))
}
