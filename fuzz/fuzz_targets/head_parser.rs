//! The head parser against etherparse: any frame, and no disagreement that has no name.
#![no_main]

#[path = "../../vswitch/core/tests/core/support/differential.rs"]
mod differential;

use libfuzzer_sys::fuzz_target;
use vswitch_core::head::{HEAD_BYTES, Head};

fuzz_target!(|frame: &[u8]| {
    if let Err(disagreement) = differential::compare(frame) {
        panic!("{disagreement}");
    }
    // A frame may also be longer than what was copied of it.
    let head = &frame[..frame.len().min(HEAD_BYTES)];
    for len in [HEAD_BYTES as u32, 1514, 65_550, u32::MAX] {
        if len as usize >= head.len() && (head.len() == HEAD_BYTES || len as usize == head.len()) {
            let _ = Head::parse(head, len);
        }
    }
});
