//! The split ring as it lies in guest memory (virtio 1.2 §2.7): sizes, offsets, flags.
//!
//! ```text
//! descriptor table   16 bytes each: addr u64, len u32, flags u16, next u16            aligned to 16
//! avail ring         flags u16, idx u16, ring[size] u16, used_event u16               aligned to 2
//! used ring          flags u16, idx u16, ring[size] { id u32, len u32 }, avail_event u16   aligned to 4
//! ```

/// Bytes of one descriptor.
pub const DESC_SIZE: usize = 16;
/// Bytes of one element of the used ring.
pub const USED_ELEM_SIZE: usize = 8;
/// The largest ring (virtio 1.2 §2.7: 32768).
pub const MAX_SIZE: u16 = 32768;

/// The chain goes on at `next` (VIRTQ_DESC_F_NEXT).
pub const DESC_NEXT: u16 = 1;
/// The device writes this buffer (VIRTQ_DESC_F_WRITE).
pub const DESC_WRITE: u16 = 2;
/// The buffer holds a table of descriptors (VIRTQ_DESC_F_INDIRECT).
pub const DESC_INDIRECT: u16 = 4;
/// In `avail.flags`: the driver wants no interrupt (VIRTQ_AVAIL_F_NO_INTERRUPT).
pub const AVAIL_NO_INTERRUPT: u16 = 1;
/// In `used.flags`: the device wants no kick (VIRTQ_USED_F_NO_NOTIFY).
pub const USED_NO_NOTIFY: u16 = 1;

/// A ring size: a power of two from 1 to 32768.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingSize(u16);

impl RingSize {
    /// The size `entries`, if it is one.
    pub const fn new(entries: u16) -> Option<Self> {
        if entries.is_power_of_two() && entries <= MAX_SIZE { Some(Self(entries)) } else { None }
    }

    /// Entries.
    pub const fn entries(self) -> u16 {
        self.0
    }

    /// The place of the free-running index `index`.
    pub const fn wrap(self, index: u16) -> u16 {
        index & (self.0 - 1)
    }

    /// Bytes of the descriptor table.
    pub const fn desc_bytes(self) -> usize {
        self.0 as usize * DESC_SIZE
    }

    /// Bytes of the avail ring, `used_event` included.
    pub const fn avail_bytes(self) -> usize {
        4 + self.0 as usize * 2 + 2
    }

    /// Bytes of the used ring, `avail_event` included.
    pub const fn used_bytes(self) -> usize {
        4 + self.0 as usize * USED_ELEM_SIZE + 2
    }
}

/// Whether moving an index from `old` to `new` passes `event`, so that the other side is to be told
/// (virtio 1.2 §2.7.7.1 and §2.7.10.1).
pub const fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_sizes_are_powers_of_two() {
        assert!([1, 2, 256, 32768].into_iter().all(|n| RingSize::new(n).is_some()));
        assert!([0, 3, 255, 32769, 65535].into_iter().all(|n| RingSize::new(n).is_none()));
    }

    #[test]
    fn an_event_is_due_when_its_index_is_passed_also_across_the_wrap() {
        assert!(need_event(5, 6, 5) && need_event(5, 9, 2));
        assert!(!need_event(6, 6, 5) && !need_event(4, 6, 5));
        assert!(need_event(65535, 0, 65535) && need_event(65535, 3, 65530));
    }
}
