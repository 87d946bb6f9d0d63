//! Where an address is among many ranges, in two steps or few more.
//!
//! A grid divides the addresses about the starts of its ranges into cells of one size, a power of two: which cell an address is in is a subtraction and
//! a shift. There are about as many cells as ranges, so that in most of them few ranges start, which are compared one by one. Where many do, the cell has a
//! grid of its own. So a table has the size of what is in it, and it is no matter how long the prefixes are.
//!
//! Where many routes lead to few routers, and have lengths that are usual, a cell is larger and has a pattern: in each of its 64 parts one of two answers holds. So a
//! million routes are in two words for each 64 networks, and fewer lines of memory have to be waited for.
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

/// As a number of ranges: it has a pattern, whose place is below.
const PATTERN: u32 = 5;

/// Bits of an address that tell in which part of its cell it is.
const PARTS: u32 = 6;

/// How many times as large cells with patterns are, at most, as a power of two.
const LARGER: u32 = 4;

/// Ranges that a grid has at least if its cells have patterns: less is as near in any way.
const MANY: usize = 1 << 12;

/// An answer for each address.
#[derive(Debug)]
pub struct Table<B: Bits, A> {
    root: Grid<B>,
    grids: Vec<Grid<B>>,
    /// Of all grids: [`DIVIDED`] and the place of a grid, or [`COUNT`].
    cells: Vec<u32>,
    /// Of all grids, rising in each, behind the range in which it begins. At the end there are as many more as a cell may have.
    starts: Vec<Start<A>>,
    patterns: Vec<Pattern<A>>,
}

/// Which of two answers holds in each part of a cell.
#[derive(Debug, Clone, Copy)]
struct Pattern<A> {
    /// From the first on: the second answer.
    parts: u64,
    answers: [A; 2],
}

/// Cells that follow each other.
#[derive(Debug, Clone, Copy)]
struct Grid<B> {
    /// The first address.
    base: B,
    /// How many bits of an address do not tell it from others in its cell.
    fine: u32,
    /// How many bits of the rest tell where it is within a cell, and how many of 32 do not.
    coarse: u32,
    left: u32,
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

impl<B: Bits, A: Copy + PartialEq> Table<B, A> {
    /// A table of these ranges, of which the first begins at zero.
    pub(super) fn new(ranges: &[Range<B, A>]) -> Self {
        let mut table = Self {
            root: Grid::NOTHING,
            grids: Vec::new(),
            cells: Vec::new(),
            starts: Vec::new(),
            patterns: Vec::new(),
        };
        table.root = table.lay(ranges);
        table.starts.extend([Start { at: 0, answer: ranges[0].answer }; 1 + WITHIN]);
        table.grids.shrink_to_fit();
        table.cells.shrink_to_fit();
        table.starts.shrink_to_fit();
        table.patterns.shrink_to_fit();
        table
    }

    /// Bytes that it has.
    pub fn size(&self) -> usize {
        let steps = size_of_val(&self.grids[..]) + size_of_val(&self.cells[..]);
        steps + size_of_val(&self.starts[..]) + size_of_val(&self.patterns[..])
    }

    /// The answer for an address.
    #[inline]
    pub fn find(&self, address: B) -> A {
        let mut stand = self.step(&self.root, address);
        while stand.cell & DIVIDED != 0 {
            stand = self.step(&self.grids[(stand.cell & !DIVIDED) as usize], address);
        }
        self.answer(stand)
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
            loaded ^= if stand.count() == PATTERN {
                self.patterns[stand.place()].parts as u32
            } else {
                self.starts[stand.place()].at ^ self.starts[stand.place() + WITHIN].at
            };
        }
        std::hint::black_box(loaded);
        for (answer, stand) in answers.iter_mut().zip(&stands[..count]) {
            *answer = self.answer(*stand);
        }
    }

    /// The cell of a grid in which an address is.
    #[inline(always)]
    fn step(&self, grid: &Grid<B>, address: B) -> Stand {
        let (place, at) = grid.place(address);
        Stand { cell: self.cells[place as usize], at }
    }

    #[inline(always)]
    fn answer(&self, stand: Stand) -> A {
        if stand.count() == PATTERN {
            let Pattern { parts, answers } = &self.patterns[stand.place()];
            return answers[(parts >> stand.part()) as usize & 1];
        }
        let near = &self.starts[stand.place()..stand.place() + 1 + WITHIN];
        near[stand.passed(near)].answer
    }

    /// Lays out a grid for all of these but the first, which is where it begins.
    fn lay(&mut self, ranges: &[Range<B, A>]) -> Grid<B> {
        let mut grid = Grid::of(ranges);
        let larger = grid.with_patterns(ranges);
        let has_patterns = larger.is_some();
        grid = larger.unwrap_or(grid);
        grid.first = self.cells.len() as u32;
        self.cells.resize(self.cells.len() + grid.more as usize + 1, 0);
        let begin = self.starts.len();
        if !has_patterns {
            self.add_starts(&grid, ranges);
        }
        grid.each_cell(ranges, |nth, passed, within| {
            let cell = if has_patterns && let Some(pattern) = grid.pattern(within) {
                self.patterns.push(pattern);
                PATTERN << COUNT | (self.patterns.len() - 1) as u32
            } else if within.len() <= 1 + WITHIN && within[1..].iter().all(|range| grid.tells(range.start)) {
                let place = if has_patterns { self.add_starts(&grid, within) } else { begin + passed - 1 };
                (within.len() as u32 - 1) << COUNT | place as u32
            } else {
                let grid = self.lay(within);
                self.grids.push(grid);
                DIVIDED | (self.grids.len() - 1) as u32
            };
            self.cells[(grid.first + nth) as usize] = cell;
        });
        grid
    }

    /// Where these are, as the cells of a grid have them.
    fn add_starts(&mut self, grid: &Grid<B>, ranges: &[Range<B, A>]) -> usize {
        let begin = self.starts.len();
        let start = |range: &Range<B, A>| Start { at: grid.place(range.start).1, answer: range.answer };
        self.starts.extend(ranges.iter().map(start));
        begin
    }
}

impl Stand {
    /// The place of the range in which its cell begins.
    #[inline(always)]
    fn place(self) -> usize {
        (self.cell & !(u32::MAX << COUNT)) as usize
    }

    /// How many start in it, or [`PATTERN`].
    #[inline(always)]
    fn count(self) -> u32 {
        self.cell >> COUNT
    }

    /// In which part of it the address is.
    #[inline(always)]
    fn part(self) -> u32 {
        self.at >> (u32::BITS - PARTS)
    }

    /// Which of these the address is in.
    #[inline(always)]
    fn passed<A>(self, near: &[Start<A>]) -> usize {
        let count = self.count();
        (0..).zip(&near[1..]).map(|(n, start)| usize::from((n < count) & (start.at <= self.at))).sum()
    }
}

impl<B: Bits> Grid<B> {
    /// In which nothing starts.
    const NOTHING: Self = Self { base: B::ZERO, fine: 0, coarse: 0, left: 0, first: 0, more: 0 };

    /// One for all of these but the first: about as many cells as there are starts, if these are not in few of them.
    fn of<A>(ranges: &[Range<B, A>]) -> Self {
        let (Some(low), Some(high)) = (ranges.get(1), ranges.last()) else { return Self::NOTHING };
        let wanted = ranges.len().ilog2() + 1;
        let mut size = high.start.behind(low.start).width().saturating_sub(wanted);
        loop {
            let grid = Self::sized(size, low.start, high.start);
            let width = high.start.behind(grid.base).width();
            if width.saturating_sub(size) <= LEAST || grid.used(ranges).saturating_mul(SPARSE) > grid.more {
                return grid;
            }
            size += 1;
        }
    }

    /// With cells of this size, a power of two, for starts between these.
    fn sized(size: u32, low: B, high: B) -> Self {
        // Before all of them, so that what is before the grid is told from them; and aligned, so that they start where cells do.
        let base = low.before(size);
        let fine = size.saturating_sub(u32::BITS);
        let coarse = size - fine;
        let left = (u32::BITS - coarse).min(u32::BITS - 1);
        let grid = Self { base, fine, coarse, left, first: 0, more: u32::MAX };
        Self { more: grid.nth(grid.at(high)) + 1, ..grid }
    }

    /// The same with larger cells, of which nearly all have patterns; none if there are not so many.
    fn with_patterns<A: Copy + PartialEq>(&self, ranges: &[Range<B, A>]) -> Option<Self> {
        let (low, high) = (ranges.get(1)?, ranges.last()?);
        (1..=LARGER).rev().filter(|_| ranges.len() >= MANY).find_map(|larger| {
            let size = self.fine + self.coarse + larger;
            let grid = Self::sized(size, low.start, high.start);
            let mut others = 0;
            grid.each_cell(ranges, |_, _, within| {
                others += if grid.pattern(within).is_some() { 0 } else { within.len() };
            });
            (others < ranges.len() / 16).then_some(grid)
        })
    }

    /// What holds in the parts of a cell, if that are two answers, and each range of it begins where a part does: the first is where the cell begins.
    fn pattern<A: Copy + PartialEq>(&self, within: &[Range<B, A>]) -> Option<Pattern<A>> {
        let first = within[0].answer;
        let other = within.iter().find(|range| range.answer != first).map_or(first, |range| range.answer);
        let size = (self.fine + self.coarse).checked_sub(PARTS)?;
        let mut parts = 0;
        for range in &within[1..] {
            if !range.start.is_multiple(size) || (range.answer != first && range.answer != other) {
                return None;
            }
            let behind = u64::MAX << (self.place(range.start).1 >> (u32::BITS - PARTS));
            parts = if range.answer == first { parts & !behind } else { parts | behind };
        }
        Some(Pattern { parts, answers: [first, other] })
    }

    /// Gives each cell its place, how many ranges are passed when it begins, and the last of these with those that start within.
    fn each_cell<A>(&self, ranges: &[Range<B, A>], mut cell: impl FnMut(u32, usize, &[Range<B, A>])) {
        let mut passed = 1;
        for nth in 0..=self.more {
            while ranges.get(passed).is_some_and(|range| self.is_begin(nth, range.start)) {
                passed += 1;
            }
            let is_here = |range: &&Range<B, A>| self.nth(self.at(range.start)) == nth;
            let here = ranges[passed..].iter().take_while(is_here).count();
            cell(nth, passed, &ranges[passed - 1..passed + here]);
            passed += here;
        }
    }

    /// The place of the cell in which an address is, and the address as its cell has it.
    #[inline(always)]
    fn place(&self, address: B) -> (u32, u32) {
        let at = self.at(address);
        (self.first + self.nth(at), at.low() << (self.left % u32::BITS))
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
