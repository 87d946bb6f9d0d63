//! Where labs live while they run: one folder of ours, in it one folder for each lab, nobody else's business.

use super::{made, name::LabName, netns, sockets::remove_stale};
use crate::failure::{Context, Failure};
use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// The file that a controller holds as long as it lives. A folder without it holds no lab.
pub(super) const LOCK: &str = "lock";

/// The file that says that a lab's folder was made by vnet.
pub(super) const MARK: &str = "vnet-lab";

/// The file that says that the folder of all labs was made by vnet.
const RUNTIME_MARK: &str = "vnet-runtime";

/// The first line of a mark. A folder without it is somebody else's, whatever its name.
const MADE_BY_US: &str =
    "vnet made this folder; `vnet down` removes what vnet put into it, and nothing else\n";

/// Folders in the making and in removal: their names begin so, which no lab's does.
pub(super) const ASIDE: &str = ".vnet-";

/// The folder that holds the folders of all labs of this user.
#[derive(Debug, Clone)]
pub struct Runtime {
    path: PathBuf,
}

impl Runtime {
    /// The folder that the environment names: `VNET_RUNTIME_DIR`, else `XDG_RUNTIME_DIR/vnet`, else `/run/vnet` for
    /// root, else `/tmp/vnet-UID`.
    pub fn of_environment() -> Self {
        let uid = rustix::process::getuid();
        let given = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let path = given("VNET_RUNTIME_DIR")
            .or_else(|| given("XDG_RUNTIME_DIR").map(|base| base.join("vnet")))
            .unwrap_or_else(|| {
                if uid.is_root() { "/run/vnet".into() } else { format!("/tmp/vnet-{}", uid.as_raw()).into() }
            });
        Self::at(&path)
    }

    /// The folder at `path`.
    pub fn at(path: &Path) -> Self {
        Self { path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()) }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the labs that are here, running or orphaned, sorted. Nothing is written.
    ///
    /// # Errors
    /// The folder cannot be read, or is not ours.
    pub fn labs(&self) -> Result<Vec<LabName>, Failure> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(unusable(&self.path, &error)),
        };
        must_be_private(&self.path)?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut labs: Vec<_> = names.filter(|name| self.lab(name).exists()).collect();
        labs.sort();
        Ok(labs)
    }

    /// The folder of `lab`, which need not exist.
    pub fn lab(&self, lab: &LabName) -> LabDir {
        LabDir { path: self.path.join(lab.as_str()) }
    }

    /// Makes the folder, marked as ours, or finds one that only this user can enter.
    pub(super) fn make(&self) -> Result<(), Failure> {
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => put_mark(&self.path, RUNTIME_MARK).map_err(|error| unusable(&self.path, &error)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => must_be_private(&self.path),
            Err(error) => Err(unusable(&self.path, &error)),
        }
    }

    /// Removes the folder if vnet made it and no lab is left in it.
    pub fn remove_if_empty(&self) {
        self.sweep();
        if !bears_mark(&self.path, RUNTIME_MARK) || fs::read_dir(&self.path).map_or(2, Iterator::count) > 1 {
            return;
        }
        let removed = fs::remove_file(self.path.join(RUNTIME_MARK)).and_then(|()| fs::remove_dir(&self.path));
        if removed.is_err() && self.path.exists() {
            // Somebody came meanwhile: it is for them to remove. Without the mark it would only stay.
            let _ = put_mark(&self.path, RUNTIME_MARK);
        }
    }
}

/// Writes the mark `name` into a folder that we just made.
pub(super) fn put_mark(folder: &Path, name: &str) -> io::Result<()> {
    fs::write(folder.join(name), MADE_BY_US)
}

/// Whether `folder` bears the mark `name`.
pub(super) fn bears_mark(folder: &Path, name: &str) -> bool {
    let path = folder.join(name);
    let plain = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
    plain && fs::read(path).is_ok_and(|said| said.starts_with(MADE_BY_US.as_bytes()))
}

/// The folder of one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabDir {
    path: PathBuf,
}

impl LabDir {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a lab is there, running or orphaned. A folder that is left with what others put into it is none.
    pub fn exists(&self) -> bool {
        bears_mark(&self.path, MARK) && self.path.join(LOCK).exists()
    }

    /// What others put into the folder: it is never removed.
    pub fn foreign(&self) -> Vec<PathBuf> {
        made::foreign(&self.path)
    }

    /// Where the API listens.
    pub fn api_socket(&self) -> PathBuf {
        self.path.join("api.sock")
    }

    /// The list of processes of the lab.
    pub fn processes(&self) -> PathBuf {
        self.path.join(made::PROCESSES)
    }

    /// The list of processes while it is written.
    pub(super) fn processes_new(&self) -> PathBuf {
        self.path.join(made::PROCESSES_NEW)
    }

    /// The log of one process of the lab.
    pub fn log(&self, of: &str) -> PathBuf {
        self.path.join(made::LOGS).join(format!("{of}.log"))
    }

    /// The vhost-user socket of an interface, unless the file gave another path.
    pub fn port_socket(&self, node: &str, interface: &str) -> PathBuf {
        self.path.join(format!("{node}.{interface}.sock"))
    }

    /// The list of the lab's sockets that lie outside of the folder, each path ended by a NUL byte.
    fn sockets_elsewhere(&self) -> PathBuf {
        self.path.join(made::SOCKETS_ELSEWHERE)
    }

    /// Notes a socket that is about to be made, so that it goes with the folder whoever removes it. One inside of it goes
    /// anyway.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn note_socket(&self, path: &Path) -> Result<(), Failure> {
        if path.starts_with(&self.path) {
            return Ok(());
        }
        note(&self.sockets_elsewhere(), path.as_os_str())
    }

    /// Notes a network namespace that is about to be made, so that it goes with the folder whoever removes it.
    ///
    /// # Errors
    /// The note cannot be written.
    pub(super) fn note_namespace(&self, name: &str) -> Result<(), Failure> {
        note(&self.path.join(made::NAMESPACES), OsStr::new(name))
    }

    /// The network namespaces that were noted.
    pub(super) fn noted_namespaces(&self) -> Vec<String> {
        let noted = noted(&self.path.join(made::NAMESPACES));
        noted.into_iter().filter_map(|name| name.into_string().ok()).collect()
    }

    /// Removes the network namespaces that were noted.
    ///
    /// # Errors
    /// One is there and cannot be removed.
    pub(super) fn remove_namespaces(&self) -> Result<(), Failure> {
        self.noted_namespaces().iter().try_for_each(|name| netns::remove(name))
    }

    /// The other lab of this user that noted a socket at `path`; none if there is no such lab, or it cannot be said.
    pub(super) fn other_lab_with(&self, path: &Path) -> Option<LabName> {
        let runtime = Runtime::at(self.path.parent()?);
        let others = runtime.labs().ok()?.into_iter().filter(|lab| runtime.lab(lab) != *self);
        { others }.find(|lab| runtime.lab(lab).noted_sockets().iter().any(|noted| noted == path))
    }

    fn noted_sockets(&self) -> Vec<PathBuf> {
        noted(&self.sockets_elsewhere()).into_iter().map(PathBuf::from).collect()
    }

    /// Removes the sockets that were noted, where nobody listens any more.
    pub(super) fn remove_sockets_elsewhere(&self) {
        for path in self.noted_sockets() {
            // Gone already, or somebody else's by now: as it should be.
            let _ = remove_stale(&path);
        }
    }
}

/// Appends to a list, each of whose entries is ended by a NUL byte.
fn note(list: &Path, entry: &OsStr) -> Result<(), Failure> {
    let written = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(list)
        .and_then(|mut file| file.write_all(&[entry.as_bytes(), b"\0"].concat()));
    written.context("run-directory", || list.display().to_string())
}

/// The entries of such a list; none if there is no list.
fn noted(list: &Path) -> Vec<OsString> {
    let noted = fs::read(list).unwrap_or_default();
    let entries = noted.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    entries.map(|entry| OsStr::from_bytes(entry).to_owned()).collect()
}

pub(super) fn unusable(path: &Path, error: &io::Error) -> Failure {
    Failure::lacking("run-directory", format!("the run directory {} cannot be used: {error}", path.display()))
        .mend("set VNET_RUNTIME_DIR to a folder that you own and nobody else can write to")
}

/// A folder of this user, mode 0700, and not a symbolic link: in /tmp anybody could have put one there before us.
pub(super) fn must_be_private(path: &Path) -> Result<(), Failure> {
    let metadata = fs::symlink_metadata(path).map_err(|e| unusable(path, &e))?;
    let wrong = if metadata.is_symlink() {
        "it is a symbolic link"
    } else if !metadata.is_dir() {
        "it is not a folder"
    } else if metadata.uid() != rustix::process::getuid().as_raw() {
        "it belongs to somebody else"
    } else if metadata.permissions().mode() & 0o077 != 0 {
        return Err(unusable(path, &io::Error::other("others can enter it (its mode must be 0700)"))
            .mend(format!("chmod 700 {}", path.display())));
    } else {
        return Ok(());
    };
    Err(unusable(path, &io::Error::other(wrong)))
}
