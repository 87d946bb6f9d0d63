//! A connection's place in the table and proof of its key: 128 bits under a secret of this boot.
//!
//! Each half is NH (RFC 4418 §5.2.2, here with words of 64 bits) and a folded multiplication, under keys of its own. For two
//! different keys the sums of NH agree with a probability of at most 2^-64, whatever the two are; both agree with 2^-128 at
//! most, for their keys are independent. What is folded from 128 to 64 bits adds about as much again. So among a million
//! connections a frame that belongs to none is taken for one of them with a probability of about 2^-107: a switch that
//! forwards 20 million a second for ten years has seen 2^53 frames. Who does not know the secret cannot aim keys at one
//! bucket either, and nothing that leaves the switch says what the secret is.

use super::key::Key;
use crate::mix::fold;
use std::fmt;

/// What digests of one boot are made with: 128 bytes that nobody outside can guess.
#[derive(Clone, Copy)]
pub struct Secret([u64; 16]);

impl Secret {
    /// Of random words.
    pub const fn new(words: [u64; 16]) -> Self {
        Self(words)
    }

    /// The digest of a key.
    #[inline(always)]
    pub(super) fn digest(&self, key: &Key) -> Digest {
        let [a, b, c, d, e, f, g, h, rest @ ..] = self.0;
        // Zero stands for "no connection"; one key in 2^64 has another's place, and its own check.
        let place = half([a, b, c, d, e, f, g, h], key).max(1);
        Digest { place, check: half(rest, key) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[inline(always)]
fn half([a, b, c, d, e, f, g, h]: [u64; 8], key: &Key) -> u64 {
    let product = |x: u64, y: u64| u128::from(x) * u128::from(y);
    let [s, t, u, v] = key.hosts;
    let mut sum = product(key.ends.wrapping_add(a), key.kind.wrapping_add(b))
        .wrapping_add(product(s.wrapping_add(c), t.wrapping_add(d)));
    // Of IPv4 both are zero: what they would add is the same for all, and so says nothing.
    if u | v != 0 {
        sum = sum.wrapping_add(product(u.wrapping_add(e), v.wrapping_add(f)));
    }
    fold(sum as u64 ^ g, (sum >> 64) as u64 ^ h)
}

/// A key's digest: it finds the connection, and equal digests are taken for equal keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest {
    /// Where it stands; never zero.
    pub(super) place: u64,
    /// That it is the one.
    pub(super) check: u64,
}

impl Digest {
    /// That of no key.
    pub(crate) const NONE: Self = Self { place: 0, check: 0 };

    /// All of it.
    pub(in crate::firewall) const fn words(self) -> [u64; 2] {
        [self.place, self.check]
    }

    /// A number that nobody outside can guess.
    pub(crate) const fn any(self) -> u64 {
        self.check
    }

    /// The number of its first line of the index, to be taken modulo their number.
    #[inline]
    pub(in crate::firewall) const fn first(self) -> usize {
        self.place as usize
    }

    /// The number of its second line, which is another one.
    #[inline]
    pub(super) const fn second(self) -> usize {
        (self.place ^ (self.check | 1)) as usize
    }

    /// The slot of a line that it takes if it is free.
    #[inline]
    pub(super) const fn slot(self) -> usize {
        (self.place >> 40) as usize
    }

    /// What tells it from most of its neighbours in a line.
    #[inline]
    pub(super) const fn tag(self) -> u8 {
        (self.place >> 56) as u8
    }
}
