//! Which sequence and acknowledgement numbers a segment may have (RFC 9293 §3.10.7.4, RFC 5961 §5).

use super::{
    Direction, Invalid,
    segment::Segment,
    track::{Control, Side},
};
use crate::head::TcpFlags;

/// Segments this far behind are let through, also where no larger window was offered: they overtake each other, and an old one does
/// no more to its receiver than to be acknowledged again.
pub(super) const MIN_WINDOW: u32 = 66_000;

/// Whether sequence number `a` stands before `b` (RFC 9293 §3.4).
#[inline]
pub(super) const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[inline]
const fn later(a: u32, b: u32) -> u32 {
    if before(a, b) { b } else { a }
}

/// Four distances that no segment of `me` to `peer` has negative, for one that ends at `end`.
///
/// Its data may end one behind the window, which is where a probe of a closed window is, and as far behind what was sent as a
/// window is large, which is where retransmissions and keep-alives are. It acknowledges what was sent, and nothing older than the
/// largest window (RFC 5961 §5.2).
#[inline]
const fn distances(me: &Side, peer: &Side, segment: &Segment, end: u32) -> [u32; 4] {
    [
        peer.edge.wrapping_add(1).wrapping_sub(segment.data_end()),
        end.wrapping_sub(me.end).wrapping_add(peer.window),
        peer.end.wrapping_sub(segment.ack),
        segment.ack.wrapping_sub(me.ack).wrapping_add(me.window),
    ]
}

/// Why the end `me` does not send such a segment to `peer`; none if it may.
pub(super) const fn refusal(me: &Side, peer: &Side, segment: &Segment) -> Option<Invalid> {
    let [ahead, behind, unsent, old] = distances(me, peer, segment, segment.end());
    if ((ahead | behind) as i32) < 0 {
        Some(Invalid::Sequence)
    } else if ((unsent | old) as i32) < 0 {
        Some(Invalid::Acknowledgement)
    } else {
        None
    }
}

/// What the end `from` has sent and offered with such a segment too.
pub(super) const fn advanced(me: &Side, control: Control, from: Direction, segment: &Segment) -> Side {
    // RFC 7323 §2.2: the window of a SYN is never shifted.
    let scale = if segment.has(TcpFlags::SYN) { 0 } else { control.scale(from) };
    with(me, scale, segment, segment.end())
}

#[inline]
const fn with(me: &Side, scale: u32, segment: &Segment, end: u32) -> Side {
    let window = (segment.window as u32) << scale;
    Side {
        end: later(end, me.end),
        ack: later(segment.ack, me.ack),
        edge: later(segment.ack.wrapping_add(window), me.edge),
        window: if window > me.window { window } else { me.window },
    }
}

/// What the end `me`, whose windows are shifted by `scale`, has sent to `peer` with what nearly all segments are, data or acknowledgements in the
/// window of an established connection; none if this is another.
#[inline(always)]
pub(super) fn plain(me: &Side, peer: &Side, scale: u32, segment: &Segment) -> Option<Side> {
    let end = segment.data_end();
    let [ahead, behind, unsent, old] = distances(me, peer, segment, end);
    let fits = segment.is_plain() && ((ahead | behind | unsent | old) as i32) >= 0;
    fits.then(|| with(me, scale, segment, end))
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
