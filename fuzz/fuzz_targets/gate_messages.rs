//! Any messages in any order through the gate: it judges without panic, the same twice, and says little to the daemon.
//!
//! ```text
//! input: message*    message: request u8 | descriptors u8 | payload's length u8 | payload
//! ```
//! The upper half of `descriptors` says what they are, the lower how many; numbers in payloads are as wild as the fuzzer makes them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhost_net_backend::{
    device::gate::{
        Gate, Offer, Verdict,
        descriptor::{Descriptor, MemoryFile},
        wire::{HEADER_BYTES, Header, MAX_FDS, MAX_PAYLOAD, Request},
    },
    features,
};

/// Rings of the port: two queue pairs.
const RINGS: u16 = 4;

/// What the upper half of `what` says, as often as the lower half does.
fn descriptors(what: u8) -> Vec<Descriptor> {
    let good =
        MemoryFile { length: 4 << 20, page_size: 4096, writable: true, sealed: true, unmappable: None };
    let one = match what >> 4 {
        0 => Descriptor::Eventfd,
        1 => Descriptor::Unfit("a pipe"),
        2 => Descriptor::Memory(MemoryFile { page_size: 2 << 20, ..good }),
        3 => Descriptor::Memory(MemoryFile { writable: false, ..good }),
        4 => Descriptor::Memory(MemoryFile { sealed: false, ..good }),
        5 => Descriptor::Memory(MemoryFile { length: 4096, ..good }),
        6 => Descriptor::Memory(MemoryFile { unmappable: Some("no room".into()), ..good }),
        7 => Descriptor::Memory(MemoryFile { length: u64::MAX, ..good }),
        _ => Descriptor::Memory(good),
    };
    vec![one; usize::from(what & 0x0f).min(MAX_FDS)]
}

fn bounded(verdict: &Verdict, fds: usize) {
    let Verdict::Forward(frames) = verdict else { return };
    assert!(frames.len() <= usize::from(RINGS) + 1, "{} messages for one", frames.len());
    for frame in frames {
        assert!(frame.payload.len() <= MAX_PAYLOAD);
        assert!(frame.fds.len() <= fds && frame.fds.iter().all(|at| *at < fds), "descriptors out of nowhere");
    }
}

fuzz_target!(|input: &[u8]| {
    if let Some(header) = input.first_chunk::<HEADER_BYTES>() {
        let _ = Header::parse(header);
        let _ = Header::parse_reply(header);
    }
    let offer =
        Offer { features: features::OFFERED, rings: RINGS, max_ring_size: 1024, memory_quota: 1 << 32 };
    let (mut gate, mut rest) = (Gate::new(offer), input);
    while let [code, what, len, after @ ..] = rest {
        let (payload, after) = after.split_at(usize::from(*len).min(after.len()));
        rest = after;
        let Ok(request) = Request::parse(u32::from(*code), payload) else { continue };
        let fds = descriptors(*what);
        let verdict = gate.judge(u32::from(*code), &request, &fds);
        assert_eq!(verdict, gate.judge(u32::from(*code), &request, &fds), "judging changes nothing");
        bounded(&verdict, fds.len());
        match verdict {
            Verdict::Forward(_) | Verdict::Acknowledge | Verdict::Value(_) => gate.commit(&request, &fds),
            Verdict::Refuse(why) => assert!(!why.to_string().is_empty()),
            Verdict::Close(_) => return,
        }
    }
});
