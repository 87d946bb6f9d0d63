//! A virtio-net device (virtio 1.2 §5.1): its two rings, the buffers in them, and the wire of an interface over these.

use crate::{
    buffers::Buffers,
    registers::{Registers, Unusable},
    ring::{Direction, Ring, SIZE},
};
use alloc::boxed::Box;
use end_station::Wire;

/// Feature bits: the device has an address and a link state (§5.1.3), is no legacy one, completes in order (§6).
const NET_F_MAC: u64 = 1 << 5;
const NET_F_STATUS: u64 = 1 << 16;
const F_VERSION_1: u64 = 1 << 32;
const F_IN_ORDER: u64 = 1 << 35;
/// §5.1.2.
const RECEIVEQ: u32 = 0;
const TRANSMITQ: u32 = 1;
/// `virtio_net_hdr` (§5.1.6), of which nothing is used: all zero when a frame is sent.
pub(crate) const HEADER: usize = 12;
/// Where `num_buffers` is in it: a device writes it, a driver does not send it.
const NUM_BUFFERS: usize = 10;
/// Of a frame besides its packet: Ethernet without a check sequence, and a VLAN tag.
const ETHERNET: usize = 14;
const TAG: usize = 4;

/// A network interface.
pub(crate) struct Nic {
    registers: Registers,
    mac: [u8; 6],
    pub(crate) receiveq: Ring,
    pub(crate) transmitq: Ring,
    /// What is received in, and under which number of the receiveq each buffer is lent: not its own, once they come back
    /// in another order than they were taken in.
    received: Buffers,
    lent: Box<[u16; SIZE as usize]>,
    /// A buffer for each number of the transmitq, for whoever has no buffers of its own to send from.
    sent: Option<Buffers>,
    /// Bytes of each buffer.
    size: usize,
    /// What comes back from the transmitq is waited for.
    waits_for_sent: bool,
    /// The device says when its link is down.
    has_status: bool,
    /// The link was up when last looked at.
    up: bool,
}

impl Nic {
    /// The interface whose registers these are, for packets as long as `mtu` says for its address.
    pub(crate) fn new(registers: Registers, mtu: impl FnOnce([u8; 6]) -> u16) -> Result<Self, Unusable> {
        let features = registers.begin(NET_F_MAC | NET_F_STATUS | F_VERSION_1 | F_IN_ORDER)?;
        let mac = registers.mac();
        let size = HEADER + ETHERNET + TAG + usize::from(mtu(mac));
        let in_order = features & F_IN_ORDER != 0;
        let receiveq = Ring::new(Direction::FromDevice, in_order);
        let transmitq = Ring::new(Direction::ToDevice, in_order);
        registers.set_queue(RECEIVEQ, &receiveq)?;
        registers.set_queue(TRANSMITQ, &transmitq)?;
        registers.finish();
        let has_status = features & NET_F_STATUS != 0;
        let up = !has_status || registers.link_is_up();
        let (received, lent) = (Buffers::new(SIZE, size), Box::new([0; SIZE as usize]));
        let mut nic = Self {
            registers,
            mac,
            receiveq,
            transmitq,
            received,
            lent,
            sent: None,
            size,
            waits_for_sent: false,
            has_status,
            up,
        };
        for buffer in 0..SIZE {
            nic.lend(buffer);
        }
        nic.show_lent();
        Ok(nic)
    }

    /// Its MAC address.
    pub(crate) fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The longest that a frame without a tag can be here.
    pub(crate) fn longest(&self) -> usize {
        self.size - HEADER - TAG
    }

    /// Looks at the link, which costs an exit.
    pub(crate) fn look_at_link(&mut self) {
        self.up = !self.has_status || self.registers.link_is_up();
    }

    /// From now on what comes back from the transmitq is waited for, too, besides what is received.
    pub(crate) fn wait_for_sent(&mut self) {
        self.waits_for_sent = true;
    }

    /// Lets the device call for what is waited for, or not.
    pub(crate) fn call(&self, wanted: bool) {
        self.receiveq.call(wanted);
        self.transmitq.call(wanted && self.waits_for_sent);
    }

    /// Whether a host has something to do here: while it waits for room to send it takes nothing in.
    pub(crate) fn has_work(&self) -> bool {
        if self.waits_for_sent { self.transmitq.is_ready() } else { self.receiveq.is_ready() }
    }

    /// Lends the device a receive buffer, again.
    #[inline(always)]
    pub(crate) fn lend(&mut self, buffer: u16) {
        let number = self.receiveq.put(&self.received, buffer, self.size);
        self.lent[usize::from(number)] = buffer;
    }

    /// Shows the device what was lent.
    pub(crate) fn show_lent(&mut self) {
        if self.receiveq.show() {
            self.registers.kick(RECEIVEQ);
        }
    }

    /// The next frame that came: its buffer, which is ours until it is lent again, and its length with header.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Option<(u16, usize)> {
        let (number, length) = self.receiveq.take()?;
        Some((self.lent[usize::from(number)], length.clamp(HEADER, self.size)))
    }

    /// Fetches the line that [`Self::forward`] writes to, of what will be taken behind `behind` others.
    #[inline(always)]
    pub(crate) fn prefetch(&self, behind: u16) {
        self.received.prefetch(self.lent[usize::from(self.receiveq.upcoming(behind))]);
    }

    /// Sends what came into `buffer` by another interface, from where it lies: its number in that transmitq.
    #[inline(always)]
    pub(crate) fn forward(&mut self, buffer: u16, length: usize, to: &mut Self) -> u16 {
        self.received.bytes(buffer, NUM_BUFFERS..HEADER).fill(0);
        to.transmitq.put(&self.received, buffer, length)
    }

    /// Shows the device what was put into the transmitq.
    pub(crate) fn show_put(&mut self) {
        if self.transmitq.show() {
            self.registers.kick(TRANSMITQ);
        }
    }
}

impl Wire for Nic {
    fn send(&mut self, frame: &[u8]) -> bool {
        let end = HEADER + frame.len();
        if end > self.size {
            // Longer than this link carries: as lost as on any.
            return true;
        }
        while self.transmitq.take().is_some() {}
        self.waits_for_sent = self.transmitq.room() == 0;
        if self.waits_for_sent {
            return false;
        }
        let size = self.size;
        let buffers = self.sent.get_or_insert_with(|| Buffers::new(SIZE, size));
        let number = self.transmitq.next();
        let bytes = buffers.bytes(number, 0..end);
        bytes[..HEADER].fill(0);
        bytes[HEADER..].copy_from_slice(frame);
        self.transmitq.put(buffers, number, end);
        true
    }

    fn receive(&mut self, limit: usize, each: &mut dyn FnMut(&[u8])) {
        for _ in 0..limit {
            let Some((buffer, end)) = self.take() else { break };
            // What came before the link was seen to be down is as lost.
            if self.up {
                each(self.received.bytes(buffer, HEADER..end));
            }
            self.lend(buffer);
        }
        self.show_lent();
    }

    fn flush(&mut self) {
        self.show_put();
    }

    fn is_up(&self) -> bool {
        self.up
    }
}
