//! A small KVM VMM. Its guests' only way in is virtio-net over vhost-user, so it meets the switch at a socket and
//! nowhere else, like any other VMM.
//!
//! ```text
//! run         one machine from its arguments to its end
//! args        the command line; config: what a machine is to be
//! machine     from its parts to its end: threads, and what ended it
//!  ├ memory     the guest's RAM: a sealed memfd
//!  ├ vm         the virtual machine as KVM has it; cpuid: what its CPUs say they are
//!  ├ boot       from a kernel image to the first instruction: PVH, Linux' 64-bit protocol
//!  ├ vcpu       the run loop: each exit, and what follows from it
//!  └ devices    ports and registers, and what is behind them
//!     ├ console   COM1
//!     ├ virtio    the register file over MMIO, and net, whose rings the switch serves
//!     └ lines     interrupts by irqfd, or a guest that waits for its devices
//! layout      where everything lies in the guest's memory
//! ports       the I/O ports, shared with the bundled guest
//! ended       why a guest ended
//! ```
//!
//! A guest can only hurt itself: no exit, register or kernel image panics the VMM, and each has a named outcome.

mod args;
mod boot;
mod config;
mod console;
mod cpuid;
mod devices;
mod ended;
mod event;
pub mod layout;
mod lines;
mod machine;
mod memory;
mod ports;
mod run;
mod vcpu;
mod virtio;
mod vm;

pub use args::{Args, ArgsError};
pub use boot::{BootError, Kernel};
pub use config::{Config, CpuCount};
pub use console::ConsoleTarget;
pub use ended::Ended;
pub use machine::{Machine, StartError, Stopper};
pub use memory::RamError;
pub use run::{ErrorKind, RunError, run};
pub use virtio::net::{NetConfig, NetError};
pub use vm::KvmError;
