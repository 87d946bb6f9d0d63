//! The rules for packets of one IP version.

use super::{
    CompileError, MAX_BYTES, Source, Uncompilable,
    intervals::{Intervals, Number},
    mark::Mark,
    networks::{Networks, Remote},
    ranges::{Range, Ranges, Set},
};
use crate::firewall::{policy::Version, tuple::IpTuple};
use ipnet::IpNet;
use std::collections::HashMap;

/// Addresses in classes, and for each class and protocol the rules.
#[derive(Debug)]
pub(super) struct Family<N> {
    /// The address's class: where its cells begin.
    classes: Intervals<N>,
    /// By protocol, its cell in each class. The first is that of protocols that no rule names.
    columns: [u16; 256],
    cells: Box<[Cell]>,
    /// By cell, a bit: whether a rule that names ports stands before the first that names none.
    named_first: Box<[u64]>,
}

/// The rules for one class and protocol.
#[derive(Debug, Clone, Copy)]
struct Cell {
    /// The first of those that name no ports.
    whole: Mark,
    /// Those that do.
    ranges: Set,
}

impl Cell {
    const EMPTY: Self = Self { whole: Mark::NONE, ranges: Set::EMPTY };
}

/// An address family.
pub(super) trait Address: Number {
    /// Its version of IP.
    const VERSION: Version;

    /// Start and length of a network of this family.
    fn network(network: &IpNet) -> Option<(Self, u8)>;
}

impl Address for u32 {
    const VERSION: Version = Version::V4;

    fn network(network: &IpNet) -> Option<(Self, u8)> {
        match network {
            IpNet::V4(network) => Some((network.network().to_bits(), network.prefix_len())),
            IpNet::V6(_) => None,
        }
    }
}

impl Address for u128 {
    const VERSION: Version = Version::V6;

    fn network(network: &IpNet) -> Option<(Self, u8)> {
        match network {
            IpNet::V4(_) => None,
            IpNet::V6(network) => Some((network.network().to_bits(), network.prefix_len())),
        }
    }
}

impl<N: Address> Family<N> {
    /// The first rule that matches the packet, whose remote end is `address`.
    #[inline]
    pub(super) fn first(&self, address: N, ip: &IpTuple, ranges: &Ranges) -> Mark {
        let cell = &self.cells[self.cell(address, ip)];
        match ip.service.number() {
            Some(number) => cell.whole.min(ranges.first(cell.ranges, number)),
            None => cell.whole,
        }
    }

    /// The first rule that matches the packet whatever its ports or ICMP type are; none if a rule that names such stands before it.
    pub(super) fn first_of_any(&self, address: N, ip: &IpTuple) -> Option<Mark> {
        let cell = self.cell(address, ip);
        let is_named_first = self.named_first[cell / 64] >> (cell % 64) & 1 != 0;
        (!is_named_first).then(|| self.cells[cell].whole)
    }

    #[inline(always)]
    fn cell(&self, address: N, ip: &IpTuple) -> usize {
        let column = usize::from(self.columns[usize::from(ip.protocol)]);
        self.classes.value(address) as usize + column
    }

    pub(super) fn compile(
        source: &Source,
        ranges: &mut Ranges,
        steps: &mut usize,
    ) -> Result<Self, CompileError> {
        let (columns, width) = columns::<N>(source);
        let rules = Additions::of_remotes::<N>(source, &columns);
        let mut classes = Classes {
            width,
            cells: vec![Cell::EMPTY; width],
            named: vec![Mark::NONE; width],
            known: HashMap::new(),
            ranges,
            steps,
        };
        // Rules for any address are in every class.
        let [anybody, remotes @ ..] = &rules[..] else { unreachable!("there is one more list than remotes") };
        classes.change(0, anybody)?;
        let mut named = Vec::new();
        for (remote, (networks, rules)) in (0..).zip(source.remotes().iter().zip(remotes)) {
            if !rules.is_empty() {
                named.extend(networks.iter().filter_map(N::network).map(|(start, len)| (start, len, remote)));
            }
        }
        let networks = Networks::new(named, remotes.len());
        let intervals =
            networks.intervals(|class, remote| classes.add(class, remote, &remotes[remote as usize]))?;
        let named_first = classes.named_first();
        Ok(Self { classes: Intervals::new(&intervals), columns, cells: classes.cells.into(), named_first })
    }

    pub(super) fn bytes(&self) -> usize {
        self.classes.bytes() + size_of_val(&self.cells[..]) + size_of_val(&self.named_first[..])
    }
}

/// By protocol, the column of those that rules name; and how many columns there are.
fn columns<N: Address>(source: &Source) -> ([u16; 256], usize) {
    let mut columns = [0; 256];
    let mut width = 1;
    for rule in source.rules().iter().filter(|rule| rule.is_for(N::VERSION)) {
        if let Some(protocol) = rule.protocol(N::VERSION)
            && columns[usize::from(protocol)] == 0
        {
            columns[usize::from(protocol)] = width;
            width += 1;
        }
    }
    (columns, width.into())
}

/// The rules of one remote.
#[derive(Debug, Clone, Default)]
struct Additions {
    /// The first for any protocol.
    any: Option<Mark>,
    /// Those that name one, by column.
    columns: Vec<(usize, Addition)>,
}

/// The rules of one remote for one protocol.
#[derive(Debug, Clone, Default)]
struct Addition {
    whole: Option<Mark>,
    ranges: Vec<Range>,
}

impl Additions {
    /// By remote, behind those for any address.
    fn of_remotes<N: Address>(source: &Source, columns: &[u16; 256]) -> Vec<Self> {
        let mut all = vec![Self::default(); source.remotes().len() + 1];
        for rule in source.rules().iter().filter(|rule| rule.is_for(N::VERSION)) {
            let additions = &mut all[rule.remote.map_or(0, |remote| remote as usize + 1)];
            let Some(protocol) = rule.protocol(N::VERSION) else {
                // Rules come in order: the first one is the first for ever.
                additions.any.get_or_insert(rule.mark);
                continue;
            };
            let addition = additions.column(columns[usize::from(protocol)].into());
            let before = addition.ranges.len();
            let range = |(first, last)| Range { first, last, mark: rule.mark };
            addition.ranges.extend(rule.numbers().map(range));
            if addition.ranges.len() == before {
                addition.whole.get_or_insert(rule.mark);
            }
        }
        all
    }

    fn column(&mut self, column: usize) -> &mut Addition {
        let at = self.columns.binary_search_by_key(&column, |(column, _)| *column).unwrap_or_else(|at| {
            self.columns.insert(at, (column, Addition::default()));
            at
        });
        &mut self.columns[at].1
    }

    fn is_empty(&self) -> bool {
        self.any.is_none() && self.columns.is_empty()
    }
}

const TOO_COMPLEX: CompileError = CompileError { rule: None, why: Uncompilable::TooComplex };

/// Classes as they come up. One is known by where its cells begin.
struct Classes<'a> {
    width: usize,
    cells: Vec<Cell>,
    /// By cell, the first of the rules that name ports.
    named: Vec<Mark>,
    /// What another class and one remote more make.
    known: HashMap<(u32, Remote), u32>,
    ranges: &'a mut Ranges,
    steps: &'a mut usize,
}

impl Classes<'_> {
    /// The class of addresses that are of this class and of one remote more, with these rules.
    fn add(&mut self, class: u32, remote: Remote, rules: &Additions) -> Result<u32, CompileError> {
        if let Some(known) = self.known.get(&(class, remote)) {
            *self.steps = self.steps.checked_sub(1).ok_or(TOO_COMPLEX)?;
            return Ok(*known);
        }
        let begin = class as usize;
        let added = self.cells.len() as u32;
        self.cells.extend_from_within(begin..begin + self.width);
        self.named.extend_from_within(begin..begin + self.width);
        self.known.insert((class, remote), added);
        self.change(added, rules)?;
        Ok(added)
    }

    /// Adds the rules to a class from which no other has come yet.
    fn change(&mut self, class: u32, rules: &Additions) -> Result<(), CompileError> {
        let begin = class as usize;
        let placed = rules.columns.iter().map(|(_, addition)| addition.ranges.len() + 1).sum::<usize>();
        let bytes = size_of_val(&self.cells[..]) + self.ranges.bytes();
        *self.steps = match self.steps.checked_sub(placed + self.width) {
            Some(left) if bytes <= MAX_BYTES => left,
            _ => return Err(TOO_COMPLEX),
        };
        let cells = &mut self.cells[begin..begin + self.width];
        if let Some(any) = rules.any {
            cells.iter_mut().for_each(|cell| cell.whole = cell.whole.min(any));
        }
        for (column, Addition { whole, ranges }) in &rules.columns {
            let cell = &mut cells[*column];
            cell.whole = cell.whole.min(whole.unwrap_or(Mark::NONE));
            // Behind a rule for all ports, ranges never decide.
            let used = ranges.partition_point(|range| range.mark < cell.whole);
            cell.ranges = self.ranges.add(cell.ranges, &ranges[..used]);
            // Rules come in order.
            let first = ranges[..used].first().map_or(Mark::NONE, |range| range.mark);
            self.named[begin + column] = self.named[begin + column].min(first);
        }
        Ok(())
    }

    fn named_first(&self) -> Box<[u64]> {
        let mut bits = vec![0; self.cells.len().div_ceil(64)];
        for (at, (cell, named)) in self.cells.iter().zip(&self.named).enumerate() {
            bits[at / 64] |= u64::from(*named < cell.whole) << (at % 64);
        }
        bits.into()
    }
}
