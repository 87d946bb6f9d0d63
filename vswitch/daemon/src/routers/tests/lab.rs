//! A lab whose routers speak: for the tests here, and for the fuzz target.

use std::{net::Ipv4Addr, sync::Arc};
use vswitch_core::{
    description::{
        Description, Dhcp, Gateway, Link, Origin, Port, Route, Router, Routing, Switch, Via, Vlan,
    },
    id::{Epoch, PortId, SwitchId},
    mac::MacAddr,
    vlan::VlanId,
    world::World,
};

/// The routers' MAC address.
pub(crate) const ROUTER: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 0xfe]);

/// A VLAN's id.
pub(crate) fn vlan(number: u16) -> VlanId {
    VlanId::new(number).expect("tests use ids from 1 to 4094")
}

/// A gateway with these addresses in a VLAN.
pub(crate) fn gateway(number: u16, addresses: &[&str]) -> Gateway {
    let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
    Gateway {
        vlan: vlan(number),
        addresses,
        dhcp: None,
        ra: false,
        neigh_suppress: false,
        origin: Origin { line: 1, column: 1 },
    }
}

/// A lab with these routers; its VLANs are 1 and the tens to 90.
pub(crate) fn world(routers: Vec<Router>) -> Arc<World> {
    Arc::new(World::compile(&description(routers)).expect("it fits together"))
}

/// What is said of such a lab.
pub(crate) fn description(routers: Vec<Router>) -> Description {
    let origin = Origin { line: 1, column: 1 };
    let named = |id: u16| Vlan { id: vlan(id), name: format!("v{id}"), origin: None };
    let port = PortId::new(0, 0);
    Description {
        lab: "test".into(),
        file: "test.vnet.yaml".into(),
        epoch: Epoch::new(1),
        vlans: [1].into_iter().chain((10..=90).step_by(10)).map(named).collect(),
        switches: vec![Switch { id: SwitchId::new(0), name: "sw".into(), mac_aging_secs: 300, origin }],
        groups: Vec::new(),
        ports: vec![Some(Port {
            id: port,
            node: "routers".into(),
            interface: "port".into(),
            mac: Some(ROUTER),
            mtu: None,
            queues: 1,
            mac_limit: 1000,
            sealed_memory: false,
            way_out: false,
            firewall: None,
            limits: None,
            up: true,
            link: Link::Routers,
            origin,
            link_origin: None,
        })],
        trunks: Vec::new(),
        routing: Some(Routing { port, routers, hosts: Vec::new(), ssh_keys: Vec::new() }),
    }
}

/// VLANs 10 and 20 of one router, 30 of another that has the addresses of 10; 40 has IPv4 only; all others have no gateway.
pub(crate) fn usual() -> Arc<World> {
    let route = |to: &str, via| Route {
        to: to.parse().expect("a network"),
        via,
        origin: Origin { line: 1, column: 1 },
    };
    let via = |address: &str| Via::Routers(vec![address.parse().expect("an address")]);
    world(vec![
        Router {
            name: "default".into(),
            gateways: vec![
                gateway(10, &["10.0.10.1/24", "2001:db8:10::1/64"]),
                gateway(20, &["10.0.20.1/24", "2001:db8:20::1/64"]),
                gateway(40, &["10.4.0.1/16"]),
            ],
            routes: vec![route("192.0.2.0/24", via("10.0.20.9")), route("198.51.100.0/24", Via::Blackhole)],
            nat: Vec::new(),
            nameservers: Vec::new(),
        },
        Router {
            name: "blue".into(),
            gateways: vec![gateway(30, &["10.0.10.1/24"])],
            routes: Vec::new(),
            nat: Vec::new(),
            nameservers: Vec::new(),
        },
    ])
}

/// VLAN 10 gives addresses and advertises itself, 20 does neither, 40 advertises itself without an IPv6 address.
pub(crate) fn serving() -> Arc<World> {
    world(vec![server()])
}

/// The router of that lab.
pub(crate) fn server() -> Router {
    let dhcp = Dhcp {
        first: Ipv4Addr::new(10, 0, 10, 50),
        last: Ipv4Addr::new(10, 0, 10, 99),
        lease_secs: 3600,
        dns: vec![],
        domain: None,
        search: vec![],
        mtu: None,
        routes: vec![],
        boot: None,
    };
    let served = Gateway {
        dhcp: Some(dhcp),
        ra: true,
        ..gateway(10, &["10.0.10.1/24", "2001:db8:10::1/64", "2001:db8:11::1/48"])
    };
    let gateways = vec![
        served,
        gateway(20, &["10.0.20.1/24", "2001:db8:20::1/64"]),
        Gateway { ra: true, ..gateway(40, &["10.0.40.1/24"]) },
    ];
    Router { name: "default".into(), gateways, routes: vec![], nat: Vec::new(), nameservers: Vec::new() }
}
