//! A machine from its parts to its end: a thread for each vCPU, and one for what comes to each serial port.

use crate::{
    boot::{self, BootError},
    config::{self, Config},
    confine::{ConfineError, Confinement, Role},
    console::{self, Com, Console, ConsoleError, ConsoleTarget},
    control::Control,
    devices::{Devices, lock},
    ended::Ended,
    event::Event,
    exits::{Exits, Sum},
    gate::Gate,
    layout::{self, VirtioPlace},
    lines::Lines,
    memory::{self, RamError},
    socket::ListenError,
    vcpu,
    virtio::{
        Device,
        block::Block,
        image::{DiskError, Image},
        net::{Net, NetError},
        rng::Rng,
        served::{Served, ServedError},
    },
    vm::{KvmError, Vm, step},
};
use kvm_ioctls::{Kvm, VcpuFd};
use signal_hook::iterator::Signals;
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

/// Why a machine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This machine has no KVM for us.
    #[error("/dev/kvm: {0}")]
    NoKvm(kvm_ioctls::Error),
    /// KVM refused something.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// No memory.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// Nothing to boot.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A serial port has no other end.
    #[error("{port}: {source}")]
    Console {
        /// Which.
        port: &'static str,
        /// Why not.
        source: ConsoleError,
    },
    /// The control socket cannot be listened at.
    #[error("control socket: {0}")]
    Control(#[from] ListenError),
    /// An interface has no switch.
    #[error(transparent)]
    Net(#[from] NetError),
    /// An image cannot be a disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A disk or the source of random bytes cannot be served.
    #[error(transparent)]
    Served(#[from] ServedError),
    /// There are not so many places and interrupts.
    #[error("{wanted} devices; a machine has room for {most}")]
    TooManyDevices {
        /// That were asked for.
        wanted: usize,
        /// That there is room for.
        most: usize,
    },
    /// The process cannot be confined, or has no thread.
    #[error("confinement: {0}")]
    Confine(#[from] ConfineError),
    /// The system gave no eventfd or signal handler.
    #[error("{what}: {source}")]
    System {
        /// What it did not give.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl StartError {
    /// Whether it is this computer that lacks something.
    pub fn is_lack(&self) -> bool {
        matches!(self, Self::NoKvm(_))
    }
}

fn system<T>(what: &'static str, result: io::Result<T>) -> Result<T, StartError> {
    result.map_err(|source| StartError::System { what, source })
}

/// A machine that is about to execute its first instruction.
pub struct Machine {
    vm: Arc<Vm>,
    vcpus: Vec<VcpuFd>,
    devices: Arc<Devices>,
    serial: [SerialEnd; 2],
    control: Option<Control>,
    config: Config,
    /// Rung when the power button is pressed.
    button: Event,
    reports: (Sender<Report>, Receiver<Report>),
}

/// What is at the other end of a serial port.
struct SerialEnd {
    console: Console,
    /// Rung when more can be fed.
    room: Event,
}

/// A serial port with its interrupt `gsi`, and its other end.
fn serial(
    port: &'static str,
    target: &ConsoleTarget,
    gsi: u32,
    vm: &Vm,
    lines: &mut Lines,
) -> Result<(Mutex<Com>, SerialEnd), StartError> {
    let (console, out) = Console::open(target).map_err(|source| StartError::Console { port, source })?;
    let (room, line) = (system("eventfd", Event::new())?, system("eventfd", Event::new())?);
    let com = console::com(system("eventfd", line.try_clone())?, system("eventfd", room.try_clone())?, out);
    lines.add(vm, gsi, line)?;
    Ok((Mutex::new(com), SerialEnd { console, room }))
}

/// What reaches whoever waits for the machine's end.
enum Report {
    /// It is to end, for this reason.
    Ended(Ended),
    /// The thread of one vCPU is over.
    Over,
    /// Something is asked; the answer goes to whoever holds the other end.
    Asked(Asked, Sender<Result<String, String>>),
}

/// What can be asked of a running machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    State,
    Exits,
    Pause,
    Resume,
    PowerOff,
    Link { interface: usize, up: bool },
}

/// Asks a machine from another thread.
pub(crate) struct Remote(Sender<Report>);

impl Remote {
    /// Ends the machine as soon as its vCPUs have left the guest; no harm if it has ended already.
    pub(crate) fn kill(&self) {
        let _ = self.0.send(Report::Ended(Ended::Stopped));
    }

    /// Waits for the answer.
    pub(crate) fn ask(&self, asked: Asked) -> Result<String, String> {
        let (sender, answer) = channel();
        let gone = "the machine is about to end";
        self.0.send(Report::Asked(asked, sender)).map_err(|_| gone)?;
        answer.recv().map_err(|_| gone)?
    }
}

/// A serial port of all devices.
type SerialPort = fn(&Devices) -> &Mutex<Com>;

/// The serial ports in the order of their ends, by the names of their threads.
const SERIAL_PORTS: [(&str, SerialPort); 2] =
    [("console", |devices| &devices.com1), ("probe", |devices| &devices.com2)];

impl Machine {
    /// Makes a machine, and loads what it boots.
    pub fn new(config: &Config) -> Result<Self, StartError> {
        let kvm = Kvm::new().map_err(StartError::NoKvm)?;
        let vm = Vm::new(kvm, memory::create(config.ram)?)?;
        let count = config.cpus.get();
        let vcpus = (0..count).map(|cpu| vm.create_vcpu(cpu, count)).collect::<Result<Vec<_>, _>>()?;
        let first = vcpus.first().expect("a machine has a vCPU");
        let tsc_khz = step("KVM_GET_TSC_KHZ", first.get_tsc_khz())?;
        let wanted = config.nets.len() + config.disks.len() + usize::from(config.rng);
        let places = (0..wanted).map(|index| {
            let most = layout::MAX_VIRTIO;
            layout::virtio_place(index).ok_or(StartError::TooManyDevices { wanted, most })
        });
        let places = places.collect::<Result<Vec<_>, _>>()?;
        let command_line = config::command_line(config, &places, tsc_khz)?;
        let entry = boot::load(vm.ram(), config, &places, &command_line)?;
        vcpu::prepare(first, entry)?;

        let control = config.control.as_deref().map(Control::open).transpose()?;
        let mut lines = Lines::new();
        let [(one, _), (two, _)] = SERIAL_PORTS;
        let (com1, console) = serial(one, &config.console, layout::COM1_GSI, &vm, &mut lines)?;
        let (com2, probe) = serial(two, &config.probe, layout::COM2_GSI, &vm, &mut lines)?;
        let button = system("eventfd", Event::new())?;
        lines.add(&vm, layout::BUTTON_GSI, system("eventfd", button.try_clone())?)?;
        let vm = Arc::new(vm);
        let virtio = virtio(config, places, &vm, &mut lines)?;
        let devices = Arc::new(Devices { com1, com2, virtio, lines });
        let (serial, config) = ([console, probe], config.clone());
        Ok(Self { vm, vcpus, devices, serial, control, config, button, reports: channel() })
    }

    /// What a test lays hands on while the machine runs.
    #[cfg(test)]
    pub(crate) fn parts(&self) -> (Arc<Vm>, Arc<Devices>) {
        (self.vm.clone(), self.devices.clone())
    }

    /// Runs the guest to its end, which any of `signals` is too. Before its first instruction the calling thread and all
    /// others of the machine are confined, if the configuration says so: for good.
    pub fn run(self, mut signals: Signals) -> Result<Ended, StartError> {
        let Self { vm, vcpus, devices, serial, control, config, button, reports: (sender, reports) } = self;
        // A signal that does nothing but interrupt KVM_RUN, and whatever a device may be blocked in.
        system("signal handler", register_signal_handler(SIGRTMIN(), interrupted).map_err(Into::into))?;
        let confinement = Confinement::begin(&config)?;
        let gate = Arc::new(Gate::default());
        // No vCPU passes before the last thread is confined.
        gate.close();
        let exits: Arc<[Exits]> = vcpus.iter().map(|_| Exits::default()).collect();
        let (mut threads, mut beside) = (Vec::new(), Vec::new());
        let (hang_up, handle) = (system("eventfd", Event::new())?, signals.handle());
        let started = (|| {
            for device in &devices.virtio {
                lock(device).begin(confinement)?;
            }
            for (cpu, fd) in (0..).zip(vcpus) {
                let parts = (vm.clone(), devices.clone(), gate.clone(), exits.clone());
                let body = vcpu_thread(cpu, fd, parts, sender.clone());
                threads.push(confinement.spawn(Role::Vcpu, format!("vcpu{cpu}"), body)?);
            }
            for (SerialEnd { console, room }, (name, com)) in serial.into_iter().zip(SERIAL_PORTS) {
                let devices = devices.clone();
                let hang_up = system("eventfd", hang_up.try_clone())?;
                let serve = move || console.serve(com(&devices), &room, &hang_up);
                beside.push(confinement.spawn(Role::Serial, name.into(), serve)?);
            }
            if let Some(control) = control {
                let (remote, hang_up) = (Remote(sender.clone()), system("eventfd", hang_up.try_clone())?);
                let serve = move || control.serve(&remote, &hang_up);
                beside.push(confinement.spawn(Role::Control, "control".into(), serve)?);
            }
            let remote = Remote(sender.clone());
            let listen = move || signals.forever().for_each(|_| remote.kill());
            beside.push(confinement.spawn(Role::Signals, "signals".into(), listen)?);
            Ok(confinement.enter(Role::Main)?)
        })();
        let ended = started.map(|()| {
            gate.open();
            wait(&reports, |asked| carry_out(asked, &gate, &threads, &devices, &button, &exits))
        });
        end(&gate, threads, &reports);
        // Nobody drains it, so each of them hears it.
        hang_up.ring();
        handle.close();
        // Nobody answers any more: who waits for one hears that.
        drop(reports);
        for attendant in beside {
            // What it says of itself is of no use any more; a terminal is put back by its end.
            let _ = attendant.join();
        }
        ended
    }
}

/// What the thread of a vCPU does.
fn vcpu_thread(
    cpu: u8,
    mut fd: VcpuFd,
    (vm, devices, gate, exits): (Arc<Vm>, Arc<Devices>, Arc<Gate>, Arc<[Exits]>),
    sender: Sender<Report>,
) -> impl FnOnce() + Send + 'static {
    move || {
        let run = || vcpu::run(cpu, &mut fd, &vm, &devices, &gate, &exits[usize::from(cpu)]);
        // Nothing outlives a panic but the news of it: the whole machine ends.
        let ended = catch_unwind(AssertUnwindSafe(run)).unwrap_or(Some(Ended::Bug { cpu }));
        if let Some(ended) = ended {
            let _ = sender.send(Report::Ended(ended));
        }
        let _ = sender.send(Report::Over);
    }
}

/// The virtio devices, each at its place: interfaces first, which so are where the bundled guest has always had them.
fn virtio(
    config: &Config,
    places: Vec<VirtioPlace>,
    vm: &Arc<Vm>,
    lines: &mut Lines,
) -> Result<Vec<Mutex<Device>>, StartError> {
    let mut places = places.into_iter();
    let mut virtio = Vec::new();
    for ((number, net), place) in config.nets.iter().enumerate().zip(&mut places) {
        virtio.push(Device::Net(Net::new(number, net, place, vm.clone(), lines)?));
    }
    for ((number, disk), place) in config.disks.iter().enumerate().zip(&mut places) {
        let block = Block::new(Image::open(disk)?, number);
        virtio.push(Device::Block(Served::new(format!("disk{number}"), block, place, vm.clone(), lines)?));
    }
    if let (true, Some(place)) = (config.rng, places.next()) {
        virtio.push(Device::Rng(Served::new("rng".into(), Rng, place, vm.clone(), lines)?));
    }
    Ok(virtio.into_iter().map(Mutex::new).collect())
}

/// The first reason to end. Until then it answers what is asked.
fn wait(reports: &Receiver<Report>, answer: impl Fn(Asked) -> Result<String, String>) -> Ended {
    loop {
        match reports.recv() {
            Ok(Report::Ended(ended)) => return ended,
            Ok(Report::Over) => {}
            Ok(Report::Asked(asked, asker)) => {
                // Who has not waited for the answer does not want it.
                let _ = asker.send(answer(asked));
            }
            // We hold a sender ourselves.
            Err(_) => return Ended::Stopped,
        }
    }
}

fn carry_out(
    asked: Asked,
    gate: &Gate,
    threads: &[JoinHandle<()>],
    devices: &Devices,
    button: &Event,
    exits: &[Exits],
) -> Result<String, String> {
    let done = Ok("ok".to_owned());
    match asked {
        Asked::State => Ok(if gate.is_closed() { "paused" } else { "running" }.to_owned()),
        Asked::Exits => Ok(Sum(exits).to_string()),
        Asked::Pause => {
            gate.close();
            hold(gate, threads);
            done
        }
        Asked::Resume => {
            gate.open();
            done
        }
        Asked::PowerOff => {
            button.ring();
            done
        }
        Asked::Link { interface, up } if devices.set_link(interface, up) => done,
        Asked::Link { interface, .. } => Err(format!("there is no interface {interface}")),
    }
}

/// Interrupts each vCPU whose thread is not over yet; how many these are. A signal between its look at the gate and
/// KVM_RUN is lost, so this is done until it is heard.
fn interrupt(threads: &[JoinHandle<()>]) -> usize {
    let mut there = 0;
    for thread in threads.iter().filter(|thread| !thread.is_finished()) {
        there += 1;
        // One that ended just now needs no signal.
        let _ = thread.kill(SIGRTMIN());
    }
    there
}

/// Gets all vCPUs out of the guest, to a gate that is closed. One whose thread is over is about to end the machine.
fn hold(gate: &Gate, threads: &[JoinHandle<()>]) {
    loop {
        let there = interrupt(threads);
        if gate.held_within(Duration::from_millis(2)) >= there {
            return;
        }
    }
}

/// Gets all vCPUs out of the guest, and waits for their threads.
fn end(gate: &Gate, threads: Vec<JoinHandle<()>>, reports: &Receiver<Report>) {
    gate.end();
    while interrupt(&threads) > 0 {
        let _ = reports.recv_timeout(Duration::from_millis(2));
    }
    for thread in threads {
        let _ = thread.join();
    }
}

extern "C" fn interrupted(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
