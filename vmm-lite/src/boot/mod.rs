//! From a kernel image to a vCPU that is about to execute its first instruction.
//!
//! [`load`] puts kernel, initrd and command line into memory and says which protocol the kernel is entered by; [`pvh`]
//! and [`linux`] lay out what each protocol wants to find; [`registers`] is the vCPU's state at that moment.

mod linux;
mod pvh;
pub(crate) mod registers;

use crate::{
    layout::{self, RamSize},
    memory::Ram,
};
use linux_loader::loader::{BzImage, Elf, KernelLoader, elf::PvhBootCapability};
use std::{
    ffi::CStr,
    fs::File,
    io::{self, Read, Seek},
    ops::Range,
    path::PathBuf,
};
use vm_memory::{Bytes, GuestAddress, ReadVolatile};

/// What a machine boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kernel {
    /// A file: an ELF with a PVH note (Xen's `XEN_ELFNOTE_PHYS32_ENTRY`), or a bzImage.
    File(PathBuf),
    /// An ELF that is in our own memory.
    Elf(&'static [u8]),
}

/// Where a kernel is entered, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// In protected mode without paging (the PVH boot ABI of Xen).
    Pvh {
        /// The first instruction.
        rip: u64,
    },
    /// In long mode (Linux' 64-bit boot protocol).
    Linux64 {
        /// The first instruction.
        rip: u64,
    },
}

/// Why a machine cannot boot what it was given.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file that was named cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is neither an ELF nor a bzImage, or a damaged one.
    #[error("{name} cannot be booted: {why}")]
    Kernel {
        /// The kernel.
        name: String,
        /// Why not.
        why: String,
    },
    /// There is too little memory.
    #[error("the initrd of {length} bytes does not fit between the kernel and the end of low memory")]
    Initrd {
        /// Of the initrd.
        length: u64,
    },
    /// A kernel would cut it.
    #[error("the command line has {0} bytes; a kernel reads {most}", most = layout::COMMAND_LINE_SIZE - 1)]
    CommandLine(usize),
    /// A kernel would take its rest for something else.
    #[error("the command line has a NUL in it")]
    CommandLineNul,
    /// The tables of a boot protocol cannot be written.
    #[error("boot tables: {0}")]
    Tables(String),
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
fn tables(why: impl ToString) -> BootError {
    BootError::Tables(why.to_string())
}

/// What was loaded, and where it ends.
struct Loaded {
    entry: Entry,
    end: u64,
    /// A bzImage's own description.
    header: Option<linux_loader::bootparam::setup_header>,
}

/// Loads everything, and writes what the kernel's protocol wants to find.
pub(crate) fn load(
    ram: &Ram,
    size: RamSize,
    kernel: &Kernel,
    initrd: Option<&PathBuf>,
    command_line: &CStr,
) -> Result<Entry, BootError> {
    let loaded = match kernel {
        Kernel::Elf(bytes) => load_kernel(ram, "the bundled guest", &mut io::Cursor::new(*bytes))?,
        Kernel::File(path) => {
            let mut file = open(path)?;
            load_kernel(ram, &path.display().to_string(), &mut file)?
        }
    };
    let most = loaded.header.map_or(u64::MAX, |header| u64::from(header.initrd_addr_max));
    let initrd = match initrd {
        None => None,
        Some(path) => Some(load_initrd(ram, size, path, loaded.end, most)?),
    };
    let bytes = command_line.to_bytes_with_nul();
    ram.write_slice(bytes, GuestAddress(layout::COMMAND_LINE)).map_err(tables)?;
    match (loaded.entry, loaded.header) {
        (Entry::Linux64 { .. }, Some(header)) => linux::write(ram, header, size, initrd, bytes.len())?,
        _ => pvh::write(ram, size, initrd)?,
    }
    Ok(loaded.entry)
}

fn open(path: &PathBuf) -> Result<File, BootError> {
    File::open(path).map_err(|source| BootError::File { path: path.clone(), source })
}

fn load_kernel(
    ram: &Ram,
    name: &str,
    image: &mut (impl Read + ReadVolatile + Seek),
) -> Result<Loaded, BootError> {
    let refuse = |why: String| BootError::Kernel { name: name.to_owned(), why };
    let mut magic = [0; 4];
    image.read_exact(&mut magic).map_err(|why| refuse(why.to_string()))?;
    let start = Some(GuestAddress(layout::HIGH_START));
    if &magic == b"\x7fELF" {
        let loaded = Elf::load(ram, None, image, start).map_err(|why| refuse(why.to_string()))?;
        let PvhBootCapability::PvhEntryPresent(rip) = loaded.pvh_boot_cap else {
            return Err(refuse("an ELF without a PVH entry point (for Linux: CONFIG_PVH)".into()));
        };
        return Ok(Loaded { entry: Entry::Pvh { rip: rip.0 }, end: loaded.kernel_end, header: None });
    }
    let loaded = BzImage::load(ram, None, image, start).map_err(|why| refuse(why.to_string()))?;
    let header = loaded.setup_header.ok_or_else(|| refuse("a bzImage without a header".into()))?;
    let rip = linux::entry(&header, loaded.kernel_load.0).ok_or_else(|| {
        refuse("a kernel without a 64-bit entry point (XLF_KERNEL_64 of boot protocol 2.12)".into())
    })?;
    // Decompressed in place, it is larger than its file.
    let end = loaded.kernel_end.max(loaded.kernel_load.0.saturating_add(u64::from(header.init_size)));
    Ok(Loaded { entry: Entry::Linux64 { rip }, end, header: Some(header) })
}

fn load_initrd(
    ram: &Ram,
    size: RamSize,
    path: &PathBuf,
    kernel_end: u64,
    most: u64,
) -> Result<Range<u64>, BootError> {
    let fail = |source| BootError::File { path: path.clone(), source };
    let mut file = open(path)?;
    let length = file.metadata().map_err(fail)?.len();
    let place = layout::initrd(size, kernel_end, length, most).ok_or(BootError::Initrd { length })?;
    let bytes = usize::try_from(length).map_err(|_| BootError::Initrd { length })?;
    ram.read_exact_volatile_from(GuestAddress(place.start), &mut file, bytes)
        .map_err(|why| fail(io::Error::other(why)))?;
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const GUEST: &[u8] = include_bytes!(env!("VNET_GUEST"));

    fn ram() -> Ram {
        Ram::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap()
    }

    fn load(image: &[u8]) -> Result<Entry, BootError> {
        load_kernel(&ram(), "it", &mut Cursor::new(image)).map(|loaded| loaded.entry)
    }

    #[test]
    fn the_bundled_guest_is_entered_by_its_note() {
        let Entry::Pvh { rip } = load(GUEST).unwrap() else { panic!("an ELF is entered by PVH") };
        assert!((layout::HIGH_START..layout::HIGH_START + GUEST.len() as u64).contains(&rip));
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let mut bzimage = vec![0; 4096];
        bzimage[0x202..0x206].copy_from_slice(b"HdrS");
        for image in [&b""[..], b"\x7fEL", b"#!/bin/sh\n", &[0; 4096], &bzimage, &GUEST[..64]] {
            assert!(matches!(load(image), Err(BootError::Kernel { .. })), "{:?}", image.get(..4));
        }
    }

    #[test]
    fn a_damaged_kernel_is_loaded_or_refused() {
        // SplitMix64 (Steele, Lea, Flood 2014), so that a failure comes again.
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^ (mixed >> 29)
        };
        let mut image = GUEST.to_vec();
        // The ELF header and the program headers; the rest is the kernel's own.
        let headers = 64 + 3 * 56;
        for _ in 0..2000 {
            let (at, byte) = (next() as usize % headers, next() as u8);
            let kept = std::mem::replace(&mut image[at], byte);
            let _ = load(&image);
            // Some damage stays, and gathers.
            if next() % 4 != 0 {
                image[at] = kept;
            }
            if next() % 64 == 0 {
                image.copy_from_slice(GUEST);
            }
        }
    }
}
