//! What a verb can fail with: an exit code, a stable code, a sentence, and what to do about it.

mod codes;

pub use codes::{CODES, explain};

use serde::{Deserialize, Serialize};
use std::{fmt, io, path::Path, process::ExitCode};

/// How `vnet` ends: a contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed, and rolled back.
    Failed = 1,
    /// Wrong usage, or an invalid file.
    Invalid = 2,
    /// Nothing runs there.
    NothingRunning = 3,
    /// Somebody else is at it, or it cannot be done while the lab runs.
    Busy = 4,
    /// This machine lacks something, which is named.
    Lacking = 5,
    /// An expectation does not hold.
    ExpectationFailed = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// A stable name, for scripts and `vnet explain`.
    pub code: String,
    /// What went wrong, in a sentence; it may have several lines.
    pub message: String,
    /// What to do about it.
    pub mend: Option<String>,
}

impl Failure {
    /// A failure without a mend.
    pub fn new(exit: Exit, code: &str, message: impl fmt::Display) -> Self {
        Self { exit, code: code.into(), message: message.to_string(), mend: None }
    }

    /// It failed, and what was begun is rolled back.
    pub fn failed(code: &str, message: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, code, message)
    }

    /// The request or the file is wrong.
    pub fn invalid(code: &str, message: impl fmt::Display) -> Self {
        Self::new(Exit::Invalid, code, message)
    }

    /// This machine lacks something.
    pub fn lacking(code: &str, message: impl fmt::Display) -> Self {
        Self::new(Exit::Lacking, code, message)
    }

    /// Something could not be made at `path`, because of `why`; if its folder lacks, that is named.
    pub fn not_made(code: &str, what: impl fmt::Display, path: &Path, why: &io::Error) -> Self {
        let folder = path.parent().filter(|folder| why.kind() == io::ErrorKind::NotFound && !folder.exists());
        match folder.map(Path::display) {
            Some(folder) => Self::failed(code, format!("{what}: there is no folder {folder}"))
                .mend(format!("make it: mkdir -p {folder}")),
            None => Self::failed(code, format!("{what}: {why}")),
        }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn mend(mut self, mend: impl fmt::Display) -> Self {
        self.mend = Some(mend.to_string());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        match &self.mend {
            Some(mend) => write!(f, "\n  help: {mend}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// Turns an error of the system into a failure that says what was being done.
pub trait Context<T> {
    /// The value, or the failure `code` saying "`doing`: error".
    ///
    /// # Errors
    /// The error, with its context.
    fn context(self, code: &str, doing: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn context(self, code: &str, doing: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::failed(code, format!("{}: {error}", doing())))
    }
}
