//! The device side: from a VMM's socket to running rings.
//!
//! ```text
//! socket -> gate (judges every message) -> vhost-user-backend's daemon -> session (what was set up so far)
//!                                                                              | attach / detach
//!                                              worker <- RunningRing (a value) <-'
//! ```

pub mod alarm;
mod copy;
pub mod fault;
pub mod gate;
pub mod memory;
pub mod port;
pub mod ring;
mod session;
pub mod sigbus;

use fault::PortFault;
use ring::RunningRing;

/// The state of a port's connection, as it is told to whoever owns the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// Waiting for a VMM to connect.
    Listening,
    /// Trying to connect to the VMM's socket; the text says what stood in the way last time.
    Connecting(String),
    /// A VMM is connected and negotiating, or its rings run (then they were attached).
    Connected {
        /// The virtio features that the driver took; 0 before SET_FEATURES.
        features: u64,
    },
    /// The VMM closed its socket, which is no fault. The port waits for the next connection, if it may have one.
    Disconnected,
    /// The port was stopped for this reason; it waits for the VMM to reset or to connect anew.
    Faulted(PortFault),
}

/// Who owns a port's running rings: the datapath process, or a test.
///
/// Called from the port's control thread only.
pub trait PortHost: Send + Sync + 'static {
    /// Ring `index` runs from now on, in the host's hands.
    fn attach(&self, index: u16, ring: RunningRing);

    /// Ring `index` must not run any longer: gives it back once no worker uses it. None if it was not attached.
    fn detach(&self, index: u16) -> Option<RunningRing>;

    /// The connection changed.
    fn connection(&self, state: Connection);
}
