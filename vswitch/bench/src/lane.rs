//! One stream from port to port: what of it is due, sent and received.

use crate::{
    frames::{Payload, Stream, Variety},
    generator::Generator,
    large::Large,
    load::{BURST, Way},
    offload::Kind,
    path::Route,
    sink::Sink,
};
use vhost_net_backend::driver::Driver;

/// One stream from port to port.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) way: Way,
    pub(crate) generator: Generator,
    pub(crate) sink: Sink,
    /// For the trial that runs: the number of its first frame, and what was due and sent.
    first: u32,
    pub(crate) due: u64,
    pub(crate) sent: u64,
    /// Frames before this number are waited for no longer.
    pub(crate) written_off: u32,
    /// Received until the measuring began.
    pub(crate) before: (u64, u64),
}

impl Lane {
    pub(crate) fn new(way: Way, (kind, variety, payload): (Kind, Variety, Payload), route: Route) -> Self {
        let (from, to) = (way.from as u16, way.to as u16);
        let large = Large::new(from, to, kind.size.longest_on_ring(), kind.offload, route);
        let sent = Stream::sent(from, to, kind.size, variety, route);
        let generator = Generator::new(sent, large.clone(), payload);
        let sink = Sink::new(Stream::arriving(from, to, kind.size, variety, route), large, payload);
        Self { way, generator, sink, first: 0, due: 0, sent: 0, written_off: 0, before: (0, 0) }
    }

    pub(crate) fn begin(&mut self) {
        self.first = self.generator.next_number();
        self.sink.begin(self.first);
        self.written_off = self.first;
        (self.due, self.sent) = (0, 0);
    }

    /// Sends what is due.
    #[inline(always)]
    pub(crate) fn offer(&mut self, ports: &mut [Driver], pace: LanePace, now: u64, elapsed: u64) {
        let wanted = self.wanted(pace, elapsed);
        if wanted == 0 {
            return;
        }
        let pair = ports[self.way.from].pair();
        let sent = self.generator.send(pair, wanted.min(BURST), now);
        pair.flush();
        self.sent += sent as u64;
        self.due += sent as u64;
        if let LanePace::Open { backlog, .. } = pace {
            // What is further behind than a ring can hold will never be made up for: due, and not sent.
            self.due += (wanted - sent).saturating_sub(backlog) as u64;
        }
    }

    /// Frames to be sent now, `elapsed` cycles into the trial.
    #[inline(always)]
    fn wanted(&self, pace: LanePace, elapsed: u64) -> usize {
        match pace {
            LanePace::Closed { window } => {
                let sent = self.generator.next_number();
                let on_their_way = sent.wrapping_sub(self.sink.next_number());
                let waited_for = on_their_way.min(sent.wrapping_sub(self.written_off));
                window.saturating_sub(waited_for) as usize
            }
            LanePace::Open { per_cycle, .. } => {
                ((elapsed as f64 * per_cycle) as u64).saturating_sub(self.due) as usize
            }
        }
    }
}

/// The pace of one lane, in its thread's terms.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LanePace {
    Closed { window: u32 },
    Open { per_cycle: f64, backlog: usize },
}
