//! Policies of a World: who is in which group, what stays when the file changes, and what happens to one that cannot be meant.

use super::{H1, PC1, TCP, WEB1, meet, office, open_office, outcome, syn, to_port};
use vswitch_core::{
    decide::Fate,
    drop_reason::DropReason,
    firewall::policy::{GroupId, Match, PortRange},
    id::{Epoch, PortId},
    world::World,
};

#[test]
fn a_member_is_known_by_its_addresses_and_leaves_with_its_groups() {
    let mut bench = open_office();
    assert_eq!(outcome(bench.send(PC1, &syn(2, 1, (4000, 22)))), Ok(()));
    let mut lab = office();
    lab.description.epoch = Epoch::new(2);
    let pc1 = lab.description.ports[usize::from(PC1)].as_mut().and_then(|port| port.firewall.as_mut());
    pc1.expect("it has one").groups = vec![GroupId::new(2)];
    bench.adopt(&lab);
    assert_eq!(outcome(bench.send(PC1, &syn(2, 1, (4001, 22)))), Err(DropReason::PolicyIngress));
    assert_eq!(
        outcome(bench.send(PC1, &syn(2, 1, (4000, 22)))),
        Err(DropReason::PolicyIngress),
        "it was opened by the rule that names its group"
    );
}

#[test]
fn an_interface_whose_rules_cannot_be_meant_is_down_and_says_why() {
    let mut lab = office();
    let backwards = Match { ports: vec![PortRange { first: 9, last: 8 }], ..to_port(TCP, 9) };
    lab.description.groups[0].rules[1].matches = backwards;
    let mut bench = lab.bench();
    let fault = bench.world.port(WEB1).and_then(|port| port.fault()).expect("it cannot be meant").to_string();
    assert_eq!(
        fault,
        "line 3: a rule of security group `web` names ports 9-8, a range that ends before it begins"
    );
    assert_eq!(outcome(bench.send(WEB1, &syn(1, 2, (9, 9)))), Err(DropReason::LinkDown));
    assert!(
        bench.story().contains("; line 3 keeps it down: a rule of security group `web`"),
        "{}",
        bench.story()
    );
    for n in 2..=4 {
        let question = vswitch_core::build::arp_request(super::to_all(n), super::v4(n), super::v4(1));
        let (fate, copies) = bench.send(u16::from(n) - 1, &question);
        assert_eq!(fate, Fate::Flooded);
        assert!(copies.iter().all(|copy| copy.to != WEB1 && copy.outcome.is_ok()), "nothing reaches it");
    }
    // So is one whose groups are not there.
    let mut lab = office();
    let web1 = lab.description.ports[usize::from(WEB1)].as_mut().and_then(|port| port.firewall.as_mut());
    web1.expect("it has one").groups.push(GroupId::new(9));
    let world = World::compile(&lab.description).expect("other ports do not suffer");
    let port = world.port(WEB1).expect("it is there");
    assert!(!port.up && world.port(PC1).is_some_and(|port| port.up));
    assert_eq!(
        port.fault().expect("why").to_string(),
        "line 7: its security groups: names group 9, which does not exist"
    );
    // Mended, it is up again.
    bench.adopt(&office());
    assert!(bench.world.port(WEB1).is_some_and(|port| port.up && port.fault().is_none()));
}

#[test]
fn an_interface_that_is_new_in_its_place_has_nothing_of_the_old_one() {
    let first = office().bench().world;
    let mut lab = office();
    lab.description.epoch = Epoch::new(2);
    let port = lab.description.ports[usize::from(WEB1)].as_mut().expect("it is there");
    port.id = PortId::new(WEB1, 1);
    let second = World::compile_after(&lab.description, &first).expect("a lab");
    let epoch = |place| {
        second.port(place).and_then(|port| port.firewall.as_ref()).map(|firewall| firewall.epoch.number())
    };
    assert_eq!([WEB1, PC1].map(epoch), [Some(2), Some(1)]);
}

#[test]
fn a_closed_interface_without_groups_lets_out_and_not_in() {
    let mut lab = office();
    for port in lab.description.ports.iter_mut().flatten() {
        if let Some(firewall) = &mut port.firewall {
            firewall.groups.clear();
        }
    }
    let mut bench = lab.bench();
    meet(&mut bench);
    assert_eq!(outcome(bench.send(PC1, &syn(2, 3, (4000, 80)))), Ok(()));
    assert_eq!(outcome(bench.send(H1, &syn(3, 2, (4000, 80)))), Err(DropReason::PolicyIngress));
    assert_eq!(outcome(bench.send(PC1, &syn(2, 1, (4000, 80)))), Err(DropReason::PolicyIngress));
}
