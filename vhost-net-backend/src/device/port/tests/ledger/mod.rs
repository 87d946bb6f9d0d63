//! The hostile-input ledger of a vhost-user backend, rows P1 to P23, over real sockets beside two polite drivers.
//!
//! Every test is named after its row. Each lets the neighbours exchange frames while the hostile connection stands as it
//! was left and after it ended; not one frame may be lost. The gate's rules without sockets are tested beside the gate.

mod memory;
mod rings;
mod sequences;
mod stream;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::super::PortConfig;
use super::lab::{Guest, Lab};
use super::rig::{Answer, say};
use crate::device::Connection;

/// Whether the port still serves this connection: it answers, and told of no end.
#[track_caller]
fn assert_alive(guest: &Guest) {
    use crate::device::gate::wire::code;
    assert_ne!(say(&guest.socket, code::GET_FEATURES, &[], &[]), Answer::Closed);
    let ended = |told: &Connection| matches!(told, Connection::Faulted(_) | Connection::Disconnected);
    assert!(!guest.host.told().iter().any(ended));
}

/// The message is refused with a NACK, for a reason that contains `because`, and the connection lives.
#[track_caller]
fn refused(guest: &Guest, code: u32, payload: &[u8], fds: &[&OwnedFd], because: &str) {
    let before = guest.host.rings();
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
    assert_eq!(say(&guest.socket, code, payload, &fds), Answer::Value(1), "request {code}, {payload:?}");
    let reason = guest.port.refusals().pop().expect("it is remembered").to_string();
    assert!(reason.contains(because), "{reason:?} does not say {because:?}");
    assert_alive(guest);
    assert_eq!(guest.host.rings(), before, "what ran goes on");
}

/// The connection ends by a fault that contains `because`, and the neighbours lose nothing meanwhile.
#[track_caller]
fn closed(lab: &mut Lab, guest: &Guest, because: &str) {
    lab.exchange();
    let fault = guest.host.fault(0).to_string();
    assert!(fault.contains(because), "{fault:?} does not say {because:?}");
    assert_eq!(guest.host.rings(), 0);
    assert!(guest.raw().closed_within(super::rig::DEADLINE));
    lab.exchange();
}

fn patient() -> PortConfig {
    PortConfig::new("hostile")
}
