//! The bundled guest's ring, compiled for this machine to be tested by the tests in it: a guest has no harness for them.
#![cfg(test)]

extern crate alloc;

#[expect(dead_code, reason = "its tests look at the ring, and at no frames")]
#[path = "../guest/src/buffers.rs"]
mod buffers;
#[expect(dead_code, reason = "devices are told elsewhere where it is")]
#[path = "../guest/src/ring.rs"]
mod ring;
