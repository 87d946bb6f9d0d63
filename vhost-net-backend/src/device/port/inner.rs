//! The inner socket between the gate and `vhost-user-backend`'s daemon.
//!
//! The daemon takes its connection from a listener only. One listener serves the whole process; its name is removed
//! as soon as it exists, so nobody else can connect, nothing is left in the file system, and later connections need no
//! rights there.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, open};
use vhost::vhost_user::Listener;
use vhost_user_backend::VhostUserDaemon;

use crate::device::session::Session;

/// A listener without a name, and the way to it.
struct Nameless {
    listener: UnixListener,
    /// Of the socket's inode (O_PATH): through `/proc/self/fd` it can still be connected to.
    inode: OwnedFd,
}

/// The process's listener. Locked from connect to accept, so that each daemon accepts its own gate.
static NAMELESS: Mutex<Option<Nameless>> = Mutex::new(None);

/// Starts the daemon on one end of a new connection; the other end is the gate's.
pub(super) fn start(daemon: &mut VhostUserDaemon<Session>) -> io::Result<UnixStream> {
    let mut kept = NAMELESS.lock().unwrap_or_else(PoisonError::into_inner);
    let nameless = match kept.take() {
        Some(nameless) => kept.insert(nameless),
        None => kept.insert(Nameless::new()?),
    };
    let mut listener = Listener::from(nameless.listener.try_clone()?);
    let inner = UnixStream::connect(format!("/proc/self/fd/{}", nameless.inode.as_raw_fd()))?;
    match daemon.start(&mut listener) {
        Ok(()) => Ok(inner),
        Err(error) => {
            // The connection may still be in the queue, where the next daemon would find it.
            *kept = None;
            Err(io::Error::other(error.to_string()))
        }
    }
}

impl Nameless {
    fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("vnet-").tempdir()?;
        let path = folder.path().join("inner");
        let listener = UnixListener::bind(&path)?;
        let inode = open(&path, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
        folder.close()?;
        Ok(Self { listener, inode })
    }
}
