//! How long a device may take for a message: beside each a thread that shuts the socket down at the deadline, or when whoever waits is
//! asked to end. `vhost`'s connection reads on after EAGAIN and EINTR, so neither SO_RCVTIMEO nor a signal ends its wait.

use super::error::DriverError;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked whether somebody asked to end.
const LOOK: Duration = Duration::from_millis(100);

/// How long a wait may last.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    pub(super) timeout: Duration,
    /// Ends it early once it is true.
    pub(super) cancel: Option<Arc<AtomicBool>>,
}

/// Why a socket was shut down.
enum End {
    Late,
    Cancelled,
}

impl Patience {
    /// Exchanges the `message` called `step` over `stream`.
    pub(super) fn step<T>(
        &self,
        step: &'static str,
        stream: &UnixStream,
        message: impl FnOnce() -> vhost::Result<T>,
    ) -> Result<T, DriverError> {
        let (deadline, done) = (Instant::now() + self.timeout, AtomicBool::new(false));
        thread::scope(|scope| {
            let watch = thread::Builder::new()
                .name("patience".into())
                .spawn_scoped(scope, || self.watch(stream, deadline, &done))
                .map_err(DriverError::Watch)?;
            let result = message();
            done.store(true, Ordering::Release);
            watch.thread().unpark();
            match watch.join() {
                Ok(Some(End::Late)) => Err(DriverError::Late { step, timeout: self.timeout }),
                Ok(Some(End::Cancelled)) => Err(DriverError::Cancelled { step }),
                // It has nothing that could panic.
                Ok(None) | Err(_) => result.map_err(|source| DriverError::Handshake { step, source }),
            }
        })
    }

    fn watch(&self, stream: &UnixStream, deadline: Instant, done: &AtomicBool) -> Option<End> {
        let end = loop {
            if done.load(Ordering::Acquire) {
                return None;
            }
            if self.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
                break End::Cancelled;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break End::Late;
            }
            thread::park_timeout(if self.cancel.is_some() { left.min(LOOK) } else { left });
        };
        // One that is closed already needs none.
        let _ = stream.shutdown(Shutdown::Both);
        Some(end)
    }
}
