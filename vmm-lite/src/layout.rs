//! Where what is in the guest's physical memory. Pure: no memory is touched here.
//!
//! ```text
//! 0x0000_0500  GDT                      0x0002_0000  command line
//! 0x0000_6000  PVH start info           0x0010_0000  kernel
//! 0x0000_7000  PVH memory map           under 3 GiB  initrd, then the end of low memory
//! 0x0000_8000  Linux boot parameters    0xd000_0000  virtio-mmio, a page a device
//! 0x0000_9000  page tables (3 pages)    0xfec0_0000  IOAPIC, local APICs, KVM's own pages
//! 0x000e_0000  ACPI tables              4 GiB        what memory did not fit below the hole
//! ```

use std::ops::Range;

/// The GDT that 64-bit Linux and PVH start with.
pub const GDT: u64 = 0x500;
/// `hvm_start_info`.
pub const PVH_START_INFO: u64 = 0x6000;
/// The memory map that `hvm_start_info` refers to.
pub const PVH_MEMORY_MAP: u64 = 0x7000;
/// The module list that `hvm_start_info` refers to.
pub const PVH_MODULES: u64 = 0x7800;
/// `boot_params`, Linux' zero page.
pub const ZERO_PAGE: u64 = 0x8000;
/// PML4, PDPT and page directory, each a page.
pub const PAGE_TABLES: u64 = 0x9000;
/// The command line, with the NUL at its end.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// What x86 Linux reads of its command line, the NUL included (COMMAND_LINE_SIZE).
pub const COMMAND_LINE_SIZE: usize = 2048;
/// Where ordinary memory ends below the first megabyte: the extended BIOS data area would begin here.
pub const LOW_END: u64 = 0x9_fc00;
/// The ACPI tables, in what firmware would occupy: nobody takes it for ordinary memory, and whoever looks for an RSDP
/// looks here.
pub const ACPI: u64 = 0xe_0000;
/// From here on there is ordinary memory again; kernels lie here.
pub const HIGH_START: u64 = 0x10_0000;

/// The end of low memory, and the beginning of what devices occupy below 4 GiB.
pub const HOLE: Range<u64> = 0xc000_0000..0x1_0000_0000;
/// The registers of the virtio devices.
pub const VIRTIO_MMIO: u64 = 0xd000_0000;
/// How far one device's registers lie from the next one's.
pub const VIRTIO_MMIO_STRIDE: u64 = 0x1000;
/// The IOAPIC's registers.
pub const IO_APIC: u32 = 0xfec0_0000;
/// Each local APIC's registers, to its own CPU.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Three pages that KVM needs for itself on Intel's CPUs.
pub const KVM_TSS: u64 = 0xfffb_d000;
/// One more.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;

/// COM1's interrupt.
pub const COM1_GSI: u32 = 4;
/// COM2's interrupt.
pub const COM2_GSI: u32 = 3;
/// The power button's: the last of the IOAPIC's 24 inputs.
pub const BUTTON_GSI: u32 = 23;
/// The first virtio device's interrupt. Edges cannot be shared.
const FIRST_VIRTIO_GSI: u32 = 5;
/// How many virtio devices a machine can have.
pub const MAX_VIRTIO: usize = (BUTTON_GSI - FIRST_VIRTIO_GSI) as usize;

/// Where one virtio device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioPlace {
    /// Its first register.
    pub base: u64,
    /// Its interrupt.
    pub gsi: u32,
}

/// Where the virtio device of this number is; none if there is no room for so many.
pub fn virtio_place(index: usize) -> Option<VirtioPlace> {
    let number = u32::try_from(index).ok().filter(|_| index < MAX_VIRTIO)?;
    Some(VirtioPlace {
        base: VIRTIO_MMIO + u64::from(number) * VIRTIO_MMIO_STRIDE,
        gsi: FIRST_VIRTIO_GSI + number,
    })
}

/// Which virtio device a physical address belongs to, and which of its registers it is.
pub fn virtio_register(address: u64) -> Option<(usize, u64)> {
    let offset = address.checked_sub(VIRTIO_MMIO)?;
    let index = usize::try_from(offset / VIRTIO_MMIO_STRIDE).ok().filter(|index| *index < MAX_VIRTIO)?;
    Some((index, offset % VIRTIO_MMIO_STRIDE))
}

/// How much memory a guest has: whole pages, at least [`RamSize::LEAST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RamSize(u64);

impl RamSize {
    /// Room for the tables above and the bundled guest.
    pub const LEAST: u64 = 4 << 20;
    /// What a guest's physical addresses are certain to reach on any x86-64 (36 bits), less the hole.
    pub const MOST: u64 = 60 << 30;

    /// So many bytes; none if they are too few, too many or no whole pages.
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes < Self::LEAST || bytes > Self::MOST || !bytes.is_multiple_of(4096) {
            return None;
        }
        Some(Self(bytes))
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The physical addresses that are backed by memory, in order, without gaps in the backing file.
    pub fn ranges(self) -> Vec<Range<u64>> {
        let high = self.0.checked_sub(HOLE.start).filter(|rest| *rest > 0);
        let high = high.map(|rest| HOLE.end..HOLE.end + rest);
        std::iter::once(0..self.low_end()).chain(high).collect()
    }

    /// What of it a kernel may use as it likes.
    pub fn usable(self) -> Vec<Range<u64>> {
        let mut usable = vec![0..LOW_END, HIGH_START..self.low_end()];
        usable.extend(self.ranges().into_iter().skip(1));
        usable
    }

    /// The end of memory below the hole.
    pub fn low_end(self) -> u64 {
        self.0.min(HOLE.start)
    }
}

/// Where an initrd of this length lies: at the end of low memory, behind the kernel; none if it does not fit. `most` is
/// the last address that the kernel can take it at.
pub fn initrd(ram: RamSize, kernel_end: u64, length: u64, most: u64) -> Option<Range<u64>> {
    let end = ram.low_end().min(most.saturating_add(1));
    let start = end.checked_sub(length)? & !0xfff;
    (start >= kernel_end.max(HIGH_START)).then_some(start..start + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn memory_goes_around_the_hole() {
        let small = RamSize::new(512 << 20).unwrap();
        assert_eq!((small.ranges().len(), &small.ranges()[0]), (1, &(0..512 << 20)));
        assert_eq!(small.usable(), [0..LOW_END, HIGH_START..512 << 20]);
        let exact = RamSize::new(3 * GIB).unwrap();
        assert_eq!((exact.ranges().len(), &exact.ranges()[0]), (1, &(0..3 * GIB)));
        let large = RamSize::new(8 * GIB).unwrap();
        assert_eq!(large.ranges(), [0..3 * GIB, 4 * GIB..9 * GIB]);
        assert_eq!(large.usable(), [0..LOW_END, HIGH_START..3 * GIB, 4 * GIB..9 * GIB]);
    }

    #[test]
    fn memory_is_whole_pages_of_a_bounded_number() {
        for bad in [0, RamSize::LEAST - 4096, RamSize::LEAST + 1, RamSize::MOST + 4096, u64::MAX] {
            assert_eq!(RamSize::new(bad), None, "{bad}");
        }
        assert_eq!(RamSize::new(RamSize::MOST).map(RamSize::bytes), Some(RamSize::MOST));
    }

    #[test]
    fn each_virtio_device_has_a_page_and_an_interrupt_of_its_own() {
        let places: Vec<_> = (0..).map_while(virtio_place).collect();
        assert_eq!(places.len(), MAX_VIRTIO);
        for (index, place) in places.iter().enumerate() {
            assert_eq!(virtio_register(place.base), Some((index, 0)));
            assert_eq!(virtio_register(place.base + 0xfff), Some((index, 0xfff)));
            assert!(HOLE.contains(&place.base) && (COM1_GSI + 1..BUTTON_GSI).contains(&place.gsi));
        }
        assert_eq!(virtio_register(VIRTIO_MMIO - 1), None);
        assert_eq!(virtio_register(places[MAX_VIRTIO - 1].base + VIRTIO_MMIO_STRIDE), None);
        assert_eq!(virtio_register(u64::MAX), None);
    }

    #[test]
    fn an_initrd_lies_behind_the_kernel_or_nowhere() {
        let ram = RamSize::new(64 << 20).unwrap();
        assert_eq!(initrd(ram, 0x200_0000, 5000, u64::MAX), Some(0x3ff_e000..0x3ff_e000 + 5000));
        assert_eq!(initrd(ram, 0x200_0000, 5000, 0x2ff_ffff), Some(0x2ff_e000..0x2ff_e000 + 5000));
        assert_eq!(initrd(ram, 0x200_0000, 33 << 20, u64::MAX), None);
        assert_eq!(initrd(ram, 0, 64 << 20, u64::MAX), None);
        assert_eq!(initrd(ram, 0, u64::MAX, u64::MAX), None);
    }

    #[test]
    fn the_tables_of_the_first_megabyte_do_not_overlap() {
        let map_entries = 8;
        let tables = [
            GDT..GDT + 0x100,
            PVH_START_INFO..PVH_START_INFO + 56,
            PVH_MEMORY_MAP..PVH_MEMORY_MAP + map_entries * 24,
            PVH_MODULES..PVH_MODULES + 32,
            ZERO_PAGE..ZERO_PAGE + 4096,
            PAGE_TABLES..PAGE_TABLES + 3 * 4096,
            COMMAND_LINE..COMMAND_LINE + COMMAND_LINE_SIZE as u64,
        ];
        assert!(tables.windows(2).all(|pair| pair[0].end <= pair[1].start));
        assert!(tables.last().unwrap().end <= LOW_END);
    }
}
