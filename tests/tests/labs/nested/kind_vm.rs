//! `kind: vm` where KVM runs kernels: the image `debian`, of which the other tests see how QEMU boots it, comes up under vmm-lite by
//! `vmm: auto`, holds what its file expects, and is told to have powered itself off.

use super::{KVM, Root, outer, packages};
use crate::common::{left_out, real_guests};
use controller::image::{self, Name};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

/// The outer guest's kernel and first file system, with the image in the cache that `vnet` looks into.
fn assemble(folder: &Path) -> Result<(PathBuf, PathBuf), String> {
    let packages = packages()?;
    let debian =
        image::ensure(Name::Debian, &mut |step| eprintln!("{step}")).map_err(|why| why.to_string())?;
    let outer = Root::new(folder.join("o"), &packages, include_str!("kind_vm.init"), &KVM)?;
    let place = Path::new("cache/vnet/images").join(debian.folder.file_name().expect("a folder of its own"));
    for file in fs::read_dir(&debian.folder).map_err(|why| why.to_string())?.flatten() {
        outer.copy(&file.path(), place.join(file.file_name()).to_str().expect("a path of ASCII"));
    }
    outer.write("kind_vm.vnet.yaml", include_str!("kind_vm.vnet.yaml"));
    outer.program(env!("CARGO_BIN_EXE_vnet"), "vnet")?;
    let initrd = folder.join("outer");
    outer.archive(&initrd)?;
    Ok((outer.kernel(), initrd))
}

#[test]
fn auto_is_vmm_lite_where_kvm_runs_kernels_and_the_image_answers_there() {
    if !real_guests() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (kernel, initrd) = match assemble(folder.path()) {
        Ok(both) => both,
        Err(why) => return left_out(&format!("an image under vmm-lite: {why}")),
    };
    let began = Instant::now();
    let said = outer::play(&kernel, &initrd);
    println!("{said}\n-- {:?}", began.elapsed());
    let line = |what: &str, how: &str| {
        let found = said.lines().any(|line| line.contains(what) && line.contains(how));
        assert!(found, "no line with `{what}` and `{how}`, but:\n{said}");
    };
    line("doctor: ok", "vmm-lite runs bundled guests, images and kernels");
    line("vm1 started: vmm-lite", "/dev/kvm is usable");
    line("nodes:  vm1 ", "vmm-lite");
    line("guest: kvm-clock, cpus 2, mtu 1400", "");
    line("test: 0", "");
    for offload in ["rx-checksumming: on", "tx-checksumming: on", "tcp-segmentation-offload: on"] {
        line("offloads: ", offload);
    }
    line("link: Speed: 10000Mb/s", "");
    line("link: Duplex: Full", "");
    line("out: ", "at both ends");
    line("in: ", "at both ends");
    for pairs in [4, 1, 3] {
        line(&format!("pairs {pairs}, out: "), "at both ends");
        line(&format!("pairs {pairs}, in: "), "at both ends");
        line(&format!("pairs {pairs}: "), &format!("Combined: {pairs}"));
    }
    line("guest: address 02:00:00:00:00:77", "");
    line("guest: refused commands 0", "");
    line("guest: announced itself, 0", "");
    let rings =
        said.lines().find_map(|line| line.strip_prefix(r#""ring_frames":"#)).expect("frames of each ring");
    let rings: BTreeMap<usize, u64> = serde_json::from_str(rings).expect("an object");
    for odd in [0, 1] {
        let used = rings.iter().filter(|(ring, frames)| *ring % 2 == odd && **frames > 0).count();
        assert!(used > 1, "of its receiveqs and its transmitqs several are used: {rings:?}");
    }
    line("guest: carrier 0", "");
    line("guest: carrier 1", "");
    line(" vm1 ", "the guest powered off");
    line("down: 0", "");
}
