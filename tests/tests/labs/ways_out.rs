//! What routers translate, as hosts see it: the kernel and busybox inside, and a network namespace that plays the internet.

use crate::{
    common::{Lab, left_out, real_guests, topology},
    process::eventually,
    routing::{ok, run},
};
use rustix::process::Pid;
use std::{fs, os::unix::fs::PermissionsExt, process::Command};

/// `pc` knows nothing of the network that it is in. `inet` is 192.0.2.1, and far away 203.0.113.80 and 2001:db8:80::80.
const OFFICE: &str = "version: 1
vlans:
  users: { id: 10, gateway: [10.0.10.1/24, \"fd00:10::1/64\"], dhcp: { range: 10.0.10.50-10.0.10.99 }, ra: true }
  servers: { id: 20, gateway: [10.0.20.1/24, \"fd00:20::1/64\"] }
  wan: { id: 99, gateway: [192.0.2.2/24, \"2001:db8::2/64\"] }
routers:
  default:
    routes: [{ to: default, via: 192.0.2.1 }, { to: default, via: \"2001:db8::1\" }]
    nat: [{ masquerade: wan }, { forward: \"8080:web1:80/tcp\" }]
switches: { sw1: {} }
nodes:
  pc: { kind: netns }
  web1: { kind: netns, addresses: [10.0.20.10/24, \"fd00:20::10/64\"] }
  inet: { kind: netns, addresses: [192.0.2.1/24, \"2001:db8::1/64\"] }
links:
  - { endpoints: [pc, sw1], vlan: { access: users } }
  - { endpoints: [web1, sw1], vlan: { access: servers } }
  - { endpoints: [inet, sw1], vlan: { access: wan } }
";

/// Two tenants with the same addresses, each with a router and a way out of its own; the same MAC address, too, as clones of one machine have.
const TENANTS: &str = "version: 1
vlans:
  red: { id: 10, gateway: 10.0.0.1/24, router: red }
  blue: { id: 20, gateway: 10.0.0.1/24, router: blue }
  wan-red: { id: 98, gateway: 192.0.2.2/24, router: red }
  wan-blue: { id: 99, gateway: 198.51.100.2/24, router: blue }
routers:
  red:
    routes: [{ to: default, via: 192.0.2.1 }]
    nat: [{ static: 192.0.2.10, to: clone1 }, { masquerade: wan-red }]
  blue:
    routes: [{ to: default, via: 198.51.100.1 }]
    nat: [{ static: 198.51.100.10, to: clone2 }, { masquerade: wan-blue }]
switches: { sw1: {} }
nodes:
  clone1: { kind: netns, mac: \"02:00:00:00:00:42\", addresses: [10.0.0.7/24] }
  clone2: { kind: netns, mac: \"02:00:00:00:00:42\", addresses: [10.0.0.7/24] }
  other1: { kind: netns, addresses: [10.0.0.8/24] }
  inet:
    kind: netns
    interfaces: { eth0: { addresses: [192.0.2.1/24] }, eth1: { addresses: [198.51.100.1/24] } }
links:
  - { endpoints: [clone1, sw1], vlan: { access: red } }
  - { endpoints: [other1, sw1], vlan: { access: red } }
  - { endpoints: [clone2, sw1], vlan: { access: blue } }
  - { endpoints: [\"inet:eth0\", sw1], vlan: { access: wan-red } }
  - { endpoints: [\"inet:eth1\", sw1], vlan: { access: wan-blue } }
";

/// What udhcpc tells this script of a lease.
const SCRIPT: &str = "#!/bin/sh
[ \"$1\" = bound ] || exit 0
ip addr add $ip/$mask dev $interface
ip route replace default via $router
";

/// What a web server says to whom it hears.
const WHO: &str = "#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n%s\\n' $REMOTE_ADDR
";

/// A web server in a node, until it is dropped.
pub(crate) struct Server(Pid);

impl Server {
    /// It has `file`, and tells at `cgi-bin/who` who asks.
    pub(crate) fn start(lab: &Lab, node: &str, file: &[u8]) -> Self {
        let folder = lab.path(&format!("{node}-web"));
        fs::create_dir_all(folder.join("cgi-bin")).expect("a folder");
        fs::write(folder.join("file"), file).expect("a file");
        let script = folder.join("cgi-bin/who");
        fs::write(&script, WHO).expect("a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a script");
        let line = format!("busybox httpd -f -p 80 -h {} >/dev/null 2>&1 & echo $!", folder.display());
        let pid = ok(lab, node, &line).trim().parse().ok().and_then(Pid::from_raw);
        Self(pid.expect("the number of a process"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::TERM);
    }
}

/// Whether hosts on ways out cannot be played here; says so of `what`.
pub(crate) fn is_left_out(what: &str) -> bool {
    let has = |program: &str| Command::new(program).arg("--help").output().is_ok();
    let (root, busybox, curl) = (rustix::process::geteuid().is_root(), has("busybox"), has("curl"));
    let is_left_out = !(root && busybox && curl);
    if is_left_out {
        left_out(&format!("{what}: root is {root}, busybox is there: {busybox}, curl: {curl}"));
    }
    is_left_out
}

/// Whom a server thinks that a node is.
fn seen_as(lab: &Lab, node: &str, server: &str) -> String {
    let asks = format!("curl -s -f -m 5 http://{server}/cgi-bin/who");
    eventually("the server answers", || {
        let (good, said) = run(lab, node, &asks);
        // It hears IPv4 on a socket of IPv6.
        good.then(|| said.trim().trim_start_matches("[::ffff:").trim_end_matches(']').to_owned())
    })
}

#[test]
fn a_host_reaches_the_internet_by_the_routers_address_and_a_forwarded_port_leads_in() {
    if is_left_out("masquerade as hosts see it") {
        return;
    }
    let lab = Lab::new();
    let file = lab.write("office.vnet.yaml", OFFICE);
    lab.expect(0, &["up", "-d", file.to_str().unwrap()]);
    // Far away, and nobody there knows of networks inside.
    ok(&lab, "inet", "ip route del default; ip -6 route del default; ip addr add 203.0.113.80/32 dev lo");
    ok(&lab, "inet", "ip -6 addr add 2001:db8:80::80/128 dev lo");
    let script = lab.write("lease.sh", SCRIPT);
    ok(&lab, "pc", &format!("chmod +x {0}; busybox udhcpc -f -q -n -i eth0 -s {0}", script.display()));
    let big: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let _far = Server::start(&lab, "inet", &big);
    let _web1 = Server::start(&lab, "web1", b"of web1\n");

    assert_eq!(seen_as(&lab, "pc", "203.0.113.80"), "192.0.2.2");
    // Busybox tells an IPv6 address in brackets, or mapped.
    eventually("pc has an IPv6 address", || {
        let addresses = ok(&lab, "pc", "ip -6 addr show scope global dev eth0");
        (addresses.contains("fd00:10:") && !addresses.contains("tentative")).then_some(())
    });
    assert!(seen_as(&lab, "pc", "[2001:db8:80::80]").contains("2001:db8::2"));
    ok(&lab, "pc", &format!("curl -s -f -m 20 -o {0} http://203.0.113.80/file", lab.path("got").display()));
    assert!(fs::read(lab.path("got")).expect("a file") == big, "as it was sent");

    ok(&lab, "pc", "busybox ping -c 2 -W 2 203.0.113.80");
    ok(&lab, "pc", "busybox ping -c 2 -W 2 2001:db8:80::80");
    let hops = ok(&lab, "pc", "busybox traceroute -n -q 1 -w 2 203.0.113.80");
    let hops: Vec<_> = hops.lines().skip(1).map(|hop| hop.split_whitespace().nth(1).unwrap_or("")).collect();
    assert_eq!(hops, ["10.0.10.1", "203.0.113.80"]);
    let (_, refused) = run(&lab, "pc", "curl -sS -m 5 http://203.0.113.80:81/");
    assert!(refused.contains("(7)"), "{refused}");

    for (node, who) in [("inet", "192.0.2.1"), ("pc", "10.0.10.")] {
        let said = ok(&lab, node, "curl -s -f -m 5 http://192.0.2.2:8080/file");
        assert_eq!(said, "of web1\n");
        assert!(seen_as(&lab, node, "192.0.2.2:8080").starts_with(who), "web1 hears who asks");
    }
    // From web1 itself, and so from its own network: by the router there and back.
    assert_eq!(seen_as(&lab, "web1", "192.0.2.2:8080"), "10.0.20.1");

    let (connections, _) = lab.expect(0, &["show", "connections"]);
    assert!(connections.contains("> 203.0.113.80:80"), "what is outside of it: {connections}");
    let of_ipv6 = connections.lines().find(|line| line.contains("[2001:db8:80::80]:80")).expect("of IPv6");
    assert!(of_ipv6.contains("[2001:db8::2]:") && of_ipv6.contains("> [2001:db8:80::80]:80"), "{of_ipv6}");
    let (told, _) = lab.expect(0, &["trace", "web1", "inet", "tcp/80"]);
    assert!(told.contains("translated: goes on from 192.0.2.2:"), "{told}");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn tenants_with_the_same_addresses_reach_out_each_by_its_own_and_clones_are_reached() {
    if is_left_out("tenants that reach out") {
        return;
    }
    let lab = Lab::new();
    let file = lab.write("tenants.vnet.yaml", TENANTS);
    lab.expect(0, &["up", "-d", file.to_str().unwrap()]);
    ok(&lab, "inet", "ip route del default; true; ip addr add 203.0.113.80/32 dev lo");
    let _far = Server::start(&lab, "inet", b"far\n");
    let _servers =
        ["clone1", "clone2"].map(|node| Server::start(&lab, node, format!("of {node}\n").as_bytes()));
    // A clone is the same to everybody outside, whichever way a connection begins; its neighbour has the router's address.
    for (node, outside) in [("clone1", "192.0.2.10"), ("clone2", "198.51.100.10"), ("other1", "192.0.2.2")] {
        assert_eq!(seen_as(&lab, node, "203.0.113.80"), outside, "{node}");
    }
    for (node, outside) in [("clone1", "192.0.2.10"), ("clone2", "198.51.100.10")] {
        let said = eventually("the clone answers", || {
            let (good, said) = run(&lab, "inet", &format!("curl -s -f -m 5 http://{outside}/file"));
            good.then_some(said)
        });
        assert_eq!(said, format!("of {node}\n"));
        ok(&lab, "inet", &format!("busybox ping -c 2 -W 2 {outside}"));
    }
    // Nothing leads from the one to the other.
    let (reached, _) = run(&lab, "clone2", "busybox ping -c 1 -W 1 192.0.2.2");
    assert!(!reached);
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn the_office_comes_up_by_itself_and_reaches_out() {
    if !real_guests() || is_left_out("an office of Linux guests") {
        return;
    }
    let lab = Lab::new();
    lab.expect(0, &["up", "-d", &topology("office.vnet.yaml")]);
    ok(&lab, "inet", "ip route del default; ip -6 route del default; ip addr add 203.0.113.80/32 dev lo");
    let _far = Server::start(&lab, "inet", b"of the internet\n");
    ok(&lab, "web1", "mkdir /tmp/web; echo of web1 > /tmp/web/file; httpd -p 80 -h /tmp/web");

    // pc1 knows nothing but that it is to ask.
    let addresses = ok(&lab, "pc1", "ip addr show dev eth0; ip route; ip -6 route; cat /etc/resolv.conf");
    for known in ["inet 10.0.10.", "default via 10.0.10.1", "nameserver 10.0.10.1", "search office.internal"]
    {
        assert!(addresses.contains(known), "{known}: {addresses}");
    }
    eventually("pc1 makes itself an address of the prefix", || {
        let addresses = ok(&lab, "pc1", "ip -6 addr show dev eth0; ip -6 route");
        (addresses.contains("fd00:10:") && addresses.contains("default via fe80:")).then_some(())
    });
    let leases = lab.json(&["show", "leases"]);
    assert!(leases.to_string().contains("\"name\":\"pc1\""), "{leases}");
    let names = ok(&lab, "pc1", "nslookup web1.office.internal");
    assert!(names.contains("10.0.20.10") && names.contains("fd00:20::10"), "{names}");
    ok(&lab, "pc1", "ping -c 2 -W 2 10.0.20.10");
    ok(&lab, "pc1", "ping -c 2 -W 2 fd00:20::10");
    ok(&lab, "guest1", "ping -c 2 -W 2 10.0.20.10");
    let hops = ok(&lab, "pc1", "traceroute -n -q 1 -w 2 203.0.113.80");
    let hops: Vec<_> = hops.lines().skip(1).map(|hop| hop.split_whitespace().nth(1).unwrap_or("")).collect();
    assert_eq!(hops, ["10.0.10.1", "203.0.113.80"]);
    for node in ["pc1", "guest1"] {
        let asks = "printf 'GET /file HTTP/1.0\\r\\n\\r\\n' | nc -w 5 203.0.113.80 80";
        let said = ok(&lab, node, asks);
        assert!(said.ends_with("of the internet\n"), "{said}");
    }
    assert_eq!(ok(&lab, "inet", "curl -s -f -m 5 http://192.0.2.2:8080/file"), "of web1\n");

    let (told, _) = lab.expect(0, &["trace", "web1", "inet", "tcp/443"]);
    assert!(told.contains("translated: goes on from 192.0.2.2:"), "{told}");
    let (routes, _) = lab.expect(0, &["show", "routes"]);
    assert!(routes.contains("192.0.2.1"), "{routes}");
    let (neighbours, _) = lab.expect(0, &["show", "neighbours"]);
    assert!(neighbours.contains("10.0.20.10"), "{neighbours}");
    let (connections, _) = lab.expect(0, &["show", "connections"]);
    assert!(connections.contains("> 203.0.113.80:80"), "{connections}");
    lab.expect(0, &["down"]);
    lab.assert_gone();
    let (told, _) = lab.expect(0, &["test", &topology("office.vnet.yaml")]);
    assert!(told.contains("expectations hold"), "{told}");
}
