//! How often rules decided, and what would let pass what they drop.

use super::{
    ACK, H1, PC1, PC2, SYN_ACK, TCP, UDP, WEB1, addresses, allow, link, meet, office, open_office, outcome,
    segment, syn, to_port, udp,
};
use crate::support::lab::{Bench, Lab, access};
use ipnet::IpNet;
use std::time::Duration;
use vswitch_core::{
    build::{self, Echo},
    drop_reason::DropReason,
    firewall::{
        hits::DefaultCounts,
        log, mend,
        policy::{Action, Direction, Family, GroupId, Match, Protocol, Remote, Rule},
        tuple::Tuple,
        words,
    },
    head::Head,
    id::{Epoch, PortId},
    trace,
    world::World,
};

fn rules(bench: &Bench) -> Vec<u64> {
    bench.world.rule_hits().collect()
}

fn defaults(world: &World, port: u16) -> DefaultCounts {
    let firewall = world.port(port).and_then(|port| port.firewall.as_ref());
    firewall.expect("it is guarded").defaults.counts()
}

#[test]
fn what_decided_is_counted_once_a_connection_and_never_of_an_imagined_frame() {
    let mut bench = open_office();
    let known = [PC1, WEB1].map(|port| defaults(&bench.world, port));
    assert_eq!(
        known[1],
        DefaultCounts { ingress_basic: 3, egress_basic: 1, ..DefaultCounts::default() },
        "each asked once, and was heard by the others"
    );
    let ports = (4000, 80);
    assert_eq!(outcome(bench.send(PC1, &syn(2, 1, ports))), Ok(()));
    assert_eq!(rules(&bench), [1, 0]);
    assert_eq!(outcome(bench.send(WEB1, &segment(syn(1, 2, (80, 4000)), SYN_ACK, 5000, 1001))), Ok(()));
    for _ in 0..3 {
        assert_eq!(outcome(bench.send(PC1, &segment(syn(2, 1, ports), ACK, 1001, 5001))), Ok(()));
    }
    assert_eq!(rules(&bench), [1, 0], "a connection that is known asks no rule");
    assert_eq!(outcome(bench.send(H1, &syn(3, 1, (4001, 80)))), Ok(()));
    assert_eq!(outcome(bench.send(PC1, &syn(2, 1, (4002, 22)))), Ok(()));
    for port in 1..=4 {
        assert_eq!(outcome(bench.send(H1, &syn(3, 1, (4001, port)))), Err(DropReason::PolicyIngress));
    }
    bench.learning = false;
    assert_eq!(outcome(bench.send(H1, &syn(3, 1, (4009, 80)))), Ok(()));
    assert_eq!(outcome(bench.send(H1, &syn(3, 1, (4009, 81)))), Err(DropReason::PolicyIngress));
    assert_eq!(rules(&bench), [2, 1]);
    assert_eq!(defaults(&bench.world, WEB1), DefaultCounts { ingress_dropped: 4, ..known[1] });
    assert_eq!(defaults(&bench.world, PC1), DefaultCounts { egress_allowed: 2, ..known[0] });
}

#[test]
fn a_rule_that_says_the_same_goes_on_counting_wherever_it_stands() {
    let mut bench = open_office();
    assert_eq!(outcome(bench.send(PC1, &syn(2, 1, (4000, 80)))), Ok(()));
    assert_eq!(outcome(bench.send(PC1, &syn(2, 1, (4000, 22)))), Ok(()));
    assert_eq!(outcome(bench.send(PC1, &syn(2, 1, (4001, 22)))), Ok(()));
    assert_eq!(rules(&bench), [1, 2]);
    // Another group comes first, so every id is another one, and another rule before the first.
    let drops = |matches| Rule { action: Action::Drop, ..allow(Direction::Ingress, matches) };
    let (first, web) = (drops(to_port(TCP, 81)), &office().description.groups[0].rules);
    let ssh = Rule {
        matches: Match { remote: Remote::Group(GroupId::new(2)), ..to_port(TCP, 22) },
        ..web[1].clone()
    };
    let twice = web[0].clone();
    let changed = |ssh: Rule| {
        let mut lab = Lab::new()
            .group("other", &[drops(to_port(UDP, 1))])
            .group("web", &[first.clone(), web[0].clone(), ssh, twice.clone()])
            .group("admin", &[])
            .group("none", &[])
            .switch("sw1")
            .port("web1", 0, access(10))
            .guarded(1, &[1])
            .port("pc1", 0, access(10))
            .guarded(2, &[2])
            .port("h1", 0, access(10))
            .port("pc2", 0, access(10))
            .guarded(4, &[3]);
        lab.description.epoch = Epoch::new(2);
        lab
    };
    let before = defaults(&bench.world, PC1);
    let new = World::compile_after(&changed(ssh.clone()).description, &bench.world).expect("a lab");
    let old = std::mem::replace(&mut bench.world, new);
    assert_eq!(rules(&bench), [0, 0, 1, 2, 0], "of two that say the same, the first is the one that was");
    assert_eq!(defaults(&bench.world, PC1), before);
    // A worker that still decides by the old World loses nothing.
    let new = std::mem::replace(&mut bench.world, old);
    assert_eq!(outcome(bench.send(H1, &syn(3, 1, (4009, 80)))), Ok(()));
    bench.world = new;
    assert_eq!(rules(&bench), [0, 0, 2, 2, 0]);
    // What says something else is another rule, and an interface that is new in its place another one.
    let mut lab = changed(Rule { stateful: false, ..ssh });
    lab.description.epoch = Epoch::new(3);
    lab.description.ports[usize::from(PC1)].as_mut().expect("it is there").id = PortId::new(PC1, 1);
    bench.adopt(&lab);
    assert_eq!(rules(&bench), [0, 0, 2, 0, 0]);
    assert_eq!(defaults(&bench.world, PC1), DefaultCounts::default());
}

/// A frame that is dropped, the direction in which that was decided, and where.
type Dropped = (Vec<u8>, Direction, u16);

/// What would let it pass, as trace tells it.
fn told(bench: &Bench, (frame, direction, at): &Dropped) -> String {
    let tuple = Tuple::of(&Head::parse(frame, frame.len() as u32).unwrap()).unwrap();
    let port = bench.world.port(*at).expect("a port");
    let refused = trace::refused(&bench.world, port, *direction, &tuple).expect("it is dropped");
    let mend = refused.mend.expect("a mend");
    assert!(bench.story().contains(&format!("{}; {mend}", refused.by)), "{}\n{mend}", bench.story());
    mend
}

#[test]
fn what_would_let_a_frame_pass_does() {
    let egress = |action, matches| Rule { action, ..allow(Direction::Egress, matches) };
    let drops = |direction, matches| Rule { action: Action::Drop, ..allow(direction, matches) };
    let udp_only = Match { protocol: Protocol::Number(UDP), ..Match::default() };
    // pc1 is closed; web1 drops telnet by a rule; pc2 may say UDP to all, but not to port 9.
    let mut lab = office();
    lab.description.groups[0].rules.insert(0, drops(Direction::Ingress, to_port(TCP, 23)));
    lab.description.groups[2].rules =
        vec![drops(Direction::Egress, to_port(UDP, 9)), egress(Action::Allow, udp_only)];
    let pc1 = lab.description.ports[usize::from(PC1)].as_mut().and_then(|port| port.firewall.as_mut());
    pc1.expect("it has one").groups.clear();
    let ping = |from, to| build::echo(link(from, to), addresses(from, to), Echo::Request, 1, 1, b"");
    let cases: [(u16, Dropped, &str); 7] = [
        (
            H1,
            (syn(3, 1, (4000, 8080)), Direction::Ingress, WEB1),
            "would pass with `- { direction: ingress, protocol: tcp, port: 8080, remote-ip-prefix: 10.0.0.3/32 }` in a security group of web1:eth0 (web)",
        ),
        (
            H1,
            (syn(3, 1, (4000, 0)), Direction::Ingress, WEB1),
            "would pass with `- { direction: ingress, protocol: tcp, remote-ip-prefix: 10.0.0.3/32 }` in a security group of web1:eth0 (web)",
        ),
        (
            H1,
            (ping(3, 1), Direction::Ingress, WEB1),
            "would pass with `- { direction: ingress, protocol: icmp, remote-ip-prefix: 10.0.0.3/32 }` in a security group of web1:eth0 (web)",
        ),
        (
            H1,
            (syn(3, 1, (4000, 23)), Direction::Ingress, WEB1),
            "would pass with `- { direction: ingress, protocol: tcp, port: 23, remote-ip-prefix: 10.0.0.3/32 }` before line 1",
        ),
        (
            H1,
            (udp(3, 2, (1, 53)), Direction::Ingress, PC1),
            "would pass with `- { direction: ingress, protocol: udp, port: 53, remote-ip-prefix: 10.0.0.3/32 }` in a security group for pc1:eth0, which has none",
        ),
        (
            PC2,
            (syn(4, 3, (4000, 80)), Direction::Egress, PC2),
            "would pass with `- { direction: egress, protocol: tcp, port: 80, remote-ip-prefix: 10.0.0.3/32 }` in a security group of pc2:eth0 (none)",
        ),
        (
            PC2,
            (udp(4, 3, (4000, 9)), Direction::Egress, PC2),
            "would pass with `- { direction: egress, protocol: udp, port: 9, remote-ip-prefix: 10.0.0.3/32 }` before line 1",
        ),
    ];
    for (from, dropped, words) in cases {
        let mut bench = lab.bench();
        meet(&mut bench);
        assert!(outcome(bench.send(from, &dropped.0)).is_err(), "{words}");
        assert_eq!(told(&bench, &dropped), words);
        // The line, where it says.
        let (frame, direction, at) = dropped;
        let tuple = Tuple::of(&Head::parse(&frame, frame.len() as u32).unwrap()).unwrap();
        let rule = mend::rule(direction, &tuple);
        assert!(words.contains(&words::rule(&rule, &[])));
        let mut mended = office();
        mended.description = lab.description.clone();
        mended.description.epoch = Epoch::new(2);
        let firewall =
            mended.description.ports[usize::from(at)].as_mut().and_then(|port| port.firewall.as_mut());
        let groups = &mut firewall.expect("it has one").groups;
        if groups.is_empty() {
            groups.push(GroupId::new(1));
        }
        let group = groups[0];
        mended.description.groups[usize::from(group.index())].rules.insert(0, rule);
        bench.adopt(&mended);
        assert_eq!(outcome(bench.send(from, &frame)), Ok(()), "{words}");
    }
}

#[test]
fn where_all_may_leave_the_line_says_what_keeps_it_so() {
    let telnet = Rule { action: Action::Drop, ..allow(Direction::Egress, to_port(TCP, 23)) };
    let mut lab = office();
    lab.description.groups[1].rules = vec![telnet];
    let mut bench = lab.bench();
    meet(&mut bench);
    let dropped = (syn(2, 3, (4000, 23)), Direction::Egress, PC1);
    assert_eq!(outcome(bench.send(PC1, &dropped.0)), Err(DropReason::PolicyEgress));
    let all = "`- { direction: egress }`";
    let own = "`- { direction: egress, protocol: tcp, port: 23, remote-ip-prefix: 10.0.0.3/32 }`";
    assert_eq!(
        told(&bench, &dropped),
        format!(
            "would pass with {own} before line 1, and {all} as the last rule: without that, nothing else could leave"
        )
    );
    // What is not IP needs a rule where all may leave.
    let odd = (build::raw(link(2, 3), 0x88b5, &[0; 46]), Direction::Egress, PC1);
    assert_eq!(outcome(bench.send(PC1, &odd.0)), Err(DropReason::PolicyEgress));
    assert_eq!(
        told(&bench, &odd),
        format!("would pass with {all} in a security group of pc1:eth0 (admin), which lets everything out")
    );
    let rules = &mut lab.description.groups[1].rules;
    rules.push(allow(Direction::Egress, Match::default()));
    let tuple = Tuple::of(&Head::parse(&dropped.0, dropped.0.len() as u32).unwrap()).unwrap();
    rules.insert(0, mend::rule(Direction::Egress, &tuple));
    lab.description.epoch = Epoch::new(2);
    bench.adopt(&lab);
    for frame in [&dropped.0, &odd.0, &syn(2, 3, (4000, 24)), &udp(2, 3, (1, 2))] {
        assert_eq!(outcome(bench.send(PC1, frame)), Ok(()));
    }
}

#[test]
fn rules_are_told_in_words_of_the_file() {
    let groups = office().description.groups;
    let net = |text: &str| text.parse::<IpNet>().expect("a network");
    let of = |matches| words::rule(&allow(Direction::Ingress, matches), &groups);
    assert_eq!(of(Match::default()), "{ direction: ingress }");
    let remote = Remote::Networks(vec![net("10.0.0.0/8"), net("fd00::/8")]);
    let mut ports = to_port(TCP, 80);
    ports.ports.push(vswitch_core::firewall::policy::PortRange { first: 8000, last: 8099 });
    assert_eq!(
        of(Match { remote, ..ports }),
        "{ direction: ingress, protocol: tcp, port: [80, 8000-8099], remote-ip-prefix: [10.0.0.0/8, \"fd00::/8\"] }"
    );
    assert_eq!(
        of(super::from_group(to_port(TCP, 22), 1)),
        "{ direction: ingress, protocol: tcp, port: 22, remote-group: admin }"
    );
    let reject = Rule {
        action: Action::Reject,
        ..allow(Direction::Egress, Match { family: Family::EtherType(0x88b5), ..Match::default() })
    };
    assert_eq!(words::rule(&reject, &groups), "{ direction: egress, action: reject, ether-type: 0x88b5 }");
    let stateless = Rule {
        stateful: false,
        ..allow(Direction::Ingress, Match { protocol: Protocol::Icmp, ..Match::default() })
    };
    assert_eq!(words::rule(&stateless, &groups), "{ direction: ingress, stateful: false, protocol: icmp }");
}

#[test]
fn what_rules_log_is_bounded_a_second_and_says_what_it_leaves_out() {
    let mut lab = office();
    assert!(lab.bench().world.log().is_none());
    let rules = &mut lab.description.groups[0].rules;
    rules[0].log = true;
    rules.push(Rule { log: true, action: Action::Drop, ..allow(Direction::Ingress, to_port(TCP, 81)) });
    let mut bench = lab.bench();
    meet(&mut bench);
    let logged = |bench: &Bench| -> Vec<String> {
        let entries = bench.world.log().expect("rules log").take();
        entries.iter().map(|entry| entry.words(&bench.world)).collect()
    };
    assert_eq!(outcome(bench.send(H1, &syn(3, 1, (4000, 80)))), Ok(()));
    assert_eq!(
        outcome(bench.send(H1, &segment(syn(3, 1, (4000, 80)), ACK, 1001, 5001))),
        Err(DropReason::InvalidIngress)
    );
    assert_eq!(outcome(bench.send(PC1, &syn(2, 1, (4000, 22)))), Ok(()), "logs nothing");
    let frame =
        "02:00:00:00:00:03 -> 02:00:00:00:00:01, IPv4 10.0.0.3 > 10.0.0.1 TCP 4000 > 80 SYN, 54 bytes";
    assert_eq!(logged(&bench), [format!("web1:eth0 to its guest: group web allows it (line 2): {frame}")]);
    // The limit of one rule is not the other's.
    for port in 0..25 {
        assert_eq!(outcome(bench.send(H1, &syn(3, 1, (5000 + port, 81)))), Err(DropReason::PolicyIngress));
    }
    assert_eq!(outcome(bench.send(H1, &syn(3, 1, (6000, 80)))), Ok(()));
    bench.learning = false;
    bench.send(H1, &syn(3, 1, (6001, 80)));
    bench.learning = true;
    let lines = logged(&bench);
    assert_eq!(lines.iter().filter(|line| line.contains("group web drops it")).count(), log::RATE as usize);
    assert_eq!(lines.len(), log::RATE as usize + 1);
    assert_eq!(bench.world.unlogged(Some(bench.now)).count(), 0, "the next one may say it");
    bench.now = bench.now + Duration::from_secs(1);
    assert!(outcome(bench.send(H1, &syn(3, 1, (7000, 81)))).is_err());
    let lines = logged(&bench);
    assert!(lines.len() == 1 && lines[0].ends_with("; 15 more before it were not logged"), "{lines:?}");
    for port in 0..25 {
        assert!(outcome(bench.send(H1, &syn(3, 1, (8000 + port, 81)))).is_err());
    }
    bench.now = bench.now + Duration::from_secs(1);
    let rest: Vec<_> = bench.world.unlogged(Some(bench.now)).collect();
    let [(rule, 16)] = rest[..] else { panic!("{rest:?}") };
    assert_eq!(log::unlogged_words(&bench.world, rule, 16), "group web, line 1: 16 more were not logged");
    assert_eq!(bench.world.unlogged(Some(bench.now)).count(), 0, "it is said once");
    // At the end nobody waits for a next one.
    for port in 0..25 {
        assert!(outcome(bench.send(H1, &syn(3, 1, (9000 + port, 81)))).is_err());
    }
    assert_eq!(bench.world.unlogged(Some(bench.now)).count(), 0);
    assert_eq!(bench.world.unlogged(None).map(|(_, count)| count).collect::<Vec<_>>(), [15]);
    assert_eq!(bench.world.unlogged(None).count(), 0, "it is said once");
}
