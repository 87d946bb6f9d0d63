//! One machine from its arguments to its end: what the thin binary and `vnet vmm` both do.

use crate::{Args, ArgsError, Ended, Machine, StartError, confine::ENDING};
use signal_hook::iterator::Signals;
use std::io;

/// Why there was no machine.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It was not asked for in a way that is possible.
    #[error(transparent)]
    Args(#[from] ArgsError),
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Nobody could have stopped it.
    #[error("signals: {0}")]
    Signals(io::Error),
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The user's, who asked for what is not possible.
    Usage,
    /// The computer's, which lacks something.
    Lacking,
    /// Something failed.
    Failed,
}

impl RunError {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Args(_) => ErrorKind::Usage,
            Self::Start(why) if why.is_lack() => ErrorKind::Lacking,
            Self::Start(_) | Self::Signals(_) => ErrorKind::Failed,
        }
    }
}

/// Runs the machine that `args` ask for, until it ends or SIGINT, SIGTERM or SIGHUP ends it. Unless they ask for it to be
/// left out, this confines the calling thread, and the process is good for little else afterwards.
pub fn run(args: Args) -> Result<Ended, RunError> {
    // Before the machine takes its time: a signal that comes meanwhile ends it as soon as it runs.
    let signals = Signals::new(ENDING).map_err(RunError::Signals)?;
    Ok(Machine::new(&args.config()?)?.run(signals)?)
}
