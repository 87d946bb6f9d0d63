//! COM1 and who is at its other end: this process's standard streams, a pseudo-terminal, or a Unix socket.
//!
//! What the guest prints is written by the vCPU that prints it. What is typed is fed by a thread of its own, which stops
//! reading while the guest's FIFO is full.

use crate::{devices::lock, event::Event};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr},
};
use std::{
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use vm_superio::{Serial, serial::SerialEvents};

/// Who is at the other end of COM1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleTarget {
    /// Standard input and output.
    Stdio,
    /// A new pseudo-terminal, whose name is said on standard error.
    Pty,
    /// Whoever connects to this Unix socket, one at a time. What is printed with nobody there is lost.
    Socket(PathBuf),
    /// Nobody.
    Nobody,
}

/// How long a vCPU waits for a visitor who does not read, before it goes on without.
const PATIENCE: Duration = Duration::from_secs(1);

/// COM1.
pub(crate) type Com = Serial<Event, Room, Box<dyn Write + Send>>;

/// COM1 with its interrupt line; `room` is rung when its FIFO has been emptied.
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

/// The other end of COM1.
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
        listener: UnixListener,
        visitor: Visitor,
        _name: Name,
    },
}

/// A socket's name, which goes with it: else the next machine could not take it.
struct Name(PathBuf);

impl Drop for Name {
    fn drop(&mut self) {
        // One that somebody has removed already is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The visitor of a console on a socket, if there is one.
#[derive(Clone, Default)]
struct Visitor(Arc<Mutex<Option<UnixStream>>>);

impl Write for Visitor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut visitor = lock(&self.0);
        if let Some(stream) = &mut *visitor
            && stream.write_all(bytes).is_err()
        {
            *visitor = None;
        }
        Ok(bytes.len())
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
    pub(crate) fn open(target: &ConsoleTarget) -> io::Result<(Self, Box<dyn Write + Send>)> {
        let (input, out): (_, Box<dyn Write + Send>) = match target {
            ConsoleTarget::Nobody => (Input::Nobody, Box::new(io::sink())),
            ConsoleTarget::Stdio => {
                let ours = io::stdin().as_fd().try_clone_to_owned()?;
                (Input::Descriptor { ours, _theirs: None }, Box::new(io::stdout()))
            }
            ConsoleTarget::Pty => {
                let (ours, theirs) = pseudo_terminal()?;
                let out = std::fs::File::from(ours.try_clone()?);
                (Input::Descriptor { ours, _theirs: Some(theirs) }, Box::new(out))
            }
            ConsoleTarget::Socket(path) => {
                let listener = UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                let visitor = Visitor::default();
                let name = Name(path.clone());
                (Input::Socket { listener, visitor: visitor.clone(), _name: name }, Box::new(visitor))
            }
        };
        let terminal = if *target == ConsoleTarget::Stdio { typed_through()? } else { None };
        Ok((Self { input, _terminal: terminal }, out))
    }

    /// Feeds what is typed to `com1` until `stop` is rung.
    pub(crate) fn serve(mut self, com1: &Mutex<Com>, room: &Event, stop: &Event) {
        let mut bytes = [0; 64];
        loop {
            let free = lock(com1).fifo_capacity().min(bytes.len());
            let Ok(typed) = self.input.wait(stop, room, &mut bytes[..free]) else { return };
            // No more than there was room for, and whoever drains the FIFO only makes more.
            let _ = lock(com1).enqueue_raw_bytes(typed);
        }
    }
}

/// The machine has ended.
struct Stopped;

impl Input {
    /// Waits for what comes first: input (if there is room for some), room for it, or the machine's end.
    fn wait<'a>(&mut self, stop: &Event, room: &Event, bytes: &'a mut [u8]) -> Result<&'a [u8], Stopped> {
        let visitor = self.visitor();
        let source = self.source(visitor.as_ref());
        let mut polled = vec![PollFd::new(stop, PollFlags::IN), PollFd::new(room, PollFlags::IN)];
        if !bytes.is_empty() {
            polled.extend(source.map(|source| PollFd::from_borrowed_fd(source, PollFlags::IN)));
        }
        if poll(&mut polled, None).is_err() {
            return Ok(&[]);
        }
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        if ready[0] {
            return Err(Stopped);
        }
        room.drain();
        let (Some(source), Some(true)) = (source, ready.get(2)) else { return Ok(&[]) };
        if let (Self::Socket { listener, visitor: place, .. }, None) = (&*self, &visitor) {
            if let Ok((stream, _)) = listener.accept() {
                let patient = stream.set_nonblocking(false).and(stream.set_write_timeout(Some(PATIENCE)));
                *lock(&place.0) = patient.is_ok().then_some(stream);
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

    /// What input, or a visitor, comes by.
    fn source<'a>(&'a self, visitor: Option<&'a UnixStream>) -> Option<BorrowedFd<'a>> {
        match self {
            Self::Nobody => None,
            Self::Descriptor { ours, .. } => Some(ours.as_fd()),
            Self::Socket { listener, .. } => Some(visitor.map_or(listener.as_fd(), AsFd::as_fd)),
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
