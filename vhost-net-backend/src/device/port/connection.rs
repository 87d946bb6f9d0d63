//! One connection: the frontend's socket, the gate, and the daemon behind its inner socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost_user_backend::VhostUserDaemon;
use vm_memory::GuestMemoryMmap;

use super::{Mailbox, PortConfig, inner};
use crate::device::fault::PortFault;
use crate::device::gate::descriptor::Descriptor;
use crate::device::gate::link::{Frontend, Message, read_reply, send_request};
use crate::device::gate::wire::{Request, code, reply_bytes, request_bytes};
use crate::device::gate::{Frame, Gate, Offer, PROTOCOL_OFFERED, Verdict};
use crate::device::session::{Memory, Session, with_vrings_of};
use crate::device::{Connection as State, PortHost};

/// A live connection. It ends by [`Connection::end`].
pub(super) struct Connection {
    frontend: Frontend,
    gate: Gate,
    session: Session,
    daemon: VhostUserDaemon<Session>,
    inner: UnixStream,
    /// Whom messages name: the process that connected.
    peer: String,
    sealed_memory: bool,
    patience: Duration,
    deadline: Option<Instant>,
    greeted: bool,
    host: Arc<dyn PortHost>,
}

impl Connection {
    /// Starts a daemon for `socket`.
    pub(super) fn start(
        socket: UnixStream,
        config: &PortConfig,
        offer: Offer,
        host: Arc<dyn PortHost>,
    ) -> io::Result<Self> {
        let session = Session::new(offer, host.clone());
        let memory = Memory::new(GuestMemoryMmap::new());
        let mut daemon =
            with_vrings_of(&session, || VhostUserDaemon::new(config.name.clone(), session.clone(), memory))
                .map_err(|error| io::Error::other(error.to_string()))?;
        let inner = inner::start(&mut daemon)?;
        let peer = match rustix::net::sockopt::socket_peercred(&socket) {
            Ok(credentials) => format!("the VMM (process {})", credentials.pid),
            Err(_) => "the VMM".to_owned(),
        };
        let connection = Self {
            peer,
            frontend: Frontend::new(socket),
            gate: Gate::new(offer),
            session,
            daemon,
            inner,
            sealed_memory: config.sealed_memory,
            patience: config.patience,
            deadline: Some(Instant::now() + config.patience),
            greeted: false,
            host,
        };
        connection.greet()?;
        Ok(connection)
    }

    /// Makes the daemon acknowledge every message: it does so once it was asked for its features and given REPLY_ACK.
    fn greet(&self) -> io::Result<()> {
        send_request(&self.inner, &request_bytes(code::GET_FEATURES, &[]), &[])?;
        read_reply(&self.inner)?;
        let payload = PROTOCOL_OFFERED.to_ne_bytes();
        send_request(&self.inner, &request_bytes(code::SET_PROTOCOL_FEATURES, &payload), &[])?;
        read_reply(&self.inner).map(drop)
    }

    /// When the frontend must have moved on, if it owes something.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether the frontend is to be waited for to write (true) or to read.
    pub(super) fn amid_reply(&self) -> bool {
        self.frontend.amid_reply()
    }

    /// Goes on with what the frontend sent or can now take; an error ends the connection.
    pub(super) fn advance(&mut self, mailbox: &Mailbox) -> Result<(), PortFault> {
        if self.frontend.amid_reply() {
            self.frontend.flush()?;
        } else if let Some(message) = self.frontend.read()? {
            (self.deadline, self.greeted) = (None, true);
            self.handle(message, mailbox)?;
        }
        if let Some(fault) = self.session.take_fault() {
            return Err(fault);
        }
        // The deadline of the hello stands until the first message is complete.
        if self.frontend.amid_reply() || self.frontend.amid_message() {
            self.deadline.get_or_insert_with(|| Instant::now() + self.patience);
        } else if self.greeted {
            self.deadline = None;
        }
        Ok(())
    }

    /// The frontend let its deadline pass.
    pub(super) fn overdue(&self) -> PortFault {
        let what = match (self.frontend.amid_reply(), self.frontend.amid_message()) {
            (true, _) => "did not read a reply",
            (false, true) => "left a message unfinished",
            (false, false) => "connected and said nothing",
        };
        PortFault::Protocol(format!("{} {what} for {} ms", self.peer, self.patience.as_millis()))
    }

    fn handle(&mut self, message: Message, mailbox: &Mailbox) -> Result<(), PortFault> {
        let Message { header, payload, fds } = message;
        let request =
            Request::parse(header.code, &payload).map_err(|error| PortFault::Protocol(error.to_string()))?;
        let probe = |(at, fd)| Descriptor::probe(fd, &request, at, self.sealed_memory);
        let kinds: Vec<Descriptor> = fds.iter().enumerate().map(probe).collect();
        let acknowledge = header.need_reply && self.gate.acknowledges() && !request.wants_value();
        let mut answer = 0u64.to_ne_bytes().to_vec();
        match self.gate.judge(header.code, &request, &kinds) {
            Verdict::Forward(frames) => {
                for (at, frame) in frames.iter().enumerate() {
                    let reply = self.forward(frame, &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
                    if at == 0 {
                        answer = reply;
                    }
                }
            }
            Verdict::Acknowledge => {}
            Verdict::Value(value) => answer = value.to_ne_bytes().to_vec(),
            Verdict::Refuse(fault) if acknowledge => {
                mailbox.remember(fault);
                return self.frontend.reply(&reply_bytes(header.code, &1u64.to_ne_bytes()));
            }
            Verdict::Refuse(fault) | Verdict::Close(fault) => return Err(fault),
        }
        self.gate.commit(&request, &kinds);
        if let Request::SetFeatures(features) = request {
            self.host.connection(State::Connected { features });
        }
        // Asked again: the message that negotiates REPLY_ACK is itself acknowledged, as the daemon would.
        if request.wants_value() || (header.need_reply && self.gate.acknowledges()) {
            self.frontend.reply(&reply_bytes(header.code, &answer))?;
        }
        Ok(())
    }

    /// One message through the daemon: its reply. The daemon refuses nothing that the gate lets through but for want of
    /// resources (or by a bug of ours).
    fn forward(&self, frame: &Frame, fds: &[BorrowedFd<'_>]) -> Result<Vec<u8>, PortFault> {
        let chosen: Vec<BorrowedFd<'_>> = frame.fds.iter().filter_map(|&at| fds.get(at).copied()).collect();
        let reply = send_request(&self.inner, &request_bytes(frame.code, &frame.payload), &chosen)
            .and_then(|()| read_reply(&self.inner));
        match reply {
            Ok(reply) if frame.code == code::GET_VRING_BASE || reply == 0u64.to_ne_bytes() => Ok(reply),
            Ok(_) | Err(_) => Err(self.session.take_fault().unwrap_or(PortFault::Internal)),
        }
    }

    /// Ends the connection: the daemon first, then the rings come back, then the socket and the memory go.
    pub(super) fn end(mut self, fault: Option<&PortFault>) {
        self.daemon.request_shutdown();
        // An error here is the daemon's account of the shutdown just asked for.
        let _ = self.daemon.wait();
        if fault.is_some_and(|fault| *fault != PortFault::Disconnected) {
            self.session.signal_errors();
        }
        self.session.end();
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.frontend.as_fd()
    }
}
