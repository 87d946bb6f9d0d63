//! Interrupt lines. KVM takes an interrupt straight from the event that a device rings (irqfd), until the guest waits
//! for its devices at [`ports::WAIT`](crate::ports::WAIT): then the events end its waits instead.

use crate::{
    event::Event,
    vm::{KvmError, Vm, step},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{sync::Once, time::Duration};

/// All lines of a machine.
pub(crate) struct Lines {
    lines: Vec<(u32, Event)>,
    /// The guest has begun to wait, and the lines are no interrupts any more.
    waited: Once,
}

impl Lines {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { lines: Vec::new(), waited: Once::new() }
    }

    /// From now on ringing `event` raises interrupt `gsi`.
    pub(crate) fn add(&mut self, vm: &Vm, gsi: u32, event: Event) -> Result<(), KvmError> {
        step("KVM_IRQFD", vm.fd().register_irqfd(event.as_event_fd(), gsi))?;
        self.lines.push((gsi, event));
        Ok(())
    }

    /// Returns when a line is rung, after `limit`, or on a signal. A line that was rung since the last wait counts: so
    /// a guest that looks at its rings before it waits misses nothing. Of several vCPUs that wait, one hears. The first
    /// wait is over at once, for what was rung before it went to KVM.
    pub(crate) fn wait(&self, vm: &Vm, limit: Duration) {
        let mut first = false;
        self.waited.call_once(|| {
            first = true;
            for (gsi, event) in &self.lines {
                // It was registered, so this does not fail; and if it did, the guest would hear of it as an interrupt.
                let _ = vm.fd().unregister_irqfd(event.as_event_fd(), *gsi);
            }
        });
        if first {
            return;
        }
        let mut events: Vec<_> =
            self.lines.iter().map(|(_, event)| PollFd::new(event, PollFlags::IN)).collect();
        // What does not fit a timespec is longer than a machine runs.
        let limit = Timespec::try_from(limit).ok();
        if poll(&mut events, limit.as_ref()).is_ok() {
            let rung = events.iter().map(|polled| polled.revents().contains(PollFlags::IN));
            let rung: Vec<bool> = rung.collect();
            self.lines.iter().zip(rung).filter(|(_, rung)| *rung).for_each(|((_, event), _)| event.drain());
        }
    }
}
