//! What can go wrong between a driver and its device.

use std::io;
use std::time::Duration;
use thiserror::Error;

/// Why a driver could not be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DriverError {
    /// The configuration contradicts itself.
    #[error("driver configuration: {0}")]
    Config(&'static str),
    /// No shared memory of that kind could be had.
    #[error("the driver's shared memory ({bytes} bytes{}): {source}", if *huge_pages { " of huge pages" } else { "" })]
    Memory {
        /// How much was asked for.
        bytes: usize,
        /// Whether huge pages were asked for.
        huge_pages: bool,
        /// What the kernel said.
        source: io::Error,
    },
    /// A descriptor of the driver could not be made.
    #[error("an event descriptor of the driver: {0}")]
    EventFd(#[from] io::Error),
    /// The device refused a step of the handshake, or went away in it.
    #[error("vhost-user handshake, {step}: {source}")]
    Handshake {
        /// The message that failed.
        step: &'static str,
        /// How.
        source: vhost::Error,
    },
    /// The device did not answer.
    #[error("vhost-user handshake: no answer to {step} within {} s", timeout.as_secs_f64())]
    Late {
        /// The message that it did not answer, or not take.
        step: &'static str,
        /// How long it had.
        timeout: Duration,
    },
    /// It was asked to end before the device had answered.
    #[error("vhost-user handshake: interrupted while waiting for an answer to {step}")]
    Cancelled {
        /// The message.
        step: &'static str,
    },
    /// There is no thread that could end a wait.
    #[error("no thread to watch the vhost-user handshake: {0}")]
    Watch(io::Error),
    /// The device does not offer what the driver cannot do without.
    #[error("the device does not offer the features {missing:#x} that the driver needs")]
    Features {
        /// The missing bits.
        missing: u64,
    },
    /// The device has fewer rings than asked for.
    #[error("the device has {offered} rings, {wanted} are wanted")]
    Rings {
        /// What GET_QUEUE_NUM said.
        offered: u64,
        /// Two per queue pair.
        wanted: u16,
    },
}

/// What a device did that virtio does not allow. The queue pair stops; its memory is as safe as before.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DeviceFault {
    /// `used.idx` went backwards, or past what was made available.
    #[error("used.idx is {index}: {given} chains from {expected} on were given to the device")]
    UsedIndex {
        /// What it is.
        index: u16,
        /// Up to where chains were taken back.
        expected: u16,
        /// How many the device has.
        given: u16,
    },
    /// A used element names no chain that the device has.
    #[error("a used element names descriptor {id}, which is not the head of a chain in flight")]
    UnknownHead {
        /// Its id.
        id: u32,
    },
    /// With IN_ORDER, a chain was used before its turn.
    #[error("with IN_ORDER, the chain at descriptor {head} was used before its turn")]
    OutOfOrder {
        /// The chain.
        head: u16,
    },
    /// More bytes were written than the chain has.
    #[error("{written} bytes were written to a chain of {capacity}")]
    Overrun {
        /// The used element's length.
        written: u32,
        /// The chain's.
        capacity: u32,
    },
    /// A received frame does not even have its net header.
    #[error("a received frame has {written} bytes, less than its net header")]
    Runt {
        /// The used element's length.
        written: u32,
    },
    /// `num_buffers` is 0, or names more chains than were used with it.
    #[error("num_buffers is {num_buffers}, but {used} of these chains are used")]
    NumBuffers {
        /// What the header says.
        num_buffers: u16,
        /// How many there were.
        used: u16,
    },
    /// A merged frame is longer than any frame can be.
    #[error("a received frame of more than {limit} bytes")]
    Oversize {
        /// The largest.
        limit: usize,
    },
}
