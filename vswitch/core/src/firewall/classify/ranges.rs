//! First-match over ranges of ports: persistent sets, of which a changed one shares what did not change.
//!
//! A set is a tree, and a list of few ranges beside it. What is added goes to the list, one cache line, and only when
//! that is full to the tree: so the many classes that add little to what holds for everybody share one tree, and both
//! are asked at once. A tree branches by the highest five bits of the number, those branches by the next five, and the
//! last six have a table; where there is little below, there is a list instead. A range that covers a whole branch leaves
//! its mark there, not in all that is below, so that adding it changes at most two nodes a level.

use super::mark::Mark;

/// Numbers (ports, or ICMP types and codes) that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) mark: Mark,
}

/// Some ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Set {
    tree: Node,
    /// A list, or nothing.
    few: Node,
}

impl Set {
    pub(super) const EMPTY: Self = Self { tree: Node::EMPTY, few: Node::EMPTY };
}

/// A node: its kind in the two highest bits, and its place among those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node(u32);

const PLACE_BITS: u32 = 30;

/// What a node is.
enum Kind {
    Nothing,
    Few(usize),
    Branches(usize),
    Table(usize),
}

impl Node {
    const EMPTY: Self = Self(0);

    const fn few(place: usize) -> Self {
        Self(1 << PLACE_BITS | place as u32)
    }

    const fn branches(place: usize) -> Self {
        Self(2 << PLACE_BITS | place as u32)
    }

    const fn table(place: usize) -> Self {
        Self(3 << PLACE_BITS | place as u32)
    }

    #[inline]
    const fn kind(self) -> Kind {
        let place = (self.0 & ((1 << PLACE_BITS) - 1)) as usize;
        match self.0 >> PLACE_BITS {
            0 => Kind::Nothing,
            1 => Kind::Few(place),
            2 => Kind::Branches(place),
            _ => Kind::Table(place),
        }
    }
}

/// Ranges in no order; those that are not there hold no number.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Few([Range; FEW]);

const FEW: usize = 8;

/// By the next five bits: the first rule of those that cover the whole branch, and the tree of the others.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Branches([(Mark, Node); 32]);

/// By the last six bits.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Table([Mark; 64]);

/// How far a number is shifted for its branch, by level; below the last are tables.
const SHIFTS: [u32; 2] = [11, 6];

/// The nodes of all trees of a classifier.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    few: Vec<Few>,
    branches: Vec<Branches>,
    tables: Vec<Table>,
}

impl Ranges {
    /// The first rule of those whose ranges hold the number.
    #[inline]
    pub(super) fn first(&self, set: Set, number: u16) -> Mark {
        let Set { mut tree, few } = set;
        let mut first = match few.kind() {
            Kind::Few(place) => self.few[place].first(number),
            _ => Mark::NONE,
        };
        for shift in SHIFTS {
            let Kind::Branches(place) = tree.kind() else { break };
            let (mark, below) = self.branches[place].0[usize::from(number >> shift) % 32];
            first = first.min(mark);
            tree = below;
        }
        match tree.kind() {
            Kind::Nothing | Kind::Branches(_) => first,
            Kind::Few(place) => first.min(self.few[place].first(number)),
            Kind::Table(place) => first.min(self.tables[place].0[usize::from(number) % 64]),
        }
    }

    /// That set and these ranges.
    pub(super) fn add(&mut self, Set { tree, few }: Set, added: &[Range]) -> Set {
        if added.is_empty() {
            return Set { tree, few };
        }
        let ranges = [&self.listed(few), added].concat();
        if ranges.len() <= FEW {
            return Set { tree, few: self.list(&ranges) };
        }
        Set { tree: self.add_below(tree, &ranges, 0), few: Node::EMPTY }
    }

    /// The ranges of a list; none of any other node.
    fn listed(&self, node: Node) -> Vec<Range> {
        let Kind::Few(place) = node.kind() else { return Vec::new() };
        self.few[place].0.iter().filter(|range| !range.is_empty()).copied().collect()
    }

    fn list(&mut self, ranges: &[Range]) -> Node {
        self.few.push(Few(std::array::from_fn(|n| ranges.get(n).copied().unwrap_or(Range::EMPTY))));
        Node::few(self.few.len() - 1)
    }

    /// The tree of this level and some ranges, which are not longer than what it is about.
    fn add_below(&mut self, tree: Node, added: &[Range], level: usize) -> Node {
        let ranges = [&self.listed(tree), added].concat();
        match (tree.kind(), SHIFTS.get(level)) {
            (Kind::Nothing | Kind::Few(_), _) if ranges.len() <= FEW => self.list(&ranges),
            (kind, Some(shift)) => {
                let before = match kind {
                    Kind::Branches(place) => self.branches[place],
                    _ => Branches([(Mark::NONE, Node::EMPTY); 32]),
                };
                let branches = self.add_to_branches(before, &ranges, level, *shift);
                self.branches.push(branches);
                Node::branches(self.branches.len() - 1)
            }
            (kind, None) => {
                let mut table = match kind {
                    Kind::Table(place) => self.tables[place],
                    _ => Table([Mark::NONE; 64]),
                };
                for range in ranges {
                    let marks = &mut table.0[usize::from(range.first % 64)..=usize::from(range.last % 64)];
                    marks.iter_mut().for_each(|mark| *mark = range.mark.min(*mark));
                }
                self.tables.push(table);
                Node::table(self.tables.len() - 1)
            }
        }
    }

    fn add_to_branches(
        &mut self,
        Branches(mut branches): Branches,
        ranges: &[Range],
        level: usize,
        shift: u32,
    ) -> Branches {
        let mask = (1 << shift) - 1;
        let branch = |number: u16| usize::from(number >> shift) % 32;
        let mut parts = Vec::new();
        for range in ranges {
            let (mut whole, behind) = (branch(range.first), branch(range.last) + 1);
            // Its ends may lie inside of branches, or both in the same one.
            if range.first & mask != 0 {
                parts.push((whole, Range { last: range.last.min(range.first | mask), ..*range }));
                whole += 1;
            }
            let mut whole_end = behind;
            if whole < behind && range.last & mask != mask {
                parts.push((behind - 1, Range { first: range.last & !mask, ..*range }));
                whole_end -= 1;
            }
            branches[whole..whole_end].iter_mut().for_each(|(mark, _)| *mark = range.mark.min(*mark));
        }
        // What a rule before it covers wholly never decides there.
        parts.retain(|(branch, range)| range.mark < branches[*branch].0);
        parts.sort_by_key(|(branch, _)| *branch);
        for parts in parts.chunk_by(|one, other| one.0 == other.0) {
            let ranges: Vec<Range> = parts.iter().map(|(_, range)| *range).collect();
            let (_, below) = &mut branches[parts[0].0];
            *below = self.add_below(*below, &ranges, level + 1);
        }
        Branches(branches)
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.few[..]) + size_of_val(&self.branches[..]) + size_of_val(&self.tables[..])
    }

    /// Gives back the room that growing left.
    pub(super) fn shrink(&mut self) {
        self.few.shrink_to_fit();
        self.branches.shrink_to_fit();
        self.tables.shrink_to_fit();
    }
}

impl Range {
    const EMPTY: Self = Self { first: 1, last: 0, mark: Mark::NONE };

    const fn is_empty(self) -> bool {
        self.first > self.last
    }
}

impl Few {
    #[inline]
    fn first(&self, number: u16) -> Mark {
        let holds = |range: &&Range| range.first <= number && number <= range.last;
        self.0.iter().filter(holds).map(|range| range.mark).min().unwrap_or(Mark::NONE)
    }
}
