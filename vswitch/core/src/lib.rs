//! The switch as a pure function: frames in, fates out.
//!
//! Nothing here does I/O, starts a thread or reads a clock; time is an argument. A frame's way through this crate:
//!
//! ```text
//! head bytes -> head::LinkHeader -> decide (admit -> firewall -> learn -> forward | flood -> firewalls) -> Fate + Copies
//!                                        |  reads World (immutable), Fdb and Connections (learned)
//!                                        `- tells a Tracer each step
//! ```
//!
//! What the three kinds of state are (they are never mixed): the [`world::World`] is one compiled, immutable
//! configuration (but for what was taken from its [`limits`]); the [`fdb::Fdb`] and the
//! [connections](firewall::connections::Connections) are what was learned; what is counted
//! lives with the caller, but for [how often rules decided](firewall::hits), which goes from World to World.

#![forbid(unsafe_code)]

pub use checksum;

pub mod build;
pub mod clock;
pub mod decide;
pub mod description;
pub mod drop_reason;
pub mod fdb;
pub mod filter;
pub mod firewall;
pub mod flow;
pub mod head;
pub mod id;
pub mod limits;
mod lock;
pub mod mac;
mod mix;
pub mod offload;
pub mod route;
pub mod trace;
pub mod vlan;
pub mod world;
