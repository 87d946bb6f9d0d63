//! How much of a turn a transmitq may take: all the same, but less for one that always has more, while others say little.
//!
//! A worker that is never done with one sender's frames makes every other one wait for as many of them as it takes at a time. Taking
//! many is what makes it fast, so it takes few only while somebody waits for it who left nothing behind.
//!
//! What is shared is work and not frames: one that is decided by itself, since it opens a connection, is flooded or is refused, takes
//! as long as twenty that follow others, and who sends only such would have the worker for himself.

use std::time::Duration;
use vhost_net_backend::device::ring::MAX_BATCH;
use vswitch_core::clock::Instant;

/// What one batch may take and make before it is cut; its first frame always goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// Frames that are taken off the ring.
    pub(super) frames: usize,
    /// The [work](fn@work) that they are.
    pub(super) work: usize,
    /// Copies that are made of them: 64 frames flooded to 512 ports would be 32,768.
    pub(super) copies: usize,
    /// Bytes of these copies.
    pub(super) bytes: u64,
}

/// Frames that all greedy sources together may have in a turn in which others have some, and the least that each may.
const GREEDY_FRAMES: usize = 32;
const LEAST_FRAMES: usize = 8;
/// The work of deciding about a frame by itself, and that of each copy of such a one, in frames that follow others and are decided with them.
const ALONE: usize = 16;
const COPY: usize = 16;
/// Bytes that count as one frame.
const FRAME_BYTES: u64 = 2048;

/// How long a source must be otherwise than it was taken for: long enough for what a stall of some hundred microseconds left to go.
const CONVINCING: Duration = Duration::from_millis(1);

impl Budget {
    /// What a batch may have where nobody else has frames: of bytes about 0.1 ms of copying, and of work as little as it can be without
    /// the batch itself costing more than some hundredths, for somebody may begin to send meanwhile.
    pub(super) const FULL: Self =
        Self { frames: MAX_BATCH, work: 8 * MAX_BATCH, copies: 2048, bytes: 1 << 20 };

    /// What it may have where somebody else has: as much work as a batch of which all frames follow each other.
    pub(super) const SHARED: Self = Self { work: MAX_BATCH, ..Self::FULL };

    /// What one of so many `greedy` sources may have beside others. Of its work it has as much a turn in the long run: what a frame takes
    /// more, it waits for in later turns.
    pub(super) fn beside_others(greedy: usize) -> Self {
        let frames = (GREEDY_FRAMES / greedy.max(1)).max(LEAST_FRAMES);
        Self { frames, work: frames, copies: 2 * frames, bytes: frames as u64 * FRAME_BYTES }
    }

    /// Whether so many `copies` of so many `bytes` are more than a source takes that is not greedy.
    pub(super) fn is_much(copies: usize, bytes: u64) -> bool {
        copies > 4 * MAX_BATCH || bytes > MAX_BATCH as u64 * FRAME_BYTES
    }
}

/// The work of so many `frames`, of which so many were decided `alone` and led to that many `copies`.
#[inline(always)]
pub(super) fn work(frames: usize, alone: usize, copies: usize) -> usize {
    frames + ALONE * alone + COPY * copies
}

/// Whether a source always has more than a batch takes.
#[derive(Debug, Default)]
pub(super) struct Appetite {
    greedy: bool,
    /// Since when it has been otherwise, without exception.
    otherwise: Option<Instant>,
}

impl Appetite {
    /// Whether it is greedy.
    #[inline(always)]
    pub(super) fn is_greedy(&self) -> bool {
        self.greedy
    }

    /// A batch at `now` took all that there was, or left `more`.
    #[inline(always)]
    pub(super) fn note(&mut self, more: bool, now: Instant) {
        if more == self.greedy {
            self.otherwise = None;
        } else {
            self.doubt(now);
        }
    }

    #[cold]
    fn doubt(&mut self, now: Instant) {
        let since = *self.otherwise.get_or_insert(now);
        if now.since(since) >= CONVINCING {
            (self.greedy, self.otherwise) = (!self.greedy, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_nanos(micros * 1000)
    }

    #[test]
    fn a_source_is_greedy_once_it_had_more_for_a_millisecond_and_no_longer_once_it_had_not() {
        let mut appetite = Appetite::default();
        (0..1000).for_each(|micros| appetite.note(true, at(micros)));
        assert!(!appetite.is_greedy());
        appetite.note(true, at(1000));
        assert!(appetite.is_greedy());
        (1001..2001).for_each(|micros| appetite.note(false, at(micros)));
        assert!(appetite.is_greedy());
        appetite.note(false, at(2001));
        assert!(!appetite.is_greedy());
    }

    #[test]
    fn what_a_stall_left_behind_makes_nobody_greedy() {
        let mut appetite = Appetite::default();
        for stall in 0..100 {
            (0..900).for_each(|micros| appetite.note(true, at(stall * 1000 + micros)));
            appetite.note(false, at(stall * 1000 + 999));
        }
        assert!(!appetite.is_greedy());
    }

    #[test]
    fn the_greedy_share_what_one_of_them_would_have() {
        let frames = |greedy| Budget::beside_others(greedy).frames;
        assert_eq!([frames(0), frames(1), frames(2), frames(4), frames(100)], [32, 32, 16, 8, 8]);
    }
}
