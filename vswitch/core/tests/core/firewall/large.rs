//! Rule sets of ten thousand rules that are hard to compile: right, in little memory; and a named error for what is harder.

use super::{
    naive,
    random::Universe,
    sets::{KINDS, Set},
};
use crate::support::frames::Random;
use ipnet::{IpNet, Ipv4Net};
use std::sync::Arc;
use vswitch_core::{
    firewall::{
        classify::{Classifier, CompileError, MAX_BYTES, MAX_NETWORKS, MAX_RULES, Source, Uncompilable},
        policy::{Direction, GroupId, Match, PortRange, Protocol, Remote, Rule},
        tuple::Tuple,
    },
    head::Head,
};

fn compile(set: &Set) -> Result<Classifier, CompileError> {
    Classifier::compile(&Source::new(Direction::Ingress, set.rules.iter(), &set.members)?)
}

#[test]
fn ten_thousand_rules_of_each_kind_decide_as_they_were_said_and_are_small() {
    for (name, kind) in KINDS {
        let set = kind(10_000);
        let classifier = compile(&set).expect(name);
        // What a row for each of 257 protocols takes is the exception.
        let most = if name == "every protocol" { 32 << 20 } else { 4 << 20 };
        assert!(classifier.bytes() < most, "{name}: {} bytes", classifier.bytes());
        let mut random = Random::new(9);
        let (mut by_rule, frames) = (0, 1000);
        for _ in 0..frames {
            let rule = &set.rules[random.below(set.rules.len())];
            let frame = Universe::around(rule, &set.members).frame(&mut random);
            let head = Head::parse(&frame, frame.len() as u32).expect("neither runt nor oversize");
            let Ok(tuple) = Tuple::of(&head) else { continue };
            let naive = naive::decide(&set.rules, &set.members, Direction::Ingress, &head);
            assert_eq!(classifier.decide(&tuple), naive, "{name}: {head}");
            by_rule += u32::from(naive.rule.is_some());
        }
        assert!(by_rule > frames / 40, "{name}: {by_rule} of {frames} frames were decided by rules");
    }
}

/// One rule of each set's kind.
fn rule(matches: Match) -> Rule {
    let [(_, kind), ..] = KINDS;
    Rule { matches, ..kind(1).rules.remove(0) }
}

#[test]
fn what_is_too_much_is_an_error_with_a_name() {
    let error = |set: &Set| compile(set).err().map(|error| error.why);
    let any = rule(Match::default());
    let many = Set { rules: vec![any; MAX_RULES + 1], members: Vec::new() };
    assert_eq!(error(&many), Some(Uncompilable::TooManyRules));

    let host = |n: u32| IpNet::V4(Ipv4Net::new(n.into(), 32).expect("at most 32"));
    let to_group = |group, ports| {
        let protocol = Protocol::Number(6);
        rule(Match { protocol, ports, remote: Remote::Group(GroupId::new(group)), ..Match::default() })
    };
    let crowd: Arc<[IpNet]> = (0..=MAX_NETWORKS as u32).map(host).collect();
    let crowded = Set { rules: vec![to_group(0, Vec::new())], members: vec![crowd] };
    assert_eq!(error(&crowded), Some(Uncompilable::TooManyNetworks));

    // The rest of what may be named: a large group, all of whose members are in as many networks as there are rules.
    let all = |n: u32| Match {
        remote: Remote::Networks(vec!["0.0.0.0/0".parse().expect("a network"), host(n)]),
        ..Match::default()
    };
    let rules = (0..MAX_RULES as u32 - 1).map(|n| rule(all(n))).chain([to_group(0, Vec::new())]).collect();
    let crowd = (0..(MAX_NETWORKS - 2 * MAX_RULES) as u32).map(|n| host(n * 7)).collect();
    let covered = compile(&Set { rules, members: vec![crowd] }).expect("few combinations");
    assert!(covered.bytes() < MAX_BYTES / 16, "{} bytes", covered.bytes());

    // Each of 2000 addresses is in groups of its own choice, and each group has 200 ranges: nothing is alike.
    let mut random = Random::new(1);
    let mut members = vec![Vec::new(); 50];
    for n in 0..2000 {
        members.iter_mut().for_each(|members| members.extend((random.below(2) == 0).then(|| host(n))));
    }
    let ranges = |group: u16| {
        (0..200).map(move |n| PortRange { first: group * 7 + n * 300, last: group * 7 + n * 300 })
    };
    let tangled = Set {
        rules: (0..50).map(|group| to_group(group, ranges(group).collect())).collect(),
        members: members.into_iter().map(Arc::from).collect(),
    };
    assert_eq!(error(&tangled), Some(Uncompilable::TooComplex));
    let half = Set { rules: tangled.rules[..4].to_vec(), members: tangled.members };
    let compiled = compile(&half).expect("few enough combinations");
    assert!(compiled.bytes() < MAX_BYTES / 16, "{} bytes", compiled.bytes());
}
