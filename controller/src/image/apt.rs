//! Debian packages without installing them: an apt of our own, with the machine's sources and no rights.

use super::{ImageError, tool};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Package lists and a cache in a folder of ours. Sources and keys are the machine's.
#[derive(Debug)]
pub(super) struct Apt {
    folder: PathBuf,
}

/// The machine's hooks are for its own package state: none of them runs. Indexes that nobody reads are not fetched.
const CONFIG: &str = r#"
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::CNF;
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
"#;

impl Apt {
    /// An apt in `folder`, with today's package lists.
    pub(super) fn update(folder: &Path) -> Result<Self, ImageError> {
        for sub in ["state/lists/partial", "cache/archives/partial", "log", "packages"] {
            let path = folder.join(sub);
            fs::create_dir_all(&path).map_err(|e| ImageError::io(&path, e))?;
        }
        let config = folder.join("apt.conf");
        fs::write(&config, CONFIG).map_err(|e| ImageError::io(&config, e))?;
        let apt = Self { folder: folder.to_owned() };
        tool::output(apt.command("apt-get").args(["--quiet=2", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let option = |name: &str, sub: &str| format!("{name}={}", self.folder.join(sub).display());
        // Folders go by option: apt reads them before the file given with -c.
        for (name, sub) in [("Dir::State", "state"), ("Dir::Cache", "cache"), ("Dir::Log", "log")] {
            command.arg("-o").arg(option(name, sub));
        }
        command.arg("-o").arg("Dir::State::status=/var/lib/dpkg/status");
        command.arg("-c").arg(self.folder.join("apt.conf"));
        command.env("LC_ALL", "C").current_dir(self.folder.join("packages"));
        command
    }

    /// What each of `packages` depends on directly.
    pub(super) fn depends(&self, packages: &BTreeSet<String>) -> Result<BTreeSet<String>, ImageError> {
        let said = tool::text(self.command("apt-cache").args(["depends", "--important"]).args(packages))?;
        let names =
            said.lines().filter_map(|line| line.trim_start().split_once("epends: ").map(|(_, name)| name));
        Ok(names.filter(|name| !name.starts_with('<')).map(str::to_owned).collect())
    }

    /// `packages` and the shared libraries that they need, level by level; not the rest of a Debian system.
    pub(super) fn with_libraries(&self, packages: &[&str]) -> Result<BTreeSet<String>, ImageError> {
        let mut all: BTreeSet<String> = packages.iter().map(|&p| p.to_owned()).collect();
        let mut fresh = all.clone();
        while !fresh.is_empty() {
            let needed = self.depends(&fresh)?.into_iter().filter(|name| name.starts_with("lib"));
            fresh = needed.filter(|name| !all.contains(name)).collect();
            all.extend(fresh.iter().cloned());
        }
        Ok(all)
    }

    /// Downloads `packages` (signatures checked by apt), unpacks them into `root`, and returns the file name of each:
    /// `NAME_VERSION_ARCHITECTURE.deb`.
    pub(super) fn unpack(&self, packages: &BTreeSet<String>, root: &Path) -> Result<Vec<String>, ImageError> {
        tool::output(self.command("apt-get").args(["--quiet=2", "download"]).args(packages))?;
        let folder = self.folder.join("packages");
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).map_err(|e| ImageError::io(&folder, e))? {
            let path = entry.map_err(|e| ImageError::io(&folder, e))?.path();
            tool::output(Command::new("dpkg").arg("-x").arg(&path).arg(root))?;
            names.extend(path.file_name().map(|n| n.to_string_lossy().into_owned()));
        }
        names.sort();
        Ok(names)
    }
}
