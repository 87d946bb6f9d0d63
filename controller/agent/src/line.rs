//! The line to the asker: a serial device or two streams, requests read from it and answers written to it.

use crate::ask::{Agent, ready};
use probe::{Answer, Ask, Decoder, FromGuest, Request, answer::Refusal, encode};
use rustix::{
    fs::{Mode, OFlags, open},
    termios::{OptionalActions, isatty, tcgetattr, tcsetattr},
};
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Requests that are under way at a time; more are refused as busy.
const MOST_REQUESTS: usize = 64;

/// Both directions of a line.
pub(crate) struct Line {
    reader: File,
    writer: Arc<Writer>,
}

impl Line {
    /// Standard input and output.
    pub(crate) fn standard() -> io::Result<Self> {
        let reader = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self::new(reader, File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }

    /// A device. A terminal, as a serial port is one, is made to pass every byte as it is.
    pub(crate) fn device(path: &OsStr) -> io::Result<Self> {
        // Not to become the controlling terminal: a byte 3 must not interrupt us.
        let device = open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        if isatty(&device) {
            let mut settings = tcgetattr(&device)?;
            settings.make_raw();
            tcsetattr(&device, OptionalActions::Now, &settings)?;
        }
        let reader = File::from(device);
        let writer = reader.try_clone()?;
        Ok(Self::new(reader, writer))
    }

    fn new(reader: File, writer: File) -> Self {
        Self { reader, writer: Arc::new(Writer { file: Mutex::new(writer), under_way: AtomicUsize::new(0) }) }
    }

    /// Says that the guest is ready, and answers until the line ends or a `Shutdown` comes.
    pub(crate) fn serve(mut self, agent: &Arc<Agent>) -> io::Result<()> {
        self.writer.write(&FromGuest::Ready(ready()))?;
        let mut decoder = Decoder::<Ask>::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let len = self.reader.read(&mut buffer)?;
            if len == 0 {
                return Ok(());
            }
            // What is no message is noise on the line; the asker waits for an answer in vain, and asks again.
            for ask in decoder.push(buffer.get(..len).unwrap_or_default()).flatten() {
                let shutdown = ask.request == Request::Shutdown;
                begin(agent, &self.writer, ask)?;
                if shutdown {
                    return Ok(());
                }
            }
        }
    }
}

/// Carries a request out: at once where that takes no time, or in a thread of its own.
fn begin(agent: &Arc<Agent>, writer: &Arc<Writer>, ask: Ask) -> io::Result<()> {
    let id = ask.id;
    if at_once(&ask.request) {
        return writer.write(&FromGuest::Answer { id, answer: agent.answer(ask.request) });
    }
    let place = Place::take(writer);
    if place.0.under_way.load(Ordering::Relaxed) > MOST_REQUESTS {
        return writer.write(&FromGuest::Answer { id, answer: Answer::Refused(Refusal::Busy) });
    }
    let agent = Arc::clone(agent);
    let work = move || {
        let answer = agent.answer(ask.request);
        // A line that is gone ends the reader too, and with it the process.
        place.0.write(&FromGuest::Answer { id, answer }).ok();
    };
    match thread::Builder::new().spawn(work) {
        Ok(_) => Ok(()),
        Err(_) => writer.write(&FromGuest::Answer { id, answer: Answer::Refused(Refusal::Busy) }),
    }
}

/// Whether a request waits for nothing. These are carried out in the order in which they came, so that a `Connect`
/// behind a `Listen` finds it done, and a frame sent behind an `Expect` is counted.
fn at_once(request: &Request) -> bool {
    match request {
        Request::Hello(_)
        | Request::Report
        | Request::Listen(_)
        | Request::Unlisten(_)
        | Request::SendFrame(_)
        | Request::Expect(_)
        | Request::ReceivedFrames(_)
        | Request::Serve { .. }
        | Request::Served { .. }
        | Request::Shutdown => true,
        Request::Ping(_)
        | Request::Connect(_)
        | Request::UdpEcho(_)
        | Request::Resolve(_)
        | Request::Send(_)
        | Request::Exec(_) => false,
    }
}

/// Writes whole messages, one at a time.
struct Writer {
    file: Mutex<File>,
    /// Requests that will write an answer.
    under_way: AtomicUsize,
}

impl Writer {
    fn write(&self, message: &FromGuest) -> io::Result<()> {
        let bytes = encode(message).map_err(io::Error::other)?;
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)
    }
}

/// One of the requests under way, until it is dropped.
struct Place(Arc<Writer>);

impl Place {
    fn take(writer: &Arc<Writer>) -> Self {
        writer.under_way.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(writer))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
