//! A TCP connection that both ends have: smoltcp's socket, this machine's, and the bytes between them.

use rustix::{
    io::{Errno, read},
    net::{SendFlags, Shutdown, send, shutdown, sockopt},
};
use smoltcp::{
    iface::{SocketHandle, SocketSet},
    socket::tcp::{Socket, State},
};
use std::os::fd::OwnedFd;

/// A connection that both ends have.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) sockets: SocketSet<'static>,
    pub(crate) handle: SocketHandle,
    pub(crate) host: OwnedFd,
    /// The socket of this machine's may have something to read, or room.
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The far end said all; the guest did; the far end was told so.
    pub(crate) host_ended: bool,
    pub(crate) guest_ended: bool,
    pub(crate) told: bool,
    /// It broke on this machine's side.
    pub(crate) broken: bool,
}

impl Open {
    pub(crate) fn state(&self) -> State {
        self.sockets.get::<Socket<'_>>(self.handle).state()
    }

    /// Bytes, and ends of bytes, from either side to the other.
    ///
    /// # Errors
    /// The connection broke on this machine's side.
    pub(crate) fn hand_over(&mut self) -> Result<(), Errno> {
        self.give_host()?;
        self.give_guest()
    }

    fn give_host(&mut self) -> Result<(), Errno> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        while self.writable && socket.can_recv() {
            let sent = socket.recv(|bytes| match send(&self.host, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => (sent, Ok(())),
                Err(why) => (0, Err(why)),
            });
            match sent {
                Ok(Ok(()) | Err(Errno::INTR)) => {}
                Ok(Err(Errno::AGAIN)) => self.writable = false,
                Ok(Err(why)) => return Err(why),
                // It has nothing to say any more.
                Err(_) => break,
            }
        }
        if self.guest_ended && !self.told && !socket.can_recv() {
            self.told = true;
            shutdown(&self.host, Shutdown::Write)?;
        }
        Ok(())
    }

    fn give_guest(&mut self) -> Result<(), Errno> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        while self.readable && !self.host_ended && socket.can_send() {
            let got = socket.send(|room| match read(&self.host, room) {
                Ok(got) => (got, Ok(got)),
                Err(why) => (0, Err(why)),
            });
            match got {
                Ok(Ok(0)) => {
                    self.host_ended = true;
                    socket.close();
                }
                Ok(Ok(_) | Err(Errno::INTR)) => {}
                Ok(Err(Errno::AGAIN)) => self.readable = false,
                Ok(Err(why)) => return Err(why),
                Err(_) => break,
            }
        }
        // Nothing is read any more, but that it broke.
        match self.host_ended && self.readable {
            true => {
                self.readable = false;
                sockopt::socket_error(&self.host)?
            }
            false => Ok(()),
        }
    }

    /// Whether nothing is to be said any more, on either side.
    pub(crate) fn is_over(&self) -> bool {
        let ended_well = self.guest_ended && self.host_ended && !self.broken;
        let socket = self.sockets.get::<Socket<'_>>(self.handle);
        // Who aborts has a RST to send first; a SYN that was taken back, or was none, leaves a socket that listens.
        let is_closed =
            matches!(socket.state(), State::Closed | State::Listen) && socket.remote_endpoint().is_none();
        is_closed && !(ended_well && socket.can_recv())
    }

    /// Whether only stray segments of the guest's may still come.
    pub(crate) fn is_past(&self) -> bool {
        matches!(self.state(), State::TimeWait | State::Closed)
    }
}
