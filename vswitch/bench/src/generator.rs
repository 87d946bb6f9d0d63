//! The generator: bursts of stamped frames on one queue pair. Of each frame it writes what is new, one cache line; the rest
//! stays where it was written before.

use crate::{
    frames::{Flow, Payload, Stamp, Stream, TAG, Variety},
    large::Large,
};
use vhost_net_backend::driver::{QueuePair, TransmitBuffer};

/// Sends the frames of one stream.
#[derive(Debug)]
pub(crate) struct Generator {
    stream: Stream,
    /// What is sent instead, if something is left to the switch.
    large: Option<Large>,
    flow: Flow,
    /// The place in the round of sizes.
    place: usize,
    /// The number of the next frame.
    number: u32,
    /// The kind of frame that each transmit buffer holds.
    laid_out: Vec<Option<u8>>,
    /// Whether the tail is written for each frame.
    dirty: bool,
}

impl Generator {
    pub(crate) fn new(stream: Stream, large: Option<Large>, payload: Payload) -> Self {
        Self { large, dirty: payload.dirty, ..Self::starting_at(0, stream) }
    }

    /// One whose first frame has the number `number`.
    pub(crate) fn starting_at(number: u32, stream: Stream) -> Self {
        Self {
            stream,
            large: None,
            flow: Flow::default(),
            place: 0,
            number,
            laid_out: Vec::new(),
            dirty: false,
        }
    }

    /// How its frames differ.
    pub(crate) fn variety(&self) -> Variety {
        self.stream.variety()
    }

    /// The number of the next frame.
    pub(crate) fn next_number(&self) -> u32 {
        self.number
    }

    /// Queues at most `limit` frames that were made at `now`; how many there was room for. `flush` sends them.
    #[inline]
    pub(crate) fn send(&mut self, pair: &mut QueuePair, limit: usize, now: u64) -> usize {
        // All offsets are constants in each.
        if let Some(large) = &self.large {
            send_large(large, (&mut self.number, &mut self.laid_out, self.dirty), (pair, limit, now))
        } else if self.stream.is_tagged() {
            self.send_behind::<TAG>(pair, limit, now)
        } else {
            self.send_behind::<0>(pair, limit, now)
        }
    }

    #[inline(always)]
    fn send_behind<const LEN: usize>(&mut self, pair: &mut QueuePair, limit: usize, now: u64) -> usize {
        let Self { stream, flow, place, number, laid_out, dirty, .. } = self;
        pair.transmit_in_place(limit, stream.head_len(), |buffer| {
            let slot = usize::from(buffer.number());
            let kind = stream.kind(*place);
            if laid_out.get(slot) != Some(&Some(kind)) {
                lay_out(stream, kind, laid_out, buffer);
            }
            let stamp = Stamp { number: *number, time: now };
            let end = stream.stamp::<LEN>(kind, *flow, stamp, |at, bytes| buffer.write(at, bytes));
            if *dirty {
                let head = stream.head_len();
                buffer.write(head, &stream.tail()[..end - head]);
            }
            buffer.set_end(end);
            *number = number.wrapping_add(1);
            flow.advance(stream.variety());
            *place += 1;
            if *place == stream.round() {
                *place = 0;
            }
        })
    }
}

/// The same of frames of which something is left to the switch.
fn send_large(
    large: &Large,
    (number, laid_out, dirty): (&mut u32, &mut Vec<Option<u8>>, bool),
    (pair, limit, now): (&mut QueuePair, usize, u64),
) -> usize {
    pair.transmit_in_place(limit, large.head_len(), |buffer| {
        let slot = usize::from(buffer.number());
        if laid_out.get(slot) != Some(&Some(0)) {
            laid_out.resize(laid_out.len().max(slot + 1), None);
            laid_out[slot] = Some(0);
            large.lay_out(buffer);
        }
        let end = large.stamp(Stamp { number: *number, time: now }, |at, bytes| buffer.write(at, bytes));
        if dirty {
            large.write_tail(buffer);
        }
        buffer.set_end(end);
        *number = number.wrapping_add(1);
    })
}

/// Writes all of a frame that stays: its head, and once for all kinds the tail.
#[cold]
fn lay_out(stream: &Stream, kind: u8, laid_out: &mut Vec<Option<u8>>, buffer: &mut TransmitBuffer<'_>) {
    let slot = usize::from(buffer.number());
    laid_out.resize(laid_out.len().max(slot + 1), None);
    if laid_out[slot].is_none() {
        buffer.write(stream.head_len(), stream.tail());
    }
    laid_out[slot] = Some(kind);
    buffer.write(0, stream.head(kind));
}
