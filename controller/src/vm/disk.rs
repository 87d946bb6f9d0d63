//! Disks of virtual machines: their format, and private copy-on-write overlays.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The format of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The disk's bytes.
    Raw,
    /// QEMU's own.
    Qcow2,
}

impl Format {
    /// QEMU's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It cannot be read.
    #[error("disk {path}: {source}")]
    Read {
        /// The image.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Its first bytes and its name disagree.
    #[error(
        "disk {0} begins like a qcow2 image, but its name does not end in .qcow2: rename it if that is what it is"
    )]
    Ambiguous(PathBuf),
    /// There is no qemu-img.
    #[error(
        "`qemu-img` is not on this machine, and a private overlay of {0} needs it: apt-get install qemu-utils, or \
             say `write: true` to write to the disk itself"
    )]
    NoQemuImg(PathBuf),
    /// qemu-img failed.
    #[error("qemu-img could not make an overlay of {path}: {said}")]
    QemuImg {
        /// The image.
        path: PathBuf,
        /// What it said.
        said: String,
    },
}

impl DiskError {
    /// True if this machine lacks something (exit code 5).
    pub const fn is_missing(&self) -> bool {
        matches!(self, Self::NoQemuImg(_))
    }
}

/// The format of the image at `path`: what its name says. The first bytes of a raw disk are the guest's to write, and
/// could claim a qcow2 whose backing file is any file of the host: they never decide, but a contradiction is an error.
pub fn format(path: &Path) -> Result<Format, DiskError> {
    let read = |source| DiskError::Read { path: path.to_owned(), source };
    if path.extension().is_some_and(|e| e == "qcow2") {
        File::open(path).map_err(read)?;
        return Ok(Format::Qcow2);
    }
    let mut head = Vec::new();
    File::open(path).and_then(|file| file.take(4).read_to_end(&mut head)).map_err(read)?;
    if head == *b"QFI\xfb" { Err(DiskError::Ambiguous(path.to_owned())) } else { Ok(Format::Raw) }
}

/// Makes a fresh copy-on-write overlay of the image `base` (absolute) at `overlay`, which it replaces.
pub fn create_overlay(base: &Path, overlay: &Path) -> Result<(), DiskError> {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2", "-F", format(base)?.as_str(), "-b"]).arg(base).arg(overlay);
    let failed = |said| DiskError::QemuImg { path: base.to_owned(), said };
    let output = command.stdin(Stdio::null()).output().map_err(|e| match e.kind() {
        ErrorKind::NotFound => DiskError::NoQemuImg(base.to_owned()),
        _ => failed(e.to_string()),
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_turn_its_raw_disk_into_a_qcow2() {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("disk.img");
        std::fs::write(&raw, [0; 512]).unwrap();
        assert_eq!(format(&raw).unwrap(), Format::Raw);
        std::fs::write(&raw, b"QFI\xfb and a backing file").unwrap();
        assert!(matches!(format(&raw), Err(DiskError::Ambiguous(_))));
        let qcow2 = folder.path().join("disk.qcow2");
        std::fs::rename(&raw, &qcow2).unwrap();
        assert_eq!(format(&qcow2).unwrap(), Format::Qcow2);
        assert!(matches!(format(&raw), Err(DiskError::Read { .. })));
    }
}
