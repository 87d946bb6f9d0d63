//! From the machine's first instruction to Rust: PVH's 32-bit entry, long mode, ring 3.
//!
//! Ring 0 is left after some twenty instructions: where KVM is paravirtual it is interpreted, while ring 3 is native
//! everywhere. So what is long of the page tables is constant, and nothing is cleared: the VMM's memory is zero.
#![expect(unsafe_code, reason = "entry code, and what the VMM left in memory for it")]

use core::{arch::global_asm, ffi::CStr, ptr};

global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .balign 4
    .long 4                 # bytes of the name
    .long 4                 # bytes of the address
    .long 18                # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_entry

    .section .text.boot, "ax"
    .code32
    .global pvh_entry
pvh_entry:                  # protected mode, flat, no paging; ebx: hvm_start_info
    mov eax, 0x620          # CR4: PAE, and SSE is the guest's (OSFXSR, OSXMMEXCPT)
    mov cr4, eax
    mov dword ptr [pml4], offset pdpt + 7
    mov dword ptr [pdpt], offset memory_directory + 7
    mov dword ptr [pdpt + 24], offset device_directory + 7
    mov eax, offset pml4
    mov cr3, eax
    mov ecx, 0xc0000080     # EFER: long mode (LME)
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, 0x80000033     # CR0: paging, native errors, the FPU is there (PG, NE, ET, MP, PE)
    mov cr0, eax
    mov eax, offset tss     # its address, as a descriptor has it: in three pieces
    mov [tss_descriptor + 2], ax
    shr eax, 16
    mov [tss_descriptor + 4], al
    mov [tss_descriptor + 7], ah
    mov word ptr [tss + 102], 104   # where its bitmap begins
    mov byte ptr [tss_end - 1], 0xff    # and that it ends
    lgdt [gdt_pointer]
    .byte 0xea              # a far jump to 64-bit code
    .long long_mode
    .word 0x08

    .code64
long_mode:
    mov esp, offset stack_top
    mov eax, 0x28
    ltr ax
    mov edi, ebx
    push 0x1b               # ss: the user's data
    push offset stack_top - 8   # rsp, as after a call
    push 2                  # rflags: nothing but the bit that is always 1
    push 0x23               # cs: the user's code
    push offset {start}
    iretq

    # The CPU writes to it (accessed, busy), and so did we.
    .section .data.boot, "aw"
    .balign 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 0x08: code, ring 0
    .quad 0x00cf93000000ffff    # 0x10: data, ring 0
    .quad 0x00cff3000000ffff    # 0x18: data, ring 3
    .quad 0x00affb000000ffff    # 0x20: code, ring 3
tss_descriptor:                 # 0x28: the task state segment, available
    .word tss_end - tss - 1
    .byte 0, 0, 0, 0x89, 0, 0
    .quad 0
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .quad gdt

    # The first GiB (memory) and the fourth (devices) mapped onto themselves, for ring 3. The CPU notes accesses in
    # page tables.
    .balign 4096
memory_directory:
    .set page, 0
    .rept 512
    .quad page + 0x87       # 2 MiB, user, writable, present
    .set page, page + 0x200000
    .endr
device_directory:
    .set page, 0xc0000000
    .rept 512
    .quad page + 0x97       # the same, not cached
    .set page, page + 0x200000
    .endr

    # Their upper levels have three entries in all, which the entry writes.
    .section .bss.boot, "aw", @nobits
    .balign 4096
pml4:
    .fill 4096
pdpt:
    .fill 4096
    .fill {stack_size}
stack_top:
    # The task state segment. Its I/O permission bitmap lets ring 3 use all ports, for a clear bit is a port that may be
    # used. IOPL 3 would do that too, but not everywhere: a paravirtual KVM drops it on the way to ring 3.
tss:
    .fill 104 + 8192 + 1
tss_end:
    "#,
    start = sym crate::start,
    stack_size = const 512 * 1024,
);

/// `hvm_start_info` (Xen's public/arch-x86/hvm/start_info.h): what the VMM tells of the machine.
#[repr(C)]
pub(crate) struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

/// `hvm_memmap_table_entry`.
#[repr(C)]
struct MemoryRange {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
/// `XEN_HVM_MEMMAP_TYPE_RAM`.
const RAM: u32 = 1;
/// The longest command line that is read.
const LONGEST_LINE: usize = 4096;
/// What of the memory is mapped, by the tables above.
const MAPPED: usize = 1 << 30;

unsafe extern "C" {
    /// Behind all that belongs to the image; `link.ld` defines it.
    static image_end: u8;
}

/// The machine, as it is found.
pub(crate) struct Found {
    /// The kernel's command line.
    pub(crate) command_line: &'static str,
    /// Memory that belongs to nobody.
    pub(crate) free: core::ops::Range<usize>,
}

/// Reads what the VMM left.
///
/// # Safety
///
/// `info` is what PVH's entry was given, and nothing was written to memory outside the image yet.
pub(crate) unsafe fn find(info: *const StartInfo) -> Found {
    // SAFETY: the caller's promise; all of it is below 1 GiB, hence mapped.
    let info = unsafe { &*info };
    assert!(info.magic == MAGIC && info.version >= 1, "not started by PVH with a memory map");
    let entries = info.memory_map_entries as usize;
    // SAFETY: a list of that many entries lies there (PVH boot ABI, version 1).
    let map = unsafe {
        core::slice::from_raw_parts(ptr::with_exposed_provenance(info.memory_map as usize), entries)
    };
    let start = (&raw const image_end).addr();
    let holds = |range: &&MemoryRange| {
        range.kind == RAM && (range.address..range.address + range.size).contains(&(start as u64))
    };
    let here = map.iter().find(holds).expect("the image lies in memory");
    let end = usize::try_from(here.address + here.size).map_or(MAPPED, |end| end.min(MAPPED));
    let line = ptr::with_exposed_provenance(info.command_line as usize);
    // SAFETY: it lies in memory that is mapped and that nobody writes to any more, and so does what is behind it.
    let line = unsafe { core::slice::from_raw_parts(line, LONGEST_LINE) };
    let line = CStr::from_bytes_until_nul(line).expect("PVH's command line ends with a NUL");
    Found { command_line: line.to_str().expect("a command line in UTF-8"), free: start..end }
}
