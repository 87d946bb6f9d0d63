//! Unix sockets that a machine listens at: for its consoles, and to be controlled by.

use std::{
    fs,
    io::{self, ErrorKind},
    ops::Deref,
    os::unix::{
        fs::FileTypeExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// Why nobody can listen there.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The name is taken.
    #[error("{} is there already: by a machine that runs, or a file; name another, or end it", .0.display())]
    Taken(PathBuf),
    /// The system refused it.
    #[error("{}: {source}", path.display())]
    System {
        /// The socket's name.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A socket whose name goes with it: else the next machine could not take it.
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens, without blocking. The socket of a machine that was killed, at which nobody listens any more, is replaced.
    pub(crate) fn open(path: &Path) -> Result<Self, ListenError> {
        let socket = match UnixListener::bind(path) {
            Err(why) if why.kind() == ErrorKind::AddrInUse => {
                if !abandoned(path) {
                    return Err(ListenError::Taken(path.to_owned()));
                }
                fs::remove_file(path).and_then(|()| UnixListener::bind(path))
            }
            bound => bound,
        };
        let fail = |source| ListenError::System { path: path.to_owned(), source };
        let opened = Self { socket: socket.map_err(fail)?, path: path.to_owned() };
        opened.socket.set_nonblocking(true).map_err(fail)?;
        Ok(opened)
    }
}

/// Whether there is a socket at which nobody listens.
fn abandoned(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket())
        && UnixStream::connect(path).is_err_and(|why| why.kind() == ErrorKind::ConnectionRefused)
}

impl Deref for Listener {
    type Target = UnixListener;

    fn deref(&self) -> &UnixListener {
        &self.socket
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // One that somebody has removed already is as good.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_while_somebody_listens_or_it_is_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        // Its name stays, as after SIGKILL.
        drop(UnixListener::bind(&path).unwrap());
        let listener = Listener::open(&path).unwrap();
        assert!(matches!(Listener::open(&path), Err(ListenError::Taken(taken)) if taken == path));
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(!path.exists());

        fs::write(&path, "precious").unwrap();
        let why = Listener::open(&path).err().unwrap().to_string();
        assert!(why.starts_with(&format!("{} is there already", path.display())), "{why}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let nowhere = folder.path().join("none/console");
        let why = Listener::open(&nowhere).err().unwrap().to_string();
        assert!(why.starts_with(&format!("{}: No such file", nowhere.display())), "{why}");
    }
}
