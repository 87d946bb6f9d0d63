//! What the words of security groups mean to the switch: rules, members, and what interfaces may call themselves.

use std::path::Path;
use topology::{Loaded, load, plan::Plan};
use vswitch_core::{
    description::{Firewall, Identity, Port},
    firewall::{
        policy::{
            Action, Direction, Family, GroupId, IcmpType, Match, PortRange, Protocol, Remote, Rule,
            SecurityGroup,
        },
        words,
    },
};

fn loaded(text: &str) -> Loaded {
    load(text, "some.vnet.yaml", Path::new("/lab")).unwrap_or_else(|report| panic!("{report}"))
}

fn plan(text: &str) -> Plan {
    loaded(text).plan
}

fn port<'p>(plan: &'p Plan, node: &str) -> &'p Port {
    plan.description.ports.iter().flatten().find(|port| port.node == node).expect("a node of the file")
}

fn firewall<'p>(plan: &'p Plan, node: &str) -> &'p Firewall {
    port(plan, node).firewall.as_ref().expect("a firewall")
}

fn identity<'p>(plan: &'p Plan, node: &str) -> &'p Identity {
    firewall(plan, node).identity.as_ref().expect("anti-spoof")
}

/// The rule that is written so.
fn rule(said: &str) -> Rule {
    line(&format!("{{ direction: ingress, {said} }}"))
}

fn line(said: &str) -> Rule {
    let text = format!(
        "version: 1\nsecurity-groups:\n  first: []\n  group:\n    - {said}\nswitches: {{ sw: {{}} }}\nnodes:\n  \
         a: {{ kind: station, addresses: [10.0.0.1/24, \"fd00::1/64\"], security-groups: [group, first] }}\nlinks: [[a, sw]]\n"
    );
    plan(&text).description.groups[1].rules[0].clone()
}

fn matches(said: &str) -> Match {
    rule(said).matches
}

fn range(first: u16, last: u16) -> PortRange {
    PortRange { first, last }
}

fn networks(said: &[&str]) -> Remote {
    Remote::Networks(said.iter().map(|text| text.parse().expect("a network")).collect())
}

#[test]
fn a_rule_says_what_it_says() {
    let all = Match::default();
    let of = |protocol| Match { protocol, ..Match::default() };
    let tcp = of(Protocol::Number(6));
    let v4 = Match { family: Family::Ipv4, ..Match::default() };
    let v6 = Match { family: Family::Ipv6, ..Match::default() };
    let echo = |kind, code| Some(IcmpType { kind, code });
    for (said, meant) in [
        ("", all.clone()),
        ("ether-type: ipv4", v4.clone()),
        ("ether-type: 0x86dd", v6.clone()),
        ("ether-type: arp", Match { family: Family::EtherType(0x0806), ..Match::default() }),
        ("ether-type: 0x88cc", Match { family: Family::EtherType(0x88cc), ..Match::default() }),
        ("ether-type: \"0x88CC\"", Match { family: Family::EtherType(0x88cc), ..Match::default() }),
        ("protocol: icmp", of(Protocol::Icmp)),
        ("protocol: 47", of(Protocol::Number(47))),
        ("protocol: esp", of(Protocol::Number(50))),
        ("protocol: 0", of(Protocol::Number(0))),
        ("protocol: tcp, port: 80", Match { ports: vec![range(80, 80)], ..tcp.clone() }),
        ("protocol: tcp, port: 8000-8099", Match { ports: vec![range(8000, 8099)], ..tcp.clone() }),
        (
            "protocol: sctp, port: [80, 443, 8000-65535]",
            Match {
                ports: vec![range(80, 80), range(443, 443), range(8000, 65535)],
                ..of(Protocol::Number(132))
            },
        ),
        ("protocol: icmpv6", Match { protocol: Protocol::Number(58), ..v6.clone() }),
        (
            "protocol: ipv6-icmp, icmp-type: 128",
            Match { protocol: Protocol::Number(58), icmp: echo(128, None), ..v6.clone() },
        ),
        (
            "protocol: 1, icmp-type: 8",
            Match { protocol: Protocol::Number(1), icmp: echo(8, None), ..v4.clone() },
        ),
        (
            "protocol: icmp, icmp-type: 3, icmp-code: 4, ether-type: ipv4",
            Match { protocol: Protocol::Icmp, icmp: echo(3, Some(4)), ..v4.clone() },
        ),
        // The addresses tell which ICMP it is.
        (
            "protocol: icmp, icmp-type: 8, remote-ip-prefix: 10.0.0.0/8",
            Match {
                protocol: Protocol::Icmp,
                icmp: echo(8, None),
                remote: networks(&["10.0.0.0/8"]),
                ..v4.clone()
            },
        ),
        ("remote-ip-prefix: 10.0.0.7", Match { remote: networks(&["10.0.0.7/32"]), ..Match::default() }),
        (
            "remote-ip-prefix: [0.0.0.0/0, \"2001:db8::/32\"]",
            Match { remote: networks(&["0.0.0.0/0", "2001:db8::/32"]), ..Match::default() },
        ),
        ("remote-group: first", Match { remote: Remote::Group(GroupId::new(0)), ..Match::default() }),
    ] {
        let meaning = matches(said);
        assert_eq!(meaning, meant, "{said}");
        assert_eq!(meaning.check(), Ok(()), "{said}");
        told_again(&rule(said));
    }
    for said in
        ["direction: egress, action: drop", "direction: ingress, stateful: false, protocol: 99, log: true"]
    {
        told_again(&line(&format!("{{ {said} }}")));
    }
}

/// A rule in the words that `show rules` and mends have for it is the same rule.
fn told_again(rule: &Rule) {
    let first = SecurityGroup { name: "first".into(), rules: vec![], origin: rule.origin };
    let told = words::rule(rule, &[first]);
    assert_eq!(line(&told), *rule, "{told}");
}

/// IANA's "Protocol Numbers" and "IEEE 802 Numbers".
#[test]
fn names_stand_for_their_numbers() {
    for (name, number) in [
        ("igmp", 2),
        ("ipip", 4),
        ("tcp", 6),
        ("udp", 17),
        ("dccp", 33),
        ("ipv6-encap", 41),
        ("rsvp", 46),
        ("gre", 47),
        ("esp", 50),
        ("ah", 51),
        ("icmpv6", 58),
        ("ipv6-icmp", 58),
        ("ospf", 89),
        ("pim", 103),
        ("vrrp", 112),
        ("pgm", 113),
        ("l2tp", 115),
        ("sctp", 132),
        ("udplite", 136),
    ] {
        assert_eq!(matches(&format!("protocol: {name}")).protocol, Protocol::Number(number), "{name}");
    }
    for (name, number) in [
        ("arp", 0x0806),
        ("rarp", 0x8035),
        ("mpls", 0x8847),
        ("pppoe-discovery", 0x8863),
        ("pppoe", 0x8864),
        ("eapol", 0x888e),
        ("lldp", 0x88cc),
        ("ptp", 0x88f7),
    ] {
        assert_eq!(matches(&format!("ether-type: {name}")).family, Family::EtherType(number), "{name}");
    }
}

#[test]
fn a_rule_allows_and_is_stateful_unless_it_says_otherwise() {
    let of = |said| {
        let rule = rule(said);
        (rule.direction, rule.action, rule.stateful)
    };
    assert_eq!(of(""), (Direction::Ingress, Action::Allow, true));
    assert_eq!(of("stateful: false"), (Direction::Ingress, Action::Allow, false));
    assert_eq!(of("action: drop"), (Direction::Ingress, Action::Drop, true));
    assert_eq!(of("action: reject"), (Direction::Ingress, Action::Reject, true));
    assert_eq!((rule("").origin.line, rule("").origin.column), (5, 7));
}

/// Every kind of node with groups, on an access link and on a trunk, with and without a MAC address.
#[test]
fn anti_spoof_is_on_where_the_address_is_known_and_one_station_is_behind() {
    let kinds = [
        ("vm", true),
        ("station", true),
        ("netns", true),
        ("vhost-user", false),
        ("stream", false),
        ("tap", false),
        ("nic, interface: eth7", false),
        ("pcap, record: ./out.pcapng", false),
    ];
    let trunk = "vlan: { trunk: [red], native: default }";
    for (kind, ours) in kinds {
        let host = ["tap", "nic", "pcap"].iter().any(|host| kind.starts_with(host));
        for (stated, link) in [(false, ""), (true, ""), (false, trunk), (true, trunk)] {
            let text = |more: &str| {
                let mac = if stated { "mac: \"02:00:00:00:00:07\"," } else { "" };
                format!(
                    "version: 1\nvlans: {{ red: {{ id: 10 }} }}\nsecurity-groups: {{ g: [] }}\nswitches: {{ sw: {{}} }}\nnodes:\n  \
                     a: {{ kind: {kind}, {mac} addresses: [10.0.0.1/24], security-groups: [g] {more} }}\nlinks:\n  - {{ endpoints: [a, sw], {link} }}\n"
                )
            };
            let of = |more: &str| firewall(&plan(&text(more)), "a").identity.clone();
            let expected = link.is_empty() && !host && (ours || stated);
            assert_eq!(of("").is_some(), expected, "{kind} {stated} {link}");
            assert_eq!(of(", anti-spoof: false"), None, "{kind}");
            if stated || !host {
                assert!(of(", anti-spoof: true").is_some(), "{kind} {stated} {link}");
            }
        }
    }
}

#[test]
fn an_interface_may_use_its_own_addresses_and_those_allowed() {
    let plan = plan(
        "version: 1\nsecurity-groups: { g: [], h: [] }\nswitches: { sw: {} }\nnodes:\n  \
         a: { kind: station, addresses: [10.0.0.1/24, \"fd00::1/64\"], security-groups: [h, g], allowed-addresses: [10.0.0.80, 10.1.0.0/16, { mac: \"00:00:5e:00:01:07\", addresses: [10.0.0.81, \"fd00::/64\"] }] }\n  \
         b: { kind: station, security-groups: [g], allowed-addresses: [10.0.0.0/24], dhcp-server: true, router-advertisements: true }\n  \
         c: { kind: station, security-groups: [g], allowed-addresses: [] }\n\
         links: [[a, sw], [b, sw], [c, sw]]\n",
    );
    let net = |said: &[&str]| match networks(said) {
        Remote::Networks(networks) => networks,
        _ => unreachable!(),
    };
    let a = firewall(&plan, "a");
    assert_eq!(a.groups, [GroupId::new(1), GroupId::new(0)]);
    assert_eq!(
        a.addresses,
        net(&["10.0.0.1/32", "fd00::1/128"]).iter().map(ipnet::IpNet::addr).collect::<Vec<_>>()
    );
    assert_eq!((a.dhcp_server, a.router), (false, false));
    let own = identity(&plan, "a");
    assert_eq!(Some(own.mac), port(&plan, "a").mac);
    assert_eq!(own.addresses, net(&["10.0.0.1/32", "fd00::1/128", "10.0.0.80/32", "10.1.0.0/16"]));
    assert_eq!(own.others.len(), 1);
    assert_eq!(own.others[0].0.to_string(), "00:00:5e:00:01:07");
    assert_eq!(own.others[0].1, net(&["10.0.0.81/32", "fd00::/64"]));
    let b = firewall(&plan, "b");
    assert_eq!((b.dhcp_server, b.router, b.addresses.len()), (true, true, 0));
    assert_eq!(identity(&plan, "b").addresses, net(&["10.0.0.0/24"]));
    assert!(identity(&plan, "c").addresses.is_empty());
}

#[test]
fn a_closed_lab_filters_all_but_wires() {
    let text = |policy: &str| {
        format!(
            "version: 1\n{policy}\nsecurity-groups: {{ open: [{{ direction: ingress }}] }}\nswitches: {{ sw: {{}} }}\nnodes:\n  \
             a: {{ kind: station, addresses: [10.0.0.1/24] }}\n  b: {{ kind: tap }}\n  \
             c: {{ kind: station, addresses: [10.0.0.3/24], security-groups: [open] }}\n  \
             d: {{ kind: station }}\n  e: {{ kind: station }}\nlinks: [[a, sw], [b, sw], [c, sw], [d, e]]\n"
        )
    };
    for policy in ["policy: open", "# nothing"] {
        let plan = plan(&text(policy));
        let filtered: Vec<_> =
            plan.description.ports.iter().flatten().map(|port| port.firewall.is_some()).collect();
        assert_eq!(filtered, [false, false, true, false, false], "{policy}");
    }
    let plan = plan(&text("policy: closed"));
    let filtered: Vec<_> =
        plan.description.ports.iter().flatten().map(|port| port.firewall.is_some()).collect();
    assert_eq!(filtered, [true, true, true, false, false]);
    let a = firewall(&plan, "a");
    assert!(a.groups.is_empty() && a.identity.is_some());
    assert_eq!((a.origin.line, a.origin.column), (2, 9));
    assert_eq!(firewall(&plan, "b").identity, None);
    assert_eq!(firewall(&plan, "c").groups, [GroupId::new(0)]);
}

/// Rules behind others are found in groups of some hundreds; the search for them is bounded, however many there are.
#[test]
fn rules_behind_others_are_told_and_the_search_ends() {
    let told = |rules: u32, ports: u32| {
        let rules: String = (0..rules)
            .map(|i| format!("    - {{ direction: ingress, protocol: tcp, port: {} }}\n", 1 + i % ports))
            .collect();
        let text = format!(
            "version: 1\nsecurity-groups:\n  g:\n{rules}switches: {{ sw: {{}} }}\nnodes:\n  \
             a: {{ kind: station, addresses: [10.0.0.1/24], security-groups: [g] }}\nlinks: [[a, sw]]\n"
        );
        let warnings = loaded(&text).warnings;
        assert!(warnings.iter().all(|told| told.code.name() == "T0810"));
        warnings.len()
    };
    assert_eq!(told(507, 500), 7);
    assert_eq!(told(560, 500), topology::report::MAX_ERRORS);
    assert_eq!(told(5000, 4990), 0);
}

#[test]
fn a_file_has_room_for_ten_thousand_rules() {
    let rules: String = (0..10_000)
        .map(|n| {
            format!(
                "    - {{ direction: ingress, protocol: tcp, port: {}, remote-ip-prefix: 10.0.{}.0/24 }}\n",
                1 + n,
                n % 256
            )
        })
        .collect();
    let text = format!(
        "version: 1\nsecurity-groups:\n  g:\n{rules}switches: {{ sw: {{}} }}\nnodes:\n  \
         a: {{ kind: station, addresses: [10.0.0.1/24], security-groups: [g] }}\nlinks: [[a, sw]]\n"
    );
    assert_eq!(plan(&text).description.groups[0].rules.len(), 10_000);
}
