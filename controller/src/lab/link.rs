//! `link up|down`: what the guest of a virtual machine sees of an interface's link, told to its VMM.

use super::{guests::vm_directory, rundir::LabDir};
use crate::{
    failure::{Context, Failure},
    vm::{control::Control, qemu::netdev_id, qmp::Qmp},
};
use std::time::Duration;
use topology::plan::{Interface, Node, NodeKind, Vmm};

/// How long a VMM may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sets the link of `interface`, which is one of `node`.
///
/// # Errors
/// The node is no virtual machine of ours, or its VMM does not do it: one that has ended has no link.
pub(super) async fn set(node: &Node, interface: &Interface, up: bool, dir: &LabDir) -> Result<(), Failure> {
    let name = format!("{}:{}", node.name, interface.name);
    let place = node.interfaces.iter().position(|other| other.name == interface.name);
    let (NodeKind::Vm(vm), Some(place)) = (&node.kind, place) else {
        let what = format!("{name}: the link of what is no virtual machine of vnet's cannot be set yet");
        return Err(Failure::invalid("link", what).mend("`vnet show nodes` says which nodes are of kind vm"));
    };
    let (run, vmm) = (vm_directory(&node.name, dir), vm.vmm);
    let tell = move || match vmm {
        Vmm::VmmLite => {
            let state = if up { "up" } else { "down" };
            let told = Control::connect(&run.control(), PATIENCE)
                .and_then(|mut control| control.ask(&format!("link {place} {state}")));
            told.map(drop).map_err(|why| why.to_string())
        }
        Vmm::Qemu | Vmm::Auto => Qmp::connect(&run.qmp(), PATIENCE)
            .and_then(|mut qmp| qmp.set_link(&netdev_id(place), up))
            .map_err(|why| why.to_string()),
    };
    let told = tokio::task::spawn_blocking(tell).await.context("link", || name.clone())?;
    told.map_err(|why| {
        Failure::failed("link", format!("{name}: {why}")).mend("`vnet show nodes` says whether the node runs")
    })
}
