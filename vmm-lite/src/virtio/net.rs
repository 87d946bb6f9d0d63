//! virtio-net (virtio 1.2 §5.1) whose rings are served by another process, over vhost-user. No frame passes through
//! here: the driver's kicks and the device's calls are eventfds that KVM and that process share.

use super::mmio::{Effect, Offer, Queue, Registers, VERSION_1, register};
use crate::{
    event::Event,
    layout::VirtioPlace,
    lines::Lines,
    memory::Ram,
    vm::{KvmError, Vm, step},
};
use kvm_ioctls::IoEventAddress;
use std::{
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use vhost::{
    VhostBackend, VhostUserMemoryRegionInfo, VringConfigData,
    vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures, message::VhostUserHeaderFlag},
};
use virtio_bindings::{
    virtio_config::VIRTIO_F_IN_ORDER,
    virtio_ids::VIRTIO_ID_NET,
    virtio_net::{
        VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
        VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
        VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
    },
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// receiveq and transmitq (§5.1.2).
const QUEUES: usize = 2;
/// The most entries of a ring.
const QUEUE_SIZE: u16 = 1024;
/// How long the switch may take to answer a message.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often one machine says what went wrong with a start or a reset.
const MOST_COMPLAINTS: u8 = 16;
/// VHOST_USER_F_PROTOCOL_FEATURES: of the connection, not of the device.
const PROTOCOL_FEATURES: u64 = 1 << 30;

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
        VIRTIO_NET_F_HOST_TSO4,
        VIRTIO_NET_F_HOST_TSO6,
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
    #[error("{}: {source}", socket.display())]
    Connect {
        /// Where.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
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
    /// KVM takes no kicks or calls for it.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// No eventfd.
    #[error("eventfd: {0}")]
    Event(#[from] io::Error),
    /// The driver's ring is not in memory.
    #[error("ring {0} is not in the guest's memory")]
    Ring(usize),
}

fn message<T>(step: &'static str, result: vhost::Result<T>) -> Result<T, NetError> {
    result.map_err(|source| NetError::Message { step, source })
}

/// What a driver is offered, of what the backend offers.
fn offer(config: &NetConfig, of_backend: u64) -> Offer {
    let mut features = of_backend & OF_BACKEND | mask(&[VIRTIO_NET_F_MAC, VIRTIO_NET_F_STATUS]);
    if config.mtu.is_some() {
        features |= mask(&[VIRTIO_NET_F_MTU]);
    }
    // mac, status, max_virtqueue_pairs, mtu (§5.1.4).
    let mut space = config.mac.to_vec();
    space.extend((VIRTIO_NET_S_LINK_UP as u16).to_le_bytes());
    space.extend(1u16.to_le_bytes());
    space.extend(config.mtu.unwrap_or_default().to_le_bytes());
    Offer { device: VIRTIO_ID_NET, features, queues: QUEUES, queue_size: QUEUE_SIZE, config: space }
}

/// One interface, with its registers and its connection.
pub(crate) struct Net {
    registers: Registers,
    frontend: Frontend,
    /// What the backend offers of what a driver knows nothing of.
    of_connection: u64,
    vm: Arc<Vm>,
    kicks: Vec<Event>,
    call: Event,
    /// The rings that the backend was told of.
    started: Vec<usize>,
    /// How often it was said that the switch or the driver did not do its part.
    complaints: u8,
}

impl Net {
    /// Connects to the switch, and puts the device at `place`.
    pub(crate) fn new(
        config: &NetConfig,
        place: VirtioPlace,
        vm: Arc<Vm>,
        lines: &mut Lines,
    ) -> Result<Self, NetError> {
        let stream = connect(&config.socket)
            .map_err(|source| NetError::Connect { socket: config.socket.clone(), source })?;
        let mut frontend = Frontend::from_stream(stream, QUEUES as u64);
        message("SET_OWNER", frontend.set_owner())?;
        let offered = message("GET_FEATURES", frontend.get_features())?;
        if offered & VERSION_1 == 0 {
            return Err(NetError::Legacy);
        }
        if offered & PROTOCOL_FEATURES != 0 {
            let known = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
            let protocol = message("GET_PROTOCOL_FEATURES", frontend.get_protocol_features())? & known;
            message("SET_PROTOCOL_FEATURES", frontend.set_protocol_features(protocol))?;
            if protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
                frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
            }
        }
        let kicks = (0..QUEUES).map(|_| Event::new()).collect::<Result<Vec<_>, _>>()?;
        let notify = IoEventAddress::Mmio(place.base + register::QUEUE_NOTIFY);
        for (queue, kick) in (0u32..).zip(&kicks) {
            step("KVM_IOEVENTFD", vm.fd().register_ioevent(kick.as_event_fd(), &notify, queue))?;
        }
        let call = Event::new()?;
        lines.add(&vm, place.gsi, call.try_clone()?)?;
        let registers = Registers::new(offer(config, offered));
        let of_connection = offered & PROTOCOL_FEATURES;
        Ok(Self { registers, frontend, of_connection, vm, kicks, call, started: Vec::new(), complaints: 0 })
    }

    /// A read of a register.
    pub(crate) fn read(&self, register: u64, data: &mut [u8]) {
        self.registers.read(register, data);
    }

    /// A write to a register. If the switch does not do its part, the driver is told that the device needs a reset.
    pub(crate) fn write(&mut self, register: u64, data: &[u8]) {
        let done = match self.registers.write(register, data) {
            Effect::Nothing => Ok(()),
            Effect::Start => self.start(),
            Effect::Stop => self.stop(),
        };
        if let Err(why) = done {
            // A guest that does this over and over fills no log.
            if self.complaints < MOST_COMPLAINTS {
                self.complaints += 1;
                eprintln!("net: {why}");
            }
            self.registers.needs_reset();
        }
    }

    fn start(&mut self) -> Result<(), NetError> {
        let ram = self.vm.ram();
        let features = self.registers.features() & OF_BACKEND | self.of_connection;
        message("SET_FEATURES", self.frontend.set_features(features))?;
        let regions = ram.iter().map(VhostUserMemoryRegionInfo::from_guest_region);
        let regions = message("SET_MEM_TABLE", regions.collect::<vhost::Result<Vec<_>>>())?;
        message("SET_MEM_TABLE", self.frontend.set_mem_table(&regions))?;
        let queues = self.registers.queues().iter().enumerate().filter(|(_, queue)| queue.ready);
        for (index, queue) in queues {
            let config = ring(ram, queue).ok_or(NetError::Ring(index))?;
            message("SET_VRING_NUM", self.frontend.set_vring_num(index, config.queue_size))?;
            message("SET_VRING_BASE", self.frontend.set_vring_base(index, 0))?;
            message("SET_VRING_ADDR", self.frontend.set_vring_addr(index, &config))?;
            message("SET_VRING_KICK", self.frontend.set_vring_kick(index, self.kicks[index].as_event_fd()))?;
            message("SET_VRING_CALL", self.frontend.set_vring_call(index, self.call.as_event_fd()))?;
            self.started.push(index);
            if self.of_connection != 0 {
                message("SET_VRING_ENABLE", self.frontend.set_vring_enable(index, true))?;
            }
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), NetError> {
        for index in self.started.drain(..) {
            message("GET_VRING_BASE", self.frontend.get_vring_base(index))?;
        }
        Ok(())
    }
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A ring in our own addresses, which vhost-user speaks of; none if a part of it is not in the guest's memory.
fn ring(ram: &Ram, queue: &Queue) -> Option<VringConfigData> {
    let size = queue.size?;
    let entries = u64::from(size);
    // A part must lie in one region: ring parts are contiguous for whoever maps them (§2.7 has the lengths).
    let place = |address: u64, length: u64| {
        let slice = ram.get_slice(GuestAddress(address), usize::try_from(length).ok()?).ok()?;
        Some(slice.ptr_guard().as_ptr() as u64)
    };
    Some(VringConfigData {
        queue_max_size: QUEUE_SIZE,
        queue_size: size,
        flags: 0,
        desc_table_addr: place(queue.descriptors, 16 * entries)?,
        avail_ring_addr: place(queue.driver, 6 + 2 * entries)?,
        used_ring_addr: place(queue.device, 6 + 8 * entries)?,
        log_addr: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let own = mask(&[VIRTIO_NET_F_MAC, VIRTIO_NET_F_STATUS, VIRTIO_NET_F_MTU]);
        assert_eq!(least.features, VERSION_1 | own);
        assert_eq!(least.config, [2, 0, 0, 0, 0, 7, 1, 0, 1, 0, 0x28, 0x23]);
    }

    #[test]
    fn a_ring_lies_in_memory_or_is_none() {
        let ram = Ram::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let good = Queue { size: Some(8), ready: true, descriptors: 0x1000, driver: 0x2000, device: 0x3000 };
        let host = ram.get_host_address(GuestAddress(0)).unwrap() as u64;
        let found = ring(&ram, &good).unwrap();
        assert_eq!((found.desc_table_addr, found.used_ring_addr), (host + 0x1000, host + 0x3000));
        for bad in [
            Queue { size: None, ..good },
            Queue { descriptors: (1 << 20) - 16, ..good },
            Queue { driver: u64::MAX, ..good },
            Queue { device: 1 << 20, ..good },
        ] {
            assert!(ring(&ram, &bad).is_none(), "{bad:?}");
        }
    }
}
