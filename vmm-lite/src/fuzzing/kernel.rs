//! Any bytes as a kernel, beside an initrd of any length.

use super::file;
use crate::{
    boot::{self, Entry, Kernel},
    config::{self, Config, CpuCount},
    console::ConsoleTarget,
    layout::{self, RamSize},
    memory::{self, Ram},
};
use std::ops::Range;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

const INITRD_BYTE: u8 = 0x5a;

fn read<const N: usize>(ram: &Ram, address: u64) -> [u8; N] {
    let mut bytes = [0; N];
    ram.read_slice(&mut bytes, GuestAddress(address)).expect("below the first MiB");
    bytes
}

/// Where the kernel is told that its initrd is.
fn told_initrd(ram: &Ram, entry: Entry) -> Option<Range<u64>> {
    match entry {
        Entry::Pvh { .. } => {
            // nr_modules of hvm_start_info; paddr and size of hvm_modlist_entry.
            let modules = u32::from_le_bytes(read(ram, layout::PVH_START_INFO + 12));
            let [start, size] = [0, 8].map(|at| u64::from_le_bytes(read(ram, layout::PVH_MODULES + at)));
            (modules == 1).then(|| start..start + size)
        }
        Entry::Linux64 { .. } => {
            // ramdisk_image and ramdisk_size of setup_header.
            let [start, size] =
                [0x218, 0x21c].map(|at| u64::from(u32::from_le_bytes(read(ram, layout::ZERO_PAGE + at))));
            (start != 0).then(|| start..start + size)
        }
    }
}

/// What an ELF's program headers claim of the guest's memory; nothing for what is none.
fn claimed(image: &[u8]) -> Vec<Range<u64>> {
    let number = |at: usize, bytes: usize| {
        let field = at.checked_add(bytes).and_then(|end| image.get(at..end)).unwrap_or_default();
        field.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    if !image.starts_with(b"\x7fELF") {
        return Vec::new();
    }
    let (table, entries) = (number(32, 8) as usize, number(56, 2) as usize);
    let headers = (0..entries).map(|entry| table.saturating_add(entry * 56));
    let loads = headers.filter(|at| number(*at, 4) == 1);
    loads.map(|at| number(at + 24, 8)..number(at + 24, 8).saturating_add(number(at + 40, 8))).collect()
}

/// Any bytes as a kernel and an initrd beside it: it is refused with a reason, or what each boot protocol promises is
/// where it is promised, nothing over another, and the first instruction is the kernel's.
///
/// ```text
/// input: how u8 | length of the initrd u16 | kernel
/// how: bit 0 the guest's memory: 4 or 8 MiB; 1: 1 or 16 vCPUs; 2: devices; 3: an initrd; 4-7: its length is shifted left
/// ```
pub fn kernel_image(input: &[u8]) {
    let [how, low, high, image @ ..] = input else { return };
    let set = |bit: u8| how >> bit & 1 != 0;
    let size = RamSize::new(if set(0) { 8 << 20 } else { 4 << 20 }).expect("whole pages");
    let length = usize::from(u16::from_le_bytes([*low, *high])) << (how >> 4).min(8);
    let (kernel, initrd) = (file(image), file(&vec![INITRD_BYTE; length]));
    let (kernel, initrd) = (kernel.expect("memory for a kernel"), initrd.expect("memory for an initrd"));
    let config = Config {
        kernel: Kernel::File(kernel.1),
        initrd: set(3).then_some(initrd.1),
        command_line: "console=ttyS0".into(),
        cpus: CpuCount::new(if set(1) { 16 } else { 1 }).expect("1 to 16"),
        ram: size,
        console: ConsoleTarget::Nobody,
        probe: ConsoleTarget::Nobody,
        nets: Vec::new(),
        disks: Vec::new(),
        rng: false,
        control: None,
        confined: false,
    };
    let devices = if set(2) { layout::MAX_VIRTIO } else { 0 };
    let places: Vec<_> = (0..devices).filter_map(layout::virtio_place).collect();
    let line = config::command_line(&config, &places, 2_000_000).expect("a short one");
    let ram = memory::create(size).expect("memory for a small guest");
    let entry = match boot::load(&ram, &config, &places, &line) {
        Ok(entry) => entry,
        Err(why) => return assert!(!why.to_string().is_empty()),
    };

    let (Entry::Pvh { rip } | Entry::Linux64 { rip }) = entry;
    assert!(rip >= layout::HIGH_START && ram.address_in_range(GuestAddress(rip)), "enters at {rip:#x}");
    let told = told_initrd(&ram, entry);
    assert_eq!(told.is_some(), config.initrd.is_some());
    if let Some(initrd) = told {
        assert!(initrd.start >= layout::HIGH_START && initrd.end <= size.low_end(), "{initrd:x?}");
        assert!(!initrd.contains(&rip), "enters its initrd");
        let mut bytes = vec![0; length];
        ram.read_slice(&mut bytes, GuestAddress(initrd.start)).expect("it is within low memory");
        assert!(bytes == vec![INITRD_BYTE; length], "the initrd is damaged");
        for range in claimed(image) {
            assert!(
                range.is_empty() || range.end <= initrd.start || initrd.end <= range.start,
                "in {range:x?}"
            );
        }
    }

    // Of the first MiB the tables are what they are alone, and nothing else is there.
    let mut first = vec![0; layout::HIGH_START as usize];
    ram.read_slice(&mut first, GuestAddress(0)).expect("every guest has a first MiB");
    let mut take = |start: u64, expected: &[u8]| {
        let there = &mut first[start as usize..][..expected.len()];
        assert!(*there == *expected, "damaged at {start:#x}");
        there.fill(0);
    };
    take(layout::COMMAND_LINE, line.as_bytes_with_nul());
    take(layout::ACPI, &boot::acpi_tables(&config, &places));
    // What they say is tested beside them; a kernel's own header is in one of them.
    let protocol = match entry {
        Entry::Pvh { .. } => layout::PVH_START_INFO..layout::ZERO_PAGE,
        Entry::Linux64 { .. } => layout::GDT..layout::PAGE_TABLES + 0x3000,
    };
    first[protocol.start as usize..protocol.end as usize].fill(0);
    // Most are right; then this is one comparison of memory and no loop.
    if first != vec![0; first.len()] {
        let stray = first.iter().position(|byte| *byte != 0);
        panic!("something lies at {stray:x?}, where nothing is to be");
    }
}
