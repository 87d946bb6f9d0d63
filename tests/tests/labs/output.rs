//! Output that nobody takes: a closed pipe is no failure, a full disk is one that is said, and neither is a panic.

use crate::common::{Lab, topology};
use std::{
    fs::{File, OpenOptions},
    process::{Command, Stdio},
};

/// Runs `vnet` with that standard output: its exit code and what it says on standard error.
fn run(lab: &Lab, arguments: &[&str], stdout: impl Into<Stdio>) -> (Option<i32>, String) {
    let errors = lab.write("errors", "");
    let status = Command::new(env!("CARGO_BIN_EXE_vnet"))
        .args(arguments)
        .env("VNET_RUNTIME_DIR", lab.runtime())
        .env("VNET_STATE_DIR", lab.state())
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(File::create(&errors).expect("a temporary file"))
        .status()
        .expect("vnet starts");
    (status.code(), std::fs::read_to_string(&errors).expect("vnet writes UTF-8"))
}

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").expect("there is a /dev/full")
}

/// A pipe that nobody reads.
fn closed() -> std::io::PipeWriter {
    std::io::pipe().expect("a pipe").1
}

#[test]
fn no_verb_minds_a_reader_that_has_gone_and_each_says_when_its_output_is_lost() {
    let lab = Lab::new();
    let file = topology("hello.vnet.yaml");
    let wrong = std::fs::read_to_string(&file).expect("the example is there") + "  - alice -> web l2 allow\n";
    let wrong = lab.write("wrong.vnet.yaml", &wrong).display().to_string();
    // `up` is first and `down` last: what a verb does is done, whoever listens.
    let verbs: [(&[&str], i32); 13] = [
        (&["up", "-d", &file], 0),
        (&["--help"], 0),
        (&["validate", &file], 0),
        (&["explain", "no-receiver"], 0),
        (&["ls"], 0),
        (&["show", "ports"], 0),
        (&["show", "nodes", "--format", "json"], 0),
        (&["pingall"], 0),
        (&["trace", "alice", "web", "icmp"], 0),
        (&["logs", "controller"], 0),
        (&["test", "--running"], 0),
        (&["test", &wrong], 6),
        (&["down"], 0),
    ];
    for (verb, earned) in verbs {
        let (code, said) = run(&lab, verb, closed());
        assert_eq!(code, Some(earned), "{verb:?} into a closed pipe: {said}");
        assert!(
            !said.contains("panicked") && !said.contains("error["),
            "{verb:?} into a closed pipe: {said}"
        );
    }
    lab.assert_gone();
    for (verb, _) in verbs {
        let (code, said) = run(&lab, verb, full());
        assert_eq!(code, Some(1), "{verb:?} into /dev/full: {said}");
        assert!(!said.contains("panicked"), "{verb:?} into /dev/full: {said}");
        assert!(said.contains("error[output]"), "{verb:?} into /dev/full: {said}");
    }
    lab.assert_gone();
}

#[test]
fn a_file_comes_from_standard_input_too_and_errors_there_have_one_code() {
    let lab = Lab::new();
    let text = lab.write("bad.yaml", "version: 1\nname: bad\nlinks:\n  - [nobody, nowhere]\n");
    let output = Command::new(env!("CARGO_BIN_EXE_vnet"))
        .args(["validate", "-"])
        .stdin(File::open(text).expect("it was written"))
        .output()
        .expect("vnet starts");
    let said = String::from_utf8(output.stderr).expect("vnet writes UTF-8");
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("error[T0") && said.contains("standard input:4"), "{said}");
}

#[test]
fn a_name_and_a_flag_in_the_environment_are_taken_where_they_mean_something() {
    let lab = Lab::new();
    let file = topology("hello.vnet.yaml");
    for verb in [
        &["validate", &file] as &[&str],
        &["test", &file],
        &["bench"],
        &["demo"],
        &["doctor"],
        &["explain", "runt"],
    ] {
        let (_, said) = lab.expect(2, &[&["--name", "office"], verb].concat());
        assert!(said.contains("--name says which running lab is meant"), "{said}");
    }
    let status = Command::new(env!("CARGO_BIN_EXE_vnet"))
        .args(["up", &file])
        .envs([("VNET_DETACH", "1"), ("VNET_NAME", "office")])
        .env("VNET_RUNTIME_DIR", lab.runtime())
        .env("VNET_STATE_DIR", lab.state())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("vnet starts");
    assert!(status.success());
    lab.expect(0, &["--name", "office", "down"]);
    lab.assert_gone();
}

#[test]
fn what_cannot_be_done_is_told_in_words_once() {
    let lab = Lab::new();
    let hello = topology("hello.vnet.yaml");
    // An empty variable is as if it were not there, and `no` to a flag collides with nothing.
    for no in ["", "false"] {
        lab.expect_with(0, &[("VNET_RUNNING", no), ("VNET_FORMAT", "")], &["test", &hello]);
    }
    lab.expect(0, &["up", "-d", &hello]);
    assert_eq!(lab.expect(0, &["logs"]).0, "controller\nstation\nvswitchd\n");
    for (one, other) in [("switch", "vswitchd"), ("stations", "station")] {
        assert_eq!(lab.expect(0, &["logs", one]).0, lab.expect(0, &["logs", other]).0);
    }
    for (arguments, said) in [
        (vec!["logs", "nobody"], "has no log of `nobody`"),
        (vec!["console", "alice"], "node alice of lab hello has no console"),
        (vec!["transfer", "alice", "alice"], "alice is both ends"),
        (vec!["export", "qemu", "alice"], "alice is a station: vnet runs it, and it needs no VMM"),
    ] {
        let (_, err) = lab.expect(2, &arguments);
        assert!(err.contains(said) && !err.contains("os error"), "{arguments:?}: {err}");
    }
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn a_cpu_that_this_machine_does_not_have_is_refused_by_up_and_by_up_alone_and_nothing_stays() {
    let lab = Lab::new();
    let text = "version: 1\nswitches: { sw1: {} }\nnodes: { a: { kind: station } }\nlinks: [[a, sw1]]\n\
                datapath: { workers: 1, cpus: [1023] }\n";
    let file = lab.write("cpus.vnet.yaml", text);
    lab.expect(0, &["validate", file.to_str().unwrap()]);
    let (_, err) = lab.expect(5, &["up", "-d", file.to_str().unwrap()]);
    assert!(err.contains("error[no-such-cpu]") && err.contains("cpus.vnet.yaml:5:"), "{err}");
    lab.assert_gone();
}

#[test]
fn the_lab_whose_socket_is_in_the_way_is_named() {
    let lab = Lab::new();
    let text = "version: 1\nname: NAME\nswitches: { sw1: {} }\nnodes:\n  ext1: { kind: vhost-user, listen: ./ext1.sock }\n\
                links:\n  - [ext1, sw1]\n";
    let [first, second] =
        ["first", "second"].map(|name| lab.write(&format!("{name}.vnet.yaml"), &text.replace("NAME", name)));
    lab.expect(0, &["up", "-d", first.to_str().unwrap()]);
    let (_, err) = lab.expect(4, &["up", "-d", second.to_str().unwrap()]);
    assert_eq!(err.matches("another vnet lab (first) listens there").count(), 1, "{err}");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}
