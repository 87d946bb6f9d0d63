//! What outlives the switch of the addresses that gateways give: the switch says when that changes, the one that follows it is told, and it is kept in a file
//! until the lab is up again.

mod file;
#[cfg(test)]
mod tests;

use super::{name::LabName, switch};
use crate::{
    api::types::TopologyFile,
    failure::{Context, Failure},
};
use file::{Entry, Place};
use std::{
    io::{self, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};
use topology::plan::Plan;
use vswitchd::control::{
    client::{Client, ClientError},
    protocol::KeptLease,
};

/// The leases of a lab.
#[derive(Debug)]
pub(super) struct Leases {
    /// The switch sends something here whenever they change,
    bell: UnixStream,
    /// and here it is heard.
    heard: UnixStream,
    known: Mutex<Known>,
}

/// What is known of them at this moment.
#[derive(Debug)]
struct Known {
    /// What the switch said last, and when.
    leases: Vec<KeptLease>,
    then: Instant,
    /// Where they are kept; none: nowhere.
    place: Option<Place>,
    /// What is there.
    entries: Vec<Entry>,
    /// It was said that some of them are forgotten.
    is_forgetting: bool,
    /// It was said that they cannot be kept there.
    is_failing: bool,
}

impl Known {
    /// The switch says that these are the leases; what that means is kept, if it is not known already. What is to be said about it.
    fn take(&mut self, leases: Vec<KeptLease>, now: SystemTime) -> Option<String> {
        let now = file::secs(now);
        let entries = file::entries(&leases, &self.entries, now);
        (self.leases, self.then) = (leases, Instant::now());
        let place = self.place.as_ref().filter(|_| !file::say_the_same(&entries, &self.entries))?;
        let why = match place.write(&entries, now) {
            Ok(()) => {
                (self.entries, self.is_failing) = (entries, false);
                return None;
            }
            Err(why) => why,
        };
        if std::mem::replace(&mut self.is_failing, true) {
            return None;
        }
        Some(format!("leases are kept only as long as the lab is up: {}: {why}", place.path().display()))
    }
}

impl Leases {
    /// None yet, and kept nowhere.
    ///
    /// # Errors
    /// Descriptors ran out.
    pub(super) fn new() -> Result<Self, Failure> {
        let (bell, heard) = pair().context("leases", || "a socket".into())?;
        let known = Known {
            leases: Vec::new(),
            then: Instant::now(),
            place: None,
            entries: Vec::new(),
            is_forgetting: false,
            is_failing: false,
        };
        Ok(Self { bell, heard, known: Mutex::new(known) })
    }

    /// As if the switch had said that they changed: one that could not be asked yet may have said so before.
    pub(super) fn ring(&self) {
        // No room is as good: there is something to be heard.
        let _ = (&self.bell).write(&[0]);
    }

    /// Where it is heard that they changed. It never ends.
    ///
    /// # Errors
    /// Descriptors ran out.
    pub(super) fn changes(&self) -> io::Result<tokio::net::UnixStream> {
        tokio::net::UnixStream::from_std(self.heard.try_clone()?)
    }

    /// Begins with what was kept when this file's lab of that name was up last, and keeps it there from now on. What is to be said about it.
    pub(super) fn begin(&self, lab: &LabName, file: &TopologyFile, plan: &Plan) -> Vec<String> {
        self.begin_in(file::folder(), lab, file, plan)
    }

    fn begin_in(
        &self,
        folder: Option<PathBuf>,
        lab: &LabName,
        file: &TopologyFile,
        plan: &Plan,
    ) -> Vec<String> {
        let routing = plan.description.routing.iter();
        let gives = routing.flat_map(|routing| &routing.routers).flat_map(|router| &router.gateways);
        // A copy for testing begins afresh, and leaves nothing.
        if file.private_copy || !{ gives }.any(|gateway| gateway.dhcp.is_some()) {
            return Vec::new();
        }
        let Some(folder) = folder else {
            let why = "neither VNET_STATE_DIR, XDG_STATE_HOME nor HOME is set";
            return vec![format!("leases are kept only as long as the lab is up: {why}")];
        };
        // The path that its name leads to may be relative to where the user was; its folder is not.
        let file = Path::new(&file.name).file_name().map(|name| file.base.join(name)).unwrap_or_default();
        self.begin_at(Place::new(&folder, lab, file), SystemTime::now())
    }

    fn begin_at(&self, place: Place, now: SystemTime) -> Vec<String> {
        let mut known = self.known();
        let (kept, said) = match place.read() {
            Ok(kept) => (kept.unwrap_or_default(), Vec::new()),
            Err(why) => (file::Kept::default(), vec![place.set_aside(&why)]),
        };
        (known.leases, known.then) = (kept.leases(file::secs(now)), Instant::now());
        (known.place, known.entries) = (Some(place), kept.entries);
        said
    }

    /// What the next switch is told.
    pub(super) fn remembered(&self) -> Vec<KeptLease> {
        let known = self.known();
        let passed = known.then.elapsed().as_secs();
        let mut leases = known.leases.clone();
        for lease in &mut leases {
            lease.left_secs = lease.left_secs.saturating_sub(passed);
        }
        leases
    }

    /// Tells a switch that was not told yet what it is to be.
    pub(super) fn tell(&self, client: &mut Client) -> Result<(), ClientError> {
        client.remember(self.remembered(), self.bell.as_fd())
    }

    /// Asks the switch what it has given, and keeps that. What is to be said about it.
    pub(super) fn keep(&self, switch: &switch::Shared) -> Vec<String> {
        // First, so that what was asked for last is what stays.
        let mut known = self.known();
        let asked = switch.lock().unwrap_or_else(PoisonError::into_inner).kept();
        // One that does not answer is started again, and is told what is known.
        let Ok(Some(kept)) = asked else { return Vec::new() };
        let mut said = Vec::new();
        if kept.forgotten > 0 && !std::mem::replace(&mut known.is_forgetting, true) {
            let what = "the file gives these addresses to nobody now, or to others";
            said.push(format!("{} leases of before are forgotten: {what}", kept.forgotten));
        }
        said.extend(known.take(kept.leases, SystemTime::now()));
        said
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two ends of a socket, neither of which is waited for.
fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (bell, heard) = UnixStream::pair()?;
    bell.set_nonblocking(true)?;
    heard.set_nonblocking(true)?;
    Ok((bell, heard))
}
