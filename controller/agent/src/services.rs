//! What this guest serves: echo over TCP and UDP (RFC 862), and the sink of bulk transfers.

use crate::origin::system;
use probe::{
    Answer, ECHO_PORT,
    answer::{Bulk, Refusal},
    ask::{Service, Transport},
    bulk::Checksum,
};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
    net::{self, AddressFamily, SocketFlags, SocketType, sockopt},
};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Services beside those that are always there.
const MOST_SERVICES: usize = 256;
/// TCP connections that are echoed at a time; more are closed at once.
const MOST_CONNECTIONS: usize = 64;
const BACKLOG: i32 = 128;
/// A connection on which nothing comes for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// How much of a bulk transfer is read at a time: few calls, and it stays in a core's cache.
const BULK_BUFFER: usize = 256 * 1024;
const STACK: usize = 64 * 1024;

/// The services that are open.
#[derive(Default)]
pub(crate) struct Services {
    open: Mutex<BTreeMap<(Kind, u16), Open>>,
    connections: Arc<AtomicUsize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    TcpEcho,
    UdpEcho,
    Sink,
}

/// What came last to a sink.
type Last = Arc<Mutex<Option<Bulk>>>;

struct Open {
    last: Last,
    /// Ends the thread when dropped.
    _worker: Worker,
}

impl Services {
    /// Opens echo on port 7 of both transports. Where the port cannot be had, those that ask for it will see so.
    pub(crate) fn start(&self) {
        for kind in [Kind::TcpEcho, Kind::UdpEcho] {
            self.open(kind, ECHO_PORT).ok();
        }
    }

    /// Opens an echo service.
    pub(crate) fn listen(&self, service: Service) -> Result<Answer, Refusal> {
        self.open(echo(service), service.port)
    }

    /// Closes an echo service, but not those that are always there.
    pub(crate) fn unlisten(&self, service: Service) -> Result<Answer, Refusal> {
        if service.port == ECHO_PORT {
            return Err(Refusal::NotOpen);
        }
        let closed = self.with(|open| open.remove(&(echo(service), service.port)));
        closed.map(|_| Answer::Done).ok_or(Refusal::NotOpen)
    }

    /// Opens a sink of bulk transfers.
    pub(crate) fn serve(&self, port: u16) -> Result<Answer, Refusal> {
        self.open(Kind::Sink, port)
    }

    /// What came last to a sink.
    pub(crate) fn served(&self, port: u16) -> Result<Answer, Refusal> {
        let last = self.with(|open| open.get(&(Kind::Sink, port)).map(|open| Arc::clone(&open.last)));
        let last = last.ok_or(Refusal::NotOpen)?;
        let last = *last.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Answer::Served(last))
    }

    fn open(&self, kind: Kind, port: u16) -> Result<Answer, Refusal> {
        if port == 0 {
            return Err(Refusal::OutOfBounds);
        }
        self.with(|open| {
            if open.contains_key(&(kind, port)) {
                return Err(Refusal::PortTaken);
            }
            if open.len() >= MOST_SERVICES {
                return Err(Refusal::Busy);
            }
            let last = Last::default();
            let worker =
                self.worker(kind, port, &last).map_err(|error| match Errno::from_io_error(&error) {
                    Some(Errno::ADDRINUSE) => Refusal::PortTaken,
                    _ => system(&format!("listen on port {port}"), error),
                })?;
            open.insert((kind, port), Open { last, _worker: worker });
            Ok(Answer::Done)
        })
    }

    fn worker(&self, kind: Kind, port: u16, last: &Last) -> io::Result<Worker> {
        match kind {
            Kind::UdpEcho => {
                let socket = UdpSocket::from(bound(SocketType::DGRAM, port)?);
                let mut buffer = vec![0; usize::from(u16::MAX)];
                Worker::start(socket, move |socket| echo_datagram(socket, &mut buffer))
            }
            Kind::TcpEcho => {
                let connections = Arc::clone(&self.connections);
                Worker::start(listener(port)?, move |listener| {
                    if let Ok((connection, _)) = listener.accept() {
                        echo_apart(connection, &connections);
                    }
                })
            }
            Kind::Sink => {
                let last = Arc::clone(last);
                Worker::start(listener(port)?, move |listener| {
                    let Ok((mut connection, _)) = listener.accept() else { return };
                    if let Ok(received) = sink(&mut connection) {
                        // Before the connection closes: whoever sees it closed may ask at once what came.
                        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(received);
                    }
                })
            }
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<(Kind, u16), Open>) -> T) -> T {
        work(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn echo(service: Service) -> Kind {
    match service.transport {
        Transport::Tcp => Kind::TcpEcho,
        Transport::Udp => Kind::UdpEcho,
    }
}

/// A thread that serves a socket until it is dropped.
struct Worker {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Calls `serve` whenever something waits on the socket, which must not block.
    fn start<S: AsFd + Send + 'static>(
        socket: S,
        mut serve: impl FnMut(&S) + Send + 'static,
    ) -> io::Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let stopped = stop.try_clone()?;
        let thread = thread::Builder::new().stack_size(STACK).spawn(move || {
            loop {
                let mut ready = [PollFd::new(&stopped, PollFlags::IN), PollFd::new(&socket, PollFlags::IN)];
                if poll(&mut ready, None).is_err() || !ready[0].revents().is_empty() {
                    return;
                }
                serve(&socket);
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Worker {
    /// Waits until the thread has closed the socket, so that the port is free again.
    fn drop(&mut self) {
        if rustix::io::write(&self.stop, &1_u64.to_ne_bytes()).is_ok() {
            self.thread.take().map(JoinHandle::join);
        }
    }
}

fn listener(port: u16) -> io::Result<TcpListener> {
    let socket = bound(SocketType::STREAM, port)?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// A socket on this port of every address, of IPv6 and IPv4; of IPv4 alone where the kernel has no IPv6.
fn bound(kind: SocketType, port: u16) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (socket, address) = match net::socket_with(AddressFamily::INET6, kind, flags, None) {
        Ok(socket) => {
            sockopt::set_ipv6_v6only(&socket, false)?;
            (socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        }
        Err(Errno::AFNOSUPPORT) => {
            (net::socket_with(AddressFamily::INET, kind, flags, None)?, (Ipv4Addr::UNSPECIFIED, port).into())
        }
        Err(errno) => return Err(errno.into()),
    };
    if kind == SocketType::STREAM {
        // Connections that linger in TIME-WAIT do not keep the port from being opened again.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    net::bind(&socket, &address)?;
    Ok(socket)
}

/// Answers one datagram. Errors are those of single datagrams: an ICMP error, a route that is gone.
fn echo_datagram(socket: &UdpSocket, buffer: &mut [u8]) {
    if let Ok((len, from)) = socket.recv_from(buffer) {
        socket.send_to(buffer.get(..len).unwrap_or_default(), from).ok();
    }
}

/// Echoes a connection in a thread of its own, or closes it if there are too many.
fn echo_apart(connection: TcpStream, connections: &Arc<AtomicUsize>) {
    let place = Place::take(connections);
    if place.0.load(Ordering::Relaxed) <= MOST_CONNECTIONS {
        // A thread that cannot start drops the connection, which closes it.
        thread::Builder::new().stack_size(STACK).spawn(move || echo_connection(connection, &place)).ok();
    }
}

/// One of the connections that are counted, until it is dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends back what comes until the other end closes, breaks off or falls silent.
fn echo_connection(mut connection: TcpStream, _place: &Place) {
    let mut buffer = [0; 16 * 1024];
    if blocking(&connection).is_err() {
        return;
    }
    while let Ok(len @ 1..) = connection.read(&mut buffer) {
        if connection.write_all(buffer.get(..len).unwrap_or_default()).is_err() {
            return;
        }
    }
}

/// Takes a bulk transfer to its end. That the connection closes then tells the sender that its last byte has come.
fn sink(connection: &mut TcpStream) -> io::Result<Bulk> {
    blocking(connection)?;
    let mut buffer = vec![0; BULK_BUFFER];
    let mut checksum = Checksum::new();
    loop {
        let len = connection.read(&mut buffer)?;
        if len == 0 {
            return Ok(Bulk { bytes: checksum.bytes(), checksum: checksum.value() });
        }
        checksum.update(buffer.get(..len).unwrap_or_default());
    }
}

/// Lets calls on the connection wait, but not for ever.
fn blocking(connection: &TcpStream) -> io::Result<()> {
    connection.set_nonblocking(false)?;
    connection.set_read_timeout(Some(IDLE))?;
    connection.set_write_timeout(Some(IDLE))
}
