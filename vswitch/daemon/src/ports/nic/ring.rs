//! The receive ring of a packet socket (packet(7): PACKET_RX_RING, TPACKET_V2): the kernel copies frames into slots that we see,
//! a system call is made only to sleep.
//!
//! ```text
//! slot:  struct tpacket2_hdr | … | net header | frame       the kernel's until TP_STATUS_USER, then ours until we give it back
//! ```
//!
//! A frame that is longer than a slot waits at the socket, whole, and its slot says so (PACKET_COPY_THRESH). Slots and what waits
//! are in the same order.

#![expect(
    unsafe_code,
    reason = "maps memory that the kernel writes to, and rustix has no options of packet sockets"
)]

use super::message::{Message, tag};
use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};
use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
    slice,
    sync::atomic::{AtomicU32, Ordering},
};
use vhost_net_backend::net_header::SHORT_LEN;

/// Bytes of a slot: a frame of 1500 bytes with its tag, and the kernel's header before it.
const SLOT: usize = 2048;

/// Slots: 2 ms of a million frames a second.
const SLOTS: usize = 2048;

/// Bytes that the kernel allocates at once: a whole number of slots and, whatever a page is, of pages.
const BLOCK: usize = 64 << 10;

const BYTES: usize = SLOT * SLOTS;

/// Frees a ring.
const NO_RING: libc::tpacket_req =
    libc::tpacket_req { tp_block_size: 0, tp_block_nr: 0, tp_frame_size: 0, tp_frame_nr: 0 };

/// What a slot holds.
#[derive(Debug)]
pub(super) enum Held {
    /// A whole frame, behind its net header in [`Slot::bytes`].
    Frame(Message),
    /// Nothing of use: the frame waits at the socket.
    Aside,
    /// A frame that was cut, since too many wait at the socket.
    Cut,
}

/// The ring, mapped for as long as this value lives.
#[derive(Debug)]
pub(super) struct Ring {
    base: NonNull<u8>,
    /// The slot that is filled next.
    next: usize,
}

// SAFETY: the mapping belongs to this value alone and is bound to no thread.
unsafe impl Send for Ring {}

/// A slot that the kernel filled and does not touch until it is given back.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    ring: &'a mut Ring,
    header: libc::tpacket2_hdr,
}

impl Ring {
    /// Sets the ring up; frames that wait at the socket are gone, and so is a ring that it had: a ring is the socket's, and outlives a
    /// process that ended, for the controller keeps the socket.
    ///
    /// # Errors
    /// The system's, as that it has not so much memory.
    pub(super) fn new(socket: BorrowedFd<'_>) -> io::Result<Self> {
        set(socket, libc::PACKET_RX_RING, &NO_RING)?;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK as u32,
            tp_block_nr: (BYTES / BLOCK) as u32,
            tp_frame_size: SLOT as u32,
            tp_frame_nr: SLOTS as u32,
        };
        set(socket, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V2 as i32))?;
        set(socket, libc::PACKET_COPY_THRESH, &1)?;
        set(socket, libc::PACKET_RX_RING, &request)?;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing of ours is replaced.
        let base = unsafe {
            mmap(ptr::null_mut(), BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, socket, 0)
        };
        let base = base.inspect_err(|_| {
            // The first error is the one to tell.
            let _ = set(socket, libc::PACKET_RX_RING, &NO_RING);
        })?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, next: 0 })
    }

    /// The next slot, if the kernel has filled it.
    pub(super) fn next(&mut self) -> Option<Slot<'_>> {
        if self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: the slot lies in the mapping, aligned as a slot is, and begins with this header; the kernel filled it before it
        // set the status, and writes to it no more.
        let header = unsafe { ptr::read(self.slot().as_ptr().cast()) };
        Some(Slot { ring: self, header })
    }

    /// Whether the next slot is the first one again.
    pub(super) fn is_at_start(&self) -> bool {
        self.next == 0
    }

    fn slot(&self) -> NonNull<u8> {
        // SAFETY: `next` is less than SLOTS, so this lies in the mapping.
        unsafe { self.base.add(self.next * SLOT) }
    }

    fn status(&self) -> &AtomicU32 {
        const { assert!(mem::offset_of!(libc::tpacket2_hdr, tp_status) == 0) };
        // SAFETY: the status is the first field of a slot, which is aligned; only atomic accesses are made to it while the kernel
        // may write to it.
        unsafe { AtomicU32::from_ptr(self.slot().as_ptr().cast()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; no reference into it outlives `self`. It cannot fail for such a range.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), BYTES) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}

impl Slot<'_> {
    pub(super) fn held(&self) -> Held {
        let header = &self.header;
        if header.tp_status & libc::TP_STATUS_COPY != 0 {
            return Held::Aside;
        }
        if header.tp_snaplen < header.tp_len || self.frame().is_none() {
            return Held::Cut;
        }
        Held::Frame(Message {
            len: SHORT_LEN + header.tp_snaplen as usize,
            is_cut: false,
            tag: tag(header.tp_status, header.tp_vlan_tpid, header.tp_vlan_tci),
        })
    }

    /// The net header, and the frame.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        let Some((begin, len)) = self.frame() else { return &mut [] };
        // SAFETY: it lies in the slot (checked by `frame`), which is ours alone as long as `self` is borrowed: the kernel writes to it
        // no more until it is given back.
        unsafe { slice::from_raw_parts_mut(self.ring.slot().as_ptr().add(begin), len) }
    }

    /// Where [`Self::bytes`] lie in the slot, and how many; none if the kernel's header does not make sense.
    fn frame(&self) -> Option<(usize, usize)> {
        let begin = usize::from(self.header.tp_mac).checked_sub(SHORT_LEN)?;
        let len = SHORT_LEN + self.header.tp_snaplen as usize;
        (begin >= mem::size_of::<libc::tpacket2_hdr>() && begin + len <= SLOT).then_some((begin, len))
    }

    /// Gives the slot back to the kernel.
    pub(super) fn release(self) {
        self.ring.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.ring.next = (self.ring.next + 1) % SLOTS;
    }
}

/// Frames that were lost since this was asked last: the ring was full, or the net header cannot say what they are.
pub(super) fn losses(socket: BorrowedFd<'_>) -> u64 {
    let mut said = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = mem::size_of_val(&said) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which `said` has.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut said).cast(),
            &raw mut len,
        )
    };
    if done == 0 { said.tp_drops.into() } else { 0 }
}

/// A value that an option of a packet socket takes: plain numbers without padding.
trait Value {}
impl Value for i32 {}
impl Value for libc::tpacket_req {}

fn set<T: Value>(socket: BorrowedFd<'_>, option: libc::c_int, value: &T) -> Result<(), Errno> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` has so many bytes, and is only read.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            option,
            ptr::from_ref(value).cast(),
            len,
        )
    };
    if done == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}
