//! virtio-net (virtio 1.2 §5.1) whose rings are served by another process, over vhost-user. No frame passes through
//! here: the driver's kicks and the device's calls are eventfds that KVM and that process share. This is what the driver
//! sees; [`frontend`] is the thread that tells the other process of it.

mod frontend;

use super::mmio::{Effect, Offer, Registers, VERSION_1, register};
use crate::{
    confine::{ConfineError, Confinement, Role},
    devices::lock,
    event::Event,
    layout::VirtioPlace,
    lines::Lines,
    vm::{KvmError, Vm, step},
};
use frontend::Connection;
use kvm_ioctls::IoEventAddress;
use std::{
    fmt,
    io::{self, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};
use virtio_bindings::{
    virtio_config::VIRTIO_F_IN_ORDER,
    virtio_ids::VIRTIO_ID_NET,
    virtio_net::{
        VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
        VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN,
        VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MAC,
        VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_SPEED_DUPLEX, VIRTIO_NET_F_STATUS,
        VIRTIO_NET_S_LINK_UP,
    },
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};

/// receiveq and transmitq (§5.1.2).
const QUEUES: usize = 2;
const TRANSMITQ: usize = 1;
/// The most entries of a ring.
const QUEUE_SIZE: u16 = 1024;
/// How long the switch may take to say what it offers, and to leave the rings of a driver that resets its device.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where `status` is in the configuration space (§5.1.4).
const STATUS_OFFSET: usize = 6;
/// The link's speed in Mbit/s and its duplex, as the configuration space says them (§5.1.4): LACP aggregates links whose speed is known.
const LINK_MBIT: u32 = 10_000;
const FULL_DUPLEX: u8 = 1;
/// How often one machine says what went wrong with a start or a reset.
const MOST_COMPLAINTS: u8 = 16;

/// Feature bits as a mask.
const fn mask(bits: &[u32]) -> u64 {
    let mut mask = 0;
    let mut at = 0;
    while at < bits.len() {
        mask |= 1 << bits[at];
        at += 1;
    }
    mask
}

/// What is for the process that serves the rings to offer. The rest is ours, or needs a control queue.
const OF_BACKEND: u64 = VERSION_1
    | mask(&[
        VIRTIO_NET_F_CSUM,
        VIRTIO_NET_F_GUEST_CSUM,
        VIRTIO_NET_F_GUEST_TSO4,
        VIRTIO_NET_F_GUEST_TSO6,
        VIRTIO_NET_F_GUEST_ECN,
        VIRTIO_NET_F_GUEST_USO4,
        VIRTIO_NET_F_GUEST_USO6,
        VIRTIO_NET_F_HOST_TSO4,
        VIRTIO_NET_F_HOST_TSO6,
        VIRTIO_NET_F_HOST_ECN,
        VIRTIO_NET_F_HOST_USO,
        VIRTIO_NET_F_MRG_RXBUF,
        VIRTIO_RING_F_INDIRECT_DESC,
        VIRTIO_RING_F_EVENT_IDX,
        VIRTIO_F_IN_ORDER,
    ]);

/// A network interface of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// The vhost-user socket of the switch's port.
    pub socket: PathBuf,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// The largest packet that the network carries, if the guest is to be told.
    pub mtu: Option<u16>,
}

/// Why an interface has no switch behind it.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Nobody listens.
    #[error("{}: {source}; the switch that listens there must be started first", socket.display())]
    Connect {
        /// Where.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Whoever listens says nothing.
    #[error("{}: no answer within {PATIENCE:?}; is that a vhost-user device's socket?", socket.display())]
    Silent {
        /// Where.
        socket: PathBuf,
    },
    /// Whoever listens hung up at once.
    #[error("{}: the switch hung up at {step}: a port serves one machine; is another one at it?", socket.display())]
    HungUp {
        /// Where.
        socket: PathBuf,
        /// At which message.
        step: &'static str,
    },
    /// A message was refused, or not answered.
    #[error("vhost-user: {step}: {source}")]
    Message {
        /// The message.
        step: &'static str,
        /// Why.
        source: vhost::Error,
    },
    /// It does not offer what every driver needs.
    #[error("the vhost-user device does not offer VIRTIO_F_VERSION_1")]
    Legacy,
    /// A switch that came back is not what the driver was promised.
    #[error("the vhost-user device that came back lacks features that the driver uses: {0:#x}")]
    Less(u64),
    /// KVM takes no kicks or calls for it.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// No eventfd.
    #[error("a network interface: {0}")]
    System(#[from] io::Error),
    /// The driver's ring is not in memory.
    #[error("ring {0} is not in the guest's memory")]
    Ring(usize),
}

/// What a driver is offered, of what the backend offers.
fn offer(config: &NetConfig, of_backend: u64) -> Offer {
    let own = [VIRTIO_NET_F_MAC, VIRTIO_NET_F_STATUS, VIRTIO_NET_F_SPEED_DUPLEX];
    let mut features = of_backend & OF_BACKEND | mask(&own);
    if config.mtu.is_some() {
        features |= mask(&[VIRTIO_NET_F_MTU]);
    }
    // mac, status, max_virtqueue_pairs, mtu, speed, duplex (§5.1.4).
    let mut space = config.mac.to_vec();
    space.extend((VIRTIO_NET_S_LINK_UP as u16).to_le_bytes());
    space.extend(1u16.to_le_bytes());
    space.extend(config.mtu.unwrap_or_default().to_le_bytes());
    space.extend(LINK_MBIT.to_le_bytes());
    space.push(FULL_DUPLEX);
    Offer { device: VIRTIO_ID_NET, features, queues: QUEUES, queue_size: QUEUE_SIZE, config: space }
}

/// One interface.
pub(crate) struct Net {
    /// Its thread's name.
    name: String,
    shared: Arc<Shared>,
    /// The connection that it is made with, until its thread has it.
    first: Option<Connection>,
    /// Speaks with the switch.
    thread: Option<JoinHandle<()>>,
}

/// What the vCPUs and the thread work on.
struct Shared {
    config: NetConfig,
    vm: Arc<Vm>,
    kicks: Vec<Event>,
    call: Event,
    state: Mutex<State>,
    /// Notified when the switch has left the rings.
    returned: Condvar,
    /// Rung when the driver has started or reset the device, and when the machine is over.
    news: Event,
}

struct State {
    registers: Registers,
    /// Counts the driver's starts and resets.
    life: u64,
    /// The switch may look at the rings.
    lent: bool,
    /// What the driver set up was refused: nothing is tried again before it resets the device.
    refused: bool,
    /// The connection to the switch, to be cut when waiting for it must end.
    line: Option<UnixStream>,
    /// What it is called when something is said of it.
    name: String,
    /// How often it was said that the switch or the driver did not do its part.
    complaints: u8,
    /// The machine is over.
    over: bool,
}

impl Net {
    /// Connects to the switch, and puts the device, the `number`th of its kind, at `place`.
    pub(crate) fn new(
        number: usize,
        config: &NetConfig,
        place: VirtioPlace,
        vm: Arc<Vm>,
        lines: &mut Lines,
    ) -> Result<Self, NetError> {
        let connection = Connection::open_within(&config.socket, PATIENCE)?;
        let kicks = (0..QUEUES).map(|_| Event::new()).collect::<Result<Vec<_>, _>>()?;
        let notify = IoEventAddress::Mmio(place.base + register::QUEUE_NOTIFY);
        for (queue, kick) in (0u32..).zip(&kicks) {
            step("KVM_IOEVENTFD", vm.fd().register_ioevent(kick.as_event_fd(), &notify, queue))?;
        }
        let call = Event::new()?;
        lines.add(&vm, place.gsi, call.try_clone()?)?;
        let state = Mutex::new(State {
            registers: Registers::new(offer(config, connection.offered())),
            life: 0,
            lent: false,
            refused: false,
            line: Some(connection.line()?),
            name: format!("net{number} ({})", config.socket.display()),
            complaints: 0,
            over: false,
        });
        let (returned, news) = (Condvar::new(), Event::new()?);
        let shared = Arc::new(Shared { config: config.clone(), vm, kicks, call, state, returned, news });
        Ok(Self { name: format!("net{number}"), shared, first: Some(connection), thread: None })
    }

    /// Speaks with the switch from here on.
    pub(crate) fn begin(&mut self, confinement: Confinement) -> Result<(), ConfineError> {
        if let Some(first) = self.first.take() {
            let shared = self.shared.clone();
            self.thread = Some(confinement.spawn(Role::Net, self.name.clone(), move || shared.speak(first))?);
        }
        Ok(())
    }

    /// A read of a register.
    pub(crate) fn read(&self, register: u64, data: &mut [u8]) {
        lock(&self.shared.state).registers.read(register, data);
    }

    /// A write to a register. A reset is over when the switch has left the rings.
    pub(crate) fn write(&mut self, register: u64, data: &[u8]) {
        let mut state = lock(&self.shared.state);
        let effect = state.registers.write(register, data);
        if effect != Effect::Nothing {
            state.life += 1;
            state.refused = false;
            self.shared.news.ring();
        }
        if effect == Effect::Stop {
            self.shared.until_returned(state);
        }
    }

    /// Lets the driver see the link up or down (VIRTIO_NET_F_STATUS).
    pub(crate) fn set_link(&self, up: bool) {
        let status = if up { VIRTIO_NET_S_LINK_UP as u16 } else { 0 };
        if lock(&self.shared.state).registers.set_config(STATUS_OFFSET, &status.to_le_bytes()) {
            self.shared.call.ring();
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.shared.state);
            state.over = true;
            state.cut();
        }
        self.shared.news.ring();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Waits until the switch has left the rings. One that is silent is left itself: what it may still do to them, it does
    /// to the guest that it serves.
    fn until_returned(&self, state: MutexGuard<'_, State>) {
        let waited = self.returned.wait_timeout_while(state, PATIENCE, |state| state.lent);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            state.complain(&NetError::Silent { socket: self.config.socket.clone() });
            state.cut();
            // The thread hears of it at once. A guard that is dropped has nothing more to say.
            drop(self.returned.wait_while(state, |state| state.lent));
        }
    }
}

impl State {
    /// Ends the connection to the switch, and whatever is waited for there.
    fn cut(&mut self) {
        if let Some(line) = self.line.take() {
            // One that is closed already needs none.
            let _ = line.shutdown(Shutdown::Both);
        }
    }

    fn complain(&mut self, why: impl fmt::Display) {
        // A guest that does this over and over fills no log.
        if self.complaints < MOST_COMPLAINTS {
            self.complaints += 1;
            // A log that is full is no reason to fail.
            let _ = writeln!(io::stderr(), "{}: {why}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::mmio::status, *};
    use crate::{
        layout::{self, RamSize},
        memory,
    };
    use kvm_ioctls::Kvm;
    use std::{io::Read, os::unix::net::UnixListener, sync::mpsc, time::Instant};

    fn config(mtu: Option<u16>) -> NetConfig {
        NetConfig { socket: PathBuf::new(), mac: [2, 0, 0, 0, 0, 7], mtu }
    }

    #[test]
    fn a_driver_is_offered_what_both_of_us_can() {
        let all = offer(&config(None), u64::MAX);
        assert_eq!(all.features & VERSION_1, VERSION_1);
        for missing in [VIRTIO_NET_F_MTU, 17, 22, 33, 34] {
            assert_eq!(all.features & 1 << missing, 0, "{missing}");
        }
        let least = offer(&config(Some(9000)), VERSION_1);
        let own = [VIRTIO_NET_F_MAC, VIRTIO_NET_F_STATUS, VIRTIO_NET_F_MTU, VIRTIO_NET_F_SPEED_DUPLEX];
        let own = mask(&own);
        assert_eq!(least.features, VERSION_1 | own);
        assert_eq!(least.config, [2, 0, 0, 0, 0, 7, 1, 0, 1, 0, 0x28, 0x23, 0x10, 0x27, 0, 0, 1]);
    }

    /// A device that wants no replies, and says what it is told.
    fn device() -> (tempfile::TempDir, PathBuf, mpsc::Receiver<u32>) {
        const GET_FEATURES: u32 = 1;
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("switch");
        let listener = UnixListener::bind(&socket).unwrap();
        let (sender, heard) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut header = [0; 12];
            while stream.read_exact(&mut header).is_ok() {
                let field = |at| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
                io::copy(&mut (&stream).take(field(8).into()), &mut io::sink()).unwrap();
                sender.send(field(0)).unwrap();
                if field(0) == GET_FEATURES {
                    // Version 1, and a reply.
                    let reply = [GET_FEATURES, 1 | 1 << 2, 8].map(u32::to_le_bytes).concat();
                    stream.write_all(&[reply, VERSION_1.to_le_bytes().to_vec()].concat()).unwrap();
                }
            }
        });
        (folder, socket, heard)
    }

    #[test]
    fn a_driver_that_starts_without_rings_is_told_of_once_and_can_reset() {
        const SET_FEATURES: u32 = 2;
        let Ok(kvm) = Kvm::new() else {
            return eprintln!("LEFT OUT: an interface without rings: /dev/kvm is not there for us");
        };
        let vm =
            Arc::new(Vm::new(kvm, memory::create(RamSize::new(RamSize::LEAST).unwrap()).unwrap()).unwrap());
        vm.create_vcpu(0, 1).unwrap();
        let (_folder, socket, heard) = device();
        let config = NetConfig { socket, ..config(None) };
        let place = layout::virtio_place(0).unwrap();
        let mut net = Net::new(0, &config, place, vm, &mut Lines::new()).unwrap();
        net.begin(Confinement::none()).unwrap();
        let mut write = |register, value: u32| net.write(register, &value.to_le_bytes());
        write(register::STATUS, status::ACKNOWLEDGE);
        write(register::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        write(register::DRIVER_FEATURES_SEL, 1);
        write(register::DRIVER_FEATURES, (VERSION_1 >> 32) as u32);
        let settled = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        write(register::STATUS, settled);
        write(register::STATUS, settled | status::DRIVER_OK);
        while heard.recv_timeout(PATIENCE).unwrap() != SET_FEATURES {}
        let began = Instant::now();
        write(register::STATUS, 0);
        assert!(began.elapsed() < PATIENCE, "nobody has a ring that is waited for");
        drop(net);
        assert!(!heard.iter().any(|message| message == SET_FEATURES), "it was told again");
    }
}
