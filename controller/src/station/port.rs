//! The wire of a station in a lab: a virtio-net driver on the switch's vhost-user socket, kept connected.

use crate::lab::sockets;
use end_station::Wire;
use rustix::event::{PollFd, PollFlags};
use smoltcp::time::{Duration, Instant};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use vhost_net_backend::driver::{Config, Driver, DriverError};

/// The pause after the first failure; it doubles up to the longest.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);

/// Bytes beside the payload: Ethernet with one VLAN tag, and the net header.
const OVERHEAD: u32 = 18 + 12;

/// A connection that comes back.
pub(super) struct Port {
    /// NODE:IF, for those who read the log.
    name: String,
    socket: PathBuf,
    config: Config,
    /// Its rings and their frames outlive a connection.
    driver: Option<Driver>,
    state: State,
    pause: Duration,
    /// The latest failure was told.
    told: bool,
}

enum State {
    Connected(Line),
    Connecting(Attempt),
    /// Until it is time to try.
    Waiting(Instant),
}

/// What to wait for on a running driver.
struct Line {
    call: OwnedFd,
    hang_up: OwnedFd,
}

/// A handshake on a thread of its own: a switch that takes its time must not stop the other stations.
struct Attempt {
    thread: JoinHandle<(Option<Driver>, Result<Line, DriverError>)>,
    /// Hangs up when the thread is done.
    done: UnixStream,
}

impl Attempt {
    fn start(driver: Option<Driver>, socket: PathBuf, config: Config) -> io::Result<Self> {
        let (done, held) = UnixStream::pair()?;
        done.set_nonblocking(true)?;
        let thread = thread::Builder::new().name("handshake".into()).spawn(move || {
            let mut driver = driver;
            let result = connect(&mut driver, &socket, &config);
            drop(held);
            (driver, result)
        })?;
        Ok(Self { thread, done })
    }

    fn is_over(&self) -> bool {
        !matches!((&self.done).read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// The same rings again where there are some.
fn connect(driver: &mut Option<Driver>, socket: &Path, config: &Config) -> Result<Line, DriverError> {
    let stream = sockets::connect(socket)?;
    let running = match driver {
        Some(running) => {
            let result = running.reconnect(stream);
            // Another switch may offer less: then the next attempt starts from nothing.
            if let Err(error) = result {
                if matches!(error, DriverError::Features { .. }) {
                    *driver = None;
                }
                return Err(error);
            }
            running
        }
        empty => empty.insert(Driver::connect(stream, config)?),
    };
    let hang_up = running.connection_fd().try_clone_to_owned()?;
    Ok(Line { call: running.pair().call_fd().try_clone_to_owned()?, hang_up })
}

impl Port {
    pub(super) fn new(name: String, socket: PathBuf, mtu: u16, now: Instant) -> Self {
        let config = Config {
            // So every frame takes one buffer.
            buffer_size: (u32::from(mtu) + OVERHEAD).clamp(2048, 65562),
            ..Config::default()
        };
        let state = State::Waiting(now);
        Self { name, socket, config, driver: None, state, pause: SHORTEST, told: false }
    }

    /// Looks after the connection: notices its end, and tries again when it is time.
    pub(super) fn keep(&mut self, now: Instant) {
        if let State::Connected(_) = self.state {
            self.notice_end(now);
        }
        if let State::Waiting(until) = self.state
            && until <= now
        {
            match Attempt::start(self.driver.take(), self.socket.clone(), self.config.clone()) {
                Ok(attempt) => self.state = State::Connecting(attempt),
                Err(error) => self.failed(&error.into(), now),
            }
        }
        if matches!(&self.state, State::Connecting(attempt) if attempt.is_over()) {
            self.conclude(now);
        }
    }

    /// The attempt is over.
    fn conclude(&mut self, now: Instant) {
        let State::Connecting(attempt) = std::mem::replace(&mut self.state, State::Waiting(now)) else {
            return;
        };
        let Ok((driver, result)) = attempt.thread.join() else {
            tracing::error!(interface = self.name, "the handshake panicked: a bug of ours");
            self.state = State::Waiting(now + LONGEST);
            return;
        };
        self.driver = driver;
        match result {
            Ok(line) => {
                tracing::info!(interface = self.name, socket = %self.socket.display(), "connected to the switch");
                self.state = State::Connected(line);
                (self.pause, self.told) = (SHORTEST, false);
            }
            Err(error) => self.failed(&error, now),
        }
    }

    fn failed(&mut self, error: &DriverError, now: Instant) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(interface = self.name, socket = %self.socket.display(), %error, "not connected yet");
        }
        self.state = State::Waiting(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST);
    }

    fn notice_end(&mut self, now: Instant) {
        let Some(driver) = &mut self.driver else { return };
        if let Some(fault) = driver.pair().fault() {
            tracing::error!(interface = self.name, %fault, "the switch broke the rings; starting them anew");
            self.driver = None;
        } else if driver.is_connected() {
            return;
        } else {
            tracing::warn!(interface = self.name, "the switch hung up; connecting again");
        }
        self.state = State::Waiting(now);
    }

    /// When to try again, while not connected.
    pub(super) fn poll_at(&self) -> Option<Instant> {
        if let State::Waiting(until) = self.state { Some(until) } else { None }
    }

    /// What wakes it.
    pub(super) fn poll_fds(&self) -> Vec<PollFd<'_>> {
        match &self.state {
            State::Connected(Line { call, hang_up }) => {
                vec![PollFd::new(call, PollFlags::IN), PollFd::new(hang_up, PollFlags::RDHUP)]
            }
            State::Connecting(attempt) => vec![PollFd::new(&attempt.done, PollFlags::IN)],
            State::Waiting(_) => Vec::new(),
        }
    }

    /// Before a round: no more signals until [`Self::arm`].
    pub(super) fn disarm(&mut self) {
        if let Some(driver) = &mut self.driver {
            driver.pair().drain_call();
            driver.pair().disarm();
        }
    }

    /// After a round. True: something came meanwhile.
    pub(super) fn arm(&mut self) -> bool {
        self.is_up() && self.driver.as_mut().is_some_and(|driver| driver.pair().arm())
    }
}

impl Wire for Port {
    fn send(&mut self, frame: &[u8]) -> bool {
        self.driver.as_mut().is_some_and(|driver| driver.pair().transmit(frame))
    }

    fn receive(&mut self, limit: usize, each: &mut dyn FnMut(&[u8])) {
        if let Some(driver) = &mut self.driver {
            driver.pair().receive_up_to(limit, |_, frame| each(frame));
            driver.pair().reap();
        }
    }

    fn flush(&mut self) {
        if let Some(driver) = &mut self.driver {
            driver.pair().flush();
        }
    }

    fn is_up(&self) -> bool {
        matches!(self.state, State::Connected(_))
    }
}
