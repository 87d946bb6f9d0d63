//! One worker's turns over two ports, in one thread: cycles a frame here, instructions a frame under callgrind.
//!
//! `cargo bench -p vswitchd --bench turn -- [--batch 32] [--turns 100000] [--size 60] [--macs 1] [--dropped]` prints cycles; `--macs`
//! is how many stations there are behind each port, which take turns; with `--dropped` no frame may enter (they are tagged, the ports are
//! access ports). Under `valgrind --tool=callgrind
//! --toggle-collect='*Worker*turn*'` only turns are counted; two runs with unlike `--turns` differ by nothing but turns
//! (`benches/instructions` does that).

#[path = "../tests/datapath/description.rs"]
mod description;
#[path = "../tests/datapath/rig.rs"]
mod rig;

use description::{access, description, vlan};
use rig::Rig;
use vhost_net_backend::{
    cycles,
    driver::{Config, unwired::Unwired},
    features,
    layout::RingSize,
};
use vswitch_core::{
    build::{self, Ethernet},
    mac::MacAddr,
    vlan::Tci,
};
use vswitchd::worker::Turn;

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

fn main() {
    let dropped = std::env::args().any(|word| word == "--dropped");
    let (batch, turns, size) = (option("--batch", 32), option("--turns", 100_000), option("--size", 60));
    let macs = option("--macs", 1);
    let mut lab = description(&[access(10), access(10)]);
    lab.ports.iter_mut().flatten().for_each(|port| port.mac_limit = macs as u32);
    // As DPDK's driver and Linux' have it between them: in order, and no buffers to merge.
    let config = Config {
        features: Config::default().features & !features::NET_MRG_RXBUF,
        ring_size: RingSize::new(1024).expect("a power of two"),
        ..Config::default()
    };
    let mut rig = Rig::new(&lab, &config);
    for (n, place) in (0..macs).flat_map(|n| [(n, 0), (n, 1)]) {
        rig.teach(place, vlan(10), station(place, n));
    }
    let frame = |place, n| {
        let tag = dropped.then_some(TAG);
        let link = Ethernet { dst: station(1 - place, n), src: station(place, n), tag };
        build::raw(link, 0x88b5, &vec![place as u8; size - if dropped { 18 } else { 14 }])
    };
    let frames = [0, 1].map(|place| (0..macs).map(|n| frame(place, n)).collect::<Vec<_>>());
    let (mut moved, mut spent) = (0, 0);
    for turn in 0..turns {
        for (frames, Unwired { pair, .. }) in frames.iter().zip(&mut rig.guests) {
            let take_turns = (0..batch).map(|frame| (turn * batch + frame) % macs);
            take_turns.for_each(|n| assert!(pair.transmit(&frames[n]), "the ring has room"));
            pair.flush();
        }
        let begin = cycles::now();
        let done = rig.turn();
        spent += cycles::now() - begin;
        assert_eq!(done, Turn::Busy(batch * 2));
        for guest in &mut rig.guests {
            moved += guest.pair.receive(|_, _| {});
        }
    }
    let sent = turns * batch * 2;
    assert_eq!(moved, if dropped { 0 } else { sent }, "nothing was lost, or all of it");
    println!("{sent} frames, {:.1} cycles a frame", spent as f64 / sent as f64);
}
