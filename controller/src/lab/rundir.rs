//! Where labs live while they run: one folder of ours, in it one folder for each lab, nobody else's business.

use crate::failure::{Context, Failure};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

/// The most bytes of a path in a Unix socket address (unix(7): 108 with the terminating NUL).
const MAX_SOCKET_PATH: usize = 107;

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

    /// The names of the labs that have a folder here, sorted.
    ///
    /// # Errors
    /// The folder cannot be read, or is not ours.
    pub fn labs(&self) -> Result<Vec<String>, Failure> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(unusable(&self.path, &error)),
        };
        must_be_ours(&self.path)?;
        let mut names: Vec<_> = entries
            .filter_map(|entry| entry.ok().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names)
    }

    /// The folder of `lab`, which need not exist.
    pub fn lab(&self, lab: &str) -> LabDir {
        LabDir { path: self.path.join(lab) }
    }

    /// Makes the folder of `lab`, and takes it: as long as the [`Claim`] lives, nobody else can.
    ///
    /// # Errors
    /// Somebody else holds it ([`ClaimError::Held`]), or it cannot be made or is not ours.
    pub fn claim(&self, lab: &str) -> Result<Claim, ClaimError> {
        make_private(&self.path)?;
        let dir = self.lab(lab);
        loop {
            make_private(&dir.path)?;
            if let Some(claim) = dir.clone().try_claim()? {
                return Ok(claim);
            }
        }
    }

    /// Removes the folder if no lab is left in it.
    pub fn remove_if_empty(&self) {
        // A folder that is not empty, or is used by somebody who came meanwhile, stays.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Why a lab's folder could not be taken.
#[derive(Debug)]
pub enum ClaimError {
    /// A controller lives there.
    Held,
    /// The folder cannot be used.
    Unusable(Failure),
}

impl From<Failure> for ClaimError {
    fn from(failure: Failure) -> Self {
        Self::Unusable(failure)
    }
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

    /// Where the API listens.
    pub fn api_socket(&self) -> PathBuf {
        self.path.join("api.sock")
    }

    /// The list of processes of the lab.
    pub fn processes(&self) -> PathBuf {
        self.path.join("processes.json")
    }

    /// The log of one process of the lab.
    pub fn log(&self, of: &str) -> PathBuf {
        self.path.join("logs").join(format!("{of}.log"))
    }

    /// The vhost-user socket of an interface, unless the file gave another path.
    pub fn port_socket(&self, node: &str, interface: &str) -> PathBuf {
        self.path.join(format!("{node}.{interface}.sock"))
    }

    /// The list of the lab's sockets that lie outside of the folder, each path ended by a NUL byte.
    fn sockets_elsewhere(&self) -> PathBuf {
        self.path.join("sockets")
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
        let list = self.sockets_elsewhere();
        let written = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&list)
            .and_then(|mut file| file.write_all(&[path.as_os_str().as_bytes(), b"\0"].concat()));
        written.context("run-directory", || list.display().to_string())
    }

    /// Removes the sockets that were noted, where nobody listens any more.
    fn remove_sockets_elsewhere(&self) {
        let noted = fs::read(self.sockets_elsewhere()).unwrap_or_default();
        for path in noted.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
            let path = Path::new(OsStr::from_bytes(path));
            // Gone already, or somebody else's by now: as it should be.
            let _ = remove_stale(path);
        }
    }

    /// Whether a controller holds the folder now.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn is_held(&self) -> Result<bool, Failure> {
        match self.clone().try_claim() {
            Ok(_) => Ok(false),
            Err(ClaimError::Held) => Ok(true),
            Err(ClaimError::Unusable(failure)) => Err(failure),
        }
    }

    /// Takes the folder; `None` if it vanished meanwhile.
    fn try_claim(self) -> Result<Option<Claim>, ClaimError> {
        let path = self.path.join("lock");
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match open(&path, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(unusable(&path, &error.into()).into()),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ClaimError::Held),
            Err(error) => return Err(unusable(&path, &error.into()).into()),
        }
        // Whoever held it before may have removed the folder between our open and our lock: then this lock is on a
        // file that has no name any more.
        let ours = rustix::fs::fstat(&file).map_err(|e| unusable(&path, &e.into()))?;
        match fs::symlink_metadata(&path) {
            Ok(named) if (named.dev(), named.ino()) == (ours.st_dev, ours.st_ino) => {
                Ok(Some(Claim { dir: self, _lock: file }))
            }
            _ => Ok(None),
        }
    }
}

/// A lab's folder, held by this process until it ends, even by `kill -9`.
#[derive(Debug)]
pub struct Claim {
    dir: LabDir,
    _lock: OwnedFd,
}

impl Claim {
    /// The folder.
    pub fn dir(&self) -> &LabDir {
        &self.dir
    }

    /// Removes the folder with all that is in it and the lab's sockets elsewhere, and gives it up.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(self) -> Result<(), Failure> {
        self.dir.remove_sockets_elsewhere();
        fs::remove_dir_all(&self.dir.path)
            .context("run-directory", || format!("{} cannot be removed", self.dir.path.display()))
    }
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    Failure::lacking("run-directory", format!("the run directory {} cannot be used: {error}", path.display()))
        .mend("set VNET_RUNTIME_DIR to a folder that you own and nobody else can write to")
}

/// Makes a folder that only this user can enter, or checks that the one that is there is such a folder.
fn make_private(path: &Path) -> Result<(), Failure> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => must_be_ours(path),
        Err(error) => Err(unusable(path, &error)),
    }
}

/// A folder of this user, mode 0700, and not a symbolic link: in /tmp anybody could have put one there before us.
fn must_be_ours(path: &Path) -> Result<(), Failure> {
    let metadata = fs::symlink_metadata(path).map_err(|e| unusable(path, &e))?;
    let wrong = if metadata.is_symlink() {
        "it is a symbolic link"
    } else if !metadata.is_dir() {
        "it is not a folder"
    } else if metadata.uid() != rustix::process::getuid().as_raw() {
        "it belongs to somebody else"
    } else if metadata.permissions().mode() & 0o077 != 0 {
        "others can enter it (its mode must be 0700)"
    } else {
        return Ok(());
    };
    Err(unusable(path, &io::Error::other(wrong)))
}

/// A path that the system's socket calls take, for a socket at `path`: paths over 107 bytes are reached through a
/// descriptor of their folder, which the caller keeps until the call is done.
///
/// # Errors
/// The folder cannot be opened, or the file name alone is too long.
pub fn socket_address(path: &Path) -> Result<(PathBuf, Option<OwnedFd>), Failure> {
    if path.as_os_str().len() <= MAX_SOCKET_PATH {
        return Ok((path.to_owned(), None));
    }
    let too_long = || {
        let length = path.as_os_str().len();
        Failure::lacking(
            "socket-path",
            format!(
                "the socket path {} has {length} bytes; at most {MAX_SOCKET_PATH} are possible",
                path.display()
            ),
        )
        .mend("give a shorter path, or set VNET_RUNTIME_DIR to a short one")
    };
    let (folder, name) = path.parent().zip(path.file_name()).ok_or_else(too_long)?;
    let descriptor = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context("socket-path", || format!("{} cannot be opened", folder.display()))?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd())).join(name);
    if short.as_os_str().len() > MAX_SOCKET_PATH { Err(too_long()) } else { Ok((short, Some(descriptor))) }
}

/// Listens at `path`. A socket that nobody answers on is replaced if it is ours.
///
/// # Errors
/// Somebody listens there, or something else is there, or it cannot be bound.
pub fn listen(path: &Path) -> Result<UnixListener, Failure> {
    remove_stale(path)?;
    let (address, _folder) = socket_address(path)?;
    UnixListener::bind(&address)
        .context("socket-path", || format!("{} cannot be listened on", path.display()))
}

/// Removes the socket at `path`, if there is one, nobody answers on it, and it is ours.
fn remove_stale(path: &Path) -> Result<(), Failure> {
    let Ok(there) = fs::symlink_metadata(path) else { return Ok(()) };
    let in_the_way = |what: &str| {
        Failure::new(
            crate::failure::Exit::Busy,
            "socket-in-use",
            format!("{} cannot be listened on: {what}", path.display()),
        )
        .mend("end what listens there, or give another path")
    };
    if !there.file_type().is_socket() {
        return Err(in_the_way("there is something that is not a socket"));
    }
    if connect(path).is_ok() {
        return Err(in_the_way("another process listens there"));
    }
    if there.uid() != rustix::process::getuid().as_raw() {
        return Err(in_the_way("there is a socket of another user"));
    }
    fs::remove_file(path).context("socket-path", || format!("{} cannot be removed", path.display()))
}

/// Connects to the socket at `path`.
///
/// # Errors
/// As connect(2).
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (address, _folder) = socket_address(path).map_err(io::Error::other)?;
    UnixStream::connect(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn runtime() -> (tempfile::TempDir, Runtime) {
        let base = tempfile::tempdir().unwrap();
        let runtime = Runtime::at(&base.path().join("vnet"));
        (base, runtime)
    }

    #[test]
    fn a_lab_is_held_by_one_and_vanishes_when_it_is_removed() {
        let (_base, runtime) = runtime();
        let claim = runtime.claim("office").unwrap();
        assert!(runtime.lab("office").is_held().unwrap());
        assert!(matches!(runtime.claim("office"), Err(ClaimError::Held)));
        assert_eq!(runtime.labs().unwrap(), ["office"]);
        claim.remove().unwrap();
        assert_eq!(runtime.labs().unwrap(), [""; 0]);
        runtime.remove_if_empty();
        assert!(!runtime.path().exists());
    }

    #[test]
    fn a_claim_ends_with_its_holder_and_leaves_the_folder_orphaned() {
        let (_base, runtime) = runtime();
        drop(runtime.claim("office").unwrap());
        assert!(!runtime.lab("office").is_held().unwrap());
        assert!(runtime.claim("office").is_ok());
    }

    #[test]
    fn a_folder_that_others_prepared_is_refused() {
        let (base, runtime) = runtime();
        let elsewhere = base.path().join("elsewhere");
        fs::DirBuilder::new().mode(0o700).create(&elsewhere).unwrap();
        symlink(&elsewhere, runtime.path()).unwrap();
        assert!(
            matches!(runtime.claim("office"), Err(ClaimError::Unusable(f)) if f.message.contains("symbolic link"))
        );
        fs::remove_file(runtime.path()).unwrap();
        fs::create_dir(runtime.path()).unwrap();
        fs::set_permissions(runtime.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(
            matches!(runtime.claim("office"), Err(ClaimError::Unusable(f)) if f.message.contains("0700"))
        );
    }

    #[test]
    fn a_socket_path_of_two_hundred_bytes_works() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("f".repeat(200));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("api.sock");
        let listener = listen(&path).unwrap();
        let _connected = connect(&path).unwrap();
        listener.accept().unwrap();
        let hopeless = folder.join("n".repeat(120));
        assert!(listen(&hopeless).unwrap_err().message.contains("bytes"));
    }

    #[test]
    fn a_socket_elsewhere_goes_with_the_folder_unless_somebody_listens_there() {
        let (base, runtime) = runtime();
        let claim = runtime.claim("office").unwrap();
        let [stale, living] = ["stale.sock", "living.sock"].map(|name| base.path().join(name));
        for path in [&stale, &living] {
            claim.dir().note_socket(path).unwrap();
        }
        drop(listen(&stale).unwrap());
        let _listener = listen(&living).unwrap();
        claim.remove().unwrap();
        assert!(!stale.exists() && living.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a.sock");
        let first = listen(&path).unwrap();
        assert_eq!(listen(&path).unwrap_err().code, "socket-in-use");
        drop(first);
        listen(&path).unwrap();
        let file = base.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert_eq!(listen(&file).unwrap_err().code, "socket-in-use");
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
}
