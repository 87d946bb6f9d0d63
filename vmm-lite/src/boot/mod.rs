//! From a kernel image to a vCPU that is about to execute its first instruction.
//!
//! [`load`] puts kernel, initrd and command line into memory and says which protocol the kernel is entered by; [`pvh`]
//! and [`linux`] lay out what each protocol wants to find; [`acpi`] tells of the machine; [`registers`] is the vCPU's state at that moment.

mod acpi;
mod linux;
mod pvh;
pub(crate) mod registers;

use crate::{
    config::Config,
    layout::{self, RamSize, VirtioPlace},
    memory::{self, Ram},
};
use linux_loader::loader::{BzImage, Elf, KernelLoader, elf::PvhBootCapability};
use rustix::fs::OFlags;
use std::{
    ffi::CStr,
    fs::File,
    io::{self, Read, Seek},
    ops::Range,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, ReadVolatile};

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
    /// There is too little memory for the kernel alone.
    #[error("the kernel needs at least {mib} MiB of memory (--memory)")]
    Memory {
        /// With so much it could begin.
        mib: u64,
    },
    /// There is too little memory beside the kernel.
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
    config: &Config,
    virtio: &[VirtioPlace],
    command_line: &CStr,
) -> Result<Entry, BootError> {
    let size = config.ram;
    let loaded = match &config.kernel {
        Kernel::Elf(bytes) => load_kernel(ram, size, "the bundled guest", &mut io::Cursor::new(*bytes))?,
        Kernel::File(path) => {
            let mut file = open(path)?;
            load_kernel(ram, size, &path.display().to_string(), &mut file)?
        }
    };
    let most = loaded.header.map_or(u64::MAX, |header| u64::from(header.initrd_addr_max));
    let initrd = match &config.initrd {
        None => None,
        Some(path) => Some(load_initrd(ram, size, path, loaded.end, most)?),
    };
    let bytes = command_line.to_bytes_with_nul();
    ram.write_slice(bytes, GuestAddress(layout::COMMAND_LINE)).map_err(tables)?;
    let acpi = acpi_tables(config, virtio);
    ram.write_slice(&acpi, GuestAddress(layout::ACPI)).map_err(tables)?;
    match (loaded.entry, loaded.header) {
        (Entry::Linux64 { .. }, Some(header)) => linux::write(ram, header, size, initrd, bytes.len())?,
        _ => pvh::write(ram, size, initrd)?,
    }
    Ok(loaded.entry)
}

/// What tells a kernel of the machine, for [`layout::ACPI`].
pub(crate) fn acpi_tables(config: &Config, virtio: &[VirtioPlace]) -> Vec<u8> {
    acpi::tables(layout::ACPI, config.cpus, virtio)
}

/// Whether a machine with memory of this size could boot the kernel in `path`.
///
/// # Errors
/// Why it could not.
pub fn bootable(path: &Path, size: RamSize) -> Result<(), BootError> {
    let name = path.display().to_string();
    let ram =
        memory::create(size).map_err(|why| BootError::Kernel { name: name.clone(), why: why.to_string() })?;
    load_kernel(&ram, size, &name, &mut open(path)?).map(drop)
}

fn open(path: &Path) -> Result<File, BootError> {
    // A pipe would have us wait for whoever writes to it.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag of open(2)");
    let opened = File::options().read(true).custom_flags(flags).open(path).and_then(|file| {
        let regular = file.metadata()?.is_file();
        if regular { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
    });
    opened.map_err(|source| BootError::File { path: path.to_owned(), source })
}

fn load_kernel(
    ram: &Ram,
    size: RamSize,
    name: &str,
    image: &mut (impl Read + ReadVolatile + Seek),
) -> Result<Loaded, BootError> {
    let refuse = |why: String| BootError::Kernel { name: name.to_owned(), why };
    let mut magic = [0; 4];
    image.read_exact(&mut magic).map_err(|why| match why.kind() {
        io::ErrorKind::UnexpectedEof => refuse("it is empty, or nearly".into()),
        _ => refuse(why.to_string()),
    })?;
    let start = Some(GuestAddress(layout::HIGH_START));
    if &magic == b"\x7fELF" {
        let segments = segments(image).map_err(|why| refuse(format!("its program headers: {why}")))?;
        if let Some(outside) = segments.iter().find(|segment| !has_room(ram, segment)) {
            let why = "but the guest's memory for kernels, from 1 MiB on, is smaller or elsewhere";
            let (start, end) = (outside.start, outside.end);
            return Err(refuse(format!("it is to lie at {start:#x}..{end:#x}, {why}")));
        }
        let loaded = Elf::load(ram, None, image, start).map_err(|why| refuse(why.to_string()))?;
        let PvhBootCapability::PvhEntryPresent(rip) = loaded.pvh_boot_cap else {
            return Err(refuse("an ELF without a PVH entry point (for Linux: CONFIG_PVH)".into()));
        };
        if !segments.iter().any(|segment| segment.contains(&rip.0)) {
            return Err(refuse(format!("its PVH entry point, {:#x}, is in none of its segments", rip.0)));
        }
        // The loader's own end knows no segment without bytes in the file.
        let end = segments.iter().map(|segment| segment.end).max().unwrap_or_default();
        return Ok(Loaded { entry: Entry::Pvh { rip: rip.0 }, end, header: None });
    }
    if let Some(header) = linux::header(image) {
        let length = image.seek(io::SeekFrom::End(0)).map_err(|why| refuse(why.to_string()))?;
        let (least, end) = (linux::least(&header), linux::end(&header, layout::HIGH_START));
        if length < least {
            return Err(refuse(format!("it is cut short: {length} bytes of at least {least}")));
        }
        // Before it is loaded: a file that is too large for the memory is not a damaged one.
        if end > size.low_end() {
            return Err(BootError::Memory { mib: end.div_ceil(1 << 20) });
        }
    }
    let loaded = BzImage::load(ram, None, image, start).map_err(|why| refuse(why.to_string()))?;
    let header = loaded.setup_header.ok_or_else(|| refuse("a bzImage without a header".into()))?;
    let rip = linux::entry(&header, loaded.kernel_load.0).ok_or_else(|| {
        refuse("a kernel without a 64-bit entry point (XLF_KERNEL_64 of boot protocol 2.12)".into())
    })?;
    if rip >= loaded.kernel_end {
        return Err(refuse(format!("a bzImage that ends before its 64-bit entry point, {rip:#x}")));
    }
    let end = loaded.kernel_end.max(linux::end(&header, loaded.kernel_load.0));
    Ok(Loaded { entry: Entry::Linux64 { rip }, end, header: Some(header) })
}

/// Where the segments of an ELF lie in memory (ELF-64 Object File Format §3, §7), those without bytes in the file included;
/// the loader says it of none.
fn segments(image: &mut (impl Read + Seek)) -> io::Result<Vec<Range<u64>>> {
    const PT_LOAD: u64 = 1;
    let mut header = [0; 64];
    image.rewind()?;
    image.read_exact(&mut header)?;
    let (table, entries) = (number(&header[32..40]), number(&header[56..58]));
    image.seek(io::SeekFrom::Start(table))?;
    let mut segments = Vec::new();
    for _ in 0..entries {
        let mut entry = [0; 56];
        image.read_exact(&mut entry)?;
        let (start, in_file, length) =
            (number(&entry[24..32]), number(&entry[32..40]), number(&entry[40..48]));
        if number(&entry[..4]) != PT_LOAD {
            continue;
        }
        if in_file > length {
            let why = format!("a segment of {length} bytes has {in_file} of them in the file");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        if length > 0 {
            segments.push(start..start.saturating_add(length));
        }
    }
    Ok(segments)
}

/// A number, least byte first.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Whether there is memory there, and none of it is for tables.
fn has_room(ram: &Ram, place: &Range<u64>) -> bool {
    let length = usize::try_from(place.end - place.start);
    place.start >= layout::HIGH_START
        && length.is_ok_and(|length| ram.check_range(GuestAddress(place.start), length))
}

fn load_initrd(
    ram: &Ram,
    size: RamSize,
    path: &Path,
    kernel_end: u64,
    most: u64,
) -> Result<Range<u64>, BootError> {
    let fail = |source| BootError::File { path: path.to_owned(), source };
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
    use linux_loader::bootparam::setup_header;
    use std::io::Cursor;
    use vm_memory::ByteValued;

    const GUEST: &[u8] = include_bytes!(env!("VNET_GUEST"));

    fn load_into(bytes: u64, image: &[u8]) -> Result<Loaded, BootError> {
        let ram = Ram::from_ranges(&[(GuestAddress(0), bytes as usize)]).unwrap();
        load_kernel(&ram, RamSize::new(bytes).unwrap(), "it", &mut Cursor::new(image))
    }

    fn load(image: &[u8]) -> Result<Entry, BootError> {
        load_into(4 << 20, image).map(|loaded| loaded.entry)
    }

    /// As Debian's kernel says of itself: loaded at 1 MiB it goes to 16 MiB, and takes 40 from there.
    fn bzimage() -> Vec<u8> {
        let header = setup_header {
            setup_sects: 1,
            header: 0x5372_6448,
            version: 0x020f,
            loadflags: 1,
            code32_start: 1 << 20,
            kernel_alignment: 2 << 20,
            relocatable_kernel: 1,
            xloadflags: 1,
            pref_address: 16 << 20,
            init_size: 40 << 20,
            ..Default::default()
        };
        let mut image = vec![0x90; 8192];
        image[0x1f1..][..size_of::<setup_header>()].copy_from_slice(header.as_slice());
        image
    }

    #[test]
    fn an_initrd_does_not_lie_where_the_kernel_decompresses_itself() {
        let loaded = load_into(64 << 20, &bzimage()).unwrap();
        assert_eq!((loaded.entry, loaded.end), (Entry::Linux64 { rip: 0x10_0200 }, 56 << 20));
        let size = RamSize::new(64 << 20).unwrap();
        assert_eq!(layout::initrd(size, loaded.end, 9 << 20, u64::MAX), None);
        assert_eq!(layout::initrd(size, loaded.end, 8 << 20, u64::MAX), Some(56 << 20..64 << 20));
    }

    #[test]
    fn a_kernel_with_too_little_memory_says_how_much_it_needs() {
        assert!(load_into(56 << 20, &bzimage()).is_ok());
        let why = load_into((56 << 20) - 4096, &bzimage()).err().unwrap().to_string();
        assert_eq!(why, "the kernel needs at least 56 MiB of memory (--memory)");
        let large = [bzimage(), vec![0; 8 << 20]].concat();
        assert!(matches!(load(&large), Err(BootError::Memory { mib: 56 })));
    }

    #[test]
    fn a_kernel_that_is_cut_short_or_no_file_is_refused() {
        let mut short = bzimage();
        // syssize (in 16 bytes): what follows the setup, one sector more than the boot sector.
        short[0x1f4..][..4].copy_from_slice(&448u32.to_le_bytes());
        assert!(load_into(64 << 20, &short).is_ok());
        short.pop();
        let why = load_into(64 << 20, &short).err().unwrap().to_string();
        assert!(why.ends_with("it is cut short: 8191 bytes of at least 8192"), "{why}");
        assert!(load(b"").unwrap_err().to_string().ends_with("it is empty, or nearly"));
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for path in [&pipe, folder.path()] {
            let why = open(path).unwrap_err().to_string();
            assert_eq!(why, format!("{}: it is not a regular file", path.display()));
        }
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

    /// An ELF of two segments, from where on and how many bytes; the first has one in the file.
    fn elf(entry: u32, segments: &[Range<u64>; 2]) -> Vec<u8> {
        let mut image = vec![0; 64];
        image[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        image[24..32].copy_from_slice(&layout::HIGH_START.to_le_bytes());
        (image[32], image[54], image[56]) = (64, 56, 3);
        let mut header = |kind: u32, offset: u64, start: u64, in_file: u64, length: u64| {
            image.extend(kind.to_le_bytes());
            image.extend([0; 4]);
            [offset, start, start, in_file, length, 1]
                .iter()
                .for_each(|word| image.extend(word.to_le_bytes()));
        };
        let content = 64 + 3 * 56;
        header(4, content, 0, 20, 20);
        for (segment, in_file) in segments.iter().zip([1, 0]) {
            header(1, content, segment.start, in_file, segment.end - segment.start);
        }
        [4, 4, 18].iter().for_each(|word: &u32| image.extend(word.to_le_bytes()));
        image.extend(b"Xen\0");
        image.extend(entry.to_le_bytes());
        image
    }

    #[test]
    fn an_elf_lies_in_memory_behind_the_tables_and_is_entered_where_it_lies() {
        let (code, data) = (0x10_0000..0x10_1000, 0x20_0000..0x30_0000);
        let good = elf(0x10_0800, &[code.clone(), data.clone()]);
        let loaded = load_into(4 << 20, &good).unwrap();
        assert_eq!((loaded.entry, loaded.end), (Entry::Pvh { rip: 0x10_0800 }, data.end));
        for (entry, segments, says) in [
            (0x10_0800, [code.clone(), 0x2_0000..0x2_0010], "it is to lie at 0x20000..0x20010"),
            (0x10_0800, [code.clone(), 0x20_0000..0x40_0001], "it is to lie at 0x200000..0x400001"),
            (0x10_0800, [code.clone(), 8..u64::MAX], "it is to lie at"),
            (0x10_1000, [code.clone(), data.clone()], "entry point, 0x101000, is in none"),
            (0x500, [code, data], "is in none of its segments"),
        ] {
            let why = load(&elf(entry, &segments)).unwrap_err().to_string();
            assert!(why.contains(says), "{why}");
        }
        // The loader copies what is in the file, whatever the segment's length says.
        let short = elf(0x10_0800, &[0x10_0000..0x10_0000, 0x10_0000..0x10_1000]);
        let why = load(&short).unwrap_err().to_string();
        assert!(why.contains("a segment of 0 bytes has 1 of them in the file"), "{why}");
    }

    #[test]
    fn a_bzimage_is_no_shorter_than_up_to_its_entry() {
        let mut image = vec![0; 1024 + 0x201];
        (image[0x1f1], image[0x207], image[0x206], image[0x211], image[0x236]) = (1, 2, 0x0f, 1, 1);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x216] = 0x10;
        assert_eq!(load(&image).unwrap(), Entry::Linux64 { rip: 0x10_0200 });
        image.pop();
        let why = load(&image).unwrap_err().to_string();
        assert!(why.ends_with("ends before its 64-bit entry point, 0x100200"), "{why}");
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
