//! A port: the handle by which its owner listens, connects, reports a fault and closes.

mod connection;
mod inner;
mod supervisor;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::PortHost;
use super::fault::PortFault;
use super::gate::Offer;
use crate::features;
use crate::layout::RingSize;
use supervisor::{Source, Supervisor};

/// Refusals that a port remembers.
const REMEMBERED: usize = 16;
/// The supervisor's stack: its deepest call parses a message of 4 KiB.
const STACK_BYTES: usize = 256 << 10;

/// What a port is to be.
#[derive(Debug, Clone)]
pub struct PortConfig {
    /// Its name, for threads and messages.
    pub name: String,
    /// Queue pairs: a receiveq and a transmitq each. From 1 to 128.
    pub queue_pairs: u16,
    /// The largest ring, a power of two up to 32768.
    pub max_ring_size: u16,
    /// Guest memory must be sealed against shrinking.
    pub sealed_memory: bool,
    /// The largest MTU, if the port has one: offers VIRTIO_NET_F_MTU.
    pub mtu: Option<u16>,
    /// Bytes of guest memory that may be mapped at once.
    pub memory_quota: u64,
    /// How long a frontend may take for its first message, for the rest of one, and to read a reply.
    pub patience: Duration,
}

impl PortConfig {
    /// A port with one queue pair, rings of up to 4096 entries, any shared memory up to 1 TiB and 5 s of patience.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            queue_pairs: 1,
            max_ring_size: 4096,
            sealed_memory: false,
            mtu: None,
            memory_quota: 1 << 40,
            patience: Duration::from_secs(5),
        }
    }

    /// What is offered to a frontend; an error says what of the configuration cannot be.
    fn offer(&self) -> io::Result<Offer> {
        let wrong = |what: &str| {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("port {}: {what}", self.name)))
        };
        if !(1..=128).contains(&self.queue_pairs) {
            return wrong("a port has 1 to 128 queue pairs");
        }
        if RingSize::new(self.max_ring_size).is_none() {
            return wrong("the largest ring size is a power of two up to 32768");
        }
        let mut offered = features::OFFERED;
        if self.mtu.is_none() {
            offered &= !features::NET_MTU;
        }
        if self.queue_pairs == 1 {
            offered &= !features::NET_MQ;
        }
        Ok(Offer {
            features: offered,
            rings: self.queue_pairs * 2,
            max_ring_size: self.max_ring_size,
            memory_quota: self.memory_quota,
        })
    }
}

/// What the handle and the supervisor have in common.
#[derive(Debug)]
struct Mailbox {
    wake: OwnedFd,
    post: Mutex<Post>,
}

#[derive(Debug, Default)]
struct Post {
    closing: bool,
    fault: Option<PortFault>,
    refusals: VecDeque<PortFault>,
}

impl Mailbox {
    /// Held for a few instructions only, so that a worker may post.
    fn with<T>(&self, edit: impl FnOnce(&mut Post) -> T) -> T {
        edit(&mut self.post.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The first fault of a connection is the one that is told.
    fn post_fault(&self, fault: PortFault) {
        self.with(|post| {
            post.fault.get_or_insert(fault);
        });
        self.ring();
    }

    fn ring(&self) {
        // A full counter wakes just as well.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn remember(&self, refusal: PortFault) {
        self.with(|post| {
            if post.refusals.len() == REMEMBERED {
                post.refusals.pop_front();
            }
            post.refusals.push_back(refusal);
        });
    }
}

/// A port. Dropped, it closes its connection, gives its rings back and joins its threads.
#[derive(Debug)]
pub struct Port {
    mailbox: Arc<Mailbox>,
    supervisor: Option<JoinHandle<()>>,
}

impl Port {
    /// A port at which VMMs connect, one at a time.
    pub fn listen(listener: UnixListener, config: PortConfig, host: Arc<dyn PortHost>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::start(Source::Listen(listener), config, host)
    }

    /// A port that connects to the socket at which a VMM listens, again and again.
    pub fn connect(path: PathBuf, config: PortConfig, host: Arc<dyn PortHost>) -> io::Result<Self> {
        Self::start(Source::Connect(path), config, host)
    }

    /// A port with this one connection.
    pub fn adopt(stream: UnixStream, config: PortConfig, host: Arc<dyn PortHost>) -> io::Result<Self> {
        Self::start(Source::Adopt(Some(stream)), config, host)
    }

    fn start(source: Source, config: PortConfig, host: Arc<dyn PortHost>) -> io::Result<Self> {
        let offer = config.offer()?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let mailbox = Arc::new(Mailbox { wake, post: Mutex::default() });
        let name = config.name.clone();
        let supervisor = Supervisor::new(source, config, offer, host, mailbox.clone());
        let thread = std::thread::Builder::new().name(name).stack_size(STACK_BYTES);
        Ok(Self { mailbox, supervisor: Some(thread.spawn(move || supervisor.run())?) })
    }

    /// Stops the port's rings for `fault` and closes its connection. Only posts: a worker may call it.
    pub fn fault(&self, fault: PortFault) {
        self.mailbox.post_fault(fault);
    }

    /// The means to fault this port from elsewhere, above all from the worker that has its rings.
    pub fn fault_handle(&self) -> FaultHandle {
        FaultHandle(Arc::downgrade(&self.mailbox))
    }

    /// The last refusals, oldest first: messages that were answered with a NACK, each with the rule it broke.
    pub fn refusals(&self) -> Vec<PortFault> {
        self.mailbox.with(|post| post.refusals.iter().cloned().collect())
    }

    /// Closes the connection, waits until every ring was given back, and ends the threads.
    pub fn close(self) {}
}

/// Faults a port from wherever it is held. It does not keep the port alive, and outlives it harmlessly.
#[derive(Debug, Clone)]
pub struct FaultHandle(Weak<Mailbox>);

impl FaultHandle {
    /// As [`Port::fault`]: only posts. Nothing happens if the port is gone.
    pub fn fault(&self, fault: PortFault) {
        if let Some(mailbox) = self.0.upgrade() {
            mailbox.post_fault(fault);
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.mailbox.with(|post| post.closing = true);
        self.mailbox.ring();
        if let Some(supervisor) = self.supervisor.take() {
            // A panic of the supervisor was told on its own thread; nothing is left to do for it.
            let _ = supervisor.join();
        }
    }
}
