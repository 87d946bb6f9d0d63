//! Writing into claimed buffers, piece by piece, from our memory and from other guests'.

use crate::{
    device::{copy::Narrow, memory::Segment, ring::Payload},
    net_header::{self, NetHeader},
};
use checksum::Sum;

/// Bytes that pass through our memory at a time, to be summed on their way.
const PASSING: usize = 2048;

/// Writes bytes one after the other into a frame's segments.
#[derive(Clone, Copy)]
pub(super) struct Scatter<'a> {
    pub(super) segments: &'a [Segment],
    pub(super) offset: u32,
}

impl<'a> Scatter<'a> {
    /// Writes the net header; what follows it comes next.
    #[inline(always)]
    pub(super) fn begin(segments: &'a [Segment], header: &NetHeader) -> Self {
        let mut scatter = Self { segments, offset: 0 };
        let header = header.to_bytes();
        match segments.first() {
            Some(first) if first.len() >= net_header::LEN as u32 => {
                // The same header stands there nearly always: who does not write leaves the line in the guest's cache.
                first.write_if_unlike(&header);
                scatter.advance(first.len(), net_header::LEN as u32);
            }
            _ => scatter.put(&header),
        }
        scatter
    }

    #[inline(always)]
    pub(super) fn put_all(&mut self, head: &[u8], payload: Payload<'_>) {
        self.put(head);
        match payload {
            Payload::Ours(bytes) => self.put(bytes),
            Payload::Guest { segments, mut skip } => {
                for segment in segments {
                    self.put_segment(segment, skip, segment.len());
                    skip = 0;
                }
            }
        }
    }

    #[inline(always)]
    pub(super) fn put(&mut self, mut bytes: &[u8]) {
        while let Some(segment) = self.segments.first().filter(|_| !bytes.is_empty()) {
            let (now, later) = bytes.split_at(bytes.len().min((segment.len() - self.offset) as usize));
            segment.write::<Narrow>(self.offset, now);
            self.advance(segment.len(), now.len() as u32);
            bytes = later;
        }
    }

    /// Copies the bytes of `from` from `skip` to before `end`.
    #[inline(always)]
    fn put_segment(&mut self, from: &Segment, mut skip: u32, end: u32) {
        while let Some(segment) = self.segments.first().filter(|_| skip < end) {
            let here = (end - skip).min(segment.len() - self.offset);
            from.copy_to(skip, segment, self.offset, here);
            self.advance(segment.len(), here);
            skip += here;
        }
    }

    /// Leaves out `len` bytes.
    pub(super) fn skip(&mut self, mut len: u32) {
        while let Some(segment) = self.segments.first().filter(|_| len > 0) {
            let here = len.min(segment.len() - self.offset);
            self.advance(segment.len(), here);
            len -= here;
        }
    }

    #[inline(always)]
    fn advance(&mut self, segment_len: u32, by: u32) {
        self.offset += by;
        if self.offset == segment_len {
            self.segments = &self.segments[1..];
            self.offset = 0;
        }
    }
}

/// What is left of a frame: bytes of ours, then its payload.
#[derive(Debug, Clone, Copy)]
pub struct Stream<'a> {
    ours: &'a [u8],
    payload: Payload<'a>,
}

impl<'a> Stream<'a> {
    /// `ours`, and then `payload`.
    pub fn new(ours: &'a [u8], payload: Payload<'a>) -> Self {
        Self { ours, payload }
    }

    /// Takes `len` bytes off and writes them to `to`; their sum, if they are to be `summed`. Each byte of a guest's is read once.
    pub(super) fn copy(&mut self, len: u32, to: &mut Scatter<'_>, summed: bool) -> Sum {
        let mut left = len as usize;
        let mut sum = Running { sum: Sum::ZERO, len: 0 };
        let (ours, later) = self.ours.split_at(left.min(self.ours.len()));
        self.ours = later;
        left -= ours.len();
        if summed {
            sum.add(ours);
        }
        to.put(ours);
        match &mut self.payload {
            Payload::Ours(bytes) => {
                let (now, later) = bytes.split_at(left.min(bytes.len()));
                *bytes = later;
                if summed {
                    sum.add(now);
                }
                to.put(now);
            }
            Payload::Guest { segments, skip } => {
                while let Some(segment) = segments.first().filter(|_| left > 0) {
                    let end = segment.len().min(skip.saturating_add(left as u32));
                    left -= (end - *skip) as usize;
                    if summed {
                        pass(segment, *skip, end, to, &mut sum);
                    } else {
                        to.put_segment(segment, *skip, end);
                    }
                    *skip = end;
                    if end == segment.len() {
                        (*segments, *skip) = (&segments[1..], 0);
                    }
                }
            }
        }
        sum.sum
    }
}

/// Copies the bytes of `from` from `at` to before `end` by way of our memory, where they are summed: what is summed is what is written, whatever
/// the guest does meanwhile.
fn pass(from: &Segment, mut at: u32, end: u32, to: &mut Scatter<'_>, sum: &mut Running) {
    let mut passing = [0; PASSING];
    while at < end {
        let here = &mut passing[..PASSING.min((end - at) as usize)];
        from.read::<Narrow>(at, here);
        sum.add(here);
        to.put(here);
        at += here.len() as u32;
    }
}

/// The sum of what came until now, and how much that was.
struct Running {
    sum: Sum,
    len: usize,
}

impl Running {
    fn add(&mut self, bytes: &[u8]) {
        let piece = Sum::ZERO.add_bytes(bytes);
        self.sum =
            if self.len.is_multiple_of(2) { self.sum.add_even(piece) } else { self.sum.add_odd(piece) };
        self.len += bytes.len();
    }
}

/// Makes the heads of frames whose checksums are completed, or that are cut.
pub trait MakeHead {
    /// How many bytes follow the head of the frame's part `number`, and whether their sum is needed.
    fn payload(&self, number: u16) -> (u32, bool);

    /// Writes the head of part `number`, behind which bytes with this `sum` stand, to all of `head`; returns its net header, of which
    /// `num_buffers` does not matter.
    fn head(&self, number: u16, sum: Sum, head: &mut [u8]) -> NetHeader;
}
