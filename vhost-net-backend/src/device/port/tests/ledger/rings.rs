//! Rows P8 and P14 to P20: setting up a ring, and what may not change while it runs.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;

use rustix::fs::{OFlags, fcntl_getfl};

use super::super::lab::{Guest, Lab};
use super::super::rig::{
    Answer, DEADLINE, MIB, USER, addresses, ask, event, greet, say, send_memory, set_up, set_up_from,
};
use super::{closed, patient, refused};
use crate::device::gate::wire::{code, state_payload};
use crate::driver::misbehave::full_blocking_eventfd;
use crate::driver::{Config, Driver};
use crate::features;

const FEATURES: u64 = features::VERSION_1 | features::VHOST_USER_PROTOCOL;

/// Features and memory are settled; no ring was spoken of.
fn prepared(lab: &mut Lab) -> Guest {
    let guest = lab.guest(patient());
    greet(&guest.socket);
    assert_eq!(ask(&guest.socket, code::SET_FEATURES, &FEATURES.to_ne_bytes(), &[]), 0);
    send_memory(&guest.socket, MIB);
    guest
}

fn running(lab: &mut Lab) -> Guest {
    let guest = lab.guest(patient());
    set_up(&guest.socket);
    guest
}

#[test]
fn p08_a_full_call_eventfd_that_blocks_holds_up_nobody() {
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lab = Lab::new();
        let guest = lab.guest(patient());
        let socket = guest.socket.try_clone().expect("a dup");
        let mut driver = Driver::connect(socket, &Config::default()).expect("served");
        let call = event();
        for fd in [call.try_clone().expect("a dup"), full_blocking_eventfd().expect("an eventfd")] {
            assert!(!fcntl_getfl(&fd).expect("its flags").contains(OFlags::NONBLOCK));
            let payload = 0u64.to_ne_bytes();
            assert_eq!(say(&guest.socket, code::SET_VRING_CALL, &payload, &[fd.as_fd()]), Answer::Value(0));
            // The guest asks to be called for the next frame; the neighbours' frames reach it too.
            driver.pair().receive(|_, _| {});
            driver.pair().arm();
            lab.exchange();
        }
        let mut count = [0; 8];
        rustix::io::read(&call, &mut count).expect("the first eventfd was called");
        done.send(()).expect("waited for");
    });
    finished.recv_timeout(DEADLINE).expect("the hub hangs in a write to the eventfd, or the test failed");
}

#[test]
fn p14_a_ring_that_is_not_there_is_refused_in_every_message() {
    let mut lab = Lab::new();
    let guest = running(&mut lab);
    let fd = event();
    for ring in [2, 3, 255, 256, 0xffff, 0x1_0000, 0x1_0001, u32::MAX] {
        for request in
            [code::SET_VRING_NUM, code::SET_VRING_BASE, code::GET_VRING_BASE, code::SET_VRING_ENABLE]
        {
            if request != code::GET_VRING_BASE {
                refused(&guest, request, &state_payload(ring, 1), &[], "there is no ring");
            }
        }
        refused(&guest, code::SET_VRING_ADDR, &addresses(ring), &[], "there is no ring");
    }
    for ring in [2u64, 255, 0x200, 0x1_0000, 1 << 32, !(1u64 << 8)] {
        for request in [code::SET_VRING_KICK, code::SET_VRING_CALL, code::SET_VRING_ERR] {
            refused(&guest, request, &ring.to_ne_bytes(), &[&fd], "there is no ring");
            refused(&guest, request, &(ring | 1 << 8).to_ne_bytes(), &[], "there is no ring");
        }
    }
    lab.exchange();
    // It has no acknowledgement to refuse with: its reply is an index.
    guest.raw().send(code::GET_VRING_BASE, &state_payload(2, 0), &[]).expect("sent");
    closed(&mut lab, &guest, "there is no ring");
}

#[test]
fn p15_a_ring_size_is_a_power_of_two_that_fits_and_stays_while_the_ring_is_started() {
    let mut lab = Lab::new();
    let guest = prepared(&mut lab);
    for size in [0, 3, 255, 257, 4097, 8192, 32768, 0x1_0000, 0x1_0100, u32::MAX] {
        refused(&guest, code::SET_VRING_NUM, &state_payload(0, size), &[], "cannot have");
    }
    assert_eq!(ask(&guest.socket, code::SET_VRING_NUM, &state_payload(0, 4096), &[]), 0);
    let guest = running(&mut lab);
    refused(&guest, code::SET_VRING_NUM, &state_payload(0, 128), &[], "is started");
    lab.exchange();
}

/// A guest's next driver may want larger rings elsewhere, and frontends send the size first.
#[test]
fn p15_a_larger_ring_than_before_needs_other_addresses_before_it_starts_and_no_sooner() {
    let mut lab = Lab::new();
    let guest = prepared(&mut lab);
    let socket = &guest.socket;
    let mut close_together = state_payload(0, 0);
    [USER, USER + 0x100, USER + 0x200, 0]
        .iter()
        .for_each(|at: &u64| close_together.extend_from_slice(&at.to_ne_bytes()));
    let kick = || ask(socket, code::SET_VRING_KICK, &0u64.to_ne_bytes(), &[event()]);
    assert_eq!(ask(socket, code::SET_VRING_NUM, &state_payload(0, 16), &[]), 0);
    assert_eq!(ask(socket, code::SET_VRING_ADDR, &close_together, &[]), 0);
    assert_eq!(kick(), 0);
    assert_eq!(ask(socket, code::SET_VRING_ENABLE, &state_payload(0, 1), &[]), 0);
    assert_eq!(guest.host.rings(), 1);
    ask(socket, code::GET_VRING_BASE, &state_payload(0, 0), &[]);
    assert_eq!(guest.host.rings(), 0);
    assert_eq!(ask(socket, code::SET_VRING_NUM, &state_payload(0, 256), &[]), 0);
    refused(&guest, code::SET_VRING_KICK, &0u64.to_ne_bytes(), &[&event()], "send SET_VRING_ADDR first");
    assert_eq!(guest.host.rings(), 0);
    assert_eq!(ask(socket, code::SET_VRING_ADDR, &addresses(0), &[]), 0);
    assert_eq!(kick(), 0);
    assert_eq!(guest.host.rings(), 1);
    // What was kicked could start where it does not fit.
    let guest = prepared(&mut lab);
    let socket = &guest.socket;
    assert_eq!(ask(socket, code::SET_VRING_KICK, &0u64.to_ne_bytes(), &[event()]), 0);
    assert_eq!(ask(socket, code::SET_VRING_ADDR, &close_together, &[]), 0);
    refused(&guest, code::SET_VRING_NUM, &state_payload(0, 256), &[], "does not fit");
    assert_eq!(guest.host.rings(), 0);
    lab.exchange();
}

#[test]
fn p16_the_parts_of_a_ring_are_aligned_apart_and_inside_one_region() {
    let mut lab = Lab::new();
    let fresh = lab.guest(patient());
    greet(&fresh.socket);
    refused(&fresh, code::SET_VRING_ADDR, &addresses(0), &[], "before any guest memory");
    let guest = prepared(&mut lab);
    assert_eq!(ask(&guest.socket, code::SET_VRING_NUM, &state_payload(0, 256), &[]), 0);
    let end = USER + MIB;
    let cases = [
        ([USER + 8, USER + 0x8000, USER + 0x4000], "aligned"),
        ([USER, USER + 0x8002, USER + 0x4000], "aligned"),
        ([USER, USER + 0x8000, USER + 0x4001], "aligned"),
        ([0, USER + 0x8000, USER + 0x4000], "one region"),
        ([u64::MAX - 15, USER + 0x8000, USER + 0x4000], "one region"),
        ([end - 4080, USER + 0x8000, USER + 0x4000], "one region"),
        ([USER, end - 2048, USER + 0x4000], "one region"),
        ([USER, USER + 0x8000, end - 512], "one region"),
        ([USER, USER + 0x4000, USER + 0x4000], "overlap"),
        ([USER, USER + 0x8000, USER + 4094], "overlap"),
    ];
    for (at, because) in cases {
        let mut payload = state_payload(0, 0);
        at.iter().chain(&[0]).for_each(|at| payload.extend_from_slice(&at.to_ne_bytes()));
        refused(&guest, code::SET_VRING_ADDR, &payload, &[], because);
    }
    lab.exchange();
}

#[test]
fn p17_an_index_is_16_bits_and_within_one_ring_of_the_drivers() {
    let mut lab = Lab::new();
    let guest = prepared(&mut lab);
    for base in [0x1_0000, 0x1_0001, u32::MAX] {
        refused(&guest, code::SET_VRING_BASE, &state_payload(0, base), &[], "16 bits");
    }
    let socket = &guest.socket;
    assert_eq!(ask(socket, code::SET_VRING_NUM, &state_payload(0, 256), &[]), 0);
    assert_eq!(ask(socket, code::SET_VRING_BASE, &state_payload(0, 257), &[]), 0);
    assert_eq!(ask(socket, code::SET_VRING_ADDR, &addresses(0), &[]), 0);
    assert_eq!(ask(socket, code::SET_VRING_KICK, &0u64.to_ne_bytes(), &[event()]), 0);
    let _ = say(socket, code::SET_VRING_ENABLE, &state_payload(0, 1), &[]);
    closed(&mut lab, &guest, "more than one ring away");
}

#[test]
fn p18_a_ring_starts_when_it_is_complete_and_lets_replaced_descriptors_go() {
    let mut lab = Lab::new();
    let guest = prepared(&mut lab);
    let socket = &guest.socket;
    assert_eq!(ask(socket, code::SET_VRING_KICK, &0u64.to_ne_bytes(), &[event()]), 0);
    assert_eq!(ask(socket, code::SET_VRING_ENABLE, &state_payload(0, 1), &[]), 0);
    assert_eq!(guest.host.rings(), 0, "a kick before size and addresses starts nothing");
    assert_eq!(ask(socket, code::SET_VRING_NUM, &state_payload(0, 256), &[]), 0);
    assert_eq!(guest.host.rings(), 0);
    assert_eq!(ask(socket, code::SET_VRING_ADDR, &addresses(0), &[]), 0);
    assert_eq!(guest.host.rings(), 1, "it needs no call descriptor");
    for request in [code::SET_VRING_KICK, code::SET_VRING_CALL, code::SET_VRING_ERR] {
        let before = open_eventfds();
        for _ in 0..100 {
            assert_eq!(ask(socket, request, &0u64.to_ne_bytes(), &[event()]), 0);
            assert_eq!(guest.host.rings(), 1);
        }
        // Other tests of this process come and go, but none holds so many.
        assert!(open_eventfds() < before + 90, "replaced eventfds stay open");
    }
    lab.exchange();
}

fn open_eventfds() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").expect("our descriptors");
    let is_eventfd = |entry: &std::fs::DirEntry| {
        std::fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == "anon_inode:[eventfd]")
    };
    open.flatten().filter(is_eventfd).count()
}

#[test]
fn p19_only_offered_features_are_taken_and_version_1_must_be_among_them() {
    let mut lab = Lab::new();
    let guest = lab.guest(patient());
    greet(&guest.socket);
    for bits in [FEATURES | 1 << 34, FEATURES | 1 << 17, u64::MAX] {
        refused(&guest, code::SET_FEATURES, &bits.to_ne_bytes(), &[], "not offered");
    }
    for bits in [0, features::VHOST_USER_PROTOCOL] {
        refused(&guest, code::SET_FEATURES, &bits.to_ne_bytes(), &[], "VERSION_1");
    }
    for bits in [1u64 << 12, 1 << 5, 1 << 63, u64::MAX] {
        refused(&guest, code::SET_PROTOCOL_FEATURES, &bits.to_ne_bytes(), &[], "not offered");
    }
    for enable in [2, u32::MAX] {
        refused(&guest, code::SET_VRING_ENABLE, &state_payload(0, enable), &[], "enabled by 1");
    }
    lab.exchange();
}

#[test]
fn p20_features_stay_while_rings_are_started() {
    let mut lab = Lab::new();
    let guest = running(&mut lab);
    let other = (FEATURES | features::NET_MRG_RXBUF).to_ne_bytes();
    refused(&guest, code::SET_FEATURES, &other, &[], "while rings are started");
    for ring in 0..2 {
        ask(&guest.socket, code::GET_VRING_BASE, &state_payload(ring, 0), &[]);
    }
    assert_eq!(ask(&guest.socket, code::SET_FEATURES, &other, &[]), 0);
    lab.exchange();
}

#[test]
fn a_frontend_with_an_err_eventfd_learns_of_a_fault() {
    let mut lab = Lab::new();
    let guest = running(&mut lab);
    let err = event();
    let given: Vec<OwnedFd> = vec![err.try_clone().expect("a dup")];
    assert_eq!(ask(&guest.socket, code::SET_VRING_ERR, &0u64.to_ne_bytes(), &given), 0);
    guest.port.fault(crate::device::fault::PortFault::Internal);
    closed(&mut lab, &guest, "failed inside");
    let mut count = [0; 8];
    rustix::io::read(&err, &mut count).expect("it was signalled");
    assert_eq!(u64::from_ne_bytes(count), 1);
}

/// Zeroed memory, one chain available: an empty one, which is nothing that a device could write a frame to.
#[test]
fn a_receiveq_that_breaks_the_rules_faults_its_port_and_the_hub_goes_on() {
    let mut lab = Lab::new();
    let guest = lab.guest(patient());
    set_up_from(&guest.socket, 0xffff);
    closed(&mut lab, &guest, "ring 0");
}
