//! iPXE, a second driver: the ROM of QEMU's network card, attached to the example `attach` as any foreign VMM is
//! and driven at its own prompt.

use crate::{
    common::{Lab, left_out, real_guests, topology},
    ways_out::Server,
};
use controller::api::types::{TestReport, TestResult};
use std::{
    fs,
    io::{BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

/// How long iPXE may take to come to the end of a command; the longest is its start.
const PATIENCE: Duration = Duration::from_secs(90);

/// What ends each of its answers.
const PROMPT: &str = "iPXE>";

/// What is expected of it: that it answers while it waits at its prompt.
const EXPECT: &str = "\nexpect:\n  - st1 -> mine arp allow\n  - st1 -> mine icmp allow\n";

/// Of `mine` nothing is stated: it asks its gateway.
pub(crate) const ROUTED: &str = "version: 1
name: boot
vlans:
  users: { id: 10, gateway: 10.0.10.1/24, dhcp: { range: 10.0.10.50-10.0.10.99 } }
  servers: { id: 20, gateway: 10.0.20.1/24 }
switches: { sw1: {} }
nodes:
  mine: { kind: vhost-user, mac: \"02:00:00:00:10:07\" }
  web: { kind: netns, addresses: [10.0.20.10/24] }
links:
  - { endpoints: [mine, sw1], vlan: { access: users } }
  - { endpoints: [web, sw1], vlan: { access: servers } }
";

/// QEMU with nothing to boot but its network card's ROM, whose console is the serial line.
struct Rom {
    qemu: Child,
    said: Receiver<u8>,
}

impl Rom {
    /// Started as `vnet export` says, by a shell, as a user would paste it.
    fn attach(arguments: &str) -> Self {
        // SeaBIOS, and through it iPXE, has its console on the serial line if there are no graphics.
        let line = format!(
            "exec qemu-system-x86_64 -display none -machine graphics=off -serial stdio -monitor none -m 128 -boot n {arguments}"
        );
        let mut qemu = Command::new("sh")
            .args(["-c", &line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("QEMU starts");
        let console = qemu.stdout.take().expect("a pipe");
        let (heard, said) = mpsc::channel();
        // It ends with QEMU, which closes the pipe.
        let bytes = BufReader::new(console).bytes();
        thread::spawn(move || bytes.map_while(Result::ok).try_for_each(|byte| heard.send(byte)));
        Self { qemu, said }
    }

    /// Reads until `wanted` was said; returns all that was.
    fn until(&self, wanted: &str) -> String {
        let end = Instant::now() + PATIENCE;
        let mut text = String::new();
        while !text.ends_with(wanted) {
            match self.said.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(byte) => text.push(char::from(byte)),
                Err(why) => panic!("iPXE did not say {wanted:?} ({why}), but:\n{text}"),
            }
        }
        text
    }

    fn type_in(&mut self, keys: &str) {
        let keyboard = self.qemu.stdin.as_mut().expect("a pipe");
        keyboard.write_all(keys.as_bytes()).expect("QEMU reads its console");
    }

    /// Runs a command of iPXE's, and returns what it said. Each key waits for the echo of the one before: the BIOS keeps
    /// few keys (SeaBIOS: 16), and loses those that come too fast.
    fn run(&mut self, command: &str) -> String {
        for key in command.chars().map(String::from) {
            self.type_in(&key);
            self.until(&key);
        }
        self.type_in("\r");
        self.until(PROMPT)
    }
}

impl Drop for Rom {
    fn drop(&mut self) {
        self.qemu.kill().and_then(|()| self.qemu.wait()).expect("QEMU ends");
    }
}

fn has_rom() -> bool {
    if !real_guests() {
        return false;
    }
    let roms = ["/usr/lib/ipxe/qemu/efi-virtio.rom", "/usr/share/qemu/efi-virtio.rom"];
    let is_there = roms.iter().any(|rom| Path::new(rom).exists());
    if !is_there {
        left_out("iPXE as a driver: this machine lacks QEMU's network ROM (Debian: ipxe-qemu)");
    }
    is_there
}

#[test]
fn the_stock_rom_gets_an_address_from_its_gateway_and_fetches_a_file_of_another_vlan() {
    if !has_rom() {
        return;
    }
    if !rustix::process::geteuid().is_root() || Command::new("busybox").arg("true").output().is_err() {
        left_out("iPXE behind a router: this needs root, for a namespace, and busybox, for its web server");
        return;
    }
    let lab = Lab::new();
    let file = lab.write("boot.vnet.yaml", ROUTED);
    lab.expect(0, &["up", "-d", file.to_str().expect("a path of ASCII")]);
    let big: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let _web = Server::start(&lab, "web", &big);
    let mut rom = Rom::attach(lab.expect(0, &["export", "qemu", "mine", "--memory", "128"]).0.trim());
    rom.until("for the iPXE command line");
    // Ctrl-B.
    rom.type_in("\x02");
    rom.until(PROMPT);
    let leased = rom.run("dhcp net0");
    assert!(leased.contains("ok"), "{leased}");
    let (leases, _) = lab.expect(0, &["show", "leases"]);
    let address = rom.run("show net0/ip");
    let own =
        leases.lines().find(|line| line.contains("mine")).unwrap_or_else(|| panic!("no lease: {leases}"));
    let own = own.split_whitespace().find(|word| word.starts_with("10.0.10.")).expect("an address");
    assert!(address.contains(&format!("= {own}\r")), "{address} is not {own}");
    let gateway = rom.run("show net0/gateway");
    assert!(gateway.contains("= 10.0.10.1\r"), "{gateway}");
    let fetched = rom.run("imgfetch http://10.0.20.10/file");
    let kept = rom.run("imgstat");
    println!("iPXE: {}\n{}\n{}", leased.trim(), fetched.trim(), kept.trim());
    assert!(fetched.contains("ok") && kept.contains("file : 300000 bytes"), "{fetched}{kept}");
    lab.assert_sound();
}

#[test]
fn the_stock_rom_boots_what_dhcp_says() {
    if !has_rom() {
        return;
    }
    if !rustix::process::geteuid().is_root() || Command::new("busybox").arg("true").output().is_err() {
        left_out(
            "iPXE that boots what DHCP says: this needs root, for a namespace, and busybox, for its web server",
        );
        return;
    }
    for (name, boot, says) in [
        // Nobody types anything: the script that is fetched says what it was told.
        (
            "by-url",
            "{ file: \"http://10.0.20.10/file\" }",
            "booted by http://10.0.20.10/file from 10.0.20.10",
        ),
        // The file of a server, by TFTP, which `web` does not speak.
        ("by-name", "{ server: web, file: boot/undionly.kpxe }", "tftp://10.0.20.10/boot/undionly.kpxe"),
    ] {
        let lab = Lab::new();
        let text = ROUTED.replace("name: boot", &format!("name: {name}"));
        let text = text.replace("10.0.10.99 }", &format!("10.0.10.99, boot: {boot} }}"));
        let file = lab.write("boot.vnet.yaml", &text);
        lab.expect(0, &["up", "-d", file.to_str().expect("a path of ASCII")]);
        let script = "#!ipxe\necho booted by ${filename} from 10.0.20.10\nshell\n";
        let _web = Server::start(&lab, "web", script.as_bytes());
        let rom = Rom::attach(lab.expect(0, &["export", "qemu", "mine", "--memory", "128"]).0.trim());
        println!("iPXE: {}", rom.until(says));
        lab.assert_sound();
    }
}

#[test]
fn the_stock_rom_attaches_has_link_and_speaks_arp_and_tcp_with_a_station() {
    if !has_rom() {
        return;
    }
    let lab = Lab::new();
    let text = fs::read_to_string(topology("attach.vnet.yaml")).expect("the example is there");
    let file = lab.write("attach.vnet.yaml", &(text + EXPECT));
    lab.expect(0, &["up", "-d", file.to_str().expect("a path of ASCII")]);
    let mut rom = Rom::attach(lab.expect(0, &["export", "qemu", "mine", "--memory", "128"]).0.trim());
    rom.until("for the iPXE command line");
    // Ctrl-B.
    rom.type_in("\x02");
    rom.until(PROMPT);
    for command in ["set net0/ip 10.0.0.1", "set net0/netmask 255.255.255.0", "ifopen net0"] {
        rom.run(command);
    }
    let state = rom.run("ifstat");
    assert!(state.contains("using virtio-net") && state.contains("Link:up"), "{state}");
    let before = lab.port_up("mine:eth0");

    // To fetch anything it must first ask who has the station's address, and hear the answer. What the station's echo
    // service sends back is its own request, which is no HTTP answer: an error, but one that came over TCP.
    let fetched = rom.run("imgfetch http://10.0.0.9:7/any");
    let state = rom.run("ifstat");
    let after = lab.ports();
    let [heard, sent] = ["RX:", "TX:"].map(|count| number_behind(&state, count));
    println!("iPXE: {}\n{}", fetched.trim(), state.trim());
    let gone_by = |port: &str| {
        let [before, after] = [&before, &after].map(|rows| &rows[port].counters);
        (after.from_port.frames - before.from_port.frames, after.to_port.delivered - before.to_port.delivered)
    };
    // ARP request and SYN, and the request itself; ARP answer, SYN-ACK, and the echo.
    let (from_rom, to_rom) = gone_by("mine:eth0");
    assert!(from_rom >= 3 && to_rom >= 3, "{from_rom} frames from iPXE, {to_rom} to it: {fetched}");
    assert!(heard >= 3 && sent >= 3, "{state}");
    assert!(fetched.contains("Invalid argument"), "the echo of its own request: {fetched}");
    let fdb = lab.json(&["show", "fdb"]).to_string();
    assert!(fdb.contains("mine:eth0"), "its address was learned: {fdb}");

    // The other way round: it answers the station's ARP and ICMP while it waits at its prompt.
    let report: TestReport = serde_json::from_value(lab.json(&["test", "--running"])).expect("a report");
    assert!(report.rows.iter().all(|row| row.result == TestResult::Pass), "{report:?}");
    lab.assert_sound();
}

/// The number behind `word`.
fn number_behind(text: &str, word: &str) -> u64 {
    let rest = text.split_once(word).map(|(_, rest)| rest).unwrap_or_default();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{word} is not followed by a number in:\n{text}"))
}
