//! Row P21: any message at any time.

use std::os::fd::{AsFd, OwnedFd};

use proptest::prelude::*;

use super::super::rig::{Answer, DEADLINE, Host, MIB, addresses, adopt, event, greet, memory, region, say};
use super::patient;
use crate::device::gate::wire::{code, state_payload, table_payload};
use crate::device::{Connection, fault::PortFault};
use crate::features;

/// A well-formed message, by a number: the request, its payload, its descriptor.
fn message(number: usize) -> (u32, Vec<u8>, Option<OwnedFd>) {
    let ring = (number & 1) as u32;
    let index = || u64::from(ring).to_ne_bytes().to_vec();
    let taken = features::VERSION_1 | features::VHOST_USER_PROTOCOL;
    let one = |at: u64| [[0; 8].as_slice(), &region(at, MIB).bytes()].concat();
    match number >> 1 {
        0 => (code::SET_OWNER, vec![], None),
        1 => (code::RESET_OWNER, vec![], None),
        2 => (code::SET_FEATURES, taken.to_ne_bytes().to_vec(), None),
        3 => (code::SET_FEATURES, (taken | features::NET_MRG_RXBUF).to_ne_bytes().to_vec(), None),
        4 => (code::SET_MEM_TABLE, table_payload(&[region(0, MIB)]), Some(memory(MIB))),
        5 => (code::SET_MEM_TABLE, table_payload(&[region(MIB, MIB)]), Some(memory(MIB))),
        6 => (code::ADD_MEM_REG, one(2 * MIB), Some(memory(MIB))),
        7 => (code::REM_MEM_REG, one(u64::from(ring) * 2 * MIB), None),
        8 => (code::SET_VRING_NUM, state_payload(ring, 256), None),
        9 => (code::SET_VRING_BASE, state_payload(ring, 0), None),
        10 => (code::SET_VRING_ADDR, addresses(ring), None),
        11 => (code::SET_VRING_KICK, index(), Some(event())),
        12 => (code::SET_VRING_CALL, index(), Some(event())),
        13 => (code::SET_VRING_ERR, index(), Some(event())),
        14 => (code::SET_VRING_KICK, (u64::from(ring) | 1 << 8).to_ne_bytes().to_vec(), None),
        15 => (code::SET_VRING_ENABLE, state_payload(ring, 1), None),
        16 => (code::SET_VRING_ENABLE, state_payload(ring, 0), None),
        17 => (code::GET_VRING_BASE, state_payload(ring, 0), None),
        18 => (code::RESET_DEVICE, vec![], None),
        _ => (code::GET_QUEUE_NUM, vec![], None),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// In whatever order: each is done or refused, the daemon never ends the connection on its own, and the port
    /// takes every ring back. Only a ring that starts outside of the memory that came last ends it, by its name.
    #[test]
    fn p21_messages_in_any_order_are_done_or_refused(order in prop::collection::vec(0usize..40, 0..60)) {
        let host = std::sync::Arc::<Host>::default();
        let (socket, port) = adopt(&host, patient());
        greet(&socket);
        for number in order {
            let (code, payload, fd) = message(number);
            let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
            let answer = say(&socket, code, &payload, &fds);
            if answer == Answer::Closed {
                let fault = host.fault(0);
                let outside = matches!(fault, PortFault::Ring { what, .. } if what.ends_with("leaves guest memory"));
                prop_assert!(outside, "request {code} with {payload:?}: {:?}", host.told());
                break;
            }
        }
        prop_assert!(!host.told().contains(&Connection::Disconnected));
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        drop(port);
        prop_assert_eq!(host.rings(), 0);
    }
}
