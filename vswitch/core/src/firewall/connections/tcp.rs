//! TCP's state machine as who stands between the two ends sees it (RFC 9293 §3.3.2, RFC 5961).
//!
//! A segment that is invalid changes nothing. Nor does one that is let through only so that its receiver can object: that
//! is how a challenge works.

use super::{
    Direction, Invalid,
    segment::{MAX_SCALE, Segment},
    state::State,
    track::{Control, Flag, Side, SynAgain, Track},
    window::{MIN_WINDOW, Reset, advanced, before, refusal, reset},
};
use crate::head::TcpFlags;

/// The largest window that there can be (RFC 7323 §2.3).
const MAX_WINDOW: u32 = 1 << 30;

/// What a segment does to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It belongs to it: so it stands now.
    To(Track),
    /// It is let through and changes nothing.
    Passes,
    /// It is let through, and this SYN is to be kept in mind.
    Asks(SynAgain),
    /// The connection is over, and this SYN asks for a new one.
    Anew,
}

/// The connection that a SYN asks for; or, of any other segment, the one that must have been there before.
pub(super) fn opened(control: Control, from: Direction, segment: &Segment) -> Track {
    if segment.is_syn() {
        let syn = SynAgain { end: segment.end(), window: segment.window, scale: segment.scale };
        return asked(control, control.opener(), syn, segment.seq.wrapping_add(1));
    }
    let control = control
        .with_state(State::Established)
        .set(Flag::PICKED_UP)
        .set(Flag::answered(Direction::Egress))
        .set(Flag::answered(Direction::Ingress))
        .with_scale(Direction::Egress, MAX_SCALE)
        .with_scale(Direction::Ingress, MAX_SCALE);
    let unknown = Side { end: segment.seq, ack: segment.ack, edge: segment.ack, window: MIN_WINDOW };
    let me = advanced(&unknown, control, from, segment);
    let peer = Side {
        end: segment.ack,
        ack: segment.seq,
        edge: me.end.wrapping_add(MAX_WINDOW),
        window: MAX_WINDOW,
    };
    let mut track = Track { control, sides: [peer; 2] };
    *track.side_mut(from) = me;
    track
}

fn asked(control: Control, opener: Direction, syn: SynAgain, first: u32) -> Track {
    let control = control.forgetful().with_state(State::SynSent).with_scale(opener, syn.scale.unwrap_or(0));
    let control = if syn.scale.is_some() { control.set(Flag::SCALES) } else { control };
    let mut track = Track { control, sides: [Side { ack: first, window: MIN_WINDOW, ..Side::default() }; 2] };
    *track.side_mut(opener) = Side {
        end: syn.end,
        ack: first,
        edge: u32::from(syn.window),
        window: u32::from(syn.window).max(MIN_WINDOW),
    };
    track
}

/// What any segment does to a connection; `again` is the SYN that was kept in mind, if its flag is set.
pub(super) fn step(
    track: &Track,
    again: SynAgain,
    from: Direction,
    segment: &Segment,
) -> Result<Step, Invalid> {
    if !segment.is_sound() {
        return Err(Invalid::Flags);
    }
    if segment.is_syn() {
        return syn(track, from, segment);
    }
    match track.control.state() {
        State::SynSent if from == track.control.opener() => opener_waits(track, from, segment),
        State::SynSent => answer(track, from, segment),
        _ if segment.has(TcpFlags::RST) => rst(track, from, segment),
        _ if segment.has(TcpFlags::SYN) && accepts_again(track, again, from, segment) => {
            let anew = asked(track.control, from.opposite(), again, again.end);
            answer(&anew, from, segment)
        }
        _ => synchronized(*track, from, segment),
    }
}

fn accepts_again(track: &Track, again: SynAgain, from: Direction, segment: &Segment) -> bool {
    let asked = track.control.has(Flag::SYN_AGAIN) && from != track.control.opener();
    asked && segment.ack == again.end
}

/// A SYN without ACK.
fn syn(track: &Track, from: Direction, segment: &Segment) -> Result<Step, Invalid> {
    let opener = track.control.opener();
    match track.control.state() {
        State::TimeWait | State::Reset => Ok(Step::Anew),
        State::SynSent if from == opener => {
            // The same SYN once more, or that of an opener that was started anew.
            let syn = SynAgain { end: segment.end(), window: segment.window, scale: segment.scale };
            Ok(Step::To(asked(track.control, opener, syn, segment.seq.wrapping_add(1))))
        }
        State::SynSent => Ok(Step::To(met(track, from, segment, State::SynBoth))),
        State::SynBoth | State::SynReceived if segment.end() == track.side(from).end => Ok(Step::Passes),
        // Whoever has the connection challenges it, whoever lost it answers; RFC 5961 §4.2.
        _ if from == opener => {
            let again = SynAgain { end: segment.end(), window: segment.window, scale: segment.scale };
            Ok(Step::Asks(again))
        }
        // It would open a connection in the direction that nobody judged.
        _ => Err(Invalid::Syn),
    }
}

/// The opener's SYN was met by one of the other end, with or without ACK: both know all that the windows need.
fn met(track: &Track, from: Direction, segment: &Segment, state: State) -> Track {
    let opener = from.opposite();
    let asked = *track.side(opener);
    let (first, window) = (segment.seq.wrapping_add(1), u32::from(segment.window));
    let acked = if segment.has(TcpFlags::ACK) { segment.ack } else { asked.ack };
    let mut met = *track;
    *met.side_mut(from) = Side {
        end: segment.end(),
        ack: acked,
        edge: acked.wrapping_add(window),
        window: window.max(MIN_WINDOW),
    };
    *met.side_mut(opener) = Side { ack: first, edge: first.wrapping_add(asked.edge), ..asked };
    let scales = track.control.has(Flag::SCALES).then_some(segment.scale).flatten();
    let control = track.control.with_state(state).clear(Flag::CHALLENGED);
    met.control = match scales {
        Some(scale) => control.with_scale(from, scale),
        // RFC 7323 §2.2: only if both SYNs have the option.
        None => control.with_scale(from, 0).with_scale(opener, 0),
    };
    met
}

/// What the opener sends while it waits for an answer, beside SYNs.
fn opener_waits(track: &Track, from: Direction, segment: &Segment) -> Result<Step, Invalid> {
    if !segment.has(TcpFlags::RST) {
        return Err(Invalid::State);
    }
    if track.control.has(Flag::CHALLENGED) && segment.seq == track.side(from.opposite()).ack {
        // It resets what the challenger has left over, and then sends its SYN again.
        return Ok(Step::Passes);
    }
    if segment.seq == track.side(from).end { Ok(Step::To(ended(*track))) } else { Err(Invalid::Reset) }
}

/// What the responder sends before its SYN was seen.
fn answer(track: &Track, from: Direction, segment: &Segment) -> Result<Step, Invalid> {
    let asked = track.side(from.opposite());
    // All of the SYN or, if it had data, a part (RFC 7413).
    let fits =
        segment.has(TcpFlags::ACK) && !before(segment.ack, asked.ack) && !before(asked.end, segment.ack);
    if segment.has(TcpFlags::RST) {
        return if fits { Ok(Step::To(ended(*track))) } else { Err(Invalid::Reset) };
    }
    if segment.has(TcpFlags::SYN) {
        if !fits {
            return Err(Invalid::Acknowledgement);
        }
        let mut met = met(track, from, segment, State::SynReceived);
        met.control = met.control.set(Flag::answered(from));
        return Ok(Step::To(met));
    }
    if segment.is_plain() && segment.len == 0 {
        // Of a connection that the opener forgot: it has to hear of it (RFC 9293 §3.5.1, half-open connections).
        let mut challenged = *track;
        challenged.side_mut(from).ack = segment.ack;
        challenged.control = challenged.control.set(Flag::CHALLENGED);
        return Ok(Step::To(challenged));
    }
    Err(Invalid::State)
}

fn rst(track: &Track, from: Direction, segment: &Segment) -> Result<Step, Invalid> {
    match reset(track.side(from), track.side(from.opposite()), segment.seq) {
        Reset::Exact => Ok(Step::To(ended(*track))),
        Reset::Inside => Ok(Step::Passes),
        Reset::Outside => Err(Invalid::Reset),
    }
}

fn ended(mut track: Track) -> Track {
    track.control = track.control.with_state(State::Reset);
    track
}

/// A segment with ACK, and perhaps FIN or a SYN once more, of ends that have seen each other's SYN.
fn synchronized(mut track: Track, from: Direction, segment: &Segment) -> Result<Step, Invalid> {
    let to = from.opposite();
    let picked_up = track.control.has(Flag::PICKED_UP);
    let (me, mut peer) = (*track.side(from), *track.side(to));
    if picked_up && before(peer.end, segment.ack) && !before(peer.end.wrapping_add(me.window), segment.ack) {
        // Sent before anybody looked.
        peer.end = segment.ack;
        track.side_mut(to).end = segment.ack;
    }
    if let Some(why) = refusal(&me, &peer, segment) {
        return Err(why);
    }
    let state = track.control.state();
    if state == State::Reset {
        // Who was reset and did not hear of it has to be told again; that goes on for the few seconds that the entry stands.
        return Ok(Step::Passes);
    }
    let handshake = matches!(state, State::SynBoth | State::SynReceived);
    if handshake && before(segment.ack, me.ack) {
        return Err(Invalid::Acknowledgement);
    }
    let me = advanced(&me, track.control, from, segment);
    *track.side_mut(from) = me;
    let mut control = track.control.set(Flag::answered(from));
    let last = segment.end() == me.end;
    if segment.has(TcpFlags::FIN) && last {
        control = control.set(Flag::fin(from));
    }
    if control.has(Flag::fin(to)) && segment.ack == peer.end {
        control = control.set(Flag::fin_acked(from));
    }
    let of_both = |flag: fn(Direction) -> Flag| control.has(flag(from)) && control.has(flag(to));
    let of_one = control.has(Flag::fin(from)) || control.has(Flag::fin(to));
    let state = if !of_both(Flag::answered) {
        State::SynReceived
    } else if !of_one {
        State::Established
    } else if !of_both(Flag::fin) {
        State::HalfClosed
    } else if !of_both(Flag::fin_acked) {
        State::Closing
    } else {
        State::TimeWait
    };
    track.control = control.with_state(state);
    Ok(Step::To(track))
}
