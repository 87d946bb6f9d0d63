//! From where to send: a [`Source`] found among the interfaces, and sockets that are bound to it.

use crate::{interfaces, neighbours, sys};
use probe::{
    answer::{Contact, Refusal, Unreachable},
    ask::Source,
};
use rustix::{
    io::Errno,
    net::{self, AddressFamily, Protocol, SocketFlags, SocketType},
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

/// Where sockets are bound to, if anywhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    interface: Option<u32>,
    address: Option<IpAddr>,
}

impl Origin {
    /// Finds what the asker named.
    pub(crate) fn find(source: Source) -> Result<Self, Refusal> {
        let (interface, address) = match source {
            Source::Any => return Ok(Self { interface: None, address: None }),
            Source::Interface(mac) => (interfaces::find(mac).map(|found| found.map(|it| it.index)), None),
            Source::Address(address) => (interfaces::index_of(address), Some(address)),
        };
        let interface = interface.map_err(|error| system("list the interfaces", error))?;
        Ok(Self { interface: Some(interface.ok_or(Refusal::NoSuchInterface)?), address })
    }

    /// The index of the interface, if one was named.
    pub(crate) fn interface(&self) -> Option<u32> {
        self.interface
    }

    /// The address, if one was named.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// A socket towards `dst` that does not block, bound to what was named.
    pub(crate) fn socket(
        &self,
        dst: IpAddr,
        kind: SocketType,
        protocol: Option<Protocol>,
    ) -> Result<OwnedFd, Refusal> {
        let family = if dst.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            net::socket_with(family, kind, flags, protocol).map_err(|e| system("open a socket", e))?;
        if let Some(index) = self.interface {
            sys::bind_to_interface(&socket, index).map_err(|error| match Errno::from_io_error(&error) {
                Some(Errno::NODEV) => Refusal::NoSuchInterface,
                _ => system("bind to the interface", error),
            })?;
        }
        if let Some(address) = self.address {
            net::bind(&socket, &self.scoped(SocketAddr::new(address, 0))).map_err(|errno| match errno {
                Errno::ADDRNOTAVAIL => Refusal::NoSuchInterface,
                // An address of the other version of IP cannot be bound to.
                Errno::AFNOSUPPORT | Errno::INVAL => Refusal::OutOfBounds,
                errno => system("bind to the address", errno),
            })?;
        }
        Ok(socket)
    }

    /// `to`, with the scope that a link-local address needs (RFC 4007 §6).
    pub(crate) fn scoped(&self, to: SocketAddr) -> SocketAddr {
        match (to, self.interface) {
            (SocketAddr::V6(mut v6), Some(index)) if v6.ip().is_unicast_link_local() => {
                v6.set_scope_id(index);
                SocketAddr::V6(v6)
            }
            _ => to,
        }
    }

    /// What `errno` of a connection or datagram towards `dst` says of it.
    pub(crate) fn contact(&self, errno: Errno, dst: IpAddr) -> Result<Contact, Refusal> {
        match errno {
            Errno::CONNREFUSED => Ok(Contact::Refused),
            Errno::TIMEDOUT => self.silence(dst),
            errno => self.unreachable(errno, dst).map(Contact::Unreachable),
        }
    }

    /// What it means that nothing came back: that the next hop is silent already, or only the destination.
    pub(crate) fn silence(&self, dst: IpAddr) -> Result<Contact, Refusal> {
        Ok(self.hindrance(dst)?.map_or(Contact::TimedOut, Contact::Unreachable))
    }

    /// What keeps `dst` from being reached, if anything on this host does.
    pub(crate) fn hindrance(&self, dst: IpAddr) -> Result<Option<Unreachable>, Refusal> {
        neighbours::hindrance(dst, self).map_err(|error| system("look up the route", error))
    }

    /// Which way `dst` is unreachable. The errno alone does not say: Linux makes EHOSTUNREACH of a neighbour that does
    /// not answer as of an ICMP error, so where neither the route nor the neighbour is missing, somebody rejected it.
    pub(crate) fn unreachable(&self, errno: Errno, dst: IpAddr) -> Result<Unreachable, Refusal> {
        match errno {
            Errno::NETUNREACH
            | Errno::HOSTUNREACH
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::ACCESS
            | Errno::PROTO
            | Errno::OPNOTSUPP => Ok(self.hindrance(dst)?.unwrap_or(Unreachable::Rejected)),
            // No address of ours fits, the interface is gone, or a link-local destination came without an interface.
            Errno::ADDRNOTAVAIL | Errno::INVAL | Errno::NODEV | Errno::NXIO => Ok(Unreachable::NoRoute),
            errno => Err(system("send", errno)),
        }
    }
}

/// The refusal that says what could not be done, and why in the system's words.
pub(crate) fn system(what: &str, error: impl Into<io::Error>) -> Refusal {
    Refusal::System(format!("cannot {what}: {}", error.into()))
}
