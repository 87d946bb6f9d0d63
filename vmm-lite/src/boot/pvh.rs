//! PVH, Xen's boot ABI ("x86/HVM direct boot ABI"): a start info with a memory map, a command line and a module.

use super::{BootError, tables};
use crate::{
    layout::{self, RamSize},
    memory::Ram,
};
use linux_loader::{
    configurator::{BootConfigurator, BootParams, pvh::PvhBootConfigurator},
    loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info},
};
use std::ops::Range;
use vm_memory::GuestAddress;

/// `XEN_HVM_START_MAGIC_VALUE`: "xEn3" with the 0x80 bit of the "E" set.
const MAGIC: u32 = 0x336e_c578;
/// The first version with a memory map.
const VERSION: u32 = 1;
/// `XEN_HVM_MEMMAP_TYPE_RAM`.
const RAM: u32 = 1;

/// The memory map: one entry for each range that a kernel may use.
fn memory_map(size: RamSize) -> Vec<hvm_memmap_table_entry> {
    let entry = |range: Range<u64>| hvm_memmap_table_entry {
        addr: range.start,
        size: range.end - range.start,
        type_: RAM,
        reserved: 0,
    };
    size.usable().into_iter().map(entry).collect()
}

pub(super) fn write(ram: &Ram, size: RamSize, initrd: Option<Range<u64>>) -> Result<(), BootError> {
    let map = memory_map(size);
    let info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        nr_modules: u32::from(initrd.is_some()),
        modlist_paddr: layout::PVH_MODULES,
        cmdline_paddr: layout::COMMAND_LINE,
        memmap_paddr: layout::PVH_MEMORY_MAP,
        memmap_entries: map.len().try_into().map_err(tables)?,
        rsdp_paddr: layout::ACPI,
        ..Default::default()
    };
    let mut parameters = BootParams::new(&info, GuestAddress(layout::PVH_START_INFO));
    parameters.set_sections(&map, GuestAddress(layout::PVH_MEMORY_MAP));
    if let Some(initrd) = initrd {
        let module = hvm_modlist_entry {
            paddr: initrd.start,
            size: initrd.end - initrd.start,
            cmdline_paddr: 0,
            reserved: 0,
        };
        parameters.set_modules(&[module], GuestAddress(layout::PVH_MODULES));
    }
    PvhBootConfigurator::write_bootparams(&parameters, ram).map_err(tables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn a_start_info_leads_to_map_and_initrd() {
        let size = RamSize::new(16 << 20).unwrap();
        let ram = Ram::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
        write(&ram, size, Some(0x80_0000..0x80_1000)).unwrap();
        let info: hvm_start_info = ram.read_obj(GuestAddress(layout::PVH_START_INFO)).unwrap();
        assert_eq!((info.magic, info.nr_modules, info.memmap_entries), (MAGIC, 1, 2));
        assert_eq!(info.rsdp_paddr, layout::ACPI);
        let module: hvm_modlist_entry = ram.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
        assert_eq!((module.paddr, module.size), (0x80_0000, 0x1000));
        let last = GuestAddress(info.memmap_paddr + size_of::<hvm_memmap_table_entry>() as u64);
        let last: hvm_memmap_table_entry = ram.read_obj(last).unwrap();
        assert_eq!((last.addr, last.addr + last.size, last.type_), (layout::HIGH_START, 16 << 20, RAM));
    }
}
