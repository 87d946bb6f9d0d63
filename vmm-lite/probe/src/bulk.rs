//! The bytes of a bulk transfer, and the checksum that both ends take of them.

/// An endless row of bytes, fixed by a seed: eight at a time by a SplitMix64 step (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Pattern {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    /// The row of this seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed, word: [0; 8], used: 8 }
    }

    /// Fills `buffer` with the next bytes of the row.
    pub fn fill(&mut self, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            if self.used == self.word.len() {
                self.word = self.next_word().to_le_bytes();
                self.used = 0;
            }
            let len = buffer.len().min(self.word.len() - self.used);
            let (now, later) = buffer.split_at_mut(len);
            now.copy_from_slice(&self.word[self.used..self.used + len]);
            self.used += len;
            buffer = later;
        }
    }

    fn next_word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// A 64-bit checksum that costs a guest little: rotate, xor, multiply for each 8 bytes.
///
/// Each step is one-to-one in the word as in the sum so far, so a change within one aligned word is always seen, and
/// any other with all but a chance of about 2⁻⁶⁴. It is no defence against forgery. How the bytes are cut into calls
/// does not matter.
#[derive(Debug, Clone, Default)]
pub struct Checksum {
    sum: u64,
    bytes: u64,
    tail: [u8; 8],
}

impl Checksum {
    /// Of no bytes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let filled = self.pending();
            let (now, later) = bytes.split_at(bytes.len().min(self.tail.len() - filled));
            self.tail[filled..filled + now.len()].copy_from_slice(now);
            self.bytes = self.bytes.wrapping_add(now.len() as u64);
            if self.pending() == 0 {
                self.sum = step(self.sum, u64::from_le_bytes(self.tail));
            }
            bytes = later;
        }
    }

    /// How many bytes were taken in.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The checksum of all of them. Their number is part of it.
    pub fn value(&self) -> u64 {
        let mut last = [0; 8];
        last[..self.pending()].copy_from_slice(&self.tail[..self.pending()]);
        step(step(self.sum, u64::from_le_bytes(last)), self.bytes)
    }

    /// Bytes in `tail` that do not make a word yet.
    fn pending(&self) -> usize {
        (self.bytes % 8) as usize
    }
}

fn step(sum: u64, word: u64) -> u64 {
    (sum.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};
    use proptest::prelude::*;

    fn checksum(bytes: &[u8]) -> u64 {
        let mut sum = Checksum::new();
        sum.update(bytes);
        assert_eq!(sum.bytes(), bytes.len() as u64);
        sum.value()
    }

    #[test]
    fn zeros_of_different_length_differ() {
        let sums: Vec<u64> = (0..20).map(|len| checksum(&vec![0; len])).collect();
        for (i, sum) in sums.iter().enumerate() {
            assert!(!sums[..i].contains(sum), "{i} zeros");
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(seed: u64, cuts in prop::collection::vec(0usize..40, 0..40)) {
            let len = cuts.iter().sum();
            let mut whole = vec![0; len];
            Pattern::new(seed).fill(&mut whole);
            let (mut pattern, mut sum, mut pieces) = (Pattern::new(seed), Checksum::new(), Vec::new());
            for cut in cuts {
                let mut piece = vec![0; cut];
                pattern.fill(&mut piece);
                sum.update(&piece);
                pieces.extend(piece);
            }
            prop_assert_eq!(sum.value(), checksum(&whole));
            prop_assert_eq!(pieces, whole);
        }

        #[test]
        fn one_changed_byte_is_seen(seed: u64, len in 1usize..200, at: prop::sample::Index, change in 1u8..) {
            let mut bytes = vec![0; len];
            Pattern::new(seed).fill(&mut bytes);
            let before = checksum(&bytes);
            bytes[at.index(len)] ^= change;
            prop_assert_ne!(checksum(&bytes), before);
        }
    }
}
