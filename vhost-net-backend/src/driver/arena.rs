//! The memory that driver and device share: a memfd of ours, seen by the device as guest memory.
//!
//! Offsets count from the start of the file. Every access is checked against the length that was mapped, so callers
//! need no `unsafe`; bytes that the device writes meanwhile may be torn, never out of bounds.
#![expect(unsafe_code, reason = "maps the memfd and copies from and to it by raw pointer")]

use super::transmit::MAX_SLOTS;
use crate::prefetch;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

/// The guest-physical address of the first byte.
const GUEST_BASE: u64 = 0x10_0000;

/// Pieces that one system call reads or writes at most: the longest frame in the smallest buffers, with its header.
pub(super) const MAX_PIECES: usize = MAX_SLOTS + 1;

/// Frames that one call of [`super::QueuePair::send_to`] sends at most: 64 cost each as much as 16 (decision 0030).
pub const SENDS: usize = 16;

/// One entry of the memory table that the device gets (vhost-user: "Memory region description").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Guest-physical address.
    pub guest_address: u64,
    /// Offset in the file.
    pub offset: usize,
    /// Bytes.
    pub len: usize,
}

/// Some bytes of an arena, checked once to lie in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    base: *mut u8,
    len: usize,
    arena: PhantomData<&'a Arena>,
}

impl Window<'_> {
    /// Copies bytes in.
    ///
    /// # Panics
    /// If they leave the window.
    #[inline(always)]
    pub(super) fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at <= self.len && bytes.len() <= self.len - at, "bytes leave their buffer");
        // SAFETY: the window lies in the mapping, which its lifetime keeps, and the bytes in the window; `bytes` is ours.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(at), bytes.len()) }
    }

    /// Copies bytes out; false if the window ends before.
    #[inline(always)]
    pub(super) fn read(&self, at: usize, into: &mut [u8]) -> bool {
        if at > self.len || into.len() > self.len - at {
            return false;
        }
        // SAFETY: as above; `into` is ours and cannot overlap the mapping.
        unsafe { ptr::copy_nonoverlapping(self.base.add(at), into.as_mut_ptr(), into.len()) }
        true
    }
}

/// How the file is made and cut into regions.
#[derive(Debug, Clone, Copy)]
pub(super) struct ArenaLayout<'a> {
    pub(super) len: usize,
    pub(super) sealed: bool,
    pub(super) huge_pages: bool,
    /// Where regions end and the next begins, ascending, multiples of a page.
    pub(super) boundaries: &'a [usize],
    /// From `hole.0` on, guest-physical addresses are `hole.1` bytes further up. `hole.0` is a boundary.
    pub(super) hole: (usize, u64),
}

/// Shared memory, mapped for as long as this value lives.
pub struct Arena {
    file: OwnedFd,
    base: NonNull<u8>,
    len: usize,
    regions: Vec<Region>,
    hole: (usize, u64),
}

// SAFETY: the mapping belongs to this value alone, stays until drop, and is only accessed by copies and atomics.
unsafe impl Send for Arena {}
// SAFETY: as above; concurrent copies may tear bytes, which the device could do at any time anyhow.
unsafe impl Sync for Arena {}

impl Arena {
    pub(super) fn new(layout: ArenaLayout<'_>) -> io::Result<Self> {
        let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        if layout.huge_pages {
            flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        }
        let file = rustix::fs::memfd_create("vnet-driver", flags)?;
        rustix::fs::ftruncate(&file, layout.len as u64)?;
        if layout.sealed {
            rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        }
        // SAFETY: a new mapping at an address of the kernel's choice; nothing of ours is replaced.
        let base = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                layout.len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut arena = Self { file, base, len: layout.len, regions: Vec::new(), hole: layout.hole };
        let mut start = 0;
        for end in layout.boundaries.iter().copied().chain([layout.len]) {
            let region =
                Region { guest_address: arena.guest_address(start), offset: start, len: end - start };
            arena.regions.push(region);
            start = end;
        }
        Ok(arena)
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte: never.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory table that the device gets, in order of addresses.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The guest-physical address of the byte at `offset`.
    pub fn guest_address(&self, offset: usize) -> u64 {
        let hole = if offset >= self.hole.0 { self.hole.1 } else { 0 };
        GUEST_BASE + offset as u64 + hole
    }

    /// The address of the byte at `offset` in this process, as ring addresses are given to the device.
    pub fn user_address(&self, offset: usize) -> u64 {
        self.base.as_ptr().addr() as u64 + offset as u64
    }

    /// Where `range` lies in this process, if it does.
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset <= self.len && len <= self.len - offset, "{len} bytes at {offset} leave the arena");
        // SAFETY: just checked to stay within the mapping (or one past its end, with no bytes).
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// If they do not all lie in the arena (this and the other accesses).
    #[inline]
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: `from` is valid for that many bytes (checked by `at`), `into` is ours and cannot overlap the mapping.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
    }

    /// Copies bytes in.
    #[inline]
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: `to` is valid for that many bytes (checked by `at`), `bytes` is ours and cannot overlap the mapping.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    /// `len` bytes at `offset`, to be accessed again and again.
    #[inline]
    pub(super) fn window(&self, offset: usize, len: usize) -> Window<'_> {
        Window { base: self.at(offset, len), len, arena: PhantomData }
    }

    /// Reads the little-endian u16 at an even `offset` at once.
    #[inline]
    pub fn load_u16(&self, offset: usize, order: Ordering) -> u16 {
        u16::from_le(self.atomic_u16(offset).load(order))
    }

    /// Writes the little-endian u16 at an even `offset` at once.
    #[inline]
    pub fn store_u16(&self, offset: usize, value: u16, order: Ordering) {
        self.atomic_u16(offset).store(value.to_le(), order);
    }

    #[inline]
    fn atomic_u16(&self, offset: usize) -> &AtomicU16 {
        assert!(offset.is_multiple_of(2), "ring fields are aligned");
        let at = self.at(offset, 2).cast();
        // SAFETY: in the mapping and aligned (its base is a page's); the reference lives no longer than the mapping.
        unsafe { AtomicU16::from_ptr(at) }
    }

    /// Reads from `fd` into these pieces, (offset, bytes) each, one behind the other (readv(2)); how many bytes.
    pub(super) fn read_from(&self, fd: BorrowedFd<'_>, pieces: &[(usize, usize)]) -> io::Result<usize> {
        let (vectors, count) = self.vectors(pieces);
        // SAFETY: each vector lies in the mapping (checked by `at`), which stays while `self` is borrowed, and holds bytes
        // that may change at any time anyhow.
        uninterrupted(|| unsafe { libc::readv(fd.as_raw_fd(), vectors.as_ptr(), count) })
    }

    /// Writes these pieces to `fd`, one behind the other (writev(2)); how many bytes.
    pub(super) fn write_to(&self, fd: BorrowedFd<'_>, pieces: &[(usize, usize)]) -> io::Result<usize> {
        let (vectors, count) = self.vectors(pieces);
        // SAFETY: as above; the kernel reads what lies there, torn perhaps, as the device could make it.
        uninterrupted(|| unsafe { libc::writev(fd.as_raw_fd(), vectors.as_ptr(), count) })
    }

    /// Sends messages on the socket `fd`, without waiting: each is the next so many of `pieces` as `counts` says, one behind the other
    /// (sendmmsg(2)); how many were sent. An error is that of the first.
    pub(super) fn send_to(
        &self,
        fd: BorrowedFd<'_>,
        pieces: &[(usize, usize)],
        counts: &[usize],
    ) -> io::Result<usize> {
        assert!(counts.len() <= SENDS, "at most {SENDS} messages");
        assert!(counts.iter().sum::<usize>() <= pieces.len(), "each has its pieces");
        let (mut vectors, _) = self.vectors(pieces);
        // SAFETY: all zeros are a `struct mmsghdr`: null pointers and lengths of 0.
        let mut messages: [libc::mmsghdr; SENDS] = unsafe { MaybeUninit::zeroed().assume_init() };
        let mut rest = vectors.as_mut_slice();
        for (message, count) in messages.iter_mut().zip(counts) {
            let (its, others) = rest.split_at_mut(*count);
            message.msg_hdr.msg_iov = its.as_mut_ptr();
            message.msg_hdr.msg_iovlen = *count;
            rest = others;
        }
        let messages = messages.as_mut_ptr();
        // SAFETY: so many messages were filled in; their vectors are as above, and outlive the call.
        uninterrupted(|| unsafe {
            libc::sendmmsg(fd.as_raw_fd(), messages, counts.len() as libc::c_uint, libc::MSG_DONTWAIT)
                as isize
        })
    }

    fn vectors(&self, pieces: &[(usize, usize)]) -> ([libc::iovec; MAX_PIECES], libc::c_int) {
        let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; MAX_PIECES];
        assert!(pieces.len() <= MAX_PIECES, "at most {MAX_PIECES} pieces");
        for (vector, (offset, len)) in vectors.iter_mut().zip(pieces) {
            *vector = libc::iovec { iov_base: self.at(*offset, *len).cast(), iov_len: *len };
        }
        (vectors, pieces.len() as libc::c_int)
    }

    /// Asks for the cache line at `offset`, so that it is here when it is read.
    #[inline]
    pub(super) fn prefetch(&self, offset: usize) {
        prefetch::to_read(self.at(offset, 1));
    }

    /// Asks for the cache line at `offset` as one that will be written: the other core's copy of it goes.
    #[inline]
    pub(super) fn prefetch_for_write(&self, offset: usize) {
        prefetch::to_write(self.at(offset, 1));
    }

    /// Shortens (or lengthens) the file under the mapping; only an unsealed one lets that happen. From then on
    /// touching what is gone raises SIGBUS, here as in the device.
    pub fn truncate(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.file, len)?)
    }

    /// Punches a hole: these pages are given back and read as zeros. Seals do not forbid that.
    pub fn punch(&self, range: Range<usize>) -> io::Result<()> {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.file, how, range.start as u64, range.len() as u64)?)
    }
}

/// Makes a system call until no signal cuts it short; what it returned.
fn uninterrupted(call: impl Fn() -> isize) -> io::Result<usize> {
    loop {
        let why = match usize::try_from(call()) {
            Ok(bytes) => return Ok(bytes),
            Err(_) => io::Error::last_os_error(),
        };
        if why.kind() != io::ErrorKind::Interrupted {
            return Err(why);
        }
    }
}

impl AsFd for Arena {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("len", &self.len)
            .field("regions", &self.regions)
            .finish_non_exhaustive()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; no reference into it outlives `self`. It cannot fail for such a range.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}
