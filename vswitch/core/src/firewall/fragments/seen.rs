//! What was seen of a datagram, and whether one more part fits it.

/// How many parts that do not touch each other are told apart: in order there is one.
const RUNS: usize = 4;

/// Bytes of a unit: offsets count in them (RFC 791 §3.1, RFC 8200 §4.5).
pub(super) const UNIT: u32 = 8;

/// The part of a datagram that a fragment carries, in units; of the last one the end is rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    run: Run,
    is_last: bool,
}

impl Part {
    /// From one byte of the datagram to before the other, both of 16 bits.
    pub(super) const fn new(from: u32, to: u32, is_last: bool) -> Self {
        Self { run: Run { from: (from / UNIT) as u16, to: to.div_ceil(UNIT) as u16 }, is_last }
    }
}

/// Units without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Run {
    from: u16,
    /// Behind the last; 0: none at all.
    to: u16,
}

/// All that was seen of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seen {
    /// In no order. None touches another.
    runs: [Run; RUNS],
    /// Units of the whole datagram; 0: its last part was not seen.
    total: u16,
}

/// How a part fits what was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is new, and this is what was seen with it.
    New(Seen),
    /// It is new, and nothing is missing any more.
    Completes,
    /// All of it was seen: perhaps the network doubled it.
    Doubles,
    /// A part of it was seen, or it contradicts where the datagram ends.
    Overlaps,
    /// It is new, and there are more gaps than are kept.
    Scatters,
}

impl Seen {
    /// Whether the first part was seen.
    pub(super) fn begins(&self) -> bool {
        self.runs.iter().any(|run| run.from == 0 && run.to > 0)
    }

    pub(super) fn with(self, part: Part) -> Fit {
        let Part { mut run, is_last } = part;
        let runs = || self.runs.iter().filter(|seen| seen.to > 0);
        if runs().any(|seen| seen.from <= run.from && run.to <= seen.to) {
            return Fit::Doubles;
        }
        let crosses = runs().any(|seen| seen.from < run.to && run.from < seen.to);
        let is_behind_end = self.total > 0 && run.to > self.total;
        let ends_before = is_last && runs().any(|seen| run.to < seen.to);
        if crosses || is_behind_end || ends_before {
            return Fit::Overlaps;
        }
        let mut after = Self { total: if is_last { run.to } else { self.total }, ..Self::default() };
        let mut kept = 0;
        for seen in runs() {
            if seen.to == run.from {
                run.from = seen.from;
            } else if run.to == seen.from {
                run.to = seen.to;
            } else {
                after.runs[kept] = *seen;
                kept += 1;
            }
        }
        if run == (Run { from: 0, to: after.total }) {
            return Fit::Completes;
        }
        let Some(free) = after.runs.get_mut(kept) else { return Fit::Scatters };
        *free = run;
        Fit::New(after)
    }

    /// As words that are kept: the runs, and the total.
    pub(super) fn words(&self) -> ([u64; 2], u16) {
        let [a, b, c, d] = self.runs.map(|run| u64::from(run.from) << 16 | u64::from(run.to));
        ([a << 32 | b, c << 32 | d], self.total)
    }

    pub(super) fn from_words([front, back]: [u64; 2], total: u16) -> Self {
        let runs = [front >> 32, front, back >> 32, back];
        Self { runs: runs.map(|word| Run { from: (word >> 16) as u16, to: word as u16 }), total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of these parts, one after the other, each in units: `true` behind the last.
    fn all(parts: &[(u32, u32, bool)]) -> (Seen, Fit) {
        let mut seen = Seen::default();
        let mut fit = Fit::Doubles;
        for (from, to, is_last) in parts {
            fit = seen.with(Part::new(from * UNIT, to * UNIT, *is_last));
            if let Fit::New(after) = fit {
                seen = after;
            }
        }
        (seen, fit)
    }

    #[test]
    fn parts_complete_a_datagram_in_any_order() {
        let parts = [(0, 3, false), (3, 6, false), (6, 9, false), (9, 10, true)];
        let orders = (0..4).flat_map(|a| (0..4).map(move |b| (a, b))).filter(|(a, b)| a != b);
        for (a, b) in orders {
            let rest: Vec<usize> = (0..4).filter(|n| *n != a && *n != b).collect();
            for last_two in [[rest[0], rest[1]], [rest[1], rest[0]]] {
                let order = [a, b, last_two[0], last_two[1]].map(|n| parts[n]);
                assert!(matches!(all(&order[..3]).1, Fit::New(_)), "{order:?}");
                assert_eq!(all(&order).1, Fit::Completes, "{order:?}");
            }
        }
    }

    #[test]
    fn what_was_seen_is_doubled_or_overlapped() {
        let seen = [(0, 4, false), (8, 12, false)];
        let then = |part| all(&[seen[0], seen[1], part]).1;
        for part in [(0, 4, false), (1, 3, false), (8, 12, false), (11, 12, true)] {
            assert_eq!(then(part), Fit::Doubles, "{part:?}");
        }
        for part in [(0, 5, false), (3, 5, false), (7, 9, false), (4, 9, false), (3, 13, true), (0, 20, true)]
        {
            assert_eq!(then(part), Fit::Overlaps, "{part:?}");
        }
        assert_eq!(then((5, 6, true)), Fit::Overlaps, "it ends before what was seen");
        assert_eq!(all(&[(0, 4, false), (8, 9, true), (9, 10, false)]).1, Fit::Overlaps, "behind its end");
        assert_eq!(all(&[(0, 4, false), (8, 9, true), (9, 10, true)]).1, Fit::Overlaps, "it ends twice");
    }

    #[test]
    fn gaps_are_kept_up_to_a_number() {
        let scattered = [(0, 1, false), (2, 3, false), (4, 5, false), (6, 7, false), (8, 9, false)];
        let (seen, fit) = all(&scattered);
        assert_eq!(fit, Fit::Scatters);
        let (words, total) = seen.words();
        assert_eq!(Seen::from_words(words, total), seen);
        assert!(matches!(seen.with(Part::new(8, 16, false)), Fit::New(_)), "what fills a gap is taken");
        assert!(matches!(seen.with(Part::new(56, 64, false)), Fit::New(_)), "and what goes on behind one");
    }

    #[test]
    fn the_largest_datagram_has_its_place() {
        let half = 32_768;
        let (seen, fit) = all(&[(0, half / UNIT, false)]);
        assert!(matches!(fit, Fit::New(_)));
        assert_eq!(seen.with(Part::new(half, 65_515, true)), Fit::Completes);
        let Fit::New(seen) = seen.with(Part::new(65_504, 65_535, true)) else { panic!("it fits") };
        let (words, total) = seen.words();
        assert_eq!(Seen::from_words(words, total), seen);
        assert_eq!(seen.with(Part::new(half, 65_504, false)), Fit::Completes);
    }
}
