//! What rules mean, one promise after the other, and which cannot be meant.

use ipnet::IpNet;
use std::sync::Arc;
use vswitch_core::{
    description::Origin,
    firewall::{
        classify::{Classifier, Decision, RulePlace, Source},
        policy::{
            Action, Direction, Family, Fault, GroupId, IcmpType, Match, PortRange, Protocol, Remote, Rule,
        },
        tuple::{IpTuple, Service, Tuple},
    },
};

/// An ingress rule that lets in what matches.
pub(super) fn allow(matches: Match) -> Rule {
    let origin = Origin { line: 1, column: 1 };
    Rule { direction: Direction::Ingress, action: Action::Allow, stateful: true, log: false, matches, origin }
}

/// The first frame of a connection from there, or to there.
pub(super) fn tcp_to(remote: &str, port: u16) -> Tuple {
    packet(remote, 6, Service::Ports { src: 40_000, dst: port })
}

fn packet(remote: &str, protocol: u8, service: Service) -> Tuple {
    let remote = remote.parse().expect("an address");
    Tuple::Ip(IpTuple { src: remote, dst: remote, protocol, service })
}

fn networks(texts: &[&str]) -> Remote {
    Remote::Networks(texts.iter().map(|text| text.parse().expect("a network")).collect())
}

fn range(first: u16, last: u16) -> Vec<PortRange> {
    vec![PortRange { first, last }]
}

fn compile(direction: Direction, rules: &[Rule]) -> Classifier {
    let members: [Arc<[IpNet]>; 1] =
        [Arc::new(["10.9.0.1/32", "2001:db8::9/128"].map(|text| text.parse().unwrap()))];
    Classifier::compile(&Source::new(direction, rules.iter(), &members).expect("sound rules"))
        .expect("few rules")
}

/// The place of the rule that lets the frame in.
fn decider<const N: usize>(rules: [&Match; N], tuple: &Tuple) -> Option<u32> {
    let rules = rules.map(|matches| allow(matches.clone()));
    compile(Direction::Ingress, &rules).decide(tuple).rule.map(RulePlace::index)
}

#[test]
fn without_a_rule_ingress_drops_and_egress_allows_until_one_allows() {
    let default = |action| Decision { action, stateful: true, rule: None };
    let frame = tcp_to("10.0.0.1", 80);
    let nowhere = Match { remote: networks(&["192.0.2.0/24"]), ..Match::default() };
    let egress = |action| Rule { direction: Direction::Egress, action, ..allow(nowhere.clone()) };
    for rules in [vec![], vec![allow(nowhere.clone())], vec![egress(Action::Drop), egress(Action::Reject)]] {
        assert_eq!(compile(Direction::Ingress, &rules).decide(&frame), default(Action::Drop));
        assert_eq!(compile(Direction::Egress, &rules).decide(&frame), default(Action::Allow));
    }
    let allowing = [egress(Action::Drop), egress(Action::Allow)];
    assert_eq!(compile(Direction::Egress, &allowing).decide(&frame), default(Action::Drop));
    let lldp = Tuple::Other { ethertype: 0x88cc };
    assert_eq!(compile(Direction::Egress, &allowing).decide(&lldp), default(Action::Drop));
}

#[test]
fn the_first_rule_that_matches_decides_and_says_its_place_among_both_directions() {
    let egress = Rule { direction: Direction::Egress, ..allow(Match::default()) };
    let wide = Match { protocol: Protocol::Number(6), ports: range(1, 1000), ..Match::default() };
    let narrow = Match { remote: networks(&["10.0.0.0/8"]), ..Match::default() };
    let rules = [
        egress,
        Rule { action: Action::Reject, stateful: false, ..allow(wide) },
        Rule { action: Action::Drop, ..allow(narrow) },
        allow(Match::default()),
    ];
    let ingress = compile(Direction::Ingress, &rules);
    let said = |action, stateful, place| Decision { action, stateful, rule: Some(RulePlace::new(place)) };
    assert_eq!(ingress.decide(&tcp_to("10.0.0.1", 80)), said(Action::Reject, false, 1));
    assert_eq!(ingress.decide(&tcp_to("10.0.0.1", 1001)), said(Action::Drop, true, 2));
    assert_eq!(ingress.decide(&tcp_to("11.0.0.1", 1001)), said(Action::Allow, true, 3));
    let egress = compile(Direction::Egress, &rules);
    assert_eq!(egress.decide(&tcp_to("10.0.0.1", 80)), said(Action::Allow, true, 0));
}

#[test]
fn the_remote_end_sends_ingress_and_gets_egress() {
    let matches = Match { remote: networks(&["10.0.0.1/32"]), ..Match::default() };
    let egress = Rule { direction: Direction::Egress, action: Action::Drop, ..allow(matches.clone()) };
    let rules = [allow(matches), egress];
    let between = |src: [u8; 4], dst: [u8; 4]| {
        let service = Service::Ports { src: 1, dst: 2 };
        Tuple::Ip(IpTuple { src: src.into(), dst: dst.into(), protocol: 6, service })
    };
    let (there, here) = (between([10, 0, 0, 1], [10, 0, 0, 2]), between([10, 0, 0, 2], [10, 0, 0, 1]));
    let decided = |direction, tuple| compile(direction, &rules).decide(tuple).rule.map(RulePlace::index);
    assert_eq!([decided(Direction::Ingress, &there), decided(Direction::Ingress, &here)], [Some(0), None]);
    assert_eq!([decided(Direction::Egress, &there), decided(Direction::Egress, &here)], [None, Some(1)]);
}

#[test]
fn ports_are_asked_of_what_was_read_and_addresses_of_everything() {
    let ports = Match { protocol: Protocol::Number(17), ports: range(0, 65_535), ..Match::default() };
    let protocol = Match { protocol: Protocol::Number(17), ..Match::default() };
    let address = Match { remote: networks(&["10.0.0.0/8", "2001:db8::/32"]), ..Match::default() };
    let unread = packet("10.0.0.1", 17, Service::Unread);
    assert_eq!(decider([&ports], &unread), None);
    assert_eq!(decider([&ports, &protocol], &unread), Some(1));
    assert_eq!(decider([&ports, &address], &unread), Some(1));
    assert_eq!(
        decider([&ports, &protocol], &packet("10.0.0.1", 17, Service::Ports { src: 1, dst: 0 })),
        Some(0)
    );
    let kind = Match {
        family: Family::Ipv4,
        protocol: Protocol::Icmp,
        icmp: Some(IcmpType { kind: 8, code: None }),
        ..Match::default()
    };
    assert_eq!(decider([&kind, &address], &packet("10.0.0.1", 1, Service::Unread)), Some(1));
}

#[test]
fn icmp_is_of_the_packets_family() {
    let icmp = Match { protocol: Protocol::Icmp, ..Match::default() };
    let echo = |kind| Service::Icmp { kind, code: 0 };
    assert_eq!(decider([&icmp], &packet("10.0.0.1", 1, echo(8))), Some(0));
    assert_eq!(decider([&icmp], &packet("2001:db8::1", 58, echo(128))), Some(0));
    assert_eq!(decider([&icmp], &packet("2001:db8::1", 1, Service::None)), None);
    assert_eq!(decider([&icmp], &packet("10.0.0.1", 58, Service::None)), None);
    let of = |kind, code| Match {
        family: Family::Ipv6,
        protocol: Protocol::Number(58),
        icmp: Some(IcmpType { kind, code }),
        ..Match::default()
    };
    let rules = [of(1, Some(4)), of(1, None), of(128, Some(0))];
    let code =
        |kind, code| decider(rules.each_ref(), &packet("2001:db8::1", 58, Service::Icmp { kind, code }));
    assert_eq!([code(1, 4), code(1, 3), code(128, 0), code(128, 1)], [Some(0), Some(1), Some(2), None]);
}

#[test]
fn what_is_not_ip_is_let_in_by_its_ethertype_or_by_a_rule_for_everything() {
    let lldp = Match { family: Family::EtherType(0x88cc), ..Match::default() };
    let address = Match { remote: networks(&["0.0.0.0/0", "::/0"]), ..Match::default() };
    let frame = |ethertype| Tuple::Other { ethertype };
    let rules = [address.clone(), lldp.clone()];
    assert_eq!(
        [0x88cc, 0x88cd, 46].map(|number| decider(rules.each_ref(), &frame(number))),
        [Some(1), None, None]
    );
    assert_eq!(decider([&lldp], &tcp_to("10.0.0.1", 80)), None);
    let rules = [Match::default(), lldp];
    assert_eq!([0x88cc, 0x88cd, 46].map(|number| decider(rules.each_ref(), &frame(number))), [Some(0); 3]);
    let families = [Family::Ipv4, Family::Ipv6].map(|family| Match { family, ..Match::default() });
    assert_eq!(decider(families.each_ref(), &frame(0x0806)), None);
}

#[test]
fn a_group_is_its_members() {
    let rules = [Match { remote: Remote::Group(GroupId::new(0)), ..Match::default() }];
    for (remote, expected) in
        [("10.9.0.1", Some(0)), ("10.9.0.2", None), ("2001:db8::9", Some(0)), ("2001:db8::8", None)]
    {
        assert_eq!(decider(rules.each_ref(), &tcp_to(remote, 1)), expected, "{remote}");
    }
}

#[test]
fn the_ends_of_the_address_space_are_in_it() {
    let rules = ["255.255.255.255/32", "0.0.0.0/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "::/128"]
        .map(|text| Match { remote: networks(&[text]), ..Match::default() });
    let remotes = ["255.255.255.255", "0.0.0.0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::"];
    assert_eq!(remotes.map(|remote| decider(rules.each_ref(), &tcp_to(remote, 1))), [0, 1, 2, 3].map(Some));
    let beside = ["255.255.255.254", "0.0.0.1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "::1"];
    assert_eq!(beside.map(|remote| decider(rules.each_ref(), &tcp_to(remote, 1))), [None; 4]);
}

#[test]
fn what_cannot_be_meant_is_named() {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let tcp = Match { protocol: Protocol::Number(6), ..Match::default() };
    let icmp =
        Match { protocol: Protocol::Icmp, icmp: Some(IcmpType { kind: 8, code: None }), ..Match::default() };
    let lldp = Match { family: Family::EtherType(0x88cc), ..Match::default() };
    let ethertype = |number| Match { family: Family::EtherType(number), ..Match::default() };
    let backwards = PortRange { first: 2, last: 1 };
    let cases = [
        (Match { ports: range(80, 80), ..Match::default() }, Fault::PortsWithoutProtocol),
        (
            Match { ports: range(80, 80), protocol: Protocol::Icmp, ..Match::default() },
            Fault::PortsWithoutProtocol,
        ),
        (
            Match { ports: range(1, 2), protocol: Protocol::Number(47), ..tcp.clone() },
            Fault::PortsWithoutProtocol,
        ),
        (Match { ports: range(2, 1), ..tcp.clone() }, Fault::EmptyRange(backwards)),
        (Match { icmp: icmp.icmp, family: Family::Ipv4, ..tcp.clone() }, Fault::IcmpTypeWithoutIcmp),
        (
            Match { family: Family::Ipv6, protocol: Protocol::Number(1), ..icmp.clone() },
            Fault::IcmpTypeWithoutIcmp,
        ),
        (icmp.clone(), Fault::IcmpTypeWithoutFamily),
        (Match { remote: networks(&[]), ..tcp.clone() }, Fault::NoNetworks),
        (Match { remote: networks(&["10.0.0.1/8"]), ..tcp.clone() }, Fault::HostBits(net("10.0.0.1/8"))),
        (
            Match { family: Family::Ipv4, remote: networks(&["::/0"]), ..tcp.clone() },
            Fault::OtherFamily(net("::/0")),
        ),
        (
            Match { family: Family::Ipv6, remote: networks(&["10.0.0.0/8"]), ..tcp.clone() },
            Fault::OtherFamily(net("10.0.0.0/8")),
        ),
        (ethertype(0x05ff), Fault::NoEtherType(0x05ff)),
        (ethertype(0x0800), Fault::EtherTypeOfIp(0x0800)),
        (ethertype(0x86dd), Fault::EtherTypeOfIp(0x86dd)),
        (ethertype(0x8100), Fault::EtherTypeOfTag(0x8100)),
        (ethertype(0x88a8), Fault::EtherTypeOfTag(0x88a8)),
        (Match { remote: networks(&["::/0"]), ..lldp.clone() }, Fault::EtherTypeWithIp),
        (Match { protocol: Protocol::Icmp, ..lldp.clone() }, Fault::EtherTypeWithIp),
    ];
    for (matches, fault) in cases {
        assert_eq!(matches.check(), Err(fault), "{matches:?}");
    }
    let sound = [
        tcp.clone(),
        Match { ports: range(0, 65_535), ..tcp },
        Match { family: Family::Ipv4, ..icmp.clone() },
        Match { family: Family::Ipv6, protocol: Protocol::Number(58), ..icmp },
        lldp,
    ];
    assert_eq!(sound.map(|matches| matches.check()), [Ok(()); 5]);
    let said = Fault::HostBits(net("10.0.0.1/8")).to_string();
    assert_eq!(said, "names 10.0.0.1/8, but that network is 10.0.0.0/8");
}

#[test]
fn rules_cross_to_the_datapath_as_json() {
    let text = r#"{ "direction": "ingress", "action": "reject", "stateful": false, "origin": { "line": 3, "column": 5 },
        "matches": { "family": "ipv4", "protocol": { "number": 6 }, "ports": [{ "first": 80, "last": 81 }],
            "icmp": null, "remote": { "networks": ["10.0.0.0/8"] } } }"#;
    let rule: Rule = serde_json::from_str(text).expect("a rule");
    let matches = Match {
        family: Family::Ipv4,
        protocol: Protocol::Number(6),
        ports: range(80, 81),
        remote: networks(&["10.0.0.0/8"]),
        ..Match::default()
    };
    let origin = Origin { line: 3, column: 5 };
    let expected = Rule { action: Action::Reject, stateful: false, origin, ..allow(matches) };
    assert_eq!(rule, expected);
    let said = serde_json::to_string(&expected).expect("JSON");
    assert_eq!(serde_json::from_str::<Rule>(&said).expect("a rule"), expected);
}
