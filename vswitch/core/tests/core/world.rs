//! Descriptions come over a socket: any of them compiles, or is refused with name and line.

use crate::support::lab::{Lab, access, trunk};
use proptest::prelude::*;
use vswitch_core::{
    description::{Description, Link},
    id::{PortId, SwitchId},
    mac::MacAddr,
    vlan::VlanSet,
    world::World,
};

fn error(lab: &Lab) -> String {
    World::compile(&lab.description).expect_err("the description is wrong").to_string()
}

#[test]
fn what_does_not_fit_together_is_named() {
    let two = || Lab::new().switch("a").switch("b");
    let wire = |peer| Link::Wire { peer: PortId::new(peer, 0) };
    let rows = [
        (two().port("pc", 7, access(10)), "line 3: pc:eth0 refers to switch 7, which does not exist"),
        (two().port("pc", 0, access(77)), "line 3: pc:eth0 refers to VLAN 77, which does not exist"),
        (
            two().port("pc", 0, trunk(&[10], Some(20))),
            "line 3: pc:eth0 has native VLAN 20, which is not among the VLANs it carries",
        ),
        (two().linked("pc", wire(0)), "line 3: pc:eth0 is wired to a port that is not wired to it"),
        (
            two().linked("pc", wire(1)).linked("other", Link::None),
            "line 3: pc:eth0 is wired to a port that is not wired to it",
        ),
        (
            two().port("pc", 0, access(10)).but(|port| port.mac = Some(MacAddr::BROADCAST)),
            "line 3: pc:eth0 has a MAC address that no station may have (group bit set, or all zero)",
        ),
        (
            two().port("pc", 0, access(10)).but(|port| port.id = PortId::new(9, 0)),
            "line 3: pc:eth0 has an id that is not its place in the list",
        ),
        (two().join(0, 0, access(10)), "line 3: trunk a - a closes a loop of switches"),
        (
            two().join(0, 1, access(10)).join(1, 0, access(20)),
            "line 4: trunk b - a closes a loop of switches",
        ),
        (two().join(0, 5, access(10)), "line 3: trunk a - switch 5 refers to switch 5, which does not exist"),
    ];
    for (lab, expected) in rows {
        assert_eq!(error(&lab), expected);
    }
}

#[test]
fn sizes_are_bounded() {
    let mut lab = Lab::new().switch("a");
    lab.description.ports = vec![None; 61_441];
    assert_eq!(error(&lab), "lab test has more than 61440 ports");
    let mut lab = Lab::new().switch("a");
    lab.description.switches = vec![lab.description.switches[0].clone(); 4097];
    assert_eq!(error(&lab), "lab test has more than 4096 switches");
}

#[test]
fn a_trunk_of_all_vlans_carries_those_that_exist() {
    use vswitch_core::description::Membership;
    let all = Membership::Trunk { vlans: VlanSet::all(), native: None };
    let lab = Lab::new().switch("a").port("up", 0, all);
    let world = World::compile(&lab.description).unwrap();
    let carried: Vec<u16> = world.switches()[0].domains().map(|(vlan, _)| vlan.number()).collect();
    assert_eq!(carried, [1, 10, 20, 30]);
}

#[test]
fn a_world_can_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<World>();
    shared::<vswitch_core::fdb::Fdb>();
}

proptest! {
    /// Whatever refers to whatever: no panic, and an error that names something.
    #[test]
    fn any_description_compiles_or_is_refused(
        ports in proptest::collection::vec((0u16..6, 0u16..5, 0u16..40, any::<bool>()), 0..8),
        trunks in proptest::collection::vec((0u16..5, 0u16..5, 0u16..40), 0..5),
        switches in proptest::collection::vec(0u16..5, 0..5),
    ) {
        let mut lab = switches.iter().fold(Lab::new(), |lab, _| lab.switch("s"));
        for (switch, id) in lab.description.switches.iter_mut().zip(&switches) {
            if *id == 4 {
                switch.id = SwitchId::new(*id);
            }
        }
        for (a, b, number, wired) in ports {
            let link = if wired {
                Link::Wire { peer: PortId::new(b, 0) }
            } else {
                Link::Switch { switch: SwitchId::new(a), vlans: access(number.max(1)) }
            };
            lab = lab.linked("n", link);
        }
        for (a, b, number) in trunks {
            lab = lab.join(a, b, trunk(&[number.max(1)], None));
        }
        let description: Description =
            serde_json::from_str(&serde_json::to_string(&lab.description).unwrap()).unwrap();
        if let Err(error) = World::compile(&description) {
            prop_assert!(!error.who.is_empty());
        }
    }
}
