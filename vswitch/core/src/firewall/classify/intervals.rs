//! From an address to what holds for it: the last of rising starts that is not behind it.
//!
//! A search tree without pointers: a node is 32 starts in a row, each level has every 32nd start of the level below. A
//! node's starts are all compared, so that its cache lines are fetched at once, one wait a level; the highest level is
//! fetched with what says where the others are.

use std::array;

/// Starts in a node.
const WIDTH: usize = 32;

/// Levels between the highest node and the last one, for 2 × [`super::MAX_NETWORKS`] + 1 starts.
const LEVELS: usize = 2;

/// An address as a number.
pub(super) trait Number: Copy + Ord {
    /// That of no bits.
    const LEAST: Self;
    /// That of all bits.
    const MOST: Self;

    /// The last number of the network of so many bits that begins here.
    fn network_end(self, len: u8) -> Self;

    /// The number behind it; none behind the last.
    fn next(self) -> Option<Self>;
}

macro_rules! number {
    ($number:ty) => {
        impl Number for $number {
            const LEAST: Self = Self::MIN;
            const MOST: Self = Self::MAX;

            fn network_end(self, len: u8) -> Self {
                self | Self::MAX.checked_shr(len.into()).unwrap_or(0)
            }

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
        }
    };
}

number!(u32);
number!(u128);

/// A value for every number. What is left over at the end of a node starts at the highest number.
#[derive(Debug)]
pub(super) struct Intervals<N> {
    highest: Node<N>,
    /// The levels between, the higher first.
    between: Box<[Node<N>]>,
    /// Where each of them begins in `between`; as many as there are.
    levels: [u32; LEVELS],
    depth: u8,
    last: Box<[Last<N>]>,
    /// The value of the highest number.
    most: u32,
}

/// Starts of the nodes below.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Node<N>([N; WIDTH]);

/// Starts, and what holds from there.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Last<N> {
    starts: [N; WIDTH],
    values: [u32; WIDTH],
}

impl<N: Number> Intervals<N> {
    /// Of starts, rising, each with the value that holds from there to the next. The first is the lowest number.
    pub(super) fn new(intervals: &[(N, u32)]) -> Self {
        debug_assert!(intervals[0].0 == N::LEAST && intervals.is_sorted_by_key(|(start, _)| *start));
        let last: Box<[Last<N>]> = intervals
            .chunks(WIDTH)
            .map(|chunk| Last {
                starts: array::from_fn(|n| chunk.get(n).map_or(N::MOST, |(start, _)| *start)),
                values: array::from_fn(|n| chunk.get(n).map_or(0, |(_, value)| *value)),
            })
            .collect();
        let nodes = |starts: &[N]| -> Vec<Node<N>> {
            let node = |chunk: &[N]| Node(array::from_fn(|n| chunk.get(n).copied().unwrap_or(N::MOST)));
            starts.chunks(WIDTH).map(node).collect()
        };
        let mut starts: Vec<N> = last.iter().map(|last| last.starts[0]).collect();
        let mut levels = Vec::new();
        while starts.len() > WIDTH {
            levels.push(nodes(&starts));
            starts = starts.into_iter().step_by(WIDTH).collect();
        }
        levels.reverse();
        let mut begins = [0; LEVELS];
        let mut before = 0;
        for (begin, level) in begins.iter_mut().zip(&levels) {
            *begin = before;
            before += level.len() as u32;
        }
        Self {
            highest: nodes(&starts)[0],
            between: levels.concat().into(),
            levels: begins,
            depth: levels.len() as u8,
            last,
            most: intervals[intervals.len() - 1].1,
        }
    }

    /// The value that holds for the number.
    #[inline]
    pub(super) fn value(&self, number: N) -> u32 {
        // It alone is not before what is left over in nodes.
        if number == N::MOST {
            return self.most;
        }
        let mut place = self.highest.child(number);
        for begin in &self.levels[..usize::from(self.depth)] {
            place = place * WIDTH + self.between[*begin as usize + place].child(number);
        }
        let Last { starts, values } = &self.last[place];
        let mut found = values[0];
        for (start, value) in starts.iter().zip(values) {
            found = if *start <= number { *value } else { found };
        }
        found
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.between[..]) + size_of_val(&self.last[..])
    }
}

impl<N: Number> Node<N> {
    /// The last of its starts that is not behind the number. The first is not.
    #[inline]
    fn child(&self, number: N) -> usize {
        self.0.iter().filter(|start| **start <= number).count() - 1
    }
}
