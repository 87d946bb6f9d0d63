//! The gate's shadow of one ring: what was set, and whether its parts lie where they may.

use super::memory_table::{MemoryTable, overlap};
use super::wire::RingAddresses;
use crate::layout::RingSize;

/// Where a ring's parts lie, guest-physically.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    desc: u64,
    avail: u64,
    used: u64,
}

/// Whether a ring's addresses can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Addresses {
    /// None were given.
    #[default]
    Unset,
    /// Within guest memory.
    Set(Place),
    /// They were, until the memory table or the size changed.
    Stale,
}

/// What the frontend set of a ring.
#[derive(Debug, Clone, Default)]
pub(super) struct RingShadow {
    /// Its size.
    pub(super) size: Option<RingSize>,
    /// Its addresses.
    pub(super) addresses: Addresses,
    /// A kick (or polling) was set since the ring was last stopped.
    pub(super) kicked: bool,
    /// SET_VRING_ENABLE's last word; None before the first.
    pub(super) enabled: Option<bool>,
}

impl RingShadow {
    /// Whether the driver may use the ring: its form must not change any more.
    pub(super) fn started(&self) -> bool {
        self.kicked && self.size.is_some() && matches!(self.addresses, Addresses::Set(_))
    }

    /// Whether enabling or kicking it now would start it where it does not fit.
    pub(super) fn stale(&self) -> bool {
        self.addresses == Addresses::Stale
    }

    /// Judges addresses (virtio 1.2 §2.7: alignment; each part wholly in one region; no two parts overlap).
    pub(super) fn place(&self, at: &RingAddresses, memory: &MemoryTable) -> Result<Place, String> {
        if at.flags != 0 {
            return Err("dirty logging of a ring was not offered".to_owned());
        }
        if memory.is_empty() {
            return Err("ring addresses before any guest memory".to_owned());
        }
        if !at.desc.is_multiple_of(16) || !at.avail.is_multiple_of(2) || !at.used.is_multiple_of(4) {
            return Err("a ring's parts must be aligned to 16, 2 and 4 bytes".to_owned());
        }
        let [desc, avail, used] = part_bytes(self.size);
        let find = |part: &str, user, bytes| {
            memory.translate(user, bytes).ok_or_else(|| {
                format!("the {part} at address {user:#x} ({bytes} bytes) does not lie in one region of guest memory")
            })
        };
        let place = Place {
            desc: find("descriptor table", at.desc, desc)?,
            avail: find("avail ring", at.avail, avail)?,
            used: find("used ring", at.used, used)?,
        };
        place.check_overlap(self.size).map(|()| place)
    }

    /// Judges a size, against addresses that may have come first: a ring that was kicked could start on them. Of one that was not they
    /// are those of the driver before, as a rule: a frontend sends the size first.
    pub(super) fn check_size(&self, size: RingSize, memory: &MemoryTable) -> Result<(), String> {
        let Addresses::Set(place) = self.addresses else { return Ok(()) };
        if !self.kicked || place.fits(Some(size), memory) {
            return Ok(());
        }
        Err(format!(
            "a ring of {} entries does not fit at its addresses, or its parts overlap there",
            size.entries()
        ))
    }

    /// Takes a size that was judged.
    pub(super) fn resize(&mut self, size: Option<RingSize>, memory: &MemoryTable) {
        self.size = size;
        if let Addresses::Set(place) = self.addresses
            && !place.fits(size, memory)
        {
            self.addresses = Addresses::Stale;
        }
    }

    /// Follows a change of memory; false if the ring had to run and cannot any more.
    pub(super) fn follow(&mut self, memory: &MemoryTable) -> bool {
        let Addresses::Set(place) = self.addresses else { return true };
        if place.within(self.size, memory) {
            return true;
        }
        let running = self.started() && self.enabled == Some(true);
        self.addresses = Addresses::Stale;
        !running
    }
}

impl Place {
    fn parts(&self, size: Option<RingSize>) -> [(u64, u64); 3] {
        let [desc, avail, used] = part_bytes(size);
        [(self.desc, desc), (self.avail, avail), (self.used, used)]
    }

    fn within(&self, size: Option<RingSize>, memory: &MemoryTable) -> bool {
        self.parts(size).iter().all(|&(at, bytes)| memory.holds_guest(at, bytes))
    }

    fn fits(&self, size: Option<RingSize>, memory: &MemoryTable) -> bool {
        self.within(size, memory) && self.check_overlap(size).is_ok()
    }

    fn check_overlap(&self, size: Option<RingSize>) -> Result<(), String> {
        let [desc, avail, used] = self.parts(size);
        match overlap(desc, avail) || overlap(desc, used) || overlap(avail, used) {
            true => Err("a ring's descriptor table, avail ring and used ring overlap".to_owned()),
            false => Ok(()),
        }
    }
}

/// Bytes of descriptor table, avail and used ring; of the smallest ring while the size is not known.
fn part_bytes(size: Option<RingSize>) -> [u64; 3] {
    size.or(RingSize::new(1)).map_or([0; 3], |size| {
        [size.desc_bytes() as u64, size.avail_bytes() as u64, size.used_bytes() as u64]
    })
}
