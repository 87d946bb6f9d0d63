//! The driver side: what a guest's virtio-net driver and its VMM's vhost-user frontend are, together, in one process
//! over memory of its own.
//!
//! Whatever is no guest reaches the switch this way: stations, tap adapters, the frame generator, tests.
//!
//! ```text
//! transmit(frame) -> slot in the arena -> chain in the avail ring -> flush: one index store, at most one kick
//! device writes  -> used ring -> receive(each): copied out, merged buffers joined -> posted again, one index store
//! ```
//! Work goes in batches, without allocation or system call per frame. The device is trusted with nothing: a used ring
//! that cannot be makes the pair stop with a [`DeviceFault`]. [`misbehave`] is for tests that want the other side to
//! suffer instead, [`unwired`] for those that want no session.
//!
//! Files: `arena` the shared memory, `plan` what lies where in it, `ring` one split ring, `transmit` and `receive` the
//! two queues of a pair, `frontend` the handshake, `patience` how long it may take, `doorbell` kick and call, `error` what can go wrong.

mod arena;
mod doorbell;
mod error;
mod fenced;
mod frontend;
pub mod misbehave;
mod patience;
mod plan;
mod receive;
mod ring;
mod transmit;
pub mod unwired;

#[cfg(test)]
mod handshake_tests;
#[cfg(test)]
mod tests;

pub use arena::{Arena, Region, SENDS};
pub use error::{DeviceFault, DriverError};
pub use receive::ReceivedFrame;
pub use ring::{Descriptor, RingPlaces};
pub use transmit::{Moved, Piece, Place, Shape, TransmitBuffer};

use crate::features;
use crate::layout::RingSize;
use crate::net_header::{self, NetHeader};
use doorbell::Doorbell;
use frontend::Session;
use patience::Patience;
use plan::PairPlan;
use receive::ReceiveQueue;
use ring::Ring;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use transmit::TransmitQueue;

/// What a driver should be like.
#[derive(Debug, Clone)]
pub struct Config {
    /// The virtio features wanted; those also offered are taken. VERSION_1 must be among both.
    pub features: u64,
    /// Entries of each ring.
    pub ring_size: RingSize,
    /// Queue pairs, 1 to 64.
    pub queue_pairs: u16,
    /// The shared memory.
    pub memory: MemoryConfig,
    /// Bytes of each buffer, net header included, 1024 to 65562. A longer frame is transmitted in several, and
    /// received only with MRG_RXBUF.
    pub buffer_size: u32,
    /// How receive buffers are cut into descriptors.
    pub receive: ReceiveLayout,
    /// How long the device may take for a message: to take it, and to answer.
    pub timeout: Duration,
    /// Ends such a wait early once it is true.
    pub cancel: Option<Arc<AtomicBool>>,
    /// Whether the rings are enabled at once; else by [`Driver::enable`].
    pub enabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            features: features::VERSION_1
                | features::VHOST_USER_PROTOCOL
                | features::EVENT_IDX
                | features::INDIRECT_DESC
                | features::NET_MRG_RXBUF
                | features::IN_ORDER,
            ring_size: const { RingSize::new(256).expect("256 is a power of two") },
            queue_pairs: 1,
            memory: MemoryConfig::default(),
            buffer_size: 2048,
            receive: ReceiveLayout::Single,
            timeout: Duration::from_secs(5),
            cancel: None,
            enabled: true,
        }
    }
}

/// The shared memory that a driver makes.
#[derive(Debug, Clone)]
pub struct MemoryConfig {
    /// Sealed against shrinking, growing and unsealing, as QEMU's memfd is.
    pub sealed: bool,
    /// Of 2 MiB pages, which the machine must have free.
    pub huge_pages: bool,
    /// Memory regions, 1 to 16, adjoining in guest-physical space so that buffers can lie across. The second begins
    /// in the room for shaped frames, one of three or more amid the receive buffers.
    pub regions: u16,
    /// Bytes that guest-physical space skips before the room for shaped frames (one region more), a multiple of a
    /// page; 0: none.
    pub gap: u64,
    /// Bytes of the room for shaped frames of each pair; untouched, it costs nothing.
    pub shaped_bytes: usize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { sealed: true, huge_pages: false, regions: 1, gap: 0, shaped_bytes: 512 << 10 }
    }
}

/// How each receive buffer is cut into descriptors: ascending offsets, where the next one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiveLayout {
    /// One descriptor.
    Single,
    /// A chain in the ring; its length must divide the ring's size.
    Chained(Vec<u32>),
    /// One descriptor that refers to a table. Needs INDIRECT_DESC.
    Indirect(Vec<u32>),
}

impl ReceiveLayout {
    fn cuts(&self) -> &[u32] {
        match self {
            Self::Single => &[],
            Self::Chained(cuts) | Self::Indirect(cuts) => cuts,
        }
    }
}

impl Config {
    fn check(&self) -> Result<(), DriverError> {
        let cuts = self.receive.cuts();
        let ascending = cuts.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = cuts.iter().all(|cut| (1..self.buffer_size).contains(cut));
        let chained = matches!(self.receive, ReceiveLayout::Chained(_));
        let largest = transmit::MAX_CHAIN as u32;
        let rules = [
            ((1..=64).contains(&self.queue_pairs), "1 to 64 queue pairs"),
            ((1024..=largest).contains(&self.buffer_size), "buffers of 1024 to 65562 bytes"),
            ((1..=16).contains(&self.memory.regions), "1 to 16 memory regions"),
            (
                self.memory.gap.is_multiple_of(2 << 20) && self.memory.gap < 1 << 40,
                "a gap of whole 2 MiB pages below 1 TiB",
            ),
            (self.memory.shaped_bytes <= 1 << 30, "at most 1 GiB of room for shaped frames"),
            (ascending && inside && cuts.len() < 64, "receive cuts ascend within the buffer, fewer than 64"),
            (
                !chained || usize::from(self.ring_size.entries()).is_multiple_of(cuts.len() + 1),
                "a chain's length divides the ring's size",
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(DriverError::Config(rule)),
            None => Ok(()),
        }
    }

    fn patience(&self) -> Patience {
        Patience { timeout: self.timeout, cancel: self.cancel.clone() }
    }

    /// The features that the configuration cannot do without.
    fn required(&self) -> u64 {
        if matches!(self.receive, ReceiveLayout::Indirect(_)) { features::INDIRECT_DESC } else { 0 }
    }
}

/// A running virtio-net driver.
pub struct Driver {
    session: Session,
    memory: Arc<Arena>,
    pairs: Vec<QueuePair>,
    config: Config,
}

/// Where the device stood when a driver was stopped: avail indices by ring, receiveq and transmitq in turn.
pub type Bases = Vec<u16>;

impl Driver {
    /// The whole handshake over `stream`: at return the rings run and all receive buffers are posted.
    pub fn connect(stream: UnixStream, config: &Config) -> Result<Self, DriverError> {
        let laid_out = plan::plan(config)?;
        let rings = config.queue_pairs * 2;
        let session =
            Session::negotiate(stream, config.features, config.required(), rings, config.patience())?;
        let (memory, pairs) = fresh_pairs(laid_out, session.features())?;
        let mut driver = Self { session, memory, pairs, config: config.clone() };
        driver.start()?;
        Ok(driver)
    }

    /// The same rings, memory and frames in flight, to a device that was started anew: it goes on at the used index,
    /// as a VMM has it do when it reconnects. The device must offer the features that were taken.
    pub fn reconnect(&mut self, stream: UnixStream) -> Result<(), DriverError> {
        let features = self.session.features();
        let rings = self.config.queue_pairs * 2;
        self.session = Session::negotiate(stream, features, features, rings, self.config.patience())?;
        self.start()
    }

    /// Stops all rings and starts empty ones in other memory, on the same connection: as a VMM does whose guest loads its
    /// driver anew. Frames in flight are lost.
    pub fn start_elsewhere(&mut self) -> Result<(), DriverError> {
        for index in 0..self.pairs.len() * 2 {
            self.session.stop_ring(index)?;
        }
        (self.memory, self.pairs) = fresh_pairs(plan::plan(&self.config)?, self.session.features())?;
        self.start()
    }

    fn start(&mut self) -> Result<(), DriverError> {
        self.session.share(&self.memory)?;
        // Before the device has the rings: the first frame for one that runs is to find a buffer.
        self.pairs.iter_mut().for_each(QueuePair::flush);
        for (index, (ring, kick, call)) in self.pairs.iter().flat_map(QueuePair::rings).enumerate() {
            let base = ring.resume_index();
            self.session.start_ring(index, &self.memory, ring.places(), base, (kick, call))?;
        }
        if self.config.enabled {
            for index in 0..self.pairs.len() * 2 {
                self.session.enable(index, true)?;
            }
        }
        // What was made available before the device could hear of it.
        self.pairs.iter().for_each(QueuePair::kick);
        Ok(())
    }

    /// The virtio features taken.
    pub fn features(&self) -> u64 {
        self.session.features()
    }

    /// The queue pairs.
    pub fn pairs(&mut self) -> &mut [QueuePair] {
        &mut self.pairs
    }

    /// The first queue pair; there always is one.
    pub fn pair(&mut self) -> &mut QueuePair {
        &mut self.pairs[0]
    }

    /// The shared memory.
    pub fn memory(&self) -> &Arc<Arena> {
        &self.memory
    }

    /// Whether the device's end of the socket is still open.
    pub fn is_connected(&self) -> bool {
        self.session.is_connected().unwrap_or(false)
    }

    /// The socket, to wait on for a hang-up (POLLRDHUP).
    pub fn connection_fd(&self) -> BorrowedFd<'_> {
        self.session.stream().as_fd()
    }

    /// SET_VRING_ENABLE for both rings of a pair: a disabled pair moves no frames.
    pub fn enable(&mut self, pair: u16, on: bool) -> Result<(), DriverError> {
        let receive = usize::from(pair) * 2;
        self.session.enable(receive, on)?;
        self.session.enable(receive + 1, on)
    }

    /// SET_VRING_ENABLE for the receiveq of a pair alone: disabled, it gets no frames, and what was sent still goes.
    pub fn enable_receive(&mut self, pair: u16, on: bool) -> Result<(), DriverError> {
        self.session.enable(usize::from(pair) * 2, on)
    }

    /// SET_MEM_TABLE once more while the rings run, as a VMM does at a change of memory.
    pub fn share_memory_again(&mut self) -> Result<(), DriverError> {
        self.session.share(&self.memory)
    }

    /// RESET_DEVICE: the rings stop, and the device forgets features and addresses. False where it is not supported.
    pub fn reset(mut self) -> Result<bool, DriverError> {
        self.session.reset()
    }

    /// GET_VRING_BASE on all rings: when it returns, the device touches no memory of ours any more.
    pub fn stop(self) -> Result<Bases, DriverError> {
        (0..self.pairs.len() * 2).map(|index| self.session.stop_ring(index)).collect()
    }
}

/// Rings that nothing happened on yet, in memory that was laid out for them.
fn fresh_pairs(
    (arena, plans): (Arena, Vec<PairPlan>),
    features: u64,
) -> Result<(Arc<Arena>, Vec<QueuePair>), DriverError> {
    let memory = Arc::new(arena);
    let pairs = plans.iter().map(|plan| QueuePair::new(&memory, plan, features));
    let pairs = pairs.collect::<Result<_, _>>()?;
    Ok((memory, pairs))
}

/// A receiveq and a transmitq, with one call descriptor for both.
pub struct QueuePair {
    receive: ReceiveQueue,
    transmit: TransmitQueue,
    receive_kick: Doorbell,
    transmit_kick: Doorbell,
    call: Doorbell,
    fault: Option<DeviceFault>,
}

impl QueuePair {
    fn new(memory: &Arc<Arena>, plan: &PairPlan, features: u64) -> Result<Self, DriverError> {
        let has = |feature| features & feature != 0;
        let ring =
            |places| Ring::new(memory.clone(), places, has(features::EVENT_IDX), has(features::IN_ORDER));
        Ok(Self {
            receive: ReceiveQueue::new(
                memory.clone(),
                ring(plan.receive),
                plan.receive_slots,
                &plan.receive_buffers,
                has(features::NET_MRG_RXBUF),
            ),
            transmit: TransmitQueue::new(
                memory.clone(),
                ring(plan.transmit),
                plan.transmit_slots,
                plan.shaped.clone(),
            ),
            receive_kick: Doorbell::new()?,
            transmit_kick: Doorbell::new()?,
            call: Doorbell::new()?,
            fault: None,
        })
    }

    fn rings(&self) -> [(&Ring, &Doorbell, &Doorbell); 2] {
        [
            (&self.receive.ring, &self.receive_kick, &self.call),
            (&self.transmit.ring, &self.transmit_kick, &self.call),
        ]
    }

    /// Queues one frame, copied into the arena; `flush` sends it. False: the ring is full, even after reaping, or the
    /// frame is longer than 65550 bytes, or the pair has stopped ([`Self::fault`]).
    #[inline]
    pub fn transmit(&mut self, frame: &[u8]) -> bool {
        self.transmit_with(&transmit::PLAIN, frame)
    }

    /// The same, with a net header.
    #[inline]
    pub fn transmit_with(&mut self, header: &[u8; net_header::LEN], frame: &[u8]) -> bool {
        let sent = if self.fault.is_none() { self.transmit.transmit(header, frame) } else { Ok(false) };
        self.unless_faulty(sent).unwrap_or(false)
    }

    /// Queues one frame that is read from `fd` right into the arena, a [short](net_header::SHORT_LEN) net header before it (readv(2), so a
    /// tap or a packet socket); [`Self::flush`] sends it. No room: the ring could not take the longest frame now.
    ///
    /// # Errors
    /// The descriptor's own; `UnexpectedEof` if it ended.
    pub fn transmit_from(&mut self, fd: BorrowedFd<'_>) -> io::Result<Moved> {
        let moved =
            if self.fault.is_none() { self.transmit.transmit_from(fd) } else { Ok(Ok(Moved::Nothing)) };
        self.unless_faulty(moved).unwrap_or(Ok(Moved::Nothing))
    }

    /// Writes the next frame received to `fd` in the same form, right from its buffers, which are posted again; [`Self::flush`] tells the
    /// device. If the descriptor has no room now, the frame stays the next one.
    ///
    /// # Errors
    /// The descriptor's own; the frame is gone.
    pub fn receive_to(&mut self, fd: BorrowedFd<'_>) -> io::Result<Moved> {
        let moved = if self.fault.is_none() { self.receive.receive_to(fd) } else { Ok(Ok(Moved::Nothing)) };
        self.unless_faulty(moved).unwrap_or(Ok(Moved::Nothing))
    }

    /// Sends the next frames received on the socket `fd` in the same form, at most [`SENDS`], with one system call that does not wait.
    /// [`Moved::Frame`]: at least one went. What had no room stays next.
    ///
    /// # Errors
    /// The socket's own about the next frame, which is gone.
    pub fn send_to(&mut self, fd: BorrowedFd<'_>) -> io::Result<Moved> {
        let moved = if self.fault.is_none() { self.receive.send_to(fd) } else { Ok(Ok(Moved::Nothing)) };
        self.unless_faulty(moved).unwrap_or(Ok(Moved::Nothing))
    }

    /// Queues one frame that lies in memory as `shape` says; for tests, so it allocates. False also when the room for
    /// shaped frames is used up, which comes back once all shaped frames were sent.
    pub fn transmit_shaped(&mut self, header: &[u8; net_header::LEN], frame: &[u8], shape: &Shape) -> bool {
        let sent = if self.fault.is_none() {
            self.transmit.transmit_shaped(header, frame, shape)
        } else {
            Ok(false)
        };
        self.unless_faulty(sent).unwrap_or(false)
    }

    /// Queues at most `limit` frames of one buffer each, written by `fill` where they lie; how many. Such a burst writes
    /// no byte that stays as it was a round ago: for generators. The first `touched` bytes of each (its net header
    /// counted) are fetched before.
    #[inline]
    pub fn transmit_in_place(
        &mut self,
        limit: usize,
        touched: usize,
        fill: impl FnMut(&mut TransmitBuffer<'_>),
    ) -> usize {
        if self.fault.is_some() {
            return 0;
        }
        let sent = self.transmit.transmit_in_place(limit, touched, fill);
        self.unless_faulty(sent).unwrap_or(0)
    }

    /// Tells the device of all frames queued and buffers posted: one index store a ring, a kick where it wants one.
    #[inline]
    pub fn flush(&mut self) {
        if self.transmit.ring.publish() {
            self.transmit_kick.ring();
        }
        if self.receive.ring.publish() {
            self.receive_kick.ring();
        }
    }

    /// Kicks both rings, whether the device wants it or not.
    pub fn kick(&self) {
        self.receive_kick.ring();
        self.transmit_kick.ring();
    }

    /// Takes back the frames that were sent; how many.
    pub fn reap(&mut self) -> usize {
        let reaped = if self.fault.is_none() { self.transmit.reap() } else { Ok(0) };
        self.unless_faulty(reaped).unwrap_or(0)
    }

    /// Hands over all frames received so far, posts their buffers again and tells the device once; how many frames.
    #[inline]
    pub fn receive(&mut self, each: impl FnMut(&NetHeader, &[u8])) -> usize {
        self.receive_up_to(usize::MAX, each)
    }

    /// The same, at most `limit` frames.
    pub fn receive_up_to(&mut self, limit: usize, mut each: impl FnMut(&NetHeader, &[u8])) -> usize {
        if self.fault.is_some() {
            return 0;
        }
        let mut frames = 0;
        let received = self.receive.receive(limit, |header, frame| {
            frames += 1;
            each(header, frame);
        });
        self.unless_faulty(received);
        if self.receive.ring.publish() {
            self.receive_kick.ring();
        }
        frames
    }

    /// Hands over at most `limit` frames where they lie, without copying them, and posts their buffers again; `flush`
    /// tells the device. The first `touched` bytes of each (its net header counted) are fetched before. Returns how many.
    #[inline]
    pub fn receive_in_place(
        &mut self,
        limit: usize,
        touched: usize,
        each: impl FnMut(&ReceivedFrame<'_>),
    ) -> usize {
        if self.fault.is_some() {
            return 0;
        }
        let received = self.receive.receive_in_place(limit, touched, each);
        self.unless_faulty(received).unwrap_or(0)
    }

    /// Queues again, as they are, all frames that the device is done with; how many. With a full ring this floods at next to no cost.
    pub fn transmit_again(&mut self) -> usize {
        let sent = if self.fault.is_none() { self.transmit.ring.turn_over() } else { Ok(0) };
        self.unless_faulty(sent).unwrap_or(0)
    }

    /// Posts the buffers of all frames received again and looks at none; how many buffers.
    pub fn discard(&mut self) -> usize {
        let received = if self.fault.is_none() { self.receive.ring.turn_over() } else { Ok(0) };
        self.unless_faulty(received).unwrap_or(0)
    }

    /// Frames queued or sent that were not reaped yet.
    pub fn in_flight(&self) -> u16 {
        self.transmit.ring.chains_in_flight()
    }

    /// Whether a frame was received or sent that was not taken yet.
    pub fn has_work(&self) -> bool {
        self.receive.ring.has_used() || self.transmit.ring.has_used()
    }

    /// Asks for an interrupt at the next frame received and, if a frame found the ring full since, when there is room
    /// again. True if that is so already: poll again instead of sleeping.
    pub fn arm(&mut self) -> bool {
        // Both must be armed, whatever the first one says.
        let received = self.receive.ring.arm(1);
        let room = self.transmit.arm();
        received || room
    }

    /// Asks for no more interrupts, while polling.
    pub fn disarm(&mut self) {
        self.receive.ring.disarm();
        self.transmit.ring.disarm();
    }

    /// Readable once the device signalled (a non-blocking eventfd).
    pub fn call_fd(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// Makes `call_fd` unreadable again.
    pub fn drain_call(&self) {
        self.call.drain();
    }

    /// What the device did that made this pair stop, if it did.
    pub fn fault(&self) -> Option<&DeviceFault> {
        self.fault.as_ref()
    }

    #[inline]
    fn unless_faulty<T>(&mut self, result: Result<T, DeviceFault>) -> Option<T> {
        result.map_err(|fault| self.fault = Some(fault)).ok()
    }
}
