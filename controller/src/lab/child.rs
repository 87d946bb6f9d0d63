//! Child processes of a lab: this executable again in another role, or QEMU; each in a process group of its own, so that
//! a Ctrl-C at the terminal is the controller's business alone.

use super::{
    processes::{MARK, mark},
    rundir::LabDir,
};
use crate::failure::{Context, Failure};
use std::{
    fs::{self, File, OpenOptions},
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::{Command, ExitStatus, Stdio},
};
use tokio::process::Child;

/// This executable in role `role`, with `input` as its standard input.
///
/// # Errors
/// It cannot be started.
pub fn spawn_role(role: &str, input: OwnedFd, dir: &LabDir) -> Result<Child, Failure> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(role).stdin(Stdio::from(input));
    spawn(command, role, dir)
}

/// `command`, writing to the log of `of`, with the mark of the lab's processes. The caller writes it down before it waits
/// for anything; if the caller is killed before that, the mark is how the process is found.
///
/// # Errors
/// It cannot be started.
pub fn spawn(mut command: Command, of: &str, dir: &LabDir) -> Result<Child, Failure> {
    use std::os::unix::process::CommandExt;
    let log = log(dir, of)?;
    let errors = log.try_clone().context("log", || of.to_owned())?;
    command.stdout(log).stderr(errors).process_group(0).env(MARK, mark(dir));
    let program = command.get_program().display().to_string();
    tokio::process::Command::from(command)
        .spawn()
        .context("spawn", || format!("{program} cannot be started for {of}"))
}

/// The log of `of`, to append to.
///
/// # Errors
/// It cannot be opened.
pub fn log(dir: &LabDir, of: &str) -> Result<File, Failure> {
    let path = dir.log(of);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).context("log", || folder.display().to_string())?;
    }
    OpenOptions::new().create(true).append(true).open(&path).context("log", || path.display().to_string())
}

/// How a process ended, in words.
pub fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended by itself".into(),
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
