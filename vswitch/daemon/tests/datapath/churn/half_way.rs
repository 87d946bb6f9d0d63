//! A VMM that hangs up somewhere in its handshake: between two messages, or within one.

use super::random::Random;
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{MemfdFlags, ftruncate, memfd_create},
};
use std::os::{
    fd::{AsFd, OwnedFd},
    unix::net::UnixStream,
};
use vhost_net_backend::{
    device::gate::wire::code, driver::misbehave::RawFrontend, features, layout::RingSize,
};

/// Bytes of guest memory, and where they begin: for the guest, and in the VMM.
const MEMORY: u64 = 1 << 20;
const GUEST: u64 = 1 << 20;
const VMM: u64 = 1 << 32;

/// A message: its number, its payload and its descriptor.
type Message = (u32, Vec<u8>, Option<OwnedFd>);

/// Says the beginning of a handshake, of random length, and hangs up.
pub(super) fn hang_up(stream: UnixStream, random: &mut Random) {
    let messages = handshake();
    let whole = random.below(messages.len());
    let frontend = RawFrontend::new(stream);
    for (at, (request, payload, fd)) in messages.into_iter().take(whole + 1).enumerate() {
        let header = RawFrontend::header(request, RawFrontend::VERSION, payload.len() as u32);
        let mut bytes = [&header[..], &payload].concat();
        if at == whole {
            bytes.truncate(1 + random.below(bytes.len()));
        }
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        // The port may have turned this VMM away by now.
        if frontend.send_bytes(&bytes, &fds).is_err() {
            return;
        }
    }
}

/// What an honest VMM says until its rings run.
fn handshake() -> Vec<Message> {
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
    let state = |ring: u32, number: u32| [ring.to_ne_bytes(), number.to_ne_bytes()].concat();
    let memory = memfd_create(c"half-way", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&memory, MEMORY).unwrap();
    let mut messages = vec![
        (code::SET_OWNER, vec![], None),
        (code::GET_FEATURES, vec![], None),
        (code::SET_FEATURES, words(&[features::VERSION_1 | features::VHOST_USER_PROTOCOL]), None),
        (code::SET_MEM_TABLE, [state(1, 0), words(&[GUEST, MEMORY, VMM, 0])].concat(), Some(memory)),
    ];
    let size = const { RingSize::new(256).expect("256 is a power of two") };
    for ring in 0..2 {
        let base = VMM + u64::from(ring) * 0x1_0000;
        let addresses = words(&[base, base + 0x8000, base + 0x4000, 0]);
        let doorbell = || Some(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        messages.extend([
            (code::SET_VRING_NUM, state(ring, size.entries().into()), None),
            (code::SET_VRING_BASE, state(ring, 0), None),
            (code::SET_VRING_ADDR, [state(ring, 0), addresses].concat(), None),
            (code::SET_VRING_KICK, words(&[ring.into()]), doorbell()),
            (code::SET_VRING_CALL, words(&[ring.into()]), doorbell()),
            (code::SET_VRING_ENABLE, state(ring, 1), None),
        ]);
    }
    messages
}
