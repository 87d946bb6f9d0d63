//! Bundled guests as `kind: vm`: what the example expects, their consoles, what becomes of one that dies and of all when the switch
//! does, and many of them. And who is told that vmm-lite cannot run theirs.

use crate::{
    common::{Lab, kvm, left_out, topology},
    process::{eventually, kill},
};
use controller::{
    api::types::{DatapathView, ExitsRow, NodeRow, NodeState, PingallReport, PortRow},
    vm::accel::{self, Why},
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};
use vswitchd::control::protocol::PortState;

/// How long anything may take here; a guest is up in some milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// For how long it is looked what idle guests take: the clock of /proc has ticks of 10 ms.
const IDLE: Duration = Duration::from_secs(3);

impl Lab {
    /// `show nodes`.
    fn nodes(&self) -> Vec<NodeRow> {
        serde_json::from_value(self.json(&["show", "nodes"])).expect("rows of nodes")
    }

    fn node(&self, name: &str) -> NodeRow {
        self.nodes().into_iter().find(|row| row.node == name).expect("it is a node")
    }

    /// Waits until a node has ended.
    fn ended(&self, name: &str) -> NodeRow {
        let end = Instant::now() + PATIENCE;
        loop {
            let row = self.node(name);
            if row.state == NodeState::Ended {
                return row;
            }
            assert!(Instant::now() < end, "{name} does not end: {row:?}");
        }
    }

    /// The time that all processes of the lab have run, of a CPU's.
    fn ran(&self) -> Duration {
        let ticks = self.processes().into_iter().map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // Behind the name, which may hold anything: utime and stime are the 12th and 13th (proc_pid_stat(5)).
            let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
            fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum::<u64>()
        });
        Duration::from_secs(ticks.sum()) / rustix::param::clock_ticks_per_second().try_into().expect("100")
    }

    /// What share of a CPU they take while nobody asks them anything for `window`.
    fn busy_within(&self, window: Duration) -> f64 {
        let before = self.ran();
        // What cannot happen is waited for, as long as they are watched.
        let timeout = rustix::event::Timespec::try_from(window).expect("seconds fit");
        assert_eq!(rustix::event::poll(&mut [], Some(&timeout)), Ok(0));
        (self.ran() - before).as_secs_f64() / window.as_secs_f64()
    }

    /// Types a line at a node's console, and reads it until it says `wanted`.
    fn type_at(&self, node: &str, line: &str, wanted: &str) {
        let console = self.runtime().join("vms").join(node).join("console.sock");
        let mut console = UnixStream::connect(console).expect("a console");
        console.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        writeln!(console, "{line}").expect("a console");
        let (mut said, mut bytes) = (String::new(), [0; 256]);
        while !said.contains(wanted) {
            let read = console.read(&mut bytes).expect("it says something");
            assert_ne!(read, 0, "it hung up after: {said}");
            said.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }
}

#[test]
fn a_guest_whose_link_is_down_hears_and_says_nothing() {
    if !kvm("bundled guests as nodes") {
        return;
    }
    let lab = Lab::new();
    let node = |name: &str, last: u8| format!("  {name}: {{ kind: vm, addresses: [10.0.0.{last}/24] }}\n");
    let nodes = [node("vm1", 1), node("vm2", 2)].concat();
    let text = format!(
        "version: 1\nname: vms\nswitches: {{ sw1: {{}} }}\nnodes:\n{nodes}links:\n  - [vm1, sw1]\n  - [vm2, sw1]\n"
    );
    let file = lab.write("link.vnet.yaml", &text);
    lab.expect(0, &["up", "-d", file.to_str().expect("a path of ASCII")]);
    for (state, pairs) in [("down", 0), ("up", 2)] {
        lab.expect(0, &["link", "vm1", state]);
        // It looks some milliseconds later, and ping may have asked before.
        eventually(state, || {
            let report: PingallReport =
                serde_json::from_slice(&lab.vnet(&["pingall", "--format", "json"]).stdout).ok()?;
            let answered = report.cells.iter().filter(|cell| cell.rtt_micros.is_some()).count();
            (report.cells.len() == 2 && answered == pairs).then_some(())
        });
    }
    lab.assert_sound();
}

#[test]
fn a_guest_boots_with_its_link_down_if_the_file_says_so_and_link_up_brings_it_up() {
    if !kvm("bundled guests as nodes") {
        return;
    }
    let lab = Lab::new();
    let text = "version: 1\nname: vms\nswitches: { sw1: {} }\nnodes:\n  \
                st1: { kind: station, addresses: [10.0.0.1/24] }\n  \
                vm1: { kind: vm, addresses: [10.0.0.2/24], state: down }\nlinks: [[st1, sw1], [vm1, sw1]]\n\
                expect: [st1 -> vm1 icmp allow]\n";
    let file = lab.write("down.vnet.yaml", text);
    let file = file.to_str().expect("a path of ASCII");
    let port = || {
        let rows: Vec<PortRow> = serde_json::from_value(lab.json(&["show", "ports"])).expect("rows of ports");
        rows.into_iter().find(|row| row.port == "vm1:eth0").expect("it is a port")
    };
    let answered = || {
        let said = lab.vnet(&["pingall", "--format", "json"]).stdout;
        let report: PingallReport = serde_json::from_slice(&said).expect("a report");
        assert_eq!(report.cells.len(), 2);
        report.cells.iter().filter(|cell| cell.rtt_micros.is_some()).count()
    };
    let is_down =
        |port: &PortRow| port.state == PortState::Down && port.detail.contains("`vnet link vm1 up`");
    lab.expect(0, &["up", "-d", file]);
    assert!(is_down(&port()), "{:?}", port());
    assert_eq!(answered(), 0);
    let (said, _) = lab.expect(6, &["test", "--running"]);
    assert!(said.contains("`vnet link vm1 up`"), "{said}");
    let (said, _) = lab.expect(0, &["trace", "st1", "vm1", "icmp"]);
    assert!(said.contains("does not reach vm1:eth0") && said.contains("`vnet link vm1 up`"), "{said}");

    lab.expect(0, &["link", "vm1", "up"]);
    // It looks some milliseconds later.
    eventually("it hears", || (answered() == 2).then_some(()));
    assert_eq!(port().state, PortState::Up);
    lab.expect(0, &["test", "--running"]);

    // One that is started again finds its link as it was left.
    lab.expect(0, &["link", "vm1", "down"]);
    lab.type_at("vm1", "poweroff", "");
    lab.ended("vm1");
    lab.expect(0, &["up", "-d", file]);
    assert!(is_down(&port()), "{:?}", port());
    assert_eq!(answered(), 0);
    lab.assert_sound();
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn a_guest_has_a_console_a_log_and_a_report_and_when_it_ends_up_brings_it_back() {
    if !kvm("bundled guests as nodes") {
        return;
    }
    let lab = Lab::new();
    let file = topology("vms.vnet.yaml");
    lab.expect(0, &["up", "-d", &file]);
    let row = lab.node("vm1");
    assert!(row.state == NodeState::Ready && row.detail.contains("vmm-lite"), "{row:?}");
    let first = row.pid.expect("a process");

    lab.type_at("vm1", "uptime", "up ");
    lab.type_at("vm1", "ping 10.0.10.2", "10.0.10.2 answered after");
    let (log, _) = lab.expect(0, &["logs", "vm1"]);
    assert!(log.contains("vnet guest") && log.contains("eth0"), "{log}");
    let (_, refused) = lab.expect(2, &["exec", "vm1", "--", "true"]);
    assert!(refused.contains("vm1"), "{refused}");

    // One ends by itself, one is killed: both say so, and the lab goes on.
    lab.type_at("vm1", "poweroff", "");
    let row = lab.ended("vm1");
    assert!(row.detail.contains("the guest powered off") && row.detail.contains("vnet up"), "{row:?}");
    let victim = lab.node("vm3").pid.and_then(|pid| i32::try_from(pid).ok()).expect("a process");
    let victim = rustix::process::Pid::from_raw(victim).expect("a process");
    rustix::process::kill_process(victim, rustix::process::Signal::KILL).expect("it runs");
    let row = lab.ended("vm3");
    assert!(row.detail.contains("killed by signal 9"), "{row:?}");
    let (report, _) = lab.expect(6, &["test", "--running"]);
    assert!(report.contains("vm3"), "{report}");

    lab.expect(0, &["up", "-d", &file]);
    let row = lab.node("vm1");
    assert!(row.state == NodeState::Ready && row.pid.is_some_and(|pid| pid != first), "{row:?}");
    let (report, _) = lab.expect(0, &["test", "--running"]);
    assert!(!report.contains("FAIL") && !report.contains("ERROR"), "{report}");
    lab.assert_sound();
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn exits_are_shown_by_kind_and_grow_and_a_lab_without_guests_says_so() {
    if !kvm("exits of bundled guests") {
        return;
    }
    let lab = Lab::new();
    lab.expect(0, &["up", "-d", &topology("vms.vnet.yaml")]);
    let exits = || {
        let rows = lab.json(&["show", "nodes", "--exits"]);
        let rows: Vec<ExitsRow> = serde_json::from_value(rows).expect("rows of exits");
        let row = rows.into_iter().find(|row| row.node == "vm1").expect("it is a virtual machine");
        let counts = row.exits.expect("its VMM counts").into_iter();
        counts.map(|exit| (exit.kind, (exit.count, exit.nanoseconds))).collect::<BTreeMap<_, _>>()
    };
    let before = exits();
    lab.type_at("vm1", "ping 10.0.10.2", "10.0.10.2 answered after");
    let end = Instant::now() + PATIENCE;
    loop {
        let after = exits();
        if ["port", "wait"].iter().all(|kind| {
            let ((count, time), (counted, took)) = (before[*kind], after[*kind]);
            counted > count && took > time
        }) {
            break;
        }
        assert!(Instant::now() < end, "{before:?}, then {after:?}");
    }
    let (shown, _) = lab.expect(0, &["show", "nodes", "--exits"]);
    assert!(
        shown.trim_start().starts_with("NODE") && shown.contains("wait") && !shown.contains("st1"),
        "{shown}"
    );
    let (_, refused) = lab.expect(2, &["show", "ports", "--exits"]);
    assert!(refused.contains("vnet show nodes --exits"), "{refused}");
    // One that has ended counts no more.
    lab.type_at("vm1", "poweroff", "");
    lab.ended("vm1");
    let (shown, _) = lab.expect(0, &["show", "nodes", "--exits"]);
    let mut rows = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(rows.find(|row| row.first() == Some(&"vm1")), Some(vec!["vm1", "-", "-", "-"]), "{shown}");
    lab.expect(0, &["down"]);

    lab.expect(0, &["up", "-d", &topology("hello.vnet.yaml")]);
    let (shown, _) = lab.expect(0, &["show", "nodes", "--exits"]);
    assert_eq!(shown.trim_end(), "the lab has no virtual machines");
}

#[test]
fn twenty_guests_are_up_at_once_and_all_reach_all() {
    if !kvm("bundled guests as nodes") {
        return;
    }
    const GUESTS: usize = 20;
    let (mut nodes, mut links) = (String::new(), String::new());
    for number in 1..=GUESTS {
        // Writing to a String cannot fail.
        let _ = writeln!(nodes, "  vm{number}: {{ kind: vm, memory: 16M, addresses: [10.0.0.{number}/24] }}");
        let _ = writeln!(links, "  - [vm{number}, sw1]");
    }
    let lab = Lab::new();
    let text = format!("version: 1\nname: many\nswitches: {{ sw1: {{}} }}\nnodes:\n{nodes}links:\n{links}");
    let file = lab.write("many.vnet.yaml", &text);
    let begin = Instant::now();
    lab.expect(0, &["up", "-d", file.to_str().expect("a path of ASCII")]);
    let up = begin.elapsed();
    let report: PingallReport = serde_json::from_value(lab.json(&["pingall"])).expect("a report");
    let all = begin.elapsed();
    eprintln!("{GUESTS} guests up after {up:?}, {} pairs pinged after {all:?}", report.cells.len());
    assert_eq!(report.cells.len(), GUESTS * (GUESTS - 1));
    let silent: Vec<_> = report.cells.iter().filter(|cell| cell.error.is_some()).collect();
    assert!(silent.is_empty(), "{silent:?}");
    let idle = lab.busy_within(IDLE);
    eprintln!("idle, all of the lab takes {:.2} % of a CPU", 100.0 * idle);
    assert!(idle < 0.02, "an idle lab of {GUESTS} guests takes {:.1} % of a CPU", 100.0 * idle);
    lab.assert_sound();
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn guests_outlive_their_switch_and_up_does_not_start_them_again() {
    if !kvm("bundled guests whose switch dies") {
        return;
    }
    let lab = Lab::new();
    let file = topology("vms.vnet.yaml");
    lab.expect(0, &["up", "-d", &file]);
    // While there is none, it cannot be shown.
    let datapath = || {
        let shown = lab.vnet(&["show", "datapath", "--format", "json"]);
        serde_json::from_slice::<DatapathView>(&shown.stdout).ok()
    };
    let born: Vec<_> = lab.nodes().into_iter().map(|row| (row.node, row.pid)).collect();
    for times in 1..=3 {
        let before = datapath().expect("a switch").pid;
        kill(before);
        eventually("another switch", || datapath().filter(|now| now.pid != before));
        // Whoever says `up` waits for the ports, and starts nobody again.
        lab.expect(0, &["up", "-d", &file]);
        let (report, _) = lab.expect(0, &["test", "--running"]);
        assert!(!report.contains("FAIL") && !report.contains("ERROR"), "{report}");
        let now: Vec<_> = lab.nodes().into_iter().map(|row| (row.node, row.pid)).collect();
        assert_eq!(now, born, "a guest did not outlive switch {times}");
    }
    assert_eq!(datapath().expect("a switch").restarts, 3);
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn vmm_lite_of_an_image_where_kvm_runs_no_kernels_is_told_before_anything_is_started() {
    let why = accel::for_kernels();
    if why == Why::Usable {
        return left_out("vmm-lite where KVM runs no kernels: here it does");
    }
    let lab = Lab::new();
    let text = "version: 1\nname: lite\nswitches: { sw1: {} }\nnodes:\n  \
                vm1: { kind: vm, image: debian, vmm: vmm-lite }\nlinks: [[vm1, sw1]]\n";
    let file = lab.write("lite.vnet.yaml", text);
    let (_, said) = lab.expect(5, &["up", "-d", file.to_str().expect("a path of ASCII")]);
    assert!(said.contains(":5:") && said.contains(&why.to_string()), "{said}");
    assert!(said.contains("vnet doctor") && said.contains("QEMU runs `image: debian`"), "{said}");
    lab.assert_gone();
    let doctor = String::from_utf8(lab.vnet(&["doctor"]).stdout).expect("vnet writes UTF-8");
    assert!(doctor.lines().any(|line| line.contains("degraded") && line.contains("kvm: ")), "{doctor}");
}
