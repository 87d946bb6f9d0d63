//! How messages travel over a stream of bytes: postcard, a CRC-32, COBS, and a zero before and after.
//!
//! ```text
//! 00 | COBS( postcard(message) · CRC-32 of that, little endian ) | 00
//! ```
//!
//! COBS leaves no zero within (Cheshire, Baker 1997), so whatever comes between two messages ends at the next zero: a
//! kernel that prints on the same line costs nothing but its own words.

use alloc::vec::Vec;
use core::{fmt, marker::PhantomData};
use crc::{CRC_32_ISO_HDLC, Crc};
use serde::{Serialize, de::DeserializeOwned};

/// The greatest message, in bytes of postcard.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// The CRC-32 of IEEE 802.3 §3.2.9.
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
const CRC_LEN: usize = 4;

/// The greatest frame between its zeros: COBS adds one byte, and one more for every 254.
const MAX_FRAME: usize = cobs::max_encoding_length(MAX_MESSAGE + CRC_LEN);

/// The message is longer than [`MAX_MESSAGE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the message is longer than {MAX_MESSAGE} bytes")
    }
}

impl core::error::Error for TooLong {}

/// The bytes that carry `message`, with the zeros around them.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, TooLong> {
    // Our messages always serialise: what postcard refuses are sequences of unknown length, and they have none.
    let mut bytes = postcard::to_allocvec(message).map_err(|_| TooLong)?;
    if bytes.len() > MAX_MESSAGE {
        return Err(TooLong);
    }
    let crc = CRC.checksum(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let mut frame = Vec::with_capacity(cobs::max_encoding_length(bytes.len()) + 2);
    frame.push(0);
    frame.extend(cobs::encode_vec(&bytes));
    frame.push(0);
    Ok(frame)
}

/// Why what stood between two zeros is no message. The next message is found all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameError {
    /// No zero came within the length of the greatest message.
    TooLong,
    /// It is not COBS, or its CRC is wrong: noise, or a frame that lost bytes.
    Damaged,
    /// It arrived whole, but no message of this version reads so.
    Unknown,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "bytes without an end, longer than any message",
            Self::Damaged => "bytes that are no frame, or a damaged one",
            Self::Unknown => "a message that this version does not know",
        })
    }
}

impl core::error::Error for FrameError {}

/// Finds messages in a stream that comes in pieces. It never holds more than one frame of the greatest length.
#[derive(Debug)]
pub struct Decoder<M> {
    frame: Vec<u8>,
    /// The frame is already too long: what follows is passed over until the next zero.
    overlong: bool,
    message: PhantomData<fn() -> M>,
}

impl<M: DeserializeOwned> Default for Decoder<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: DeserializeOwned> Decoder<M> {
    /// At the start of a stream.
    pub const fn new() -> Self {
        Self { frame: Vec::new(), overlong: false, message: PhantomData }
    }

    /// Takes the next piece, and gives what ends in it, in order.
    pub fn push(&mut self, piece: &[u8]) -> impl Iterator<Item = Result<M, FrameError>> + use<M> {
        let mut found = Vec::new();
        let mut parts = piece.split(|byte| *byte == 0);
        if let Some(first) = parts.next() {
            self.take(first);
        }
        for part in parts {
            found.extend(self.end());
            self.take(part);
        }
        found.into_iter()
    }

    fn take(&mut self, part: &[u8]) {
        if self.overlong || part.len() > MAX_FRAME - self.frame.len() {
            self.overlong = true;
            self.frame.clear();
        } else {
            self.frame.extend_from_slice(part);
        }
    }

    /// A zero: the frame so far is whole. Nothing between two zeros is no frame.
    fn end(&mut self) -> Option<Result<M, FrameError>> {
        if core::mem::take(&mut self.overlong) {
            return Some(Err(FrameError::TooLong));
        }
        let found = (!self.frame.is_empty()).then(|| decode(&mut self.frame));
        self.frame.clear();
        found
    }
}

fn decode<M: DeserializeOwned>(frame: &mut [u8]) -> Result<M, FrameError> {
    let len = cobs::decode_in_place(frame).map_err(|_| FrameError::Damaged)?;
    let (bytes, crc) = frame[..len].split_last_chunk::<CRC_LEN>().ok_or(FrameError::Damaged)?;
    if CRC.checksum(bytes) != u32::from_le_bytes(*crc) {
        return Err(FrameError::Damaged);
    }
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) | Err(_) => Err(FrameError::Unknown),
    }
}

#[cfg(test)]
mod tests;
