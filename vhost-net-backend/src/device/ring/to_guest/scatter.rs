//! Writing into claimed buffers, piece by piece, from our memory and from other guests'.

use crate::{
    device::{
        copy::{ByLane, Lane, Narrow, by_widest_lane},
        memory::Segment,
        ring::Payload,
    },
    net_header::{self, NetHeader},
};
use checksum::Sum;

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

    /// The same; adds what was written to `sum`.
    #[inline(always)]
    fn put_summed<L: Lane>(&mut self, from: &Segment, mut skip: u32, end: u32, sum: &mut Running) {
        while let Some(segment) = self.segments.first().filter(|_| skip < end) {
            let here = (end - skip).min(segment.len() - self.offset);
            sum.add(from.copy_summed_to::<L>(skip, segment, self.offset, here), here);
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

    /// Takes `len` bytes off and writes them to `to`.
    pub(super) fn copy(&mut self, mut len: u32, to: &mut Scatter<'_>) {
        while let Some(piece) = self.piece(&mut len) {
            match piece {
                Piece::Ours(bytes) => to.put(bytes),
                Piece::Guest { segment, at, end } => to.put_segment(segment, at, end),
            }
        }
    }

    /// The same; returns their sum. Each byte of a guest's is read once: what is summed is what is written, whatever the guest does
    /// meanwhile.
    pub(super) fn copy_summed(&mut self, len: u32, to: &mut Scatter<'_>) -> Sum {
        let mut sum = Running { sum: Sum::ZERO, len: 0 };
        by_widest_lane(CopySummed { stream: self, len, to, sum: &mut sum });
        sum.sum
    }

    /// Takes off what lies together, no more than `left` bytes, which become fewer. None if there are none left.
    #[inline(always)]
    fn piece(&mut self, left: &mut u32) -> Option<Piece<'a>> {
        let ours = match &mut self.payload {
            Payload::Ours(bytes) if self.ours.is_empty() => bytes,
            _ => &mut self.ours,
        };
        if !ours.is_empty() {
            let (now, later) = ours.split_at(ours.len().min(*left as usize));
            *ours = later;
            *left -= now.len() as u32;
            return (!now.is_empty()).then_some(Piece::Ours(now));
        }
        let Payload::Guest { segments, skip } = &mut self.payload else { return None };
        let segment = segments.first().filter(|_| *left > 0)?;
        let (at, end) = (*skip, segment.len().min(skip.saturating_add(*left)));
        *left -= end - at;
        *skip = end;
        if end == segment.len() {
            (*segments, *skip) = (&segments[1..], 0);
        }
        Some(Piece::Guest { segment, at, end })
    }
}

/// Bytes that lie together.
enum Piece<'a> {
    Ours(&'a [u8]),
    /// Those of a segment from `at` to before `end`.
    Guest {
        segment: &'a Segment,
        at: u32,
        end: u32,
    },
}

struct CopySummed<'a, 's, 't> {
    stream: &'a mut Stream<'s>,
    len: u32,
    to: &'a mut Scatter<'t>,
    sum: &'a mut Running,
}

impl ByLane for CopySummed<'_, '_, '_> {
    #[inline(always)]
    fn run<L: Lane>(mut self) {
        while let Some(piece) = self.stream.piece(&mut self.len) {
            match piece {
                Piece::Ours(bytes) => {
                    self.sum.add(Sum::ZERO.add_bytes(bytes), bytes.len() as u32);
                    self.to.put(bytes);
                }
                Piece::Guest { segment, at, end } => self.to.put_summed::<L>(segment, at, end, self.sum),
            }
        }
    }
}

/// The sum of what came until now, and how much that was.
struct Running {
    sum: Sum,
    len: u32,
}

impl Running {
    /// `len` bytes more that have this sum.
    #[inline(always)]
    fn add(&mut self, piece: Sum, len: u32) {
        self.sum =
            if self.len.is_multiple_of(2) { self.sum.add_even(piece) } else { self.sum.add_odd(piece) };
        self.len += len;
    }
}

/// Makes the heads of frames whose checksums are completed, or that are cut.
pub trait MakeHead {
    /// How many bytes follow the head of the frame's part `number`, and whether their sum is needed.
    fn payload(&self, number: u16) -> (u32, bool);

    /// Makes `head`, which is as it was given or as the part before left it, that of part `number`, behind which bytes with this `sum` stand;
    /// returns its net header, of which `num_buffers` does not matter.
    fn head(&self, number: u16, sum: Sum, head: &mut [u8]) -> NetHeader;
}
