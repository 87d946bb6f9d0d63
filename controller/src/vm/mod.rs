//! Virtual machines: who runs one ([`choice`]), how one is started under QEMU ([`qemu`]) and asked there ([`qmp`]), how one is started in the VMM that
//! is part of vnet ([`lite`]) and asked there ([`control`]), and what a foreign one is told ([`export`]).
//!
//! Nothing here starts a machine: [`qemu::Launch::command`] and [`lite::command`] are for the supervisor to spawn and watch.

pub mod accel;
pub mod choice;
pub mod control;
pub mod disk;
pub mod export;
pub mod lite;
pub mod qemu;
pub mod qmp;
