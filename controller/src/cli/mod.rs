//! The command line: what the user says, what is done about it, and how the process ends.

mod args;
mod console;
mod demo;
mod interrupt;
mod labs;
mod machine;
mod render;
mod roles;
mod up;

use crate::{
    api::types::{ExecRequest, PingallReport, TestReport, TraceRequest, TransferRequest},
    failure::{Exit, Failure},
};
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
    let name = args.name.as_deref();
    match args.verb {
        Verb::Demo => return runtime.block_on(demo::demo()),
        Verb::Validate { file } => {
            let checked = up::check(file.as_deref())?;
            let plan = &checked.loaded.plan;
            println!(
                "{}: good: {} nodes, {} expectations",
                checked.file.name,
                plan.nodes.len(),
                plan.expectations.len()
            );
        }
        Verb::Up { file, detach } => return runtime.block_on(up::up(file.as_deref(), name, detach)),
        Verb::Test { file, running, output } => {
            let report: TestReport = if running {
                runtime.block_on(labs::act(name, "test"))?
            } else {
                runtime.block_on(up::test(file.as_deref()))?
            };
            render::print(&report, output.format)?;
            return Ok(report.exit());
        }
        Verb::Explain { code } => println!("{}", explain(&code)?),
        Verb::Ls { output } => runtime.block_on(labs::ls(output.format))?,
        Verb::Down => runtime.block_on(labs::down(name))?,
        Verb::Logs { of } => labs::logs(name, &of, &mut io::stdout())?,
        Verb::Pingall { output } => {
            let report: PingallReport = runtime.block_on(labs::act(name, "pingall"))?;
            render::print(&report, output.format)?;
        }
        Verb::Show { what, output } => runtime.block_on(labs::show(name, what, output.format))?,
        Verb::Trace { src, dst, what, output } => {
            let view = runtime.block_on(labs::trace(name, &TraceRequest { src, dst, what }))?;
            render::print(&view, output.format)?;
        }
        Verb::Exec { node, command } => {
            return runtime.block_on(labs::exec(name, ExecRequest { node, command }));
        }
        Verb::Transfer { src, dst, size, output } => {
            let request = TransferRequest { src, dst, bytes: size << 20 };
            render::print(&runtime.block_on(labs::transfer(name, &request))?, output.format)?;
        }
        Verb::Console { node } => console::console(name, &node)?,
        Verb::Doctor { output } => return machine::doctor(output.format),
        Verb::Image { what } => machine::image(what)?,
        Verb::Export { vmm, node, memory } => runtime.block_on(labs::export(name, vmm, &node, memory))?,
        Verb::Init { file } => machine::init(&file)?,
        Verb::Serve => {
            let name = name.ok_or_else(|| Failure::invalid("usage", "serve needs --name"))?;
            return runtime.block_on(roles::serve(name));
        }
        Verb::Vswitchd => return roles::vswitchd(),
        Verb::Station => return roles::station(),
    }
    Ok(Exit::Done)
}

/// What a name means and what to do about it.
fn explain(code: &str) -> Result<String, Failure> {
    if let Some(explanation) = topology::codes::explain(code) {
        return Ok(format!("{code}: an error in a topology file\n{explanation}"));
    }
    match code.parse::<DropReason>() {
        Ok(reason) => {
            Ok(format!("{reason}: a drop reason\n  what: {}\n  mend: {}", reason.what(), reason.mend()))
        }
        Err(_) => {
            let known: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
            Err(Failure::invalid("unknown-code", format!("`{code}` is not a name of ours")).mend(format!(
                "say the code of an error (like T0101), or a drop reason: {}",
                known.join(", ")
            )))
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
