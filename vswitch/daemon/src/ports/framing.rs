//! Frames on a byte stream, as QEMU's `-netdev stream` has them: before each its length, a 32-bit big-endian number.
//!
//! ```text
//! socket -> room/filled -> [len|frame][len|frame][len|fra   -> next_frame, consume, …
//! ```
//! The stream is a stranger's: a length that no frame has is the end of it, since nothing behind it can be told apart.

use std::{error::Error, fmt};
use vswitch_core::head::{ETHERNET_LEN, MAX_FRAME_LEN};

/// Bytes of a length.
pub const LENGTH_BYTES: usize = 4;

/// Bytes that are kept of a stream: the longest frame, and much of the next.
const BUFFER_BYTES: usize = 128 << 10;
const _: () = assert!(BUFFER_BYTES >= LENGTH_BYTES + MAX_FRAME_LEN as usize);

/// What stands before a frame of so many bytes.
pub const fn length(frame: u32) -> [u8; LENGTH_BYTES] {
    frame.to_be_bytes()
}

/// A length that no frame has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadLength(pub u32);

impl fmt::Display for BadLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.0;
        write!(
            f,
            "a frame of {length} bytes was announced, and frames have {ETHERNET_LEN} to {MAX_FRAME_LEN}"
        )
    }
}

impl Error for BadLength {}

/// What has come of a stream and was not looked at yet.
#[derive(Debug)]
pub struct Deframer {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for Deframer {
    fn default() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES].into(), start: 0, end: 0 }
    }
}

impl Deframer {
    /// Where the stream's next bytes are to be put; never empty once [`Self::next_frame`] said that no frame is whole.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were put into the room.
    ///
    /// # Panics
    /// If there was no room for them.
    pub fn filled(&mut self, bytes: usize) {
        assert!(bytes <= self.buffer.len() - self.end, "more bytes than there was room for");
        self.end += bytes;
    }

    /// The next frame, if it is whole; it stays the next one until [`Self::consume`].
    ///
    /// # Errors
    /// No frame has the length that stands there.
    #[inline]
    pub fn next_frame(&self) -> Result<Option<&[u8]>, BadLength> {
        let Some((length, rest)) = self.buffer[self.start..self.end].split_first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length);
        if !(ETHERNET_LEN as u32..=MAX_FRAME_LEN).contains(&length) {
            return Err(BadLength(length));
        }
        Ok(rest.get(..length as usize))
    }

    /// Goes on to the frame behind the next one.
    #[inline]
    pub fn consume(&mut self) {
        if let Ok(Some(frame)) = self.next_frame() {
            self.start += LENGTH_BYTES + frame.len();
        }
    }

    /// Whether the stream stands between two frames.
    pub fn is_between_frames(&self) -> bool {
        self.start == self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
        frames.iter().flat_map(|frame| [&length(frame.len() as u32)[..], frame].concat()).collect()
    }

    /// The frames of a stream that comes in pieces of so many bytes at most.
    fn heard(mut stream: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, BadLength> {
        let (mut deframer, mut frames) = (Deframer::default(), Vec::new());
        while !stream.is_empty() {
            let room = deframer.room();
            let (now, later) = stream.split_at(stream.len().min(piece).min(room.len()));
            room[..now.len()].copy_from_slice(now);
            deframer.filled(now.len());
            stream = later;
            while let Some(frame) = deframer.next_frame()? {
                frames.push(frame.to_vec());
                deframer.consume();
            }
        }
        assert!(deframer.is_between_frames());
        Ok(frames)
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_the_stream_is_cut() {
        let lengths = [14, 60, 1514, 65_550, 9014, 65_550, 65_550, 14];
        let frames: Vec<_> = lengths.map(|len| (0..len).map(|at| (at * 7 + len) as u8).collect()).into();
        let stream = framed(&frames);
        for piece in [1, 3, 4, 5, 1500, 65_553, 65_554, 70_001, usize::MAX] {
            assert_eq!(heard(&stream, piece).as_ref(), Ok(&frames), "in pieces of {piece}");
        }
    }

    #[test]
    fn a_length_that_no_frame_has_is_told_as_soon_as_it_is_there() {
        for length in [0, 13, 65_551, 1 << 31, u32::MAX] {
            let stream = [framed(&[vec![1; 60]]), length.to_be_bytes().to_vec()].concat();
            assert_eq!(heard(&stream, 7), Err(BadLength(length)));
        }
        assert_eq!(
            BadLength(70_000).to_string(),
            "a frame of 70000 bytes was announced, and frames have 14 to 65550"
        );
    }
}
