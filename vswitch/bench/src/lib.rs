//! How fast a vhost-user switch is, and how fast it could be on this machine.
//!
//! ```text
//! frames -> generator -> ring | the switch, or ringcopy | ring -> sink        one pinned thread drives both ends
//!                 load: closed loop, or open loop at a rate; search: the highest rate without loss
//! machine limits: ringcopy (the same rings and copies, no switch), memcpy (one copy from core to core)
//! plan -> course: one size of frames on one switch; run: all sizes, again and again; sweep: several switches in turn
//! beside: a pair alone and with neighbours, in turn; wake: the switch asleep before each frame
//! report: medians, spreads, ratios
//! ```
//! The switch is met at its sockets only, so that any other one is measured by the same means.

pub mod beside;
mod course;
pub mod frames;
mod generator;
pub mod histogram;
mod lane;
mod large;
pub mod load;
pub mod machine;
pub mod memcpy;
mod neighbours;
pub mod offload;
pub mod path;
mod plan;
pub mod report;
pub mod ringcopy;
mod run;
pub mod search;
mod sink;
pub mod sweep;
pub mod wake;

pub use neighbours::Beside;
pub use plan::{Mode, Plan};
pub use run::{BenchError, Dropped, Progress, Switch, run};
pub use sink::Tally;
