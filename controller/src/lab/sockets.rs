//! Unix sockets at paths of any length: listened on, connected to, and removed where nobody listens any more.

use crate::failure::{Context, Exit, Failure};
use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
};
use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt},
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

/// The code of the failure that something is in a socket's way.
pub(super) const SOCKET_IN_USE: &str = "socket-in-use";

/// The most bytes of a path in a Unix socket address (unix(7): 108 with the terminating NUL).
const MAX_SOCKET_PATH: usize = 107;

/// A path that another process connects to, which knows no way around the limit.
///
/// # Errors
/// It is too long.
pub fn must_fit(path: &Path) -> Result<(), Failure> {
    if path.as_os_str().len() <= MAX_SOCKET_PATH { Ok(()) } else { Err(too_long(path)) }
}

fn too_long(path: &Path) -> Failure {
    let length = path.as_os_str().len();
    let text = format!(
        "the socket path {} has {length} bytes; at most {MAX_SOCKET_PATH} are possible",
        path.display()
    );
    Failure::lacking("socket-path", text).mend("give a shorter path, or set VNET_RUNTIME_DIR to a short one")
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
    let (folder, name) = path.parent().zip(path.file_name()).ok_or_else(|| too_long(path))?;
    let descriptor = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context("socket-path", || format!("{} cannot be opened", folder.display()))?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd())).join(name);
    if short.as_os_str().len() > MAX_SOCKET_PATH {
        Err(too_long(path))
    } else {
        Ok((short, Some(descriptor)))
    }
}

/// Listens at `path`. A socket that nobody answers on is replaced if it is ours.
///
/// # Errors
/// Somebody listens there, or something else is there, or it cannot be bound.
pub fn listen(path: &Path) -> Result<UnixListener, Failure> {
    remove_stale(path)?;
    let (address, _folder) = socket_address(path)?;
    UnixListener::bind(&address).map_err(|why| not_bound(path, &why))
}

/// A socket at `path` for datagrams, in the same way.
///
/// # Errors
/// As [`listen`].
pub fn bind_datagrams(path: &Path) -> Result<UnixDatagram, Failure> {
    remove_stale(path)?;
    let (address, _folder) = socket_address(path)?;
    UnixDatagram::bind(&address).map_err(|why| not_bound(path, &why))
}

fn not_bound(path: &Path, why: &io::Error) -> Failure {
    Failure::not_made("socket-path", format_args!("{} cannot be listened on", path.display()), path, why)
}

/// Removes the socket at `path`, if there is one, nobody answers on it, and it is ours.
pub(super) fn remove_stale(path: &Path) -> Result<(), Failure> {
    let Ok(there) = fs::symlink_metadata(path) else { return Ok(()) };
    let in_the_way = |what: &str| {
        Failure::new(Exit::Busy, SOCKET_IN_USE, format!("{} cannot be listened on: {what}", path.display()))
            .mend("end what listens there, or give another path")
    };
    if !there.file_type().is_socket() {
        return Err(in_the_way("there is something that is not a socket"));
    }
    // Where datagrams are waited for, a stream is of the wrong type: only a socket that nobody has refuses it.
    let alive =
        connect(path).map_or_else(|why| Errno::from_io_error(&why) == Some(Errno::PROTOTYPE), |_| true);
    if alive {
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

    #[test]
    fn a_socket_path_of_two_hundred_bytes_works() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("f".repeat(200));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("api.sock");
        let listener = listen(&path).unwrap();
        let _connected = connect(&path).unwrap();
        listener.accept().unwrap();
        let nowhere = base.path().join("nowhere");
        let failure = listen(&nowhere.join("a.sock")).unwrap_err();
        assert!(failure.message.ends_with(&format!("there is no folder {}", nowhere.display())), "{failure}");
        assert_eq!(failure.mend, Some(format!("make it: mkdir -p {}", nowhere.display())));
        let hopeless = folder.join("n".repeat(120));
        assert!(listen(&hopeless).unwrap_err().message.contains("bytes"));
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a.sock");
        let first = listen(&path).unwrap();
        assert_eq!(listen(&path).unwrap_err().code, "socket-in-use");
        drop(first);
        listen(&path).unwrap();
        let first = bind_datagrams(&path).unwrap();
        assert_eq!(bind_datagrams(&path).unwrap_err().code, "socket-in-use");
        assert_eq!(listen(&path).unwrap_err().code, "socket-in-use");
        drop(first);
        bind_datagrams(&path).unwrap();
        let file = base.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert_eq!(listen(&file).unwrap_err().code, "socket-in-use");
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
}
