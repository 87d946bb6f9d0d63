//! A guest that reads and writes every port and register at random, and starts its devices on rings full of anything: its
//! VMM lives and stays as small as it was, the switch lives, and the guests beside it lose no frame. Once it is over, its
//! devices work.
//!
//! `VNET_RANDOM_SECONDS` says for how long (5), `VNET_RANDOM_SEED` how (a new seed each time, which is printed).

use crate::{
    common::{Lab, kvm},
    vmm::Guest,
};
use controller::api::types::DatapathView;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};
use vswitchd::counters::check_law;

const LAB: &str = "\
version: 1
name: wild
switches: { sw1: {} }
nodes:
  one: { kind: vhost-user, addresses: [10.0.0.1/24] }
  two: { kind: vhost-user, addresses: [10.0.0.2/24] }
  wild: { kind: vhost-user, addresses: [10.0.0.3/24] }
links: [[one, sw1], [two, sw1], [wild, sw1]]
";

/// By how much the VMM's own memory may grow, in KiB: what its threads touch of their stacks, and the allocator keeps.
const MOST_GROWTH: u64 = 4 << 10;
/// A MiB of the disk, in sectors' bytes. As an address it is in no guest's memory.
static DISK: [u8; 1 << 20] = [0xa5; 1 << 20];

/// From the environment, or else this.
fn wanted(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// A line of `/proc/PID/status`, in KiB: `RssAnon` is the VMM's own memory, without its guest's.
fn status(vmm: &Child, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", vmm.id())).expect("it runs");
    let line = status.lines().find_map(|text| text.strip_prefix(line)).expect("it has that line");
    line.trim_start_matches(':').trim_end_matches("kB").trim().parse().expect("a number")
}

fn descriptors(vmm: &Child) -> usize {
    fs::read_dir(format!("/proc/{}/fd", vmm.id())).expect("it runs").count()
}

/// Killed when it is dropped.
struct Wild(Child);

impl Drop for Wild {
    fn drop(&mut self) {
        // One that has ended already cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_guest_that_uses_every_port_and_register_at_random_harms_nobody() {
    if !kvm("a guest that does things at random") {
        return;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let seed = wanted("VNET_RANDOM_SEED", u64::from(now.subsec_nanos()));
    let seconds = wanted("VNET_RANDOM_SECONDS", 5);
    let lab = Lab::new();
    let file = lab.write("wild.vnet.yaml", LAB);
    let image = lab.path("disk.img");
    fs::write(&image, DISK).expect("a temporary file can be written");
    lab.expect(0, &["up", "-d", file.to_str().expect("a path of ASCII")]);

    let mut one = Guest::start(&lab, "one", "10.0.0.1", "10.0.0.2");
    let mut two = Guest::start(&lab, "two", "10.0.0.2", "10.0.0.1");
    one.until("10.0.0.2 answered after");
    two.until("10.0.0.1 answered after");

    let net = format!(
        "socket={},mac=02:00:00:00:00:77,address=10.0.0.3/24",
        lab.port_socket("wild:eth0").display()
    );
    let vmm = Command::new(env!("CARGO_BIN_EXE_vnet"))
        .args(["vmm", "--memory", "16M", "--cpus", "2", "--rng", "--net", &net])
        .args(["--disk", &format!("path={}", image.display())])
        .args(["--cmdline", &format!("vnet.random={seconds},{seed} vnet.ping=10.0.0.1")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(lab.path("wild.log")).expect("a temporary file"))
        .spawn();
    let mut wild = Wild(vmm.expect("vnet starts"));
    let mut console = BufReader::new(wild.0.stdout.take().expect("a pipe"));
    let mut line = |wanted: &str| {
        let mut bytes = Vec::new();
        while console.read_until(b'\n', &mut bytes).expect("a pipe") > 0 {
            let line = String::from_utf8_lossy(&bytes).into_owned();
            // What it wrote to the console's own port may stand before it.
            if let Some(at) = line.find(wanted) {
                return line[at..].trim_end().to_owned();
            }
            bytes.clear();
        }
        let log = fs::read_to_string(lab.path("wild.log")).unwrap_or_default();
        panic!("seed {seed}: the wild guest ended before it said {wanted:?}: {log}");
    };
    println!("{}", line("random: begun"));
    let before = (status(&wild.0, "RssAnon"), status(&wild.0, "Threads"), descriptors(&wild.0));

    // The console is read on a thread of its own, and tells when it is over; until then the others ping.
    let (over, after, pings) = std::thread::scope(|scope| {
        let over = scope.spawn(|| line("random: over"));
        let (mut pings, mut after) = (0, before);
        while !over.is_finished() {
            two.tell("ping 10.0.0.1");
            // The first request: a second would say that one was lost.
            two.until("(request 0)");
            pings += 1;
            if let Ok(None) = wild.0.try_wait()
                && !over.is_finished()
            {
                after = (status(&wild.0, "RssAnon"), status(&wild.0, "Threads"), descriptors(&wild.0));
            }
        }
        (over.join().expect("it said that it was over"), after, pings)
    });
    println!("{over}");
    println!(
        "{pings} pings beside it, all answered; own memory in KiB, threads, descriptors: {before:?}, then {after:?}"
    );
    // Its devices are as good as new after a reset.
    println!("{}", line("10.0.0.1 answered after"));
    writeln!(wild.0.stdin.take().expect("a pipe"), "poweroff").expect("the VMM reads its console");
    let code = wild.0.wait().expect("it ends").code();
    let log = fs::read_to_string(lab.path("wild.log")).expect("a temporary file");
    assert_eq!((code, log.lines().last()), (Some(0), Some("the guest powered off")), "seed {seed}: {log}");
    assert!(!log.contains("bug of the VMM"), "seed {seed}: {log}");
    assert!(pings > 0 && after.0 <= before.0 + MOST_GROWTH, "seed {seed}: grew from {before:?} to {after:?}");
    // A guest may have begun before the threads beside its vCPUs: the serial ports', and the signals'.
    assert!(after.1 <= before.1 + 4 && after.2 <= before.2 + 4, "seed {seed}: from {before:?} to {after:?}");
    assert!(fs::read(&image).expect("the image") == DISK, "seed {seed}: the image is another");

    let ports = lab.ports();
    check_law(ports.values().map(|row| &row.counters)).expect("the accounting law");
    for neighbour in ["one:eth0", "two:eth0"] {
        assert_eq!(ports[neighbour].counters.faults, 0, "seed {seed}: {ports:?}");
    }
    let datapath: DatapathView = serde_json::from_value(lab.json(&["show", "datapath"])).expect("a datapath");
    assert!(datapath.workers.iter().all(|worker| worker.panics == 0), "seed {seed}: {datapath:?}");
    assert_eq!(datapath.restarts, 0, "seed {seed}: the switch was restarted");
    println!("the wild guest's port: {} faults", ports["wild:eth0"].counters.faults);
    assert_eq!([one.power_off(), two.power_off()], [Some(0); 2]);
}
