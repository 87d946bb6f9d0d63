//! Namespaces, interfaces of the host and capture files as nodes. What needs root runs in a network namespace of the test's own: no
//! interface of this machine's is touched.

use crate::{
    common::{Lab, kvm, left_out, real_guests, topology},
    process::{eventually, kill},
};
use controller::{
    api::types::{DatapathView, NodeRow, PingallReport, PortRow},
    image::{self, Name},
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::fd::AsFd,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};
use vswitch_core::drop_reason::DropReason;
use vswitchd::{capture::reader::Reader, control::protocol::PortState};

/// Where network namespaces have names.
const NAMESPACES: &str = "/var/run/netns";

/// A network namespace that this thread, and all that it starts, is in.
struct Place {
    names: Vec<String>,
}

impl Place {
    /// None where this user must not, or has no `ip`.
    fn new(test: &str) -> Option<Self> {
        let name = format!("vt{}-{test}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        if !rustix::process::geteuid().is_root() || !made.is_ok_and(|made| made.status.success()) {
            left_out(&format!("{test}: network namespaces need root and iproute2"));
            return None;
        }
        let place = Self { names: vec![name.clone()] };
        let namespace = File::open(Path::new(NAMESPACES).join(name)).expect("it was made");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
        ip("link set dev lo up");
        Some(place)
    }

    /// Another namespace beside it.
    fn another(&mut self, of: &str) -> String {
        let name = format!("vt{}-{of}", std::process::id());
        ip(&format!("netns add {name}"));
        self.names.push(name.clone());
        name
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for name in &self.names {
            Command::new("ip").args(["netns", "del", name]).status().expect("ip is here");
        }
    }
}

fn ip(arguments: &str) {
    let Output { status, stderr, .. } =
        Command::new("ip").args(arguments.split(' ')).output().expect("ip is here");
    assert!(status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&stderr));
}

fn exists(namespace: &str) -> bool {
    Path::new(NAMESPACES).join(namespace).exists()
}

/// Names of labs differ from those of other runs: their namespaces share one folder.
fn name(test: &str) -> String {
    format!("t{}-{test}", std::process::id())
}

fn detail(ports: &BTreeMap<String, PortRow>, port: &str) -> (PortState, String) {
    (ports[port].state, ports[port].detail.clone())
}

/// A transfer of 16 MiB whose two checksums are one.
fn transfer(lab: &Lab, src: &str, dst: &str) {
    let (told, _) = lab.expect(0, &["transfer", src, dst, "--size", "16"]);
    assert!(told.contains("at both ends"), "{src} -> {dst}: {told}");
}

#[test]
fn the_example_holds_and_leaves_no_namespace() {
    let Some(_place) = Place::new("example") else { return };
    let lab = Lab::new();
    let (text, _) = lab.expect(0, &["test", &topology("namespaces.vnet.yaml")]);
    assert!(text.contains("8 of 8 expectations hold"), "{text}");
    lab.assert_gone();
}

#[test]
fn a_program_runs_in_a_namespace_that_goes_with_the_lab_even_past_a_killed_controller() {
    let Some(_place) = Place::new("life") else { return };
    let (lab, name) = (Lab::new(), name("life"));
    let text = format!(
        "version: 1\nname: {name}\nswitches: {{ sw1: {{}} }}\nnodes:\n  \
         a: {{ kind: netns, addresses: [10.0.0.1/24, \"2001:db8::1/64\"], mac: \"02:00:00:00:00:0a\", mtu: 1400 }}\n  \
         b: {{ kind: netns, interfaces: {{ left: {{ addresses: [10.0.0.2/24] }} }} }}\n\
         links:\n  - [a, sw1]\n  - [\"b:left\", sw1]\n"
    );
    let file = lab.write("life.vnet.yaml", &text).display().to_string();
    lab.expect(0, &["up", "-d", &file]);
    let spaces = [format!("{name}-a"), format!("{name}-b")];
    assert!(spaces.iter().all(|space| exists(space)));
    let (said, _) = lab.expect(0, &["exec", "a", "--", "ip", "-o", "link", "show", "dev", "eth0"]);
    assert!(
        said.contains("mtu 1400") && said.contains("02:00:00:00:00:0a") && said.contains(",UP,"),
        "{said}"
    );
    let (said, _) = lab.expect(0, &["exec", "a", "--", "ip", "-o", "address"]);
    for address in ["127.0.0.1/8", "10.0.0.1/24", "2001:db8::1/64"] {
        assert!(said.contains(address), "{said}");
    }
    let (said, _) = lab.expect(0, &["exec", "b", "--", "ip", "-o", "link", "show", "dev", "left"]);
    assert!(said.contains("mtu 1500"), "{said}");
    lab.expect(3, &["exec", "a", "--", "sh", "-c", "exit 3"]);
    transfer(&lab, "a", "b");
    lab.assert_sound();
    // What a command leaves behind ends with the lab.
    lab.expect(0, &["exec", "a", "--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 &"]);
    lab.expect(0, &["down"]);
    lab.assert_gone();
    assert!(!spaces.iter().any(|space| exists(space)), "a namespace is left");

    for again in ["up", "down"] {
        lab.expect(0, &["up", "-d", &file]);
        let pid = lab.json(&["ls"])[0]["pid"].as_u64().expect("a process");
        kill(pid.try_into().expect("a process"));
        assert!(exists(&spaces[0]));
        if again == "up" {
            lab.expect(0, &["up", "-d", &file]);
        }
        lab.expect(0, &["down"]);
        assert!(!spaces.iter().any(|space| exists(space)), "a namespace is left");
    }

    // One that is somebody else's is neither taken nor removed; said, it is joined.
    ip(&format!("netns add {}", spaces[0]));
    let (_, err) = lab.expect(5, &["up", "-d", &file]);
    assert!(err.contains("this lab did not make it"), "{err}");
    assert!(exists(&spaces[0]) && !exists(&spaces[1]));
    let text = text.replace("a: { kind: netns,", &format!("a: {{ kind: netns, netns: {},", spaces[0]));
    lab.write("life.vnet.yaml", &text);
    lab.expect(0, &["up", "-d", &file]);
    lab.expect(0, &["exec", "b", "--", "true"]);
    lab.expect(0, &["down"]);
    assert!(exists(&spaces[0]) && !exists(&spaces[1]));
    ip(&format!("netns del {}", spaces[0]));
    lab.assert_gone();
}

#[test]
fn namespace_tap_nic_station_and_bundled_guest_in_one_vlan_reach_one_another() {
    reach_one_another("all", false);
}

#[test]
fn and_so_do_an_e1000_and_a_virtio_guest_of_qemu_with_all_of_them() {
    if !real_guests() {
        return;
    }
    // Inside of the test's namespace nothing can be downloaded.
    for image in [Name::Debian, Name::DebianGeneric] {
        if let Err(why) = image::ensure(image, &mut |step| eprintln!("{step}")) {
            return left_out(&format!("QEMU's guests beside namespaces: {why}"));
        }
    }
    reach_one_another("more", true);
}

/// All kinds in one VLAN, with Linux under QEMU at an emulated card and at a virtio one, or without.
fn reach_one_another(test: &str, linux: bool) {
    let Some(mut place) = Place::new(test) else { return };
    let (lab, name) = (Lab::new(), name(test));
    // Behind the nic, at the other end of a cable, is a machine that vnet knows nothing of.
    let peer = place.another(&format!("{test}-peer"));
    ip(&format!("link add cable type veth peer name eth0 address 02:00:00:00:00:07 netns {peer}"));
    ip(&format!("-n {peer} addr add 10.0.10.7/24 dev eth0"));
    ip(&format!("-n {peer} link set dev eth0 up"));
    ip("link set dev cable up");
    let guest = kvm("a bundled guest beside namespace, tap and nic");
    let vm = if guest { "  vm1: { kind: vm, addresses: [10.0.10.3/24] }\n" } else { "" };
    let link = if guest { "  - [vm1, sw1]\n" } else { "" };
    let (vms, links) = if linux {
        let vms = "  old: { kind: vm, image: debian-generic, model: e1000, addresses: [10.0.10.4/24] }\n  \
                   new: { kind: vm, image: debian, vmm: qemu, addresses: [10.0.10.5/24] }\n";
        (vms, "  - [old, sw1]\n  - [new, sw1]\n")
    } else {
        ("", "")
    };
    let text = format!(
        "version: 1\nname: {name}\nswitches: {{ sw1: {{}} }}\nnodes:\n{vm}{vms}  \
         ns1: {{ kind: netns, addresses: [10.0.10.1/24] }}\n  ns2: {{ kind: netns, addresses: [10.0.10.2/24] }}\n  \
         st1: {{ kind: station, addresses: [10.0.10.9/24] }}\n  \
         tap1: {{ kind: tap, interface: tap1, addresses: [10.0.10.6/24] }}\n  \
         nic1: {{ kind: nic, interface: cable, addresses: [10.0.10.7/24], mac: \"02:00:00:00:00:07\" }}\n\
         links:\n{link}{links}  - [ns1, sw1]\n  - [ns2, sw1]\n  - [st1, sw1]\n  - [tap1, sw1]\n  - [nic1, sw1]\n"
    );
    let file = lab.write("all.vnet.yaml", &text).display().to_string();
    lab.expect(0, &["up", "-d", &file]);
    ip("addr add 10.0.10.6/24 dev tap1");
    ip("link set dev tap1 up");
    let report: PingallReport = serde_json::from_value(lab.json(&["pingall"])).expect("a report");
    let senders = 3 + usize::from(guest) + if linux { 2 } else { 0 };
    assert_eq!(report.cells.len(), senders * (senders + 1), "{report:?}");
    assert!(report.cells.iter().all(|cell| cell.rtt_micros.is_some()), "{report:?}");
    for (src, dst) in [("ns1", "ns2"), ("ns1", "st1"), ("st1", "ns2")] {
        transfer(&lab, src, dst);
    }
    if guest {
        transfer(&lab, "ns1", "vm1");
        transfer(&lab, "vm1", "ns2");
    }
    if linux {
        for (src, dst) in [("old", "new"), ("new", "old"), ("old", "ns1"), ("ns1", "new"), ("st1", "old")] {
            transfer(&lab, src, dst);
        }
    }
    lab.assert_sound();
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn show_nodes_names_what_of_this_machine_a_node_is() {
    let Some(mut place) = Place::new("names") else { return };
    let (lab, name, mine) = (Lab::new(), name("names"), place.another("mine"));
    ip("link add left type veth peer name right");
    let text = format!(
        "version: 1\nname: {name}\nswitches: {{ sw1: {{}} }}\nnodes:\n  ours: {{ kind: tap }}\n  two: {{ kind: tap }}\n  \
         tap0: {{ kind: tap, interface: tap0 }}\n  nic1: {{ kind: nic, interface: left }}\n  made: {{ kind: netns }}\n  \
         mine: {{ kind: netns, netns: {mine} }}\n  files: {{ kind: pcap, replay: in.pcap, record: out.pcapng }}\n  \
         st1: {{ kind: station, addresses: [10.0.0.1/24] }}\nlinks:\n  - [ours, sw1]\n  - [two, sw1]\n  - [two, sw1]\n  \
         - [tap0, sw1]\n  - [nic1, sw1]\n  - [made, sw1]\n  - [\"mine:a\", sw1]\n  - [\"mine:b\", sw1]\n  - [files, sw1]\n  \
         - [st1, sw1]\n"
    );
    let file = lab.write("names.vnet.yaml", &text).display().to_string();
    write_pcap(&lab.path("in.pcap"), 1, 0);
    lab.expect(0, &["up", "-d", &file]);
    let rows: Vec<NodeRow> = serde_json::from_value(lab.json(&["show", "nodes"])).expect("rows of nodes");
    let host: BTreeMap<_, _> = rows.into_iter().map(|row| (row.node, row.host)).collect();
    assert_eq!((host["ours"].len(), host["two"].len()), (1, 2), "{host:?}");
    for tap in host["ours"].iter().chain(&host["two"]) {
        ip(&format!("link set dev {tap} up"));
    }
    let files = ["in.pcap", "out.pcapng"].map(|file| lab.path(file).display().to_string());
    let made = format!("{name}-made");
    for (node, names) in [
        ("tap0", vec!["tap0"]),
        ("nic1", vec!["left"]),
        ("made", vec![made.as_str()]),
        ("mine", vec![mine.as_str()]),
        ("files", files.each_ref().map(String::as_str).to_vec()),
        ("st1", vec![]),
    ] {
        assert_eq!(host[node], names, "{node}");
    }
    let (shown, _) = lab.expect(0, &["show", "nodes"]);
    assert!(host.values().flatten().all(|name| shown.contains(name.as_str())), "{shown}");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn a_tap_that_was_deleted_is_made_anew_by_up_and_so_is_a_namespace_s_interface() {
    let Some(_place) = Place::new("again") else { return };
    let (lab, name) = (Lab::new(), name("again"));
    let text = format!(
        "version: 1\nname: {name}\nswitches: {{ sw1: {{}} }}\nnodes:\n  host: {{ kind: tap, interface: tap0, queues: 2 }}\n  \
         a: {{ kind: netns, addresses: [10.0.0.1/24] }}\n  b: {{ kind: station, addresses: [10.0.0.2/24] }}\nlinks:\n  \
         - [host, sw1]\n  - [a, sw1]\n  - [b, sw1]\n"
    );
    let file = lab.write("again.vnet.yaml", &text).display().to_string();
    lab.expect(0, &["up", "-d", &file]);
    transfer(&lab, "a", "b");
    for (delete, port) in
        [("link del dev tap0", "host:eth0"), (&format!("-n {name}-a link del dev eth0"), "a:eth0")]
    {
        ip(delete);
        eventually("it is gone", || {
            let (state, why) = detail(&lab.ports(), port);
            (state == PortState::Faulted && why.contains("was deleted; `vnet up` of the same file"))
                .then_some(())
        });
        let (_, err) = lab.expect(0, &["up", "-d", &file]);
        assert!(err.contains(&format!("opened again: {port}")), "{err}");
        lab.port_up(port);
    }
    ip("link set dev tap0 up");
    transfer(&lab, "a", "b");
    // There is nothing to open any more.
    let (_, err) = lab.expect(0, &["up", "-d", &file]);
    assert!(!err.contains("opened again"), "{err}");
    lab.assert_sound();
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn a_tap_by_the_name_of_another_interface_is_refused_and_nobody_is_told_to_delete_that() {
    let Some(mut place) = Place::new("notap") else { return };
    let (lab, name, mine) = (Lab::new(), name("notap"), place.another("mine"));
    ip("link add wire type veth peer name other");
    ip(&format!("link set dev other netns {mine}"));
    ip("tuntap add dev single mode tap");
    ip("tuntap add dev several mode tap multi_queue");
    let refused = |node: &str, link: &str| {
        let text = format!(
            "version: 1\nname: {name}\nswitches: {{ sw1: {{}} }}\nnodes:\n  a: {{ {node} }}\nlinks:\n  - [{link}, sw1]\n"
        );
        let file = lab.write("notap.vnet.yaml", &text).display().to_string();
        let (_, err) = lab.expect(5, &["up", "-d", &file]);
        lab.assert_gone();
        err
    };
    let err = refused("kind: tap, interface: wire", "a");
    assert!(err.contains("no tap: choose another name") && err.contains("kind: nic"), "{err}");
    assert!(!err.contains(" del "), "{err}");
    let err = refused(&format!("kind: netns, netns: {mine}, interfaces: {{ other: {{}} }}"), "\"a:other\"");
    assert!(err.contains("it is no tap") && !err.contains(" del "), "{err}");
    let err = refused("kind: tap, interface: single, queues: 2", "a");
    assert!(err.contains("single is a tap of one queue"), "{err}");
    let err = refused("kind: tap, interface: several", "a");
    assert!(err.contains("several is a tap of several queues"), "{err}");
}

#[test]
fn an_mtu_that_a_namespace_cannot_have_is_told_with_its_place() {
    let Some(_place) = Place::new("mtu") else { return };
    let (lab, name) = (Lab::new(), name("mtu"));
    let text = format!(
        "version: 1\nname: {name}\nswitches: {{ sw1: {{}} }}\nnodes:\n  a: {{ kind: netns, mtu: 65535 }}\nlinks:\n  - [a, sw1]\n"
    );
    let file = lab.write("mtu.vnet.yaml", &text).display().to_string();
    let (_, err) = lab.expect(1, &["up", "-d", &file]);
    assert!(err.contains("mtu.vnet.yaml:5:3: node a: ") && err.contains("mtu greater than"), "{err}");
    assert!(err.contains("ip link set dev eth0 mtu 65535") && err.contains("68 to 65521"), "{err}");
    let text = text.replace("mtu: 65535", "mtu: 1279, addresses: [\"2001:db8::1/64\"]");
    lab.write("mtu.vnet.yaml", &text);
    let (_, err) = lab.expect(1, &["up", "-d", &file]);
    assert!(err.contains("`mtu: 1279` has no room for IPv6: give at least 1280"), "{err}");
    lab.assert_gone();
}

/// Two switches that are joined outside of vnet: by a cable between two interfaces of the host.
fn cable_lab(name: &str) -> String {
    format!(
        "version: 1\nname: {name}\nvlans: {{ a: {{ id: 10 }}, b: {{ id: 20 }} }}\nswitches: {{ sw1: {{}}, sw2: {{}} }}\nnodes:\n  \
         out: {{ kind: nic, interface: left }}\n  in: {{ kind: nic, interface: right }}\n  \
         a1: {{ kind: netns, addresses: [10.0.10.1/24] }}\n  a2: {{ kind: station, addresses: [10.0.10.2/24] }}\n  \
         b1: {{ kind: netns, addresses: [10.0.20.1/24] }}\n  b2: {{ kind: netns, addresses: [10.0.20.2/24] }}\n  \
         b3: {{ kind: station, addresses: [10.0.20.3/24] }}\nlinks:\n  \
         - {{ endpoints: [out, sw1], vlan: {{ trunk: [a, b], native: a }} }}\n  \
         - {{ endpoints: [in, sw2], vlan: {{ trunk: [a, b], native: a }} }}\n  \
         - {{ endpoints: [a1, sw1], vlan: {{ access: a }} }}\n  - {{ endpoints: [a2, sw2], vlan: {{ access: a }} }}\n  \
         - {{ endpoints: [b1, sw1], vlan: {{ access: b }} }}\n  - {{ endpoints: [b2, sw2], vlan: {{ access: b }} }}\n  \
         - {{ endpoints: [b3, sw2], vlan: {{ access: b }} }}\n"
    )
}

#[test]
fn tags_and_large_frames_pass_a_nic_both_ways() {
    let Some(_place) = Place::new("tags") else { return };
    let (lab, name) = (Lab::new(), name("tags"));
    ip("link add left type veth peer name right");
    ip("link set dev left up");
    ip("link set dev right up");
    let file = lab.write("tags.vnet.yaml", &cable_lab(&name)).display().to_string();
    lab.expect(0, &["up", "-d", &file]);
    // Tagged between namespaces, large frames with unfinished checksums; to a station, which takes neither; and untagged.
    for (src, dst) in [("b1", "b2"), ("b2", "b1"), ("b1", "b3"), ("b3", "b1"), ("a1", "a2"), ("a2", "a1")] {
        transfer(&lab, src, dst);
    }
    let ports = lab.ports();
    let (frames, bytes) =
        (ports["in:eth0"].counters.from_port.frames, ports["in:eth0"].counters.from_port.bytes);
    assert!(bytes / frames > 1600, "no large frame came through: {bytes} bytes in {frames} frames");
    // What is in the one VLAN is not in the other.
    lab.expect(1, &["transfer", "a1", "b2", "--size", "1"]);
    lab.assert_sound();
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

/// The sockets outlive a switch, and what it set up at them does.
#[test]
fn a_switch_that_is_killed_finds_its_nics_taps_and_namespaces_again() {
    let Some(_place) = Place::new("again") else { return };
    let (lab, name) = (Lab::new(), name("again"));
    ip("link add left type veth peer name right");
    ip("link set dev left up");
    ip("link set dev right up");
    let file = lab.write("again.vnet.yaml", &cable_lab(&name)).display().to_string();
    lab.expect(0, &["up", "-d", &file]);
    // While there is none, it cannot be shown.
    let datapath = || {
        let shown = lab.vnet(&["show", "datapath", "--format", "json"]);
        serde_json::from_slice::<DatapathView>(&shown.stdout).ok()
    };
    for _ in 0..2 {
        let before = datapath().expect("a switch").pid;
        kill(before);
        eventually("another switch", || datapath().filter(|now| now.pid != before));
        for port in ["out:eth0", "in:eth0", "b1:eth0", "b2:eth0", "b3:eth0"] {
            lab.port_up(port);
        }
        transfer(&lab, "b1", "b2");
        transfer(&lab, "b3", "b1");
    }
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn a_nic_says_that_its_interface_is_down_or_gone_and_comes_back_with_it() {
    let Some(_place) = Place::new("down") else { return };
    let (lab, name) = (Lab::new(), name("down"));
    ip("link add left type veth peer name right");
    ip("link set dev right up");
    let file = lab.write("down.vnet.yaml", &cable_lab(&name)).display().to_string();
    lab.expect(0, &["up", "-d", &file]);
    let down = |port: &str| {
        let (state, why) = detail(&lab.ports(), port);
        (state == PortState::Waiting && why.contains("the interface is down")).then_some(())
    };
    eventually("it is down from the start", || down("out:eth0"));
    for _ in 0..2 {
        ip("link set dev left up");
        lab.port_up("out:eth0");
        transfer(&lab, "b1", "b2");
        ip("link set dev left down");
        eventually("it is down", || down("out:eth0"));
    }
    ip("link del dev left");
    for port in ["out:eth0", "in:eth0"] {
        eventually("it is gone", || {
            let (state, why) = detail(&lab.ports(), port);
            (state == PortState::Faulted
                && why.contains("the nic is gone: its interface was deleted, or moved"))
            .then_some(())
        });
    }
    // What would go there is dropped, and said to be.
    let dropped = || {
        let to = &lab.ports()["out:eth0"].counters.to_port;
        (to.delivered, to.dropped.get(&DropReason::PortDown).copied().unwrap_or_default())
    };
    let (delivered, none) = dropped();
    lab.expect(1, &["transfer", "b1", "b2", "--size", "1"]);
    let (still, some) = dropped();
    assert!(still == delivered && some > none, "{delivered} {none}, then {still} {some}");
    let (why, _) = lab.expect(0, &["why", "out"]);
    assert!(why.contains("went down"), "{why}");
    // The others go on.
    transfer(&lab, "b2", "b3");
    let (_, err) = lab.expect(5, &["up", "-d", &file]);
    assert!(
        err.contains(": node out: the interface left cannot be opened") && err.contains("node in:"),
        "{err}"
    );
    ip("link add left type veth peer name right");
    ip("link set dev left up");
    ip("link set dev right up");
    let (_, err) = lab.expect(0, &["up", "-d", &file]);
    assert!(err.contains("opened again: out:eth0, in:eth0"), "{err}");
    transfer(&lab, "b1", "b2");
    lab.assert_sound();
    lab.expect(0, &["down"]);
    lab.assert_gone();
    ip("link del dev left");
    let (_, err) = lab.expect(5, &["up", "-d", &file]);
    assert!(err.contains("error[nic]: ") && err.contains("down.vnet.yaml:"), "{err}");
    assert!(err.contains(": node out: the interface left cannot be opened"), "{err}");
    lab.assert_gone();
}

/// A pcap file of `count` frames of 60 to 9000 bytes, a frame each `gap` nanoseconds; two of three are tagged.
fn write_pcap(path: &Path, count: u32, gap: u64) -> Vec<Vec<u8>> {
    let words: [u32; 6] = [0xa1b2_3c4d, 0x0004_0002, 0, 0, 262_144, 1];
    let mut file: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut frames = Vec::new();
    for number in 0..count {
        let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1];
        if number % 3 > 0 {
            frame.extend([0x81, 0, 0, if number % 2 == 0 { 10 } else { 20 }]);
        }
        frame.extend([0x88, 0xb5]);
        frame.extend(number.to_be_bytes());
        let len = 60 + number as usize * 37 % 8941;
        frame.extend((frame.len()..len).map(|at| (at as u32 * 31 + number) as u8));
        let at = u64::from(number) * gap;
        let head = [
            1_700_000_000 + (at / 1_000_000_000) as u32,
            (at % 1_000_000_000) as u32,
            len as u32,
            len as u32,
        ];
        file.extend(head.iter().flat_map(|word| word.to_le_bytes()));
        file.extend(&frame);
        frames.push(frame);
    }
    fs::write(path, file).expect("a temporary file can be written");
    frames
}

fn read_capture(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = Reader::new(File::open(path).expect("it was recorded")).expect("a capture");
    let (mut frames, mut frame) = (Vec::new(), Vec::new());
    while reader.next(&mut frame).expect("it is whole").is_some() {
        frames.push(frame.clone());
    }
    frames
}

fn replay_lab(lab: &Lab, pace: &str) -> String {
    let text = format!(
        "version: 1\nname: {}\nvlans: {{ a: {{ id: 10 }}, b: {{ id: 20 }}, n: {{ id: 30 }} }}\nswitches: {{ sw1: {{}} }}\nnodes:\n  \
         src: {{ kind: pcap, replay: in.pcap, pace: {pace} }}\n  dst: {{ kind: pcap, record: out.pcapng }}\nlinks:\n  \
         - {{ endpoints: [src, sw1], vlan: {{ trunk: [a, b, n], native: n }} }}\n  \
         - {{ endpoints: [dst, sw1], vlan: {{ trunk: [a, b, n], native: n }} }}\n",
        name("pcap")
    );
    lab.write("pcap.vnet.yaml", &text).display().to_string()
}

/// Waits until the replay sent `count` frames, takes the lab down, and gives what was recorded and what was dropped.
fn replayed(lab: &Lab, count: u32) -> (Vec<Vec<u8>>, Value) {
    let sent = || lab.ports()["src:eth0"].counters.from_port.frames == u64::from(count);
    eventually("all was sent", || sent().then_some(()));
    lab.assert_sound();
    let drops = lab.json(&["show", "drops"]);
    lab.expect(0, &["down"]);
    lab.assert_gone();
    (read_capture(&lab.path("out.pcapng")), drops)
}

#[test]
fn what_is_replayed_at_one_port_and_recorded_at_another_is_identical() {
    let lab = Lab::new();
    // No more than the recording port has buffers: so none is dropped, however late its thread runs beside other tests.
    let frames = write_pcap(&lab.path("in.pcap"), 500, 100_000);
    lab.expect(0, &["up", "-d", &replay_lab(&lab, "recorded")]);
    let (recorded, drops) = replayed(&lab, 500);
    assert_eq!(drops, Value::Array(vec![]));
    assert_eq!(recorded.len(), frames.len());
    assert!(recorded == frames, "a frame is not what it was");

    // What was recorded can be replayed.
    fs::rename(lab.path("out.pcapng"), lab.path("in.pcap")).expect("a file");
    lab.expect(0, &["up", "-d", &replay_lab(&lab, "recorded")]);
    let (again, _) = replayed(&lab, 500);
    assert!(again == frames, "{} frames", again.len());
}

/// Frames that a port of this detail says its nic refused.
fn refused(ports: &BTreeMap<String, PortRow>, port: &str) -> u64 {
    let words: Vec<_> = ports[port].detail.split(' ').collect();
    words.windows(2).find(|pair| pair[0] == "refused").map_or(0, |pair| pair[1].parse().expect("a number"))
}

/// Longer ones than the kernel's ring has room for, and short ones, with tags and without; more than that ring has slots.
#[test]
fn frames_of_all_lengths_pass_a_nic_in_order_and_each_that_is_lost_is_counted() {
    const COUNT: u32 = 6000;
    let Some(_place) = Place::new("lengths") else { return };
    let lab = Lab::new();
    ip("link add left type veth peer name right");
    for end in ["left", "right"] {
        // Nothing of this machine's own comes in between.
        ip(&format!("link set dev {end} mtu 9000 addrgenmode none up"));
    }
    let frames = write_pcap(&lab.path("in.pcap"), COUNT, 200_000);
    let trunk = "vlan: { trunk: [a, b, n], native: n }";
    let text = format!(
        "version: 1\nname: {}\nvlans: {{ a: {{ id: 10 }}, b: {{ id: 20 }}, n: {{ id: 30 }} }}\nswitches: {{ sw1: {{}}, sw2: {{}} }}\n\
         nodes:\n  src: {{ kind: pcap, replay: in.pcap }}\n  out: {{ kind: nic, interface: left }}\n  \
         in: {{ kind: nic, interface: right }}\n  dst: {{ kind: pcap, record: out.pcapng }}\nlinks:\n  \
         - {{ endpoints: [src, sw1], {trunk} }}\n  - {{ endpoints: [out, sw1], {trunk} }}\n  \
         - {{ endpoints: [in, sw2], {trunk} }}\n  - {{ endpoints: [dst, sw2], {trunk} }}\n",
        name("lengths")
    );
    let file = lab.write("lengths.vnet.yaml", &text).display().to_string();
    lab.expect(0, &["up", "-d", &file]);
    // Beside other tests a thread may run so late that a ring is full; what is lost there is known.
    let lost = eventually("each has arrived or is counted", || {
        let ports = lab.ports();
        let full: u64 = ports.values().flat_map(|port| port.counters.to_port.dropped.values()).sum();
        let lost = full + refused(&ports, "out:eth0") + refused(&ports, "in:eth0");
        (ports["dst:eth0"].counters.to_port.delivered + lost == u64::from(COUNT)).then_some(lost)
    });
    lab.assert_sound();
    lab.expect(0, &["down"]);
    lab.assert_gone();
    let recorded = read_capture(&lab.path("out.pcapng"));
    assert_eq!(recorded.len() as u64 + lost, u64::from(COUNT));
    let mut sent = frames.iter();
    assert!(recorded.iter().all(|frame| sent.any(|sent| sent == frame)), "in order, each as it was sent");
    assert!(recorded.len() > 2500, "no more than one turn of the ring: {lost} of {COUNT} were lost");
}

#[test]
fn a_fast_replay_loses_what_the_other_port_has_no_room_for_and_nothing_else() {
    let lab = Lab::new();
    let frames = write_pcap(&lab.path("in.pcap"), 50_000, 0);
    lab.expect(0, &["up", "-d", &replay_lab(&lab, "fast")]);
    let (recorded, drops) = replayed(&lab, 50_000);
    let rows = drops.as_array().expect("rows");
    assert!(rows.iter().all(|row| row["reason"] == "no-buffer"), "{drops}");
    let lost: u64 = rows.iter().filter_map(|row| row["frames"].as_u64()).sum();
    assert_eq!(recorded.len() as u64 + lost, 50_000);
    let mut sent = frames.iter();
    assert!(recorded.iter().all(|frame| sent.any(|sent| sent == frame)), "in order, each as it was sent");
}

#[test]
fn a_damaged_file_is_sent_up_to_the_packet_that_is_named() {
    let lab = Lab::new();
    let frames = write_pcap(&lab.path("in.pcap"), 100, 0);
    let whole = fs::read(lab.path("in.pcap")).expect("it was written");
    fs::write(lab.path("in.pcap"), &whole[..whole.len() - 1]).expect("a file");
    let file = replay_lab(&lab, "fast");
    lab.expect(0, &["up", "-d", &file]);
    let told = "what is replayed: packet 100: the file is damaged there: it ends within a block";
    eventually("it is told", || {
        let (state, why) = detail(&lab.ports(), "src:eth0");
        (state == PortState::Faulted && why == told).then_some(())
    });
    lab.expect(0, &["down"]);
    assert!(read_capture(&lab.path("out.pcapng")) == frames[..99]);

    fs::write(lab.path("in.pcap"), "hello").expect("a file");
    let (_, err) = lab.expect(2, &["up", "-d", &file]);
    assert!(err.contains("cannot be replayed: it is neither a pcap nor a pcapng file"), "{err}");
    lab.assert_gone();
}

/// What the thread of a port took of a CPU so far: user and system time of the task of that name (proc(5)), in ticks of 10 ms.
fn ticks_of_thread(pid: &Value, name: &str) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the switch runs").flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    let its = stats.filter_map(|stat| stat.split_once(&format!("({name})")).map(|(_, rest)| rest.to_owned()));
    let its: Vec<_> = its.collect();
    let [stat] = its.as_slice() else { panic!("one thread is called {name}: {its:?}") };
    stat.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

#[test]
fn the_thread_of_a_replay_that_has_ended_sleeps() {
    let lab = Lab::new();
    write_pcap(&lab.path("in.pcap"), 10, 2_000_000);
    lab.expect(0, &["up", "-d", &replay_lab(&lab, "recorded")]);
    let sent = || lab.ports()["src:eth0"].counters.from_port.frames == 10;
    eventually("all was sent", || sent().then_some(()));
    let switch = lab.json(&["show", "datapath"])["pid"].clone();
    let ticks = || ticks_of_thread(&switch, "pcap-src:eth0");
    let (began, before) = (Instant::now(), ticks());
    // Other work, for as long as a thread that never sleeps takes many ticks.
    while began.elapsed() < Duration::from_millis(500) {
        lab.ports();
    }
    let (took, elapsed) = (ticks() - before, began.elapsed());
    assert!(took * 10 < elapsed.as_millis() as u64 / 4, "{took} ticks in {elapsed:?}");
}

#[test]
fn a_copy_for_testing_touches_no_interface_of_the_host() {
    let lab = Lab::new();
    // If it were opened, it would be missed.
    let text = "version: 1\nname: copied\nswitches: { sw1: {} }\nnodes:\n  \
                a: { kind: station, addresses: [10.6.0.1/24] }\n  b: { kind: station, addresses: [10.6.0.2/24] }\n  \
                up: { kind: nic, interface: none-such0 }\nlinks:\n  - [a, sw1]\n  - [b, sw1]\n  - [up, sw1]\nexpect:\n  \
                - a -> b icmp allow\n";
    let file = lab.write("copied.vnet.yaml", text).display().to_string();
    lab.expect(0, &["test", &file]);
    let (_, said) = lab.expect(5, &["up", "-d", &file]);
    assert!(said.contains("none-such0"), "{said}");
}
