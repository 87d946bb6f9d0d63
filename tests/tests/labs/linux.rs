//! Debian's own kernels at work in the example `linux`: bulk data within a VLAN, none of it in the other, and a
//! driver that comes and goes.

use crate::common::{Lab, real_guests, topology};
use controller::{
    api::types::{TestReport, TestResult, TransferReport},
    vm::accel::{self, Why},
};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use vswitch_core::drop_reason::DropReason;
use vswitchd::control::protocol::ToPort;

/// The least that 64 MiB take at an MTU of 1500.
const LEAST_SEGMENTS: u64 = (64 << 20) / 1460;

/// `vm2`, whose driver is reloaded, is pinged over IPv6, and the station beside it over IPv4: so a kernel counts them apart.
const RELOADED: &str = "2001:db8:10::2";
const NEIGHBOUR: &str = "10.0.10.9";

/// Feature bits of virtio-net (virtio 1.2 §5.1.3): CSUM, GUEST_CSUM, GUEST_TSO4 and 6, HOST_TSO4 and 6.
const OFFLOADS: [usize; 6] = [0, 1, 7, 8, 11, 12];

/// What the driver of a guest negotiated: a digit for each feature bit, from the lowest on.
fn features(lab: &Lab, node: &str) -> String {
    shell(lab, node, "cat /sys/class/net/eth0/device/features")
}

/// What the switch has sent to a node.
fn to_port(lab: &Lab, node: &str) -> ToPort {
    lab.ports()[&format!("{node}:eth0")].counters.to_port.clone()
}

/// The lab `linux`, up.
fn linux() -> Lab {
    let lab = Lab::new();
    let (_, said) = lab.expect(0, &["up", "-d", &topology("linux.vnet.yaml")]);
    // The file leaves the VMM to the machine, which says what it took, and why not vmm-lite.
    let kvm = accel::for_kernels();
    let how = if kvm == Why::Usable { "vmm-lite".to_owned() } else { format!("QEMU, tcg: {kvm}") };
    assert!(said.contains(&format!("vm1 started: {how}")), "{said}");
    lab
}

/// Runs a line of shell in `node`, and returns what it printed; it must end well.
pub(crate) fn shell(lab: &Lab, node: &str, line: &str) -> String {
    lab.expect(0, &["exec", node, "--", "sh", "-c", line]).0
}

/// What busybox's `ping -q` counted in the end: requests sent, and answered.
fn echoes(said: &str) -> (u64, u64) {
    let summary = said.lines().find(|line| line.contains("packets transmitted")).expect("a summary");
    let mut numbers = summary.split_whitespace().filter_map(|word| word.parse().ok());
    (numbers.next().expect("how many were sent"), numbers.next().expect("how many were answered"))
}

#[test]
fn bulk_data_crosses_one_vlan_unharmed_and_the_guest_in_the_other_gets_nothing() {
    if !real_guests() {
        return;
    }
    let lab = linux();
    // A station takes no frame that is left unfinished; Linux takes and sends large ones, unchecksummed.
    assert!(
        OFFLOADS.iter().all(|bit| features(&lab, "vm1").as_bytes()[*bit] == b'1'),
        "{}",
        features(&lab, "vm1")
    );
    let shown = shell(&lab, "vm1", "ethtool -k eth0");
    for offload in ["rx-checksumming", "tx-checksumming", "scatter-gather", "tcp-segmentation-offload"] {
        assert!(shown.contains(&format!("{offload}: on")), "{shown}");
    }
    for (src, dst) in [("vm1", "vm2"), ("vm2", "vm1"), ("vm1", "st1"), ("st1", "vm1")] {
        let before = to_port(&lab, dst);
        let report: TransferReport =
            serde_json::from_value(lab.json(&["transfer", src, dst, "--size", "64"])).expect("a report");
        assert_eq!(report.sent, report.received, "{report:?}");
        assert_eq!(report.received.bytes, 64 << 20, "{report:?}");
        let mbit = report.received.bytes * 8 / report.elapsed_micros.max(1);
        let after = to_port(&lab, dst);
        let (frames, bytes) = (after.delivered - before.delivered, after.bytes - before.bytes);
        assert!(bytes > 64 << 20, "{before:?} {after:?}");
        println!(
            "{src} -> {dst}: 64 MiB at {mbit} Mbit/s in {frames} frames, checksum {:016x} at both ends",
            report.received.checksum
        );
        if src == "st1" {
            continue;
        }
        let sent = report.segments_sent.expect("Linux counts segments");
        let again = report.segments_retransmitted.expect("Linux counts those sent again");
        assert!(sent >= LEAST_SEGMENTS, "{report:?}");
        assert!(again * 1000 <= sent, "more than 0.1 % was sent again: {report:?}");
        // Between two guests that can, large frames stay large; a large frame for a station is one to the switch, too.
        assert!(frames < LEAST_SEGMENTS / 2, "{frames} frames for {sent} segments");
    }

    // What else could stray: broadcasts, and frames of VLAN `users` to the very address of the guest in `servers`.
    let mac = lab.ports()["vm3:eth0"].mac.expect("it is a VM of ours");
    shell(&lab, "vm1", "ping -q -c 50 -i 0.01 -W 5 10.0.10.255");
    let stray = format!("arp -s 10.0.10.33 {mac}; ping -q -c 50 -i 0.01 -W 1 10.0.10.33 || true");
    assert_eq!(echoes(&shell(&lab, "vm1", &stray)), (50, 0));

    // The fate of each probe frame proves the denials of the file.
    let report: TestReport = serde_json::from_value(lab.json(&["test", "--running"])).expect("a report");
    assert!(report.rows.iter().all(|row| row.result == TestResult::Pass), "{report:?}");
    let denied: Vec<_> =
        report.rows.iter().filter(|row| row.expectation.contains("deny because vlan")).collect();
    assert_eq!(denied.len(), 3, "{report:?}");
    for row in denied {
        let to_others = row.proof.starts_with("went to ") && row.proof.contains("not to vm3:eth0");
        assert!(to_others || row.proof.starts_with("dropped: no-receiver"), "{row:?}");
    }
    let ports = lab.ports();
    let inside = &ports["vm2:eth0"].counters.to_port;
    assert!(inside.bytes > 64 << 20, "{inside:?}");
    let sender = &ports["vm1:eth0"].counters.from_port;
    assert!(sender.flooded >= 100, "broadcasts and strays were flooded: {sender:?}");
    let outside = &ports["vm3:eth0"].counters.to_port;
    assert_eq!((outside.copies, outside.delivered, outside.bytes), (0, 0, 0), "{outside:?}");
    lab.assert_sound();

    // Last, for the port comes up anew: a guest sees what is said of its link.
    for (state, carrier) in [("down", "0"), ("up", "1")] {
        lab.expect(0, &["link", "vm3", state]);
        let seen =
            format!("until [ \"$(cat /sys/class/net/eth0/carrier)\" = {carrier} ]; do :; done; echo seen");
        assert_eq!(shell(&lab, "vm3", &seen), "seen\n");
    }
    let (_, refused) = lab.expect(2, &["link", "st1", "down"]);
    assert!(refused.contains("no virtual machine"), "{refused}");
}

/// Pings `address` from `node` again and again, many times a second, until `done`: requests sent, and answered.
fn ping_until(lab: &Lab, node: &str, address: &str, done: &AtomicBool) -> (u64, u64) {
    let (mut sent, mut answered) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        let line = format!("ping -q -c 200 -i 0.005 -W 2 {address} || true");
        let (more, of_them) = echoes(&shell(lab, node, &line));
        (sent, answered) = (sent + more, answered + of_them);
    }
    (sent, answered)
}

/// Echo requests that the kernel of `node` sent over IPv4, and echo replies that it received.
///
/// The kernel's word, for busybox's `ping` has a receive buffer of 7 KiB that overflows when its guest is short of CPU.
fn kernel_echoes(lab: &Lab, node: &str) -> (u64, u64) {
    let said = shell(lab, node, "grep ^Icmp: /proc/net/snmp");
    let mut lines = said.lines().map(str::split_whitespace);
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let counts: BTreeMap<_, _> = names.zip(values).collect();
    let count = |name| counts.get(name).and_then(|count| count.parse().ok()).expect("RFC 2011 names it");
    (count("OutEchos"), count("InEchoReps"))
}

/// Unloads and loads the driver of `vm2`, and waits until its port is up and a ping comes back: how long that took.
fn reload(lab: &Lab) -> Duration {
    // The kernel never gives an index twice, so a new one is a new interface.
    let index =
        || shell(lab, "vm2", "cat /sys/class/net/eth0/ifindex").trim().parse::<u32>().expect("an index");
    let (before, began) = (index(), Instant::now());
    shell(lab, "vm2", "reload-driver");
    lab.port_up("vm2:eth0");
    let line = format!("for attempt in $(seq 10); do ping -q -c 1 -W 1 {RELOADED} && exit; done; exit 1");
    shell(lab, "vm1", &line);
    let took = began.elapsed();
    assert!(index() > before, "the driver made no new interface");
    took
}

#[test]
fn a_driver_reloaded_ten_times_under_traffic_comes_back_and_its_neighbours_lose_no_frame() {
    if !real_guests() {
        return;
    }
    let lab = linux();
    let (ports_before, echoes_before) = (lab.ports(), kernel_echoes(&lab, "vm1"));
    let done = AtomicBool::new(false);
    let (took, reloaded) = thread::scope(|scope| {
        let reloaded = scope.spawn(|| ping_until(&lab, "vm1", RELOADED, &done));
        let neighbours = scope.spawn(|| ping_until(&lab, "vm1", NEIGHBOUR, &done));
        let took = scope.spawn(|| (0..10).map(|_| reload(&lab)).collect::<Vec<_>>()).join();
        // Also if a reload failed: its panic is to be seen, not waited for.
        done.store(true, Ordering::Relaxed);
        neighbours.join().expect("pings run");
        (took.expect("each reload ends well"), reloaded.join().expect("pings run"))
    });
    let (ports, echoes) = (lab.ports(), kernel_echoes(&lab, "vm1"));
    let (asked, answered) = (echoes.0 - echoes_before.0, echoes.1 - echoes_before.1);
    println!(
        "reloads until a ping came back: {took:?}\npings sent and answered: to the guest {reloaded:?}, beside it \
         ({asked}, {answered})"
    );

    for port in ["vm1:eth0", "st1:eth0"] {
        let [before, after] = [&ports_before, &ports].map(|rows| &rows[port].counters);
        assert_eq!(before.from_port.dropped, after.from_port.dropped, "{port}");
        assert_eq!(before.to_port.dropped, after.to_port.dropped, "{port}");
    }
    assert!(asked >= 200, "only {asked} echo requests");
    assert_eq!(asked, answered, "the neighbours lost frames: {ports:#?}");

    assert!(reloaded.1 > 0, "nothing came through between two reloads: {reloaded:?}");
    let [before, after] = [&ports_before, &ports].map(|rows| {
        let dropped = &rows["vm2:eth0"].counters.to_port.dropped;
        dropped.get(&DropReason::PortDown).copied().unwrap_or(0)
    });
    assert!(after > before, "no frame met the port while its driver was out: {ports:#?}");
    lab.assert_sound();
}
