//! `console`: this terminal on the serial line of a guest.

use super::{labs::chosen, out};
use crate::{
    failure::{Context, Failure},
    lab::{name::LabName, rundir::Runtime, sockets},
    vm::qemu::RunDirectory,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    termios::{OptionalActions, Termios, tcgetattr, tcsetattr},
};
use std::{
    io::{self, IsTerminal, Read, Write},
    os::fd::AsFd,
};

/// Ctrl-].
const LEAVE: u8 = 0x1d;

/// Puts the terminal back as it was.
struct Restore(Termios);

impl Drop for Restore {
    fn drop(&mut self) {
        // A terminal that is gone needs no mending.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Joins the console of `node` until Ctrl-], the end of the input or of the guest.
pub(super) fn console(name: Option<&LabName>, node: &str) -> Result<(), Failure> {
    let runtime = Runtime::of_environment();
    let lab = chosen(&runtime, name)?;
    let path = RunDirectory::new(runtime.lab(&lab).path().join(node.replace('/', "-"))).console();
    let mut guest = sockets::connect(&path).map_err(|why| {
        let why = match why.kind() {
            io::ErrorKind::NotFound => String::new(),
            io::ErrorKind::ConnectionRefused => ": its machine has ended".into(),
            _ => format!(": {why}"),
        };
        Failure::invalid("no-console", format!("node {node} of lab {lab} has no console{why}"))
            .mend("only virtual machines that vnet started have one, for one visitor at a time")
    })?;
    let _restore = if io::stdin().is_terminal() {
        out::note(format_args!("console of {node}: Ctrl-] leaves"));
        let before = tcgetattr(io::stdin()).context("terminal", || "its settings".into())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).context("terminal", || "raw mode".into())?;
        Some(Restore(before))
    } else {
        None
    };
    let mut bytes = [0; 4096];
    loop {
        let (stdin, line) = (io::stdin(), guest.try_clone().context("console", || node.to_owned())?);
        let mut polled =
            [PollFd::new(&stdin, PollFlags::IN), PollFd::from_borrowed_fd(line.as_fd(), PollFlags::IN)];
        poll(&mut polled, None).context("console", || node.to_owned())?;
        let [from_user, from_guest] = [polled[0].revents(), polled[1].revents()];
        if !from_guest.is_empty() {
            let read = guest.read(&mut bytes).context("console", || node.to_owned())?;
            if read == 0 {
                return Ok(());
            }
            let shown = io::stdout().write_all(&bytes[..read]).and_then(|()| io::stdout().flush());
            if shown.is_err() {
                out::remember(shown);
                return Ok(());
            }
        }
        if !from_user.is_empty() {
            let read = io::stdin().read(&mut bytes).context("console", || "the input".into())?;
            let typed = &bytes[..read];
            if read == 0 || typed.contains(&LEAVE) {
                return Ok(());
            }
            guest.write_all(typed).context("console", || node.to_owned())?;
        }
    }
}
