//! The session: what one connection has set up, and the hand-over of its rings to the host and back.
//!
//! vhost-user-backend's daemon keeps a ring's set-up in a [`vring::Vring`], our wrapper, which sees every change before it
//! happens. Each change is the same three steps: the host gives the running ring back, the change happens, and the ring is
//! attached again if it is complete. So set-up state is never shared with a worker.

mod vring;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VringMutex, VringT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use super::PortHost;
use super::alarm::Alarm;
use super::fault::PortFault;
use super::gate::{Offer, PROTOCOL_OFFERED};
use super::memory::GuestMemory;
use super::ring::{RingParts, RunningRing};
use crate::layout::RingSize;
use vring::Vring;

/// Guest memory as the daemon holds it.
pub(super) type Memory = GuestMemoryAtomic<GuestMemoryMmap<()>>;

/// One connection's set-up, shared between the daemon's thread and, once that has ended, the supervisor.
#[derive(Clone)]
pub(super) struct Session {
    offer: Offer,
    host: Arc<dyn PortHost>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    features: Option<u64>,
    memory: Option<Arc<GuestMemory>>,
    rings: Vec<Ring>,
    fault: Option<PortFault>,
}

/// Set-up of one ring. The indices live in `queue` while the ring does not run.
struct Ring {
    queue: VringMutex<Memory>,
    size: Option<RingSize>,
    addresses: Option<[u64; 3]>,
    enabled: bool,
    kick: Kick,
    call: Option<File>,
    err: Option<File>,
    /// GET_VRING_BASE stopped the ring and is about to drop its kick.
    stopping: bool,
    attached: bool,
}

/// How a ring learns of new buffers.
#[derive(Default)]
enum Kick {
    /// Not at all: the ring is stopped.
    #[default]
    Stopped,
    /// By an eventfd.
    Eventfd(File),
    /// By polling only (the NOFD bit).
    Polled,
}

impl Session {
    pub(super) fn new(offer: Offer, host: Arc<dyn PortHost>) -> Self {
        Self { offer, host, state: Arc::default() }
    }

    /// Why a ring could not be started, if one could not.
    pub(super) fn take_fault(&self) -> Option<PortFault> {
        self.lock().fault.take()
    }

    /// Ends the session: every ring comes back, and only then is guest memory let go.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        for index in 0..state.rings.len() {
            self.detach(&mut state, index);
        }
        state.memory = None;
        state.rings.clear();
    }

    /// Tells the frontend that its rings failed, where it gave an eventfd for that.
    pub(super) fn signal_errors(&self) {
        // Without an alarm nobody is told, which is better than to wait for a frontend that is to be ended.
        let Ok(mut alarm) = Alarm::new() else { return };
        alarm.set();
        for ring in &self.lock().rings {
            if let Some(err) = &ring.err {
                // A full counter already says what is to be said.
                let _ = rustix::io::write(err, &1u64.to_ne_bytes());
            }
        }
    }

    /// A panic elsewhere leaves nothing half done here that teardown could not undo.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enables or disables ring `index`. Other rings go on undisturbed, and so does this one if nothing changes for it.
    fn enable(&self, index: usize, enabled: bool) {
        let mut state = self.lock();
        let Some(ring) = state.rings.get_mut(index) else { return };
        ring.enabled = enabled;
        for index in 0..state.rings.len() {
            match (state.may_run(index), state.rings[index].attached) {
                (true, false) => self.attach(&mut state, index),
                (false, true) => self.detach(&mut state, index),
                _ => {}
            }
        }
    }

    /// Detaches ring `index`, lets `edit` change it, and attaches it again if it is complete.
    fn change(&self, index: usize, edit: impl FnOnce(&mut Ring)) {
        let mut state = self.lock();
        self.detach(&mut state, index);
        if let Some(ring) = state.rings.get_mut(index) {
            edit(ring);
        }
        self.attach(&mut state, index);
    }

    /// The same with all rings and what they have in common.
    fn change_all(&self, edit: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        for index in 0..state.rings.len() {
            self.detach(&mut state, index);
        }
        edit(&mut state);
        for index in 0..state.rings.len() {
            self.attach(&mut state, index);
        }
    }

    fn detach(&self, state: &mut State, index: usize) {
        let Some(ring) = state.rings.get_mut(index).filter(|ring| ring.attached) else { return };
        ring.attached = false;
        if let Some(running) = self.host.detach(index as u16) {
            ring.queue.set_queue_next_avail(running.next_avail());
            ring.queue.set_queue_next_used(running.next_used());
        }
    }

    fn attach(&self, state: &mut State, index: usize) {
        let (true, Some(features), Some(memory)) =
            (state.may_run(index), state.features, state.memory.clone())
        else {
            return;
        };
        let Some(ring) = state.rings.get_mut(index) else { return };
        let started = match ring.parts(index as u16, features) {
            Ok(Some(parts)) => RunningRing::start(parts, memory),
            Ok(None) => return,
            Err(error) => Err(PortFault::Unserved(format!("ring {index}: no descriptor is left ({error})"))),
        };
        match started {
            Ok(running) => {
                ring.attached = true;
                self.host.attach(index as u16, running);
            }
            // It need not run, and its memory may be gone (the gate lets no ring be enabled of which that is true).
            Err(_) if !ring.enabled => {}
            Err(fault) => state.fault = Some(fault),
        }
    }
}

impl State {
    /// Whether ring `index` may run, if it is complete: a receiveq if it is enabled, a transmitq if any is. A driver that
    /// uses fewer queue pairs from now on says so first, and still sends by those that it has just given up (decision 0028).
    fn may_run(&self, index: usize) -> bool {
        // Odd is a transmitq (virtio 1.2 §5.1.2).
        if index.is_multiple_of(2) {
            return self.rings.get(index).is_some_and(|ring| ring.enabled);
        }
        self.rings.iter().skip(1).step_by(2).any(|ring| ring.enabled)
    }
}

impl Ring {
    fn new(queue: VringMutex<Memory>) -> Self {
        Self {
            queue,
            size: None,
            addresses: None,
            enabled: false,
            kick: Kick::Stopped,
            call: None,
            err: None,
            stopping: false,
            attached: false,
        }
    }

    /// What a ring that may run is made of, if all of it is there.
    fn parts(&self, index: u16, features: u64) -> io::Result<Option<RingParts>> {
        let (Some(size), Some([desc, avail, used])) = (self.size, self.addresses) else { return Ok(None) };
        let kick = match &self.kick {
            Kick::Stopped => return Ok(None),
            Kick::Eventfd(file) => Some(OwnedFd::from(file.try_clone()?)),
            Kick::Polled => None,
        };
        let call = self.call.as_ref().map(File::try_clone).transpose()?.map(OwnedFd::from);
        let next_avail = self.queue.queue_next_avail();
        let next_used = virtio_queue::QueueT::next_used(self.queue.get_ref().get_queue());
        Ok(Some(RingParts { index, size, desc, avail, used, next_avail, next_used, features, kick, call }))
    }

    /// As it was before the frontend said anything.
    fn reset(&mut self) {
        let queue = self.queue.clone();
        queue.set_queue_next_avail(0);
        queue.set_queue_next_used(0);
        *self = Self::new(queue);
    }
}

impl VhostUserBackend for Session {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        usize::from(self.offer.rings)
    }

    fn max_queue_size(&self) -> usize {
        usize::from(self.offer.max_ring_size)
    }

    fn features(&self) -> u64 {
        self.offer.features
    }

    fn acked_features(&self, features: u64) {
        self.change_all(|state| state.features = Some(features));
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::from_bits_truncate(PROTOCOL_OFFERED)
    }

    fn reset_device(&self) {
        self.change_all(|state| {
            state.features = None;
            state.rings.iter_mut().for_each(Ring::reset);
        });
    }

    fn set_event_idx(&self, _enabled: bool) {}

    /// The daemon has swapped its map already; the old one lives until the last ring in it came back.
    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        let map = memory.memory().into_inner();
        let mut result = Ok(());
        self.change_all(|state| {
            state.memory = None;
            if map.num_regions() > 0 {
                match GuestMemory::new(map) {
                    Ok(memory) => state.memory = Some(memory),
                    Err(fault) => {
                        result = Err(io::Error::other(fault.to_string()));
                        state.fault = Some(fault);
                    }
                }
            }
        });
        result
    }

    /// No thread of the daemon's own polls rings: workers do.
    fn queues_per_thread(&self) -> Vec<u64> {
        Vec::new()
    }

    fn handle_event(&self, _: u16, _: EventSet, _: &[Vring], _: usize) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `build`, which makes the daemon, with this session's vrings numbered in the order of their making.
pub(super) fn with_vrings_of<T>(session: &Session, build: impl FnOnce() -> T) -> T {
    vring::collect(session, build)
}
