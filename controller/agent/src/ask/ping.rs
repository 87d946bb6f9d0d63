//! `Ping`: echo requests through a raw socket (RFC 792, RFC 4443 §4), since unprivileged ones may be forbidden.

use crate::{
    deadline::Deadline,
    icmp::{self, Reply},
    origin::{Origin, system},
};
use probe::{
    Answer,
    answer::{Echoes, Refusal, Unreachable},
    ask::{self, MAX_PAYLOAD, MAX_PINGS},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{self, RecvFlags, SendFlags, SocketType, ipproto, sockopt},
};
use std::{
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    process,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

/// Room for the answers that come while others are read.
const RECEIVE_BUFFER: usize = 1 << 20;

/// No request of this agent shares its identifier with one that is under way.
static PINGS: AtomicU16 = AtomicU16::new(0);

/// Sends the requests and gathers what comes back.
pub(crate) fn ping(ask: &ask::Ping) -> Result<Answer, Refusal> {
    if ask.count > MAX_PINGS || ask.payload > MAX_PAYLOAD {
        return Err(Refusal::OutOfBounds);
    }
    let origin = Origin::find(ask.from)?;
    let protocol = if ask.dst.is_ipv4() { ipproto::ICMP } else { ipproto::ICMPV6 };
    let socket = origin.socket(ask.dst, SocketType::RAW, Some(protocol))?;
    // Less room than asked for is no reason not to ping.
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER).ok();
    let identifier = (process::id() as u16).wrapping_add(PINGS.fetch_add(1, Ordering::Relaxed));
    let mut run =
        Run { ask, origin, socket, identifier, requests: Vec::new(), stopped: None, rejected: false };
    run.all()?;
    Ok(Answer::Ping(run.outcome()?))
}

/// One request that was sent.
struct Request {
    sent: Instant,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Answered(Duration),
    Lost,
}

/// The requests of one `Ping`.
struct Run<'a> {
    ask: &'a ask::Ping,
    origin: Origin,
    socket: OwnedFd,
    identifier: u16,
    /// The sequence number of each is its place.
    requests: Vec<Request>,
    /// Sending failed so.
    stopped: Option<Unreachable>,
    /// An ICMP error quoted one of the requests.
    rejected: bool,
}

impl Run<'_> {
    fn all(&mut self) -> Result<(), Refusal> {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        let mut next = Deadline::after(Duration::ZERO);
        loop {
            if self.more_to_send() && next.left().is_none() {
                self.send()?;
                next = Deadline::after(self.ask.interval);
            }
            self.give_up_old();
            let oldest = self.requests.iter().find(|request| request.fate == Fate::Open);
            let expiry = oldest
                .map(|request| Deadline::after(self.ask.timeout.saturating_sub(request.sent.elapsed())));
            let wake = match (self.more_to_send().then_some(next), expiry) {
                (None, None) => return Ok(()),
                (Some(one), Some(other)) => one.min(other),
                (Some(one), None) | (None, Some(one)) => one,
            };
            let Some(left) = wake.left() else { continue };
            let ready = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left));
            if ready.map_err(|errno| system("wait for an echo reply", errno))? > 0 {
                self.receive(&mut buffer)?;
            }
        }
    }

    fn more_to_send(&self) -> bool {
        self.stopped.is_none() && self.requests.len() < usize::from(self.ask.count)
    }

    fn send(&mut self) -> Result<(), Refusal> {
        let request = icmp::request(
            self.ask.dst.is_ipv6(),
            self.identifier,
            self.requests.len() as u16,
            usize::from(self.ask.payload),
        );
        // A raw socket takes the port for the protocol, or none.
        let to = self.origin.scoped(SocketAddr::new(self.ask.dst, 0));
        let sent = Instant::now();
        match net::sendto(&self.socket, &request, SendFlags::empty(), &to) {
            Ok(_) => self.requests.push(Request { sent, fate: Fate::Open }),
            // The interface's queue is full: that request is lost, the next may pass.
            Err(Errno::NOBUFS | Errno::AGAIN) => self.requests.push(Request { sent, fate: Fate::Lost }),
            Err(errno) => self.stopped = Some(self.origin.unreachable(errno, self.ask.dst)?),
        }
        Ok(())
    }

    fn give_up_old(&mut self) {
        for request in &mut self.requests {
            if request.fate == Fate::Open && request.sent.elapsed() >= self.ask.timeout {
                request.fate = Fate::Lost;
            }
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<(), Refusal> {
        let (len, from) = match net::recvfrom(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((len, _, from)) => (len, from),
            // The interface went down, or an error that the socket kept: the requests say by silence what became of them.
            Err(_) => return Ok(()),
        };
        let from = from.and_then(|from| SocketAddr::try_from(from).ok()).map(|from| from.ip());
        let Some(message) = buffer.get(..len) else { return Ok(()) };
        let Some(reply) = icmp::read(self.ask.dst.is_ipv6(), message, self.identifier) else { return Ok(()) };
        let Some(request) = self.requests.get_mut(usize::from(reply.sequence())) else { return Ok(()) };
        if request.fate != Fate::Open {
            return Ok(());
        }
        match reply {
            // Who asks a group is answered by its members.
            Reply::Echo { .. }
                if self.ask.dst.is_multicast()
                    || is_broadcast(self.ask.dst)
                    || from == Some(self.ask.dst) =>
            {
                request.fate = Fate::Answered(request.sent.elapsed());
            }
            Reply::Echo { .. } => {}
            Reply::Error { .. } => {
                request.fate = Fate::Lost;
                self.rejected = true;
            }
        }
        Ok(())
    }

    /// What all of it comes to. One answer proves that there is a way.
    fn outcome(self) -> Result<Result<Echoes, Unreachable>, Refusal> {
        let sent = self.requests.len() as u16;
        let answered = |request: &Request| match request.fate {
            Fate::Answered(round_trip) => Some(round_trip),
            Fate::Open | Fate::Lost => None,
        };
        let round_trips: Vec<_> = self.requests.iter().filter_map(answered).collect();
        if round_trips.is_empty() && self.ask.count > 0 {
            let rejected = self.rejected.then_some(Unreachable::Rejected);
            // Linux tells a raw socket of a silent neighbour by an ICMP error of its own, so that is asked first.
            if let Some(why) = self.stopped.or(self.origin.hindrance(self.ask.dst)?).or(rejected) {
                return Ok(Err(why));
            }
        }
        Ok(Ok(Echoes { sent, round_trips }))
    }
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
}
