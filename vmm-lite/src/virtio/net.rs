//! virtio-net (virtio 1.2 §5.1) whose rings are served by another process, over vhost-user. No frame passes through
//! here: the driver's kicks and the device's calls are eventfds that KVM and that process share. This is what the driver
//! sees; [`frontend`] is the thread that tells the other process of it, and does what the driver asks for by the [`control`] queue.

mod command;
mod control;
mod frontend;
mod offer;
#[cfg(test)]
mod tests;

use super::mmio::{Effect, Registers, register};
use crate::{
    confine::{ConfineError, Confinement, Role},
    devices::lock,
    event::Event,
    layout::VirtioPlace,
    lines::Lines,
    vm::{KvmError, Vm, step},
};
use control::Control;
use frontend::Connection;
use kvm_ioctls::IoEventAddress;
use offer::{FIRST_CONTROL, offer};
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

/// How long the switch may take to say what it offers, and to leave the rings of a driver that resets its device.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often one machine says what went wrong with a start or a reset.
const MOST_COMPLAINTS: u8 = 16;

/// A network interface of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// The vhost-user socket of the switch's port.
    pub socket: PathBuf,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// The largest packet that the network carries, if the guest is to be told.
    pub mtu: Option<u16>,
    /// How many queue pairs it has: 1 to [`NetConfig::MOST_QUEUES`].
    pub queues: u16,
    /// Whether the driver sees the link up from the beginning.
    pub link_up: bool,
}

impl NetConfig {
    /// The most queue pairs that an interface can have.
    pub const MOST_QUEUES: u16 = 16;
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
    /// It serves fewer queue pairs than the interface is to have.
    #[error(
        "the switch serves {offered} queue pair(s) there, and the interface is to have {wanted}: set the port's `queues`, or ask for fewer"
    )]
    Queues {
        /// How many it serves.
        offered: u64,
        /// How many it is to serve.
        wanted: u16,
    },
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
    /// Notified when the switch has left the rings, or carries frames by another number of queue pairs.
    settled: Condvar,
    /// Rung when the driver has started or reset the device or wants another number of queue pairs, and when the machine is over.
    news: Event,
}

struct State {
    registers: Registers,
    /// What the driver asks for.
    control: Control,
    /// The link is up, as far as the driver is to know.
    link_up: bool,
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
        let connection = Connection::open_within(config, PATIENCE)?;
        let kicks = (0..2 * config.queues).map(|_| Event::new()).collect::<Result<Vec<_>, _>>()?;
        let notify = IoEventAddress::Mmio(place.base + register::QUEUE_NOTIFY);
        // What may be a control queue, by what the driver takes, is rung past KVM.
        let carriers = (0u32..).zip(&kicks).filter(|(queue, _)| *queue != FIRST_CONTROL as u32);
        for (queue, kick) in carriers {
            step("KVM_IOEVENTFD", vm.fd().register_ioevent(kick.as_event_fd(), &notify, queue))?;
        }
        let call = Event::new()?;
        lines.add(&vm, place.gsi, call.try_clone()?)?;
        let state = Mutex::new(State {
            registers: Registers::new(offer(config, connection.offered())),
            control: Control::NONE,
            link_up: config.link_up,
            life: 0,
            lent: false,
            refused: false,
            line: Some(connection.line()?),
            name: format!("net{number} ({})", config.socket.display()),
            complaints: 0,
            over: false,
        });
        let (settled, news) = (Condvar::new(), Event::new()?);
        let shared = Arc::new(Shared { config: config.clone(), vm, kicks, call, state, settled, news });
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
        if let (register::QUEUE_NOTIFY, Ok(queue)) = (register, data.try_into().map(u32::from_le_bytes)) {
            return self.shared.rung(queue as usize);
        }
        let mut state = lock(&self.shared.state);
        let effect = state.registers.write(register, data);
        if effect == Effect::Nothing {
            return;
        }
        state.life += 1;
        state.refused = false;
        self.shared.news.ring();
        match effect {
            Effect::Start => {
                if let Err(why) = state.start_control(self.shared.vm.ram(), self.shared.config.queues) {
                    state.break_control(why);
                    self.shared.call.ring();
                }
            }
            Effect::Stop => {
                state.stop_control(self.shared.config.mac);
                drop(self.shared.wait_while(state, |state| state.lent));
            }
            Effect::Nothing => {}
        }
    }

    /// Lets the driver see the link up or down (VIRTIO_NET_F_STATUS).
    pub(crate) fn set_link(&self, up: bool) {
        let mut state = lock(&self.shared.state);
        state.link_up = up;
        if state.show_status() {
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
    /// Waits for the switch while `waits` says so. One that is silent is left: what it may still do to the rings, it does to the guest
    /// that it serves.
    fn wait_while<'a>(
        &self,
        state: MutexGuard<'a, State>,
        mut waits: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waited = self.settled.wait_timeout_while(state, PATIENCE, &mut waits);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if !waited.timed_out() {
            return state;
        }
        state.complain(&NetError::Silent { socket: self.config.socket.clone() });
        state.cut();
        // The thread hears of it at once.
        self.settled.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner)
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
