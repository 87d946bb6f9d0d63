//! A port's supervisor: waits for a connection, serves it, says how it ended, and waits again.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::connection::Connection;
use super::{Mailbox, PortConfig};
use crate::device::fault::PortFault;
use crate::device::gate::Offer;
use crate::device::{Connection as State, PortHost};

/// The first pause before another connection; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause. A connection that lived for as long was a good one: pauses start anew.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Where connections come from.
#[derive(Debug)]
pub(super) enum Source {
    Listen(UnixListener),
    Connect(PathBuf),
    Adopt(Option<UnixStream>),
}

/// Why a wait ended.
#[derive(PartialEq, Eq)]
enum Woken {
    Closing,
    Ready,
    TimedOut,
}

pub(super) struct Supervisor {
    source: Source,
    config: PortConfig,
    offer: Offer,
    host: Arc<dyn PortHost>,
    mailbox: Arc<Mailbox>,
    pause: Duration,
}

impl Supervisor {
    pub(super) fn new(
        source: Source,
        config: PortConfig,
        offer: Offer,
        host: Arc<dyn PortHost>,
        mailbox: Arc<Mailbox>,
    ) -> Self {
        Self { source, config, offer, host, mailbox, pause: FIRST_PAUSE }
    }

    /// Serves connections until the port closes.
    pub(super) fn run(mut self) {
        match &self.source {
            Source::Listen(_) => self.host.connection(State::Listening),
            Source::Connect(_) => self.host.connection(State::Connecting("not tried yet".to_owned())),
            Source::Adopt(_) => {}
        }
        while let Some(socket) = self.next_socket() {
            let began = Instant::now();
            // A fault that came too late for the connection before is none of this one's.
            self.mailbox.with(|post| post.fault = None);
            let fault = self.serve(socket);
            let Some(fault) = fault else { return };
            // Who comes to us and goes again may be a guest that is started over and over: only faults make it wait longer.
            let in_order = fault == PortFault::Disconnected && matches!(self.source, Source::Listen(_));
            self.host.connection(match fault {
                PortFault::Disconnected => State::Disconnected,
                fault => State::Faulted(fault),
            });
            if in_order || began.elapsed() >= LONGEST_PAUSE {
                self.pause = FIRST_PAUSE;
            }
            if !matches!(self.source, Source::Adopt(_)) && !self.rest() {
                return;
            }
        }
    }

    /// The next connection; None once the port closes.
    fn next_socket(&mut self) -> Option<UnixStream> {
        loop {
            let tried = match &mut self.source {
                Source::Adopt(stream) => return stream.take(),
                Source::Listen(listener) => listener.accept().map(|(stream, _)| stream),
                Source::Connect(path) => connect_now(path),
            };
            match (tried, &self.source) {
                (Ok(stream), _) => return Some(stream),
                (Err(error), Source::Listen(listener)) if error.kind() == io::ErrorKind::WouldBlock => {
                    let readable = [PollFd::new(listener, PollFlags::IN)];
                    if wait(&self.mailbox, readable, None) == Woken::Closing {
                        return None;
                    }
                }
                (Err(error), _) => {
                    if matches!(self.source, Source::Connect(_)) {
                        self.host.connection(State::Connecting(error.to_string()));
                    }
                    if !self.rest() {
                        return None;
                    }
                }
            }
        }
    }

    /// Pauses, the longer the oftener; false if the port closes.
    fn rest(&mut self) -> bool {
        let until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        loop {
            match wait(&self.mailbox, [], Some(until)) {
                Woken::Closing => return false,
                Woken::TimedOut => return true,
                // A late fault of the connection that has just ended.
                Woken::Ready => {}
            }
        }
    }

    /// Serves one connection to its end: why it ended, or None if the port closes.
    fn serve(&mut self, socket: UnixStream) -> Option<PortFault> {
        let started = Connection::start(socket, &self.config, self.offer, self.host.clone());
        let mut connection = match started {
            Ok(connection) => connection,
            Err(error) => return Some(PortFault::Unserved(error.to_string())),
        };
        self.host.connection(State::Connected { features: 0 });
        let mut deaf_until: Option<Instant> = None;
        let fault = loop {
            let wanted = if connection.amid_reply() { PollFlags::OUT } else { PollFlags::IN };
            deaf_until = deaf_until.filter(|&until| Instant::now() < until);
            let deadline = connection.deadline().into_iter().chain(deaf_until).min();
            let woken = match &self.source {
                Source::Listen(listener) if deaf_until.is_none() => {
                    let polled = [PollFd::new(&connection, wanted), PollFd::new(listener, PollFlags::IN)];
                    wait(&self.mailbox, polled, deadline)
                }
                _ => wait(&self.mailbox, [PollFd::new(&connection, wanted)], deadline),
            };
            if woken == Woken::Closing {
                break None;
            }
            if let Some(fault) = self.mailbox.with(|post| post.fault.take()) {
                break Some(fault);
            }
            if deaf_until.is_none() && self.turn_away().is_err() {
                deaf_until = Some(Instant::now() + LONGEST_PAUSE);
            }
            if let Err(fault) = connection.advance(&self.mailbox) {
                break Some(fault);
            }
            if connection.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
                break Some(connection.overdue());
            }
        };
        connection.end(fault.as_ref());
        fault
    }

    /// A port has one owner: further connections are closed at once, a few in a turn. An error means that they cannot
    /// even be taken from the queue (no descriptor is left), so that polling the listener would only spin.
    fn turn_away(&self) -> io::Result<()> {
        let Source::Listen(listener) = &self.source else { return Ok(()) };
        for _ in 0..16 {
            match listener.accept() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // It hung up before its turn came.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Waits for the mailbox, one of `fds`, or the deadline. A hang-up shows as readable.
fn wait<const N: usize>(mailbox: &Mailbox, fds: [PollFd<'_>; N], deadline: Option<Instant>) -> Woken {
    let mut polled: Vec<PollFd<'_>> = fds.into();
    polled.push(PollFd::from_borrowed_fd(mailbox.wake.as_fd(), PollFlags::IN));
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let timeout = left.and_then(|left| Timespec::try_from(left).ok());
    let ready = poll(&mut polled, timeout.as_ref());
    if !polled[N].revents().is_empty() {
        // Non-blocking: it only takes back what was counted.
        let _ = rustix::io::read(&mailbox.wake, &mut [0; 8]);
    }
    match (mailbox.with(|post| post.closing), ready) {
        (true, _) => Woken::Closing,
        (false, Ok(0)) => Woken::TimedOut,
        (false, _) => Woken::Ready,
    }
}

/// One attempt that does not wait: a listener whose queue is full would block a plain connect.
fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}
