//! nmap and hping3 as judges: from a namespace they see of a firewall what its rules say, and nothing else.

use crate::{
    common::{Lab, left_out},
    process::eventually,
};
use std::{collections::BTreeMap, process::Command};

/// `scan` looks at `web`, whose httpd listens on TCP port 80: reached are TCP 80 and 81 and UDP 55; rejected TCP 82 and UDP 53; nothing else is let in.
const LAB: &str = "version: 1
name: NAME
security-groups:
  web:
    - { direction: ingress, protocol: tcp, port: [80, 81] }
    - { direction: ingress, protocol: udp, port: 55 }
    - { direction: ingress, protocol: tcp, port: 82, action: reject }
    - { direction: ingress, protocol: udp, port: 53, action: reject }
    - { direction: ingress, protocol: icmp, icmp-type: 8, ether-type: ipv4 }
switches: { sw1: {} }
nodes:
  scan: { kind: netns, addresses: [10.0.0.1/24, \"2001:db8::1/64\"] }
  web: { kind: netns, addresses: [10.0.0.2/24, \"2001:db8::2/64\"], security-groups: [web] }
links: [[scan, sw1], [web, sw1]]
expect:
  - scan -> web tcp/82 reject
  - scan -> web udp/53 reject
  - scan -> web tcp/83 deny because policy-ingress
  - scan -> web udp/54 deny
";

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

impl Lab {
    /// What a program in a node says, whatever it thinks of that.
    fn run(&self, node: &str, line: &str) -> String {
        let output = self.vnet(&["exec", node, "--", "sh", "-c", &format!("{line} 2>&1")]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Port by port, what nmap makes of it, and why.
    fn nmap(&self, arguments: &str) -> BTreeMap<u16, String> {
        let said = self.run("scan", &format!("nmap -n -Pn --reason --max-retries 2 {arguments}"));
        let rows = said.lines().filter_map(|line| {
            let (port, rest) = line.split_once('/')?;
            let words: Vec<_> = rest.split_whitespace().collect();
            // PROTOCOL STATE SERVICE REASON [from HOST] [ttl N]
            let [_, state, _, reason, ..] = words[..] else { return None };
            Some((port.parse().ok()?, format!("{state} {reason}")))
        });
        let rows: BTreeMap<_, _> = rows.collect();
        assert!(!rows.is_empty(), "nmap {arguments}: {said}");
        rows
    }
}

fn seen<const N: usize>(rows: [(u16, &str); N]) -> BTreeMap<u16, String> {
    rows.map(|(port, seen)| (port, seen.to_owned())).into()
}

#[test]
fn nmap_and_hping3_see_exactly_what_the_rules_say() {
    let missing: Vec<_> = ["nmap", "hping3", "busybox"].into_iter().filter(|program| !has(program)).collect();
    let root = rustix::process::geteuid().is_root();
    if !missing.is_empty() || !root {
        return left_out(&format!("a firewall as others see it: root is {root}, missing are {missing:?}"));
    }
    let lab = Lab::new();
    let text = LAB.replace("NAME", &format!("t{}-judges", std::process::id()));
    lab.expect(0, &["up", "-d", &lab.write("judges.vnet.yaml", &text).display().to_string()]);
    lab.expect(0, &["test", "--running"]);
    lab.run("web", "busybox httpd -p '[::]:80' >/dev/null");
    eventually("it serves", || {
        lab.run("scan", "busybox nc -w 1 10.0.0.2 80 </dev/null && echo yes").contains("yes").then_some(())
    });

    let tcp = seen([
        (80, "open syn-ack"),
        (81, "closed reset"),
        (82, "closed reset"),
        (83, "filtered no-response"),
    ]);
    for target in ["10.0.0.2", "-6 2001:db8::2"] {
        assert_eq!(lab.nmap(&format!("-sS -p 80-83 {target}")), tcp, "{target}");
        assert_eq!(
            lab.nmap(&format!("-sU -p 54 {target}")),
            seen([(54, "open|filtered no-response")]),
            "{target}"
        );
        assert_eq!(lab.nmap(&format!("-sU -p 55 {target}")), seen([(55, "closed port-unreach")]), "{target}");
        let rejected = seen([(53, "filtered admin-prohibited")]);
        assert_eq!(lab.nmap(&format!("-sU -p 53 {target}")), rejected, "{target}");
        // What belongs to no connection says nothing of what is behind, whatever its control bits.
        for scan in ["-sA", "-sW", "-sM"] {
            let silent = seen([(80, "filtered no-response"), (83, "filtered no-response")]);
            let told = lab.nmap(&format!("{scan} -p 80,83 {target}"));
            let told = told.into_iter().map(|(port, state)| (port, state.replace("open|", ""))).collect();
            assert_eq!(silent, told, "{scan} {target}");
        }
        for scan in ["-sF", "-sN", "-sX"] {
            let silent = seen([(80, "open|filtered no-response"), (81, "open|filtered no-response")]);
            assert_eq!(lab.nmap(&format!("{scan} -p 80,81 {target}")), silent, "{scan} {target}");
        }
    }

    let hping = |arguments: &str| lab.run("scan", &format!("hping3 -c 2 -i u100000 {arguments} 10.0.0.2"));
    for (arguments, told) in [
        ("-S -p 80", "flags=SA"),
        ("-S -p 81", "flags=RA"),
        ("-S -p 82", "flags=RA"),
        ("-S -p 83", "100% packet loss"),
        ("-A -p 80", "100% packet loss"),
        ("-F -p 82", "100% packet loss"),
        ("-S -A -p 80", "100% packet loss"),
        ("-R -p 80", "100% packet loss"),
        ("--icmp", "icmp_seq=0"),
        ("--icmp --icmptype 13", "100% packet loss"),
        ("--udp -p 53", "100% packet loss"),
        ("--udp -p 54", "100% packet loss"),
    ] {
        let said = hping(arguments);
        assert!(said.contains(told), "hping3 {arguments}: {said}");
    }
    lab.assert_sound();
    lab.expect(0, &["down"]);
    lab.assert_gone();
}
