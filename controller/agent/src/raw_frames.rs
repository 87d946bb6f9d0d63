//! Raw probe frames: one packet socket that counts those received on every interface, and sends.
//!
//! The socket is bound to the EtherType and to no interface, so one that goes and comes back needs nothing of it.

use crate::{interfaces, origin::system, sys};
use probe::{
    Answer, ETHERTYPE, Mac,
    answer::{Received, Refusal},
    ask::{MAX_MARKERS, Marker, SendFrame},
};
use rustix::net::{self, AddressFamily, Protocol, SocketFlags, SocketType};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    num::NonZeroU32,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
};

/// An Ethernet header: a frame without a payload.
const SHORTEST: usize = 14;
const LONGEST_MARKER: usize = 64;

/// Frames per interface that contained one marker.
struct Count {
    marker: Marker,
    frames: BTreeMap<Mac, u64>,
}

/// The markers that are expected, the oldest first.
#[derive(Default)]
struct Counts(Mutex<VecDeque<Count>>);

/// The packet socket and its counts; opened when first needed, for not every system allows it.
#[derive(Default)]
pub(crate) struct RawFrames {
    socket: OnceLock<Result<OwnedFd, Refusal>>,
    counts: Arc<Counts>,
}

impl RawFrames {
    /// Counts frames with this marker from now on, anew if it was counted before.
    pub(crate) fn expect(&self, marker: Marker) -> Result<Answer, Refusal> {
        if marker.bytes.is_empty() || marker.bytes.len() > LONGEST_MARKER {
            return Err(Refusal::OutOfBounds);
        }
        self.socket()?;
        self.counts.with(|counts| {
            counts.retain(|count| count.marker != marker);
            if counts.len() == MAX_MARKERS {
                counts.pop_front();
            }
            counts.push_back(Count { marker, frames: BTreeMap::new() });
        });
        Ok(Answer::Done)
    }

    /// How many frames with this marker came.
    pub(crate) fn received(&self, marker: &Marker) -> Result<Answer, Refusal> {
        self.counts.with(|counts| {
            let count = counts.iter().find(|count| count.marker == *marker).ok_or(Refusal::NotExpected)?;
            let received =
                |(interface, frames): (&Mac, &u64)| Received { interface: *interface, frames: *frames };
            Ok(Answer::Received(count.frames.iter().map(received).collect()))
        })
    }

    /// Sends a frame as it is.
    pub(crate) fn send(&self, ask: &SendFrame) -> Result<Answer, Refusal> {
        if ask.frame.len() < SHORTEST {
            return Err(Refusal::OutOfBounds);
        }
        let found = interfaces::find(ask.interface).map_err(|error| system("list the interfaces", error))?;
        let interface = found.ok_or(Refusal::NoSuchInterface)?;
        let socket = self.socket()?;
        sys::send_frame(socket, interface.index, &ask.frame)
            .map_err(|error| system("send the frame", error))?;
        Ok(Answer::Done)
    }

    fn socket(&self) -> Result<&OwnedFd, Refusal> {
        let open = || {
            let socket = open().map_err(|error| system("open a packet socket", error))?;
            let receiving = socket.try_clone().map_err(|error| system("share the packet socket", error))?;
            let counts = Arc::clone(&self.counts);
            thread::Builder::new()
                .name("raw frames".into())
                .spawn(move || counts.receive(&receiving))
                .map_err(|error| system("start a thread", error))?;
            Ok(socket)
        };
        self.socket.get_or_init(open).as_ref().map_err(Clone::clone)
    }
}

fn open() -> io::Result<OwnedFd> {
    // packet(7) wants the EtherType in network order.
    let protocol = NonZeroU32::new(ETHERTYPE.to_be().into()).map(Protocol::from_raw);
    Ok(net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?)
}

impl Counts {
    fn with<T>(&self, work: impl FnOnce(&mut VecDeque<Count>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts for ever. An interface that goes down is reported as an error once, and receiving goes on.
    fn receive(&self, socket: &OwnedFd) {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        // Which MAC address an index has; asked again for an index that is new, as after a driver is loaded again.
        let mut names: BTreeMap<u32, Mac> = BTreeMap::new();
        loop {
            let Ok((len, index)) = sys::receive_frame(socket, &mut buffer) else { continue };
            if !names.contains_key(&index) {
                let list = interfaces::list().unwrap_or_default();
                names = list.into_iter().map(|interface| (interface.index, interface.mac)).collect();
            }
            let (Some(frame), Some(interface)) = (buffer.get(..len), names.get(&index)) else { continue };
            self.with(|counts| {
                for count in counts.iter_mut() {
                    let marker = &count.marker.bytes;
                    if frame.windows(marker.len()).any(|window| window == marker) {
                        *count.frames.entry(*interface).or_default() += 1;
                    }
                }
            });
        }
    }
}
