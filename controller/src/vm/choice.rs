//! Which VMM runs a guest: what its file says, or vmm-lite where that can and KVM runs the guest there, else QEMU.

use super::{
    accel::{self, Why},
    lite,
};
use topology::plan::{Interface, NodeKind, Plan, Vm, Vmm};

/// Chooses for each virtual machine of `plan` that leaves it to this machine.
pub fn settle(plan: &mut Plan) {
    settle_with(plan, accel::for_kernels);
}

fn settle_with(plan: &mut Plan, kvm: impl Fn() -> Why) {
    for node in &mut plan.nodes {
        if let NodeKind::Vm(vm) = &mut node.kind
            && vm.vmm == Vmm::Auto
        {
            let lite = kvm() == Why::Usable && lite::problems(vm, &node.interfaces).is_empty();
            vm.vmm = if lite { Vmm::VmmLite } else { Vmm::Qemu };
        }
    }
}

/// Why a guest that QEMU runs does not run under vmm-lite; none if it could, so that its file says `vmm: qemu`, or if it is KVM that
/// is in the way, which is also why QEMU emulates the CPU.
pub fn why_not_lite(vm: &Vm, interfaces: &[Interface]) -> Option<String> {
    lite::problems(vm, interfaces).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn settled(node: &str, kvm: Why) -> Vmm {
        let text = format!(
            "version: 1\nname: lab\nswitches: {{ sw1: {{}} }}\nnodes: {{ a: {{ kind: vm, {node} }} }}\nlinks: [[a, sw1]]\n"
        );
        let mut plan = topology::load(&text, "lab.vnet.yaml", Path::new("/")).expect("it is well said").plan;
        settle_with(&mut plan, || kvm);
        let NodeKind::Vm(vm) = &plan.nodes[0].kind else { panic!("it is a vm") };
        vm.vmm
    }

    #[test]
    fn auto_is_vmm_lite_where_that_and_kvm_can_and_what_the_file_says_stands() {
        for (node, kvm, chosen) in [
            ("image: debian", Why::Usable, Vmm::VmmLite),
            ("image: debian, vmm: auto, cpus: 4", Why::Usable, Vmm::VmmLite),
            ("image: debian", Why::NoKernels, Vmm::Qemu),
            ("image: debian", Why::NoDevice, Vmm::Qemu),
            ("image: debian", Why::NoRights, Vmm::Qemu),
            ("image: debian, queues: 2", Why::Usable, Vmm::VmmLite),
            ("image: debian, cpus: 17", Why::Usable, Vmm::Qemu),
            ("disk: ./a.img", Why::Usable, Vmm::Qemu),
            ("boot: network", Why::Usable, Vmm::Qemu),
            ("kernel: ./missing", Why::Usable, Vmm::Qemu),
            ("image: debian, vmm: qemu", Why::Usable, Vmm::Qemu),
            ("image: debian, vmm: vmm-lite", Why::NoKernels, Vmm::VmmLite),
            ("memory: 64M", Why::NoKernels, Vmm::VmmLite),
        ] {
            assert_eq!(settled(node, kvm), chosen, "{node} where {kvm}");
        }
    }
}
