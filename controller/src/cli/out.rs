//! What a verb writes: one way to standard output, one to standard error. Neither can stop a verb in the middle.
//!
//! A reader that has gone (`vnet show ports | head -1`) wants no more: that is no failure. Any other error is kept until
//! the verb has done its work, and then ends it with 1.

use crate::failure::Exit;
use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
    sync::OnceLock,
};

/// The first error of standard output.
static FAILED: OnceLock<ErrorKind> = OnceLock::new();

/// Writes a line to standard output.
pub(super) fn say(line: impl Display) {
    remember(writeln!(Stdout, "{line}").and_then(|()| Stdout.flush()));
}

/// Writes a line to standard error; where nobody can read it, there is nobody to tell either.
pub(super) fn note(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes bytes to standard output as they are.
pub(super) fn bytes(bytes: &[u8]) {
    remember(Stdout.write_all(bytes).and_then(|()| Stdout.flush()));
}

/// Keeps what came of a write to standard output for the end.
pub(super) fn remember(written: io::Result<()>) {
    if let Err(error) = written {
        // Later ones follow from the first.
        let _ = FAILED.set(error.kind());
    }
}

/// Whether standard output takes nothing any more.
pub(super) fn is_lost() -> bool {
    FAILED.get().is_some()
}

/// Standard output, for those who write to a [`Write`]; it takes everything once it has failed.
pub(super) struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if FAILED.get().is_none() {
            remember(io::stdout().write_all(bytes));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if FAILED.get().is_none() {
            remember(io::stdout().flush());
        }
        Ok(())
    }
}

/// The exit code of the process: what the verb has earned, unless its output was lost.
pub(super) fn end(earned: u8) -> u8 {
    match FAILED.get() {
        None | Some(ErrorKind::BrokenPipe) => earned,
        Some(kind) => {
            note(format_args!("error[output]: standard output cannot be written: {kind}"));
            Exit::Failed as u8
        }
    }
}
