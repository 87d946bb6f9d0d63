//! Whether a port may run: what all workers and the port's control thread share of its life. No frame ever looks at it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use vhost_net_backend::device::{fault::PortFault, port::FaultHandle};

/// One port's, from the World that brings it to the one that has it no more.
///
/// Whichever worker finds the port broken says so here and lets go of its rings at once. The port's control thread then fetches its
/// rings from all workers, which is how it stops for the others; until then one that meets the same stops too, and it counts as one.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    fault: Option<PortFault>,
    handle: Option<FaultHandle>,
}

impl Health {
    /// From now on the port is told through `handle` that it must stop.
    pub(crate) fn tell(&self, handle: FaultHandle) {
        self.lock().handle = Some(handle);
    }

    /// The port must stop because of `why`; false if that was found already.
    pub(super) fn fail(&self, why: PortFault) -> bool {
        let mut state = self.lock();
        if state.fault.is_some() {
            return false;
        }
        // It only posts.
        state.handle.iter().for_each(|handle| handle.fault(why.clone()));
        state.fault = Some(why);
        true
    }

    /// A new connection begins, and no worker has a ring of the last one any more: what stopped that is over.
    pub(crate) fn renew(&self) {
        self.lock().fault = None;
    }

    /// Why the port was stopped, if it was.
    pub(crate) fn fault(&self) -> Option<PortFault> {
        self.lock().fault.clone()
    }

    /// Held for a few instructions only, so that a worker may take it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
