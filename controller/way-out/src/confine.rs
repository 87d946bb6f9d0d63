//! What the process gives up before it serves: rights of root's, and files.

use crate::reach::RESOLV_CONF;
use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::{
    io::Errno,
    process::{Gid, Resource, Rlimit, Uid, geteuid, setrlimit},
    thread::{
        CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs, set_thread_groups,
        set_thread_res_gid, set_thread_res_uid,
    },
};
use std::{fs, io, path::Path};

/// Why a process that was to be confined is not.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The kernel has Landlock, and refuses what we ask of it.
    #[error("Landlock: {0}")]
    Landlock(#[from] RulesetError),
    /// Rights cannot be given up.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Who owns nothing, by Linux' convention.
const NOBODY: u32 = 65_534;

/// What Landlock is asked for: all of it as of Linux 6.12.
const LANDLOCK: ABI = ABI::V6;

/// Confines the calling thread, which is to be the only one: it has no rights of root's and gains none, opens no file but those beside
/// the one that says whom to ask for names, which may become another one, and leaves no core.
///
/// # Errors
/// It cannot be; with less than that nobody should go on.
pub fn confine() -> Result<(), ConfineError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(io::Error::from)?;
    let folders = name_folders();
    if geteuid().is_root() {
        become_nobody().map_err(io::Error::from)?;
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(io::Error::from)?;
    set_no_new_privs(true).map_err(io::Error::from)?;
    let files = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    let read = |folder: PathFd| Ok::<_, RulesetError>(PathBeneath::new(folder, AccessFs::ReadFile));
    files.add_rules(folders.into_iter().map(read))?.restrict_self()?;
    Ok(())
}

/// Where the file with name servers is, by its name and in truth.
fn name_folders() -> Vec<PathFd> {
    let own = Path::new(RESOLV_CONF);
    let paths = [Some(own.to_owned()), fs::canonicalize(own).ok()];
    let folders = paths.iter().flatten().filter_map(|path| path.parent());
    // One that is not there has nothing to read.
    folders.filter_map(|folder| PathFd::new(folder).ok()).collect()
}

/// Root becomes nobody, where there is such a user (user_namespaces(7)), and root may become one.
fn become_nobody() -> Result<(), Errno> {
    let (group, user) = (Gid::from_raw(NOBODY), Uid::from_raw(NOBODY));
    let done = set_thread_groups(&[])
        .and_then(|()| set_thread_res_gid(group, group, group))
        .and_then(|()| set_thread_res_uid(user, user, user));
    match done {
        Err(Errno::INVAL | Errno::PERM) => Ok(()),
        done => done,
    }
}
