//! Whether KVM here runs the kernel of a guest. A paravirtual one interprets what runs in ring 0, and gives up at what its interpreter
//! lacks: the bundled guest can live with that, and Linux cannot. Nothing that a computer says of itself tells it as surely as
//! five instructions in ring 0.

use crate::{
    boot::Entry,
    layout::{self, RamSize},
    machine::StartError,
    memory, vcpu,
    vm::Vm,
};
use kvm_ioctls::{Kvm, VcpuExit};
use std::{sync::mpsc::channel, thread, time::Duration};
use vm_memory::{Bytes, GuestAddress};

/// Turns SSE on and uses it, as no interpreter of KVM's does, and says that it is done.
const CODE: [u8; 16] = [
    0x0f, 0x20, 0xe0, // mov eax, cr4
    0x0d, 0x00, 0x02, 0x00, 0x00, // or eax, OSFXSR
    0x0f, 0x22, 0xe0, // mov cr4, eax
    0x0f, 0x57, 0xc0, // xorps xmm0, xmm0
    0xe6, 0x80, // out 0x80, al
];

/// How long those instructions may take. They take microseconds; who is in there for longer does not come back.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tries it.
///
/// # Errors
/// There is no KVM for us, or it makes no machine.
pub fn runs_kernels() -> Result<bool, StartError> {
    let (done, over) = channel();
    // KVM_RUN has no deadline: a thread that stays in it does no harm, and ends with its process.
    let thread = thread::Builder::new().name("trial".into()).spawn(move || done.send(attempt()));
    thread.map_err(|source| StartError::System { what: "a thread", source })?;
    over.recv_timeout(PATIENCE).unwrap_or(Ok(false))
}

fn attempt() -> Result<bool, StartError> {
    let least = RamSize::new(RamSize::LEAST).expect("the least there is");
    let vm = Vm::new(Kvm::new().map_err(StartError::NoKvm)?, memory::create(least)?)?;
    let at = GuestAddress(layout::HIGH_START);
    vm.ram().write_slice(&CODE, at).expect("the least memory reaches beyond where kernels start");
    let mut vcpu = vm.create_vcpu(0, 1)?;
    vcpu::prepare(&vcpu, Entry::Pvh { rip: at.0 })?;
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(..)) => return Ok(true),
            Ok(VcpuExit::Intr) => {}
            Err(why) if [libc::EINTR, libc::EAGAIN].contains(&why.errno()) => {}
            Ok(_) | Err(_) => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paravirtual_kvm_runs_no_kernels_and_any_other_does() {
        let runs = match runs_kernels() {
            Ok(runs) => runs,
            Err(why) => return assert!(why.is_lack(), "{why}"),
        };
        let paravirtual = std::path::Path::new("/sys/module/kvm_pvm").exists();
        assert_eq!(runs, !paravirtual);
    }
}
