//! Two honest drivers at ports of a lab that exchange numbered frames, so that a frame lost is a frame missed.

use crate::process::DEADLINE;
use std::{
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};
use vhost_net_backend::driver::{Config, Driver};
use vswitch_core::{
    build::{Ethernet, raw},
    mac::MacAddr,
};

/// Where they are, in the labs of these tests.
pub(crate) const PORTS: [&str; 2] = ["n1:eth0", "n2:eth0"];

/// Frames in flight at most: a receiver has four times as many buffers.
const BURST: u64 = 64;

/// An EtherType that no guest answers (IEEE 802, local experimental).
const EXPERIMENTAL: u16 = 0x88b5;

/// The address of the neighbour in this place.
fn mac(place: usize) -> MacAddr {
    MacAddr::new([2, 0, 0, 0x88, 0xb5, place as u8])
}

/// Frame `number` to `to`; its length and bytes follow from the number.
fn frame(to: MacAddr, from: MacAddr, number: u64) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(46 + (number % 1400) as usize, number as u8);
    raw(Ethernet { src: from, dst: to, tag: None }, EXPERIMENTAL, &payload)
}

/// Sends `BURST` frames each way and receives every one of them, in order. Frames of others are left aside.
fn exchange(drivers: &mut [Driver; 2], first: u64) {
    let numbers = first..first + BURST;
    for (from, to) in [(0, 1), (1, 0)] {
        for number in numbers.clone() {
            let frame = frame(mac(to), mac(from), number);
            assert!(drivers[from].pair().transmit(&frame), "the ring is full");
        }
        drivers[from].pair().flush();
        let mut expected = numbers.clone();
        let end = Instant::now() + DEADLINE;
        while !expected.is_empty() {
            assert!(Instant::now() < end, "of the neighbours' frames {numbers:?}, {expected:?} are missing");
            drivers[to].pair().receive(|_, arrived| {
                if arrived[..12] == [mac(to).octets(), mac(from).octets()].concat() {
                    let number = expected.next().expect("no frame of a neighbour comes twice");
                    assert!(arrived == frame(mac(to), mac(from), number), "frame {number} is another");
                }
            });
            std::thread::yield_now();
        }
    }
}

/// Both, exchanging frames on a thread of their own until they are stopped.
pub(crate) struct Neighbours {
    stop: Arc<AtomicBool>,
    bursts: Arc<AtomicU64>,
    thread: JoinHandle<[Driver; 2]>,
}

impl Neighbours {
    /// Attaches drivers to the ports that listen at `sockets`, lets each hear of the other, and starts.
    pub(crate) fn start(sockets: [PathBuf; 2]) -> Self {
        let mut drivers = sockets.map(|socket| {
            let stream = UnixStream::connect(socket).expect("the port listens");
            Driver::connect(stream, &Config::default()).expect("the switch takes a driver")
        });
        // Heard, so that what is sent to it later goes to it alone; in order, so that it is heard first.
        for (place, driver) in drivers.iter_mut().enumerate() {
            assert!(driver.pair().transmit(&frame(MacAddr::BROADCAST, mac(place), 0)), "the ring is empty");
            driver.pair().flush();
        }
        let (stop, bursts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), bursts.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let bursts = counted.load(Ordering::Relaxed);
                exchange(&mut drivers, bursts * BURST);
                counted.store(bursts + 1, Ordering::Release);
            }
            drivers
        });
        Self { stop, bursts, thread }
    }

    /// Waits until they have begun and ended a burst from now on: frames flow.
    pub(crate) fn flow(&self) {
        let (before, end) = (self.bursts.load(Ordering::Acquire), Instant::now() + DEADLINE);
        while self.bursts.load(Ordering::Acquire) < before + 2 {
            assert!(Instant::now() < end && !self.thread.is_finished(), "the neighbours' frames stopped");
            std::thread::yield_now();
        }
    }

    /// Ends the traffic; a frame that was lost panics here. How many each sent the other, and received.
    pub(crate) fn stop(self) -> (u64, [Driver; 2]) {
        self.stop.store(true, Ordering::Relaxed);
        let drivers = self.thread.join().expect("the neighbours lost nothing");
        (self.bursts.load(Ordering::Acquire) * BURST, drivers)
    }
}
