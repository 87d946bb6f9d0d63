//! Bundled guests whose switch is killed under their feet: each VMM puts its rings before the next switch, and the guests
//! notice a pause.

use crate::{
    common::{Lab, kvm, real_guests, topology},
    linux::shell,
    process::{eventually, kill},
};
use controller::api::types::{DatapathView, NodeRow, PortRow, TransferReport};
use std::{
    thread,
    time::{Duration, Instant},
};

/// How often the switch is killed; `VNET_SWITCH_KILLS` says otherwise.
const KILLS: usize = 10;
/// MiB of a transfer that outlasts a kill.
const SIZE: &str = "256";
/// Frames of a transfer before the switch is killed under it.
const UNDER_WAY: u64 = 2000;
/// A switch that lived for so long is started again without a pause: no crash loop.
const LONG_LIFE: Duration = Duration::from_millis(1100);

impl Lab {
    fn switch(&self) -> u32 {
        serde_json::from_value::<DatapathView>(self.json(&["show", "datapath"])).expect("a datapath").pid
    }

    /// Frames that the switch, if there is one just now, has put into the ring of `port`.
    fn delivered(&self, port: &str) -> Option<u64> {
        let output = self.vnet(&["show", "ports", "--format", "json"]);
        let rows: Vec<PortRow> = serde_json::from_slice(&output.stdout).ok()?;
        Some(rows.iter().find(|row| row.port == port)?.counters.to_port.delivered)
    }

    fn transfer(&self, src: &str, dst: &str) -> TransferReport {
        let report = self.json(&["transfer", src, dst, "--size", SIZE]);
        serde_json::from_value(report).expect("a report")
    }

    fn pids(&self) -> Vec<Option<u32>> {
        let rows: Vec<NodeRow> = serde_json::from_value(self.json(&["show", "nodes"])).expect("rows");
        rows.iter().map(|row| row.pid).collect()
    }
}

/// The `percent`th percentile of sorted times.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

#[test]
fn transfers_go_on_with_the_next_switch_when_theirs_is_killed() {
    if !kvm("bundled guests whose switch is killed") {
        return;
    }
    let kills = std::env::var("VNET_SWITCH_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let lab = Lab::new();
    lab.expect(0, &["up", "-d", &topology("vms.vnet.yaml")]);
    let guests = lab.pids();
    let mut paused = Vec::new();
    for _ in 0..kills {
        let (switch, seen) = (lab.switch(), Instant::now());
        eventually("the switch has lived for long", || (seen.elapsed() > LONG_LIFE).then_some(()));
        let before = lab.delivered("vm2:eth0").expect("a switch");
        thread::scope(|scope| {
            let transfer = scope.spawn(|| lab.transfer("vm1", "vm2"));
            eventually("a transfer is under way", || {
                (lab.delivered("vm2:eth0")? > before + UNDER_WAY).then_some(())
            });
            let killed = Instant::now();
            kill(switch);
            assert!(!transfer.is_finished(), "the switch was killed too late");
            // A new switch counts from zero.
            eventually("a frame by the new switch", || {
                lab.delivered("vm2:eth0").filter(|frames| *frames > 0)
            });
            paused.push(killed.elapsed());
            let report = transfer.join().expect("the transfer ends well");
            assert_eq!(report.sent, report.received, "after {} kills", paused.len());
        });
        assert_ne!(lab.switch(), switch, "the switch is a new one");
    }
    assert_eq!(lab.pids(), guests, "guests were started again");
    for guest in ["vm1", "vm2", "vm3", "vm4"] {
        let (log, _) = lab.expect(0, &["logs", guest]);
        // What the VMM says when a device needs a reset.
        assert!(!log.contains("net: "), "{guest}: {log}");
        assert_eq!(log.matches("vnet guest").count(), 1, "{guest} was started once: {log}");
    }
    paused.sort_unstable();
    let [half, most] = [50, 99].map(|percent| percentile(&paused, percent));
    println!("{kills} kills: from SIGKILL to the first frame p50 {half:.0?}, p99 {most:.0?}");
    assert!(half < Duration::from_millis(500) && most < Duration::from_secs(5), "{paused:?}");
}

#[test]
fn a_link_that_is_down_stays_down_when_qemu_finds_the_next_switch() {
    if !real_guests() {
        return;
    }
    let lab = Lab::new();
    let text = "version: 1\nname: down\nswitches: { sw1: {} }\nnodes:\n  \
                st1: { kind: station, addresses: [10.0.0.1/24] }\n  \
                vm1: { kind: vm, image: debian, vmm: qemu, addresses: [10.0.0.2/24], state: down }\n\
                links: [[st1, sw1], [vm1, sw1]]\n";
    lab.expect(0, &["up", "-d", &lab.write("down.vnet.yaml", text).display().to_string()]);
    let carrier = || shell(&lab, "vm1", "cat /sys/class/net/eth0/carrier");
    assert_eq!(carrier(), "0\n");
    kill(lab.switch());
    eventually("the link is set down again", || {
        lab.expect(0, &["logs", "controller"]).0.contains("vm1:eth0: its link is down again").then_some(())
    });
    eventually("the guest sees it", || (carrier() == "0\n").then_some(()));
    lab.expect(0, &["link", "vm1", "up"]);
    eventually("the guest sees it up", || (carrier() == "1\n").then_some(()));
    eventually("it hears", || lab.vnet(&["pingall"]).status.success().then_some(()));
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

/// What rules allowed to begin goes on through firewalls that have forgotten it, whichever end has one; what they did not allow is not let in by that.
#[test]
fn connections_through_firewalls_go_on_when_the_switch_is_killed() {
    if !kvm("bundled guests behind firewalls whose switch is killed") {
        return;
    }
    let lab = Lab::new();
    let text = "version: 1\nname: guarded\nsecurity-groups:\n  \
                client: []\n  \
                server: [{ direction: ingress, protocol: tcp, remote-ip-prefix: 10.0.0.0/24 }]\n\
                switches: { sw1: {} }\nnodes:\n  \
                client: { kind: vm, addresses: [10.0.0.1/24], security-groups: [client] }\n  \
                server: { kind: vm, addresses: [10.0.0.2/24], security-groups: [server] }\n  \
                anybody: { kind: vm, addresses: [10.0.0.3/24] }\n\
                links: [[client, sw1], [server, sw1], [anybody, sw1]]\n\
                expect:\n  - client -> server tcp/7 allow\n  - server -> client tcp/7 deny because policy-ingress\n  \
                - anybody -> client tcp/7 deny because policy-ingress\n  - anybody -> server udp/7 deny because policy-ingress\n";
    lab.expect(0, &["up", "-d", &lab.write("guarded.vnet.yaml", text).display().to_string()]);
    for (src, dst) in [("client", "server"), ("client", "anybody"), ("anybody", "server")] {
        let (switch, seen, port) = (lab.switch(), Instant::now(), format!("{dst}:eth0"));
        eventually("the switch has lived for long", || (seen.elapsed() > LONG_LIFE).then_some(()));
        let before = lab.delivered(&port).expect("a switch");
        let report = thread::scope(|scope| {
            let transfer = scope.spawn(|| lab.transfer(src, dst));
            eventually("a transfer is under way", || {
                (lab.delivered(&port)? > before + UNDER_WAY).then_some(())
            });
            kill(switch);
            assert!(!transfer.is_finished(), "the switch was killed too late");
            transfer.join().expect("the transfer ends well")
        });
        assert_eq!(report.sent, report.received, "{src} -> {dst}");
        // Of what is picked up, nothing is let in that begins.
        lab.expect(0, &["test", "--running"]);
    }
    lab.expect(0, &["down"]);
    lab.assert_gone();
}
