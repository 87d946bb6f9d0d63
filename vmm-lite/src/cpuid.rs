//! What CPUID tells a vCPU about itself (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E). All else is what KVM
//! supports.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Leaf 1 ECX: the local APIC's timer can be armed by a TSC value; KVM's own APIC can.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 ECX: a hypervisor is present, so its leaves from 0x4000_0000 on are worth reading (kvmclock is there).
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 EDX: EBX says how many logical processors a package has.
const HTT: u32 = 1 << 28;
/// Leaf 1 ECX, and leaf 0x8000_0001 ECX: a guest could run guests of its own, which is more than we answer for.
const VMX: u32 = 1 << 5;
const SVM: u32 = 1 << 2;

/// Leaves 0xb and 0x1f, ECX bits 15:8: what a level of the topology is made of.
const LEVEL_SMT: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// What vCPU `number` of `count` is told where KVM supports `supported`: one package of cores with one thread each,
/// whose APIC ids are their numbers.
pub(crate) fn of(supported: &[kvm_cpuid_entry2], number: u8, count: u8) -> Vec<kvm_cpuid_entry2> {
    // Leaf 0's EBX: "Auth" (AMD), "Hygo".
    let amd =
        supported.iter().any(|leaf| leaf.function == 0 && [0x6874_7541, 0x6f67_7948].contains(&leaf.ebx));
    let mut told = Vec::with_capacity(supported.len() + 4);
    for entry in supported {
        match (entry.function, entry.index) {
            // KVM says no more of the topology than that there is such a leaf.
            (leaf @ (0xb | 0x1f), 0) => told.extend((0..3).map(|level| topology(leaf, level, number, count))),
            (0xb | 0x1f, _) => {}
            _ => told.push(personalised(*entry, amd, number.into(), count.into())),
        }
    }
    told
}

/// How many bits of an APIC id tell the cores of a package apart.
fn core_bits(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

/// Extended topology: by how many bits an APIC id is shifted to the next level's, and how many logical processors a part
/// of this level has.
fn topology(function: u32, level: u32, number: u8, count: u8) -> kvm_cpuid_entry2 {
    let (shift, there, kind) = match level {
        0 => (0, 1, LEVEL_SMT),
        1 => (core_bits(count.into()), count.into(), LEVEL_CORE),
        _ => (0, 0, 0),
    };
    kvm_cpuid_entry2 {
        function,
        index: level,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: there,
        ecx: level | kind << 8,
        edx: number.into(),
        ..Default::default()
    }
}

fn personalised(mut entry: kvm_cpuid_entry2, amd: bool, number: u32, count: u32) -> kvm_cpuid_entry2 {
    match entry.function {
        1 => {
            entry.ebx = entry.ebx & 0xffff | count.next_power_of_two() << 16 | number << 24;
            entry.ecx = (entry.ecx | TSC_DEADLINE | HYPERVISOR) & !VMX;
            entry.edx = if count > 1 { entry.edx | HTT } else { entry.edx & !HTT };
        }
        // Deterministic cache parameters: how many share a cache and, on Intel, how many cores there are, each less one.
        4 | 0x8000_001d if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 7;
            let sharing = if level >= 3 { count.next_power_of_two() - 1 } else { 0 };
            let cores = if entry.function == 4 { count.next_power_of_two() - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | sharing << 14 | cores << 26;
        }
        0x8000_0001 => entry.ecx &= !SVM,
        // How many cores there are, less one, and how many bits of an APIC id tell them apart.
        0x8000_0008 if amd => entry.ecx = entry.ecx & !0xf0ff | (count - 1) | core_bits(count) << 12,
        // What SVM can do.
        0x8000_000a => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
        // The APIC id; the core's number, of one thread; and the only node's.
        0x8000_001e if amd => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (number, number, 0, 0),
        _ => {}
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{layout::RamSize, memory, vm::Vm};
    use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
    use kvm_ioctls::Kvm;

    /// What KVM_GET_SUPPORTED_CPUID returned on an AMD machine (2026), but for most of the leaves that are all zero: function,
    /// index, flags, EAX, EBX, ECX, EDX.
    const RECORDED: [[u32; 7]; 26] = [
        [0, 0, 0, 0x1c, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
        [1, 0, 0, 0xa1_0f11, 0x2_0800, 0x8120_2000, 0x78b_fbff],
        [6, 0, 0, 4, 0, 0, 0],
        [7, 0, 1, 1, 0x180_0002, 0x104, 0x2000_0000],
        // EDX is the APIC id of the CPU that was asked.
        [0xb, 0, 1, 0, 0, 0, 1],
        [0xd, 0, 1, 0xe7, 0x980, 0x980, 0],
        [0xd, 2, 1, 0x100, 0x240, 0, 0],
        [0xd, 5, 1, 0x40, 0x340, 0, 0],
        [0xd, 6, 1, 0x200, 0x380, 0, 0],
        [0xd, 7, 1, 0x400, 0x580, 0, 0],
        [0x8000_0000, 0, 0, 0x8000_0021, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
        [0x8000_0001, 0, 0, 0xa1_0f11, 0x4000_0000, 0x40_0393, 0x23d3_fbff],
        [0x8000_0005, 0, 0, 0xff48_ff40, 0xff48_ff40, 0x2008_0140, 0x2008_0140],
        [0x8000_0006, 0, 0, 0x5c00_2200, 0x6c00_4200, 0x400_6140, 0xa00_9140],
        [0x8000_0007, 0, 0, 0, 0, 0, 0x100],
        [0x8000_0008, 0, 0, 0x3030, 0x5002_0005, 0x7001, 0],
        [0x8000_000a, 0, 0, 0, 0, 0, 0],
        [0x8000_001a, 0, 0, 6, 0, 0, 0],
        [0x8000_001d, 0, 1, 0x121, 0x1c0_003f, 0x3f, 0],
        [0x8000_001d, 1, 1, 0x122, 0x1c0_003f, 0x3f, 0],
        [0x8000_001d, 2, 1, 0x143, 0x1c0_003f, 0x7ff, 2],
        [0x8000_001d, 3, 1, 0x4163, 0x3c0_003f, 0x7fff, 1],
        [0x8000_001e, 0, 0, 0, 0, 0, 0],
        [0x8000_0021, 0, 0, 0x204, 0, 6, 0],
        [0x4000_0000, 0, 0, 0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d],
        [0x4000_0001, 0, 0, 0x100_7efb, 0, 0, 0],
    ];

    fn recorded() -> Vec<kvm_cpuid_entry2> {
        let entry = |[function, index, flags, eax, ebx, ecx, edx]: [u32; 7]| kvm_cpuid_entry2 {
            function,
            index,
            flags,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        };
        RECORDED.map(entry).to_vec()
    }

    fn leaf(told: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        let mut found = told.iter().filter(|entry| (entry.function, entry.index) == (function, index));
        let leaf = *found.next().unwrap_or_else(|| panic!("leaf {function:#x}.{index}"));
        assert!(found.next().is_none(), "leaf {function:#x}.{index} is there twice");
        leaf
    }

    /// One package of `count` cores of a thread each, of which this is `number`: wherever a kernel may look for it.
    fn assert_one_package(told: &[kvm_cpuid_entry2], number: u32, count: u32) {
        let bits = count.next_power_of_two().trailing_zeros();
        let one = leaf(told, 1, 0);
        assert_eq!((one.ebx >> 24, one.ebx >> 16 & 0xff), (number, 1 << bits));
        assert_eq!((one.edx & HTT != 0, one.ecx & HYPERVISOR), (count > 1, HYPERVISOR));
        for function in [0xb, 0x1f] {
            if !told.iter().any(|entry| entry.function == function) {
                continue;
            }
            for (level, (shift, there, kind)) in
                (0..).zip([(0, 1, LEVEL_SMT), (bits, count, LEVEL_CORE), (0, 0, 0)])
            {
                let entry = leaf(told, function, level);
                assert_eq!(entry.flags, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
                assert_eq!((entry.eax, entry.ebx), (shift, there), "level {level}");
                assert_eq!((entry.ecx, entry.edx), (level | kind << 8, number), "level {level}");
            }
        }
        if leaf(told, 0, 0).ebx == 0x6874_7541 {
            let sizes = leaf(told, 0x8000_0008, 0).ecx;
            assert_eq!((sizes & 0xff, sizes >> 12 & 0xf), (count - 1, bits));
            for unit in told.iter().filter(|entry| entry.function == 0x8000_001e) {
                assert_eq!((unit.eax, unit.ebx, unit.ecx), (number, number, 0));
            }
        }
    }

    fn assert_not_nested(told: &[kvm_cpuid_entry2]) {
        assert_eq!(leaf(told, 1, 0).ecx & VMX, 0);
        assert_eq!(leaf(told, 0x8000_0001, 0).ecx & SVM, 0);
        for entry in told.iter().filter(|entry| entry.function == 0x8000_000a) {
            assert_eq!((entry.eax, entry.ebx, entry.ecx, entry.edx), (0, 0, 0, 0));
        }
    }

    #[test]
    fn each_vcpu_knows_its_apic_id_and_that_all_are_cores_of_one_package() {
        let mut supported = recorded();
        // Intel's newer CPUs have both.
        supported.push(kvm_cpuid_entry2 { function: 0x1f, ..leaf(&supported, 0xb, 0) });
        for (number, count) in [(0, 1), (0, 4), (3, 4), (2, 3), (15, 16)] {
            assert_one_package(&of(&supported, number, count), number.into(), count.into());
        }
    }

    #[test]
    fn what_the_first_processor_of_the_host_was_like_is_not_told() {
        // KVM once passed the host's own topology on, with as many levels as that has.
        let mut supported = recorded();
        let host = kvm_cpuid_entry2 { index: 1, eax: 7, ebx: 96, ..leaf(&supported, 0xb, 0) };
        supported.push(host);
        assert_one_package(&of(&supported, 1, 2), 1, 2);
    }

    #[test]
    fn a_guest_is_not_offered_to_run_guests() {
        let mut supported = recorded();
        for entry in &mut supported {
            match entry.function {
                1 => entry.ecx |= VMX,
                0x8000_0001 => entry.ecx |= SVM,
                // As a host with nested=1 has it: revision, ASIDs, features.
                0x8000_000a => (entry.eax, entry.ebx, entry.edx) = (1, 8, 0x1_8049),
                _ => {}
            }
        }
        supported.push(kvm_cpuid_entry2 {
            function: 0x8000_000a,
            eax: 1,
            ebx: 8,
            edx: 9,
            ..Default::default()
        });
        assert_not_nested(&of(&supported, 0, 1));
    }

    #[test]
    fn caches_are_shared_by_all_from_the_third_level_on() {
        let told = of(&recorded(), 0, 4);
        assert_eq!(
            [0, 2, 3].map(|index| leaf(&told, 0x8000_001d, index).eax),
            [0x121, 0x143, 0x163 | 3 << 14]
        );
        let intel = [0x121, 0x163].map(|eax| kvm_cpuid_entry2 { function: 4, eax, ..Default::default() });
        let told = of(&intel, 0, 16).iter().map(|entry| entry.eax).collect::<Vec<_>>();
        assert_eq!(told, [0x121 | 15 << 26, 0x163 | 15 << 14 | 15 << 26]);
    }

    #[test]
    fn other_leaves_stay() {
        let told = of(&recorded(), 3, 4);
        for function in [0, 7, 0xd, 0x8000_0006, 0x4000_0000, 0x4000_0001] {
            assert_eq!(leaf(&told, function, 0), leaf(&recorded(), function, 0));
        }
        // Not ours: AMD's leaf is reserved on Intel.
        let mut intel = recorded();
        intel[0].ebx = 0x756e_6547;
        assert_eq!(leaf(&of(&intel, 3, 4), 0x8000_0008, 0), leaf(&intel, 0x8000_0008, 0));
    }

    #[test]
    fn kvm_takes_what_vcpus_are_told() {
        let Ok(kvm) = Kvm::new() else {
            eprintln!("LEFT OUT: there is no /dev/kvm to tell it to");
            return;
        };
        let vm = Vm::new(kvm, memory::create(RamSize::new(RamSize::LEAST).unwrap()).unwrap()).unwrap();
        for number in 0..4 {
            let vcpu = vm.create_vcpu(number, 4).unwrap();
            let told = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).unwrap();
            assert_one_package(told.as_slice(), number.into(), 4);
            assert_not_nested(told.as_slice());
        }
    }
}
