//! Any bytes on a probe line, in pieces of any length, heard by either end: how it is cut does not matter, noise costs
//! no message but its own, and what is a message is one again when it is sent on.
//!
//! ```text
//! input: cuts u8 | the length of each piece u8* | bytes of the line
//! ```
//! Nobody guesses a CRC, so the same bytes are also sent as what a message carries.
#![no_main]

use libfuzzer_sys::fuzz_target;
use probe::{Ask, Decoder, FrameError, FromGuest, encode, frame::MAX_MESSAGE};
use serde::{Serialize, Serializer, de::DeserializeOwned, ser::SerializeTuple};
use std::fmt::Debug;

/// Bytes that are sent as a message, whatever they are: a tuple has no length before it.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
        tuple.end()
    }
}

trait Message: Serialize + DeserializeOwned + PartialEq + Debug {}
impl Message for Ask {}
impl Message for FromGuest {}

/// What one end hears.
fn hear<M: Message>(pieces: &[&[u8]]) -> Vec<Result<M, FrameError>> {
    let mut decoder = Decoder::new();
    pieces.iter().flat_map(|piece| decoder.push(piece)).collect()
}

fn listen<M: Message>(line: &[u8], pieces: &[&[u8]]) {
    let heard = hear::<M>(&[line]);
    assert_eq!(hear::<M>(pieces), heard, "it matters how the line is cut");
    for message in heard.into_iter().flatten() {
        again(&message);
    }
    // A line on which anything was said is still a line.
    let mut noisy = line.to_vec();
    noisy.extend(encode(&Raw(line)).unwrap_or_default());
    let carried = hear::<M>(&[&noisy]);
    if line.len() <= MAX_MESSAGE {
        match carried.last() {
            Some(Ok(message)) => again(message),
            Some(Err(why)) => assert_eq!(*why, FrameError::Unknown, "a whole frame is not heard as one"),
            None => panic!("a frame is not heard"),
        }
    }
}

/// A message that was heard is heard again when it is sent.
fn again<M: Message>(message: &M) {
    // Numbers can be written in more bytes than they need, so what is sent may be shorter; longer it is not.
    let sent = encode(message).expect("no longer than what was heard");
    assert_eq!(hear::<M>(&[&sent]).iter().flatten().collect::<Vec<_>>(), [message]);
}

fuzz_target!(|input: &[u8]| {
    let [cuts, rest @ ..] = input else { return };
    let Some((cuts, line)) = rest.split_at_checked(usize::from(*cuts)) else { return };
    let (mut pieces, mut left) = (Vec::new(), line);
    for cut in cuts {
        let (piece, after) = left.split_at(usize::from(*cut).min(left.len()));
        pieces.push(piece);
        left = after;
    }
    pieces.push(left);
    listen::<Ask>(line, &pieces);
    listen::<FromGuest>(line, &pieces);
});
