//! Ports that are no guest: what is outside, brought to a port's rings by a thread that is their driver.
//!
//! `adapter` the threads and how they end, `carrier` what such a thread does all day, `peers` those that come and go, [`framing`] how
//! frames stand on their byte streams, and one file for each thing outside.

pub(crate) mod adapter;
mod carrier;
mod dgram;
pub mod framing;
mod nic;
pub(crate) mod pcap;
pub(crate) mod peers;
pub(crate) mod routers;
mod stream;
mod tap;
