//! What the end-to-end tests share: a lab in a runtime folder of its own, and what it leaves behind.

use controller::api::types::{DatapathView, PortRow};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};
use vswitchd::{control::protocol::PortState, counters::check_law};

/// How long one `vnet` command may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(240);

/// How long a port may take to come up behind its driver.
const UP_WITHIN: Duration = Duration::from_secs(20);

/// A runtime folder that no other test uses; its labs are taken down when it is dropped.
pub(crate) struct Lab {
    base: tempfile::TempDir,
    folder: String,
}

impl Lab {
    /// An empty runtime folder.
    pub(crate) fn new() -> Self {
        Self::in_a_folder_named("r")
    }

    /// The same with a name of its own.
    pub(crate) fn in_a_folder_named(folder: &str) -> Self {
        let base = tempfile::Builder::new().prefix("v").tempdir().expect("a temporary folder can be made");
        Self { base, folder: folder.into() }
    }

    /// Where labs live; it exists only while one does.
    pub(crate) fn runtime(&self) -> PathBuf {
        self.base.path().join(&self.folder)
    }

    /// Where labs keep what is to be there when they are up again.
    pub(crate) fn state(&self) -> PathBuf {
        self.base.path().join("state")
    }

    /// Where this test may make something.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    /// A file of this test's own.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("a temporary file can be written");
        path
    }

    /// Runs `vnet` to its end, or fails the test if it hangs.
    pub(crate) fn vnet(&self, arguments: &[&str]) -> Output {
        self.vnet_with(&[], &[], arguments)
    }

    /// The same by another program that runs it, and with more in its environment.
    fn vnet_with(&self, by: &[String], environment: &[(&str, &str)], arguments: &[&str]) -> Output {
        // One name for each run: several threads may ask at a time.
        let files =
            [(); 2].map(|()| tempfile::NamedTempFile::new_in(self.base.path()).expect("a temporary file"));
        let [out, err] = files.each_ref().map(|file| file.reopen().expect("a temporary file"));
        let mut words = by.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_vnet")]);
        let mut child = Command::new(words.next().expect("one at least"))
            .args(words)
            .args(arguments)
            .env("VNET_RUNTIME_DIR", self.runtime())
            .env("VNET_STATE_DIR", self.state())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            // Files, not pipes: a controller that stays behind must not keep the reader waiting.
            .stdout(out)
            .stderr(err)
            .spawn()
            .expect("vnet starts");
        let pid = rustix::process::Pid::from_child(&child);
        let watched =
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("a pidfd");
        let mut polled = [rustix::event::PollFd::new(&watched, rustix::event::PollFlags::IN)];
        let timeout = PATIENCE.try_into().expect("minutes fit");
        if rustix::event::poll(&mut polled, Some(&timeout)).expect("poll") == 0 {
            child.kill().expect("it runs");
            child.wait().expect("it was killed");
            panic!("vnet {arguments:?} hangs");
        }
        let status = child.wait().expect("it ended");
        let [stdout, stderr] = files.map(|file| fs::read(file).expect("a temporary file"));
        Output { status, stdout, stderr }
    }

    /// Runs `vnet`, expects exit status `code`, and returns standard output and standard error.
    pub(crate) fn expect(&self, code: i32, arguments: &[&str]) -> (String, String) {
        self.expect_with(code, &[], arguments)
    }

    /// The same by another program that runs it.
    pub(crate) fn expect_by(&self, code: i32, by: &[String], arguments: &[&str]) -> (String, String) {
        ended(code, self.vnet_with(by, &[], arguments), arguments)
    }

    /// The same with more in its environment.
    pub(crate) fn expect_with(
        &self,
        code: i32,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> (String, String) {
        ended(code, self.vnet_with(&[], environment, arguments), arguments)
    }

    /// The vhost-user socket of `node:interface`, a port that listens.
    pub(crate) fn port_socket(&self, port: &str) -> PathBuf {
        let ports = self.json(&["show", "ports"]);
        let row = ports.as_array().expect("rows").iter().find(|row| row["port"] == port);
        row.and_then(|row| row["socket"].as_str()).expect("it listens").into()
    }

    /// What a command with `--format json` says.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let (out, _) = self.expect(0, &[arguments, &["--format", "json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|why| panic!("vnet {arguments:?}: {why}: {out}"))
    }

    /// `show ports`, by `node:interface`.
    pub(crate) fn ports(&self) -> BTreeMap<String, PortRow> {
        let rows =
            serde_json::from_value::<Vec<PortRow>>(self.json(&["show", "ports"])).expect("rows of ports");
        rows.into_iter().map(|row| (row.port.clone(), row)).collect()
    }

    /// Waits until a port is up, and returns all ports at that moment.
    pub(crate) fn port_up(&self, port: &str) -> BTreeMap<String, PortRow> {
        let end = Instant::now() + UP_WITHIN;
        loop {
            let ports = self.ports();
            if ports[port].state == PortState::Up {
                return ports;
            }
            assert!(Instant::now() < end, "{port} does not come up: {:?}", ports[port]);
        }
    }

    /// The accounting law holds, no port was stopped, and the datapath met no panic.
    pub(crate) fn assert_sound(&self) {
        let ports = self.ports();
        check_law(ports.values().map(|row| &row.counters)).expect("the accounting law");
        assert!(ports.values().all(|row| row.counters.faults == 0), "a port was stopped: {ports:?}");
        let datapath: DatapathView =
            serde_json::from_value(self.json(&["show", "datapath"])).expect("a datapath");
        assert!(datapath.workers.iter().all(|worker| worker.panics == 0), "{datapath:?}");
        assert_eq!(datapath.restarts, 0, "the switch was restarted");
    }

    /// The processes that were started with our runtime folder in their environment.
    pub(crate) fn processes(&self) -> Vec<String> {
        let mark = self.runtime().into_os_string().into_encoded_bytes();
        let all = fs::read_dir("/proc").expect("/proc is there");
        let ours = all.filter_map(Result::ok).filter(|entry| {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            environment.windows(mark.len()).any(|window| window == mark)
        });
        ours.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Nothing is left of any lab. The controller itself may still be on its last instructions.
    pub(crate) fn assert_gone(&self) {
        let end = Instant::now() + Duration::from_secs(5);
        while !self.processes().is_empty() && Instant::now() < end {
            std::thread::yield_now();
        }
        assert_eq!(self.processes(), [""; 0], "processes are left");
        assert!(!self.runtime().exists(), "the runtime folder is left");
    }
}

/// What a `vnet` said that is to have ended so.
fn ended(code: i32, output: Output, arguments: &[&str]) -> (String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("vnet writes UTF-8");
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "vnet {arguments:?}\n{out}\n{err}");
    (out, err)
}

impl Drop for Lab {
    fn drop(&mut self) {
        let labs = fs::read_dir(self.runtime()).into_iter().flatten().filter_map(Result::ok);
        for lab in labs.filter_map(|entry| entry.file_name().into_string().ok()) {
            self.vnet(&["--name", &lab, "down"]);
        }
    }
}

/// The path of a file in `topologies/`.
pub(crate) fn topology(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    root.join("topologies").join(name).display().to_string()
}

/// Whether tests with real guests run: in `./check --all`, with QEMU.
pub(crate) fn real_guests() -> bool {
    if std::env::var("VNET_TIER").as_deref() != Ok("all") {
        eprintln!("LEFT OUT: real guests; ./check --all runs them");
        return false;
    }
    let found = Command::new("qemu-system-x86_64").arg("--version").stdout(Stdio::null()).status();
    if found.is_err() {
        left_out("real guests: this machine lacks qemu-system-x86_64");
    }
    found.is_ok()
}

/// Whether bundled guests run here; says that `what` is left out if not.
pub(crate) fn kvm(what: &str) -> bool {
    let there = fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if !there {
        left_out(&format!("{what}: /dev/kvm is not there for us"));
    }
    there
}

/// Says what a test needs and this machine lacks: to whoever reads its output, and to `./check`, which counts it.
pub(crate) fn left_out(what: &str) {
    eprintln!("LEFT OUT: {what}");
    if let Some(list) = std::env::var_os("VNET_LEFT_OUT") {
        let mut list = fs::OpenOptions::new().append(true).create(true).open(list).expect("./check's list");
        writeln!(list, "{what}").expect("./check's list");
    }
}
