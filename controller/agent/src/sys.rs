//! The few system calls that rustix has no safe form for: socket options of Linux, and frames with their interface.

#![expect(unsafe_code, reason = "libc is called directly where rustix has nothing")]

use rustix::fd::{AsFd, AsRawFd};
use std::{io, mem, net::IpAddr, ptr};

/// What the stack counted on one TCP connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TcpCounts {
    /// Segments sent, with those sent again.
    pub(crate) sent: u64,
    /// Segments sent again.
    pub(crate) retransmitted: u64,
}

/// Asks for TCP_INFO (tcp(7)).
pub(crate) fn tcp_counts(socket: impl AsFd) -> io::Result<TcpCounts> {
    // SAFETY: tcp_info is a plain struct of integers, for which all zeros is a value; an older kernel leaves its end so.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut len = size_of_len::<libc::tcp_info>();
    // SAFETY: the pointers name two live locals, and `len` is the size of the first.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    done(result)?;
    Ok(TcpCounts { sent: info.tcpi_segs_out.into(), retransmitted: info.tcpi_total_retrans.into() })
}

/// Lets the socket send and receive through this interface only (SO_BINDTOIFINDEX, socket(7)).
pub(crate) fn bind_to_interface(socket: impl AsFd, index: u32) -> io::Result<()> {
    set_number(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, index.cast_signed())
}

/// Has the socket report every ICMP error towards `dst`, not only those that end a connection (IP_RECVERR, ip(7)).
pub(crate) fn report_errors(socket: impl AsFd, dst: IpAddr) -> io::Result<()> {
    match dst {
        IpAddr::V4(_) => set_number(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1),
        IpAddr::V6(_) => set_number(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1),
    }
}

/// Sends a frame as it is through a packet socket (packet(7)), or fails at once where the interface takes none now.
pub(crate) fn send_frame(socket: impl AsFd, index: u32, frame: &[u8]) -> io::Result<()> {
    let mut to = no_link_address();
    to.sll_ifindex = index.cast_signed();
    // SAFETY: `frame` and `to` are live for the call, and their lengths are their own.
    let sent = unsafe {
        libc::sendto(
            socket.as_fd().as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw const to).cast(),
            size_of_len::<libc::sockaddr_ll>(),
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives a frame from a packet socket: its length within `buffer`, and the index of the interface it came by.
pub(crate) fn receive_frame(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, u32)> {
    let mut from = no_link_address();
    let mut len = size_of_len::<libc::sockaddr_ll>();
    // SAFETY: the kernel writes at most `buffer.len()` bytes to `buffer` and at most `len` bytes to `from`.
    let received = unsafe {
        libc::recvfrom(
            socket.as_fd().as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut from).cast(),
            &raw mut len,
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    Ok((received, from.sll_ifindex.cast_unsigned()))
}

fn no_link_address() -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

fn set_number(
    socket: impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer names a live integer of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            ptr::from_ref(&value).cast(),
            size_of_len::<libc::c_int>(),
        )
    };
    done(result)
}

fn size_of_len<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
