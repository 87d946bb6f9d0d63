//! `vmm-lite`: one virtual machine, from the command line. See the crate `vmm-lite`, of which this is the thin binary.

use clap::Parser;
use std::process::ExitCode;
use vmm_lite::{Args, ErrorKind, run};

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(ended) => {
            eprintln!("vmm-lite: {ended}");
            if ended.is_orderly() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            eprintln!("vmm-lite: {why}");
            // As `vnet` has them: 1 failed, 2 usage, 5 this computer lacks something.
            ExitCode::from(match why.kind() {
                ErrorKind::Failed => 1,
                ErrorKind::Usage => 2,
                ErrorKind::Lacking => 5,
            })
        }
    }
}
