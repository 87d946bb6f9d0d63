//! The probe's line: questions come by the second serial port, and answers go there.

use crate::{console::say, machine::PROBE};
use alloc::vec::Vec;
use probe::{Ask, Decoder, FromGuest, encode};

/// How many bytes are taken at once: the network does not wait for longer.
const AT_ONCE: usize = 4096;

/// The line.
#[derive(Default)]
pub(crate) struct Line(Decoder<Ask>);

impl Line {
    /// The questions that ended in what came since the last look.
    pub(crate) fn asks(&mut self) -> Vec<Ask> {
        let bytes: Vec<u8> = core::iter::from_fn(|| PROBE.receive()).take(AT_ONCE).collect();
        let found = self.0.push(&bytes);
        // What is no question was meant for nobody, or its sender asks again.
        found.filter_map(Result::ok).collect()
    }

    /// Sends a message to whoever is there.
    pub(crate) fn tell(&self, message: &FromGuest) {
        match encode(message) {
            Ok(bytes) => PROBE.send(&bytes),
            Err(why) => say!("probe: {why}"),
        }
    }
}
