//! The hidden verbs: this executable in the roles of a lab's processes.

use super::out;
use crate::{
    api::server::{self, OwnersOnly, Service, router},
    failure::{Context, Exit, Failure},
    lab::{
        claim::ClaimError, name::LabName, processes::Identity, rundir::Runtime, running::Lab, sockets::listen,
    },
    station::{self, Spec},
};
use std::{
    io::{Read, Write},
    os::fd::AsFd,
    time::Duration,
};
use tokio::sync::oneshot;
use vmm_lite::ErrorKind;

/// How long answers that are under way when the lab is down may take to be read: a client that is stopped holds up
/// nobody.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The switch: its standard input is the control socket.
pub(super) fn vswitchd() -> Result<Exit, Failure> {
    log();
    let control =
        std::io::stdin().as_fd().try_clone_to_owned().context("switch", || "its control socket".into())?;
    vswitchd::run(vswitchd::Options { control })
        .map_err(|why| Failure::failed("switch", format!("{why:#}")))?;
    Ok(Exit::Done)
}

/// All stations of a lab: what they are to be comes on standard input, as JSON, to its end.
pub(super) fn station() -> Result<Exit, Failure> {
    log();
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).context("station", || "what to be".into())?;
    let spec: Spec = serde_json::from_slice(&text).context("station", || "what to be".into())?;
    station::run(spec).map_err(|why| Failure::failed("station", format!("{why:#}")))?;
    Ok(Exit::Done)
}

/// A way out of a lab: its standard input is the connection to the switch. It says a line when it serves.
pub(super) fn way_out(spec: &way_out::Spec) -> Result<Exit, Failure> {
    log();
    let failed = |why: String| Failure::failed("way-out", why);
    let stream =
        std::io::stdin().as_fd().try_clone_to_owned().context("way-out", || "its connection".into())?;
    way_out::confine().map_err(|why| failed(format!("it cannot be confined: {why}")))?;
    let mut ready = std::io::stdout();
    writeln!(ready, "ready")
        .and_then(|()| ready.flush())
        .context("way-out", || "whoever started it".into())?;
    way_out::run(stream, spec, Box::new(way_out::resolver)).map_err(|why| failed(why.to_string()))?;
    Ok(Exit::Done)
}

/// One virtual machine, with its console where its arguments say.
pub(super) fn vmm(args: vmm_lite::Args) -> Result<Exit, Failure> {
    let ended = vmm_lite::run(args).map_err(|why| {
        let exit = match why.kind() {
            ErrorKind::Usage => Exit::Invalid,
            ErrorKind::Lacking => Exit::Lacking,
            ErrorKind::Failed => Exit::Failed,
        };
        Failure::new(exit, "vmm", why)
    })?;
    if ended.is_orderly() {
        out::note(&ended);
        Ok(Exit::Done)
    } else {
        Err(Failure::failed("vmm", ended))
    }
}

/// The controller of one lab: serves its API until the lab is taken down, or until the process `owner` that started it
/// ends.
pub(super) async fn serve(name: &LabName, owner: Option<u32>) -> Result<Exit, Failure> {
    log();
    let owner_ended = end_of(owner);
    let runtime = Runtime::of_environment();
    let claim = match runtime.claim(name) {
        Ok(claim) => claim,
        Err(ClaimError::Unusable(failure)) => return Err(failure),
        Err(ClaimError::Held) => {
            return Err(Failure::new(Exit::Busy, "busy", format!("lab {name} has a controller already")));
        }
    };
    let lab = Lab::new(name, &claim)?;
    let listener = listen(&claim.dir().api_socket())?;
    listener.set_nonblocking(true).context("api", || "its socket".into())?;
    let listener = tokio::net::UnixListener::from_std(listener).context("api", || "its socket".into())?;
    let (done, (over, is_over)) = (lab.clone(), oneshot::channel());
    let served = server::serve(OwnersOnly(listener), router(lab), async move {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
        let asked = async {
            match &mut terminate {
                Some(terminate) => terminate.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = done.done() => {}
            _ = asked => take_down(&done).await,
            () = owner_ended => take_down(&done).await,
        }
        let _ = over.send(());
    });
    tokio::select! {
        () = served => {}
        () = async {
            // It is said, or nothing is left that could say it.
            let _ = is_over.await;
            tokio::time::sleep(LAST_WORDS).await;
        } => {}
    }
    for kept in claim.remove()? {
        tracing::warn!("{} is kept: vnet did not make it", kept.display());
    }
    runtime.remove_if_empty();
    Ok(Exit::Done)
}

/// Waits for the end of the process that started this one; for ever if the lab does not depend on it.
fn end_of(owner: Option<u32>) -> impl Future<Output = ()> {
    // A parent that has ended already left its child to another process.
    let parent = rustix::process::getppid().and_then(|parent| u32::try_from(parent.as_raw_pid()).ok());
    let identity = owner.map(|owner| Identity::of(owner).filter(|_| parent == Some(owner)));
    async move {
        match identity {
            Some(Some(identity)) => identity.ended().await,
            Some(None) => {}
            None => std::future::pending().await,
        }
    }
}

async fn take_down(lab: &Lab) {
    if let Err(failure) = lab.delete().await {
        tracing::error!("{failure}");
    }
}

/// Logs go to standard error, which is the role's log file.
fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("VNET_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
}
