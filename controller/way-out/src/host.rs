//! Sockets of this machine's, none of which is ever waited for, and what tells which of them is ready.

use crate::out::Unreachable;
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    net::{AddressFamily, Protocol, SocketFlags, SocketType, connect, ipproto, socket_with, sockopt},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

/// How many sockets may be told of at once; the others are told of next.
const EVENTS: usize = 256;

/// What a socket is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    /// The word that it was watched under.
    pub(crate) word: u64,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// Which sockets became ready since they said that they are not (edge-triggered epoll(7)).
pub(crate) struct Watch {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Watch {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS) })
    }

    /// Watches a socket, until it is closed.
    pub(crate) fn add(&self, socket: impl AsFd, word: u64) -> Result<(), Errno> {
        use epoll::EventFlags as Flags;
        let flags = Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET;
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(word), flags)
    }

    /// Waits until a socket is ready, or for so long.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<impl Iterator<Item = Ready>> {
        use epoll::EventFlags as Flags;
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
        Ok(self.events.drain(..).map(|event| {
            let (flags, word) = (event.flags, event.data.u64());
            let over = flags.intersects(Flags::ERR | Flags::HUP);
            Ready {
                word,
                read: over || flags.intersects(Flags::IN | Flags::RDHUP),
                write: over || flags.contains(Flags::OUT),
            }
        }))
    }
}

/// What a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    /// For echo requests (icmp(7), `ping_group_range`).
    Echo,
}

/// A socket that is, or will be, connected to an address; that of an echo has no port.
pub(crate) fn connected(kind: Kind, to: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (socket_type, protocol): (_, Option<Protocol>) = match (kind, to.ip()) {
        (Kind::Tcp, _) => (SocketType::STREAM, None),
        (Kind::Udp, _) => (SocketType::DGRAM, None),
        (Kind::Echo, IpAddr::V4(_)) => (SocketType::DGRAM, Some(ipproto::ICMP)),
        (Kind::Echo, IpAddr::V6(_)) => (SocketType::DGRAM, Some(ipproto::ICMPV6)),
    };
    let socket = socket_with(family, socket_type, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, protocol)?;
    if kind == Kind::Tcp {
        // The guest decides what it collects.
        sockopt::set_tcp_nodelay(&socket, true)?;
    }
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(why) => Err(why),
    }
}

/// What is told of an error of a socket by ICMP; none of an error of this process's own.
pub(crate) fn unreachable(why: Errno) -> Option<Unreachable> {
    match why {
        Errno::CONNREFUSED => Some(Unreachable::Port),
        Errno::HOSTUNREACH | Errno::HOSTDOWN => Some(Unreachable::Host),
        Errno::NETUNREACH | Errno::NETDOWN | Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::INVAL => {
            Some(Unreachable::Network)
        }
        Errno::ACCESS | Errno::PERM => Some(Unreachable::Forbidden),
        _ => None,
    }
}

/// As many descriptors as this process may have.
pub(crate) fn allow_many() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // With those that it has it serves as many as it can.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
