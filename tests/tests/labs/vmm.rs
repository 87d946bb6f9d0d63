//! Bundled guests on the switch: `vnet vmm` attached to the example `attach` as any foreign VMM is.

use crate::common::{Lab, left_out, topology};
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

const EXPECT: &str =
    "\nexpect:\n  - st1 -> mine arp allow\n  - st1 -> mine icmp allow\n  - st1 -> other icmp allow\n";

/// A bundled guest; killed when it is dropped.
struct Guest {
    vmm: Child,
    said: Receiver<Vec<u8>>,
}

impl Guest {
    /// Attached to the port of `node`, with the MAC address that the file gives it; pinging `to` from its start.
    fn start(lab: &Lab, node: &str, address: &str, to: &str) -> Self {
        let (export, _) = lab.expect(0, &["export", "qemu", node]);
        let mac = export.split_once("mac=").and_then(|(_, rest)| rest.get(..17)).expect("a MAC address");
        let socket = lab.port_socket(&format!("{node}:eth0"));
        let net = format!("socket={},mac={mac},address={address}/24", socket.display());
        let mut vmm = Command::new(env!("CARGO_BIN_EXE_vnet"))
            .args(["vmm", "--memory", "16M", "--net", &net, "--cmdline", &format!("vnet.ping={to}")])
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
        Self { vmm, said }
    }

    /// Reads its console until `wanted` was said.
    fn until(&self, wanted: &str) {
        let end = Instant::now() + PATIENCE;
        let mut text = String::new();
        while !text.contains(wanted) {
            match self.said.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
                Err(why) => panic!("the guest did not say {wanted:?} ({why}), but:\n{text}"),
            }
        }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.vmm.stdin.as_mut().expect("a pipe"), "{line}").expect("the VMM reads its console");
    }

    /// Powers it off; its exit code.
    fn power_off(mut self) -> Option<i32> {
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
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return left_out("bundled guests on the switch: /dev/kvm is not there for us");
    }
    let lab = Lab::new();
    let text = fs::read_to_string(topology("attach.vnet.yaml")).expect("the example is there");
    let file = lab.write("attach.vnet.yaml", &(text + EXPECT));
    lab.expect(0, &["up", "-d", file.to_str().expect("a path of ASCII")]);

    let first = Guest::start(&lab, "mine", "10.0.0.1", "10.0.0.9");
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
