//! The sink: reads the stamp of every frame that arrives, and says what is missing, late, doubled or damaged.

use crate::{
    frames::{HEAD_SHOWN, Payload, Seen, Stamp, Stream, TAG},
    histogram::Histogram,
    large::{Arrived, HEADERS, Large},
};
use vhost_net_backend::driver::{QueuePair, ReceivedFrame};

/// Of so many frames one is compared to its last byte. The heads of all are checked.
const COMPARED: u32 = 64;
/// Holes in the sequence that are remembered; of frames that fill older ones it cannot be said whether they are late or
/// doubled, and they count as doubled.
const HOLES: usize = 64;
/// Stamps hold so many bits of the time.
const TIME_BITS: u32 = 48;

/// What a sink saw since the trial began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Frames of the stream, each once.
    pub received: u64,
    /// Their bytes, without net header.
    pub bytes: u64,
    /// Of these, behind a later one.
    pub reordered: u64,
    /// Frames of the stream that had come already.
    pub duplicated: u64,
    /// Frames that are not as they were sent.
    pub corrupt: u64,
    /// Frames of other ports' streams.
    pub strayed: u64,
    /// Frames that no generator sent.
    pub foreign: u64,
}

impl Tally {
    /// Counts a frame that is none that was waited for.
    fn count(&mut self, wrong: Seen) {
        match wrong {
            Seen::Ours(_) | Seen::Arp => {}
            Seen::Strayed => self.strayed += 1,
            Seen::Corrupt => self.corrupt += 1,
            Seen::Foreign => self.foreign += 1,
        }
    }

    /// Adds what `other` counted.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.bytes += other.bytes;
        self.reordered += other.reordered;
        self.duplicated += other.duplicated;
        self.corrupt += other.corrupt;
        self.strayed += other.strayed;
        self.foreign += other.foreign;
    }
}

/// Receives the frames of one stream.
#[derive(Debug)]
pub(crate) struct Sink {
    stream: Stream,
    /// What comes instead, if something is left to the switch; of which frame parts are coming, and which of them is next.
    large: Option<Large>,
    coming: u32,
    next_part: usize,
    first: u32,
    /// The number behind the highest that came.
    next: u32,
    /// Numbers that were passed over and may still come: from, up to.
    holes: Vec<(u32, u32)>,
    tally: Tally,
    latency: Histogram,
    /// Frames of one burst have one stamp: counted together.
    run: (u64, u64),
    until_compared: u32,
    /// Whether every byte is read.
    reads: bool,
    scratch: Vec<u8>,
}

impl Sink {
    pub(crate) fn new(stream: Stream, large: Option<Large>, payload: Payload) -> Self {
        Self {
            stream,
            large,
            coming: 0,
            next_part: 0,
            first: 0,
            next: 0,
            holes: Vec::with_capacity(HOLES),
            tally: Tally::default(),
            latency: Histogram::default(),
            run: (0, 0),
            until_compared: 1,
            reads: payload.read,
            scratch: Vec::new(),
        }
    }

    /// A new trial: the first frame will have the number `first`.
    pub(crate) fn begin(&mut self, first: u32) {
        (self.first, self.next) = (first, first);
        self.next_part = 0;
        self.holes.clear();
        self.tally = Tally::default();
        self.latency.clear();
    }

    /// Latencies count from now on.
    pub(crate) fn forget_latency(&mut self) {
        self.latency.clear();
    }

    /// The number behind the highest that came.
    pub(crate) fn next_number(&self) -> u32 {
        self.next
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Cycles from stamp to receipt.
    pub(crate) fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// Takes at most `limit` frames at the time `now`; how many. `flush` gives their buffers back.
    #[inline]
    pub(crate) fn take(&mut self, pair: &mut QueuePair, limit: usize, now: u64) -> usize {
        let taken = if let Some(large) = self.large.take() {
            let taken = pair.receive_in_place(limit, large.head_len(), |frame| self.part(&large, frame, now));
            self.large = Some(large);
            taken
        } else {
            let touched = self.stream.head_len();
            if self.stream.is_tagged() {
                pair.receive_in_place(limit, touched, |frame| self.frame::<TAG>(frame, now))
            } else {
                pair.receive_in_place(limit, touched, |frame| self.frame::<0>(frame, now))
            }
        };
        self.end_run(now);
        taken
    }

    #[inline(always)]
    fn frame<const LEN: usize>(&mut self, frame: &ReceivedFrame<'_>, now: u64) {
        let mut head = [0; HEAD_SHOWN];
        let whole = frame.read(0, &mut head[..HEAD_SHOWN - TAG + LEN]);
        match if whole { self.stream.read::<LEN>(&head, frame.len()) } else { self.short(frame) } {
            Seen::Ours(stamp) => {
                let is_exact = |sink: &mut Self| sink.is_exact(frame, stamp);
                if self.is_sound(frame, is_exact) {
                    self.arrived(stamp, frame.len(), now);
                }
            }
            wrong => self.tally.count(wrong),
        }
    }

    /// A frame whose checksum the switch completed, or a segment that it cut off one: the last one completes the frame, if it had all others
    /// before it, in order. A frame of which a part is missing or damaged never arrives.
    #[inline(always)]
    fn part(&mut self, large: &Large, frame: &ReceivedFrame<'_>, now: u64) {
        let mut head = [0; HEADERS];
        let read =
            if frame.read(0, &mut head) { large.read(&head, frame.len()) } else { Err(self.short(frame)) };
        let (stamp, arrived) = match read {
            Ok(read) => read,
            Err(wrong) => return self.tally.count(wrong),
        };
        let is_exact = |sink: &mut Self| sink.is_exact_part(frame, large, arrived.part);
        if self.is_sound(frame, is_exact) && self.is_whole(stamp.number, arrived) {
            self.arrived(stamp, large.len(), now);
        }
    }

    /// What a frame is that is too short for one of a stream.
    #[cold]
    fn short(&self, frame: &ReceivedFrame<'_>) -> Seen {
        let mut ethernet = [0; 14];
        if frame.read(0, &mut ethernet) { self.stream.without_stream(&ethernet) } else { Seen::Foreign }
    }

    /// Whether with this part all of frame `number` has come.
    #[inline(always)]
    fn is_whole(&mut self, number: u32, Arrived { part, is_last }: Arrived) -> bool {
        let is_same = number == self.coming;
        let is_doubled = is_same && part < self.next_part;
        if is_doubled || part > 0 && !(is_same && part == self.next_part) {
            self.tally.duplicated += u64::from(is_doubled || is_before(number, self.next));
            return false;
        }
        (self.coming, self.next_part) = (number, if is_last { 0 } else { part + 1 });
        is_last
    }

    /// Reads all of it if that is asked, and compares one of many by `is_exact`.
    #[inline(always)]
    fn is_sound(&mut self, frame: &ReceivedFrame<'_>, is_exact: impl FnOnce(&mut Self) -> bool) -> bool {
        if self.reads {
            self.read_all(frame);
        }
        self.until_compared -= 1;
        if self.until_compared > 0 {
            return true;
        }
        self.until_compared = COMPARED;
        let is_exact = is_exact(self);
        self.tally.corrupt += u64::from(!is_exact);
        is_exact
    }

    /// A frame of `len` bytes came, whole.
    #[inline(always)]
    fn arrived(&mut self, stamp: Stamp, len: usize, now: u64) {
        if stamp.number == self.next {
            self.next = self.next.wrapping_add(1);
        } else if !self.out_of_turn(stamp.number) {
            return;
        }
        self.tally.received += 1;
        self.tally.bytes += len as u64;
        if stamp.time != self.run.0 {
            self.end_run(now);
            self.run.0 = stamp.time;
        }
        self.run.1 += 1;
    }

    fn read_all(&mut self, frame: &ReceivedFrame<'_>) {
        self.scratch.resize(frame.len(), 0);
        std::hint::black_box(frame.read(0, &mut self.scratch));
    }

    #[cold]
    fn is_exact(&mut self, frame: &ReceivedFrame<'_>, stamp: Stamp) -> bool {
        self.scratch.resize(frame.len(), 0);
        frame.read(0, &mut self.scratch) && self.stream.is_exactly(&self.scratch, stamp)
    }

    #[cold]
    fn is_exact_part(&mut self, frame: &ReceivedFrame<'_>, large: &Large, part: usize) -> bool {
        self.scratch.resize(frame.len(), 0);
        frame.read(0, &mut self.scratch) && large.is_tail(part, &self.scratch[HEADERS..])
    }

    /// A frame whose turn it is not; whether it counts as received.
    #[cold]
    fn out_of_turn(&mut self, number: u32) -> bool {
        if is_before(self.next, number) {
            self.remember_hole(self.next, number);
            self.next = number.wrapping_add(1);
            return true;
        }
        if is_before(number, self.first) {
            // What is left of an earlier trial.
            return false;
        }
        let hole =
            self.holes.iter().position(|(from, to)| !is_before(number, *from) && is_before(number, *to));
        let Some(hole) = hole else {
            self.tally.duplicated += 1;
            return false;
        };
        let (from, to) = self.holes.swap_remove(hole);
        for rest in [(from, number), (number.wrapping_add(1), to)] {
            if rest.0 != rest.1 {
                self.remember_hole(rest.0, rest.1);
            }
        }
        self.tally.reordered += 1;
        true
    }

    fn remember_hole(&mut self, from: u32, to: u32) {
        if self.holes.len() == HOLES {
            self.holes.remove(0);
        }
        self.holes.push((from, to));
    }

    #[inline(always)]
    fn end_run(&mut self, now: u64) {
        let (time, frames) = self.run;
        if frames > 0 {
            self.latency.record(now.wrapping_sub(time) & ((1 << TIME_BITS) - 1), frames);
            self.run.1 = 0;
        }
    }
}

/// Whether `one` comes before `other`, in numbers that wrap.
fn is_before(one: u32, other: u32) -> bool {
    one != other && other.wrapping_sub(one) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frames::{FrameSize, Variety},
        path::Route,
    };

    fn stream() -> Stream {
        Stream::arriving(0, 1, FrameSize::Fixed(64), Variety::default(), Route::default())
    }

    fn after(numbers: &[u32], first: u32) -> Tally {
        let mut sink = Sink::new(stream(), None, Payload::default());
        sink.begin(first);
        for number in numbers {
            if *number == sink.next {
                sink.next = sink.next.wrapping_add(1);
                sink.tally.received += 1;
            } else if sink.out_of_turn(*number) {
                sink.tally.received += 1;
            }
        }
        sink.tally
    }

    #[test]
    fn late_and_doubled_frames_are_told_apart_also_across_the_wrap() {
        let start = u32::MAX - 1;
        let tally = after(&[start, 1, 0, u32::MAX, 0, 1, 2], start);
        assert_eq!((tally.received, tally.reordered, tally.duplicated), (5, 2, 2));
        let tally = after(&[10, 9, 14, 12, 12, 11], 10);
        assert_eq!((tally.received, tally.reordered, tally.duplicated), (4, 2, 1), "9 is an earlier trial's");
    }

    #[test]
    fn a_frame_is_whole_once_all_of_its_parts_came_in_order_and_once() {
        let frames = |parts: &[(u32, usize)]| {
            let stream = stream();
            let mut sink = Sink::new(stream, None, Payload::default());
            for (number, part) in parts {
                if sink.is_whole(*number, Arrived { part: *part, is_last: *part == 2 }) {
                    sink.arrived(Stamp { number: *number, time: 1 }, 10, 1);
                }
            }
            (sink.tally.received, sink.tally.duplicated)
        };
        assert_eq!(frames(&[(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]), (2, 0));
        assert_eq!(frames(&[(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]), (1, 0), "the first part is missing");
        assert_eq!(frames(&[(0, 0), (0, 2), (1, 0), (1, 1)]), (0, 0), "one between, and one at the end");
        assert_eq!(frames(&[(0, 0), (1, 0), (0, 1), (1, 1), (1, 2)]), (1, 0), "cut off by another");
        assert_eq!(frames(&[(0, 0), (0, 0), (0, 1), (0, 1), (0, 2), (0, 2)]), (1, 3));
    }

    #[test]
    fn more_holes_than_are_remembered_cost_no_memory() {
        let numbers: Vec<u32> = (0..10_000).map(|n| n * 2).collect();
        assert_eq!(after(&numbers, 0).received, 10_000);
        let mut sink = Sink::new(stream(), None, Payload::default());
        (1..1000).for_each(|n| assert!(sink.out_of_turn(n * 2)));
        assert_eq!(sink.holes.len(), HOLES);
    }
}
