//! Several queue pairs in Debian guests: eight flows in both directions, every queue used, and the number of queues changed meanwhile.

use crate::{
    common::{Lab, real_guests},
    linux::shell,
};
use controller::api::types::PortRow;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    flow::Flow,
    mac::MacAddr,
};

/// Two workers, so that the transmitqs of a guest have several.
const LAB: &str = "version: 1
name: queues
datapath: { workers: 2 }
switches: { sw1: {} }
nodes:
  vm1: { kind: vm, image: debian, vmm: qemu, cpus: 4, queues: 4, addresses: [10.0.0.1/24] }
  vm2: { kind: vm, image: debian, vmm: qemu, cpus: 4, queues: 4, addresses: [10.0.0.2/24] }
links: [[vm1, sw1], [vm2, sw1]]
";

const QUEUES: u16 = 4;
const FLOWS: u16 = 8;

/// Where iperf3 listens.
const SERVER: u16 = 5201;

/// How long the answers of two guests may lag behind each other.
const PATIENCE: Duration = Duration::from_secs(20);

/// The receiveqs that these flows are for, of all.
fn receiveqs(first_port: u16) -> BTreeSet<usize> {
    let link = Ethernet { src: MacAddr::default(), dst: MacAddr::default(), tag: None };
    let addresses = Addresses::V4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let receiveq = |port| {
        let frame = build::tcp_syn(link, addresses, (port, SERVER), 0);
        Flow::of(&frame, frame.len() as u32).choose((0..QUEUES).map(|pair| 2 * pair)).expect("there are some")
    };
    (first_port..first_port + FLOWS).map(receiveq).collect()
}

/// Eight flows from `vm1` to `vm2` for so long. What a window has fits the buffers of a single receiveq.
fn flows(lab: &Lab, first_port: u16, seconds: u16) {
    let line =
        format!("iperf3 -c 10.0.0.2 -P {FLOWS} --cport {first_port} -w 64K -t {seconds} -i 0 2>&1 | tail -4");
    println!("{}", shell(lab, "vm1", &line));
}

/// Frames that the kernel of `node` has received and sent by `eth0`.
fn kernel_frames(lab: &Lab, node: &str) -> (u64, u64) {
    let said = shell(lab, node, "cd /sys/class/net/eth0/statistics; cat rx_packets tx_packets");
    let mut numbers = said.split_whitespace().filter_map(|word| word.parse().ok());
    (numbers.next().expect("rx"), numbers.next().expect("tx"))
}

/// What the switch has delivered to a port and taken from it.
fn switch_frames(row: &PortRow) -> (u64, u64) {
    (row.counters.to_port.delivered, row.counters.from_port.frames)
}

/// Waits until kernels and switch have counted the same, and returns what the switch has.
fn agree(lab: &Lab) -> BTreeMap<String, PortRow> {
    let end = Instant::now() + PATIENCE;
    loop {
        let kernels = ["vm1", "vm2"].map(|node| kernel_frames(lab, node));
        let ports = lab.ports();
        let switch = ["vm1:eth0", "vm2:eth0"].map(|port| switch_frames(&ports[port]));
        if kernels == switch {
            println!("received and sent, as both kernels and the switch say: {switch:?}");
            return ports;
        }
        assert!(Instant::now() < end, "the kernels say {kernels:?}, the switch says {switch:?}");
    }
}

#[test]
fn eight_flows_use_every_queue_and_lose_nothing_while_the_number_of_queues_changes() {
    if !real_guests() {
        return;
    }
    let lab = Lab::new();
    let file = lab.write("queues.vnet.yaml", LAB);
    lab.expect(0, &["up", "-d", &file.display().to_string()]);
    shell(&lab, "vm2", &format!("iperf3 -s -p {SERVER} -D"));
    for node in ["vm1", "vm2"] {
        assert_eq!(shell(&lab, node, "ethtool -l eth0 | grep -c 'Combined:.*4'"), "2\n", "{node}");
    }
    // Which queue a flow has follows from its ports: here every queue has one.
    let first_port = (40_000..).step_by(16).find(|port| receiveqs(*port).len() == usize::from(QUEUES));
    let first_port = first_port.expect("some eight flows use all");

    // A TCP that sees its peer for the first time, and the caches of both.
    shell(&lab, "vm1", "ping -q -c 3 -i 0.2 10.0.0.2");
    let before = lab.ports();
    flows(&lab, first_port, 4);
    let after = lab.ports();
    let by_ring = |port: &str, odd: u16| -> Vec<u64> {
        let rings = after[port].ring_frames.iter().filter(|(index, _)| *index % 2 == odd);
        rings.map(|(index, frames)| frames - before[port].ring_frames[index]).collect()
    };
    println!("by receiveq: {:?} {:?}", by_ring("vm1:eth0", 0), by_ring("vm2:eth0", 0));
    // Which of its transmitqs Linux takes depends on the CPU that sends.
    println!("by transmitq: {:?} {:?}", by_ring("vm1:eth0", 1), by_ring("vm2:eth0", 1));
    for port in ["vm1:eth0", "vm2:eth0"] {
        assert!(by_ring(port, 0).iter().all(|frames| *frames > 20), "{port}: {:?}", by_ring(port, 0));
    }

    let before = agree(&lab);
    let done = AtomicBool::new(false);
    let changes = thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            flows(&lab, first_port, 10);
            done.store(true, Ordering::Relaxed);
        });
        let mut changes = 0;
        for combined in [1, 4, 2, 3].iter().cycle() {
            if done.load(Ordering::Relaxed) || traffic.is_finished() {
                break;
            }
            for node in ["vm1", "vm2"] {
                shell(&lab, node, &format!("ethtool -L eth0 combined {combined}"));
                changes += 1;
            }
        }
        traffic.join().expect("the flows end well");
        changes
    });
    println!("{changes} changes of the number of queues");
    assert!(changes >= 8, "only {changes} changes");
    let after = agree(&lab);
    for port in ["vm1:eth0", "vm2:eth0"] {
        let [before, after] = [&before, &after].map(|rows| &rows[port].counters);
        assert_eq!(before.from_port.dropped, after.from_port.dropped, "{port}");
        assert_eq!(before.to_port.dropped, after.to_port.dropped, "{port}");
        assert!(after.from_port.frames > before.from_port.frames + 1000, "{after:?}");
    }
    lab.assert_sound();
}
