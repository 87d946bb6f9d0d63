//! Serial ports and who is at their other ends: this process's standard streams, a pseudo-terminal, or a Unix socket.
//!
//! What the guest prints is written by the vCPU that prints it. What is typed is fed by a thread of its own, which stops
//! reading while the guest's FIFO is full.

use crate::{
    devices::lock,
    event::Event,
    socket::{ListenError, Listener},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr},
};
use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use vm_superio::{Serial, serial::SerialEvents};

/// Who is at the other end of a serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleTarget {
    /// Standard input and output.
    Stdio,
    /// A new pseudo-terminal, whose name is said on standard error.
    Pty,
    /// Whoever connects to a Unix socket, one at a time. With nobody there only the log hears what is printed.
    Socket {
        /// The socket.
        path: PathBuf,
        /// The file that gets what is printed, at its end, up to 16 MiB.
        log: Option<PathBuf>,
    },
    /// Nobody.
    Nobody,
}

/// Why a serial port has no other end.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// Nobody could visit it.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// What is printed would not be kept.
    #[error("{}: {source}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no terminal, or it cannot be set.
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
}

/// The most bytes in a log: more would be the guest's way to fill the host's disk.
const LOG_LIMIT: u64 = 16 << 20;
/// What its last line says.
const LOG_FULL: &[u8] = b"\n(the log is full; the rest is heard at the console only)\n";

/// How long a vCPU waits for a visitor who does not read, before it goes on without.
const PATIENCE: Duration = Duration::from_secs(1);

/// A serial port (16550A).
pub(crate) type Com = Serial<Event, Room, Box<dyn Write + Send>>;

/// A serial port with its interrupt line; `room` is rung when its FIFO has been emptied.
pub(crate) fn com(line: Event, room: Event, out: Box<dyn Write + Send>) -> Com {
    Serial::with_events(line, Room(room), out)
}

/// Says when more input can be fed.
pub(crate) struct Room(Event);

impl SerialEvents for Room {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        self.0.ring();
    }
}

/// The other end of a serial port.
pub(crate) struct Console {
    input: Input,
    /// Kept for what happens when it is dropped.
    _terminal: Option<Restore>,
}

/// Where input comes from.
enum Input {
    /// Nowhere, or no more.
    Nobody,
    /// Standard input, or our end of a pseudo-terminal.
    Descriptor {
        ours: OwnedFd,
        /// Held open, for our end hangs up whenever nobody holds the other.
        _theirs: Option<OwnedFd>,
    },
    Socket {
        listener: Listener,
        visitor: Visitor,
    },
}

/// Writes what can be written before a signal wants the vCPU that prints it, or before `patience` is over; the rest is lost.
fn offer(to: impl AsFd, bytes: &[u8], patience: Option<Duration>) -> io::Result<()> {
    let mut polled = [PollFd::new(&to, PollFlags::OUT)];
    let patience = patience.map(|patience| Timespec::try_from(patience).expect("a second fits"));
    match poll(&mut polled, patience.as_ref()) {
        // A byte at a time is printed, for which there is room now.
        Ok(1..) => rustix::io::write(&to, bytes).map(drop).map_err(Into::into),
        Ok(0) => Err(ErrorKind::TimedOut.into()),
        Err(rustix::io::Errno::INTR) => Ok(()),
        Err(why) => Err(why.into()),
    }
}

/// The visitor of a console on a socket, if there is one.
#[derive(Clone, Default)]
struct Visitor(Arc<Mutex<Option<UnixStream>>>);

impl Write for Visitor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut visitor = lock(&self.0);
        if let Some(stream) = &*visitor
            && offer(stream, bytes, Some(PATIENCE)).is_err()
        {
            // Whoever waits for what he types hears that he is gone.
            let _ = stream.shutdown(Shutdown::Both);
            *visitor = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard output. Whoever reads it may hold the guest up, but not its end.
struct Output(OwnedFd);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What nobody hears any more is lost.
        let _ = offer(&self.0, bytes, None);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that keeps what is printed, as long as there is room.
struct Log {
    file: File,
    left: u64,
}

impl Log {
    /// Goes on with what earlier machines said, but if that filled it.
    fn open(path: &Path) -> Result<Self, ConsoleError> {
        // A pipe that nobody reads would have us wait for whoever does.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag of open(2)");
        let opened =
            File::options().create(true).append(true).custom_flags(flags).open(path).and_then(|file| {
                let there = file.metadata()?.len();
                let left = LOG_LIMIT.saturating_sub(there);
                if left == 0 {
                    file.set_len(0)?;
                }
                Ok(Self { file, left: if left == 0 { LOG_LIMIT } else { left } })
            });
        opened.map_err(|source| ConsoleError::Log { path: path.to_owned(), source })
    }

    /// Keeps what there is room for. What a full disk does not take is lost, but nobody has to do without the guest.
    fn keep(&mut self, bytes: &[u8]) {
        if self.left == 0 {
            return;
        }
        let kept = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let _ = self.file.write_all(&bytes[..kept]);
        self.left -= kept as u64;
        if self.left == 0 {
            let _ = self.file.write_all(LOG_FULL);
        }
    }
}

/// What is printed where there may be a log of it.
struct Logged {
    log: Option<Log>,
    visitor: Visitor,
}

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(log) = &mut self.log {
            log.keep(bytes);
        }
        self.visitor.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts a terminal back as it was.
struct Restore(Termios);

impl Drop for Restore {
    fn drop(&mut self) {
        // A terminal that is gone needs no mending.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

impl Console {
    /// Opens the other end: itself, and where output goes.
    pub(crate) fn open(target: &ConsoleTarget) -> Result<(Self, Box<dyn Write + Send>), ConsoleError> {
        let (input, out): (_, Box<dyn Write + Send>) = match target {
            ConsoleTarget::Nobody => (Input::Nobody, Box::new(io::sink())),
            ConsoleTarget::Stdio => {
                let ours = io::stdin().as_fd().try_clone_to_owned()?;
                let out = io::stdout().as_fd().try_clone_to_owned()?;
                (Input::Descriptor { ours, _theirs: None }, Box::new(Output(out)))
            }
            ConsoleTarget::Pty => {
                let (ours, theirs) = pseudo_terminal()?;
                let out = std::fs::File::from(ours.try_clone()?);
                (Input::Descriptor { ours, _theirs: Some(theirs) }, Box::new(out))
            }
            ConsoleTarget::Socket { path, log } => {
                let (listener, visitor) = (Listener::open(path)?, Visitor::default());
                let log = log.as_deref().map(Log::open).transpose()?;
                let out = Logged { log, visitor: visitor.clone() };
                (Input::Socket { listener, visitor }, Box::new(out))
            }
        };
        let terminal = if *target == ConsoleTarget::Stdio { typed_through()? } else { None };
        Ok((Self { input, _terminal: terminal }, out))
    }

    /// Feeds what is typed to `com` until `stop` is rung.
    pub(crate) fn serve(mut self, com: &Mutex<Com>, room: &Event, stop: &Event) {
        let mut bytes = [0; 64];
        loop {
            let free = lock(com).fifo_capacity().min(bytes.len());
            let Ok(typed) = self.input.wait(stop, room, &mut bytes[..free]) else { return };
            // No more than there was room for, and whoever drains the FIFO only makes more.
            let _ = lock(com).enqueue_raw_bytes(typed);
        }
    }
}

/// The machine has ended.
struct Stopped;

impl Input {
    /// Waits for what comes first: input (if there is room for some), room for it, or the machine's end.
    fn wait<'a>(&mut self, stop: &Event, room: &Event, bytes: &'a mut [u8]) -> Result<&'a [u8], Stopped> {
        let visitor = self.visitor();
        let awaited = self.awaited(visitor.as_ref(), bytes.is_empty());
        let mut polled = vec![PollFd::new(stop, PollFlags::IN), PollFd::new(room, PollFlags::IN)];
        if let Some((source, flags)) = awaited {
            polled.push(PollFd::from_borrowed_fd(source, flags));
        }
        if poll(&mut polled, None).is_err() {
            return Ok(&[]);
        }
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        if ready[0] {
            return Err(Stopped);
        }
        room.drain();
        let (Some((source, flags)), Some(true)) = (awaited, ready.get(2)) else { return Ok(&[]) };
        if flags.is_empty() {
            // He has left, so the next look waits for another one.
            return Ok(&[]);
        }
        if let Self::Socket { listener, visitor: place, .. } = &*self
            && (visitor.is_none() || bytes.is_empty())
        {
            match listener.accept() {
                Ok((stream, _)) => {
                    *lock(&place.0) = stream.set_nonblocking(false).is_ok().then_some(stream);
                }
                // No descriptor is left: the listener stays ready, so that looking again at once would only spin.
                Err(_) => {
                    let pause = Timespec::try_from(PATIENCE).expect("a second fits");
                    let _ = poll(&mut [PollFd::new(stop, PollFlags::IN)], Some(&pause));
                }
            }
            return Ok(&[]);
        }
        match rustix::io::read(source, &mut *bytes) {
            Ok(read @ 1..) => Ok(&bytes[..read]),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(&[]),
            Ok(_) | Err(_) => {
                self.hang_up();
                Ok(&[])
            }
        }
    }

    /// Who is at the socket, held open whatever becomes of the visit.
    fn visitor(&self) -> Option<UnixStream> {
        let Self::Socket { visitor, .. } = self else { return None };
        lock(&visitor.0).as_ref().and_then(|stream| stream.try_clone().ok())
    }

    /// What input, or a visitor, comes by. While there is no room for input, which may be for ever, a visitor who leaves
    /// is awaited, and then the next one: whatever he has typed is of less worth than that.
    fn awaited<'a>(
        &'a self,
        visitor: Option<&'a UnixStream>,
        full: bool,
    ) -> Option<(BorrowedFd<'a>, PollFlags)> {
        match (self, visitor) {
            (Self::Nobody, _) => None,
            (Self::Descriptor { ours, .. }, _) => (!full).then_some((ours.as_fd(), PollFlags::IN)),
            (Self::Socket { .. }, Some(visitor)) if !full => Some((visitor.as_fd(), PollFlags::IN)),
            (Self::Socket { .. }, Some(visitor)) if !left(visitor) => {
                Some((visitor.as_fd(), PollFlags::empty()))
            }
            (Self::Socket { listener, .. }, _) => Some((listener.as_fd(), PollFlags::IN)),
        }
    }

    /// Its end: another visitor may come, but no other standard input.
    fn hang_up(&mut self) {
        match self {
            Self::Socket { visitor, .. } => *lock(&visitor.0) = None,
            _ => *self = Self::Nobody,
        }
    }
}

/// Whether a visitor has closed his end.
fn left(visitor: &UnixStream) -> bool {
    // A hang-up is told to whoever asks for nothing.
    let mut polled = [PollFd::new(visitor, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// A new pseudo-terminal: our end, and theirs. Ours does not block: what nobody reads is lost.
fn pseudo_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?;
    let theirs = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let mut settings = tcgetattr(&theirs)?;
    settings.make_raw();
    tcsetattr(&theirs, OptionalActions::Now, &settings)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    eprintln!("console: {}", name.to_string_lossy());
    Ok((ours, theirs))
}

/// If standard input is a terminal: each key goes to the guest at once and unechoed, but for those that are signals.
fn typed_through() -> io::Result<Option<Restore>> {
    let stdin = io::stdin();
    if !io::IsTerminal::is_terminal(&stdin) {
        return Ok(None);
    }
    let before = tcgetattr(&stdin)?;
    let mut settings = before.clone();
    settings.make_raw();
    settings.local_modes |= LocalModes::ISIG;
    settings.output_modes |= OutputModes::OPOST;
    tcsetattr(&stdin, OptionalActions::Now, &settings)?;
    Ok(Some(Restore(before)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read, thread};

    #[test]
    fn a_guest_that_reads_nothing_keeps_no_visitor_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        let (console, mut out) =
            Console::open(&ConsoleTarget::Socket { path: path.clone(), log: None }).unwrap();
        let event = || Event::new().unwrap();
        let (room, stop) = (event(), event());
        let com = Mutex::new(com(event(), room.try_clone().unwrap(), Box::new(io::sink())));
        thread::scope(|scope| {
            scope.spawn(|| console.serve(&com, &room, &stop));
            for _ in 0..3 {
                let mut visitor = UnixStream::connect(&path).unwrap();
                visitor.set_nonblocking(true).unwrap();
                // More than the FIFO holds, and he waits until he hears something.
                visitor.write_all(&[b'x'; 100]).unwrap();
                while visitor.read(&mut [0]).is_err() {
                    out.write_all(b"A").unwrap();
                }
            }
            stop.ring();
        });
    }

    #[test]
    fn a_log_goes_on_until_it_is_full_and_then_begins_anew_with_the_next_machine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let tail = || {
            let all = std::fs::read(&path).unwrap();
            (all.len() as u64, all[all.len().saturating_sub(LOG_FULL.len())..].to_vec())
        };
        File::create(&path).unwrap().set_len(LOG_LIMIT - 3).unwrap();
        let mut log = Log::open(&path).unwrap();
        log.keep(b"ab");
        assert_eq!(tail().0, LOG_LIMIT - 1);
        log.keep(b"cde");
        log.keep(b"f");
        assert_eq!(tail(), (LOG_LIMIT + LOG_FULL.len() as u64, LOG_FULL.to_vec()));
        Log::open(&path).unwrap().keep(b"anew");
        assert_eq!(tail(), (4, b"anew".to_vec()));
        let why = Log::open(folder.path()).err().unwrap().to_string();
        assert!(why.starts_with(&folder.path().display().to_string()), "{why}");
    }

    #[test]
    fn what_a_visitor_does_not_read_is_lost_when_the_patience_with_him_is_over() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut visitor = Visitor(Arc::new(Mutex::new(Some(ours))));
        while lock(&visitor.0).is_some() {
            visitor.write_all(&[0; 4096]).unwrap();
        }
        let mut heard = Vec::new();
        (&theirs).read_to_end(&mut heard).unwrap();
        assert!(heard.len() >= 4096, "what fits is there, and then its end");
    }
}
