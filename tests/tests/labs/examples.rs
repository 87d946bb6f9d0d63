//! Every example is a lab whose expectations hold, proved by `vnet test` as a user runs it; and one that is wrong is told.

use crate::common::{Lab, kvm, real_guests, topology};
use std::fs;

fn expectations_hold(name: &str) {
    let lab = Lab::new();
    let (text, _) = lab.expect(0, &["test", &topology(&format!("{name}.vnet.yaml"))]);
    assert!(text.contains("PASS") && !text.contains("FAIL") && !text.contains("ERROR"), "{text}");
    lab.assert_gone();
}

#[test]
fn hello() {
    expectations_hold("hello");
}

#[test]
fn trunk() {
    expectations_hold("trunk");
}

#[test]
fn wire() {
    expectations_hold("wire");
}

#[test]
fn web_tier() {
    expectations_hold("web-tier");
}

#[test]
fn limits() {
    expectations_hold("limits");
}

#[test]
fn vms() {
    if kvm("the example vms") {
        expectations_hold("vms");
    }
}

#[test]
fn linux() {
    if real_guests() {
        expectations_hold("linux");
    }
}

#[test]
fn way_out() {
    if real_guests() {
        expectations_hold("way-out");
    }
}

#[test]
fn appliance() {
    if real_guests() {
        expectations_hold("appliance");
    }
}

#[test]
fn a_wrong_expectation_ends_with_6_and_shows_the_frame_that_decided_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.vnet.yaml");
    let text = fs::read_to_string(topology("hello.vnet.yaml")).unwrap();
    let more =
        "  - alice -> web l2 allow\n  - alice -> web arp deny because vlan\n  - alice -> bob tcp/80 allow\n";
    fs::write(&file, format!("{text}{more}")).unwrap();
    let lab = Lab::new();
    let (text, _) = lab.expect(6, &["test", file.to_str().unwrap()]);
    lab.assert_gone();
    for part in [
        "FAIL  alice -> web l2 allow",
        "does not hold",
        "came in at alice:eth0",
        "flooded",
        // A question for an address that is on no link of its sender's is sent as a raw frame.
        "PASS  alice -> web arp deny because vlan",
        "(sent as a raw frame",
        "(port opened for the probe)",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn a_deny_towards_a_guest_that_is_not_there_is_an_error_and_no_pass() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dead.vnet.yaml");
    let lab = "version: 1\nvlans: { a: { id: 10 }, b: { id: 20 } }\nswitches: { sw1: {} }\nnodes:\n  \
               h1: { kind: station, addresses: [10.0.0.1/24] }\n  ext1: { kind: vhost-user }\nlinks:\n  \
               - { endpoints: [h1, sw1], vlan: { access: a } }\n  - { endpoints: [ext1, sw1], vlan: { access: b } }\n\
               expect:\n  - h1 -> ext1 l2 deny because vlan\n";
    fs::write(&file, lab).unwrap();
    let lab = Lab::new();
    let (text, _) = lab.expect(6, &["test", file.to_str().unwrap()]);
    lab.assert_gone();
    for part in [
        "ERROR h1 -> ext1 l2 deny because vlan",
        "help: no VMM is attached; `vnet export qemu ext1`",
        "0 of 1 expectations hold, 1 could not be proved",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert!(!text.contains("does not hold"), "{text}");
}
