//! Questions to the kernel about links, addresses, routes and neighbours: rtnetlink(7), read as bytes.

use rustix::{
    io::Errno,
    net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink},
};
use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// The kernel fills at most this much per datagram of a dump.
const BUFFER: usize = 32 * 1024;
const HEADER: usize = 16;

/// A socket to the kernel's routing tables.
pub(crate) struct Netlink {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// One message of the kernel.
pub(crate) struct Message {
    /// RTM_…
    pub(crate) kind: u16,
    body: Vec<u8>,
}

impl Netlink {
    /// To ask with.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, buffer: vec![0; BUFFER] })
    }

    /// To be told of changes of these groups (RTMGRP_…).
    pub(crate) fn subscribe(groups: u32) -> io::Result<Self> {
        let netlink = Self::open()?;
        net::bind(&netlink.socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(netlink)
    }

    /// Asks, and gives what was answered until the kernel said that it was all.
    pub(crate) fn ask(kind: u16, flags: libc::c_int, body: &[u8]) -> io::Result<Vec<Message>> {
        let mut netlink = Self::open()?;
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        let len = u32::try_from(HEADER + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend_from_slice(&len.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(body);
        net::send(&netlink.socket, &message, SendFlags::empty())?;
        let mut answers = Vec::new();
        loop {
            for message in netlink.receive()? {
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(answers),
                    libc::NLMSG_ERROR => {
                        return message.error().map_or(Ok(answers), |error| Err(error.into()));
                    }
                    _ => answers.push(message),
                }
            }
        }
    }

    /// Waits for the next datagram, and gives its messages.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<Message>> {
        let (len, _) = net::recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = self.buffer.get(..len).unwrap_or_default();
        let mut messages = Vec::new();
        while let (Some(len), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) {
            let len = len as usize;
            let Some(body) = rest.get(HEADER..len) else { break };
            messages.push(Message { kind, body: body.to_vec() });
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(messages)
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Message {
    /// The byte at this place of the fixed part.
    pub(crate) fn u8(&self, at: usize) -> Option<u8> {
        self.body.get(at).copied()
    }

    /// The 16-bit number at this place of the fixed part.
    pub(crate) fn u16(&self, at: usize) -> Option<u16> {
        u16_at(&self.body, at)
    }

    /// The 32-bit number at this place of the fixed part.
    pub(crate) fn u32(&self, at: usize) -> Option<u32> {
        u32_at(&self.body, at)
    }

    /// The attribute of this type behind a fixed part of `fixed` bytes.
    pub(crate) fn attribute(&self, fixed: usize, wanted: u16) -> Option<&[u8]> {
        let mut rest = self.body.get(fixed..)?;
        loop {
            let len = usize::from(u16_at(rest, 0)?);
            let value = rest.get(4..len)?;
            // The two upper bits are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
            if u16_at(rest, 2)? & 0x3fff == wanted {
                return Some(value);
            }
            rest = rest.get(len.next_multiple_of(4)..)?;
        }
    }

    /// The error of NLMSG_ERROR; none is an acknowledgement.
    fn error(&self) -> Option<Errno> {
        let code = self.u32(0)?.cast_signed();
        (code != 0).then(|| Errno::from_raw_os_error(code.saturating_neg()))
    }
}

/// Appends an attribute to a message's body.
pub(crate) fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Values are addresses and indices here: never longer than 16 bytes.
    let len = (4 + value.len()) as u16;
    body.extend_from_slice(&len.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The AF_… of an address, as the fixed parts of the messages have it.
pub(crate) fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

/// The bytes of an address.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The address of these bytes.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
