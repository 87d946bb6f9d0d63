//! The nodes that we start: stations, all in one process, and virtual machines, each in one.

use super::{
    child,
    events::{Events, What},
    link, netns, ports,
    rundir::LabDir,
    sockets,
};
use crate::{
    failure::{Context, Failure},
    image,
    probing::Line,
    station::{InterfaceSpec, Spec, StationSpec},
    vm::{
        accel::{self, Decision, SILENCE},
        choice,
        control::Control,
        disk, lite,
        qemu::{Launch, RunDirectory},
        qmp::{Qmp, Status},
    },
};
use rustix::fs::{MemfdFlags, memfd_create};
use std::{
    fs,
    io::Write,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{fs::DirBuilderExt, net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tokio::process::Child;
use topology::plan::{Boot, Node, NodeKind, Plan, Vm, Vmm};

/// How long a station may take to answer for the first time.
const STATION_PATIENCE: Duration = Duration::from_secs(10);

/// How long the agent in a network namespace may take to answer for the first time.
const AGENT_PATIENCE: Duration = Duration::from_secs(10);

/// How long a bundled guest may take to answer for the first time.
const BUNDLED_PATIENCE: Duration = Duration::from_secs(30);

/// How long a guest under emulation may take to boot.
const BOOT_PATIENCE: Duration = Duration::from_secs(180);

/// How often it is said that a guest is still waited for.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// How long a machine of vmm-lite may take until it runs: it reads what it boots.
const LITE_PATIENCE: Duration = Duration::from_secs(30);

/// How long vmm-lite may take for one answer.
const CONTROL_PATIENCE: Duration = Duration::from_secs(1);

/// How long QEMU may take for one answer; while its interfaces are connected it gives none.
const QMP_PATIENCE: Duration = Duration::from_secs(1);

/// How often a guest's socket is tried that is not there yet.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// Where the stations of a lab are asked.
pub(super) fn station_socket(dir: &LabDir) -> PathBuf {
    dir.path().join("stations.sock")
}

/// Starts the process of all stations, and has it written down by `born`; none if the plan has none.
///
/// # Errors
/// It cannot be started.
pub(super) async fn start_stations(
    plan: &Plan,
    dir: &LabDir,
    born: impl FnOnce(&Child) -> Result<(), Failure>,
) -> Result<Option<Child>, Failure> {
    let stations: Vec<_> = plan.nodes.iter().filter(|node| node.kind == NodeKind::Station).collect();
    if stations.is_empty() {
        return Ok(None);
    }
    let control = station_socket(dir);
    // A socket that an earlier process of this lab left would be in the way of this one.
    let _ = fs::remove_file(&control);
    let spec = Spec { stations: stations.into_iter().map(|node| station(node, dir)).collect(), control };
    let json = serde_json::to_vec(&spec).context("station", || "the stations".into())?;
    let (mut ours, theirs) = UnixStream::pair().context("station", || "a socket".into())?;
    let child = child::spawn_role("station", theirs.into(), dir)?;
    let told = born(&child).and_then(|()| {
        ours.write_all(&json).context("station", || "the stations cannot be told what to be".into())
    });
    let (child, ()) = child::kept(child, told).await?;
    Ok(Some(child))
}

fn station(node: &Node, dir: &LabDir) -> StationSpec {
    let interfaces = node.interfaces.iter().filter_map(|interface| {
        let (_, socket) = ports::socket(node, interface, dir)?;
        Some(InterfaceSpec {
            name: interface.name.clone(),
            socket,
            mac: interface.mac?,
            addresses: interface.addresses.clone(),
            gateways: interface.gateways.clone(),
            mtu: interface.mtu,
        })
    });
    StationSpec { name: node.name.clone(), interfaces: interfaces.collect() }
}

/// The line to a station, as soon as it answers.
///
/// # Errors
/// It does not answer in time.
pub(super) async fn ask_station(node: &str, dir: &LabDir) -> Result<Line, Failure> {
    line(&station_socket(dir), node, STATION_PATIENCE).await
}

async fn line(socket: &Path, node: &str, patience: Duration) -> Result<Line, Failure> {
    let end = Instant::now() + patience;
    loop {
        match Line::connect(socket, node, end.saturating_duration_since(Instant::now())).await {
            Ok(line) => return Ok(line),
            Err(why) if Instant::now() >= end => return Err(Failure::failed("silent-node", why)),
            Err(_) => tokio::time::sleep(TRY_AGAIN).await,
        }
    }
}

/// A virtual machine that was started.
#[derive(Debug)]
pub(super) struct Guest {
    /// Its process.
    pub(super) child: Child,
    /// The line to it; none if it has nothing that answers.
    pub(super) line: Option<Line>,
    /// How it runs, in words.
    pub(super) how: String,
    /// Its VMM says in the last line of its log why the guest ended; this is where what it says begins.
    pub(super) says_why: Option<u64>,
}

/// Where guests are born.
pub(super) struct Nursery<'a> {
    /// The lab's folder.
    pub(super) dir: &'a LabDir,
    /// Who is told.
    pub(super) events: &'a Events,
    /// Writes a new process down, before anything else is done with it.
    pub(super) born: &'a (dyn Fn(&Child) -> Result<(), Failure> + Sync),
}

/// Where the sockets of a node's VMM are.
pub(super) fn vm_directory(node: &str, dir: &LabDir) -> RunDirectory {
    RunDirectory::new(dir.path().join(node))
}

/// Builds the image that `vm` boots, if it boots one.
///
/// # Errors
/// This machine lacks something, which is named.
pub(super) async fn image(vm: &Vm, events: &Events) -> Result<Option<image::Image>, Failure> {
    let Boot::Image(name) = &vm.boot else { return Ok(None) };
    let name = image::Name::parse(name)
        .ok_or_else(|| Failure::invalid("no-such-image", format!("there is no image `{name}`")))?;
    let events = events.clone();
    let built = tokio::task::spawn_blocking(move || {
        image::ensure(name, &mut |step| {
            events.tell(What::Note { text: format!("image {}: {step}", name.as_str()) });
        })
    });
    let built = built.await.map_err(|why| Failure::failed("image", why))?;
    built.map(Some).map_err(|why| {
        if why.is_missing() { Failure::lacking("image", why) } else { Failure::failed("image", why) }
    })
}

/// Starts a virtual machine and waits until it answers. Under QEMU with KVM it has a minute for that, and is then started
/// again under emulation.
///
/// # Errors
/// It cannot be started, or does not answer.
pub(super) async fn start_vm(
    node: &Node,
    vm: &Vm,
    image: Option<&image::Image>,
    nursery: &Nursery<'_>,
) -> Result<Guest, Failure> {
    let run = vm_directory(&node.name, nursery.dir);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(run.path())
        .context("run-directory", || run.path().display().to_string())?;
    if vm.vmm == Vmm::VmmLite {
        return start_lite(node, vm, image, &run, nursery).await;
    }
    if let Boot::Disk { path, write: false } = &vm.boot {
        disk::create_overlay(path, &run.overlay()).map_err(|why| {
            if why.is_missing() { Failure::lacking("disk", why) } else { Failure::failed("disk", why) }
        })?;
    }
    let mut decision = accel::decide();
    loop {
        match try_vm(node, vm, image, &run, decision, nursery).await {
            Ok(guest) => return Ok(guest),
            Err(why) => match decision.after_silence().filter(|_| why.code == "silent-node") {
                Some(next) => decision = next,
                None => return Err(why),
            },
        }
    }
}

/// Starts a guest under vmm-lite and waits until it answers, or runs if it has nothing to answer with.
async fn start_lite(
    node: &Node,
    vm: &Vm,
    image: Option<&image::Image>,
    run: &RunDirectory,
    nursery: &Nursery<'_>,
) -> Result<Guest, Failure> {
    // What one that was killed left would be in the way.
    for socket in [run.console(), run.probe(), run.control()] {
        sockets::remove_stale(&socket)?;
    }
    // As QEMU has it: the log is that of the guest that runs.
    let _ = fs::remove_file(run.log());
    let listens = node.interfaces.iter().filter_map(|interface| {
        let (_, socket) = ports::socket(node, interface, nursery.dir)?;
        // The lab's folder is the parent of the one that it works in.
        Some((interface, Path::new("..").join(socket.file_name()?)))
    });
    let listens: Vec<_> = listens.collect();
    let interfaces = listens.iter().map(|(interface, socket)| (*interface, socket.as_path()));
    let command = lite::command(&node.name, vm, image, interfaces, run);
    // Of a life before nothing is to be told.
    let log_begins = fs::metadata(nursery.dir.log(&node.name)).map_or(0, |log| log.len());
    let how = "vmm-lite: /dev/kvm is usable".to_owned();
    let child = child::spawn(command, &node.name, nursery.dir)?;
    let recorded = (nursery.born)(&child);
    let (child, ()) = child::kept(child, recorded).await?;
    nursery.events.tell(What::NodeStarted { node: node.name.clone(), how: how.clone() });
    let answer = async {
        match &vm.boot {
            Boot::Bundled => line(&run.probe(), &node.name, BUNDLED_PATIENCE).await.map(Some),
            Boot::Image(_) => line(&run.probe(), &node.name, BOOT_PATIENCE).await.map(Some),
            _ => lite_runs(run, &node.name).await.map(|()| None),
        }
    };
    let answered = answered(node, child, "vmm-lite", run, nursery, answer).await;
    let (child, line) = answered.map_err(|failure| match &vm.boot {
        Boot::Bundled => failure,
        _ => failure.mend("`vmm: qemu` at the node has QEMU run it"),
    })?;
    Ok(Guest { child, line, how, says_why: Some(log_begins) })
}

/// Starts the agent of a network namespace, in it, and waits until it answers: what the guest of a virtual machine has inside.
///
/// # Errors
/// It cannot be started, or does not answer.
pub(super) async fn start_agent(
    node: &Node,
    namespace: Option<&str>,
    nursery: &Nursery<'_>,
) -> Result<Guest, Failure> {
    let name = netns::name(node, namespace, nursery.dir);
    let doing = || format!("the agent of {}", node.name);
    let agent = memfd_create("vnet-agent", MemfdFlags::CLOEXEC).context("spawn", doing)?;
    let mut file = fs::File::from(agent);
    file.write_all(image::AGENT).context("spawn", doing)?;
    let (ours, theirs) = UnixStream::pair().context("spawn", doing)?;
    let input = theirs.try_clone().context("spawn", doing)?;
    let mut command = Command::new(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()));
    command.arg0("vnet-agent").arg("-").stdin(OwnedFd::from(input)).current_dir("/");
    // A child is in the network namespace of the thread that starts it.
    let runtime = tokio::runtime::Handle::current();
    let child = netns::within(&name, || {
        let _in_runtime = runtime.enter();
        child::spawn_into(command, theirs.into(), &node.name, nursery.dir)
    })??;
    let answered = async {
        (nursery.born)(&child)?;
        ours.set_nonblocking(true).context("spawn", doing)?;
        let ours = tokio::net::UnixStream::from_std(ours).context("spawn", doing)?;
        let line = Line::over(ours, &node.name, AGENT_PATIENCE).await;
        line.map_err(|why| Failure::failed("silent-node", why))
    };
    let answered = answered.await;
    let (child, line) = child::kept(child, answered).await?;
    let how = format!("network namespace {name}");
    Ok(Guest { child, line: Some(line), how, says_why: None })
}

async fn try_vm(
    node: &Node,
    vm: &Vm,
    image: Option<&image::Image>,
    run: &RunDirectory,
    decision: Decision,
    nursery: &Nursery<'_>,
) -> Result<Guest, Failure> {
    let lite = choice::why_not_lite(vm, &node.interfaces);
    let lite = lite.map(|why| format!("; and not vmm-lite: {why}")).unwrap_or_default();
    let how = format!("QEMU, {}: {}{lite}", decision.accel.as_str(), decision.why);
    let launch = Launch::new(&node.name, vm, &node.interfaces, image, decision.accel, run.clone())
        .map_err(|why| Failure::invalid("vm", why))?;
    let child = child::spawn(launch.command(), &node.name, nursery.dir).map_err(|failure| {
        Failure::lacking("no-qemu", failure.message).mend("install QEMU: apt-get install qemu-system-x86")
    })?;
    let recorded = (nursery.born)(&child);
    let (child, ()) = child::kept(child, recorded).await?;
    nursery.events.tell(What::NodeStarted { node: node.name.clone(), how: how.clone() });
    let silent = decision.after_silence().is_some();
    let patience = if silent { SILENCE } else { BOOT_PATIENCE };
    let answer = async {
        if node.interfaces.iter().any(|interface| interface.link_down) {
            // QEMU has no word for it on its command line, and connects its interfaces with their links up. No driver runs yet.
            machine_runs(run, &node.name, patience).await?;
        }
        for interface in &node.interfaces {
            if interface.link_down {
                link::set(node, interface, false, nursery.dir).await?;
            }
        }
        if matches!(vm.boot, Boot::Image(_)) {
            line(&run.probe(), &node.name, patience).await.map(Some)
        } else {
            machine_runs(run, &node.name, patience).await.map(|()| None)
        }
    };
    let (child, line) = answered(node, child, "QEMU", run, nursery, answer).await?;
    Ok(Guest { child, line, how, says_why: None })
}

/// Waits for the `answer` of a guest, or for the end of its process, which is one of `vmm`.
async fn answered(
    node: &Node,
    mut child: Child,
    vmm: &str,
    run: &RunDirectory,
    nursery: &Nursery<'_>,
    answer: impl Future<Output = Result<Option<Line>, Failure>>,
) -> Result<(Child, Option<Line>), Failure> {
    tokio::select! {
        answered = with_progress(answer, &node.name, run, nursery.events) => match answered {
            Ok(line) => Ok((child, line)),
            Err(why) => {
                // It runs and says nothing: it is of no use, whether it ends well or not.
                let _ = child.kill().await;
                let said = child::last_words(&run.log(), 0).unwrap_or_default();
                Err(Failure { message: why.message + &said, ..why })
            }
        },
        status = child.wait() => {
            let how = status.map_or_else(|why| why.to_string(), child::ended);
            let logs = [nursery.dir.log(&node.name), run.log()];
            let said: String = logs.iter().filter_map(|log| child::last_words(log, 0)).collect();
            Err(Failure::failed("vm-ended", format!("{}: {vmm} {how}{said}", node.name)))
        }
    }
}

/// Waits until the machine of a guest that has nothing to answer with runs under vmm-lite.
async fn lite_runs(run: &RunDirectory, node: &str) -> Result<(), Failure> {
    let end = Instant::now() + LITE_PATIENCE;
    loop {
        let socket = run.control();
        let asked = move || Control::connect(&socket, CONTROL_PATIENCE)?.ask("state");
        let said = tokio::task::spawn_blocking(asked).await.context("control", || node.to_owned())?;
        match said {
            Ok(_) => return Ok(()),
            Err(why) if Instant::now() >= end => {
                return Err(Failure::failed("silent-node", format!("{node}: {why}")));
            }
            Err(_) => tokio::time::sleep(TRY_AGAIN).await,
        }
    }
}

/// Waits until the machine of a guest that has nothing to answer with runs: QEMU has read what it boots, and has its
/// interfaces.
async fn machine_runs(run: &RunDirectory, node: &str, patience: Duration) -> Result<(), Failure> {
    let end = Instant::now() + patience;
    loop {
        let socket = run.qmp();
        let asked = move || Qmp::connect(&socket, QMP_PATIENCE)?.query_status();
        let status = tokio::task::spawn_blocking(asked).await.context("qmp", || node.to_owned())?;
        match status {
            Ok(Status { running: true, .. }) => return Ok(()),
            Ok(Status { status, .. }) if Instant::now() >= end => {
                return Err(Failure::failed("silent-node", format!("{node}: its machine is {status}")));
            }
            Err(why) if Instant::now() >= end => return Err(Failure::failed("silent-node", why)),
            Ok(_) | Err(_) => tokio::time::sleep(TRY_AGAIN).await,
        }
    }
}

/// Waits, and says every few seconds what for and what the guest said last.
async fn with_progress<T>(
    awaited: impl Future<Output = T>,
    node: &str,
    run: &RunDirectory,
    events: &Events,
) -> T {
    let begin = Instant::now();
    let mut awaited = std::pin::pin!(awaited);
    loop {
        if let Ok(done) = tokio::time::timeout(TOLD_EVERY, awaited.as_mut()).await {
            return done;
        }
        let said = child::last_line(&run.log(), 0);
        let said =
            said.map_or("its console is silent".to_owned(), |line| format!("its console says: {line}"));
        let text = format!("{node} does not answer yet, after {} s; {said}", begin.elapsed().as_secs());
        events.tell(What::Note { text });
    }
}
