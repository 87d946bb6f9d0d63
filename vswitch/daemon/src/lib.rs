//! The datapath process: it moves frames between its ports' rings as `vswitch-core` decides.
//!
//! ```text
//! control (socket) -> datapath (what there is) -> port / tap adapter (their own threads)
//!                                  |                  | rings, as values
//!                                  `- workers (who serves which ring) - mailbox -> worker: turn, batch by batch
//! ```

pub mod capture;
pub mod control;
pub mod counters;
pub mod datapath;
mod grower;
mod host;
pub mod ports;
pub mod recorder;
pub mod routers;
mod rule_log;
mod tracking;
pub mod worker;
mod workers;

use anyhow::Context;
use std::os::{fd::OwnedFd, unix::net::UnixStream};

/// How the process is started.
#[derive(Debug)]
pub struct Options {
    /// A connected Unix stream, to the controller.
    pub control: OwnedFd,
}

/// Runs the datapath until the controller says to stop. If the controller goes away, frames go on.
///
/// # Errors
/// The control socket does not speak the protocol.
pub fn run(options: Options) -> anyhow::Result<()> {
    let stream = UnixStream::from(options.control);
    let mut datapath = datapath::Datapath::new();
    if !control::server::serve(&stream, &mut datapath).context("the control socket")? {
        tracing::warn!("the controller went away; forwarding goes on until this process is ended");
        loop {
            std::thread::park();
        }
    }
    Ok(())
}
