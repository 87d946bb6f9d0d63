//! An interface of the host: a packet socket (packet(7)) with the net header before each frame, bound to it, and promiscuous.
//!
//! Frames go out straight from the ring's buffers. What comes in goes through a buffer of ours: the kernel takes a frame's outer
//! VLAN tag off before we see it and tells it beside the frame, and it is put back here.

mod message;

use super::{
    adapter::{AdapterEnd, AdapterState, Shared},
    carrier::Outside,
};
use message::{Message, TAG};
use rustix::{
    event::Timespec,
    io::Errno,
    net::{SendFlags, send},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};
use vhost_net_backend::{
    driver::{Moved, QueuePair},
    features,
    net_header::{F_NEEDS_CSUM, LEN, NetHeader, SHORT_LEN},
};

/// The longest frame that rings take, with its tag.
const LONGEST: usize = 65_550;

/// How often an interface that is down is looked at: nothing wakes us when it comes up.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Both MAC addresses: a VLAN tag stands behind them.
const ADDRESSES: usize = 12;

/// A packet socket that is bound to an interface, with PACKET_VNET_HDR and PACKET_AUXDATA.
#[derive(Debug)]
pub(super) struct Nic {
    socket: OwnedFd,
    buffer: Box<[u8]>,
    /// The frame in the buffer that the ring had no room for: its header and where it lies.
    waits: Option<(NetHeader, std::ops::Range<usize>)>,
    /// The interface was down when it was last looked at.
    down: bool,
}

impl Nic {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, buffer: vec![0; TAG + SHORT_LEN + LONGEST].into(), waits: None, down: false }
    }

    /// What the interface says to an empty message, which is too short to be sent.
    fn look(&mut self, shared: &Shared) -> Result<(), AdapterEnd> {
        let down = match send(&self.socket, &[], SendFlags::DONTWAIT) {
            Err(Errno::NXIO | Errno::NODEV) => return Err(gone(&"its interface was deleted")),
            said => said == Err(Errno::NETDOWN),
        };
        if down != self.down {
            self.down = down;
            let why = "the interface is down (ip link set dev … up)";
            shared.set(if down { AdapterState::Waiting(why.into()) } else { AdapterState::Carrying });
        }
        Ok(())
    }

    /// Puts the frame that waits into the ring.
    fn queue(&mut self, pair: &mut QueuePair) -> Moved {
        let Some((header, frame)) = self.waits.take() else { return Moved::Nothing };
        if pair.transmit_with(&header.to_bytes(), &self.buffer[frame.clone()]) {
            return Moved::Frame;
        }
        self.waits = Some((header, frame));
        Moved::NoRoom
    }

    /// Takes the header off what was received, and puts the tag back.
    fn unpack(&mut self, message: &Message) {
        let mut short = [0; LEN];
        short[..SHORT_LEN].copy_from_slice(&self.buffer[TAG..TAG + SHORT_LEN]);
        let mut header = NetHeader::from_bytes(short);
        // Whether the kernel has checked a sum is nothing that a driver says to its device.
        header.flags &= F_NEEDS_CSUM;
        let (mut begin, end) = (TAG + SHORT_LEN, TAG + message.len);
        if let Some(tag) = message.tag.filter(|_| message.len >= SHORT_LEN + ADDRESSES) {
            self.buffer.copy_within(begin..begin + ADDRESSES, begin - TAG);
            begin -= TAG;
            self.buffer[begin + ADDRESSES..begin + ADDRESSES + TAG].copy_from_slice(&tag);
            let further = |place: u16| if place == 0 { 0 } else { place.saturating_add(TAG as u16) };
            header.hdr_len = further(header.hdr_len);
            if header.flags & F_NEEDS_CSUM != 0 {
                header.csum_start = further(header.csum_start);
            }
        }
        self.waits = Some((header, begin..end));
    }
}

/// Whether the frame is one that rings take, with its tag put back.
fn fits(message: &Message) -> bool {
    message.len + if message.tag.is_some() { TAG } else { 0 } <= SHORT_LEN + LONGEST
}

fn gone(why: &impl ToString) -> AdapterEnd {
    AdapterEnd::Gone { what: Nic::WHAT, why: why.to_string() }
}

impl Outside for Nic {
    const WHAT: &str = "nic";

    /// What comes in may be anything; of what goes out the kernel completes and cuts all but UDP, which it knows from 6.2 on.
    fn features(&self) -> u64 {
        let uso = features::NET_GUEST_USO4 | features::NET_GUEST_USO6;
        features::NET_HOST_OFFLOADS | features::NET_GUEST_OFFLOADS & !uso
    }

    fn bring(&mut self, pair: &mut QueuePair, shared: &Shared) -> Result<Moved, AdapterEnd> {
        if self.down {
            self.look(shared)?;
        }
        if self.waits.is_none() {
            match message::receive(self.socket.as_fd(), &mut self.buffer[TAG..]) {
                Ok(Some(message)) if !message.is_cut && fits(&message) => self.unpack(&message),
                // Longer than a ring takes, or of a kind that the net header cannot say.
                Ok(Some(_)) | Err(Errno::INVAL) => {
                    shared.count_refused();
                    return Ok(Moved::Frame);
                }
                Ok(None) => return Ok(Moved::Nothing),
                Err(Errno::NETDOWN) => {
                    self.look(shared)?;
                    return Ok(Moved::Nothing);
                }
                Err(why) => return Err(gone(&why)),
            }
        }
        Ok(self.queue(pair))
    }

    /// A frame that the interface does not take is counted and gone: it is down, or the frame is longer than its MTU.
    fn take(&mut self, pair: &mut QueuePair, shared: &Shared) -> Result<Moved, AdapterEnd> {
        pair.receive_to(self.socket.as_fd()).or_else(|why| {
            shared.count_refused();
            if Errno::from_io_error(&why).is_some_and(|why| matches!(why, Errno::NETDOWN | Errno::NXIO)) {
                self.look(shared)?;
            }
            Ok(Moved::Frame)
        })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn broken(&mut self, shared: &Shared) -> Result<(), AdapterEnd> {
        // Reading the error takes it off the socket; what it was, looking tells.
        let _ = rustix::net::sockopt::socket_error(&self.socket).map_err(io::Error::from);
        self.look(shared)
    }

    fn look_again(&self) -> Option<Timespec> {
        self.down.then_some(LOOK_AGAIN)
    }
}
