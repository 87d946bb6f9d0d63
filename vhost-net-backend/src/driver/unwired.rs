//! For tests: a queue pair without a session, and what a device needs to run the other end of its rings.

use super::misbehave::RawRing;
use super::plan::plan;
use super::{Arena, Config, QueuePair};
use crate::device::{memory::GuestMemory, ring::RingParts};
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

/// A pair whose buffers are posted and made known, as after a handshake; no device has its rings yet.
pub(crate) struct Unwired {
    /// The shared memory.
    pub(crate) memory: Arc<Arena>,
    /// The driver's side.
    pub(crate) pair: QueuePair,
    /// The same memory, mapped once more as a device maps it.
    pub(crate) map: Arc<GuestMemoryMmap<()>>,
    features: u64,
}

impl Unwired {
    /// A pair that took all features of `config`.
    pub(crate) fn new(config: &Config) -> Self {
        let (arena, mut plans) = plan(config).expect("a valid configuration");
        let memory = Arc::new(arena);
        let plan = plans.swap_remove(0);
        let mut pair = QueuePair::new(&memory, &plan, config.features).expect("eventfds");
        pair.flush();
        let map = Arc::new(map(&memory));
        Self { memory, pair, map, features: config.features }
    }

    /// A memory epoch of a device of its own.
    pub(crate) fn guest_memory(&self) -> Arc<GuestMemory> {
        GuestMemory::new(self.map.clone()).expect("room for the guard")
    }

    /// What a device starts ring `index` (0: receiveq, 1: transmitq) from, at its beginning.
    pub(crate) fn parts(&self, index: u16) -> RingParts {
        let (ring, kick, call) = &self.pair.rings()[usize::from(index)];
        let places = ring.places();
        let fd = |of: &dyn AsFd| of.as_fd().try_clone_to_owned().expect("dup");
        RingParts {
            index,
            size: places.size,
            desc: self.memory.guest_address(places.desc),
            avail: self.memory.guest_address(places.avail),
            used: self.memory.guest_address(places.used),
            next_avail: 0,
            next_used: 0,
            features: self.features,
            kick: Some(fd(*kick)),
            call: Some(fd(*call)),
        }
    }

    /// Ring `index`, to be written by hand.
    pub(crate) fn raw(&self, index: u16) -> RawRing {
        RawRing::of(&self.memory, &self.pair, index).expect("dup")
    }
}

fn map(memory: &Arena) -> GuestMemoryMmap<()> {
    let file = Arc::new(File::from(memory.as_fd().try_clone_to_owned().expect("dup")));
    let ranges = memory.regions().iter().map(|region| {
        let file = FileOffset::from_arc(file.clone(), region.offset as u64);
        (GuestAddress(region.guest_address), region.len, Some(file))
    });
    GuestMemoryMmap::from_ranges_with_files(ranges).expect("regions map")
}
