//! The thread around a worker: it takes turns while there is work and sleeps when there is none.

use super::{Tables, Turn, Worker, mailbox::Mailbox};
use crate::control::protocol::PollMode;
use mio::{Events, Poll, Token};
use rustix::{
    io::Errno,
    thread::{CpuSet, sched_setaffinity},
};
use std::{
    io::{self, Write},
    panic,
    sync::{Arc, Once, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use vhost_net_backend::device::alarm::Alarm;
use vswitch_core::{clock, firewall::connections::Connections, world::World};

pub(super) const WAKE: Token = Token(0);

/// What the names of workers' threads begin with.
const NAME: &str = "worker-";

/// How long a worker polls idle rings before it asks for kicks: about what a kick and a wake-up cost.
const SPIN: Duration = Duration::from_micros(50);

/// Idle turns for which the clock is read once: it takes longer than a look at a ring, and a frame that comes meanwhile waits for both.
const TURNS_A_MOMENT: u32 = 8;

/// How long a worker sleeps at most while a driver expects its ring to be polled (it gave no kick descriptor).
const UNKICKED: Duration = Duration::from_millis(1);

/// A running worker's thread, from outside.
pub(crate) struct WorkerThread {
    pub(crate) mailbox: Arc<Mailbox>,
    /// The CPU that it runs on: the one that was asked for, if it could be had.
    pub(crate) cpu: Option<u16>,
    handle: Option<JoinHandle<()>>,
}

impl WorkerThread {
    /// Starts worker `number`, pinned to `cpu` if one is given.
    pub(crate) fn start(
        number: u16,
        cpu: Option<u16>,
        mode: PollMode,
        world: Arc<World>,
        tables: Tables,
        connections: Arc<Connections>,
        origin: Instant,
    ) -> io::Result<Self> {
        tell_panics_in_a_line();
        let poll = Poll::new()?;
        let mailbox = Arc::new(Mailbox::new(&poll, WAKE)?);
        let registry = poll.registry().try_clone()?;
        let worker = Worker::new(mailbox.clone(), registry, world, tables, connections, origin);
        let (tell, told) = mpsc::channel();
        let handle = thread::Builder::new().name(format!("{NAME}{number}")).spawn(move || {
            // Whoever started it waits for that.
            let _ = tell.send(cpu.filter(|cpu| pin(*cpu)));
            run(worker, poll, mode, origin);
        })?;
        let cpu = told.recv().unwrap_or(None);
        Ok(Self { mailbox, cpu, handle: Some(handle) })
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.mailbox.send(super::Message::Stop);
        if let Some(handle) = self.handle.take() {
            // Its panics were caught at the turn; one outside has been printed, and there is nothing left to end.
            let _ = handle.join();
        }
    }
}

/// What a worker's thread says of a panic is a line, whatever the environment asks for: a trace takes long, as its names are
/// read from a file of debugging information, and all ports of the worker would stand still meanwhile.
fn tell_panics_in_a_line() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| match thread::current().name() {
            Some(name) if name.starts_with(NAME) => {
                let what = panic.payload_as_str().unwrap_or("it does not say why").replace('\n', " ");
                let at = panic.location().map(|at| format!(" at {at}")).unwrap_or_default();
                // Where nothing can be written, nothing is said: a panic here would end the process, and with it all ports.
                let _ = writeln!(io::stderr(), "{name}: panicked{at}: {what}");
            }
            _ => others(panic),
        }));
    });
}

/// Binds the calling thread to `cpu`; false: there is none, or it may not be used.
fn pin(cpu: u16) -> bool {
    let mut set = CpuSet::new();
    let bound = if usize::from(cpu) < CpuSet::MAX_CPU {
        set.set(usize::from(cpu));
        sched_setaffinity(None, &set)
    } else {
        Err(Errno::INVAL)
    };
    if let Err(why) = &bound {
        tracing::warn!("cannot pin a worker to CPU {cpu}: {why}");
    }
    bound.is_ok()
}

fn run(mut worker: Worker, mut poll: Poll, mode: PollMode, origin: Instant) {
    let mut idle_since: Option<Instant> = None;
    let mut events = Events::with_capacity(64);
    let mut alarm = alarm();
    loop {
        alarm.iter_mut().for_each(Alarm::set);
        let now = Instant::now();
        let nanos = now.duration_since(origin).as_nanos();
        let moment = clock::Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut turns = (0..TURNS_A_MOMENT).map(|_| worker.turn(moment));
        match turns.find(|turn| *turn != Turn::Idle).unwrap_or(Turn::Idle) {
            Turn::Stopped => return,
            Turn::Busy(frames) => {
                idle_since = None;
                if frames == 0 {
                    // Who is waited for may need this CPU.
                    thread::yield_now();
                }
            }
            Turn::Idle if mode == PollMode::Always => std::hint::spin_loop(),
            Turn::Idle => {
                let since = *idle_since.get_or_insert(now);
                if now.duration_since(since) < SPIN {
                    std::hint::spin_loop();
                    continue;
                }
                if !worker.arm() {
                    worker.sleeps += 1;
                    alarm.iter_mut().for_each(Alarm::clear);
                    sleep(&worker, &mut poll, &mut events);
                }
                worker.disarm();
                idle_since = None;
            }
        }
    }
}

/// What ends a write that a frontend makes wait.
fn alarm() -> Option<Alarm> {
    match Alarm::new() {
        Ok(alarm) => Some(alarm),
        Err(why) => {
            tracing::warn!("no timer for a worker, so a hostile frontend can hold it up: {why}");
            None
        }
    }
}

/// Sleeps until a driver kicks or a message comes.
fn sleep(worker: &Worker, poll: &mut Poll, events: &mut Events) {
    match poll.poll(events, worker.must_poll().then_some(UNKICKED)) {
        Ok(()) => {}
        Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
        Err(why) => tracing::error!("a worker cannot sleep: {why}"),
    }
}
