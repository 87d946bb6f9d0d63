//! What is told of firewalls in the lab of three tiers: who is behind which rules, how often each decided, what they let through, and what
//! would let through what they drop.

use crate::common::{Lab, topology};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

fn rows<'v>(view: &'v Value, key: &str) -> &'v [Value] {
    view[key].as_array().unwrap_or_else(|| panic!("no rows `{key}` in {view}"))
}

#[test]
fn rules_say_how_often_they_decided_and_connections_where_they_stand() {
    let lab = Lab::new();
    let file = topology("web-tier.vnet.yaml");
    lab.expect(0, &["up", "-d", &file]);
    let policies: BTreeMap<_, _> = lab.ports().into_iter().map(|(port, row)| (port, row.policy)).collect();
    let policies: Vec<_> = ["client", "web1", "db1", "admin"]
        .iter()
        .map(|node| policies[&format!("{node}:eth0")].as_str())
        .collect();
    assert_eq!(policies, ["open", "web, managed", "db, managed", "admin"]);
    let view = lab.json(&["show", "rules"]);
    let rules = rows(&view, "rules");
    assert!(rules.len() == 7 && rules.iter().all(|rule| rule["hits"] == 0), "{view}");
    let (text, _) = lab.expect(0, &["show", "connections"]);
    assert_eq!(text, "no firewall knows a connection, and no router translates one\n");

    lab.expect(0, &["test", "--running"]);
    let view = lab.json(&["show", "rules"]);
    // Each is used by an expectation or two, over IPv4 and IPv6.
    let lines: Vec<_> = fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    for rule in rows(&view, "rules") {
        assert!(rule["hits"].as_u64().is_some_and(|hits| hits >= 2), "{rule}");
        let (name, line) = rule["said"].as_str().and_then(|said| said.rsplit_once(':')).expect("a line");
        assert_eq!(name, file);
        let line = &lines[line.parse::<usize>().unwrap() - 1];
        assert!(line.contains(rule["matches"].as_str().unwrap()), "{rule}: {line}");
    }
    let https = &rows(&view, "rules")[0];
    assert_eq!(https["interfaces"], serde_json::json!(["web1:eth0", "web2:eth0"]));
    assert_eq!(https["hits"], 2, "once a connection, however many its frames are");
    let defaults: BTreeMap<_, _> =
        rows(&view, "defaults").iter().map(|row| (row["interface"].as_str().unwrap(), row)).collect();
    assert_eq!(defaults.len(), 5, "the client has no firewall");
    let count = |node: &str, what: &str| defaults[node]["counts"][what].as_u64().unwrap();
    assert!(count("web1:eth0", "ingress_dropped") >= 4 && count("web1:eth0", "egress_allowed") >= 2);
    assert_eq!(count("db1:eth0", "egress_allowed"), 0, "a rule of its allows something");
    assert!(count("db1:eth0", "egress_dropped") >= 2 && count("admin:eth0", "ingress_basic") > 0);
    let (text, _) = lab.expect(0, &["show", "rules", "db1"]);
    for part in ["protocol: udp, port: 53, remote-ip-prefix: [10.0.10.0/24,", "db1:eth0", "managed"] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert!(!text.contains("port: [80, 443]"), "{text}");

    let view = lab.json(&["show", "connections", "web1:eth0"]);
    let own = rows(&view, "rows");
    assert!(view["entries"] == own.len() && own.iter().all(|row| row["interface"] == "web1:eth0"), "{view}");
    let http = own.iter().filter(|row| row["ends"]["ports"]["inside"] == 80);
    let mut http: Vec<_> = http.map(|row| (&row["outside"], &row["opener"], &row["protocol"])).collect();
    http.sort_by_key(|(outside, ..)| outside.as_str());
    let [v4, v6] = &http[..] else { panic!("not once over each family: {view}") };
    assert_eq!(*v4, (&"10.0.10.7".into(), &"ingress".into(), &6.into()));
    assert_eq!(v6.0, "2001:db8:10::7");
    let (text, _) = lab.expect(0, &["show", "connections"]);
    assert!(text.contains("[2001:db8:10::11]:80") && text.contains("INTERFACE"), "{text}");
    assert_eq!(lab.expect(0, &["show", "rules", "client"]).0, "client has no firewall\n");
    let (text, _) = lab.expect(0, &["show", "connections", "client"]);
    assert_eq!(text, "no firewall of client knows a connection\n");
    let (_, err) = lab.expect(2, &["show", "rules", "nobody"]);
    assert!(err.contains("there is no interface `nobody`") && err.contains("client, web1"), "{err}");
    let (_, err) = lab.expect(2, &["show", "ports", "web1"]);
    assert!(err.contains("`vnet show rules NODE`"), "{err}");
}

#[test]
fn the_line_that_why_and_trace_name_lets_the_frame_pass() {
    let lab = Lab::new();
    let file = topology("web-tier.vnet.yaml");
    lab.expect(0, &["up", "-d", &file]);
    lab.expect(0, &["test", "--running"]);
    let (told, _) = lab.expect(0, &["trace", "client", "app1", "tcp/8080"]);
    let v4 = "- { direction: ingress, protocol: tcp, port: 8080, remote-ip-prefix: 10.0.10.7/32 }";
    let whereto = "in a security group of app1:eth0 (app, managed)";
    assert!(told.contains(&format!("no rule allows it; would pass with `{v4}` {whereto}")), "{told}");

    assert!(told.contains("mend: add an ingress rule") && !told.contains("`vnet trace`"), "{told}");

    let view = lab.json(&["why", "client", "app1", "--last", "5m"]);
    let frames = rows(&view, "groups").iter().flat_map(|group| rows(group, "frames"));
    let mut mends: Vec<_> = frames.filter_map(|frame| frame["mend"].as_str()).collect();
    mends.sort_unstable();
    let lines: Vec<_> = mends.iter().filter_map(|mend| mend.split('`').nth(1)).collect();
    let v6 = "- { direction: ingress, protocol: tcp, port: 8080, remote-ip-prefix: \"2001:db8:10::7/128\" }";
    assert_eq!(lines, [v6, v4], "{view}");
    let (told, _) = lab.expect(0, &["why", "client", "app1", "--last", "5m"]);
    assert!(told.contains(&format!("judged again: no rule allows it; would pass with `{v4}`")), "{told}");
    assert!(!told.contains("mend: add an ingress rule"), "{told}");
    lab.expect(0, &["down"]);

    let text = fs::read_to_string(&file).unwrap();
    let with = lines.iter().map(|line| format!("    {line}\n")).collect::<String>();
    let denied = "client -> app1 tcp/8080 deny because firewall";
    assert!(text.contains(denied));
    let text = text
        .replace("\n  app:\n", &format!("\n  app:\n{with}"))
        .replace(denied, "client -> app1 tcp/8080 allow");
    let mended = lab.write("mended.vnet.yaml", &text);
    lab.expect(0, &["test", mended.to_str().unwrap()]);
    lab.assert_gone();
}

#[test]
fn a_rule_that_logs_is_read_in_the_log_of_the_switch() {
    let lab = Lab::new();
    let text = fs::read_to_string(topology("web-tier.vnet.yaml")).unwrap();
    let ssh = "- { direction: ingress, protocol: tcp, port: 22, remote-group: admin }";
    assert!(text.contains(ssh));
    let text = text.replace(ssh, &ssh.replace(" }", ", log: true }"));
    let file = lab.write("logs.vnet.yaml", &text);
    lab.expect(0, &["up", "-d", file.to_str().unwrap()]);
    lab.expect(0, &["test", "--running"]);
    let end = Instant::now() + Duration::from_secs(20);
    let wanted = "rule: db1:eth0 to its guest: group managed allows it (line ";
    loop {
        let (log, _) = lab.expect(0, &["logs", "switch"]);
        let own: Vec<_> = log.lines().filter(|line| line.contains("rule: ")).collect();
        if own.len() >= 2 {
            assert!(own.len() == 2 && own.iter().all(|line| line.contains(wanted)), "{log}");
            assert!(own[0].contains("10.0.10.99 > 10.0.10.31 TCP") && own[1].contains("> 22 SYN"), "{log}");
            break;
        }
        assert!(Instant::now() < end, "it is not logged: {log}");
    }
}

/// What a firewall makes of probes from `c`: `deaf` rejects all, neighbour discovery too; `mute` hears and may
/// not answer; `shy` takes all but who asks where it is.
const PROBED: &str = "version: 1
name: NAME
security-groups:
  deaf: [{ direction: ingress, action: reject }]
  mute:
    - { direction: ingress, protocol: tcp, port: 80, stateful: false }
    - { direction: egress, protocol: udp }
  shy: [{ direction: ingress, ether-type: arp, action: drop }, { direction: ingress }]
switches: { sw1: {} }
nodes:
  c: { kind: station, addresses: [10.0.0.1/24] }
  deaf: { kind: station, addresses: [10.0.0.2/24], security-groups: [deaf] }
  mute: { kind: station, addresses: [10.0.0.3/24], security-groups: [mute] }
  shy: { kind: station, addresses: [10.0.0.4/24], security-groups: [shy] }
links: [[c, sw1], [deaf, sw1], [mute, sw1], [shy, sw1]]
expect:
";

/// Tests `expectations` in the lab of [`PROBED`]; its rows.
fn probed(lab: &Lab, status: i32, name: &str, expectations: &[&str]) -> Vec<Value> {
    let name = format!("t{}-{name}", std::process::id());
    let expect = expectations.iter().map(|line| format!("  - {line}\n")).collect::<String>();
    let text = format!("{}{expect}", PROBED.replace("NAME", &name));
    let file = lab.write(&format!("{name}.vnet.yaml"), &text).display().to_string();
    let (out, err) = lab.expect(status, &["test", &file, "--format", "json"]);
    let view: Value = serde_json::from_str(&out).unwrap_or_else(|why| panic!("{why}: {out}{err}"));
    rows(&view, "rows").to_vec()
}

#[test]
fn a_probe_that_goes_out_as_a_raw_frame_is_rejected_if_the_switch_answers_it() {
    let lab = Lab::new();
    let seen = probed(&lab, 0, "raw", &["c -> deaf tcp/80 reject", "c -> deaf icmp reject"]);
    for (row, answer) in seen.iter().zip(["a TCP RST", "an ICMP error"]) {
        let proof = row["proof"].as_str().unwrap();
        let words = format!("answered with {answer}");
        assert!(proof.contains(&words) && proof.contains("raw frame"), "{row}");
        assert_eq!(row["foreseen"], true, "{row}");
    }
    lab.assert_gone();
}

#[test]
fn an_answer_that_a_firewall_drops_is_told_as_the_cause() {
    let lab = Lab::new();
    let seen = probed(&lab, 6, "mute", &["c -> mute tcp/80 allow"]);
    let proof = seen[0]["proof"].as_str().unwrap();
    assert!(
        proof.contains("mute:eth0, and its answer was dropped at mute:eth0: invalid-egress ("),
        "{seen:?}"
    );
    let trace = &seen[0]["trace"];
    assert_eq!(trace["dropped"], "invalid-egress", "{trace}");
    lab.assert_gone();
}

#[test]
fn who_is_asked_for_again_at_once_is_asked_for() {
    let lab = Lab::new();
    let expectations = ["c -> shy icmp allow", "c -> shy arp deny because policy"];
    let seen = probed(&lab, 6, "shy", &expectations);
    let results: Vec<_> = seen.iter().map(|row| row["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["fail", "pass"], "{seen:?}");
    lab.assert_gone();
}
