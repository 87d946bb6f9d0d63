//! A peer on a stream socket: frames with their length before them, as QEMU's `-netdev stream` and passt have them.

use super::{
    adapter::{AdapterEnd, Shared},
    carrier::Outside,
    framing::{self, Deframer},
};
use rustix::{
    io::Errno,
    net::{SendFlags, send},
};
use std::os::{
    fd::{AsFd, BorrowedFd},
    unix::net::UnixStream,
};
use vhost_net_backend::driver::{Moved, QueuePair};
use vswitch_core::head::MAX_FRAME_LEN;

/// So many bytes are collected before they are written, if there are so many.
const FULL: usize = 64 << 10;

/// A connected peer.
#[derive(Debug)]
pub(super) struct Stream {
    socket: UnixStream,
    /// What it said.
    heard: Deframer,
    /// What it is to be told: at most [`FULL`] and one frame more, of which the first `told` bytes were written.
    telling: Vec<u8>,
    told: usize,
}

impl Stream {
    /// Takes over the socket, a non-blocking one.
    pub(super) fn new(socket: UnixStream) -> Self {
        let room = FULL + framing::LENGTH_BYTES + MAX_FRAME_LEN as usize;
        Self { socket, heard: Deframer::default(), telling: Vec::with_capacity(room), told: 0 }
    }

    /// Writes what is to be told; whether that was all.
    fn write(&mut self) -> Result<bool, AdapterEnd> {
        while self.told < self.telling.len() {
            match send(&self.socket, &self.telling[self.told..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(written) => self.told += written,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(why) => return Err(gone(&why)),
            }
        }
        self.telling.clear();
        self.told = 0;
        Ok(true)
    }

    /// Reads as much as there is room for; whether there was anything.
    fn read(&mut self) -> Result<bool, AdapterEnd> {
        match rustix::io::read(&self.socket, self.heard.room()) {
            Ok(0) if self.heard.is_between_frames() => Err(gone(&"it closed the connection")),
            Ok(0) => Err(gone(&"it closed the connection amid a frame")),
            Ok(read) => {
                self.heard.filled(read);
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(why) => Err(gone(&why)),
        }
    }
}

fn gone(why: &impl ToString) -> AdapterEnd {
    AdapterEnd::Gone { what: Stream::WHAT, why: why.to_string() }
}

impl Outside for Stream {
    const WHAT: &str = "stream";

    /// There is no net header on the socket that could leave anything to anybody.
    fn features(&self) -> u64 {
        0
    }

    fn bring(&mut self, pair: &mut QueuePair, _: &Shared) -> Result<Moved, AdapterEnd> {
        loop {
            if let Some(frame) = self.heard.next_frame().map_err(|why| gone(&why))? {
                if !pair.transmit(frame) {
                    return Ok(Moved::NoRoom);
                }
                self.heard.consume();
                return Ok(Moved::Frame);
            }
            if !self.read()? {
                return Ok(Moved::Nothing);
            }
        }
    }

    /// Frames are collected as long as there are more, and then written at once.
    fn take(&mut self, pair: &mut QueuePair, _: &Shared) -> Result<Moved, AdapterEnd> {
        if self.telling.len() >= FULL && !self.write()? {
            return Ok(Moved::NoRoom);
        }
        let telling = &mut self.telling;
        let taken = pair.receive_in_place(1, 0, |frame| {
            telling.extend(framing::length(frame.len() as u32));
            let begin = telling.len();
            telling.resize(begin + frame.len(), 0);
            frame.read(0, &mut telling[begin..]);
        });
        match taken {
            0 if self.write()? => Ok(Moved::Nothing),
            0 => Ok(Moved::NoRoom),
            _ => Ok(Moved::Frame),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
