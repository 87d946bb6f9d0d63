//! Agents in network namespaces of their own, as guests are in kernels of their own. User namespaces make that possible
//! without rights, for root as for anybody.

use probe::{Answer, Ask, AskId, Decoder, FromGuest, Mac, Request, answer::Ready, encode};
use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

/// Nothing that is asked here takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_vnet-agent");

/// One agent and the line to it.
pub(crate) struct Guest {
    child: Child,
    line: File,
    said: Receiver<FromGuest>,
    asked: u32,
}

impl Guest {
    /// A guest that has nothing but its loopback interface.
    pub(crate) fn alone() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", AGENT, "-"]);
        let guest = Self::start(command);
        guest.sh("ip link set lo up");
        guest
    }

    /// Two guests, each with an `eth0`, on one wire.
    pub(crate) fn pair() -> [Self; 2] {
        let one = Self::alone();
        let mut command = one.inside();
        command.args(["unshare", "--net", AGENT, "-"]);
        let other = Self::start(command);
        other.sh("ip link set lo up");
        connect(&one, &other);
        [one, other]
    }

    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare and nsenter (util-linux) are installed");
        let stdin = std::os::fd::OwnedFd::from(child.stdin.take().expect("it is piped"));
        let stdout = std::os::fd::OwnedFd::from(child.stdout.take().expect("it is piped"));
        let guest = Self::on(child, stdin.into(), stdout.into());
        assert!(
            matches!(guest.hear(), FromGuest::Ready(_)),
            "a guest begins with Ready (user namespaces must be allowed here: user.max_user_namespaces)"
        );
        guest
    }

    /// The agent `child` at the other end of a line.
    pub(crate) fn on(child: Child, line: File, mut from: File) -> Self {
        let (say, said) = channel();
        thread::spawn(move || {
            let mut decoder = Decoder::new();
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = from.read(&mut buffer) {
                for message in decoder.push(&buffer[..len]) {
                    if say.send(message.expect("the agent writes nothing but messages")).is_err() {
                        return;
                    }
                }
            }
        });
        Self { child, line, said, asked: 0 }
    }

    /// The next message.
    pub(crate) fn hear(&self) -> FromGuest {
        self.said.recv_timeout(PATIENCE).expect("the agent says something")
    }

    /// Asks without waiting.
    pub(crate) fn begin(&mut self, request: Request) -> AskId {
        self.asked += 1;
        let id = AskId::new(self.asked);
        self.write(&encode(&Ask { id, request }).expect("requests here are short"));
        id
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask(&mut self, request: Request) -> Answer {
        let asked = self.begin(request);
        let (id, answer) = self.answer();
        assert_eq!(id, asked);
        answer
    }

    /// The next answer.
    pub(crate) fn answer(&self) -> (AskId, Answer) {
        match self.hear() {
            FromGuest::Answer { id, answer } => (id, answer),
            FromGuest::Ready(ready) => panic!("unasked: {ready:?}"),
        }
    }

    /// Asks again until `done` says so.
    pub(crate) fn ask_until(&mut self, request: &Request, done: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(request.clone());
            if done(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "still {answer:?}");
        }
    }

    /// Puts bytes on the line as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.line.write_all(bytes).expect("the agent reads");
    }

    /// Runs a script in the guest's namespaces.
    pub(crate) fn sh(&self, script: &str) {
        let status = self.inside().args(["sh", "-ec", script]).status().expect("nsenter is installed");
        assert!(status.success(), "{script}: {status}");
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> ExitStatus {
        self.child.wait().expect("it is our child")
    }

    fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--user", "--net", "--preserve-credentials", "--target", &self.child.id().to_string()]);
        command
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) const MACS: [Mac; 2] = [Mac::new([2, 0, 0, 0, 0, 1]), Mac::new([2, 0, 0, 0, 0, 2])];

/// Lays a wire between two guests: 10.0.0.1 and 10.0.0.2, fd00::1 and fd00::2.
pub(crate) fn connect(one: &Guest, other: &Guest) {
    one.sh(&format!(
        "ip link add eth0 address {} type veth peer name eth0 address {} netns {}",
        MACS[0],
        MACS[1],
        other.child.id()
    ));
    for (guest, number) in [(one, 1), (other, 2)] {
        guest.sh(&format!(
            "ip link set eth0 up; ip addr add 10.0.0.{number}/24 dev eth0; ip addr add fd00::{number}/64 dev eth0 nodad"
        ));
    }
}

/// What `Hello` is answered with.
pub(crate) fn ready(answer: Answer) -> Ready {
    match answer {
        Answer::Ready(ready) => ready,
        other => panic!("{other:?}"),
    }
}
