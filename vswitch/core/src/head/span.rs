//! A layer of a frame: where it starts and ends, and the bytes of it that were copied.

use super::{HEAD_BYTES, Unparsed};

/// The part of a frame that one header says is the next layer. Offsets count from its start.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    /// The copied bytes of the whole frame.
    head: &'a [u8],
    /// Where the layer starts, from the destination address.
    start: usize,
    /// Where it ends: often behind `head`.
    end: usize,
}

impl<'a> Span<'a> {
    /// The whole frame, `frame_len` bytes long, of which `bytes` are known.
    pub(super) fn frame(bytes: &'a [u8], frame_len: usize) -> Self {
        let known = bytes.len().min(HEAD_BYTES).min(frame_len);
        Self { head: &bytes[..known], start: 0, end: frame_len }
    }

    /// Where it starts, from the destination address.
    pub(super) const fn start(self) -> usize {
        self.start
    }

    /// How many bytes it has.
    pub(super) const fn len(self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// What is left of it behind its first `offset` bytes.
    pub(super) const fn from(self, offset: usize) -> Self {
        Self { start: self.start.saturating_add(offset), ..self }
    }

    /// Its first `len` bytes.
    pub(super) const fn first(self, len: usize) -> Result<Self, Unparsed> {
        if len > self.len() { Err(Unparsed::Truncated) } else { Ok(Self { end: self.start + len, ..self }) }
    }

    /// What was copied of its bytes between these offsets; none if that is not all.
    pub(super) fn known(self, from: usize, to: usize) -> Option<&'a [u8]> {
        self.head.get(self.start + from..self.start + to)
    }

    /// `N` bytes at `offset`.
    pub(super) fn read<const N: usize>(self, offset: usize) -> Result<&'a [u8; N], Unparsed> {
        if offset.saturating_add(N) > self.len() {
            return Err(Unparsed::Truncated);
        }
        self.head.get(self.start + offset..).and_then(<[u8]>::first_chunk).ok_or(Unparsed::BehindHead)
    }
}
