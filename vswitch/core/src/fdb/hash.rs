//! What places an address: the same in tables of every size.

use super::entry::Place;
use crate::mix::fold;

/// Locks are chosen by so many low bits of a bucket's number.
pub(super) const LOCK_BITS: u32 = 8;

/// Places an address in a VLAN of a switch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hash(u64);

impl Hash {
    /// Of nothing that is looked up.
    pub(crate) const NONE: Self = Self(0);

    /// The number of the first bucket, of which each table takes the low bits; it chooses the lock as well.
    #[inline]
    pub(super) const fn first(self) -> usize {
        self.0 as usize
    }

    #[inline]
    pub(super) const fn second(self) -> usize {
        // Never the first, but in a table that is smaller than the locks are many.
        self.first() ^ (((self.0 >> 32) as usize | 1) << LOCK_BITS)
    }
}

/// The secrets of one FDB: without them nobody can aim addresses at one bucket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hasher([u64; 4]);

impl Hasher {
    pub(super) fn new(seed: u64) -> Self {
        Self(std::array::from_fn(|n| split_mix(seed.wrapping_add(n as u64))))
    }

    /// The hash of an address on top of a word: two folded multiplications.
    #[inline(always)]
    pub(crate) fn hash(&self, place: Place, address: u64) -> Hash {
        let [a, b, c, d] = self.0;
        let of_place = u64::from(place.bits()).wrapping_mul(a) ^ b;
        Hash(fold(fold(address ^ of_place, c), d))
    }
}

/// One step of the SplitMix64 generator; odd, since it multiplies.
const fn split_mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ z >> 31) | 1
}
