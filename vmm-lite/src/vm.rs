//! The virtual machine as KVM has it: memory slots, interrupt controllers, vCPUs and what they say they are.
#![expect(unsafe_code, reason = "KVM is told where the guest's memory is mapped")]

use crate::{cpuid, layout, memory::Ram, vcpu};
use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

/// A step of making a machine that KVM refused.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct KvmError {
    /// The step, by KVM's name for it.
    pub step: &'static str,
    /// The system's words.
    #[source]
    pub source: kvm_ioctls::Error,
}

pub(crate) fn step<T>(step: &'static str, result: Result<T, kvm_ioctls::Error>) -> Result<T, KvmError> {
    result.map_err(|source| KvmError { step, source })
}

/// A machine without vCPUs yet. It owns the memory, for KVM works on the mapping as long as the machine lives.
pub(crate) struct Vm {
    // Before the memory: fields are dropped in order.
    fd: VmFd,
    kvm: Kvm,
    ram: Ram,
}

impl Vm {
    /// A machine with this memory, a PIC, an IOAPIC, local APICs and a PIT, all in the kernel.
    pub(crate) fn new(kvm: Kvm, ram: Ram) -> Result<Self, KvmError> {
        let fd = step("KVM_CREATE_VM", kvm.create_vm())?;
        let address = usize::try_from(layout::KVM_TSS).expect("a physical address below 4 GiB");
        step("KVM_SET_TSS_ADDR", fd.set_tss_address(address))?;
        step("KVM_SET_IDENTITY_MAP_ADDR", fd.set_identity_map_address(layout::KVM_IDENTITY_MAP))?;
        step("KVM_CREATE_IRQCHIP", fd.create_irq_chip())?;
        // A port that Linux' timer calibration looks at belongs to the speaker.
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        step("KVM_CREATE_PIT2", fd.create_pit2(pit))?;
        for (slot, region) in (0..).zip(ram.iter()) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the addresses are those of a mapping in `ram`, which `self` owns and drops after the machine;
            // each region has a slot of its own, and regions do not overlap. A `VcpuFd` keeps KVM's machine alive past
            // `fd`, but whoever runs one has a share of `self` until it has left the guest for good (`Machine::run`).
            step("KVM_SET_USER_MEMORY_REGION", unsafe { fd.set_user_memory_region(region) })?;
        }
        Ok(Self { fd, kvm, ram })
    }

    pub(crate) fn fd(&self) -> &VmFd {
        &self.fd
    }

    pub(crate) fn ram(&self) -> &Ram {
        &self.ram
    }

    /// A vCPU of `count`, with the features of this machine's CPUs that KVM supports.
    pub(crate) fn create_vcpu(&self, number: u8, count: u8) -> Result<VcpuFd, KvmError> {
        let vcpu = step("KVM_CREATE_VCPU", self.fd.create_vcpu(u64::from(number)))?;
        let supported = self.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        let supported = step("KVM_GET_SUPPORTED_CPUID", supported)?;
        let told = CpuId::from_entries(&cpuid::of(supported.as_slice(), number, count));
        let told = told.map_err(|_| kvm_ioctls::Error::new(libc::E2BIG));
        step("KVM_SET_CPUID2", told.and_then(|told| vcpu.set_cpuid2(&told)))?;
        vcpu::set_msrs(&vcpu)?;
        Ok(vcpu)
    }
}
