//! What is on a disk: a raw file, which is written, or one that stays as it is below a private overlay.

use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Seek, SeekFrom},
    os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// What a disk is addressed by (virtio 1.2 §5.2: sectors of 512 bytes, whatever the file's blocks are).
pub(crate) const SECTOR: u64 = 512;
/// What the overlay takes over from the file at a time.
const CLUSTER: u64 = 64 << 10;

/// A disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// The image: raw, a file or a block device.
    pub path: PathBuf,
    /// Whether the guest writes to the image itself; else its writes end with the machine.
    pub write: bool,
}

/// Why an image cannot be a disk.
#[derive(Debug, thiserror::Error)]
#[error("disk {}: {why}", path.display())]
pub struct DiskError {
    /// The image.
    pub path: PathBuf,
    /// Why not.
    pub why: DiskFault,
}

/// What is wrong with an image.
#[derive(Debug, thiserror::Error)]
pub enum DiskFault {
    /// It cannot be opened, or has no overlay.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A folder, a pipe.
    #[error("neither a file nor a block device")]
    Kind,
    /// No disk has such a size.
    #[error("its size of {0} bytes is no multiple of {SECTOR}, or 0: is it a raw image?")]
    Size(u64),
    /// It is to be written, and another machine would see its image change.
    #[error("another machine has it as its disk")]
    InUse,
    /// It would change while it is read.
    #[error("another machine writes to it")]
    Written,
    /// It begins as qcow2 does.
    #[error("a qcow2 image, which only QEMU reads; `qemu-img convert -O raw` makes a raw one of it")]
    Qcow2,
}

/// What is on a disk.
#[derive(Debug)]
pub(crate) struct Image {
    file: File,
    sectors: u64,
    /// None if the file itself is written.
    overlay: Option<Overlay>,
}

/// A file without a name, as long as the image and with holes where the guest has written nothing.
#[derive(Debug)]
struct Overlay {
    file: File,
    /// A bit for each cluster that is here.
    here: Vec<u64>,
}

impl Overlay {
    fn has(&self, cluster: u64) -> bool {
        self.here.get((cluster / 64) as usize).is_some_and(|word| word >> (cluster % 64) & 1 != 0)
    }

    fn take(&mut self, cluster: u64) {
        if let Some(word) = self.here.get_mut((cluster / 64) as usize) {
            *word |= 1 << (cluster % 64);
        }
    }
}

impl Image {
    /// Opens an image.
    pub(crate) fn open(config: &DiskConfig) -> Result<Self, DiskError> {
        Self::try_open(&config.path, config.write).map_err(|why| DiskError { path: config.path.clone(), why })
    }

    fn try_open(path: &Path, write: bool) -> Result<Self, DiskFault> {
        // Not to wait for whoever writes to it, should it be a pipe; files and block devices do not care.
        let flags = libc::O_NONBLOCK;
        let mut file = OpenOptions::new().read(true).write(write).custom_flags(flags).open(path)?;
        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskFault::Kind);
        }
        let lock = if write {
            FlockOperation::NonBlockingLockExclusive
        } else {
            FlockOperation::NonBlockingLockShared
        };
        match flock(&file, lock) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) if write => return Err(DiskFault::InUse),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(DiskFault::Written),
            // A file system without locks still has files.
            Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOLCK) => {}
            Err(why) => return Err(io::Error::from(why).into()),
        }
        // A block device says its length by its end only.
        let length = file.seek(SeekFrom::End(0))?;
        let mut magic = [0; 4];
        if file.read_at(&mut magic, 0)? == 4 && &magic == b"QFI\xfb" {
            return Err(DiskFault::Qcow2);
        }
        if length == 0 || !length.is_multiple_of(SECTOR) {
            return Err(DiskFault::Size(length));
        }
        let overlay = if write { None } else { Some(overlay(length)?) };
        Ok(Self { file, sectors: length / SECTOR, overlay })
    }

    /// Its size.
    pub(crate) fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Where `bytes` from a sector on are, if they are all on the disk.
    pub(crate) fn place(&self, sector: u64, bytes: u64) -> Option<u64> {
        let end = sector.checked_add(bytes.div_ceil(SECTOR))?;
        (end <= self.sectors).then(|| sector * SECTOR)
    }

    /// Reads what is at `offset`; the caller has asked [`place`](Self::place).
    pub(crate) fn read(&self, mut offset: u64, mut bytes: &mut [u8]) -> io::Result<()> {
        let Some(overlay) = &self.overlay else { return self.file.read_exact_at(bytes, offset) };
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at_mut(within(offset, bytes.len()));
            let file = if overlay.has(offset / CLUSTER) { &overlay.file } else { &self.file };
            file.read_exact_at(part, offset)?;
            offset += part.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Writes to `offset`; the caller has asked [`place`](Self::place).
    pub(crate) fn write(&mut self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        let Some(overlay) = &mut self.overlay else { return self.file.write_all_at(bytes, offset) };
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(within(offset, bytes.len()));
            let cluster = offset / CLUSTER;
            if !overlay.has(cluster) {
                let start = cluster * CLUSTER;
                let length = CLUSTER.min(self.sectors * SECTOR - start);
                if part.len() as u64 != length {
                    // The rest of the cluster is the image's.
                    let mut whole = vec![0; length as usize];
                    self.file.read_exact_at(&mut whole, start)?;
                    overlay.file.write_all_at(&whole, start)?;
                }
            }
            overlay.file.write_all_at(part, offset)?;
            overlay.take(cluster);
            offset += part.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// What was written survives a failure of the computer; an overlay's need not survive its machine.
    pub(crate) fn flush(&self) -> io::Result<()> {
        match &self.overlay {
            None => self.file.sync_data(),
            Some(_) => Ok(()),
        }
    }
}

/// How many of so many bytes from `offset` on are in its cluster.
fn within(offset: u64, bytes: usize) -> usize {
    usize::try_from(CLUSTER - offset % CLUSTER).map_or(bytes, |left| left.min(bytes))
}

fn overlay(length: u64) -> Result<Overlay, DiskFault> {
    let file = tempfile::tempfile().map_err(|why| {
        let folder = std::env::temp_dir();
        io::Error::new(why.kind(), format!("its overlay in {} (TMPDIR): {why}", folder.display()))
    })?;
    file.set_len(length)?;
    let words = usize::try_from(length.div_ceil(CLUSTER).div_ceil(64))
        .map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
    Ok(Overlay { file, here: vec![0; words] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::io::Write;

    fn image(bytes: &[u8], write: bool) -> (tempfile::NamedTempFile, Result<Image, DiskError>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let image = Image::open(&DiskConfig { path: file.path().into(), write });
        (file, image)
    }

    #[test]
    fn what_is_no_disk_is_told() {
        for (bytes, says) in [
            (&b""[..], "size of 0 bytes"),
            (&[0; 513], "no multiple of 512"),
            (b"QFI\xfb and more", "qemu-img convert"),
        ] {
            let why = image(bytes, false).1.unwrap_err().to_string();
            assert!(why.contains(says), "{why}");
        }
        let folder = tempfile::tempdir().unwrap();
        let open = |path: PathBuf| Image::open(&DiskConfig { path, write: false }).unwrap_err().to_string();
        assert!(open(folder.path().into()).contains("neither a file nor a block device"));
        let pipe = folder.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(open(pipe).contains("neither a file nor a block device"), "nobody writes to it");
        assert!(open(folder.path().join("none")).contains("No such file"));
    }

    #[test]
    fn one_machine_writes_to_an_image_or_many_read_it() {
        let (file, writer) = image(&[0; 512], true);
        let open = |write| Image::open(&DiskConfig { path: file.path().into(), write });
        assert!(open(false).unwrap_err().to_string().ends_with("another machine writes to it"));
        assert!(open(true).unwrap_err().to_string().ends_with("another machine has it as its disk"));
        drop(writer);
        let readers = [open(false).unwrap(), open(false).unwrap()];
        assert!(open(true).is_err());
        drop(readers);
        open(true).unwrap();
    }

    #[test]
    fn nothing_is_beyond_the_end() {
        let (_file, image) = image(&[0; 4096], false);
        let image = image.unwrap();
        assert_eq!((image.sectors(), image.place(7, 512), image.place(0, 4096)), (8, Some(3584), Some(0)));
        for (sector, bytes) in [(8, 1), (7, 513), (u64::MAX, 512), (1, u64::MAX), (u64::MAX, u64::MAX)] {
            assert_eq!(image.place(sector, bytes), None, "{sector} {bytes}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// An overlay, a written file and plain memory hold the same; below the overlay nothing changes.
        #[test]
        fn an_overlay_is_as_good_as_a_file(
            sectors in 1u64..512,
            writes in proptest::collection::vec((any::<u64>(), 1usize..200, any::<u8>()), 1..12),
        ) {
            let mut model: Vec<u8> = (0..sectors * SECTOR).map(|at| (at / 7) as u8).collect();
            let before = model.clone();
            let (below, above) = image(&before, false);
            let (beside, plain) = image(&before, true);
            let (mut above, mut plain) = (above.unwrap(), plain.unwrap());
            for (sector, count, byte) in writes {
                let sector = sector % sectors;
                let count = count.min((sectors - sector) as usize);
                let (offset, bytes) = (sector * SECTOR, vec![byte; count * SECTOR as usize]);
                above.write(offset, &bytes).unwrap();
                plain.write(offset, &bytes).unwrap();
                model[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
            }
            for image in [&above, &plain] {
                let mut read = vec![0; model.len()];
                image.read(0, &mut read).unwrap();
                prop_assert!(read == model);
            }
            prop_assert!(std::fs::read(below.path()).unwrap() == before);
            prop_assert!(std::fs::read(beside.path()).unwrap() == model);
        }
    }
}
