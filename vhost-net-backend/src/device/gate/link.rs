//! The gate's two sockets: messages read in whatever pieces they come, with their descriptors; nothing blocks.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::super::fault::PortFault;
use super::wire::{HEADER_BYTES, Header, MAX_FDS};

/// A complete message of the frontend.
#[derive(Debug)]
pub struct Message {
    /// Its header.
    pub header: Header,
    /// Its payload.
    pub payload: Vec<u8>,
    /// The descriptors that came with it; dropped, they are closed.
    pub fds: Vec<OwnedFd>,
}

/// The frontend's socket.
#[derive(Debug)]
pub struct Frontend {
    socket: UnixStream,
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    unsent: Vec<u8>,
}

impl Frontend {
    /// Takes over a connected socket.
    pub fn new(socket: UnixStream) -> Self {
        Self { socket, bytes: Vec::new(), fds: Vec::new(), unsent: Vec::new() }
    }

    /// Whether part of a message has come.
    pub fn amid_message(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Whether part of a reply is still to be sent.
    pub fn amid_reply(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Reads what is there of the current message and never beyond it; None until it is complete.
    pub fn read(&mut self) -> Result<Option<Message>, PortFault> {
        loop {
            let header = match self.bytes.first_chunk() {
                Some(bytes) => {
                    Some(Header::parse(bytes).map_err(|error| PortFault::Protocol(error.to_string()))?)
                }
                None => None,
            };
            let wanted = HEADER_BYTES + header.map_or(0, |header| header.size);
            if let Some(header) = header.filter(|_| self.bytes.len() == wanted) {
                let payload = std::mem::take(&mut self.bytes).split_off(HEADER_BYTES);
                return Ok(Some(Message { header, payload, fds: std::mem::take(&mut self.fds) }));
            }
            if !self.receive(wanted - self.bytes.len(), header.is_some())? {
                return Ok(None);
            }
        }
    }

    /// One recvmsg; false if nothing is there now.
    fn receive(&mut self, wanted: usize, in_payload: bool) -> Result<bool, PortFault> {
        let mut chunk = vec![0; wanted];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        // MSG_DONTWAIT rather than O_NONBLOCK: the open description may be shared with others.
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut chunk)], &mut control, flags) {
            Ok(received) => received,
            Err(rustix::io::Errno::AGAIN) => return Ok(false),
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(_) => return Err(PortFault::Disconnected),
        };
        let before = self.fds.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) || self.fds.len() > MAX_FDS {
            return Err(PortFault::Protocol(format!("more than {MAX_FDS} descriptors in one message")));
        }
        if in_payload && self.fds.len() > before {
            return Err(PortFault::Protocol("descriptors came in the middle of a message".to_owned()));
        }
        if received.bytes == 0 {
            return Err(PortFault::Disconnected);
        }
        self.bytes.extend_from_slice(&chunk[..received.bytes]);
        Ok(true)
    }

    /// Sends a reply as far as the frontend takes it; the rest waits for [`Frontend::flush`].
    pub fn reply(&mut self, bytes: &[u8]) -> Result<(), PortFault> {
        self.unsent.extend_from_slice(bytes);
        self.flush()
    }

    /// Sends what is left of a reply.
    pub fn flush(&mut self) -> Result<(), PortFault> {
        while !self.unsent.is_empty() {
            match rustix::net::send(&self.socket, &self.unsent, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(PortFault::Disconnected),
            }
        }
        Ok(())
    }
}

impl AsFd for Frontend {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends a request with its descriptors to the daemon. One is under way at a time, so the socket always has room.
pub fn send_request(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("more descriptors than one message holds"));
    }
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    match sent == bytes.len() {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Reads one reply of the daemon, waiting for it: its payload.
pub fn read_reply(mut socket: &UnixStream) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut header = [0; HEADER_BYTES];
    socket.read_exact(&mut header)?;
    let size = Header::parse_reply(&header).ok_or(io::ErrorKind::InvalidData)?;
    let mut payload = vec![0; size];
    socket.read_exact(&mut payload)?;
    Ok(payload)
}
