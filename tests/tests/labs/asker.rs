//! A driver that asks guests for their addresses all the time (ARP, RFC 826) and comes back when its switch does: traffic
//! for guests of every kind, and the moment at which each is reached again.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use vhost_net_backend::driver::{Config, Driver};
use vswitch_core::{
    build::{Ethernet, arp_request},
    mac::MacAddr,
};

/// The asker's address.
const MAC: MacAddr = MacAddr::new([2, 0, 0, 0, 8, 6]);

/// How long it waits for answers before it asks again.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// The asker's IPv4 address in `round`: an answer names it, so that none is taken for one of another round.
fn address(round: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 10, 100 + round)
}

/// The answers of one guest in one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answers {
    /// When the first came.
    pub(crate) first: Instant,
    /// When the last came.
    last: Instant,
}

impl Answers {
    /// How long they have been coming.
    pub(crate) fn span(&self) -> Duration {
        self.last - self.first
    }
}

/// What the asker's thread and its owner share.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    round: AtomicU8,
    answers: Mutex<BTreeMap<(Ipv4Addr, Ipv4Addr), Answers>>,
}

/// The asker, on a thread of its own until it is dropped.
pub(crate) struct Asker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Asker {
    /// Attaches to the port that listens at `socket`, and asks for each of `targets`.
    pub(crate) fn start(socket: PathBuf, targets: &[Ipv4Addr]) -> Self {
        let shared = Arc::new(Shared::default());
        let (theirs, targets) = (shared.clone(), targets.to_vec());
        let thread = std::thread::spawn(move || {
            let mut driver =
                Driver::connect(connect(&socket), &Config::default()).expect("a driver is taken");
            while !theirs.stop.load(Ordering::Relaxed) {
                if driver.is_connected() {
                    ask(&mut driver, address(theirs.round.load(Ordering::Acquire)), &targets);
                    listen(&mut driver, &theirs);
                } else {
                    // A switch that is killed amid this handshake leaves it as unconnected as it was.
                    let _ = driver.reconnect(connect(&socket));
                }
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// From now on only answers to what is asked from now on count.
    pub(crate) fn next_round(&self) {
        self.shared.round.fetch_add(1, Ordering::Release);
    }

    /// What `target` answered in this round.
    pub(crate) fn answers(&self, target: Ipv4Addr) -> Option<Answers> {
        let round = address(self.shared.round.load(Ordering::Acquire));
        self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&(round, target)).copied()
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            panic!("the asker failed");
        }
    }
}

/// The controller keeps the listening socket, so a connection can be made while there is no switch, and waits for it.
fn connect(socket: &Path) -> UnixStream {
    UnixStream::connect(socket).expect("the port listens")
}

fn ask(driver: &mut Driver, own: Ipv4Addr, targets: &[Ipv4Addr]) {
    let link = Ethernet { src: MAC, dst: MacAddr::BROADCAST, tag: None };
    for target in targets {
        // A full ring is full of the same questions.
        driver.pair().transmit(&arp_request(link, own, *target));
    }
    driver.pair().flush();
}

fn listen(driver: &mut Driver, shared: &Shared) {
    let hang_up = PollFd::from_borrowed_fd(driver.connection_fd(), PollFlags::RDHUP);
    poll(&mut [hang_up], Some(&PAUSE)).expect("poll");
    driver.pair().receive(|_, frame| {
        let Some((answering, asking)) = reply(frame) else { return };
        let now = Instant::now();
        let mut answers = shared.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.entry((asking, answering)).or_insert(Answers { first: now, last: now }).last = now;
    });
}

/// Who answers, and whom, if this is an ARP reply (RFC 826: opcode 2; sender and target protocol address).
fn reply(frame: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let address = |at: usize| Some(Ipv4Addr::from_octets(*frame.get(at..)?.first_chunk()?));
    let is_reply = frame.get(12..14)? == [0x08, 0x06] && frame.get(20..22)? == [0, 2];
    is_reply.then_some((address(28)?, address(38)?))
}
