//! Any bytes from a stream peer, in pieces of any length: how they are cut does not matter, the frames are those that stand there, and
//! a length that no frame has ends it.
//!
//! ```text
//! input: cuts u8 | the length of each piece u8* | bytes of the stream
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use vswitchd::ports::framing::{BadLength, Deframer};

/// The frames of the stream, and the length that ended it.
fn heard(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<BadLength>) {
    let (mut deframer, mut frames) = (Deframer::default(), Vec::new());
    for piece in pieces {
        let mut left = *piece;
        while !left.is_empty() {
            let room = deframer.room();
            assert!(!room.is_empty(), "no frame is whole, and there is no room for the rest of one");
            let (now, later) = left.split_at(left.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            deframer.filled(now.len());
            left = later;
            loop {
                match deframer.next_frame() {
                    Ok(None) => break,
                    Ok(Some(frame)) => frames.push(frame.to_vec()),
                    Err(why) => return (frames, Some(why)),
                }
                deframer.consume();
            }
        }
    }
    (frames, None)
}

/// The same, by what the format says.
fn meant(mut stream: &[u8]) -> (Vec<Vec<u8>>, Option<BadLength>) {
    let mut frames = Vec::new();
    while let Some((length, rest)) = stream.split_first_chunk() {
        let length = u32::from_be_bytes(*length);
        if !(14..=65_550).contains(&length) {
            return (frames, Some(BadLength(length)));
        }
        let Some((frame, rest)) = rest.split_at_checked(length as usize) else { break };
        frames.push(frame.to_vec());
        stream = rest;
    }
    (frames, None)
}

fuzz_target!(|input: &[u8]| {
    let [cuts, rest @ ..] = input else { return };
    let Some((cuts, stream)) = rest.split_at_checked(usize::from(*cuts)) else { return };
    let (mut pieces, mut left) = (Vec::new(), stream);
    for cut in cuts {
        let (piece, after) = left.split_at(usize::from(*cut).min(left.len()));
        pieces.push(piece);
        left = after;
    }
    pieces.push(left);
    assert_eq!(heard(&pieces), meant(stream));
});
