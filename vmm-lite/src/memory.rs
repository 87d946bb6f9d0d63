//! The guest's memory: one memfd that can neither shrink nor grow, shared with devices in other processes by its
//! descriptor.

use crate::layout::RamSize;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::{fs::File, io, sync::Arc};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

/// The guest's memory, mapped.
pub(crate) type Ram = GuestMemoryMmap<()>;

/// Why there is no memory for the guest.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// The kernel made no such file.
    #[error("a memory file of {bytes} bytes: {source}")]
    File {
        /// Of this size.
        bytes: u64,
        /// Why not.
        source: io::Error,
    },
    /// It cannot be mapped.
    #[error("mapping the guest's memory: {0}")]
    Map(String),
}

/// Makes memory of this size. Sealed, so that a device process that maps it need not fear that it vanishes, and nobody
/// can take the seals off.
pub(crate) fn create(size: RamSize) -> Result<Ram, RamError> {
    let file = sealed(size.bytes()).map_err(|source| RamError::File { bytes: size.bytes(), source })?;
    let file = Arc::new(file);
    let mut offset = 0;
    let mut regions = Vec::new();
    for range in size.ranges() {
        let length = range.end - range.start;
        let bytes = usize::try_from(length).map_err(|why| RamError::Map(why.to_string()))?;
        let map = MmapRegion::from_file(FileOffset::from_arc(file.clone(), offset), bytes)
            .map_err(|why| RamError::Map(why.to_string()))?;
        let region = GuestRegionMmap::new(map, GuestAddress(range.start))
            .ok_or_else(|| RamError::Map("its end is no address".into()))?;
        regions.push(region);
        offset += length;
    }
    Ram::from_regions(regions).map_err(|why| RamError::Map(why.to_string()))
}

fn sealed(bytes: u64) -> io::Result<File> {
    let file = memfd_create("guest-ram", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::fcntl_get_seals;
    use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion};

    #[test]
    fn memory_is_sealed_and_lies_in_one_file_without_gaps() {
        let ram = create(RamSize::new((3 << 30) + (2 << 20)).unwrap()).unwrap();
        let files: Vec<_> = ram.iter().map(|region| region.file_offset().unwrap().clone()).collect();
        assert_eq!(files.iter().map(FileOffset::start).collect::<Vec<_>>(), [0, 3 << 30]);
        assert!(Arc::ptr_eq(files[0].arc(), files[1].arc()));
        let seals = fcntl_get_seals(files[0].file()).unwrap();
        assert_eq!(seals, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL);
        assert!(ftruncate(files[0].file(), 4096).is_err());

        ram.write_obj(7u64, GuestAddress(1 << 32)).unwrap();
        assert_eq!(ram.read_obj::<u64>(GuestAddress(1 << 32)).unwrap(), 7);
        assert!(ram.write_obj(7u64, GuestAddress(3 << 30)).is_err(), "the hole is no memory");
    }
}
