//! The description of a lab of one switch: what tests and benchmarks apply.

use vswitch_core::{
    description::{Description, Link, Membership, Origin, Port, Switch, Trunk, Vlan},
    id::{Epoch, PortId, SwitchId},
    vlan::VlanId,
};

const HERE: Origin = Origin { line: 1, column: 1 };

/// VLAN `number`.
pub(crate) fn vlan(number: u16) -> VlanId {
    VlanId::new(number).unwrap()
}

/// A lab of one switch with these ports.
pub(crate) fn description(ports: &[Link]) -> Description {
    let port = |place: usize, link: &Link| Port {
        id: PortId::new(place as u16, 0),
        node: format!("n{place}"),
        interface: "eth0".into(),
        mac: None,
        mtu: None,
        queues: 1,
        firewall: None,
        limits: None,
        mac_limit: 1024,
        sealed_memory: false,
        way_out: false,
        up: true,
        link: link.clone(),
        origin: HERE,
        link_origin: Some(HERE),
    };
    let vlans = [1, 10, 20].map(|id| Vlan { id: vlan(id), name: format!("v{id}"), origin: None });
    Description {
        lab: "test".into(),
        file: "test.vnet.yaml".into(),
        epoch: Epoch::new(1),
        vlans: vlans.into(),
        switches: vec![Switch {
            id: SwitchId::new(0),
            name: "sw1".into(),
            mac_aging_secs: 300,
            origin: HERE,
        }],
        ports: ports.iter().enumerate().map(|(place, link)| Some(port(place, link))).collect(),
        groups: Vec::new(),
        trunks: Vec::<Trunk>::new(),
        routing: None,
    }
}

/// An access port of VLAN `number`.
pub(crate) fn access(number: u16) -> Link {
    Link::Switch { switch: SwitchId::new(0), vlans: Membership::Access(vlan(number)) }
}
