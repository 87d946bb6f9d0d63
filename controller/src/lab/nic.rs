//! Interfaces of this machine as ports: packet sockets with the net header, so that large frames and unfinished checksums pass.
//!
//! The options are those of packet(7) and linux/if_packet.h. The socket sees what comes in from the wire and what another program
//! puts on it, not what this machine itself sends there; what it sends goes to the wire, and this machine does not see it.

#![expect(unsafe_code, reason = "rustix has no options and addresses of packet sockets")]

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, netdevice::name_to_index, socket_with, sockopt},
};
use std::{
    mem,
    os::fd::{AsRawFd, OwnedFd},
};

/// Bytes that may wait at the socket: frames of 64 KiB come in bursts. The kernel allows less where it is told to.
const WAITING: usize = 8 << 20;

/// An interface's type that frames are of Ethernet (`ARPHRD_ETHER`, which loopback is not).
const ETHERNET: u16 = libc::ARPHRD_ETHER;

/// Opens a packet socket on the interface `name`, as vswitchd's ports take one.
///
/// # Errors
/// The system's. EINVAL: it is no Ethernet interface.
pub(super) fn open(name: &str) -> Result<OwnedFd, Errno> {
    // Of no protocol until it is bound: nothing of other interfaces comes.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    let index = name_to_index(&socket, name)?.cast_signed();
    for option in [libc::PACKET_VNET_HDR, libc::PACKET_AUXDATA, libc::PACKET_IGNORE_OUTGOING] {
        set(&socket, option, &1_i32)?;
    }
    // Beyond the limit of this machine only for root; what it grants will do.
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, WAITING)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, WAITING));
    bind(&socket, index)?;
    let all = libc::packet_mreq {
        mr_ifindex: index,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(&socket, libc::PACKET_ADD_MEMBERSHIP, &all)?;
    Ok(socket)
}

/// A value that an option of a packet socket takes: plain numbers without padding.
trait Value {}
impl Value for i32 {}
impl Value for libc::packet_mreq {}

fn set<T: Value>(socket: &OwnedFd, option: libc::c_int, value: &T) -> Result<(), Errno> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` has so many bytes, and is only read.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, std::ptr::from_ref(value).cast(), len)
    };
    check(done)
}

/// Binds to all protocols of the interface, and looks whether it is one of Ethernet.
fn bind(socket: &OwnedFd, index: i32) -> Result<(), Errno> {
    let mut address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let mut len = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: `address` has `len` bytes, and is only read.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    // SAFETY: the kernel writes at most `len` bytes, which `address` has.
    check(unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut len) })?;
    if address.sll_hatype == ETHERNET { Ok(()) } else { Err(Errno::INVAL) }
}

fn check(done: libc::c_int) -> Result<(), Errno> {
    if done == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
