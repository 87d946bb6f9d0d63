//! What a machine is to be.

use crate::{
    boot::{BootError, Kernel},
    console::ConsoleTarget,
    layout::{self, RamSize, VirtioPlace},
    virtio::{image::DiskConfig, net::NetConfig},
};
use std::{ffi::CString, path::PathBuf};

/// How many vCPUs a machine has: 1 to [`CpuCount::MOST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuCount(u8);

impl CpuCount {
    /// The most that a machine can have.
    pub const MOST: u8 = 16;

    /// So many; none if they are too few or too many.
    pub const fn new(count: u8) -> Option<Self> {
        if count == 0 || count > Self::MOST { None } else { Some(Self(count)) }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// A machine that can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What it boots.
    pub kernel: Kernel,
    /// What the kernel finds as its first file system.
    pub initrd: Option<PathBuf>,
    /// What the kernel is told, before what the machine itself adds.
    pub command_line: String,
    /// Its vCPUs.
    pub cpus: CpuCount,
    /// Its memory.
    pub ram: RamSize,
    /// Who is at its console.
    pub console: ConsoleTarget,
    /// Who is at its second serial port, where guests answer the probe protocol.
    pub probe: ConsoleTarget,
    /// Its network interfaces.
    pub nets: Vec<NetConfig>,
    /// Its disks, `vda` first.
    pub disks: Vec<DiskConfig>,
    /// Whether it has a source of random bytes.
    pub rng: bool,
    /// Where it is controlled from, if from anywhere.
    pub control: Option<PathBuf>,
    /// Whether the process gives up what its guest does not need (Landlock, seccomp) before the guest runs.
    pub confined: bool,
}

/// The whole command line: what the user says, where the virtio devices are, and the rate of the time stamp counter,
/// which a guest could otherwise only measure. Both are parameters of Linux, and the bundled guest reads them too. A
/// kernel out of a file finds the devices by ACPI, and one that reads both would find each twice.
pub(crate) fn command_line(
    config: &Config,
    virtio: &[VirtioPlace],
    tsc_khz: u32,
) -> Result<CString, BootError> {
    let mut words = vec![config.command_line.clone()];
    let told = if matches!(config.kernel, Kernel::Elf(_)) { virtio } else { &[] };
    words.extend(told.iter().map(|VirtioPlace { base, gsi }| {
        format!("virtio_mmio.device={}K@{base:#x}:{gsi}", layout::VIRTIO_MMIO_STRIDE >> 10)
    }));
    words.push(format!("tsc_early_khz={tsc_khz}"));
    words.retain(|word| !word.is_empty());
    let line = words.join(" ");
    let length = line.len();
    if length >= layout::COMMAND_LINE_SIZE {
        return Err(BootError::CommandLine(length));
    }
    CString::new(line).map_err(|_| BootError::CommandLineNul)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(command_line: &str) -> Config {
        Config {
            kernel: Kernel::Elf(&[]),
            initrd: None,
            command_line: command_line.into(),
            cpus: CpuCount::new(1).unwrap(),
            ram: RamSize::new(RamSize::LEAST).unwrap(),
            console: ConsoleTarget::Nobody,
            probe: ConsoleTarget::Nobody,
            nets: Vec::new(),
            disks: Vec::new(),
            rng: false,
            control: None,
            confined: true,
        }
    }

    #[test]
    fn the_command_line_is_the_users_and_then_ours() {
        let line = |user: &str| command_line(&config(user), &[], 2_000_000).unwrap().into_string().unwrap();
        assert_eq!(line("console=ttyS0 quiet"), "console=ttyS0 quiet tsc_early_khz=2000000");
        assert_eq!(line(""), "tsc_early_khz=2000000");
    }

    #[test]
    fn devices_are_on_it() {
        let places: Vec<_> = (0..2).filter_map(layout::virtio_place).collect();
        let line = command_line(&config("quiet"), &places, 1).unwrap().into_string().unwrap();
        let devices = "virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6";
        assert_eq!(line, format!("quiet {devices} tsc_early_khz=1"));
        let linux = Config { kernel: Kernel::File("vmlinuz".into()), ..config("quiet") };
        let line = command_line(&linux, &places, 1).unwrap().into_string().unwrap();
        assert_eq!(line, "quiet tsc_early_khz=1", "it has ACPI");
    }

    #[test]
    fn a_command_line_that_a_kernel_would_cut_is_refused() {
        let most = layout::COMMAND_LINE_SIZE - 1 - " tsc_early_khz=1".len();
        assert!(command_line(&config(&"a".repeat(most)), &[], 1).is_ok());
        let long = command_line(&config(&"a".repeat(most + 1)), &[], 1);
        assert!(matches!(long, Err(BootError::CommandLine(2048))));
        assert!(matches!(command_line(&config("a\0b"), &[], 1), Err(BootError::CommandLineNul)));
    }

    #[test]
    fn vcpus_are_1_to_16() {
        assert_eq!([0, 17, 255].map(CpuCount::new), [None; 3]);
        assert_eq!([1, 16].map(|count| CpuCount::new(count).map(CpuCount::get)), [Some(1), Some(16)]);
    }
}
