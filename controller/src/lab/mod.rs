//! A lab while it runs: where it lives, what processes it has, what happens to it.

pub mod child;
pub mod events;
mod guests;
pub mod ports;
pub mod processes;
pub mod rundir;
pub mod running;
mod switch;
mod views;
