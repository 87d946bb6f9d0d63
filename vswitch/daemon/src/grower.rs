//! The thread that grows the FDB when it is crowded: it takes memory and waits for locks, which no worker does.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};
use vswitch_core::fdb::Fdb;

/// Sleeps until the FDB is crowded, and ends when it is dropped.
pub(crate) struct Grower {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Grower {
    /// Grows `fdb` from now on. Fails if there can be no further thread.
    pub(crate) fn start(fdb: &Arc<Fdb>) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let (end, grown) = (over.clone(), fdb.clone());
        let thread = thread::Builder::new().name("fdb-grower".into()).spawn(move || {
            while !end.load(Ordering::Acquire) {
                if !grown.grow() {
                    thread::park();
                }
            }
        })?;
        fdb.wake_to_grow(thread.thread().clone());
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Grower {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Had it panicked, that was printed; there is nothing left to end.
            let _ = thread.join();
        }
    }
}
