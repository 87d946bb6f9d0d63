//! `kind: user`: a lab without rights, and a namespace that plays the host, whose network passt leads out to, or vnet itself.

use crate::{
    common::{Lab, left_out, real_guests, topology},
    process::{eventually, kill},
    routing::ok,
};
use controller::{api::types::DatapathView, probing::Line};
use probe::{
    Answer, Request,
    answer::Contact,
    ask::{Connect, Ping, Send, Source, UdpEcho},
    bulk::Checksum,
};
use serde_json::Value;
use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::{IpAddr, SocketAddr},
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::runtime::{Builder, Runtime};

/// `st` reaches what is outside of the lab by `up`.
const LAB: &str = "version: 1
name: out
vlans:
  lan: { id: 10, gateway: [10.0.10.1/24, \"fd00:10::1/64\"] }
  wan: { id: 99, gateway: [192.0.2.2/24, \"2001:db8::2/64\"] }
routers:
  default:
    routes: [{ to: default, via: 192.0.2.1 }, { to: default, via: \"2001:db8::1\" }]
    nat: [{ masquerade: wan }]
switches: { sw1: {} }
nodes:
  st: { kind: station, addresses: [10.0.10.7/24, \"fd00:10::7/64\"] }
  up: { kind: user, addresses: [192.0.2.1/24, \"2001:db8::1/64\"] }
links:
  - { endpoints: [st, sw1], vlan: { access: lan } }
  - { endpoints: [up, sw1], vlan: { access: wan } }
";

/// A host with default routes that lead nowhere, whose group may ping. [`FAR`] is far away to whoever asks, is the
/// host's own, and has its resolver.
const HOST: &str = "ip link set lo up && ip link add up0 type veth peer name up1 && ip link set up1 up &&
    ip addr add 198.51.100.2/24 dev up0 && ip link set up0 up && ip route add default via 198.51.100.1 &&
    ip -6 addr add 2001:db8:f::2/64 dev up0 nodad && ip -6 route add default via 2001:db8:f::1 dev up0 &&
    ip addr add 203.0.113.80/32 dev lo && ip -6 addr add 2001:db8:80::80/128 dev lo &&
    echo nameserver 203.0.113.80 > \"$1/resolv.conf\" && mount --bind \"$1/resolv.conf\" /etc/resolv.conf &&
    echo 0 0 > /proc/sys/net/ipv4/ping_group_range && exec \"$0\" \"$1\"";

/// Who is to be reached, in both families.
const FAR: [&str; 2] = ["203.0.113.80", "2001:db8:80::80"];

/// Who makes sockets of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Passt,
    /// There is no passt in PATH.
    Vnet,
}

/// How long what must happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long what must not happen is waited for.
const A_WHILE: Duration = Duration::from_secs(1);

/// A network namespace that plays the host; it ends when it is dropped.
struct Host {
    holder: Child,
    /// Where programs are found.
    path: String,
    /// The rights of root there are taken from who enters, too.
    unprivileged: bool,
}

impl Host {
    /// A new one, with its far end; none, with the reason told, if this machine cannot have it.
    fn start(lab: &Lab, by: By, unprivileged: bool, file: &[u8]) -> Option<Self> {
        fs::write(lab.path("file"), file).expect("a file");
        let mut command = Command::new("unshare");
        // A namespace of users has its own root, who is nobody outside.
        command.args(if unprivileged { &["-U", "-r", "-n", "-m"][..] } else { &["-n", "-m"] });
        command.args(["sh", "-c", HOST, env!("CARGO_BIN_EXE_far")]).arg(lab.path(""));
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut holder) = started else {
            left_out("ways out without rights: this machine lacks unshare");
            return None;
        };
        let mut said = String::new();
        let out = holder.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut said).expect("a line, or its end");
        let there = ["nsenter", "setpriv", "env", "passt"]
            .map(|program| Command::new(program).arg("--version").output().is_ok());
        let there = if by == By::Passt { &there[..] } else { &there[..3] };
        let path = match by {
            By::Passt => env::var("PATH").expect("there is one"),
            By::Vnet => programs_but_passt(&lab.path("bin")),
        };
        let host = Self { holder, path, unprivileged };
        let is_ready = said == "ready\n";
        if !is_ready || there.contains(&false) {
            left_out(&format!(
                "ways out without rights: a namespace that plays the host: {is_ready}, nsenter, setpriv, env, passt: {there:?}"
            ));
            return None;
        }
        Some(host)
    }

    /// What runs a program there, without rights or as root.
    fn by(&self) -> Vec<String> {
        let target = self.holder.id().to_string();
        let without = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"];
        let (enter, rights): (&[&str], &[&str]) = match self.unprivileged {
            true => (&["-U", "--preserve-credentials"], &without),
            false => (&[], &[]),
        };
        let path = ["env".to_owned(), format!("PATH={}", self.path)];
        let words = ["nsenter", "-n", "-m", "-t", &target].into_iter();
        let words = words.chain(enter.iter().copied()).chain(rights.iter().copied());
        words.map(str::to_owned).chain(path).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its standard input ends with it.
        drop(self.holder.stdin.take());
        self.holder.wait().expect("it ends");
    }
}

/// A folder with all programs that this user finds, but for passt.
fn programs_but_passt(folder: &Path) -> String {
    fs::create_dir(folder).expect("a folder");
    let path = env::var_os("PATH").expect("there is one");
    let entries = env::split_paths(&path).filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name() != "passt") {
        // The first of a name is found.
        let _ = symlink(entry.path(), folder.join(entry.file_name()));
    }
    folder.display().to_string()
}

/// A station of the lab, that can be asked.
struct Station {
    line: Line,
    runtime: Runtime,
}

impl Station {
    fn of(lab: &Lab, name: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let socket = lab.runtime().join("out/stations.sock");
        let line = runtime.block_on(Line::connect(&socket, name, PATIENCE)).expect("it answers");
        Self { line, runtime }
    }

    fn ask(&self, request: Request) -> Answer {
        self.runtime.block_on(self.line.ask(request)).expect("it answers")
    }

    /// What becomes of a connection within that time.
    fn contact(&self, dst: &str, port: u16, timeout: Duration) -> Contact {
        let dst = SocketAddr::new(dst.parse().expect("an address"), port);
        match self.ask(Request::Connect(Connect { dst, from: Source::Any, timeout })) {
            Answer::Connect(contact) => contact,
            other => panic!("{other:?}"),
        }
    }

    /// Whether it stands.
    fn connects(&self, dst: &str, port: u16, timeout: Duration) -> bool {
        matches!(self.contact(dst, port, timeout), Contact::Answered(_))
    }

    /// What becomes of a datagram with so many times the same.
    fn echo(&self, dst: &str, port: u16, times: usize, timeout: Duration) -> Contact {
        let dst = SocketAddr::new(dst.parse().expect("an address"), port);
        let payload = b"what is my name".repeat(times);
        match self.ask(Request::UdpEcho(UdpEcho { dst, from: Source::Any, payload, timeout })) {
            Answer::UdpEcho(contact) => contact,
            other => panic!("{other:?}"),
        }
    }

    /// Whether a datagram comes back.
    fn is_echoed(&self, dst: &str, port: u16) -> bool {
        matches!(self.echo(dst, port, 80, PATIENCE), Contact::Answered(_))
    }

    /// It reaches the far end by TCP, UDP and ping.
    fn reaches(&self, far: &str) {
        assert!(self.connects(far, 80, PATIENCE), "{far}");
        assert!(self.is_echoed(far, 7), "{far}");
        assert_eq!(self.ping(far, PATIENCE), 3, "{far}");
    }

    /// How many of three pings are answered.
    fn ping(&self, dst: &str, timeout: Duration) -> usize {
        let dst: IpAddr = dst.parse().expect("an address");
        let (payload, interval) = (56, Duration::from_millis(10));
        let ping = Ping { dst, from: Source::Any, count: 3, payload, interval, timeout };
        let Answer::Ping(Ok(echoes)) = self.ask(Request::Ping(ping)) else { panic!("no ping of {dst}") };
        assert_eq!(echoes.sent, 3, "{dst}");
        echoes.received()
    }
}

/// What `show nodes` says of the way out.
fn way_out(lab: &Lab) -> Value {
    let rows = lab.json(&["show", "nodes"]);
    let row = rows.as_array().expect("rows").iter().find(|row| row["node"] == "up");
    row.expect("it is in the file").clone()
}

/// The process of the way out, other than `before`, when its port is up.
fn process(lab: &Lab, before: u32) -> u32 {
    let pid = eventually("a way out runs", || {
        let row = way_out(lab);
        let pid = row["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.filter(|pid| row["state"] == "running" && *pid != before)
    });
    lab.port_up("up:eth0");
    pid
}

/// The user of a process, as this one sees it.
fn user(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).expect("it has a user");
    line.split('\t').next().expect("a number").to_owned()
}

#[test]
fn a_lab_without_rights_reaches_the_hosts_network_and_comes_back_to_it() {
    reaches_and_comes_back(By::Passt);
}

#[test]
fn without_passt_vnet_itself_leads_out() {
    reaches_and_comes_back(By::Vnet);
}

fn reaches_and_comes_back(by: By) {
    let lab = Lab::new();
    let Some(host) = Host::start(&lab, by, true, b"") else { return };
    let file = lab.write("out.vnet.yaml", LAB).display().to_string();
    lab.expect_by(0, &host.by(), &["up", "-d", &file]);
    let row = way_out(&lab);
    assert_eq!((&row["kind"], &row["state"]), (&"user".into(), &"running".into()), "{row}");
    let how = match by {
        By::Passt => "passt: sockets of this machine's own, for 192.0.2.2 and 2001:db8::2",
        By::Vnet => {
            "vnet: sockets of this machine's own, for 192.0.2.2 and 2001:db8::2; passt is not in PATH"
        }
    };
    assert_eq!(row["detail"], how);
    let (first, station) = (process(&lab, 0), Station::of(&lab, "st"));
    FAR.iter().for_each(|far| station.reaches(far));
    // A long one, whose bytes are as they were sent.
    let dst = "203.0.113.80:9".parse().expect("an address");
    let send = Send { dst, from: Source::Any, bytes: 3 << 20, seed: 7, timeout: PATIENCE };
    let Answer::Sent(Ok(sent)) = station.ask(Request::Send(send)) else { panic!("nothing was sent") };
    let received = fs::read(lab.path("received")).expect("a file");
    let mut checksum = Checksum::new();
    checksum.update(&received);
    assert_eq!((received.len() as u64, checksum.value()), (3 << 20, sent.bulk.checksum));
    let closed = [FAR[0], FAR[1], "192.0.2.1", "2001:db8::1"];
    match by {
        // The passt of 2023 refuses by a RST without ACK, which nobody may believe (RFC 9293 §3.10.7.3).
        By::Passt => assert!(!station.connects(FAR[0], 81, A_WHILE)),
        By::Vnet => closed.iter().for_each(|dst| {
            assert_eq!(station.contact(dst, 81, PATIENCE), Contact::Refused, "{dst}");
            assert_eq!(station.echo(dst, 81, 1, PATIENCE), Contact::Refused, "{dst}");
        }),
    }
    // Who asks it for names asks the host's resolver.
    assert!(station.is_echoed("192.0.2.1", 53));
    // Otherwise the way out's address is no door to what listens on the host's loopback.
    for own in ["192.0.2.1", "2001:db8::1"] {
        assert!(!station.connects(own, 80, A_WHILE), "{own}");
    }
    lab.assert_sound();

    kill(first);
    let second = process(&lab, first);
    FAR.iter().for_each(|far| station.reaches(far));
    let (said, _) = lab.expect(0, &["logs", "controller"]);
    assert!(said.contains("up ended: was killed by signal 9"), "{said}");
    // It ends with the switch, and is there for the next one.
    let datapath = || {
        let shown = lab.vnet(&["show", "datapath", "--format", "json"]);
        serde_json::from_slice::<DatapathView>(&shown.stdout).ok()
    };
    let before = datapath().expect("a switch");
    kill(before.pid);
    eventually("another switch", || datapath().filter(|now| now.pid != before.pid));
    let third = process(&lab, second);
    eventually("it is reached again", || station.connects(FAR[0], 80, A_WHILE).then_some(()));
    lab.expect(0, &["down"]);
    lab.assert_gone();
    eventually("no way out is left", || {
        (!fs::exists(format!("/proc/{third}")).expect("/proc is there")).then_some(())
    });
}

#[test]
fn of_a_lab_of_roots_ways_out_are_nobodys() {
    if !rustix::process::geteuid().is_root() {
        return left_out("a way out of root's: this user is not root");
    }
    for by in [By::Passt, By::Vnet] {
        let lab = Lab::new();
        let Some(host) = Host::start(&lab, by, false, b"") else { return };
        let file = lab.write("out.vnet.yaml", LAB).display().to_string();
        lab.expect_by(0, &host.by(), &["up", "-d", &file]);
        assert_ne!(user(process(&lab, 0)), "0", "{by:?}");
        let station = Station::of(&lab, "st");
        assert!(station.connects(FAR[0], 80, PATIENCE), "{by:?}");
        // Only root's group may ping there. Who asks the way out itself is answered by nobody else.
        if by == By::Vnet {
            assert_eq!((station.ping(FAR[0], A_WHILE), station.ping("192.0.2.1", PATIENCE)), (0, 3));
            let (said, _) = lab.expect(0, &["logs", "up"]);
            assert_eq!(said.matches("nobody is pinged").count(), 1, "{said}");
        }
        lab.expect(0, &["down"]);
        lab.assert_gone();
    }
}

#[test]
fn large_files_go_both_ways_and_wait_where_there_is_no_room() {
    let has = |program| Command::new(program).arg("--help").output().is_ok();
    if !rustix::process::geteuid().is_root() || !has("busybox") || !has("curl") {
        return left_out("large files by a way out: root, busybox or curl is missing");
    }
    // No other test's: namespaces have names of their lab's.
    let name = format!("large{}", std::process::id() % 100_000);
    let n1 = "kind: netns, addresses: [10.0.10.7/24]";
    let text =
        LAB.replace("name: out", &format!("name: {name}")).replace("st:", "n1:").replace("[st,", "[n1,");
    let text = text.replace("kind: station, addresses: [10.0.10.7/24, \"fd00:10::7/64\"]", n1);
    let big: Vec<u8> = (0..64 << 20_u32).map(|n: u32| (n.wrapping_mul(n) >> 9) as u8).collect();
    for by in [By::Passt, By::Vnet] {
        let lab = Lab::new();
        let Some(host) = Host::start(&lab, by, false, &big) else { return };
        let file = lab.write("large.vnet.yaml", &text).display().to_string();
        lab.expect_by(0, &host.by(), &["up", "-d", &file]);
        let path = lab.path("file").display().to_string();
        // passt of Debian 12 ends long uploads now and then by itself (`docs/decisions/0047`).
        let sent = if by == By::Passt { 8 << 20 } else { big.len() };
        ok(&lab, "n1", &format!("head -c {sent} {path} | busybox nc 203.0.113.80 9"));
        let is_there = || fs::read(lab.path("received")).is_ok_and(|received| received == big[..sent]);
        eventually("all of it arrives", || is_there().then_some(()));
        for _ in 0..3 {
            let sum = ok(&lab, "n1", "curl -s -m 50 http://203.0.113.80/file | sha256sum");
            let own = Command::new("sha256sum").stdin(fs::File::open(&path).expect("a file")).output();
            assert_eq!(sum.as_bytes(), own.expect("it runs").stdout, "{by:?}");
        }
        // Some frames at most, where a CPU was away for long: it were most of them.
        let drops = lab.json(&["show", "drops"]);
        let lost = |port: &str| -> u64 {
            let rows = drops.as_array().expect("rows").iter();
            let of = rows.filter(|row| row["reason"] == "no-buffer" && row["port"] == port);
            of.filter_map(|row| row["frames"].as_u64()).sum()
        };
        assert!(lost("up:eth0") < 100 && lost("n1:eth0") < 2000, "{by:?}: {drops}");
        lab.expect(0, &["down"]);
        lab.assert_gone();
    }
}

#[test]
fn a_guest_of_the_example_fetches_a_file_from_the_hosts_network() {
    if real_guests() {
        [By::Passt, By::Vnet].into_iter().for_each(fetches_a_file);
    }
}

fn fetches_a_file(by: By) {
    let lab = Lab::new();
    let big: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let Some(host) = Host::start(&lab, by, true, &big) else { return };
    lab.expect_by(0, &host.by(), &["up", "-d", &topology("way-out.vnet.yaml")]);
    // Its kernel knows nothing: the gateway gives it an address, and tells names: the lab's own, and what the host's resolver says of others.
    eventually("pc1 has an address", || {
        ok(&lab, "pc1", "ip -4 addr show dev eth0").contains("10.0.10.").then_some(())
    });
    let said = ok(&lab, "pc1", "cat /etc/resolv.conf");
    assert!(said.contains("nameserver 10.0.10.1"), "{said}");
    for (name, address) in [("web1", "10.0.10.80"), ("example.com", "192.0.2.99")] {
        let said = ok(&lab, "pc1", &format!("nslookup {name}"));
        assert!(said.contains(address), "{said}");
    }
    let sum = ok(&lab, "pc1", "wget -q -O - http://203.0.113.80/file | sha256sum");
    let own = Command::new("sha256sum").stdin(fs::File::open(lab.path("file")).expect("a file")).output();
    assert_eq!(sum.as_bytes(), own.expect("it runs").stdout);
    ok(&lab, "pc1", "ping -c 2 -W 2 203.0.113.80");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}
