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

/// The lab of `appliance.vnet.yaml`, while its Linux guests run.
struct Appliance(Lab);

/// HTTP from the users and what answers it, and no ping: a firewall of the guest's own.
const OWN_FIREWALL: &str = "nft add table ip own; \
    nft add chain ip own forward '{ type filter hook forward priority 0; policy drop; }'; \
    nft add rule ip own forward ct state established,related accept; \
    nft add rule ip own forward ip saddr 10.0.10.0/24 tcp dport 80 accept";

impl Appliance {
    fn up(text: &str) -> Self {
        let lab = Lab::new();
        lab.expect(0, &["up", "-d", &lab.write("appliance.vnet.yaml", text).display().to_string()]);
        for router in ["open", "guarded"] {
            shell(&lab, router, "sysctl -w net.ipv4.ip_forward=1; modprobe nft_ct");
        }
        for server in ["pc", "web"] {
            shell(&lab, server, "iperf3 -s -p 80 -D");
        }
        Self(lab)
    }

    /// From now on the router whose addresses end so routes.
    fn route_by(&self, host: u8) {
        shell(&self.0, "pc", &format!("ip route replace 10.0.20.0/24 via 10.0.10.{host}"));
        shell(&self.0, "web", &format!("ip route replace 10.0.10.0/24 via 10.0.20.{host}"));
    }

    fn connects(&self, from: &str, to: &str) -> bool {
        let line = format!("iperf3 -c {to} -p 80 -n 256K --connect-timeout 2000 >/dev/null 2>&1; echo $?");
        shell(&self.0, from, &line) == "0\n"
    }

    fn pings(&self, from: &str, to: &str) -> bool {
        shell(&self.0, from, &format!("ping -c 2 -W 1 -q {to}; true")).contains(" 0% packet loss")
    }

    /// What gets through: HTTP and pings from the users to the servers, and the same from there.
    fn passes(&self) -> [bool; 4] {
        let (pc, web) = ("10.0.10.7", "10.0.20.10");
        [self.connects("pc", web), self.pings("pc", web), self.connects("web", pc), self.pings("web", pc)]
    }

    fn down(self) {
        self.0.assert_sound();
        self.0.expect(0, &["down"]);
        self.0.assert_gone();
    }
}

/// Of the appliance's routers one has firewalls at its interfaces and one has none; each with a firewall of its own off and on.
#[test]
fn a_linux_guest_routes_with_firewalls_at_its_interfaces_and_its_own_and_without() {
    if !real_guests() {
        return;
    }
    let text = fs::read_to_string(topology("appliance.vnet.yaml")).expect("the example");
    let lab = Appliance::up(&text);
    lab.route_by(1);
    assert_eq!(lab.passes(), [true; 4], "no firewall anywhere");
    shell(&lab.0, "open", OWN_FIREWALL);
    assert_eq!(lab.passes(), [true, false, false, false], "the guest's own");
    lab.route_by(2);
    assert_eq!(lab.passes(), [true, true, false, false], "at its interfaces: from the users only");
    shell(&lab.0, "guarded", OWN_FIREWALL);
    assert_eq!(lab.passes(), [true, false, false, false], "both");
    lab.down();
}

/// A router sends what others say: with anti-spoof that was not told who lies behind it nothing leaves it, and without all does that rules let pass.
#[test]
fn a_linux_guest_routes_without_anti_spoof_and_not_with_one_that_was_told_nothing() {
    if !real_guests() {
        return;
    }
    let text = fs::read_to_string(topology("appliance.vnet.yaml")).expect("the example");
    let told = [", allowed-addresses: [10.0.20.0/24]", ", allowed-addresses: [10.0.10.0/24]"];
    let instead = |word: &str| {
        told.iter().fold(text.clone(), |text, told| {
            assert!(text.contains(told), "{text}");
            text.replace(told, word)
        })
    };
    let lab = Appliance::up(&instead(""));
    lab.route_by(2);
    assert_eq!(lab.passes(), [false; 4], "with anti-spoof");
    let drops = lab.0.json(&["show", "drops"]).to_string();
    assert!(drops.contains("anti-spoof"), "{drops}");
    lab.down();
    let lab = Appliance::up(&instead(", anti-spoof: false"));
    lab.route_by(2);
    assert_eq!(lab.passes(), [true, true, false, false], "without anti-spoof");
    lab.down();
}
