//! More stations than the FDB has room for at first: it grows by itself, and frames find their way.

use crate::lab::{Lab, access, description, frame, mac, receive, send};
use std::time::{Duration, Instant};
use vhost_net_backend::driver::{Config, Driver};
use vswitch_core::{description::Description, mac::MacAddr};

/// The first table has 64 Ki slots, and is crowded when half of them are taken.
const STATIONS: u32 = 40_000;

/// Each pass is 400 round trips between threads, which may all wait for one CPU.
const PATIENCE: Duration = Duration::from_secs(60);

fn station(n: u32) -> MacAddr {
    let [a, b, c, d] = n.to_be_bytes();
    MacAddr::new([2, 1, a, b, c, d])
}

/// Sends a frame for each number from one driver to the other; how many came.
fn pass(
    from: &mut Driver,
    to: &mut Driver,
    numbers: std::ops::Range<u32>,
    frame: impl Fn(u32) -> Vec<u8>,
) -> u32 {
    let (mut numbers, end) = (numbers.peekable(), Instant::now() + PATIENCE);
    let (mut sent, mut came) = (0, 0);
    while (numbers.peek().is_some() || came < sent) && Instant::now() < end {
        // Not more than the receiver has buffers for.
        if sent - came < 100
            && let Some(n) = numbers.next()
        {
            send(from, &frame(n));
            sent += 1;
        } else {
            came += to.pair().receive(|_, _| {}) as u32;
        }
    }
    came
}

#[test]
fn the_fdb_grows_while_stations_introduce_themselves_and_none_is_flooded_to_afterwards() {
    let mut described: Description = description(&[access(10), access(10), access(10)]);
    described.ports[0].as_mut().unwrap().mac_limit = STATIONS;
    let lab = Lab::of(&described);
    let mut guests: Vec<_> = (0..3).map(|place| lab.attach(place, &Config::default())).collect();
    send(&mut guests[1], &frame(MacAddr::BROADCAST, mac(1), 60, 0));
    receive(&mut guests[0], 1);
    receive(&mut guests[2], 1);
    let [many, one, witness] = &mut guests[..] else { panic!("three guests") };

    // What was sent while the table was being copied, or met two full buckets, was not learned: it is said again, for as long as
    // the thread that copies waits for a CPU.
    let known = |lab: &Lab| lab.datapath.snapshot().unwrap().fdb.entries;
    let end = Instant::now() + PATIENCE;
    while known(&lab) <= u64::from(STATIONS) * 999 / 1000 {
        assert!(Instant::now() < end, "{:?}", lab.datapath.snapshot().unwrap());
        assert_eq!(pass(many, one, 0..STATIONS, |n| frame(mac(1), station(n), 60, n.into())), STATIONS);
    }

    let flooded_before = lab.lawful().ports[1].counters.from_port.flooded;
    assert_eq!(pass(one, many, 0..STATIONS, |n| frame(station(n), mac(1), 60, n.into())), STATIONS);
    let flooded = lab.lawful().ports[1].counters.from_port.flooded - flooded_before;
    let unknown = u64::from(STATIONS) + 1 - known(&lab);
    assert_eq!(flooded, unknown, "only what could not be learned");
    assert_eq!(witness.pair().receive(|_, _| {}) as u64, unknown);

    let table = lab.datapath.fdb(None).unwrap();
    assert_eq!((table.entries, table.rows.len()), (known(&lab), 16 << 10), "as many as an answer holds");
    assert_eq!(lab.datapath.fdb(Some(described.ports[1].as_ref().unwrap().id)).unwrap().entries, 1);
}
