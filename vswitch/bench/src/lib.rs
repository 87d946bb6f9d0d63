//! How fast a vhost-user switch is, and how fast it could be on this machine.
//!
//! ```text
//! frames -> generator -> ring | the switch, or ringcopy | ring -> sink        one pinned thread drives both ends
//!                 load: closed loop, or open loop at a rate; search: the highest rate without loss
//! machine limits: ringcopy (the same rings and copies, no switch), memcpy (one copy from core to core)
//! run: all of that in turn, again and again; report: medians, spreads, ratios
//! ```
//! The switch is met at its sockets only, so that any other one is measured by the same means.

pub mod frames;
mod generator;
pub mod histogram;
pub mod load;
pub mod machine;
pub mod memcpy;
pub mod report;
pub mod ringcopy;
mod run;
pub mod search;
mod sink;

pub use run::{BenchError, Mode, Plan, Progress, Switch, run};
pub use sink::Tally;
