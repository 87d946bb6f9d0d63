//! The highest rate that a device bears (RFC 2544 §26.1): bisection over trials, pure, so that it is tested on devices of paper.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What share of frames may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// None: the no-drop rate, which RFC 1242 §3.17 calls throughput.
    Ndr,
    /// One in a thousand: a partial drop rate, which a hiccup of a shared machine does not decide.
    Pdr,
}

impl Goal {
    /// The share of frames that may be lost.
    pub fn loss_ratio(self) -> f64 {
        match self {
            Self::Ndr => 0.0,
            Self::Pdr => 1e-3,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ndr => "ndr",
            Self::Pdr => "pdr",
        })
    }
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ndr" => Ok(Self::Ndr),
            "pdr" => Ok(Self::Pdr),
            _ => {
                Err(format!("`{text}` is no goal of a search: say ndr (no loss) or pdr (at most 1 in 1000)"))
            }
        }
    }
}

/// Rates are found to this share of themselves.
const PRECISION: f64 = 0.01;
/// A device that bears nothing at all is found out after so many trials.
const MOST_TRIALS: u32 = 24;

/// What a search came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Found<T> {
    /// The trial at the highest rate that was borne.
    Borne(T),
    /// No rate was.
    None,
}

/// One search: ask for a rate, try it, record what was lost.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    goal: Goal,
    /// The highest rate that was borne.
    borne: f64,
    /// The lowest that was not; none yet: the first trial is at `ceiling`.
    not_borne: Option<f64>,
    ceiling: f64,
    trials: u32,
}

impl Search {
    /// A search up to `ceiling` frames a second.
    pub fn new(goal: Goal, ceiling: f64) -> Self {
        Self { goal, borne: 0.0, not_borne: None, ceiling, trials: 0 }
    }

    /// The rate to try next; None: the search is over.
    pub fn next_rate(&self) -> Option<f64> {
        let over = self.trials == MOST_TRIALS || self.borne >= self.ceiling;
        match self.not_borne {
            None => (!over).then_some(self.ceiling),
            Some(not_borne) => {
                let narrow = not_borne - self.borne <= not_borne * PRECISION;
                (!over && !narrow).then(|| f64::midpoint(self.borne, not_borne))
            }
        }
    }

    /// What came of a trial at [`Self::next_rate`]; whether that rate was borne.
    pub fn record(&mut self, loss_ratio: f64) -> bool {
        let Some(rate) = self.next_rate() else { return false };
        self.trials += 1;
        let borne = loss_ratio <= self.goal.loss_ratio();
        if borne {
            self.borne = rate;
        } else {
            self.not_borne = Some(rate);
        }
        borne
    }

    /// Searches to the end: `trial` is given a rate, and how far the search is, and says what share was lost there.
    ///
    /// # Errors
    /// A trial failed.
    pub fn run<T, E>(
        mut self,
        mut trial: impl FnMut(f64, f64) -> Result<(f64, T), E>,
    ) -> Result<Found<T>, E> {
        let mut found = Found::None;
        while let Some(rate) = self.next_rate() {
            let (lost, outcome) = trial(rate, self.progress())?;
            if self.record(lost) {
                found = Found::Borne(outcome);
            }
        }
        Ok(found)
    }

    /// The highest rate that was borne so far; 0: none.
    pub fn rate(&self) -> f64 {
        self.borne
    }

    /// How far the search is, 0 to 1, as far as can be foreseen.
    pub fn progress(&self) -> f64 {
        let expected = 2.0 - PRECISION.log2();
        (f64::from(self.trials) / expected).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A device that forwards up to `capacity` frames a second and drops the rest.
    fn found(goal: Goal, ceiling: f64, capacity: f64) -> (f64, u32) {
        let mut search = Search::new(goal, ceiling);
        while let Some(rate) = search.next_rate() {
            search.record((1.0 - capacity / rate).max(0.0));
        }
        (search.rate(), search.trials)
    }

    proptest! {
        #[test]
        fn the_rate_of_a_simulated_device_is_found(capacity in 1e3..1e8f64, headroom in 1.0..50.0f64) {
            let (ndr, trials) = found(Goal::Ndr, capacity * headroom, capacity);
            prop_assert!(ndr <= capacity && ndr >= capacity * 0.98, "{ndr} of {capacity}");
            prop_assert!(trials <= 14);
            let (pdr, _) = found(Goal::Pdr, capacity * headroom, capacity);
            prop_assert!(pdr <= capacity * 1.0011 && pdr >= capacity * 0.98, "{pdr} of {capacity}");
        }
    }

    #[test]
    fn a_device_that_bears_the_ceiling_takes_one_trial_and_a_dead_one_ends_the_search() {
        assert_eq!(found(Goal::Ndr, 1e6, 2e6), (1e6, 1));
        assert_eq!(found(Goal::Ndr, 1e6, 0.0), (0.0, MOST_TRIALS));
        let mut over = Search::new(Goal::Ndr, 1e6);
        assert!(over.record(0.0) && !over.record(0.0), "nothing is tried any more");
        assert_eq!(over.rate(), 1e6);
    }

    #[test]
    fn what_is_found_is_the_last_rate_that_was_borne_and_nothing_if_none_was() {
        let run = |capacity: f64| {
            let trial = |rate: f64, _| Ok::<_, ()>(((1.0 - capacity / rate).max(0.0), rate));
            Search::new(Goal::Ndr, 1e6).run(trial).expect("no trial fails")
        };
        assert!(matches!(run(5e5), Found::Borne(rate) if (4.9e5..=5e5).contains(&rate)));
        assert_eq!(run(0.0), Found::None, "a trial that lost frames is no result");
    }

    #[test]
    fn goals_have_the_names_that_the_field_gives_them() {
        assert_eq!(["ndr".parse(), "pdr".parse()], [Ok(Goal::Ndr), Ok(Goal::Pdr)]);
        assert!("fastest".parse::<Goal>().unwrap_err().contains("ndr"));
        assert!(Goal::Ndr.loss_ratio() < Goal::Pdr.loss_ratio());
    }
}
