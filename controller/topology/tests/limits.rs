//! What the words under `limits` mean to the switch.

use std::{num::NonZeroU64, path::Path};
use topology::{Report, codes::Code, load};
use vswitch_core::description::{Limits, Port, Rates, Storm};

fn try_port(said: &str) -> Result<Port, Report> {
    let text = format!(
        "version: 1\nsecurity-groups: {{ web: [] }}\nswitches: {{ sw: {{}} }}\nnodes:\n  \
         a: {{ kind: station, addresses: [10.0.0.1/24], {said} }}\nlinks: [[a, sw]]\n"
    );
    let plan = load(&text, "some.vnet.yaml", Path::new("/lab"))?.plan;
    Ok(plan.description.ports.into_iter().flatten().next().expect("a port"))
}

fn port(said: &str) -> Port {
    try_port(said).unwrap_or_else(|report| panic!("{report}"))
}

fn limits(said: &str) -> Limits {
    port(&format!("limits: {{ {said} }}")).limits.expect("limits")
}

fn codes(said: &str) -> Vec<Code> {
    let report = try_port(said).expect_err("it is wrong");
    report.errors.iter().map(|error| error.code).collect()
}

fn rate(number: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(number)
}

#[test]
fn rates_are_in_bits_frames_and_connections_a_second() {
    let bits = |said: &str| limits(&format!("egress: {{ rate: {said} }}")).egress.bits;
    for (said, meant) in [
        ("1kbit", 1_000),
        ("10Mbit", 10_000_000),
        ("10Mbit/s", 10_000_000),
        ("1500kbit", 1_500_000),
        ("100Gbit", 100_000_000_000),
    ] {
        assert_eq!(bits(said), rate(meant), "{said}");
    }
    let frames = |said: &str| limits(&format!("ingress: {{ frame-rate: {said} }}")).ingress.frames;
    for (said, meant) in [("1pps", 1), ("5kpps", 5_000), ("100Mpps", 100_000_000)] {
        assert_eq!(frames(said), rate(meant), "{said}");
    }
    let port = port("security-groups: [web], limits: { ingress: { new-connections: 50/s } }");
    let ingress = port.limits.expect("limits").ingress;
    assert_eq!(ingress, Rates { connections: rate(50), ..Rates::default() });
}

#[test]
fn a_burst_is_a_tenth_of_a_second_or_what_is_said() {
    let burst = |said: &str| limits(&format!("egress: {{ rate: 1Mbit{said} }}")).egress.burst_micros;
    assert_eq!(burst(""), 100_000);
    for (said, micros) in [("1ms", 1_000), ("1500us", 1_500), ("10s", 10_000_000)] {
        assert_eq!(burst(&format!(", burst: {said}")), micros, "{said}");
    }
}

#[test]
fn each_kind_of_storm_and_the_macs_stand_for_themselves() {
    let storm = limits("storm-control: { broadcast: 1pps, unknown-unicast: 2kpps }").storm;
    assert_eq!(storm, Storm { broadcast: rate(1), multicast: None, unknown_unicast: rate(2000) });
    assert_eq!(limits("storm-control: { multicast: 3pps }").storm.multicast, rate(3));
    let sticky = port("limits: { macs: 2, sticky-macs: true }");
    let said = sticky.limits.expect("limits");
    assert_eq!((sticky.mac_limit, said.drops_other_macs, said.sticky_macs), (2, true, true));
    assert!(!limits("macs: 2, sticky-macs: false").sticky_macs);
    assert_eq!(limits("macs: 2").origin.line, 5);
}

#[test]
fn what_says_nothing_limits_nothing() {
    for said in ["", "egress: {}", "ingress: {}, storm-control: {}", "sticky-macs: false"] {
        let port = port(&format!("limits: {{ {said} }}"));
        assert_eq!((port.limits, port.mac_limit), (None, 4096), "{said}");
    }
}

#[test]
fn what_is_wrong_is_told_once() {
    for (said, told) in [
        ("egress: { rate: 10 }", Code::NoUnit),
        ("egress: { rate: 0Mbit }", Code::Malformed),
        ("egress: { rate: 101Gbit }", Code::Malformed),
        ("egress: { rate: 10Mbps }", Code::Malformed),
        ("egress: { rate: 1.5Mbit }", Code::Malformed),
        ("egress: { rate: 18446744073709551615Gbit }", Code::Malformed),
        ("egress: { frame-rate: 0pps }", Code::Malformed),
        ("egress: { rate: 1Mbit, burst: 999us }", Code::Malformed),
        ("egress: { rate: 1Mbit, burst: 2m }", Code::Malformed),
        ("egress: { burst: 100ms }", Code::NeedsKey),
        ("ingress: { new-connections: 50/s }", Code::NeedsKey),
        ("ingress: { new-connections: 50/m }", Code::Malformed),
        ("sticky-macs: true", Code::NeedsKey),
        ("bandwidth: 10Mbit", Code::UnknownKey),
        ("mac-limit: 2", Code::UnknownKey),
        ("mac-limit: 2, sticky-macs: true", Code::UnknownKey),
    ] {
        assert_eq!(codes(&format!("limits: {{ {said} }}")), [told], "{said}");
    }
}
