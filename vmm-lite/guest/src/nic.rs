//! A virtio-net device over virtio-mmio, as a device of smoltcp.
//!
//! The rings are those of `virtio-drivers`. Its own network driver is not used: it takes VIRTIO_F_EVENT_IDX, under which
//! it forgets to kick once the index of the available ring has wrapped.
#![expect(
    unsafe_code,
    reason = "buffers are lent to a device, and registers are where the command line says"
)]

use alloc::{
    alloc::{Layout, alloc_zeroed, dealloc},
    boxed::Box,
    vec::Vec,
};
use core::{
    ptr::NonNull,
    sync::atomic::{Ordering, fence},
};
use smoltcp::{
    phy::{self, DeviceCapabilities, Medium},
    time::Instant,
};
use virtio_drivers::{
    BufferDirection, Error, Hal, PhysAddr,
    queue::VirtQueue,
    transport::{
        DeviceStatus, DeviceType, Transport,
        mmio::{MmioTransport, VirtIOHeader},
    },
};

/// Feature bits: the device has an address (virtio 1.2 §5.1.3), and is no legacy one (§6).
const NET_F_MAC: u64 = 1 << 5;
const F_VERSION_1: u64 = 1 << 32;
/// §5.1.2.
const RECEIVEQ: u16 = 0;
const TRANSMITQ: u16 = 1;
/// Entries of each ring.
const RING: usize = 128;
/// `virtio_net_hdr` (§5.1.6), of which nothing is used: all zero.
const HEADER: usize = 12;
/// The largest frame, without a check sequence.
const FRAME: usize = 1514;
/// A page of memory, as the driver counts it.
const PAGE: usize = 4096;

/// A header and a frame, which stay where they are while a device has them.
type Buffer = Box<[u8; HEADER + FRAME]>;

/// Physical addresses are our own: page tables map memory onto itself.
struct Identity;

fn pages(count: usize) -> Layout {
    Layout::from_size_align(count * PAGE, PAGE).expect("a few pages")
}

// SAFETY: memory from the allocator is nobody else's, is where its physical address says, and stays until it is given
// back; registers are mapped where they are.
unsafe impl Hal for Identity {
    fn dma_alloc(count: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: the layout has a size, for the driver asks for at least a page.
        let memory = unsafe { alloc_zeroed(pages(count)) };
        let memory = NonNull::new(memory).expect("memory for a ring");
        (memory.addr().get() as PhysAddr, memory)
    }

    unsafe fn dma_dealloc(_: PhysAddr, memory: NonNull<u8>, count: usize) -> i32 {
        // SAFETY: the caller gives back what `dma_alloc` gave.
        unsafe { dealloc(memory.as_ptr(), pages(count)) };
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(core::ptr::with_exposed_provenance_mut(address as usize))
            .expect("registers are not at 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.addr().get() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// Where a device is, as a word of the command line has it: `virtio_mmio.device=SIZE@BASE:GSI` (Linux' parameter).
pub(crate) fn place(word: &str) -> Option<usize> {
    let (_, place) = word.split_once('@')?;
    let (base, _) = place.split_once(':')?;
    usize::from_str_radix(base.strip_prefix("0x")?, 16).ok()
}

/// A network interface.
pub(crate) struct Nic {
    transport: MmioTransport<'static>,
    mac: [u8; 6],
    receiveq: VirtQueue<Identity, RING>,
    transmitq: VirtQueue<Identity, RING>,
    /// Lent to the device, by the token of the ring.
    receiving: [Option<Buffer>; RING],
    /// The same, with the length of what is sent.
    sending: [Option<(Buffer, usize)>; RING],
    spare: Vec<Buffer>,
}

/// The length of the registers with their configuration space.
const REGISTERS: usize = 0x200;

impl Nic {
    /// The interface whose registers are at `base`; none if it is another kind of device.
    ///
    /// # Safety
    ///
    /// A virtio device is there that nobody else drives.
    pub(crate) unsafe fn new(base: usize) -> Result<Option<Self>, Error> {
        let header = NonNull::new(core::ptr::with_exposed_provenance_mut::<VirtIOHeader>(base));
        // SAFETY: the caller's promise; the devices' GiB is mapped.
        let transport = header.and_then(|header| unsafe { MmioTransport::new(header, REGISTERS) }.ok());
        let Some(mut transport) = transport.filter(|found| found.device_type() == DeviceType::Network) else {
            return Ok(None);
        };
        let begun = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        transport.set_status(DeviceStatus::empty());
        transport.set_status(begun);
        let features = transport.read_device_features() & (NET_F_MAC | F_VERSION_1);
        transport.write_driver_features(features);
        transport.set_status(begun | DeviceStatus::FEATURES_OK);
        let mac = transport.read_consistent(|| transport.read_config_space(0))?;
        let receiveq = VirtQueue::new(&mut transport, RECEIVEQ, false, false)?;
        let transmitq = VirtQueue::new(&mut transport, TRANSMITQ, false, false)?;
        transport.finish_init();
        let (receiving, sending) = ([const { None }; RING], [const { None }; RING]);
        let mut nic = Self { transport, mac, receiveq, transmitq, receiving, sending, spare: Vec::new() };
        // Nobody waits for room in the transmitq: it is looked at when there is something to send.
        nic.transmitq.set_dev_notify(false);
        for _ in 0..RING {
            nic.lend(Box::new([0; HEADER + FRAME]))?;
        }
        nic.kick(RECEIVEQ);
        Ok(Some(nic))
    }

    /// Its MAC address.
    pub(crate) fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Whether a frame has come. Whoever waits afterwards is called for any that comes later.
    pub(crate) fn has_frame(&self) -> bool {
        // What the device writes must not have been read before we wrote what asks it to call.
        fence(Ordering::SeqCst);
        self.receiveq.can_pop()
    }

    fn kick(&mut self, queue: u16) {
        let wants =
            if queue == RECEIVEQ { self.receiveq.should_notify() } else { self.transmitq.should_notify() };
        if wants {
            self.transport.notify(queue);
        }
    }

    /// Gives the device a buffer to receive into.
    fn lend(&mut self, mut buffer: Buffer) -> Result<(), Error> {
        // SAFETY: the buffer is kept, untouched, until its token comes back.
        let token = unsafe { self.receiveq.add(&[], &mut [&mut buffer[..]]) }?;
        self.receiving[usize::from(token)] = Some(buffer);
        Ok(())
    }

    /// The next frame that came, copied; its buffer goes back to the device.
    fn take(&mut self) -> Option<Vec<u8>> {
        let token = self.receiveq.peek_used()?;
        let mut buffer = self.receiving.get_mut(usize::from(token))?.take()?;
        // SAFETY: the buffer is the one that this token was given for.
        let length = unsafe { self.receiveq.pop_used(token, &[], &mut [&mut buffer[..]]) }.ok()?;
        let end = usize::try_from(length).map_or(HEADER, |length| length.clamp(HEADER, buffer.len()));
        let frame = buffer[HEADER..end].to_vec();
        self.lend(buffer).ok()?;
        self.kick(RECEIVEQ);
        Some(frame)
    }

    /// A buffer to send from: one that was sent, or a new one; none while the ring is full.
    fn room(&mut self) -> Option<Buffer> {
        while let Some(token) = self.transmitq.peek_used() {
            let (buffer, end) = self.sending.get_mut(usize::from(token))?.take()?;
            // SAFETY: the buffer is the one that this token was given for.
            unsafe { self.transmitq.pop_used(token, &[&buffer[..end]], &mut []) }.ok()?;
            self.spare.push(buffer);
        }
        if self.transmitq.available_desc() == 0 {
            return None;
        }
        Some(self.spare.pop().unwrap_or_else(|| Box::new([0; HEADER + FRAME])))
    }

    fn send(&mut self, buffer: Buffer, end: usize) {
        // SAFETY: the buffer is kept, untouched, until its token comes back.
        if let Ok(token) = unsafe { self.transmitq.add(&[&buffer[..end]], &mut []) } {
            self.sending[usize::from(token)] = Some((buffer, end));
            self.kick(TRANSMITQ);
        }
    }
}

/// A frame that came.
pub(crate) struct Came(Vec<u8>);

impl phy::RxToken for Came {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

/// Room for a frame.
pub(crate) struct Room<'a> {
    nic: &'a mut Nic,
    buffer: Buffer,
}

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, length: usize, write: F) -> R {
        let end = HEADER + length;
        let result = write(&mut self.buffer[HEADER..end]);
        self.nic.send(self.buffer, end);
        result
    }
}

impl phy::Device for Nic {
    type RxToken<'a> = Came;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Came, Room<'_>)> {
        // What may have to be answered stays where it is until it can be.
        let buffer = self.room()?;
        match self.take() {
            Some(frame) => Some((Came(frame), Room { nic: self, buffer })),
            None => {
                self.spare.push(buffer);
                None
            }
        }
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        let buffer = self.room()?;
        Some(Room { nic: self, buffer })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }
}
