//! A machine from its parts to its end: a thread for each vCPU, one for what is typed at the console.

use crate::{
    boot::{self, BootError},
    config::{self, Config},
    console::{self, Console},
    devices::Devices,
    ended::Ended,
    event::Event,
    layout,
    lines::Lines,
    memory::{self, RamError},
    vcpu,
    virtio::net::{Net, NetError},
    vm::{KvmError, Vm, step},
};
use kvm_ioctls::{Kvm, VcpuFd};
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
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
    /// The console has no other end.
    #[error("console: {0}")]
    Console(io::Error),
    /// An interface has no switch.
    #[error(transparent)]
    Net(#[from] NetError),
    /// There are not so many places and interrupts.
    #[error("{wanted} devices; a machine has room for {most}")]
    TooManyDevices {
        /// That were asked for.
        wanted: usize,
        /// That there is room for.
        most: usize,
    },
    /// The system gave no eventfd, signal handler or thread.
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
    console: Console,
    room: Event,
    reports: (Sender<Report>, Receiver<Report>),
}

/// What reaches whoever waits for the machine's end.
enum Report {
    /// It is to end, for this reason.
    Ended(Ended),
    /// The thread of one vCPU is over.
    Over,
}

/// Ends a machine from outside.
#[derive(Clone)]
pub struct Stopper(Sender<Report>);

impl Stopper {
    /// The machine ends as soon as its vCPUs have left the guest; no harm if it has ended already.
    pub fn stop(&self) {
        let _ = self.0.send(Report::Ended(Ended::Stopped));
    }
}

impl Machine {
    /// Makes a machine, and loads what it boots.
    pub fn new(config: &Config) -> Result<Self, StartError> {
        let kvm = Kvm::new().map_err(StartError::NoKvm)?;
        let vm = Vm::new(kvm, memory::create(config.ram)?)?;
        let count = config.cpus.get();
        let vcpus = (0..count).map(|cpu| vm.create_vcpu(cpu, count)).collect::<Result<Vec<_>, _>>()?;
        let first = vcpus.first().expect("a machine has a vCPU");
        let tsc_khz = step("KVM_GET_TSC_KHZ", first.get_tsc_khz())?;
        let places = (0..config.nets.len()).map(|index| {
            let most = layout::MAX_VIRTIO;
            layout::virtio_place(index).ok_or(StartError::TooManyDevices { wanted: config.nets.len(), most })
        });
        let places = places.collect::<Result<Vec<_>, _>>()?;
        let command_line = config::command_line(config, &places, tsc_khz)?;
        let entry = boot::load(vm.ram(), config.ram, &config.kernel, config.initrd.as_ref(), &command_line)?;
        vcpu::prepare(first, entry)?;

        let (console, out) = Console::open(&config.console).map_err(StartError::Console)?;
        let event = || system("eventfd", Event::new());
        let room = event()?;
        let line = event()?;
        let com1 =
            console::com(system("eventfd", line.try_clone())?, system("eventfd", room.try_clone())?, out);
        let mut lines = Lines::new();
        lines.add(&vm, layout::COM1_GSI, line)?;
        let vm = Arc::new(vm);
        let mut virtio = Vec::new();
        for (net, place) in config.nets.iter().zip(places) {
            virtio.push(Mutex::new(Net::new(net, place, vm.clone(), &mut lines)?));
        }
        let devices = Arc::new(Devices { com1: Mutex::new(com1), virtio, lines });
        Ok(Self { vm, vcpus, devices, console, room, reports: channel() })
    }

    /// What ends the machine from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.reports.0.clone())
    }

    /// Runs the guest to its end.
    pub fn run(self) -> Result<Ended, StartError> {
        let Self { vm, vcpus, devices, console, room, reports: (sender, reports) } = self;
        // A signal that does nothing but interrupt KVM_RUN, and whatever a device may be blocked in.
        system("signal handler", register_signal_handler(SIGRTMIN(), interrupted).map_err(Into::into))?;
        let stop = Arc::new(AtomicBool::new(false));
        let hang_up = system("eventfd", Event::new())?;
        let mut threads = Vec::new();
        for (cpu, mut fd) in (0..).zip(vcpus) {
            let (vm, devices, sender) = (vm.clone(), devices.clone(), sender.clone());
            let stopped = stop.clone();
            let body = move || {
                let run = || vcpu::run(cpu, &mut fd, &vm, &devices, &stopped);
                // Nothing outlives a panic but the news of it: the whole machine ends.
                let ended = catch_unwind(AssertUnwindSafe(run)).unwrap_or(Some(Ended::Bug { cpu }));
                if let Some(ended) = ended {
                    let _ = sender.send(Report::Ended(ended));
                }
                let _ = sender.send(Report::Over);
            };
            let thread = thread::Builder::new().name(format!("vcpu{cpu}")).spawn(body);
            match thread {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    end(&stop, threads, &reports);
                    return Err(StartError::System { what: "a vCPU's thread", source });
                }
            }
        }
        let typist = {
            let (devices, hang_up) = (devices.clone(), system("eventfd", hang_up.try_clone())?);
            thread::Builder::new()
                .name("console".into())
                .spawn(move || console.serve(&devices.com1, &room, &hang_up))
        };
        let ended = match &typist {
            Ok(_) => wait(&reports),
            Err(_) => Ended::Stopped,
        };
        end(&stop, threads, &reports);
        hang_up.ring();
        // What the console's thread says of itself is of no use any more; a terminal is put back by its end.
        let _ = system("the console's thread", typist)?.join();
        Ok(ended)
    }
}

/// The first reason to end.
fn wait(reports: &Receiver<Report>) -> Ended {
    loop {
        match reports.recv() {
            Ok(Report::Ended(ended)) => return ended,
            Ok(Report::Over) => {}
            // We hold a sender ourselves.
            Err(_) => return Ended::Stopped,
        }
    }
}

/// Gets all vCPUs out of the guest, and waits for their threads.
fn end(stop: &AtomicBool, threads: Vec<JoinHandle<()>>, reports: &Receiver<Report>) {
    stop.store(true, Ordering::Release);
    while threads.iter().any(|thread| !thread.is_finished()) {
        for thread in &threads {
            // A signal between the look at `stop` and KVM_RUN is lost, so it is sent until it is heard.
            let _ = thread.kill(SIGRTMIN());
        }
        let _ = reports.recv_timeout(Duration::from_millis(2));
    }
    for thread in threads {
        let _ = thread.join();
    }
}

extern "C" fn interrupted(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
