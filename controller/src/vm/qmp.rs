//! QMP, QEMU's control protocol: one JSON object a line, commands answered in order, events in between.

use crate::lab::sockets;
use serde_json::{Value, json};
use std::{
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

/// A line longer than this is nothing that QEMU says to the commands here.
const LONGEST_LINE: usize = 1 << 20;

/// Why QEMU did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket failed; `UnexpectedEof`: QEMU has ended.
    #[error("QEMU's control socket: {0}")]
    Socket(#[from] io::Error),
    /// No answer in time.
    #[error("QEMU did not answer `{0}` in time")]
    Silent(&'static str),
    /// QEMU refused.
    #[error("QEMU refused `{command}`: {said}")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's words.
        said: String,
    },
    /// What came is no QMP.
    #[error("QEMU's control socket speaks no QMP")]
    NotQmp,
}

/// Whether a machine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// True: its CPUs run.
    pub running: bool,
    /// QEMU's word: `running`, `paused`, `shutdown`, `guest-panicked`, …
    pub status: String,
}

/// A connection to one QEMU. After an error other than [`QmpError::Refused`] it is of no further use.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    unread: Vec<u8>,
    patience: Duration,
}

impl Qmp {
    /// Connects to the socket at `path` and shakes hands. Each exchange, this one included, may take `patience`.
    /// A QEMU whose vhost-user interfaces are not all connected yet accepts, but does not greet.
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, QmpError> {
        Self::over(sockets::connect(path)?, patience)
    }

    fn over(stream: UnixStream, patience: Duration) -> Result<Self, QmpError> {
        let mut qmp = Self { stream, unread: Vec::new(), patience };
        let greeting = qmp.line("greeting", Instant::now() + patience)?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::NotQmp);
        }
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Sets the link state that the guest sees on the interface with this netdev id ([`super::qemu::netdev_id`]).
    pub fn set_link(&mut self, netdev: &str, up: bool) -> Result<(), QmpError> {
        self.execute("set_link", &json!({ "name": netdev, "up": up })).map(drop)
    }

    /// Ends QEMU at once.
    pub fn quit(&mut self) -> Result<(), QmpError> {
        self.execute("quit", &json!({})).map(drop)
    }

    /// Presses the power button: the guest may shut down, or not listen.
    pub fn system_powerdown(&mut self) -> Result<(), QmpError> {
        self.execute("system_powerdown", &json!({})).map(drop)
    }

    /// Asks whether the machine runs.
    pub fn query_status(&mut self) -> Result<Status, QmpError> {
        let answer = self.execute("query-status", &json!({}))?;
        let status = answer.get("status").and_then(Value::as_str).ok_or(QmpError::NotQmp)?.to_owned();
        Ok(Status {
            running: answer.get("running").and_then(Value::as_bool).ok_or(QmpError::NotQmp)?,
            status,
        })
    }

    fn execute(&mut self, command: &'static str, arguments: &Value) -> Result<Value, QmpError> {
        let deadline = Instant::now() + self.patience;
        self.stream.set_write_timeout(Some(self.patience))?;
        let line = json!({ "execute": command, "arguments": arguments }).to_string() + "\r\n";
        self.stream.write_all(line.as_bytes()).map_err(|e| silence(e, command))?;
        loop {
            let mut answer = self.line(command, deadline)?;
            if let Some(error) = answer.get("error") {
                let said = error.get("desc").and_then(Value::as_str).unwrap_or("without a reason").to_owned();
                return Err(QmpError::Refused { command, said });
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            // Nobody here waits for an event.
            if answer.get("event").is_none() {
                return Err(QmpError::NotQmp);
            }
        }
    }

    fn line(&mut self, command: &'static str, deadline: Instant) -> Result<Value, QmpError> {
        loop {
            if let Some(end) = self.unread.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(|_| QmpError::NotQmp);
            }
            if self.unread.len() > LONGEST_LINE {
                return Err(QmpError::NotQmp);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(QmpError::Silent(command));
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                Ok(length) => self.unread.extend_from_slice(&chunk[..length]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(silence(e, command)),
            }
        }
    }
}

/// A socket's timeout is QEMU's silence.
fn silence(error: io::Error, command: &'static str) -> QmpError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => QmpError::Silent(command),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{BufRead, BufReader},
        thread::{self, JoinHandle},
    };

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;

    /// A QEMU that greets, then gives these answers, and returns what it was told.
    fn qemu(answers: &'static [&'static str]) -> (UnixStream, JoinHandle<Vec<String>>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let thread = thread::spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            let mut lines = BufReader::new(theirs).lines();
            writeln!(writer, "{GREETING}").unwrap();
            let mut told = Vec::new();
            for answer in answers {
                told.extend(lines.next().transpose().unwrap());
                writeln!(writer, "{answer}").unwrap();
            }
            told.extend(lines.map_while(Result::ok));
            told
        });
        (ours, thread)
    }

    #[test]
    fn a_command_is_answered_behind_an_event() {
        let (stream, qemu) = qemu(&[
            r#"{"return": {}}"#,
            "{\"event\": \"RESUME\"}\n{\"return\": {\"status\": \"running\", \"running\": true}}",
            r#"{"error": {"class": "GenericError", "desc": "no such device"}}"#,
        ]);
        let mut qmp = Qmp::over(stream, Duration::from_secs(10)).unwrap();
        assert_eq!(qmp.query_status().unwrap(), Status { running: true, status: "running".into() });
        let refusal = qmp.set_link("net7", false).unwrap_err().to_string();
        assert_eq!(refusal, "QEMU refused `set_link`: no such device");
        drop(qmp);
        let told = qemu.join().unwrap();
        let told: Vec<Value> = told.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(told[2], json!({ "execute": "set_link", "arguments": { "name": "net7", "up": false } }));
    }

    #[test]
    fn silence_has_a_deadline_and_an_end_is_told() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(matches!(Qmp::over(ours, Duration::from_millis(1)), Err(QmpError::Silent("greeting"))));
        drop(theirs);
        let (stream, qemu) = qemu(&[]);
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        qemu.join().unwrap();
        assert!(matches!(Qmp::over(stream, Duration::from_secs(10)), Err(QmpError::Socket(_))));
    }
}
