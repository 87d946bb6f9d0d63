//! Child processes of a lab: this executable again in another role, or QEMU; each in a process group of its own, so that
//! a Ctrl-C at the terminal is the controller's business alone.

use super::{
    processes::{MARK, mark},
    rundir::LabDir,
};
use crate::failure::{Context, Failure};
use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};
use tokio::process::Child;

/// A process that lived for as long was a good one: if it dies, pauses start anew.
const LONG_LIFE: Duration = Duration::from_secs(1);

/// How many lines of a log are its last words, and how many bytes of it are read for them.
const LAST_LINES: usize = 6;
const LAST_BYTES: u64 = 4096;

/// How long to wait before a process that died is started again, by the times in a row that it did not live for long.
const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// This executable in role `role`, with `input` as its standard input.
///
/// # Errors
/// It cannot be started.
pub fn spawn_role(role: &str, input: OwnedFd, dir: &LabDir) -> Result<Child, Failure> {
    let mut command = Command::new("/proc/self/exe");
    // Its sockets' names relative to the lab's folder are short, however long the folder's path is.
    command.arg(role).stdin(Stdio::from(input)).current_dir(dir.path());
    spawn(command, role, dir)
}

/// `command`, writing to the log of `of`, with the mark of the lab's processes. The caller writes it down before it waits
/// for anything; if the caller is killed before that, the mark is how the process is found.
///
/// # Errors
/// It cannot be started.
pub fn spawn(command: Command, of: &str, dir: &LabDir) -> Result<Child, Failure> {
    let log = log(dir, of)?;
    spawn_into(command, log.into(), of, dir)
}

/// The same, with its standard output somewhere else than in the log.
///
/// # Errors
/// It cannot be started.
pub fn spawn_into(mut command: Command, output: OwnedFd, of: &str, dir: &LabDir) -> Result<Child, Failure> {
    use std::os::unix::process::CommandExt;
    let errors = log(dir, of)?;
    command.stdout(output).stderr(errors).process_group(0).env(MARK, mark(dir));
    let program = command.get_program().display().to_string();
    tokio::process::Command::from(command)
        .spawn()
        .context("spawn", || format!("{program} cannot be started for {of}"))
}

/// A new process, with what was `done` with it. If that failed it is ended first: nobody else may know of it, and whoever
/// tries again would leave one more behind.
///
/// # Errors
/// What was done failed.
pub async fn kept<T>(mut child: Child, done: Result<T, Failure>) -> Result<(Child, T), Failure> {
    match done {
        Ok(done) => Ok((child, done)),
        Err(failure) => {
            // It may have ended by itself.
            let _ = child.kill().await;
            Err(failure)
        }
    }
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

/// The last lines of a log from byte `from` on, indented, to stand below an error; none if nothing was said.
pub fn last_words(log: &Path, from: u64) -> Option<String> {
    let lines = last_lines(log, from);
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    (!last.is_empty()).then(|| last.iter().map(|line| format!("\n  | {line}")).collect())
}

/// The last line of a log that says anything, from byte `from` on.
pub fn last_line(log: &Path, from: u64) -> Option<String> {
    last_lines(log, from).pop()
}

/// The lines at the end of a log, without what would move a terminal's cursor.
fn last_lines(log: &Path, from: u64) -> Vec<String> {
    let text = last_bytes(log, from).unwrap_or_default();
    let plain = String::from_utf8_lossy(&text).replace(|c: char| c.is_control() && c != '\n', "");
    plain.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
}

fn last_bytes(log: &Path, from: u64) -> Option<Vec<u8>> {
    let mut file = File::open(log).ok()?;
    let end = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(from.max(end.saturating_sub(LAST_BYTES)))).ok()?;
    let mut said = Vec::new();
    file.take(LAST_BYTES).read_to_end(&mut said).ok()?;
    Some(said)
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

/// Lives of one role's processes that ended soon after they had begun, in a row.
#[derive(Debug, Default)]
pub(super) struct ShortLives(usize);

impl ShortLives {
    /// How long to wait before the next one is started, after one that lived for `life`.
    pub(super) fn pause_after(&mut self, life: Duration) -> Duration {
        if life >= LONG_LIFE {
            self.0 = 0;
        }
        let pause = PAUSES[self.0.min(PAUSES.len() - 1)];
        self.0 += 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::super::{processes::Identity, rundir::Runtime};
    use super::*;

    #[tokio::test]
    async fn a_new_process_with_which_something_failed_is_gone_when_that_is_told() {
        let base = tempfile::tempdir().unwrap();
        let claim = Runtime::at(&base.path().join("vnet")).claim(&"office".parse().unwrap()).unwrap();
        let waiting = || {
            let mut command = Command::new("cat");
            command.stdin(Stdio::piped());
            let child = spawn(command, "cat", claim.dir()).unwrap();
            let identity = Identity::of(child.id().unwrap()).unwrap();
            (child, identity)
        };
        let (child, identity) = waiting();
        let (mut child, done) = kept(child, Ok(7)).await.unwrap();
        assert!(identity.is_alive() && done == 7);
        child.kill().await.unwrap();

        let (child, identity) = waiting();
        let why = kept(child, Err::<(), _>(Failure::failed("run-directory", "no space"))).await.unwrap_err();
        assert_eq!((why.message.as_str(), Identity::of(identity.pid)), ("no space", None));
    }

    #[test]
    fn a_process_that_dies_at_once_is_started_ever_slower_and_one_that_lived_at_once() {
        let mut lives = ShortLives::default();
        let short = LONG_LIFE - Duration::from_millis(1);
        assert_eq!(
            [short; 6].map(|life| lives.pause_after(life).as_millis()),
            [0, 50, 200, 1000, 5000, 5000]
        );
        assert_eq!([LONG_LIFE, LONG_LIFE, short].map(|life| lives.pause_after(life).as_millis()), [0, 0, 50]);
    }
}
