//! Linux' 64-bit boot protocol (Documentation/arch/x86/boot.rst, "64-bit boot protocol"): a zero page, a GDT, and page
//! tables that map the first GiB onto itself.

use super::{BootError, registers, tables};
use crate::{
    layout::{self, RamSize},
    memory::Ram,
};
use linux_loader::{
    bootparam::{boot_e820_entry, boot_params, setup_header},
    configurator::{BootConfigurator, BootParams, linux::LinuxBootConfigurator},
};
use std::{
    io::{Read, Seek, SeekFrom},
    ops::Range,
};
use vm_memory::{ByteValued, Bytes, GuestAddress};

/// `type_of_loader`: none of those that have a number.
const LOADER_UNDEFINED: u8 = 0xff;
/// `xloadflags`: there is a 64-bit entry point.
const XLF_KERNEL_64: u16 = 1;
/// The first protocol with `xloadflags`.
const VERSION_2_12: u16 = 0x020c;
/// Where the 64-bit entry point lies, seen from where the kernel is loaded.
const ENTRY_64: u64 = 0x200;
/// Where the setup header is in a bzImage, and the magic number in it ("HdrS").
const HEADER_AT: u64 = 0x1f1;
const MAGIC: u32 = 0x5372_6448;
/// E820_RAM.
const RAM: u32 = 1;

/// The 64-bit entry point of a kernel that was loaded at `at`; none if it has no such entry.
pub(super) fn entry(header: &setup_header, at: u64) -> Option<u64> {
    // Packed: read by value.
    let (version, flags) = (header.version, header.xloadflags);
    (version >= VERSION_2_12 && flags & XLF_KERNEL_64 != 0).then(|| at.checked_add(ENTRY_64))?
}

/// The header of a bzImage that has a 64-bit entry point.
pub(super) fn header(image: &mut (impl Read + Seek)) -> Option<setup_header> {
    let mut header = setup_header::default();
    image.seek(SeekFrom::Start(HEADER_AT)).ok()?;
    image.read_exact(header.as_mut_slice()).ok()?;
    (header.header == MAGIC && entry(&header, 0).is_some()).then_some(header)
}

/// How long the file of such a kernel is at least: boot sector, setup (boot.rst on `setup_sects`: 0 is 4), and the kernel
/// itself, in units of 16 bytes.
pub(super) fn least(header: &setup_header) -> u64 {
    let sectors = if header.setup_sects == 0 { 4 } else { header.setup_sects };
    (u64::from(sectors) + 1) * 512 + u64::from(header.syssize) * 16
}

/// Where ends what a kernel that was loaded at `at` uses before it looks at its memory map. It decompresses itself at an
/// address of its own choice, and takes `init_size` bytes there: at `pref_address` if it was loaded below that or
/// cannot be moved, else where it is, aligned (boot.rst on `init_size`; arch/x86/boot/compressed/head_64.S).
pub(super) fn end(header: &setup_header, at: u64) -> u64 {
    let (preferred, size) = (header.pref_address, u64::from(header.init_size));
    let aligned = at.checked_next_multiple_of(header.kernel_alignment.into()).unwrap_or(at);
    let start = if header.relocatable_kernel == 0 { preferred } else { aligned.max(preferred) };
    start.saturating_add(size)
}

/// The zero page.
fn zero_page(
    header: setup_header,
    size: RamSize,
    initrd: Option<Range<u64>>,
    command_line_bytes: usize,
) -> Result<boot_params, BootError> {
    let mut page = boot_params { hdr: header, acpi_rsdp_addr: layout::ACPI, ..Default::default() };
    page.hdr.type_of_loader = LOADER_UNDEFINED;
    page.hdr.cmd_line_ptr = layout::COMMAND_LINE.try_into().map_err(tables)?;
    page.hdr.cmdline_size = command_line_bytes.try_into().map_err(tables)?;
    // Without an initrd too: the loader writes both, and what the kernel's file holds there is nobody's.
    let initrd = initrd.unwrap_or_default();
    page.hdr.ramdisk_image = initrd.start.try_into().map_err(tables)?;
    page.hdr.ramdisk_size = (initrd.end - initrd.start).try_into().map_err(tables)?;
    let usable = size.usable();
    page.e820_entries = usable.len().try_into().map_err(tables)?;
    for (entry, range) in page.e820_table.iter_mut().zip(usable) {
        *entry = boot_e820_entry { addr: range.start, size: range.end - range.start, r#type: RAM };
    }
    Ok(page)
}

/// The three page tables, in the order in which they lie at [`layout::PAGE_TABLES`].
fn page_tables() -> [[u64; 512]; 3] {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let mut pages = [[0; 512]; 3];
    pages[0][0] = (layout::PAGE_TABLES + 0x1000) | PRESENT_WRITABLE;
    pages[1][0] = (layout::PAGE_TABLES + 0x2000) | PRESENT_WRITABLE;
    for (number, entry) in (0..).zip(&mut pages[2]) {
        *entry = number << 21 | LARGE | PRESENT_WRITABLE;
    }
    pages
}

pub(super) fn write(
    ram: &Ram,
    header: setup_header,
    size: RamSize,
    initrd: Option<Range<u64>>,
    command_line_bytes: usize,
) -> Result<(), BootError> {
    let page = zero_page(header, size, initrd, command_line_bytes)?;
    let parameters = BootParams::new(&page, GuestAddress(layout::ZERO_PAGE));
    LinuxBootConfigurator::write_bootparams(&parameters, ram).map_err(tables)?;
    for (number, table) in (0..).zip(page_tables()) {
        let address = GuestAddress(layout::PAGE_TABLES + number * 0x1000);
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        ram.write_slice(&bytes, address).map_err(tables)?;
    }
    let gdt: Vec<u8> = registers::gdt64().iter().flat_map(|entry| entry.to_le_bytes()).collect();
    ram.write_slice(&gdt, GuestAddress(layout::GDT)).map_err(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zero_page_tells_of_memory_initrd_and_command_line() {
        let size = RamSize::new(5 << 30).unwrap();
        let header = setup_header { version: VERSION_2_12, xloadflags: XLF_KERNEL_64, ..Default::default() };
        assert_eq!(entry(&header, 0x10_0000), Some(0x10_0200));
        let page = zero_page(header, size, Some(0x3000_0000..0x3000_0123), 42).unwrap();
        assert_eq!((page.e820_entries, page.acpi_rsdp_addr), (3, layout::ACPI));
        let (last, hdr) = (page.e820_table[2], page.hdr);
        assert_eq!((last.addr, last.size), (4 << 30, 2 << 30));
        assert_eq!((hdr.ramdisk_image, hdr.ramdisk_size), (0x3000_0000, 0x123));
        assert_eq!((hdr.cmd_line_ptr, hdr.cmdline_size), (0x2_0000, 42));
    }

    #[test]
    fn a_kernel_is_told_of_no_initrd_though_its_file_speaks_of_one() {
        let header = setup_header { ramdisk_image: 0x1000, ramdisk_size: 5, ..Default::default() };
        let hdr = zero_page(header, RamSize::new(4 << 20).unwrap(), None, 1).unwrap().hdr;
        let told = (hdr.ramdisk_image, hdr.ramdisk_size);
        assert_eq!(told, (0, 0));
    }

    #[test]
    fn a_kernel_without_a_64_bit_entry_is_known() {
        let old = setup_header { version: 0x020b, xloadflags: XLF_KERNEL_64, ..Default::default() };
        let short = setup_header { version: VERSION_2_12, xloadflags: 0, ..Default::default() };
        let wraps = setup_header { version: VERSION_2_12, xloadflags: XLF_KERNEL_64, ..Default::default() };
        assert_eq!((entry(&old, 0), entry(&short, 0), entry(&wraps, u64::MAX)), (None, None, None));
    }

    #[test]
    fn a_kernel_ends_where_it_decompresses_itself() {
        const MIB: u64 = 1 << 20;
        let usual = setup_header {
            relocatable_kernel: 1,
            kernel_alignment: 2 << 20,
            pref_address: 16 * MIB,
            init_size: 40 << 20,
            ..Default::default()
        };
        assert_eq!(end(&usual, MIB), 56 * MIB, "loaded below where it wants to be");
        assert_eq!(end(&usual, 33 * MIB), 74 * MIB, "loaded above, and not aligned");
        assert_eq!(end(&setup_header { relocatable_kernel: 0, ..usual }, 33 * MIB), 56 * MIB);
        assert_eq!(end(&setup_header { pref_address: 0, kernel_alignment: 0, ..usual }, MIB), 41 * MIB);
        assert_eq!(end(&setup_header { pref_address: u64::MAX, ..usual }, MIB), u64::MAX);
        assert_eq!(end(&usual, u64::MAX), u64::MAX);
    }

    #[test]
    fn the_first_gib_is_mapped_onto_itself() {
        let tables = page_tables();
        let walk = |address: u64| {
            let place = |shift: u32| usize::try_from(address >> shift & 511).unwrap();
            let next = |entry: u64| usize::try_from((entry & !0xfff) - layout::PAGE_TABLES).unwrap() / 0x1000;
            let pdpt = tables[next(tables[0][place(39)])];
            let directory = tables[next(pdpt[place(30)])];
            (directory[place(21)] & !0x1f_ffff) + (address & 0x1f_ffff)
        };
        for address in [0, 0x10_0200, 0x3fff_ffff] {
            assert_eq!(walk(address), address);
        }
    }
}
