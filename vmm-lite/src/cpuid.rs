//! What CPUID tells a vCPU about itself (Intel SDM vol. 2, CPUID). All else is what KVM supports.

use kvm_bindings::kvm_cpuid_entry2;

/// Leaf 1 ECX: the local APIC's timer can be armed by a TSC value; KVM's own APIC can.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 ECX: a hypervisor is present, so its leaves from 0x4000_0000 on are worth reading (kvmclock is there).
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 EDX: EBX says how many logical processors a package has.
const HTT: u32 = 1 << 28;

/// Leaf 0xb ECX bits 15:8: what a level of the topology is made of.
const LEVEL_SMT: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// Makes one entry vCPU `number`'s of `count`: one package of cores with one thread each, whose APIC ids are their
/// numbers.
pub(crate) fn personalise(entry: &mut kvm_cpuid_entry2, number: u8, count: u8) {
    let (number, count) = (u32::from(number), u32::from(count));
    match entry.function {
        1 => {
            entry.ebx = entry.ebx & 0xffff | count.next_power_of_two() << 16 | number << 24;
            entry.ecx |= TSC_DEADLINE | HYPERVISOR;
            entry.edx = if count > 1 { entry.edx | HTT } else { entry.edx & !HTT };
        }
        // Deterministic cache parameters: how many share a cache, and how many cores there are, each less one.
        4 if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 7;
            let sharing = if level >= 3 { count.next_power_of_two() - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | sharing << 14 | (count.next_power_of_two() - 1) << 26;
        }
        // Extended topology: a shift from an APIC id to the next level's, and how many there are at this one.
        0xb | 0x1f => {
            let (shift, there, kind) = match entry.index {
                0 => (0, 1, LEVEL_SMT),
                1 => (count.next_power_of_two().trailing_zeros(), count, LEVEL_CORE),
                _ => (0, 0, 0),
            };
            (entry.eax, entry.ebx) = (shift, there);
            entry.ecx = entry.index & 0xff | kind << 8;
            entry.edx = number;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(function: u32, index: u32, number: u8, count: u8) -> kvm_cpuid_entry2 {
        let mut entry =
            kvm_cpuid_entry2 { function, index, eax: 0x21, ebx: 0xffff_1234, edx: HTT, ..Default::default() };
        personalise(&mut entry, number, count);
        entry
    }

    #[test]
    fn each_vcpu_knows_its_apic_id_and_how_many_they_are() {
        let third = of(1, 0, 2, 3);
        assert_eq!(third.ebx, 0x0204_1234);
        assert_eq!(third.ecx, TSC_DEADLINE | HYPERVISOR);
        assert_ne!(third.edx & HTT, 0);
        assert_eq!(of(1, 0, 0, 1).edx & HTT, 0);

        let cores = of(0xb, 1, 2, 3);
        assert_eq!((cores.eax, cores.ebx, cores.ecx, cores.edx), (2, 3, LEVEL_CORE << 8 | 1, 2));
        let end = of(0x1f, 2, 15, 16);
        assert_eq!((end.ebx, end.ecx, end.edx), (0, 2, 15));
    }

    #[test]
    fn caches_are_shared_by_all_from_the_third_level_on() {
        assert_eq!(of(4, 0, 0, 16).eax, 0x21 | 15 << 26);
        let mut third = kvm_cpuid_entry2 { function: 4, eax: 0x63, ..Default::default() };
        personalise(&mut third, 0, 4);
        assert_eq!(third.eax, 0x63 | 3 << 14 | 3 << 26);
    }

    #[test]
    fn other_leaves_stay() {
        let other = of(0x4000_0001, 0, 3, 4);
        assert_eq!((other.eax, other.ebx, other.edx), (0x21, 0xffff_1234, HTT));
    }
}
