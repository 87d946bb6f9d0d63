//! A guest without a VMM, for tests and benchmarks of devices: a queue pair whose rings are started by hand, with no session and
//! no thread. The device sees its memory between pages that nobody may touch.
#![expect(unsafe_code, reason = "the device's mappings are ours, so that there is room for a fence")]

use super::fenced::Fenced;
use super::misbehave::RawRing;
use super::plan::plan;
use super::{Arena, Config, DriverError, QueuePair};
use crate::device::{
    fault::PortFault,
    memory::GuestMemory,
    ring::{RingParts, RunningRing},
};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

/// A pair whose buffers are posted and made known, as after a handshake; no device has its rings yet.
pub struct Unwired {
    /// The shared memory.
    pub memory: Arc<Arena>,
    /// The driver's side.
    pub pair: QueuePair,
    mapped: Arc<Mapped>,
    features: u64,
}

/// The same memory, mapped once more as a device maps it.
struct Mapped {
    map: GuestMemoryMmap<()>,
    /// What `map` points to.
    _regions: Vec<Fenced>,
}

impl Unwired {
    /// The first pair of `config`, which took all of its features. Fails as [`Driver::connect`](super::Driver::connect) does for want of memory or
    /// descriptors; huge pages cannot be fenced.
    pub fn new(config: &Config) -> Result<Self, DriverError> {
        let (arena, mut plans) = plan(config)?;
        let memory = Arc::new(arena);
        let plan = plans.swap_remove(0);
        let mut pair = QueuePair::new(&memory, &plan, config.features)?;
        pair.flush();
        let mapped = Mapped::new(&memory).map_err(|source| DriverError::Memory {
            bytes: memory.len(),
            huge_pages: config.memory.huge_pages,
            source,
        })?;
        Ok(Self { memory, pair, mapped: Arc::new(mapped), features: config.features })
    }

    /// Starts the receiveq and the transmitq, from their beginning, under one memory epoch.
    pub fn rings(&self) -> Result<[RunningRing; 2], PortFault> {
        let memory = self.guest_memory()?;
        let start = |index| {
            let parts = self.parts(index).map_err(|why| PortFault::Memory(why.to_string()))?;
            RunningRing::start(parts, memory.clone())
        };
        Ok([start(0)?, start(1)?])
    }

    /// A memory epoch of a device of its own. Fails if there is no room to guard it.
    pub(crate) fn guest_memory(&self) -> Result<Arc<GuestMemory>, PortFault> {
        // SAFETY: `mapped` is what keeps the mappings.
        unsafe { GuestMemory::kept_by(self.map(), self.mapped.clone()) }
    }

    /// What a device of its own would map.
    pub(crate) fn map(&self) -> &GuestMemoryMmap<()> {
        &self.mapped.map
    }

    /// What a device starts ring `index` (0: receiveq, 1: transmitq) from, at its beginning. Fails if there is no descriptor left.
    pub(crate) fn parts(&self, index: u16) -> io::Result<RingParts> {
        let (ring, kick, call) = &self.pair.rings()[usize::from(index)];
        let places = ring.places();
        let fd = |of: &dyn AsFd| of.as_fd().try_clone_to_owned();
        Ok(RingParts {
            index,
            size: places.size,
            desc: self.memory.guest_address(places.desc),
            avail: self.memory.guest_address(places.avail),
            used: self.memory.guest_address(places.used),
            next_avail: 0,
            next_used: 0,
            features: self.features,
            kick: Some(fd(*kick)?),
            call: Some(fd(*call)?),
        })
    }

    /// Ring `index` (0: receiveq, 1: transmitq), to be written by hand. Fails if there is no descriptor left.
    pub fn raw_ring(&self, index: u16) -> io::Result<RawRing> {
        RawRing::of(&self.memory, &self.pair, index)
    }
}

impl Mapped {
    fn new(memory: &Arena) -> io::Result<Self> {
        let file = Arc::new(File::from(memory.as_fd().try_clone_to_owned()?));
        let (mut regions, mut mappings) = (Vec::new(), Vec::new());
        for region in memory.regions() {
            let fenced = Fenced::map(memory.as_fd(), region.offset, region.len)?;
            let offset = FileOffset::from_arc(file.clone(), region.offset as u64);
            let builder = MmapRegionBuilder::new(region.len).with_file_offset(offset);
            // SAFETY: `fenced` maps as many bytes there, and lives as long as `map`.
            let mapping = unsafe { builder.with_raw_mmap_pointer(fenced.start()) };
            let mapping = mapping.build().map_err(io::Error::other)?;
            mappings.extend(GuestRegionMmap::new(mapping, GuestAddress(region.guest_address)));
            regions.push(fenced);
        }
        let map = GuestMemoryMmap::from_regions(mappings).map_err(io::Error::other)?;
        Ok(Self { map, _regions: regions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::MemoryConfig;
    use vm_memory::GuestMemoryBackend;

    /// Start, end and rights of every mapping of this process.
    fn mappings() -> Vec<(usize, usize, String)> {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("proc");
        let one = |line: &str| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let address = |text| usize::from_str_radix(text, 16).ok();
            Some((address(start)?, address(end)?, rest[..4].to_string()))
        };
        maps.lines().map(|line| one(line).expect("proc(5)")).collect()
    }

    #[test]
    fn nobody_may_touch_what_lies_beside_a_region() {
        let memory = MemoryConfig { regions: 3, gap: 2 << 20, ..MemoryConfig::default() };
        let guest = Unwired::new(&Config { memory, ..Config::default() }).expect("memory");
        let mappings = mappings();
        assert_eq!(guest.map().num_regions(), guest.memory.regions().len());
        for region in guest.map().iter() {
            let start = region.as_ptr().addr();
            let end = start + region.size();
            for outside in [start - 1, end] {
                let there = mappings.iter().find(|(from, to, _)| (*from..*to).contains(&outside));
                assert_eq!(there.map(|(_, _, rights)| rights.as_str()), Some("---p"), "{outside:#x}");
            }
        }
        assert_eq!(guest.rings().map(|rings| rings.len()), Ok(2));
    }
}
