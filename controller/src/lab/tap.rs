//! Taps of this machine: opened with their net header, so that large frames and unfinished checksums pass, and with several queues.
//!
//! The form of the calls is that of the kernel's Documentation/networking/tuntap.rst and linux/if_tun.h.

#![expect(unsafe_code, reason = "rustix has no safe form of these calls")]

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    ioctl::{IntegerSetter, Setter, Updater, ioctl, opcode},
};
use std::os::fd::OwnedFd;
use vhost_net_backend::net_header;

const TUNSETIFF: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 202);
const TUNSETOFFLOAD: rustix::ioctl::Opcode = opcode::write::<u32>(b'T', 208);
const TUNSETVNETHDRSZ: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 216);

const IFF_TAP: u16 = 0x0002;
const IFF_MULTI_QUEUE: u16 = 0x0100;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

/// TUN_F_CSUM, TSO4, TSO6 and TSO_ECN: what the kernel may leave to us.
const TUN_F_TCP: usize = 0x01 | 0x02 | 0x04 | 0x08;
/// TUN_F_USO4 and USO6, from Linux 6.2 on.
const TUN_F_USO: usize = 0x20 | 0x40;

/// `struct ifreq`, as far as TUNSETIFF goes (netdevice(7)).
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    _union: [u8; 22],
}

/// An open tap.
#[derive(Debug)]
pub(super) struct Tap {
    /// Its name, which may be one of the kernel's choice.
    pub(super) name: String,
    /// Its queues.
    pub(super) queues: Vec<OwnedFd>,
    /// Whether the kernel knows large UDP datagrams.
    pub(super) uso: bool,
}

/// Opens `queues` queues of the tap of that name, which is made if there is none; a `%d` in the name is a number of the kernel's choice.
///
/// # Errors
/// The system's. EINVAL: there is such an interface, and it is no tap, or one of the other kind, with one queue or with several.
pub(super) fn open(name: &str, queues: u16) -> Result<Tap, Errno> {
    let several = if queues > 1 { IFF_MULTI_QUEUE } else { 0 };
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | several,
        _union: [0; 22],
    };
    // The last byte stays the terminating NUL.
    let room = &mut request.name[..15];
    room.get_mut(..name.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(name.as_bytes());
    let (mut fds, mut uso) = (Vec::new(), false);
    for _ in 0..queues {
        let queue = rustix::fs::open(
            "/dev/net/tun",
            OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
        )?;
        // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, whose 40 bytes `request` has; it leaves the real name there,
        // which the next queue asks for.
        unsafe { ioctl(&queue, Updater::<TUNSETIFF, InterfaceRequest>::new(&mut request)) }?;
        // It writes the flags that the interface has now, with some that are not for asking.
        request.flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | several;
        // Whoever had this tap before may have chosen another length.
        // SAFETY: TUNSETVNETHDRSZ reads one int.
        unsafe { ioctl(&queue, Setter::<TUNSETVNETHDRSZ, i32>::new(net_header::SHORT_LEN as i32)) }?;
        uso = match set_offloads(&queue, TUN_F_TCP | TUN_F_USO) {
            Err(Errno::INVAL) => set_offloads(&queue, TUN_F_TCP).map(|()| false)?,
            done => done.map(|()| true)?,
        };
        fds.push(queue);
    }
    let name = request.name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
    Ok(Tap { name, queues: fds, uso })
}

fn set_offloads(queue: &OwnedFd, offloads: usize) -> Result<(), Errno> {
    // SAFETY: TUNSETOFFLOAD takes a number, no pointer.
    unsafe { ioctl(queue, IntegerSetter::<TUNSETOFFLOAD>::new_usize(offloads)) }
}
