//! The processes of a lab: known by (pid, start time), written down, and ended, even by a later controller.

use super::rundir::LabDir;
use crate::failure::{Context, Failure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt, unix::fs::MetadataExt},
    time::Duration,
};

/// The variable that stands in the environment of every process of a lab. Its value is the lab's folder.
pub const MARK: &str = "VNET_LAB_DIR";

/// How long one wait for a process that may live for ever is; then it is waited for again.
const ONE_WAIT: Duration = Duration::from_secs(3600);

/// One process for all time: a pid alone can be another process tomorrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start_time: u64,
}

impl Identity {
    /// The process that has `pid` now; none if nobody has.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, start_time: start_time(&stat)? })
    }

    /// A descriptor of this very process; none if it is gone.
    fn open(self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let descriptor = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Checked after it was opened: from here on the descriptor means that process, whoever gets the pid next.
        (Self::of(self.pid) == Some(self)).then_some(descriptor)
    }

    /// Whether it runs. A zombie does not.
    pub fn is_alive(self) -> bool {
        self.open().is_some_and(|descriptor| !has_ended(&descriptor, Duration::ZERO))
    }

    /// Waits until it has ended, on a thread of its own: the wait has no limit.
    pub async fn ended(self) {
        let (tell, told) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            while self.is_alive() {
                if let Some(descriptor) = self.open() {
                    has_ended(&descriptor, ONE_WAIT);
                }
            }
            // Whoever waited may be gone.
            let _ = tell.send(());
        });
        // Without the thread's word it panicked, which is no end of the process.
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Ends it: asks (SIGTERM), waits up to `patience`, then kills (SIGKILL) and waits for that. A process that is gone,
    /// or another that has its pid now, is left alone.
    pub fn end(self, patience: Duration) {
        let Some(descriptor) = self.open() else { return };
        for (signal, wait) in [(Signal::TERM, patience), (Signal::KILL, Duration::from_secs(5))] {
            if pidfd_send_signal(&descriptor, signal).is_err() || has_ended(&descriptor, wait) {
                return;
            }
        }
    }
}

/// Field 22 of proc_pid_stat(5). Field 2, the name, is in brackets and may hold anything, brackets and blanks too.
fn start_time(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// Whether the process ended, or ends within `wait`: a pidfd is readable from then on (pidfd_open(2)).
fn has_ended(descriptor: &OwnedFd, wait: Duration) -> bool {
    let timeout = Timespec::try_from(wait).ok();
    let mut polled = [PollFd::new(descriptor, PollFlags::IN)];
    matches!(poll(&mut polled, timeout.as_ref()), Ok(1..))
}

/// One process, and what it is in the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// `controller`, `switch`, `stations`, or the name of a node.
    pub role: String,
    /// Which process.
    #[serde(flatten)]
    pub identity: Identity,
}

/// The list of a lab's processes, as it stands in its folder.
#[derive(Debug)]
pub struct Ledger {
    dir: LabDir,
    entries: Vec<Entry>,
}

impl Ledger {
    /// An empty list; it is written at the first change.
    pub fn new(dir: LabDir) -> Self {
        Self { dir, entries: vec![] }
    }

    /// The list in `dir`; empty if there is none.
    ///
    /// # Errors
    /// There is one that cannot be read.
    pub fn read(dir: &LabDir) -> Result<Self, Failure> {
        let path = dir.processes();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::new(dir.clone())),
            Err(error) => {
                return Err(Failure::failed("run-directory", format!("{}: {error}", path.display())));
            }
        };
        let entries =
            serde_json::from_slice(&text).context("run-directory", || path.display().to_string())?;
        Ok(Self { dir: dir.clone(), entries })
    }

    /// The processes.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Writes down that `pid` is `role`, in the place of what was that before.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn record(&mut self, role: &str, pid: u32) -> Result<(), Failure> {
        self.entries.retain(|entry| entry.role != role);
        // A process that ended already need not be written down.
        if let Some(identity) = Identity::of(pid) {
            self.entries.push(Entry { role: role.into(), identity });
        }
        self.write()
    }

    /// In one step: whoever reads sees the old list or the new one.
    fn write(&self) -> Result<(), Failure> {
        let path = self.dir.processes();
        let new = self.dir.processes_new();
        let text =
            serde_json::to_vec(&self.entries).context("run-directory", || path.display().to_string())?;
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .context("run-directory", || path.display().to_string())
    }
}

/// What [`MARK`] says in the processes of the lab in `dir`.
pub fn mark(dir: &LabDir) -> OsString {
    dir.path().canonicalize().unwrap_or_else(|_| dir.path().to_owned()).into()
}

/// Ends all processes that an earlier controller of the lab left, at once, each with `patience`: those that it wrote
/// down, and one that it was killed before it could write down, which is known by its mark. How many still ran.
///
/// Whoever calls this holds the lab's claim. A process in the making shares its controller's claim until it is executed
/// (the lock is closed by execve(2)), so none can be on its way without a mark.
///
/// A list that cannot be read is passed over: all that can be in it bear the mark.
pub fn end_left(dir: &LabDir, patience: Duration) -> usize {
    let mut left = written(dir);
    left.extend(marked(&mark(dir)));
    left.sort();
    left.dedup();
    left.retain(|identity| identity.pid != std::process::id() && identity.is_alive());
    end_all(left.iter().copied(), patience);
    left.len()
}

/// Ends several processes at once, each with `patience`.
pub fn end_all(identities: impl Iterator<Item = Identity>, patience: Duration) {
    std::thread::scope(|scope| {
        for identity in identities {
            scope.spawn(move || identity.end(patience));
        }
    });
}

/// The processes that are written down.
fn written(dir: &LabDir) -> Vec<Identity> {
    let entries = Ledger::read(dir).map(|ledger| ledger.entries).unwrap_or_default();
    entries.into_iter().map(|entry| entry.identity).collect()
}

/// The processes of this user that bear `mark`.
fn marked(mark: &OsStr) -> Vec<Identity> {
    let variable = [MARK.as_bytes(), b"=", mark.as_bytes()].concat();
    let own_user = rustix::process::getuid().as_raw();
    let bears = |pid: u32| {
        let process = format!("/proc/{pid}");
        // Taken first: if the pid changes hands before the environment is read, the identity is nobody's any more.
        let identity = Identity::of(pid)?;
        let ours = fs::metadata(&process).is_ok_and(|metadata| metadata.uid() == own_user);
        let environment = if ours { fs::read(format!("{process}/environ")).ok()? } else { return None };
        environment.split(|byte| *byte == 0).any(|entry| entry == variable).then_some(identity)
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| bears(entry.file_name().to_str()?.parse().ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::rundir::Runtime;
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A process that waits for ever: `cat` on a pipe that nobody writes to.
    fn waiting() -> Child {
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let fields = (3..=21).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(start_time(&format!("1 (a) b) c) {fields} 4711 23")), Some(4711));
        assert_eq!(start_time("1 (cut) S 1"), None);
    }

    #[test]
    fn a_process_with_another_start_time_is_somebody_else() {
        let mut child = waiting();
        let right = Identity::of(child.id()).unwrap();
        let wrong = Identity { start_time: right.start_time + 1, ..right };
        wrong.end(Duration::ZERO);
        assert!(right.is_alive() && !wrong.is_alive());
        right.end(Duration::from_secs(5));
        assert!(!right.is_alive());
        child.wait().unwrap();
    }

    #[test]
    fn a_later_controller_ends_what_a_killed_one_left_written_down_or_not() {
        let base = tempfile::tempdir().unwrap();
        let runtime = Runtime::at(&base.path().join("vnet"));
        let claim = runtime.claim(&"office".parse().unwrap()).unwrap();
        let born = |lab: &str| {
            let mut command = Command::new("cat");
            command
                .env(MARK, mark(&runtime.lab(&lab.parse().unwrap())))
                .stdin(Stdio::piped())
                .stdout(Stdio::null());
            command.spawn().unwrap()
        };
        let (mut written, mut unwritten) = (waiting(), born("office"));
        let (mut another_labs, mut nobodys) = (born("home"), waiting());
        let mut ledger = Ledger::new(claim.dir().clone());
        ledger.record("switch", written.id()).unwrap();
        ledger.record("controller", std::process::id()).unwrap();
        assert_eq!(Ledger::read(claim.dir()).unwrap().entries().len(), 2);
        assert_eq!(end_left(claim.dir(), Duration::from_secs(5)), 2);
        for child in [&mut written, &mut unwritten] {
            assert!(!child.wait().unwrap().success());
        }
        for child in [&mut another_labs, &mut nobodys] {
            assert!(child.try_wait().unwrap().is_none(), "a process that is not this lab's was ended");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
