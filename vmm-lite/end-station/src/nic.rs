//! The virtual NIC of a station: frames to and from a wire, and smoltcp's `Device` over it.

use crate::frames::ETHERNET;
use alloc::collections::VecDeque;
use alloc::{vec, vec::Vec};
use probe::{Mac, answer::Counters};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

/// Frames taken from the wire at once.
const BATCH: usize = 256;

/// What carries frames: a driver on a vhost-user socket, or in tests a piece of memory.
pub trait Wire {
    /// Sends one frame, once flushed. False: no room now.
    fn send(&mut self, frame: &[u8]) -> bool;
    /// Hands over frames that came, at most `limit`.
    fn receive(&mut self, limit: usize, each: &mut dyn FnMut(&[u8]));
    /// Tells the other side of all that was sent.
    fn flush(&mut self);
    /// Whether anyone is at the other end.
    fn is_up(&self) -> bool;
}

/// One NIC. Frames to its own address never leave it.
#[derive(Debug)]
pub(crate) struct Nic<W> {
    wire: W,
    mac: Mac,
    mtu: u16,
    arrived: VecDeque<Vec<u8>>,
    /// What smoltcp gets next.
    offered: Option<Vec<u8>>,
    /// What found no room on the wire; until it does, nothing else is sent or received.
    held: VecDeque<Vec<u8>>,
    counters: Counters,
}

impl<W: Wire> Nic<W> {
    pub(crate) fn new(wire: W, mac: Mac, mtu: u16) -> Self {
        let (arrived, held) = (VecDeque::new(), VecDeque::new());
        Self { wire, mac, mtu, arrived, offered: None, held, counters: Counters::default() }
    }

    pub(crate) fn wire(&self) -> &W {
        &self.wire
    }

    pub(crate) fn wire_mut(&mut self) -> &mut W {
        &mut self.wire
    }

    pub(crate) fn mac(&self) -> Mac {
        self.mac
    }

    pub(crate) fn mtu(&self) -> u16 {
        self.mtu
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    pub(crate) fn is_up(&self) -> bool {
        self.wire.is_up()
    }

    /// The ring is full: there will be a signal when it is not.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.held.is_empty()
    }

    /// Frames that came and were not taken yet.
    pub(crate) fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Sends what waited, and takes from the wire what came.
    pub(crate) fn exchange(&mut self) {
        while let Some(frame) = self.held.pop_front() {
            if self.wire.is_up() && !self.wire.send(&frame) {
                self.held.push_front(frame);
                break;
            }
        }
        let (arrived, counters) = (&mut self.arrived, &mut self.counters);
        let room = BATCH.saturating_sub(arrived.len());
        self.wire.receive(room, &mut |frame| {
            counters.received_frames += 1;
            counters.received_bytes += frame.len() as u64;
            arrived.push_back(frame.to_vec());
        });
    }

    /// The next frame that came.
    pub(crate) fn next_arrived(&mut self) -> Option<Vec<u8>> {
        if self.is_blocked() { None } else { self.arrived.pop_front() }
    }

    /// What smoltcp is to receive next.
    pub(crate) fn offer(&mut self, frame: Vec<u8>) {
        self.offered = Some(frame);
    }

    /// Sends one frame; one for which there is no room waits.
    pub(crate) fn send(&mut self, frame: Vec<u8>) {
        if frame.get(..6) == Some(&self.mac.octets()) {
            if self.arrived.len() < 2 * BATCH {
                self.arrived.push_back(frame);
            }
            return;
        }
        if !self.wire.is_up() || self.held.len() >= BATCH {
            self.counters.sent_drops += 1;
            return;
        }
        self.counters.sent_frames += 1;
        self.counters.sent_bytes += frame.len() as u64;
        if self.is_blocked() || !self.wire.send(&frame) {
            self.held.push_back(frame);
        }
    }

    pub(crate) fn flush(&mut self) {
        self.wire.flush();
    }
}

impl<W: Wire> phy::Device for Nic<W> {
    type RxToken<'a>
        = Received
    where
        W: 'a;
    type TxToken<'a>
        = Room<'a, W>
    where
        W: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Received, Room<'_, W>)> {
        let frame = self.offered.take()?;
        Some((Received(frame), Room(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_, W>> {
        (!self.is_blocked()).then_some(Room(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = usize::from(self.mtu) + ETHERNET;
        capabilities
    }
}

/// A frame on its way to smoltcp.
pub(crate) struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

/// Room for a frame from smoltcp.
pub(crate) struct Room<'a, W>(&'a mut Nic<W>);

impl<W: Wire> phy::TxToken for Room<'_, W> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut frame = vec![0; len];
        let result = fill(&mut frame);
        self.0.send(frame);
        result
    }
}
