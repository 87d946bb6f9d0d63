//! `down`: through the controller if it answers, else past it, by what the lab's folder says.

use super::{labs::chosen, out};
use crate::{
    api::client::Client,
    failure::{Exit, Failure},
    lab::{
        claim::{Claim, ClaimError},
        name::LabName,
        processes::{Identity, end_left},
        rundir::{LabDir, Runtime},
    },
};
use std::time::{Duration, Instant};

/// How long a process of an orphaned lab has to end by itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a controller has to remove the lab's folder once it has said that the lab is down.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Takes a lab down; an orphaned one is cleaned up.
pub(super) async fn down(name: Option<&LabName>) -> Result<(), Failure> {
    let runtime = Runtime::of_environment();
    let name = chosen(&runtime, name)?;
    let dir = runtime.lab(&name);
    match runtime.claim(&name) {
        Ok(claim) => clean_up(claim, &runtime)?,
        Err(ClaimError::Unusable(failure)) => return Err(failure),
        Err(ClaimError::Held) => {
            let api = Client::new(&dir.api_socket(), name.as_str());
            match api.answers().await {
                Ok(_) => take_down(&api, &name, &dir).await?,
                Err(silence) => {
                    out::note(format_args!("{}; it is ended, and the lab cleaned up", silence.message));
                    end_left(&dir, PATIENCE);
                    clean_up(freed(&runtime, &name)?, &runtime)?;
                }
            }
        }
    }
    out::say(format_args!("{name} is down"));
    tell_what_is_kept(&dir);
    Ok(())
}

/// The lab's folder, which nobody holds any more.
fn freed(runtime: &Runtime, name: &LabName) -> Result<Claim, Failure> {
    match runtime.claim(name) {
        Ok(claim) => Ok(claim),
        Err(ClaimError::Unusable(failure)) => Err(failure),
        Err(ClaimError::Held) => {
            let text = format!("lab {name} is held by a process that is not in its list");
            let who = format!("find it with: fuser {}", runtime.lab(name).path().join("lock").display());
            Err(Failure::new(Exit::Busy, "held", text).mend(who))
        }
    }
}

/// Ends what a controller that is gone left of its lab.
pub(super) fn clean_up(claim: Claim, runtime: &Runtime) -> Result<(), Failure> {
    end_left(claim.dir(), PATIENCE);
    claim.remove()?;
    runtime.remove_if_empty();
    Ok(())
}

/// Says what others put into the lab's folder, if that is why it is still there.
pub(super) fn tell_what_is_kept(dir: &LabDir) {
    let kept = dir.foreign();
    if !kept.is_empty() {
        let names = kept.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        out::note(format_args!("{} is kept: vnet did not make {names}", dir.path().display()));
    }
}

/// Takes down a lab whose controller answers; what it was of is gone then, the controller too.
///
/// # Errors
/// As the lab says, or something stays.
pub(super) async fn take_down(api: &Client, name: &LabName, dir: &LabDir) -> Result<(), Failure> {
    // Taken while it lives: afterwards another process may have its pid.
    let controller = Identity::of(api.view().await?.pid);
    api.delete().await?;
    until_gone(name, dir).await?;
    let end = Instant::now() + GONE_WITHIN;
    while controller.is_some_and(Identity::is_alive) && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Waits until a lab that was taken down is gone: then its name is free for the next `up`.
///
/// # Errors
/// It stays.
pub(super) async fn until_gone(name: &LabName, dir: &LabDir) -> Result<(), Failure> {
    let end = Instant::now() + GONE_WITHIN;
    while dir.exists() {
        // Without its controller it is orphaned: it will not go by itself.
        if Instant::now() >= end || !dir.is_held()? && dir.exists() {
            let text = format!("lab {name} was taken down, and {} is still there", dir.path().display());
            return Err(Failure::failed("still-there", text)
                .mend("`vnet down` once more ends what is left; `vnet logs controller` may say why"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
