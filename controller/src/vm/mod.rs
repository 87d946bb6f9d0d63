//! Virtual machines under QEMU: how one is started ([`qemu`]), asked ([`qmp`]), and what a foreign one is told ([`export`]).
//!
//! Nothing here starts a machine: [`qemu::Launch::command`] is for the supervisor to spawn and watch.

pub mod accel;
pub mod disk;
pub mod export;
pub mod qemu;
pub mod qmp;
