//! Why a port was stopped: what a guest or its VMM did wrong, in words that a person can act on.

use thiserror::Error;

/// Why a port's rings stopped. Only this port stops; it leaves this state when its driver or VMM starts anew.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PortFault {
    /// The VMM's end of the socket closed.
    #[error("the VMM closed its socket")]
    Disconnected,
    /// A message that the protocol does not allow.
    #[error("vhost-user protocol: {0}")]
    Protocol(String),
    /// Guest memory that cannot be used.
    #[error("guest memory: {0}")]
    Memory(String),
    /// Guest memory vanished while it was in use: its file shrank, or a hole was punched in huge pages.
    #[error("guest memory vanished while in use (its file was truncated or punched)")]
    MemoryVanished,
    /// A ring or a descriptor chain that virtio does not allow (virtio 1.2 §2.7).
    #[error("ring {ring}: {what}")]
    Ring {
        /// The ring's index: even is a receiveq, odd a transmitq.
        ring: u16,
        /// What was wrong.
        what: &'static str,
    },
    /// The connection could not be served: the process lacks descriptors, threads or the like.
    #[error("this connection could not be served: {0}")]
    Unserved(String),
    /// Our own bug: a turn panicked over this port's frames.
    #[error("vnet failed inside while it handled this port (a panic was caught; please report it)")]
    Internal,
}
