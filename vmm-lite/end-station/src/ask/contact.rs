//! One attempt to reach a service: a TCP connection, or a UDP datagram that is expected back.

use super::span;
use crate::answer::tcp_socket;
use crate::frames::Path;
use crate::nic::Wire;
use crate::observe::{Event, IcmpError, Quoted};
use crate::stack::Stack;
use alloc::{
    format,
    string::{String, ToString},
    vec,
};
use probe::answer::{Answer, Contact, Refusal, Unreachable};
use probe::ask::{Connect, UdpEcho};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{IpEndpoint, IpListenEndpoint};

/// What an ICMP error means to one who wants a service.
pub(crate) fn refused_by(error: IcmpError) -> Contact {
    if error.port_unreachable { Contact::Refused } else { Contact::Unreachable(Unreachable::Rejected) }
}

/// What an event means to a TCP connection from port `own`, if it is an error about that.
pub(crate) fn refused_from(own: u16, event: Event) -> Option<Contact> {
    match event {
        Event::Error(error) if error.quoted == Quoted::Tcp(own) => Some(refused_by(error)),
        _ => None,
    }
}

/// A TCP connection from a port of ours.
pub(crate) fn connect<W: Wire>(
    stack: &mut Stack<W>,
    mut socket: tcp::Socket<'static>,
    path: Path,
    port: u16,
) -> Result<(SocketHandle, u16), Answer> {
    let own = stack.next_port();
    let local = IpListenEndpoint { addr: Some(path.src().into()), port: own };
    // The request has its own end of time, and a reset must stay the only thing that closes this early.
    socket.set_timeout(None);
    match socket.connect(stack.interface.context(), IpEndpoint::new(path.dst().into(), port), local) {
        Ok(()) => Ok((stack.sockets.add(socket), own)),
        Err(error) => Err(Answer::Refused(Refusal::System(format!("smoltcp: {error}")))),
    }
}

#[derive(Debug)]
pub(crate) struct Connecting {
    socket: SocketHandle,
    own_port: u16,
    started: Instant,
    until: Instant,
    refused: Option<Contact>,
}

impl Connecting {
    pub(crate) fn new<W: Wire>(
        ask: Connect,
        path: Path,
        stack: &mut Stack<W>,
        now: Instant,
    ) -> Result<Self, Answer> {
        let (socket, own_port) = connect(stack, tcp_socket(2048, 2048), path, ask.dst.port())?;
        Ok(Self { socket, own_port, started: now, until: now + span(ask.timeout), refused: None })
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.refused = refused_from(self.own_port, event).or(self.refused);
    }

    pub(crate) fn advance<W: Wire>(&mut self, stack: &mut Stack<W>, now: Instant) -> Option<Answer> {
        let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        let contact = match socket.state() {
            tcp::State::SynSent | tcp::State::SynReceived => match self.refused {
                Some(refused) => refused,
                None if now < self.until => return None,
                None => Contact::TimedOut,
            },
            tcp::State::Closed => Contact::Refused,
            _ => Contact::Answered((now - self.started).into()),
        };
        if let Contact::Answered(_) = contact {
            stack.retire(self.socket, now);
        } else {
            stack.sockets.remove(self.socket);
        }
        Some(Answer::Connect(contact))
    }

    pub(crate) fn cancel<W: Wire>(&self, stack: &mut Stack<W>) {
        stack.sockets.remove(self.socket);
    }

    pub(crate) fn poll_at(&self) -> Instant {
        self.until
    }
}

#[derive(Debug)]
pub(crate) struct Echoing {
    ask: UdpEcho,
    socket: SocketHandle,
    own_port: u16,
    started: Instant,
    until: Instant,
    refused: Option<Contact>,
}

impl Echoing {
    pub(crate) fn new<W: Wire>(
        ask: UdpEcho,
        path: Path,
        stack: &mut Stack<W>,
        now: Instant,
    ) -> Result<Self, Answer> {
        let buffer = || {
            udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 2], vec![0; ask.payload.len().max(1) * 2])
        };
        let mut socket = udp::Socket::new(buffer(), buffer());
        let own_port = stack.next_port();
        let refused = |error: String| Answer::Refused(Refusal::System(format!("smoltcp: {error}")));
        let local = IpListenEndpoint { addr: Some(path.src().into()), port: own_port };
        socket.bind(local).map_err(|error| refused(error.to_string()))?;
        let to = IpEndpoint::new(path.dst().into(), ask.dst.port());
        socket.send_slice(&ask.payload, to).map_err(|error| refused(error.to_string()))?;
        let until = now + span(ask.timeout);
        let socket = stack.sockets.add(socket);
        Ok(Self { ask, socket, own_port, started: now, until, refused: None })
    }

    pub(crate) fn event(&mut self, event: Event) {
        if let Event::Error(error) = event
            && error.quoted == Quoted::Udp(self.own_port)
        {
            self.refused = Some(refused_by(error));
        }
    }

    pub(crate) fn advance<W: Wire>(&mut self, stack: &mut Stack<W>, now: Instant) -> Option<Answer> {
        let contact = if self.came_back(stack) {
            Contact::Answered((now - self.started).into())
        } else if let Some(refused) = self.refused {
            refused
        } else if now < self.until {
            return None;
        } else {
            Contact::TimedOut
        };
        stack.sockets.remove(self.socket);
        Some(Answer::UdpEcho(contact))
    }

    fn came_back<W: Wire>(&self, stack: &mut Stack<W>) -> bool {
        let socket = stack.sockets.get_mut::<udp::Socket<'_>>(self.socket);
        let to = IpEndpoint::from(self.ask.dst);
        while let Ok((bytes, from)) = socket.recv() {
            if from.endpoint == to && bytes == self.ask.payload {
                return true;
            }
        }
        false
    }

    pub(crate) fn cancel<W: Wire>(&self, stack: &mut Stack<W>) {
        stack.sockets.remove(self.socket);
    }

    pub(crate) fn poll_at(&self) -> Instant {
        self.until
    }
}
