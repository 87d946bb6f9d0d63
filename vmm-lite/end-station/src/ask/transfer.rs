//! The sending end of a bulk transfer.

use super::contact::{connect, refused_from};
use super::span;
use crate::answer::{BULK_BUFFER, tcp_socket};
use crate::frames::Path;
use crate::nic::Wire;
use crate::observe::Event;
use crate::stack::Stack;
use probe::answer::{Answer, Bulk, Contact, SendFailed, Sent};
use probe::ask::Send;
use probe::bulk::{Checksum, Pattern};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{self, State};
use smoltcp::time::Instant;

#[derive(Debug)]
pub(crate) struct Sending {
    bytes: u64,
    socket: SocketHandle,
    own_port: u16,
    until: Instant,
    /// When the connection stood.
    stood: Option<Instant>,
    pattern: Pattern,
    sum: Checksum,
    refused: Option<Contact>,
}

impl Sending {
    pub(crate) fn new<W: Wire>(
        ask: Send,
        path: Path,
        stack: &mut Stack<W>,
        now: Instant,
    ) -> Result<Self, Answer> {
        let (socket, own_port) = connect(stack, tcp_socket(2048, BULK_BUFFER), path, ask.dst.port())?;
        Ok(Self {
            bytes: ask.bytes,
            socket,
            own_port,
            until: now + span(ask.timeout),
            stood: None,
            pattern: Pattern::new(ask.seed),
            sum: Checksum::new(),
            refused: None,
        })
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.refused = refused_from(self.own_port, event).or(self.refused);
    }

    pub(crate) fn advance<W: Wire>(&mut self, stack: &mut Stack<W>, now: Instant) -> Option<Answer> {
        let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        let result = match (socket.state(), self.stood) {
            (State::SynSent, _) => match self.refused {
                Some(contact) => Err(SendFailed::NotConnected(contact)),
                None if now < self.until => return None,
                None => Err(SendFailed::NotConnected(Contact::TimedOut)),
            },
            (State::Closed, None) => Err(SendFailed::NotConnected(Contact::Refused)),
            (State::Closed, Some(_)) => Err(SendFailed::Broken { after: self.sum.bytes() }),
            (State::TimeWait, Some(stood)) => Ok(self.sent((now - stood).into())),
            _ if now >= self.until => Err(SendFailed::Broken { after: self.sum.bytes() }),
            _ => {
                self.stood = self.stood.or(Some(now));
                self.fill(stack.sockets.get_mut(self.socket));
                return None;
            }
        };
        if result.is_ok() {
            stack.retire(self.socket, now);
        } else {
            stack.sockets.remove(self.socket);
        }
        Some(Answer::Sent(result))
    }

    /// Gives the socket what it has room for, and after the last byte the end.
    fn fill(&mut self, socket: &mut tcp::Socket<'_>) {
        while socket.can_send() && self.sum.bytes() < self.bytes {
            let left = usize::try_from(self.bytes - self.sum.bytes()).unwrap_or(usize::MAX);
            let (pattern, sum) = (&mut self.pattern, &mut self.sum);
            let given = socket.send(|room| {
                let len = room.len().min(left);
                pattern.fill(&mut room[..len]);
                sum.update(&room[..len]);
                (len, ())
            });
            if given.is_err() {
                break;
            }
        }
        if self.sum.bytes() == self.bytes {
            socket.close();
        }
    }

    fn sent(&self, elapsed: core::time::Duration) -> Sent {
        let bulk = Bulk { bytes: self.sum.bytes(), checksum: self.sum.value() };
        Sent { bulk, elapsed, segments_sent: None, segments_retransmitted: None }
    }

    pub(crate) fn cancel<W: Wire>(&self, stack: &mut Stack<W>) {
        stack.sockets.remove(self.socket);
    }

    pub(crate) fn poll_at(&self) -> Instant {
        self.until
    }
}
