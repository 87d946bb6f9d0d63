//! The table against a naive map with a virtual clock: what it finds, forgets and judges anew.

use super::{IN, OUT, at, scope, table};
use proptest::prelude::*;
use std::{collections::BTreeMap, net::Ipv4Addr};
use vswitch_core::{
    firewall::{
        connections::{Answer, Ends, Event, Hosts, Invalid, Key, Opened, Opening, Segment, State, Timeouts},
        policy::Direction,
    },
    head::TcpFlags,
    id::{Epoch, PortId},
};

/// What a connection is, without words, digests or lines.
#[derive(Clone)]
struct Entry {
    state: State,
    opener: Direction,
    seen: u64,
    epoch: u64,
}

#[derive(Default)]
struct Model(BTreeMap<usize, Entry>);

impl Model {
    /// What is to be said of a frame, and what it does. TCP is told by two kinds of segment only: `event` is SYN or RST.
    fn look_up(&mut self, n: usize, from: Direction, event: &Event, epoch: u64, now: u64) -> Answer {
        self.0.retain(|_, entry| now - entry.seen <= Timeouts::DEFAULT.of(entry.state).into());
        let is_rst = matches!(event, Event::Tcp(segment) if segment.flags.contains(TcpFlags::RST));
        let Some(entry) = self.0.get_mut(&n) else {
            let cannot = is_rst || matches!(event, Event::Query { reply: true });
            return if cannot { Answer::Invalid(Invalid::NoConnection) } else { Answer::New };
        };
        if entry.epoch != epoch {
            return Answer::Stale { opener: entry.opener };
        }
        let answers = from != entry.opener;
        entry.state = match (entry.state, event) {
            (State::Reset, Event::Tcp(_)) if !is_rst => return Answer::New,
            (State::SynSent, Event::Tcp(_)) if is_rst && answers => State::Reset,
            (State::SynSent, Event::Tcp(_)) if is_rst => return Answer::Invalid(Invalid::Reset),
            (State::Reset, Event::Tcp(_)) if answers => State::Reset,
            (State::Reset, Event::Tcp(_)) => return Answer::Invalid(Invalid::Reset),
            (State::Unreplied, _) if answers => State::Replied,
            (State::OtherUnreplied, _) if answers => State::OtherReplied,
            (State::Asked, _) if answers => State::Answered,
            (state, _) => state,
        };
        entry.seen = now;
        Answer::Known { state: entry.state, opener: entry.opener }
    }
}

/// The connections that there may be: of four kinds, at two ports, in two VLANs.
fn connection(n: usize) -> (Key, Direction) {
    let port = PortId::new(n as u16 & 1, 0);
    let hosts = Hosts::V4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let ports = Ends::Ports { inside: 5, outside: 6 };
    let asked = if n & 16 == 0 { OUT } else { IN };
    let (protocol, ends) = match n >> 2 & 3 {
        0 => (17, ports),
        1 => (6, ports),
        2 => (1, Ends::Query { id: 5, kind: 8, asked }),
        _ => (50, Ends::Pair),
    };
    (Key::new(scope(port, 10 + (n as u16 >> 1 & 1)), hosts, protocol, ends), asked)
}

/// What a frame of that connection says. A SYN of the responder would open at once: there is none here.
fn event(n: usize, from: Direction, rst: bool) -> (Direction, Event) {
    let (key, asked) = connection(n);
    let tcp = |flags, seq, ack| {
        Event::Tcp(Segment { flags: TcpFlags::from_bits(flags), seq, ack, window: 9, len: 0, scale: None })
    };
    match key.protocol() {
        6 if rst => (from, tcp(0x14, 0, 101)),
        6 => (OUT, tcp(2, 100, 0)),
        1 => (from, Event::Query { reply: from != asked }),
        _ => (from, Event::Datagram),
    }
}

proptest! {
    #[test]
    fn it_is_a_map_that_forgets(
        acts in proptest::collection::vec((0usize..32, any::<bool>(), any::<bool>(), 0u64..40, 0usize..80, 0u8..20), 1..400),
    ) {
        let table = table(64, 64);
        table.admit(PortId::new(0, 0), 64);
        table.admit(PortId::new(1, 0), 64);
        let (mut model, mut now, mut epoch) = (Model::default(), 1, 1);
        for (n, out, rst, pause, sweep, act) in acts {
            // TCP's connections are those of the lower half only.
            let n = if n >> 2 & 3 == 2 { n } else { n & 15 };
            now += if act < 12 { pause } else { pause * 9 };
            table.sweep(at(now), sweep);
            epoch += u64::from(act == 0);
            let (from, event) = event(n, if out { OUT } else { IN }, rst);
            let key = connection(n).0;
            let digest = table.digest(&key);
            let expected = model.look_up(n, from, &event, epoch, now);
            let foreseen = table.foresee(digest, from, &event, Epoch::new(epoch), at(now));
            let answer = table.look_up(digest, from, &event, Epoch::new(epoch), at(now));
            prop_assert_eq!(foreseen, answer);
            prop_assert_eq!(answer, expected);
            match answer {
                Answer::New => {
                    let opening = Opening { key: &key, digest, from, event: &event, opener: from, epoch: Epoch::new(epoch) };
                    prop_assert_eq!(table.open(&opening, at(now)), Opened::New);
                    let state = [State::Unreplied, State::SynSent, State::Asked, State::OtherUnreplied][n >> 2 & 3];
                    model.0.insert(n, Entry { state, opener: from, seen: now, epoch });
                }
                Answer::Stale { .. } if act % 2 == 0 => {
                    prop_assert!(table.renew(digest, Epoch::new(epoch)));
                    model.0.get_mut(&n).unwrap().epoch = epoch;
                }
                Answer::Stale { .. } => {
                    prop_assert!(table.end(digest));
                    model.0.remove(&n);
                }
                _ => {}
            }
            let mut listed = Vec::new();
            table.list(0, usize::MAX, at(now), |row| listed.push(row));
            let alive = |entry: &&Entry| now - entry.seen <= Timeouts::DEFAULT.of(entry.state).into();
            prop_assert_eq!(listed.len(), model.0.values().filter(alive).count());
        }
    }
}
