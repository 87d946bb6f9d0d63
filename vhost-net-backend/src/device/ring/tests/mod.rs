//! The device's rings against the driver's, in one thread, without a session; and against virtio-queue.

mod frames;
mod hostile;
mod leases;
mod oracle;
mod racing;
mod trains;

use super::{FromGuest, Lease, RunningRing, ToGuest, make_visible};
use crate::{
    device::fault::PortFault,
    driver::{Config, misbehave::RawRing, unwired::Unwired},
    features::{EVENT_IDX, IN_ORDER, INDIRECT_DESC, NET_MRG_RXBUF, VERSION_1},
    layout::RingSize,
};
use std::sync::Arc;

const ALL: u64 = VERSION_1 | INDIRECT_DESC | NET_MRG_RXBUF | EVENT_IDX | IN_ORDER;

fn config(features: u64, entries: u16) -> Config {
    Config { features, ring_size: RingSize::new(entries).expect("a power of two"), ..Config::default() }
}

/// A guest's driver, and the device's end of both its rings.
struct Wired {
    driver: Unwired,
    to: Arc<ToGuest>,
    from: FromGuest,
}

impl Wired {
    fn new(config: &Config) -> Self {
        let driver = Unwired::new(config).expect("memory");
        let [RunningRing::To(to), RunningRing::From(from)] = driver.rings().expect("honest rings") else {
            panic!("ring 0 is the receiveq, ring 1 the transmitq");
        };
        Self { driver, to, from }
    }

    /// Ring `index` (0: receiveq, 1: transmitq), to be written by hand.
    fn raw(&self, index: u16) -> RawRing {
        self.driver.raw_ring(index).expect("a descriptor")
    }
}

/// Hands out what was written, and tells the driver.
fn publish(to: &ToGuest, lease: Lease<'_>) {
    let published = lease.publish().expect("memory is there");
    make_visible();
    to.notify(published).expect("nothing blocks");
}

/// What is said of a ring that no driver may make.
fn words<T: std::fmt::Debug>(outcome: Result<T, PortFault>) -> &'static str {
    match outcome {
        Err(PortFault::Ring { what, .. }) => what,
        other => panic!("the ring should have been refused: {other:?}"),
    }
}
