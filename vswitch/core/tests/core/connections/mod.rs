//! Connection tracking: TCP's rules one by one, ICMP, the table against a naive map, fairness, and workers.

mod icmp;
mod model;
mod network;
mod room;
mod tcp;
mod workers;

use std::net::Ipv4Addr;
use vswitch_core::{
    clock::Instant,
    firewall::{
        connections::{
            Answer, Config, Connections, Ends, Event, Hosts, Invalid, Key, Opened, Opening, Scope, Secret,
            Segment, State, Timeouts,
        },
        policy::Direction,
    },
    head::TcpFlags,
    id::{Epoch, PortId},
    vlan::VlanId,
};

pub(crate) use Direction::{Egress as OUT, Ingress as IN};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;
pub(crate) const EPOCH: Epoch = Epoch::new(7);
pub(crate) const PORT: PortId = PortId::new(1, 5);

pub(crate) fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

/// A table with room for `capacity`, of which port 1 may have `most`.
pub(crate) fn table(capacity: usize, most: u32) -> Connections {
    let config = Config { capacity, ports: 8, timeouts: Timeouts::DEFAULT };
    let secret = std::array::from_fn(|n| (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let table = Connections::new(config, Secret::new(secret));
    table.admit(PORT, most);
    table
}

pub(crate) fn scope(port: PortId, vlan: u16) -> Scope {
    Scope { port, vlan: VlanId::new(vlan).unwrap() }
}

/// The `n`-th connection of a protocol with port numbers.
pub(crate) fn key(port: PortId, protocol: u8, n: u32) -> Key {
    let outside = Ipv4Addr::from(0x0a01_0000 + (n >> 12));
    let hosts = Hosts::V4(Ipv4Addr::new(10, 0, 0, 1), outside);
    Key::new(scope(port, 10), hosts, protocol, Ends::Ports { inside: 80, outside: 1024 + (n & 0xfff) as u16 })
}

pub(crate) fn segment(flags: u8, seq: u32, ack: u32, len: u32) -> Segment {
    Segment { flags: TcpFlags::from_bits(flags), seq, ack, window: 1000, len, scale: None }
}

pub(crate) fn open(table: &Connections, key: &Key, from: Direction, event: &Event, now: Instant) -> Opened {
    let digest = table.digest(key);
    table.open(&Opening { key, digest, from, event, opener: from, epoch: EPOCH }, now)
}

pub(crate) fn look_up(
    table: &Connections,
    key: &Key,
    from: Direction,
    event: &Event,
    now: Instant,
) -> Answer {
    table.look_up(table.digest(key), from, event, EPOCH, now)
}

/// One TCP connection and the clock. Rules let everything be opened.
pub(crate) struct Tcp {
    pub(crate) table: Connections,
    pub(crate) key: Key,
    pub(crate) now: u64,
}

impl Tcp {
    pub(crate) fn new() -> Self {
        Self { table: table(64, 64), key: key(PORT, 6, 1), now: 1 }
    }

    /// What becomes of a segment; one that may open a connection does.
    pub(crate) fn sees(&self, from: Direction, segment: Segment) -> Result<State, Invalid> {
        let event = Event::Tcp(segment);
        let digest = self.table.digest(&self.key);
        let foreseen = self.table.foresee(digest, from, &event, EPOCH, at(self.now));
        let answer = look_up(&self.table, &self.key, from, &event, at(self.now));
        assert_eq!(foreseen, answer, "what would be said of an imagined frame is said of a real one");
        match answer {
            Answer::Known { state, .. } => Ok(state),
            Answer::Invalid(why) => Err(why),
            Answer::New => {
                assert_eq!(open(&self.table, &self.key, from, &event, at(self.now)), Opened::New);
                Ok(self.state().expect("it was opened"))
            }
            Answer::Stale { .. } => panic!("the policy never changes here"),
        }
    }

    pub(crate) fn says(
        &self,
        from: Direction,
        flags: u8,
        seq: u32,
        ack: u32,
        len: u32,
    ) -> Result<State, Invalid> {
        self.sees(from, segment(flags, seq, ack, len))
    }

    /// Where the connection stands; none if there is none.
    pub(crate) fn state(&self) -> Option<State> {
        let mut state = None;
        assert_eq!(self.table.list(0, usize::MAX, at(self.now), |row| state = Some(row.state)), None);
        state
    }

    /// Opened from inside: what follows is 101 there, 501 outside.
    pub(crate) fn established() -> Self {
        let tcp = Self::new();
        assert_eq!(tcp.says(OUT, SYN, 100, 0, 0), Ok(State::SynSent));
        assert_eq!(tcp.says(IN, SYN | ACK, 500, 101, 0), Ok(State::SynReceived));
        assert_eq!(tcp.says(OUT, ACK, 101, 501, 0), Ok(State::Established));
        tcp
    }
}
