//! Every example is a lab whose expectations hold, proved by `vnet test` as a user runs it; and one that is wrong is told.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// `vnet` with a runtime folder of its own, which must be gone when it ends.
fn vnet(arguments: &[&str]) -> Output {
    let folder = tempfile::Builder::new().prefix("v").tempdir().unwrap();
    let runtime = folder.path().join("r");
    let output = Command::new(env!("CARGO_BIN_EXE_vnet"))
        .args(arguments)
        .env("VNET_RUNTIME_DIR", &runtime)
        .output()
        .unwrap();
    assert!(!runtime.exists(), "the lab left something in {}: {}", runtime.display(), shown(&output));
    assert_eq!(processes_of(&runtime), Vec::<String>::new(), "processes were left");
    output
}

/// The processes that were started with this runtime folder.
fn processes_of(runtime: &Path) -> Vec<String> {
    let marker = format!("VNET_RUNTIME_DIR={}", runtime.display()).into_bytes();
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let ours = processes.filter(|process| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == marker)
    });
    ours.map(|process| fs::read_to_string(process.join("cmdline")).unwrap_or_default()).collect()
}

fn shown(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../topologies").join(format!("{name}.vnet.yaml"))
}

fn expectations_hold(name: &str) {
    let output = vnet(&["test", example(name).to_str().unwrap()]);
    let text = shown(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("PASS") && !text.contains("FAIL") && !text.contains("ERROR"), "{text}");
}

#[test]
fn hello() {
    expectations_hold("hello");
}

#[test]
fn trunk() {
    expectations_hold("trunk");
}

#[test]
fn wire() {
    expectations_hold("wire");
}

#[test]
fn linux() {
    if std::env::var("VNET_TIER").as_deref() != Ok("all") {
        eprintln!("LEFT OUT: real guests; ./check --all runs them");
        return;
    }
    expectations_hold("linux");
}

#[test]
fn a_wrong_expectation_ends_with_6_and_shows_the_frame_that_decided_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.vnet.yaml");
    let text = fs::read_to_string(example("hello")).unwrap();
    fs::write(&file, format!("{text}  - alice -> web l2 allow\n")).unwrap();
    let output = vnet(&["test", file.to_str().unwrap()]);
    let text = shown(&output);
    assert_eq!(output.status.code(), Some(6), "{text}");
    for part in ["FAIL  alice -> web l2 allow", "does not hold", "came in at alice:eth0", "flooded"] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn a_deny_towards_a_guest_that_is_not_there_is_an_error_and_no_pass() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dead.vnet.yaml");
    let lab = "version: 1\nvlans: { a: { id: 10 }, b: { id: 20 } }\nswitches: { sw1: {} }\nnodes:\n  \
               h1: { kind: station, addresses: [10.0.0.1/24] }\n  ext1: { kind: vhost-user }\nlinks:\n  \
               - { endpoints: [h1, sw1], vlan: { access: a } }\n  - { endpoints: [ext1, sw1], vlan: { access: b } }\n\
               expect:\n  - h1 -> ext1 l2 deny because vlan\n";
    fs::write(&file, lab).unwrap();
    let output = vnet(&["test", file.to_str().unwrap()]);
    let text = shown(&output);
    assert_eq!(output.status.code(), Some(6), "{text}");
    assert!(text.contains("ERROR h1 -> ext1 l2 deny because vlan"), "{text}");
}
