//! What a hostile guest or VMM can do to a device, for tests: [`RawRing`] writes whatever it likes into a ring,
//! [`RawFrontend`] says whatever it likes on the socket, [`Flipper`] changes memory while the device reads it.
//!
//! Memory that vanishes is [`super::Arena::truncate`] (of an unsealed arena) and [`super::Arena::punch`]; a driver
//! that never refills is one whose [`super::QueuePair::receive`] is not called.

use super::arena::Arena;
use super::doorbell::Doorbell;
use super::plan::Slots;
use super::ring::{Descriptor, RingPlaces};
use super::{Driver, DriverError, QueuePair};
use crate::layout::RingSize;
use rustix::event::EventfdFlags;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A ring that is written by hand. The pair that it belongs to knows nothing of that: leave its methods alone.
pub struct RawRing {
    memory: Arc<Arena>,
    places: RingPlaces,
    slots: Slots,
    kick: Doorbell,
}

impl RawRing {
    /// The receiveq (even `index`) or transmitq (odd) of `pair`.
    pub(super) fn of(memory: &Arc<Arena>, pair: &QueuePair, index: u16) -> io::Result<Self> {
        let (ring, kick, _) = pair.rings()[usize::from(index % 2)];
        let slots = if index.is_multiple_of(2) { pair.receive.slots() } else { pair.transmit.slots() };
        Ok(Self { memory: memory.clone(), places: *ring.places(), slots, kick: kick.try_clone()? })
    }

    /// Entries.
    pub fn size(&self) -> RingSize {
        self.places.size
    }

    /// Where the ring's parts lie in the arena, for whoever wants to write any byte of them.
    pub fn places(&self) -> &RingPlaces {
        &self.places
    }

    /// The guest-physical address of buffer `number` of this ring, of [`super::Config::buffer_size`] bytes.
    pub fn buffer(&self, number: u16) -> u64 {
        self.memory.guest_address(self.slots.offset(number))
    }

    /// Fills buffer `number` with `bytes`; returns its address.
    pub fn fill(&self, number: u16, bytes: &[u8]) -> u64 {
        self.memory.write(self.slots.offset(number), bytes);
        self.buffer(number)
    }

    /// Writes a table of descriptors into buffer `number`, as an indirect one has it; returns its address.
    pub fn fill_table(&self, number: u16, table: &[Descriptor]) -> u64 {
        let bytes: Vec<u8> = table.iter().flat_map(|descriptor| descriptor.to_bytes()).collect();
        self.fill(number, &bytes)
    }

    /// Writes descriptor `index` of the table.
    pub fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        self.memory.write(self.places.desc_at(index), &descriptor.to_bytes());
    }

    /// Writes `avail.ring[index % size]`.
    pub fn set_avail(&self, index: u16, head: u16) {
        self.memory.store_u16(self.places.avail_entry(index), head, Ordering::Relaxed);
    }

    /// Makes the chain at `head` available and kicks, as an honest driver does.
    pub fn offer(&self, head: u16) {
        let index = self.avail_index();
        self.set_avail(index, head);
        self.set_avail_index(index.wrapping_add(1));
        self.kick();
    }

    /// `avail.idx`.
    pub fn avail_index(&self) -> u16 {
        self.memory.load_u16(self.places.avail_idx(), Ordering::Acquire)
    }

    /// Sets `avail.idx`, to wherever.
    pub fn set_avail_index(&self, index: u16) {
        self.memory.store_u16(self.places.avail_idx(), index, Ordering::Release);
    }

    /// Sets `avail.flags`.
    pub fn set_avail_flags(&self, flags: u16) {
        self.memory.store_u16(self.places.avail_flags(), flags, Ordering::Relaxed);
    }

    /// Sets `used_event`.
    pub fn set_used_event(&self, index: u16) {
        self.memory.store_u16(self.places.used_event(), index, Ordering::Relaxed);
    }

    /// `used.idx`.
    pub fn used_index(&self) -> u16 {
        self.memory.load_u16(self.places.used_idx(), Ordering::Acquire)
    }

    /// Overwrites `used.idx`, which is the device's.
    pub fn set_used_index(&self, index: u16) {
        self.memory.store_u16(self.places.used_idx(), index, Ordering::Release);
    }

    /// Kicks.
    pub fn kick(&self) {
        self.kick.ring();
    }
}

impl Driver {
    /// Ring `index` (2n: receiveq of pair n, 2n + 1: its transmitq) to be written by hand; None if there is none.
    pub fn raw_ring(&self, index: u16) -> Result<Option<RawRing>, DriverError> {
        let Some(pair) = self.pairs.get(usize::from(index / 2)) else { return Ok(None) };
        Ok(Some(RawRing::of(&self.memory, pair, index)?))
    }

    /// The driver's own socket, to say something unexpected on.
    pub fn raw_frontend(&self) -> io::Result<RawFrontend> {
        Ok(RawFrontend::new(self.session.stream().try_clone()?))
    }
}

/// A frontend that sends what it is told, valid or not.
pub struct RawFrontend {
    stream: UnixStream,
}

/// A message of the device: its header's fields, and its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The request that it answers.
    pub request: u32,
    /// Version and flags.
    pub flags: u32,
    /// The payload.
    pub body: Vec<u8>,
}

impl RawFrontend {
    /// Version 1, no flags (vhost-user: "Header").
    pub const VERSION: u32 = 1;
    /// Asks for an answer to a message that has none of its own.
    pub const NEED_REPLY: u32 = 8;

    /// Speaks on `stream`.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// The header of a message that says that `size` bytes follow.
    pub fn header(request: u32, flags: u32, size: u32) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&request.to_ne_bytes());
        bytes[4..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..].copy_from_slice(&size.to_ne_bytes());
        bytes
    }

    /// Sends a well-formed message: version 1, the body's true length.
    pub fn send(&self, request: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let size = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.send_bytes(&[&Self::header(request, Self::VERSION, size), body].concat(), fds)
    }

    /// Sends any bytes, with up to 64 descriptors on the first.
    pub fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut sent =
            rustix::net::sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
        while sent < bytes.len() {
            sent += rustix::net::send(&self.stream, &bytes[sent..], SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    /// The next message of the device; None if it closed the connection. An error if neither happens in time.
    pub fn reply(&self, within: Duration) -> io::Result<Option<Reply>> {
        let deadline = Instant::now() + within;
        let mut header = [0; 12];
        if !self.read_exact(&mut header, deadline)? {
            return Ok(None);
        }
        let field =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if field(8) > 4096 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a reply of more than 4096 bytes"));
        }
        let mut body = vec![0; field(8) as usize];
        let whole = self.read_exact(&mut body, deadline)?;
        Ok(whole.then(|| Reply { request: field(0), flags: field(4), body }))
    }

    /// Whether the device closes the connection in time; messages that it sends before are ignored.
    pub fn closed_within(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            match self.read_exact(&mut [0; 1], deadline) {
                Ok(true) => {}
                Ok(false) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Fills `into` by the deadline; false if the connection ended before that.
    fn read_exact(&self, into: &mut [u8], deadline: Instant) -> io::Result<bool> {
        let mut filled = 0;
        while filled < into.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match rustix::net::recv(&self.stream, &mut into[filled..], RecvFlags::empty()) {
                Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET) => return Ok(false),
                Ok((_, read)) => filled += read,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

/// A thread that flips bytes of shared memory, one after the other at random, until it is dropped.
pub struct Flipper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flipper {
    /// Flips bytes of `range` in an order that `seed` decides. Nothing happens if the range is empty.
    pub fn start(memory: Arc<Arena>, range: Range<usize>, seed: u64) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let mut state = seed | 1;
        let thread = std::thread::Builder::new().name("flipper".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) && !range.is_empty() {
                // xorshift64 (Marsaglia 2003): any order will do, as long as the seed repeats it.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = range.start + (state >> 8) as usize % range.len();
                let mut byte = [0];
                memory.read(at, &mut byte);
                memory.write(at, &[byte[0] ^ (state as u8 | 1)]);
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Flipper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic would be a wrong range; the test that gave it sees no flips and says so.
            let _ = thread.join();
        }
    }
}

/// An eventfd that is blocking and full: a write to it waits for ever (reliability: a call descriptor must not block
/// the device).
pub fn full_blocking_eventfd() -> io::Result<OwnedFd> {
    let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
    rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes())?;
    Ok(fd)
}
