//! What the port tests stand on: a host that keeps rings, a hub that moves frames between hosts, a scripted frontend.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::super::{FaultHandle, Port, PortConfig};
use crate::device::fault::PortFault;
use crate::device::gate::link::{read_reply, send_request};
use crate::device::gate::wire::{Region, code, request_bytes, state_payload, table_payload};
use crate::device::ring::{FromGuest, Rooms, RunningRing, ToGuest, make_visible};
use crate::device::{Connection, PortHost};
use crate::features;

pub(super) const MIB: u64 = 1 << 20;
/// Where the scripted frontend says that guest memory lies in its own address space.
pub(super) const USER: u64 = 0x7000_0000_0000;
/// How long anything that must happen may take before its test gives up.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// Keeps a port's running rings and what the port told of its connection.
#[derive(Default)]
pub(super) struct Host {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rings: Vec<RunningRing>,
    told: Vec<Connection>,
}

impl PortHost for Host {
    fn attach(&self, index: u16, ring: RunningRing) {
        assert_eq!(index, ring.index());
        self.lock().rings.push(ring);
    }

    fn detach(&self, index: u16) -> Option<RunningRing> {
        let mut state = self.lock();
        let at = state.rings.iter().position(|ring| ring.index() == index)?;
        Some(state.rings.remove(at))
    }

    fn connection(&self, connection: Connection) {
        self.lock().told.push(connection);
        self.changed.notify_all();
    }
}

impl Host {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with it")
    }

    /// The indices of the rings that run, rising.
    pub(super) fn indices(&self) -> Vec<u16> {
        let mut indices: Vec<u16> = self.lock().rings.iter().map(RunningRing::index).collect();
        indices.sort_unstable();
        indices
    }

    /// How many rings run.
    pub(super) fn rings(&self) -> usize {
        self.lock().rings.len()
    }

    /// What was told so far.
    pub(super) fn told(&self) -> Vec<Connection> {
        self.lock().told.clone()
    }

    /// Waits until `enough` holds of what was told.
    pub(super) fn wait(&self, what: &str, enough: impl Fn(&[Connection]) -> bool) {
        let waited = self.changed.wait_timeout_while(self.lock(), DEADLINE, |state| !enough(&state.told));
        let (state, timeout) = waited.expect("no test panics with it");
        let told = state.told.clone();
        drop(state);
        assert!(!timeout.timed_out(), "{what} did not come; told: {told:?}");
    }

    /// Waits until so many connections ended because the VMM closed its socket.
    pub(super) fn disconnects(&self, count: usize) {
        self.wait("a disconnect", |told| {
            told.iter().filter(|c| **c == Connection::Disconnected).count() >= count
        });
    }

    /// The fault with which the `nth` connection ended, once it has.
    pub(super) fn fault(&self, nth: usize) -> PortFault {
        let faults = |told: &[Connection]| {
            let mut faults = told.iter().filter_map(|c| match c {
                Connection::Faulted(fault) => Some(fault.clone()),
                _ => None,
            });
            faults.nth(nth)
        };
        self.wait("a fault", |told| faults(told).is_some());
        faults(&self.told()).expect("waited for")
    }
}

/// Moves every frame of a port to all other ports, as a hub does. A ring that breaks the rules faults its own port.
#[derive(Default)]
pub(super) struct Hub {
    members: Vec<(Arc<Host>, FaultHandle)>,
}

impl Hub {
    pub(super) fn join(&mut self, host: &Arc<Host>, port: &Port) {
        self.members.push((host.clone(), port.fault_handle()));
    }

    /// Forgets all members but the first `count`.
    pub(super) fn keep(&mut self, count: usize) {
        self.members.truncate(count);
    }

    /// One turn: at most one batch of each port.
    pub(super) fn turn(&self) {
        let mut hosts: Vec<_> = self.members.iter().map(|(host, _)| host.lock()).collect();
        for from in 0..hosts.len() {
            let Some(at) = hosts[from].rings.iter().position(|ring| matches!(ring, RunningRing::From(_)))
            else {
                continue;
            };
            let RunningRing::From(mut ring) = hosts[from].rings.swap_remove(at) else { continue };
            match ring.harvest(64) {
                Ok(count) => {
                    for to in (0..hosts.len()).filter(|&to| to != from) {
                        let receiveq = hosts[to].rings.iter().find_map(|ring| match ring {
                            RunningRing::To(ring) => Some(ring),
                            RunningRing::From(_) => None,
                        });
                        if let Some(Err(fault)) = receiveq.map(|to| deliver(&ring, count, to)) {
                            self.members[to].1.fault(fault);
                        }
                    }
                    ring.finish(count);
                    make_visible();
                    ring.notify().expect("nothing blocks");
                }
                Err(fault) => self.members[from].1.fault(fault),
            }
            hosts[from].rings.push(RunningRing::From(ring));
        }
    }
}

fn deliver(from: &FromGuest, count: usize, to: &ToGuest) -> Result<(), PortFault> {
    let mut rooms = Rooms::default();
    let mut lease = to.reserve(0, &mut rooms, count, |room| room.frames(from.lens(0..count)))?;
    lease.write_frames(0, from.frames(0..count), |_| {});
    let published = lease.publish()?;
    make_visible();
    to.notify(published)
}

/// What the port made of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// A reply's value; 0 acknowledges.
    Value(u64),
    /// The connection ended.
    Closed,
}

/// Sends a request that asks for an acknowledgement.
pub(super) fn say(socket: &UnixStream, code: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Answer {
    let reply = send_request(socket, &request_bytes(code, payload), fds).and_then(|()| read_reply(socket));
    match reply {
        Ok(reply) => Answer::Value(u64::from_ne_bytes(reply.try_into().expect("8 bytes"))),
        Err(error) => {
            assert_ne!(
                error.kind(),
                std::io::ErrorKind::WouldBlock,
                "request {code} was not answered in time"
            );
            Answer::Closed
        }
    }
}

/// The same where the connection has to live.
#[track_caller]
pub(super) fn ask(socket: &UnixStream, code: u32, payload: &[u8], fds: &[OwnedFd]) -> u64 {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    match say(socket, code, payload, &fds) {
        Answer::Value(value) => value,
        Answer::Closed => panic!("request {code} ended the connection"),
    }
}

pub(super) fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd")
}

pub(super) fn memory(size: u64) -> OwnedFd {
    let memory = memfd_create("guest", MemfdFlags::CLOEXEC).expect("a memfd");
    ftruncate(&memory, size).expect("its size");
    memory
}

pub(super) fn region(guest: u64, size: u64) -> Region {
    Region { guest, size, user: USER + guest, offset: 0 }
}

/// GET_FEATURES up to SET_OWNER: from here on everything that asks for it is acknowledged.
pub(super) fn greet(socket: &UnixStream) {
    assert_eq!(ask(socket, code::GET_FEATURES, &[], &[]) & features::VERSION_1, features::VERSION_1);
    let protocol = ask(socket, code::GET_PROTOCOL_FEATURES, &[], &[]);
    assert_eq!(ask(socket, code::SET_PROTOCOL_FEATURES, &protocol.to_ne_bytes(), &[]), 0);
    assert_eq!(ask(socket, code::SET_OWNER, &[], &[]), 0);
}

/// Two rings that run over zeroed memory.
pub(super) fn set_up(socket: &UnixStream) {
    set_up_from(socket, 0);
}

/// The same from index `base`.
pub(super) fn set_up_from(socket: &UnixStream, base: u32) {
    set_up_rings(socket, base, 2);
}

/// The same with so many rings, of which the first pair is enabled. QEMU's order: rings are enabled before the first SET_FEATURES.
pub(super) fn set_up_rings(socket: &UnixStream, base: u32, rings: u32) {
    greet(socket);
    assert_eq!(ask(socket, code::GET_QUEUE_NUM, &[], &[]), u64::from(rings));
    let ok = |code, payload: &[u8], fds: &[OwnedFd]| assert_eq!(ask(socket, code, payload, fds), 0, "{code}");
    (0..2).for_each(|ring| ok(code::SET_VRING_ENABLE, &state_payload(ring, 1), &[]));
    let taken = features::VERSION_1 | features::VHOST_USER_PROTOCOL | features::EVENT_IDX;
    ok(code::SET_FEATURES, &taken.to_ne_bytes(), &[]);
    send_memory(socket, MIB);
    for ring in 0..rings {
        ok(code::SET_VRING_NUM, &state_payload(ring, 256), &[]);
        ok(code::SET_VRING_BASE, &state_payload(ring, base), &[]);
        ok(code::SET_VRING_ADDR, &addresses(ring), &[]);
        ok(code::SET_VRING_KICK, &u64::from(ring).to_ne_bytes(), &[event()]);
        ok(code::SET_VRING_CALL, &u64::from(ring).to_ne_bytes(), &[event()]);
    }
}

/// SET_VRING_ADDR's payload: 64 KiB of guest memory for each ring.
pub(super) fn addresses(ring: u32) -> Vec<u8> {
    let base = USER + u64::from(ring) * 0x10000;
    let mut payload = state_payload(ring, 0);
    [base, base + 0x8000, base + 0x4000, 0]
        .iter()
        .for_each(|at| payload.extend_from_slice(&at.to_ne_bytes()));
    payload
}

pub(super) fn send_memory(socket: &UnixStream, size: u64) {
    assert_eq!(ask(socket, code::SET_MEM_TABLE, &table_payload(&[region(0, size)]), &[memory(size)]), 0);
}

/// A port with one connection, and the other end of that.
pub(super) fn adopt(host: &Arc<Host>, config: PortConfig) -> (UnixStream, Port) {
    let (ours, theirs) = UnixStream::pair().expect("a socketpair");
    ours.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    (ours, Port::adopt(theirs, config, host.clone()).expect("a port"))
}
