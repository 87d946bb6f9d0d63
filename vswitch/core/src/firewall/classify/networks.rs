//! From networks that nest to intervals of addresses, and for each of those the remotes that cover it.
//!
//! The remotes of an interval are listed in one order for all: first those that cover the most intervals, so that
//! lists begin alike and what is compiled for their beginnings is shared. Of two networks the inner one covers no more
//! than the outer one: what it adds mostly comes last.

use super::intervals::Number;

/// A remote: its place among lists of networks.
pub(super) type Remote = u32;

/// Networks, and the remotes that name each.
#[derive(Debug)]
pub(super) struct Networks<N> {
    /// Rising by start and length: an outer one is before those that lie in it.
    networks: Vec<Network<N>>,
    /// What `networks` name, without what an outer one names as well.
    remotes: Vec<Remote>,
    /// By remote, its place in the order of all lists.
    ranks: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Network<N> {
    start: N,
    last: N,
    /// Where its remotes begin and end in `remotes`.
    begin: usize,
    end: usize,
}

impl<N: Number> Networks<N> {
    /// Of (start, length, remote) in any order, of so many remotes.
    pub(super) fn new(mut named: Vec<(N, u8, Remote)>, count: usize) -> Self {
        named.sort_unstable();
        named.dedup();
        let mut networks = Self { networks: Vec::new(), remotes: Vec::new(), ranks: Vec::new() };
        let mut coverage = vec![0u32; count];
        let mut is_outside = vec![true; count];
        // Those that the current one lies in, with their places.
        let mut outer: Vec<(usize, Network<N>)> = Vec::new();
        for named in named.chunk_by(|one, other| (one.0, one.1) == (other.0, other.1)) {
            let (start, len, _) = named[0];
            while let Some((place, _)) = outer.pop_if(|(_, outer)| outer.last < start) {
                networks.leave(place, &mut coverage, &mut is_outside);
            }
            let begin = networks.remotes.len();
            for (_, _, remote) in named {
                if std::mem::take(&mut is_outside[*remote as usize]) {
                    networks.remotes.push(*remote);
                }
            }
            let network = Network { start, last: start.network_end(len), begin, end: networks.remotes.len() };
            outer.push((networks.networks.len(), network));
            networks.networks.push(network);
        }
        while let Some((place, _)) = outer.pop() {
            networks.leave(place, &mut coverage, &mut is_outside);
        }
        networks.rank(&coverage);
        networks
    }

    /// Notes how many networks lie in the one of this place, itself included: all from it on.
    fn leave(&self, place: usize, coverage: &mut [u32], is_outside: &mut [bool]) {
        let Network { begin, end, .. } = self.networks[place];
        for remote in &self.remotes[begin..end] {
            coverage[*remote as usize] += (self.networks.len() - place) as u32;
            is_outside[*remote as usize] = true;
        }
    }

    fn rank(&mut self, coverage: &[u32]) {
        let mut order: Vec<usize> = (0..coverage.len()).collect();
        // In order of appearance where they cover as much: an outer one appears before an inner one.
        let mut seen = vec![usize::MAX; coverage.len()];
        for (place, remote) in self.remotes.iter().enumerate().rev() {
            seen[*remote as usize] = place;
        }
        order.sort_unstable_by_key(|remote| (u32::MAX - coverage[*remote], seen[*remote]));
        self.ranks = vec![0; coverage.len()];
        for (rank, remote) in (0..).zip(order) {
            self.ranks[remote] = rank;
        }
    }

    /// The intervals that the networks make, rising, each with its value: what `add` makes of the outer list's value and
    /// one remote more. That of the empty list is 0. Neighbours with one value are one interval.
    ///
    /// # Errors
    /// What `add` says.
    pub(super) fn intervals<E>(
        &self,
        mut add: impl FnMut(u32, Remote) -> Result<u32, E>,
    ) -> Result<Vec<(N, u32)>, E> {
        let mut intervals = vec![(N::LEAST, 0)];
        // The remotes of where we are, and the value of the list up to each.
        let mut list = Vec::new();
        // The networks that we are in: their last addresses, and what to do when they are left.
        let mut outer: Vec<(N, Undo)> = Vec::new();
        for network in &self.networks {
            while let Some((last, undo)) = outer.pop_if(|(last, _)| *last < network.start) {
                undo.apply(&mut list);
                close(&mut intervals, last, value(&list));
            }
            let undo = self.extend(&mut list, &self.remotes[network.begin..network.end], &mut add)?;
            outer.push((network.last, undo));
            push(&mut intervals, network.start, value(&list));
        }
        while let Some((last, undo)) = outer.pop() {
            undo.apply(&mut list);
            close(&mut intervals, last, value(&list));
        }
        Ok(intervals)
    }

    /// Adds remotes to a list, each in its place.
    fn extend<E>(
        &self,
        list: &mut List,
        remotes: &[Remote],
        add: &mut impl FnMut(u32, Remote) -> Result<u32, E>,
    ) -> Result<Undo, E> {
        let rank = |remote: Remote| self.ranks[remote as usize];
        let first = remotes.iter().map(|remote| rank(*remote)).min().unwrap_or(u32::MAX);
        let kept = list.partition_point(|(remote, _)| rank(*remote) < first);
        let rest = list.split_off(kept);
        let mut changed = [&rest.iter().map(|(remote, _)| *remote).collect::<Vec<_>>(), remotes].concat();
        changed.sort_unstable_by_key(|remote| rank(*remote));
        for remote in changed {
            let value = add(value(list), remote)?;
            list.push((remote, value));
        }
        Ok(Undo { kept, rest })
    }
}

type List = Vec<(Remote, u32)>;

/// What makes a list what it was before it was extended: so much of it, and the rest.
struct Undo {
    kept: usize,
    rest: List,
}

impl Undo {
    fn apply(self, list: &mut List) {
        list.truncate(self.kept);
        list.extend(self.rest);
    }
}

fn value(list: &List) -> u32 {
    list.last().map_or(0, |(_, value)| *value)
}

/// Behind the end of a network its outer one goes on.
fn close<N: Number>(intervals: &mut Vec<(N, u32)>, last: N, value: u32) {
    if let Some(start) = last.next() {
        push(intervals, start, value);
    }
}

fn push<N: Number>(intervals: &mut Vec<(N, u32)>, start: N, value: u32) {
    // An inner network may begin where its outer one does.
    intervals.pop_if(|(before, _)| *before == start);
    if intervals.last().is_none_or(|(_, before)| *before != value) {
        intervals.push((start, value));
    }
}
