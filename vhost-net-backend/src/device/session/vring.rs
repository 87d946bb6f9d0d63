//! The daemon's view of a ring: every change of it passes through the session first.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::sync::MutexGuard;

use vhost_user_backend::{VringMutex, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::Error;

use super::{Kick, Memory, Ring, Session};
use crate::layout::RingSize;

thread_local! {
    /// Whose vrings are being made on this thread: `VringT::new` is told neither its session nor its index.
    static MAKING: RefCell<Option<Session>> = const { RefCell::new(None) };
}

/// Lets vrings made by `build` belong to `session`.
pub(super) fn collect<T>(session: &Session, build: impl FnOnce() -> T) -> T {
    MAKING.with_borrow_mut(|making| *making = Some(session.clone()));
    let built = build();
    MAKING.with_borrow_mut(|making| *making = None);
    built
}

/// A ring of a session, by index. `queue` holds the indices while the ring does not run.
#[derive(Clone)]
pub(crate) struct Vring {
    session: Session,
    index: usize,
    queue: VringMutex<Memory>,
}

impl<'a> VringStateGuard<'a, Memory> for Vring {
    type G = MutexGuard<'a, VringState<Memory>>;
}

impl<'a> VringStateMutGuard<'a, Memory> for Vring {
    type G = MutexGuard<'a, VringState<Memory>>;
}

impl VringT<Memory> for Vring {
    fn new(memory: Memory, max_queue_size: u16) -> Result<Self, Error> {
        let queue = VringMutex::new(memory, max_queue_size)?;
        let session = MAKING.with_borrow(Clone::clone).ok_or(Error::QueueNotReady)?;
        let mut state = session.lock();
        let index = state.rings.len();
        state.rings.push(Ring::new(queue.clone()));
        drop(state);
        Ok(Self { session, index, queue })
    }

    fn get_ref(&self) -> MutexGuard<'_, VringState<Memory>> {
        self.queue.get_ref()
    }

    fn get_mut(&self) -> MutexGuard<'_, VringState<Memory>> {
        self.queue.get_mut()
    }

    // The daemon never moves frames: its queue is set-up state only.
    fn add_used(&self, _desc_index: u16, _len: u32) -> Result<(), Error> {
        Err(Error::QueueNotReady)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        Ok(())
    }

    fn enable_notification(&self) -> Result<bool, Error> {
        Err(Error::QueueNotReady)
    }

    fn disable_notification(&self) -> Result<(), Error> {
        Err(Error::QueueNotReady)
    }

    fn needs_notification(&self) -> Result<bool, Error> {
        Err(Error::QueueNotReady)
    }

    fn set_enabled(&self, enabled: bool) {
        self.session.enable(self.index, enabled);
    }

    fn set_queue_info(&self, desc: u64, avail: u64, used: u64) -> Result<(), Error> {
        let mut result = Ok(());
        self.session.change(self.index, |ring| {
            result = ring.queue.set_queue_info(desc, avail, used);
            if result.is_ok() {
                ring.addresses = Some([desc, avail, used]);
            }
        });
        result
    }

    fn queue_next_avail(&self) -> u16 {
        self.queue.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.session.change(self.index, |ring| ring.queue.set_queue_next_avail(base));
    }

    /// Called after SET_VRING_ADDR with the used index that stands in guest memory. A ring that kept running
    /// meanwhile knows better; the value is then the one that it published itself.
    fn set_queue_next_used(&self, index: u16) {
        self.session.change(self.index, |ring| ring.queue.set_queue_next_used(index));
    }

    fn queue_used_idx(&self) -> Result<u16, Error> {
        self.queue.queue_used_idx()
    }

    fn set_queue_size(&self, size: u16) {
        self.session.change(self.index, |ring| {
            ring.size = RingSize::new(size);
            ring.queue.set_queue_size(size);
        });
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.queue.set_queue_event_idx(enabled);
    }

    /// GET_VRING_BASE stops the ring here, before the daemon reads how far it came. It is started by a kick (below): the
    /// daemon's own queue never gets one and is never made ready.
    fn set_queue_ready(&self, ready: bool) {
        if !ready {
            self.session.change(self.index, |ring| {
                ring.kick = Kick::Stopped;
                ring.stopping = true;
            });
        }
    }

    /// None comes for the NOFD bit, and once after GET_VRING_BASE has stopped the ring.
    fn set_kick(&self, file: Option<File>) {
        self.session.change(self.index, |ring| {
            ring.kick = match file {
                Some(file) => Kick::Eventfd(file),
                None if std::mem::take(&mut ring.stopping) => Kick::Stopped,
                None => Kick::Polled,
            };
        });
    }

    fn read_kick(&self) -> io::Result<bool> {
        Ok(false)
    }

    fn set_call(&self, file: Option<File>) {
        self.session.change(self.index, |ring| ring.call = file);
    }

    fn set_err(&self, file: Option<File>) {
        self.session.change(self.index, |ring| ring.err = file);
    }
}
