//! The command line: what the user says, what is done about it, and how the process ends.

mod args;
mod bench;
mod capture;
mod console;
mod demo;
mod down;
mod firewalls;
mod interrupt;
mod labs;
mod machine;
mod out;
mod render;
mod roles;
mod routers;
mod up;
mod why;

use crate::{
    api::{
        types::{
            ExecRequest, LinkRequest, LookRequest, PingallReport, TestReport, TraceRequest, TransferRequest,
        },
        why::WhyRequest,
    },
    failure::{Exit, Failure},
};
use args::{Args, Format, LinkState, Verb};
use clap::{FromArgMatches, error::ErrorKind, parser::ValueSource};
use render::Show;
use serde::Serialize;
use std::{path::Path, process::ExitCode};
use topology::plan::Because;
use vswitch_core::drop_reason::DropReason;

/// The code of a failure whose message is a whole report.
const INVALID_FILE: &str = "invalid-file";

/// Runs `vnet` with the process's arguments.
pub fn main() -> ExitCode {
    let earned = match arguments() {
        Ok(args) => run(args).unwrap_or_else(|failure| {
            // A report of a file has codes of its own.
            match failure.code.as_str() {
                INVALID_FILE => out::note(&failure),
                code => out::note(format_args!("error[{code}]: {failure}")),
            }
            failure.exit as u8
        }),
        // Help and version are what was asked for; anything else is wrong usage, which clap ends with 2 as we do.
        Err(said) => {
            let printed = said.print();
            if !said.use_stderr() {
                out::remember(printed);
            }
            u8::try_from(said.exit_code()).unwrap_or(Exit::Invalid as u8)
        }
    };
    out::end(earned).into()
}

/// The arguments, if they make sense together.
fn arguments() -> Result<Args, clap::Error> {
    let mut command = args::grammar();
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    let args = Args::from_arg_matches(&matches)?;
    // In the environment it is for those verbs that it means something to.
    let stated = matches.value_source("name") == Some(ValueSource::CommandLine);
    if stated && !args.verb.takes_a_name() {
        let verb = matches.subcommand_name().unwrap_or_default();
        let message = format!("--name says which running lab is meant, and `{verb}` is about none\n");
        return Err(command.error(ErrorKind::ArgumentConflict, message));
    }
    Ok(args)
}

/// Does what is asked: the exit code that it earned.
fn run(args: Args) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::lacking("runtime", format!("the event loop cannot start: {error}")))?;
    let name = args.name.as_ref();
    let done = |result: Result<(), Failure>| result.map(|()| Exit::Done);
    let exit = match args.verb {
        Verb::Demo => runtime.block_on(demo::demo()),
        Verb::Validate { file, output } => validate(file.as_deref(), output.format),
        Verb::Up { file, detach } => runtime.block_on(up::up(file.as_deref(), name, detach)),
        Verb::Test { file, running, output } => {
            let report: TestReport = if running {
                runtime.block_on(labs::act(name, "test"))?
            } else {
                runtime.block_on(up::test(file.as_deref()))?
            };
            up::warn_if_nothing_is_expected(&report);
            render::print(&report, output.format).map(|()| report.exit())
        }
        Verb::Explain { code: Some(code), output } => done(render::print(&explain(&code)?, output.format)),
        Verb::Explain { code: None, output } => done(render::print(&topics(), output.format)),
        Verb::Ls { output } => done(runtime.block_on(labs::ls(output.format))),
        Verb::Down => done(runtime.block_on(down::down(name))),
        Verb::Logs { of } => done(labs::logs(name, of.as_deref(), &mut out::Stdout)),
        Verb::Pingall { output } => {
            let report: PingallReport = runtime.block_on(labs::act(name, "pingall"))?;
            render::print(&report, output.format).map(|()| report.exit())
        }
        Verb::Show { what, interface: Some(said), .. } if !what.is_of_interfaces() => {
            let why = format!("this part is shown as a whole, and not of `{said}` alone");
            Err(Failure::invalid("usage", why)
                .mend("rules and connections are shown of one interface: `vnet show rules NODE`"))
        }
        Verb::Show { what: args::View::Nodes, exits: true, output, .. } => {
            done(runtime.block_on(labs::exits(name, output.format)))
        }
        Verb::Show { exits: true, .. } => {
            let why = "--exits is a part of `vnet show nodes`, and of nothing else";
            Err(Failure::invalid("usage", why).mend("`vnet show nodes --exits`"))
        }
        Verb::Show { what, interface, output, .. } => {
            done(runtime.block_on(labs::show(name, what, &LookRequest { interface }, output.format)))
        }
        Verb::Trace { src, dst, what, size, output } => {
            let view = runtime.block_on(labs::trace(name, &TraceRequest { src, dst, what, size }))?;
            done(render::print(&view, output.format))
        }
        Verb::Why { src, dst, last, output } => {
            let view = runtime.block_on(labs::why(name, &WhyRequest { src, dst, last: Some(last) }))?;
            done(render::print(&view, output.format))
        }
        Verb::Capture(args) => done(runtime.block_on(capture::capture(name, args))),
        Verb::Metrics => done(runtime.block_on(labs::metrics(name))),
        Verb::Bench(args) => runtime.block_on(bench::bench(name, *args)),
        Verb::Exec { node, command } => {
            return runtime.block_on(labs::exec(name, ExecRequest { node, command }));
        }
        Verb::Link { interface, state } => {
            let request = LinkRequest { interface, up: state == LinkState::Up };
            done(runtime.block_on(labs::set_link(name, &request)))
        }
        Verb::Transfer { src, dst, size, output } => {
            let request = TransferRequest { src, dst, bytes: size << 20 };
            done(render::print(&runtime.block_on(labs::transfer(name, &request))?, output.format))
        }
        Verb::Console { node } => done(console::console(name, &node)),
        Verb::Doctor { output } => machine::doctor(output.format),
        Verb::Image { what } => done(machine::image(what)),
        Verb::Export { vmm, node, memory } => done(runtime.block_on(labs::export(name, vmm, &node, memory))),
        Verb::Init { file } => done(machine::init(&file)),
        Verb::Serve { owner } => {
            let name = name.ok_or_else(|| Failure::invalid("usage", "serve needs --name"))?;
            runtime.block_on(roles::serve(name, owner))
        }
        Verb::Vswitchd => roles::vswitchd(),
        Verb::Station => roles::station(),
        Verb::WayOut { mac, mtu, addresses } => roles::way_out(&way_out::Spec { mac, mtu, addresses }),
        Verb::Vmm(args) => roles::vmm(args),
    };
    Ok(exit? as u8)
}

/// Checks a file and starts nothing.
fn validate(file: Option<&Path>, format: Format) -> Result<Exit, Failure> {
    let checked = up::check(file)?;
    let plan = &checked.loaded.plan;
    let good = Validated {
        file: checked.file.name.clone(),
        lab: plan.description.lab.clone(),
        nodes: plan.nodes.len(),
        expectations: plan.expectations.len(),
        warnings: checked.loaded.warnings.clone(),
    };
    render::print(&good, format)?;
    Ok(Exit::Done)
}

/// What a name of ours means.
#[derive(Debug, Serialize)]
struct Explanation {
    code: String,
    /// What has that name.
    kind: &'static str,
    what: String,
    mend: Option<String>,
}

impl Show for Explanation {
    fn table(&self) -> String {
        let mend = self.mend.as_ref().map(|mend| format!("\n  mend: {mend}")).unwrap_or_default();
        format!("{}: {}\n  what: {}{mend}", self.code, self.kind, self.what)
    }
}

/// A name of ours, and what it is, in a few words.
#[derive(Debug, Serialize)]
struct Topic {
    code: &'static str,
    kind: &'static str,
    what: &'static str,
}

impl Show for Vec<Topic> {
    fn table(&self) -> String {
        let rows = self.iter().map(|topic| [topic.code, topic.kind, topic.what].map(str::to_owned));
        render::table(["CODE", "KIND", "WHAT"], rows)
    }
}

const DROP_REASON: &str = "a drop reason";
const REASON_CLASS: &str = "a class of drop reasons, for `because`";
const IN_A_FILE: &str = "an error or a warning in a topology file";
const OF_A_VERB: &str = "an error of a verb";

/// All that [`explain`] knows.
fn topics() -> Vec<Topic> {
    let topic = |code, kind, what| Topic { code, kind, what };
    let reasons = DropReason::ALL.iter().map(|reason| topic(reason.name(), DROP_REASON, reason.what()));
    let classes = Because::CLASSES.iter().map(|(name, what)| topic(name, REASON_CLASS, *what));
    let files = topology::codes::ALL.iter().map(|code| topic(code.name(), IN_A_FILE, code.title()));
    // Of a name that is both, the drop reason is explained.
    let verbs = crate::failure::CODES.iter().filter(|(code, _)| code.parse::<DropReason>().is_err());
    let verbs = verbs.map(|(code, what)| topic(code, OF_A_VERB, what));
    reasons.chain(classes).chain(files).chain(verbs).collect()
}

/// What a name means and what to do about it, however it is capitalised.
fn explain(code: &str) -> Result<Explanation, Failure> {
    if let Some(text) = topology::codes::explain(code) {
        let (code, kind) = (code.to_uppercase(), IN_A_FILE);
        return Ok(Explanation { code, kind, what: text.into(), mend: None });
    }
    let code = code.to_lowercase();
    if let Ok(reason) = code.parse::<DropReason>() {
        let (kind, mend) = (DROP_REASON, Some(reason.mend().into()));
        return Ok(Explanation { code, kind, what: reason.what().into(), mend });
    }
    if let Some((what, mend)) = Because::explain(&code) {
        return Ok(Explanation { code, kind: REASON_CLASS, what: what.into(), mend: Some(mend.into()) });
    }
    if let Some(text) = crate::failure::explain(&code) {
        return Ok(Explanation { code, kind: OF_A_VERB, what: text.into(), mend: None });
    }
    let known: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    Err(Failure::invalid("unknown-code", format!("`{code}` is not a name of ours")).mend(format!(
        "`vnet explain` lists what there is; say what stands in the brackets of an error[...] (like T0101), {}, or a drop reason: {}",
        Because::CLASSES.map(|(name, _)| name).join(", "),
        known.join(", ")
    )))
}

/// What `validate` found in a file that is good.
#[derive(Debug, Serialize)]
struct Validated {
    file: String,
    lab: String,
    nodes: usize,
    expectations: usize,
    warnings: Vec<topology::Diagnostic>,
}

impl Show for Validated {
    fn table(&self) -> String {
        format!("{}: good: {} nodes, {} expectations", self.file, self.nodes, self.expectations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_explained_and_nothing_else() {
        let topics = topics();
        assert!(
            ["T0607", "no-receiver", "which-lab"].iter().all(|code| topics.iter().any(|t| t.code == *code))
        );
        assert!(topics.iter().all(|topic| explain(topic.code).is_ok_and(|found| found.kind == topic.kind)));
        assert!(
            explain("t0101").unwrap().table().starts_with("T0101: an error or a warning in a topology file")
        );
        let vlan = explain("VLAN").unwrap();
        assert!(vlan.what.contains("vlan-not-member") && vlan.mend.unwrap().contains("vnet trace"));
        assert!(explain("which-lab").unwrap().what.contains("--name"));
        for reason in DropReason::ALL {
            let text = explain(&reason.name().to_uppercase()).unwrap().table();
            assert!(text.contains(reason.what()) && text.contains(reason.mend()));
        }
        let failure = explain("no-such-thing").unwrap_err();
        assert_eq!(failure.exit, Exit::Invalid);
        assert!(failure.mend.unwrap().contains("tagged-on-access"));
    }
}
