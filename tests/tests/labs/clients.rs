//! Gateways as programs of others see them, each by the standards that it knows: dhclient and dhcpcd, rdisc6 and ndisc6, dig, tracepath and mtr,
//! each in a namespace. They write into the test's own folder, and set up nothing but the namespace's own interface.

use crate::{
    common::{Lab, left_out},
    process::eventually,
    routing::{ok, run},
};
use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

/// Of `pc` the file says nothing; a packet for `web` may have 1400 bytes.
const OFFICE: &str = "version: 1
name: NAME
vlans:
  users: { id: 10, gateway: [10.0.10.1/24, \"2001:db8:10::1/64\"], dhcp: { range: 10.0.10.50-10.0.10.99, lease: 1h }, ra: true }
  servers:
    id: 20
    gateway: [10.0.20.1/24, \"2001:db8:20::1/64\"]
    neigh-suppress: true
    dhcp: { domain: lab.example, search: [lab.example, example], mtu: 1400, routes: [{ to: 192.0.2.0/24, via: 10.0.20.10 }] }
  tiny: { id: 30, gateway: 10.0.30.1/24, dhcp: { range: 10.0.30.50-10.0.30.50 } }
switches: { sw1: {} }
nodes:
  pc: { kind: netns }
  early: { kind: netns }
  late: { kind: netns }
  near: { kind: netns, addresses: [10.0.10.7/24, \"2001:db8:10::7/64\"] }
  other: { kind: netns, mac: \"02:00:00:00:20:07\", addresses: [10.0.20.7/24] }
  web: { kind: netns, addresses: [10.0.20.10/24, \"2001:db8:20::10/64\"], mtu: 1400 }
links:
  - { endpoints: [pc, sw1], vlan: { access: users } }
  - { endpoints: [near, sw1], vlan: { access: users } }
  - { endpoints: [early, sw1], vlan: { access: tiny } }
  - { endpoints: [late, sw1], vlan: { access: tiny } }
  - { endpoints: [other, sw1], vlan: { access: servers } }
  - { endpoints: [web, sw1], vlan: { access: servers } }
";

/// What DHCP clients tell this script: it sets up the address, and says all that it was told.
const SCRIPT: &str = "#!/bin/sh
[ -n \"$new_ip_address\" ] || exit 0
[ $reason = BOUND ] || [ $reason = REBOOT ] || exit 0
ip addr replace $new_ip_address/$new_subnet_mask dev $interface
ip route replace default via $new_routers
env | grep ^new_
exit 0
";

/// What dhclient asks for; it does not know the option of RFC 3442 by itself.
const WANTED: &str = "option classless code 121 = array of unsigned integer 8;
request subnet-mask, broadcast-address, routers, domain-name, domain-name-servers, domain-search, host-name, interface-mtu, classless;
";

/// A lab of that name in which these programs judge; none if one of them is missing, or the rights to make namespaces, which is said.
fn office(name: &str, programs: &[&str]) -> Option<Lab> {
    let is_there = |program: &&&str| {
        let looked = Command::new("sh")
            .args(["-c", "PATH=$PATH:/usr/sbin:/sbin; command -v \"$0\"", program])
            .stdout(Stdio::null())
            .status();
        !looked.is_ok_and(|status| status.success())
    };
    let missing: Vec<_> = programs.iter().filter(is_there).collect();
    let root = rustix::process::geteuid().is_root();
    if !missing.is_empty() || !root {
        left_out(&format!("gateways as others see them: root is {root}, missing are {missing:?}"));
        return None;
    }
    let lab = Lab::new();
    let text = OFFICE.replace("NAME", &lab_name(name));
    lab.expect(0, &["up", "-d", &lab.write("office.vnet.yaml", &text).display().to_string()]);
    Some(lab)
}

/// No other test's.
fn lab_name(name: &str) -> String {
    format!("t{}-{name}", std::process::id())
}

/// What a client was told, by its own names for it.
fn told(said: &str) -> BTreeMap<&str, &str> {
    said.lines().filter_map(|line| line.strip_prefix("new_")?.split_once('=')).collect()
}

/// dhclient in a node, with more arguments.
fn dhclient(lab: &Lab, node: &str, arguments: &str) -> String {
    let (script, conf) = (lab.write("dhclient.sh", SCRIPT), lab.write("dhclient.conf", WANTED));
    let (script, conf) = (script.display(), conf.display());
    let [leases, pid] =
        ["leases", "pid"].map(|file| lab.path(&format!("{node}.{file}")).display().to_string());
    let line = format!("dhclient -4 -1 -v {arguments} -cf {conf} -sf {script} -lf {leases} -pf {pid} eth0");
    ok(lab, node, &format!("PATH=$PATH:/usr/sbin:/sbin; chmod +x {script}; {line}"))
}

/// dhcpcd in a node: what it keeps for itself is gone afterwards.
fn dhcpcd(lab: &Lab, node: &str) -> String {
    let script = lab.write("dhcpcd.sh", SCRIPT).display().to_string();
    let own = "mkdir -p /var/lib/dhcpcd && mount -t tmpfs none /var/lib/dhcpcd && mount -t tmpfs none /run";
    let line = format!("chmod +x {script}; {own} && dhcpcd -4 -1 -B -d -f /dev/null -c {script} eth0");
    ok(lab, node, &format!("PATH=$PATH:/usr/sbin:/sbin; unshare --mount sh -c '{line}'"))
}

#[test]
fn dhclient_and_dhcpcd_get_what_the_file_says() {
    let Some(lab) = office("lease", &["dhclient", "dhcpcd", "unshare", "busybox"]) else { return };
    let said = dhclient(&lab, "pc", "");
    let lease = told(&said);
    let address = *lease.get("ip_address").unwrap_or_else(|| panic!("no lease: {said}"));
    let host: u8 = address.strip_prefix("10.0.10.").and_then(|host| host.parse().ok()).expect("an address");
    assert!((50..=99).contains(&host), "{address}");
    let domain = format!("{}.internal", lab_name("lease"));
    for (what, expected) in [
        ("subnet_mask", "255.255.255.0"),
        ("broadcast_address", "10.0.10.255"),
        ("routers", "10.0.10.1"),
        ("domain_name_servers", "10.0.10.1"),
        ("host_name", "pc"),
        ("domain_name", &domain),
        ("dhcp_server_identifier", "10.0.10.1"),
        ("dhcp_lease_time", "3600"),
        ("dhcp_renewal_time", "1800"),
        ("dhcp_rebinding_time", "3150"),
    ] {
        assert_eq!(lease.get(what), Some(&expected), "{what}: {said}");
    }
    ok(&lab, "pc", "busybox ping -c 1 -W 2 10.0.20.10");
    let has = |address: &str| {
        let leases = lab.json(&["show", "leases"]);
        let rows = leases["rows"].as_array().expect("a list");
        rows.iter().any(|row| row["address"] == address && row["state"] == "bound")
    };
    eventually("it is shown", || has(address).then_some(()));
    // Given back: it is free, until somebody takes it for itself, untold.
    dhclient(&lab, "pc", "-r");
    eventually("it is free", || (!has(address)).then_some(()));
    ok(&lab, "pc", "ip -4 addr flush dev eth0");
    ok(&lab, "near", &format!("ip addr add {address}/24 dev eth0"));
    let said = dhcpcd(&lab, "pc");
    let lease = told(&said);
    let other = lease.get("ip_address").unwrap_or_else(|| panic!("no lease: {said}"));
    assert!(other.starts_with("10.0.10.") && *other != address, "{said}");
    eventually("it is shown", || has(other).then_some(()));
    for (what, expected) in [
        ("subnet_cidr", "24"),
        ("routers", "10.0.10.1"),
        ("domain_name_servers", "10.0.10.1"),
        ("dhcp_lease_time", "3600"),
    ] {
        assert_eq!(lease.get(what), Some(&expected), "{what}: {said}");
    }
    // What the file states is its host's.
    let said = dhclient(&lab, "other", "");
    let lease = told(&said);
    for (what, expected) in [
        ("ip_address", "10.0.20.7"),
        ("host_name", "other"),
        ("domain_name", "lab.example"),
        ("domain_search", "lab.example. example."),
        ("interface_mtu", "1400"),
        // 24 bits of the network, the router; 0 bits, the gateway.
        ("classless", "24 192 0 2 10 0 20 10 0 10 0 20 1"),
    ] {
        assert_eq!(lease.get(what), Some(&expected), "{what}: {said}");
    }
    dhclient(&lab, "other", "-x");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn what_gateways_could_not_do_is_shown() {
    let Some(lab) = office("missing", &["busybox"]) else { return };
    // Who comes second gets no address.
    let lease = |node| run(&lab, node, "busybox udhcpc -f -q -n -t 2 -T 1 -i eth0 -s /bin/true");
    let (got, said) = lease("early");
    assert!(got && said.contains("lease of 10.0.30.50 obtained"), "{said}");
    let (got, said) = lease("late");
    assert!(!got && said.contains("no lease"), "{said}");
    let leases = lab.json(&["show", "leases"]);
    let pool = leases["pools"].as_array().expect("a list").iter().find(|pool| pool["vlan"] == 30);
    let pool = pool.expect("it has one");
    assert!(pool["free"] == 0 && pool["exhausted"].as_u64() >= Some(2), "{pool}");
    let (told, _) = lab.expect(0, &["show", "leases"]);
    assert!(told.contains("VLAN 30: no address of 10.0.30.50-10.0.30.50 was free for a client"), "{told}");
    let (log, _) = lab.expect(0, &["logs", "switch"]);
    assert!(log.contains("DHCP in VLAN 30: no address of 10.0.30.50-10.0.30.50 was free"), "{log}");
    // Nobody has that address.
    let (_, said) = run(&lab, "near", "busybox ping -c 1 -W 5 10.0.20.99");
    assert!(said.contains("100% packet loss"), "{said}");
    let state = |table: &serde_json::Value| {
        let row = table["rows"].as_array().expect("a list").iter().find(|row| row["address"] == "10.0.20.99");
        row.map(|row| (row["state"].clone(), row["mac"].is_null()))
    };
    eventually("it is shown", || {
        (state(&lab.json(&["show", "neighbours"])) == Some(("failed".into(), true))).then_some(())
    });
    let detail = &lab.ports()["@routers:vlans"].detail;
    assert!(detail.contains("1 frames were lost for neighbours that do not answer"), "{detail}");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn rdisc6_and_ndisc6_see_the_gateway() {
    let Some(lab) = office("ndisc", &["rdisc6", "ndisc6"]) else { return };
    // Who has no link-local address yet cannot ask.
    eventually("pc may speak", || {
        let addresses = ok(&lab, "pc", "ip -6 addr show dev eth0");
        (addresses.contains("fe80::") && !addresses.contains("tentative")).then_some(())
    });
    let said = ok(&lab, "pc", "rdisc6 -1 eth0");
    // A line each, whatever blanks are in it.
    let lines: Vec<_> =
        said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let domain = format!("DNS search list : {}.internal", lab_name("ndisc"));
    for expected in [
        "Hop limit : 64 ( 0x40)",
        "Stateful address conf. : No",
        "Stateful other conf. : No",
        "Router lifetime : 1800 (0x00000708) seconds",
        "Prefix : 2001:db8:10::/64",
        "On-link : Yes",
        "Autonomous address conf.: Yes",
        "Valid time : 86400 (0x00015180) seconds",
        "Pref. time : 14400 (0x00003840) seconds",
        "Recursive DNS server : 2001:db8:10::1",
        "DNS server lifetime : 1800 (0x00000708) seconds",
        &domain,
        "DNS search list lifetime: 1800 (0x00000708) seconds",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected}: {said}");
    }
    // All of its addresses are at the one MAC address that it advertises.
    let after = |text: &str| lines.iter().find_map(|line| line.strip_prefix(text).map(str::to_owned));
    let mac = after("Source link-layer address: ").expect("its MAC address");
    let link_local = after("from ").expect("its address");
    for address in ["2001:db8:10::1", &link_local] {
        let said = ok(&lab, "pc", &format!("ndisc6 -1 {address} eth0"));
        assert!(said.contains(&format!("Target link-layer address: {mac}")), "{said}");
        assert!(said.contains(&format!("from {address}")), "{said}");
    }
    // Not that of the other VLAN, and nobody else's.
    for address in ["2001:db8:20::1", "2001:db8:10::99"] {
        let (_, said) = run(&lab, "pc", &format!("ndisc6 -1 -r 1 -w 300 {address} eth0"));
        assert!(said.contains("No response"), "{said}");
    }
    // Where nothing is advertised nobody answers.
    let (_, said) = run(&lab, "other", "rdisc6 -1 -r 1 -w 300 eth0");
    assert!(said.contains("No response"), "{said}");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn dig_finds_names_and_addresses_and_is_refused_the_rest() {
    let Some(lab) = office("names", &["dig"]) else { return };
    let domain = format!("{}.internal", lab_name("names"));
    for (asked, answer) in [
        (format!("web.{domain} A"), "10.0.20.10"),
        (format!("web.{domain} AAAA"), "2001:db8:20::10"),
        ("WEB A".into(), "10.0.20.10"),
        (format!("gateway.users.{domain} A"), "10.0.10.1"),
        (format!("gateway.users.{domain} AAAA"), "2001:db8:10::1"),
        ("-x 10.0.20.7".into(), &format!("other.{domain}.")),
        ("-x 2001:db8:20::10".into(), &format!("web.{domain}.")),
        (format!("other.{domain} AAAA"), ""),
    ] {
        // Each gateway of the router tells it, over either version.
        for server in ["10.0.20.1", "10.0.10.1", "2001:db8:20::1"] {
            let said = ok(&lab, "web", &format!("dig +short +tries=1 @{server} {asked}"));
            assert_eq!(said.trim(), answer, "{asked} of {server}");
        }
    }
    for (asked, status) in [
        (format!("nobody.{domain}"), "NXDOMAIN"),
        (format!("other.{domain} AAAA"), "NOERROR"),
        ("example.com".into(), "REFUSED"),
    ] {
        let said = ok(&lab, "web", &format!("dig +tries=1 @10.0.20.1 {asked}"));
        assert!(said.contains(&format!("status: {status}")), "{asked}: {said}");
        // RFC 6891: what it takes was understood.
        assert!(said.contains("EDNS: version: 0"), "{asked}: {said}");
    }
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn who_is_known_is_answered_for_by_the_gateway() {
    let Some(lab) = office("known", &["busybox"]) else { return };
    // Its VLAN says `neigh-suppress`; `web` is stated in the file, so that the gateway looks for it once it is asked for.
    let answered_for =
        || lab.json(&["show", "neighbours"])["counts"]["answered_for"].as_u64().expect("a count");
    let reaches = || run(&lab, "other", "busybox ping -c 1 -W 1 10.0.20.10").0.then_some(());
    eventually("it is found as ever", reaches);
    let before = answered_for();
    eventually("the gateway answers for it", || {
        ok(&lab, "other", "ip neigh flush all");
        reaches()?;
        (answered_for() > before).then_some(())
    });
    let known = ok(&lab, "other", "ip neigh show 10.0.20.10");
    let own = ok(&lab, "web", "ip link show eth0");
    let mac = known.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).expect("it is known");
    assert!(own.contains(&format!("link/ether {mac}")), "{known}: {own}");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn what_may_be_cut_arrives_in_pieces() {
    let Some(lab) = office("pieces", &["busybox"]) else { return };
    // Linux forbids cutting unless it is told not to look for the way's MTU.
    ok(&lab, "near", "echo 1 > /proc/sys/net/ipv4/ip_no_pmtu_disc");
    let said = ok(&lab, "near", "busybox ping -c 3 -W 2 -s 1472 10.0.20.10");
    assert!(said.contains("3 packets transmitted, 3 packets received"), "{said}");
    let said = ok(&lab, "near", "ip route get 10.0.20.10");
    assert!(!said.contains("mtu"), "nobody told it of an MTU: {said}");
    // More than one piece at the sender already.
    let said = ok(&lab, "near", "busybox ping -c 3 -W 2 -s 6000 10.0.20.10");
    assert!(said.contains("3 packets transmitted, 3 packets received"), "{said}");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn tracepath_finds_the_mtu_of_the_way_and_mtr_its_hops() {
    let Some(lab) = office("hops", &["tracepath", "mtr", "busybox"]) else { return };
    eventually("near may speak", || {
        run(&lab, "near", "busybox ping -c 1 -W 1 2001:db8:20::10").0.then_some(())
    });
    for (version, gateway, web) in
        [("-4", "10.0.10.1", "10.0.20.10"), ("-6", "2001:db8:10::1", "2001:db8:20::10")]
    {
        let said = ok(&lab, "near", &format!("tracepath {version} -n {web}"));
        let lines: Vec<_> = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        // Its own interface takes 1500; the gateway says that the next way takes less.
        let smaller = lines.iter().find(|words| words.contains(&"1400")).expect("it is told");
        assert_eq!(smaller[1], gateway, "{said}");
        assert!(said.contains("Resume: pmtu 1400 hops 2 back 2"), "{said}");
        for probes in ["", "--udp", "--tcp"] {
            let said =
                ok(&lab, "near", &format!("mtr {version} {probes} -n --report -c 2 -i 0.2 -G 1 {web}"));
            let hops: Vec<_> = said.lines().filter_map(|line| line.split_once("|-- ")).collect();
            let hops: Vec<_> =
                hops.iter().map(|(_, hop)| hop.split_whitespace().collect::<Vec<_>>()).collect();
            assert_eq!(hops.len(), 2, "{said}");
            assert_eq!(hops[0][..2], [gateway, "0.0%"], "{probes}: {said}");
            assert_eq!(hops[1][..2], [web, "0.0%"], "{probes}: {said}");
        }
    }
    // Where all of the way takes 1500 it is found to.
    let said = ok(&lab, "near", "tracepath -4 -n 10.0.20.7");
    assert!(said.contains("Resume: pmtu 1500 hops 2 back 2"), "{said}");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}
