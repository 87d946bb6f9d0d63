//! Neighbours of what is measured: senders whose rings are kept full, to receivers that take everything or give no buffer back.
//!
//! One thread drives them and what is measured, so they must cost it next to nothing: the same frames are sent again and again where
//! they lie, and it comes by only as often as keeps their rings from running dry.

use crate::{
    frames::{FrameSize, Payload, Stream, Variety},
    generator::Generator,
    load::{BURST, Way},
    path::Route,
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};
use vhost_net_backend::driver::Driver;

/// So often a neighbour is looked after. At 20 Mpps it has moved 400 frames, which leaves most of a ring of 1024.
pub(crate) const ROUND: Duration = Duration::from_micros(20);

/// What goes on beside the pair of ports 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beside {
    /// A sender floods a receiver whose guest gives no buffer back.
    Stalled,
    /// A sender floods a receiver that takes everything.
    Flood,
    /// Both, each with ports of its own.
    Both,
}

impl Beside {
    /// Ports that it takes, those of the pair included.
    pub fn ports(self) -> usize {
        2 + 2 * self.neighbours().len()
    }

    /// Who sends to whom, and whether the receiver is stalled.
    pub(crate) fn neighbours(self) -> Vec<(Way, bool)> {
        let stalled: &[bool] = match self {
            Self::Stalled => &[true],
            Self::Flood => &[false],
            Self::Both => &[true, false],
        };
        let way = |pair: usize| Way { from: 2 * pair, to: 2 * pair + 1 };
        (1..).zip(stalled).map(|(pair, stalled)| (way(pair), *stalled)).collect()
    }
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stalled => "stalled",
            Self::Flood => "flood",
            Self::Both => "both",
        })
    }
}

impl FromStr for Beside {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Stalled, Self::Flood, Self::Both];
        let named = all.into_iter().find(|beside| beside.to_string() == text);
        named.ok_or_else(|| format!("`{text}` is no neighbour: say stalled, flood or both"))
    }
}

/// A sender whose ring is kept full, and its receiver.
#[derive(Debug)]
pub(crate) struct Neighbour {
    pub(crate) way: Way,
    generator: Generator,
    stalled: bool,
    /// Frames that its ring still lacks.
    lacking: usize,
    /// When it was looked after.
    last: u64,
    /// Frames that were sent and received.
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Neighbour {
    pub(crate) fn new((way, stalled): (Way, bool), size: FrameSize, variety: Variety) -> Self {
        let stream = Stream::sent(way.from as u16, way.to as u16, size, variety, Route::default());
        let generator = Generator::new(stream, None, Payload::default());
        Self { way, generator, stalled, lacking: 0, last: 0, sent: 0, received: 0 }
    }

    /// A flood begins, from a ring of so many entries.
    pub(crate) fn begin(&mut self, entries: usize) {
        self.lacking = entries;
    }

    /// Fills its ring; then, when it was not looked after for a `round` of cycles, sends again what was taken, and gives back what was
    /// received unseen.
    pub(crate) fn go_on(&mut self, ports: &mut [Driver], now: u64, round: u64) {
        if now.wrapping_sub(self.last) < round && self.lacking == 0 {
            return;
        }
        self.last = now;
        let pair = ports[self.way.from].pair();
        let sent = if self.lacking > 0 {
            let sent = self.generator.send(pair, BURST.min(self.lacking), now);
            self.lacking -= sent;
            sent
        } else {
            pair.transmit_again()
        };
        self.sent += sent as u64;
        pair.flush();
        if !self.stalled {
            let pair = ports[self.way.to].pair();
            self.received += pair.discard() as u64;
            pair.flush();
        }
    }
}
