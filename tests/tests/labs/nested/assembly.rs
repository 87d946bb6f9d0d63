//! The first file systems of guests: Debian's kernel and its modules, busybox, and programs of this machine.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// The newest of Debian's kernels for clouds, by a dependency.
const KERNEL: &str = "linux-image-cloud-amd64";

/// Runs a program in `folder` to its end, and returns what it said; else why not.
fn tool(folder: &Path, program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    let output = output.map_err(|why| format!("{program}: {why}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {arguments:?}: {}", said.trim()));
    }
    String::from_utf8(output.stdout).map_err(|why| format!("{program}: {why}"))
}

/// Debian's kernel and busybox, unpacked; kept from run to run.
pub(super) fn packages() -> Result<PathBuf, String> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nested-packages");
    let done = cache.join("unpacked");
    if done.exists() {
        return Ok(done);
    }
    fs::create_dir_all(&cache).expect("the target folder can be written");
    let work = tempfile::tempdir_in(&cache).expect("a folder");
    let depends = || tool(work.path(), "apt-cache", &["depends", "--important", KERNEL]);
    let said = depends().or_else(|_| {
        // A machine that has never looked what there is.
        tool(work.path(), "apt-get", &["--quiet=2", "update"])?;
        depends()
    })?;
    let kernel = said.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let kernel = kernel.ok_or_else(|| format!("{KERNEL} depends on no kernel"))?;
    let wanted = ["--quiet=2", "-o", "APT::Sandbox::User=root", "download", "busybox-static", kernel];
    tool(work.path(), "apt-get", &wanted)?;
    let root = work.path().join("root");
    for entry in fs::read_dir(work.path()).expect("a folder").flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            let (package, root) = (entry.path(), root.to_str().expect("a path of ASCII"));
            tool(work.path(), "dpkg", &["-x", package.to_str().expect("a path of ASCII"), root])?;
        }
    }
    // Whole or not at all; another run may have been faster.
    let _ = fs::rename(&root, &done);
    if done.exists() { Ok(done) } else { Err("what was unpacked cannot be kept".into()) }
}

/// A file somewhere below `folder`, by its name.
fn find(folder: &Path, wanted: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            // Not through links: `/bin` may be one to `/usr/bin`.
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && entry.file_name().to_str().is_some_and(&wanted) {
                return Some(entry.path());
            }
        }
    }
    None
}

/// A first file system in the making.
pub(super) struct Root<'a> {
    folder: PathBuf,
    packages: &'a Path,
}

impl<'a> Root<'a> {
    /// With busybox, `init`, and modules of the kernel.
    pub(super) fn new(
        folder: PathBuf,
        packages: &'a Path,
        init: &str,
        modules: &[&str],
    ) -> Result<Self, String> {
        for place in ["bin", "dev", "proc", "sys", "tmp", "modules"] {
            fs::create_dir_all(folder.join(place)).expect("a folder");
        }
        let root = Self { folder, packages };
        root.copy(&root.busybox(), "bin/busybox");
        root.write("init", init);
        let order: Result<Vec<_>, _> = modules.iter().map(|module| root.module(module)).collect();
        root.write("modules/order", &order?.into_iter().flatten().collect::<Vec<_>>().join("\n"));
        Ok(root)
    }

    fn busybox(&self) -> PathBuf {
        find(self.packages, |name| name == "busybox").expect("busybox")
    }

    /// A module as `insmod` takes it; none if the kernel has it already.
    fn module<'m>(&self, name: &'m str) -> Result<Option<&'m str>, String> {
        let file = format!("{name}.ko");
        let named =
            |found: &str| found.strip_prefix(&file).is_some_and(|end| end.is_empty() || end.starts_with('.'));
        let Some(from) = find(self.packages, named) else {
            let list = find(self.packages, |name| name == "modules.builtin").expect("what the kernel has");
            let list = fs::read_to_string(list).expect("a list");
            assert!(list.lines().any(|line| line.rsplit('/').next() == Some(&file)), "no module {name}");
            return Ok(None);
        };
        let to = format!("modules/{name}.ko");
        match from.extension().and_then(|end| end.to_str()) {
            Some("ko") => self.copy(&from, &to),
            Some("xz") => {
                let unpacked = fs::File::create(self.folder.join(to)).expect("a file");
                let unpack = Command::new(self.busybox()).arg("xzcat").arg(&from).stdout(unpacked).status();
                if !unpack.is_ok_and(|status| status.success()) {
                    return Err(format!("busybox cannot unpack {}", from.display()));
                }
            }
            _ => return Err(format!("nothing here unpacks {}", from.display())),
        }
        Ok(Some(name))
    }

    pub(super) fn copy(&self, from: &Path, to: &str) {
        let to = self.folder.join(to);
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::copy(from, &to).unwrap_or_else(|why| panic!("{}: {why}", from.display()));
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its own file");
    }

    /// A program, with the libraries of this machine that it needs.
    pub(super) fn program(&self, path: &str, name: &str) -> Result<(), String> {
        let to = self.folder.join("bin").join(name);
        // What a debugger wants would only fill the guest's memory.
        if tool(&self.folder, "strip", &["-o", to.to_str().expect("a path of ASCII"), path]).is_err() {
            self.copy(Path::new(path), &format!("bin/{name}"));
        }
        let needed = tool(&self.folder, "ldd", &[path])?;
        for word in needed.split_whitespace().filter(|word| word.starts_with('/')) {
            self.copy(Path::new(word), word.trim_start_matches('/'));
        }
        Ok(())
    }

    /// This machine's QEMU, with the firmware of a machine that boots a kernel from outside.
    pub(super) fn qemu(&self) -> Result<(), String> {
        let path = tool(&self.folder, "sh", &["-c", "command -v qemu-system-x86_64"])?;
        self.program(path.trim(), "qemu-system-x86_64")?;
        let folders = tool(&self.folder, path.trim(), &["-L", "help"])?;
        for name in ["bios-256k.bin", "linuxboot_dma.bin"] {
            let found = folders.lines().map(|folder| Path::new(folder).join(name)).find(|file| file.exists());
            let found = found.ok_or_else(|| format!("QEMU has no {name}"))?;
            self.copy(&found, &format!("firmware/{name}"));
        }
        Ok(())
    }

    /// As a kernel unpacks it.
    pub(super) fn archive(&self, to: &Path) -> Result<(), String> {
        let script = format!("find . | cpio --quiet -o -H newc > '{}'", to.display());
        tool(&self.folder, "sh", &["-c", &script]).map(drop)
    }

    pub(super) fn kernel(&self) -> PathBuf {
        find(&self.packages.join("boot"), |name| name.starts_with("vmlinuz-")).expect("a kernel")
    }
}

#[test]
fn a_kernels_modules_are_taken_as_they_are_or_unpacked_or_are_in_it_already() {
    if !crate::common::real_guests() {
        return;
    }
    let packages = match packages() {
        Ok(packages) => packages,
        Err(why) => return crate::common::left_out(&format!("modules of Debian's kernel: {why}")),
    };
    /// `a module`, as `xz --check=crc32` packs it.
    const PACKED: &[u8] =
        b"\xfd7zXZ\0\0\x01\x69\x22\xde\x36\x02\0\x21\x01\x16\0\0\0\x74\x2f\xe5\xa3\x01\0\x07a module\0\
        \x5b\xc1\x38\x0b\0\x01\x1c\x08\x44\x60\x2a\xc8\x90\x42\x99\x0d\x01\0\0\0\0\x01YZ";
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder can be made");
    let kernel = folder.path().join("kernel");
    fs::create_dir(&kernel).expect("a folder");
    let busybox = find(&packages, |name| name == "busybox").expect("busybox");
    // Not a copy: what is still being written cannot be run.
    fs::hard_link(busybox, kernel.join("busybox")).expect("a link");
    fs::write(kernel.join("packed.ko.xz"), PACKED).expect("a file");
    fs::write(kernel.join("plain.ko"), "as it is").expect("a file");
    fs::write(kernel.join("modules.builtin"), "kernel/fs/inside.ko\n").expect("a file");
    fs::write(kernel.join("odd.ko.zst"), "").expect("a file");

    let root =
        Root::new(folder.path().join("root"), &kernel, "", &["packed", "inside", "plain"]).expect("a root");
    let read = |name: &str| fs::read_to_string(root.folder.join("modules").join(name)).expect("a file");
    assert_eq!(read("packed.ko"), "a module");
    assert_eq!(read("plain.ko"), "as it is");
    assert_eq!(read("order"), "packed\nplain");
    let odd = Root::new(folder.path().join("odd"), &kernel, "", &["odd"]).map(drop);
    assert!(odd.is_err_and(|why| why.contains("odd.ko.zst")));
}
