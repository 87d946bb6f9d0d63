//! A vCPU's registers at a kernel's first instruction.

use super::Entry;
use crate::layout;
use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

/// CR0: protection, the 80387's interface, native error reporting, paging.
const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
/// CR4: physical address extension.
const CR4_PAE: u64 = 1 << 5;
/// EFER: long mode enabled, and active.
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// IA32_MISC_ENABLE, and its bit for fast string operations (Intel SDM vol. 4).
const MISC_ENABLE: u32 = 0x1a0;
const FAST_STRING: u64 = 1;
/// IA32_MTRR_DEF_TYPE: MTRRs are enabled, and what none of them says anything of is write-back (Intel SDM vol. 3, §12.11.2.1).
const MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLED: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;

/// What firmware would have set on every vCPU: registers, and bits of them that are to be set beside those that are.
pub(crate) const MSRS: [(u32, u64); 2] =
    [(MISC_ENABLE, FAST_STRING), (MTRR_DEF_TYPE, MTRR_ENABLED | WRITE_BACK)];

/// `__BOOT_CS` and `__BOOT_DS`, as Linux wants them: the third and fourth descriptor.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;

/// A flat segment of 4 GiB.
fn segment(selector: u16, kind: u8, wide: Width) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: u8::from(wide == Width::Protected),
        s: 1,
        l: u8::from(wide == Width::Long),
        g: 1,
        ..Default::default()
    }
}

/// How wide a code segment's default operands are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Protected,
    Long,
}

/// Execute and read, accessed.
const CODE: u8 = 11;
/// Read and write, accessed.
const DATA: u8 = 3;
/// A busy 32-bit task state segment.
const TSS_BUSY: u8 = 11;

/// The GDT of the 64-bit protocol: nothing twice, then [`BOOT_CS`] and [`BOOT_DS`] (Intel SDM vol. 3, §3.4.5).
pub(super) fn gdt64() -> [u64; 4] {
    [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff]
}

/// Sets the system registers for `entry`, leaving what it does not care for as the reset left it.
pub(crate) fn system(sregs: &mut kvm_sregs, entry: Entry) {
    let width = match entry {
        Entry::Pvh { .. } => Width::Protected,
        Entry::Linux64 { .. } => Width::Long,
    };
    sregs.cs = segment(BOOT_CS, CODE, width);
    // In long mode a data segment's width is of no meaning; Linux' own is 32 bits wide.
    let data = segment(BOOT_DS, DATA, Width::Protected);
    (sregs.ds, sregs.es, sregs.ss, sregs.fs, sregs.gs) = (data, data, data, data, data);
    sregs.tr = kvm_segment { limit: 0x67, type_: TSS_BUSY, present: 1, ..Default::default() };
    sregs.idt = kvm_dtable::default();
    match entry {
        // PVH says nothing of a GDT: the segments are loaded, and a kernel brings its own.
        Entry::Pvh { .. } => {
            sregs.gdt = kvm_dtable::default();
            (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (CR0_PE | CR0_ET, 0, 0, 0);
        }
        Entry::Linux64 { .. } => {
            let limit = u16::try_from(size_of_val(&gdt64()) - 1).expect("32 bytes");
            sregs.gdt = kvm_dtable { base: layout::GDT, limit, ..Default::default() };
            sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
            sregs.cr3 = layout::PAGE_TABLES;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
        }
    }
}

/// The general registers: what a protocol passes, and the flags with nothing but the bit that is always 1.
pub(crate) fn general(entry: Entry) -> kvm_regs {
    let blank = kvm_regs { rflags: 1 << 1, ..Default::default() };
    match entry {
        Entry::Pvh { rip } => kvm_regs { rip, rbx: layout::PVH_START_INFO, ..blank },
        Entry::Linux64 { rip } => kvm_regs { rip, rsi: layout::ZERO_PAGE, ..blank },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The descriptor that a loaded segment would have come from.
    fn descriptor(segment: &kvm_segment) -> u64 {
        let limit = u64::from(segment.limit >> 12);
        let access = u64::from(segment.type_)
            | u64::from(segment.s) << 4
            | u64::from(segment.dpl) << 5
            | u64::from(segment.present) << 7;
        let flags = u64::from(segment.l) << 1 | u64::from(segment.db) << 2 | u64::from(segment.g) << 3;
        limit & 0xffff | access << 40 | (limit >> 16) << 48 | flags << 52
    }

    #[test]
    fn the_loaded_segments_are_those_of_the_gdt() {
        let mut sregs = kvm_sregs::default();
        system(&mut sregs, Entry::Linux64 { rip: 0 });
        let place = |selector: u16| usize::from(selector / 8);
        assert_eq!(descriptor(&sregs.cs), gdt64()[place(sregs.cs.selector)]);
        assert_eq!(descriptor(&sregs.ss), gdt64()[place(sregs.ss.selector)]);
        assert_ne!(sregs.cr0 & CR0_PG, 0);
    }

    #[test]
    fn pvh_starts_flat_and_without_paging() {
        let mut sregs = kvm_sregs { efer: EFER_LME, cr4: CR4_PAE, ..Default::default() };
        system(&mut sregs, Entry::Pvh { rip: 0 });
        assert_eq!((sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer), (CR0_PE | CR0_ET, 0, 0, 0));
        assert_eq!((sregs.cs.db, sregs.cs.l, sregs.cs.limit), (1, 0, u32::MAX));
        assert_eq!((sregs.tr.limit, sregs.tr.s), (0x67, 0));
        assert_eq!(general(Entry::Pvh { rip: 0x10_0020 }).rbx, layout::PVH_START_INFO);
    }
}
