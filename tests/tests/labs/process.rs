//! Processes of a lab from outside: a `vnet` that stays, and those that are signalled, killed and looked into.

use crate::common::Lab;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::fd::{AsFd, OwnedFd},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How long anything that must happen may take before it counts as not happening. A guest boots within it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Asks until there is an answer, or fails the test with what `said` was wanted.
pub(crate) fn eventually<T>(wanted: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "this does not happen: {wanted}");
        std::thread::yield_now();
    }
}

/// Waits until there is something to read on `file`, which a pidfd says when its process has ended.
fn readable(file: impl AsFd, wanted: &str) {
    let timeout = Timespec::try_from(DEADLINE).expect("minutes fit");
    let ready = poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&timeout)).expect("poll");
    assert_eq!(ready, 1, "this does not happen: {wanted}");
}

fn open(pid: Pid) -> OwnedFd {
    pidfd_open(pid, PidfdFlags::empty()).expect("it runs, or is ours to wait for")
}

/// Kills a process with SIGKILL, and waits until it is gone.
pub(crate) fn kill(pid: u32) {
    let process = open(Pid::from_raw(pid.try_into().expect("a pid")).expect("a pid"));
    pidfd_send_signal(&process, Signal::KILL).expect("it runs");
    readable(&process, "a killed process ends");
}

/// A `vnet` that runs beside the test; what it says is read as it comes. Killed if it is dropped.
pub(crate) struct Background {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Background {
    /// Starts `vnet` in the runtime folder of `lab`.
    pub(crate) fn start(lab: &Lab, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vnet"))
            .args(arguments)
            .env("VNET_RUNTIME_DIR", lab.runtime())
            .env("VNET_STATE_DIR", lab.state())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("vnet starts");
        let said = BufReader::new(child.stderr.take().expect("it is piped"));
        Self { child, said }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line on its standard error; none when it ended.
    pub(crate) fn event(&mut self) -> Option<String> {
        if self.said.buffer().is_empty() {
            readable(self.said.get_ref(), "vnet says something, or ends");
        }
        let mut line = String::new();
        let bytes = self.said.read_line(&mut line).expect("vnet writes UTF-8");
        (bytes > 0).then_some(line)
    }

    /// Waits until it says `part` on its standard error.
    pub(crate) fn says(&mut self, part: &str) {
        let mut lines = std::iter::from_fn(|| self.event());
        assert!(lines.any(|line| line.contains(part)), "vnet ended and did not say {part:?}");
    }

    /// Waits until it says `part` on its standard output.
    pub(crate) fn prints(&mut self, part: &str) {
        let output = self.child.stdout.as_mut().expect("it is piped");
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(part) {
            readable(&*output, part);
            let mut byte = [0];
            assert_eq!(output.read(&mut byte).expect("a pipe"), 1, "vnet ended and did not print {part:?}");
            text.extend(byte);
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for its end: its status, and what else it said on standard output and standard error.
    pub(crate) fn end(mut self) -> (ExitStatus, String, String) {
        readable(open(Pid::from_child(&self.child)), "vnet ends");
        let (mut out, mut err) = (String::new(), String::new());
        self.child.stdout.take().expect("it is piped").read_to_string(&mut out).expect("UTF-8");
        self.said.read_to_string(&mut err).expect("UTF-8");
        (self.child.wait().expect("it is ours"), out, err)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It fails only if it ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processes of `lab` that run as `role`, a word of their command line.
pub(crate) fn in_role(lab: &Lab, role: &str) -> Vec<u32> {
    let pids = lab.processes().into_iter().filter_map(|pid| pid.parse::<u32>().ok());
    pids.filter(|pid| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == role.as_bytes())
    })
    .collect()
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holdings {
    /// File descriptors.
    pub(crate) descriptors: usize,
    /// Threads.
    pub(crate) threads: usize,
    /// Mappings of guest memory: those of a file in memory.
    pub(crate) guest_mappings: usize,
}

impl Holdings {
    /// What process `pid` holds now.
    pub(crate) fn of(pid: u32) -> Self {
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).expect("it runs").count();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
        Self {
            descriptors: count("fd"),
            threads: count("task"),
            guest_mappings: maps.lines().filter(|line| line.contains("memfd:")).count(),
        }
    }
}
