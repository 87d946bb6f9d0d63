//! Taps of this machine: opened with their net header, so that large frames and unfinished checksums pass, and with several queues.
//!
//! The form of the calls is that of the kernel's Documentation/networking/tuntap.rst and linux/if_tun.h.

#![expect(unsafe_code, reason = "rustix has no safe form of these calls")]

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    ioctl::{IntegerSetter, Setter, Updater, ioctl, opcode},
    net::{AddressFamily, SocketType, socket},
};
use std::os::fd::{AsFd, OwnedFd};
use vhost_net_backend::net_header;

const TUNSETIFF: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 202);
const TUNGETIFF: rustix::ioctl::Opcode = opcode::read::<u32>(b'T', 210);
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

/// SIOCETHTOOL (linux/sockios.h), which takes a [`DriverRequest`].
const SIOCETHTOOL: rustix::ioctl::Opcode = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 3;

/// `struct ethtool_drvinfo` (linux/ethtool.h).
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    _versions: [u8; 64],
    bus: [u8; 32],
    _rest: [u8; 64],
}

/// `struct ifreq`, as far as SIOCETHTOOL goes.
#[repr(C)]
struct DriverRequest<'a> {
    name: [u8; 16],
    info: &'a mut DriverInfo,
    _union: [u8; 16],
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
        name: in_request(name)?,
        flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | several,
        _union: [0; 22],
    };
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

/// Whether this queue still has its interface: not one that was deleted.
pub(super) fn is_attached(queue: impl AsFd) -> bool {
    let mut request = InterfaceRequest { name: [0; 16], flags: 0, _union: [0; 22] };
    // SAFETY: TUNGETIFF writes one `struct ifreq`, whose 40 bytes `request` has.
    unsafe { ioctl(queue, Updater::<TUNGETIFF, InterfaceRequest>::new(&mut request)) }.is_ok()
}

/// Whether the interface `name`, which is there, is a tap. Asked of the kernel and not of /sys, which may be that of another network
/// namespace.
///
/// # Errors
/// The system's: there is no such interface, or its driver does not say what it is, as that of a tap does.
pub(super) fn is_tap(name: &str) -> Result<bool, Errno> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        _versions: [0; 64],
        bus: [0; 32],
        _rest: [0; 64],
    };
    let mut request = DriverRequest { name: in_request(name)?, info: &mut info, _union: [0; 16] };
    // SAFETY: SIOCETHTOOL reads one `struct ifreq`, whose 40 bytes `request` has, and ETHTOOL_GDRVINFO writes the `struct ethtool_drvinfo`
    // of 196 bytes that it points to, plain bytes and numbers.
    unsafe { ioctl(&any, Updater::<SIOCETHTOOL, DriverRequest<'_>>::new(&mut request)) }?;
    let says = |field: &[u8], word: &str| field.split(|byte| *byte == 0).next() == Some(word.as_bytes());
    // A device of the other kind of that driver, of packets without Ethernet, says `tun` in both.
    Ok(says(&info.driver, "tun") && says(&info.bus, "tap"))
}

/// A name as requests have it: the last byte stays the terminating NUL.
fn in_request(name: &str) -> Result<[u8; 16], Errno> {
    let mut room = [0; 16];
    room[..15].get_mut(..name.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(name.as_bytes());
    Ok(room)
}

fn set_offloads(queue: &OwnedFd, offloads: usize) -> Result<(), Errno> {
    // SAFETY: TUNSETOFFLOAD takes a number, no pointer.
    unsafe { ioctl(queue, IntegerSetter::<TUNSETOFFLOAD>::new_usize(offloads)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tap_is_not_taken_for_one() {
        assert_eq!((size_of::<DriverInfo>(), size_of::<DriverRequest<'_>>()), (196, 40));
        assert_ne!(is_tap("lo"), Ok(true));
        assert_eq!(is_tap("nobody-has-it"), Err(Errno::NODEV));
        assert_eq!(is_tap("a-name-of-sixteen"), Err(Errno::NAMETOOLONG));
    }
}
