//! Any messages in any order through the gate: it judges without panic, the same twice, and says little to the daemon.
//!
//! ```text
//! input: message*    message: request u8 | descriptors u8 | payload's length u8 | payload
//! ```
//! The upper bits of `descriptors` say what they are; numbers in payloads are as wild as the fuzzer makes them.
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

fn descriptors(what: u8) -> Vec<Descriptor> {
    let memory = MemoryFile {
        length: 1 << (what >> 3),
        page_size: if what & 0x20 == 0 { 4096 } else { 2 << 20 },
        writable: what & 0x40 == 0,
        sealed: what & 0x80 == 0,
        unmappable: None,
    };
    let one = match what >> 6 {
        0 => Descriptor::Eventfd,
        3 => Descriptor::Unfit("a pipe"),
        _ => Descriptor::Memory(memory),
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
