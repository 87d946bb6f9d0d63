//! A port in one process with a scripted frontend: rings come, change, and come back.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::{Port, PortConfig};
use crate::device::fault::PortFault;
use crate::device::gate::link::{read_reply, send_request};
use crate::device::gate::wire::{Region, code, request_bytes, state_payload, table_payload};
use crate::device::ring::RunningRing;
use crate::device::{Connection, PortHost};
use crate::features;

const MIB: u64 = 1 << 20;

#[derive(Default)]
struct Host {
    state: Mutex<(Vec<RunningRing>, Vec<Connection>, usize)>,
    changed: Condvar,
}

impl PortHost for Host {
    fn attach(&self, index: u16, ring: RunningRing) {
        let mut state = self.state.lock().expect("no test panics with it");
        assert_eq!(index, ring.index());
        state.0.push(ring);
        state.2 += 1;
    }

    fn detach(&self, index: u16) -> Option<RunningRing> {
        let mut state = self.state.lock().expect("no test panics with it");
        let at = state.0.iter().position(|ring| ring.index() == index)?;
        Some(state.0.remove(at))
    }

    fn connection(&self, connection: Connection) {
        self.state.lock().expect("no test panics with it").1.push(connection);
        self.changed.notify_all();
    }
}

impl Host {
    fn rings(&self) -> usize {
        self.state.lock().expect("no test panics with it").0.len()
    }

    /// Waits until so many connections ended because the VMM closed its socket.
    fn disconnects(&self, count: usize) {
        let gone = |all: &[Connection]| all.iter().filter(|c| **c == Connection::Disconnected).count();
        let state = self.state.lock().expect("no test panics with it");
        let (_state, timeout) = self
            .changed
            .wait_timeout_while(state, Duration::from_secs(10), |state| gone(&state.1) < count)
            .expect("no test panics with it");
        assert!(!timeout.timed_out(), "the port did not notice");
    }

    /// The fault with which the `nth` connection ended, once it has.
    fn fault(&self, nth: usize) -> PortFault {
        let faults = |all: &[Connection]| {
            all.iter()
                .filter_map(|c| if let Connection::Faulted(f) = c { Some(f.clone()) } else { None })
                .nth(nth)
        };
        let state = self.state.lock().expect("no test panics with it");
        let (state, timeout) = self
            .changed
            .wait_timeout_while(state, Duration::from_secs(10), |state| faults(&state.1).is_none())
            .expect("no test panics with it");
        assert!(!timeout.timed_out(), "no fault came");
        faults(&state.1).expect("waited for")
    }
}

/// Sends a request that asks for an acknowledgement, and reads it.
fn ask(socket: &UnixStream, code: u32, payload: &[u8], fds: &[OwnedFd]) -> u64 {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    send_request(socket, &request_bytes(code, payload), &fds).expect("sent");
    let reply = read_reply(socket).expect("a reply");
    u64::from_ne_bytes(reply.try_into().expect("8 bytes"))
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd")
}

/// QEMU's order: rings are enabled before the first SET_FEATURES.
fn set_up(socket: &UnixStream) {
    assert_eq!(ask(socket, code::GET_FEATURES, &[], &[]) & features::VERSION_1, features::VERSION_1);
    let protocol = ask(socket, code::GET_PROTOCOL_FEATURES, &[], &[]);
    send_request(socket, &request_bytes(code::SET_PROTOCOL_FEATURES, &protocol.to_ne_bytes()), &[])
        .expect("sent");
    read_reply(socket).expect("REPLY_ACK holds from here on");
    assert_eq!(ask(socket, code::GET_QUEUE_NUM, &[], &[]), 2);
    let ok = |code, payload: &[u8], fds: &[OwnedFd]| assert_eq!(ask(socket, code, payload, fds), 0, "{code}");
    ok(code::SET_OWNER, &[], &[]);
    (0..2).for_each(|ring| ok(code::SET_VRING_ENABLE, &state_payload(ring, 1), &[]));
    let taken = features::VERSION_1 | features::VHOST_USER_PROTOCOL | features::EVENT_IDX;
    ok(code::SET_FEATURES, &taken.to_ne_bytes(), &[]);
    send_memory(socket, MIB);
    for ring in 0..2u32 {
        ok(code::SET_VRING_NUM, &state_payload(ring, 256), &[]);
        ok(code::SET_VRING_BASE, &state_payload(ring, 0xffff), &[]);
        let base = 0x7000_0000_0000 + u64::from(ring) * 0x10000;
        let mut payload = state_payload(ring, 0);
        [base, base + 0x8000, base + 0x4000, 0]
            .iter()
            .for_each(|at| payload.extend_from_slice(&at.to_ne_bytes()));
        ok(code::SET_VRING_ADDR, &payload, &[]);
        ok(code::SET_VRING_KICK, &u64::from(ring).to_ne_bytes(), &[event()]);
        ok(code::SET_VRING_CALL, &u64::from(ring).to_ne_bytes(), &[event()]);
    }
}

fn send_memory(socket: &UnixStream, size: u64) {
    let memory = memfd_create("guest", MemfdFlags::CLOEXEC).expect("a memfd");
    ftruncate(&memory, size).expect("its size");
    let region = Region { guest: 0, size, user: 0x7000_0000_0000, offset: 0 };
    assert_eq!(ask(socket, code::SET_MEM_TABLE, &table_payload(&[region]), &[memory]), 0);
}

fn adopt(host: &Arc<Host>, patience: Duration) -> (UnixStream, Port) {
    let (ours, theirs) = UnixStream::pair().expect("a socketpair");
    ours.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let config = PortConfig { patience, ..PortConfig::new("test") };
    (ours, Port::adopt(theirs, config, host.clone()).expect("a port"))
}

#[test]
fn rings_are_attached_after_a_full_set_up_and_come_back_around_every_change() {
    let host = Arc::<Host>::default();
    let (socket, port) = adopt(&host, Duration::from_secs(5));
    set_up(&socket);
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
fn a_fault_takes_the_rings_back_and_closes_the_connection() {
    let host = Arc::<Host>::default();
    let (mut socket, port) = adopt(&host, Duration::from_secs(5));
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
fn p03_p23_silence_and_half_messages_end_at_their_deadline() {
    for bytes in [&[][..], &[1, 0, 0]] {
        let host = Arc::<Host>::default();
        let (mut socket, _port) = adopt(&host, Duration::from_millis(50));
        socket.write_all(bytes).expect("sent");
        assert!(host.fault(0).to_string().contains("unfinished"));
    }
}

#[test]
fn p22_p23_a_frontend_that_dies_gives_its_rings_back_and_a_second_one_is_turned_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("port");
    let host = Arc::<Host>::default();
    let listener = UnixListener::bind(&path).expect("a listener");
    let _port = Port::listen(listener, PortConfig::new("test"), host.clone()).expect("a port");
    for nth in 0..8 {
        let socket = UnixStream::connect(&path).expect("connected");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        set_up(&socket);
        let mut second = UnixStream::connect(&path).expect("connected");
        assert_eq!(second.read(&mut [0]).expect("turned away"), 0);
        drop(socket);
        host.disconnects(nth + 1);
        assert_eq!(host.rings(), 0);
    }
}
