//! A guest in a process of its own, with its console in our hands.

pub(crate) mod silent;

use probe::{Answer, Ask, AskId, Decoder, FromGuest, Request};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Says what a test needs and this machine lacks: to whoever reads its output, and to `./check`, which counts it.
pub(crate) fn left_out(what: &str) {
    eprintln!("LEFT OUT: {what}");
    if let Some(list) = std::env::var_os("VNET_LEFT_OUT") {
        let mut list = std::fs::OpenOptions::new().append(true).create(true).open(list).unwrap();
        writeln!(list, "{what}").unwrap();
    }
}

/// A thread of a running `vmm-lite`, as the kernel tells of it.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) name: String,
    pub(crate) has_filter: bool,
    pub(crate) gains_no_rights: bool,
}

/// A running `vmm-lite`; killed if a test ends before it.
pub(crate) struct Guest {
    process: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    /// What was printed and not looked at yet.
    said: String,
}

impl Guest {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_vmm-lite"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, mut console) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = console.read(&mut bytes) {
                if sender.send(bytes[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { process, input, output, said: String::new() }
    }

    /// Types a line.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// Waits until the guest has said `text`; what it said up to and with it.
    pub(crate) fn until(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.said.find(text) {
                let rest = self.said.split_off(at + text.len());
                return std::mem::replace(&mut self.said, rest);
            }
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.said.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout) => panic!("no `{text}`, but: {}", self.said),
                Err(RecvTimeoutError::Disconnected) => {
                    let reason = self.end();
                    panic!("no `{text}`, but: {}; {reason:?}", self.said);
                }
            }
        }
    }

    /// Connects to a console that is a socket, types `line`, and returns what was said up to `text`.
    pub(crate) fn visit(&mut self, path: &Path, line: &str, text: &str) -> String {
        let mut stream = self.connect(path);
        writeln!(stream, "{line}").unwrap();
        let (mut said, mut bytes) = (String::new(), [0; 256]);
        while !said.contains(text) {
            let read = stream.read(&mut bytes).unwrap();
            assert_ne!(read, 0, "hung up after: {said}");
            said.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        said
    }

    /// Asks over the probe's socket, and returns the answer.
    pub(crate) fn ask(&mut self, path: &Path, request: Request) -> Answer {
        let mut stream = self.connect(path);
        stream.write_all(&probe::encode(&Ask { id: AskId::new(7), request }).unwrap()).unwrap();
        let (mut decoder, mut bytes) = (Decoder::<FromGuest>::new(), [0; 256]);
        loop {
            let read = stream.read(&mut bytes).unwrap();
            assert_ne!(read, 0, "hung up without an answer");
            for message in decoder.push(&bytes[..read]).flatten() {
                if let FromGuest::Answer { id, answer } = message {
                    assert_eq!(id, AskId::new(7));
                    return answer;
                }
            }
        }
    }

    /// Connects to a socket of the VMM, as soon as it is there.
    fn connect(&mut self, path: &Path) -> UnixStream {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return stream;
                }
                Err(why) => assert!(Instant::now() < deadline, "{why}"),
            }
            assert_eq!(self.process.try_wait().unwrap(), None);
        }
    }

    /// The VMM's threads.
    pub(crate) fn threads(&self) -> Vec<Thread> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let statuses =
            tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap());
        let threads = statuses.map(|status| {
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                line.trim_start_matches(':').trim().to_owned()
            };
            let (has_filter, gains_no_rights) = (field("Seccomp") == "2", field("NoNewPrivs") == "1");
            Thread { name: field("Name"), has_filter, gains_no_rights }
        });
        // A kernel thread that works for KVM counts as the process's: it makes no system calls.
        threads.filter(|thread| !thread.name.starts_with("kvm-")).collect()
    }

    /// Asks the VMM to end.
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for the end: the exit code, and the last that the VMM said.
    pub(crate) fn end(&mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let code = self.process.wait().unwrap().code();
        let last = said.lines().last().unwrap_or_default();
        (code, last.trim_start_matches("vmm-lite: ").to_owned())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
