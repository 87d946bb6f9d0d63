//! Receiving from a packet socket with what stands beside a frame: the VLAN tag that the kernel took off.

#![expect(unsafe_code, reason = "rustix gives no auxiliary data of packet sockets")]

use rustix::io::Errno;
use std::{
    mem::{self, MaybeUninit},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

/// Bytes of a VLAN tag (IEEE 802.1Q-2018 §9.3).
pub(super) const TAG: usize = 4;

/// The tag protocol of a frame whose status says none (IEEE 802.1Q-2018 table 9-1).
const CUSTOMER_TAG: u16 = 0x8100;

/// Bytes for the control messages of one frame: `struct tpacket_auxdata` behind its header.
const CONTROL: usize = 64;

/// Room for control messages, aligned as their headers are.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// What was received.
#[derive(Debug)]
pub(super) struct Message {
    /// Bytes of it, the net header counted.
    pub(super) len: usize,
    /// It was longer than the buffer.
    pub(super) is_cut: bool,
    /// The tag that is to stand behind its addresses.
    pub(super) tag: Option<[u8; TAG]>,
}

/// Receives the next frame of `socket` into `buffer`, its net header first; none if there is none now.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Option<Message>, Errno> {
    let mut control = Control([0; CONTROL]);
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeros are a `struct msghdr`: null pointers and lengths of 0.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CONTROL;
    // SAFETY: the vector is `buffer`, which is borrowed for writing, and the control messages have `control`; both outlive the
    // call.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let Ok(len) = usize::try_from(len) else {
        let why = std::io::Error::last_os_error();
        return match Errno::from_io_error(&why).unwrap_or(Errno::IO) {
            Errno::AGAIN | Errno::INTR => Ok(None),
            why => Err(why),
        };
    };
    Ok(Some(Message { len, is_cut: header.msg_flags & libc::MSG_TRUNC != 0, tag: auxiliary_tag(&header) }))
}

/// The tag that the auxiliary data tell (packet(7): PACKET_AUXDATA).
fn auxiliary_tag(header: &libc::msghdr) -> Option<[u8; TAG]> {
    // SAFETY: `header` is one that recvmsg(2) filled, so the control messages in it are whole.
    let first = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: it is null or lies in the control messages, aligned as they are.
    let message = unsafe { first.as_ref() }?;
    let whole = mem::size_of::<libc::tpacket_auxdata>() + mem::size_of::<libc::cmsghdr>();
    let ours = message.cmsg_level == libc::SOL_PACKET && message.cmsg_type == libc::PACKET_AUXDATA;
    if !ours || message.cmsg_len < whole {
        return None;
    }
    // SAFETY: its length says that a whole `struct tpacket_auxdata` follows.
    let data: libc::tpacket_auxdata = unsafe { ptr::read_unaligned(libc::CMSG_DATA(first).cast()) };
    tag(data.tp_status, data.tp_vlan_tpid, data.tp_vlan_tci)
}

/// The tag that a frame's status, protocol and control information make, if it had one.
pub(super) fn tag(status: u32, protocol: u16, control: u16) -> Option<[u8; TAG]> {
    let says = |flag: u32| status & flag != 0;
    says(libc::TP_STATUS_VLAN_VALID).then(|| {
        let protocol = if says(libc::TP_STATUS_VLAN_TPID_VALID) { protocol } else { CUSTOMER_TAG };
        let ([p0, p1], [t0, t1]) = (protocol.to_be_bytes(), control.to_be_bytes());
        [p0, p1, t0, t1]
    })
}
