//! A lab while it runs: where it lives, what processes it has, what happens to it.

pub mod child;
pub mod claim;
pub mod events;
mod exits;
mod firewalls;
mod guests;
mod leases;
mod link;
mod made;
mod metrics;
pub mod name;
mod netns;
mod nic;
pub mod ports;
pub mod precheck;
pub mod processes;
mod recording;
pub mod rundir;
pub mod running;
pub mod sockets;
mod switch;
mod tap;
mod views;
mod ways_out;
