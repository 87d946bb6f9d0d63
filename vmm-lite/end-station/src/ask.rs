//! A request under way: find the neighbour, then ping, connect, send; each by itself, in small steps.

mod contact;
mod ping;
mod transfer;

use crate::frames::Path;
use crate::neighbours::Neighbour;
use crate::nic::Wire;
use crate::observe::Event;
use crate::stack::Stack;
use alloc::format;
use contact::{Connecting, Echoing};
use core::net::IpAddr;
use ping::Pinging;
use probe::answer::{Answer, Contact, Refusal, SendFailed, Unreachable};
use probe::ask::{Connect, MAX_PAYLOAD, MAX_PINGS, Ping, Resolve, Send, Source, UdpEcho};
use probe::{AskId, Mac};
use smoltcp::time::{Duration, Instant};
use transfer::Sending;

/// Who asked, by a number of the caller's choice: answers that take time are given with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asker(pub u64);

/// A request that takes time.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    Ping(Ping),
    Connect(Connect),
    UdpEcho(UdpEcho),
    Resolve(Resolve),
    Send(Send),
}

impl Job {
    pub(crate) fn dst(&self) -> IpAddr {
        match self {
            Self::Ping(ping) => ping.dst,
            Self::Connect(connect) => connect.dst.ip(),
            Self::UdpEcho(echo) => echo.dst.ip(),
            Self::Resolve(resolve) => resolve.dst,
            Self::Send(send) => send.dst.ip(),
        }
    }

    pub(crate) fn source(&self) -> Source {
        match self {
            Self::Ping(ping) => ping.from,
            Self::Connect(connect) => connect.from,
            Self::UdpEcho(echo) => echo.from,
            Self::Resolve(resolve) => resolve.from,
            Self::Send(send) => send.from,
        }
    }

    fn timeout(&self) -> Duration {
        span(match self {
            Self::Ping(ping) => ping.timeout,
            Self::Connect(connect) => connect.timeout,
            Self::UdpEcho(echo) => echo.timeout,
            Self::Resolve(resolve) => resolve.timeout,
            Self::Send(send) => send.timeout,
        })
    }

    /// Whether it is within the bounds of the protocol, and of an interface with this MTU.
    pub(crate) fn check(&self, path: Path, mtu: u16) -> Result<(), Refusal> {
        let dst = self.dst();
        let (within, payload) = match self {
            Self::Ping(ping) => (ping.count <= MAX_PINGS, usize::from(ping.payload)),
            Self::UdpEcho(echo) => (echo.dst.port() != 0, echo.payload.len()),
            Self::Connect(connect) => (connect.dst.port() != 0, 0),
            Self::Send(send) => (send.dst.port() != 0, 0),
            Self::Resolve(_) => (true, 0),
        };
        if !within || payload > usize::from(MAX_PAYLOAD) || dst.is_multicast() || dst.is_unspecified() {
            return Err(Refusal::OutOfBounds);
        }
        // ICMP echo and UDP have headers of eight bytes; stations do not send fragments.
        let len = path.header_len() + 8 + payload;
        if len > usize::from(mtu) {
            return Err(Refusal::System(format!(
                "a packet of {len} bytes does not fit the MTU of {mtu}, and stations do not send fragments"
            )));
        }
        Ok(())
    }

    /// What is answered if there is no way.
    pub(crate) fn unreachable(&self, why: Unreachable) -> Answer {
        match self {
            Self::Ping(_) => Answer::Ping(Err(why)),
            Self::Connect(_) => Answer::Connect(Contact::Unreachable(why)),
            Self::UdpEcho(_) => Answer::UdpEcho(Contact::Unreachable(why)),
            Self::Resolve(_) => Answer::Resolved(None),
            Self::Send(_) => Answer::Sent(Err(SendFailed::NotConnected(Contact::Unreachable(why)))),
        }
    }
}

/// A span as smoltcp has it, a day at most.
fn span(duration: core::time::Duration) -> Duration {
    duration.min(core::time::Duration::from_secs(86_400)).into()
}

/// One request under way on one interface.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) asker: Asker,
    pub(crate) id: AskId,
    /// Which interface of the station.
    pub(crate) link: usize,
    path: Path,
    /// Who takes it on the link: the destination, or the default gateway.
    next: IpAddr,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Until then somebody may say where the destination is.
    Resolving(Job, Instant),
    Pinging(Pinging),
    Connecting(Connecting),
    Echoing(Echoing),
    Sending(Sending),
}

impl Task {
    /// Starts: a neighbour that is not known is asked for.
    pub(crate) fn new<W: Wire>(
        (asker, id): (Asker, AskId),
        job: Job,
        (link, path): (usize, Path),
        stack: &mut Stack<W>,
        now: Instant,
    ) -> Self {
        let next = stack.next(path.dst()).unwrap_or(path.dst());
        if matches!(job, Job::Resolve(_)) {
            stack.ask_anew(next, now);
        } else if stack.neighbour(next, now) == Neighbour::Unknown {
            stack.ask(next, now);
        }
        let until = now + job.timeout();
        Self { asker, id, link, path, next, stage: Stage::Resolving(job, until) }
    }

    /// Hears of something that came on its interface.
    pub(crate) fn event(&mut self, event: Event, now: Instant) {
        if let Event::Error(error) = event
            && error.dst != self.path.dst()
        {
            return;
        }
        match &mut self.stage {
            Stage::Resolving(..) => {}
            Stage::Pinging(pinging) => pinging.event(event, now),
            Stage::Connecting(connecting) => connecting.event(event),
            Stage::Echoing(echoing) => echoing.event(event),
            Stage::Sending(sending) => sending.event(event),
        }
    }

    /// Goes on; the answer ends it.
    pub(crate) fn advance<W: Wire>(&mut self, stack: &mut Stack<W>, now: Instant) -> Option<Answer> {
        if let Stage::Resolving(job, until) = &self.stage {
            let mac = match stack.neighbour(self.next, now) {
                Neighbour::Known(mac) => mac,
                Neighbour::Asked if now < *until => return None,
                Neighbour::Asked | Neighbour::Unknown => {
                    return Some(job.unreachable(Unreachable::NoNeighbour));
                }
            };
            stack.tell(self.next, now);
            let job = job.clone();
            self.stage = match start(job, self.path, mac, stack, now) {
                Ok(stage) => stage,
                Err(answer) => return Some(answer),
            };
        }
        match &mut self.stage {
            Stage::Resolving(..) => None,
            Stage::Pinging(pinging) => pinging.advance(stack, now),
            Stage::Connecting(connecting) => connecting.advance(stack, now),
            Stage::Echoing(echoing) => echoing.advance(stack, now),
            Stage::Sending(sending) => sending.advance(stack, now),
        }
    }

    /// Its end before its time: nobody wants the answer any more.
    pub(crate) fn cancel<W: Wire>(&mut self, stack: &mut Stack<W>) {
        match &self.stage {
            Stage::Resolving(..) | Stage::Pinging(_) => {}
            Stage::Connecting(connecting) => connecting.cancel(stack),
            Stage::Echoing(echoing) => echoing.cancel(stack),
            Stage::Sending(sending) => sending.cancel(stack),
        }
    }

    /// When it has something to do by itself.
    pub(crate) fn poll_at(&self) -> Instant {
        match &self.stage {
            Stage::Resolving(_, until) => *until,
            Stage::Pinging(pinging) => pinging.poll_at(),
            Stage::Connecting(connecting) => connecting.poll_at(),
            Stage::Echoing(echoing) => echoing.poll_at(),
            Stage::Sending(sending) => sending.poll_at(),
        }
    }
}

/// The neighbour is known: what was asked for begins, or is answered by that alone.
fn start<W: Wire>(
    job: Job,
    path: Path,
    mac: Mac,
    stack: &mut Stack<W>,
    now: Instant,
) -> Result<Stage, Answer> {
    match job {
        Job::Resolve(_) => Err(Answer::Resolved(Some(mac))),
        Job::Ping(ping) => Ok(Stage::Pinging(Pinging::new(ping, path, mac, stack, now))),
        Job::Connect(connect) => Connecting::new(connect, path, stack, now).map(Stage::Connecting),
        Job::UdpEcho(echo) => Echoing::new(echo, path, stack, now).map(Stage::Echoing),
        Job::Send(send) => Sending::new(send, path, stack, now).map(Stage::Sending),
    }
}
