//! Kernel modules out of a package: which files a driver needs, read from the modules themselves.

use super::ImageError;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The modules of one kernel package, by name.
#[derive(Debug)]
pub(super) struct Modules {
    files: BTreeMap<String, PathBuf>,
    builtin: Vec<String>,
}

/// One module that is to be loaded.
#[derive(Debug)]
pub(super) struct Module {
    /// Its name, with underscores.
    pub(super) name: String,
    /// All that it needs, directly or not, in the order in which `modules.dep` has it: the last is loaded first.
    pub(super) depends: Vec<String>,
    /// The module, unpacked.
    pub(super) object: Vec<u8>,
}

impl Modules {
    /// Those under `folder` (`lib/modules/VERSION` of an unpacked package).
    pub(super) fn find(folder: &Path) -> Result<Self, ImageError> {
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.join("kernel")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(|e| ImageError::io(&folder, e))? {
                let entry = entry.map_err(|e| ImageError::io(&folder, e))?;
                let path = entry.path();
                if entry.file_type().map_err(|e| ImageError::io(&path, e))?.is_dir() {
                    folders.push(path);
                } else if let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(module_name) {
                    files.insert(name, path);
                }
            }
        }
        let list = folder.join("modules.builtin");
        let builtin = fs::read_to_string(&list).map_err(|e| ImageError::io(&list, e))?;
        let builtin = builtin.lines().filter_map(|l| module_name(l.rsplit('/').next()?)).collect();
        Ok(Self { files, builtin })
    }

    /// `roots` and all that they need, each behind what it needs; what the kernel has built in is left out.
    pub(super) fn closure(&self, roots: &[&str]) -> Result<Vec<Module>, ImageError> {
        let mut found = Vec::new();
        for root in roots {
            self.visit(root, &mut found)?;
        }
        Ok(found)
    }

    fn visit(&self, name: &str, found: &mut Vec<Module>) -> Result<(), ImageError> {
        if found.iter().any(|m| m.name == name) || self.builtin.iter().any(|b| b == name) {
            return Ok(());
        }
        let file = self.files.get(name).ok_or_else(|| ImageError::NoModule(name.to_owned()))?;
        let object = read(file)?;
        let depends = depends(&object);
        for needed in &depends {
            self.visit(needed, found)?;
        }
        let depends = closure_of(&depends, found);
        found.push(Module { name: name.to_owned(), depends, object });
        Ok(())
    }
}

/// What modules that need `direct` need in all, out of `found`, which has each module behind what it needs.
fn closure_of(direct: &[String], found: &[Module]) -> Vec<String> {
    let needed = |name: &String| {
        direct.contains(name) || found.iter().any(|m| direct.contains(&m.name) && m.depends.contains(name))
    };
    found.iter().rev().map(|m| &m.name).filter(|name| needed(name)).cloned().collect()
}

/// `virtio_net` of `virtio-net.ko` or `virtio_net.ko.xz`; none of any other file.
fn module_name(file: &str) -> Option<String> {
    let (name, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".xz").then(|| name.replace('-', "_"))
}

/// What a module says it needs: the `depends=` word of its `.modinfo` section, a string that ends in NUL.
fn depends(object: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = object.windows(KEY.len()).position(|w| w == KEY) else { return Vec::new() };
    let value = object[start + KEY.len()..].split(|&b| b == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|n| !n.is_empty()).map(|n| n.replace('-', "_")).collect()
}

/// A module's object code; Debian compresses it since release 13.
fn read(file: &Path) -> Result<Vec<u8>, ImageError> {
    if file.extension().is_none_or(|e| e != "xz") {
        return fs::read(file).map_err(|e| ImageError::io(file, e));
    }
    super::tool::output(Command::new("xz").args(["--decompress", "--stdout"]).arg(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_comes_behind_what_it_needs() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("kernel/drivers");
        fs::create_dir_all(&kernel).unwrap();
        for (file, needs) in
            [("virtio-net.ko", "net-failover,virtio"), ("net_failover.ko", "failover"), ("failover.ko", "")]
        {
            fs::write(kernel.join(file), format!("\x7fELF\0license=GPL\0depends={needs}\0name=x\0")).unwrap();
        }
        fs::write(folder.path().join("modules.builtin"), "kernel/drivers/virtio/virtio.ko\n").unwrap();

        let modules = Modules::find(folder.path()).unwrap();
        let found = modules.closure(&["virtio_net"]).unwrap();
        assert_eq!(found[2].depends, ["net_failover", "failover"], "modprobe loads from the right");
        let order: Vec<_> = found.into_iter().map(|m| m.name).collect();
        assert_eq!(order, ["failover", "net_failover", "virtio_net"], "virtio is built in");
        assert!(modules.closure(&["e1000"]).unwrap_err().to_string().contains("e1000"));
    }
}
