//! Two honest ends over a network that loses, repeats and disorders: none of their segments is ever refused.

use super::{ACK, FIN, IN, OUT, SYN, Tcp};
use proptest::prelude::*;
use vswitch_core::{
    firewall::{connections::Segment, policy::Direction},
    head::TcpFlags,
};

/// One end: it goes back to the oldest that is not acknowledged when it repeats, and keeps nothing that comes out of order.
struct End {
    side: Direction,
    first: u32,
    una: u32,
    nxt: u32,
    rcv: u32,
    window: u16,
    scale: Option<u8>,
    peer_scale: Option<u8>,
    /// Behind the last byte that the other allows.
    edge: u32,
    /// The sequence number of its FIN.
    fin: Option<u32>,
    heard_syn: bool,
}

impl End {
    fn new(side: Direction, first: u32, window: u16, scale: Option<u8>) -> Self {
        let (una, nxt) = (first, first.wrapping_add(1));
        Self {
            side,
            first,
            una,
            nxt,
            rcv: 0,
            window,
            scale,
            peer_scale: None,
            edge: nxt,
            fin: None,
            heard_syn: false,
        }
    }

    fn segment(&self, flags: u8, seq: u32, len: u32) -> Segment {
        let flags = if self.heard_syn { flags | ACK } else { flags };
        let scale = if flags & SYN != 0 { self.scale } else { None };
        Segment { flags: TcpFlags::from_bits(flags), seq, ack: self.rcv, window: self.window, len, scale }
    }

    fn is_open(&self) -> bool {
        self.heard_syn && self.una != self.first
    }

    /// New data as far as the other allows, or what is not acknowledged.
    fn send(&mut self, len: u32, again: bool, close: bool) -> Segment {
        if self.una == self.first {
            return self.segment(SYN, self.first, 0);
        }
        if again {
            let data_end = self.fin.unwrap_or(self.nxt);
            let len = data_end.wrapping_sub(self.una).min(1400);
            let all = self.una.wrapping_add(len) == data_end;
            let fin = if self.fin.is_some() && all { FIN } else { 0 };
            return self.segment(fin, self.una, if self.una == self.nxt { 0 } else { len });
        }
        if self.fin.is_some() {
            return self.segment(0, self.nxt, 0);
        }
        let room = self.edge.wrapping_sub(self.nxt);
        let len = if (room as i32) < 0 { 0 } else { len.min(room) };
        let seq = self.nxt;
        self.nxt = seq.wrapping_add(len);
        let fin = if close && len < room {
            self.fin = Some(self.nxt);
            self.nxt = self.nxt.wrapping_add(1);
            FIN
        } else {
            0
        };
        self.segment(fin, seq, len)
    }

    fn receive(&mut self, segment: &Segment) {
        let has = |flag: u8| segment.flags.bits() & flag != 0;
        if has(SYN) && !self.heard_syn {
            self.heard_syn = true;
            self.rcv = segment.seq.wrapping_add(1);
            self.peer_scale = segment.scale;
        } else if self.heard_syn && !has(SYN) && segment.seq == self.rcv {
            self.rcv = self.rcv.wrapping_add(segment.len).wrapping_add(u32::from(has(FIN)));
        }
        let ahead = segment.ack.wrapping_sub(self.una);
        if has(ACK) && ahead <= self.nxt.wrapping_sub(self.una) {
            self.una = segment.ack;
            let shift = match (self.scale, self.peer_scale) {
                (Some(_), Some(scale)) if !has(SYN) => scale,
                _ => 0,
            };
            let edge = segment.ack.wrapping_add(u32::from(segment.window) << shift);
            if (edge.wrapping_sub(self.edge) as i32) > 0 {
                self.edge = edge;
            }
        }
    }
}

proptest! {
    #[test]
    fn honest_ends_are_never_refused(
        firsts: (u32, u32), windows in (1u16..2000, 1u16..2000),
        scales in (proptest::option::of(0u8..8), proptest::option::of(0u8..8)),
        acts in proptest::collection::vec((0u8..16, any::<bool>(), 0u32..1400, 0usize..4), 50..400),
    ) {
        let tcp = Tcp::new();
        let mut ends = [
            End::new(OUT, firsts.0, windows.0, scales.0),
            End::new(IN, firsts.1, windows.1, scales.1),
        ];
        // Behind the firewall, towards the end outside; and before it, from there.
        let mut wires: [Vec<Segment>; 2] = [Vec::new(), Vec::new()];
        for (act, inside, len, place) in acts {
            let n = usize::from(!inside);
            match act {
                0..=8 => {
                    // The responder speaks when it was spoken to.
                    if n == 1 && !ends[1].heard_syn {
                        continue;
                    }
                    let (again, close) = (act < 3, act == 8 && ends[n].is_open());
                    let segment = ends[n].send(len, again, close);
                    if n == 0 {
                        let seen = tcp.sees(OUT, segment);
                        prop_assert!(seen.is_ok(), "{seen:?} {segment:?}");
                    }
                    wires[n].push(segment);
                }
                9 if !wires[n].is_empty() => {
                    let lost = place % wires[n].len();
                    wires[n].remove(lost);
                }
                10 if !wires[n].is_empty() => {
                    let again = wires[n][place % wires[n].len()];
                    wires[n].push(again);
                }
                _ if !wires[n].is_empty() => {
                    let place = place % wires[n].len();
                    let segment = wires[n].remove(place);
                    if n == 1 {
                        let seen = tcp.sees(IN, segment);
                        prop_assert!(seen.is_ok(), "{seen:?} {segment:?}");
                    }
                    ends[1 - n].receive(&segment);
                }
                _ => {}
            }
            for end in &ends {
                if end.is_open() {
                    // Nobody who sees nothing of the connection gets through half the numbers away.
                    let blind = Segment { seq: end.nxt.wrapping_add(1 << 31), ..end.segment(0, 0, 10) };
                    prop_assert!(tcp.sees(end.side, blind).is_err());
                }
            }
        }
    }
}
