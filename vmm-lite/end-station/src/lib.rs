//! An end station: hosts with interfaces on wires, which answer the probe protocol and whoever reaches them.
//!
//! ```text
//! Ask -> host: route, resolve, then ping · connect · send
//!          |                 ^ events
//! wire -> nic -> observe -> smoltcp -> answer: echo and bulk services
//! ```
//! Nothing here waits, and the time is an argument: a process of ours with stations on vhost-user rings is one, and the
//! bundled guest, which has no operating system, is another.
//!
//! Files: `host` one station, `stack` one of its interfaces, `nic` smoltcp's device, `neighbours` who is on the link,
//! `observe` what frames tell beside smoltcp, `frames` what is built beside it, `ask` requests under way, `answer`
//! services.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod answer;
mod ask;
mod frames;
mod host;
mod neighbours;
mod nic;
mod observe;
mod stack;

#[cfg(test)]
mod tests;

pub use ask::Asker;
pub use host::{Host, Interface};
pub use nic::Wire;

/// Addresses of an interface besides the link-local one: smoltcp has room for eight.
pub const MAX_ADDRESSES: usize = 7;
