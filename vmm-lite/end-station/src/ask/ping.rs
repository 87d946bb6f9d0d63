//! Echo requests, built and told apart beside smoltcp.

use super::span;
use crate::frames::{self, Path};
use crate::nic::Wire;
use crate::observe::{Event, Quoted};
use crate::stack::Stack;
use alloc::vec::Vec;
use probe::Mac;
use probe::answer::{Answer, Echoes, Unreachable};
use probe::ask::Ping;
use smoltcp::time::{Duration, Instant};

/// One request that was sent.
#[derive(Debug, Clone, Copy)]
struct Echo {
    sent: Instant,
    round_trip: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Pinging {
    ping: Ping,
    path: Path,
    mac: Mac,
    ident: u16,
    /// By sequence number.
    echoes: Vec<Echo>,
    next: Instant,
    rejected: bool,
}

impl Pinging {
    pub(crate) fn new<W: Wire>(ping: Ping, path: Path, mac: Mac, stack: &mut Stack<W>, now: Instant) -> Self {
        let ident = stack.next_port();
        Self { ping, path, mac, ident, echoes: Vec::new(), next: now, rejected: false }
    }

    pub(crate) fn event(&mut self, event: Event, now: Instant) {
        match event {
            Event::EchoReply { ident, seq } if ident == self.ident => {
                let timeout = span(self.ping.timeout);
                if let Some(echo) = self.echoes.get_mut(usize::from(seq)) {
                    let round_trip = now - echo.sent;
                    echo.round_trip = echo.round_trip.or(Some(round_trip).filter(|rtt| *rtt <= timeout));
                }
            }
            Event::Error(error) if error.quoted == Quoted::Echo(self.ident) => self.rejected = true,
            _ => {}
        }
    }

    pub(crate) fn advance<W: Wire>(&mut self, stack: &mut Stack<W>, now: Instant) -> Option<Answer> {
        if self.rejected && self.echoes.iter().all(|echo| echo.round_trip.is_none()) {
            return Some(Answer::Ping(Err(Unreachable::Rejected)));
        }
        if !self.all_sent() && self.next <= now {
            let seq = self.echoes.len() as u16;
            let own = stack.nic.mac();
            let payload = usize::from(self.ping.payload);
            stack.nic.send(frames::echo_request(own, self.mac, self.path, (self.ident, seq), payload));
            self.echoes.push(Echo { sent: now, round_trip: None });
            self.next = now + span(self.ping.interval);
        }
        let over = self.all_sent() && (self.all_answered() || self.last_chance() <= now);
        over.then(|| {
            let round_trips = self.echoes.iter().filter_map(|echo| echo.round_trip).map(Into::into).collect();
            Answer::Ping(Ok(Echoes { sent: self.echoes.len() as u16, round_trips }))
        })
    }

    pub(crate) fn poll_at(&self) -> Instant {
        if self.all_sent() { self.last_chance() } else { self.next }
    }

    fn all_sent(&self) -> bool {
        self.echoes.len() >= usize::from(self.ping.count)
    }

    fn all_answered(&self) -> bool {
        self.echoes.iter().all(|echo| echo.round_trip.is_some())
    }

    /// When the last answer can come.
    fn last_chance(&self) -> Instant {
        let last = self.echoes.last().map_or(self.next, |echo| echo.sent);
        last + span(self.ping.timeout)
    }
}
