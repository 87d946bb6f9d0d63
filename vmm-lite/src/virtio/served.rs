//! A virtio device with one ring that this process serves itself, on a thread of the device's own: so a vCPU never waits
//! for a file.

use super::mmio::{Effect, Offer, Queue as Described, Registers, register};
use crate::{
    confine::{ConfineError, Confinement, Role},
    devices::lock,
    event::Event,
    layout::VirtioPlace,
    lines::Lines,
    memory::Ram,
    vm::{KvmError, Vm, step},
};
use kvm_ioctls::IoEventAddress;
use rustix::event::{PollFd, PollFlags, poll};
use std::{
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::GuestAddress;

/// A request of the driver's.
pub(crate) type Chain<'a> = DescriptorChain<&'a Ram>;

/// A driver's mistake after which its ring means nothing: the device needs a reset (§2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the ring is not in the guest's memory")]
    Place,
    #[error("the available ring has more requests than the ring has entries")]
    Index,
    #[error("a request is no chain of buffers in the guest's memory, or lacks a part")]
    Request,
}

/// What a device does.
pub(crate) trait Service: Send + 'static {
    /// What its thread is.
    const ROLE: Role;
    /// What it is to its driver.
    fn offer(&self) -> Offer;
    /// The driver has taken these features, and requests begin.
    fn start(&mut self, features: u64);
    /// Carries one request out; how many bytes were written to its buffers. Bounded work, whatever the request says.
    fn serve(&mut self, request: Chain<'_>) -> Result<u32, Broken>;
}

/// What both the vCPUs and the thread work on.
struct Shared<S> {
    name: String,
    vm: Arc<Vm>,
    work: Mutex<Work<S>>,
    /// Rung by the driver.
    kick: Event,
    /// Raises the interrupt.
    call: Event,
    broken: AtomicBool,
    /// The machine is over.
    over: AtomicBool,
}

struct Work<S> {
    service: S,
    /// None while no driver has started the device.
    ring: Option<Queue>,
    complained: bool,
}

/// Such a device.
pub(crate) struct Served<S: Service> {
    registers: Registers,
    shared: Arc<Shared<S>>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
pub enum ServedError {
    /// KVM takes no kicks or calls for it.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// No eventfd.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl<S: Service> Served<S> {
    /// Puts the device at `place`.
    pub(crate) fn new(
        name: String,
        service: S,
        place: VirtioPlace,
        vm: Arc<Vm>,
        lines: &mut Lines,
    ) -> Result<Self, ServedError> {
        let (kick, call) = (Event::new()?, Event::new()?);
        let notify = IoEventAddress::Mmio(place.base + register::QUEUE_NOTIFY);
        step("KVM_IOEVENTFD", vm.fd().register_ioevent(kick.as_event_fd(), &notify, 0u32))?;
        lines.add(&vm, place.gsi, call.try_clone()?)?;
        let registers = Registers::new(service.offer());
        let work = Mutex::new(Work { service, ring: None, complained: false });
        let (broken, over) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared = Arc::new(Shared { name, vm, work, kick, call, broken, over });
        Ok(Self { registers, shared, thread: None })
    }

    /// Serves from here on.
    pub(crate) fn begin(&mut self, confinement: Confinement) -> Result<(), ConfineError> {
        let shared = self.shared.clone();
        self.thread = Some(confinement.spawn(S::ROLE, self.shared.name.clone(), move || shared.run())?);
        Ok(())
    }

    /// A read of a register.
    pub(crate) fn read(&mut self, register: u64, data: &mut [u8]) {
        self.look();
        self.registers.read(register, data);
    }

    /// A write to a register.
    pub(crate) fn write(&mut self, register: u64, data: &[u8]) {
        self.look();
        match self.registers.write(register, data) {
            Effect::Nothing => {}
            Effect::Start => {
                let offer = self.registers.queues().first().copied().unwrap_or_default();
                let mut work = lock(&self.shared.work);
                work.service.start(self.registers.features());
                // A driver may start a device whose ring it never uses.
                work.ring = if offer.ready { ring(&self.shared, &mut work, offer) } else { None };
                // What it made available before it started the device is not forgotten.
                self.shared.kick.ring();
            }
            Effect::Stop => {
                // Whoever has the lock works on no request: from here on the thread finds no ring.
                lock(&self.shared.work).ring = None;
                self.shared.broken.store(false, Ordering::Release);
            }
        }
    }

    /// Takes over what the thread has found out.
    fn look(&mut self) {
        if self.shared.broken.swap(false, Ordering::AcqRel) {
            self.registers.needs_reset();
        }
    }
}

impl<S: Service> Drop for Served<S> {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.shared.kick.ring();
        if let Some(thread) = self.thread.take() {
            // It catches its own panics.
            let _ = thread.join();
        }
    }
}

/// The ring that a driver has described.
fn ring<S>(shared: &Shared<S>, work: &mut Work<S>, described: Described) -> Option<Queue> {
    let queue = queue(shared.vm.ram(), described);
    if queue.is_none() {
        shared.fail(work, Broken::Place);
    }
    queue
}

/// The same, without a device; none if it does not lie in memory as it must.
pub(crate) fn queue(ram: &Ram, described: Described) -> Option<Queue> {
    let size = described.size?;
    let mut queue = Queue::new(size).ok()?;
    queue.try_set_desc_table_address(GuestAddress(described.descriptors)).ok()?;
    queue.try_set_avail_ring_address(GuestAddress(described.driver)).ok()?;
    queue.try_set_used_ring_address(GuestAddress(described.device)).ok()?;
    queue.set_ready(true);
    // The library takes an available ring at 0 for none.
    (described.driver != 0 && queue.is_valid(ram)).then_some(queue)
}

/// Carries the next request out; false if there is none.
pub(crate) fn serve_one(ram: &Ram, service: &mut impl Service, ring: &mut Queue) -> Result<bool, Broken> {
    let Some(request) = next(ram, ring)? else { return Ok(false) };
    let written = service.serve(request.clone())?;
    done(ring, &request, written)?;
    Ok(true)
}

/// The next request of a ring. If there is none the driver is asked to kick for it: one that took EVENT_IDX does not otherwise (§2.7.10).
pub(crate) fn next<'a>(ram: &'a Ram, ring: &mut Queue) -> Result<Option<Chain<'a>>, Broken> {
    let request = ring.iter(ram).map_err(|_| Broken::Index)?.next();
    if request.is_none() && ring.enable_notification(ram).map_err(|_| Broken::Index)? {
        return Ok(ring.iter(ram).map_err(|_| Broken::Index)?.next());
    }
    Ok(request)
}

/// Gives a request back to the driver, whose buffers so many bytes were written to.
pub(crate) fn done(ring: &mut Queue, request: &Chain<'_>, written: u32) -> Result<(), Broken> {
    ring.add_used(request.memory(), request.head_index(), written).map_err(|_| Broken::Request)
}

impl<S: Service> Shared<S> {
    /// Serves requests until the machine is over.
    fn run(&self) {
        loop {
            let mut kicked = [PollFd::new(&self.kick, PollFlags::IN)];
            // Interrupted or not: whether there is work is seen at the ring.
            let _ = poll(&mut kicked, None);
            self.kick.drain();
            // One at a time: a reset, and the machine's end, wait for one request and not for all.
            let mut more = true;
            while more {
                if self.over.load(Ordering::Acquire) {
                    return;
                }
                more = self.next();
            }
        }
    }

    /// Serves the next request, if there is one.
    fn next(&self) -> bool {
        let mut work = lock(&self.work);
        let Work { service, ring: Some(ring), .. } = &mut *work else { return false };
        // Nothing outlives a panic but the news of it: this device is of no use until it is reset.
        let served = catch_unwind(AssertUnwindSafe(|| serve_one(self.vm.ram(), service, ring)));
        match served {
            Ok(Ok(true)) => {
                self.call.ring();
                true
            }
            Ok(Ok(false)) => false,
            Ok(Err(why)) => {
                self.fail(&mut work, why);
                false
            }
            Err(_) => {
                // A log that is full is no reason to fail, here and below.
                let _ =
                    writeln!(io::stderr(), "{}: its thread panicked; this is a bug of the VMM", self.name);
                self.fail(&mut work, Broken::Request);
                false
            }
        }
    }
}

impl<S> Shared<S> {
    /// No more requests until the driver has reset the device, which it is told.
    fn fail(&self, work: &mut Work<S>, why: Broken) {
        work.ring = None;
        // A guest that does this over and over fills no log.
        if !std::mem::replace(&mut work.complained, true) {
            let _ = writeln!(io::stderr(), "{}: {why}; it waits for a reset", self.name);
        }
        self.broken.store(true, Ordering::Release);
        self.call.ring();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::virtio::mmio::VERSION_1;
    use proptest::prelude::*;
    use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
    use vm_memory::{Bytes, GuestMemoryBackend};

    pub(crate) const MEMORY: u64 = 1 << 20;
    pub(crate) const ENTRIES: u16 = 8;
    const DESCRIPTORS: u64 = 0x1000;
    const AVAILABLE: u64 = 0x2000;
    const USED: u64 = 0x3000;

    /// A driver's side of a ring, as simple as can be: the same descriptors again for each request.
    pub(crate) struct Driver {
        pub(crate) ram: Ram,
        ring: Queue,
        made_available: u16,
    }

    /// One buffer of a request.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Buffer {
        pub(crate) address: u64,
        pub(crate) length: u32,
        pub(crate) writable: bool,
    }

    impl Driver {
        pub(crate) fn new() -> Self {
            let ram = Ram::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
            let described = Described {
                size: Some(ENTRIES),
                ready: true,
                descriptors: DESCRIPTORS,
                driver: AVAILABLE,
                device: USED,
            };
            let ring = queue(&ram, described).unwrap();
            Self { ram, ring, made_available: 0 }
        }

        fn descriptor(&self, number: u16, address: u64, length: u32, flags: u32, next: u16) {
            let at = DESCRIPTORS + 16 * u64::from(number);
            self.ram.write_obj(address, GuestAddress(at)).unwrap();
            self.ram.write_obj(length, GuestAddress(at + 8)).unwrap();
            self.ram.write_obj(flags as u16, GuestAddress(at + 12)).unwrap();
            self.ram.write_obj(next, GuestAddress(at + 14)).unwrap();
        }

        fn make_available(&mut self, head: u16) {
            let slot = u64::from(self.made_available % ENTRIES);
            self.ram.write_obj(head, GuestAddress(AVAILABLE + 4 + 2 * slot)).unwrap();
            self.made_available = self.made_available.wrapping_add(1);
            self.ram.write_obj(self.made_available, GuestAddress(AVAILABLE + 2)).unwrap();
        }

        /// Makes a request of these buffers and has it served.
        pub(crate) fn request(
            &mut self,
            service: &mut impl Service,
            buffers: &[Buffer],
        ) -> Result<u32, Broken> {
            for (number, buffer) in (0u16..).zip(buffers) {
                let more = if usize::from(number) + 1 < buffers.len() { VRING_DESC_F_NEXT } else { 0 };
                let write = if buffer.writable { VRING_DESC_F_WRITE } else { 0 };
                self.descriptor(number, buffer.address, buffer.length, more | write, number + 1);
            }
            self.make_available(0);
            let used = self.ring.next_used();
            assert!(serve_one(&self.ram, service, &mut self.ring)?);
            let element = USED + 4 + 8 * u64::from(used % ENTRIES);
            assert_eq!(self.ram.read_obj::<u32>(GuestAddress(element)).unwrap(), 0);
            assert_eq!(self.ram.read_obj::<u16>(GuestAddress(USED + 2)).unwrap(), used.wrapping_add(1));
            assert!(!serve_one(&self.ram, service, &mut self.ring)?, "there was one request");
            Ok(self.ram.read_obj(GuestAddress(element + 4)).unwrap())
        }
    }

    /// Damage to a ring: descriptors, what is made available, and by how much the index moves.
    #[derive(Debug, Clone)]
    pub(crate) struct Damage {
        descriptors: Vec<(u64, u32, u32, u16)>,
        heads: Vec<u16>,
        moved: u16,
        /// What all other memory is full of: so a header is found wherever a buffer lies.
        words: Vec<u32>,
    }

    pub(crate) fn damage() -> impl Strategy<Value = Damage> {
        let address = prop_oneof![0..MEMORY, MEMORY - 32..MEMORY + 32, any::<u64>(), Just(DESCRIPTORS)];
        let length = prop_oneof![0u32..64, Just(16), Just(512), Just(1), 0..1u32 << 21, any::<u32>()];
        let some = VRING_DESC_F_NEXT | VRING_DESC_F_WRITE | VRING_DESC_F_INDIRECT;
        let flags = prop_oneof![0..=some, any::<u32>()];
        let next = prop_oneof![0..ENTRIES, any::<u16>()];
        let descriptors = proptest::collection::vec((address, length, flags, next), usize::from(ENTRIES));
        let head = prop_oneof![0..ENTRIES, any::<u16>()];
        let heads = proptest::collection::vec(head, usize::from(ENTRIES));
        let words = proptest::collection::vec(prop_oneof![0u32..16, any::<u32>()], 4);
        (descriptors, heads, prop_oneof![0..=ENTRIES + 1, any::<u16>()], words)
            .prop_map(|(descriptors, heads, moved, words)| Damage { descriptors, heads, moved, words })
    }

    /// Has a damaged ring served: it ends, with as many requests done as there were, or named as broken.
    pub(crate) fn survive(service: &mut impl Service, damage: &Damage) {
        let mut driver = Driver::new();
        let words = damage.words.iter().flat_map(|word| word.to_le_bytes());
        let fill: Vec<u8> = words.cycle().take((MEMORY - USED) as usize - 0x1000).collect();
        driver.ram.write_slice(&fill, GuestAddress(USED + 0x1000)).unwrap();
        for (number, (address, length, flags, next)) in (0..).zip(&damage.descriptors) {
            driver.descriptor(number, *address, *length, *flags, *next);
        }
        for head in &damage.heads {
            driver.make_available(*head);
        }
        driver.ram.write_obj(damage.moved, GuestAddress(AVAILABLE + 2)).unwrap();
        for served in 0..=ENTRIES {
            match serve_one(&driver.ram, service, &mut driver.ring) {
                Ok(true) => assert!(served < ENTRIES, "more than there were"),
                // It may have written its answer into its own ring.
                Ok(false) | Err(_) => return,
            }
        }
    }

    /// Says how many buffers of each kind a request has.
    struct Counter;

    impl Service for Counter {
        const ROLE: Role = Role::Rng;

        fn offer(&self) -> Offer {
            Offer { device: 0, features: VERSION_1, queues: 1, queue_size: ENTRIES, config: Vec::new() }
        }

        fn start(&mut self, _: u64) {}

        fn serve(&mut self, request: Chain<'_>) -> Result<u32, Broken> {
            Ok(u32::try_from(request.count()).unwrap())
        }
    }

    #[test]
    fn requests_are_served_in_turn() {
        let mut driver = Driver::new();
        let buffer = Buffer { address: 0x4000, length: 16, writable: false };
        for round in 0..3 * usize::from(ENTRIES) {
            let buffers = vec![buffer; 1 + round % 3];
            assert_eq!(driver.request(&mut Counter, &buffers), Ok(buffers.len() as u32));
        }
    }

    #[test]
    fn a_ring_that_says_more_than_it_can_hold_is_broken() {
        let mut driver = Driver::new();
        driver.ram.write_obj(ENTRIES + 1, GuestAddress(AVAILABLE + 2)).unwrap();
        assert_eq!(serve_one(&driver.ram, &mut Counter, &mut driver.ring), Err(Broken::Index));
    }

    #[test]
    fn a_ring_outside_of_memory_or_askew_is_none() {
        let driver = Driver::new();
        let good =
            Described { size: Some(8), ready: true, descriptors: 0x1000, driver: 0x2000, device: 0x3000 };
        assert!(queue(&driver.ram, good).is_some());
        for bad in [
            Described { size: None, ..good },
            Described { descriptors: 0x1008, ..good },
            Described { descriptors: MEMORY - 16, ..good },
            Described { driver: 0, ..good },
            Described { driver: u64::MAX - 1, ..good },
            Described { device: MEMORY, ..good },
        ] {
            assert!(queue(&driver.ram, bad).is_none(), "{bad:?}");
        }
        assert_eq!(driver.ram.num_regions(), 1);
    }

    proptest! {
        #[test]
        fn a_damaged_ring_ends(damage in damage()) {
            survive(&mut Counter, &damage);
        }
    }
}
