//! TCP through firewalls (K17): bad flags, states, and what somebody sends who is neither end (RFC 9293, RFC 5961).

use super::{
    super::{ACK, H1, PC1, SYN_ACK, WEB1, link, open_office, segment, syn},
    Row, Verdict, hold, verdict,
};
use crate::support::lab::{Bench, mac};
use vswitch_core::{
    build::{self, Addresses},
    drop_reason::DropReason::{InvalidEgress, InvalidIngress, PolicyIngress},
};

/// A frame, and the port that it comes from.
type Sent = (u16, Vec<u8>);

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
/// What the guest's first byte, and the other end's, has as its number.
const SEQ: u32 = 1001;
const ACKED: u32 = 5001;
const FAR: u32 = 0x4000_0000;

/// From station 2 at `pc1`, which opens, to station 3 at `h1`, which has no firewall: port 4000 to port 80.
fn out(flags: u8, seq: u32, ack: u32) -> Sent {
    (PC1, segment(syn(2, 3, (4000, 80)), flags, seq, ack))
}

/// And back. Somebody who forges it sends from the same interface here: the firewall knows no difference.
fn back(flags: u8, seq: u32, ack: u32) -> Sent {
    (H1, segment(syn(3, 2, (80, 4000)), flags, seq, ack))
}

fn say(bench: &mut Bench, (from, frame): &Sent) -> Verdict {
    let to = if *from == PC1 { H1 } else { PC1 };
    verdict(bench, (*from, to), frame)
}

/// A way into each state, each frame of which passes.
fn states() -> Vec<(&'static str, Vec<Sent>)> {
    let opening = vec![out(SYN, SEQ - 1, 0)];
    let with = |before: &[Sent], more: &[Sent]| [before, more].concat();
    let received = with(&opening, &[back(SYN_ACK, ACKED - 1, SEQ)]);
    let established = with(&received, &[out(ACK, SEQ, ACKED)]);
    let half_closed = with(&established, &[out(FIN | ACK, SEQ, ACKED)]);
    let closing = with(&half_closed, &[back(FIN | ACK, ACKED, SEQ + 1)]);
    let time_wait = with(&closing, &[out(ACK, SEQ + 1, ACKED + 1)]);
    let reset = with(&established, &[back(RST, ACKED, 0)]);
    vec![
        ("syn-sent", opening),
        ("syn-received", received),
        ("established", established),
        ("half-closed", half_closed),
        ("closing", closing),
        ("time-wait", time_wait),
        ("reset", reset),
    ]
}

fn in_state(frames: &[Sent]) -> Bench {
    let mut bench = open_office();
    for frame in frames {
        assert_eq!(say(&mut bench, frame), Ok(()), "{}", bench.story());
    }
    bench
}

/// Of 256 sets of control bits those with SYN and neither ACK, FIN nor RST open a connection, with any of PSH, URG, ECE and CWR.
#[test]
fn no_flags_but_those_of_a_syn_open_a_connection() {
    let rows = (0..=255u8).filter(|flags| flags & 0x17 != SYN).map(|flags| {
        let of = |flags| segment(syn(3, 1, (4000, 80)), flags, 1000, 0);
        // All combinations of the other bits, over and over.
        let honest = SYN | (flags & 0xe8);
        Row::new(format!("{flags:#x}"), (H1, WEB1), (of(flags), InvalidIngress), of(honest))
    });
    hold(open_office, rows);
    // A guest that may open anything opens nothing else either.
    let rows =
        [0, FIN, RST, ACK, SYN_ACK, SYN | FIN, SYN | RST, FIN | RST, 0x29, 0x3f, FIN | ACK].map(|flags| {
            let of = |flags| segment(syn(2, 3, (4001, 80)), flags, 1000, 0);
            Row::new(format!("{flags:#x}"), (PC1, H1), (of(flags), InvalidEgress), of(SYN))
        });
    hold(open_office, rows);
}

/// Null, FIN alone, Xmas, SYN with FIN or RST, and the rest that no TCP sends: in every state, from either end. They change nothing.
#[test]
fn flags_that_no_tcp_sends_pass_in_no_state() {
    let is_sound = |flags: u8| match flags & 0x17 {
        kind if kind == ACK || kind == FIN | ACK || kind == SYN => true,
        kind if kind == SYN_ACK || kind == RST || kind == RST | ACK => flags & 0x20 == 0,
        _ => false,
    };
    for (state, frames) in states() {
        let mut bench = in_state(&frames);
        let mut count = 0;
        for flags in (0..=255).filter(|flags| !is_sound(*flags)) {
            let tries = [(back(flags, ACKED, SEQ), InvalidIngress), (out(flags, SEQ, ACKED), InvalidEgress)];
            for (frame, why) in tries {
                assert_eq!(say(&mut bench, &frame), Err(why), "{flags:#x} in {state}");
            }
            count += 1;
        }
        assert_eq!(count, 256 - 72);
        // What was next is next.
        let next = match state {
            "syn-sent" => back(SYN_ACK, ACKED - 1, SEQ),
            "syn-received" | "established" => out(ACK, SEQ, ACKED),
            "half-closed" => back(ACK, ACKED, SEQ + 1),
            "closing" | "time-wait" => out(ACK, SEQ + 1, ACKED + 1),
            _ => out(ACK, SEQ, ACKED),
        };
        assert_eq!(say(&mut bench, &next), Ok(()), "after all, in {state}: {}", bench.story());
    }
}

/// What somebody sends who guesses numbers (RFC 5961, CERT VU#415294), in each state, and what the honest end sends then.
#[test]
fn what_is_injected_blindly_passes_in_no_state() {
    let far = [FAR, 2 * FAR - 1, 3 * FAR, 200_000, 200_000u32.wrapping_neg()];
    for (state, frames) in states() {
        if state == "syn-sent" {
            continue;
        }
        let mut bench = in_state(&frames);
        for far in far {
            for frame in [
                back(RST, ACKED.wrapping_add(far), 0),
                back(RST | ACK, ACKED.wrapping_add(far), SEQ),
                back(ACK, ACKED.wrapping_add(far), SEQ),
                back(FIN | ACK, ACKED.wrapping_add(far), SEQ),
                back(ACK, ACKED, SEQ.wrapping_add(far)),
                back(SYN_ACK, FAR, SEQ.wrapping_add(far)),
            ] {
                let got = say(&mut bench, &frame);
                assert_eq!(got, Err(InvalidIngress), "{far:#x} in {state}: {}", bench.story());
            }
        }
        if !matches!(state, "time-wait" | "reset") {
            let opens = back(SYN, FAR, 0);
            assert_eq!(say(&mut bench, &opens), Err(InvalidIngress), "a SYN in {state}");
        }
        let goes_on = match state {
            "half-closed" | "closing" => back(ACK, ACKED, SEQ + 1),
            "time-wait" => out(ACK, SEQ + 1, ACKED + 1),
            _ => out(ACK, SEQ, ACKED),
        };
        assert_eq!(say(&mut bench, &goes_on), Ok(()), "honest, in {state}: {}", bench.story());
    }
}

/// To one that waits for its SYN's answer.
#[test]
fn a_handshake_is_answered_by_who_has_seen_its_syn() {
    let rows = [
        ("an answer to another SYN", back(SYN_ACK, ACKED - 1, SEQ + 1)),
        ("to an older one", back(SYN_ACK, ACKED - 1, SEQ - 1)),
        ("a RST without a number", back(RST, 0, 0)),
        ("a RST of another SYN", back(RST | ACK, 0, SEQ + 1)),
    ];
    let rows = rows.map(|(what, (_, frame))| {
        Row::new(what, (H1, PC1), (frame, InvalidIngress), back(SYN_ACK, ACKED - 1, SEQ).1)
    });
    hold(|| in_state(&[out(SYN, SEQ - 1, 0)]), rows);
    // What would follow an answer, before there was one.
    let mut bench = in_state(&[out(SYN, SEQ - 1, 0)]);
    for flags in [FIN | ACK, RST] {
        assert_eq!(say(&mut bench, &back(flags, ACKED, SEQ)), Err(InvalidIngress), "{flags:#x}");
    }
    assert_eq!(say(&mut bench, &back(SYN_ACK, ACKED - 1, SEQ)), Ok(()));
}

/// RFC 5961 §3.2: a RST in the window reaches its receiver, who challenges it; it ends nothing here. An exact one does.
#[test]
fn a_reset_in_the_window_ends_nothing_and_an_exact_one_does() {
    let established = states().into_iter().find(|(state, _)| *state == "established").expect("it is one").1;
    let mut bench = in_state(&established);
    assert_eq!(say(&mut bench, &back(RST, ACKED + 1, 0)), Ok(()));
    assert_eq!(say(&mut bench, &out(ACK, SEQ, ACKED)), Ok(()), "the challenge");
    assert!(bench.story().contains("established"), "{}", bench.story());
    assert_eq!(say(&mut bench, &back(RST, ACKED, 0)), Ok(()), "its answer");
    assert_eq!(say(&mut bench, &out(ACK, SEQ, ACKED)), Ok(()));
    assert!(bench.story().contains("reset"), "{}", bench.story());
    assert_eq!(say(&mut bench, &back(RST, ACKED + FAR, 0)), Err(InvalidIngress));
}

/// Frames of one connection are no other's: each part of its name is changed.
#[test]
fn a_segment_of_no_connection_is_of_no_connection() {
    let established = states().into_iter().find(|(state, _)| *state == "established").expect("it is one").1;
    let honest = back(ACK, ACKED, SEQ).1;
    let from = |src: u8, ports| segment(syn(src, 2, ports), ACK, ACKED, SEQ);
    let rows = [
        ("from another host", from(1, (80, 4000))),
        ("from another port", from(3, (81, 4000))),
        ("to another port", from(3, (80, 4001))),
        ("over IPv6", {
            let addresses = Addresses::V6(super::v6(3), super::v6(2));
            segment(build::tcp_syn(link(3, 2), addresses, (80, 4000), 0), ACK, ACKED, SEQ)
        }),
    ];
    let rows = rows.map(|(what, frame)| {
        let mut frame = frame;
        frame[6..12].copy_from_slice(&mac(3).octets());
        Row::new(what, (H1, PC1), (frame, InvalidIngress), honest.clone())
    });
    hold(|| in_state(&established), rows);
    // A SYN that nobody allowed, beside the answer to one.
    let rows =
        [Row::new("a SYN", (H1, PC1), (syn(3, 2, (80, 4001)), PolicyIngress), back(ACK, ACKED, SEQ).1)];
    hold(|| in_state(&established), rows);
}

/// RFC 9293 §3.5 figure 7 and §3.6.1: simultaneous open, and a port that is used again in TIME-WAIT.
#[test]
fn what_is_rare_and_honest_passes() {
    for frames in [
        vec![
            out(SYN, SEQ - 1, 0),
            back(SYN, ACKED - 1, 0),
            out(SYN_ACK, SEQ - 1, ACKED),
            back(SYN_ACK, ACKED - 1, SEQ),
            out(ACK, SEQ, ACKED),
        ],
        vec![out(SYN | 0xc0, SEQ - 1, 0), back(SYN_ACK | 0x40, ACKED - 1, SEQ), out(ACK, SEQ, ACKED)],
    ] {
        let mut bench = in_state(&frames);
        assert!(bench.story().contains("established"), "{}", bench.story());
        assert_eq!(say(&mut bench, &back(RST, ACKED + FAR, 0)), Err(InvalidIngress));
    }
    let time_wait = states().into_iter().find(|(state, _)| *state == "time-wait").expect("it is one").1;
    let mut bench = in_state(&time_wait);
    assert_eq!(say(&mut bench, &out(SYN, 90_000, 0)), Ok(()));
    assert_eq!(say(&mut bench, &back(SYN_ACK, 7000, SEQ)), Err(InvalidIngress), "of the old one");
    assert_eq!(say(&mut bench, &back(SYN_ACK, 7000, 90_001)), Ok(()));
}
