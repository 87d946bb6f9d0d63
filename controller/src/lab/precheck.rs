//! What a plan needs and its file alone cannot tell: files that can be read, memory that suffices. Nothing is started.

use crate::{
    doctor,
    failure::{Exit, Failure},
    vm::{
        accel::{self, Why},
        choice, lite, qemu,
    },
};
use bench::machine;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileTypeExt,
    path::Path,
    thread,
};
use topology::plan::{Boot, Cpu, Node, NodeKind, Plan, Vm, Vmm};
use vswitch_core::description::Origin;
use vswitchd::capture::reader::Reader;

/// The least memory that the image `debian` boots with, measured: with 80 MiB its kernel has no room to unpack the image.
const DEBIAN_MEMORY: u64 = 96 << 20;

/// At most this many problems are told at once.
const MOST: usize = 20;

/// Checks what the virtual machines of `plan` boot, and what its capture files begin with.
///
/// # Errors
/// A file cannot be used, or a guest has too little memory; each with its place in the topology file.
pub fn check(plan: &Plan) -> Result<(), Failure> {
    let (mut unbootable, mut unreplayable) = (Vec::new(), Vec::new());
    for node in &plan.nodes {
        match &node.kind {
            NodeKind::Vm(vm) => {
                unbootable.extend(problems(node, vm).iter().map(|problem| place(plan, node) + problem));
            }
            NodeKind::Pcap { replay: Some(path), .. } => {
                unreplayable.extend(unreadable(path).map(|problem| place(plan, node) + &problem));
            }
            _ => {}
        }
    }
    let ways = "paths are relative to the folder of the topology file; `image: debian` needs none";
    told(Exit::Invalid, "unbootable", unbootable, ways)?;
    let ways = "give a pcap or pcapng file of Ethernet frames; paths are relative to the folder of the topology file";
    told(Exit::Invalid, "pcap", unreplayable, ways)
}

/// Checks that this machine has the CPUs of `plan`, and that its workers may use them. Another machine may have others: this is for
/// where the lab comes up.
///
/// # Errors
/// It has not; each with its place in the topology file.
pub fn cpus(plan: &Plan) -> Result<(), Failure> {
    let file = &plan.description.file;
    let unusable = |cpu: &Cpu| {
        let Cpu { number, origin: Origin { line, column } } = *cpu;
        // Only a try says what cpusets allow; on a thread of its own, which it binds.
        let tried = thread::scope(|scope| scope.spawn(|| machine::pin(number)).join());
        let why = tried.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())).err()?;
        Some(format!("{file}:{line}:{column}: no worker can be pinned to CPU {number}: {why}"))
    };
    let said: Vec<_> = plan.datapath.cpus.iter().filter_map(unusable).collect();
    let here: Vec<_> = machine::cpus().unwrap_or_default().iter().map(u16::to_string).collect();
    let ways = format!("there are here: {}; name those, or leave `cpus` out", here.join(", "));
    told(Exit::Lacking, "no-such-cpu", said, &ways)
}

/// What runs guests on a machine.
struct Means {
    /// Whether the bundled guest can run under KVM.
    bundled: Why,
    /// Whether a guest's own kernel can.
    kernels: Why,
    qemu: bool,
}

/// Checks that this machine has what runs the guests of `plan`, whose VMMs are chosen. Another machine may have it: this is
/// for where the lab comes up.
///
/// # Errors
/// It has not; with the places of those guests, and the ways out.
pub fn vmms(plan: &Plan) -> Result<(), Failure> {
    let (bundled, kernels) = (accel::for_bundled(), accel::for_kernels());
    vmms_with(plan, &Means { bundled, kernels, qemu: doctor::is_installed(qemu::PROGRAM) })
}

fn vmms_with(plan: &Plan, means: &Means) -> Result<(), Failure> {
    let (mut without_kvm, mut without_qemu) = (Vec::new(), Vec::new());
    for node in &plan.nodes {
        let NodeKind::Vm(vm) = &node.kind else { continue };
        let place = place(plan, node);
        match (vm.vmm, &vm.boot) {
            (_, Boot::Bundled) if means.bundled != Why::Usable => {
                without_kvm.push(format!("{place}a bundled guest needs KVM, and {}", means.bundled));
            }
            (Vmm::VmmLite, boot) if *boot != Boot::Bundled && means.kernels != Why::Usable => {
                without_kvm.push(format!("{place}vmm-lite needs KVM, and {}", means.kernels));
            }
            (Vmm::Qemu, _) if !means.qemu => {
                let lite = choice::why_not_lite(vm, &node.interfaces);
                let kvm = (means.kernels != Why::Usable).then(|| means.kernels.to_string());
                let lite = lite.or(kvm).map(|why| format!("; and not vmm-lite: {why}")).unwrap_or_default();
                without_qemu.push(format!("{place}`{}` is not in PATH{lite}", qemu::PROGRAM));
            }
            _ => {}
        }
    }
    let ways = "`vnet doctor` says how to get KVM; without it QEMU runs `image: debian`, and `kind: station` runs anywhere";
    told(Exit::Lacking, "no-kvm", without_kvm, ways)?;
    told(
        Exit::Lacking,
        "no-qemu",
        without_qemu,
        "install QEMU: apt-get install qemu-system-x86; `vnet doctor` says what else is missing",
    )
}

/// What is wrong, if anything is, with the ways out.
fn told(exit: Exit, code: &str, mut said: Vec<String>, ways: &str) -> Result<(), Failure> {
    said.truncate(MOST);
    if said.is_empty() { Ok(()) } else { Err(Failure::new(exit, code, said.join("\n")).mend(ways)) }
}

/// The failure of a node, with the node's place in the topology file.
pub(super) fn at(plan: &Plan, node: &Node, failure: Failure) -> Failure {
    Failure { message: place(plan, node) + &failure.message, ..failure }
}

fn place(plan: &Plan, node: &Node) -> String {
    let origin = node.origin;
    format!("{}:{}:{}: node {}: ", plan.description.file, origin.line, origin.column, node.name)
}

fn problems(node: &Node, vm: &Vm) -> Vec<String> {
    let found = match &vm.boot {
        Boot::Kernel { kernel, initrd, .. } => {
            vec![
                unusable("kernel", kernel, false),
                initrd.as_ref().and_then(|path| unusable("initrd", path, false)),
            ]
        }
        Boot::Disk { path, write } => vec![unusable("disk", path, *write)],
        Boot::Image(name) if vm.memory < DEBIAN_MEMORY => {
            vec![Some(format!("`image: {name}` boots with {}M of memory or more", DEBIAN_MEMORY >> 20))]
        }
        Boot::Image(_) | Boot::Network => vec![],
        Boot::Bundled => vec![],
    };
    let mut found: Vec<_> = found.into_iter().flatten().collect();
    // Of a file that cannot be read, that is told already.
    if vm.vmm == Vmm::VmmLite && found.is_empty() {
        found = lite::problems(vm, &node.interfaces);
    }
    found
}

/// What is wrong with a capture file, at its begin: the rest is seen when it is replayed.
fn unreadable(path: &Path) -> Option<String> {
    let wrong = unusable("replay", path, false);
    wrong.or_else(|| {
        let read = File::open(path).map_err(|why| why.to_string()).and_then(|file| {
            let mut reader = Reader::new(file).map_err(|why| why.to_string())?;
            reader.next(&mut Vec::new()).map_err(|why| why.to_string())
        });
        read.err().map(|why| format!("`replay: {}` cannot be replayed: {why}", path.display()))
    })
}

/// What is wrong with the file that `key` names.
fn unusable(key: &str, path: &Path, write: bool) -> Option<String> {
    // Looked at before it is opened: opening a pipe would wait for its other end.
    let wrong = match path.metadata() {
        Err(why) => why.to_string(),
        Ok(metadata) if metadata.is_file() || key == "disk" && metadata.file_type().is_block_device() => {
            OpenOptions::new().read(true).write(write).open(path).err()?.to_string()
        }
        Ok(_) => "it is not a regular file".to_owned(),
    };
    Some(format!("`{key}: {}` cannot be used: {wrong}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(folder: &Path, node: &str) -> Result<(), Failure> {
        let text = format!(
            "version: 1\nname: lab\nswitches: {{ sw1: {{}} }}\nnodes:\n  vm1: {{ kind: vm, {node} }}\nlinks:\n  - [vm1, sw1]\n"
        );
        check(&topology::load(&text, "lab.vnet.yaml", folder).expect("it is well said").plan)
    }

    #[test]
    fn a_cpu_that_is_not_there_is_told_with_its_place_and_what_there_is() {
        let here = machine::cpus().expect("the kernel says");
        let checked = |named: &[u16]| {
            let text = format!(
                "version: 1\nname: lab\nswitches: {{ sw1: {{}} }}\nnodes: {{ a: {{ kind: station }} }}\nlinks: [[a, sw1]]\n\
                 datapath: {{ workers: {}, cpus: {named:?} }}\n",
                named.len()
            );
            cpus(&topology::load(&text, "lab.vnet.yaml", Path::new("/")).expect("it is well said").plan)
        };
        assert_eq!(checked(&here[..1]), Ok(()));
        let failure = checked(&[here[0], 1023]).expect_err("no such CPU");
        assert!(failure.message.starts_with("lab.vnet.yaml:6:"), "{failure}");
        assert!(failure.message.contains("CPU 1023") && !failure.message.contains('\n'), "{failure}");
        assert!(failure.to_string().contains(&format!("there are here: {}", here[0])), "{failure}");
        assert_eq!(machine::cpus().expect("the kernel says"), here, "trying binds nobody");
    }

    /// What is missing for a `kind: vm` of these keys.
    fn missing(node: &str, bundled: Why, kernels: Why, qemu: bool) -> Result<(), Failure> {
        let text = format!(
            "version: 1\nname: lab\nswitches: {{ sw1: {{}} }}\nnodes:\n  vm1: {{ kind: vm{node} }}\nlinks:\n  - [vm1, sw1]\n"
        );
        let plan = topology::load(&text, "lab.vnet.yaml", Path::new("/")).expect("it is well said").plan;
        vmms_with(&plan, &Means { bundled, kernels, qemu })
    }

    #[test]
    fn what_runs_a_guest_must_be_there_and_the_error_says_where_it_is_wanted_and_the_ways_out() {
        assert_eq!(missing("", Why::Usable, Why::NoKernels, false), Ok(()));
        assert_eq!(missing(", image: debian, vmm: vmm-lite", Why::Usable, Why::Usable, false), Ok(()));
        assert_eq!(missing(", image: debian, vmm: qemu", Why::NoDevice, Why::NoDevice, true), Ok(()));
        for (node, kernels, code, said) in [
            ("", Why::NoRights, "no-kvm", "a bundled guest needs KVM, and this user must not open /dev/kvm"),
            (", image: debian, vmm: vmm-lite", Why::NoKernels, "no-kvm", "KVM here is a paravirtual one"),
            (", image: debian, vmm: qemu", Why::NoDevice, "no-qemu", "not vmm-lite: there is no /dev/kvm"),
            (", disk: ./a.img, vmm: qemu", Why::Usable, "no-qemu", "not vmm-lite: vmm-lite has no firmware"),
        ] {
            let failure = missing(node, kernels, kernels, false).expect_err("it is missing");
            assert_eq!((failure.exit, failure.code.as_str()), (Exit::Lacking, code), "{failure}");
            assert!(failure.message.starts_with("lab.vnet.yaml:5:"), "{failure}");
            assert!(failure.message.contains(said), "{failure}");
            assert!(failure.mend.is_some_and(|mend| mend.contains("vnet doctor")), "{node}");
        }
    }

    #[test]
    fn what_a_guest_boots_must_be_there_and_readable_and_the_error_says_where_it_is_named() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("vmlinuz"), "").unwrap();
        std::fs::create_dir(base.path().join("folder")).unwrap();
        for good in [
            "kernel: ./vmlinuz",
            "kernel: ./vmlinuz, initrd: ./vmlinuz",
            "disk: ./vmlinuz",
            "image: debian",
            "boot: network",
        ] {
            assert_eq!(checked(base.path(), good), Ok(()), "{good}");
        }
        for (bad, said) in [
            ("kernel: ./missing", "`kernel: "),
            ("kernel: ./vmlinuz, initrd: ./missing", "`initrd: "),
            ("disk: ./folder", "not a regular file"),
            ("image: debian, memory: 80M", "96M"),
            ("cpus: 17", "1 to 16"),
            ("vmm: vmm-lite, kernel: ./vmlinuz", "cannot be booted"),
        ] {
            let failure = checked(base.path(), bad).unwrap_err();
            assert!(failure.message.starts_with("lab.vnet.yaml:5:"), "{failure}");
            assert!(failure.message.contains(said) && failure.mend.is_some(), "{bad}: {failure}");
            assert_eq!(failure.code, "unbootable");
        }
    }

    #[test]
    fn what_is_replayed_must_be_a_capture_and_the_error_says_where_it_is_named() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("text"), "no capture").unwrap();
        for (bad, said) in [("./missing", "cannot be used"), ("./text", "cannot be replayed")] {
            let text = format!(
                "version: 1\nname: lab\nswitches: {{ sw1: {{}} }}\nnodes:\n  src: {{ kind: pcap, replay: {bad} }}\nlinks:\n  - [src, sw1]\n"
            );
            let plan = topology::load(&text, "lab.vnet.yaml", base.path()).expect("it is well said").plan;
            let failure = check(&plan).unwrap_err();
            assert_eq!(failure.code, "pcap");
            assert!(failure.message.starts_with("lab.vnet.yaml:5:"), "{failure}");
            assert!(failure.message.contains(said) && failure.mend.is_some(), "{bad}: {failure}");
        }
    }
}
