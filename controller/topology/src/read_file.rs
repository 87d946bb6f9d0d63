//! Reading the file itself: a regular file, opened once, of bounded size.

use crate::said::tree::MAX_BYTES;
use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system says no.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A directory, device, pipe or socket.
    #[error("{0} is not a regular file")]
    NotRegular(PathBuf),
    /// More than 16 MiB.
    #[error("{0} is larger than 16 MiB, the most that a topology file may have")]
    TooLarge(PathBuf),
    /// Not text.
    #[error("{path} is not UTF-8 text (the first wrong byte is byte {at}); save it as UTF-8")]
    NotText {
        /// The file.
        path: PathBuf,
        /// Bytes before the first that is wrong.
        at: usize,
    },
}

/// `O_NONBLOCK` on Linux (asm-generic/fcntl.h): opening a pipe without a writer must not wait.
const O_NONBLOCK: i32 = 0o4000;

/// The text of the topology file at `path`. It is opened once and judged by its descriptor, so it cannot be exchanged
/// between check and use; what grows while it is read is cut off at the bound and refused.
///
/// # Errors
/// [`ReadError`] names the file and what is wrong with it.
pub fn read_file(path: &Path) -> Result<String, ReadError> {
    let io = |source| ReadError::Io { path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(ReadError::NotRegular(path.to_owned()));
    }
    read_text(file, path)
}

/// The text of a topology that is read from `file`, which errors call `path`.
///
/// # Errors
/// [`ReadError`] says what is wrong with it.
pub fn read_text(file: impl Read, path: &Path) -> Result<String, ReadError> {
    let io = |source| ReadError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() > MAX_BYTES {
        return Err(ReadError::TooLarge(path.to_owned()));
    }
    String::from_utf8(bytes)
        .map_err(|error| ReadError::NotText { path: path.to_owned(), at: error.utf8_error().valid_up_to() })
}
