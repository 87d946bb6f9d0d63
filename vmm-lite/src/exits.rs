//! What vCPUs leave the guest for, counted by the vCPU that leaves: how often, and how long it was here. What KVM handles
//! by itself (its interrupt controllers, kicks, pages) does not come here, and is not counted.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What a vCPU leaves the guest for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// An I/O port.
    Port,
    /// A register in memory.
    Mmio,
    /// The port at which a guest waits; the time is what it waited.
    Wait,
    /// A signal, for the machine is paused, or about to end.
    Interrupted,
    /// Anything else: most of it ends the machine.
    Other,
}

impl Exit {
    const ALL: [(Self, &str); 5] = [
        (Self::Port, "port"),
        (Self::Mmio, "mmio"),
        (Self::Wait, "wait"),
        (Self::Interrupted, "interrupted"),
        (Self::Other, "other"),
    ];
}

#[derive(Default)]
struct Counter {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

/// The exits of one vCPU.
#[derive(Default)]
// Each vCPU counts on lines of its own.
#[repr(align(128))]
pub(crate) struct Exits([Counter; Exit::ALL.len()]);

impl Exits {
    /// Another one, which took `time`. Called by its vCPU alone.
    pub(crate) fn count(&self, exit: Exit, time: Duration) {
        let add = |counter: &AtomicU64, more: u64| {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        };
        let counter = &self.0[exit as usize];
        add(&counter.count, 1);
        add(&counter.nanoseconds, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// The sum of all vCPUs' exits: `KIND=COUNT/NANOSECONDS`, separated by blanks.
pub(crate) struct Sum<'a>(pub(crate) &'a [Exits]);

impl fmt::Display for Sum<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (exit, name)) in Exit::ALL.into_iter().enumerate() {
            let sum = |of: fn(&Counter) -> &AtomicU64| {
                let all = self.0.iter().map(|exits| of(&exits.0[exit as usize]).load(Ordering::Relaxed));
                all.fold(0, u64::wrapping_add)
            };
            let (count, nanoseconds) = (sum(|counter| &counter.count), sum(|counter| &counter.nanoseconds));
            let blank = if number == 0 { "" } else { " " };
            write!(f, "{blank}{name}={count}/{nanoseconds}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vcpu_counts_and_the_sum_is_told() {
        let exits = [Exits::default(), Exits::default()];
        exits[0].count(Exit::Port, Duration::from_nanos(700));
        exits[1].count(Exit::Port, Duration::from_nanos(300));
        exits[1].count(Exit::Wait, Duration::from_secs(1));
        let told = Sum(&exits).to_string();
        assert_eq!(told, "port=2/1000 mmio=0/0 wait=1/1000000000 interrupted=0/0 other=0/0");
    }
}
