//! A token bucket in one word, for several threads at once.
//!
//! It is the virtual scheduling algorithm of ITU-T I.371 (GCRA): the word is the moment at which all that passed would have been over, had
//! it gone at exactly the rate. While that moment lies no further ahead than the burst, there are tokens.

use crate::clock::Instant;
use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Ticks of a nanosecond. At 100 Gbit/s a frame of 60 bytes takes 307 of them, so that rounding up costs a third of a percent at most; the
/// word lasts nine years.
const TICKS: u64 = 64;

/// Tokens that come at a rate, as many as come in the time of a burst at most.
#[derive(Debug)]
pub struct Bucket {
    /// Tokens a second.
    rate: NonZeroU64,
    /// Ticks.
    burst: u64,
    /// In ticks since the caller's origin; in the past: the bucket is full.
    due: AtomicU64,
}

impl Bucket {
    /// A full bucket: `rate` tokens come each second, and it holds those of `burst`.
    pub fn new(rate: NonZeroU64, burst: Duration) -> Self {
        let nanos = u64::try_from(burst.as_nanos()).unwrap_or(u64::MAX);
        Self { rate, burst: nanos.saturating_mul(TICKS), due: AtomicU64::new(0) }
    }

    /// The same where tokens are taken one by one: all that come in `burst` can be taken at once, although the time of each is rounded up.
    pub fn of_pieces(rate: NonZeroU64, burst: Duration) -> Self {
        let mut bucket = Self::new(rate, burst);
        let whole = u128::from(rate.get()) * burst.as_nanos() / 1_000_000_000;
        let time = u128::from(bucket.cost(1)).saturating_mul(whole);
        bucket.burst = bucket.burst.max(u64::try_from(time).unwrap_or(u64::MAX));
        bucket
    }

    /// Takes `amount` tokens, if they are there. From a full bucket more can be taken than it holds, so that what is larger than the
    /// burst is late and not for ever kept back. In any time `t` all that is taken is at most `rate * t` and what can be taken at once.
    #[inline]
    pub fn take(&self, amount: u64, now: Instant) -> bool {
        let (cost, now) = (self.cost(amount), ticks(now));
        let taken =
            self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| self.after(due, cost, now));
        taken.is_ok()
    }

    /// Whether [`Bucket::take`] would succeed.
    pub fn has(&self, amount: u64, now: Instant) -> bool {
        self.after(self.due.load(Ordering::Relaxed), self.cost(amount), ticks(now)).is_some()
    }

    /// Puts back `amount` tokens that were taken for what then did not pass.
    pub fn give_back(&self, amount: u64) {
        self.due.fetch_sub(self.cost(amount), Ordering::Relaxed);
    }

    /// Ticks in which so many tokens come. No frame has as many bits as would make it saturate.
    #[inline]
    fn cost(&self, amount: u64) -> u64 {
        amount.saturating_mul(1_000_000_000 * TICKS).div_ceil(self.rate.get())
    }

    /// What the word is once what costs so much has passed; none if it may not.
    #[inline]
    fn after(&self, due: u64, cost: u64, now: u64) -> Option<u64> {
        let after = due.max(now).saturating_add(cost);
        (due <= now || after - now <= self.burst).then_some(after)
    }
}

fn ticks(moment: Instant) -> u64 {
    moment.as_nanos().saturating_mul(TICKS)
}
