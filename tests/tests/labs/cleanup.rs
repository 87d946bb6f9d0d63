//! How a lab ends otherwise than by `vnet down`: an interrupted `up`, a killed controller, everything killed at once. Whatever
//! it was, nothing is left in the end.

use crate::{
    common::{Lab, topology},
    neighbours::{Neighbours, PORTS},
    process::{Background, eventually, in_role, kill},
};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::Signal,
};
use std::fs;

/// Ctrl-C, a polite kill, and a terminal that is closed.
const ENDS: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::HUP];

/// Moments of a start: before the controller says anything, and behind each thing that it says before it is done.
const MOMENTS: usize = 8;

/// The processes that serve the lab: all but the `vnet up` that a user sees.
fn all(lab: &Lab) -> Vec<u32> {
    lab.processes().iter().map(|pid| pid.parse().expect("a pid")).collect()
}

#[test]
fn an_interrupted_up_is_a_down() {
    for signal in ENDS {
        let lab = Lab::new();
        let mut up = Background::start(&lab, &["up", &topology("hello.vnet.yaml")]);
        up.prints("hello is up");
        up.signal(signal);
        let (status, out, err) = up.end();
        assert_eq!(status.code(), Some(0), "{signal:?}: {out}{err}");
        assert!(out.contains("hello is down"), "{signal:?}: {out}");
        lab.assert_gone();
    }
}

#[test]
fn an_up_that_is_interrupted_while_it_starts_is_taken_back_at_whatever_moment() {
    let mut taken_back = 0;
    for moment in 0..MOMENTS {
        let lab = Lab::new();
        let mut up = Background::start(&lab, &["up", &topology("hello.vnet.yaml")]);
        eventually("the lab's folder", || lab.runtime().join("hello").exists().then_some(()));
        let events = (0..moment).map_while(|_| up.event()).count();
        up.signal(ENDS[moment % ENDS.len()]);
        let (status, out, err) = up.end();
        let was_up = out.contains("hello is up");
        assert_eq!(status.code(), Some(if was_up { 0 } else { 1 }), "behind event {events}: {out}{err}");
        assert!(was_up || err.contains("interrupted"), "behind event {events}: {out}{err}");
        taken_back += usize::from(!was_up);
        lab.assert_gone();
    }
    assert!(taken_back > 0, "none was interrupted while it started");
}

#[test]
fn a_test_that_is_interrupted_leaves_nothing() {
    let lab = Lab::new();
    let mut test = Background::start(&lab, &["test", &topology("hello.vnet.yaml")]);
    test.says("starting");
    test.signal(Signal::INT);
    let (status, out, err) = test.end();
    assert_eq!(status.code(), Some(1), "{out}{err}");
    assert!(err.contains("interrupted"), "{err}");
    lab.assert_gone();
}

/// Two ports for the test's own drivers, and a station.
const LAB: &str = "version: 1\nname: kills\nswitches: { sw1: {} }\nnodes:\n  n1: { kind: vhost-user }\n  \
                   n2: { kind: vhost-user, listen: ./n2.sock }\n  st1: { kind: station, addresses: [10.0.10.9/24] }\nlinks:\n  \
                   - [n1, sw1]\n  - [n2, sw1]\n  - [st1, sw1]\n";

#[test]
fn frames_go_on_without_a_controller_and_down_ends_what_it_left() {
    let lab = Lab::new();
    let file = lab.write("kills.vnet.yaml", LAB);
    let mut up = Background::start(&lab, &["up", file.to_str().unwrap()]);
    up.prints("kills is up");
    let neighbours = Neighbours::start(PORTS.map(|port| lab.port_socket(port)));
    let controller = lab.json(&["ls"])[0]["pid"].as_u64().unwrap();
    kill(controller.try_into().unwrap());

    // Whoever waits in the foreground is told.
    let (status, _, err) = up.end();
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(err.contains("`vnet down` cleans up"), "{err}");
    assert_eq!(lab.json(&["ls"])[0]["state"], "orphaned");
    let (_, err) = lab.expect(3, &["show", "ports"]);
    assert!(err.contains("does not answer") && err.contains("vnet down"), "{err}");
    neighbours.flow();
    assert_eq!(all(&lab).len(), 2, "the switch and the stations");

    neighbours.stop();
    lab.expect(0, &["down"]);
    lab.assert_gone();
    assert!(!file.with_file_name("n2.sock").exists(), "a socket outside of the runtime folder is left");
}

#[test]
fn after_a_kill_of_everything_the_next_up_cleans_up_and_so_does_down() {
    let lab = Lab::new();
    let file = lab.write("kills.vnet.yaml", LAB);
    for round in 0..3 {
        lab.expect(0, &["up", "-d", file.to_str().unwrap()]);
        let neighbours = Neighbours::start(PORTS.map(|port| lab.port_socket(port)));
        neighbours.flow();
        neighbours.stop();
        let all = all(&lab);
        assert_eq!(all.len(), 3, "round {round}: the controller, the switch and the stations");
        all.into_iter().for_each(kill);
        assert_eq!(lab.json(&["ls"])[0]["state"], "orphaned", "round {round}");
    }
    lab.expect(0, &["down"]);
    lab.assert_gone();
    assert!(!file.with_file_name("n2.sock").exists(), "a socket outside of the runtime folder is left");
}

#[test]
fn a_start_whose_controller_is_killed_at_whatever_moment_is_cleaned_up() {
    for moment in 0..MOMENTS {
        let lab = Lab::new();
        let mut up = Background::start(&lab, &["up", "-d", &topology("hello.vnet.yaml")]);
        let controller = eventually("a controller", || in_role(&lab, "serve").pop());
        let events = (0..moment).map_while(|_| up.event()).count();
        kill(controller);
        let (status, out, err) = up.end();
        let was_up = out.contains("hello is up");
        assert_eq!(status.code(), Some(if was_up { 0 } else { 1 }), "behind event {events}: {out}{err}");
        // An `up` that did not get as far as the lab's API cleaned up itself.
        if lab.runtime().join("hello").exists() {
            lab.expect(0, &["--name", "hello", "down"]);
        }
        lab.assert_gone();
    }
}

#[test]
fn a_process_that_was_started_and_not_yet_written_down_is_found() {
    let lab = Lab::new();
    let folder = lab.runtime().join("hello");
    let serve = Background::start(&lab, &["--name", "hello", "serve"]);
    eventually("the controller listens", || folder.join("api.sock").exists().then_some(()));
    // The list of processes is written beside the old one: into a pipe that nobody reads, so that the controller stops
    // between the start of its first process and its note of it.
    mknodat(CWD, folder.join("processes.new"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let up = Background::start(&lab, &["up", "-d", &topology("hello.vnet.yaml")]);
    let switch = eventually("a switch process", || in_role(&lab, "vswitchd").pop());
    kill(serve.pid());
    assert_eq!(up.end().0.code(), Some(1));
    let written = fs::read_to_string(folder.join("processes.json")).unwrap();
    assert!(!written.contains(&switch.to_string()), "{written}");
    assert_eq!(all(&lab), [switch], "only it is left");

    drop(serve);
    lab.expect(0, &["--name", "hello", "down"]);
    lab.assert_gone();
}

#[test]
fn a_test_whose_client_is_killed_is_taken_down_by_its_controller() {
    for moment in ["starting", "ready"] {
        let lab = Lab::new();
        let mut test = Background::start(&lab, &["test", &topology("hello.vnet.yaml")]);
        test.says(moment);
        kill(test.pid());
        eventually("the copy is gone", || (!lab.runtime().exists() && all(&lab).is_empty()).then_some(()));
        lab.assert_gone();
    }
}
