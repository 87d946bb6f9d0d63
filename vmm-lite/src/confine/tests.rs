//! The lists of system calls are right if machines live by them, and each rule is needed: without it one dies. The
//! machines are processes of their own: this very test program, started again.

use super::{
    Confinement, LANDLOCK, Role, folders, lack, landlock,
    rules::{self, Place},
};
use crate::{
    Config, ConsoleTarget, CpuCount, DiskConfig, Ended, Kernel, Machine, NetConfig,
    devices::Devices,
    layout::{self, RamSize},
    memory::Ram,
    virtio::mmio::{register, status},
    vm::Vm,
};
use landlock::{ABI, LandlockStatus, RulesetStatus};
use probe::{Ask, AskId, Request, ask::Hello};
use rustix::{
    process::{Pid, Signal, WaitId, WaitIdOptions, getrlimit, kill_process, waitid},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::tcgetattr,
    time::{ClockId, DynamicClockId, clock_gettime_dynamic},
};
use signal_hook::iterator::Signals;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    hint::black_box,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{
            net::{UnixListener, UnixStream},
            process::ExitStatusExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};
use vm_memory::{Bytes, GuestAddress, MmapRegion};
use vmm_sys_util::signal::Killable;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const ROLES: [Role; 8] =
    [Role::Main, Role::Vcpu, Role::Serial, Role::Control, Role::Signals, Role::Net, Role::Disk, Role::Rng];

/// What a process is to be, its folder, and the rule that is taken away: in its environment.
const PART: &str = "VNET_TEST_CONFINE";
const FOLDER: &str = "VNET_TEST_CONFINE_FOLDER";
const TAKEN: &str = "VNET_TEST_CONFINE_TAKEN";

/// The rule that is taken away.
pub(super) fn taken() -> Option<Place> {
    let taken = std::env::var(TAKEN).ok()?;
    let (list, at) = taken.split_once('/')?;
    let role = ROLES.into_iter().find(|role| role.name() == list);
    Some(Place(role, at.parse().ok()?))
}

fn taking(Place(role, at): Place) -> String {
    format!("{}/{at}", role.map_or("every", Role::name))
}

/// Whether machines can run here; said if not.
fn kvm() -> bool {
    let there = File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if !there {
        left_out("the lists of system calls: /dev/kvm is not there for us");
    }
    there
}

/// Says what a test needs and this machine lacks: to whoever reads its output, and to `./check`, which counts it.
fn left_out(what: &str) {
    eprintln!("LEFT OUT: {what}");
    if let Some(list) = std::env::var_os("VNET_LEFT_OUT") {
        let mut list = File::options().append(true).create(true).open(list).unwrap();
        writeln!(list, "{what}").unwrap();
    }
}

// ---- The test program, started again.

/// How such a process ended, and what it said.
struct Over {
    status: ExitStatus,
    said: String,
}

impl Over {
    /// Ended by the kernel, over this system call of a thread of this kind.
    #[track_caller]
    fn assert_refused(&self, role: Option<Role>, call: libc::c_long) {
        let Self { status, said } = self;
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}: {said}");
        if !SILENT.contains(&call) {
            assert!(said.contains(&format!("made system call {call}, which")), "{call}: {said}");
            let role = role.map_or("", Role::name);
            assert!(said.contains(&format!("a thread ({role}")), "{role}: {said}");
        }
    }
}

/// Of these it cannot say that they were refused: the C library makes them while all signals are blocked, or what says so
/// makes them itself.
const SILENT: [libc::c_long; 6] = [
    libc::SYS_write,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigreturn,
];

/// Has a process play `part`, without the rule `taken`.
fn play(part: &str, taken: Option<Place>) -> Over {
    let folder = tempfile::tempdir().unwrap();
    let (keyboard, terminal) = terminal();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["confine::tests::process", "--exact", "--ignored", "--nocapture"])
        .env(PART, part)
        .env(FOLDER, folder.path())
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::from(terminal))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if part == FAULTED {
        // All threads allocate where the main thread does.
        command.env("MALLOC_ARENA_MAX", "1");
    }
    if let Some(place) = taken {
        command.env(TAKEN, taking(place));
    }
    File::from(keyboard.try_clone().unwrap()).write_all(b"uptime\n").unwrap();
    let mut process = command.spawn().unwrap();
    let pid = Pid::from_child(&process);
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let mut said = String::new();
    while let Some(Ok(line)) = lines.next() {
        said += &format!("{line}\n");
        if line == WAITS {
            stop_and_go_on(pid);
            // If it has died of that, its end says so.
            drop(UnixStream::connect(folder.path().join("go")));
        }
    }
    Over { status: process.wait().unwrap(), said }
}

/// What a machine that is over says while its main thread waits, with a time limit.
const WAITS: &str = "waits";

/// As Ctrl-Z and `fg`, until they came into the middle of a wait.
fn stop_and_go_on(pid: Pid) {
    for _ in 0..50 {
        kill_process(pid, Signal::STOP).unwrap();
        let change = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        // A process does not stop while the kernel takes its machine apart by a thread that has stopped already.
        let most = Instant::now() + Duration::from_millis(20);
        while waitid(WaitId::Pid(pid), change | WaitIdOptions::NOHANG).unwrap().is_none()
            && Instant::now() < most
        {
            thread::yield_now();
        }
        kill_process(pid, Signal::CONT).unwrap();
    }
}

/// A terminal: our end, and the one that a program has as its standard input.
fn terminal() -> (OwnedFd, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (ours, theirs.into())
}

/// What [`play`] starts.
#[test]
#[ignore = "the tests beside it start it"]
fn process() {
    let part = std::env::var(PART).expect("the tests beside it say what to play");
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    match part.as_str() {
        SIGNALLED => life(&folder, By::Signal),
        FAULTED => life(&folder, By::Fault),
        SILENCED => life(&folder, By::Silence),
        deed => {
            let (role, deed) = deed.split_once(": ").unwrap();
            let role = ROLES.into_iter().find(|one| one.name() == role).unwrap();
            let (_, deed, _) = DEEDS.into_iter().find(|(name, ..)| *name == deed).unwrap();
            let confinement = Confinement::begin(&config(&folder)).unwrap();
            confinement.spawn(role, "doer".into(), deed).unwrap().join().unwrap();
        }
    }
}

// ---- The life of a machine.

/// What ends it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Signal,
    Fault,
    Silence,
}

/// A machine with one of everything.
fn config(folder: &Path) -> Config {
    let socket = folder.join("switch");
    let net = NetConfig { socket, mac: [2, 0, 0, 0, 0, 7], mtu: None, queues: 1, link_up: true };
    Config {
        kernel: Kernel::Elf(include_bytes!(env!("VNET_GUEST"))),
        initrd: None,
        command_line: String::new(),
        cpus: CpuCount::new(2).unwrap(),
        ram: RamSize::new(RAM).unwrap(),
        console: ConsoleTarget::Stdio,
        probe: ConsoleTarget::Socket { path: folder.join("probe"), log: Some(folder.join("log")) },
        nets: vec![net],
        disks: vec![DiskConfig { path: folder.join("disk"), write: true }],
        rng: true,
        control: Some(folder.join("control")),
        confined: true,
    }
}

const RAM: u64 = 64 << 20;
/// Its threads, by name.
const THREADS: [&str; 9] =
    ["vcpu0", "vcpu1", "console", "probe", "control", "signals", "net0", "disk0", "rng"];

/// Lets a machine do all that its threads are there for, to its end.
fn life(folder: &Path, end: By) {
    fs::write(folder.join("disk"), [7; 1024]).unwrap();
    let go = UnixListener::bind(folder.join("go")).unwrap();
    let switch = switch(UnixListener::bind(folder.join("switch")).unwrap());
    let machine = Machine::new(&config(folder)).unwrap();
    let (vm, devices) = machine.parts();
    let (proceed, proceeds) = channel();
    let main = thread::spawn(move || {
        let ended = machine.run(Signals::new(super::ENDING).unwrap()).unwrap();
        match (end, ended) {
            (By::Signal | By::Silence, Ended::Stopped)
            | (By::Fault, Ended::TripleFault { .. } | Ended::NotEmulated { .. }) => {}
            (_, ended) => panic!("{ended}"),
        }
        if end != By::Silence {
            eprintln!("{WAITS}");
        }
        proceeds.recv_timeout(PATIENCE).unwrap();
        std::process::exit(0);
    });

    // The guest is up when it answers. It has told the switch of its rings by then.
    let mut probe = connect(&folder.join("probe"));
    let hello = Request::Hello(Hello { version: probe::VERSION, name: "guest".into() });
    probe.write_all(&probe::encode(&Ask { id: AskId::new(1), request: hello }).unwrap()).unwrap();
    assert_ne!(probe.read(&mut [0; 256]).unwrap(), 0);
    drop(probe);
    let connection = switch.recv_timeout(PATIENCE).unwrap();
    threads_are_confined();

    let mut control = BufReader::new(connect(&folder.join("control")));
    for (asked, answer) in
        [("state", "running\n"), ("pause", "ok\n"), ("link 0 down", "ok\n"), ("resume", "ok\n")]
    {
        writeln!(control.get_mut(), "{asked}").unwrap();
        let mut answered = String::new();
        control.read_line(&mut answered).unwrap();
        assert_eq!(answered, answer, "{asked}");
    }
    drop(control);
    disk_and_random_bytes(&vm, &devices);

    // The switch goes away, and comes back.
    connection.shutdown(std::net::Shutdown::Both).unwrap();
    switch.recv_timeout(PATIENCE).unwrap();

    // A thread of any kind does this, but hardly ever.
    let clock = || clock_gettime_dynamic(DynamicClockId::Known(ClockId::ProcessCPUTime)).unwrap();
    // It is looked for how clocks are read.
    clock();
    let anything = Confinement { wanted: true }.spawn(Role::Signals, "anything".into(), move || {
        thread::yield_now();
        // A clock that is never read without a system call.
        clock();
        let mut large = black_box(vec![1u8; 64 << 20]);
        large.reserve_exact(128 << 20);
        drop(black_box(large));
        drop(black_box((0..4096).map(|_| black_box(vec![1u8; 4096])).collect::<Vec<_>>()));
    });
    anything.unwrap().join().unwrap();

    if end == By::Fault {
        // UD2 wherever it goes on; and it goes on, for it is asked.
        let code = [0x0f, 0x0b].repeat(1 << 20);
        vm.ram().write_slice(&code, GuestAddress(layout::HIGH_START)).unwrap();
        connect(&folder.join("probe")).write_all(&[0; 8]).unwrap();
    }
    if end == By::Silence {
        // A vCPU resets the interface, and waits for the switch.
        let devices = devices.clone();
        let reset = Confinement { wanted: true }.spawn(Role::Vcpu, "vcpu2".into(), move || {
            eprintln!("{WAITS}");
            let status = layout::virtio_place(0).unwrap().base + register::STATUS;
            devices.mmio_write(status, &[0; 4]);
        });
        reset.unwrap().join().unwrap();
    }
    // The machine's main thread is the last that has them.
    drop((vm, devices));
    if end != By::Fault {
        main.kill(libc::SIGTERM).unwrap();
    }
    go.accept().unwrap();
    proceed.send(()).unwrap();
    // It ends the process.
    main.join().unwrap();
}

/// Connects, as soon as somebody listens.
fn connect(path: &Path) -> UnixStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return stream;
            }
            Err(why) => assert!(Instant::now() < deadline, "{}: {why}", path.display()),
        }
        thread::yield_now();
    }
}

/// Each thread of the machine has a filter, and can gain no rights.
fn threads_are_confined() {
    let mut found = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').trim().to_owned()
        };
        found.insert(field("Name"), [field("NoNewPrivs"), field("Seccomp")]);
    }
    for thread in THREADS {
        assert_eq!(found.get(thread), Some(&["1".into(), "2".into()]), "{thread}: {found:?}");
    }
    let cores = getrlimit(rustix::process::Resource::Core);
    assert_eq!((cores.current, cores.maximum), (Some(0), Some(0)));
}

/// A switch that takes all that it is told, moves no frame, and says nothing when rings are to be given back (vhost-user's
/// own words for requests). Each connection is handed out when its last ring was enabled.
fn switch(listener: UnixListener) -> Receiver<UnixStream> {
    let (sender, told) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // Its end is that of the connection.
            let _ = serve(stream.unwrap(), &sender);
        }
    });
    told
}

fn serve(mut stream: UnixStream, told: &Sender<UnixStream>) -> io::Result<()> {
    const GET_FEATURES: u32 = 1;
    const GET_VRING_BASE: u32 = 11;
    const GET_PROTOCOL_FEATURES: u32 = 15;
    const SET_VRING_ENABLE: u32 = 18;
    const NEED_REPLY: u32 = 1 << 3;
    const REPLY_ACK: u64 = 1 << 3;
    loop {
        let mut header = [0; 12];
        stream.read_exact(&mut header)?;
        let [request, flags, size] =
            [0, 4, 8].map(|at| u32::from_le_bytes(header[at..at + 4].try_into().unwrap()));
        let mut payload = vec![0; size as usize];
        stream.read_exact(&mut payload)?;
        let answer = match request {
            // VIRTIO_F_VERSION_1, and that there are protocol features.
            GET_FEATURES => Some(1 << 32 | 1 << 30),
            GET_PROTOCOL_FEATURES => Some(REPLY_ACK),
            GET_VRING_BASE => None,
            _ => (flags & NEED_REPLY != 0).then_some(0),
        };
        if let Some(answer) = answer {
            // Version 1, a reply.
            let header = [request, 1 | 1 << 2, 8].map(u32::to_le_bytes).concat();
            stream.write_all(&[header, u64::to_le_bytes(answer).to_vec()].concat())?;
        }
        if request == SET_VRING_ENABLE && payload[0] == 1 {
            // Nobody waits for it at the end.
            let _ = told.send(stream.try_clone()?);
        }
    }
}

/// Where the driver of a ring keeps it: at the end of memory, where the guest has nothing.
const RING: u64 = RAM - (1 << 20);

/// What drivers in the guest would do: write a sector, read it, flush; and ask for random bytes.
fn disk_and_random_bytes(vm: &Vm, devices: &Devices) {
    let (header, data, state) = (RING + 0x10000, RING + 0x11000, RING + 0x12000);
    let (mine, yours) = (0, 2);
    let request = |at: u64, kind: u64, data_flags: Option<u16>| {
        vm.ram().write_obj([kind, 0], GuestAddress(header + 16 * at)).unwrap();
        let data = data_flags.map(|flags| (data, 512, flags));
        let parts = [Some((header + 16 * at, 16, mine)), data, Some((state + at, 1, yours))];
        parts.into_iter().flatten().collect::<Vec<_>>()
    };
    let (read, write, flush) = (0, 1, 4);
    let requests = [request(0, write, Some(mine)), request(1, read, Some(yours)), request(2, flush, None)];
    drive(vm.ram(), devices, 1, &requests);
    let mut states = [9; 3];
    vm.ram().read_slice(&mut states, GuestAddress(state)).unwrap();
    assert_eq!(states, [0; 3], "VIRTIO_BLK_S_OK");
    drive(vm.ram(), devices, 2, &[vec![(data, 64, yours)]]);
}

/// Starts the virtio device of this number with these requests in its ring, and waits until it has served them.
fn drive(ram: &Ram, devices: &Devices, device: usize, requests: &[Vec<(u64, u32, u16)>]) {
    let ring = RING + 0x3000 * device as u64;
    let (descriptors, available, used) = (ring, ring + 0x1000, ring + 0x2000);
    let mut next = 0u16;
    for (slot, request) in (0u64..).zip(requests) {
        ram.write_obj(next, GuestAddress(available + 4 + 2 * slot)).unwrap();
        for (at, (address, length, flags)) in request.iter().enumerate() {
            let more = u16::from(at + 1 < request.len());
            let entry = GuestAddress(descriptors + 16 * u64::from(next));
            next += 1;
            ram.write_obj([*address, u64::from(*length)], entry).unwrap();
            ram.write_obj([flags | more, next], entry.0.checked_add(12).map(GuestAddress).unwrap()).unwrap();
        }
    }
    ram.write_obj(requests.len() as u16, GuestAddress(available + 2)).unwrap();

    let base = layout::virtio_place(device).unwrap().base;
    let started = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
    for (register, value) in [
        (register::STATUS, 0),
        (register::STATUS, status::ACKNOWLEDGE | status::DRIVER),
        // VIRTIO_F_VERSION_1; for a disk, VIRTIO_BLK_F_FLUSH.
        (register::DRIVER_FEATURES_SEL, 1),
        (register::DRIVER_FEATURES, 1),
        (register::STATUS, status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK),
        (register::QUEUE_NUM, 16),
        (register::QUEUE_DESC_LOW, descriptors as u32),
        (register::QUEUE_DRIVER_LOW, available as u32),
        (register::QUEUE_DEVICE_LOW, used as u32),
        (register::QUEUE_READY, 1),
        (register::STATUS, started),
    ] {
        devices.mmio_write(base + register, &value.to_le_bytes());
    }
    let deadline = Instant::now() + PATIENCE;
    while ram.read_obj::<u16>(GuestAddress(used + 2)).unwrap() != requests.len() as u16 {
        assert!(Instant::now() < deadline, "device {device} has not served its ring");
        thread::yield_now();
    }
}

/// Lives, by their ends. The last takes seconds, and is for what the others have no use for.
const SIGNALLED: &str = "life, that ends by a signal";
const FAULTED: &str = "life, that ends by a fault";
const SILENCED: &str = "life, that ends when the switch has fallen silent";
const LIVES: [&str; 3] = [SIGNALLED, FAULTED, SILENCED];

#[test]
fn a_machine_does_all_that_it_is_for_under_its_lists() {
    if kvm() {
        for part in LIVES {
            let Over { status, said } = play(part, None);
            assert!(status.success(), "{part}: {status}: {said}");
        }
    }
}

/// Takes each rule of a list away in turn: a thread of that kind dies of it.
fn each_rule_is_needed(role: Option<Role>) {
    if !kvm() {
        return;
    }
    for at in 0.. {
        let place = Place(role, at);
        let Some(call) = rules::at(place) else {
            assert_ne!(at, 0, "the list is not empty");
            return;
        };
        let over = LIVES.into_iter().map(|part| play(part, Some(place)));
        let over = over.into_iter().find(|over| !over.status.success());
        let over = over.unwrap_or_else(|| panic!("nobody misses {call} ({})", taking(place)));
        over.assert_refused(role, call);
    }
}

#[test]
fn each_rule_of_every_thread_is_needed() {
    each_rule_is_needed(None);
}

#[test]
fn each_rule_of_the_main_thread_is_needed() {
    each_rule_is_needed(Some(Role::Main));
}

#[test]
fn each_rule_of_vcpus_is_needed() {
    each_rule_is_needed(Some(Role::Vcpu));
}

#[test]
fn each_rule_of_serial_ports_is_needed() {
    each_rule_is_needed(Some(Role::Serial));
}

#[test]
fn each_rule_of_the_control_socket_is_needed() {
    each_rule_is_needed(Some(Role::Control));
}

#[test]
fn each_rule_of_signals_is_needed() {
    each_rule_is_needed(Some(Role::Signals));
}

#[test]
fn each_rule_of_interfaces_is_needed() {
    each_rule_is_needed(Some(Role::Net));
}

#[test]
fn each_rule_of_disks_is_needed() {
    each_rule_is_needed(Some(Role::Disk));
}

#[test]
fn each_rule_of_random_bytes_is_needed() {
    each_rule_is_needed(Some(Role::Rng));
}

// ---- What nobody may.

/// What is on no list, and the system call that is refused.
const DEEDS: [(&str, fn(), libc::c_long); 5] = [
    ("makes a folder", || drop(fs::create_dir("/tmp")), libc::SYS_mkdir),
    ("listens at a port", || drop(TcpListener::bind("127.0.0.1:0")), libc::SYS_socket),
    ("starts a thread", || drop(thread::spawn(|| ())), libc::SYS_clone3),
    ("asks a terminal", || drop(tcgetattr(io::stdin())), libc::SYS_ioctl),
    (
        "makes code",
        || {
            let protection = libc::PROT_READ | libc::PROT_EXEC;
            drop(MmapRegion::<()>::build(None, 4096, protection, libc::MAP_ANONYMOUS | libc::MAP_PRIVATE));
        },
        libc::SYS_mmap,
    ),
];

#[test]
fn what_is_on_no_list_ends_the_process_and_is_named() {
    for role in ROLES {
        for (name, _, call) in DEEDS {
            play(&format!("{}: {name}", role.name()), None).assert_refused(Some(role), call);
        }
    }
}

#[test]
fn without_a_system_call_more_nothing_is_opened_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let [inside, outside] = ["inside", "outside"].map(|name| folder.path().join(name));
    for folder in [&inside, &outside] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("a"), "").unwrap();
    }
    let config = Config {
        console: ConsoleTarget::Nobody,
        probe: ConsoleTarget::Nobody,
        control: Some(inside.join("control")),
        ..config(folder.path())
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = UnixListener::bind(outside.join("switch")).unwrap();
    // It holds for the thread that asks for it, and those that it starts.
    let body = move || {
        let status = landlock(&config).unwrap();
        if status.ruleset != RulesetStatus::FullyEnforced {
            return left_out("Landlock: this kernel has not all of it");
        }
        let denied = |why: io::Error| assert_eq!(why.kind(), io::ErrorKind::PermissionDenied, "{why}");
        denied(File::open(inside.join("a")).unwrap_err());
        denied(File::create(inside.join("b")).unwrap_err());
        denied(fs::read_dir(&inside).unwrap_err());
        denied(fs::remove_file(outside.join("a")).unwrap_err());
        denied(TcpStream::connect(listener.local_addr().unwrap()).unwrap_err());
        denied(Command::new("/bin/true").status().unwrap_err());
        // What a machine does to its end.
        fs::remove_file(inside.join("a")).unwrap();
        UnixStream::connect(outside.join("switch")).unwrap();
        drop(socket);
    };
    thread::spawn(body).join().unwrap();
}

#[test]
fn names_of_sockets_are_removed_from_their_folders() {
    let all = config(Path::new("/run/lab"));
    assert_eq!(folders(&all).collect::<Vec<_>>(), [Path::new("/run/lab"); 2]);
    let here = Config { probe: ConsoleTarget::Nobody, control: Some("control".into()), ..all };
    assert_eq!(folders(&here).collect::<Vec<_>>(), [Path::new(".")]);
}

#[test]
fn what_a_kernel_lacks_of_landlock_is_said() {
    let part = LandlockStatus::Available { effective_abi: ABI::V2, kernel_abi: None };
    let full = LandlockStatus::Available { effective_abi: LANDLOCK, kernel_abi: None };
    assert_eq!(lack(&RulesetStatus::FullyEnforced, &full), None);
    for (ruleset, status, said) in [
        (RulesetStatus::PartiallyEnforced, part, "but a part of what is given up (version 2; 6 has all)"),
        (RulesetStatus::NotEnforced, LandlockStatus::NotImplemented, "has no Landlock"),
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled, "off in this kernel"),
    ] {
        let lack = lack(&ruleset, &status).unwrap();
        assert!(lack.contains(said), "{lack}");
        assert!(lack.ends_with("system calls are confined all the same"), "{lack}");
    }
}
