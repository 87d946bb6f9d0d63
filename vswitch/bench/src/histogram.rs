//! A histogram of cycles whose buckets grow with the value, so that each is known to 1/64 (as HdrHistogram does).

use std::fmt;

/// Buckets of each power of two.
const PER_OCTAVE: u64 = 64;
const SHIFT: u32 = PER_OCTAVE.trailing_zeros();
/// Values are kept up to 2⁴⁸: days.
const OCTAVES: usize = 48 - SHIFT as usize + 1;

/// Counts of values from 0 to 2⁴⁸; larger ones count as that.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    max: u64,
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, max) = (self.quantile(0.5), self.max);
        f.debug_struct("Histogram")
            .field("total", &self.total)
            .field("median", &median)
            .field("max", &max)
            .finish()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; OCTAVES * PER_OCTAVE as usize].into(), total: 0, max: 0 }
    }
}

fn bucket(value: u64) -> usize {
    let value = value.min((1 << 48) - 1);
    // Up to 2 * PER_OCTAVE every value has a bucket of its own; from there on the leading bits choose it.
    let octave = (u64::BITS - value.leading_zeros()).saturating_sub(SHIFT + 1);
    octave as usize * PER_OCTAVE as usize + (value >> octave) as usize
}

/// The largest value of a bucket.
fn ceiling(bucket: usize) -> u64 {
    let octave = (bucket as u64 / PER_OCTAVE).saturating_sub(1);
    let place = bucket as u64 - octave * PER_OCTAVE;
    ((place + 1) << octave) - 1
}

impl Histogram {
    /// Counts `value` so many times.
    #[inline]
    pub fn record(&mut self, value: u64, times: u64) {
        self.counts[bucket(value)] += times;
        self.total += times;
        self.max = self.max.max(value);
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, more)| *sum += more);
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        (self.total, self.max) = (0, 0);
    }

    /// How many values there are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The largest value.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The value that a share `quantile` (0 to 1) of all values does not exceed, to 1/64; None without values.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let wanted = ((self.total as f64 * quantile).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        let place = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(ceiling(place).min(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_quantile_is_that_of_the_sorted_values_to_one_part_in_64(
            values in proptest::collection::vec((0u32..48, any::<u64>()), 1..200), quantile in 0.0..=1.0f64,
        ) {
            let mut values: Vec<u64> = values.iter().map(|(bits, value)| value % (1 << bits)).collect();
            let (mut whole, mut half) = (Histogram::default(), Histogram::default());
            for (place, value) in values.iter().enumerate() {
                if place % 2 == 0 { whole.record(*value, 1) } else { half.record(*value, 1) }
            }
            whole.merge(&half);
            values.sort_unstable();
            let rank = ((values.len() as f64 * quantile).ceil() as usize).clamp(1, values.len());
            let (exact, told) = (values[rank - 1], whole.quantile(quantile).expect("there are values"));
            prop_assert!(told >= exact && told - exact <= exact / 64, "{told} for {exact}");
            prop_assert_eq!((whole.total(), whole.max()), (values.len() as u64, values[values.len() - 1]));
        }
    }

    #[test]
    fn nothing_has_no_quantile_and_what_is_too_large_is_kept_at_the_top() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        histogram.record(u64::MAX, 3);
        assert_eq!((histogram.total(), histogram.max()), (3, u64::MAX));
        assert!(histogram.quantile(0.99) >= Some((1 << 48) - 1));
        histogram.clear();
        assert_eq!(histogram, Histogram::default());
    }
}
