//! `up`, `test` and what they share: find the file, check it, start a controller for the lab, follow what happens.

use super::{
    INVALID_FILE,
    down::{clean_up, take_down, tell_what_is_kept, until_gone},
    interrupt::{Interrupts, interrupted},
    out, render,
};
use crate::{
    api::{
        client::Client,
        types::{LabState, LabView, TestReport, TopologyFile},
    },
    failure::{Context, Exit, Failure},
    lab::{
        child,
        claim::ClaimError,
        events::What,
        name::LabName,
        precheck,
        processes::{Identity, MARK, mark},
        rundir::Runtime,
    },
};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use topology::Loaded;

/// How long a controller whose lab did not come up may take to be gone.
const LEAVING: Duration = Duration::from_secs(2);

/// How long a new controller may take to open its API.
const PATIENCE: Duration = Duration::from_secs(10);

/// A file that was read and found good.
pub(super) struct Checked {
    pub(super) file: TopologyFile,
    pub(super) loaded: Loaded,
}

/// Reads and checks `path` (`-` is standard input), or the only `*.vnet.yaml` of this folder; warnings go to standard error.
pub(super) fn check(path: Option<&Path>) -> Result<Checked, Failure> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => only_file()?,
    };
    let unreadable = |why| Failure::invalid("unreadable-file", why);
    if path == Path::new("-") {
        let text = topology::read_text(std::io::stdin(), Path::new("standard input")).map_err(unreadable)?;
        let base = std::env::current_dir().context("file", || "this folder".into())?;
        return check_text(text, "standard input", base);
    }
    let text = topology::read_file(&path).map_err(unreadable)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let base = folder.canonicalize().context("file", || folder.display().to_string())?;
    check_text(text, &path.display().to_string(), base)
}

/// Checks a text that the user calls `name`.
pub(super) fn check_text(text: String, name: &str, base: PathBuf) -> Result<Checked, Failure> {
    let loaded = topology::load(&text, name, &base)
        .map_err(|report| Failure::invalid(INVALID_FILE, report.render(render::colour()).trim_end()))?;
    if !loaded.warnings.is_empty() {
        out::note(topology::Report::of_warnings(&loaded, &text).render(render::colour()).trim_end());
    }
    precheck::check(&loaded.plan)?;
    Ok(Checked { file: TopologyFile { text, name: name.into(), base, private_copy: false }, loaded })
}

fn only_file() -> Result<PathBuf, Failure> {
    let entries = std::fs::read_dir(".").context("file", || "this folder".into())?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut files: Vec<_> = names.filter(|name| name.ends_with(".vnet.yaml")).collect();
    files.sort();
    match files.as_slice() {
        [only] => Ok(only.into()),
        [] => Err(Failure::invalid("no-file", "no *.vnet.yaml in this folder")
            .mend("name one, or write one: vnet init")),
        several => Err(Failure::invalid(
            "which-file",
            format!("several topology files here: {}", several.join(", ")),
        )
        .mend("name one")),
    }
}

/// A lab that is up.
pub(super) struct Brought {
    pub(super) api: Client,
    runtime: Runtime,
    name: LabName,
    /// Whether this process brought it up and answers for it; else it was there.
    ours: bool,
}

impl Brought {
    /// Takes the lab down, and waits until it is gone.
    pub(super) async fn down(&self) -> Result<(), Failure> {
        let dir = self.runtime.lab(&self.name);
        take_down(&self.api, &self.name, &dir).await?;
        tell_what_is_kept(&dir);
        Ok(())
    }

    /// How it ended, when the controller does not say any more what happens: taken down by somebody, or killed.
    async fn left(&self) -> Result<Exit, Failure> {
        match until_gone(&self.name, &self.runtime.lab(&self.name)).await {
            Ok(()) => {
                out::say(format_args!("{} was taken down", self.name));
                Ok(Exit::Done)
            }
            Err(_) => {
                let text = format!("the controller of lab {} is gone, and its processes are left", self.name);
                Err(Failure::failed("orphaned", text)
                    .mend("frames are still forwarded; `vnet down` cleans up"))
            }
        }
    }

    /// What an interrupt does: takes down what this process brought up, and leaves alone what was there.
    async fn interrupted(&self) -> Result<&'static str, Failure> {
        if self.ours {
            self.down().await?;
            Ok("is down")
        } else {
            Ok("goes on; `vnet down` takes it down")
        }
    }
}

/// Brings the lab `name` up with `file`; what happens is shown on standard error. Interrupted, it takes the lab down again,
/// if it was not there before.
pub(super) async fn bring_up(
    name: &LabName,
    file: &TopologyFile,
    interrupts: &mut Interrupts,
) -> Result<(Brought, LabView), Failure> {
    let runtime = Runtime::of_environment();
    let dir = runtime.lab(name);
    let there = dir.exists() && dir.is_held()?;
    let started = if there { None } else { start_controller(name, &runtime, file.private_copy)? };
    let own = started.as_ref().map(|started| started.process.id());
    // Not to be interrupted: a controller that does not answer yet cannot be told to go.
    let (api, before) = reach(name, &runtime, started).await?;
    let ours = own.map_or(before.state == LabState::Empty, |own| own == before.pid);
    let brought = Brought { api: api.clone(), runtime, name: name.clone(), ours };
    let (end, until) = oneshot::channel();
    let following = tokio::spawn(follow(api.clone(), if ours { 0 } else { before.events }, until));
    let up = tokio::select! {
        up = api.put(file) => up,
        () = interrupts.next() => Err(interrupted(brought.interrupted().await?)),
    };
    if let Ok(view) = &up {
        // A follower that is gone has nothing to show.
        let _ = end.send(view.events);
    }
    // The last words are on their way.
    let _ = tokio::time::timeout(Duration::from_secs(1), following).await;
    if up.is_err()
        && let Some(controller) = own.and_then(Identity::of)
    {
        // It takes back what was begun, and goes: the next verb is not to meet it.
        let _ = tokio::time::timeout(LEAVING, controller.ended()).await;
    }
    Ok((brought, up?))
}

/// A controller that was started.
struct Started {
    process: Child,
    log: PathBuf,
    /// Where in its log its words begin.
    from: u64,
}

/// Starts a controller; none if there is one already. A lab that is `private` ends with this process.
fn start_controller(name: &LabName, runtime: &Runtime, private: bool) -> Result<Option<Started>, Failure> {
    // Taken for a moment, so that the folder is there for the log; the controller takes it anew.
    let dir = match runtime.claim(name) {
        Ok(claim) => claim.dir().clone(),
        Err(ClaimError::Held) => return Ok(None),
        Err(ClaimError::Unusable(failure)) => return Err(failure),
    };
    use std::os::unix::process::CommandExt;
    let log = child::log(&dir, "controller")?;
    let from = log.metadata().map_or(0, |metadata| metadata.len());
    let errors = log.try_clone().context("log", || "controller".into())?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["--name", name.as_str(), "serve"]).stdin(Stdio::null()).stdout(log).stderr(errors);
    if private {
        command.arg(std::process::id().to_string());
    }
    command.process_group(0).env(MARK, mark(&dir));
    let process = command.spawn().context("spawn", || "the controller cannot be started".into())?;
    Ok(Some(Started { process, log: dir.log("controller"), from }))
}

/// The API of a controller that is starting, perhaps as the process `started`, and what it says first. One that we started
/// and that does not get as far leaves nothing behind.
async fn reach(
    name: &LabName,
    runtime: &Runtime,
    mut started: Option<Started>,
) -> Result<(Client, LabView), Failure> {
    let dir = runtime.lab(name);
    let api = Client::new(&dir.api_socket(), name.as_str());
    let end = Instant::now() + PATIENCE;
    loop {
        let silence = match api.answers().await {
            Ok(view) => return Ok((api, view)),
            Err(silence) => silence,
        };
        let ended = started.as_mut().and_then(|started| started.process.try_wait().ok()?);
        let over = Instant::now() >= end;
        match (&mut started, ended) {
            (Some(started), Some(status)) if !dir.is_held()? => {
                let failure = last_words(name, started, &format!("{} at once", child::ended(status)));
                give_up(name, runtime);
                return Err(failure);
            }
            (Some(started), None) if over => {
                // It may have ended by itself.
                let _ = started.process.kill();
                let _ = started.process.wait();
                let failure = last_words(name, started, &format!("does not answer within {PATIENCE:?}"));
                give_up(name, runtime);
                return Err(failure);
            }
            _ if over => return Err(silence),
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Removes the folder that a controller of ours left.
fn give_up(name: &LabName, runtime: &Runtime) {
    // Somebody else holds it by now, or it cannot be removed: the failure that is told says more.
    if let Ok(claim) = runtime.claim(name) {
        let _ = clean_up(claim, runtime);
    }
}

/// Why a controller that we started is of no use: what it said last, or that it could not even say it.
fn last_words(name: &LabName, started: &Started, how: &str) -> Failure {
    let said = child::last_words(&started.log, started.from).unwrap_or_else(|| {
        let full = rustix::fs::statvfs(&started.log).is_ok_and(|disk| disk.f_bavail == 0);
        if full {
            format!("\n  | no space is left where {} is", started.log.display())
        } else {
            String::new()
        }
    });
    Failure::failed("controller-ended", format!("the controller of lab {name} {how}{said}"))
        .mend("nothing of it is left; `VNET_RUNTIME_DIR` says where labs live")
}

/// Shows what happens from event `from` on, until all before the one that `end` names was shown, or the lab is gone.
async fn follow(api: Client, from: u64, mut end: oneshot::Receiver<u64>) {
    let Ok(mut events) = api.events(from).await else { return };
    let (mut next, mut last) = (from, None);
    while last.is_none_or(|last| next < last) {
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else { return };
                out::note(format_args!("{:>7.2}s  {}", event.millis as f64 / 1000.0, event.what));
                next = event.number + 1;
            }
            // Without a word the lab did not come up: its controller closes the stream.
            told = &mut end, if last.is_none() => last = Some(told.unwrap_or(u64::MAX)),
        }
    }
}

/// `up`: with `detached` returns as soon as the lab is up, else stays until Ctrl-C or until the lab is gone.
pub(super) async fn up(path: Option<&Path>, name: Option<&LabName>, detached: bool) -> Result<Exit, Failure> {
    let Checked { file, loaded } = check(path)?;
    let name = match name {
        Some(name) => name.clone(),
        None => loaded.plan.description.lab.parse()?,
    };
    let mut interrupts = Interrupts::new()?;
    let (brought, view) = bring_up(&name, &file, &mut interrupts).await?;
    out::say(format_args!("{} is up: {} nodes, {} ports", view.lab, view.nodes, view.ports));
    if detached {
        return Ok(Exit::Done);
    }
    if brought.ours {
        out::say(
            "Ctrl-C takes it down; in another terminal: vnet show ports, vnet test --running, vnet trace …",
        );
    } else {
        out::say(
            "It was up before: Ctrl-C ends this command only, and the lab goes on; `vnet down` takes it down",
        );
    }
    let mut events = brought.api.events(view.events).await?;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => if matches!(event.what, What::SwitchLost { .. } | What::SwitchReady { .. } | What::NodeEnded { .. } | What::Note { .. }) {
                    out::note(format_args!("{:>7.2}s  {}", event.millis as f64 / 1000.0, event.what));
                },
                None => return brought.left().await,
            },
            () = interrupts.next() => {
                let end = brought.interrupted().await?;
                out::say(format_args!("{name} {end}"));
                return Ok(Exit::Done);
            }
        }
    }
}

/// `test FILE`: a copy under another name, its expectations, and down again.
pub(super) async fn test(path: Option<&Path>) -> Result<TestReport, Failure> {
    run_copy(check(path)?).await
}

/// Brings a private copy of a lab up, tests it, and takes it down, whatever came of it.
pub(super) async fn run_copy(checked: Checked) -> Result<TestReport, Failure> {
    let Checked { mut file, loaded } = checked;
    file.private_copy = true;
    let name = format!("{}-test-{}", loaded.plan.description.lab, std::process::id()).parse()?;
    let mut interrupts = Interrupts::new()?;
    let (brought, _) = bring_up(&name, &file, &mut interrupts).await?;
    let report = tokio::select! {
        report = brought.api.act("test") => report,
        () = interrupts.next() => Err(interrupted("is down")),
    };
    brought.down().await?;
    report
}

/// Says that a test without expectations proves little.
pub(super) fn warn_if_nothing_is_expected(report: &TestReport) {
    if report.rows.is_empty() {
        out::note(format_args!(
            "warning: {} expects nothing: this shows only that the lab comes up\n  help: say what must hold, for example \
             `expect: [a -> b icmp allow]`",
            report.file
        ));
    }
}
