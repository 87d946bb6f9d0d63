//! What kind of thing a received file descriptor is: looked at once, before the daemon sees the message.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags, SealFlags, fcntl_get_seals, fcntl_getfl, fcntl_setfl, fstat, fstatfs};
use vm_memory::{FileOffset, MmapRegion};

use super::wire::{Notifier, Region, Request};

/// A received descriptor, as far as the gate cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Descriptor {
    /// An eventfd.
    Eventfd,
    /// A file that can be guest memory.
    Memory(MemoryFile),
    /// A file on this file system, whose pages another process or machine may have to provide.
    Foreign(String),
    /// Something that no message has a use for, in words ("a pipe").
    Unfit(&'static str),
}

/// A file that a frontend offers as guest memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryFile {
    /// Bytes.
    pub length: u64,
    /// The unit in which it can be mapped: 4096, or the size of its huge pages.
    pub page_size: u64,
    /// Open for reading and writing.
    pub writable: bool,
    /// It cannot shrink, or nobody asked for that.
    pub sealed: bool,
    /// Why a trial mapping failed.
    pub unmappable: Option<String>,
}

impl Descriptor {
    /// Looks at the `at`th descriptor of `request`.
    pub fn probe(fd: &OwnedFd, request: &Request, at: usize, demand_seal: bool) -> Self {
        match request {
            Request::SetMemTable(regions) => probe_memory(fd, regions.get(at), demand_seal),
            Request::AddMemReg(region) => probe_memory(fd, Some(region), demand_seal),
            Request::VringFd { notifier, .. } => probe_eventfd(fd, *notifier),
            _ => Self::Unfit("a descriptor"),
        }
    }
}

/// Eventfds are known by the name of their anonymous inode; everything else could block a writer for as long as its
/// reader likes. The write of a call is kept from blocking by O_NONBLOCK, set here. The flag belongs to the open
/// description that the frontend shares, so a hostile one may clear it again: whoever writes must not rely on it
/// for another port's sake.
fn probe_eventfd(fd: &OwnedFd, notifier: Notifier) -> Descriptor {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    if !link.is_ok_and(|link| link.as_os_str() == "anon_inode:[eventfd]") {
        return Descriptor::Unfit(kind_name(fd.as_fd()));
    }
    if notifier != Notifier::Kick {
        let nonblocking = fcntl_getfl(fd).and_then(|flags| fcntl_setfl(fd, flags | OFlags::NONBLOCK));
        if nonblocking.is_err() {
            return Descriptor::Unfit("an eventfd that cannot be made non-blocking");
        }
    }
    Descriptor::Eventfd
}

fn probe_memory(fd: &OwnedFd, region: Option<&Region>, demand_seal: bool) -> Descriptor {
    let (Ok(stat), Ok(flags), Ok(filesystem)) = (fstat(fd), fcntl_getfl(fd), fstatfs(fd)) else {
        return Descriptor::Unfit("a descriptor that cannot be looked at");
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || flags.contains(OFlags::PATH) {
        return Descriptor::Unfit(kind_name(fd.as_fd()));
    }
    if !answers_by_itself(filesystem.f_type) {
        return Descriptor::Foreign(filesystem_name(filesystem.f_type));
    }
    let huge = filesystem.f_type == libc::HUGETLBFS_MAGIC;
    let sealed = !demand_seal || fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
    Descriptor::Memory(MemoryFile {
        length: u64::try_from(stat.st_size).unwrap_or(0),
        page_size: if huge { u64::try_from(stat.st_blksize).unwrap_or(4096) } else { 4096 },
        writable: flags.contains(OFlags::RDWR),
        sealed,
        unmappable: region.and_then(|region| trial_mapping(fd, region)),
    })
}

/// Filesystems on which a page fault ends without the help of whoever sent the file: a worker that touches a page of
/// a FUSE file would wait for the frontend's own server.
fn answers_by_itself(magic: libc::__fsword_t) -> bool {
    [
        libc::TMPFS_MAGIC,
        libc::HUGETLBFS_MAGIC,
        libc::EXT4_SUPER_MAGIC,
        libc::XFS_SUPER_MAGIC,
        libc::BTRFS_SUPER_MAGIC,
    ]
    .contains(&magic)
}

/// The name of a file system that is not taken, or its number ("f_type" of statfs(2)).
fn filesystem_name(magic: libc::__fsword_t) -> String {
    let known = match magic {
        libc::FUSE_SUPER_MAGIC => "FUSE",
        libc::NFS_SUPER_MAGIC => "NFS",
        libc::SMB_SUPER_MAGIC => "SMB",
        libc::OVERLAYFS_SUPER_MAGIC => "overlayfs",
        libc::PROC_SUPER_MAGIC => "procfs",
        libc::SYSFS_MAGIC => "sysfs",
        0x0102_1997 => "9p",
        0x2fc1_2fc1 => "ZFS",
        _ => return format!("a file system of type {magic:#x}"),
    };
    known.to_owned()
}

/// Maps the region as the daemon will and lets it go again: the daemon ends the connection where this fails.
fn trial_mapping(fd: &OwnedFd, region: &Region) -> Option<String> {
    let size = usize::try_from(region.size).ok().filter(|&size| size > 0)?;
    let file = match fd.try_clone() {
        Ok(fd) => File::from(fd),
        Err(error) => return Some(error.to_string()),
    };
    MmapRegion::<()>::from_file(FileOffset::new(file, region.offset), size)
        .err()
        .map(|error| error.to_string())
}

fn kind_name(fd: BorrowedFd<'_>) -> &'static str {
    match fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::RegularFile) => "a regular file",
        Ok(FileType::Directory) => "a directory",
        Ok(FileType::Fifo) => "a pipe",
        Ok(FileType::Socket) => "a socket",
        Ok(FileType::CharacterDevice) => "a character device",
        Ok(FileType::BlockDevice) => "a block device",
        _ => "a descriptor of another kind",
    }
}
