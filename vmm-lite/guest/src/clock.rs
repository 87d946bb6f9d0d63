//! Time: the time stamp counter, at the rate that the VMM states.

use crate::machine;
use core::time::Duration;

/// Time since this guest began. The counter itself may have begun long before: a paravirtual KVM shows ring 3 the
/// host's.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    khz: u64,
    origin: u64,
}

impl Clock {
    /// A counter of this rate that stood at `origin` when the guest began; none for a rate of 0.
    pub(crate) fn new(khz: u64, origin: u64) -> Option<Self> {
        (khz > 0).then_some(Self { khz, origin })
    }

    /// So many cycles pass in this time.
    pub(crate) fn cycles(self, time: Duration) -> u64 {
        (time.as_nanos() * u128::from(self.khz) / 1_000_000) as u64
    }

    /// Microseconds since this guest began.
    pub(crate) fn micros(self) -> u64 {
        self.now().as_micros() as u64
    }

    /// Now.
    pub(crate) fn now(self) -> Duration {
        let cycles = u128::from(machine::cycles().saturating_sub(self.origin));
        Duration::from_nanos((cycles * 1_000_000 / u128::from(self.khz)) as u64)
    }
}
