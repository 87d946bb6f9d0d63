//! The wire of a station in a lab: a virtio-net driver on the switch's vhost-user socket, kept connected.

use super::nic::Wire;
use rustix::event::{PollFd, PollFlags};
use smoltcp::time::{Duration, Instant};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
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
    driver: Option<Driver>,
    /// While connected.
    line: Option<Line>,
    next_try: Instant,
    pause: Duration,
    /// The latest failure was told.
    told: bool,
}

/// What to wait for on a running driver.
struct Line {
    call: OwnedFd,
    hang_up: OwnedFd,
}

impl Line {
    fn poll_fds(&self) -> [PollFd<'_>; 2] {
        [PollFd::new(&self.call, PollFlags::IN), PollFd::new(&self.hang_up, PollFlags::RDHUP)]
    }
}

impl Port {
    pub(super) fn new(name: String, socket: PathBuf, mtu: u16, now: Instant) -> Self {
        let config = Config {
            // So every frame takes one buffer.
            buffer_size: (u32::from(mtu) + OVERHEAD).clamp(2048, 65562),
            timeout: std::time::Duration::from_secs(2),
            ..Config::default()
        };
        Self { name, socket, config, driver: None, line: None, next_try: now, pause: SHORTEST, told: false }
    }

    /// Looks after the connection: notices its end, and tries again when it is time.
    pub(super) fn keep(&mut self, now: Instant) {
        if self.line.is_some() {
            self.notice_end(now);
        }
        if self.line.is_some() || now < self.next_try {
            return;
        }
        match self.connect() {
            Ok(line) => {
                tracing::info!(interface = self.name, socket = %self.socket.display(), "connected to the switch");
                self.line = Some(line);
                (self.pause, self.told) = (SHORTEST, false);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(interface = self.name, socket = %self.socket.display(), %error, "not connected yet");
                }
                self.next_try = now + self.pause;
                self.pause = (self.pause * 2).min(LONGEST);
            }
        }
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
        self.line = None;
        self.next_try = now;
    }

    fn connect(&mut self) -> Result<Line, DriverError> {
        let stream = UnixStream::connect(&self.socket)?;
        let driver = match &mut self.driver {
            Some(driver) => match driver.reconnect(stream) {
                Ok(()) => driver,
                Err(error) => {
                    // Another switch may offer less: the next attempt starts from nothing.
                    if matches!(error, DriverError::Features { .. }) {
                        self.driver = None;
                    }
                    return Err(error);
                }
            },
            empty => empty.insert(Driver::connect(stream, &self.config)?),
        };
        let hang_up = driver.connection_fd().try_clone_to_owned()?;
        Ok(Line { call: driver.pair().call_fd().try_clone_to_owned()?, hang_up })
    }

    /// When to try again, while not connected.
    pub(super) fn poll_at(&self) -> Option<Instant> {
        self.line.is_none().then_some(self.next_try)
    }

    /// What wakes it.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.line.iter().flat_map(Line::poll_fds)
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
        self.line.is_some() && self.driver.as_mut().is_some_and(|driver| driver.pair().arm())
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
        self.line.is_some()
    }
}
