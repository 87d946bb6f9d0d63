//! Neighbours of what is measured: senders whose rings are kept full, to receivers that take everything or give no buffer back.

use crate::{
    frames::{FrameSize, Payload, Stream, Variety},
    generator::Generator,
    load::{BURST, Way},
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use vhost_net_backend::driver::Driver;

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
    /// Frames that were sent and received.
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Neighbour {
    pub(crate) fn new((way, stalled): (Way, bool), size: FrameSize, variety: Variety) -> Self {
        let stream = Stream::new(way.from as u16, way.to as u16, size, variety);
        let generator = Generator::new(stream, Payload::default());
        Self { way, generator, stalled, sent: 0, received: 0 }
    }

    /// Sends what was taken since the last time, and looks at nothing that is received.
    pub(crate) fn go_on(&mut self, ports: &mut [Driver], now: u64) {
        let pair = ports[self.way.from].pair();
        self.sent += self.generator.send(pair, BURST, now) as u64;
        pair.flush();
        if !self.stalled {
            let pair = ports[self.way.to].pair();
            self.received += pair.receive_in_place(2 * BURST, 0, |_| {}) as u64;
            pair.flush();
        }
    }
}
