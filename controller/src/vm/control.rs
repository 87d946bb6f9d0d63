//! The control socket of a guest under vmm-lite: a line asks, a line answers.

use crate::lab::sockets;
use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// The longest line that vmm-lite answers.
const LONGEST: u64 = 4096;

/// Why vmm-lite did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket failed, or nobody answered in time.
    #[error("vmm-lite's control socket: {0}")]
    Socket(#[from] io::Error),
    /// It said why not.
    #[error("vmm-lite refused `{asked}`: {said}")]
    Refused {
        /// What was asked.
        asked: String,
        /// Its words.
        said: String,
    },
}

/// A connection to one vmm-lite.
#[derive(Debug)]
pub struct Control(BufReader<UnixStream>);

impl Control {
    /// Connects to the socket at `path`. Each answer may take `patience`.
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, ControlError> {
        let stream = sockets::connect(path)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks one thing, and returns the answer.
    pub fn ask(&mut self, words: &str) -> Result<String, ControlError> {
        writeln!(self.0.get_mut(), "{words}")?;
        let mut answer = String::new();
        (&mut self.0).take(LONGEST).read_line(&mut answer)?;
        let Some(answer) = answer.strip_suffix('\n') else {
            return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
        };
        match answer.strip_prefix("error: ") {
            Some(said) => Err(ControlError::Refused { asked: words.into(), said: said.into() }),
            None => Ok(answer.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::net::UnixListener, thread};

    #[test]
    fn a_line_is_answered_or_refused_and_an_end_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let vmm = thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            for answer in ["running", "error: there is no interface 7"] {
                let mut asked = String::new();
                stream.read_line(&mut asked).unwrap();
                writeln!(stream.get_mut(), "{answer}").unwrap();
            }
        });
        let mut control = Control::connect(&path, Duration::from_secs(10)).unwrap();
        assert_eq!(control.ask("state").unwrap(), "running");
        let why = control.ask("link 7 down").unwrap_err().to_string();
        assert_eq!(why, "vmm-lite refused `link 7 down`: there is no interface 7");
        vmm.join().unwrap();
        assert!(matches!(control.ask("state"), Err(ControlError::Socket(_))));
    }
}
