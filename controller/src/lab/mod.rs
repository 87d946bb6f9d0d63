//! A lab while it runs: where it lives, what processes it has, what happens to it.

pub mod events;
pub mod ports;
pub mod processes;
pub mod rundir;
