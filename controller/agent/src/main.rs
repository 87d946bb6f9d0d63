//! `vnet-agent DEVICE`: answers probes inside a Linux guest, over the serial port DEVICE, or `-` for standard input and
//! output.
//!
//! ```text
//! line         bytes of the device <-> questions and answers; a thread for each question that takes time
//!  └ ask       the questions, a family to a file: ping, contact, resolve, bulk, exec
//!     ├ origin      sockets from where the asker said, and what their errors mean
//!     ├ services    what others reach here: echo, the sink of bulk transfers
//!     ├ raw_frames  frames as they are
//!     └ interfaces, neighbours   what the kernel knows, asked anew each time by netlink
//! ```
//!
//! Interfaces are known by their MAC addresses and never remembered: a driver may be unloaded and loaded at any time.

mod ask;
mod deadline;
mod icmp;
mod interfaces;
mod line;
mod neighbours;
mod netlink;
mod origin;
mod raw_frames;
mod services;
mod sys;

use ask::Agent;
use line::Line;
use std::{env, ffi::OsStr, io, process::ExitCode, sync::Arc};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [device] = arguments.as_slice() else {
        eprintln!(
            "usage: vnet-agent DEVICE    (a serial port such as /dev/ttyS1, or - for standard input and output)"
        );
        return ExitCode::from(2);
    };
    match run(device) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vnet-agent: {}: {error}", device.display());
            ExitCode::FAILURE
        }
    }
}

fn run(device: &OsStr) -> io::Result<()> {
    let line = if device == "-" { Line::standard()? } else { Line::device(device)? };
    line.serve(&Arc::new(Agent::start()))
}
