//! A capture on its way: from the switch's socket into the body of an answer, and out of it block by block.

use axum::body::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::UnixStream,
};
use tokio_stream::Stream;

/// The media type of a pcapng file.
pub const MEDIA_TYPE: &str = "application/x-pcapng";

/// How much is passed on at a time.
const CHUNK: usize = 64 << 10;

/// A capture that runs. Dropped, it ends: the switch sees that its socket is closed.
#[derive(Debug)]
pub struct Capturing {
    /// Its number, for who wants to end it in order.
    pub number: u32,
    /// Where the file comes from.
    pub file: UnixStream,
}

/// The file, as fast as it is asked for.
#[derive(Debug)]
pub(super) struct File(pub(super) UnixStream);

impl Stream for File {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut chunk = vec![0; CHUNK];
        let mut buffer = ReadBuf::new(&mut chunk);
        let read = ready!(Pin::new(&mut self.0).poll_read(context, &mut buffer));
        let length = buffer.filled().len();
        chunk.truncate(length);
        Poll::Ready(match read {
            Ok(()) if length == 0 => None,
            Ok(()) => Some(Ok(chunk.into())),
            Err(why) => Some(Err(why)),
        })
    }
}

/// The file, as a client reads it.
#[derive(Debug)]
pub struct CaptureReader {
    /// The capture's number.
    pub number: u32,
    body: Incoming,
    buffer: Vec<u8>,
}

impl CaptureReader {
    pub(super) fn new(number: u32, body: Incoming) -> Self {
        Self { number, body, buffer: Vec::new() }
    }

    /// The next blocks of the file, whole ones. None: it ended; a block that was cut off by that is left out.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let whole = whole_blocks(&self.buffer);
            if whole > 0 {
                let behind = self.buffer.split_off(whole);
                return Some(std::mem::replace(&mut self.buffer, behind));
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}

/// How many of the bytes are whole blocks of pcapng: each says its length in its second word, which counts the block's
/// first and last words too (draft-ietf-opsawg-pcapng §3.1).
fn whole_blocks(bytes: &[u8]) -> usize {
    let mut whole = 0;
    while let Some([_, _, _, _, l0, l1, l2, l3, ..]) = bytes.get(whole..) {
        let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
        if length < 12 || bytes.len() - whole < length {
            break;
        }
        whole += length;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use vswitchd::capture::pcapng;

    #[test]
    fn a_block_is_whole_when_its_last_byte_is_there() {
        let mut file = Vec::new();
        let interface = pcapng::Interface { name: "h1:eth0".into(), filter: String::new(), snap_len: 100 };
        pcapng::begin(&mut file, &interface);
        let head = file.len();
        pcapng::end(&mut file, Duration::ZERO, 0, 0);
        for length in 0..=file.len() {
            let whole = whole_blocks(&file[..length]);
            assert!(whole <= length && (length < head || whole >= head));
            assert_eq!(whole == file.len(), length == file.len());
        }
        assert_eq!(whole_blocks(&[0; 100]), 0, "a length that is none ends nothing");
    }
}
