//! What is lost on its way from VLAN to VLAN, at a router that translates, and where less fits: `why` says it after the event and `trace` before, each with the
//! line of the file and what mends it.

use crate::{
    common::Lab,
    process::eventually,
    routing::{ok, run},
    ways_out::is_left_out,
};
use controller::api::why::{WhyGroup, WhyView};
use vswitch_core::drop_reason::DropReason;

/// As in the office, `inet` is 192.0.2.1, and far away 203.0.113.80. Nobody has 10.0.20.99.
const OFFICE: &str = "version: 1
name: NAME
vlans:
  users: { id: 10, gateway: [10.0.10.1/24, \"fd00:10::1/64\"] }
  servers: { id: 20, gateway: [10.0.20.1/24, \"fd00:20::1/64\"] }
  wan: { id: 99, gateway: [192.0.2.2/24, \"2001:db8::2/64\"] }
routers:
  default:
    routes:
      - { to: 203.0.113.0/24, via: 192.0.2.1 }
      - { to: 198.51.100.0/24, via: blackhole }
    nat:
      - { masquerade: wan }
      - { forward: \"8080:web1:80/tcp\" }
      - { static: 192.0.2.10, to: web2 }
switches: { sw1: {} }
nodes:
  pc: { kind: netns, addresses: [10.0.10.7/24, \"fd00:10::7/64\"] }
  web1: { kind: netns, addresses: [10.0.20.10/24, \"fd00:20::10/64\"], mtu: 1400 }
  web2: { kind: netns, addresses: [10.0.20.20/24] }
  inet: { kind: netns, addresses: [192.0.2.1/24, \"2001:db8::1/64\"] }
links:
  - { endpoints: [pc, sw1], vlan: { access: users } }
  - { endpoints: [web1, sw1], vlan: { access: servers } }
  - { endpoints: [web2, sw1], vlan: { access: servers } }
  - { endpoints: [inet, sw1], vlan: { access: wan } }
";

/// A client hangs on to a server that has the router's address for a while, and goes on when that is gone.
const ELSEWHERE: &str = "set -e; ip addr add 192.0.2.2/32 dev lo; mkfifo PIPE PIPE.server
busybox nc -l -p 8080 <>PIPE.server >/dev/null 2>&1 &
while ! busybox netstat -tln | grep -q :8080; do :; done
curl -s --interface 192.0.2.1 -H Expect: -T - http://192.0.2.2:8080/ <>PIPE >/dev/null 2>&1 &
while ! busybox netstat -tn | grep -q ESTABLISHED; do :; done
ip addr del 192.0.2.2/32 dev lo; echo hello >PIPE";

/// The line of the file which begins so decided it.
#[track_caller]
fn assert_said(group: &WhyGroup, begin: &str) {
    let line = OFFICE.lines().position(|line| line.trim_start().starts_with(begin)).expect("it is there");
    let place = format!("lost.vnet.yaml:{}", line + 1);
    assert!(group.said.as_ref().is_some_and(|said| said.ends_with(&place)), "{place}: {group:#?}");
}

fn lab() -> Option<Lab> {
    if is_left_out("what routers lose") {
        return None;
    }
    let lab = Lab::new();
    let text = OFFICE.replace("NAME", &format!("t{}-lost", std::process::id()));
    lab.expect(0, &["up", "-d", &lab.write("lost.vnet.yaml", &text).display().to_string()]);
    ok(&lab, "inet", "ip route del default; ip addr add 203.0.113.80/32 dev lo");
    Some(lab)
}

/// What `why` tells of the frames from one to the other that were lost so; the words are those of the table, too.
fn why(lab: &Lab, ends: [&str; 2], is_it: impl Fn(&WhyGroup) -> bool) -> WhyGroup {
    let asks = ["why", ends[0], ends[1], "--last", "60s"];
    let group = eventually("it is recorded", || {
        let view: WhyView = serde_json::from_value(lab.json(&asks)).expect("an answer");
        view.groups.into_iter().find(&is_it)
    });
    let (table, _) = lab.expect(0, &asks);
    for words in [&group.said, &group.rule, &group.mend].into_iter().flatten() {
        assert!(table.contains(words), "{words}: {table}");
    }
    group
}

/// The same of a reason, decided by a line that begins so and makes it do this.
#[track_caller]
fn assert_why(lab: &Lab, ends: [&str; 2], reason: DropReason, begin: &str, does: &str) {
    let group = why(lab, ends, |group| group.reason == Some(reason));
    assert_said(&group, begin);
    assert_eq!(group.rule.as_deref(), Some(does), "{group:#?}");
    assert_eq!(group.mend.as_deref(), Some(reason.mend()));
    assert!(group.frames.iter().all(|alike| alike.frame.starts_with(ends[0])), "{group:#?}");
}

#[test]
fn what_does_not_come_from_vlan_to_vlan_is_told_with_the_line_of_route_or_gateway() {
    let Some(lab) = lab() else { return };
    for (to, reason, begin, does) in [
        (
            "172.16.5.5",
            DropReason::NoRoute,
            "users:",
            "gives VLAN users (10) a gateway of router default, which has no route to 172.16.5.5",
        ),
        (
            "198.51.100.9",
            DropReason::Blackhole,
            "- { to: 198.51.100.0/24",
            "leads 198.51.100.0/24 nowhere, in router default",
        ),
    ] {
        assert!(!run(&lab, "pc", &format!("busybox ping -c 1 -W 1 {to}")).0);
        assert_why(&lab, ["pc", to], reason, begin, does);
        let (told, _) = lab.expect(0, &["trace", "pc", to, "icmp"]);
        assert!(told.contains(&format!("dropped: {reason} - ")) && told.contains(reason.mend()), "{told}");
    }
    // A neighbour that is not there: kept for a while, and then given up.
    assert!(!run(&lab, "pc", "busybox ping -c 1 -W 1 10.0.20.99").0);
    let group = why(&lab, ["pc", "10.0.20.99"], |group| group.fate.contains("did not answer"));
    assert_eq!(
        group.fate,
        "dropped: it waited for 10.0.20.99 in VLAN servers (20), who did not answer the router"
    );
    assert_said(&group, "servers:");
    assert_eq!(group.rule.as_deref(), Some("leads it to 10.0.20.99"));
    assert!(group.mend.expect("a mend").contains("vnet show neighbours"));
    let (told, _) = lab.expect(0, &["trace", "pc", "10.0.20.99", "icmp"]);
    assert!(told.contains("router default: keeps it while it asks who has 10.0.20.99"), "{told}");
    // More wait for one than are kept.
    run(&lab, "pc", "for i in 1 2 3 4 5 6; do busybox ping -c 1 -W 1 10.0.20.98 & done; wait");
    let group = why(&lab, ["pc", "10.0.20.98"], |group| group.fate.contains("three later ones"));
    assert_eq!(
        group.fate,
        "dropped: three later ones waited for 10.0.20.98 in VLAN servers (20), whom the router was still asking for"
    );
    assert!(group.mend.expect("a mend").contains("the latest three wait"));
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn what_a_router_does_not_translate_is_told_with_its_rule_by_whichever_name() {
    let Some(lab) = lab() else { return };
    // Known to the router, so that nothing waits.
    for (node, to) in [("pc", "203.0.113.80"), ("inet", "192.0.2.10")] {
        ok(&lab, node, &format!("busybox ping -c 1 -W 5 {to}"));
    }
    assert!(!run(&lab, "pc", "busybox ping -s 3000 -c 1 -W 1 203.0.113.80").0);
    let does = "masquerades what goes out into VLAN wan (99)";
    assert_why(&lab, ["pc", "203.0.113.80"], DropReason::NatFragment, "- { masquerade: wan", does);
    // By the names of those whose addresses are others outside.
    assert!(!run(&lab, "inet", "busybox ping -s 3000 -c 1 -W 1 192.0.2.10").0);
    let does = "gives 10.0.20.20 the address 192.0.2.10 outside";
    assert_why(&lab, ["inet", "web2"], DropReason::NatFragment, "- { static: 192.0.2.10", does);
    let (told, _) = lab.expect(0, &["trace", "inet", "192.0.2.10", "icmp"]);
    assert!(told.contains("translated: goes on from 192.0.2.1 to 10.0.20.20"), "{told}");
    assert!(told.contains("sent to web2:eth0"), "{told}");
    let (told, _) = lab.expect(0, &["trace", "inet", "192.0.2.2", "tcp/8080"]);
    assert!(told.contains(" to 10.0.20.10:80"), "{told}");
    let (told, _) = lab.expect(0, &["trace", "inet", "192.0.2.2", "tcp/8081"]);
    assert!(told.contains("router default: 192.0.2.2 is its own; it answers"), "{told}");

    // A connection that began elsewhere, with one who had the router's address: the router never saw its SYN.
    ok(&lab, "inet", &ELSEWHERE.replace("PIPE", &lab.path("pipe").display().to_string()));
    let does = "forwards port 8080 to 10.0.20.10, port 80";
    assert_why(&lab, ["inet", "web1"], DropReason::NatInvalid, "- { forward:", does);
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn what_is_too_big_for_where_it_goes_is_told_with_the_line_of_the_mtu() {
    let Some(lab) = lab() else { return };
    for (to, size) in [("10.0.20.10", "1428"), ("fd00:20::10", "1448")] {
        // The kernel lets nobody cut it, hears how much fits, and cuts the next one itself.
        let heard = ok(&lab, "pc", &format!("busybox ping -s 1400 -c 3 -i 1 -W 2 {to}"));
        assert!(!heard.contains(" 0% packet loss"), "{heard}");
        assert_why(&lab, ["pc", "web1"], DropReason::MtuExceeded, "web1:", "gives it `mtu: 1400`");
        let (told, _) = lab.expect(0, &["trace", "pc", to, "icmp", "--size", size]);
        assert!(told.contains("mtu-exceeded") && told.contains("raise `mtu` on the destination"), "{told}");
        let (told, _) = lab.expect(0, &["trace", "pc", to, "icmp", "--size", "1400"]);
        assert!(told.contains("reaches web1:eth0"), "{told}");
    }
    let (_, err) = lab.expect(2, &["trace", "pc", "web1", "tcp/80", "--size", "1400"]);
    assert!(err.contains("error[bad-size]"), "{err}");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}
