//! Where an address is among many ranges, in two steps or few more.
//!
//! A grid divides the addresses about the starts of its ranges into cells of one size, a power of two: which cell an address is in is a subtraction and
//! a shift. There are about as many cells as ranges, so that in most of them few ranges start, which are compared one by one. Where many do, the cell has a
//! grid of its own. So a table has the size of what is in it, and it is no matter how long the prefixes are.
//!
//! Within a cell addresses are told apart by 32 bits, so that a table is as small for IPv6: a cell in which that is not enough has a grid of its own, too.

use super::ranges::{Bits, Near, Range};

/// Ranges that start in one cell, at most: as many are compared in each, since to leave some out would take longer.
const WITHIN: usize = 4;

/// Bits that the place in a grid has at least, if so many ranges start in it: fewer cells are not worth another step.
const LEAST: u32 = 8;

/// Cells for each that something starts in, at most, but for the smallest grids.
const SPARSE: u32 = 8;

/// Says of a cell that it has a grid.
const DIVIDED: u32 = 1 << 31;

/// Where it says of another how many ranges start in it; below is the place of the one in which it begins. A router with so many ranges that this is not
/// enough would have a hundred million routes, for which there is no memory.
const COUNT: u32 = 28;

/// An answer for each address.
#[derive(Debug)]
pub struct Table<B: Bits, A> {
    root: Grid<B>,
    grids: Vec<Grid<B>>,
    /// Of all grids: [`DIVIDED`] and the place of a grid, or [`COUNT`].
    cells: Vec<u32>,
    /// Of all grids, rising in each, behind the range in which it begins. At the end there are as many more as a cell may have.
    starts: Vec<Start<A>>,
}

/// Cells that follow each other.
#[derive(Debug, Clone, Copy)]
struct Grid<B> {
    /// The first address.
    base: B,
    /// How many bits of an address do not tell it from others in its cell.
    fine: u32,
    /// How many bits of the rest tell where it is within a cell.
    coarse: u32,
    /// The place of the first cell.
    first: u32,
    /// How many come behind it: what is behind all of them is in the last, in which nothing starts.
    more: u32,
}

/// Where a range starts, as its cell has it.
#[derive(Debug, Clone, Copy)]
struct Start<A> {
    at: u32,
    answer: A,
}

/// How far the way to an address was gone.
#[derive(Debug, Clone, Copy, Default)]
struct Stand {
    cell: u32,
    /// The address, as its cell has it.
    at: u32,
}

impl<B: Bits, A: Copy> Table<B, A> {
    /// A table of these ranges, of which the first begins at zero.
    pub(super) fn new(ranges: &[Range<B, A>]) -> Self {
        let root = Grid { base: B::ZERO, fine: 0, coarse: 0, first: 0, more: 0 };
        let mut table = Self { root, grids: Vec::new(), cells: Vec::new(), starts: Vec::new() };
        table.root = table.lay(ranges);
        let last = table.starts[table.starts.len() - 1];
        table.starts.extend([last; WITHIN]);
        table.grids.shrink_to_fit();
        table.cells.shrink_to_fit();
        table.starts.shrink_to_fit();
        table
    }

    /// The same with the left part of each answer, and the right parts by [place](Self::place).
    pub(super) fn split<L, R>(self, split: impl Fn(A) -> (L, R)) -> (Table<B, L>, Vec<R>) {
        let Self { root, grids, cells, starts } = self;
        let halves = starts.into_iter().map(|Start { at, answer }| {
            let (answer, other) = split(answer);
            (Start { at, answer }, other)
        });
        let (starts, others) = halves.unzip();
        (Table { root, grids, cells, starts }, others)
    }

    /// Bytes that it has.
    pub fn size(&self) -> usize {
        size_of_val(&self.grids[..]) + size_of_val(&self.cells[..]) + size_of_val(&self.starts[..])
    }

    /// The answer for an address.
    #[inline]
    pub fn find(&self, address: B) -> A {
        self.starts[self.place(address)].answer
    }

    /// The place of the answer for an address.
    #[inline]
    pub fn place(&self, address: B) -> usize {
        let mut stand = self.step(&self.root, address);
        while stand.cell & DIVIDED != 0 {
            stand = self.step(&self.grids[(stand.cell & !DIVIDED) as usize], address);
        }
        stand.place() + stand.passed(self.near(stand))
    }

    /// The answers for some addresses: each step is done for all of them before the next, and what has to be waited for is asked for by loops that do
    /// nothing else, so that as much as possible is waited for at once. Safe code cannot prefetch.
    #[inline]
    pub fn find_each<const N: usize>(&self, addresses: &[B], answers: &mut [A; N]) {
        let (mut places, mut stands) = ([0; N], [Stand::default(); N]);
        let addresses = &addresses[..addresses.len().min(N)];
        let count = addresses.len();
        for (n, address) in addresses.iter().enumerate() {
            (places[n], stands[n].at) = self.root.place(*address);
        }
        loop {
            let mut divided = 0;
            for (stand, place) in stands.iter_mut().zip(&places[..count]) {
                stand.cell = self.cells[*place as usize];
                divided |= stand.cell;
            }
            if divided & DIVIDED == 0 {
                break;
            }
            for (n, address) in addresses.iter().enumerate() {
                if stands[n].cell & DIVIDED != 0 {
                    let grid = &self.grids[(stands[n].cell & !DIVIDED) as usize];
                    (places[n], stands[n].at) = grid.place(*address);
                }
            }
        }
        let mut loaded = 0;
        for stand in &stands[..count] {
            loaded ^= self.starts[stand.place()].at ^ self.starts[stand.place() + WITHIN].at;
        }
        std::hint::black_box(loaded);
        for (answer, stand) in answers.iter_mut().zip(&stands[..count]) {
            let near = self.near(*stand);
            *answer = near[stand.passed(near)].answer;
        }
    }

    /// The cell of a grid in which an address is.
    #[inline(always)]
    fn step(&self, grid: &Grid<B>, address: B) -> Stand {
        let (place, at) = grid.place(address);
        Stand { cell: self.cells[place as usize], at }
    }

    /// The range in which its cell begins, and those that may start within.
    #[inline(always)]
    fn near(&self, stand: Stand) -> &[Start<A>] {
        &self.starts[stand.place()..stand.place() + 1 + WITHIN]
    }

    /// Lays out a grid for all of these but the first, which is where it begins.
    fn lay(&mut self, ranges: &[Range<B, A>]) -> Grid<B> {
        let mut grid = Grid::of(ranges);
        grid.first = self.cells.len() as u32;
        self.cells.resize(self.cells.len() + grid.more as usize + 1, 0);
        let begin = self.starts.len() as u32;
        let start = |range: &Range<B, A>| Start { at: grid.at(range.start).low(), answer: range.answer };
        self.starts.extend(ranges.iter().map(start));
        // What is passed when a cell begins, of which the last holds there.
        let mut passed = 1;
        for nth in 0..=grid.more {
            while ranges.get(passed).is_some_and(|range| grid.is_begin(nth, range.start)) {
                passed += 1;
            }
            let here =
                ranges[passed..].iter().take_while(|range| grid.nth(grid.at(range.start)) == nth).count();
            let within = &ranges[passed - 1..passed + here];
            let cell = if here <= WITHIN && within[1..].iter().all(|range| grid.tells(range.start)) {
                (here as u32) << COUNT | (begin + passed as u32 - 1)
            } else {
                let grid = self.lay(within);
                self.grids.push(grid);
                DIVIDED | (self.grids.len() - 1) as u32
            };
            self.cells[(grid.first + nth) as usize] = cell;
            passed += here;
        }
        grid
    }
}

impl Stand {
    /// The place of the range in which its cell begins.
    #[inline(always)]
    fn place(self) -> usize {
        (self.cell & !(u32::MAX << COUNT)) as usize
    }

    /// Which of these the address is in.
    #[inline(always)]
    fn passed<A>(self, near: &[Start<A>]) -> usize {
        let count = self.cell >> COUNT;
        (0..).zip(&near[1..]).map(|(n, start)| usize::from((n < count) & (start.at <= self.at))).sum()
    }
}

impl<B: Bits> Grid<B> {
    /// One for all of these but the first: about as many cells as there are starts, if these are not in few of them.
    fn of<A>(ranges: &[Range<B, A>]) -> Self {
        let (Some(low), Some(high)) = (ranges.get(1), ranges.last()) else {
            return Self { base: B::ZERO, fine: 0, coarse: 0, first: 0, more: 0 };
        };
        let wanted = ranges.len().ilog2() + 1;
        let mut width = high.start.behind(low.start).width();
        let mut size = width.saturating_sub(wanted);
        loop {
            // Before all of them, so that what is before the grid is told from them; and aligned, so that they start where cells do.
            let base = low.start.before(size);
            width = high.start.behind(base).width();
            let fine = size.saturating_sub(u32::BITS);
            let mut grid = Self { base, fine, coarse: size - fine, first: 0, more: u32::MAX };
            grid.more = grid.nth(grid.at(high.start)) + 1;
            if width.saturating_sub(size) <= LEAST || grid.used(ranges).saturating_mul(SPARSE) > grid.more {
                return grid;
            }
            size += 1;
        }
    }

    /// The place of the cell in which an address is, and the address as its cell has it.
    #[inline(always)]
    fn place(&self, address: B) -> (u32, u32) {
        let at = self.at(address);
        (self.first + self.nth(at), at.low())
    }

    /// How far an address is behind the first, as far as its bits tell it from others in its cell.
    #[inline(always)]
    fn at(&self, address: B) -> B::Near {
        address.behind(self.base).shifted(self.fine)
    }

    /// The cell in which it is.
    #[inline(always)]
    fn nth(&self, at: B::Near) -> u32 {
        at.shifted(self.coarse, self.more)
    }

    /// Whether this cell begins at an address.
    fn is_begin(&self, nth: u32, address: B) -> bool {
        let at = self.at(address);
        self.tells(address) && self.nth(at) == nth && at.is_multiple(self.coarse)
    }

    /// Whether it tells an address from all others in its cell.
    fn tells(&self, address: B) -> bool {
        address.is_multiple(self.fine)
    }

    /// In how many cells something starts.
    fn used<A>(&self, ranges: &[Range<B, A>]) -> u32 {
        let (mut used, mut last) = (0, None);
        for range in &ranges[1..] {
            let nth = self.nth(self.at(range.start));
            used += u32::from(last.replace(nth) != Some(nth));
        }
        used
    }
}
