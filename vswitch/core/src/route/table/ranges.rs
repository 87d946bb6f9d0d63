//! From prefixes, which contain each other, to ranges of addresses, which do not: in each of them one answer holds, that of the longest prefix.

use std::fmt::Debug;

/// An address as a number.
pub trait Bits: Copy + Ord + Debug {
    /// As many of them as tell in which cell of a grid an address is, and where in it.
    type Near: Near;
    /// The first of all.
    const ZERO: Self;

    /// The last address of the network of this length in which it is.
    fn last(self, len: u8) -> Self;
    /// The next one; none is behind the last.
    fn next(self) -> Option<Self>;
    /// How far it is behind another; zero if it is before it.
    fn behind(self, other: Self) -> Self;
    /// What is left of it without its last bits, as far as that can be told.
    fn shifted(self, by: u32) -> Self::Near;
    /// The last multiple of a power of two before it, which is not zero.
    fn before(self, power: u32) -> Self;
    /// How many bits it has without leading zeroes.
    fn width(self) -> u32;
    /// Whether it is a multiple of this power of two.
    fn is_multiple(self, power: u32) -> bool;
}

/// Some bits of an address.
pub trait Near: Copy + Ord + Debug + Default {
    /// What is left of them without the last, and `most` if that is more.
    fn shifted(self, by: u32, most: u32) -> u32;
    /// The last 32.
    fn low(self) -> u32;
    /// Whether they are a multiple of this power of two.
    fn is_multiple(self, power: u32) -> bool;
}

macro_rules! bits {
    ($type:ty, $near:ty) => {
        impl Near for $near {
            #[inline(always)]
            fn shifted(self, by: u32, most: u32) -> u32 {
                // It is always less than the width: said so that nothing has to check it.
                (self >> (by % Self::BITS)).min(most.into()) as u32
            }

            #[inline(always)]
            fn low(self) -> u32 {
                self as u32
            }

            fn is_multiple(self, power: u32) -> bool {
                self.trailing_zeros() >= power
            }
        }

        impl Bits for $type {
            type Near = $near;

            const ZERO: Self = 0;

            fn last(self, len: u8) -> Self {
                self | Self::MAX.checked_shr(len.into()).unwrap_or(0)
            }

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }

            #[inline(always)]
            fn behind(self, other: Self) -> Self {
                self.saturating_sub(other)
            }

            #[inline(always)]
            fn shifted(self, by: u32) -> $near {
                // As above.
                (self >> (by % Self::BITS)).min(<$near>::MAX.into()) as $near
            }

            fn before(self, power: u32) -> Self {
                (self - 1) >> power << power
            }

            fn width(self) -> u32 {
                Self::BITS - self.leading_zeros()
            }

            fn is_multiple(self, power: u32) -> bool {
                self.trailing_zeros() >= power
            }
        }
    };
}

bits!(u32, u32);
bits!(u128, u64);

/// From where on an answer holds: up to the next range.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range<B, A> {
    pub(super) start: B,
    pub(super) answer: A,
}

/// The ranges of all addresses, rising, of which no two neighbours have the same answer. Of `prefixes`, each with its first address and its length, come
/// those that contain another before it, and else the first; no two are the same. In none of them it is `outside` that holds.
pub(super) fn ranges<B: Bits, A: Copy + PartialEq>(
    prefixes: impl Iterator<Item = (B, u8, A)>,
    outside: A,
) -> Vec<Range<B, A>> {
    let mut ranges = vec![Range { start: B::ZERO, answer: outside }];
    // Those that contain the place where we are, each in the one before: its last address, and its answer.
    let mut open: Vec<(B, A)> = Vec::new();
    for (first, len, answer) in prefixes {
        while let Some((last, _)) = open.pop_if(|(last, _)| *last < first) {
            close(&mut ranges, last, open.last().map_or(outside, |(_, answer)| *answer));
        }
        begin(&mut ranges, first, answer);
        open.push((first.last(len), answer));
    }
    while let Some((last, _)) = open.pop() {
        close(&mut ranges, last, open.last().map_or(outside, |(_, answer)| *answer));
    }
    ranges
}

/// Behind `last` another answer holds.
fn close<B: Bits, A: Copy + PartialEq>(ranges: &mut Vec<Range<B, A>>, last: B, answer: A) {
    if let Some(start) = last.next() {
        begin(ranges, start, answer);
    }
}

/// From `start` on, which is not before the last range, another answer holds.
fn begin<B: Bits, A: Copy + PartialEq>(ranges: &mut Vec<Range<B, A>>, start: B, answer: A) {
    ranges.pop_if(|range| range.start == start);
    if ranges.last().is_none_or(|range| range.answer != answer) {
        ranges.push(Range { start, answer });
    }
}
