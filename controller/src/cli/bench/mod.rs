//! `bench`: how fast a switch is: a lab of its own, ports of a running lab, or any two vhost-user sockets.

mod args;
mod devices;
mod sweep;
mod view;

use super::{interrupt::Interrupts, labs, out, render, up};
use crate::{
    benching::{self, ends::Ends},
    failure::{Context, Exit, Failure},
    lab::name::LabName,
};
pub(super) use args::BenchArgs;
use args::{Device, Question};
use bench::{BenchError, Plan, Progress, Switch, report::Row};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// How long the generator may take to end once it was asked to.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Measures what `args` say and prints it.
pub(super) async fn bench(name: Option<&LabName>, args: BenchArgs) -> Result<Exit, Failure> {
    let format = args.output.format;
    if let Some(columns) = args.series()? {
        let report = sweep::measure(columns, Interrupts::new()?).await?;
        render::print(&report, format)?;
        let rows = report.series.iter().flat_map(|series| &series.columns).map(|column| &column.row);
        return Ok(verdict(rows));
    }
    let question = args.question();
    let (plan, device) = args.plan()?;
    let interrupts = Interrupts::new()?;
    match question {
        Question::Speed => {
            let report = measure(name, plan, device, interrupts, bench::run).await?;
            render::print(&report, format)?;
            Ok(verdict(report.results.iter()))
        }
        Question::Isolation(neighbours) => {
            let report = measure(name, plan, device, interrupts, move |plan, switch, say, cancel| {
                bench::beside::beside(plan, neighbours, switch, say, cancel)
            });
            let report = report.await?;
            render::print(&report, format)?;
            Ok(if report.results.iter().all(|kept| kept.faults == 0) { Exit::Done } else { Exit::Failed })
        }
        Question::Wake => {
            let report = measure(name, plan, device, interrupts, bench::wake::wake).await?;
            render::print(&report, format)?;
            Ok(Exit::Done)
        }
    }
}

/// Slow is no failure; frames that are not what was sent are.
fn verdict<'r>(mut rows: impl Iterator<Item = &'r Row>) -> Exit {
    if rows.all(|row| row.corrupt == 0 && row.duplicated == 0) { Exit::Done } else { Exit::Failed }
}

/// What `bench --quick` says, in one line.
pub(super) async fn quick(interrupts: Interrupts) -> Result<String, Failure> {
    let (plan, device) = args::quick_plan()?;
    Ok(view::in_one_line(&measure(None, plan, device, interrupts, bench::run).await?))
}

/// What is done with a plan and a switch.
trait Work<T>:
    FnOnce(&Plan, &mut dyn Switch, &mut dyn FnMut(Progress), &Arc<AtomicBool>) -> Result<T, BenchError>
    + Send
    + 'static
{
}

impl<T, F> Work<T> for F where
    F: FnOnce(&Plan, &mut dyn Switch, &mut dyn FnMut(Progress), &Arc<AtomicBool>) -> Result<T, BenchError>
        + Send
        + 'static
{
}

async fn measure<T: Send + 'static>(
    name: Option<&LabName>,
    plan: Plan,
    device: Device,
    mut interrupts: Interrupts,
    work: impl Work<T>,
) -> Result<T, Failure> {
    allow_many_descriptors();
    let cancel = Arc::new(AtomicBool::new(false));
    match &device {
        Device::Own { poll_always } => in_own_lab(plan, *poll_always, cancel, &mut interrupts, work).await,
        Device::Between(ports) => {
            let ends = Ends::between(labs::api(name)?, ports, cancel.clone());
            let ends = unless_interrupted(ends, &mut interrupts).await?;
            run(plan, ends, cancel, &mut interrupts, work).await
        }
        Device::Sockets { paths, listen } => {
            let ends = Ends::sockets(paths, *listen, cancel.clone())?;
            if *listen {
                // Else nothing tells that it is the switch's turn.
                let [one, other] = paths.each_ref().map(|path| path.display());
                out::note(format_args!("waiting for the switch to connect to {one}, then {other}"));
            }
            run(plan, ends, cancel, &mut interrupts, work).await
        }
    }
}

/// Brings a lab up, measures it, and takes it down, whatever came of it.
async fn in_own_lab<T: Send + 'static>(
    mut plan: Plan,
    poll_always: bool,
    cancel: Arc<AtomicBool>,
    interrupts: &mut Interrupts,
    work: impl Work<T>,
) -> Result<T, Failure> {
    let name = format!("bench-{}", std::process::id()).parse()?;
    let file = devices::file(&plan, poll_always);
    plan.route.gateway = devices::gateway(&plan, &file)?;
    let (brought, _) = up::bring_up(&name, &file, interrupts).await?;
    let ends = Ends::of_own_lab(brought.api.clone(), plan.ports, cancel.clone());
    let report = match unless_interrupted(ends, interrupts).await {
        Ok(ends) => run(plan, ends, cancel, interrupts, work).await,
        Err(failure) => Err(failure),
    };
    brought.down().await?;
    report
}

/// Does the `work` of `plan`; Ctrl-C ends it early.
async fn run<T: Send + 'static>(
    plan: Plan,
    mut ends: Ends,
    cancel: Arc<AtomicBool>,
    interrupts: &mut Interrupts,
    work: impl Work<T>,
) -> Result<T, Failure> {
    let stop = cancel.clone();
    on_a_thread(move |say| work(&plan, &mut ends, say, &stop), &cancel, interrupts).await
}

/// Does `work` on a thread of its own, so that this one can answer for it, and shows its progress. Ctrl-C sets `cancel`.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce(&mut dyn FnMut(Progress)) -> Result<T, BenchError> + Send + 'static,
    cancel: &AtomicBool,
    interrupts: &mut Interrupts,
) -> Result<T, Failure> {
    let (say, mut heard) = mpsc::unbounded_channel::<Progress>();
    let (end, mut ended) = oneshot::channel();
    let generator = thread::Builder::new().name("generator".into()).spawn(move || {
        // A bar that nobody reads any more is no reason to stop.
        let result = work(&mut |progress| drop(say.send(progress)));
        let _ = end.send(result);
    });
    generator.context("generator", || "its thread cannot be started".into())?;
    let bar = view::Bar::new();
    let result = loop {
        tokio::select! {
            result = &mut ended => break Some(result),
            Some(progress) = heard.recv() => bar.show(&progress),
            () = interrupts.next() => {
                cancel.store(true, Ordering::Relaxed);
                break tokio::time::timeout(LAST_WORDS, &mut ended).await.ok();
            }
        }
    };
    bar.clear();
    match result {
        Some(Ok(Ok(report))) => Ok(report),
        Some(Ok(Err(error))) => Err(benching::failure(&error, cancel.load(Ordering::Relaxed))),
        Some(Err(_)) => Err(Failure::failed("generator", "the generator panicked")),
        // It copies memory, or waits for a switch that does not answer: the end of the process is its end.
        None => Err(interrupted()),
    }
}

fn interrupted() -> Failure {
    Failure::failed("interrupted", "interrupted")
}

/// What comes of `asked`, unless the verb is to end before.
async fn unless_interrupted<T>(
    asked: impl Future<Output = Result<T, Failure>>,
    interrupts: &mut Interrupts,
) -> Result<T, Failure> {
    tokio::select! {
        answer = asked => answer,
        () = interrupts.next() => Err(interrupted()),
    }
}

/// A port takes a dozen descriptors: hundreds of them take more than a process has unless it asks.
fn allow_many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // If it may not, the port for which there is none left says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
