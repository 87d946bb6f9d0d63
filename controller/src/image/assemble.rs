//! The recipe of the images `debian` and `debian-generic`: which packages, which modules, and what lies where in the initramfs.

use super::{
    ImageError, Manifest, Name, Progress,
    apt::Apt,
    cpio::Archive,
    modules::{Module, Modules},
    tool,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Names the newest kernel by a dependency.
const fn kernel_package(name: Name) -> &'static str {
    match name {
        Name::Debian => "linux-image-cloud-amd64",
        Name::DebianGeneric => "linux-image-amd64",
    }
}

/// Drivers of the cards that QEMU emulates, which the cloud kernel does not have: of each `model:` of an interface.
const fn card_drivers(name: Name) -> &'static [&'static str] {
    match name {
        Name::Debian => &[],
        Name::DebianGeneric => &["e1000", "e1000e", "8139cp"],
    }
}

/// What a guest's user and `test` need.
const PACKAGES: [&str; 4] = ["busybox-static", "ethtool", "iperf3", "nftables"];
/// Programs out of [`PACKAGES`] that need shared libraries.
const PROGRAMS: [&str; 3] = ["ethtool", "iperf3", "nft"];
/// Loaded at boot, with what they need.
const DRIVERS: [&str; 3] = ["virtio_pci", "virtio_mmio", "virtio_net"];
/// There for `modprobe`, with what they need.
const MORE_MODULES: [&str; 8] =
    ["8021q", "af_packet", "bonding", "nf_tables", "nft_ct", "nft_reject_inet", "nft_masq", "nft_nat"];
/// The probe agent, static.
pub(crate) const AGENT: &[u8] = include_bytes!(env!("VNET_AGENT"));
/// The guest's scripts: path, permission bits, text.
const SCRIPTS: [(&str, u32, &str); 5] = [
    ("etc/inittab", 0o644, include_str!("guest/inittab")),
    ("etc/vnet/boot", 0o755, include_str!("guest/boot")),
    ("etc/vnet/lease", 0o755, include_str!("guest/lease")),
    ("sbin/vnet-net", 0o755, include_str!("guest/vnet-net")),
    ("sbin/reload-driver", 0o755, include_str!("guest/reload-driver")),
];

/// Hash of all that this program puts into the image: another one makes another image. The recipe's sources stand
/// for the lists above and for the layout. FNV-1a: stable, and nobody gains by a collision in a cache of their own.
pub(super) fn recipe() -> String {
    let scripts = SCRIPTS.iter().map(|(_, _, text)| text.as_bytes());
    let sources: [&[u8]; 3] =
        [include_bytes!("assemble.rs"), include_bytes!("cpio.rs"), include_bytes!("modules.rs")];
    let parts = [AGENT].into_iter().chain(sources).chain(scripts);
    let hash = parts.flatten().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Makes `vmlinuz` and `initrd` in the folder `image`; `work` is for what is needed only meanwhile.
pub(super) fn debian(
    name: Name,
    work: &Path,
    image: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Manifest, ImageError> {
    progress(Progress::Lists);
    let apt = Apt::update(&work.join("apt"))?;
    let mut packages = apt.with_libraries(&PACKAGES)?;
    let kernel_packages = apt.depends(&BTreeSet::from([kernel_package(name).to_owned()]))?;
    packages.extend(kernel_packages.into_iter().filter(|name| name.starts_with("linux-image-")));
    progress(Progress::Packages(packages.len()));
    let root = Root(work.join("root"));
    fs::create_dir(&root.0).map_err(|e| ImageError::io(&root.0, e))?;
    let packages = apt.unpack(&packages, &root.0)?;

    progress(Progress::Assembling);
    let (kernel, release) = root.kernel()?;
    fs::copy(&kernel, image.join("vmlinuz")).map_err(|e| ImageError::io(&kernel, e))?;
    // Not compressed: QEMU hands the guest 12 MB sooner than an emulated CPU unpacks a compressed one.
    let initrd = initramfs(name, &root, &release)?.into_bytes();
    let path = image.join("initrd");
    fs::write(&path, &initrd).map_err(|e| ImageError::io(&path, e))?;
    let kernel_bytes = fs::metadata(&kernel).map_err(|e| ImageError::io(&kernel, e))?.len();
    let bytes = kernel_bytes + initrd.len() as u64;
    Ok(Manifest { name: name.as_str().into(), kernel: release, recipe: recipe(), packages, bytes })
}

fn initramfs(name: Name, root: &Root, release: &str) -> Result<Archive, ImageError> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "tmp", "run", "root", "usr/bin", "usr/sbin"] {
        archive.directory(folder);
    }
    // What the kernel gives to init as its three standard files, before anything is mounted.
    archive.character_device("dev/console", 5, 1);
    archive.file("bin/busybox", 0o755, root.read("bin/busybox")?);
    archive.symlink("init", "/bin/busybox");
    archive.symlink("bin/sh", "/bin/busybox");
    archive.file("etc/passwd", 0o644, *b"root::0:0:root:/root:/bin/sh\n");
    archive.file("etc/hosts", 0o644, *b"127.0.0.1 localhost\n::1 localhost\n");
    archive.file("bin/vnet-agent", 0o755, AGENT);
    for (path, mode, text) in SCRIPTS {
        archive.file(path, mode, text);
    }
    for program in PROGRAMS {
        let file = root.program(program)?;
        for (path, library) in root.libraries(&file)? {
            archive.file(&path, 0o755, fs::read(&library).map_err(|e| ImageError::io(&library, e))?);
        }
        archive.file(
            &format!("bin/{program}"),
            0o755,
            fs::read(&file).map_err(|e| ImageError::io(&file, e))?,
        );
    }
    add_modules(name, &mut archive, root, release)?;
    Ok(archive)
}

fn add_modules(name: Name, archive: &mut Archive, root: &Root, release: &str) -> Result<(), ImageError> {
    let modules = Modules::find(&root.find(&format!("lib/modules/{release}"))?)?;
    let drivers: Vec<_> = DRIVERS.iter().chain(card_drivers(name)).copied().collect();
    let roots: Vec<_> = drivers.iter().copied().chain(MORE_MODULES).collect();
    let mut dependencies = String::new();
    let folder = format!("lib/modules/{release}");
    for Module { name, depends, object } in modules.closure(&roots)? {
        let needs: Vec<_> = depends.iter().map(|d| format!(" {d}.ko")).collect();
        dependencies.push_str(&format!("{name}.ko:{}\n", needs.concat()));
        archive.file(&format!("{folder}/{name}.ko"), 0o644, object);
    }
    // What `depmod` would write, for `modprobe`.
    archive.file(&format!("{folder}/modules.dep"), 0o644, dependencies);
    let loaded: Vec<_> = modules.closure(&drivers)?.into_iter().map(|m| m.name).collect();
    archive.file("etc/vnet/modules", 0o644, loaded.join(" ") + "\n");
    Ok(())
}

/// Unpacked packages. Where `/` and `/usr` are one, packages may keep a file under either.
struct Root(PathBuf);

impl Root {
    fn find(&self, path: &str) -> Result<PathBuf, ImageError> {
        let places = [self.0.join(path), self.0.join("usr").join(path)];
        places.into_iter().find(|p| p.exists()).ok_or_else(|| ImageError::NotInPackages(path.to_owned()))
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, ImageError> {
        let path = self.find(path)?;
        fs::read(&path).map_err(|e| ImageError::io(&path, e))
    }

    fn program(&self, name: &str) -> Result<PathBuf, ImageError> {
        self.find(&format!("bin/{name}")).or_else(|_| self.find(&format!("sbin/{name}")))
    }

    /// The kernel and its release.
    fn kernel(&self) -> Result<(PathBuf, String), ImageError> {
        let boot = self.0.join("boot");
        let entries = fs::read_dir(&boot).map_err(|e| ImageError::io(&boot, e))?;
        let mut kernels = entries.flatten().filter_map(|entry| {
            let release = entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned();
            Some((entry.path(), release))
        });
        kernels.next().ok_or_else(|| ImageError::NotInPackages("boot/vmlinuz-*".into()))
    }

    /// The shared libraries that `program` needs, its interpreter included, as the packages' own dynamic linker finds
    /// them: path in the guest, file here.
    fn libraries(&self, program: &Path) -> Result<Vec<(String, PathBuf)>, ImageError> {
        const INTERPRETER: &str = "lib64/ld-linux-x86-64.so.2";
        const FOLDER: &str = "lib/x86_64-linux-gnu";
        // Through lib64 it would be an absolute link, out of these packages.
        let linker = self.find(&format!("{FOLDER}/ld-linux-x86-64.so.2"))?;
        let path = format!("{0}/{FOLDER}:{0}/usr/{FOLDER}", self.0.display());
        let said =
            tool::text(Command::new(&linker).arg("--library-path").arg(path).arg("--list").arg(program))?;
        let mut libraries = vec![(INTERPRETER.to_owned(), linker)];
        for line in said.lines() {
            let Some((name, place)) = line.trim().split_once(" => ") else { continue };
            let file = PathBuf::from(place.rsplit_once(" (").map_or(place, |(file, _)| file));
            if name.starts_with('/') {
                continue;
            }
            if !file.starts_with(&self.0) {
                return Err(ImageError::NotInPackages(format!("shared library {name}")));
            }
            libraries.push((format!("{FOLDER}/{name}"), file));
        }
        Ok(libraries)
    }
}
