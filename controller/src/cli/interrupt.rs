//! What ends a verb that stays: Ctrl-C, a polite kill, the end of its terminal.

use crate::failure::{Context, Failure};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask a process to end. Made before anything is started: from then on none is missed, and none ends
/// the process before it has cleaned up.
#[derive(Debug)]
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Interrupts {
    /// Catches them from now on.
    pub(super) fn new() -> Result<Self, Failure> {
        let catch = |kind| signal(kind).context("signals", || "they cannot be caught".into());
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }

    /// Waits for the first one that was not waited for yet.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// What a verb says that was interrupted, and what became of its lab by that.
pub(super) fn interrupted(lab: &str) -> Failure {
    Failure::failed("interrupted", format!("interrupted; the lab {lab}"))
}
