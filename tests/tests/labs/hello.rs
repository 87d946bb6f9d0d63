//! A first lab of stations, by the commands a newcomer types: tested, brought up, looked at, taken down.

use crate::common::{Lab, topology};
use serde_json::Value;
use vswitchd::{control::protocol::PortCounters, counters::check_law};

#[test]
fn a_lab_is_up_is_looked_at_and_goes_down() {
    let lab = Lab::new();
    let file = topology("hello.vnet.yaml");
    lab.expect(0, &["up", "-d", &file]);
    assert!(!lab.processes().is_empty());
    for view in ["ports", "nodes", "links", "fdb", "vlans", "drops", "rules", "connections", "datapath"] {
        lab.json(&["show", view]);
    }
    assert_eq!(lab.json(&["show", "datapath"])["restarts"], 0);
    let answered = lab.json(&["pingall"]);
    let cells = answered["cells"].as_array().expect("cells");
    let pairs = cells.iter().filter(|cell| cell["rtt_micros"].is_u64()).count();
    assert_eq!(pairs, 2, "alice and bob hear each other, web nobody: {answered}");
    let trace = lab.json(&["trace", "alice", "web", "icmp"]);
    let copies = trace["copies"].as_array().expect("copies");
    assert!(!copies.iter().any(|port| port == "web:eth0"), "{trace}");
    let (said, _) = lab.expect(0, &["trace", "alice", "web", "icmp"]);
    assert!(said.contains("does not reach web:eth0: the frame is in VLAN users (10)"), "{said}");
    assert!(said.contains("hello.vnet.yaml)"), "the lines are of no file: {said}");
    let (said, _) = lab.expect(0, &["trace", "alice", "bob", "icmp"]);
    assert!(said.ends_with("reaches bob:eth0\n"), "{said}");
    let rows = lab.json(&["show", "ports"]);
    let counted = rows.as_array().expect("rows").iter().map(|row| row["counters"].clone());
    let counted: Vec<PortCounters> =
        counted.map(|counters| serde_json::from_value(counters).expect("counters")).collect();
    assert!(counted.iter().any(|port| port.from_port.frames > 0));
    assert_eq!(check_law(&counted), Ok(()));
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn the_frame_that_the_demo_explains_is_found_by_why_with_the_line_that_dropped_it() {
    let lab = Lab::new();
    let file = topology("hello.vnet.yaml");
    lab.expect(0, &["up", "-d", &file]);
    // Its expectation `web -> bob icmp deny` has web send the very frame.
    lab.expect(0, &["test", "--running"]);
    let traced = lab.json(&["trace", "web", "bob", "icmp"]);
    let steps = traced["steps"].as_array().expect("steps");
    let dropped = steps.last().and_then(|step| step.as_str()).expect("a step");
    let line = dropped.split("; line ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a line");

    let said = format!("{file}:{line}");
    let view = lab.json(&["why", "web", "bob"]);
    let groups = view["groups"].as_array().expect("groups");
    let pings = |group: &&Value| {
        let frames = group["frames"].as_array().into_iter().flatten().filter_map(|one| one["frame"].as_str());
        let mut pings = frames.filter(|frame| frame.contains("ICMP"));
        pings.any(|frame| frame.starts_with("web:eth0 -> bob:eth0, "))
    };
    let group = groups.iter().find(pings).unwrap_or_else(|| panic!("no ICMP among {view}"));
    assert_eq!(group["reason"], "no-receiver", "{view}");
    assert_eq!(group["port"], "web:eth0", "{view}");
    assert_eq!(group["said"], *said, "{view}");
    assert_eq!(view["span"]["since_start"], true, "{view}");

    let (told, _) = lab.expect(0, &["why", "web", "bob", "--last", "5m"]);
    assert!(told.contains(&format!("{said}: makes it access servers (20)")), "{told}");
    assert!(told.contains("mend: check that the other interface is in the same VLAN"), "{told}");
    let (told, _) = lab.expect(0, &["why", "alice", "bob"]);
    assert!(told.contains("no loss from alice to bob is recorded in the last"), "{told}");
    assert!(told.contains("everything since the switch process started"), "{told}");
    let ports = lab.json(&["why"]);
    let ups = ports["groups"].as_array().expect("groups").iter().filter(|group| group["kind"] == "link");
    assert_eq!(ups.count(), 3, "each station came up: {ports}");
    let (_, err) = lab.expect(2, &["why", "--last", "10"]);
    assert!(err.contains("error[bad-span]") && err.contains("say 10s"), "{err}");
    let (_, err) = lab.expect(2, &["why", "nobody"]);
    assert!(err.contains("alice, bob, web"), "{err}");
}

#[test]
fn exit_codes_say_what_is_wrong() {
    let lab = Lab::new();
    let (_, err) = lab.expect(3, &["show", "ports"]);
    assert!(err.contains("not-running"), "{err}");
    let bad = lab.write("bad.vnet.yaml", "version: 1\nname: bad\nlinks:\n  - [nobody, nowhere]\n");
    let (_, err) = lab.expect(2, &["up", "-d", &bad.display().to_string()]);
    assert!(err.contains("error[T0"), "{err}");
    assert!(lab.processes().is_empty());

    let text = std::fs::read_to_string(topology("hello.vnet.yaml")).expect("the example is there");
    let file = lab.write("hello.vnet.yaml", &text);
    let file = file.display().to_string();
    lab.expect(0, &["up", "-d", &file]);
    let before = lab.json(&["ls"]);
    lab.expect(0, &["up", "-d", &file]);
    assert_eq!(lab.json(&["ls"]), before, "the same file again changes nothing");
    lab.write("hello.vnet.yaml", &text.replace("10.0.20.1/24", "10.0.20.7/24"));
    lab.expect(4, &["up", "-d", &file]);
    assert_eq!(lab.json(&["ls"]), before, "a refused change changes nothing");
}
