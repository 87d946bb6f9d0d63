//! A peer on datagram sockets: a frame a datagram, as QEMU's `-netdev dgram` has them.
//!
//! Frames come to a socket of ours, and go to the peer's by another that is connected to it: so it is known when the peer has room, and
//! a peer that was started again is heard before anything is sent to it.

use super::{
    adapter::{AdapterEnd, Shared},
    carrier::Outside,
};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use std::os::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    unix::net::UnixDatagram,
};
use vhost_net_backend::driver::{Moved, QueuePair};
use vswitch_core::head::{ETHERNET_LEN, MAX_FRAME_LEN};

/// A peer whose socket is there.
#[derive(Debug)]
pub(super) struct Dgram {
    /// Where its frames come.
    inbox: UnixDatagram,
    /// Connected to its socket.
    outbox: OwnedFd,
    heard: Box<[u8]>,
    /// Bytes of the frame in `heard` that waits for room; 0: none does.
    waiting: usize,
    /// The frame that is to be told; empty: none is.
    telling: Vec<u8>,
}

impl Dgram {
    /// Takes over both sockets.
    pub(super) fn new(inbox: UnixDatagram, outbox: OwnedFd) -> Self {
        let heard = vec![0; MAX_FRAME_LEN as usize].into();
        Self { inbox, outbox, heard, waiting: 0, telling: Vec::with_capacity(MAX_FRAME_LEN as usize) }
    }
}

impl Outside for Dgram {
    const WHAT: &str = "dgram";

    /// There is no net header in a datagram that could leave anything to anybody.
    fn features(&self) -> u64 {
        0
    }

    /// A datagram that is no frame is counted and gone.
    fn bring(&mut self, pair: &mut QueuePair, shared: &Shared) -> Result<Moved, AdapterEnd> {
        if self.waiting == 0 {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            let whole = match recv(&self.inbox, &mut self.heard[..], flags) {
                Ok((_, whole)) => whole,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(Moved::Nothing),
                Err(why) => return Err(AdapterEnd::Gone { what: Self::WHAT, why: why.to_string() }),
            };
            if !(ETHERNET_LEN..=self.heard.len()).contains(&whole) {
                shared.count_refused(1);
                return Ok(Moved::Frame);
            }
            self.waiting = whole;
        }
        if !pair.transmit(&self.heard[..self.waiting]) {
            return Ok(Moved::NoRoom);
        }
        self.waiting = 0;
        Ok(Moved::Frame)
    }

    /// A frame that the socket cannot carry is counted and gone.
    fn take(&mut self, pair: &mut QueuePair, shared: &Shared) -> Result<Moved, AdapterEnd> {
        if self.telling.is_empty() {
            let telling = &mut self.telling;
            let taken = pair.receive_in_place(1, 0, |frame| {
                telling.resize(frame.len(), 0);
                frame.read(0, telling);
            });
            if taken == 0 {
                return Ok(Moved::Nothing);
            }
        }
        match send(&self.outbox, &self.telling, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Moved::NoRoom),
            Err(why @ (Errno::CONNREFUSED | Errno::CONNRESET | Errno::NOTCONN | Errno::PIPE)) => {
                // The next peer gets nothing that was for this one.
                shared.count_refused(1);
                return Err(AdapterEnd::Gone { what: Self::WHAT, why: why.to_string() });
            }
            Err(_) => shared.count_refused(1),
        }
        self.telling.clear();
        Ok(Moved::Frame)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.inbox.as_fd()
    }

    fn room_fd(&self) -> BorrowedFd<'_> {
        self.outbox.as_fd()
    }
}
