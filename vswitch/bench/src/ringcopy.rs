//! This machine's limit: the same rings, the same copies, no switch. What comes from either port goes to the other.
//!
//! The two ports are real ones, set up by the real handshake in this process; the generator drives them as it drives any
//! switch, and one thread on the switch's CPU copies.

use crate::machine;
use std::{
    io,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};
use vhost_net_backend::{
    cycles,
    device::{
        Connection, PortHost,
        fault::PortFault,
        port::{FaultHandle, Port, PortConfig},
        ring::{FromGuest, MAX_BATCH, Published, Rooms, RunningRing, ToGuest, make_visible},
    },
};

/// Turns between two looks at whether the rings are wanted back.
const TURNS: u32 = 64;

/// How much was copied, and at what cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Frames.
    pub frames: u64,
    /// TSC cycles of all turns that moved a frame.
    pub busy_cycles: u64,
}

impl Work {
    /// What came since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            frames: self.frames.saturating_sub(before.frames),
            busy_cycles: self.busy_cycles.saturating_sub(before.busy_cycles),
        }
    }

    /// Cycles of each frame; None without frames.
    pub fn cycles_per_frame(self) -> Option<f64> {
        (self.frames > 0).then(|| self.busy_cycles as f64 / self.frames as f64)
    }
}

/// A copier between two ports, with a thread of its own that sleeps until it is told to run.
pub struct RingCopy {
    ports: Vec<Port>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    rings: Mutex<Rings>,
    /// How many want the rings from the copier.
    wanted: AtomicU32,
    running: AtomicBool,
    ended: AtomicBool,
    frames: AtomicU64,
    busy_cycles: AtomicU64,
}

/// What runs: of each port the transmitq and the receiveq.
#[derive(Default)]
struct Rings {
    from: [Option<FromGuest>; 2],
    to: [Option<Arc<ToGuest>>; 2],
    handles: [Option<FaultHandle>; 2],
    rooms: Rooms,
    /// What was moved to each port and not told yet.
    published: [Option<Published>; 2],
}

impl Shared {
    /// The rings, as soon as the copier's turn ends.
    fn take(&self) -> MutexGuard<'_, Rings> {
        self.wanted.fetch_add(1, Ordering::AcqRel);
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        self.wanted.fetch_sub(1, Ordering::AcqRel);
        rings
    }
}

/// One port's end of the shared state.
struct Host {
    shared: Arc<Shared>,
    port: usize,
}

impl PortHost for Host {
    fn attach(&self, _: u16, ring: RunningRing) {
        let mut rings = self.shared.take();
        match ring {
            RunningRing::From(ring) => rings.from[self.port] = Some(ring),
            RunningRing::To(ring) => rings.to[self.port] = Some(ring),
        }
    }

    fn detach(&self, index: u16) -> Option<RunningRing> {
        let mut rings = self.shared.take();
        if index.is_multiple_of(2) {
            rings.to[self.port].take().map(RunningRing::To)
        } else {
            rings.from[self.port].take().map(RunningRing::From)
        }
    }

    fn connection(&self, _: Connection) {}
}

impl RingCopy {
    /// Two ports and a copier on `cpu`; without one it shares. Returns the VMM's ends of both ports, too.
    ///
    /// # Errors
    /// No sockets, threads or descriptors are left.
    pub fn start(cpu: Option<u16>) -> io::Result<(Self, [UnixStream; 2])> {
        let shared = Arc::new(Shared::default());
        let mut ports = Vec::new();
        let mut ends = Vec::new();
        for port in 0..2 {
            let (ours, theirs) = UnixStream::pair()?;
            let host = Arc::new(Host { shared: shared.clone(), port });
            let started = Port::adopt(theirs, PortConfig::new(format!("ringcopy-{port}")), host)?;
            shared.take().handles[port] = Some(started.fault_handle());
            ports.push(started);
            ends.push(ours);
        }
        let copier = shared.clone();
        let thread = thread::Builder::new().name("ringcopy".into()).spawn(move || copier.run(cpu))?;
        let ends = ends.try_into().map_err(|_| io::Error::other("two ports have two sockets"))?;
        Ok((Self { ports, shared, thread: Some(thread) }, ends))
    }

    /// Runs or rests.
    pub fn set_running(&self, running: bool) {
        self.shared.running.store(running, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// What was done so far.
    pub fn work(&self) -> Work {
        Work {
            frames: self.shared.frames.load(Ordering::Acquire),
            busy_cycles: self.shared.busy_cycles.load(Ordering::Acquire),
        }
    }
}

impl Drop for RingCopy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.set_running(false);
        if let Some(thread) = self.thread.take() {
            // A panic in it was told on its own thread.
            let _ = thread.join();
        }
        self.ports.clear();
    }
}

impl Shared {
    fn run(&self, cpu: Option<u16>) {
        if let Some(cpu) = cpu {
            // The one who asked has pinned itself already, and knows whether CPUs can be had.
            let _ = machine::pin(cpu);
        }
        while !self.ended.load(Ordering::Acquire) {
            if !self.running.load(Ordering::Acquire) {
                thread::park();
                continue;
            }
            if self.wanted.load(Ordering::Acquire) > 0 {
                std::hint::spin_loop();
                continue;
            }
            let moved = self.turns(&mut self.rings.lock().unwrap_or_else(PoisonError::into_inner));
            if moved == 0 && cpu.is_none() {
                thread::yield_now();
            }
        }
    }

    /// Some turns; how many frames were moved.
    fn turns(&self, rings: &mut Rings) -> u64 {
        let mut work = Work::default();
        for _ in 0..TURNS {
            let begin = cycles::now();
            let moved = rings.turn();
            if moved > 0 {
                work.frames += moved;
                work.busy_cycles += cycles::now().wrapping_sub(begin);
            }
        }
        if work.frames > 0 {
            self.frames.fetch_add(work.frames, Ordering::Release);
            self.busy_cycles.fetch_add(work.busy_cycles, Ordering::Release);
        }
        work.frames
    }
}

impl Rings {
    fn turn(&mut self) -> u64 {
        let mut moved = 0;
        for port in 0..2 {
            match self.copy(port) {
                Ok(frames) => moved += frames as u64,
                Err((whose, fault)) => {
                    self.handles[whose].as_ref().inspect(|handle| handle.fault(fault));
                }
            }
        }
        if moved == 0
            && let Err((whose, fault)) = self.tell()
        {
            self.handles[whose].as_ref().inspect(|handle| handle.fault(fault));
        }
        moved
    }

    /// Moves one batch of `port` to the other; frames for which there is no room stay. A fault comes with whose it is.
    fn copy(&mut self, port: usize) -> Result<usize, (usize, PortFault)> {
        let other = 1 - port;
        let Some(from) = &mut self.from[port] else { return Ok(0) };
        let count = from.harvest(MAX_BATCH).map_err(|fault| (port, fault))?;
        if count == 0 {
            return Ok(0);
        }
        self.tell()?;
        let (Some(from), Some(to)) = (&mut self.from[port], &self.to[other]) else { return Ok(0) };
        let mut lease = to
            .reserve(0, &mut self.rooms, count, |claim| claim.frames(from.lens(0..count)))
            .map_err(|fault| (other, fault))?;
        // All buffers are alike, so room ends once and for all.
        let roomy = lease.granted().frames as usize;
        lease.write_frames(0, from.frames(0..roomy), |_| {});
        self.published[other] = Some(lease.publish().map_err(|fault| (other, fault))?);
        from.finish(roomy);
        Ok(roomy)
    }

    /// Tells the drivers of what was moved, when something else has been waited for: as the switch does.
    fn tell(&mut self) -> Result<(), (usize, PortFault)> {
        let Self { from, to, published, .. } = self;
        if published.iter().all(Option::is_none) {
            return Ok(());
        }
        make_visible();
        for port in 0..2 {
            if let (Some(published), Some(to)) = (published[port].take(), &to[port]) {
                to.notify(published).map_err(|fault| (port, fault))?;
                let sender = 1 - port;
                from[sender].as_mut().map_or(Ok(()), FromGuest::notify).map_err(|fault| (sender, fault))?;
            }
        }
        Ok(())
    }
}
