//! Peers that come and go, one at a time: the port is up while one is there, and waits for the next when it has gone.
//!
//! Without a peer the receiveq is disabled, so that the switch says what became of frames that nobody was there for; the transmitq is
//! not, so that what a peer sent last still arrives.

#[cfg(test)]
mod tests;

use super::{
    adapter::{AdapterEnd, AdapterState, Shared, connect},
    carrier::{Carrier, Outside},
    dgram::Dgram,
    stream::Stream,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with},
};
use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use vhost_net_backend::driver::{Driver, DriverError};

/// The first pause before another connection; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause. A peer that stayed for as long was a good one: pauses start anew.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How peers are met.
#[derive(Debug)]
pub(crate) enum Meeting {
    /// They connect here; whoever comes second waits until the first one has gone.
    Listen(UnixListener),
    /// We connect there, again and again.
    Connect(PathBuf),
    /// Its datagrams come to `local`, and go to `remote` once that is there.
    Datagrams { local: UnixDatagram, remote: PathBuf },
}

/// Who was met.
#[derive(Debug)]
enum Peer {
    Stream(Stream),
    Dgram(Dgram),
}

impl Meeting {
    /// What is met.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Listen(_) | Self::Connect(_) => Stream::WHAT,
            Self::Datagrams { .. } => Dgram::WHAT,
        }
    }

    /// # Errors
    /// The listening socket cannot be made non-blocking.
    pub(super) fn prepare(&self) -> io::Result<()> {
        match self {
            Self::Listen(listener) => listener.set_nonblocking(true),
            Self::Connect(_) | Self::Datagrams { .. } => Ok(()),
        }
    }

    /// A peer, if one is there now.
    fn peer(&self) -> io::Result<Peer> {
        let socket = match self {
            Self::Datagrams { local, remote } => {
                let outbox = connect_now(remote, SocketType::DGRAM)?;
                return Ok(Peer::Dgram(Dgram::new(local.try_clone()?, outbox)));
            }
            Self::Listen(listener) => {
                let (socket, _) = listener.accept()?;
                socket.set_nonblocking(true)?;
                socket
            }
            Self::Connect(path) => connect_now(path, SocketType::STREAM)?.into(),
        };
        Ok(Peer::Stream(Stream::new(socket)))
    }

    /// What is waited for.
    fn hope(&self) -> &'static str {
        match self {
            Self::Listen(_) => "waiting for a peer to connect",
            Self::Connect(_) | Self::Datagrams { .. } => "connecting",
        }
    }
}

/// One attempt that does not wait: a listener whose queue is full would block a plain connect.
fn connect_now(path: &Path, kind: SocketType) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// All that the thread of such an adapter does; why it ended.
pub(super) fn serve(shared: &Shared, meeting: &Meeting, stream: UnixStream) -> AdapterEnd {
    let end = match connect(0, 1, false, stream) {
        Ok(driver) => serve_port(shared, meeting, driver),
        Err(end) => end,
    };
    if shared.is_stopping() { AdapterEnd::Stopped } else { end }
}

fn serve_port(shared: &Shared, meeting: &Meeting, mut driver: Driver) -> AdapterEnd {
    let connection = match driver.connection_fd().try_clone_to_owned() {
        Ok(connection) => connection,
        Err(why) => return AdapterEnd::Port(why.to_string()),
    };
    let mut wait = Wait { shared, meeting, connection: connection.as_fd(), pause: FIRST_PAUSE };
    let mut last = None;
    loop {
        let peer = match wait.for_peer(last.as_deref()) {
            Ok(peer) => peer,
            Err(end) => return end,
        };
        let began = Instant::now();
        if let Err(why) = open(&mut driver) {
            return AdapterEnd::Port(why.to_string());
        }
        shared.set(AdapterState::Carrying);
        let (pair, port) = (driver.pair(), connection.as_fd());
        let end = match peer {
            Peer::Stream(peer) => Carrier::new(shared, peer, pair, port).run(),
            Peer::Dgram(peer) => Carrier::new(shared, peer, pair, port).run(),
        };
        match end {
            AdapterEnd::Gone { why, .. } => last = Some(why),
            end => return end,
        }
        // What it said last is queued, and may be unpublished.
        driver.pair().flush();
        if let Err(why) = driver.enable_receive(0, false) {
            return AdapterEnd::Port(why.to_string());
        }
        if let Err(end) = wait.rest(last.as_deref(), began.elapsed()) {
            return end;
        }
    }
}

/// Frames that were for the peer before are none of the next one's.
fn open(driver: &mut Driver) -> Result<(), DriverError> {
    driver.pair().discard();
    driver.pair().flush();
    driver.enable(0, true)?;
    driver.pair().kick();
    Ok(())
}

/// How the next peer is waited for.
struct Wait<'a> {
    shared: &'a Shared,
    meeting: &'a Meeting,
    connection: BorrowedFd<'a>,
    pause: Duration,
}

impl Wait<'_> {
    /// The next peer; `last` is why the one before has gone.
    fn for_peer(&mut self, last: Option<&str>) -> Result<Peer, AdapterEnd> {
        self.say(last, None);
        loop {
            match (self.meeting.peer(), self.meeting) {
                (Ok(peer), _) => return Ok(peer),
                (Err(why), Meeting::Listen(listener)) if why.kind() == io::ErrorKind::WouldBlock => {
                    self.sleep(Some(listener.as_fd()), None)?;
                }
                (Err(why), _) => {
                    self.say(last, Some(&why));
                    self.pause()?;
                }
            }
        }
    }

    /// Rests after a peer that stayed for `stayed`.
    fn rest(&mut self, last: Option<&str>, stayed: Duration) -> Result<(), AdapterEnd> {
        self.say(last, None);
        if stayed >= LONGEST_PAUSE {
            self.pause = FIRST_PAUSE;
        }
        self.pause()
    }

    /// Pauses, the longer the oftener.
    fn pause(&mut self) -> Result<(), AdapterEnd> {
        let until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        while Instant::now() < until {
            self.sleep(None, Some(until))?;
        }
        Ok(())
    }

    /// Sleeps until there is something at `fd`, the time has come, or an end.
    fn sleep(&self, fd: Option<BorrowedFd<'_>>, until: Option<Instant>) -> Result<(), AdapterEnd> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.shared.stop_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.connection, PollFlags::RDHUP),
        ];
        fds.extend(fd.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(why) => return Err(AdapterEnd::Port(why.to_string())),
        }
        if !fds[0].revents().is_empty() {
            return Err(AdapterEnd::Stopped);
        }
        if !fds[1].revents().is_empty() {
            return Err(AdapterEnd::PortClosed);
        }
        Ok(())
    }

    /// Says what is waited for, what is in the way, and why the last peer has gone.
    fn say(&self, last: Option<&str>, why: Option<&io::Error>) {
        let last = last.map(|last| format!("; the last one: {last}")).unwrap_or_default();
        let there_is_none = why.is_some_and(|why| why.kind() == io::ErrorKind::NotFound);
        let hope = match (self.meeting, why) {
            (Meeting::Connect(path) | Meeting::Datagrams { remote: path, .. }, _) if there_is_none => {
                format!("connecting: the peer has not made {} yet", path.display())
            }
            (meeting, Some(why)) => format!("{}: {why}", meeting.hope()),
            (meeting, None) => meeting.hope().to_owned(),
        };
        self.shared.set(AdapterState::Waiting(hope + &last));
    }
}
