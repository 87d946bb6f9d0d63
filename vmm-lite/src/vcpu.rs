//! One vCPU: runs the guest until an exit ends the machine. Every exit of KVM has a named outcome here.

use crate::{
    boot::{Entry, registers},
    devices::{Devices, Next},
    ended::Ended,
    exits::{Exit, Exits},
    gate::{Gate, Passed},
    vm::{KvmError, Vm, step},
};
use kvm_bindings::{
    KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, Msrs, kvm_msr_entry,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::time::Instant;

/// Puts the first vCPU in front of the kernel's first instruction. The others wait for it to start them (INIT, SIPI).
pub(crate) fn prepare(vcpu: &VcpuFd, entry: Entry) -> Result<(), KvmError> {
    let mut sregs = step("KVM_GET_SREGS", vcpu.get_sregs())?;
    registers::system(&mut sregs, entry);
    step("KVM_SET_SREGS", vcpu.set_sregs(&sregs))?;
    step("KVM_SET_REGS", vcpu.set_regs(&registers::general(entry)))
}

/// Does what firmware would have done on each vCPU, as far as KVM has the registers: one at a time, for it stops at the
/// first that it refuses. AMD's CPUs have no IA32_MISC_ENABLE, and without either of them a kernel only is slower.
pub(crate) fn set_msrs(vcpu: &VcpuFd) -> Result<(), KvmError> {
    for (index, bits) in registers::MSRS {
        let before = kvm_msr_entry { index, ..Default::default() };
        let mut msr = Msrs::from_entries(&[before]).expect("one is not too many");
        if step("KVM_GET_MSRS", vcpu.get_msrs(&mut msr))? == 1 {
            msr.as_mut_slice()[0].data |= bits;
            step("KVM_SET_MSRS", vcpu.set_msrs(&msr))?;
        }
    }
    Ok(())
}

/// Runs vCPU `cpu` until the machine ends by it, or (none) it is interrupted and leaves by the gate. Its exits are counted.
pub(crate) fn run(
    cpu: u8,
    vcpu: &mut VcpuFd,
    vm: &Vm,
    devices: &Devices,
    gate: &Gate,
    exits: &Exits,
) -> Option<Ended> {
    loop {
        match gate.pass() {
            Passed::Straight => {}
            // Its watchdogs are not to take the time for its own (KVM_KVMCLOCK_CTRL). Who has no kvmclock is none the wiser.
            Passed::Held => {
                let _ = vcpu.kvmclock_ctrl();
            }
            Passed::Over => return None,
        }
        let left = vcpu.run();
        let begun = Instant::now();
        let (exit, after) = match left {
            Ok(exit) => (kind(&exit), after(exit, devices)),
            Err(why) if [libc::EINTR, libc::EAGAIN].contains(&why.errno()) => {
                (Exit::Interrupted, After::Next(Next::Resume))
            }
            Err(why) => (Exit::Other, After::Next(Next::End(Ended::RunFailed { cpu, why: why.to_string() }))),
        };
        // An instruction pointer that cannot be had is not worth another reason.
        let rip = || vcpu.get_regs().map_or(0, |regs| regs.rip);
        match after {
            After::Next(Next::Resume) => exits.count(exit, begun.elapsed()),
            After::Next(Next::Wait(limit)) => {
                devices.lines.wait(vm, limit);
                exits.count(Exit::Wait, begun.elapsed());
            }
            After::Next(Next::End(ended)) => return Some(ended),
            After::TripleFault => return Some(Ended::TripleFault { cpu, rip: rip() }),
            After::NotEmulated => return Some(Ended::NotEmulated { cpu, rip: rip() }),
            After::EntryFailed(reason) => return Some(Ended::EntryFailed { cpu, reason }),
            After::MemoryFault(address) => return Some(Ended::MemoryFault { cpu, address }),
            After::Unknown(exit) => return Some(Ended::UnknownExit { cpu, exit }),
        }
    }
}

/// What an exit is counted as.
fn kind(exit: &VcpuExit<'_>) -> Exit {
    match exit {
        VcpuExit::IoOut(..) | VcpuExit::IoIn(..) => Exit::Port,
        VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..) => Exit::Mmio,
        VcpuExit::Intr | VcpuExit::IrqWindowOpen => Exit::Interrupted,
        _ => Exit::Other,
    }
}

/// What follows from an exit.
enum After {
    Next(Next),
    TripleFault,
    NotEmulated,
    EntryFailed(u64),
    MemoryFault(u64),
    Unknown(String),
}

fn after(exit: VcpuExit<'_>, devices: &Devices) -> After {
    After::Next(match exit {
        VcpuExit::IoOut(port, data) => devices.port_out(port, data),
        VcpuExit::IoIn(port, data) => {
            devices.port_in(port, data);
            Next::Resume
        }
        VcpuExit::MmioRead(address, data) => {
            devices.mmio_read(address, data);
            Next::Resume
        }
        VcpuExit::MmioWrite(address, data) => {
            devices.mmio_write(address, data);
            Next::Resume
        }
        // A signal came, or KVM wants to be entered again.
        VcpuExit::Intr | VcpuExit::IrqWindowOpen => Next::Resume,
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _) => Next::End(Ended::PowerOff),
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _) => Next::End(Ended::Reset),
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_CRASH, _) => Next::End(Ended::Panicked),
        VcpuExit::Shutdown => return After::TripleFault,
        VcpuExit::InternalError => return After::NotEmulated,
        VcpuExit::FailEntry(reason, _) => return After::EntryFailed(reason),
        VcpuExit::MemoryFault { gpa, .. } => return After::MemoryFault(gpa),
        // Those that need a capability which nobody turned on, and those of other architectures.
        other => return After::Unknown(format!("{other:?}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{layout::RamSize, memory};
    use kvm_ioctls::Kvm;

    #[test]
    fn a_vcpu_has_the_registers_that_firmware_sets() {
        let Ok(kvm) = Kvm::new() else {
            eprintln!("LEFT OUT: there is no /dev/kvm to have registers");
            return;
        };
        let vm = Vm::new(kvm, memory::create(RamSize::new(RamSize::LEAST).unwrap()).unwrap()).unwrap();
        let vcpu = vm.create_vcpu(0, 1).unwrap();
        for (index, bits) in registers::MSRS {
            let before = kvm_msr_entry { index, ..Default::default() };
            let mut msr = Msrs::from_entries(&[before]).unwrap();
            if vcpu.get_msrs(&mut msr).unwrap() == 0 {
                eprintln!("LEFT OUT: this KVM has no register {index:#x}");
                continue;
            }
            assert_eq!(msr.as_slice()[0].data & bits, bits, "{index:#x}");
        }
    }
}
