//! Expectations: each is probed in the running lab and judged by what the switch itself says of the probe's frames.

pub mod judge;
pub mod run;
