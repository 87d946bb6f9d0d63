//! Writes down what rules with `log: true` decided: a thread of its own, since no worker waits for a log.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use vswitch_core::{clock, firewall::log, world::World};

/// How often what waits is written: there is room for what hundred rules may log within that.
const EVERY: Duration = Duration::from_millis(100);

/// The World whose log is written, and the thread that does. Dropped, it writes what is left.
pub(crate) struct RuleLog {
    shared: Arc<Shared>,
    /// None: no lab had a rule that logs yet.
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    world: Mutex<Option<Arc<World>>>,
    over: AtomicBool,
    origin: Instant,
}

impl RuleLog {
    /// Of no World yet. Moments count from `origin`.
    pub(crate) fn none(origin: Instant) -> Self {
        let shared = Shared { world: Mutex::new(None), over: AtomicBool::new(false), origin };
        Self { shared: Arc::new(shared), thread: None }
    }

    /// Writes what is left of the World before, and goes on with `world`, by which all workers decide.
    pub(crate) fn follow(&mut self, world: &Arc<World>) -> io::Result<()> {
        self.shared.write_last();
        *self.shared.world() = Some(world.clone());
        if self.thread.is_none() && world.log().is_some() {
            let shared = self.shared.clone();
            let thread = thread::Builder::new().name("rule-log".into()).spawn(move || {
                while !shared.over.load(Ordering::Acquire) {
                    thread::park_timeout(EVERY);
                    shared.write();
                }
            })?;
            self.thread = Some(thread);
        }
        Ok(())
    }
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, Option<Arc<World>>> {
        // It is replaced as a whole, so a panic elsewhere cannot have torn it.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) {
        self.write_until(Some(clock::Instant::ZERO + self.origin.elapsed()));
    }

    /// Writes all that is left of a World by which nobody decides any more.
    fn write_last(&self) {
        self.write_until(None);
    }

    /// `now` is none if nothing will follow.
    fn write_until(&self, now: Option<clock::Instant>) {
        let world = self.world();
        let Some((world, log)) = world.as_ref().and_then(|world| Some((world, world.log()?))) else { return };
        for entry in log.take() {
            tracing::info!("rule: {}", entry.words(world));
        }
        for (rule, count) in world.unlogged(now) {
            tracing::info!("rule: {}", log::unlogged_words(world, rule, count));
        }
    }
}

impl Drop for RuleLog {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Had it panicked, that was printed; there is nothing left to end.
            let _ = thread.join();
            self.shared.write_last();
        }
    }
}
