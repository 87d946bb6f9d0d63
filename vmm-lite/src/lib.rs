//! A small KVM VMM. Its guests' only way in is virtio-net over vhost-user, so it meets the switch at a socket and
//! nowhere else, like any other VMM.
//!
//! ```text
//! run         one machine from its arguments to its end
//! args        the command line; config: what a machine is to be
//! machine     from its parts to its end: threads, and what ended it
//!  ├ memory     the guest's RAM: a sealed memfd
//!  ├ vm         the virtual machine as KVM has it; cpuid: what its CPUs say they are
//!  ├ boot       from a kernel image to the first instruction: PVH, Linux' 64-bit protocol, ACPI
//!  ├ vcpu       the run loop: each exit, and what follows from it; exits: counted; gate: where vCPUs are held
//!  ├ confine    what the process cannot do any more once its guest runs
//!  ├ control    the socket by which it is paused, resumed, killed
//!  └ devices    ports and registers, and what is behind them
//!     ├ console   COM1, and COM2 for the probe
//!     ├ virtio    the register file over MMIO; net, whose rings the switch serves; disks and random bytes
//!     └ lines     interrupts by irqfd, or a guest that waits for its devices
//! trial       whether KVM here runs kernels at all
//! layout      where everything lies in the guest's memory
//! ports       the I/O ports, shared with the bundled guest
//! ended       why a guest ended
//! ```
//!
//! A guest can only hurt itself: no exit, register or kernel image panics the VMM, and each has a named outcome.

mod args;
mod boot;
mod config;
mod confine;
mod console;
mod control;
mod cpuid;
mod devices;
mod ended;
mod event;
mod exits;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod gate;
pub mod layout;
mod lines;
mod machine;
mod memory;
mod ports;
mod run;
mod socket;
mod trial;
mod vcpu;
mod virtio;
mod vm;

pub use args::{Args, ArgsError};
pub use boot::{BootError, Kernel, bootable};
pub use config::{Config, CpuCount};
pub use confine::ConfineError;
pub use console::{ConsoleError, ConsoleTarget};
pub use ended::Ended;
pub use machine::{Machine, StartError};
pub use memory::RamError;
pub use run::{ErrorKind, RunError, run};
pub use socket::ListenError;
pub use trial::runs_kernels;
pub use virtio::image::{DiskConfig, DiskError, DiskFault};
pub use virtio::net::{NetConfig, NetError};
pub use virtio::served::ServedError;
pub use vm::KvmError;
