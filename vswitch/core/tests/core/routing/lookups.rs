//! Ten million look-ups in random tables, of which each is what a reference says that knows no table.

use super::*;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use vswitch_core::{
    description::{self, Origin, Via},
    route::{Onward, Router, table::Sender},
    world::World,
};

/// Numbers without pattern, the same each time (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// With so many bits, of which mostly few are unlike `near`.
    fn bits(&mut self, width: u32, near: u128) -> u128 {
        let any = u128::from(self.next()) << 64 | u128::from(self.next());
        let kept = self.below(u64::from(width) + 1) as u32;
        let any = any & u128::MAX.checked_shr(128 - width + kept).unwrap_or(0);
        match self.below(4) {
            0 => near ^ any,
            1 => near,
            2 => any & (u128::MAX >> (128 - width)),
            // Many that differ in their last bits only.
            _ => near ^ any & 0x3ff,
        }
    }
}

/// A network as numbers: its first address, and the length.
type Net = (u128, u8);

fn mask(width: u32, len: u8) -> u128 {
    let ones = u128::MAX >> (128 - width);
    ones & !(ones.checked_shr(len.into()).unwrap_or(0))
}

fn address(width: u32, bits: u128) -> IpAddr {
    if width == 32 { Ipv4Addr::from_bits(bits as u32).into() } else { Ipv6Addr::from_bits(bits).into() }
}

fn network(width: u32, (first, len): Net) -> IpNet {
    IpNet::new(address(width, first), len).expect("a length")
}

/// Networks of which many contain each other, or touch.
fn networks(random: &mut Random, width: u32, count: usize) -> Vec<Net> {
    let near = random.bits(width, 0) & mask(width, width as u8);
    let usual = random.below(u64::from(width) + 1) as u8;
    let mut networks: Vec<Net> = (0..count)
        .map(|nth| {
            let len = match random.below(4) {
                0 => random.below(u64::from(width) + 1) as u8,
                1 => width as u8,
                // One in the other, down to a single address.
                2 => (nth as u32 % (width + 1)) as u8,
                _ => usual,
            };
            (random.bits(width, near) & mask(width, len), len)
        })
        .collect();
    networks.sort_unstable();
    networks.dedup();
    networks
}

/// Many networks of usual lengths, side by side.
fn usual_networks(random: &mut Random, width: u32, count: usize) -> Vec<Net> {
    let region = u128::from(random.next()) << (width - 32) & mask(width, 8);
    let mut networks: Vec<Net> = (0..count)
        .map(|_| {
            let len = 20 + random.below(5) as u8;
            let len = if width == 32 { len } else { len + 8 };
            let within = u128::from(random.next()) << (width - 32) >> 8 & mask(width, width as u8);
            ((region | within & !mask(width, 8)) & mask(width, len), len)
        })
        .collect();
    networks.sort_unstable();
    networks.dedup();
    networks
}

/// A router that has these routes, to `blackhole`, and gateways.
fn table(gateways: &[(u16, &[&str])], networks: impl Iterator<Item = IpNet>) -> World {
    table_by(gateways, networks.map(|to| (to, Via::Blackhole)))
}

/// A router whose routes to these lead several ways, by gateways of the other version of IP, which have no route of this one.
fn table_of(width: u32, networks: &[Net], ways: u64) -> World {
    let gateways: &[(u16, &[&str])] =
        if width == 32 { &[(10, &["fd00::ff/64"])] } else { &[(10, &["10.0.10.254/24"])] };
    let via = |n: u64| -> IpAddr {
        if width == 32 {
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n as u16).into()
        } else {
            v4(10, n as u8).into()
        }
    };
    let via = |first: u128| match (first ^ first >> 8 ^ first >> 96) as u64 % ways {
        0 => Via::Blackhole,
        1 => Via::Routers(vec![via(1), via(2)]),
        n => Via::Routers(vec![via(n)]),
    };
    table_by(gateways, networks.iter().map(|net| (network(width, *net), via(net.0))))
}

fn table_by(gateways: &[(u16, &[&str])], networks: impl Iterator<Item = (IpNet, Via)>) -> World {
    let mut said = router("default", gateways, &[]);
    let origin = Origin { line: 1, column: 1 };
    said.routes = networks.map(|(to, via)| description::Route { to, via, origin }).collect();
    let lab =
        Lab::new().switch("sw1").port("pc1", 0, access(10)).routed(|routing| routing.routers.push(said));
    World::compile(&lab.description).expect("the lab is sound")
}

fn only_router(world: &World) -> &Router {
    &world.routing().expect("it has routers").routers()[0]
}

/// An address at the edge of one of these networks, in it, or anywhere.
fn some_address(random: &mut Random, width: u32, networks: &[Net]) -> u128 {
    let all = mask(width, width as u8);
    let (first, len) = networks[random.below(networks.len() as u64) as usize];
    let last = first | (all & !mask(width, len));
    let bits = match random.below(6) {
        0 => first,
        1 => first.wrapping_sub(1),
        2 => last,
        3 => last.wrapping_add(1),
        4 => first | (random.bits(width, first) & !mask(width, len)),
        _ => random.bits(width, first),
    };
    bits & all
}

/// The first of these in which an address is, if they come by falling length.
fn naive(width: u32, networks: &[Net], bits: u128) -> Option<Net> {
    networks.iter().copied().find(|(first, len)| bits & mask(width, *len) == *first)
}

/// What a router finds of addresses is what is `expected`: each by itself, and many together.
fn hold(router: &Router, width: u32, addresses: &[u128], expected: impl Fn(u128) -> Option<IpNet>) {
    let mut together = [0; 32];
    for some in addresses.chunks(together.len()) {
        if width == 32 {
            let some: Vec<u32> = some.iter().map(|bits| *bits as u32).collect();
            router.v4.ways.find_each(&some, &mut together);
        } else {
            router.v6.ways.find_each(some, &mut together);
        }
        for (bits, way) in some.iter().zip(together) {
            let to = address(width, *bits);
            let found = router.find(to);
            assert_eq!(found.map(|route| route.to), expected(*bits), "{to}");
            let alone =
                if width == 32 { router.v4.ways.find(*bits as u32) } else { router.v6.ways.find(*bits) };
            assert_eq!(alone, way, "{to}");
            let leads = router.routes().get(way as usize);
            assert_eq!(leads.map(|route| &route.onward), found.map(|route| &route.onward), "{to}");
        }
    }
}

#[test]
fn ten_million_look_ups_are_those_of_a_naive_reference() {
    let mut random = Random(1);
    let mut done = 0;
    // Small tables, against a list.
    for round in 0..320 {
        let width = if round % 2 == 0 { 32 } else { 128 };
        let mut networks = networks(&mut random, width, 1 + round / 4);
        let world = table_of(width, &networks, 5);
        networks.sort_by_key(|(_, len)| std::cmp::Reverse(*len));
        let addresses: Vec<u128> = (0..25_000).map(|_| some_address(&mut random, width, &networks)).collect();
        hold(only_router(&world), width, &addresses, |bits| {
            naive(width, &networks, bits).map(|net| network(width, net))
        });
        done += addresses.len();
    }
    // Large ones, against a tree: of all lengths, and of usual ones that lead to few routers and to many.
    let large = [(1_000, None), (80_000, None), (60_000, Some(1)), (60_000, Some(3))];
    for (width, (count, usual)) in [32, 128].into_iter().flat_map(|width| large.map(|large| (width, large))) {
        let networks = if usual.is_some() {
            usual_networks(&mut random, width, count)
        } else {
            networks(&mut random, width, count)
        };
        let world = table_of(width, &networks, usual.unwrap_or(5));
        let (mut v4, mut v6) = (PrefixMap::<Ipv4Net, IpNet>::new(), PrefixMap::<Ipv6Net, IpNet>::new());
        for net in networks.iter().map(|net| network(width, *net)) {
            match net {
                IpNet::V4(to) => v4.insert(to, net),
                IpNet::V6(to) => v6.insert(to, net),
            };
        }
        let addresses: Vec<u128> =
            (0..250_000).map(|_| some_address(&mut random, width, &networks)).collect();
        hold(only_router(&world), width, &addresses, |bits| match address(width, bits) {
            IpAddr::V4(to) => v4.get_lpm(&to.into()).map(|(_, net)| *net),
            IpAddr::V6(to) => v6.get_lpm(&to.into()).map(|(_, net)| *net),
        });
        done += addresses.len();
    }
    assert_eq!(done, 10_000_000);
}

#[test]
fn whose_an_address_is_the_longest_route_to_it_says() {
    let mut random = Random(2);
    let gateways: &[(u16, &[&str])] = &[
        (10, &["10.0.10.254/24", "10.0.10.253/24", "fd10::fe/64"]),
        (20, &["10.0.20.1/31", "fd20::fe/64", "fd21::/127"]),
        (30, &["10.0.30.7/32", "fd30::7/128"]),
    ];
    let connected = [0x0a00_0a00, 0x0a00_1400, 0x0a00_1e07];
    let connected6 = [0xfd10 << 112, 0xfd20 << 112, 0xfd21 << 112, 0xfd30 << 112 | 7];
    for round in 0..200 {
        let width = if round % 2 == 0 { 32 } else { 128 };
        // Routes within the networks that are connected, too, and around them.
        let mut near = |_| {
            let connected = if width == 32 { &connected[..] } else { &connected6[..] };
            let len = random.below(u64::from(width) + 1) as u8;
            let near = connected[random.below(connected.len() as u64) as usize];
            (random.bits(width, near) & mask(width, len), len)
        };
        let networks: Vec<Net> = (0..30).map(&mut near).collect();
        let world = table(gateways, networks.iter().map(|net| network(width, *net)));
        let router = only_router(&world);
        let ends = connected.map(|first| (first, 24)).into_iter();
        let ends6 = connected6.map(|first| (first, 126)).into_iter();
        let ends: Vec<Net> = if width == 32 { ends.collect() } else { ends6.collect() };
        let places = [networks.clone(), ends].concat();
        for _ in 0..2_000 {
            let from = address(width, some_address(&mut random, width, &places));
            let expected = match router.find(from).map(|route| &route.onward) {
                Some(Onward::Own | Onward::Broadcast) => Sender::Nobody,
                Some(Onward::Connected(vlan)) => Sender::In(*vlan),
                Some(Onward::Via(_) | Onward::Blackhole) | None => Sender::Anywhere,
            };
            assert_eq!(router.sender(from), expected, "{from} beside {networks:x?}");
        }
    }
}

/// Of two routes to one network the first is there, and what is the router's own before all: in the order in which they were said.
#[test]
fn a_network_has_one_route() {
    let gateways: &[(u16, &[&str])] = &[(10, &["10.0.10.254/32", "10.0.10.7/24", "10.0.10.8/24"])];
    let said = ["192.0.2.0/24", "10.0.10.8/32", "10.0.10.0/24", "192.0.2.0/24", "198.51.100.0/24"];
    let world = table(gateways, said.iter().map(|net| net.parse().expect("a network")));
    let routes = only_router(&world).routes().iter();
    let routes: Vec<_> = routes.map(|route| (route.to.to_string(), route.onward.clone())).collect();
    let routes: Vec<_> = routes.iter().map(|(to, onward)| (to.as_str(), onward)).collect();
    let connected = &Onward::Connected(vlan(10));
    let expected = [
        ("10.0.10.254/32", &Onward::Own),
        ("10.0.10.0/24", connected),
        ("10.0.10.255/32", &Onward::Broadcast),
        ("10.0.10.0/32", &Onward::Broadcast),
        ("10.0.10.7/32", &Onward::Own),
        ("10.0.10.8/32", &Onward::Own),
        ("192.0.2.0/24", &Onward::Blackhole),
        ("198.51.100.0/24", &Onward::Blackhole),
    ];
    assert_eq!(routes, expected);
}

/// There may be hundreds of routers, each with few routes; and one that has many has no more than it needs.
#[test]
fn a_table_has_the_size_of_what_is_in_it() {
    let gateways: &[(u16, &[&str])] = &[(10, &["10.0.10.254/24", "fd10::fe/64"]), (20, &["10.0.20.254/24"])];
    let said = ["0.0.0.0/0", "192.0.2.0/24", "10.0.0.0/8", "::/0", "2001:db8::/32"];
    let size = |world: &World| only_router(world).v4.size() + only_router(world).v6.size();
    let few = size(&table(gateways, said.iter().map(|net| net.parse().expect("a network"))));
    assert!(few < 4096, "{few} bytes");
    let mut random = Random(3);
    // Also if most cells need a grid of their own.
    for width in [32, 128] {
        let networks = networks(&mut random, width, 20_000);
        let bytes = size(&table(&[], networks.iter().map(|net| network(width, *net))));
        assert!(bytes < 256 * networks.len(), "{bytes} bytes for {} routes", networks.len());
    }
}
