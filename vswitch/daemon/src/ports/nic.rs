//! An interface of the host: a packet socket (packet(7)) with the net header before each frame, bound to it, and promiscuous.
//!
//! Frames go out straight from the buffers of the port's ring. What comes in lies in a ring that the kernel fills, or, if it is too
//! long for that, is received into a buffer of ours. The kernel takes a frame's outer VLAN tag off before we see it and tells it
//! beside the frame, and it is put back here.

mod message;
mod ring;

use super::{
    adapter::{AdapterEnd, AdapterState, Shared},
    carrier::Outside,
};
use message::{Message, TAG};
use ring::{Held, Ring};
use rustix::{
    event::Timespec,
    io::Errno,
    net::{SendFlags, send},
};
use std::{
    io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};
use vhost_net_backend::{
    driver::{Moved, QueuePair, SENDS},
    features,
    net_header::{F_NEEDS_CSUM, LEN, NetHeader, SHORT_LEN},
};

/// The longest frame that rings take, with its tag.
const LONGEST: usize = 65_550;

/// How often what nothing wakes us for is looked at: an interface that comes up, and frames that are lost at the ring.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Both MAC addresses: a VLAN tag stands behind them.
const ADDRESSES: usize = 12;

/// A packet socket that is bound to an interface, with PACKET_VNET_HDR and PACKET_AUXDATA.
#[derive(Debug)]
pub(super) struct Nic {
    /// The interface's name when it was opened.
    name: String,
    socket: OwnedFd,
    /// Always there but while it is made anew.
    ring: Option<Ring>,
    /// When it was looked for losses last.
    looked: Instant,
    /// Frames were lost though the ring was empty, and none came since.
    suspected: bool,
    /// A frame that is too long for the ring.
    buffer: Box<[u8]>,
    /// The frame that is to be queued next.
    waits: Option<Waiting>,
    /// The interface was down when it was last looked at.
    down: bool,
}

/// A frame that is to be queued: its header, and where it lies in the buffer or in the ring's next slot.
#[derive(Debug)]
struct Waiting {
    header: NetHeader,
    frame: Range<usize>,
    in_ring: bool,
}

impl Nic {
    /// Takes the socket on interface `name` over.
    ///
    /// # Errors
    /// There is no memory for its ring.
    pub(super) fn new(name: &str, socket: OwnedFd) -> io::Result<Self> {
        let ring = Some(Ring::new(socket.as_fd())?);
        let buffer = vec![0; SHORT_LEN + LONGEST].into();
        let looked = Instant::now();
        Ok(Self {
            name: name.into(),
            socket,
            ring,
            looked,
            suspected: false,
            buffer,
            waits: None,
            down: false,
        })
    }

    /// What the interface says to an empty message, which is too short to be sent.
    fn look(&mut self, shared: &Shared) -> Result<(), AdapterEnd> {
        let down = match send(&self.socket, &[], SendFlags::DONTWAIT) {
            Err(Errno::NXIO | Errno::NODEV) => {
                return Err(gone(&"its interface was deleted, or moved to another network namespace"));
            }
            said => said == Err(Errno::NETDOWN),
        };
        if down != self.down {
            self.down = down;
            let why = || format!("the interface is down: ip link set dev {} up", self.name);
            shared.set(if down { AdapterState::Waiting(why()) } else { AdapterState::Carrying });
        }
        Ok(())
    }

    /// Now and then, while the ring is empty: counts what was lost, and makes the ring anew if it is stuck. The kernel (seen up to 6.18)
    /// leaves a slot marked as being filled when it meets a frame that the net header cannot say, such as a datagram that is to be cut into
    /// fragments, and from then on there is no room in the ring.
    fn look_for_losses(&mut self, shared: &Shared) -> Result<(), AdapterEnd> {
        if self.looked.elapsed() < LOOK_AGAIN {
            return Ok(());
        }
        self.looked = Instant::now();
        let lost = ring::losses(self.socket.as_fd());
        shared.count_refused(lost);
        // Once may be the end of what overran the ring; an empty ring has room.
        if lost > 0 && std::mem::replace(&mut self.suspected, true) {
            self.suspected = false;
            drop(self.ring.take());
            self.ring = Some(Ring::new(self.socket.as_fd()).map_err(|why| gone(&why))?);
        }
        Ok(())
    }

    /// Looks for a frame; whether one waits then to be queued, or was counted and is gone.
    fn find(&mut self, shared: &Shared) -> Result<Moved, AdapterEnd> {
        let at_start = self.ring.as_ref().is_some_and(Ring::is_at_start);
        let Some(mut slot) = self.ring.as_mut().and_then(Ring::next) else {
            self.look_for_losses(shared)?;
            return Ok(Moved::Nothing);
        };
        self.suspected = false;
        if at_start {
            // While frames come without end it is asked once a round.
            shared.count_refused(ring::losses(self.socket.as_fd()));
        }
        match slot.held() {
            Held::Frame(message) => {
                let (header, frame) = unpack(slot.bytes(), &message);
                self.waits = Some(Waiting { header, frame, in_ring: true });
                return Ok(Moved::Frame);
            }
            Held::Cut => shared.count_refused(1),
            Held::Aside => match message::receive(self.socket.as_fd(), &mut self.buffer) {
                Ok(Some(message)) if !message.is_cut && fits(&message) => {
                    let (header, frame) = unpack(&mut self.buffer, &message);
                    self.waits = Some(Waiting { header, frame, in_ring: false });
                }
                Err(Errno::NETDOWN) => {
                    // It was told instead of the frame, which is still there.
                    self.look(shared)?;
                    return Ok(Moved::Nothing);
                }
                // Longer than a ring takes, or of a kind that the net header cannot say.
                Ok(_) | Err(Errno::INVAL) => shared.count_refused(1),
                Err(why) => return Err(gone(&why)),
            },
        }
        slot.release();
        Ok(Moved::Frame)
    }

    /// Puts the frame that waits into the port's ring.
    fn queue(&mut self, pair: &mut QueuePair) -> Moved {
        let Some(Waiting { header, frame, in_ring }) = &self.waits else { return Moved::Frame };
        let (header, frame) = (header.to_bytes(), frame.clone());
        let queued = match (in_ring, self.ring.as_mut().and_then(Ring::next)) {
            (false, _) => pair.transmit_with(&header, &self.buffer[frame]),
            (true, Some(mut slot)) => {
                let queued = pair.transmit_with(&header, &slot.bytes()[frame]);
                if queued {
                    slot.release();
                }
                queued
            }
            // Never: a slot that was ours is the kernel's only after it was given back.
            (true, None) => true,
        };
        if !queued {
            return Moved::NoRoom;
        }
        self.waits = None;
        Moved::Frame
    }
}

/// Takes the header off what was received, and puts the tag back where it was: the header, and where the frame lies.
fn unpack(bytes: &mut [u8], message: &Message) -> (NetHeader, Range<usize>) {
    let mut short = [0; LEN];
    short[..SHORT_LEN].copy_from_slice(&bytes[..SHORT_LEN]);
    let mut header = NetHeader::from_bytes(short);
    // Whether the kernel has checked a sum is nothing that a driver says to its device.
    header.flags &= F_NEEDS_CSUM;
    let (mut begin, end) = (SHORT_LEN, message.len);
    if let Some(tag) = message.tag.filter(|_| message.len >= SHORT_LEN + ADDRESSES) {
        bytes.copy_within(begin..begin + ADDRESSES, begin - TAG);
        begin -= TAG;
        bytes[begin + ADDRESSES..begin + ADDRESSES + TAG].copy_from_slice(&tag);
        let further = |place: u16| if place == 0 { 0 } else { place.saturating_add(TAG as u16) };
        header.hdr_len = further(header.hdr_len);
        if header.flags & F_NEEDS_CSUM != 0 {
            header.csum_start = further(header.csum_start);
        }
    }
    (header, begin..end)
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
    const TAKEN: usize = SENDS;

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
            match self.find(shared)? {
                Moved::Frame => {}
                nothing => return Ok(nothing),
            }
        }
        Ok(self.queue(pair))
    }

    /// A frame that the interface does not take is counted and gone: it is down, or the frame is longer than its MTU.
    fn take(&mut self, pair: &mut QueuePair, shared: &Shared) -> Result<Moved, AdapterEnd> {
        pair.send_to(self.socket.as_fd()).or_else(|why| {
            shared.count_refused(1);
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
        Timespec::try_from(LOOK_AGAIN).ok()
    }
}
