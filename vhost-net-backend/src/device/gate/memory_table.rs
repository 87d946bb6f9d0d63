//! The gate's shadow of guest memory: which regions there are, and what a new table must fulfil.

use super::descriptor::Descriptor;
use super::wire::{MAX_TABLE_REGIONS, Region};

/// The unit in which memory is shared.
const PAGE: u64 = 4096;
/// Regions that a port may have at once, answered to GET_MAX_MEM_SLOTS. QEMU needs one for each memory device.
pub(super) const MAX_SLOTS: usize = 64;
/// What to do when guest memory does not come as files.
const NOT_SHARED: &str = "guest memory is not shared: start QEMU with -object memory-backend-memfd,id=mem,size=...,share=on \
     and -machine memory-backend=mem";

/// The regions that the daemon has mapped, by guest address.
#[derive(Debug, Clone, Default)]
pub(super) struct MemoryTable {
    regions: Vec<Region>,
}

impl MemoryTable {
    /// A whole new table: sorted as the daemon demands, each region with the place of its descriptor in the message.
    pub(super) fn replace(
        regions: &[Region],
        files: &[Descriptor],
        quota: u64,
    ) -> Result<(Self, Vec<usize>), String> {
        if regions.is_empty() {
            return Err(NOT_SHARED.to_owned());
        }
        if regions.len() > MAX_TABLE_REGIONS {
            return Err(format!(
                "{} regions in one table; this port takes {MAX_TABLE_REGIONS}, and more by ADD_MEM_REG",
                regions.len()
            ));
        }
        let mut order: Vec<usize> = (0..regions.len()).collect();
        order.sort_by_key(|&at| regions[at].guest);
        let mut table = Self::default();
        for &at in &order {
            table = table.add(regions[at], files.get(at..=at).unwrap_or_default(), quota)?;
        }
        Ok((table, order))
    }

    /// The table with one region more.
    pub(super) fn add(&self, region: Region, files: &[Descriptor], quota: u64) -> Result<Self, String> {
        check_region(&region)?;
        check_file(&region, files.first().ok_or(NOT_SHARED)?)?;
        if self.regions.len() == MAX_SLOTS {
            return Err(format!("more than {MAX_SLOTS} memory regions"));
        }
        if let Some(other) = self.regions.iter().find(|other| {
            overlap((region.guest, region.size), (other.guest, other.size))
                || overlap((region.user, region.size), (other.user, other.size))
        }) {
            return Err(format!(
                "the region at guest address {:#x} overlaps the one at {:#x}",
                region.guest, other.guest
            ));
        }
        let total = self.regions.iter().try_fold(region.size, |sum, other| sum.checked_add(other.size));
        if total.is_none_or(|total| total > quota) {
            return Err(format!("more guest memory than the {quota} bytes that this port may map"));
        }
        let mut table = self.clone();
        table.regions.push(region);
        table.regions.sort_by_key(|region| region.guest);
        Ok(table)
    }

    /// The table without `region`, which must be there exactly so.
    pub(super) fn remove(&self, region: &Region) -> Result<Self, String> {
        let same = |other: &&Region| {
            (other.guest, other.size, other.user) == (region.guest, region.size, region.user)
        };
        if !self.regions.iter().any(|other| same(&other)) {
            return Err(format!(
                "there is no region of {} bytes at guest address {:#x}",
                region.size, region.guest
            ));
        }
        Ok(Self { regions: self.regions.iter().filter(|other| !same(other)).copied().collect() })
    }

    /// Whether no memory was given yet.
    pub(super) fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// The guest-physical address of `bytes` bytes at the frontend's address `user`, if one region holds them all.
    pub(super) fn translate(&self, user: u64, bytes: u64) -> Option<u64> {
        let region = self.regions.iter().find(|region| holds((region.user, region.size), user, bytes))?;
        Some(region.guest + (user - region.user))
    }

    /// Whether one region holds the `bytes` bytes at guest-physical address `guest`.
    pub(super) fn holds_guest(&self, guest: u64, bytes: u64) -> bool {
        self.regions.iter().any(|region| holds((region.guest, region.size), guest, bytes))
    }
}

/// Whether `bytes` bytes at `at` lie within the span (start, length), whose end does not wrap.
fn holds((start, length): (u64, u64), at: u64, bytes: u64) -> bool {
    at.checked_sub(start).and_then(|within| within.checked_add(bytes)).is_some_and(|end| end <= length)
}

/// Whether two spans (start, length) share a byte.
pub(super) fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    let end = |(start, length): (u64, u64)| start.saturating_add(length);
    a.0 < end(b) && b.0 < end(a)
}

fn check_region(region: &Region) -> Result<(), String> {
    let Region { guest, size, user, offset } = *region;
    if size == 0 {
        return Err(format!("the region at guest address {guest:#x} is empty"));
    }
    if [guest, user, offset].iter().any(|start| start.checked_add(size).is_none()) {
        return Err(format!("the region at guest address {guest:#x} wraps around the address space"));
    }
    // Ring parts are aligned by guest address; only pages keep that alignment in our mapping.
    if [guest, size, user, offset].iter().any(|value| value % PAGE != 0) {
        return Err(format!("the region at guest address {guest:#x} does not start and end on pages"));
    }
    Ok(())
}

fn check_file(region: &Region, file: &Descriptor) -> Result<(), String> {
    let memory = match file {
        Descriptor::Memory(memory) => memory,
        Descriptor::Eventfd => return Err(format!("an eventfd was given as guest memory; {NOT_SHARED}")),
        Descriptor::Foreign(filesystem) => {
            return Err(format!(
                "its file lies on {filesystem}, whose pages may have to come from another process or machine; \
                 put it on tmpfs (/dev/shm), hugetlbfs, ext4, xfs or btrfs, or use memory-backend-memfd"
            ));
        }
        Descriptor::Unfit(what) => return Err(format!("{what} was given as guest memory; {NOT_SHARED}")),
    };
    if !memory.writable {
        return Err("the file of guest memory is not open for reading and writing".to_owned());
    }
    if !memory.sealed {
        return Err("the file of guest memory can shrink and this port demands sealed memory: \
                    give it the seal F_SEAL_SHRINK (QEMU: memory-backend-memfd,seal=on) or set guest-memory: auto"
            .to_owned());
    }
    // The sum does not wrap: `check_region` came first.
    if region.offset + region.size > memory.length {
        return Err(format!(
            "the file of guest memory has {} bytes, but the region ends at {}",
            memory.length,
            region.offset + region.size
        ));
    }
    if [region.offset, region.size].iter().any(|value| value % memory.page_size.max(1) != 0) {
        return Err(format!(
            "guest memory on pages of {} bytes must be shared in whole pages",
            memory.page_size
        ));
    }
    if let Some(reason) = &memory.unmappable {
        return Err(format!("the file of guest memory cannot be mapped: {reason}"));
    }
    Ok(())
}
