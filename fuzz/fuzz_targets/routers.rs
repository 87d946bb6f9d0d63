//! Any frames for the routers of a lab, and any time between them: nothing panics, what waits stays bounded, and what is said is the routers' own
//! or what waited, in VLANs that have a gateway.
//!
//! ```text
//! input: (what u8 | length u8 | bytes of a frame u8*)*        what: 0..=127 the frame as it is, ..=223 behind addresses and a tag, else time passes
//! ```
#![no_main]

#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../../vswitch/daemon/src/routers/tests/lab.rs"]
mod lab;

use lab::{ROUTER, usual, vlan};
use libfuzzer_sys::fuzz_target;
use std::{sync::Arc, time::Duration};
use vswitch_core::{clock::Instant, route::Neighbours, world::World};
use vswitchd::routers::Speaker;

/// The gateways of the usual lab.
const GATEWAYS: [u16; 4] = [10, 20, 30, 40];

thread_local! {
    static WORLD: Arc<World> = usual();
}

fuzz_target!(|input: &[u8]| {
    let mut speaker = Speaker::new(Arc::new(Neighbours::new([1, 2])));
    WORLD.with(|world| speaker.adopt(world.clone()));
    let (mut now, mut left) = (Instant::ZERO, input);
    while let [what, length, rest @ ..] = left {
        let (bytes, after) = rest.split_at(usize::from(*length).min(rest.len()));
        left = after;
        match *what {
            0..=127 => speaker.receive(bytes, now),
            128..=223 => {
                let number = GATEWAYS[usize::from(*what) % GATEWAYS.len()];
                let mut frame = ROUTER.octets().to_vec();
                frame.extend([2, 0, 0, 0, 0, *what, 0x81, 0]);
                frame.extend(vlan(number).number().to_be_bytes());
                frame.extend(bytes);
                speaker.receive(&frame, now);
            }
            224.. => {
                now = now + Duration::from_millis(u64::from(*length) * 50);
                speaker.tick(now);
                left = rest;
            }
        }
        let (queued, asked, held) = speaker.waiting();
        assert!(queued <= 1024 && asked <= 256 && held <= 3 * asked);
        while let Some(frame) = speaker.next_frame() {
            // Of the routers' own, or what waited for a neighbour: it goes to a worker again as it came, to the gateway.
            assert!(frame[6..12] == ROUTER.octets() || frame[..6] == ROUTER.octets());
            assert_eq!(frame[12..14], [0x81, 0]);
            assert!(GATEWAYS.contains(&(u16::from_be_bytes([frame[14], frame[15]]) & 0xfff)));
            speaker.sent();
        }
    }
});
