//! Confinement: what the process cannot do any more once its guest runs, whoever got hold of it.
//!
//! It opens no file (Landlock), gains no right (no_new_privs), leaves no core with the guest's memory in it, and each of
//! its threads makes the system calls that [`rules`] lists for it, and no other: one that is not listed ends the
//! process by SIGSYS, and is named on standard error.

mod rules;
#[cfg(test)]
mod tests;

pub(crate) use rules::Role;

use crate::{config::Config, console::ConsoleTarget, event};
use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, PathBeneath, PathFd, PathFdError, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::{
    cell::Cell,
    io::{self, Cursor, Write},
    panic,
    path::Path,
    sync::mpsc::sync_channel,
    thread::{self, JoinHandle},
};
use vmm_sys_util::signal::{block_signal, register_signal_handler};

/// Why a process that was to be confined is not.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The kernel has no seccomp for us.
    #[error("seccomp: {0}; `--no-confinement` runs the guest without")]
    Seccomp(#[from] seccompiler::Error),
    /// A list of system calls is no filter.
    #[error("seccomp: {0}")]
    Filter(#[from] seccompiler::BackendError),
    /// The kernel has Landlock, and refuses what we ask of it.
    #[error("Landlock: {0}; `--no-confinement` runs the guest without")]
    Landlock(#[from] RulesetError),
    /// A folder in which a socket of ours was made is not there.
    #[error("Landlock: {0}")]
    Folder(#[from] PathFdError),
    /// A thread, a signal, a limit.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// What Landlock is asked for: all of it as of Linux 6.12. (That of Linux 7.1 would be about connecting to sockets.)
const LANDLOCK: ABI = ABI::V6;

/// The confinement of this process, or that there is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Confinement {
    wanted: bool,
}

impl Confinement {
    /// For tests of one thread: it keeps all that it could do.
    #[cfg(test)]
    pub(crate) const fn none() -> Self {
        Self { wanted: false }
    }

    /// Confines the calling thread, and those that it will start, in what needs no list of system calls. Nothing can be
    /// opened from here on.
    pub(crate) fn begin(config: &Config) -> Result<Self, ConfineError> {
        if config.confined {
            register_signal_handler(libc::SIGSYS, event::refused).map_err(io::Error::from)?;
            let none = Rlimit { current: Some(0), maximum: Some(0) };
            setrlimit(Resource::Core, none).map_err(io::Error::from)?;
            let status = landlock(config)?;
            if let Some(lack) = lack(&status.ruleset, &status.landlock) {
                eprintln!("vmm-lite: {lack}");
            }
            // The trace that the standard hook adds, if it is asked for, reads files. What cannot be written is not said: a panic here would end the process.
            panic::set_hook(Box::new(|panic| drop(writeln!(io::stderr(), "{panic}"))));
        }
        Ok(Self { wanted: config.confined })
    }

    /// Starts a thread of this kind. When it is returned it is confined. Signals that end the machine do not come to it.
    pub(crate) fn spawn(
        self,
        role: Role,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, ConfineError> {
        let (sender, entered) = sync_channel(1);
        let thread = thread::Builder::new().name(name).spawn(move || {
            let entering = ENDING
                .into_iter()
                .try_for_each(|signal| block_signal(signal).map_err(|why| io::Error::other(why.to_string())));
            let entering = entering.map_err(Into::into).and_then(|()| self.enter(role));
            let entered = entering.is_ok();
            // Who has started us waits for it.
            let _ = sender.send(entering);
            if entered {
                body();
            }
        })?;
        let entered = entered.recv().unwrap_or_else(|_| Err(io::Error::other("a thread panicked").into()));
        entered.map(|()| thread)
    }

    /// From here on the calling thread makes the system calls of its kind only.
    pub(crate) fn enter(self, role: Role) -> Result<(), ConfineError> {
        if self.wanted {
            let filters = role.filters()?;
            ROLE.set(Some(role));
            filters.iter().try_for_each(|filter| seccompiler::apply_filter(filter))?;
        }
        Ok(())
    }
}

/// The signals that end a machine in order: they are for the main thread.
pub(crate) const ENDING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// No file is opened, no socket but Unix ones by name, no process outside signalled. Names of sockets go with the machine.
fn landlock(config: &Config) -> Result<RestrictionStatus, ConfineError> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    let names = folders(config)
        .map(|folder| Ok::<_, ConfineError>(PathBeneath::new(PathFd::new(folder)?, AccessFs::RemoveFile)));
    Ok(ruleset.add_rules(names)?.restrict_self()?)
}

/// The folders of the sockets that have names of ours.
fn folders(config: &Config) -> impl Iterator<Item = &Path> {
    fn of(target: &ConsoleTarget) -> Option<&Path> {
        match target {
            ConsoleTarget::Socket { path, .. } => Some(path),
            _ => None,
        }
    }
    let sockets = [of(&config.console), of(&config.probe), config.control.as_deref()];
    sockets.into_iter().flatten().map(|socket| match socket.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    })
}

/// What of Landlock this kernel does not have, in words.
fn lack(ruleset: &RulesetStatus, landlock: &LandlockStatus) -> Option<String> {
    let why = match (ruleset, landlock) {
        (RulesetStatus::FullyEnforced, _) => return None,
        (_, LandlockStatus::NotImplemented) => "this kernel has no Landlock".to_owned(),
        (_, LandlockStatus::NotEnabled) => {
            "Landlock is off in this kernel (`lsm=` on its command line)".to_owned()
        }
        (_, LandlockStatus::Available { effective_abi, .. }) => {
            let (has, full) = (*effective_abi as i32, LANDLOCK as i32);
            format!(
                "this kernel's Landlock knows but a part of what is given up (version {has}; {full} has all)"
            )
        }
    };
    Some(format!("{why}; system calls are confined all the same"))
}

thread_local! {
    /// What the calling thread was confined to.
    static ROLE: Cell<Option<Role>> = const { Cell::new(None) };
}

/// Says that the calling thread was refused this system call, and ends the process by SIGSYS. Called by the handler of
/// that signal: it allocates nothing, and makes no system call that a filter could refuse, but for the last.
pub(crate) fn refused(call: libc::c_int) -> ! {
    let mut line = Cursor::new([0; 256]);
    let role = ROLE.get().map_or("", Role::name);
    // What does not fit is cut.
    let _ = writeln!(
        line,
        "vmm-lite: a thread ({role}) made system call {call}, which is not on its list: a bug of the VMM, or somebody \
         broke into it. The machine ends."
    );
    let length = line.position() as usize;
    let _ = rustix::io::write(rustix::stdio::stderr(), &line.get_ref()[..length]);
    // Nobody may make this one. That it is refused while the last refusal is handled is what the kernel ends us for.
    let _ = rustix::process::getppid();
    std::process::abort();
}
