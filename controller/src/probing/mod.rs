//! The asking side of the probe protocol: one line to one guest, be it a station or a virtual machine.
//!
//! Several questions may be open at once. A line that breaks fails all of them; whoever owns it makes a new one.

use crate::lab::sockets;
use probe::{
    Answer, Ask, AskId, Decoder, FromGuest, Request,
    answer::Ready,
    ask::{Hello, Service},
};
use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

/// What is granted beyond a question's own time: a serial line under emulation is slow.
const GRACE: Duration = Duration::from_secs(10);

/// How often a guest is greeted until it answers: one that boots does not listen yet.
const GREETING: Duration = Duration::from_millis(500);

/// Why a question has no answer.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The line broke.
    #[error("the probe line to {0} broke")]
    Broken(String),
    /// No answer came in time.
    #[error("{0} did not answer its probe line in time")]
    Silent(String),
    /// The question is longer than a message may be.
    #[error("a question to {0} is too long")]
    TooLong(String),
    /// The socket could not be reached.
    #[error("the probe line to {0}: {1}")]
    Io(String, io::Error),
}

/// The open questions; none once the line broke.
type Open = Arc<Mutex<Option<BTreeMap<AskId, oneshot::Sender<Answer>>>>>;

/// A line to one guest. Cheap to clone; the last clone that is dropped closes the line.
#[derive(Debug, Clone)]
pub struct Line {
    guest: String,
    ready: Ready,
    open: Open,
    outgoing: mpsc::Sender<Vec<u8>>,
    next: Arc<Mutex<u32>>,
    /// The services that were opened over this line: they stay open as long as the guest lives.
    opened: Arc<Mutex<HashSet<Service>>>,
    _tasks: Arc<Tasks>,
}

/// The line's two tasks; they end with it.
#[derive(Debug)]
struct Tasks([JoinHandle<()>; 2]);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Line {
    /// Connects to `socket` and greets `guest` until it answers, for at most `patience`.
    ///
    /// # Errors
    /// The socket cannot be reached, or the guest stays silent.
    pub async fn connect(socket: &Path, guest: &str, patience: Duration) -> Result<Self, ProbeError> {
        let connected = sockets::connect(socket)
            .and_then(|stream| stream.set_nonblocking(true).map(|()| stream))
            .and_then(UnixStream::from_std);
        let stream = connected.map_err(|why| ProbeError::Io(guest.into(), why))?;
        Self::over(stream, guest, patience).await
    }

    /// Greets `guest` on `stream` until it answers, for at most `patience`.
    ///
    /// # Errors
    /// The guest stays silent, or the line breaks.
    pub async fn over(stream: UnixStream, guest: &str, patience: Duration) -> Result<Self, ProbeError> {
        let (reader, writer) = stream.into_split();
        let open: Open = Arc::new(Mutex::new(Some(BTreeMap::new())));
        let (outgoing, queue) = mpsc::channel(16);
        let tasks = [tokio::spawn(read(reader, open.clone())), tokio::spawn(write(writer, queue))];
        let nobody = Ready { version: 0, name: String::new(), interfaces: Vec::new() };
        let mut line = Self {
            guest: guest.into(),
            ready: nobody,
            open,
            outgoing,
            next: Arc::new(Mutex::new(0)),
            opened: Arc::default(),
            _tasks: Arc::new(Tasks(tasks)),
        };
        let silent = || ProbeError::Silent(guest.into());
        line.ready = timeout(patience, line.greet()).await.map_err(|_| silent())??;
        Ok(line)
    }

    async fn greet(&self) -> Result<Ready, ProbeError> {
        loop {
            let hello = Hello { version: probe::VERSION, name: self.guest.clone() };
            match self.ask_within(Request::Hello(hello), GREETING).await {
                Ok(Answer::Ready(ready)) => return Ok(ready),
                // Not there yet: it boots, or it is not behind the socket yet.
                Ok(_) => tokio::time::sleep(GREETING).await,
                Err(ProbeError::Silent(_)) => {}
                Err(why) => return Err(why),
            }
        }
    }

    /// Who is at the other end.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Asks, and waits for the answer as long as the question itself takes, and some more.
    ///
    /// # Errors
    /// No answer came.
    pub async fn ask(&self, request: Request) -> Result<Answer, ProbeError> {
        let within = own_time(&request) + GRACE;
        self.ask_within(request, within).await
    }

    /// Has the guest serve echo for a probe, and says whether the service is there for that only; else the guest served
    /// that port by itself, or cannot.
    ///
    /// # Errors
    /// No answer came.
    pub async fn listen(&self, service: Service) -> Result<bool, ProbeError> {
        let answer = self.ask(Request::Listen(service)).await?;
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if answer == Answer::Done {
            opened.insert(service);
        }
        Ok(opened.contains(&service))
    }

    async fn ask_within(&self, request: Request, within: Duration) -> Result<Answer, ProbeError> {
        let broken = || ProbeError::Broken(self.guest.clone());
        let id = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next = next.wrapping_add(1);
            AskId::new(*next)
        };
        let bytes =
            probe::encode(&Ask { id, request }).map_err(|_| ProbeError::TooLong(self.guest.clone()))?;
        let (answer, answered) = oneshot::channel();
        self.with_open(|open| open.insert(id, answer)).ok_or_else(broken)?;
        self.outgoing.send(bytes).await.map_err(|_| broken())?;
        match timeout(within, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(broken()),
            Err(_) => {
                self.with_open(|open| open.remove(&id));
                Err(ProbeError::Silent(self.guest.clone()))
            }
        }
    }

    fn with_open<T>(
        &self,
        edit: impl FnOnce(&mut BTreeMap<AskId, oneshot::Sender<Answer>>) -> T,
    ) -> Option<T> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(edit)
    }
}

/// How long the guest may take over a question by the question's own terms.
fn own_time(request: &Request) -> Duration {
    match request {
        Request::Ping(ping) => (ping.interval + ping.timeout).saturating_mul(u32::from(ping.count)),
        Request::Connect(connect) => connect.timeout,
        Request::UdpEcho(echo) => echo.timeout,
        Request::Resolve(resolve) => resolve.timeout,
        Request::Send(send) => send.timeout,
        Request::Exec(exec) => exec.timeout,
        _ => Duration::ZERO,
    }
}

async fn write(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = queue.recv().await {
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Hands each answer to whoever asked; what is no message (a kernel's words on the same line) is passed over.
async fn read(mut reader: OwnedReadHalf, open: Open) {
    let mut decoder = Decoder::<FromGuest>::new();
    let mut bytes = vec![0; 16 << 10];
    while let Ok(read @ 1..) = reader.read(&mut bytes).await {
        for message in decoder.push(&bytes[..read]).flatten() {
            let FromGuest::Answer { id, answer } = message else { continue };
            let asker = open
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_mut()
                .and_then(|open| open.remove(&id));
            if let Some(asker) = asker {
                // Whoever asked may have given up since.
                let _ = asker.send(answer);
            }
        }
    }
    open.lock().unwrap_or_else(PoisonError::into_inner).take();
}

#[cfg(test)]
mod tests {
    use super::*;
    use probe::{answer::Refusal, ask::Transport};

    /// A guest that answers `Hello` from its second greeting on, and then each question by what `answer` says.
    async fn guest(stream: UnixStream, mut answer: impl FnMut(Request) -> Option<Answer>) {
        let (mut reader, mut writer) = stream.into_split();
        let mut decoder = Decoder::<Ask>::new();
        let mut bytes = [0; 1024];
        let mut greetings = 0;
        while let Ok(read @ 1..) = reader.read(&mut bytes).await {
            for Ask { id, request } in decoder.push(&bytes[..read]).flatten().collect::<Vec<_>>() {
                let reply = if let Request::Hello(hello) = request {
                    greetings += 1;
                    let ready = Ready { version: probe::VERSION, name: hello.name, interfaces: Vec::new() };
                    (greetings > 1).then_some(Answer::Ready(ready))
                } else {
                    answer(request)
                };
                let Some(answer) = reply else { continue };
                let mut out = b"kernel: words of its own\n".to_vec();
                out.extend(probe::encode(&FromGuest::Answer { id, answer }).unwrap());
                writer.write_all(&out).await.unwrap();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_is_greeted_until_it_answers_and_answers_find_their_questions() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(guest(theirs, |request| match request {
            Request::Report => Some(Answer::Report(Vec::new())),
            _ => Some(Answer::Done),
        }));
        let line = Line::over(ours, "pc1", Duration::from_secs(5)).await.unwrap();
        assert_eq!(line.ready().name, "pc1");
        let (report, served) = tokio::join!(line.ask(Request::Report), line.ask(Request::Serve { port: 7 }));
        assert_eq!(report.unwrap(), Answer::Report(Vec::new()));
        assert_eq!(served.unwrap(), Answer::Done);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_a_probe_opened_is_told_from_one_that_the_guest_had() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut open = vec![22];
        tokio::spawn(guest(theirs, move |request| match request {
            Request::Listen(service) if open.contains(&service.port) => {
                Some(Answer::Refused(Refusal::PortTaken))
            }
            Request::Listen(service) => {
                open.push(service.port);
                Some(Answer::Done)
            }
            _ => None,
        }));
        let line = Line::over(ours, "pc1", Duration::from_secs(5)).await.unwrap();
        let tcp = |port| Service { transport: Transport::Tcp, port };
        for (port, for_the_probe) in [(80, true), (22, false), (80, true)] {
            assert_eq!(line.listen(tcp(port)).await.unwrap(), for_the_probe, "port {port}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_stays_silent_or_goes_away_is_an_error_with_its_name() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let why = Line::over(ours, "pc1", Duration::from_secs(3)).await.unwrap_err();
        assert_eq!(why.to_string(), "pc1 did not answer its probe line in time");
        drop(theirs);
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let why = Line::over(ours, "pc1", Duration::from_secs(3)).await.unwrap_err();
        assert_eq!(why.to_string(), "the probe line to pc1 broke");
    }
}
