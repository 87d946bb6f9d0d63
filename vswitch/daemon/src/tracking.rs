//! The table of connections: made with the first lab that has a firewall or translates addresses, one for all workers, and swept by a thread of its own.
//! It stays for as long as the process: a changed lab goes on with the connections of the one before.

use anyhow::Context;
use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use vswitch_core::{
    clock,
    firewall::connections::{Config, Connections, Counts, Secret, Timeouts},
    id::PortId,
    world::{MAX_PORTS, World},
};

/// How long connections that run already may be picked up: those of before a restart, or of before there was a firewall.
const PICK_UP: Duration = Duration::from_secs(300);

/// How often entries are swept, and the part of all that is swept then.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const SWEEP_PART: usize = 16;

/// The table, who may use it, and its sweeper.
pub(crate) struct Tracking {
    /// Connections that it has room for once there is a firewall.
    capacity: u32,
    table: Arc<Connections>,
    /// Ports that have a share of it.
    admitted: BTreeSet<PortId>,
    /// None: no lab tracked any yet, and the table has room for nothing.
    sweeper: Option<Sweeper>,
}

impl Tracking {
    /// For labs that track none; with the first one that does there is room for so many connections.
    pub(crate) fn none(capacity: u32) -> Self {
        Self { capacity, table: Arc::new(nothing()), admitted: BTreeSet::new(), sweeper: None }
    }

    pub(crate) const fn table(&self) -> &Arc<Connections> {
        &self.table
    }

    /// Gives each port of `world` where connections are tracked its share, before workers decide by that World. Moments count from `origin`. If the
    /// first of them comes when connections `run_already`, these may be picked up.
    pub(crate) fn admit(&mut self, world: &World, origin: Instant, run_already: bool) -> anyhow::Result<()> {
        if !any_tracks(world) {
            return Ok(());
        }
        if self.sweeper.is_none() {
            let table =
                Arc::new(table(self.capacity).context("no random secret for the table of connections")?);
            if run_already {
                table.pick_up_until(clock::Instant::ZERO + origin.elapsed() + PICK_UP);
            }
            self.sweeper =
                Some(Sweeper::start(&table, origin).context("a thread for the table of connections")?);
            self.table = table;
        }
        self.admitted.extend(admit(&self.table, world));
        Ok(())
    }

    /// What was counted of the connections of a port; none if none are tracked there.
    pub(crate) fn counts(&self, port: PortId) -> Option<Counts> {
        self.admitted.contains(&port).then(|| self.table.counts_of(port.index()))
    }

    /// Forgets the connections of what `world` has not, once all workers decide by it.
    pub(crate) fn forget_others(&mut self, world: &World) {
        let stays =
            |id: &PortId| world.port(id.index()).is_some_and(|port| port.id == *id && world.tracks(port));
        let has_place = |id: &PortId| world.port(id.index()).is_some_and(|port| world.tracks(port));
        self.admitted.retain(|id| {
            // Where another port has its place, that was admitted, and this one's connections are forgotten.
            if !has_place(id) {
                self.table.forget(id.index());
            }
            stays(id)
        });
    }
}

/// Of a whole lab that never changes, with room for so many connections if it tracks any.
pub(crate) fn of(world: &World, capacity: u32) -> io::Result<Connections> {
    if !any_tracks(world) {
        return Ok(nothing());
    }
    let table = table(capacity)?;
    admit(&table, world);
    Ok(table)
}

fn table(capacity: u32) -> io::Result<Connections> {
    let mut bytes = [0; 128];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let (words, _) = bytes.as_chunks::<8>();
    let secret = Secret::new(std::array::from_fn(|n| u64::from_ne_bytes(words[n])));
    let config = Config { capacity: capacity as usize, ports: MAX_PORTS, timeouts: Timeouts::DEFAULT };
    Ok(Connections::new(config, secret))
}

fn any_tracks(world: &World) -> bool {
    world.ports().any(|port| world.tracks(port))
}

/// With room for none.
pub(crate) fn nothing() -> Connections {
    Connections::new(Config { capacity: 0, ports: 0, timeouts: Timeouts::DEFAULT }, Secret::new([0; 16]))
}

/// Gives each port where connections are tracked an equal part, so that none can take another's room; returns which. What routers translate takes two entries.
fn admit(table: &Connections, world: &World) -> Vec<PortId> {
    let tracking = || world.ports().filter(|port| world.tracks(port));
    let each = table.capacity() / tracking().count().max(1);
    for port in tracking() {
        table.admit(port.id, if port.firewall.is_some() { each } else { each / 2 } as u32);
    }
    let guarded: Vec<PortId> =
        tracking().filter(|port| port.firewall.is_some()).map(|port| port.id).collect();
    table.fragments().share(&guarded);
    tracking().map(|port| port.id).collect()
}

/// Sweeps the table until it is dropped.
struct Sweeper {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    fn start(table: &Arc<Connections>, origin: Instant) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let (end, table) = (over.clone(), table.clone());
        let thread = thread::Builder::new().name("sweeper".into()).spawn(move || {
            while !end.load(Ordering::Acquire) {
                table.sweep(clock::Instant::ZERO + origin.elapsed(), table.capacity() / SWEEP_PART);
                thread::park_timeout(SWEEP_EVERY);
            }
        })?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Had it panicked, that was printed; there is nothing left to end.
            let _ = thread.join();
        }
    }
}
