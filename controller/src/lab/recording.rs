//! Files that ports record to: opened so that nothing is lost that is not a recording.

use crate::failure::{Context, Failure};
use rustix::{
    fs::{OFlags, SeekFrom},
    io::Errno,
};
use std::{
    fs::{self, File, OpenOptions},
    io::Read,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

/// How capture files begin: pcapng's section header, and pcap in both byte orders, in microseconds and nanoseconds.
const BEGINNINGS: [[u8; 4]; 5] = [
    [0x0a, 0x0d, 0x0d, 0x0a],
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0x4d, 0x3c, 0xb2, 0xa1],
];

/// Opens the file at `path`, which is made if there is none; what is in it stays until [`empty`]. A file that is no recording, or
/// that is `replayed`, is refused.
pub(super) fn open(path: &Path, replayed: &[&Path]) -> Result<File, Failure> {
    let said = || format!("{} cannot be recorded to", path.display());
    // Of a pipe the open would wait for somebody to read.
    let how = OFlags::NONBLOCK.bits().cast_signed();
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).custom_flags(how).open(path);
    let mut file = file.map_err(|why| Failure::not_made("pcap", said(), path, &why))?;
    let there = file.metadata().context("pcap", said)?;
    let refused = |why: &str| {
        Err(Failure::invalid("pcap", format!("{}: {why}", said())).mend("give `record:` another name"))
    };
    if !there.is_file() {
        return refused("it is no file");
    }
    let mut replayed = replayed.iter().filter_map(|path| fs::metadata(path).ok());
    if replayed.any(|other| (other.dev(), other.ino()) == (there.dev(), there.ino())) {
        return refused("it is replayed");
    }
    let mut beginning = [0; 4];
    if there.len() > 0 && (file.read_exact(&mut beginning).is_err() || !BEGINNINGS.contains(&beginning)) {
        return refused("it is there, and no capture file");
    }
    Ok(file)
}

/// Takes away what was recorded there before.
pub(super) fn empty(file: impl AsFd) -> Result<(), Errno> {
    rustix::fs::ftruncate(&file, 0)?;
    rustix::fs::seek(&file, SeekFrom::Start(0)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, path::PathBuf};

    #[test]
    fn what_is_no_recording_or_replayed_is_not_recorded_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let replayed = [at("in.pcap")];
        let replayed: Vec<_> = replayed.iter().map(PathBuf::as_path).collect();
        let refusal = |path: &Path| open(path, &replayed).unwrap_err().message;
        fs::write(at("in.pcap"), [0xd4, 0xc3, 0xb2, 0xa1]).unwrap();
        std::os::unix::fs::symlink(at("in.pcap"), at("link")).unwrap();
        assert!(refusal(&at("link")).contains("replayed"));
        fs::write(at("notes"), "do not lose me").unwrap();
        assert!(refusal(&at("notes")).contains("no capture file"));
        assert_eq!(fs::read(at("notes")).unwrap(), b"do not lose me");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        assert!(refusal(&at("pipe")).contains("no file"));
        assert!(
            refusal(&at("nowhere/out")).ends_with(&format!("there is no folder {}", at("nowhere").display()))
        );

        fs::write(at("old"), [0x0a, 0x0d, 0x0d, 0x0a, 1]).unwrap();
        for fresh in ["old", "new"] {
            let mut file = open(&at(fresh), &replayed).unwrap();
            empty(&file).unwrap();
            file.write_all(b"x").unwrap();
            assert_eq!(fs::read(at(fresh)).unwrap(), b"x");
        }
    }
}
