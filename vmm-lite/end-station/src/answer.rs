//! What a station serves on one interface: echo (RFC 862) over TCP and UDP, and the receiving end of bulk transfers.

use alloc::{vec, vec::Vec};
use probe::answer::{Bulk, Refusal};
use probe::ask::{Service, Transport};
use probe::{ECHO_PORT, bulk::Checksum};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, State};
use smoltcp::socket::udp;
use smoltcp::time::{Duration, Instant};

/// Services on one interface at most.
const MAX_SERVICES: usize = 64;
/// Connections to one echo service at most; more get a reset.
const MAX_CONNECTIONS: usize = 64;
/// Buffers of an echo connection, in bytes each way.
const ECHO_BUFFER: usize = 4 << 10;
/// The window of a bulk transfer: what a ring of 256 frames of 1500 bytes can take at once.
pub(crate) const BULK_BUFFER: usize = 256 << 10;
/// A peer that is silent for so long, keep-alives unanswered, is gone.
const SILENCE: Duration = Duration::from_secs(30);

/// A TCP socket with buffers of these sizes that notices when its peer is gone.
pub(crate) fn tcp_socket(receive: usize, send: usize) -> tcp::Socket<'static> {
    let mut socket =
        tcp::Socket::new(tcp::SocketBuffer::new(vec![0; receive]), tcp::SocketBuffer::new(vec![0; send]));
    socket.set_timeout(Some(SILENCE));
    socket.set_keep_alive(Some(SILENCE / 3));
    socket.set_nagle_enabled(false);
    socket
}

/// Nothing more is to come of this connection, once what is due was sent.
pub(crate) fn is_over(socket: &tcp::Socket<'_>) -> bool {
    matches!(socket.state(), State::Closed | State::TimeWait)
}

fn listening(port: u16, receive: usize, send: usize) -> tcp::Socket<'static> {
    let mut socket = tcp_socket(receive, send);
    socket.listen(port).expect("a new socket listens on any port but 0, which is refused before");
    socket
}

#[derive(Debug)]
struct TcpEcho {
    port: u16,
    /// The one that waits for the next connection, unless there are too many.
    spare: Option<SocketHandle>,
    connections: Vec<SocketHandle>,
}

#[derive(Debug)]
struct UdpEcho {
    port: u16,
    socket: SocketHandle,
}

#[derive(Debug)]
struct Sink {
    port: u16,
    socket: SocketHandle,
    sum: Checksum,
    last: Option<(Instant, Bulk)>,
}

/// The services of one interface.
#[derive(Debug, Default)]
pub(crate) struct Services {
    tcp: Vec<TcpEcho>,
    udp: Vec<UdpEcho>,
    sinks: Vec<Sink>,
}

impl Services {
    /// With the echo service that every guest has.
    pub(crate) fn new(sockets: &mut SocketSet<'static>) -> Self {
        let mut services = Self::default();
        services.open_tcp(ECHO_PORT, sockets);
        services.open_udp(ECHO_PORT, sockets);
        services
    }

    /// Opens an echo service.
    pub(crate) fn listen(
        &mut self,
        service: Service,
        sockets: &mut SocketSet<'static>,
    ) -> Result<(), Refusal> {
        self.check(service)?;
        match service.transport {
            Transport::Tcp => self.open_tcp(service.port, sockets),
            Transport::Udp => self.open_udp(service.port, sockets),
        }
        Ok(())
    }

    /// Closes an echo service that [`Self::listen`] opened, and its connections.
    pub(crate) fn unlisten(
        &mut self,
        service: Service,
        sockets: &mut SocketSet<'static>,
    ) -> Result<(), Refusal> {
        if service.port == ECHO_PORT {
            return Err(Refusal::NotOpen);
        }
        match service.transport {
            Transport::Tcp => {
                let at = self.tcp.iter().position(|echo| echo.port == service.port);
                let echo = self.tcp.swap_remove(at.ok_or(Refusal::NotOpen)?);
                for handle in echo.connections.into_iter().chain(echo.spare) {
                    sockets.remove(handle);
                }
            }
            Transport::Udp => {
                let at = self.udp.iter().position(|echo| echo.port == service.port);
                sockets.remove(self.udp.swap_remove(at.ok_or(Refusal::NotOpen)?).socket);
            }
        }
        Ok(())
    }

    /// Takes bulk transfers on `port`.
    pub(crate) fn serve(&mut self, port: u16, sockets: &mut SocketSet<'static>) -> Result<(), Refusal> {
        self.check(Service { transport: Transport::Tcp, port })?;
        let socket = sockets.add(listening(port, BULK_BUFFER, ECHO_BUFFER));
        self.sinks.push(Sink { port, socket, sum: Checksum::new(), last: None });
        Ok(())
    }

    /// The latest transfer that ended on `port`, and when.
    pub(crate) fn served(&self, port: u16) -> Result<Option<(Instant, Bulk)>, Refusal> {
        self.sinks.iter().find(|sink| sink.port == port).map(|sink| sink.last).ok_or(Refusal::NotOpen)
    }

    fn check(&self, service: Service) -> Result<(), Refusal> {
        let Service { transport, port } = service;
        let taken = match transport {
            Transport::Tcp => {
                self.tcp.iter().any(|echo| echo.port == port)
                    || self.sinks.iter().any(|sink| sink.port == port)
            }
            Transport::Udp => self.udp.iter().any(|echo| echo.port == port),
        };
        match () {
            () if port == 0 => Err(Refusal::OutOfBounds),
            () if taken => Err(Refusal::PortTaken),
            () if self.tcp.len() + self.udp.len() + self.sinks.len() >= MAX_SERVICES => Err(Refusal::Busy),
            () => Ok(()),
        }
    }

    fn open_tcp(&mut self, port: u16, sockets: &mut SocketSet<'static>) {
        let spare = Some(sockets.add(listening(port, ECHO_BUFFER, ECHO_BUFFER)));
        self.tcp.push(TcpEcho { port, spare, connections: Vec::new() });
    }

    fn open_udp(&mut self, port: u16, sockets: &mut SocketSet<'static>) {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 64 << 10]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).expect("a new socket binds to any port but 0, which is refused before");
        self.udp.push(UdpEcho { port, socket: sockets.add(socket) });
    }

    /// After each frame: a service whose waiting socket was taken gets another, before the next frame asks for it.
    pub(crate) fn replenish(&mut self, sockets: &mut SocketSet<'static>) {
        for echo in &mut self.tcp {
            let taken = |handle: &mut SocketHandle| !sockets.get::<tcp::Socket<'_>>(*handle).is_listening();
            if let Some(handle) = echo.spare.take_if(taken) {
                echo.connections.push(handle);
            }
            if echo.spare.is_none() && echo.connections.len() < MAX_CONNECTIONS {
                echo.spare = Some(sockets.add(listening(echo.port, ECHO_BUFFER, ECHO_BUFFER)));
            }
        }
    }

    /// Moves what came.
    pub(crate) fn advance(&mut self, now: Instant, sockets: &mut SocketSet<'static>) {
        for handle in self.tcp.iter().flat_map(|echo| &echo.connections) {
            echo_stream(sockets.get_mut(*handle));
        }
        for echo in &self.udp {
            echo_datagrams(echo.port, sockets.get_mut(echo.socket));
        }
        for sink in &mut self.sinks {
            sink.take(now, sockets.get_mut(sink.socket));
        }
    }

    /// After all was sent that is due: connections that are over go.
    pub(crate) fn reap(&mut self, sockets: &mut SocketSet<'static>) {
        for echo in &mut self.tcp {
            echo.connections.retain(|handle| {
                let over = is_over(sockets.get(*handle));
                if over {
                    sockets.remove(*handle);
                }
                !over
            });
        }
        for sink in &mut self.sinks {
            if is_over(sockets.get(sink.socket)) {
                sockets.remove(sink.socket);
                sink.socket = sockets.add(listening(sink.port, BULK_BUFFER, ECHO_BUFFER));
                sink.sum = Checksum::new();
            }
        }
        self.replenish(sockets);
    }
}

impl Sink {
    fn take(&mut self, now: Instant, socket: &mut tcp::Socket<'_>) {
        while socket.can_recv() {
            let sum = &mut self.sum;
            let taken = socket.recv(|bytes| {
                sum.update(bytes);
                (bytes.len(), ())
            });
            if taken.is_err() {
                break;
            }
        }
        if socket.state() == State::CloseWait {
            self.last = Some((now, Bulk { bytes: self.sum.bytes(), checksum: self.sum.value() }));
            socket.close();
        }
    }
}

fn echo_stream(socket: &mut tcp::Socket<'_>) {
    while socket.can_recv() && socket.can_send() {
        let room = socket.send_capacity() - socket.send_queue();
        let taken = socket.recv(|bytes| {
            let len = bytes.len().min(room);
            (len, bytes[..len].to_vec())
        });
        let Ok(bytes) = taken else { break };
        if socket.send_slice(&bytes).is_err() {
            break;
        }
    }
    if socket.state() == State::CloseWait && !socket.can_recv() {
        socket.close();
    }
}

/// Datagrams from well-known ports get no echo: two echo services would never stop (CERT CA-1996-01).
fn echo_datagrams(port: u16, socket: &mut udp::Socket<'_>) {
    while socket.can_send() {
        let Ok((bytes, from)) = socket.recv() else { break };
        let sender = from.endpoint.port;
        if sender < 1024 || sender == port || from.local_address.is_some_and(|to| to.is_multicast()) {
            continue;
        }
        let bytes = bytes.to_vec();
        // No room, or a sender that cannot be answered: as lost as any datagram.
        let _ = socket.send_slice(&bytes, from);
    }
}
