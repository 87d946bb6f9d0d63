//! Until when something is waited for.

use rustix::time::Timespec;
use std::time::{Duration, Instant};

/// Nothing is waited for longer than this, whatever was asked.
const LONGEST: Duration = Duration::from_secs(3600);

/// A moment after which waiting ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// So long from now, at most an hour.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self(Instant::now() + timeout.min(LONGEST))
    }

    /// What is left of it, as poll(2) wants it; none when it has passed.
    pub(crate) fn left(self) -> Option<Timespec> {
        let left = self.0.checked_duration_since(Instant::now())?;
        Timespec::try_from(left).ok()
    }
}
