//! One vCPU: runs the guest until an exit ends the machine. Every exit of KVM has a named outcome here.

use crate::{
    boot::{Entry, registers},
    devices::{Devices, Next},
    ended::Ended,
    vm::{KvmError, Vm, step},
};
use kvm_bindings::{KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Puts the first vCPU in front of the kernel's first instruction. The others wait for it to start them (INIT, SIPI).
pub(crate) fn prepare(vcpu: &VcpuFd, entry: Entry) -> Result<(), KvmError> {
    let mut sregs = step("KVM_GET_SREGS", vcpu.get_sregs())?;
    registers::system(&mut sregs, entry);
    step("KVM_SET_SREGS", vcpu.set_sregs(&sregs))?;
    step("KVM_SET_REGS", vcpu.set_regs(&registers::general(entry)))
}

/// Runs vCPU `cpu` until the machine ends by it, or (none) `stop` is set and it was interrupted.
pub(crate) fn run(
    cpu: u8,
    vcpu: &mut VcpuFd,
    vm: &Vm,
    devices: &Devices,
    stop: &AtomicBool,
) -> Option<Ended> {
    while !stop.load(Ordering::Acquire) {
        let after = match vcpu.run() {
            Ok(exit) => after(exit, devices),
            Err(why) if [libc::EINTR, libc::EAGAIN].contains(&why.errno()) => After::Next(Next::Resume),
            Err(why) => After::Next(Next::End(Ended::RunFailed { cpu, why: why.to_string() })),
        };
        // An instruction pointer that cannot be had is not worth another reason.
        let rip = || vcpu.get_regs().map_or(0, |regs| regs.rip);
        match after {
            After::Next(Next::Resume) => {}
            After::Next(Next::Wait(limit)) => devices.lines.wait(vm, limit),
            After::Next(Next::End(ended)) => return Some(ended),
            After::TripleFault => return Some(Ended::TripleFault { cpu, rip: rip() }),
            After::NotEmulated => return Some(Ended::NotEmulated { cpu, rip: rip() }),
            After::EntryFailed(reason) => return Some(Ended::EntryFailed { cpu, reason }),
            After::MemoryFault(address) => return Some(Ended::MemoryFault { cpu, address }),
            After::Unknown(exit) => return Some(Ended::UnknownExit { cpu, exit }),
        }
    }
    None
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
