//! What a look-up of a route costs, and compiling a router: `cargo bench -p vswitch-core --bench routes`.
//!
//! In nanoseconds an address, of 16 Ki without pattern: *each* by itself, and 32 *together*, as a row of packets is looked up (medians of many rounds).

#[expect(dead_code, reason = "tests need more of it")]
#[path = "../tests/core/support/lab.rs"]
mod lab;

use ipnet::IpNet;
use lab::{Lab, access, router};
use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};
use vswitch_core::{
    description::{self, Origin, Via},
    route::table::{Bits, NOTHING, Tables},
    world::World,
};

const ADDRESSES: usize = 1 << 14;
const TOGETHER: usize = 32;
const ROUNDS: usize = 200;

/// An address in the `n`-th network, and the network's length.
type Spread = fn(usize) -> (IpAddr, u8);

const SPREADS: [(&str, Spread); 6] = [
    ("/24 in 16.0.0.0 to 111.255.255.255", |n| (v4(0x1000_0001 + ((mixed(n) as u32 % 0x60_0000) << 8)), 24)),
    ("/16 to /24 anywhere", |n| (v4(0x0100_0001 + mixed(n) as u32 % 0xdf00_0000), 16 + (n % 9) as u8)),
    ("IPv4 hosts side by side", |n| (v4(0x0a80_0000 + n as u32), 32)),
    ("/48 in 2001::/16", |n| (v6(0x2001 << 112 | (u128::from(mixed(n)) & 0xffff_ffff) << 80 | 1), 48)),
    ("/29 to /48 in 2000::/4", |n| {
        (v6(0x2 << 124 | u128::from(mixed(n) >> 20) << 80 | 1), 29 + (n % 20) as u8)
    }),
    ("IPv6 hosts side by side", |n| (v6(0xfd00_0001 << 96 | n as u128), 128)),
];

fn v4(bits: u32) -> IpAddr {
    Ipv4Addr::from_bits(bits).into()
}

fn v6(bits: u128) -> IpAddr {
    Ipv6Addr::from_bits(bits).into()
}

/// Without pattern, and the same each time.
fn mixed(n: usize) -> u64 {
    let n = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    n ^ n >> 29
}

fn main() {
    println!(
        "{:36} {:>9} {:>8} {:>11} {:>11} {:>6} {:>9}",
        "routes", "count", "KiB", "compile", "drop", "each", "together"
    );
    for (name, spread) in SPREADS {
        for count in [10, 1_000, 200_000, 1_000_000] {
            measure(name, count, spread);
        }
    }
}

fn measure(name: &str, count: usize, spread: Spread) {
    let gateways: &[(u16, &[&str])] = &[(10, &["10.1.0.254/24", "fd00:1::fe/64"])];
    let mut said = router("default", gateways, &[]);
    let route = |n| {
        let (to, len) = spread(n);
        let via = if to.is_ipv4() { v4(0x0a01_0001) } else { v6(0xfd00_0001 << 96 | 1) };
        let to = IpNet::new(to, len).expect("a length").trunc();
        description::Route { to, via: Via::Routers(vec![via]), origin: Origin { line: 1, column: 1 } }
    };
    said.routes = (0..count).map(route).collect();
    let lab =
        Lab::new().switch("sw1").port("pc1", 0, access(10)).routed(|routing| routing.routers.push(said));
    let begin = Instant::now();
    let world = World::compile(&lab.description).expect("a lab");
    let compiled = begin.elapsed();
    let router = &world.routing().expect("it has routers").routers()[0];
    let addresses: Vec<IpAddr> = (0..ADDRESSES).map(|n| spread(mixed(n) as usize % count).0).collect();
    let [each, together] = match addresses[0] {
        IpAddr::V4(_) => {
            look_up(&router.v4, &addresses.iter().map(|to| bits(*to) as u32).collect::<Vec<_>>())
        }
        IpAddr::V6(_) => look_up(&router.v6, &addresses.iter().map(|to| bits(*to)).collect::<Vec<_>>()),
    };
    let kib = (router.v4.size() + router.v6.size()).div_ceil(1024);
    let begin = Instant::now();
    drop(world);
    let dropped = begin.elapsed();
    println!("{name:36} {count:>9} {kib:>8} {compiled:>11.1?} {dropped:>11.1?} {each:>6.1} {together:>9.1}");
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Nanoseconds an address, each by itself and many together.
fn look_up<B: Bits>(tables: &Tables<B>, addresses: &[B]) -> [f64; 2] {
    let each = || addresses.iter().fold(0, |all, to| all ^ tables.ways.find(*to));
    let together = || {
        let mut ways = [NOTHING; TOGETHER];
        addresses.chunks(TOGETHER).fold(0, |all, some| {
            tables.ways.find_each(some, &mut ways);
            ways.iter().fold(all, |all, way| all ^ way)
        })
    };
    [median(each), median(together)]
}

fn median(round: impl Fn() -> u32) -> f64 {
    let mut all: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            black_box(round());
            begin.elapsed().as_nanos() as f64 / ADDRESSES as f64
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all[ROUNDS / 2]
}
