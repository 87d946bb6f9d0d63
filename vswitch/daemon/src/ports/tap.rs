//! A queue of a tap: frames with their net header, straight between the kernel and the rings.

use super::{
    adapter::{AdapterEnd, Shared},
    carrier::Outside,
};
use rustix::{fs::OFlags, io::Errno};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};
use vhost_net_backend::{
    driver::{Moved, QueuePair},
    features,
};

/// Why a queue that has no interface any more is of no use. One whose interface was moved to another network namespace works as before.
const DELETED: &str = "its interface was deleted";

/// A queue of a tap, opened with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR.
#[derive(Debug)]
pub(super) struct Tap {
    queue: OwnedFd,
    /// The kernel knows large UDP datagrams.
    uso: bool,
}

impl Tap {
    /// Takes the queue over.
    ///
    /// # Errors
    /// It cannot be made non-blocking.
    pub(super) fn new(queue: OwnedFd, uso: bool) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&queue)?;
        rustix::fs::fcntl_setfl(&queue, flags | OFlags::NONBLOCK)?;
        Ok(Self { queue, uso })
    }
}

fn gone(why: &impl ToString) -> AdapterEnd {
    AdapterEnd::Gone { what: Tap::WHAT, why: why.to_string() }
}

/// What the kernel says of a queue that has no interface any more is no word for a person.
fn lost(why: &io::Error) -> AdapterEnd {
    match Errno::from_io_error(why) {
        Some(Errno::BADFD | Errno::NODEV) => gone(&DELETED),
        _ => gone(why),
    }
}

impl Outside for Tap {
    const WHAT: &str = "tap";

    /// The kernel completes and cuts what is left to it, whatever it was told to leave to us.
    fn features(&self) -> u64 {
        let uso = features::NET_HOST_USO | features::NET_GUEST_USO4 | features::NET_GUEST_USO6;
        let all = features::NET_HOST_OFFLOADS | features::NET_GUEST_OFFLOADS;
        if self.uso { all } else { all & !uso }
    }

    fn bring(&mut self, pair: &mut QueuePair, _: &Shared) -> Result<Moved, AdapterEnd> {
        pair.transmit_from(self.queue.as_fd()).map_err(|why| match why.kind() {
            io::ErrorKind::UnexpectedEof => gone(&"it was closed"),
            _ => lost(&why),
        })
    }

    /// A frame that the tap does not want is counted and gone: an interface that is down says EIO to each, and may come up
    /// again.
    fn take(&mut self, pair: &mut QueuePair, shared: &Shared) -> Result<Moved, AdapterEnd> {
        match pair.receive_to(self.queue.as_fd()) {
            Ok(moved) => Ok(moved),
            Err(why) => match Errno::from_io_error(&why) {
                Some(Errno::BADFD | Errno::NODEV | Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED) => {
                    Err(lost(&why))
                }
                _ => {
                    shared.count_refused(1);
                    Ok(Moved::Frame)
                }
            },
        }
    }

    /// The kernel reports an error of a queue without an interface, and of no other.
    fn broken(&mut self, _: &Shared) -> Result<(), AdapterEnd> {
        Err(gone(&DELETED))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}
