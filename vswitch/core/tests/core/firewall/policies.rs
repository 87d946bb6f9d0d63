//! The policies of a World: what is shared, what is taken over, and which rule a decision names.

use super::rules::{allow, tcp_to};
use ipnet::IpNet;
use std::{net::IpAddr, sync::Arc};
use vswitch_core::{
    description::Origin,
    firewall::{
        classify::Uncompilable,
        policies::{Policies, PolicyError, RuleId},
        policy::{Direction, Fault, GroupId, Match, PortRange, Protocol, Remote, Rule, SecurityGroup},
    },
};

fn group(name: &str, rules: &[Rule]) -> SecurityGroup {
    let rules = rules.iter().enumerate().map(|(n, rule)| {
        let origin = Origin { line: n as u32 + 1, column: 1 };
        Rule { origin, ..rule.clone() }
    });
    SecurityGroup { name: name.into(), rules: rules.collect(), origin: Origin { line: 1, column: 1 } }
}

fn tcp(port: u16) -> Rule {
    let ports = vec![PortRange { first: port, last: port }];
    allow(Match { protocol: Protocol::Number(6), ports, ..Match::default() })
}

fn from_group(id: u16) -> Rule {
    allow(Match { remote: Remote::Group(GroupId::new(id)), ..Match::default() })
}

fn ids<const N: usize>(ids: [u16; N]) -> [GroupId; N] {
    ids.map(GroupId::new)
}

fn host(text: &str) -> IpNet {
    text.parse::<IpAddr>().expect("an address").into()
}

#[test]
fn a_decision_names_the_rule_by_its_place_among_all_of_the_world() {
    let groups = [group("web", &[tcp(80), tcp(443)]), group("none", &[]), group("ssh", &[tcp(22), tcp(80)])];
    let members = vec![Arc::default(); 3];
    let list = ids([2, 1, 0]);
    let policies = Policies::compile(&groups, &members, [&list[..]], &Policies::default());
    let policy = policies.of(&list).expect("it was asked for").as_ref().expect("sound rules");
    let decided = |port| {
        let decision = policy.decide(Direction::Ingress, &tcp_to("10.0.0.1", port));
        decision.rule.map(|place| policy.rule(place))
    };
    // In the order of the list the group `ssh` is asked first, and so decides about port 80.
    let places = [22, 80, 443].map(|port| decided(port).and_then(|rule| policies.place(rule)));
    let ssh = GroupId::new(2);
    assert_eq!(places, [Some((ssh, 0)), Some((ssh, 1)), Some((GroupId::new(0), 1))]);
    assert_eq!((decided(23), policies.count()), (None, 4));
    assert_eq!([22, 80, 443].map(|port| decided(port).map(RuleId::index)), [2, 3, 1].map(Some));
}

#[test]
fn what_is_alike_is_compiled_once_and_what_stays_is_taken_over() {
    let web = group("web", &[tcp(80), from_group(1)]);
    let admin = group("admin", &[tcp(22)]);
    let members: Vec<Arc<[IpNet]>> = vec![Arc::default(), Arc::new([host("10.0.0.1")])];
    let (list, other) = (ids([0]), ids([1]));
    let compile = |groups: &[SecurityGroup],
                   members: &[Arc<[IpNet]>],
                   lists: [&[GroupId]; 3],
                   old: &Policies| { Policies::compile(groups, members, lists, old) };
    let ingress = |policies: &Policies, list: &[GroupId]| {
        let policy = policies.of(list).expect("it was asked for").clone().expect("sound rules");
        policy.classifier(Direction::Ingress).clone()
    };
    let groups = [web.clone(), admin.clone()];
    let first = compile(&groups, &members, [&list, &other, &list], &Policies::default());
    assert!(!Arc::ptr_eq(&ingress(&first, &list), &ingress(&first, &other)));
    assert!(first.of(&ids([0, 1])).is_none(), "no interface has these");
    // A group before the others moves their ids and lines, and changes no rule.
    let mut moved = web.clone();
    moved.rules[1] = Rule { origin: Origin { line: 99, column: 9 }, ..from_group(2) };
    let later = [group("new", &[tcp(1)]), moved, admin];
    let later_members = [vec![Arc::default()], members.clone()].concat();
    let (new_list, new_other) = (ids([1]), ids([2]));
    let second = compile(&later, &later_members, [&new_list, &new_other, &new_list], &first);
    assert!(Arc::ptr_eq(&ingress(&first, &list), &ingress(&second, &new_list)));
    assert!(Arc::ptr_eq(&ingress(&first, &other), &ingress(&second, &new_other)));
    // Whose member moves is compiled anew, and nothing else.
    let mut fewer = later_members;
    fewer[2] = Arc::new([host("10.0.0.2")]);
    let third = compile(&later, &fewer, [&new_list, &new_other, &new_list], &second);
    assert!(!Arc::ptr_eq(&ingress(&second, &new_list), &ingress(&third, &new_list)));
    assert!(Arc::ptr_eq(&ingress(&second, &new_other), &ingress(&third, &new_other)));
    let may_enter =
        |policies, port| ingress(policies, &new_list).decide(&tcp_to("10.0.0.1", port)).rule.is_some();
    assert_eq!([may_enter(&second, 9), may_enter(&third, 9), may_enter(&third, 80)], [true, false, true]);
}

#[test]
fn a_policy_that_cannot_be_meant_says_which_rule() {
    let ports = vec![PortRange { first: 9, last: 9 }];
    let wrong = allow(Match { protocol: Protocol::Icmp, ports, ..Match::default() });
    let groups = [group("sound", &[tcp(80)]), group("wrong", &[tcp(1), wrong])];
    let members = vec![Arc::default(); 2];
    let lists = [ids([0, 1]), ids([0, 7])];
    let policies =
        Policies::compile(&groups, &members, lists.iter().map(|list| &list[..]), &Policies::default());
    let error = |list: &[GroupId]| policies.of(list).and_then(|policy| policy.as_ref().err()).copied();
    let PolicyError { rule, why } = error(&lists[0]).expect("an error");
    assert_eq!(why, Uncompilable::Rule(Fault::PortsWithoutProtocol));
    assert_eq!(rule.and_then(|rule| policies.place(rule)), Some((GroupId::new(1), 1)));
    let missing = Uncompilable::NoSuchGroup(GroupId::new(7));
    assert_eq!(error(&lists[1]), Some(PolicyError { rule: None, why: missing }));
}
