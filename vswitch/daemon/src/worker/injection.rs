//! A panic on demand, so that a test can prove that it stays with the port whose frames it met.

use super::ports::{Life, Ports};
use vswitch_core::id::PortId;

/// Fail at the next batch of `port`.
pub(super) fn ask(ports: &mut Ports, port: PortId) {
    if let Some(life) = ports.life(port.index()) {
        life.panic = true;
    }
}

/// Panics once if it was asked for.
pub(super) fn panic_if_asked(lives: &mut [Option<Life>], port: u16) {
    if let Some(Some(life)) = lives.get_mut(usize::from(port)) {
        assert!(!std::mem::take(&mut life.panic), "injected by a test");
    }
}
