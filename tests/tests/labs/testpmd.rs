//! DPDK's testpmd as two guests with four queue pairs each, its transmit offloads on: none of its frames is missing.

use crate::common::{Lab, left_out};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};
use vhost_net_backend::features;

const LAB: &str = "version: 1
name: testpmd
datapath: { workers: 2 }
switches: { sw1: {} }
nodes:
  g0: { kind: vhost-user, queues: 4, mac: \"02:00:00:00:00:01\", listen: ./g0.sock }
  g1: { kind: vhost-user, queues: 4, mac: \"02:00:00:00:00:02\", listen: ./g1.sock }
links: [[g0, sw1], [g1, sw1]]
";

const GUESTS: [&str; 2] = ["g0:eth0", "g1:eth0"];

/// VLAN insertion, UDP and TCP checksums, TCP segmentation, frames in several buffers (`rte_ethdev.h`): all that DPDK's driver has.
const TX_OFFLOADS: &str = "--tx-offloads=0x802d";

/// Frames that each guest sends at least.
const ENOUGH: u64 = 100_000;

const PATIENCE: Duration = Duration::from_secs(60);

/// The process, and what it has said.
struct Testpmd {
    process: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Testpmd {
    /// Starts it, both its ports attached to `lab`; none if it is not there.
    fn start(lab: &Lab) -> Option<Self> {
        let guest = |number: usize| {
            let socket = lab.path(&format!("g{number}.sock"));
            let mac = format!("02:00:00:00:00:0{}", number + 1);
            format!(
                "--vdev=net_virtio_user{number},path={},queues=4,queue_size=256,mac={mac}",
                socket.display()
            )
        };
        // Without that what it says would wait in a buffer.
        let mut command = Command::new("stdbuf");
        command.args([
            "-oL",
            "dpdk-testpmd",
            "--no-shconf",
            "--no-huge",
            "-m",
            "256",
            "--no-pci",
            "--no-telemetry",
        ]);
        command.args([
            "--lcores=(0,1)@0",
            &guest(0),
            &guest(1),
            "--",
            "-i",
            "--nb-cores=1",
            "--rxq=4",
            "--txq=4",
        ]);
        command.args([
            "--forward-mode=csum",
            "--port-topology=paired",
            "--no-flush-rx",
            "--txonly-multi-flow",
        ]);
        command.args(["--eth-peer=0,02:00:00:00:00:02", "--eth-peer=1,02:00:00:00:00:01", TX_OFFLOADS]);
        command.args(["--total-num-mbufs=16384", "--rxd=256", "--txd=256"]);
        let there = Command::new("sh").args(["-c", "command -v dpdk-testpmd"]).stdout(Stdio::null()).status();
        if !there.is_ok_and(|status| status.success()) {
            return None;
        }
        command.env("RUNTIME_DIRECTORY", lab.path(""));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("stdbuf starts");
        let (said, lines) = mpsc::channel();
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        Some(Self { input: process.stdin.take().expect("a pipe"), process, lines })
    }

    fn tell(&mut self, commands: &[&str]) {
        commands.iter().for_each(|command| writeln!(self.input, "{command}").expect("it reads"));
    }

    /// The next numbers that stand behind `name`, one for each port.
    fn numbers(&self, end: Instant, names: [&str; 2]) -> [[u64; 2]; 2] {
        let mut found = [[0; 2]; 2];
        for port in &mut found {
            for (number, name) in port.iter_mut().zip(names) {
                *number = loop {
                    let left = end.saturating_duration_since(Instant::now());
                    let line = self.lines.recv_timeout(left).expect("testpmd goes on");
                    // Also said of each stream, without RX-missed.
                    if let Some((_, behind)) = line.split_once(name).filter(|_| !line.contains("dropped")) {
                        let word = behind.split_whitespace().next().expect("a number");
                        break word.parse().expect("a number");
                    }
                };
            }
        }
        found
    }

    /// Frames received and sent, as each of its ports counts them.
    fn frames(&mut self, end: Instant) -> [[u64; 2]; 2] {
        self.tell(&["show port stats all"]);
        self.numbers(end, ["  RX-packets:", "  TX-packets:"])
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_guest_of_dpdk_with_four_queues_and_its_offloads_misses_no_frame() {
    let lab = Lab::new();
    let file = lab.write("testpmd.vnet.yaml", LAB);
    lab.expect(0, &["up", "-d", &file.display().to_string()]);
    let Some(mut testpmd) = Testpmd::start(&lab) else {
        return left_out("DPDK as a guest: this machine lacks dpdk-testpmd");
    };
    GUESTS.iter().for_each(|port| drop(lab.port_up(port)));
    // Ports are stopped to be set up, which is a reset for the switch.
    let set_up = ["csum set udp hw 0", "csum set tcp hw 0", "csum set udp hw 1", "csum set tcp hw 1"];
    testpmd.tell(&["port stop all"]);
    testpmd.tell(&set_up);
    testpmd.tell(&["port start all", "start tx_first 4"]);
    let end = Instant::now() + PATIENCE;
    let ports = loop {
        let ports = lab.ports();
        if GUESTS.iter().all(|port| ports[*port].counters.from_port.frames > ENOUGH) {
            break ports;
        }
        assert!(Instant::now() < end, "too few frames: {ports:#?}");
    };
    for port in GUESTS {
        let row = &ports[port];
        let wanted = features::NET_CSUM | features::NET_HOST_TSO4 | features::NET_HOST_TSO6;
        assert_eq!(row.features & wanted, wanted, "{:#x}", row.features);
        let rings: BTreeSet<u16> = row.rings.keys().copied().collect();
        assert_eq!(rings, (0..8).collect(), "all rings run");
        assert!(row.ring_frames.values().all(|frames| *frames > ENOUGH / 100), "{:?}", row.ring_frames);
    }
    // What is under way is only received from now on.
    testpmd.tell(&["stop", "set fwd rxonly", "start"]);
    let [first, second] = loop {
        let frames = testpmd.frames(end);
        let [[received_first, sent_first], [received_second, sent_second]] = frames;
        if (received_first, received_second) == (sent_second, sent_first) {
            break frames;
        }
        assert!(Instant::now() < end, "frames are missing: {frames:?} {:#?}", lab.ports());
    };
    let ports = lab.ports();
    for (port, [received, sent]) in GUESTS.iter().zip([first, second]) {
        let counters = &ports[*port].counters;
        assert_eq!((counters.to_port.delivered, counters.from_port.frames), (received, sent), "{counters:?}");
        assert!(counters.to_port.dropped.is_empty() && counters.from_port.dropped.is_empty(), "{counters:?}");
        println!("{port}: sent {sent}, received {received}, by ring {:?}", ports[*port].ring_frames);
    }
    println!("missing {}", first[1] + second[1] - first[0] - second[0]);
    testpmd.tell(&["stop", "quit"]);
    lab.assert_sound();
}
