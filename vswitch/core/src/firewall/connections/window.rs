//! Which sequence and acknowledgement numbers a segment may have (RFC 9293 §3.10.7.4, RFC 5961 §5).

use super::{
    Invalid,
    key::Direction,
    segment::Segment,
    track::{Control, Side},
};
use crate::head::TcpFlags;

/// Acknowledgements this far behind are old and let through, also where no larger window was offered: segments overtake each other.
const OLD_ACK: u32 = 66_000;

/// Whether sequence number `a` stands before `b` (RFC 9293 §3.4).
#[inline]
pub(super) const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[inline]
const fn later(a: u32, b: u32) -> u32 {
    if before(a, b) { b } else { a }
}

/// Why the end `me` does not send such a segment to `peer`; none if it may.
///
/// Its data may end one behind the window, which is where a probe of a closed window is, and begin as far behind what was sent
/// as a window is large, which is where retransmissions and keep-alives are. It acknowledges what was sent, and nothing older
/// than the largest window (RFC 5961 §5.2).
#[inline]
pub(super) const fn refusal(me: &Side, peer: &Side, segment: &Segment) -> Option<Invalid> {
    let old_ack = if me.window > OLD_ACK { me.window } else { OLD_ACK };
    if before(peer.edge.wrapping_add(1), segment.data_end())
        || before(segment.end(), me.end.wrapping_sub(peer.window))
    {
        return Some(Invalid::Sequence);
    }
    if before(peer.end, segment.ack) || before(segment.ack, me.ack.wrapping_sub(old_ack)) {
        return Some(Invalid::Acknowledgement);
    }
    None
}

/// What the end `from` has sent and offered with such a segment too.
#[inline]
pub(super) const fn advanced(me: &Side, control: Control, from: Direction, segment: &Segment) -> Side {
    let scale = if segment.has(TcpFlags::SYN) { 0 } else { control.scale(from) };
    let window = (segment.window as u32) << scale;
    Side {
        end: later(segment.end(), me.end),
        ack: later(segment.ack, me.ack),
        edge: later(segment.ack.wrapping_add(window), me.edge),
        window: if window > me.window { window } else { me.window },
    }
}

/// Where a RST's sequence number is (RFC 5961 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// Where the receiver waits for it: the connection is over.
    Exact,
    /// In the window: the receiver answers with a challenge, and a RST that is meant comes again.
    Inside,
    /// Nowhere.
    Outside,
}

/// Where the RST of `me` is. What the receiver waits for is what it acknowledged or, if its acknowledgement is under way,
/// behind all that was sent to it.
pub(super) const fn reset(me: &Side, peer: &Side, seq: u32) -> Reset {
    if seq == peer.ack || seq == me.end {
        Reset::Exact
    } else if before(seq, peer.ack) || before(peer.edge, seq) {
        Reset::Outside
    } else {
        Reset::Inside
    }
}
