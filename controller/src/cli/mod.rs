//! The command line: what the user says, what is done about it, and how the process ends.

mod args;
mod labs;

use crate::failure::{Exit, Failure};
use args::{Args, Verb};
use clap::Parser;
use std::{io, process::ExitCode};
use vswitch_core::drop_reason::DropReason;

/// Runs `vnet` with the process's arguments.
pub fn main() -> ExitCode {
    let done = match Args::try_parse() {
        Ok(args) => run(args),
        // Help and version are what was asked for; anything else is wrong usage, which clap ends with 2 as we do.
        Err(error) => error.exit(),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("error[{}]: {failure}", failure.code);
            failure.exit.into()
        }
    }
}

fn run(args: Args) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::lacking("runtime", format!("the event loop cannot start: {error}")))?;
    match args.verb {
        Verb::Explain { code } => println!("{}", explain(&code)?),
        Verb::Ls { format } => runtime.block_on(labs::ls(format))?,
        Verb::Down => runtime.block_on(labs::down(args.name.as_deref()))?,
        Verb::Logs { of } => labs::logs(args.name.as_deref(), &of, &mut io::stdout())?,
    }
    Ok(Exit::Done)
}

/// What a name means and what to do about it.
fn explain(code: &str) -> Result<String, Failure> {
    match code.parse::<DropReason>() {
        Ok(reason) => {
            Ok(format!("{reason}: a drop reason\n  what: {}\n  mend: {}", reason.what(), reason.mend()))
        }
        Err(_) => {
            let known: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
            Err(Failure::invalid("unknown-code", format!("`{code}` is not a name of ours"))
                .mend(format!("the drop reasons are {}", known.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_reason_is_explained_and_nothing_else() {
        for reason in DropReason::ALL {
            let text = explain(reason.name()).unwrap();
            assert!(text.contains(reason.what()) && text.contains(reason.mend()));
        }
        let failure = explain("no-such-thing").unwrap_err();
        assert_eq!(failure.exit, Exit::Invalid);
        assert!(failure.mend.unwrap().contains("tagged-on-access"));
    }
}
