//! One worker's turns over two ports, in one thread: cycles a frame here, instructions a frame under callgrind.
//!
//! `cargo bench -p vswitchd --bench turn -- [--batch 32] [--turns 100000] [--size 60] [--macs 1] [--dropped]` prints cycles; `--macs`
//! is how many stations there are behind each port, which take turns; with `--dropped` no frame may enter (they are tagged, the ports are
//! access ports). Under `valgrind --tool=callgrind
//! --toggle-collect='*Worker*turn*'` only turns are counted; two runs with unlike `--turns` differ by nothing but turns
//! (`benches/instructions` does that).

#[path = "../tests/datapath/description.rs"]
mod description;

use description::{access, description};
use std::{
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
};
use vhost_net_backend::{
    cycles,
    device::{
        Connection, PortHost,
        port::{Port, PortConfig},
        ring::RunningRing,
    },
    driver::{Config, Driver},
    features,
    layout::RingSize,
};
use vswitch_core::{
    build::{self, Ethernet},
    clock::Instant,
    description::Membership,
    fdb::{Fdb, Key, Target},
    id::PortId,
    mac::MacAddr,
    vlan::Tci,
    world::{Role, World},
};
use vswitchd::worker::{Turn, Worker};

/// Keeps a port's rings until they are fetched.
#[derive(Default)]
struct Shelf(Mutex<Vec<RunningRing>>);

impl PortHost for Shelf {
    fn attach(&self, _index: u16, ring: RunningRing) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(ring);
    }

    fn detach(&self, _index: u16) -> Option<RunningRing> {
        None
    }

    fn connection(&self, _state: Connection) {}
}

/// A tag that makes a frame one of VLAN 10.
const TAG: Tci = Tci::from_bits(10);

/// The value of `--name`, or what it is without.
fn option(name: &str, otherwise: usize) -> usize {
    let mut words = std::env::args().skip_while(|word| word != name).skip(1);
    words.next().map_or(otherwise, |word| word.parse().expect("a number"))
}

/// Station `n` behind port `place`.
fn station(place: u16, n: usize) -> MacAddr {
    let [a, b, c, d] = (n as u32).to_be_bytes();
    MacAddr::new([2, place as u8, a, b, c, d])
}

/// Has the FDB know every station, in a table as large as it becomes for so many.
fn teach(fdb: &Fdb, world: &World, macs: usize) {
    fdb.install(world);
    for (n, port) in (0..macs).flat_map(|n| [(n, 0), (n, 1)]) {
        let port = world.port(port).expect("it is there");
        let Role::Switched { switch, vlans: Membership::Access(vlan) } = &port.role else { continue };
        let key = Key::new(*switch, *vlan, station(port.id.index(), n));
        fdb.learn(key, Target::Port(port.id), Some(port), Instant::ZERO);
        fdb.grow();
    }
}

fn main() {
    let dropped = std::env::args().any(|word| word == "--dropped");
    let (batch, turns, size) = (option("--batch", 32), option("--turns", 100_000), option("--size", 60));
    let macs = option("--macs", 1);
    let mut lab = description(&[access(10), access(10)]);
    lab.ports.iter_mut().flatten().for_each(|port| port.mac_limit = macs as u32);
    let world = Arc::new(World::compile(&lab).expect("a lab"));
    let fdb = Arc::new(Fdb::new(1, 1 << 14));
    teach(&fdb, &world, macs);
    let mut worker = Worker::alone(world, fdb).expect("a worker");
    // As DPDK's driver and Linux' have it between them: in order, and no buffers to merge.
    let config = Config {
        features: Config::default().features & !features::NET_MRG_RXBUF,
        ring_size: RingSize::new(1024).expect("a power of two"),
        ..Config::default()
    };
    let mut ends: Vec<(Port, Driver)> = Vec::new();
    for place in 0..2 {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let shelf = Arc::new(Shelf::default());
        let port = Port::adopt(ours, PortConfig::new("turn"), shelf.clone()).expect("a port");
        let driver = Driver::connect(theirs, &config).expect("a driver");
        for ring in shelf.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            worker.attach(PortId::new(place, 0), ring);
        }
        ends.push((port, driver));
    }
    let frame = |place, n| {
        let tag = dropped.then_some(TAG);
        let link = Ethernet { dst: station(1 - place, n), src: station(place, n), tag };
        build::raw(link, 0x88b5, &vec![place as u8; size - if dropped { 18 } else { 14 }])
    };
    let frames = [0, 1].map(|place| (0..macs).map(|n| frame(place, n)).collect::<Vec<_>>());
    let (mut moved, mut spent) = (0, 0);
    for turn in 0..turns {
        for (frames, (_, driver)) in frames.iter().zip(&mut ends) {
            let pair = driver.pair();
            let take_turns = (0..batch).map(|frame| (turn * batch + frame) % macs);
            take_turns.for_each(|n| assert!(pair.transmit(&frames[n]), "the ring has room"));
            pair.flush();
        }
        let begin = cycles::now();
        let done = worker.turn(Instant::from_nanos(turn as u64 * 1000));
        spent += cycles::now() - begin;
        assert_eq!(done, Turn::Busy(batch * 2));
        for (_, driver) in &mut ends {
            moved += driver.pair().receive(|_, _| {});
        }
    }
    let sent = turns * batch * 2;
    assert_eq!(moved, if dropped { 0 } else { sent }, "nothing was lost, or all of it");
    println!("{sent} frames, {:.1} cycles a frame", spent as f64 / sent as f64);
}
