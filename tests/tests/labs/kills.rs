//! `kill -9` of a guest, of the stations and of the switch under traffic: who is hit says so and comes back, and nobody else
//! notices.

use crate::{
    asker::Asker,
    common::{Lab, kvm, real_guests, topology},
    neighbours::{Neighbours, PORTS},
    process::{Background, Holdings, eventually, in_role, kill},
};
use controller::api::types::{DatapathView, NodeRow, NodeState, PingallReport, PortRow};
use serde::de::DeserializeOwned;
use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    time::{Duration, Instant},
};
use vswitchd::{control::protocol::PortState, counters::check_law};

const KILLS: usize = 10;

/// The longest that a guest may be out of reach when the switch is killed.
const OUT_OF_REACH: Duration = Duration::from_secs(3);

/// Frames of a transfer before one of its ends is killed.
const UNDER_WAY: u64 = 2000;

/// A process that lived for this long and dies is started again without a pause.
const LONG_LIFE: Duration = Duration::from_secs(1);

/// Two neighbours in a VLAN of their own; in another two stations, and one that asks for who is there.
const LAB: &str = "\
version: 1
name: kills
vlans: { quiet: { id: 10 }, asked: { id: 20 } }
switches: { sw1: {} }
nodes:
  n1: { kind: vhost-user }
  n2: { kind: vhost-user }
  asker: { kind: vhost-user }
  st1: { kind: station, addresses: [10.0.10.9/24] }
  st2: { kind: station, addresses: [10.0.10.8/24] }
links:
  - { endpoints: [n1, sw1], vlan: { access: quiet } }
  - { endpoints: [n2, sw1], vlan: { access: quiet } }
  - { endpoints: [asker, sw1], vlan: { access: asked } }
  - { endpoints: [st1, sw1], vlan: { access: asked } }
  - { endpoints: [st2, sw1], vlan: { access: asked } }
";

/// The same, and a Debian guest under QEMU beside the stations.
fn lab_with_a_guest() -> String {
    let node = "  vm1: { kind: vm, image: debian, memory: 256M, addresses: [10.0.10.1/24] }\n";
    let link = "  - { endpoints: [vm1, sw1], vlan: { access: asked } }\n";
    LAB.replace("nodes:\n", &format!("nodes:\n{node}")) + link
}

/// Who is asked for: the guest under QEMU, and a station.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 10, 1);
const STATION: Ipv4Addr = Ipv4Addr::new(10, 0, 10, 9);

/// A lab, up, with its asker asking.
struct Scene {
    lab: Lab,
    file: PathBuf,
    asker: Asker,
    targets: Vec<Ipv4Addr>,
}

impl Scene {
    fn new(text: &str, targets: &[Ipv4Addr]) -> Self {
        let lab = Lab::new();
        let file = lab.write("kills.vnet.yaml", text);
        lab.expect(0, &["up", "-d", file.to_str().unwrap()]);
        let asker = Asker::start(lab.port_socket("asker:eth0"), targets);
        Self { lab, file, asker, targets: targets.into() }
    }

    fn show<T: DeserializeOwned>(&self, what: &str) -> T {
        serde_json::from_value(self.lab.json(&["show", what])).unwrap()
    }

    fn port(&self, name: &str) -> PortRow {
        self.show::<Vec<PortRow>>("ports").into_iter().find(|row| row.port == name).unwrap()
    }

    fn node(&self, name: &str) -> NodeRow {
        self.show::<Vec<NodeRow>>("nodes").into_iter().find(|row| row.node == name).unwrap()
    }

    fn switch(&self) -> u32 {
        self.show::<DatapathView>("datapath").pid
    }

    /// Waits until all targets have answered for as long as a process must live to count as a good one.
    fn answers_come(&self) {
        for target in &self.targets {
            eventually("answers come", || self.asker.answers(*target).filter(|a| a.span() >= LONG_LIFE));
        }
    }

    /// Every frame has a fate, no port was stopped by the switch, and those of the asker and its targets are up.
    fn lawful(&self) {
        let ports: Vec<PortRow> = self.show("ports");
        check_law(ports.iter().map(|row| &row.counters)).unwrap();
        for row in &ports {
            assert_eq!(row.counters.faults, 0, "{row:#?}");
            assert!(PORTS.contains(&row.port.as_str()) || row.state == PortState::Up, "{row:#?}");
        }
    }

    /// Kills the switch `kills` times, and returns for how long each target was out of reach each time.
    fn kill_the_switch(&self, kills: usize) -> Vec<Vec<Duration>> {
        self.answers_come();
        let held = Holdings::of(self.switch());
        let mut out_of_reach = vec![vec![]; self.targets.len()];
        for restarts in 1..=kills {
            let switch = self.switch();
            let killed = Instant::now();
            kill(switch);
            self.asker.next_round();
            for (target, times) in self.targets.iter().zip(&mut out_of_reach) {
                let answers = eventually("it is back", || self.asker.answers(*target));
                times.push(answers.first - killed);
            }
            self.answers_come();
            let datapath: DatapathView = self.show("datapath");
            assert_eq!((datapath.restarts as usize, datapath.pid != switch), (restarts, true));
            let regained = || (Holdings::of(datapath.pid) == held).then_some(());
            eventually("this switch holds what the first did", regained);
            self.lawful();
        }
        out_of_reach
    }

    fn down(self) {
        drop(self.asker);
        self.lab.expect(0, &["down"]);
        self.lab.assert_gone();
    }
}

/// Prints how long `kind` was out of reach, and holds it to the promise.
fn soon(kind: &str, mut times: Vec<Duration>) {
    times.sort();
    let [half, most] = [50, 99].map(|percent| times[(times.len() * percent).div_ceil(100) - 1]);
    println!("{kind}: out of reach for p50 {half:.1?}, p99 {most:.1?} of {} kills", times.len());
    assert!(most <= OUT_OF_REACH, "{kind}: {times:?}");
}

#[test]
fn a_guest_killed_ten_times_says_so_and_costs_its_neighbours_no_frame() {
    if !real_guests() {
        return;
    }
    let scene = Scene::new(&lab_with_a_guest(), &[GUEST, STATION]);
    let neighbours = Neighbours::start(PORTS.map(|port| scene.lab.port_socket(port)));
    neighbours.flow();
    scene.answers_come();
    let switch = scene.switch();
    let with_guest = Holdings::of(switch);
    let mut without_guest = None;
    for kill_number in 1..=KILLS {
        kill(scene.node("vm1").pid.expect("it runs"));
        let node = eventually("the guest's end is told", || {
            Some(scene.node("vm1")).filter(|node| node.state == NodeState::Ended)
        });
        assert_eq!((node.pid, node.detail.contains("was killed by signal 9")), (None, true), "{node:#?}");
        let port = eventually("the port is down", || {
            Some(scene.port("vm1:eth0")).filter(|port| port.state == PortState::Waiting)
        });
        assert!(port.detail.contains("vm1: was killed by signal 9; `vnet up`"), "{port:#?}");
        neighbours.flow();

        // Its descriptors, threads and mappings are given back, each time the same ones.
        let without_guest = *without_guest.get_or_insert_with(|| {
            eventually("guest memory is unmapped", || {
                Some(Holdings::of(switch)).filter(|now| now.guest_mappings < with_guest.guest_mappings)
            })
        });
        eventually("the switch lets go of the guest", || {
            (Holdings::of(switch) == without_guest).then_some(())
        });

        scene.asker.next_round();
        let begin = Instant::now();
        scene.lab.expect(0, &["up", "-d", scene.file.to_str().unwrap()]);
        scene.answers_come();
        println!("kill {kill_number}: the guest is back after {:.1} s", begin.elapsed().as_secs_f64());
        eventually("the switch holds what it held", || (Holdings::of(switch) == with_guest).then_some(()));
        neighbours.flow();
    }
    println!("with the guest {with_guest:?}, without it {without_guest:?}");
    assert_eq!(scene.switch(), switch, "the switch lived through it all");

    let (exchanged, drivers) = neighbours.stop();
    for port in PORTS.map(|port| scene.port(port)) {
        assert_eq!(port.counters.from_port.frames, exchanged + 1, "{port:#?}");
        assert!(port.counters.from_port.dropped.is_empty(), "{port:#?}");
        assert!(port.counters.to_port.dropped.is_empty(), "{port:#?}");
        assert!(port.counters.to_port.delivered >= exchanged, "{port:#?}");
    }
    scene.lab.expect(0, &["exec", "vm1", "--", "true"]);
    println!("the neighbours exchanged {exchanged} frames each way and lost none");
    scene.lawful();
    drop(drivers);
    scene.down();
}

#[test]
fn guests_come_back_by_themselves_when_the_switch_is_killed_ten_times() {
    if !real_guests() {
        return;
    }
    let scene = Scene::new(&lab_with_a_guest(), &[GUEST, STATION]);
    let guest = scene.node("vm1").pid;
    let out_of_reach = scene.kill_the_switch(KILLS);
    assert_eq!(scene.node("vm1").pid, guest, "the guest lived through it all");
    for (kind, times) in ["QEMU guest", "station"].into_iter().zip(out_of_reach) {
        soon(kind, times);
    }
    scene.down();
}

#[test]
fn stations_come_back_by_themselves_when_the_switch_is_killed() {
    let scene = Scene::new(LAB, &[STATION]);
    for times in scene.kill_the_switch(3) {
        soon("station", times);
    }
    scene.down();
}

#[test]
fn stations_that_are_killed_come_back_and_cost_their_neighbours_no_frame() {
    let scene = Scene::new(LAB, &[STATION]);
    let neighbours = Neighbours::start(PORTS.map(|port| scene.lab.port_socket(port)));
    neighbours.flow();
    scene.answers_come();
    let switch = scene.switch();
    let held = Holdings::of(switch);
    for _ in 0..3 {
        let [stations] = in_role(&scene.lab, "station")[..] else { panic!("one process has all stations") };
        kill(stations);
        scene.asker.next_round();
        scene.answers_come();
        eventually("the switch holds what it held", || (Holdings::of(switch) == held).then_some(()));
        neighbours.flow();
    }
    neighbours.stop();
    scene.lawful();
    // They can be asked again too.
    eventually("each station pings the other", || {
        let report: PingallReport = serde_json::from_value(scene.lab.json(&["pingall"])).unwrap();
        (report.cells.len() == 2 && report.cells.iter().all(|cell| cell.error.is_none())).then_some(())
    });
    scene.down();
}

#[test]
fn a_switch_that_cannot_be_written_down_leaves_no_process_behind() {
    let lab = Lab::new();
    let file = lab.write("kills.vnet.yaml", LAB);
    let mut up = Background::start(&lab, &["up", file.to_str().unwrap()]);
    up.says("ready");
    let datapath: DatapathView = serde_json::from_value(lab.json(&["show", "datapath"])).unwrap();
    // As on a full disk: the new list cannot be written.
    let in_the_way = lab.runtime().join("kills/processes.new");
    fs::create_dir(&in_the_way).unwrap();
    kill(datapath.pid);
    for _ in 0..3 {
        up.says("it is tried again");
    }
    eventually("no try leaves a switch", || in_role(&lab, "vswitchd").is_empty().then_some(()));
    fs::remove_dir(&in_the_way).unwrap();
    up.says("switch runs");
    assert_eq!(in_role(&lab, "vswitchd").len(), 1);
    lab.expect(0, &["down"]);
    up.end();
    lab.assert_gone();
}

#[test]
fn a_transfer_ends_when_one_of_its_ends_is_killed_and_says_which() {
    if !kvm("bundled guests that are killed under a transfer") {
        return;
    }
    let lab = Lab::new();
    lab.expect(0, &["up", "-d", &topology("vms.vnet.yaml")]);
    for victim in ["vm2", "vm1"] {
        let before = lab.ports()["vm2:eth0"].counters.to_port.delivered;
        let transfer = Background::start(&lab, &["transfer", "vm1", "vm2", "--size", "65536"]);
        eventually("a transfer is under way", || {
            (lab.ports()["vm2:eth0"].counters.to_port.delivered > before + UNDER_WAY).then_some(())
        });
        let nodes: Vec<NodeRow> = serde_json::from_value(lab.json(&["show", "nodes"])).unwrap();
        kill(nodes.iter().find(|row| row.node == victim).and_then(|row| row.pid).expect("it runs"));
        let (status, _, said) = transfer.end();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("{victim} ended: it was killed by signal 9")), "{said}");
        lab.expect(0, &["up", "-d", &topology("vms.vnet.yaml")]);
    }
    lab.expect(0, &["down"]);
    lab.assert_gone();
}
