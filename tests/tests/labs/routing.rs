//! Gateways as hosts see them: the kernel and busybox get addresses, names and a way from VLAN to VLAN, and nobody set anything up for them. What is in
//! another VLAN is reached by its gateway, and by no other router's.

use crate::{
    common::{Lab, left_out, real_guests, topology},
    process::eventually,
};
use controller::api::types::{TestReport, TestResult};
use serde_json::Value;
use std::{fs, process::Command};

/// `pc` and `other` know nothing of the network that they are in; of `web` the file states what it is.
const OFFICE: &str = "version: 1
name: NAME
vlans:
  users: { id: 10, gateway: [10.0.10.1/24, \"2001:db8:10::1/64\"], dhcp: { range: 10.0.10.50-10.0.10.99, lease: 1h }, ra: true }
  servers: { id: 20, gateway: [10.0.20.1/24, \"2001:db8:20::1/64\"], dhcp: true }
switches: { sw1: {}, sw2: {} }
nodes:
  pc: { kind: netns }
  other: { kind: netns, mac: \"02:00:00:00:20:07\", addresses: [10.0.20.7/24] }
  web: { kind: station, addresses: [10.0.20.10/24, \"2001:db8:20::10/64\"] }
links:
  - { endpoints: [pc, sw1], vlan: { access: users } }
  - { endpoints: [other, sw2], vlan: { access: servers } }
  - { endpoints: [web, sw1], vlan: { access: servers } }
  - [sw1, sw2]
";

/// What udhcpc tells this script of a lease.
const SCRIPT: &str = "#!/bin/sh
[ \"$1\" = bound ] || exit 0
ip addr flush dev $interface scope global
ip addr add $ip/$mask dev $interface
ip route replace default via $router
echo bound $ip/$mask by $router for $lease names at $dns
";

/// What a line says in a node, and whether it thinks well of it.
pub(crate) fn run(lab: &Lab, node: &str, line: &str) -> (bool, String) {
    let output = lab.vnet(&["exec", node, "--", "sh", "-c", &format!("{line} 2>&1")]);
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What it says, if it thinks well of it.
pub(crate) fn ok(lab: &Lab, node: &str, line: &str) -> String {
    let (good, said) = run(lab, node, line);
    assert!(good, "{node}: {line}: {said}");
    said
}

fn rows(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

#[test]
fn hosts_that_know_nothing_get_addresses_names_and_a_way_to_the_other_vlan() {
    let busybox = Command::new("busybox").arg("true").status().is_ok_and(|status| status.success());
    let root = rustix::process::geteuid().is_root();
    if !busybox || !root {
        return left_out(&format!("gateways as hosts see them: root is {root}, busybox is there: {busybox}"));
    }
    let lab = Lab::new();
    let text = OFFICE.replace("NAME", &format!("t{}-office", std::process::id()));
    lab.expect(0, &["up", "-d", &lab.write("office.vnet.yaml", &text).display().to_string()]);

    // The kernel makes itself an address of the advertised prefix, and has a default route (RFC 4862).
    eventually("pc has an IPv6 address", || {
        let addresses = ok(&lab, "pc", "ip -6 addr show scope global dev eth0; ip -6 route show default");
        let done = addresses.contains("2001:db8:10:") && !addresses.contains("tentative");
        (done && addresses.contains("default via fe80::")).then_some(())
    });
    eventually("pc reaches web", || {
        run(&lab, "pc", "busybox ping -c 1 -W 1 2001:db8:20::10").0.then_some(())
    });

    let script = lab.write("lease.sh", SCRIPT);
    let lease = |node: &str| {
        ok(&lab, node, &format!("chmod +x {0}; busybox udhcpc -f -q -n -i eth0 -s {0}", script.display()))
    };
    let said = lease("pc");
    assert!(said.contains("/24 by 10.0.10.1 for 3600 names at 10.0.10.1"), "{said}");
    let address = said.split("bound ").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    assert!(address.starts_with("10.0.10.") && !address.ends_with(".1"), "{said}");
    // What the file states is given to its host, and to nobody else.
    assert!(lease("other").contains("bound 10.0.20.7/24 by 10.0.20.1"));
    assert!(lease("pc").contains(&format!("bound {address}/24")), "the same again");

    ok(&lab, "pc", "busybox ping -c 3 -W 2 10.0.20.10");
    ok(&lab, "pc", "busybox ping -c 3 -W 2 10.0.20.7");
    ok(&lab, "pc", "busybox ping -c 1 -W 2 10.0.10.1");
    let hops = ok(&lab, "pc", "busybox traceroute -n -q 1 -w 2 10.0.20.7");
    let hops: Vec<_> = hops.lines().skip(1).map(|hop| hop.split_whitespace().nth(1).unwrap_or("")).collect();
    assert_eq!(hops, ["10.0.10.1", "10.0.20.7"], "the gateway, then the host");
    let names = ok(&lab, "pc", "busybox nslookup other 10.0.10.1");
    assert!(names.contains("10.0.20.7"), "{names}");
    let names = ok(&lab, "pc", "busybox nslookup 10.0.20.10 10.0.10.1");
    assert!(names.contains("web."), "{names}");
    let (_, unknown) = run(&lab, "pc", "busybox nslookup nobody 10.0.10.1");
    assert!(unknown.contains("NXDOMAIN"), "{unknown}");

    // Traces know the addresses that were given, in both places, and by themselves.
    for to in ["other", "web", "10.0.20.7"] {
        let (told, _) = lab.expect(0, &["trace", "pc", to, "icmp"]);
        assert!(told.contains("10.0.10.1") || told.contains("router default"), "{to}: {told}");
        assert!(told.contains("reaches"), "{to}: {told}");
    }
    let (told, _) = lab.expect(0, &["trace", "web", address, "icmp"]);
    assert!(told.contains("reaches pc"), "{told}");

    // And what is shown of it.
    let leases = lab.json(&["show", "leases"]);
    let of = |wanted: &str| rows(&leases["rows"]).iter().find(|row| row["address"] == wanted).cloned();
    assert_eq!(of(address).expect("pc's")["state"], "bound");
    assert_eq!(of("10.0.20.7").expect("other's")["name"], "other");
    let neighbours = lab.json(&["show", "neighbours"]);
    assert!(rows(&neighbours["rows"]).iter().any(|row| row["address"] == "10.0.20.10"), "{neighbours}");
    let routes = lab.json(&["show", "routes"]);
    let kind = |to: &str| rows(&routes).iter().find(|row| row["to"] == to).map(|row| row["kind"].clone());
    assert_eq!(kind("10.0.20.0/24"), Some("connected".into()));
    assert_eq!(kind("10.0.20.1/32"), Some("own".into()));
    let (_, lost) = run(&lab, "pc", "busybox ping -c 1 -W 1 192.0.2.1");
    assert!(lost.contains("100% packet loss"), "{lost}");
    let drops = lab.json(&["show", "drops"]);
    assert!(rows(&drops).iter().any(|row| row["reason"] == "no-route"), "{drops}");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn linux_guests_reach_each_other_by_their_gateways_as_the_file_alone_says() {
    if !real_guests() {
        return;
    }
    let lab = Lab::new();
    let text = fs::read_to_string(topology("routed.vnet.yaml")).expect("the example");
    let text = text.replace("kind: station", "kind: vm, image: debian, vmm: qemu");
    let file = lab.write("routed.vnet.yaml", &text).display().to_string();
    let report: TestReport = serde_json::from_value(lab.json(&["test", &file])).expect("a report");
    assert_eq!(report.rows.len(), 9);
    for row in &report.rows {
        assert!(row.result == TestResult::Pass && row.foreseen, "{row:#?}");
    }
    lab.assert_gone();
}

/// A guest of which the file states nothing, and what clients there are told.
const TOLD: &str = "version: 1
name: NAME
vlans:
  users: { id: 10, gateway: 10.0.10.1/24, dhcp: { domain: corp.example, mtu: 1400, routes: [{ to: 192.0.2.0/24, via: 10.0.10.9 }] } }
switches: { sw1: {} }
nodes:
  pc: { kind: vm, image: debian, vmm: qemu }
  web1: { kind: station, addresses: [10.0.10.9/24] }
links:
  - { endpoints: [pc, sw1], vlan: { access: users } }
  - { endpoints: [web1, sw1], vlan: { access: users } }
";

#[test]
fn a_debian_guest_takes_all_that_its_gateway_says() {
    if !real_guests() {
        return;
    }
    let lab = Lab::new();
    let name = format!("t{}-told", std::process::id());
    let file = lab.write("told.vnet.yaml", &TOLD.replace("NAME", &name));
    lab.expect(0, &["up", "-d", &file.display().to_string()]);
    let said = eventually("pc has a lease", || {
        let (_, said) = run(&lab, "pc", "ip link; ip -4 route; cat /etc/resolv.conf");
        said.contains("nameserver 10.0.10.1").then_some(said)
    });
    let search = format!("search corp.example {name}.internal");
    for told in ["mtu 1400", "default via 10.0.10.1", "192.0.2.0/24 via 10.0.10.9", &search] {
        assert!(said.contains(told), "{told}: {said}");
    }
    ok(&lab, "pc", "ping -c 1 -W 2 web1");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

/// The same networks at two routers, a rule that lets nothing in, and a route that leads nowhere.
const TENANTS: &str = "version: 1
vlans:
  users: { id: 10, gateway: 10.0.10.1/24 }
  servers: { id: 20, gateway: 10.0.20.1/24 }
  quiet: { id: 40 }
  blue: { id: 30, gateway: 10.0.10.1/24, router: blue }
routers: { blue: {}, default: { routes: [{ to: 10.9.0.0/16, via: blackhole }] } }
security-groups: { shut: [] }
switches: { sw1: {} }
nodes:
  pc: { kind: station, addresses: [10.0.10.7/24] }
  web: { kind: station, addresses: [10.0.20.7/24] }
  shut: { kind: station, addresses: [10.0.20.8/24], security-groups: [shut] }
  far: { kind: station, addresses: [10.9.0.7/24] }
  tenant: { kind: station, addresses: [10.0.10.7/24] }
links:
  - { endpoints: [pc, sw1], vlan: { access: users } }
  - { endpoints: [web, sw1], vlan: { access: servers } }
  - { endpoints: [shut, sw1], vlan: { access: servers } }
  - { endpoints: [far, sw1], vlan: { access: quiet } }
  - { endpoints: [tenant, sw1], vlan: { access: blue } }
expect:
  - pc -> web icmp allow
  - shut -> pc tcp/80 allow
  - pc -> shut icmp deny because policy
  - tenant -> web icmp deny because no-route
  - pc -> far icmp deny because blackhole
  - pc -> web arp deny
";

#[test]
fn what_is_in_another_vlan_is_reached_by_the_gateway_as_the_file_alone_says() {
    let lab = Lab::new();
    let file = topology("routed.vnet.yaml");
    let (told, _) = lab.expect(0, &["test", &file]);
    assert!(told.contains("9 of 9 expectations hold; the file alone says the same of 9"), "{told}");
    lab.expect(0, &["up", "-d", &file]);
    let (told, _) = lab.expect(0, &["trace", "pc1", "web1", "icmp"]);
    assert!(told.contains("router default: the route to 10.0.20.0/24 (line "), "{told}");
    assert!(told.contains("reaches web1:eth0"), "{told}");
    let (ports, _) = lab.expect(0, &["show", "ports"]);
    assert!(ports.contains("@routers:vlans"), "{ports}");
    let (nodes, _) = lab.expect(0, &["show", "nodes"]);
    assert!(!nodes.contains("@routers"), "{nodes}");
    lab.expect(0, &["pingall"]);
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn a_router_passes_on_what_its_routes_lead_to_and_nothing_else() {
    let lab = Lab::new();
    let file = lab.write("tenants.vnet.yaml", TENANTS);
    let (told, _) = lab.expect(0, &["test", file.to_str().unwrap()]);
    assert!(told.contains("6 of 6 expectations hold; the file alone says the same of 6"), "{told}");
    lab.assert_gone();
}
