//! `up`, `test` and what they share: find the file, check it, start a controller for the lab, follow what happens.

use super::{
    INVALID_FILE,
    interrupt::{Interrupts, interrupted},
    labs::until_gone,
    out, render,
};
use crate::{
    api::{
        client::Client,
        types::{LabView, TestReport, TopologyFile},
    },
    failure::{Context, Exit, Failure},
    lab::{
        child,
        events::What,
        rundir::{ClaimError, LabDir, Runtime},
    },
};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use topology::Loaded;

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

/// A lab that this process brought up and answers for.
pub(super) struct Brought {
    pub(super) api: Client,
    runtime: Runtime,
    name: String,
}

impl Brought {
    /// Takes the lab down, and waits until its folder is gone.
    pub(super) async fn down(&self) -> Result<(), Failure> {
        self.api.delete().await?;
        until_gone(&self.runtime.lab(&self.name)).await;
        Ok(())
    }

    /// How it ended, when the controller does not say any more what happens: taken down by somebody, or killed.
    async fn left(&self) -> Result<Exit, Failure> {
        let dir = self.runtime.lab(&self.name);
        until_gone(&dir).await;
        if !dir.path().exists() {
            return Ok(Exit::Done);
        }
        let text = format!("the controller of lab {} is gone, and its processes are left", self.name);
        Err(Failure::failed("orphaned", text).mend("frames are still forwarded; `vnet down` cleans up"))
    }
}

/// Brings the lab `name` up with `file`; what happens is shown on standard error. Interrupted, it takes the lab down again.
pub(super) async fn bring_up(
    name: &str,
    file: &TopologyFile,
    interrupts: &mut Interrupts,
) -> Result<(Brought, LabView), Failure> {
    let runtime = Runtime::of_environment();
    let dir = runtime.lab(name);
    let there = dir.path().exists() && dir.is_held()?;
    let mut started = if there { None } else { start_controller(name, &runtime)? };
    // Not to be interrupted: a controller that does not answer yet cannot be told to go.
    let api = reach(name, &dir, started.as_mut()).await?;
    let brought = Brought { api: api.clone(), runtime, name: name.into() };
    let following = tokio::spawn(follow(api.clone()));
    let up = tokio::select! {
        up = api.put(file) => up,
        () = interrupts.next() => {
            brought.down().await?;
            Err(interrupted())
        }
    };
    // The last words are on their way: `ready`, or the controller closes the stream behind them.
    let _ = tokio::time::timeout(Duration::from_secs(1), following).await;
    Ok((brought, up?))
}

/// Starts a controller; none if there is one already.
fn start_controller(name: &str, runtime: &Runtime) -> Result<Option<Child>, Failure> {
    // Taken for a moment, so that the folder is there for the log; the controller takes it anew.
    let dir = match runtime.claim(name) {
        Ok(claim) => claim.dir().clone(),
        Err(ClaimError::Held) => return Ok(None),
        Err(ClaimError::Unusable(failure)) => return Err(failure),
    };
    use std::os::unix::process::CommandExt;
    let log = child::log(&dir, "controller")?;
    let errors = log.try_clone().context("log", || "controller".into())?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["--name", name, "serve"]).stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
    command.spawn().map(Some).context("spawn", || "the controller cannot be started".into())
}

/// How a process ended, if it did.
fn ended(process: Option<&mut Child>) -> Option<ExitStatus> {
    process?.try_wait().ok()?
}

/// The API of a controller that is starting, perhaps as the process `started`.
async fn reach(name: &str, dir: &LabDir, mut started: Option<&mut Child>) -> Result<Client, Failure> {
    let api = Client::new(&dir.api_socket(), name);
    let end = Instant::now() + PATIENCE;
    loop {
        match api.view().await {
            Ok(_) => return Ok(api),
            Err(failure) if Instant::now() >= end => return Err(failure),
            Err(_)
                if let Some(status) = ended(started.as_deref_mut())
                    && !dir.is_held()? =>
            {
                let text = format!("the controller of lab {name} {} at once", child::ended(status));
                return Err(Failure::failed("controller-ended", text)
                    .mend("see `vnet logs controller`; `vnet down` cleans up"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Shows what happens until the lab is up or gone.
async fn follow(api: Client) {
    let Ok(mut events) = api.events(0).await else { return };
    while let Some(event) = events.next().await {
        out::note(format_args!("{:>7.2}s  {}", event.millis as f64 / 1000.0, event.what));
        if event.what == What::Ready {
            return;
        }
    }
}

/// `up`: with `detached` returns as soon as the lab is up, else stays until Ctrl-C or until the lab is gone.
pub(super) async fn up(path: Option<&Path>, name: Option<&str>, detached: bool) -> Result<Exit, Failure> {
    let Checked { file, loaded } = check(path)?;
    let name = name.unwrap_or(&loaded.plan.description.lab).to_owned();
    let mut interrupts = Interrupts::new()?;
    let (brought, view) = bring_up(&name, &file, &mut interrupts).await?;
    out::say(format_args!("{} is up: {} nodes, {} ports", view.lab, view.nodes, view.ports));
    if detached {
        return Ok(Exit::Done);
    }
    out::say(format_args!(
        "Ctrl-C takes it down; in another terminal: vnet show ports, vnet test --running, vnet trace …"
    ));
    let mut events = brought.api.events(0).await?;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => if matches!(event.what, What::SwitchLost { .. } | What::SwitchReady { .. } | What::NodeEnded { .. } | What::Note { .. }) {
                    out::note(format_args!("{:>7.2}s  {}", event.millis as f64 / 1000.0, event.what));
                },
                None => return brought.left().await,
            },
            () = interrupts.next() => {
                brought.down().await?;
                out::say(format_args!("{name} is down"));
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
    let name = format!("{}-test-{}", loaded.plan.description.lab, std::process::id());
    let mut interrupts = Interrupts::new()?;
    let (brought, _) = bring_up(&name, &file, &mut interrupts).await?;
    let report = tokio::select! {
        report = brought.api.act("test") => report,
        () = interrupts.next() => Err(interrupted()),
    };
    brought.down().await?;
    report
}
