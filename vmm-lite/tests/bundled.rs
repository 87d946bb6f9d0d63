//! The bundled guest on /dev/kvm: what it says, what it is told, how it ends.

mod common;

use common::{Guest, left_out};

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
            assert!(guest.visit(&path, "uptime", "us").contains("up "));
        }
        guest.visit(&path, "poweroff", "");
        assert_eq!(guest.end(), (Some(0), "the guest powered off".into()));
        assert!(!path.exists(), "its name goes with it");
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
