//! Ports in one process with scripted frontends, polite and hostile.
//!
//! `rig` what all stand on, `lab` two polite drivers beside a hostile connection, `ledger` the rows P1 to P23 of the
//! hostile-input ledger.

mod lab;
mod ledger;
mod rig;

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Port, PortConfig};
use crate::device::Connection;
use crate::device::fault::PortFault;
use crate::device::gate::wire::{code, state_payload};
use rig::{DEADLINE, Host, MIB, adopt, ask, send_memory, set_up, set_up_from, set_up_rings};

fn patient() -> PortConfig {
    PortConfig::new("test")
}

#[test]
fn rings_are_attached_after_a_full_set_up_and_come_back_around_every_change() {
    let host = Arc::<Host>::default();
    let (socket, port) = adopt(&host, patient());
    set_up_from(&socket, 0xffff);
    assert_eq!(host.rings(), 2);
    // DPDK: disable, a new table, enable, without a new kick or address.
    (0..2).for_each(|ring| assert_eq!(ask(&socket, code::SET_VRING_ENABLE, &state_payload(ring, 0), &[]), 0));
    assert_eq!(host.rings(), 0);
    send_memory(&socket, 2 * MIB);
    (0..2).for_each(|ring| assert_eq!(ask(&socket, code::SET_VRING_ENABLE, &state_payload(ring, 1), &[]), 0));
    assert_eq!(host.rings(), 2);
    assert_eq!(ask(&socket, code::GET_VRING_BASE, &state_payload(1, 0), &[]), 1 | 0xffff << 32);
    assert_eq!(host.rings(), 1);
    assert_ne!(
        ask(&socket, code::SET_VRING_NUM, &state_payload(0, 3), &[]),
        0,
        "a NACK, and the connection lives"
    );
    assert_eq!(port.refusals().len(), 1);
    assert_eq!(ask(&socket, code::RESET_DEVICE, &[], &[]), 0);
    assert_eq!(host.rings(), 0);
    port.close();
}

#[test]
fn a_transmitq_goes_on_while_any_of_its_port_is_enabled() {
    let host = Arc::<Host>::default();
    let (socket, port) = adopt(&host, PortConfig { queue_pairs: 3, ..patient() });
    set_up_rings(&socket, 0, 6);
    let enable = |pair: u32, on| {
        for ring in [2 * pair, 2 * pair + 1] {
            assert_eq!(ask(&socket, code::SET_VRING_ENABLE, &state_payload(ring, on), &[]), 0);
        }
        host.indices()
    };
    assert_eq!(host.indices(), [0, 1, 3, 5]);
    assert_eq!(enable(2, 1), [0, 1, 3, 4, 5]);
    assert_eq!(enable(0, 0), [1, 3, 4, 5]);
    assert_eq!(enable(2, 0), [0; 0], "none is enabled");
    assert_eq!(enable(0, 1), [0, 1, 3, 5]);
    assert_eq!(ask(&socket, code::GET_VRING_BASE, &state_payload(3, 0), &[]), 3);
    assert_eq!(enable(1, 1), [0, 1, 2, 5], "a ring that was stopped needs a kick");
    assert_eq!(ask(&socket, code::RESET_OWNER, &[], &[]), 0);
    assert_eq!(host.rings(), 0);
    // A table without the memory of pair 2: that is a matter of its own, until it is enabled.
    assert_eq!(enable(0, 1), [0, 1, 5]);
    send_memory(&socket, 0x40000);
    assert_eq!(host.indices(), [0, 1]);
    assert_ne!(ask(&socket, code::SET_VRING_ENABLE, &state_payload(5, 1), &[]), 0, "its memory is gone");
    assert_eq!(enable(0, 0), [0; 0]);
    assert_eq!(enable(0, 1), [0, 1]);
    port.close();
}

#[test]
fn a_fault_takes_the_rings_back_and_closes_the_connection() {
    let host = Arc::<Host>::default();
    let (mut socket, port) = adopt(&host, patient());
    set_up(&socket);
    let handle = port.fault_handle();
    let elsewhere = handle.clone();
    std::thread::spawn(move || elsewhere.fault(PortFault::MemoryVanished)).join().expect("posted");
    assert_eq!(host.fault(0), PortFault::MemoryVanished);
    assert_eq!(host.rings(), 0);
    assert_eq!(socket.read(&mut [0]).expect("an end"), 0);
    drop(port);
    handle.fault(PortFault::Internal);
    assert_eq!(Arc::strong_count(&host), 1, "the handle keeps nothing of the port alive");
}

#[test]
fn a_frontend_that_dies_gives_its_rings_back_and_the_next_one_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("port");
    let host = Arc::<Host>::default();
    let listener = UnixListener::bind(&path).expect("a listener");
    let _port = Port::listen(listener, PortConfig::new("test"), host.clone()).expect("a port");
    let began = Instant::now();
    for nth in 0..12 {
        let socket = UnixStream::connect(&path).expect("connected");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        set_up(&socket);
        let mut second = UnixStream::connect(&path).expect("connected");
        assert_eq!(second.read(&mut [0]).expect("turned away"), 0);
        drop(socket);
        host.disconnects(nth + 1);
        assert_eq!(host.rings(), 0);
    }
    // Pauses that double, as after faults, would sum up to over 4 s.
    assert!(began.elapsed() < Duration::from_secs(3), "who went in order is let wait: {:?}", began.elapsed());
}

#[test]
fn a_connecting_port_says_what_is_in_its_way_and_comes_whenever_a_vmm_listens() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vmm");
    let host = Arc::<Host>::default();
    let port = Port::connect(path.clone(), PortConfig::new("test"), host.clone()).expect("a port");
    let stopped = |told: &[Connection], why: &str| matches!(told.last(), Some(Connection::Connecting(said)) if said.contains(why));
    host.wait("no such file", |told| stopped(told, "No such file"));
    for nth in 0..3 {
        let listener = UnixListener::bind(&path).expect("a listener");
        let (socket, _) = listener.accept().expect("the port comes");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        set_up(&socket);
        assert_eq!(host.rings(), 2);
        drop((socket, listener));
        host.disconnects(nth + 1);
        assert_eq!(host.rings(), 0);
        // The name is still there, and nobody listens.
        host.wait("refused", |told| stopped(told, "refused"));
        std::fs::remove_file(&path).expect("it is there");
    }
    port.close();
    assert_eq!(Arc::strong_count(&host), 1, "it stopped trying");
}
