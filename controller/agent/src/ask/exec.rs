//! `Exec`: a program, fed and read by one loop that ends when it ends or its time is up.

use crate::{deadline::Deadline, origin::system};
use probe::{
    Answer,
    answer::{End, Executed, MAX_OUTPUT, Refusal},
    ask::Exec,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, ioctl_fionbio},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};
use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
};

/// Runs it in a process group of its own, so that what it starts ends with it when its time is up.
pub(crate) fn exec(ask: &Exec) -> Result<Answer, Refusal> {
    let (program, arguments) = ask.argv.split_first().ok_or(Refusal::OutOfBounds)?;
    let deadline = Deadline::after(ask.timeout);
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return not_run(program, error).map(Answer::Exec),
    };
    let executed = follow(&mut child, &ask.stdin, deadline);
    if executed.is_err() {
        // It is ours to end, whatever went wrong in watching it; it may have ended by itself.
        kill_group(&child).ok();
        child.wait().ok();
    }
    executed.map(Answer::Exec).map_err(|error| system(&format!("watch {program}"), error))
}

/// A program that is not there, or is none, ends as a shell says it (POSIX.1-2017 XCU 2.8.2).
fn not_run(program: &str, error: io::Error) -> Result<Executed, Refusal> {
    let (status, why) = match error.kind() {
        io::ErrorKind::NotFound => (127, "not found"),
        io::ErrorKind::PermissionDenied => (126, "not executable"),
        _ => return Err(system(&format!("run {program}"), error)),
    };
    let stderr = format!("{program}: {why}\n").into_bytes();
    Ok(Executed { end: End::Exited(status), stdout: Vec::new(), stderr, cut: 0 })
}

/// Feeds and reads it until it ends; kills it when its time is up.
fn follow(child: &mut Child, stdin: &[u8], deadline: Deadline) -> io::Result<Executed> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut feed = Feed::new(child.stdin.take(), stdin)?;
    let mut stdout = Output::new(child.stdout.take())?;
    let mut stderr = Output::new(child.stderr.take())?;
    let timed_out = loop {
        let Some(left) = deadline.left() else { break true };
        let mut ready = vec![PollFd::new(&pidfd, PollFlags::IN)];
        ready.extend(stdout.pipe.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        ready.extend(stderr.pipe.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        ready.extend(feed.pipe.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
        poll(&mut ready, Some(&left))?;
        let ended = ready.first().is_some_and(|process| !process.revents().is_empty());
        feed.write()?;
        // What it wrote before its end is in the pipes; what its own children write later is not waited for.
        stdout.read()?;
        stderr.read()?;
        if ended {
            break false;
        }
    };
    if timed_out {
        kill_group(child)?;
    }
    let status = child.wait()?;
    Ok(Executed {
        end: if timed_out { End::TimedOut } else { end(status) },
        cut: stdout.cut + stderr.cut,
        stdout: stdout.kept,
        stderr: stderr.kept,
    })
}

fn kill_group(child: &Child) -> io::Result<()> {
    match kill_process_group(Pid::from_child(child), Signal::KILL) {
        Err(Errno::SRCH) | Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn end(status: ExitStatus) -> End {
    match status.code() {
        Some(code) => End::Exited(code),
        None => End::Killed(status.signal().unwrap_or(0)),
    }
}

/// What is still to be written to the program.
struct Feed<'a> {
    pipe: Option<ChildStdin>,
    left: &'a [u8],
}

impl<'a> Feed<'a> {
    fn new(pipe: Option<ChildStdin>, bytes: &'a [u8]) -> io::Result<Self> {
        // Closed at once if there is nothing to write.
        let pipe = pipe.filter(|_| !bytes.is_empty());
        if let Some(pipe) = &pipe {
            ioctl_fionbio(pipe, true)?;
        }
        Ok(Self { pipe, left: bytes })
    }

    /// Writes what the pipe takes now, and closes it behind the last byte or when the program no longer reads.
    fn write(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        match pipe.write(self.left) {
            Ok(len) => self.left = self.left.get(len..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.left = &[],
            Err(error) => return Err(error),
        }
        if self.left.is_empty() {
            self.pipe = None;
        }
        Ok(())
    }
}

/// What the program wrote to one of its outputs.
struct Output {
    pipe: Option<std::fs::File>,
    kept: Vec<u8>,
    cut: u64,
}

impl Output {
    fn new(pipe: Option<impl Into<OwnedFd>>) -> io::Result<Self> {
        let pipe = pipe.map(|pipe| std::fs::File::from(pipe.into()));
        if let Some(pipe) = &pipe {
            ioctl_fionbio(pipe.as_fd(), true)?;
        }
        Ok(Self { pipe, kept: Vec::new(), cut: 0 })
    }

    /// Reads once around the pipe's capacity, so that a program that writes without end does not hold the loop.
    fn read(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        let mut buffer = [0; 8192];
        for _ in 0..16 {
            match pipe.read(&mut buffer) {
                Ok(0) => {
                    self.pipe = None;
                    return Ok(());
                }
                Ok(len) => {
                    let keep = len.min(MAX_OUTPUT - self.kept.len());
                    self.kept.extend_from_slice(buffer.get(..keep).unwrap_or_default());
                    self.cut += (len - keep) as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
