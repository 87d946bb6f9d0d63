//! Laws of every text: loading never panics, its answer is bounded, and every error has its place.

use proptest::prelude::*;
use std::path::Path;
use topology::{load, report::MAX_ERRORS};
use vswitch_core::{description::Description, world::World};

const GOOD: [&str; 9] = [
    include_str!("../../../topologies/hello.vnet.yaml"),
    include_str!("../../../topologies/linux.vnet.yaml"),
    include_str!("../../../topologies/trunk.vnet.yaml"),
    include_str!("../../../topologies/wire.vnet.yaml"),
    include_str!("../../../topologies/attach.vnet.yaml"),
    include_str!("../../../topologies/web-tier.vnet.yaml"),
    include_str!("../../../topologies/appliance.vnet.yaml"),
    include_str!("../../../topologies/limits.vnet.yaml"),
    include_str!("../../../topologies/routed.vnet.yaml"),
];

/// What a slip of the hand, or an attacker, puts into a file.
const BITS: [&str; 35] = [
    "",
    " ",
    "\n",
    "\t",
    ":",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "&a ",
    "*a",
    "<<: ",
    "0",
    "-1",
    "4095",
    "1e999",
    "~",
    "\u{0}",
    "\u{1b}[31m",
    "\u{202e}",
    "é",
    "sw1",
    "---\n",
    "ingress",
    "90-80",
    "10.0.0.7/24",
    "icmpv6",
    "0x0800",
    "remote-group",
    "ether-type: ",
    "gateway: ",
    "default",
    "blackhole",
    "10.0.20.1/24",
];

/// Loads `text`, and holds its answer to the laws.
fn judge(text: &str) {
    let report = match load(text, "some.vnet.yaml", Path::new("/lab")) {
        Ok(loaded) => return judge_good(&loaded.plan.description),
        Err(report) => report,
    };
    assert!(!report.errors.is_empty() && report.errors.len() <= MAX_ERRORS);
    let lines = text.split('\n').count();
    for told in &report.errors {
        let origin = told.span.origin;
        assert!(origin.line >= 1 && origin.line as usize <= lines && origin.column >= 1, "{told:?}");
    }
    let rendered = report.render(false);
    assert!(rendered.contains("some.vnet.yaml:"), "{rendered}");
    assert!(!rendered.contains('\u{1b}') && !rendered.contains('\u{202e}'), "{rendered:?}");
    serde_json::to_string(&report).expect("a report is JSON");
}

/// The switch takes what was found to be good: a World, and each rule of it.
fn judge_good(description: &Description) {
    World::compile(description).unwrap_or_else(|error| panic!("{error}"));
    for rule in description.groups.iter().flat_map(|group| &group.rules) {
        assert_eq!(rule.matches.check(), Ok(()), "{rule:?}");
    }
}

proptest! {
    // What is found becomes a file under topologies/bad, not a seed.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_file_is_answered_within_bounds(
        which in 0..GOOD.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, 0..BITS.len()), 1..6),
    ) {
        let mut text: Vec<char> = GOOD[which].chars().collect();
        for (at, cut, bit) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + cut).min(text.len());
            text.splice(at..end, BITS[bit].chars());
        }
        judge(&text.into_iter().collect::<String>());
    }

    #[test]
    fn any_text_is_answered_within_bounds(text in "(?s).{0,200}") {
        judge(&text);
    }

    #[test]
    fn a_file_cut_off_anywhere_is_answered(which in 0..GOOD.len(), at in any::<prop::sample::Index>()) {
        let text = GOOD[which];
        judge(&text[..text.floor_char_boundary(at.index(text.len()))]);
    }

    /// Ids are places in lists, so only they (and the places in the file) tell one order from another.
    #[test]
    fn the_order_of_nodes_means_nothing(order in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle()) {
        let file = |order: &[usize]| {
            let nodes: String = order.iter().map(|i| format!("  n{i}: {{ kind: station, addresses: [10.0.0.{}/24] }}\n", i + 1)).collect();
            let links: String = (0..6).map(|i| format!("  - [n{i}, sw1]\n")).collect();
            format!("version: 1\nname: order\nswitches: {{ sw1: {{}} }}\nnodes:\n{nodes}links:\n{links}")
        };
        let plan = |order: &[usize]| load(&file(order), "x", Path::new("/")).expect("a good file").plan;
        let by_name = |order: &[usize]| {
            let plan = plan(order);
            let mut ports: Vec<_> = plan.description.ports.iter().flatten().map(|p| (p.name(), p.mac, p.link.clone(), p.up)).collect();
            ports.sort_by(|a, b| a.0.cmp(&b.0));
            let mut nodes: Vec<_> = plan.nodes.iter().map(|n| (n.name.clone(), n.kind.clone(), n.interfaces[0].addresses.clone())).collect();
            nodes.sort_by(|a, b| a.0.cmp(&b.0));
            (ports, nodes, plan.description.switches, plan.description.vlans)
        };
        prop_assert_eq!(by_name(&order), by_name(&[0, 1, 2, 3, 4, 5]));
    }
}

/// The largest labs that are refused are refused soon: nothing is done for each pair of what is said.
#[test]
fn a_flood_of_errors_is_counted() {
    let nodes: String = (0..4000).map(|i| format!("  n{i}: {{ kind: station }}\n")).collect();
    let links: String = (0..8000).map(|i| format!("  - [x{i}, y{i}]\n")).collect();
    let report =
        load(&format!("version: 1\nnodes:\n{nodes}links:\n{links}"), "flood", Path::new("/")).unwrap_err();
    assert_eq!((report.errors.len(), report.more), (MAX_ERRORS, 16_000 - MAX_ERRORS));
}

#[test]
fn a_port_learns_as_many_addresses_as_its_limits_say() {
    let text = "version: 1\nswitches: { sw: {} }\nnodes:\n  a: { kind: vhost-user, limits: { macs: 1048576 } }\n  \
                b: { kind: vhost-user, interfaces: { eth0: { limits: { macs: 7 } } } }\n  c: { kind: vhost-user, limits: {} }\n\
                links: [[a, sw], [b, sw], [c, sw]]\n";
    let plan = load(text, "limits", Path::new("/")).expect("a good file").plan;
    let limits: Vec<_> = plan.description.ports.iter().flatten().map(|port| port.mac_limit).collect();
    assert_eq!(limits, [1 << 20, 7, 4096]);
}
