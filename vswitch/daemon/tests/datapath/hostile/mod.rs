//! What a hostile guest can do with its rings (rows Q1 to Q16 of the ledger), beside neighbours who lose nothing by it.
//!
//! Each test plays its row on port 0 while ports 1 and 2 exchange numbered frames; port 3 is an honest guest to whom,
//! and from whom, the hostile one's own frames go.

mod chains;
mod frames;

use crate::{
    lab::{Lab, access, description, frame, mac, receive, send},
    traffic::{Pair, Running},
};
use vhost_net_backend::{
    driver::{Config, Descriptor, Driver, misbehave::RawRing},
    layout::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE},
    net_header::LEN as HEADER,
};
use vswitch_core::{drop_reason::DropReason, mac::MacAddr};
use vswitchd::control::protocol::{PortState, PortView, Snapshot};

/// The hostile guest's port, and that of the honest one it talks with.
const HOSTILE: usize = 0;
const HONEST: usize = 3;

/// Frames that each of the two has received before the play begins: one from every other guest.
const HELLOS: usize = 3;

/// A hostile guest beside a pair of neighbours.
struct Beside {
    lab: Lab,
    hostile: Driver,
    honest: Driver,
    neighbours: Running,
}

impl Beside {
    /// All four run, and everyone has heard of the hostile one and of its honest counterpart.
    fn new(config: &Config) -> Self {
        let mut described = description(&[access(10), access(10), access(10), access(10)]);
        described.ports[HONEST].as_mut().unwrap().mtu = Some(9000);
        let lab = Lab::of(&described);
        let mut honest = lab.attach(HONEST, &Config::default());
        let mut hostile = lab.attach(HOSTILE, config);
        let neighbours = Pair::new(&lab, [1, 2]);
        for (guest, place) in [(&mut hostile, HOSTILE), (&mut honest, HONEST)] {
            send(guest, &frame(MacAddr::BROADCAST, mac(place), 60, 0));
            lab.wait(|seen| seen.ports[place].counters.from_port.flooded == 1);
        }
        assert_eq!(receive(&mut honest, HELLOS).len(), HELLOS);
        assert_eq!(receive(&mut hostile, HELLOS).len(), HELLOS);
        Self { lab, hostile, honest, neighbours: neighbours.start() }
    }

    /// The hostile guest's transmitq, to be written by hand: one chain was sent and is done.
    fn transmitq(&self) -> RawRing {
        self.hostile.raw_ring(1).unwrap().unwrap()
    }

    /// The hostile guest's receiveq: all buffers are posted, the first `HELLOS` were used before.
    fn receiveq(&self) -> RawRing {
        self.hostile.raw_ring(0).unwrap().unwrap()
    }

    /// A frame from the honest guest to the hostile one.
    fn send_to_hostile(&mut self, len: usize) {
        send(&mut self.honest, &frame(mac(HOSTILE), mac(HONEST), len, 1));
    }

    /// Waits until the hostile port's view is so.
    fn wait(&self, mut so: impl FnMut(&PortView) -> bool) -> Snapshot {
        self.lab.wait(|seen| so(&seen.ports[HOSTILE]))
    }

    /// The hostile port must be stopped, and say so in these words; and so it ends.
    fn ends_stopped(self, words: &str) {
        let seen = self.wait(|port| port.counters.faults == 1);
        let port = &seen.ports[HOSTILE];
        assert_eq!((port.state, port.detail.contains(words)), (PortState::Faulted, true), "{port:#?}");
        self.end();
    }

    /// The hostile port's frames must be dropped for this reason, `count` of them; and nothing is stopped.
    fn drops(&self, reason: DropReason, count: u64) {
        let seen = self.wait(|port| port.counters.from_port.dropped.get(&reason) == Some(&count));
        assert_eq!(seen.ports[HOSTILE].counters.from_port.dropped.len(), 1, "{seen:#?}");
        assert_eq!(seen.ports[HOSTILE].state, PortState::Up);
    }

    /// As many copies for the hostile port must be dropped for this reason; and nothing is stopped.
    fn drops_copies(&self, reason: DropReason, count: u64) {
        let seen = self.wait(|port| port.counters.to_port.dropped.get(&reason) == Some(&count));
        assert_eq!(seen.ports[HOSTILE].counters.to_port.dropped.len(), 1, "{seen:#?}");
        assert_eq!(seen.ports[HOSTILE].state, PortState::Up);
    }

    /// The honest guest receives one frame of the hostile one, as long as this.
    fn arrives(&mut self, len: usize) {
        let frames = receive(&mut self.honest, 1);
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [len]);
    }

    /// Nothing panicked or hung, the neighbours' frames flow and none was lost, the honest guest was never stopped.
    fn end(self) -> Snapshot {
        self.neighbours.flows();
        let neighbours = self.neighbours.stop();
        let end = self.lab.lawful();
        assert_eq!(end.workers[0].panics, 0);
        assert_eq!(end.ports[HONEST].counters.faults, 0);
        neighbours.lost_nothing(&end);
        end
    }
}

/// Plays `evil` on the transmitq of a fresh lab; its port must be stopped with these words.
fn stopped_by(words: &str, evil: impl FnOnce(&RawRing)) {
    let beside = Beside::new(&Config::default());
    evil(&beside.transmitq());
    beside.ends_stopped(words);
}

/// Net header and a frame for the honest guest, as they lie in a transmit buffer.
fn message(len: usize) -> Vec<u8> {
    [vec![0; HEADER], frame(mac(HONEST), mac(HOSTILE), len, 9)].concat()
}

fn readable(addr: u64, len: u32) -> Descriptor {
    Descriptor { addr, len, flags: 0, next: 0 }
}

fn writable(addr: u64, len: u32) -> Descriptor {
    Descriptor { addr, len, flags: DESC_WRITE, next: 0 }
}

fn indirect(addr: u64, len: u32) -> Descriptor {
    Descriptor { addr, len, flags: DESC_INDIRECT, next: 0 }
}

/// The same, with another behind it.
fn then(descriptor: Descriptor, next: u16) -> Descriptor {
    Descriptor { flags: descriptor.flags | DESC_NEXT, next, ..descriptor }
}
