//! Expectations: each is probed in the running lab and judged by what the switch itself says of the probe's frames.

mod ask;
mod capture;
mod foresight;
mod frames;
pub mod judge;
pub mod run;
mod transfer;
pub mod words;
