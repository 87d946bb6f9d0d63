//! Debian's own kernel under vmm-lite, on KVM as real hardware has it: within a guest of QEMU whose emulated CPU has SVM.
//! KVM, VMMs, switch and the guests on it all run in that outer guest.

mod assembly;
mod outer;

mod kind_vm;

use crate::common::{left_out, real_guests};
use assembly::{Root, packages};
use std::{path::PathBuf, time::Instant};

/// What an inner guest's kernel loads, in order.
const DRIVERS: [&str; 13] = [
    "virtio_ring",
    "virtio",
    "virtio_mmio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio-rng",
    "failover",
    "net_failover",
    "virtio_net",
    "button",
    "evdev",
];
/// And the outer one's.
const KVM: [&str; 3] = ["irqbypass", "kvm", "kvm-amd"];

/// What one of these tests runs: the `init` of both guests, the lab in the outer one, and whether QEMU is there.
struct Scene {
    inner: &'static str,
    outer: &'static str,
    lab: &'static str,
    qemu: bool,
}

impl Scene {
    /// The kernel that boots both, and the outer guest's first file system, which has the inner one's.
    fn assemble(&self, folder: &std::path::Path) -> Result<(PathBuf, PathBuf), String> {
        let packages = packages()?;
        let inner = Root::new(folder.join("i"), &packages, self.inner, &DRIVERS)?;
        let outer = Root::new(folder.join("o"), &packages, self.outer, &KVM)?;
        inner.archive(&folder.join("o/inner"))?;
        outer.copy(&outer.kernel(), "vmlinuz");
        outer.write("lab.vnet.yaml", self.lab);
        outer.program(env!("CARGO_BIN_EXE_vnet"), "vnet")?;
        outer.program(env!("CARGO_BIN_EXE_ask"), "ask")?;
        if self.qemu {
            outer.qemu()?;
        }
        let initrd = folder.join("outer");
        outer.archive(&initrd)?;
        Ok((outer.kernel(), initrd))
    }

    /// What is said in it; none if it is left out.
    fn play(&self) -> Option<Said> {
        if !real_guests() {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (kernel, initrd) = match self.assemble(folder.path()) {
            Ok(both) => both,
            Err(why) => {
                left_out(&format!("Linux under vmm-lite: {why}"));
                return None;
            }
        };
        let began = Instant::now();
        let said = outer::play(&kernel, &initrd);
        println!("{said}\n-- {:?}", began.elapsed());
        Some(Said(said))
    }
}

/// What the guests said.
struct Said(String);

impl Said {
    fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.lines().map(str::trim)
    }

    /// Where this line stands, which must be there.
    fn at(&self, line: &str) -> usize {
        let found = self.lines().position(|said| said == line);
        found.unwrap_or_else(|| panic!("no line `{line}`, but:\n{}", self.0))
    }

    /// What follows this, line by line.
    fn after(&self, beginning: &str) -> Vec<&str> {
        self.lines().filter_map(|line| line.strip_prefix(beginning)).collect()
    }
}

#[test]
fn debians_kernel_runs_under_vmm_lite_with_disks_random_bytes_and_the_switch() {
    let scene = Scene {
        inner: include_str!("one/inner"),
        outer: include_str!("one/outer"),
        lab: include_str!("one/lab.vnet.yaml"),
        qemu: false,
    };
    let Some(said) = scene.play() else { return };

    said.at("inner: cpus 4, online 0-3, clock kvm-clock");
    said.at("inner: package of 0-3, cores 4");
    said.at("inner: offered svm 0");
    for cpu in 0..4 {
        // The MD5 sum of the numbers from 1 to 20000, a line each.
        said.at(&format!("inner: works on {cpu}: e071f707df7bbeee2a6a1eb48011ddd0"));
    }
    said.at("inner: disks 8192 8192 vnet-disk1");
    said.at("inner: vda written on vda now");
    said.at("inner: vdb written on vdb now");
    said.at("inner: last sectors 512");
    said.at("inner: random 32");
    said.at("inner: mtu 1400 carrier 1");
    said.at("inner: answered first");
    said.at("inner: 5 packets transmitted, 5 packets received, 0% packet loss");
    assert!(said.at("inner: carrier 0") < said.at("inner: carrier 1"));
    said.at("inner: answered after the link was down");
    assert!(said.at("outer: paused") < said.at("outer: running"));
    assert!(said.at("outer: the switch was killed") < said.at("inner: answered by the new switch"));
    said.at("inner: resets 0");
    said.at("inner: the power button was pressed");
    assert_eq!(said.after("outer: vmm ended with "), ["0", "0"]);
    // It does not look for a keyboard controller.
    assert!(!said.0.contains("i8042"));

    // The disk that may be written to keeps a file until the next machine; the overlay goes with its own.
    let files = said.after("inner: file on vdb ");
    assert!(files.len() == 2 && files[0] == files[1], "the disk lost a file: {files:?}");
    assert_eq!(said.after("inner: file on vda ").len(), 1, "an overlay outlived its machine");
    said.at("inner: no file system on vda");
    let base = said.after("outer: base ");
    assert!(
        base.len() == 3 && base.iter().all(|sum| *sum == base[0]),
        "the image below the overlay was written: {base:?}"
    );
}

#[test]
fn two_guests_of_vmm_lite_and_one_of_qemu_share_two_vlans() {
    let scene = Scene {
        inner: include_str!("three/inner"),
        outer: include_str!("three/outer"),
        lab: include_str!("three/lab.vnet.yaml"),
        qemu: true,
    };
    let Some(said) = scene.play() else { return };

    let disk = said.after("outer: disk ");
    assert!(disk.len() == 2 && disk[0] == disk[1], "the image below the overlays was written: {disk:?}");
    for (name, number) in [("a", 1), ("b", 2), ("c", 3)] {
        said.at(&format!("{name}: cpus 2, disk 131072"));
        said.at(&format!("{name}: macs 02:00:00:00:10:0{number} 02:00:00:00:20:0{number}"));
        for peer in (1..=3).filter(|peer| *peer != number) {
            for vlan in [10, 20] {
                for address in [format!("10.0.{vlan}.{peer}"), format!("2001:db8:{vlan}::{peer}")] {
                    said.at(&format!("{name}: {address} answers"));
                }
            }
        }
        // One and the same address: what stands between is the VLAN of a MAC address.
        said.at(&format!("{name}: no answer from VLAN 20 by a MAC of VLAN 10"));
        said.at(&format!("{name}: an answer from VLAN 20 by a MAC of VLAN 20"));
        // 64 MiB from its neighbour's disk.
        assert_eq!(said.after(&format!("{name}: got ")), [disk[0]], "what {name} got is not what was sent");
        assert!(said.at(&format!("{name}: carrier 0 1")) < said.at(&format!("{name}: carrier 1 1")));
        said.at(&format!("{name}: answered after the link was down"));
    }
}
