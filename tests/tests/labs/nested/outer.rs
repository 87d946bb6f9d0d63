//! The outer guest: QEMU without KVM, but with a CPU that has SVM.

use std::{
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

/// How long all of it may take: many times what it takes where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(900);

/// What is said in an outer guest until it powers off.
pub(super) fn play(kernel: &Path, initrd: &Path) -> String {
    Outer::start(kernel, initrd).until_its_end()
}

/// The outer guest; killed if the test ends before it.
struct Outer {
    qemu: Child,
    output: Receiver<Vec<u8>>,
}

impl Outer {
    fn start(kernel: &Path, initrd: &Path) -> Self {
        let mut qemu = Command::new("qemu-system-x86_64")
            // One CPU: with two, each a thread of QEMU's, guests fall over in the emulated SVM now and then.
            .args([
                "-accel",
                "tcg",
                "-cpu",
                "max,+svm,+npt",
                "-m",
                "2048",
                "-smp",
                "1",
                "-nographic",
                "-no-reboot",
            ])
            .args(["-nodefaults", "-serial", "stdio", "-append", "console=ttyS0 quiet panic=1"])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initrd)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("QEMU starts");
        let mut console = qemu.stdout.take().expect("a pipe");
        let (heard, output) = channel();
        // It ends with QEMU, which closes the pipe.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = console.read(&mut bytes) {
                if heard.send(bytes[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { qemu, output }
    }

    /// What was said until the outer guest powered off.
    fn until_its_end(self) -> String {
        let end = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        while let Ok(bytes) = self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
            said.extend(bytes);
        }
        let said = String::from_utf8_lossy(&said).replace('\r', "");
        assert!(Instant::now() < end, "it hangs after:\n{said}");
        said
    }
}

impl Drop for Outer {
    fn drop(&mut self) {
        // One that has ended already cannot be killed.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
