//! What is pinged from the console, or from the start: an address, until it answers.

use crate::console::say;
use core::{net::IpAddr, time::Duration};
use probe::{
    Answer, Ask, AskId, Request,
    answer::Unreachable,
    ask::{Ping, Source},
};

/// How long an answer may take before the next request is sent.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes behind the header of a request.
const PAYLOAD: u16 = 4;

/// An address that is pinged.
pub(crate) struct Pinging {
    to: IpAddr,
    sequence: u32,
}

impl Pinging {
    /// None: `to` is no address.
    pub(crate) fn new(to: &str) -> Option<Self> {
        Some(Self { to: to.trim().parse().ok()?, sequence: 0 })
    }

    /// The request that is due.
    pub(crate) fn ask(&self) -> Ask {
        let (from, interval) = (Source::Any, Duration::ZERO);
        let ping = Ping { dst: self.to, from, count: 1, payload: PAYLOAD, interval, timeout: PATIENCE };
        Ask { id: AskId::new(self.sequence), request: Request::Ping(ping) }
    }

    /// The next request, if the answer to the last one was none.
    pub(crate) fn goes_on(&mut self, answer: &Answer, now: Duration) -> Option<Ask> {
        let Self { to, sequence } = *self;
        match answer {
            Answer::Ping(Err(Unreachable::NoRoute)) => say!("{to}: no interface has a way there"),
            Answer::Ping(Ok(echoes)) if echoes.received() > 0 => {
                let took = echoes.min().unwrap_or_default().as_micros() as u64;
                let up = now.as_micros() as u64;
                say!("{to} answered after {took} us (request {sequence}), up {up} us");
            }
            Answer::Ping(_) => {
                self.sequence = sequence.wrapping_add(1);
                return Some(self.ask());
            }
            Answer::Refused(why) => say!("{to}: {why:?}"),
            _ => {}
        }
        None
    }
}
