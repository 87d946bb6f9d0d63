//! The sum of the Internet checksum (RFC 1071): one's complement, of 16-bit words as they stand in memory.
//!
//! A sum is computed in the byte order of the machine and stored in it: the order of the bytes in a word does not matter to the sum
//! (RFC 1071 §2 (B)), so neither the words nor the result are ever swapped.

#![no_std]
#![forbid(unsafe_code)]

/// The sum of some words, not folded yet.
///
/// What is added begins at an even offset from where summing started; for what does not there is [`Sum::add_odd`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum(u64);

impl Sum {
    /// Of nothing.
    pub const ZERO: Self = Self(0);

    /// And of these bytes; a last odd one counts as if a zero followed (RFC 1071 §1).
    #[inline(always)]
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        // Words of four bytes, in four sums at a time: additions that do not wait for each other, and that compilers make vectors of. No
        // frame has so many that 64 bits overflow.
        let (blocks, rest) = bytes.as_chunks::<16>();
        let mut sums = [0u64; 4];
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let (pairs, last) = rest.as_chunks::<2>();
        let pairs: u64 = pairs.iter().map(|pair| u64::from(u16::from_ne_bytes(*pair))).sum();
        let last = last.first().map_or(0, |last| u64::from(u16::from_ne_bytes([*last, 0])));
        Self(fold_once(self.0) + sums.into_iter().map(fold_once).sum::<u64>() + pairs + last)
    }

    /// And of what the words of four bytes that are in `sum` say, added up as they stand in memory: of eight bytes as they are, or of up to 2³² such
    /// words.
    #[inline]
    #[must_use]
    pub const fn add_words(self, sum: u64) -> Self {
        Self(fold_once(self.0) + fold_once(sum))
    }

    /// And of a word in network order.
    #[inline]
    #[must_use]
    pub fn add_word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word.to_be()))
    }

    /// And of what has this sum and begins at an even offset.
    #[inline]
    #[must_use]
    pub fn add_even(self, other: Self) -> Self {
        Self(fold_once(self.0) + fold_once(other.0))
    }

    /// And of what has this sum and begins at an odd offset (RFC 1071 §2 (A): swapped bytes, swapped sum).
    #[inline]
    #[must_use]
    pub fn add_odd(self, other: Self) -> Self {
        Self(fold_once(self.0) + u64::from(other.fold().swap_bytes()))
    }

    /// The sum in 16 bits, in the machine's byte order: what a driver leaves where a checksum is to come.
    #[inline]
    pub const fn fold(self) -> u16 {
        let sum = fold_once(fold_once(self.0));
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }

    /// The checksum: what, added, makes the sum all ones. As it stands in memory.
    #[inline]
    pub const fn checksum(self) -> [u8; 2] {
        (!self.fold()).to_ne_bytes()
    }
}

/// Whether the checksum of an IPv4 header without options is right (RFC 791 §3.1, RFC 1071 §1).
#[inline(always)]
pub fn is_sound_header(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    // In ones' complement zero is all ones, and what is folded stays what it is modulo that: a header of zeros alone is none.
    sum != 0 && sum.is_multiple_of(0xffff)
}

/// The same sum in little more than 32 bits.
const fn fold_once(sum: u64) -> u64 {
    (sum & 0xffff_ffff) + (sum >> 32)
}

#[cfg(test)]
mod tests {
    use super::{Sum, is_sound_header};
    extern crate alloc;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, word by word.
    fn naive(bytes: &[u8]) -> u16 {
        let words =
            bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)])));
        let mut sum: u32 = words.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::ZERO.add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold().to_ne_bytes(), [0xdd, 0xf2]);
        assert_eq!(sum.checksum(), [0x22, 0x0d]);
    }

    proptest! {
        #[test]
        fn a_header_is_sound_if_its_sum_is_all_ones(
            mut header in proptest::array::uniform20(prop_oneof![any::<u8>(), Just(0xff), Just(0)]),
            mended in any::<bool>(),
        ) {
            if mended {
                header[10..12].fill(0);
                let checksum = Sum::ZERO.add_bytes(&header).checksum();
                header[10..12].copy_from_slice(&checksum);
            }
            let is_sound = is_sound_header(&header);
            prop_assert_eq!(is_sound, naive(&header) == 0xffff);
            prop_assert!(is_sound || !mended);
        }

        #[test]
        fn it_equals_the_naive_sum_however_the_bytes_are_cut(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xff), Just(0)], 0..2000),
            cuts in proptest::collection::vec(0usize..2000, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut sum = Sum::ZERO;
            for pair in cuts.windows(2) {
                let piece = Sum::ZERO.add_bytes(&bytes[pair[0]..pair[1]]);
                sum = if pair[0].is_multiple_of(2) { sum.add_even(piece) } else { sum.add_odd(piece) };
            }
            // Zero has two forms in one's complement; all else has one.
            let (ours, naive) = (u16::from_be_bytes(sum.fold().to_ne_bytes()), naive(&bytes));
            prop_assert!(ours == naive || ours % 0xffff == naive % 0xffff, "{ours:#x} {naive:#x}");
            prop_assert_eq!(ours == 0, naive == 0);
            prop_assert_eq!(Sum::ZERO.add_bytes(&bytes).fold() % 0xffff, sum.fold() % 0xffff);
        }
    }
}
