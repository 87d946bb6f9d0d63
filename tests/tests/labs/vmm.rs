//! Bundled guests on the switch: `vnet vmm` attached to the example `attach` as any foreign VMM is.

use crate::common::{Lab, kvm, topology};
use controller::api::types::{TestReport, TestResult};
use std::{
    fs,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take here; a guest is up in some milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

const EXPECT: &str = "\nexpect:\n  - st1 -> mine arp allow\n  - st1 -> mine icmp allow\n  - st1 -> other icmp allow\n  - st1 -> mine tcp/7 allow\n  - st1 -> mine udp/7 allow\n";

/// The MAC address that the file gives a node.
pub(crate) fn mac(lab: &Lab, node: &str) -> String {
    let (export, _) = lab.expect(0, &["export", "qemu", node]);
    let mac = export.split_once("mac=").and_then(|(_, rest)| rest.get(..17));
    mac.expect("a MAC address").into()
}

/// A bundled guest; killed when it is dropped.
pub(crate) struct Guest {
    vmm: Child,
    said: Receiver<Vec<u8>>,
    /// When it was started.
    born: Instant,
    /// What it said and nobody has read yet.
    unread: String,
}

impl Guest {
    /// Attached to the port of `node`, with the MAC address that the file gives it; pinging `to` from its start.
    pub(crate) fn start(lab: &Lab, node: &str, address: &str, to: &str) -> Self {
        Self::attached(lab, &[(node, &format!(",address={address}/24"))], &format!("vnet.ping={to}"))
    }

    /// Attached to the ports of these nodes, with more to say of each interface.
    pub(crate) fn attached(lab: &Lab, nodes: &[(&str, &str)], command_line: &str) -> Self {
        let net = |(node, more): &(&str, &str)| {
            let socket = lab.port_socket(&format!("{node}:eth0"));
            ["--net".into(), format!("socket={},mac={}{more}", socket.display(), mac(lab, node))]
        };
        let nets: Vec<String> = nodes.iter().flat_map(net).collect();
        let born = Instant::now();
        let mut vmm = Command::new(env!("CARGO_BIN_EXE_vnet"))
            .args(["vmm", "--memory", "16M", "--cmdline", command_line])
            .args(nets)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("vnet starts");
        let mut console = vmm.stdout.take().expect("a pipe");
        let (heard, said) = mpsc::channel();
        // It ends with the VMM, which closes the pipe.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = console.read(&mut bytes) {
                if heard.send(bytes[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { vmm, said, unread: String::new(), born }
    }

    /// Reads its console until `wanted` was said: what it said up to and with it.
    pub(crate) fn until(&mut self, wanted: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.unread.find(wanted) {
                let rest = self.unread.split_off(at + wanted.len());
                return std::mem::replace(&mut self.unread, rest);
            }
            match self.said.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.unread.push_str(&String::from_utf8_lossy(&bytes)),
                Err(why) => panic!("the guest did not say {wanted:?} ({why}), but:\n{}", self.unread),
            }
        }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.vmm.stdin.as_mut().expect("a pipe"), "{line}").expect("the VMM reads its console");
    }

    /// Powers it off; its exit code.
    pub(crate) fn power_off(mut self) -> Option<i32> {
        self.tell("poweroff");
        self.vmm.wait().expect("it ends").code()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // One that has ended already cannot be killed.
        let _ = self.vmm.kill();
        let _ = self.vmm.wait();
    }
}

#[test]
fn two_bundled_guests_and_a_station_ping_each_other() {
    if !kvm("bundled guests on the switch") {
        return;
    }
    let lab = Lab::new();
    let text = fs::read_to_string(topology("attach.vnet.yaml")).expect("the example is there");
    let file = lab.write("attach.vnet.yaml", &(text + EXPECT));
    lab.expect(0, &["up", "-d", file.to_str().expect("a path of ASCII")]);

    let mut first = Guest::start(&lab, "mine", "10.0.0.1", "10.0.0.9");
    first.until("10.0.0.9 answered after");
    let mut second = Guest::start(&lab, "other", "10.0.0.2", "10.0.0.1");
    second.until("10.0.0.1 answered after");
    // Its neighbour is known by now, and both wait for calls.
    second.tell("ping 10.0.0.1");
    second.until("10.0.0.1 answered after");

    let report: TestReport = serde_json::from_value(lab.json(&["test", "--running"])).expect("a report");
    assert!(report.rows.iter().all(|row| row.result == TestResult::Pass), "{report:?}");
    lab.assert_sound();
    assert_eq!([first.power_off(), second.power_off()], [Some(0); 2]);
}

#[test]
fn a_guest_pings_in_the_blink_of_an_eye() {
    if !kvm("how soon a bundled guest is up") {
        return;
    }
    const STARTS: usize = 50;
    let lab = Lab::new();
    lab.expect(0, &["up", "-d", &topology("attach.vnet.yaml")]);
    let mut times: Vec<_> = (0..STARTS)
        .map(|_| {
            let mut guest = Guest::start(&lab, "mine", "10.0.0.1", "10.0.0.9");
            guest.until("10.0.0.9 answered after");
            guest.born.elapsed()
        })
        .collect();
    times.sort_unstable();
    let (half, most) = (times[STARTS / 2], times[STARTS - 1]);
    println!("{STARTS} starts: from exec to the first answered ping median {half:.0?}, p99 {most:.0?}");
    assert!(half < Duration::from_millis(150) && most < Duration::from_millis(300), "{times:?}");
}
