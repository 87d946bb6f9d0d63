//! Firewalls at the interfaces of Linux guests.

use crate::{
    common::{Lab, real_guests, topology},
    linux::shell,
};
use controller::api::types::{TestReport, TestResult};
use std::fs;

#[test]
fn the_web_tier_holds_between_linux_guests_as_the_file_alone_says() {
    if !real_guests() {
        return;
    }
    let lab = Lab::new();
    let text = fs::read_to_string(topology("web-tier.vnet.yaml")).expect("the example");
    let text = text.replace("kind: station", "kind: vm, image: debian, vmm: qemu");
    let file = lab.write("web-tier.vnet.yaml", &text).display().to_string();
    let report: TestReport = serde_json::from_value(lab.json(&["test", &file])).expect("a report");
    assert_eq!(report.rows.len(), 32);
    for row in &report.rows {
        assert!(row.result == TestResult::Pass && row.foreseen, "{row:#?}");
        println!("{}: {} ({} ms)", row.expectation, row.proof, row.millis);
    }
    lab.assert_gone();
}

/// Both of the appliance's routers, one with firewalls at its interfaces and one without: what the first does not let through is HTTP's reverse,
/// and whatever else the servers would begin.
#[test]
fn a_linux_guest_routes_with_firewalls_at_its_interfaces_and_without() {
    if !real_guests() {
        return;
    }
    let lab = Lab::new();
    lab.expect(0, &["up", "-d", &topology("appliance.vnet.yaml")]);
    for router in ["open", "guarded"] {
        shell(&lab, router, "sysctl -w net.ipv4.ip_forward=1");
    }
    shell(&lab, "web", "busybox httpd -p 80 -h /proc/sys/kernel");
    shell(&lab, "pc", "busybox httpd -p 80 -h /proc/sys/kernel");
    let by = |host: u8| {
        shell(&lab, "pc", &format!("ip route replace 10.0.20.0/24 via 10.0.10.{host}"));
        shell(&lab, "web", &format!("ip route replace 10.0.10.0/24 via 10.0.20.{host}"));
    };
    let fetch = |from: &str, to: &str| {
        let line = format!("busybox wget -T 3 -q -O - http://{to}/ostype; true");
        shell(&lab, from, &line) == "Linux\n"
    };
    let pings = |from: &str, to: &str| {
        shell(&lab, from, &format!("ping -c 2 -W 2 -q {to}; true")).contains(" 0% packet loss")
    };
    let (pc, web) = ("10.0.10.7", "10.0.20.10");
    let all = || [fetch("pc", web), pings("pc", web), fetch("web", pc), pings("web", pc)];
    by(1);
    assert_eq!(all(), [true; 4], "without firewalls");
    by(2);
    assert_eq!(all(), [true, true, false, false], "with firewalls, from the users only");
    lab.assert_sound();
    lab.expect(0, &["down"]);
    lab.assert_gone();
}
