//! The tables of routers: what is refused, and that the longest prefix wins.

use super::*;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use vswitch_core::{
    route::Onward,
    world::{Fault, World},
};

fn fault(lab: &Lab) -> Fault {
    World::compile(&lab.description).expect_err("it does not fit together").fault
}

#[test]
fn what_does_not_fit_together_is_named() {
    let with = |routers: Vec<_>| {
        Lab::new().switch("sw1").port("pc1", 0, access(10)).routed(|routing| routing.routers = routers)
    };
    let ten: &[(u16, &[&str])] = &[(10, &["10.0.10.254/24"])];
    assert_eq!(fault(&with(vec![router("a", &[(77, &["10.0.0.1/8"])], &[])])), Fault::NoSuchVlan(vlan(77)));
    assert_eq!(fault(&with(vec![router("a", ten, &[]), router("b", ten, &[])])), Fault::GatewayTwice);
    for via in ["10.0.11.1", "10.0.10.254", "fd00::1"] {
        let route = format!("192.0.2.0/24 via {via}");
        assert_eq!(fault(&with(vec![router("a", ten, &[&route])])), Fault::NextHopNotConnected);
    }
    let mut lab = with(vec![router("a", ten, &[])]);
    lab.description.ports[1].as_mut().expect("the routers' port").mac = None;
    assert_eq!(fault(&lab), Fault::NoRoutersPort);
    let mut lab = with(vec![router("a", ten, &[])]);
    lab.description.routing = None;
    assert_eq!(fault(&lab), Fault::NoRoutersPort);
}

#[test]
fn routers_with_the_same_networks_stay_apart() {
    let one: &[(u16, &[&str])] = &[(10, &["10.0.0.254/24"]), (20, &["10.0.1.254/24"])];
    let other: &[(u16, &[&str])] = &[(30, &["10.0.0.254/24"])];
    let mut bench = Lab::new()
        .switch("sw1")
        .port("a", 0, access(10))
        .port("b", 0, access(20))
        .port("c", 0, access(30))
        .routed(|routing| {
            routing.routers = vec![router("red", one, &[]), router("blue", other, &[])];
        })
        .bench();
    let b = Ipv4Addr::new(10, 0, 1, 2);
    bench.neighbours.set(vlan(20), b.into(), mac(2), bench.now);
    let frame = |n| datagram(n, Ipv4Addr::new(10, 0, 0, n), b);
    // Nobody said where it is: to all in VLAN 20, where b is alone.
    assert_eq!(only(&mut bench, 0, &frame(1)).0, 1, "{}", bench.story());
    assert_eq!(out(&mut bench, 2, &frame(3)), Err(DropReason::NoRoute), "{}", bench.story());
}

fn networks() -> impl Strategy<Value = Vec<IpNet>> {
    // Of few addresses, so that many contain each other.
    let v4 = (any::<u32>(), 0u8..33).prop_map(|(bits, len)| {
        let address = Ipv4Addr::from_bits(bits & 0xf0f0_f0ff);
        IpNet::from(Ipv4Net::new(address, len).expect("a length").trunc())
    });
    let v6 = (any::<u128>(), 0u8..129).prop_map(|(bits, len)| {
        let address = Ipv6Addr::from_bits(bits & (0xf0f << 112 | 0xff));
        IpNet::from(Ipv6Net::new(address, len).expect("a length").trunc())
    });
    prop::collection::vec(prop_oneof![v4, v6], 0..60)
}

proptest! {
    #[test]
    fn the_longest_prefix_wins(networks in networks(), seeds in prop::collection::vec((any::<u128>(), any::<prop::sample::Index>()), 100)) {
        let routes: Vec<_> = networks.iter().map(|net| format!("{net} via blackhole")).collect();
        let routes: Vec<_> = routes.iter().map(String::as_str).collect();
        let gateways: &[(u16, &[&str])] = &[(10, &["10.0.10.254/24"])];
        let lab = Lab::new()
            .switch("sw1")
            .port("pc1", 0, access(10))
            .routed(|routing| routing.routers.push(router("default", gateways, &routes)));
        let world = World::compile(&lab.description).expect("the lab is sound");
        let table = &world.routing().expect("it has routers").routers()[0];
        let connected: Vec<IpNet> =
            ["10.0.10.0/24", "10.0.10.0/32", "10.0.10.255/32", "10.0.10.254/32"].map(|net| net.parse().expect("a network")).into();
        for (bits, near) in seeds {
            // Near one of the networks, or anywhere.
            let address = match networks.get(near.index(networks.len() * 2 + 1)) {
                Some(IpNet::V4(net)) => Ipv4Addr::from_bits(net.addr().to_bits() | bits as u32 & net.hostmask().to_bits()).into(),
                Some(IpNet::V6(net)) => Ipv6Addr::from_bits(net.addr().to_bits() | bits & net.hostmask().to_bits()).into(),
                None => IpAddr::from(Ipv4Addr::from_bits(bits as u32 & 0xf0f0_f0ff)),
            };
            let all = networks.iter().chain(&connected);
            let longest = all.filter(|net| net.contains(&address)).max_by_key(|net| net.prefix_len());
            prop_assert_eq!(table.find(address).map(|route| &route.to), longest);
        }
        let own = table.find(v4(10, 254).into()).map(|route| &route.onward);
        prop_assert_eq!(own, Some(&Onward::Own), "whatever else is said");
    }
}
