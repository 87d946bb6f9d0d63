//! `vmm-lite`: one virtual machine, from the command line. See the crate `vmm-lite`, of which this is the thin binary.

use clap::Parser;
use std::process::ExitCode;
use vmm_lite::{Args, Machine};

/// What the user asked for is not possible as asked.
const USAGE: u8 = 2;
/// This machine lacks something.
const LACKS: u8 = 5;

fn main() -> ExitCode {
    let config = match Args::parse().config() {
        Ok(config) => config,
        Err(why) => return fail(&why, USAGE),
    };
    let machine = match Machine::new(&config) {
        Ok(machine) => machine,
        Err(why) => return fail(&why, if why.is_lack() { LACKS } else { 1 }),
    };
    let stopper = machine.stopper();
    let signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGHUP,
    ]);
    match signals {
        Ok(mut signals) => {
            std::thread::spawn(move || signals.forever().for_each(|_| stopper.stop()));
        }
        Err(why) => return fail(&why, 1),
    }
    match machine.run() {
        Ok(ended) => {
            eprintln!("vmm-lite: {ended}");
            if ended.is_orderly() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => fail(&why, 1),
    }
}

fn fail(why: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("vmm-lite: {why}");
    ExitCode::from(code)
}
