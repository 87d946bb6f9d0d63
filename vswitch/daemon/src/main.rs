//! `vswitchd`: the datapath process as a binary of its own (`vnet vswitchd` is the same). Its standard input is the
//! control socket.

use std::{os::fd::AsFd, process::ExitCode};

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let control = std::io::stdin().as_fd().try_clone_to_owned();
    match control
        .map_err(anyhow::Error::from)
        .and_then(|control| vswitchd::run(vswitchd::Options { control }))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why:#}");
            ExitCode::FAILURE
        }
    }
}
