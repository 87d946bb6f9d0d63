//! The control socket of all stations of a lab: each connection asks the one station that its `Hello` names.

use crate::lab::sockets;
use anyhow::Context;
use end_station::Asker;
use probe::{Ask, Decoder, FromGuest, encode};
use rustix::event::{PollFd, PollFlags};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Connections at most; more are closed at once.
const MAX_CONNECTIONS: usize = 1024;
/// Answers that one who does not read may leave waiting, in bytes; then the connection ends.
const MAX_UNREAD: usize = 4 << 20;

/// One who asks.
struct Connection {
    stream: UnixStream,
    decoder: Decoder<Ask>,
    unsent: Vec<u8>,
    /// The station it speaks with, once named.
    station: Option<usize>,
    ended: bool,
}

/// The socket and its connections.
pub(super) struct Control {
    listener: UnixListener,
    connections: BTreeMap<u64, Connection>,
    next: u64,
}

impl Control {
    /// Listens at `path`; what a process that is gone left there is replaced.
    pub(super) fn bind(path: &Path) -> anyhow::Result<Self> {
        let failed = || format!("the stations' control socket {} cannot be made", path.display());
        let listener = sockets::listen(path).with_context(failed)?;
        listener.set_nonblocking(true).with_context(failed)?;
        Ok(Self { listener, connections: BTreeMap::new(), next: 0 })
    }

    /// What wakes it: the listener first, then the connections in the order of [`Self::askers`].
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let connections = self.connections.values().map(|connection| {
            let wanted =
                if connection.unsent.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            PollFd::new(&connection.stream, wanted)
        });
        std::iter::once(PollFd::new(&self.listener, PollFlags::IN)).chain(connections)
    }

    /// Who is connected.
    pub(super) fn askers(&self) -> Vec<Asker> {
        self.connections.keys().copied().map(Asker).collect()
    }

    /// Takes new connections.
    pub(super) fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.connections.len() >= MAX_CONNECTIONS || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let connection = Connection {
                stream,
                decoder: Decoder::new(),
                unsent: Vec::new(),
                station: None,
                ended: false,
            };
            self.connections.insert(self.next, connection);
            self.next += 1;
        }
    }

    /// The questions that came from `asker`, at most one buffer of them.
    pub(super) fn read(&mut self, asker: Asker) -> Vec<Ask> {
        let Some(connection) = self.connections.get_mut(&asker.0) else { return Vec::new() };
        let mut bytes = [0; 16 << 10];
        match connection.stream.read(&mut bytes) {
            Ok(0) => connection.ended = true,
            Ok(len) => {
                let found = connection.decoder.push(&bytes[..len]);
                return found
                    .filter_map(|ask| {
                        ask.inspect_err(|error| tracing::warn!(%error, "a question that cannot be read")).ok()
                    })
                    .collect();
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => connection.ended = true,
        }
        Vec::new()
    }

    /// The station that `asker` named.
    pub(super) fn station(&self, asker: Asker) -> Option<usize> {
        self.connections.get(&asker.0)?.station
    }

    /// From now on `asker` speaks with this one.
    pub(super) fn choose(&mut self, asker: Asker, station: usize) {
        if let Some(connection) = self.connections.get_mut(&asker.0) {
            connection.station = Some(station);
        }
    }

    /// Sends a message, now or as soon as it is read.
    pub(super) fn send(&mut self, asker: Asker, message: &FromGuest) {
        let Some(connection) = self.connections.get_mut(&asker.0) else { return };
        match encode(message) {
            Ok(bytes) => connection.unsent.extend(bytes),
            Err(error) => tracing::error!(%error, "an answer that cannot be sent"),
        }
        connection.flush();
    }

    /// Sends on what waited.
    pub(super) fn flush(&mut self, asker: Asker) {
        if let Some(connection) = self.connections.get_mut(&asker.0) {
            connection.flush();
        }
    }

    /// Connections that ended, and their stations, are forgotten.
    pub(super) fn reap(&mut self) -> Vec<(Asker, Option<usize>)> {
        let ended: Vec<_> = self.connections.extract_if(.., |_, connection| connection.ended).collect();
        ended.into_iter().map(|(asker, connection)| (Asker(asker), connection.station)).collect()
    }
}

impl Connection {
    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(len) => drop(self.unsent.drain(..len)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.ended |= error.kind() != ErrorKind::WouldBlock || self.unsent.len() > MAX_UNREAD;
                    return;
                }
            }
        }
    }
}
