//! The bundled guest on /dev/kvm: what it says, what it is told, how it ends.

mod common;

use common::{
    Guest, left_out,
    silent::{SET_FEATURES, silent},
};
use probe::{
    Answer, Request,
    answer::Unreachable,
    ask::{Hello, Ping, Source},
};
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Runs the test body with a guest, where there is KVM.
fn with_guest(arguments: &[&str], test: impl FnOnce(&mut Guest)) {
    if std::fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return left_out("the bundled guest: /dev/kvm is not there for us");
    }
    test(&mut Guest::start(arguments));
}

#[test]
fn it_greets_and_powers_off() {
    with_guest(&[], |guest| {
        guest.until("vnet guest");
        let greeting = guest.until("TSC ");
        assert!(greeting.contains("64 MiB"), "{greeting}");
        guest.tell("poweroff");
        assert_eq!(guest.end(), (Some(0), "the guest powered off".into()));
    });
}

#[test]
fn it_looks_for_devices_only_where_they_can_be() {
    // No memory, its own image, between two devices, no device; the last twice.
    let words = ["0x8000000000", "0x100000", "0xd0000800", "0xd0011000", "0xd0011000"];
    let words = words.map(|base| format!("virtio_mmio.device=4K@{base}:5")).join(" ");
    with_guest(&["--cmdline", &words], |guest| {
        guest.until("TSC ");
        guest.tell("poweroff");
        assert_eq!(guest.end(), (Some(0), "the guest powered off".into()));
    });
}

#[test]
fn it_resets() {
    with_guest(&["--memory", "4M"], |guest| {
        guest.tell("reset");
        assert_eq!(guest.end(), (Some(0), "the guest asked for a reset".into()));
    });
}

#[test]
fn its_panic_is_on_the_console_and_in_the_reason() {
    with_guest(&[], |guest| {
        guest.tell("panic");
        guest.until("guest panic: ");
        guest.until("as asked");
        let reason = "the guest panicked (what it said is on its console)";
        assert_eq!(guest.end(), (Some(1), reason.into()));
    });
}

#[test]
fn it_is_stopped_while_it_waits() {
    with_guest(&["--cpus", "16"], |guest| {
        guest.until("up ");
        guest.terminate();
        assert_eq!(guest.end(), (Some(0), "stopped from outside".into()));
    });
}

#[test]
fn it_is_paused_resumed_and_killed_by_its_control_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    with_guest(&["--cpus", "2", "--control", path.to_str().unwrap()], |guest| {
        guest.until("up ");
        for (asked, answer) in [
            ("state", "running\n"),
            ("pause", "ok\n"),
            ("pause", "ok\n"),
            ("state", "paused\n"),
            ("resume", "ok\n"),
            ("state", "running\n"),
            ("link 0 down", "error: there is no interface 0\n"),
            ("dance", "error: state, exits, pause, resume,"),
        ] {
            assert!(guest.visit(&path, asked, "\n").starts_with(answer), "{asked}");
        }
        // Two vCPUs were held, and one of them is the guest's: it goes on.
        guest.tell("uptime");
        guest.until("up ");
        assert_eq!(guest.visit(&path, "pause", "\n"), "ok\n");
        assert_eq!(guest.visit(&path, "kill", "\n"), "ok\n");
        assert_eq!(guest.end(), (Some(0), "stopped from outside".into()));
        assert!(!path.exists(), "its name goes with it");
    });
}

#[test]
fn its_exits_are_counted_by_kind_with_what_they_cost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    with_guest(&["--cpus", "2", "--control", path.to_str().unwrap()], |guest| {
        let exits = |guest: &mut Guest| {
            let answer = guest.visit(&path, "exits", "\n");
            let counts = answer.split_ascii_whitespace().map(|word| {
                let (kind, rest) = word.split_once('=').unwrap();
                let (count, nanoseconds) = rest.split_once('/').unwrap();
                (kind.to_owned(), (count.parse::<u64>().unwrap(), nanoseconds.parse::<u64>().unwrap()))
            });
            counts.collect::<std::collections::BTreeMap<_, _>>()
        };
        let before = exits(guest);
        assert!(before.keys().eq(["interrupted", "mmio", "other", "port", "wait"]), "{before:?}");
        guest.until("up ");
        guest.tell("uptime");
        guest.until("up ");
        // The guest may be on its way to wait again.
        let mut after = exits(guest);
        while after["wait"] == before["wait"] {
            after = exits(guest);
        }
        for kind in ["port", "wait"] {
            assert!(after[kind].0 > before[kind].0 && after[kind].1 > before[kind].1, "{before:?} {after:?}");
        }
        assert_eq!((after["mmio"], after["other"]), ((0, 0), (0, 0)), "it has no devices");
    });
}

#[test]
fn each_of_its_threads_is_confined_before_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let [control, image] = ["c.sock", "d.img"].map(|name| folder.path().join(name));
    std::fs::write(&image, [0; 512]).unwrap();
    let disk = format!("path={}", image.display());
    let arguments = ["--cpus", "2", "--control", control.to_str().unwrap(), "--disk", &disk, "--rng"];
    with_guest(&arguments, |guest| {
        guest.until("vnet guest");
        let threads = guest.threads();
        let mut names: Vec<_> = threads.iter().map(|thread| thread.name.as_str()).collect();
        names.sort_unstable();
        let all = ["console", "control", "disk0", "probe", "rng", "signals", "vcpu0", "vcpu1", "vmm-lite"];
        assert_eq!(names, all);
        for thread in threads {
            assert!(thread.has_filter && thread.gains_no_rights, "{thread:?}");
        }
        guest.terminate();
        assert_eq!(guest.end(), (Some(0), "stopped from outside".into()));
    });
}

#[test]
fn what_cannot_be_a_disk_is_told_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("odd.img");
    std::fs::write(&image, [0; 1000]).unwrap();
    let disk = format!("path={}", image.display());
    with_guest(&["--disk", &disk], |guest| {
        let (code, said) = guest.end();
        assert_eq!(code, Some(1));
        assert!(said.contains("size of 1000 bytes is no multiple of 512"), "{said}");
    });
}

#[test]
fn what_is_typed_ends_its_waits() {
    with_guest(&[], |guest| {
        for _ in 0..3 {
            guest.until("up ");
            guest.tell("uptime");
        }
        guest.tell("poweroff");
        assert_eq!(guest.end().0, Some(0));
    });
}

#[test]
fn its_console_is_a_socket_for_one_visitor_after_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.sock");
    let console = format!("socket={}", path.display());
    with_guest(&["--console", &console], |guest| {
        for _ in 0..2 {
            // Nothing that it says of itself as it comes up.
            guest.visit(&path, "ping 10.0.0.9", "10.0.0.9: no interface has a way there");
        }
        guest.visit(&path, "poweroff", "");
        assert_eq!(guest.end(), (Some(0), "the guest powered off".into()));
        assert!(!path.exists(), "its name goes with it");
    });
}

#[test]
fn its_console_has_a_log_and_its_probe_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let [console, log, probe] = ["c.sock", "c.log", "p.sock"].map(|name| folder.path().join(name));
    let console = format!("socket={},log={}", console.display(), log.display());
    with_guest(&["--console", &console, "--probe", &format!("socket={}", probe.display())], |guest| {
        let hello = Hello { version: probe::VERSION, name: "guest".into() };
        let answer = guest.ask(&probe, Request::Hello(hello));
        assert!(matches!(&answer, Answer::Ready(ready) if ready.name == "guest"), "{answer:?}");
        let nobody = Ping {
            dst: [10, 0, 0, 1].into(),
            from: Source::Any,
            count: 1,
            payload: 8,
            interval: Duration::ZERO,
            timeout: Duration::from_secs(1),
        };
        let no_route = Answer::Ping(Err(Unreachable::NoRoute));
        assert_eq!(guest.ask(&probe, Request::Ping(nobody)), no_route);
        assert_eq!(guest.ask(&probe, Request::Shutdown), Answer::Done);
        assert_eq!(guest.end(), (Some(0), "the guest powered off".into()));
        assert!(std::fs::read_to_string(&log).unwrap().contains("vnet guest"));
        assert!(!probe.exists(), "its name goes with it");
    });
}

#[test]
fn more_is_typed_than_the_fifo_holds() {
    with_guest(&[], |guest| {
        guest.tell(&"x".repeat(5000));
        guest.until("poweroff, reset, panic");
        guest.tell("poweroff");
        assert_eq!(guest.end().0, Some(0));
    });
}

/// With a guest that has a switch.
fn at_switch(socket: &Path, test: impl FnOnce(&mut Guest)) {
    let net = format!("socket={},mac=02:00:00:00:00:01,address=10.0.0.1/24", socket.display());
    with_guest(&["--net", &net], test);
}

#[test]
fn it_runs_though_its_switch_has_fallen_silent_and_can_be_ended() {
    let (_folder, socket, device) = silent(false);
    at_switch(&socket, |guest| {
        let began = Instant::now();
        guest.until("eth");
        guest.tell("uptime");
        guest.until("up ");
        guest.tell("poweroff");
        assert_eq!(guest.end(), (Some(0), "the guest powered off".into()));
        assert!(began.elapsed() < Duration::from_secs(4), "it was held up for {:?}", began.elapsed());
        let heard = device.join().unwrap();
        assert_eq!(heard.last(), Some(&SET_FEATURES), "it was told what the driver wants: {heard:?}");
    });
}

#[test]
fn a_socket_that_says_nothing_is_told_in_time() {
    let (_folder, socket, device) = silent(true);
    at_switch(&socket, |guest| {
        let (code, said) = guest.end();
        assert!(code == Some(1) && said.contains("switch.sock: no answer within 5s"), "{code:?} {said}");
        device.join().unwrap();
    });
}

#[test]
fn it_is_stopped_though_nobody_reads_what_it_prints() {
    if std::fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return left_out("a bundled guest that nobody hears: /dev/kvm is not there for us");
    }
    let mut vmm = Command::new(env!("CARGO_BIN_EXE_vmm-lite"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, output) = (vmm.stdin.take().unwrap(), vmm.stdout.take().unwrap());
    let room = rustix::pipe::fcntl_setpipe_size(&output, 8192).unwrap();
    input.write_all(&b"uptime\n".repeat(2000)).unwrap();
    // Full, for its last page has begun: the vCPU waits for a reader.
    while rustix::io::ioctl_fionread(&output).unwrap() <= room as u64 / 2 {
        assert_eq!(vmm.try_wait().unwrap(), None);
    }
    let began = Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&vmm), rustix::process::Signal::TERM)
        .unwrap();
    assert_eq!(vmm.wait().unwrap().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(3), "it took {:?}", began.elapsed());
}
