//! Tests that need a process: one of their own, so that what is counted of it is theirs, or further ones to be killed.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::lab::DEADLINE;

/// Set in a test's own process.
const ALONE: &str = "VNET_TEST_ALONE";
/// Set in a guest's process: the socket of its port.
const GUEST: &str = "VNET_TEST_GUEST";

/// Runs `body` in a process that runs nothing else: this test (named `name`) executes itself once more.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    if env::var_os(ALONE).is_some() {
        return body();
    }
    let status = this_test(name).env(ALONE, "1").status().unwrap();
    assert!(status.success(), "{name}, in a process of its own: {status}");
}

/// If this process is to be a guest, the socket at which it connects.
pub(crate) fn guest_socket() -> Option<PathBuf> {
    env::var_os(GUEST).map(PathBuf::from)
}

fn this_test(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command
}

/// A guest in a process of its own; killed when dropped.
pub(crate) struct Guest(Child);

impl Guest {
    /// Starts one: the test named `name`, which finds `socket` by [`guest_socket`].
    pub(crate) fn start(name: &str, socket: &Path) -> Self {
        let mut command = this_test(name);
        command.env(GUEST, socket).stdin(Stdio::piped()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Writes a line to its standard input.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Whether it still runs.
    pub(crate) fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It fails only if the guest is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What this process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holdings {
    /// File descriptors.
    descriptors: usize,
    /// Threads.
    threads: usize,
    /// Mappings of guest memory: those that are of a file in memory.
    guest_mappings: usize,
}

impl Holdings {
    fn now() -> Self {
        let count = |path: &str| std::fs::read_dir(path).unwrap().count();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        Self {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            guest_mappings: maps.lines().filter(|line| line.contains("memfd:")).count(),
        }
    }

    /// What this process holds once two looks in a row agree.
    pub(crate) fn settled() -> Self {
        let end = Instant::now() + DEADLINE;
        let mut before = Self::now();
        loop {
            std::thread::yield_now();
            let now = Self::now();
            if now == before {
                return now;
            }
            assert!(Instant::now() < end, "it does not settle: {before:?}, {now:?}");
            before = now;
        }
    }

    /// Waits, for as long as `patience`, until this process holds exactly as much as `self` again.
    pub(crate) fn regained(&self, patience: Duration) {
        let end = Instant::now() + patience;
        while Self::now() != *self {
            assert!(Instant::now() < end, "{self:?} before, now {:?}", Self::now());
            std::thread::yield_now();
        }
    }
}

/// A number of `/proc/self/status`: memory in KiB, or a count.
pub(crate) fn status(path: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{path} has no {field}"))
}

/// Bytes that this process has on its heap: what is left behind shows there to the byte. Resident memory also has what the allocator
/// keeps between them, and rises and falls with the threads' luck.
pub(crate) fn heap() -> usize {
    let stats = crate::HEAP.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}
