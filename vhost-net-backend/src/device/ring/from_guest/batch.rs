//! What one harvest took: where each chain's bytes are, and a private copy of each frame's head.

use super::{DESCRIPTOR_BUDGET, MAX_BATCH};
use crate::{
    device::{
        copy::{ByLane, Lane, Narrow, by_widest_lane},
        memory::Segment,
        ring::LONGEST,
    },
    net_header::{self, NetHeader},
};
use std::{ops::Range, slice};

/// How much of a frame is copied out of guest memory to be judged: through 20 bytes of TCP behind two VLAN tags and an
/// IPv6 header with extension headers (DESIGN §2, law 1).
pub const HEAD_BYTES: usize = 192;

/// What makes a chain no frame although virtio allows the chain. It is completed like any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Longer than [`MAX_FRAME`](super::MAX_FRAME).
    Oversize,
    /// It has a buffer that the device is to write.
    BadDirection,
}

/// What its shape and its net header make of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// A frame, and nothing is left to do of it.
    Frame,
    /// A frame whose net header asks for a checksum or for segmentation; whether it may is judged elsewhere.
    Asks,
    /// No frame.
    No(Defect),
}

/// Where the bytes behind a frame's head are.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// In the sending guest's buffers, for this turn.
    Guest {
        /// Its buffers, in order.
        segments: &'a [Segment],
        /// Bytes of the first segment that belong to the head.
        skip: u32,
    },
    /// In a buffer of ours.
    Ours(&'a [u8]),
}

impl Payload<'_> {
    /// Appends its first bytes, at most `limit`, to `to`. A guest may be writing to them: each call can see other ones.
    #[cold]
    pub fn append_to(self, to: &mut Vec<u8>, limit: usize) {
        match self {
            Self::Ours(bytes) => to.extend_from_slice(&bytes[..bytes.len().min(limit)]),
            Self::Guest { segments, mut skip } => {
                let end = to.len().saturating_add(limit);
                for segment in segments {
                    let (at, here) = (to.len(), (segment.len() - skip) as usize);
                    to.resize(at + here.min(end - at), 0);
                    segment.read::<Narrow>(skip, &mut to[at..]);
                    skip = 0;
                }
            }
        }
    }
}

/// A frame of the current batch.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    chain: &'a Chain,
    segments: &'a [Segment],
}

impl<'a> Frame<'a> {
    /// Its first bytes, at most [`HEAD_BYTES`]: private, fixed, what is judged and what is sent.
    #[inline(always)]
    pub fn head(self) -> &'a [u8] {
        &self.chain.copy[net_header::LEN..][..(self.chain.len as usize).min(HEAD_BYTES)]
    }

    /// Its first `N` bytes, if it has as many.
    #[inline(always)]
    pub fn first<const N: usize>(self) -> Option<&'a [u8; N]> {
        if (self.chain.len as usize) < N { None } else { self.chain.copy[net_header::LEN..].first_chunk() }
    }

    /// Its head, if that is all of it.
    #[inline(always)]
    pub(in crate::device::ring) fn short(self) -> Option<&'a [u8]> {
        let len = self.chain.len as usize;
        if len > HEAD_BYTES { None } else { Some(&self.chain.copy[net_header::LEN..][..len]) }
    }

    /// Its length, from the destination address on.
    #[inline(always)]
    #[expect(
        clippy::len_without_is_empty,
        reason = "an empty frame is as wrong as any other that is too short"
    )]
    pub fn len(self) -> u32 {
        self.chain.len
    }

    /// Why it is no frame.
    #[inline(always)]
    pub fn defect(self) -> Option<Defect> {
        if let Verdict::No(defect) = self.chain.verdict { Some(defect) } else { None }
    }

    /// Whether its net header asks for a checksum or for segmentation.
    #[inline(always)]
    pub fn asks(self) -> bool {
        self.chain.verdict == Verdict::Asks
    }

    /// Its net header, as the guest wrote it: private and fixed, and nothing in it is to be trusted.
    pub fn net_header(self) -> NetHeader {
        let [header, ..] = self.chain.copy.as_chunks::<{ net_header::LEN }>().0 else {
            return NetHeader::plain(0);
        };
        NetHeader::from_bytes(*header)
    }

    /// What follows the head.
    pub fn payload(self) -> Payload<'a> {
        match &self.chain.pieces {
            _ if self.chain.len as usize <= HEAD_BYTES => Payload::Ours(&[]),
            Pieces::One(segment) => {
                Payload::Guest { segments: slice::from_ref(segment), skip: COPIED as u32 }
            }
            Pieces::Many { first, end, payload: (piece, skip) } => Payload::Guest {
                segments: &self.segments[usize::from(first + piece)..usize::from(*end)],
                skip: (*skip).into(),
            },
        }
    }
}

/// Bytes of net header and head.
const COPIED: usize = net_header::LEN + HEAD_BYTES;

/// One chain, and a copy of its head behind it, so that one pointer leads through a batch.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Chain {
    pieces: Pieces,
    /// Bytes of all its buffers but those of the net header.
    len: u32,
    pub(super) head: u16,
    verdict: Verdict,
    /// Net header and head, as they stood in the guest's buffers; behind them what is old.
    copy: [u8; COPIED],
}

/// Where a chain's bytes are.
#[derive(Debug)]
enum Pieces {
    /// In one piece: nearly every chain.
    One(Segment),
    /// In those of `Batch::segments` from `first` to before `end`.
    Many {
        first: u16,
        end: u16,
        /// The piece, counted from `first`, and the byte in it, where the payload begins.
        payload: (u16, u16),
    },
}

impl Chain {
    fn nothing() -> Self {
        let pieces = Pieces::Many { first: 0, end: 0, payload: (0, 0) };
        Self { pieces, len: 0, head: 0, verdict: Verdict::Frame, copy: [0; COPIED] }
    }

    /// It is in one piece.
    #[inline(always)]
    pub(super) fn set_one(&mut self, head: u16, segment: Segment) {
        self.len = segment.len().saturating_sub(net_header::LEN as u32);
        self.pieces = Pieces::One(segment);
        self.head = head;
        self.verdict = Verdict::Frame;
    }

    /// It has `bytes` bytes in the batch's segments from `first` to before `end`.
    pub(super) fn set_many(&mut self, head: u16, bytes: u32, first: u16, end: u16, defect: Option<Defect>) {
        self.len = bytes.saturating_sub(net_header::LEN as u32);
        self.pieces = Pieces::Many { first, end, payload: (0, 0) };
        self.head = head;
        self.verdict = defect.map_or(Verdict::Frame, Verdict::No);
    }

    /// Copies net header and head, and notes in `any` if the net header asks for something.
    #[inline(always)]
    fn copy_head<L: Lane>(&mut self, segments: &[Segment], any: &mut bool) {
        match &self.pieces {
            // Most frames: the head is all of it, and there is a net header.
            Pieces::One(segment) if (net_header::LEN..=COPIED).contains(&(segment.len() as usize)) => {
                segment.read::<L>(0, &mut self.copy[..segment.len() as usize]);
                if asks_for_offload(self.copy[0], self.copy[1]) {
                    (self.verdict, *any) = (Verdict::Asks, true);
                }
            }
            _ => self.copy_any_head(segments, any),
        }
    }

    #[inline(never)]
    fn copy_any_head(&mut self, segments: &[Segment], any: &mut bool) {
        let copied = match &mut self.pieces {
            Pieces::One(segment) => {
                if segment.len() > LONGEST {
                    self.verdict = Verdict::No(Defect::Oversize);
                }
                let head = &mut self.copy[..COPIED.min(segment.len() as usize)];
                segment.read::<Narrow>(0, head);
                head.len()
            }
            Pieces::Many { first, end, payload } => {
                let (copied, end) = gather(&segments[usize::from(*first)..usize::from(*end)], &mut self.copy);
                *payload = end;
                copied
            }
        };
        if self.verdict == Verdict::Frame && copied >= 2 && asks_for_offload(self.copy[0], self.copy[1]) {
            (self.verdict, *any) = (Verdict::Asks, true);
        }
    }
}

/// Whether a net header with these two fields asks for a checksum or for segmentation.
#[inline(always)]
fn asks_for_offload(flags: u8, gso_type: u8) -> bool {
    flags & net_header::F_NEEDS_CSUM != 0 || gso_type != 0
}

/// Copies the first bytes of `segments`, as many as there are or fit; returns how many, and the segment, and the byte in it,
/// that follow.
fn gather(segments: &[Segment], to: &mut [u8]) -> (usize, (u16, u16)) {
    let mut at = 0;
    for (place, segment) in (0..).zip(segments) {
        let here = (to.len() - at).min(segment.len() as usize);
        segment.read::<Narrow>(0, &mut to[at..at + here]);
        at += here;
        if here < segment.len() as usize {
            return (at, (place, here as u16));
        }
    }
    (at, (segments.len() as u16, 0))
}

/// Copies the heads of a batch.
struct CopyHeads<'a>(&'a mut Batch);

impl ByLane for CopyHeads<'_> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Batch { chains, len, segments, asks } = self.0;
        let mut any = false;
        chains[..*len].iter_mut().for_each(|chain| chain.copy_head::<L>(segments, &mut any));
        *asks = any;
    }
}

/// The chains of one harvest.
#[derive(Debug)]
pub(super) struct Batch {
    /// In order; the first `len` are there.
    pub(super) chains: Box<[Chain; MAX_BATCH]>,
    pub(super) len: usize,
    /// Those of chains that are not in one piece.
    pub(super) segments: Vec<Segment>,
    /// Whether any net header asks for something.
    pub(super) asks: bool,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            chains: Box::new(std::array::from_fn(|_| Chain::nothing())),
            len: 0,
            segments: Vec::with_capacity(DESCRIPTOR_BUDGET as usize),
            asks: false,
        }
    }

    pub(super) fn chains(&self) -> &[Chain] {
        &self.chains[..self.len]
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.segments.clear();
    }

    /// Copies the head of each chain.
    #[inline(always)]
    pub(super) fn copy_heads(&mut self) {
        by_widest_lane(CopyHeads(self));
    }

    /// The lengths of some frames.
    #[inline(always)]
    pub(super) fn lens(&self, frames: Range<usize>) -> impl Iterator<Item = u32> + Clone {
        self.chains()[frames].iter().map(|chain| chain.len)
    }

    /// Some frames.
    #[inline(always)]
    pub(super) fn frames(&self, frames: Range<usize>) -> impl Iterator<Item = Frame<'_>> {
        let segments = self.segments.as_slice();
        self.chains()[frames].iter().map(move |chain| Frame { chain, segments })
    }
}
