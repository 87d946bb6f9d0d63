//! What the targets in `fuzz/` run: each takes any bytes, and panics only if a promise of this crate does not hold.
//! Compiled for them (`--cfg fuzzing`, which cargo-fuzz sets) and for the crate's tests, which run what they keep.

mod kernel;
mod registers;
mod requests;

pub use kernel::kernel_image;
pub use registers::mmio_registers;
pub use requests::block_requests;

use rustix::fs::{MemfdFlags, memfd_create};
use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsRawFd,
    path::PathBuf,
};

/// A file in memory with these bytes, and a name by which this process can open it as long as it is held.
fn file(bytes: &[u8]) -> io::Result<(File, PathBuf)> {
    let mut file = File::from(memfd_create("fuzzed", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok((file, name.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    /// Runs all that is kept for a target, and each of it cut short and with each byte changed.
    fn replay(target: &str, run: fn(&[u8])) {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let inputs: Vec<_> = fs::read_dir(&kept).unwrap().map(|kept| kept.unwrap().path()).collect();
        assert!(inputs.len() >= 3, "{}: only {inputs:?}", kept.display());
        for input in inputs {
            let mut input = fs::read(input).unwrap();
            run(&input);
            let step = 1 + input.len() / 64;
            for at in (0..input.len()).step_by(step) {
                run(&input[..at]);
                for change in [0x01, 0xff] {
                    input[at] ^= change;
                    run(&input);
                    input[at] ^= change;
                }
            }
        }
    }

    #[test]
    fn registers_keep_their_promises() {
        replay("mmio_registers", mmio_registers);
    }

    #[test]
    fn disks_keep_their_promises() {
        replay("block_requests", block_requests);
    }

    #[test]
    fn kernels_are_loaded_or_refused() {
        replay("kernel_image", kernel_image);
    }
}
